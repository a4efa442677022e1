//! The table `redis` that scripts reach the server through.

use std::rc::Rc;

use mlua::{BorrowedBytes, Lua, MultiValue, Table, Value};

use super::convert::{self, to_lua, with_code};
use super::number::format_g;
use super::raise::{self, Raised, as_number};
use super::{Call, Host, Shared, ask, sha1};
use crate::Reply;

/// The version that scripts see: the one whose behaviour this follows.
const VERSION: &str = "7.0.15";
const VERSION_NUMBER: i64 = 0x0007_000f;

/// Arguments that need no list of their own.
const FEW: usize = 8;

const NO_ARGUMENT: &str = "ERR Please specify at least one argument for this redis lib call";
const WRONG_ARGUMENT: &str = "ERR Lua redis lib command arguments must be strings or integers";

/// Makes the table, but for `pcall`, which the glue puts there.
pub(super) fn module(lua: &Lua, shared: &Rc<Shared>) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let own = Rc::clone(shared);
    let call = lua.create_function(move |lua, args: MultiValue| answer(lua, &own, &args))?;
    table.raw_set("call", call)?;
    constants(&table)?;
    replies(lua, &table)?;
    settings(lua, &table, shared)?;
    logging(lua, &table)?;
    table.raw_set("breakpoint", lua.create_function(|_, _: MultiValue| Ok(false))?)?;
    table.raw_set("debug", lua.create_function(|_, _: MultiValue| Ok(()))?)?;
    table.raw_set("replicate_commands", lua.create_function(|_, _: MultiValue| Ok(true))?)?;
    Ok(table)
}

/// What a script gets for a command: its reply, or its error raised.
fn answer(lua: &Lua, shared: &Shared, args: &MultiValue) -> mlua::Result<Value> {
    let reply = ask(|host| carry_out(shared, host, args));
    match reply.unwrap_or_else(|| Reply::error("ERR no script runs")) {
        Reply::Error(text) => Err(Raised::Table(with_code(text.as_bytes())).into()),
        // The limit ends scripts, not the reply of a command: a check that nothing can fail
        // would cost a protected call for each string.
        reply => shared.without_limit(lua, || to_lua(lua, &reply, shared.resp.get())),
    }
}

/// One argument: the bytes of a string, or a number written out.
enum Argument {
    Text(BorrowedBytes),
    Number(String),
}

impl Argument {
    fn new(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text.as_bytes())),
            Value::Integer(whole) => Some(Self::Number(format_g(*whole as f64, 17))),
            Value::Number(number) => Some(Self::Number(format_g(*number, 17))),
            _ => None,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text,
            Self::Number(text) => text.as_bytes(),
        }
    }
}

fn carry_out(shared: &Shared, host: &mut dyn Host, args: &MultiValue) -> Reply {
    let Some(first) = args.front() else { return Reply::error(NO_ARGUMENT) };
    if args.len() > FEW {
        let Some(owned) = args.iter().map(Argument::new).collect::<Option<Vec<_>>>() else {
            return Reply::error(WRONG_ARGUMENT);
        };
        let bytes: Vec<&[u8]> = owned.iter().map(Argument::bytes).collect();
        return host.call(call(shared, &bytes));
    }
    let Some(first) = Argument::new(first) else { return Reply::error(WRONG_ARGUMENT) };
    let mut owned = [const { None }; FEW];
    for (place, value) in owned.iter_mut().zip(args.iter().skip(1)) {
        *place = Argument::new(value);
        if place.is_none() {
            return Reply::error(WRONG_ARGUMENT);
        }
    }
    let mut bytes = [first.bytes(); FEW];
    for (place, argument) in bytes[1..].iter_mut().zip(owned.iter().flatten()) {
        *place = argument.bytes();
    }
    host.call(call(shared, &bytes[..args.len()]))
}

