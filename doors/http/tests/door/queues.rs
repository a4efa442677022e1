//! Queues, exchanges, topics.

use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::harness::{Server, config, server, server_with, until};

async fn receive(server: &Server, queue: &str, ask: Value) -> Vec<Value> {
    let came = server.post(&format!("/v1/queues/{queue}/receive"), ask).await.good();
    came["deliveries"].as_array().unwrap().clone()
}

#[tokio::test]
async fn one_curl_publishes_and_one_receives() {
    let server = server().await;
    // What `curl -d hello` sends.
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let path = "/v1/queues/greetings/messages";
    let published = server.ask(Method::POST, path, &form, "hello").await.good();
    assert_eq!(published, json!({"queues": 1, "duplicates": 0}));
    let path = "/v1/queues/greetings/messages?priority=3&key=k";
    server.ask(Method::POST, path, &[], &b"\xff"[..]).await.good();

    let first = receive(&server, "greetings", json!({"max": 10})).await;
    assert_eq!(first[0]["body"], "hello");
    assert_eq!((&first[1]["base64"], &first[1]["key"]), (&json!("/w=="), &json!("k")));
    assert_eq!((&first[0]["attempt"], &first[0]["redelivered"]), (&json!(1), &json!(false)));
    let receipts = json!({"receipts": [first[0]["receipt"], first[1]["receipt"]]});
    let acked = server.post("/v1/deliveries/ack", receipts.clone()).await.good();
    assert_eq!(acked, json!({"settled": 2}));
    server.post("/v1/deliveries/ack", receipts).await.refused(409, "stale");
    assert!(receive(&server, "greetings", json!({"wait_ms": 10})).await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn a_message_keeps_all_that_was_said_of_it() {
    let server = server().await;
    server.put("/v1/queues/q", json!({"priority_max": 9, "dedup_ms": 60_000})).await.good();
    let message = json!({
        "json": {"n": 12345678901234567890_u64}, "priority": 7, "id": "m1", "key": "k",
        "headers": {"b": true, "i": -1, "f": 0.5, "t": "x", "raw": {"base64": "AA=="}},
        "ttl_ms": 60_000
    });
    let path = "/v1/queues/q/messages";
    server.post(path, message.clone()).await.good();
    let again = server.post(path, message.clone()).await.good();
    assert_eq!(again, json!({"queues": 0, "duplicates": 1}));
    let peeked = server.get("/v1/queues/q/peek?max=5").await.good();
    assert_eq!(peeked["messages"].as_array().unwrap().len(), 1);
    let one = &peeked["messages"][0];
    assert_eq!(one["body"], r#"{"n":12345678901234567890}"#);
    for field in ["priority", "id", "key", "headers"] {
        assert_eq!(one[field], message[field], "{field}");
    }
    assert!(one["published_at_ms"].as_u64().unwrap() > 1_600_000_000_000);
    server.post(path, json!({"body": "later", "delay_ms": 60_000})).await.good();
    let view = server.get("/v1/queues/q").await.good();
    assert_eq!((&view["ready"], &view["delayed"]), (&json!(1), &json!(1)));
    server.stop().await;
}

#[tokio::test]
async fn a_batch_is_answered_message_by_message() {
    let server = server().await;
    server.put("/v1/queues/q", json!({"messages_max": 2, "overflow": "reject"})).await.good();
    let batch = json!({"messages": [{"body": "1"}, {"body": "2"}, {"body": "3"}]});
    let done = server.post("/v1/queues/q/messages", batch).await.good();
    assert_eq!(done["results"][1], json!({"queues": 1, "duplicates": 0}));
    assert_eq!(done["results"][2]["problem"]["kind"], "full");
    let both = json!({"messages": [], "body": "x"});
    server.post("/v1/queues/q/messages", both).await.refused(400, "invalid");
    let over = server.post("/v1/queues/q/messages", json!({"body": "4"})).await;
    assert_eq!(over.headers["retry-after"], "1");
    over.refused(429, "full");
    server.stop().await;
}

#[tokio::test]
async fn a_missing_queue_is_declared_only_if_wanted() {
    let server = server().await;
    let path = "/v1/queues/q/messages?declare=false";
    let missing = server.post(path, json!({"body": "x"})).await;
    assert!(matches!(missing.status.as_u16(), 404 | 422), "{}", missing.text());
    server.post("/v1/queues/q/messages", json!({"body": "x"})).await.good();
    server.post(path, json!({"body": "x"})).await.good();
    assert_eq!(server.get("/v1/queues/q").await.good()["ready"], 2);
    server.stop().await;
}

#[tokio::test]
async fn deliveries_are_returned_extended_and_rejected() {
    let server = server().await;
    let config = json!({"dead_letter": {"queue": "dead"}, "lease_ms": 60_000});
    server.put("/v1/queues/dead", json!({})).await.good();
    let declared = server.put("/v1/queues/q", config.clone()).await.good();
    assert_eq!(declared, json!({"name": "q", "existed": false}));
    assert_eq!(server.put("/v1/queues/q", config).await.good()["existed"], true);
    server.put("/v1/queues/q", json!({})).await.refused(409, "different");
    server.post("/v1/queues/q/messages", json!({"body": "x"})).await.good();

    let one = receive(&server, "q", json!({})).await.remove(0);
    let extend = json!({"receipt": one["receipt"], "lease_ms": 90_000});
    server.post("/v1/deliveries/extend", extend).await.good();
    let receipts = json!({"receipts": [one["receipt"]]});
    let late = json!({"receipts": [one["receipt"]], "delay_ms": 5});
    server.post("/v1/deliveries/ack", late).await.refused(400, "invalid");
    server.post("/v1/deliveries/nack", receipts.clone()).await.good();
    server.post("/v1/deliveries/ack", receipts).await.refused(409, "stale");
    let again = receive(&server, "q", json!({})).await.remove(0);
    assert_eq!((&again["attempt"], &again["redelivered"]), (&json!(2), &json!(true)));
    let receipts = json!({"receipts": [again["receipt"]]});
    server.post("/v1/deliveries/reject", receipts).await.good();
    let dead = receive(&server, "dead", json!({})).await.remove(0);
    assert_eq!(dead["deaths"][0]["queue"], "q");
    assert_eq!(dead["deaths"][0]["reason"], "rejected");
    let receipts = json!({"receipts": [dead["receipt"]]});
    server.post("/v1/deliveries/nack", receipts).await.good();
    let back = server.post("/v1/queues/dead/redrive", json!({"to": "q"})).await.good();
    assert_eq!(back, json!({"messages": 1}));
    server.stop().await;
}

#[tokio::test]
async fn a_guessed_receipt_settles_nothing() {
    let server = server().await;
    server.post("/v1/queues/q/messages", json!({"body": "x"})).await.good();
    let one = receive(&server, "q", json!({})).await.remove(0);
    let receipt = one["receipt"].as_str().unwrap().to_string();
    let end = receipt.rfind('.').unwrap();
    let zeros = format!("{}.{}", &receipt[..end], "0".repeat(32));
    let later = receipt.replacen(one["token"].to_string().as_str(), "1", 1);
    for forged in [receipt[..end].to_string(), zeros, later] {
        let ask = json!({"receipts": [forged]});
        server.post("/v1/deliveries/ack", ask).await.refused(409, "foreign");
    }
    server.post("/v1/deliveries/ack", json!({"receipts": []})).await.refused(400, "invalid");
    server.post("/v1/deliveries/ack", json!({"receipts": [receipt]})).await.good();
    server.stop().await;
}

#[tokio::test]
async fn a_receiver_that_hangs_up_takes_nothing() {
    let server = server().await;
    server.put("/v1/queues/q", json!({})).await.good();
    {
        let gone = server.post("/v1/queues/q/receive", json!({"wait_ms": 60_000}));
        let seen = until("somebody receives", || async {
            server.get("/v1/queues/q").await.good()["consumers"] == 1
        });
        tokio::select! {
            _ = gone => panic!("the queue is empty"),
            () = seen => {}
        }
    }
    until("nobody receives", || async {
        server.get("/v1/queues/q").await.good()["consumers"] == 0
    })
    .await;
    server.post("/v1/queues/q/messages", json!({"body": "x"})).await.good();
    assert_eq!(receive(&server, "q", json!({})).await[0]["attempt"], 1);
    server.stop().await;
}

#[tokio::test]
async fn queues_are_paused_purged_listed_and_deleted() {
    let server = server().await;
    server.post("/v1/queues/a%2Fb/messages", json!({"body": "x"})).await.good();
    server.post("/v1/queues/a%2Fb/pause", json!({})).await.good();
    assert!(receive(&server, "a%2Fb", json!({})).await.is_empty());
    assert_eq!(server.get("/v1/queues/a%2Fb").await.good()["paused"], true);
    server.post("/v1/queues/a%2Fb/resume", json!({})).await.good();
    let list = server.get("/v1/queues?prefix=a/").await.good();
    assert_eq!(list["items"][0]["name"], "a/b");
    server.delete("/v1/queues/a%2Fb?if_empty").await.refused(409, "in-use");
    let purged = server.post("/v1/queues/a%2Fb/purge", json!({})).await.good();
    assert_eq!(purged, json!({"messages": 1}));
    server.delete("/v1/queues/a%2Fb?if_empty&if_unused=true").await.good();
    server.delete("/v1/queues/a%2Fb").await.refused(404, "not-found");
    server.get("/v1/queues/a%2Fb").await.refused(404, "not-found");
    server.stop().await;
}

#[tokio::test]
async fn exchanges_route_and_topics_filter() {
    let server = server().await;
    server.put("/v1/exchanges/x", json!({"kind": "direct"})).await.good();
    server.put("/v1/queues/q", json!({})).await.good();
    let binding = json!({"queue": "q", "key": "red"});
    server.post("/v1/exchanges/x/bindings", binding.clone()).await.good();
    let red = json!({"routing_key": "red", "body": "r", "mandatory": true});
    server.post("/v1/exchanges/x/messages", red.clone()).await.good();
    let path = "/v1/exchanges/x/bindings";
    let body = binding.to_string();
    server.ask(Method::DELETE, path, &[], body).await.good();
    server.post("/v1/exchanges/x/messages", red).await.refused(422, "unroutable");
    server.delete("/v1/exchanges/x").await.good();
    server.delete("/v1/exchanges/x").await.refused(404, "not-found");

    // Nobody subscribes yet, but the topic comes to be.
    server.post("/v1/topics/shop/messages", json!({"body": "early"})).await.good();
    let subscribed = server.put("/v1/topics/shop/subscriptions/mail", json!({})).await.good();
    assert_eq!(subscribed["name"], "shop/mail");
    let filter = json!({"filter": "order.*", "lease_ms": 5000});
    server.put("/v1/topics/shop/subscriptions/orders", filter).await.good();
    let subject = json!({"subject": "order.paid", "body": "1"});
    let done = server.post("/v1/topics/shop/messages", subject).await.good();
    assert_eq!(done["queues"], 2);
    let done = server.post("/v1/topics/shop/messages", json!({"body": "2"})).await.good();
    assert_eq!(done["queues"], 1);
    assert_eq!(receive(&server, "shop%2Forders", json!({})).await[0]["body"], "1");
    server.stop().await;
}

/// Reads the head of an answer, then gives its lines of chunks.
async fn stream(server: &Server, path: &str) -> BufReader<TcpStream> {
    let mut socket = server.connect().await;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(socket);
    let mut head = String::new();
    while lines.read_line(&mut head).await.unwrap() > 2 {}
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("application/x-ndjson"), "{head}");
    lines
}

/// The next line that is one of the answer, without those of the chunks around it.
async fn delivery(lines: &mut BufReader<TcpStream>) -> Value {
    loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).await.unwrap() > 0, "the stream ended");
        if line.starts_with('{') {
            return serde_json::from_str(&line).unwrap();
        }
    }
}

