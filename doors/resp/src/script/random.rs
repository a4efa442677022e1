//! `math.random` and `math.randomseed`: the generator of `drand48(3)`, so that a seed gives the
//! numbers that it gives in Redis. Every script starts with the same seed.

use std::cell::Cell;
use std::rc::Rc;

use mlua::{Lua, MultiValue, Table};

use super::raise::{self, bad_argument, number_at};

/// The generator's 48 bits.
pub(super) struct Random(Cell<u64>);

impl Random {
    /// A generator seeded with 0.
    pub(super) fn new() -> Self {
        let random = Self(Cell::new(0));
        random.seed(0);
        random
    }

    /// Starts the numbers of a seed.
    pub(super) fn seed(&self, seed: i32) {
        self.0.set(u64::from(seed as u32) << 16 | 0x330e);
    }

    /// A number from 0, below 1.
    fn next(&self) -> f64 {
        let state = self.0.get().wrapping_mul(0x5_deec_e66d).wrapping_add(0xb) & ((1 << 48) - 1);
        self.0.set(state);
        let most = i32::MAX as u64;
        ((state >> 17) % most) as f64 / most as f64
    }
}

/// Puts both functions into the library `math`.
pub(super) fn install(lua: &Lua, math: &Table, random: Rc<Random>) -> mlua::Result<()> {
    let seeds = Rc::clone(&random);
    math.raw_set(
        "random",
        lua.create_function(move |lua, args: MultiValue| pick(lua, &args, random.next()))?,
    )?;
    math.raw_set(
        "randomseed",
        lua.create_function(move |lua, args: MultiValue| {
            seeds.seed(number_at(lua, &args, 0, "randomseed")? as i64 as i32);
            Ok(())
        })?,
    )
}

fn pick(lua: &Lua, args: &MultiValue, share: f64) -> mlua::Result<f64> {
    let whole = |i: usize| Ok::<_, mlua::Error>(number_at(lua, args, i, "random")? as i64 as i32);
    match args.len() {
        0 => Ok(share),
        1 => {
            let most = whole(0)?;
            if most < 1 {
                return Err(bad_argument(lua, 1, "random", "interval is empty"));
            }
            Ok((share * f64::from(most)).floor() + 1.0)
        }
        2 => {
            let (least, most) = (whole(0)?, whole(1)?);
            if least > most {
                return Err(bad_argument(lua, 2, "random", "interval is empty"));
            }
            let span = f64::from(most.wrapping_sub(least).wrapping_add(1));
            Ok((share * span).floor() + f64::from(least))
        }
        _ => Err(raise::error(lua, "wrong number of arguments")),
    }
}
