//! Replies as Lua values and Lua values as replies, by the rules of
//! <https://redis.io/docs/latest/develop/programmability/lua-api/#data-type-conversion>.

use std::borrow::Cow;

use mlua::{Lua, Table, Value};

use super::number::format_g;
use crate::Reply;

/// Tables inside each other in a reply.
const DEPTH_MAX: usize = 128;
/// A reply has to leave room for what is written around each value.
const VALUE_BYTES: usize = 16;

/// What a script gets for a reply under `redis.setresp(resp)`.
pub(super) fn to_lua(lua: &Lua, reply: &Reply, resp: u8) -> mlua::Result<Value> {
    let new = resp >= 3;
    Ok(match reply {
        Reply::Int(whole) => Value::Number(*whole as f64),
        Reply::Bulk(bytes) => Value::String(lua.create_string(bytes)?),
        Reply::Nil | Reply::NilArray if new => Value::Nil,
        Reply::Nil | Reply::NilArray => Value::Boolean(false),
        Reply::Status(text) => Value::Table(field(lua, "ok", text.as_bytes())?),
        Reply::Error(text) => Value::Table(error_table(lua, &with_code(text.as_bytes()))?),
        Reply::Array(items) | Reply::Push(items) => list(lua, items, resp)?,
        Reply::Set(items) if new => {
            let set = lua.create_table()?;
            for item in items {
                set.raw_set(to_lua(lua, item, resp)?, true)?;
            }
            Value::Table(lua.create_table_from([("set", set)])?)
        }
        Reply::Set(items) => list(lua, items, resp)?,
        Reply::Map(pairs) if new => {
            let map = lua.create_table()?;
            for (key, value) in pairs {
                map.raw_set(to_lua(lua, key, resp)?, to_lua(lua, value, resp)?)?;
            }
            Value::Table(lua.create_table_from([("map", map)])?)
        }
        Reply::Map(pairs) => {
            let flat = lua.create_table_with_capacity(pairs.len() * 2, 0)?;
            for (i, (key, value)) in pairs.iter().enumerate() {
                flat.raw_set(2 * i + 1, to_lua(lua, key, resp)?)?;
                flat.raw_set(2 * i + 2, to_lua(lua, value, resp)?)?;
            }
            Value::Table(flat)
        }
        Reply::Double(number) if new => Value::Table(lua.create_table_from([("double", *number)])?),
        Reply::Double(number) => Value::String(lua.create_string(format_g(*number, 17))?),
        Reply::Bool(flag) if new => Value::Boolean(*flag),
        Reply::Bool(flag) => Value::Integer((*flag).into()),
        Reply::Big(digits) if new => Value::Table(field(lua, "big_number", digits.as_bytes())?),
        Reply::Big(digits) => Value::String(lua.create_string(digits)?),
        Reply::Verbatim(kind, bytes) if new => {
            let text = field(lua, "string", bytes)?;
            text.raw_set("format", lua.create_string(kind)?)?;
            Value::Table(lua.create_table_from([("verbatim_string", text)])?)
        }
        Reply::Verbatim(_, bytes) => Value::String(lua.create_string(bytes)?),
    })
}

fn field(lua: &Lua, name: &str, text: &[u8]) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set(name, lua.create_string(text)?)?;
    Ok(table)
}

fn list(lua: &Lua, items: &[Reply], resp: u8) -> mlua::Result<Value> {
    let table = lua.create_table_with_capacity(items.len(), 0)?;
    for (i, item) in items.iter().enumerate() {
        table.raw_set(i + 1, to_lua(lua, item, resp)?)?;
    }
    Ok(Value::Table(table))
}

/// The table that stands for an error of a command.
pub(super) fn error_table(lua: &Lua, text: &[u8]) -> mlua::Result<Table> {
    let table = field(lua, "err", text)?;
    table.raw_set("ignore_error_stats_update", true)?;
    Ok(table)
}

/// An error with its code in front: one word alone is no code.
pub(super) fn with_code(text: &[u8]) -> Vec<u8> {
    let line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    match text.iter().position(|byte| *byte == b' ') {
        Some(space) => {
            let (code, message) = (&text[..space], &text[space + 1..]);
            let start = message.iter().take_while(|byte| line_end(byte)).count();
            let end = message.iter().rev().take_while(|byte| line_end(byte)).count();
            let message = message.get(start..message.len() - end).unwrap_or_default();
            [code, b" ", message].concat()
        }
        None => [b"ERR ", text].concat(),
    }
}

