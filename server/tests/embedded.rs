//! Commands on a data directory, without a server.

mod support;

use std::io::{Seek, SeekFrom, Write};
use std::process::Stdio;

use support::{done, err, leasehold, refused, run};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("it prints JSON")
}

#[test]
fn messages_go_in_are_looked_at_moved_and_removed() {
    let here = directory();
    let queue = |arguments: &[&str]| {
        done(here.path(), &[&["--on", "./data", "--json", "queue"], arguments].concat())
    };
    let text = queue(&["publish", "orders", "one", "--declare", "--header", "kind=test"]);
    assert_eq!(json(&text)["published"], 1);
    let mut lines = leasehold(here.path(), &["--on", "./data", "queue", "publish", "orders"]);
    lines.arg("--lines").stdin(Stdio::piped());
    let mut lines = support::Process::start(&mut lines);
    let stdin = lines.0.stdin.take();
    stdin.expect("it is piped").write_all(b"two\nthree\n").expect("it reads");
    assert!(lines.wait().success());
    let peeked = json(&queue(&["peek", "orders"]));
    assert_eq!(peeked[0]["body"], "one");
    assert_eq!(peeked[0]["headers"]["kind"], "test");
    assert_eq!(peeked[2]["body"], "three");
    queue(&["declare", "other"]);
    assert_eq!(json(&queue(&["redrive", "orders", "--to", "other", "--max", "2"]))["moved"], 2);
    assert_eq!(json(&queue(&["show", "orders"]))["ready"], 1);
    assert_eq!(json(&queue(&["ls", "o"])).as_array().map(Vec::len), Some(2));
    assert_eq!(json(&queue(&["purge", "other"]))["purged"], 2);
    assert_eq!(json(&queue(&["delete", "orders"]))["messages"], 1);
    let text = refused(here.path(), &["--on", "./data", "queue", "show", "orders"], 1);
    assert!(text.contains("orders"), "{text}");
}

#[test]
fn a_lock_is_held_while_its_command_runs() {
    let here = directory();
    let on = ["--on", "./data"];
    let script = "echo $LEASEHOLD_LOCK $LEASEHOLD_TOKEN $LEASEHOLD_URL; exit 7";
    let command = ["lock", "run", "nightly", "--", "sh", "-c", script];
    let output = run(here.path(), &[&on[..], &command].concat());
    assert_eq!(output.status.code(), Some(7), "{}", err(&output));
    let text = support::out(&output);
    let said: Vec<&str> = text.split_whitespace().collect();
    assert_eq!((said[0], said[2]), ("nightly", "./data"));
    assert!(said[1].parse::<u64>().expect("a token") > 0);
    let shown = done(here.path(), &["--on", "./data", "lock", "show", "nightly"]);
    assert!(shown.contains("nobody holds it"), "{shown}");
}

#[test]
fn lock_run_refuses_what_cannot_work() {
    let here = directory();
    let lock = |more: &[&str], code| {
        let run = [&["--on", "mem:", "lock", "run", "a"], more].concat();
        refused(here.path(), &run, code)
    };
    let text = lock(&["--ttl", "5s", "--", "true"], 2);
    assert!(text.contains("--ttl 5s leaves no room for --grace 5s"), "{text}");
    let text = lock(&["--", "./absent"], 127);
    assert!(text.contains("start ./absent"), "{text}");
    let text = lock(&["--", "/"], 126);
    assert!(text.contains("start /"), "{text}");
    let output = run(here.path(), &["--on", "mem:", "lock", "run", "a"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_flipped_byte_is_found() {
    let here = directory();
    let body = "0123456789".repeat(2000);
    done(here.path(), &["--on", "./data", "queue", "publish", "q", &body, "--declare"]);
    let verify = ["journal", "verify", "data"];
    assert!(done(here.path(), &verify).contains("sound"));
    let segment = here.path().join("data").join(format!("segment-{:016x}.log", 0));
    let bytes = std::fs::read(&segment).expect("the first segment is there");
    let place = bytes.windows(10).position(|window| window == b"0123456789").expect("the body");
    let mut file = std::fs::File::options().write(true).open(&segment).expect("it is writable");
    file.seek(SeekFrom::Start(place as u64 + 5000)).expect("it is long enough");
    file.write_all(b"!").expect("it is writable");
    let text = refused(here.path(), &verify, 1);
    assert!(text.contains("is damaged at byte"), "{text}");
    let text = refused(here.path(), &["journal", "verify", "."], 2);
    assert!(text.contains("no data directory of leasehold"), "{text}");
}

#[test]
fn a_dump_shows_events() {
    let here = directory();
    done(here.path(), &["--on", "./data", "queue", "publish", "q", "hello", "--declare"]);
    let text = done(here.path(), &["journal", "dump", "data"]);
    assert!(text.contains("Published"), "{text}");
    let last = text.lines().count();
    let one =
        done(here.path(), &["--json", "journal", "dump", "data", "--from", "2", "--limit", "1"]);
    assert_eq!(json(&one)["sequence"], 2);
    assert!(last > 1);
}

#[test]
fn users_are_added_listed_and_removed() {
    let here = directory();
    let add = ["user", "add", "ada", "--password-stdin", "--allow", "orders*=publish,consume"];
    let mut command = leasehold(here.path(), &add);
    let mut process = support::Process::start(command.stdin(Stdio::piped()));
    let stdin = process.0.stdin.take();
    stdin.expect("it is piped").write_all(b"a long password\n").expect("it reads");
    assert!(process.wait().success());
    let text = done(here.path(), &["--json", "user", "add", "bot", "--with-token"]);
    let token = json(&text)["token"].as_str().expect("a token").to_owned();
    let file = std::fs::read_to_string(here.path().join("leasehold-users.toml")).expect("there");
    assert!(file.contains("$argon2id$") && !file.contains("a long password"), "{file}");
    assert!(!file.contains(&token), "{file}");
    let users = json(&done(here.path(), &["--json", "user", "ls"]));
    assert_eq!(users[0]["permissions"][0], "orders*=publish,consume");
    assert_eq!(users[1]["tokens"], 1);
    done(here.path(), &["user", "rm", "ada"]);
    refused(here.path(), &["user", "rm", "ada"], 1);
    let output = run(here.path(), &["user", "add", "eve", "--allow", "*=everything"]);
    assert!(err(&output).contains("there are lock, publish, consume, admin"));
}
