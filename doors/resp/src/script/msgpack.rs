//! The library `cmsgpack`, which packs Lua values as MessagePack
//! (<https://github.com/msgpack/msgpack/blob/master/spec.md>) and unpacks them.
//!
//! Texts and limits are those of lua-cmsgpack 0.4 as Redis 7.0 carries it: tables below the
//! sixteenth level pack as nothing, and so does what has no form in MessagePack. Unpacking goes a
//! thousand levels deep at most, since the reader calls itself.

use mlua::{Lua, MultiValue, Table, Value, Variadic};

use super::Bounds;
use super::raise::{self, bad_argument, bytes_at, number_at, number_or};

const PACK_DEPTH: usize = 16;
const UNPACK_DEPTH: usize = 1000;
/// Tables between two questions whether the script has to stop.
const TABLES: usize = 1000;
/// Values in one answer; Lua's stack holds no more.
const ANSWERS: usize = 7000;

/// Makes the library.
pub(super) fn module(lua: &Lua, bounds: &Bounds) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("_NAME", "cmsgpack")?;
    table.raw_set("_VERSION", "lua-cmsgpack 0.4.0")?;
    table.raw_set("_COPYRIGHT", "Copyright (C) 2012, Salvatore Sanfilippo")?;
    table.raw_set("_DESCRIPTION", "MessagePack C implementation for Lua")?;
    let own = bounds.clone();
    let pack = lua.create_function(move |lua, args: MultiValue| {
        if args.is_empty() {
            return Err(bad_argument(lua, 0, "pack", "MessagePack pack needs input."));
        }
        let mut packer = Packer { lua, bounds: &own, tables: 0, out: Vec::new() };
        for value in &args {
            packer.value(value, 0)?;
        }
        lua.create_string(packer.out)
    })?;
    table.raw_set("pack", pack)?;
    table.raw_set(
        "unpack",
        lua.create_function(|lua, args: MultiValue| {
            unpack(lua, &bytes_at(lua, &args, 0, "unpack")?, 0, 0.0)
        })?,
    )?;
    table.raw_set(
        "unpack_one",
        lua.create_function(|lua, args: MultiValue| {
            let text = bytes_at(lua, &args, 0, "unpack_one")?;
            unpack(lua, &text, 1, number_or(lua, &args, 1, "unpack_one", 0.0)?)
        })?,
    )?;
    table.raw_set(
        "unpack_limit",
        lua.create_function(|lua, args: MultiValue| {
            let text = bytes_at(lua, &args, 0, "unpack_limit")?;
            let limit = number_at(lua, &args, 1, "unpack_limit")? as i64 as i32;
            unpack(lua, &text, limit, number_or(lua, &args, 2, "unpack_limit", 0.0)?)
        })?,
    )?;
    Ok(table)
}

struct Packer<'a> {
    lua: &'a Lua,
    bounds: &'a Bounds,
    tables: usize,
    out: Vec<u8>,
}

impl Packer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> mlua::Result<()> {
        if self.out.len() > self.bounds.most {
            return Err(raise::error(self.lua, "packed value too long"));
        }
        match value {
            Value::Boolean(flag) => self.out.push(if *flag { 0xc3 } else { 0xc2 }),
            Value::Integer(whole) => self.integer(*whole),
            Value::Number(number) => self.number(*number),
            Value::String(text) => {
                let text = text.as_bytes();
                self.head(text.len(), (0xa0, 32), Some(0xd9), 0xda);
                self.out.extend_from_slice(&text);
            }
            Value::Table(table) if depth < PACK_DEPTH => self.table(table, depth + 1)?,
            _ => self.out.push(0xc0),
        }
        Ok(())
    }

    /// Writes how long something is: small in the first byte, else in 1, 2 or 4 bytes.
    fn head(&mut self, length: usize, small: (u8, usize), one: Option<u8>, two: u8) {
        match (length, one) {
            (length, _) if length < small.1 => self.out.push(small.0 | length as u8),
            (0..=0xff, Some(one)) => self.out.extend_from_slice(&[one, length as u8]),
            (0..=0xffff, _) => {
                self.out.push(two);
                self.out.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                self.out.push(two + 1);
                self.out.extend_from_slice(&(length as u32).to_be_bytes());
            }
        }
    }

    fn integer(&mut self, whole: i64) {
        let bytes = whole.to_be_bytes();
        let (kind, from) = match whole {
            -32..=0x7f => return self.out.push(whole as u8),
            0x80..=0xff => (0xcc, 7),
            0x100..=0xffff => (0xcd, 6),
            0x1_0000..=0xffff_ffff => (0xce, 4),
            0x1_0000_0000.. => (0xcf, 0),
            -0x80..=-33 => (0xd0, 7),
            -0x8000..=-0x81 => (0xd1, 6),
            -0x8000_0000..=-0x8001 => (0xd2, 4),
            _ => (0xd3, 0),
        };
        self.out.push(kind);
        self.out.extend_from_slice(&bytes[from..]);
    }

    fn number(&mut self, number: f64) {
        const EDGE: f64 = 9_223_372_036_854_775_808.0;
        if number.fract() == 0.0 && (-EDGE..EDGE).contains(&number) {
            return self.integer(number as i64);
        }
        if f64::from(number as f32) == number {
            self.out.push(0xca);
            self.out.extend_from_slice(&(number as f32).to_be_bytes());
        } else {
            self.out.push(0xcb);
            self.out.extend_from_slice(&number.to_be_bytes());
        }
    }

    fn table(&mut self, table: &Table, depth: usize) -> mlua::Result<()> {
        self.tables += 1;
        if self.tables.is_multiple_of(TABLES) {
            (self.bounds.checkpoint)()?;
        }
        let (mut count, mut most, mut list) = (0, 0, true);
        for pair in table.pairs::<Value, Value>() {
            match pair?.0 {
                Value::Integer(key) if key > 0 => most = most.max(key as usize),
                _ => list = false,
            }
            count += 1;
        }
        if list && most == count {
            self.head(count, (0x90, 16), None, 0xdc);
            for i in 1..=count {
                self.value(&table.raw_get(i)?, depth)?;
            }
            return Ok(());
        }
        self.head(count, (0x80, 16), None, 0xde);
        for pair in table.pairs::<Value, Value>() {
            let (key, value) = pair?;
            self.value(&key, depth)?;
            self.value(&value, depth)?;
        }
        Ok(())
    }
}