/// Text for one line of the protocol: up to a zero byte, line ends as blanks.
pub(super) fn line(text: &[u8]) -> Cow<'static, str> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).replace(['\r', '\n'], " ").into()
}

/// What the client gets for a script's answer under `redis.setresp(resp)`, of `most` bytes at
/// most.
pub(super) fn from_lua(value: &Value, resp: u8, most: usize) -> Reply {
    let mut left = most;
    answer(value, resp, &mut left, 0).unwrap_or_else(Reply::Error)
}

type Refused = Cow<'static, str>;

fn answer(value: &Value, resp: u8, left: &mut usize, depth: usize) -> Result<Reply, Refused> {
    let size = match value {
        Value::String(text) => text.as_bytes().len(),
        _ => 0,
    };
    let Some(rest) = left.checked_sub(size + VALUE_BYTES) else {
        return Err("ERR the script's reply is too large".into());
    };
    *left = rest;
    Ok(match value {
        Value::String(text) => Reply::bulk(&*text.as_bytes()),
        Value::Boolean(flag) if resp >= 3 => Reply::Bool(*flag),
        Value::Boolean(true) => Reply::Int(1),
        Value::Integer(whole) => Reply::Int(*whole),
        Value::Number(number) => Reply::Int(truncated(*number)),
        Value::Table(_) if depth >= DEPTH_MAX => {
            return Err("ERR reached lua stack limit".into());
        }
        Value::Table(table) => return table_answer(table, resp, left, depth + 1),
        _ => Reply::Nil,
    })
}

/// A number as C casts it to a whole one on x86: what does not fit becomes the least.
fn truncated(number: f64) -> i64 {
    const EDGE: f64 = 9_223_372_036_854_775_808.0;
    if (-EDGE..EDGE).contains(&number) { number as i64 } else { i64::MIN }
}

fn lost(error: mlua::Error) -> Refused {
    format!("ERR {}", line(error.to_string().as_bytes())).into()
}

fn table_answer(table: &Table, resp: u8, left: &mut usize, depth: usize) -> Result<Reply, Refused> {
    if let Some(reply) = named_answer(table, resp, left, depth)? {
        return Ok(reply);
    }
    let mut items = Vec::new();
    loop {
        let item: Value = table.raw_get(items.len() + 1).map_err(lost)?;
        if item.is_nil() {
            return Ok(Reply::Array(items));
        }
        items.push(answer(&item, resp, left, depth)?);
    }
}

fn text_of(table: &Table, name: &str) -> Result<Option<Vec<u8>>, Refused> {
    Ok(match table.raw_get::<Value>(name).map_err(lost)? {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        _ => None,
    })
}

/// The reply that a table with a name such as `err` or `ok` stands for.
fn named_answer(
    table: &Table,
    resp: u8,
    left: &mut usize,
    depth: usize,
) -> Result<Option<Reply>, Refused> {
    if let Some(text) = text_of(table, "err")? {
        return Ok(Some(Reply::Error(line(&text))));
    }
    if let Some(text) = text_of(table, "ok")? {
        return Ok(Some(Reply::Status(line(&text))));
    }
    match table.raw_get("double").map_err(lost)? {
        Value::Integer(whole) => return Ok(Some(Reply::Double(whole as f64))),
        Value::Number(number) => return Ok(Some(Reply::Double(number))),
        _ => {}
    }
    if let Some(digits) = text_of(table, "big_number")? {
        return Ok(Some(Reply::Big(line(&digits).into_owned())));
    }
    if let Value::Table(text) = table.raw_get("verbatim_string").map_err(lost)?
        && let Some(kind) = text_of(&text, "format")?
        && let Some(bytes) = text_of(&text, "string")?
    {
        let byte = |i: usize| kind.get(i).copied().unwrap_or(b' ');
        return Ok(Some(Reply::Verbatim([byte(0), byte(1), byte(2)], bytes.into())));
    }
    if let Value::Table(map) = table.raw_get("map").map_err(lost)? {
        let mut pairs = Vec::new();
        for pair in map.pairs::<Value, Value>() {
            let (key, value) = pair.map_err(lost)?;
            let key = answer(&key, resp, left, depth)?;
            pairs.push((key, answer(&value, resp, left, depth)?));
        }
        return Ok(Some(Reply::Map(pairs)));
    }
    if let Value::Table(set) = table.raw_get("set").map_err(lost)? {
        let mut items = Vec::new();
        for pair in set.pairs::<Value, Value>() {
            items.push(answer(&pair.map_err(lost)?.0, resp, left, depth)?);
        }
        return Ok(Some(Reply::Set(items)));
    }
    Ok(None)
}
