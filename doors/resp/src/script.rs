//! Scripts: Lua 5.1 as Redis 7.0 gives it to its clients, in a sandbox that a script cannot leave,
//! fill or hold up.
//!
//! One [`Scripts`] belongs to one thread. It keeps scripts under their SHA-1 with the compiled
//! function, and carries them out one at a time against a [`Host`], borrowed for the run: the
//! function behind `redis.call` finds it in a thread-local that is set while a script runs. What
//! nearly all locks are given back with needs no Lua at all (see `guard`).
//!
//! What a script may use up is bounded. A hook every few hundred instructions, in coroutines too,
//! sees the time; once it has stopped a script, nothing in the script catches that. Lua counts its
//! memory; a script that runs into the limit takes the whole state of Lua with it, which is made
//! anew from the sources for the next one. Lua's garbage counts until it is collected, so a
//! script can rely on about half of the limit. Functions of C that run long in one instruction are
//! asked for beforehand or replaced (see `glue` and `pattern`); a script that repeats costly ones
//! can pass its time by a few of them.
//!
//! Nothing a script does reaches the next one: globals and libraries cannot be changed, `KEYS` and
//! `ARGV` are new tables, and settings of `cjson`, the random numbers and the protocol version
//! start afresh.
//!
//! Replies and errors are those of Redis 7.0.15, with these exceptions. Redis keeps settings of
//! `cjson` and the state of the random numbers from script to script. It has `string.dump`, and
//! `collectgarbage` can stop the collector. Tables of its library are real ones, with metatables
//! to look at. An argument that is missing where a function of the library was replaced is told
//! as nil, not as no value, and an error in such a function that a script calls as its last act
//! (`return pairs(nil)`) is placed in line 1. Errors of bytes that are not UTF-8 are changed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mlua::Lua;

use crate::Reply;

mod bits;
mod commands;
mod convert;
mod glue;
mod guard;
mod json;
mod machine;
mod msgpack;
mod number;
mod packing;
mod pattern;
mod raise;
mod random;
mod sha1;
mod shebang;

use guard::Guard;
use machine::Machine;
use raise::Raised;
use random::Random;
use shebang::Writes;

/// One call of `redis.call` or `redis.pcall`.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The command and its arguments.
    pub args: &'a [&'a [u8]],
    /// The version of the protocol that the script asked for: 2 or 3.
    pub resp: u8,
    /// Whether a command that writes has to be refused.
    pub read_only: bool,
}

/// What scripts reach outside.
pub trait Host {
    /// Carries out one command; a [`Reply::Error`] is raised in the script, or handed to it.
    fn call(&mut self, call: Call<'_>) -> Reply;

    /// Whether the running script has to stop; asked every few hundred instructions once it has
    /// run for [`Limits::busy_after`].
    fn interrupted(&mut self) -> bool;

    /// Takes a line of the script's log; levels go from 0, for debugging, to 3, for warnings.
    fn log(&mut self, _level: i64, _text: &[u8]) {}

    /// Whether the user may carry out a command, for `redis.acl_check_cmd`; none if there is no
    /// such command.
    fn allowed(&mut self, _args: &[&[u8]]) -> Option<bool> {
        Some(true)
    }
}

/// What scripts may use up.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Memory of Lua, in bytes, and the longest text that a library writes.
    pub memory_bytes: usize,
    /// How long a script may run.
    pub time: Duration,
    /// From when on the host is asked whether a script has to stop.
    pub busy_after: Duration,
    /// Scripts that are kept; the longest unused go first.
    pub scripts_max: usize,
    /// Bytes of the scripts that are kept.
    pub script_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            time: Duration::from_secs(5),
            busy_after: Duration::from_millis(100),
            scripts_max: 10_000,
            script_bytes: 64 << 20,
        }
    }
}

/// Which script to run.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// The kept one with this SHA-1, in hexadecimal digits.
    Sha(&'a [u8]),
    /// This one; it is kept.
    Source(&'a [u8]),
}

/// One run of a script.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The script.
    pub which: Which<'a>,
    /// What `KEYS` holds.
    pub keys: &'a [&'a [u8]],
    /// What `ARGV` holds.
    pub args: &'a [&'a [u8]],
    /// Whether commands that write are refused, as for `EVAL_RO`.
    pub read_only: bool,
}

/// Why a script had to stop.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stop {
    Killed,
    Time,
    Memory,
}

/// Whether the script has to stop.
type Checkpoint = Rc<dyn Fn() -> mlua::Result<()>>;

/// What the functions of a library may use up.
#[derive(Clone)]
struct Bounds {
    /// The longest text.
    most: usize,
    checkpoint: Checkpoint,
}

