//! One state of Lua with the sandbox in it.

use std::rc::Rc;

use mlua::chunk::ChunkMode;
use mlua::{
    Either, Function, HookTriggers, IntoLua, Lua, LuaOptions, LuaString, StdLib, Table, Value,
    VmState,
};

use super::commands;
use super::convert;
use super::pattern;
use super::raise::{GLUE, NO_MEMORY, Raised, unwrap};
use super::{
    Bounds, HOST, Host, Run, Shared, Stop, bits, glue, json, msgpack, packing, raise, random, sha1,
};
use crate::Reply;

/// Instructions between two looks at the time; some of them can take milliseconds.
const HOOK_EVERY: u32 = 500;

/// A state of Lua.
pub(super) struct Machine {
    lua: Lua,
    /// Runs the script of a slot.
    runner: Function,
    compiled: Table,
    /// Slots of forgotten scripts, and the first one never used.
    free: Vec<u32>,
    next: u32,
    shared: Rc<Shared>,
}

/// Bytes on their way to Lua. Text is pushed as it is; anything else takes a reference first.
fn bytes(bytes: &[u8]) -> Either<&str, Bytes<'_>> {
    std::str::from_utf8(bytes).map_or(Either::Right(Bytes(bytes)), Either::Left)
}

/// Bytes that are not text.
struct Bytes<'a>(&'a [u8]);

impl IntoLua for Bytes<'_> {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        lua.create_string(self.0).map(Value::String)
    }
}

impl Machine {
    pub(super) fn new(shared: Rc<Shared>) -> mlua::Result<Self> {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH;
        let lua = Lua::new_with(libraries, LuaOptions::new().catch_rust_panics(true))?;
        let globals = lua.globals();
        let most = shared.limits.memory_bytes;
        let own = Rc::clone(&shared);
        let bounds = Bounds { most, checkpoint: Rc::new(move || own.checkpoint()) };
        globals.raw_set("redis", commands::module(&lua, &shared)?)?;
        globals.raw_set("cjson", json::module(&lua, Rc::clone(&shared.json), &bounds)?)?;
        globals.raw_set("cmsgpack", msgpack::module(&lua, &bounds)?)?;
        globals.raw_set("struct", packing::module(&lua, most)?)?;
        globals.raw_set("bit", bits::module(&lua)?)?;
        let math: Table = globals.raw_get("math")?;
        random::install(&lua, &math, Rc::clone(&shared.random))?;
        let compiled = lua.create_table()?;
        let native = natives(&lua, &shared, &bounds)?;
        native.raw_set("compiled", &compiled)?;
        let glue = lua.load(glue::SOURCE).set_name(GLUE);
        let (seen, runner): (Table, Function) = glue.call((globals, native, most as f64))?;
        lua.set_globals(seen)?;
        let own = Rc::clone(&shared);
        let every = HookTriggers::new().every_nth_instruction(HOOK_EVERY);
        lua.set_global_hook(every, move |_, _| own.checkpoint().map(|()| VmState::Continue))?;
        lua.gc_collect()?;
        Ok(Self { lua, runner, compiled, free: Vec::new(), next: 1, shared })
    }

