//! Who may come in.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use leasehold_http_door::HttpDoor;
use leasehold_users::{
    Allowance, Permission, User, UserLimits, Users, hash_password, hash_token, token_hash,
};
use serde_json::{Value, json};

use crate::harness::{JSON, Reply, Server, config, server_with, until};

fn allow(on: &str, allow: &[Permission]) -> Allowance {
    Allowance { on: on.into(), allow: allow.into() }
}

fn people() -> [User; 2] {
    use Permission::{Admin, Consume, Lock, Publish};
    let token = |text: &str| token_hash(&hash_token(text)).unwrap();
    let ada = User {
        name: "ada".into(),
        password: Some(hash_password("correct horse").unwrap()),
        tokens: vec![token("ada's token")],
        allowances: vec![allow("*", &[Admin, Lock, Publish, Consume])],
    };
    let bob = User {
        name: "bob".into(),
        password: None,
        tokens: vec![token("bob's token")],
        allowances: vec![allow("shop.*", &[Lock, Publish, Consume])],
    };
    [ada, bob]
}

async fn guarded() -> Server {
    guarded_by(Arc::new(Users::new(people().into(), UserLimits::default()))).await
}

async fn guarded_by(users: Arc<Users>) -> Server {
    let mut config = config();
    config.users = users;
    server_with(config).await
}