scoped_tls_hkt::scoped_thread_local! {
    /// The host of the script that runs.
    static mut HOST: for<'h> &'h mut (dyn Host + 'h)
}

/// Asks the host something; none while nothing runs.
fn ask<T>(question: impl FnOnce(&mut dyn Host) -> T) -> Option<T> {
    HOST.is_set().then(|| HOST.with(|host| question(host)))
}

/// What the functions of Lua and the runs share.
struct Shared {
    limits: Limits,
    resp: Cell<u8>,
    read_only: Cell<bool>,
    /// When the run was first looked at; a short one never is.
    begun: Cell<Option<Instant>>,
    stop: Cell<Option<Stop>>,
    /// The error that ended the run: its text and its place.
    failure: RefCell<Option<(Vec<u8>, String)>>,
    random: Rc<Random>,
    json: Rc<Cell<json::Settings>>,
}

impl Shared {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            resp: Cell::new(2),
            read_only: Cell::new(false),
            begun: Cell::new(None),
            stop: Cell::new(None),
            failure: RefCell::new(None),
            random: Rc::new(Random::new()),
            json: Rc::default(),
        }
    }

    /// Makes everything as a script expects it at its start.
    fn start(&self, read_only: bool) {
        self.resp.set(2);
        self.read_only.set(read_only);
        self.begun.set(None);
        self.stop.set(None);
        self.random.seed(0);
        self.json.set(json::Settings::default());
    }

    /// Raises the error that nothing catches if the script has to stop.
    fn checkpoint(&self) -> mlua::Result<()> {
        if self.stop.get().is_none() {
            let Some(begun) = self.begun.get() else {
                self.begun.set(Some(Instant::now()));
                return Ok(());
            };
            let ran = begun.elapsed();
            if ran >= self.limits.time {
                self.stop.set(Some(Stop::Time));
            } else if ran >= self.limits.busy_after && ask(|host| host.interrupted()) == Some(true)
            {
                self.stop.set(Some(Stop::Killed));
            } else {
                return Ok(());
            }
        }
        Err(Raised::Stopped.into())
    }

    /// Carries out `of` while Lua may take any memory, for a small and known amount.
    fn without_limit<T>(&self, lua: &Lua, of: impl FnOnce() -> T) -> T {
        // The allocator that counts belongs to every state made here.
        let limit = lua.set_memory_limit(0).unwrap_or_default();
        let done = of();
        let _ = lua.set_memory_limit(limit);
        done
    }
}

/// A kept script.
struct Entry {
    source: Box<[u8]>,
    writes: Writes,
    /// What it is, if Lua need not run it.
    guard: Option<Guard>,
    /// Where the compiled function stands, in the state of this generation.
    compiled: Option<(u64, u32)>,
    used: u64,
}

/// A SHA-1 is its own hash.
#[derive(Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Sha = [u8; 20];

const NO_SCRIPT: &str = "NOSCRIPT No matching script. Please use EVAL.";

/// The scripts of one thread and the state of Lua that runs them.
pub struct Scripts {
    shared: Rc<Shared>,
    machine: Option<Machine>,
    /// Counts states of Lua.
    generation: u64,
    entries: HashMap<Sha, Entry, BuildHasherDefault<FirstBytes>>,
    bytes: usize,
    /// Counts runs, for how long ago a script was used.
    clock: u64,
}

impl Scripts {
    /// No scripts yet. The state of Lua is made when the first one comes.
    pub fn new(limits: Limits) -> Self {
        Self {
            shared: Rc::new(Shared::new(limits)),
            machine: None,
            generation: 0,
            entries: HashMap::default(),
            bytes: 0,
            clock: 0,
        }
    }

    /// Keeps a script; answers its SHA-1, or the error that the client gets.
    pub fn load(&mut self, source: &[u8]) -> Result<[u8; 40], Reply> {
        let sha = sha1::digest(source);
        self.keep(sha, source)?;
        Ok(sha1::hex(&sha))
    }

    /// Whether a script with this SHA-1, in hexadecimal digits, is kept.
    pub fn exists(&self, sha: &[u8]) -> bool {
        sha1::unhex(sha).is_some_and(|sha| self.entries.contains_key(&sha))
    }

    /// Forgets all scripts, and the state of Lua with them.
    pub fn flush(&mut self) {
        self.entries.clear();
        self.bytes = 0;
        self.machine = None;
    }

    /// How many scripts are kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no script is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Memory that Lua uses, in bytes.
    pub fn memory(&self) -> usize {
        self.machine.as_ref().map_or(0, Machine::memory)
    }

    /// Whether the last run was stopped: killed, or for its time or memory.
    pub fn was_stopped(&self) -> bool {
        self.shared.stop.get().is_some()
    }

