//! `leasehold serve --on URL`: the HTTP door in front of another engine, in real processes.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use support::{Server, done, leasehold, ready, refused, serve, until};

/// Sends a request and gives the whole answer.
fn exchange(url: &str, request: &str) -> String {
    let address = url.strip_prefix("http://").expect("it is one");
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// The status of an answer.
fn status(url: &str, path: &str) -> u16 {
    let answer = exchange(url, &format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"));
    let word = answer.split(' ').nth(1).expect("a status");
    word.parse().expect("a status is a number")
}

/// Posts JSON and gives the JSON of the answer.
fn post(url: &str, path: &str, body: &serde_json::Value) -> serde_json::Value {
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = exchange(url, &(head + &body));
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// What a server says when it is ready.
fn said(command: &mut Command) -> serde_json::Value {
    let mut process = support::Process::start(command.stdout(Stdio::piped()));
    let mut line = String::new();
    let stdout = process.0.stdout.take().expect("it is piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("it says");
    serde_json::from_str(&line).expect("the server is ready")
}

fn serving(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = leasehold(directory, &["serve", "--json"]);
    command.env("LEASEHOLD_HTTP_LISTEN", "127.0.0.1:0").env("LEASEHOLD_LOG_LEVEL", "error");
    command.args(arguments);
    command
}

#[test]
fn a_gateway_says_what_it_is_and_keeps_no_data() {
    let here = tempfile::tempdir().expect("a directory");
    let said = said(&mut serving(here.path(), &["--on", "mem:"]));
    assert_eq!(said["engine"], "mem:");
    assert!(said["resp"].is_null() && said["data_dir"].is_null(), "{said}");
    let left = std::fs::read_dir(here.path()).expect("it is there").count();
    assert_eq!(left, 0, "something was written");
}

#[test]
fn locks_and_queues_go_through_a_gateway() {
    let here = tempfile::tempdir().expect("a directory");
    let (_gateway, url) = ready(&mut serving(here.path(), &["--on", "mem:"]));
    assert_eq!(status(&url, "/readyz"), 200);
    let on = |arguments: &[&str]| done(here.path(), &[&["--on", &url], arguments].concat());
    assert_eq!(on(&["lock", "run", "nightly", "--", "echo", "alone"]), "alone\n");
    on(&["queue", "publish", "orders", "order 42", "--declare"]);
    assert_eq!(on(&["queue", "work", "orders", "--max", "1", "--", "cat"]), "order 42");
}

#[test]
fn a_gateway_to_a_server_is_as_ready_as_that_is() {
    let mut server = Server::start();
    let (_gateway, url) = ready(&mut serving(server.path(), &["--on", &server.url]));
    assert_eq!(status(&url, "/readyz"), 200);
    // What is held through the one is seen through the other.
    let mut holder = leasehold(server.path(), &["--on", &url, "lock", "run", "nightly"]);
    holder.args(["--", "sleep", "60"]);
    let holder = support::Process::start(&mut holder);
    until("the lock is held", || {
        let shown = server.done(&["--json", "lock", "show", "nightly"]);
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("it prints JSON");
        shown["holders"].as_array().is_some_and(|holders| holders.len() == 1)
    });
    drop(holder);
    server.process.0.kill().expect("it runs");
    server.process.wait();
    assert_eq!(status(&url, "/healthz"), 200);
    assert_eq!(status(&url, "/readyz"), 503);
}

#[test]
fn gateways_with_one_secret_know_each_others_receipts() {
    let server = Server::start();
    let secret = server.path().join("secret");
    let secret = secret.to_str().expect("it is text");
    for order in ["one", "two"] {
        server.done(&["queue", "publish", "orders", order, "--declare"]);
    }
    let gateway = |more: &[&str]| {
        ready(&mut serving(server.path(), &[&["--on", &server.url], more].concat()))
    };
    let (_one, first) = gateway(&["--http-secret", secret]);
    let (_two, second) = gateway(&["--http-secret", secret]);
    let (_other, stranger) = gateway(&[]);
    let receive = || {
        let came = post(&first, "/v1/queues/orders/receive", &json!({ "lease_ms": 60_000 }));
        json!({ "receipts": [came["deliveries"][0]["receipt"]] })
    };
    assert_eq!(post(&second, "/v1/deliveries/ack", &receive())["settled"], 1);
    let answer = post(&stranger, "/v1/deliveries/ack", &receive());
    assert_eq!(answer["kind"], "foreign", "{answer}");
}

#[test]
fn what_a_gateway_cannot_have_is_refused() {
    let here = tempfile::tempdir().expect("a directory");
    let resp = ["serve", "--on", "mem:", "--http-listen", "127.0.0.1:0", "--resp-listen"];
    let text = refused(here.path(), &[&resp[..], &["127.0.0.1:0"]].concat(), 2);
    assert!(text.contains("--resp-listen") && text.contains("RESP"), "{text}");
    let nobody = ["serve", "--on", "http://127.0.0.1:1", "--http-listen", "127.0.0.1:0"];
    let text = refused(here.path(), &nobody, 1);
    assert!(text.contains("be a gateway") && text.contains("127.0.0.1:1"), "{text}");
}

#[test]
fn the_environment_makes_no_gateway() {
    let here = tempfile::tempdir().expect("a directory");
    let mut command = serving(here.path(), &[]);
    let said = said(command.env("LEASEHOLD_URL", "http://127.0.0.1:1"));
    assert!(said["data_dir"].is_string(), "{said}");
    let (_gateway, _) = serve(here.path(), &["--engine", "mem:"]);
}
