//! Bad input, each with its problem.

use std::collections::BTreeSet;

use hyper::Method;
use leasehold_http_door::HttpDoor;
use serde_json::{Value, json};

use crate::harness::{JSON, config, server, server_with};

#[tokio::test]
async fn bad_json_is_named_with_its_place() {
    let server = server().await;
    for (body, parts) in [
        ("{\"ttl_ms\": 5,\n \"wait\": 1}", &["wait", "line 2", "expected one of", "wait_ms"][..]),
        ("{\"ttl_ms\": \"5\"}", &["ttl_ms", "expected u64", "line 1 column"]),
        ("{\"ttl_ms\": -5}", &["ttl_ms", "-5"]),
        ("{\"permits\": {\"take\": 1}}", &["permits", "of"]),
        ("{\"mode\": \"write\"}", &["mode", "write", "exclusive"]),
        ("{\"mode\": ", &["EOF", "line 1"]),
        ("[]", &["column"]),
        ("{} {}", &["more"]),
        ("\u{fe}", &["column"]),
    ] {
        let reply = server.ask(Method::POST, "/v1/locks/a/acquire", &[JSON], body).await;
        let problem = reply.refused(400, "invalid");
        let detail = problem["detail"].as_str().unwrap();
        for part in parts {
            assert!(detail.contains(part), "{body}: {detail} has no {part}");
        }
        assert_eq!(problem["retry"], "never");
    }
    let batch = r#"{"messages": [{"body": "x"}, {"body": 5}]}"#;
    let reply = server.ask(Method::POST, "/v1/queues/q/messages", &[JSON], batch).await;
    let problem = reply.refused(400, "invalid");
    assert!(problem["detail"].as_str().unwrap().contains("messages[1].body"), "{problem}");
    server.stop().await;
}

#[tokio::test]
async fn bad_queries_and_values_are_named() {
    let server = server().await;
    for (path, part) in [
        ("/v1/locks/a/watch?wait_ms=soon", "wait_ms"),
        ("/v1/locks/a/watch?wait=1", "wait"),
        ("/v1/locks/a/watch?wait_ms=600001", "600000"),
        ("/v1/locks/a/check", "token"),
        ("/v1/locks?max=0", "items"),
    ] {
        let problem = server.get(path).await.refused(400, "invalid");
        let all = format!("{} {}", problem["asked"], problem["detail"]);
        assert!(all.contains(part), "{path}: {problem}");
    }
    let long = json!({"wait_ms": 600_001});
    server.post("/v1/locks/a/acquire", long).await.refused(400, "invalid");
    let both = json!({"mode": "shared", "permits": {"take": 1, "of": 2}});
    server.post("/v1/locks/a/acquire", both).await.refused(400, "invalid");
    server.post("/v1/locks/a/acquire", json!({"ttl_ms": 0})).await.refused(400, "invalid");
    let name = "x".repeat(256);
    server.post(&format!("/v1/locks/{name}/acquire"), json!({})).await.refused(400, "invalid");
    let two = json!({"delay_ms": 1, "at_ms": 1});
    server.post("/v1/queues/q/messages", two).await.refused(400, "invalid");
    let path = "/v1/queues/q/messages?priority=1";
    server.post(path, json!({})).await.refused(400, "invalid");
    server.stop().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_announced_or_not() {
    let mut small = config();
    small.limits.body_bytes = 1000;
    let server = server_with(small).await;
    let body = "x".repeat(1001);
    let path = "/v1/queues/q/messages";
    let reply = server.ask(Method::POST, path, &[], body.clone()).await;
    let problem = reply.refused(413, "invalid");
    assert!(problem["detail"].as_str().unwrap().contains("1000 bytes"), "{problem}");
    server.ask(Method::POST, path, &[], "x".repeat(1000)).await.good();

    let chunked = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\
         connection: close\r\n\r\n3e9\r\n{body}\r\n0\r\n\r\n"
    );
    let answer = server.raw(chunked.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let server = server().await;
    for path in ["/v2", "/v1/lock/a", "/docs/none.js", "/v1/queues/"] {
        let problem = server.get(path).await.refused(404, "not-found");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(path) && detail.contains("/docs"), "{detail}");
    }
    server.post("/v1/locks//acquire", json!({})).await.refused(400, "invalid");
    let wrong = server.delete("/v1/locks/a/acquire").await;
    assert_eq!(wrong.headers["allow"], "POST");
    let problem = wrong.refused(405, "invalid");
    assert!(problem["detail"].as_str().unwrap().contains("DELETE"), "{problem}");
    server.stop().await;
}