    /// Runs a script; answers what the client gets.
    pub fn run(&mut self, run: &Run<'_>, host: &mut dyn Host) -> Reply {
        self.shared.stop.set(None);
        let sha = match run.which {
            Which::Sha(text) => sha1::unhex(text),
            Which::Source(source) => {
                let sha = sha1::digest(source);
                if !self.entries.contains_key(&sha)
                    && let Err(reply) = self.keep(sha, source)
                {
                    return reply;
                }
                Some(sha)
            }
        };
        let Some(sha) = sha else {
            return Reply::error(NO_SCRIPT);
        };
        self.run_kept(&sha, run, host)
    }

    fn run_kept(&mut self, sha: &Sha, run: &Run<'_>, host: &mut dyn Host) -> Reply {
        let (slot, writes) = match self.prepare(sha) {
            Ok(ready) => ready,
            Err(reply) => return reply,
        };
        if run.read_only && writes == Writes::Yes {
            return Reply::error(
                "ERR Can not execute a script with write flag using *_ro command.",
            );
        }
        let read_only = run.read_only || writes == Writes::No;
        let guard = self.entries.get(sha).and_then(|entry| entry.guard.as_ref());
        if let Some(reply) = guard.and_then(|guard| guard.run(run, read_only, host)) {
            return reply;
        }
        self.shared.start(read_only);
        let reply = match &self.machine {
            Some(machine) => machine.run(slot, sha, run, host),
            None => Reply::error("ERR scripts are not available"),
        };
        if self.shared.stop.get() == Some(Stop::Memory) {
            self.machine = None;
        }
        reply
    }

    /// Where the compiled function of a kept script stands; compiles it if this state of Lua has
    /// not seen it yet.
    fn prepare(&mut self, sha: &Sha) -> Result<(u32, Writes), Reply> {
        if self.machine.is_none() {
            self.generation += 1;
            let made = Machine::new(Rc::clone(&self.shared));
            self.machine = Some(made.map_err(|error| machine_error(&error))?);
        }
        let (Some(machine), Some(entry)) = (&mut self.machine, self.entries.get_mut(sha)) else {
            return Err(Reply::error(NO_SCRIPT));
        };
        self.clock += 1;
        entry.used = self.clock;
        if let Some((generation, slot)) = entry.compiled
            && generation == self.generation
        {
            return Ok((slot, entry.writes));
        }
        let (_, body) = shebang::split(&entry.source)?;
        let slot = machine.compile(body);
        if self.shared.stop.get() == Some(Stop::Memory) {
            self.machine = None;
        }
        let slot = slot?;
        entry.compiled = Some((self.generation, slot));
        Ok((slot, entry.writes))
    }

    fn keep(&mut self, sha: Sha, source: &[u8]) -> Result<(), Reply> {
        if self.entries.contains_key(&sha) {
            return Ok(());
        }
        let (writes, body) = shebang::split(source)?;
        if source.len() > self.shared.limits.script_bytes {
            return Err(Reply::error("ERR the script is too large"));
        }
        let guard = Guard::read(body);
        let entry = Entry { source: source.into(), writes, guard, compiled: None, used: 0 };
        self.entries.insert(sha, entry);
        self.bytes += source.len();
        if let Err(reply) = self.prepare(&sha) {
            self.forget(&sha);
            return Err(reply);
        }
        self.make_room(&sha);
        Ok(())
    }

    fn forget(&mut self, sha: &Sha) {
        let Some(entry) = self.entries.remove(sha) else { return };
        self.bytes -= entry.source.len();
        if let (Some((generation, slot)), Some(machine)) = (entry.compiled, &mut self.machine)
            && generation == self.generation
        {
            machine.forget(slot);
        }
    }

    /// Forgets the scripts that were unused the longest, but not `newest`: a tenth more than it
    /// takes, so that the search for them is rare.
    fn make_room(&mut self, newest: &Sha) {
        let Limits { scripts_max, script_bytes, .. } = self.shared.limits;
        if self.entries.len() <= scripts_max && self.bytes <= script_bytes {
            return;
        }
        let mut by_age: Vec<(u64, Sha)> =
            self.entries.iter().map(|(sha, entry)| (entry.used, *sha)).collect();
        by_age.sort_unstable();
        for (_, sha) in by_age {
            let few = self.entries.len() <= scripts_max - scripts_max / 10;
            if few && self.bytes <= script_bytes - script_bytes / 10 {
                break;
            }
            if sha != *newest {
                self.forget(&sha);
            }
        }
    }
}

fn machine_error(error: &mlua::Error) -> Reply {
    Reply::Error(convert::line(format!("ERR scripts are not available: {error}").as_bytes()))
}