    /// Memory in use, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.lua.used_memory()
    }

    /// Compiles a script into a slot.
    pub(super) fn compile(&mut self, body: &[u8]) -> Result<u32, Reply> {
        self.shared.stop.set(None);
        self.set_limit(self.shared.limits.memory_bytes);
        let chunk = self.lua.load(body).set_name("@user_script").set_mode(ChunkMode::Text);
        let function = chunk.into_function();
        self.set_limit(0);
        let slot = self.free.pop().unwrap_or(self.next);
        let kept = function.and_then(|function| self.compiled.raw_set(slot, function));
        match kept {
            Ok(()) => {
                self.next = self.next.max(slot + 1);
                Ok(slot)
            }
            Err(error) => {
                if slot < self.next {
                    self.free.push(slot);
                }
                Err(self.not_compiled(&error))
            }
        }
    }

    fn not_compiled(&self, error: &mlua::Error) -> Reply {
        let text = match error {
            mlua::Error::SyntaxError { message, .. } => message.clone(),
            mlua::Error::MemoryError(_) => {
                self.shared.stop.set(Some(Stop::Memory));
                NO_MEMORY.to_owned()
            }
            other => unwrap(other).to_string(),
        };
        let text = format!("ERR Error compiling script (new function): {text}");
        Reply::Error(convert::line(text.as_bytes()))
    }

    /// Forgets the script in a slot.
    pub(super) fn forget(&mut self, slot: u32) {
        // Setting a known place to nil allocates nothing.
        if self.compiled.raw_set(slot, Value::Nil).is_ok() {
            self.free.push(slot);
        }
    }

    fn set_limit(&self, bytes: usize) {
        // The allocator that counts belongs to every state made here.
        let _ = self.lua.set_memory_limit(bytes);
    }

    /// Runs the script in a slot.
    pub(super) fn run(
        &self,
        slot: u32,
        sha: &[u8; 20],
        run: &Run<'_>,
        host: &mut dyn Host,
    ) -> Reply {
        let most = self.shared.limits.memory_bytes;
        if self.lua.used_memory() > most / 2 {
            let _ = self.lua.gc_collect();
        }
        let keys = self.lua.create_sequence_from(run.keys.iter().map(|key| bytes(key)));
        let args = self.lua.create_sequence_from(run.args.iter().map(|arg| bytes(arg)));
        let (keys, args) = match (keys, args) {
            (Ok(keys), Ok(args)) => (keys, args),
            (Err(error), _) | (_, Err(error)) => return super::machine_error(&error),
        };
        self.set_limit(most);
        let ran = HOST.set(host, || self.runner.call::<(bool, Value)>((slot, keys, args)));
        self.set_limit(0);
        match ran {
            Ok((true, value)) => convert::from_lua(&value, self.shared.resp.get(), most),
            Ok((false, value)) => self.failed(sha, &value),
            Err(error) => {
                // The runner itself fails only where Lua has no memory even to start.
                self.shared.stop.set(Some(Stop::Memory));
                super::machine_error(&error)
            }
        }
    }

    /// What the client gets for a script that ended with an error.
    fn failed(&self, sha: &[u8; 20], value: &Value) -> Reply {
        let sha = String::from_utf8_lossy(&sha1::hex(sha)).into_owned();
        let (text, place) = self.shared.failure.take().unwrap_or_default();
        if self.out_of_memory(value, &text) {
            self.shared.stop.set(Some(Stop::Memory));
        }
        let limits = &self.shared.limits;
        let text = match self.shared.stop.get() {
            Some(Stop::Killed) => {
                b"ERR Error running script: Script killed by user with SCRIPT KILL...".to_vec()
            }
            Some(Stop::Time) => {
                let most = limits.time.as_millis();
                format!("ERR the script ran longer than its limit of {most} ms").into_bytes()
            }
            Some(Stop::Memory) => {
                let most = limits.memory_bytes;
                format!("ERR the script took more memory than its limit of {most} bytes")
                    .into_bytes()
            }
            None if text.is_empty() => {
                let what = raise::as_bytes(value).unwrap_or_else(|| b"execution failure".into());
                let what = convert::line(&what);
                let text = format!("ERR Error running script {sha}, {what:.100}");
                return Reply::Error(text.into());
            }
            None => text,
        };
        let place = if place.is_empty() { place } else { format!(" script: {sha}, on {place}.") };
        Reply::Error(convert::line(&[&text, place.as_bytes()].concat()))
    }

    fn out_of_memory(&self, value: &Value, text: &[u8]) -> bool {
        let lua_says = matches!(value, Value::String(text) if text.as_bytes() == NO_MEMORY);
        let rust_says = text.strip_prefix(b"ERR ") == Some(NO_MEMORY.as_bytes());
        // Without a text the handler of errors itself failed.
        let full = self.lua.used_memory() > self.shared.limits.memory_bytes / 2;
        lua_says || rust_says || (text.is_empty() && full)
    }
}