#[tokio::test]
async fn pages_from_elsewhere_are_kept_out() {
    let mut named = config();
    named.hosts = vec!["leasehold.internal".into()];
    let server = server_with(named).await;
    let path = "/v1/queues/q/messages";
    for headers in [
        [("origin", "http://evil.example")],
        [("origin", "null")],
        [("sec-fetch-site", "cross-site")],
        [("host", "evil.example")],
    ] {
        server.ask(Method::POST, path, &headers, "x").await.refused(403, "forbidden");
    }
    let own = format!("http://{}", server.address);
    server.ask(Method::POST, path, &[("origin", &own)], "x").await.good();
    server.ask(Method::POST, path, &[("host", "leasehold.internal:80")], "x").await.good();
    server.stop().await;
}

/// Operations of the description: a method and a path with every name filled in.
fn operations() -> Vec<(Method, String)> {
    let description: Value = serde_json::from_str(&HttpDoor::description()).unwrap();
    let mut all = Vec::new();
    for (path, operations) in description["paths"].as_object().unwrap() {
        let filled: Vec<&str> =
            path.split('/').map(|part| if part.starts_with('{') { "x" } else { part }).collect();
        for method in operations.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            all.push((method, filled.join("/")));
        }
    }
    all
}

#[tokio::test]
async fn every_described_operation_is_there_and_described_whole() {
    let server = server().await;
    let served = server.get("/v1/openapi.json").await.good();
    let built: Value = serde_json::from_str(&HttpDoor::description()).unwrap();
    assert_eq!(served, built);
    assert!(served["openapi"].as_str().unwrap().starts_with("3.1"));

    let mut ids = BTreeSet::new();
    for operations in served["paths"].as_object().unwrap().values() {
        for operation in operations.as_object().unwrap().values() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_string()), "{id} twice");
            assert!(operation["summary"].is_string(), "{id} has no summary");
            assert!(operation["responses"].as_object().is_some_and(|all| !all.is_empty()));
        }
    }
    assert!(ids.len() >= 55, "{}", ids.len());
    for (method, path) in operations() {
        let name = format!("{method} {path}");
        if path.ends_with("/consume") {
            continue;
        }
        // A body that is none: what matters is that somebody reads it.
        let reply = server.ask(method, &path, &[JSON], "?").await;
        assert_ne!(reply.status, 405, "{name}");
        if reply.status == 404 {
            let detail = reply.json()["detail"].as_str().unwrap().to_string();
            assert!(!detail.contains("there is nothing at"), "{name}: {detail}");
        }
    }
    server.stop().await;
}

/// Everything is registered together with its description, or in one of the few places that are
/// for browsers. This looks at the source, because a router cannot be asked for its routes.
#[test]
fn every_route_is_described() {
    let routes = include_str!("../../src/routes.rs");
    let plain: Vec<&str> = routes.lines().filter(|line| line.contains(".route(")).collect();
    assert_eq!(plain.len(), 2, "the list, and the lock of the name acquire: {plain:?}");
    let merged: Vec<&str> = routes.lines().filter(|line| line.contains(".merge(")).collect();
    assert_eq!(merged.len(), 2, "the page and the docs: {merged:?}");
}

#[tokio::test]
async fn the_description_refers_to_nothing_that_is_missing() {
    let description: Value = serde_json::from_str(&HttpDoor::description()).unwrap();
    let schemas = description["components"]["schemas"].as_object().unwrap();
    let mut left = vec![&description];
    let mut seen = 0;
    while let Some(value) = left.pop() {
        match value {
            Value::Object(object) => {
                if let Some(Value::String(to)) = object.get("$ref") {
                    let name = to.strip_prefix("#/components/schemas/").expect("a schema");
                    assert!(schemas.contains_key(name), "{name}");
                    seen += 1;
                }
                left.extend(object.values());
            }
            Value::Array(array) => left.extend(array),
            _ => {}
        }
    }
    assert!(seen > 100, "{seen}");
}
