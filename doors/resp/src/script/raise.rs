//! Errors that Rust functions raise in Lua, with the texts and places that Lua's own would have.
//!
//! A Rust function can only raise an opaque value. Scripts see errors in few places: `pcall`,
//! `xpcall`, `coroutine.resume` and the reply. Each of them turns that value into what Redis
//! raises there: a text, or a table with `err`.

use std::fmt;

use mlua::{Lua, MultiValue, Value};

use super::number;

/// What a Rust function raised.
#[derive(Debug, Clone)]
pub(super) enum Raised {
    /// A table with this text as `err`, as `redis.call` raises it.
    Table(Vec<u8>),
    /// A text, with its place in front.
    Text(Vec<u8>),
    /// The script has to stop; nothing in it catches this.
    Stopped,
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(text) | Self::Text(text) => f.write_str(&String::from_utf8_lossy(text)),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

impl std::error::Error for Raised {}

impl From<Raised> for mlua::Error {
    fn from(raised: Raised) -> Self {
        Self::external(raised)
    }
}

/// What was raised, out of the wrapping that it got on its way through Lua.
pub(super) fn unwrap(mut error: &mlua::Error) -> Raised {
    loop {
        match error {
            mlua::Error::CallbackError { cause, .. } | mlua::Error::WithContext { cause, .. } => {
                error = cause;
            }
            mlua::Error::ExternalError(inner) => {
                let text = || Raised::Text(inner.to_string().into_bytes());
                return inner.downcast_ref::<Raised>().cloned().unwrap_or_else(text);
            }
            mlua::Error::MemoryError(_) => return Raised::Text(NO_MEMORY.into()),
            other => {
                let text = other.to_string();
                return Raised::Text(text.lines().next().unwrap_or_default().into());
            }
        }
    }
}

/// The text of Lua's own error when memory ran out.
pub(super) const NO_MEMORY: &str = "not enough memory";

/// The source name of the part of the sandbox that is written in Lua.
pub(super) const GLUE: &str = "=sandbox";
/// How a place in it starts.
pub(super) const GLUE_PLACE: &[u8] = b"sandbox:";

impl Raised {
    /// Whether memory ran out.
    pub(super) fn is_no_memory(&self) -> bool {
        matches!(self, Self::Text(text) if text == NO_MEMORY.as_bytes())
    }
}

/// A text of an error with the script's place where it has one in the sandbox: Lua's own function
/// was called from there.
pub(super) fn without_glue(lua: &Lua, text: Vec<u8>) -> Vec<u8> {
    let (code, bare) = match text.strip_prefix(b"ERR ") {
        Some(bare) => (&b"ERR "[..], bare),
        None => (&b""[..], &text[..]),
    };
    let Some(numbered) = bare.strip_prefix(GLUE_PLACE) else { return text };
    let Some(end) = numbered.windows(2).position(|two| two == b": ") else { return text };
    let message = String::from_utf8_lossy(&numbered[end + 2..]).into_owned();
    let mut place = place(lua);
    if place.is_empty() {
        // A tail call leaves no trace of the script.
        place.push_str("user_script:1: ");
    }
    [code, place.as_bytes(), counted(lua, &message).as_bytes()].concat()
}

/// A message about an argument with its number as the script counts it: the text before the colon
/// of a method call is not one.
fn counted(lua: &Lua, message: &str) -> String {
    const START: &str = "bad argument #";
    let method = (1..4).any(|level| {
        let found = lua.inspect_stack(level, |debug| {
            debug.source().source.as_deref() == Some(GLUE)
                && debug.names().name_what == Some("method")
        });
        found == Some(true)
    });
    let parts = message.strip_prefix(START).and_then(|rest| rest.split_once(' '));
    match parts.and_then(|(number, rest)| Some((number.parse::<usize>().ok()?, rest))) {
        Some((number @ 2.., rest)) if method => format!("{START}{} {rest}", number - 1),
        _ => message.to_owned(),
    }
}

/// Where the script called the running Rust function: `user_script:1: `, or nothing.
fn place(lua: &Lua) -> String {
    for level in 1..5 {
        let found = lua.inspect_stack(level, |debug| {
            let source = debug.source();
            if source.source.as_deref() == Some(GLUE) || level > 1 && source.what == "C" {
                return None;
            }
            let short = source.short_src.unwrap_or_default().into_owned();
            Some(debug.current_line().map_or_else(String::new, |line| format!("{short}:{line}: ")))
        });
        match found {
            Some(Some(place)) => return place,
            Some(None) => {}
            None => break,
        }
    }
    String::new()
}

/// An error with a text; the place is put in front, as `luaL_error` does.
pub(super) fn error(lua: &Lua, text: impl fmt::Display) -> mlua::Error {
    Raised::Text(format!("{}{text}", place(lua)).into_bytes()).into()
}

/// An error about an argument, counted from 1.
pub(super) fn bad_argument(
    lua: &Lua,
    number: usize,
    name: &str,
    what: impl fmt::Display,
) -> mlua::Error {
    error(lua, counted(lua, &format!("bad argument #{number} to '{name}' ({what})")))
}

fn wrong_type(lua: &Lua, args: &MultiValue, i: usize, name: &str, want: &str) -> mlua::Error {
    let got = args.get(i).map_or("no value", type_name);
    bad_argument(lua, i + 1, name, format_args!("{want} expected, got {got}"))
}

/// The name of a value's type in Lua.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Boolean(_) => "boolean",
        Value::Integer(_) | Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Table(_) => "table",
        Value::Function(_) => "function",
        Value::Thread(_) => "thread",
        _ => "userdata",
    }
}

/// A value as a number, where Lua would take it for one.
pub(super) fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(whole) => Some(*whole as f64),
        Value::Number(number) => Some(*number),
        Value::String(text) => number::parse(&text.as_bytes()),
        _ => None,
    }
}

/// A value as text, where Lua would take it for one.
pub(super) fn as_bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Integer(whole) => Some(number::format_g(*whole as f64, 14).into_bytes()),
        Value::Number(number) => Some(number::format_g(*number, 14).into_bytes()),
        Value::String(text) => Some(text.as_bytes().to_vec()),
        _ => None,
    }
}

/// The number at `args[i]`, or the error that Lua raises.
pub(super) fn number_at(lua: &Lua, args: &MultiValue, i: usize, name: &str) -> mlua::Result<f64> {
    let found = args.get(i).and_then(as_number);
    found.ok_or_else(|| wrong_type(lua, args, i, name, "number"))
}

/// The text at `args[i]`, or the error that Lua raises.
pub(super) fn bytes_at(
    lua: &Lua,
    args: &MultiValue,
    i: usize,
    name: &str,
) -> mlua::Result<Vec<u8>> {
    let found = args.get(i).and_then(as_bytes);
    found.ok_or_else(|| wrong_type(lua, args, i, name, "string"))
}

/// The number at `args[i]`, or `otherwise` where nothing stands.
pub(super) fn number_or(
    lua: &Lua,
    args: &MultiValue,
    i: usize,
    name: &str,
    otherwise: f64,
) -> mlua::Result<f64> {
    match args.get(i) {
        None | Some(Value::Nil) => Ok(otherwise),
        Some(_) => number_at(lua, args, i, name),
    }
}
