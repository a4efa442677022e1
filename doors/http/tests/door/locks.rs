//! Sessions, locks, semaphores, elections.

use serde_json::{Value, json};

use crate::harness::{Server, server, until};

async fn waiting(server: &Server, name: &str) -> u64 {
    let view = server.get(&format!("/v1/locks/{name}")).await.good();
    view["waiting"].as_u64().unwrap()
}

#[tokio::test]
async fn a_lock_is_acquired_checked_renewed_and_released() {
    let server = server().await;
    let granted = server.post("/v1/locks/nightly/acquire", json!({"label": "me"})).await.good();
    assert_eq!(granted["name"], "nightly");
    assert_eq!(granted["entries"], 1);
    let left = granted["left_ms"].as_u64().unwrap();
    assert!((20_000..=30_000).contains(&left), "{granted}");
    let token = granted["token"].as_u64().unwrap();
    assert!(token < 1 << 53 && granted["hold"].as_u64().unwrap() < 1 << 53);

    let busy = server.post("/v1/locks/nightly/acquire", json!({})).await.refused(409, "busy");
    assert_eq!(busy["retry"], "later");
    assert!(busy["asked"].as_str().unwrap().contains("nightly"), "{busy}");

    let path = format!("/v1/locks/nightly/check?token={token}");
    assert_eq!(server.get(&path).await.good(), json!({"held": true}));
    let view = server.get("/v1/locks/nightly").await.good();
    assert_eq!(view["holders"][0]["label"], "me");
    assert_eq!(view["holders"][0]["mode"], "exclusive");
    let list = server.get("/v1/locks?prefix=night&max=10").await.good();
    assert_eq!(list["items"][0]["name"], "nightly");

    let hold = json!({"token": token, "hold": granted["hold"]});
    let mut renew = hold.clone();
    renew["ttl_ms"] = json!(90_000);
    let renewed = server.post("/v1/locks/nightly/renew", renew).await.good();
    assert!(renewed["left_ms"].as_u64().unwrap() > 60_000);
    let guessed = json!({"token": token, "hold": 1});
    server.post("/v1/locks/nightly/release", guessed).await.refused(409, "foreign");
    let released = server.post("/v1/locks/nightly/release", hold.clone()).await.good();
    assert_eq!(released, json!({"entries": 0}));
    server.post("/v1/locks/nightly/release", hold).await.refused(409, "stale");
    assert_eq!(server.get(&path).await.good(), json!({"held": false}));
    server.stop().await;
}

#[tokio::test]
async fn names_are_percent_encoded_and_none_is_hidden_by_a_path() {
    let server = server().await;
    for (path, name) in [("a%2Fb%20%C3%A4", "a/b ä"), ("acquire", "acquire")] {
        server.post(&format!("/v1/locks/{path}/acquire"), json!({})).await.good();
        let view = server.get(&format!("/v1/locks/{path}")).await.good();
        assert_eq!((&view["name"], view["holders"].as_array().unwrap().len()), (&json!(name), 1));
    }
    server.get("/v1/locks/%FF").await.refused(400, "invalid");
    server.stop().await;
}

#[tokio::test]
async fn several_locks_are_taken_together() {
    let server = server().await;
    let ask = json!({"locks": [{"name": "a"}, {"name": "b", "mode": "shared"}]});
    let granted = server.post("/v1/locks/acquire", ask).await.good();
    server.post("/v1/locks/a/acquire", json!({})).await.refused(409, "busy");
    server.post("/v1/locks/b/acquire", json!({"mode": "shared"})).await.good();
    let hold = json!({"token": granted["token"], "hold": granted["hold"]});
    server.post("/v1/locks/b/release", hold).await.good();
    server.post("/v1/locks/a/acquire", json!({})).await.good();
    let empty = server.post("/v1/locks/acquire", json!({"locks": []})).await;
    empty.refused(400, "invalid");
    server.stop().await;
}