/// The functions in Rust that the glue needs.
fn natives(lua: &Lua, shared: &Rc<Shared>, bounds: &Bounds) -> mlua::Result<Table> {
    let native = lua.create_table()?;
    let own = Rc::clone(&bounds.checkpoint);
    native.raw_set("checkpoint", lua.create_function(move |_, ()| own())?)?;
    let slow = lua.create_table()?;
    pattern::install(lua, &slow, bounds)?;
    native.raw_set("pattern", slow)?;
    let widest = lua.create_function(|_, text: LuaString| Ok(pattern::widest(&text.as_bytes())))?;
    native.raw_set("widest", widest)?;
    let own = Rc::clone(shared);
    native.raw_set(
        "caught",
        lua.create_function(move |lua, error: Value| caught(lua, &own, error))?,
    )?;
    let own = Rc::clone(shared);
    let failed = lua.create_function(move |lua, error: Value| {
        let text = raise::without_glue(lua, text_of(&error));
        own.failure.replace(Some((text, place(lua))));
        Ok(())
    })?;
    native.raw_set("failed", failed)?;
    Ok(native)
}

/// What a script sees of an error that it caught; raised again where it has to stop.
fn caught(lua: &Lua, shared: &Shared, error: Value) -> mlua::Result<Value> {
    let no_memory = match &error {
        Value::String(text) => text.as_bytes() == NO_MEMORY,
        Value::Error(error) => unwrap(error).is_no_memory(),
        _ => false,
    };
    if no_memory && lua.used_memory() > shared.limits.memory_bytes / 2 {
        shared.stop.set(Some(Stop::Memory));
    }
    if shared.stop.get().is_some() {
        return Err(Raised::Stopped.into());
    }
    match &error {
        Value::String(text) if text.as_bytes().starts_with(raise::GLUE_PLACE) => {
            let text = raise::without_glue(lua, text.as_bytes().to_vec());
            lua.create_string(text).map(Value::String)
        }
        Value::Error(raised) => match unwrap(raised) {
            Raised::Table(text) => commands::caught_table(lua, &text),
            Raised::Text(text) => lua.create_string(text).map(Value::String),
            Raised::Stopped => Err(Raised::Stopped.into()),
        },
        _ => Ok(error),
    }
}

/// The text of an error that ends a script, as Redis makes it.
fn text_of(error: &Value) -> Vec<u8> {
    let other = |what: &str| format!("ERR {what}").into_bytes();
    match error {
        Value::Error(raised) => match unwrap(raised) {
            Raised::Table(text) => text,
            Raised::Text(text) => [b"ERR ", &text[..]].concat(),
            Raised::Stopped => other("stopped"),
        },
        Value::Table(table) => {
            let text = table.raw_get::<Value>("err").ok().and_then(|text| raise::as_bytes(&text));
            text.unwrap_or_else(|| other("the script raised a table without err"))
        }
        Value::Nil => other("nil"),
        Value::Boolean(flag) => other(if *flag { "true" } else { "false" }),
        value => match raise::as_bytes(value) {
            Some(text) => [b"ERR ", &text[..]].concat(),
            None => other(raise::type_name(value)),
        },
    }
}

/// Where an error was raised: in the script, not in a function of C that it called, nor in the
/// sandbox.
fn place(lua: &Lua) -> String {
    let mut place = String::new();
    for level in 1..6 {
        let found = lua.inspect_stack(level, |debug| {
            let source = debug.source();
            let name = source.source.unwrap_or_default().into_owned();
            if source.what == "C" || source.what == "tail" || name == GLUE {
                return None;
            }
            Some(format!("{name}:{}", debug.current_line().unwrap_or_default()))
        });
        match found {
            Some(None) => {}
            Some(Some(found)) => {
                place = found;
                break;
            }
            None => break,
        }
    }
    if place.is_empty() { "@user_script:1".to_owned() } else { place }
}
