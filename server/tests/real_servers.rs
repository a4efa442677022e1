//! The binary over servers that were started for it: what the doctor finds, and gateways.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use leasehold_testbed::servers;
use serde_json::{Value, json};
use support::{Process, err, leasehold, out, ready, refused, run, until};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

/// The doctor's exit code, and what it found.
fn doctor(url: &str) -> (Option<i32>, Value) {
    let output = run(directory().path(), &["--json", "doctor", url]);
    let text = out(&output);
    let found = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{}", err(&output)));
    (output.status.code(), found)
}

/// What the doctor says of a setting.
fn verdict<'a>(found: &'a Value, what: &str) -> &'a str {
    let checks = found["checks"].as_array().expect("it looks at settings");
    let check = checks.iter().find(|check| check["what"] == what);
    check.and_then(|check| check["verdict"].as_str()).unwrap_or_else(|| panic!("{what}: {found}"))
}

/// Sends a request with JSON; gives the status and the JSON of the answer.
fn exchange(url: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let address = url.strip_prefix("http://").expect("it is one");
    let mut stream = TcpStream::connect(address).expect("it listens");
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

fn post(url: &str, path: &str, body: &Value) -> (u16, Value) {
    exchange(url, "POST", path, &body.to_string())
}

fn get(url: &str, path: &str) -> (u16, Value) {
    exchange(url, "GET", path, "")
}

mod redis {
    use super::*;

    #[test]
    fn a_good_server_is_found_good() {
        let server = servers::redis::start(&["--appendfsync", "always"]);
        let (code, found) = doctor(&server.url());
        assert_eq!((code, &found["failed"]), (Some(0), &json!(0)), "{found}");
        assert_eq!(verdict(&found, "maxmemory-policy"), "ok", "{found}");
    }

    /// It is refused before anything is proved; whoever takes the risk is warned.
    #[test]
    fn one_that_throws_keys_away_is_refused() {
        let settings = ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"];
        let server = servers::redis::start(&settings);
        let text = refused(directory().path(), &["doctor", &server.url()], 1);
        assert!(text.contains("maxmemory-policy") && text.contains("allkeys-lru"), "{text}");
        let (code, found) = doctor(&format!("{}?allow=eviction", server.url()));
        assert_eq!((code, verdict(&found, "maxmemory-policy")), (Some(0), "warning"), "{found}");
    }

    fn gateway(place: &Path, url: &str, secret: &str) -> (Process, String) {
        let mut command = leasehold(place, &["serve", "--json", "--on", url]);
        command.env("LEASEHOLD_HTTP_LISTEN", "127.0.0.1:0").env("LEASEHOLD_LOG_LEVEL", "warn");
        ready(command.args(["--http-secret", secret]))
    }

    #[test]
    fn two_gateways_are_one_to_those_who_lock() {
        let server = servers::redis::start(&[]);
        let here = directory();
        let secret = here.path().join("secret");
        let secret = secret.to_str().expect("it is text");
        let (_one, first) = gateway(here.path(), &server.url(), secret);
        let (_two, second) = gateway(here.path(), &server.url(), secret);
        let ask = json!({ "ttl_ms": 60_000 });
        let (status, granted) = post(&first, "/v1/locks/nightly/acquire", &ask);
        assert_eq!(status, 200, "{granted}");
        let (status, refused) = post(&second, "/v1/locks/nightly/acquire", &ask);
        assert_ne!(status, 200, "both gave it out: {granted} and {refused}");
        assert_eq!(refused["kind"], "busy", "{refused}");
        // What was taken through the one is released through the other, and who waits at the one
        // hears of it.
        let waiting = std::thread::spawn({
            let (first, ask) = (first.clone(), json!({ "ttl_ms": 60_000, "wait_ms": 30_000 }));
            move || post(&first, "/v1/locks/nightly/acquire", &ask)
        });
        until("somebody waits", || get(&second, "/v1/locks/nightly").1["waiting"] == 1);
        let token = &granted["token"];
        let held = json!({ "token": token, "hold": granted["hold"] });
        let (status, released) = post(&second, "/v1/locks/nightly/release", &held);
        assert_eq!((status, &released["entries"]), (200, &json!(0)), "{released}");
        let (status, next) = waiting.join().expect("it does not panic");
        assert_eq!(status, 200, "{next}");
        assert!(next["token"].as_u64() > token.as_u64(), "{next} after {granted}");
        let check = format!("/v1/locks/nightly/check?token={}", next["token"]);
        assert_eq!(get(&second, &check), (200, json!({ "held": true })));
        // And a late hand is refused by both.
        for gateway in [&first, &second] {
            let (status, late) = post(gateway, "/v1/locks/nightly/release", &held);
            assert_ne!(status, 200, "{late}");
            assert_eq!(late["kind"], "stale", "{late}");
        }
    }
}

mod postgres {
    use super::*;

    #[test]
    fn a_setting_that_tears_a_promise_fails() {
        let server = servers::postgres::start(&["synchronous_commit=off"]);
        let (code, found) = doctor(&server.url());
        assert_eq!((code, &found["failed"]), (Some(1), &json!(1)), "{found}");
        assert_eq!(verdict(&found, "synchronous_commit"), "failed", "{found}");
        // People are told, too.
        let output = run(directory().path(), &["doctor", &server.url()]);
        let text = out(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("synchronous_commit") && text.contains("1 failed"), "{text}");
    }
}
