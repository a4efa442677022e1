//! Every command of Redis 7.0, and our own: which are offered, with how many arguments, which of
//! those are keys, and what else a session has to know before it runs one.
//!
//! The rows stand in `commands` (offered) and `refused`. A name is found through a hash table that
//! the compiler builds. What is refused is refused by name and reason, so that nobody has to guess
//! whether it was a misspelling.

mod about;
mod commands;
mod flags;
mod index;
mod page;
mod refused;

#[cfg(test)]
mod tests;

use std::iter::{Chain, StepBy};
use std::ops::Range;

use crate::Reply;
use crate::codec::Arguments;

pub use about::{all, count, docs, get_keys, help, info, list};
pub use commands::Command;
pub use flags::Flags;
pub use page::markdown;

/// How much of a client's text is put into an error.
const SHOWN: usize = 128;

/// What a command is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it.
pub enum Group {
    Connection,
    Server,
    Transactions,
    Pubsub,
    Scripting,
    Strings,
    Hashes,
    Lists,
    Sets,
    SortedSets,
    Keys,
    Leases,
    Queues,
    Bitmaps,
    Cluster,
    Geo,
    HyperLogLog,
    Streams,
}

impl Group {
    /// The name that COMMAND DOCS has for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Server => "server",
            Self::Transactions => "transactions",
            Self::Pubsub => "pubsub",
            Self::Scripting => "scripting",
            Self::Strings => "string",
            Self::Hashes => "hash",
            Self::Lists => "list",
            Self::Sets => "set",
            Self::SortedSets => "sorted-set",
            Self::Keys => "generic",
            Self::Leases => "lease",
            Self::Queues => "queue",
            Self::Bitmaps => "bitmap",
            Self::Cluster => "cluster",
            Self::Geo => "geo",
            Self::HyperLogLog => "hyperloglog",
            Self::Streams => "stream",
        }
    }
}

/// Where the keys stand among the arguments; the command's name has place 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// The first at a fixed place; 0: none.
    pub first: u8,
    /// The last of these; negative counts from the end, -1 being the last argument.
    pub last: i8,
    /// From one to the next.
    pub step: u8,
    /// The argument that says how many more keys follow it; 0: none.
    pub numkeys: u8,
}

/// Places of keys among arguments.
pub type KeyPositions = Chain<StepBy<Range<usize>>, Range<usize>>;

impl Keys {
    /// Where the keys of a request are; none at all if the number that says how many there are is
    /// no number, or bigger than what follows.
    fn positions(self, args: &(impl Arguments + ?Sized)) -> KeyPositions {
        let mut fixed = 0..0;
        if self.first > 0 {
            let last = match self.last {
                last @ 0.. => last as usize + 1,
                last => (args.count() + 1).saturating_sub(usize::from(last.unsigned_abs())),
            };
            fixed = usize::from(self.first)..last.min(args.count());
        }
        let mut counted = 0..0;
        if self.numkeys > 0 {
            let place = usize::from(self.numkeys);
            let number = std::str::from_utf8(args.argument(place)).ok();
            let number = number.and_then(|text| text.parse::<usize>().ok());
            match number.filter(|number| *number < args.count().saturating_sub(place)) {
                Some(number) => counted = place + 1..place + 1 + number,
                None => fixed = 0..0,
            }
        }
        fixed.step_by(usize::from(self.step).max(1)).chain(counted)
    }
}

/// A command, or a subcommand.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// In small letters; a subcommand as in `client|id`.
    pub name: &'static str,
    /// For dispatch. [`Command::Refused`] for all that are not offered.
    pub id: Command,
    /// How many arguments, the name included; negative: at least so many.
    pub arity: i8,
    /// What a session has to know.
    pub flags: Flags,
    /// Where the keys are.
    pub keys: Keys,
    /// What it is about.
    pub group: Group,
    /// Or else why not.
    pub offered: Result<(), &'static str>,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// Where the subcommand begins in the name; 0: it is none.
    sub: u8,
}

/// The command of a name, in letters of any case; subcommands are not found here.
pub fn find(name: &[u8]) -> Option<&'static Entry> {
    index::lookup(name).filter(|entry| entry.sub == 0)
}

/// All commands and subcommands that are offered, in the order of the page.
pub fn offered() -> &'static [Entry] {
    commands::OFFERED
}