/// Unpacks `limit` values from `offset`, or all where both are 0; the next offset comes first
/// unless all were wanted.
fn unpack(lua: &Lua, text: &[u8], limit: i32, offset: f64) -> mlua::Result<Variadic<Value>> {
    let (offset, length) = (offset as i64 as i32, text.len());
    if offset < 0 || limit < 0 {
        let text = format_args!(
            "Invalid request to unpack with offset of {offset} and limit of {length}."
        );
        return Err(raise::error(lua, text));
    }
    if offset as usize > length {
        let text = format_args!("Start offset {offset} greater than input length {length}.");
        return Err(raise::error(lua, text));
    }
    let all = limit == 0 && offset == 0;
    let most = if all { i32::MAX } else { limit };
    let mut unpacker = Unpacker { lua, rest: &text[offset as usize..] };
    let mut values = Variadic::new();
    if !all {
        values.push(Value::Nil);
    }
    for _ in 0..most {
        if unpacker.rest.is_empty() {
            break;
        }
        if values.len() > ANSWERS {
            return Err(raise::error(lua, "too many results to unpack"));
        }
        values.push(unpacker.value(0)?);
    }
    if !all {
        let rest = unpacker.rest.len();
        values[0] = Value::Integer(if rest == 0 { -1 } else { (length - rest) as i64 });
    }
    Ok(values)
}

struct Unpacker<'a> {
    lua: &'a Lua,
    rest: &'a [u8],
}

impl<'a> Unpacker<'a> {
    fn take(&mut self, length: usize) -> mlua::Result<&'a [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(raise::error(self.lua, "Missing bytes in input."));
        };
        self.rest = rest;
        Ok(taken)
    }

    /// An unsigned number of up to eight bytes.
    fn unsigned(&mut self, size: usize) -> mlua::Result<u64> {
        Ok(self.take(size)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    fn value(&mut self, depth: usize) -> mlua::Result<Value> {
        let first = self.take(1)?[0];
        Ok(match first {
            0..=0x7f => Value::Integer(i64::from(first)),
            0xe0.. => Value::Integer(i64::from(first as i8)),
            0x80..=0x8f => self.map(usize::from(first & 15), depth)?,
            0x90..=0x9f => self.list(usize::from(first & 15), depth)?,
            0xa0..=0xbf => self.text(usize::from(first & 31))?,
            0xc0 => Value::Nil,
            0xc2 => Value::Boolean(false),
            0xc3 => Value::Boolean(true),
            0xc4..=0xc6 => {
                let length = self.unsigned(1 << (first - 0xc4))? as usize;
                self.text(length)?
            }
            0xca => Value::Number(f32::from_bits(self.unsigned(4)? as u32).into()),
            0xcb => Value::Number(f64::from_bits(self.unsigned(8)?)),
            0xcc..=0xcf => Value::Number(self.unsigned(1 << (first - 0xcc))? as f64),
            0xd0..=0xd3 => {
                let size = 1 << (first - 0xd0);
                let unused = 64 - 8 * size as u32;
                Value::Integer((self.unsigned(size)? << unused) as i64 >> unused)
            }
            0xd9..=0xdb => {
                let length = self.unsigned(1 << (first - 0xd9))? as usize;
                self.text(length)?
            }
            0xdc | 0xdd => {
                let length = self.unsigned(2 << (first - 0xdc))? as usize;
                self.list(length, depth)?
            }
            0xde | 0xdf => {
                let length = self.unsigned(2 << (first - 0xde))? as usize;
                self.map(length, depth)?
            }
            _ => return Err(raise::error(self.lua, "Bad data format in input.")),
        })
    }

    fn text(&mut self, length: usize) -> mlua::Result<Value> {
        Ok(Value::String(self.lua.create_string(self.take(length)?)?))
    }

    fn deeper(&self, depth: usize) -> mlua::Result<usize> {
        if depth >= UNPACK_DEPTH {
            return Err(raise::error(self.lua, "Bad data format in input."));
        }
        Ok(depth + 1)
    }

    fn list(&mut self, length: usize, depth: usize) -> mlua::Result<Value> {
        let depth = self.deeper(depth)?;
        let table = self.lua.create_table()?;
        for i in 1..=length {
            let value = self.value(depth)?;
            table.raw_set(i, value)?;
        }
        Ok(Value::Table(table))
    }

    fn map(&mut self, length: usize, depth: usize) -> mlua::Result<Value> {
        let depth = self.deeper(depth)?;
        let table = self.lua.create_table()?;
        for _ in 0..length {
            let key = self.value(depth)?;
            let value = self.value(depth)?;
            match &key {
                Value::Nil => return Err(raise::error(self.lua, "table index is nil")),
                Value::Number(number) if number.is_nan() => {
                    return Err(raise::error(self.lua, "table index is NaN"));
                }
                _ => table.raw_set(key, value)?,
            }
        }
        Ok(Value::Table(table))
    }
}
