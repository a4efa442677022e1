//! The library `cjson`, which reads and writes JSON straight from and to Lua values.
//!
//! Texts, limits and errors are those of lua-cjson 2.1 as Redis 7.0 carries it
//! (<https://www.kyne.com.au/~mark/software/lua-cjson-manual.html>). Two things differ: settings
//! are back at their defaults when the next script starts, and no setting allows more than a
//! thousand levels, since the reader and the writer call themselves.

use std::cell::Cell;
use std::rc::Rc;

use mlua::{Function, IntoLua, Lua, MultiValue, Table, Value};

use super::Bounds;
use super::number::{self, format_g};
use super::raise::{self, bad_argument, bytes_at, number_at, type_name};

mod read;

/// Levels that no setting goes beyond.
const DEPTH_MAX: usize = 1000;
/// Tables between two questions whether the script has to stop.
const TABLES: usize = 1000;

/// What a script can set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    sparse_convert: bool,
    sparse_ratio: usize,
    sparse_safe: usize,
    encode_depth: usize,
    decode_depth: usize,
    precision: usize,
    keep_buffer: bool,
    encode_invalid: Invalid,
    decode_invalid: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sparse_convert: false,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_depth: 1000,
            decode_depth: 1000,
            precision: 14,
            keep_buffer: true,
            encode_invalid: Invalid::No,
            decode_invalid: true,
        }
    }
}

/// How a number that JSON has not is written.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Invalid {
    No,
    Yes,
    Null,
}

/// Makes the library.
pub(super) fn module(
    lua: &Lua,
    settings: Rc<Cell<Settings>>,
    bounds: &Bounds,
) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("_NAME", "cjson")?;
    table.raw_set("_VERSION", "2.1.0")?;
    table.raw_set("null", Value::NULL)?;
    let (own, own_bounds) = (Rc::clone(&settings), bounds.clone());
    let encode = lua.create_function(move |lua, args: MultiValue| {
        if args.len() != 1 {
            return Err(bad_argument(lua, 1, "encode", "expected 1 argument"));
        }
        let settings = own.get();
        let mut writer = Writer { lua, settings, bounds: &own_bounds, tables: 0, out: Vec::new() };
        writer.value(&args[0], 0)?;
        lua.create_string(writer.out)
    })?;
    table.raw_set("encode", encode)?;
    let own = Rc::clone(&settings);
    let decode = lua.create_function(move |lua, args: MultiValue| {
        if args.len() != 1 {
            return Err(bad_argument(lua, 1, "decode", "expected 1 argument"));
        }
        let text = bytes_at(lua, &args, 0, "decode")?;
        read::decode(lua, &text, own.get().decode_depth, own.get().decode_invalid)
    })?;
    table.raw_set("decode", decode)?;
    let own_bounds = bounds.clone();
    let new = lua.create_function(move |lua, ()| module(lua, Rc::default(), &own_bounds))?;
    table.raw_set("new", new)?;
    counts(lua, &table, &settings)?;
    flags(lua, &table, &settings)?;
    Ok(table)
}

type Setting<'a> = &'a Rc<Cell<Settings>>;

fn too_many(lua: &Lua, args: &MultiValue, most: usize, name: &str) -> mlua::Result<()> {
    if args.len() > most {
        return Err(bad_argument(lua, most + 1, name, "found too many arguments"));
    }
    Ok(())
}

fn given(args: &MultiValue, i: usize) -> bool {
    args.get(i).is_some_and(|value| !value.is_nil())
}

/// A whole number between two others.
fn count_at(
    lua: &Lua,
    args: &MultiValue,
    i: usize,
    name: &str,
    (least, most): (i64, i64),
) -> mlua::Result<usize> {
    let count = number_at(lua, args, i, name)? as i64;
    if count < least || count > most {
        let what = format_args!("expected integer between {least} and {most}");
        return Err(bad_argument(lua, i + 1, name, what));
    }
    Ok(count as usize)
}

/// A function that shows one setting, and first sets it when it is given a value.
fn one<T: Copy + IntoLua + 'static>(
    lua: &Lua,
    settings: Setting,
    name: &'static str,
    field: fn(&mut Settings) -> &mut T,
    read: impl Fn(&Lua, &MultiValue) -> mlua::Result<T> + 'static,
) -> mlua::Result<Function> {
    let own = Rc::clone(settings);
    lua.create_function(move |lua, args: MultiValue| {
        too_many(lua, &args, 1, name)?;
        let mut settings = own.get();
        if given(&args, 0) {
            *field(&mut settings) = read(lua, &args)?;
            own.set(settings);
        }
        Ok(*field(&mut settings))
    })
}