fn call<'a>(shared: &Shared, args: &'a [&'a [u8]]) -> Call<'a> {
    Call { args, resp: shared.resp.get(), read_only: shared.read_only.get() }
}

fn constants(table: &Table) -> mlua::Result<()> {
    table.raw_set("REDIS_VERSION", VERSION)?;
    table.raw_set("REDIS_VERSION_NUM", VERSION_NUMBER)?;
    let numbers = [
        ("LOG_DEBUG", 0),
        ("LOG_VERBOSE", 1),
        ("LOG_NOTICE", 2),
        ("LOG_WARNING", 3),
        ("REPL_NONE", 0),
        ("REPL_AOF", 1),
        ("REPL_SLAVE", 2),
        ("REPL_REPLICA", 2),
        ("REPL_ALL", 3),
    ];
    numbers.into_iter().try_for_each(|(name, number)| table.raw_set(name, number))
}

fn raised(text: &str) -> mlua::Error {
    Raised::Table(text.as_bytes().to_vec()).into()
}

fn replies(lua: &Lua, table: &Table) -> mlua::Result<()> {
    const WRONG: &str = "ERR wrong number or type of arguments";
    let single = |lua: &Lua, name: &str, text: &[u8]| {
        lua.create_table_from([(name, lua.create_string(text)?)])
    };
    let error = lua.create_function(move |lua, args: MultiValue| {
        let Some(Value::String(text)) = args.front().filter(|_| args.len() == 1) else {
            return single(lua, "err", WRONG.as_bytes());
        };
        let text = text.as_bytes();
        single(lua, "err", &with_code(text.strip_prefix(b"-").unwrap_or(&text)))
    })?;
    table.raw_set("error_reply", error)?;
    let status = lua.create_function(move |lua, args: MultiValue| {
        match args.front().filter(|_| args.len() == 1) {
            Some(Value::String(text)) => single(lua, "ok", &text.as_bytes()),
            _ => single(lua, "err", WRONG.as_bytes()),
        }
    })?;
    table.raw_set("status_reply", status)?;
    let sha1hex = lua.create_function(|lua, args: MultiValue| {
        if args.len() != 1 {
            return Err(raised("ERR wrong number of arguments"));
        }
        let text = raise::as_bytes(&args[0]).unwrap_or_default();
        lua.create_string(sha1::hex(&sha1::digest(&text)))
    })?;
    table.raw_set("sha1hex", sha1hex)
}

fn settings(lua: &Lua, table: &Table, shared: &Rc<Shared>) -> mlua::Result<()> {
    let own = Rc::clone(shared);
    let setresp = lua.create_function(move |_, args: MultiValue| {
        if args.len() != 1 {
            return Err(raised("ERR redis.setresp() requires one argument."));
        }
        match as_number(&args[0]).unwrap_or_default() as i64 {
            resp @ (2 | 3) => own.resp.set(resp as u8),
            _ => return Err(raised("ERR RESP version must be 2 or 3.")),
        }
        Ok(())
    })?;
    table.raw_set("setresp", setresp)?;
    let set_repl = lua.create_function(|_, args: MultiValue| {
        if args.len() != 1 {
            return Err(raised("ERR redis.set_repl() requires two arguments."));
        }
        if !(0..=3).contains(&(as_number(&args[0]).unwrap_or_default() as i64)) {
            return Err(raised(
                "ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or \
                 REPL_NONE.",
            ));
        }
        Ok(())
    })?;
    table.raw_set("set_repl", set_repl)?;
    let acl_check_cmd = lua.create_function(|_, args: MultiValue| {
        if args.is_empty() {
            return Err(raised(NO_ARGUMENT));
        }
        let owned: Option<Vec<_>> = args.iter().map(Argument::new).collect();
        let owned = owned.ok_or_else(|| raised(WRONG_ARGUMENT))?;
        let bytes: Vec<&[u8]> = owned.iter().map(Argument::bytes).collect();
        ask(|host| host.allowed(&bytes))
            .flatten()
            .ok_or_else(|| raised("ERR Invalid command passed to redis.acl_check_cmd()"))
    })?;
    table.raw_set("acl_check_cmd", acl_check_cmd)
}

fn logging(lua: &Lua, table: &Table) -> mlua::Result<()> {
    let log = lua.create_function(|_, args: MultiValue| {
        if args.len() < 2 {
            return Err(raised("ERR redis.log() requires two arguments or more."));
        }
        let Some(level) = as_number(&args[0]) else {
            return Err(raised("ERR First argument must be a number (log level)."));
        };
        let level = level as i64;
        if !(0..=3).contains(&level) {
            return Err(raised("ERR Invalid debug level."));
        }
        let texts: Vec<Vec<u8>> = args.iter().skip(1).filter_map(raise::as_bytes).collect();
        ask(|host| host.log(level, &texts.join(&b' ')));
        Ok(())
    })?;
    table.raw_set("log", log)
}

/// The table that a caught error of a command is.
pub(super) fn caught_table(lua: &Lua, text: &[u8]) -> mlua::Result<Value> {
    convert::error_table(lua, text).map(Value::Table)
}
