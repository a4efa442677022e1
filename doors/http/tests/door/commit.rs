//! The commit.

use serde_json::json;

use crate::harness::server;

#[tokio::test]
async fn everything_happens_or_nothing() {
    let server = server().await;
    server.post("/v1/queues/in/messages", json!({"body": "order"})).await.good();
    server.put("/v1/queues/out", json!({})).await.good();
    let session = server.post("/v1/sessions", json!({})).await.good()["session"].clone();
    let ask = json!({"session": session});
    let came = server.post("/v1/queues/in/receive", ask.clone()).await.good();
    let receipt = came["deliveries"][0]["receipt"].clone();
    let held = server.post("/v1/locks/l/acquire", ask).await.good();
    let commit = |token: &serde_json::Value| {
        json!({
            "checks": [{"lock": "l", "token": token}],
            "settles": [{"receipt": receipt, "verdict": "ack"}],
            "publishes": [{"queue": "out", "message": {"body": "paid"}}],
            "writes": [{"key": "stock", "value": "4"}],
            "releases": [{
                "name": "l", "token": held["token"], "hold": held["hold"], "session": session
            }]
        })
    };
    let stale = server.post("/v1/commit", commit(&json!(1))).await;
    assert_eq!(stale.status, 409, "{}", stale.text());
    server.get("/v1/registers/stock").await.refused(404, "not-found");

    let done = server.post("/v1/commit", commit(&held["token"])).await.good();
    assert_eq!(done["versions"].as_array().unwrap().len(), 1);
    assert_eq!(server.get("/v1/registers/stock").await.good()["value"], "4");
    assert_eq!(server.get("/v1/queues/in").await.good()["totals"]["acked"], 1);
    assert_eq!(server.get("/v1/queues/out").await.good()["ready"], 1);
    assert_eq!(server.get("/v1/locks/l").await.good()["holders"], json!([]));
    server.post("/v1/commit", commit(&held["token"])).await.refused(409, "stale");
    server.stop().await;
}

#[tokio::test]
async fn a_commit_holds_parts_of_several_sessions() {
    let server = server().await;
    server.post("/v1/queues/in/messages", json!({"body": "order"})).await.good();
    let came = server.post("/v1/queues/in/receive", json!({})).await.good();
    let held = server.post("/v1/locks/l/acquire", json!({})).await.good();
    let settles = json!([{"receipt": came["deliveries"][0]["receipt"], "verdict": "ack"}]);
    let releases = json!([{"name": "l", "token": held["token"], "hold": held["hold"]}]);
    let mine = server.post("/v1/sessions", json!({})).await.good()["session"].clone();
    let session = json!({"session": mine});
    let other = server.post("/v1/locks/m/acquire", session.clone()).await.good();
    let more = json!({"name": "m", "token": other["token"], "hold": other["hold"]});
    let with = |session| {
        let mut release = more.clone();
        release["session"] = session;
        json!({"settles": settles, "releases": [releases[0], release]})
    };
    // One part under a session that is not its own, and nothing happens.
    server.post("/v1/commit", with(json!(null))).await.refused(409, "foreign");
    assert_eq!(server.get("/v1/queues/in").await.good()["in_flight"], 1);
    server.post("/v1/commit", with(mine)).await.good();
    assert_eq!(server.get("/v1/queues/in").await.good()["totals"]["acked"], 1);
    for lock in ["/v1/locks/l", "/v1/locks/m"] {
        assert_eq!(server.get(lock).await.good()["holders"], json!([]));
    }
    server.stop().await;
}

#[tokio::test]
async fn parts_that_contradict_themselves_are_named() {
    let server = server().await;
    for (part, field) in [
        (json!({"publishes": [{"message": {}}]}), "a queue or an exchange"),
        (json!({"writes": [{"value": "x"}]}), "key"),
        (json!({"writes": [{"key": "k", "delete": true, "value": "x"}]}), "no value"),
        (json!({"settles": [{"receipt": "x", "verdict": "ack"}]}), "receipt"),
        (json!({"settles": [{"receipt": "1.1.1", "verdict": "drop"}]}), "settles[0].verdict"),
        (json!({"publishes": [{"queue": "q", "mesage": {}}]}), "mesage"),
    ] {
        let problem = server.post("/v1/commit", part).await.refused(400, "invalid");
        assert!(problem["detail"].as_str().unwrap().contains(field), "{problem}");
    }
    server.stop().await;
}