/// The command that a request asks for, if it is offered and has the right number of arguments;
/// otherwise the error to answer. The subcommand takes the place of its container.
pub fn resolve(args: &(impl Arguments + ?Sized)) -> Result<&'static Entry, Reply> {
    let mut entry = find(args.argument(0)).ok_or_else(|| unknown_command(args))?;
    if entry.flags.has(Flags::CONTAINER) && args.count() > 1 {
        let sub = args.argument(1);
        entry = entry.subcommand(sub).ok_or_else(|| entry.unknown_subcommand(sub))?;
    }
    if let Some(refusal) = entry.refusal() {
        return Err(refusal);
    }
    match entry.takes(args.count()) {
        true => Ok(entry),
        false => Err(entry.wrong_arity()),
    }
}

/// The error for a name that nobody knows.
pub fn unknown_command(args: &(impl Arguments + ?Sized)) -> Reply {
    let mut shown = Vec::new();
    for index in 1..args.count() {
        if shown.len() >= SHOWN {
            break;
        }
        let argument = args.argument(index);
        let room = SHOWN - shown.len();
        shown.push(b'\'');
        shown.extend_from_slice(&argument[..argument.len().min(room)]);
        shown.extend_from_slice(b"' ");
    }
    let (name, shown) = (text(args.argument(0)), String::from_utf8_lossy(&shown));
    Reply::error(format!("ERR unknown command '{name}', with args beginning with: {shown}"))
}

/// The beginning of what a client sent, for an error.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).into_owned()
}

impl Entry {
    /// As the rows have it; for constants.
    const fn new(
        group: Group,
        name: &'static str,
        id: Command,
        arity: i8,
        offered: Result<(), &'static str>,
    ) -> Self {
        let bytes = name.as_bytes();
        let (mut sub, mut at) = (0, 0);
        while at < bytes.len() {
            if bytes[at] == b'|' {
                sub = at as u8 + 1;
            }
            at += 1;
        }
        let keys = Keys { first: 0, last: 0, step: 0, numkeys: 0 };
        Self { name, id, arity, flags: Flags::NONE, keys, group, offered, summary: "", sub }
    }

    /// The subcommand of a name, in letters of any case.
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static Entry> {
        if self.sub > 0 {
            return None;
        }
        index::lookup_sub(self.name.as_bytes(), name)
    }

    /// The offered subcommands.
    pub fn subcommands(&self) -> impl Iterator<Item = &'static Entry> + use<> {
        let container = self.name;
        offered().iter().filter(move |entry| entry.container() == Some(container))
    }

    /// The name of the command that this is a subcommand of.
    pub fn container(&self) -> Option<&'static str> {
        (self.sub > 0).then(|| &self.name[..usize::from(self.sub) - 1])
    }

    /// The name without that of the container.
    pub fn short_name(&self) -> &'static str {
        &self.name[usize::from(self.sub)..]
    }

    /// The name as people write it: `CLIENT ID`.
    pub fn title(&self) -> String {
        self.name.replace('|', " ").to_ascii_uppercase()
    }

    /// Whether this is the HELP of a container: [`help`] answers it.
    pub fn is_help(&self) -> bool {
        self.sub > 0 && self.short_name() == "help"
    }

    /// Whether a request may have so many arguments, the name included.
    pub fn takes(&self, count: usize) -> bool {
        let arity = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { count >= arity } else { count == arity }
    }

    /// Places of the keys among the arguments of a request.
    pub fn keys(&self, args: &(impl Arguments + ?Sized)) -> KeyPositions {
        self.keys.positions(args)
    }

    /// The error for a command that is not offered.
    pub fn refusal(&self) -> Option<Reply> {
        let why = self.offered.err()?;
        let title = self.title();
        Some(Reply::error(format!(
            "ERR unknown command '{title}' (not offered by leasehold: {why})"
        )))
    }

    /// The error for a wrong number of arguments.
    pub fn wrong_arity(&self) -> Reply {
        Reply::error(format!("ERR wrong number of arguments for '{}' command", self.name))
    }

    /// The error for a subcommand that nobody knows.
    pub fn unknown_subcommand(&self, sub: &[u8]) -> Reply {
        let (sub, title) = (text(sub), self.title());
        Reply::error(format!("ERR unknown subcommand '{sub}'. Try {title} HELP."))
    }
}
