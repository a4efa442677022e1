//! What COMMAND answers, in the shape of Redis 7.0: only what is offered is told.
//!
//! Two things are told in less detail than there. Places of keys come with whether the keys are
//! read or written but not with how; and DOCS has a summary and the group.

use super::{Entry, Flags, Group, Keys, find, index, offered};
use crate::Reply;
use crate::codec::Arguments;

const SYNTAX: &str = "ERR syntax error";

/// COMMAND: everything about every command.
pub fn all() -> Reply {
    Reply::Array(commands().map(about).collect())
}

/// COMMAND COUNT.
pub fn count() -> Reply {
    Reply::Int(commands().count() as i64)
}

/// COMMAND INFO, `args` being the whole request.
pub fn info(args: &(impl Arguments + ?Sized)) -> Reply {
    if args.count() <= 2 {
        return all();
    }
    let one = |index| known(args.argument(index)).map_or(Reply::Nil, about);
    Reply::Array((2..args.count()).map(one).collect())
}

/// COMMAND DOCS, `args` being the whole request.
pub fn docs(args: &(impl Arguments + ?Sized)) -> Reply {
    let one = |entry: &Entry| (Reply::bulk(entry.name), documented(entry));
    if args.count() <= 2 {
        return Reply::Map(commands().map(one).collect());
    }
    Reply::Map((2..args.count()).filter_map(|at| known(args.argument(at))).map(one).collect())
}

/// COMMAND LIST, `args` being the whole request. `matches` is told a pattern and a name.
pub fn list(args: &(impl Arguments + ?Sized), matches: impl Fn(&[u8], &[u8]) -> bool) -> Reply {
    let is = |index, word: &str| args.argument(index).eq_ignore_ascii_case(word.as_bytes());
    let by = args.argument(4);
    let names = |wanted: &dyn Fn(&Entry) -> bool| {
        let wanted = offered().iter().filter(|entry| wanted(entry));
        Reply::Array(wanted.map(|entry| Reply::bulk(entry.name)).collect())
    };
    if args.count() == 2 {
        names(&|_| true)
    } else if args.count() != 5 || !is(2, "FILTERBY") {
        Reply::error(SYNTAX)
    } else if is(3, "MODULE") {
        names(&|_| false)
    } else if is(3, "ACLCAT") {
        let has = |name: &&str| name.as_bytes().eq_ignore_ascii_case(by);
        names(&|entry| categories(entry).iter().any(has))
    } else if is(3, "PATTERN") {
        names(&|entry| matches(by, entry.name.as_bytes()))
    } else {
        Reply::error(SYNTAX)
    }
}

/// COMMAND GETKEYS, `args` being the whole request.
pub fn get_keys(args: &(impl Arguments + ?Sized)) -> Reply {
    let asked: Vec<&[u8]> = (2..args.count()).map(|index| args.argument(index)).collect();
    let mut entry = asked.first().and_then(|name| find(name));
    if let Some(container) = entry.filter(|entry| entry.flags.has(Flags::CONTAINER))
        && asked.len() > 1
    {
        entry = container.subcommand(asked[1]);
    }
    let Some(entry) = entry.filter(|entry| entry.offered.is_ok()) else {
        return Reply::error("ERR Invalid command specified");
    };
    if entry.keys.first == 0 && entry.keys.numkeys == 0 {
        return Reply::error("ERR The command has no key arguments");
    }
    if !entry.takes(asked.len()) {
        return Reply::error("ERR Invalid number of arguments specified for command");
    }
    let keys: Vec<Reply> = entry.keys(&asked).map(|place| Reply::bulk(asked[place])).collect();
    match keys.is_empty() && !entry.flags.has(Flags::NO_MANDATORY_KEYS) {
        true => Reply::error("ERR Invalid arguments specified for command"),
        false => Reply::Array(keys),
    }
}

/// HELP of a container; `entry` is any of its subcommands.
pub fn help(entry: &Entry) -> Reply {
    let container = entry.container().unwrap_or(entry.name);
    let subs = offered().iter().filter(|entry| entry.container() == Some(container));
    let title = container.to_ascii_uppercase();
    let mut lines =
        vec![format!("{title} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")];
    for sub in subs.filter(|sub| !sub.is_help()) {
        lines.push(sub.short_name().to_ascii_uppercase());
        lines.push(format!("    {}", sub.summary));
    }
    lines.extend(["HELP".to_owned(), "    Prints this help.".to_owned()]);
    Reply::Array(lines.into_iter().map(|line| Reply::Status(line.into())).collect())
}

/// All that are no subcommand.
fn commands() -> impl Iterator<Item = &'static Entry> {
    offered().iter().filter(|entry| entry.container().is_none())
}

/// What is offered under a name such as `get` or `client|id`.
fn known(name: &[u8]) -> Option<&'static Entry> {
    index::lookup(name).filter(|entry| entry.offered.is_ok())
}