fn counts(lua: &Lua, table: &Table, settings: Setting) -> mlua::Result<()> {
    type Field = fn(&mut Settings) -> &mut usize;
    let any = (1, i64::from(i32::MAX));
    let fields: [(&'static str, Field, (i64, i64)); 3] = [
        ("encode_max_depth", |settings| &mut settings.encode_depth, any),
        ("decode_max_depth", |settings| &mut settings.decode_depth, any),
        ("encode_number_precision", |settings| &mut settings.precision, (1, 14)),
    ];
    for (name, field, bounds) in fields {
        let read = move |lua: &Lua, args: &MultiValue| count_at(lua, args, 0, name, bounds);
        table.raw_set(name, one(lua, settings, name, field, read)?)?;
    }
    let own = Rc::clone(settings);
    let sparse = lua.create_function(move |lua, args: MultiValue| {
        let name = "encode_sparse_array";
        too_many(lua, &args, 3, name)?;
        let mut settings = own.get();
        if given(&args, 0) {
            settings.sparse_convert = flag_at(lua, &args, name)?;
        }
        if given(&args, 1) {
            settings.sparse_ratio = count_at(lua, &args, 1, name, (0, any.1))?;
        }
        if given(&args, 2) {
            settings.sparse_safe = count_at(lua, &args, 2, name, (0, any.1))?;
        }
        own.set(settings);
        Ok((settings.sparse_convert, settings.sparse_ratio, settings.sparse_safe))
    })?;
    table.raw_set("encode_sparse_array", sparse)
}

/// A first argument that is yes or no, or `on` or `off`.
fn flag_at(lua: &Lua, args: &MultiValue, name: &str) -> mlua::Result<bool> {
    if let Value::Boolean(flag) = args[0] {
        return Ok(flag);
    }
    match &bytes_at(lua, args, 0, name)?[..] {
        b"on" => Ok(true),
        b"off" => Ok(false),
        other => {
            let other = String::from_utf8_lossy(other);
            Err(bad_argument(lua, 1, name, format_args!("invalid option '{other}'")))
        }
    }
}

fn flags(lua: &Lua, table: &Table, settings: Setting) -> mlua::Result<()> {
    type Field = fn(&mut Settings) -> &mut bool;
    let fields: [(&'static str, Field); 2] = [
        ("encode_keep_buffer", |settings| &mut settings.keep_buffer),
        ("decode_invalid_numbers", |settings| &mut settings.decode_invalid),
    ];
    for (name, field) in fields {
        let read = move |lua: &Lua, args: &MultiValue| flag_at(lua, args, name);
        table.raw_set(name, one(lua, settings, name, field, read)?)?;
    }
    let own = Rc::clone(settings);
    let invalid = lua.create_function(move |lua, args: MultiValue| {
        let name = "encode_invalid_numbers";
        too_many(lua, &args, 1, name)?;
        let mut settings = own.get();
        if given(&args, 0) {
            let null = matches!(&args[0], Value::String(text) if text.as_bytes() == b"null");
            settings.encode_invalid = match null || flag_at(lua, &args, name)? {
                true if null => Invalid::Null,
                true => Invalid::Yes,
                false => Invalid::No,
            };
            own.set(settings);
        }
        Ok(match settings.encode_invalid {
            Invalid::No => Value::Boolean(false),
            Invalid::Yes => Value::Boolean(true),
            Invalid::Null => Value::String(lua.create_string("null")?),
        })
    })?;
    table.raw_set("encode_invalid_numbers", invalid)
}

/// Writes one text.
struct Writer<'a> {
    lua: &'a Lua,
    settings: Settings,
    bounds: &'a Bounds,
    tables: usize,
    out: Vec<u8>,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> mlua::Result<()> {
        if self.out.len() > self.bounds.most {
            return Err(raise::error(self.lua, "Cannot serialise, text too long"));
        }
        match value {
            Value::Nil => self.out.extend_from_slice(b"null"),
            Value::Boolean(true) => self.out.extend_from_slice(b"true"),
            Value::Boolean(false) => self.out.extend_from_slice(b"false"),
            Value::Integer(whole) => self.number(*whole as f64)?,
            Value::Number(number) => self.number(*number)?,
            Value::String(text) => self.text(&text.as_bytes()),
            Value::Table(table) => self.table(table, depth + 1)?,
            null if *null == Value::NULL => self.out.extend_from_slice(b"null"),
            other => return Err(self.refused(other, "type not supported")),
        }
        Ok(())
    }

    fn refused(&self, value: &Value, why: &str) -> mlua::Error {
        let what = type_name(value);
        raise::error(self.lua, format_args!("Cannot serialise {what}: {why}"))
    }

    fn number(&mut self, number: f64) -> mlua::Result<()> {
        if !number.is_finite() {
            match self.settings.encode_invalid {
                Invalid::No => {
                    return Err(self.refused(&Value::Number(number), "must not be NaN or Inf"));
                }
                Invalid::Null => self.out.extend_from_slice(b"null"),
                Invalid::Yes if number.is_nan() => self.out.extend_from_slice(b"nan"),
                Invalid::Yes => self.out.extend_from_slice(format_g(number, 14).as_bytes()),
            }
            return Ok(());
        }
        self.out.extend_from_slice(format_g(number, self.settings.precision).as_bytes());
        Ok(())
    }

    fn text(&mut self, text: &[u8]) {
        self.out.push(b'"');
        for byte in text {
            let short: &[u8] = match byte {
                b'"' => b"\\\"",
                b'\\' => b"\\\\",
                b'/' => b"\\/",
                8 => b"\\b",
                b'\t' => b"\\t",
                b'\n' => b"\\n",
                12 => b"\\f",
                b'\r' => b"\\r",
                0..32 | 127 => {
                    self.out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
                    continue;
                }
                other => std::slice::from_ref(other),
            };
            self.out.extend_from_slice(short);
        }
        self.out.push(b'"');
    }

    fn table(&mut self, table: &Table, depth: usize) -> mlua::Result<()> {
        if depth > self.settings.encode_depth.min(DEPTH_MAX) {
            let text = format_args!("Cannot serialise, excessive nesting ({depth})");
            return Err(raise::error(self.lua, text));
        }
        self.tables += 1;
        if self.tables.is_multiple_of(TABLES) {
            (self.bounds.checkpoint)()?;
        }
        match self.length(table)? {
            Some(length) => {
                self.out.push(b'[');
                for i in 1..=length {
                    if i > 1 {
                        self.out.push(b',');
                    }
                    self.value(&table.raw_get(i)?, depth)?;
                }
                self.out.push(b']');
            }
            None => self.object(table, depth)?,
        }
        Ok(())
    }

    /// How long a list the table is; none if it is an object.
    fn length(&self, table: &Table) -> mlua::Result<Option<usize>> {
        let (mut most, mut items) = (0, 0);
        for pair in table.pairs::<Value, Value>() {
            match pair?.0 {
                Value::Integer(key) if key >= 1 => most = most.max(key as usize),
                _ => return Ok(None),
            }
            items += 1;
        }
        let Settings { sparse_ratio, sparse_safe, sparse_convert, .. } = self.settings;
        if sparse_ratio > 0 && most > items * sparse_ratio && most > sparse_safe {
            if sparse_convert {
                return Ok(None);
            }
            let text = "Cannot serialise table: excessively sparse array";
            return Err(raise::error(self.lua, text));
        }
        Ok((most > 0).then_some(most))
    }

    fn object(&mut self, table: &Table, depth: usize) -> mlua::Result<()> {
        self.out.push(b'{');
        let mut first = true;
        for pair in table.pairs::<Value, Value>() {
            let (key, value) = pair?;
            if !std::mem::take(&mut first) {
                self.out.push(b',');
            }
            match key {
                Value::String(text) => self.text(&text.as_bytes()),
                Value::Integer(_) | Value::Number(_) => {
                    let number = raise::as_number(&key).unwrap_or_default();
                    self.out.push(b'"');
                    self.number(number)?;
                    self.out.push(b'"');
                }
                other => {
                    return Err(self.refused(&other, "table key must be a number or string"));
                }
            }
            self.out.push(b':');
            self.value(&value, depth)?;
        }
        self.out.push(b'}');
        Ok(())
    }
}

/// Reads a number where JSON, or the wider notation of C, has one.
fn read_number(text: &[u8]) -> Option<f64> {
    number::parse(text)
}
