//! The table against itself, against known requests, and against its page.

use super::*;

fn words(request: &str) -> Vec<&[u8]> {
    request.split(' ').map(str::as_bytes).collect()
}

fn error(request: &str) -> String {
    match resolve(&words(request)) {
        Err(Reply::Error(text)) => text.into_owned(),
        other => panic!("no error for {request}: {other:?}"),
    }
}

fn keys(request: &str) -> Vec<usize> {
    let args = words(request);
    resolve(&args).unwrap_or_else(|error| panic!("{request}: {error:?}")).keys(&args).collect()
}

#[test]
fn every_row_is_found_by_its_name() {
    let all: Vec<&Entry> = offered().iter().chain(refused::REFUSED).collect();
    for entry in &all {
        let same = |found: &Entry| found.name == entry.name && found.id == entry.id;
        let name = entry.name.to_ascii_uppercase();
        match entry.container() {
            None => assert!(find(name.as_bytes()).is_some_and(same), "{name}"),
            Some(container) => {
                assert!(find(name.as_bytes()).is_none(), "{name} is no command");
                let container = find(container.as_bytes()).expect("a container has a row");
                let sub = entry.short_name().to_ascii_uppercase();
                assert!(container.subcommand(sub.as_bytes()).is_some_and(same), "{name}");
                let marked = container.flags.has(Flags::CONTAINER);
                assert!(marked || container.offered.is_err(), "{name}");
            }
        }
        assert_eq!(all.iter().filter(|other| same(other)).count(), 1, "{name} has two rows");
    }
    for name in ["", "g", "getx", "client|", "|id", "client|id|x"] {
        assert!(find(name.as_bytes()).is_none(), "{name}");
    }
    assert!(find(&[b'a'; 500]).is_none());
    assert!(find(b"client").and_then(|client| client.subcommand(&[b'a'; 500])).is_none());
}

#[test]
fn flags_and_keys_go_together() {
    for entry in offered() {
        let counted = entry.keys.numkeys > 0;
        assert_eq!(entry.flags.has(Flags::MOVABLEKEYS), counted, "{}", entry.name);
        assert!(!(entry.flags.has(Flags::WRITE) && entry.flags.has(Flags::READONLY)));
        assert!(!entry.summary.is_empty() && entry.summary.ends_with('.'), "{}", entry.name);
    }
}

#[test]
fn requests_are_resolved() {
    let id = |request| resolve(&words(request)).map(|entry| entry.id);
    assert_eq!(id("get a"), Ok(Command::Get));
    assert_eq!(id("SET a b PX 10 NX"), Ok(Command::Set));
    assert_eq!(id("Client nO-eVict on"), Ok(Command::ClientNoEvict));
    assert_eq!(id("COMMAND"), Ok(Command::Command));
    assert_eq!(id("COMMAND count"), Ok(Command::CommandCount));
    assert_eq!(id("lease.acquire a me px 10"), Ok(Command::LeaseAcquire));
    assert_eq!(id("zrangebyscore z 0 1"), Ok(Command::Zrangebyscore));
}

/// But for the refusals, each with what redis-server 7.0.15 answers.
#[test]
fn errors_in_the_words_of_redis() {
    let cases = [
        ("FOO", "ERR unknown command 'FOO', with args beginning with: "),
        ("fOO a b", "ERR unknown command 'fOO', with args beginning with: 'a' 'b' "),
        ("client|id", "ERR unknown command 'client|id', with args beginning with: "),
        ("GET", "ERR wrong number of arguments for 'get' command"),
        ("GET a b", "ERR wrong number of arguments for 'get' command"),
        ("client", "ERR wrong number of arguments for 'client' command"),
        ("Config geT", "ERR wrong number of arguments for 'config|get' command"),
        ("CLIENT x", "ERR unknown subcommand 'x'. Try CLIENT HELP."),
        ("COMMAND FOO", "ERR unknown subcommand 'FOO'. Try COMMAND HELP."),
        ("xadd", "ERR unknown command 'XADD' (not offered by leasehold: streams)"),
        ("CLUSTER x", "ERR unknown command 'CLUSTER' (not offered by leasehold: cluster)"),
        (
            "client tracking on",
            "ERR unknown command 'CLIENT TRACKING' (not offered by leasehold: client-side caching)",
        ),
    ];
    for (request, text) in cases {
        assert_eq!(error(request), text);
    }
    let long = format!("FOO {} {} {} w", "x".repeat(50), "y".repeat(60), "z".repeat(60));
    let shown = format!("'{}' '{}' '{}' ", "x".repeat(50), "y".repeat(60), "z".repeat(12));
    let text = format!("ERR unknown command 'FOO', with args beginning with: {shown}");
    assert_eq!(error(&long), text);
    assert!(
        error(&"F".repeat(200)).starts_with(&format!("ERR unknown command '{}'", "F".repeat(128)))
    );
}