async fn post(server: &Server, who: &str, path: &str, body: Value) -> Reply {
    let who = format!("Bearer {who}");
    let headers = [JSON, ("authorization", who.as_str())];
    server.ask(Method::POST, path, &headers, body.to_string()).await
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[tokio::test]
async fn nobody_comes_in_unknown() {
    let server = guarded().await;
    let reply = server.get("/v1/status").await;
    let asked: Vec<_> = reply.headers.get_all("www-authenticate").iter().collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    reply.refused(401, "unauthenticated");
    for wrong in [
        basic("ada", "wrong"),
        basic("eve", "correct horse"),
        basic("bob", ""),
        "Bearer wrong".to_string(),
        "Basic ???".to_string(),
        "Digest x".to_string(),
    ] {
        let headers = [("authorization", wrong.as_str()), ("x-requested-with", "leasehold")];
        let reply = server.ask(Method::GET, "/v1/status", &headers, "").await;
        assert!(!reply.headers.contains_key("www-authenticate"), "{wrong}");
        reply.refused(401, "unauthenticated");
    }
    for open in ["/", "/status.js", "/docs/", "/healthz", "/readyz", "/v1/openapi.json"] {
        assert_eq!(server.get(open).await.status, 200, "{open}");
    }
    server.stop().await;
}

#[tokio::test]
async fn no_operation_is_open_by_oversight() {
    let server = guarded().await;
    let description: Value = serde_json::from_str(&HttpDoor::description()).unwrap();
    for (path, operations) in description["paths"].as_object().unwrap() {
        if ["/healthz", "/readyz", "/v1/openapi.json"].contains(&path.as_str()) {
            continue;
        }
        for method in operations.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let path: Vec<&str> = path
                .split('/')
                .map(|part| if part.starts_with('{') { "1" } else { part })
                .collect();
            let path = path.join("/");
            let name = format!("{method} {path}");
            let reply = server.ask(method, &path, &[JSON], "{}").await;
            assert!(reply.status == 401 || reply.status == 400, "{name}: {}", reply.text());
            if reply.status == 400 {
                panic!("{name} reads the request before it knows who asks: {}", reply.text());
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_password_is_as_good_as_a_token() {
    let server = guarded().await;
    for _ in 0..3 {
        let who = basic("ada", "correct horse");
        let headers = [("authorization", who.as_str())];
        let reply = server.ask(Method::GET, "/v1/status", &headers, "").await;
        assert_eq!(reply.good()["server"]["version"], "1.2.3");
    }
    server.stop().await;
}

#[tokio::test]
async fn permissions_are_by_name() {
    let server = guarded().await;
    let bob = "bob's token";
    post(&server, bob, "/v1/locks/shop.a/acquire", json!({})).await.good();
    for (path, body) in [
        ("/v1/locks/other/acquire", json!({})),
        ("/v1/locks/acquire", json!({"locks": [{"name": "shop.a"}, {"name": "other"}]})),
        ("/v1/locks/shop.a/force-release", json!({})),
        ("/v1/queues/other/messages", json!({"body": "x"})),
        ("/v1/queues/other/receive", json!({})),
        ("/v1/queues/shop.q/purge", json!({})),
        ("/v1/commit", json!({"writes": [{"key": "other", "value": "x"}]})),
        ("/v1/commit", json!({"publishes": [{"queue": "other", "message": {}}]})),
        ("/v1/elections/e/campaign", json!({"value": "bob"})),
    ] {
        let problem = post(&server, bob, path, body).await.refused(403, "forbidden");
        assert!(problem["detail"].as_str().unwrap().contains("bob"), "{problem}");
    }
    // Who may not declare a queue publishes only to one that is there.
    let path = "/v1/queues/shop.q/messages";
    let missing = post(&server, bob, path, json!({"body": "x"})).await;
    assert!(matches!(missing.status.as_u16(), 404 | 422), "{}", missing.text());
    post(&server, "ada's token", path, json!({"body": "x"})).await.good();
    post(&server, bob, path, json!({"body": "y"})).await.good();
    for path in ["/v1/status", "/metrics", "/v1/queues", "/v1/queues?prefix=shop."] {
        let headers = [("authorization", "Bearer bob's token")];
        server.ask(Method::GET, path, &headers, "").await.refused(403, "forbidden");
    }
    server.stop().await;
}

#[tokio::test]
async fn one_users_sessions_and_receipts_are_nothing_to_another() {
    let server = guarded().await;
    let (ada, bob) = ("ada's token", "bob's token");
    let session = post(&server, ada, "/v1/sessions", json!({})).await.good()["session"].clone();
    let ask = json!({"session": session});
    let path = "/v1/locks/shop.a/acquire";
    post(&server, bob, path, ask.clone()).await.refused(409, "foreign");
    post(&server, ada, path, ask).await.good();
    post(&server, ada, "/v1/queues/shop.q/messages", json!({"body": "x"})).await.good();
    let came = post(&server, ada, "/v1/queues/shop.q/receive", json!({})).await.good();
    let receipts = json!({"receipts": [came["deliveries"][0]["receipt"]]});
    post(&server, bob, "/v1/deliveries/ack", receipts.clone()).await.refused(409, "foreign");
    // Nor do they pass among parts that are bob's own.
    let held = post(&server, bob, "/v1/locks/shop.b/acquire", json!({})).await.good();
    let mine = json!({"name": "shop.b", "token": held["token"], "hold": held["hold"]});
    let theirs = json!({"receipt": came["deliveries"][0]["receipt"], "verdict": "ack"});
    let both = json!({"settles": [theirs], "releases": [mine]});
    post(&server, bob, "/v1/commit", both).await.refused(409, "foreign");
    let mut stolen = mine.clone();
    stolen["session"] = session;
    let both = json!({"releases": [mine, stolen]});
    post(&server, bob, "/v1/commit", both).await.refused(409, "foreign");
    post(&server, ada, "/v1/deliveries/ack", receipts).await.good();
    post(&server, bob, "/v1/commit", json!({"releases": [mine]})).await.good();
    server.stop().await;
}

#[tokio::test]
async fn whoever_is_taken_out_is_a_stranger_at_once_and_its_stream_ends() {
    let [ada, bob] = people();
    let users = Arc::new(Users::new(vec![ada, bob.clone()], UserLimits::default()));
    let server = guarded_by(users.clone()).await;
    post(&server, "ada's token", "/v1/queues/shop.q/messages", json!({"body": "x"})).await.good();
    let consume = "GET /v1/queues/shop.q/consume HTTP/1.1\r\nhost: localhost\r\n\
                   connection: close\r\nauthorization: Bearer ada's token\r\n\r\n";
    let bobs_view = async || {
        let headers = [("authorization", "Bearer bob's token")];
        server.ask(Method::GET, "/v1/queues/shop.q", &headers, "").await.good()
    };
    let take_out = async {
        until("it consumes", || async { bobs_view().await["in_flight"] == 1 }).await;
        users.replace(vec![bob.clone()]);
    };
    let (lines, ()) = tokio::join!(server.raw(consume.as_bytes()), take_out);
    assert!(lines.contains("\"kind\":\"unauthenticated\""), "{lines}");
    until("it is back", || async { bobs_view().await["ready"] == 1 }).await;
    let who = basic("ada", "correct horse");
    let headers = [("authorization", who.as_str()), ("x-requested-with", "leasehold")];
    server.ask(Method::GET, "/v1/status", &headers, "").await.refused(401, "unauthenticated");
    server.stop().await;
}