#[tokio::test]
async fn a_stream_delivers_by_its_credit_and_gives_back_when_it_ends() {
    let server = server().await;
    for body in ["1", "2", "3"] {
        server.post("/v1/queues/q/messages", json!({"body": body})).await.good();
    }
    let mut lines = stream(&server, "/v1/queues/q/consume?prefetch=2").await;
    let first = delivery(&mut lines).await;
    let second = delivery(&mut lines).await;
    assert_eq!((&first["body"], &second["body"]), (&json!("1"), &json!("2")));
    let receipts = json!({"receipts": [first["receipt"]]});
    server.post("/v1/deliveries/ack", receipts).await.good();
    assert_eq!(delivery(&mut lines).await["body"], "3");
    drop(lines);
    until("all that was not settled is back", || async {
        let view = server.get("/v1/queues/q").await.good();
        view["ready"] == 2 && view["in_flight"] == 0 && view["consumers"] == 0
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn a_quiet_stream_says_that_it_lives_and_why_it_ends() {
    let mut quick = config();
    quick.limits.heartbeat = std::time::Duration::from_millis(20);
    let mut server = server_with(quick).await;
    server.put("/v1/queues/q", json!({})).await.good();
    let mut lines = stream(&server, "/v1/queues/q/consume").await;
    let mut line = String::new();
    // A chunk of one byte: the empty line.
    lines.read_line(&mut line).await.unwrap();
    assert_eq!(line, "1\r\n");
    server.begin_stop();
    let last = delivery(&mut lines).await;
    assert_eq!((&last["kind"], &last["retry"]), (&json!("unavailable"), &json!("later")));
    server.stop().await;
}