fn about(entry: &Entry) -> Reply {
    let statuses = |names: Vec<String>| {
        Reply::Set(names.into_iter().map(|name| Reply::Status(name.into())).collect())
    };
    let place = |number: i64| Reply::Int(number);
    let Keys { first, last, step, .. } = entry.keys;
    let subcommands = match entry.flags.has(Flags::CONTAINER) {
        true => Reply::Array(entry.subcommands().map(about).collect()),
        false => Reply::Set(Vec::new()),
    };
    Reply::Array(vec![
        Reply::bulk(entry.name),
        Reply::Int(entry.arity.into()),
        statuses(entry.flags.names().map(str::to_owned).collect()),
        place(first.into()),
        place(last.into()),
        place(step.into()),
        statuses(categories(entry).into_iter().map(|name| format!("@{name}")).collect()),
        Reply::Set(Vec::new()),
        Reply::Set(specifications(entry)),
        subcommands,
    ])
}

/// How to find the keys, in the words that came with Redis 7.0.
fn specifications(entry: &Entry) -> Vec<Reply> {
    let Keys { first, last, step, numkeys } = entry.keys;
    let mut found = Vec::new();
    // A destination, or a second key, is described on its own there.
    let alone = match last {
        0.. if step == 1 => first..last as u8 + 1,
        -1 if first == 1 && entry.name.ends_with("store") => 1..2,
        _ => 0..0,
    };
    let range = |last: i8| [("lastkey", last.into()), ("keystep", step.into()), ("limit", 0)];
    for place in alone.clone().filter(|place| *place > 0) {
        found.push(specification(entry, place.into(), "range", &range(0)));
    }
    let rest = first + alone.len() as u8;
    if first > 0 && last < 0 {
        found.push(specification(entry, rest.into(), "range", &range(last)));
    }
    if numkeys > 0 {
        let range = [("keynumidx", 0), ("firstkey", 1), ("keystep", 1)];
        found.push(specification(entry, numkeys.into(), "keynum", &range));
    }
    found
}

fn specification(entry: &Entry, index: i64, kind: &str, find: &[(&str, i64)]) -> Reply {
    let access = if entry.flags.has(Flags::READONLY) { "RO" } else { "RW" };
    let typed = |kind: &str, spec: &[(&str, i64)]| {
        let spec = spec.iter().map(|(name, value)| (Reply::bulk(name), Reply::Int(*value)));
        Reply::Map(vec![
            (Reply::bulk("type"), Reply::bulk(kind)),
            (Reply::bulk("spec"), Reply::Map(spec.collect())),
        ])
    };
    Reply::Map(vec![
        (Reply::bulk("flags"), Reply::Set(vec![Reply::Status(access.into())])),
        (Reply::bulk("begin_search"), typed("index", &[("index", index)])),
        (Reply::bulk("find_keys"), typed(kind, find)),
    ])
}

fn documented(entry: &Entry) -> Reply {
    let mut known = vec![
        (Reply::bulk("summary"), Reply::bulk(entry.summary)),
        (Reply::bulk("group"), Reply::bulk(entry.group.name())),
    ];
    if entry.flags.has(Flags::CONTAINER) {
        let subs = entry.subcommands().map(|sub| (Reply::bulk(sub.name), documented(sub)));
        known.push((Reply::bulk("subcommands"), Reply::Map(subs.collect())));
    }
    Reply::Map(known)
}

/// The categories in which access lists of Redis have a command, in the order of Redis.
fn categories(entry: &Entry) -> Vec<&'static str> {
    let Entry { flags, group, .. } = *entry;
    let name = entry.name;
    let container = flags.has(Flags::CONTAINER) && name != "command";
    let about = !container;
    // Those that are in another category than their group says.
    let waits = name == "wait" || name == "waitaof";
    let keyspace =
        group == Group::Keys && !waits || matches!(name, "dbsize" | "flushall" | "flushdb");
    let connection = group == Group::Connection || waits || name.starts_with("command");
    let dangerous =
        flags.has(Flags::ADMIN) || matches!(name, "keys" | "flushall" | "flushdb" | "info");
    let scripting = group == Group::Scripting;
    let listed = [
        (about && keyspace, "keyspace"),
        (flags.has(Flags::READONLY) && !scripting, "read"),
        (flags.has(Flags::WRITE), "write"),
        (group == Group::Sets, "set"),
        (group == Group::SortedSets, "sortedset"),
        (group == Group::Lists, "list"),
        (group == Group::Hashes, "hash"),
        (group == Group::Strings, "string"),
        (group == Group::Leases, "lease"),
        (group == Group::Queues, "queue"),
        (flags.has(Flags::PUBSUB), "pubsub"),
        (flags.has(Flags::ADMIN), "admin"),
        (flags.has(Flags::FAST), "fast"),
        (!flags.has(Flags::FAST), "slow"),
        (flags.has(Flags::BLOCKING), "blocking"),
        (dangerous, "dangerous"),
        (about && connection, "connection"),
        (group == Group::Transactions, "transaction"),
        (about && scripting, "scripting"),
    ];
    listed.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect()
}