#[test]
fn keys_stand_where_they_stand() {
    assert_eq!(keys("SET a b PX 10"), [1]);
    assert_eq!(keys("MSET a 1 b 2"), [1, 3]);
    assert_eq!(keys("DEL a b c"), [1, 2, 3]);
    assert_eq!(keys("BLPOP a b 0"), [1, 2]);
    assert_eq!(keys("RENAME a b"), [1, 2]);
    assert_eq!(keys("EVAL x 2 a b c"), [3, 4]);
    assert_eq!(keys("EVAL x 0 a"), []);
    assert_eq!(keys("EVAL x 5 a"), []);
    assert_eq!(keys("EVAL x -1 a"), []);
    assert_eq!(keys("EVAL x 18446744073709551615 a"), []);
    assert_eq!(keys("ZUNIONSTORE d 2 a b WEIGHTS 1 2"), [1, 3, 4]);
    assert_eq!(keys("ZUNIONSTORE d x a b"), []);
    assert_eq!(keys("LMPOP 2 a b LEFT"), [2, 3]);
    assert_eq!(keys("BZMPOP 0 1 a MIN"), [3]);
    assert_eq!(keys("OBJECT ENCODING a"), [2]);
    assert_eq!(keys("PING"), []);
    assert_eq!(find(b"blpop").expect("offered").keys(&words("BLPOP")).count(), 0);
}

#[test]
fn get_keys_answers_as_redis() {
    let asked = |request: &str| match get_keys(&words(&format!("COMMAND GETKEYS {request}"))) {
        Reply::Array(keys) => format!("{}", keys.len()),
        Reply::Error(text) => text.into_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!(asked("MSET a 1 b 2"), "2");
    assert_eq!(asked("EVAL x 0"), "0");
    assert_eq!(asked("EVAL x 5 a"), "0");
    assert_eq!(asked("ZUNIONSTORE d 2 a b"), "3");
    assert_eq!(asked("OBJECT ENCODING a"), "1");
    assert_eq!(asked("FOO a"), "ERR Invalid command specified");
    assert_eq!(asked("OBJECT FOO a"), "ERR Invalid command specified");
    assert_eq!(asked("XADD a"), "ERR Invalid command specified");
    assert_eq!(asked("ECHO a"), "ERR The command has no key arguments");
    assert_eq!(asked("LMPOP 0 a LEFT"), "ERR Invalid arguments specified for command");
    assert_eq!(asked("ZUNIONSTORE d x a b"), "ERR Invalid arguments specified for command");
    assert_eq!(asked("GET"), "ERR Invalid number of arguments specified for command");
}

#[test]
fn command_tells_what_is_offered() {
    let Reply::Array(all) = all() else { panic!("a list") };
    assert_eq!(count(), Reply::Int(all.len() as i64));
    let Reply::Array(found) = info(&words("COMMAND INFO xadd nope Client|Id GET")) else {
        panic!("a list")
    };
    assert_eq!(found[..2], [Reply::Nil, Reply::Nil]);
    let Reply::Array(get) = &found[3] else { panic!("a list") };
    let statuses = |names: [&'static str; 3]| {
        Reply::Set(names.into_iter().map(|name| Reply::Status(name.into())).collect())
    };
    assert_eq!(get[..2], [Reply::bulk("get"), Reply::Int(2)]);
    assert_eq!(
        get[3..7],
        [Reply::Int(1), Reply::Int(1), Reply::Int(1), statuses(["@read", "@string", "@fast"])]
    );
    let listed = |request: &str| match list(&words(request), |pattern, name| pattern == name) {
        Reply::Array(names) => names.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(listed("COMMAND LIST"), offered().len());
    assert_eq!(listed("COMMAND LIST filterby pattern client|id"), 1);
    assert_eq!(listed("COMMAND LIST filterby aclcat Transaction"), 5);
    assert_eq!(listed("COMMAND LIST filterby module x"), 0);
    assert_eq!(list(&words("COMMAND LIST x"), |_, _| true), Reply::error("ERR syntax error"));
    assert!(matches!(docs(&words("COMMAND DOCS get nope")), Reply::Map(one) if one.len() == 1));
    let client = find(b"client").and_then(|client| client.subcommand(b"HELP")).expect("offered");
    assert!(client.is_help() && matches!(help(client), Reply::Array(lines) if lines.len() > 10));
}

#[test]
fn the_page_in_the_repository_is_this_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/resp-commands.md");
    let found = std::fs::read_to_string(path).unwrap_or_default();
    let again = "cargo run -p leasehold-resp-door --example resp-commands \
        > docs/reference/resp-commands.md";
    assert!(found == markdown(), "the page is out of date: {again}");
}
