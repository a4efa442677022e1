//! Clients that mean no good, or know no better, against the real server: it bounds what they cost
//! and goes on serving the others.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as STANDARD;
use rustix::process::{Resource, getrlimit, setrlimit};
use support::{PATIENCE, Server, until};

/// Connections that do nothing.
const IDLE: u64 = 10_000;
/// What one of them may cost the server, bytes.
const IDLE_BYTES_MAX: u64 = 32 << 10;

fn connect(server: &Server) -> TcpStream {
    let address = server.url.strip_prefix("http://").expect("it speaks HTTP");
    let socket = TcpStream::connect(address).expect("a connection");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time");
    socket
}

/// Asks on a connection that is kept, and gives what has come of the answer so far.
fn ask(socket: &mut TcpStream, request: &str) -> String {
    let head = format!("{request} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    socket.write_all(head.as_bytes()).expect("it takes a request");
    let mut answer = [0; 4096];
    let count = socket.read(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer[..count]).into_owned()
}

/// Memory of a server, bytes.
fn memory(server: &Server) -> u64 {
    let path = format!("/proc/{}/status", server.process.id());
    let status = std::fs::read_to_string(path).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    kib.expect("a number of KiB") << 10
}

/// Others are served: somebody asks how it is and takes a lock.
fn serves(server: &Server) {
    let answer = ask(&mut connect(server), "GET /healthz");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.done(&["lock", "run", "others", "--wait", "0", "--", "true"]);
}

/// Makes room for many connections in this process and those it starts.
fn raise_descriptors(wanted: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    assert!(limit.maximum.is_none_or(|most| most >= wanted), "the system allows too few files");
    limit.current = limit.current.map(|current| current.max(wanted));
    setrlimit(Resource::Nofile, limit).expect("up to the maximum everybody may");
}

#[test]
fn ten_thousand_idle_connections_cost_little_and_harm_nobody() {
    raise_descriptors(IDLE + 512);
    let max = (IDLE + 50).to_string();
    let server = Server::with(&["--limits-connections", &max]);
    serves(&server);
    let before = memory(&server);
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        let mut socket = connect(&server);
        assert!(ask(&mut socket, "GET /healthz").starts_with("HTTP/1.1 200"));
        idle.push(socket);
    }
    let each = memory(&server).saturating_sub(before) / IDLE;
    assert!(each <= IDLE_BYTES_MAX, "{each} bytes for each connection");
    serves(&server);

    // Whoever comes when all places are taken is told so.
    let told = (0..200).find_map(|_| {
        let mut socket = connect(&server);
        let answer = ask(&mut socket, "GET /healthz");
        idle.push(socket);
        (!answer.starts_with("HTTP/1.1 200")).then_some(answer)
    });
    let told = told.expect("there is a limit");
    assert!(told.starts_with("HTTP/1.1 503"), "{told}");
    assert!(told.contains(&format!("there are {max} connections already")), "{told}");
    drop(idle);
    until("there is room again", || {
        ask(&mut connect(&server), "GET /healthz").starts_with("HTTP/1.1 200")
    });
}

#[test]
fn answers_that_nobody_reads_are_bounded() {
    /// Clients, and what they may make the server keep: for each some messages and what stands
    /// in the connection's buffers.
    const GREEDY: u64 = 8;
    const EACH_BYTES_MAX: u64 = 24 << 20;
    let server = Server::start();
    let body = server.path().join("body");
    std::fs::write(&body, "x".repeat(1 << 20)).expect("it is writable");
    let publish = ["queue", "publish", "q", "--declare", "--file", "body"];
    for _ in 0..100 {
        server.done(&publish);
    }
    let before = memory(&server);
    let mut greedy = Vec::new();
    for _ in 0..GREEDY {
        for path in ["/v1/queues/q/peek?max=1000", "/v1/queues/q/consume?prefetch=10"] {
            let mut socket = connect(&server);
            ask(&mut socket, &format!("GET {path}"));
            greedy.push(socket);
        }
    }
    let shown = || {
        let shown = server.done(&["--json", "queue", "show", "q"]);
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("it prints JSON");
        shown["ready"].as_u64().expect("a number")
    };
    until("all consumers have what they asked for", || shown() == 20);
    // What is under way in the server settles; then it keeps what it keeps.
    std::thread::sleep(Duration::from_millis(500));
    let grown = memory(&server).saturating_sub(before);
    assert!(grown <= GREEDY * EACH_BYTES_MAX, "{} MiB", grown >> 20);
    serves(&server);
    // They hang up; what they did not settle goes back.
    drop(greedy);
    until("all messages are back", || shown() == 100);
}

#[test]
fn the_largest_message_fits_in_base64_and_nothing_larger() {
    const LARGEST: usize = 16 << 20;
    let server = Server::start();
    let publish = |length: usize| {
        let body = serde_json::json!({ "base64": STANDARD.encode(vec![0xff; length]) }).to_string();
        let mut socket = connect(&server);
        let head = format!(
            "POST /v1/queues/q/messages HTTP/1.1\r\nhost: localhost\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes()).expect("it takes a head");
        // Whoever refuses need not read it all.
        socket.write_all(body.as_bytes()).ok();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let answer = publish(LARGEST);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = publish(LARGEST + 1);
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("at most 16777216"), "{answer}");
    let answer = publish(2 * LARGEST);
    assert!(answer.starts_with("HTTP/1.1 413") || answer.is_empty(), "{answer}");
    serves(&server);
}
