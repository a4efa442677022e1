//! Connections that are slow, greedy, silent or cut off.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::harness::{config, server, server_with, until, until_closed};

fn quick() -> leasehold_http_door::DoorConfig {
    let mut quick = config();
    quick.limits.head_read = Duration::from_millis(100);
    quick.limits.body_read = Duration::from_millis(100);
    quick.limits.idle = Duration::from_millis(300);
    quick
}

#[tokio::test]
async fn a_million_headers_are_too_many() {
    let server = server().await;
    let mut head = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n".to_vec();
    for at in 0..1_000_000 {
        head.extend_from_slice(format!("h{at}: x\r\n").as_bytes());
    }
    let answer = server.raw(&head).await;
    // When the refusal is lost because more was being sent, the connection is reset.
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let few = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n".to_string() + &"a: b\r\n".repeat(200);
    let answer = server.raw((few + "\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    server.get("/healthz").await;
    server.stop().await;
}

#[tokio::test]
async fn a_slow_head_and_a_silent_client_are_cut_off() {
    let server = server_with(quick()).await;
    for begin in ["", "G", "GET / HTTP/1.1\r\nhost: loc", "PRI * HTTP/2.0\r\n"] {
        let mut socket = server.connect().await;
        socket.write_all(begin.as_bytes()).await.unwrap();
        let answer = until_closed(&mut socket).await;
        assert_eq!(answer, "", "{begin:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_head_in_drops_is_cut_off_however_busy_it_looks() {
    let server = server_with(quick()).await;
    let mut socket = server.connect().await;
    socket.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let began = Instant::now();
    until("the drops go nowhere", || {
        let dropped = socket.try_write(b"a: b\r\n").is_err();
        async move { dropped }
    })
    .await;
    assert!(began.elapsed() >= Duration::from_millis(50));
    server.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_answer() {
    let server = server_with(quick()).await;
    let mut socket = server.connect().await;
    let began = Instant::now();
    socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let answer = until_closed(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Not by the shorter time for heads: between requests there is none.
    assert!(began.elapsed() >= Duration::from_millis(290), "{:?}", began.elapsed());
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server = server_with(quick()).await;
    let head = "POST /v1/locks/a/acquire HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{";
    let answer = server.raw(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_wait_outlives_the_times_for_idle_connections() {
    let server = server_with(quick()).await;
    let granted = server.post("/v1/locks/a/acquire", json!({})).await.good();
    let began = Instant::now();
    let late = server.post("/v1/locks/a/acquire", json!({"wait_ms": 700})).await;
    late.refused(409, "timed-out");
    assert!(began.elapsed() >= Duration::from_millis(690));
    assert!(granted["token"].is_u64());
    server.stop().await;
}

#[tokio::test]
async fn no_more_wait_than_may() {
    let mut few = config();
    few.limits.waiting = 1;
    let server = server_with(few).await;
    server.post("/v1/locks/a/acquire", json!({})).await.good();
    let first = server.post("/v1/locks/a/acquire", json!({"wait_ms": 60_000}));
    let second = async {
        until("the first waits", || async {
            server.get("/v1/locks/a").await.good()["waiting"] == 1
        })
        .await;
        let reply = server.post("/v1/locks/a/acquire", json!({"wait_ms": 60_000})).await;
        assert_eq!(reply.headers["retry-after"], "1");
        reply.refused(503, "full");
        // Not to wait is still possible.
        server.post("/v1/locks/a/acquire", json!({})).await.refused(409, "busy");
    };
    tokio::select! {
        _ = first => panic!("the lock is held"),
        () = second => {}
    }
    server.stop().await;
}

#[tokio::test]
async fn no_more_connections_than_may() {
    let mut one = config();
    one.limits.connections = 1;
    let server = server_with(one).await;
    let mut first = server.connect().await;
    first.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    first.readable().await.unwrap();
    let reply = server.get("/healthz").await;
    assert_eq!(reply.headers["retry-after"], "1");
    let problem = reply.refused(503, "full");
    assert!(problem["detail"].as_str().unwrap().contains("1 connections already"), "{problem}");
    drop(first);
    until("the place is free", || async { server.get("/healthz").await.status == 200 }).await;
    server.stop().await;
}

#[tokio::test]
async fn who_does_not_read_its_stream_is_cut_off_and_loses_its_deliveries() {
    let server = server_with(quick()).await;
    let body = "x".repeat(1 << 20);
    for _ in 0..20 {
        server.post("/v1/queues/q/messages", json!({"body": body})).await.good();
    }
    let ready = || async { server.get("/v1/queues/q").await.good()["ready"].as_u64().unwrap() };
    let mut socket = server.connect().await;
    let head = "GET /v1/queues/q/consume?prefetch=20 HTTP/1.1\r\nhost: localhost\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    until("it has what it asked for", || async { ready().await == 0 }).await;
    // It reads nothing. Others are served, and get what it did not take.
    until("its messages are back", || async { ready().await == 20 }).await;
    let came = server.post("/v1/queues/q/receive", json!({"max": 20})).await.good();
    assert_eq!(came["deliveries"].as_array().unwrap().len(), 20);
    assert!(came["deliveries"][0]["redelivered"].as_bool().unwrap(), "{}", came["deliveries"][0]);
    drop(socket);
    server.stop().await;
}

#[tokio::test]
async fn a_shutdown_ends_waits_at_once_and_lets_them_ask_again() {
    let mut server = server().await;
    server.post("/v1/locks/a/acquire", json!({})).await.good();
    let mut socket = server.connect().await;
    // Longer than the tests' patience.
    let body = r#"{"wait_ms": 60000}"#;
    let head = format!(
        "POST /v1/locks/a/acquire HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    until("it waits", || async { server.get("/v1/locks/a").await.good()["waiting"] == 1 }).await;
    server.begin_stop();
    let answer = until_closed(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("retry-after: 1"), "{answer}");
    assert!(answer.contains("\"retry\":\"later\""), "{answer}");
    server.stop().await;
}
