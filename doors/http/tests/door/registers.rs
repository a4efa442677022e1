//! Registers.

use hyper::Method;
use serde_json::json;

use crate::harness::{JSON, server};

#[tokio::test]
async fn a_register_is_written_compared_and_deleted() {
    let server = server().await;
    server.get("/v1/registers/r").await.refused(404, "not-found");
    let first = json!({"value": "one", "expect": "absent", "ttl_ms": 60_000});
    let version = server.put("/v1/registers/r", first.clone()).await.good()["version"].clone();
    server.put("/v1/registers/r", first).await.refused(409, "conflict");
    let read = server.get("/v1/registers/r").await.good();
    assert_eq!((&read["value"], &read["version"]), (&json!("one"), &version));
    assert!(read["left_ms"].as_u64().unwrap() > 30_000);

    let next = json!({"json": {"n": 1.50}, "expect": {"version": version}, "keep_ttl": true});
    let version = server.put("/v1/registers/r", next.clone()).await.good()["version"].clone();
    server.put("/v1/registers/r", next).await.refused(409, "conflict");
    let read = server.get("/v1/registers/r").await.good();
    assert!(read["left_ms"].is_u64(), "{read}");
    assert!(read["value"].as_str().unwrap().contains("1.5"));

    let list = server.get("/v1/registers?prefix=r").await.good();
    assert_eq!((&list["items"][0]["key"], &list["next"]), (&json!("r"), &json!(null)));
    server.delete("/v1/registers/r?expect=1").await.refused(409, "conflict");
    server.delete("/v1/registers/r?expect=often").await.refused(400, "invalid");
    server.delete(&format!("/v1/registers/r?expect={version}")).await.good();
    server.put("/v1/registers/r", json!({"value": "x"})).await.good();
    let body = json!({"expect": "present"}).to_string();
    server.ask(Method::DELETE, "/v1/registers/r", &[JSON], body).await.good();
    server.get("/v1/registers/r").await.refused(404, "not-found");
    server.stop().await;
}

#[tokio::test]
async fn keys_and_values_may_be_any_bytes() {
    let server = server().await;
    server.put("/v1/registers/%FF%00%2F", json!({"base64": "/wA="})).await.good();
    let read = server.get("/v1/registers/%ff%00%2f").await.good();
    assert_eq!(read["base64"], "/wA=");
    let list = server.get("/v1/registers").await.good();
    assert_eq!(list["items"][0]["key_base64url"], "_wAv");
    server.stop().await;
}

#[tokio::test]
async fn a_watch_sees_the_next_version() {
    let server = server().await;
    let watch = server.get("/v1/registers/r/watch?wait_ms=60000");
    let write = async { server.put("/v1/registers/r", json!({"value": "x"})).await.good() };
    let (seen, written) = tokio::join!(watch, write);
    assert_eq!(seen.good()["register"]["version"], written["version"]);
    let path = format!("/v1/registers/r/watch?known={}&wait_ms=10", written["version"]);
    assert_eq!(server.get(&path).await.good()["register"]["value"], "x");
    let none = server.get("/v1/registers/none/watch?wait_ms=10").await.good();
    assert_eq!(none, json!({"register": null}));
    server.stop().await;
}

#[tokio::test]
async fn a_late_holder_cannot_write() {
    let server = server().await;
    let granted = server.post("/v1/locks/l/acquire", json!({})).await.good();
    let write = json!({"value": "x", "guard": {"lock": "l", "token": granted["token"]}});
    server.put("/v1/registers/r", write.clone()).await.good();
    server.post("/v1/locks/l/force-release", json!({})).await.good();
    server.put("/v1/registers/r", write).await.refused(409, "stale");
    server.put("/v1/registers/r", json!({})).await.refused(400, "invalid");
    let two = json!({"value": "x", "base64": ""});
    server.put("/v1/registers/r", two).await.refused(400, "invalid");
    server.stop().await;
}
