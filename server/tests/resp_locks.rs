//! A lock that a Redis client took, seen and ended by the tools that know no Redis.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use serde_json::Value;
use support::{Process, Server, err, leasehold};

/// A server whose RESP door is open too, and a connection to that.
fn start() -> (Server, BufReader<TcpStream>) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command =
        leasehold(directory.path(), &["serve", "--json", "--resp-listen", "127.0.0.1:0"]);
    command.env("LEASEHOLD_HTTP_LISTEN", "127.0.0.1:0").env("LEASEHOLD_LOG_LEVEL", "warn");
    let mut process = Process::start(command.stdout(Stdio::piped()));
    let stdout = process.0.stdout.take().expect("it is piped");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).expect("the server says something");
    let ready: Value = serde_json::from_str(&line).expect("the server is ready");
    let text = |field: &str| ready[field].as_str().expect("the door is open").to_owned();
    let stream = TcpStream::connect(text("resp")).expect("somebody listens");
    (Server { process, url: text("http"), directory }, BufReader::new(stream))
}

/// Sends a command in one line; the first line of what comes back.
fn say(redis: &mut BufReader<TcpStream>, command: &str) -> String {
    redis.get_mut().write_all(format!("{command}\r\n").as_bytes()).expect("it is sent");
    let mut line = String::new();
    redis.read_line(&mut line).expect("it is answered");
    line.trim_end().to_owned()
}

/// What the server answers to a plain request, headers and all.
fn get(server: &Server, path: &str) -> String {
    let host = server.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).expect("somebody listens");
    let ask = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it is answered");
    answer
}

fn locks(server: &Server) -> Vec<Value> {
    let listed = server.done(&["--json", "lock", "ls"]);
    let listed: Value = serde_json::from_str(&listed).expect("it prints JSON");
    listed.as_array().expect("a list").clone()
}

#[test]
fn a_lock_of_a_redis_client_is_listed_shown_checked_and_taken_away() {
    let (server, mut redis) = start();
    assert_eq!(say(&mut redis, "SET nightly me NX PX 60000"), "+OK");
    assert_eq!(say(&mut redis, "SET nightly you NX PX 60000"), "$-1");
    assert_eq!(say(&mut redis, "SET plain value"), "+OK");
    let all = locks(&server);
    assert_eq!(all.len(), 1, "a key that nobody claimed is no lock: {all:?}");
    assert_eq!(all[0]["name"], "nightly");
    let holder = &all[0]["holders"][0];
    let token = holder["token"].as_u64().expect("it has a token");
    assert!(token > 0);
    assert_eq!((&holder["label"], &holder["mode"]), (&"me".into(), &"exclusive".into()));
    assert!(holder["held_ms"].is_u64(), "how long it is held: {holder}");
    assert!(holder["left_ms"].as_u64().is_some_and(|left| left <= 60_000), "{holder}");
    assert_eq!(say(&mut redis, "PEXPIRE nightly 50000"), ":1");
    assert_eq!(locks(&server)[0]["holders"][0]["token"], token, "renewed, and still the same");

    let run = ["lock", "run", "nightly", "--wait", "0", "--", "true"];
    let refused = server.run(&run);
    assert_eq!(refused.status.code(), Some(75), "{}", err(&refused));
    assert!(err(&refused).contains("held by me"), "{}", err(&refused));
    let stale = (token - 1).to_string();
    let refused = server.run(&["lock", "release", "nightly", "--if-token", &stale]);
    assert!(!refused.status.success(), "that is another token");
    server.done(&["lock", "release", "nightly", "--if-token", &token.to_string()]);
    assert_eq!(say(&mut redis, "EXISTS nightly"), ":0");
    assert_eq!(locks(&server), Vec::<Value>::new());
    server.done(&run);
}

#[test]
fn locks_of_redis_clients_count_among_the_requests_grants_and_releases() {
    let (server, mut redis) = start();
    assert_eq!(say(&mut redis, "SET nightly me NX PX 60000"), "+OK");
    assert_eq!(say(&mut redis, "SET nightly you NX PX 60000"), "$-1");
    assert_eq!(say(&mut redis, "DEL nightly"), ":1");
    let figures = get(&server, "/metrics");
    for figure in ["lock_requests_total 2", "grants_total 1", "releases_total 1"] {
        assert!(figures.contains(&format!("\nleasehold_{figure}\n")), "{figure}: {figures}");
    }
}

#[test]
fn a_register_that_is_no_plain_value_says_how_to_read_it() {
    let (server, mut redis) = start();
    assert_eq!(say(&mut redis, "HSET cart apples 3"), ":1");
    let answer = get(&server, "/v1/registers/cart");
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(answer.contains("the key holds a hash; read it with a Redis client"), "{answer}");
}