#[tokio::test]
async fn a_waiter_gets_its_turn_or_times_out() {
    let server = server().await;
    let granted = server.post("/v1/locks/a/acquire", json!({})).await.good();
    let late = server.post("/v1/locks/a/acquire", json!({"wait_ms": 30})).await;
    late.refused(409, "timed-out");
    let next = async { server.post("/v1/locks/a/acquire", json!({"wait_ms": 60_000})).await };
    let release = async {
        until("somebody waits", || async { waiting(&server, "a").await == 1 }).await;
        let hold = json!({"token": granted["token"], "hold": granted["hold"]});
        server.post("/v1/locks/a/release", hold).await.good();
    };
    let (next, ()) = tokio::join!(next, release);
    assert!(next.good()["token"].as_u64() > granted["token"].as_u64());
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_waits_no_longer() {
    let server = server().await;
    let granted = server.post("/v1/locks/a/acquire", json!({})).await.good();
    {
        let gone = server.post("/v1/locks/a/acquire", json!({"wait_ms": 60_000, "label": "gone"}));
        let seen = until("somebody waits", || async { waiting(&server, "a").await == 1 });
        tokio::select! {
            _ = gone => panic!("the lock is held"),
            () = seen => {}
        }
    }
    until("nobody waits", || async { waiting(&server, "a").await == 0 }).await;
    let hold = json!({"token": granted["token"], "hold": granted["hold"]});
    server.post("/v1/locks/a/release", hold).await.good();
    server.post("/v1/locks/a/acquire", json!({})).await.good();
    server.stop().await;
}

#[tokio::test]
async fn a_retried_request_is_answered_alike() {
    let server = server().await;
    let ask = json!({"request_id": "b9e1"});
    let first = server.post("/v1/locks/a/acquire", ask.clone()).await.good();
    let again = server.post("/v1/locks/a/acquire", ask).await.good();
    assert_eq!((&first["token"], &first["hold"]), (&again["token"], &again["hold"]));
    let long = json!({"request_id": "x".repeat(129)});
    server.post("/v1/locks/b/acquire", long).await.refused(400, "invalid");
    server.stop().await;
}

#[tokio::test]
async fn a_session_ends_what_is_bound_to_it() {
    let server = server().await;
    let opened = server.post("/v1/sessions", json!({"ttl_ms": 60_000, "label": "w"})).await.good();
    let session = opened["session"].as_str().unwrap().to_string();
    let ask = json!({"session": session, "hold": 1});
    let granted = server.post("/v1/locks/a/acquire", ask).await.good();
    assert_eq!((&granted["left_ms"], &granted["hold"]), (&Value::Null, &json!(1)));

    server.post(&format!("/v1/sessions/{session}/keep-alive"), json!({})).await.good();
    let resumed = server.post("/v1/sessions", json!({"resume": session})).await.good();
    assert_eq!(resumed, json!({"session": session, "resumed": true}));
    server.post("/v1/locks/a/acquire", json!({})).await.refused(409, "busy");
    server.delete(&format!("/v1/sessions/{session}")).await.good();
    server.post("/v1/locks/a/acquire", json!({})).await.good();
    let path = format!("/v1/sessions/{session}/keep-alive");
    server.post(&path, json!({})).await.refused(410, "no-session");
    server.stop().await;
}

#[tokio::test]
async fn a_guessed_session_opens_nothing() {
    let server = server().await;
    let opened = server.post("/v1/sessions", json!({})).await.good();
    let session = opened["session"].as_str().unwrap().to_string();
    let (id, seal) = session.split_once('.').unwrap();
    let other = if seal.starts_with('0') { "1" } else { "0" };
    for (forged, status, kind) in [
        (id.to_string(), 409, "foreign"),
        (format!("{id}.{other}{}", &seal[1..]), 409, "foreign"),
        (format!("{id}."), 409, "foreign"),
        (format!("{id}1.{seal}"), 409, "foreign"),
        ("me".to_string(), 400, "invalid"),
    ] {
        server.delete(&format!("/v1/sessions/{forged}")).await.refused(status, kind);
        let ask = json!({"session": forged});
        server.post("/v1/locks/a/acquire", ask).await.refused(status, kind);
    }
    server.stop().await;
}

#[tokio::test]
async fn an_operator_ends_holds_and_watchers_see_it() {
    let server = server().await;
    let granted = server.post("/v1/locks/a/acquire", json!({})).await.good();
    let path = format!("/v1/locks/a/watch?known={}&wait_ms=60000", granted["token"]);
    let watch = server.get(&path);
    let force = async { server.post("/v1/locks/a/force-release", json!({})).await.good() };
    let (seen, forced) = tokio::join!(watch, force);
    assert_eq!(forced, json!({"holds": 1}));
    assert_eq!(seen.good()["holders"], json!([]));
    let same = server.get("/v1/locks/a/watch?wait_ms=20").await.good();
    assert_eq!(same["holders"], json!([]));
    server.stop().await;
}

#[tokio::test]
async fn a_semaphore_gives_its_permits_out() {
    let server = server().await;
    let ask = json!({"permits": 2, "of": 3});
    let first = server.post("/v1/semaphores/s/acquire", ask.clone()).await.good();
    server.post("/v1/semaphores/s/acquire", ask.clone()).await.refused(409, "busy");
    server.post("/v1/semaphores/s/acquire", json!({"of": 3})).await.good();
    let view = server.get("/v1/semaphores/s").await.good();
    assert_eq!(view["holders"].as_array().unwrap().len(), 2);
    let hold = json!({"token": first["token"], "hold": first["hold"]});
    let renew = json!({"token": first["token"], "hold": first["hold"], "ttl_ms": 50_000});
    server.post("/v1/semaphores/s/renew", renew).await.good();
    server.post("/v1/semaphores/s/release", hold).await.good();
    server.post("/v1/semaphores/s/acquire", ask).await.good();
    server.stop().await;
}

#[tokio::test]
async fn an_election_has_one_leader_and_observers() {
    let server = server().await;
    assert_eq!(server.get("/v1/elections/e").await.good(), json!({"leader": null}));
    let observing = server.get("/v1/elections/e/observe?wait_ms=60000");
    let campaign = server.post("/v1/elections/e/campaign", json!({"value": "ada"}));
    let (seen, elected) = tokio::join!(observing, campaign);
    let (seen, elected) = (seen.good(), elected.good());
    assert_eq!((&seen["leader"], &seen["token"]), (&json!("ada"), &elected["token"]));
    assert_eq!(elected["name"], "election/e");

    server.post("/v1/elections/e/campaign", json!({"value": "bob"})).await.refused(409, "busy");
    let renew = json!({"token": elected["token"], "hold": elected["hold"], "ttl_ms": 5000});
    server.post("/v1/elections/e/renew", renew).await.good();
    let hold = json!({"token": elected["token"], "hold": elected["hold"]});
    server.post("/v1/elections/e/resign", hold).await.good();
    let path = format!("/v1/elections/e/observe?known={}", elected["token"]);
    assert_eq!(server.get(&path).await.good(), json!({"leader": null}));
    server.stop().await;
}
