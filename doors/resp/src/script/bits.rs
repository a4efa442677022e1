//! The library `bit`: numbers as 32 bits, as Lua BitOp defines them (<https://bitop.luajit.org>).

use mlua::{Lua, MultiValue, Table};

use super::raise::{number_at, number_or};

/// Makes the library.
pub(super) fn module(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    one(lua, &table, "tobit", |bits| bits)?;
    one(lua, &table, "bnot", |bits| !bits)?;
    one(lua, &table, "bswap", u32::swap_bytes)?;
    many(lua, &table, "band", |left, right| left & right)?;
    many(lua, &table, "bor", |left, right| left | right)?;
    many(lua, &table, "bxor", |left, right| left ^ right)?;
    shift(lua, &table, "lshift", |bits, by| bits << by)?;
    shift(lua, &table, "rshift", |bits, by| bits >> by)?;
    shift(lua, &table, "arshift", |bits, by| ((bits as i32) >> by) as u32)?;
    shift(lua, &table, "rol", u32::rotate_left)?;
    shift(lua, &table, "ror", u32::rotate_right)?;
    table.raw_set("tohex", lua.create_function(tohex)?)?;
    Ok(table)
}

/// The low 32 bits of a number, rounded to the nearest whole one.
fn bits_at(lua: &Lua, args: &MultiValue, i: usize, name: &str) -> mlua::Result<u32> {
    const WRAP: f64 = 4_294_967_296.0;
    let whole = number_at(lua, args, i, name)?.round_ties_even();
    Ok(whole.rem_euclid(WRAP) as u64 as u32)
}

fn one(
    lua: &Lua,
    table: &Table,
    name: &'static str,
    of: impl Fn(u32) -> u32 + 'static,
) -> mlua::Result<()> {
    let function = lua.create_function(move |lua, args: MultiValue| {
        Ok(of(bits_at(lua, &args, 0, name)?) as i32)
    })?;
    table.raw_set(name, function)
}

fn many(
    lua: &Lua,
    table: &Table,
    name: &'static str,
    of: impl Fn(u32, u32) -> u32 + 'static,
) -> mlua::Result<()> {
    let function = lua.create_function(move |lua, args: MultiValue| {
        let mut bits = bits_at(lua, &args, 0, name)?;
        for i in 1..args.len() {
            bits = of(bits, bits_at(lua, &args, i, name)?);
        }
        Ok(bits as i32)
    })?;
    table.raw_set(name, function)
}

fn shift(
    lua: &Lua,
    table: &Table,
    name: &'static str,
    of: impl Fn(u32, u32) -> u32 + 'static,
) -> mlua::Result<()> {
    let function = lua.create_function(move |lua, args: MultiValue| {
        let bits = bits_at(lua, &args, 0, name)?;
        Ok(of(bits, bits_at(lua, &args, 1, name)? & 31) as i32)
    })?;
    table.raw_set(name, function)
}

fn tohex(lua: &Lua, args: MultiValue) -> mlua::Result<String> {
    let bits = bits_at(lua, &args, 0, "tohex")?;
    let digits = number_or(lua, &args, 1, "tohex", 8.0)? as i32;
    let length = digits.unsigned_abs().min(8) as usize;
    let text = if digits < 0 { format!("{bits:08X}") } else { format!("{bits:08x}") };
    Ok(text[8 - length..].to_owned())
}
