//! Servers that go and come back.

use std::time::Duration;

use leasehold_api::engine::{Acquire, HoldRef, Mode, SessionRef, Want};
use leasehold_api::{ErrorKind, QueueConfig, Wait};

use crate::server::{Server, engine, handle, locks, soon, until};

fn want(hold: u64, wait: Wait) -> Acquire {
    Acquire {
        wants: vec![Want { name: "kept".into(), mode: Mode::Exclusive }],
        session: None,
        hold,
        reentrant: false,
        ttl: Some(Duration::from_secs(600)),
        bound: false,
        wait,
        lock_delay: Duration::ZERO,
        label: None,
        request: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acquire_for_ever_outlasts_restarts() {
    let mut server = Server::start().await;
    let client = locks(&engine(&server.url()).await);
    let held = client.acquire(&want(1, Wait::No)).await.expect("it is free");
    let waits = client.clone();
    let waiting = tokio::spawn(async move { waits.acquire(&want(2, Wait::Forever)).await });
    for _ in 0..3 {
        let is_waiting = async || Ok(client.inspect("kept").await?.waiting == 1);
        until("the waiter", is_waiting).await;
        server.restart().await;
    }
    until("the waiter", async || Ok(client.inspect("kept").await?.waiting == 1)).await;
    let hold = HoldRef { name: "kept".into(), token: held.token, hold: 1, session: None };
    client.release(&hold).await.expect("it is held still");
    let grant = soon("the turn", waiting).await.expect("no panic").expect("it is granted");
    assert!(grant.token > held.token);
}

/// Its session ends with each server, and it waits in a new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_that_waits_outlasts_restarts() {
    let mut server = Server::start().await;
    let client = locks(&engine(&server.url()).await);
    let held = client.acquire(&want(1, Wait::No)).await.expect("it is free");
    let lock = handle(&server.url()).await.lock("kept");
    let waiting = tokio::spawn(async move { lock.acquire().await });
    for _ in 0..3 {
        until("the waiter", async || Ok(client.inspect("kept").await?.waiting == 1)).await;
        // A session that is refused as soon as it is opened is not opened again and again.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        server.restart().await;
    }
    until("the waiter", async || Ok(client.inspect("kept").await?.waiting == 1)).await;
    let hold = HoldRef { name: "kept".into(), token: held.token, hold: 1, session: None };
    client.release(&hold).await.expect("it is held still");
    let guard = soon("the turn", waiting).await.expect("no panic").expect("it is granted");
    guard.release().await.expect("it is held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_outlives_a_restart() {
    let mut server = Server::start().await;
    let a = handle(&server.url()).await;
    let ttl = Duration::from_secs(3);
    let guard = a.lock("guarded").ttl(ttl).acquire().await.expect("it is free");
    let token = guard.token();
    server.restart().await;
    tokio::time::sleep(ttl + ttl / 2).await;
    guard.check().expect("it is renewed");
    let b = handle(&server.url()).await;
    assert!(b.lock("guarded").try_acquire().await.expect("asked").is_none());
    assert!(b.check("guarded", token).await.expect("asked"));
    guard.release().await.expect("it is held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_goes_on_after_a_restart() {
    let mut server = Server::start().await;
    let a = handle(&server.url()).await;
    let queue = a.queue("orders");
    queue.declare(&QueueConfig::default()).await.expect("it is declared");
    queue.publish_all(["1", "2"]).await.expect("they are published");
    let first = queue.receive(Duration::ZERO).await.expect("asked").expect("it is there");
    server.kill().await;
    let later = queue.clone();
    let publishing = tokio::spawn(async move { later.publish("3").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.restart().await;
    soon("the publish", publishing).await.expect("no panic").expect("it is published once");
    // Deliveries end with the server that made them; their messages come again.
    first.ack().await.expect_err("it was delivered before the restart");
    for body in ["1", "2", "3"] {
        let came = queue.receive(Duration::from_secs(5)).await.expect("asked").expect("there");
        assert_eq!(came.body(), body.as_bytes());
        came.ack().await.expect("it is ours");
    }
}

/// What is held in it keeps it there over a restart, and its handle takes it up again: by its signs
/// of life, or when it consumes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_taken_up_after_a_restart() {
    let mut server = Server::start().await;
    for consumes in [false, true] {
        let a = handle(&server.url()).await;
        let a = a.with_session_ttl(Duration::from_secs(2)).expect("a good time");
        let queue = a.queue("orders");
        queue.declare(&QueueConfig::default()).await.expect("it is declared");
        let lock = a.lock("bound").with_session().ttl(Duration::from_secs(600));
        let guard = lock.acquire().await.expect("it is free");
        let session = guard.hold().session.clone().expect("it is in a session");
        let session = SessionRef { proof: None, ..session };
        server.restart().await;
        let native = locks(&server.native());
        if consumes {
            let mut consumer = queue.consume().await.expect("it begins");
            native.keep_alive(&session).await.expect("it is taken up");
            queue.publish("1").await.expect("it is published");
            let came = soon("the message", consumer.next()).await.expect("asked").expect("there");
            came.ack().await.expect("it is ours");
            // The end of the session is the end of the stream.
            native.close_session(&session).await.expect("it is there");
            let error = soon("the end", consumer.next()).await.expect_err("it has ended");
            assert_eq!(error.kind, ErrorKind::NoSession, "{error}");
        } else {
            until("it is taken up", async || match native.keep_alive(&session).await {
                Ok(()) => Ok(true),
                Err(error) if error.kind == ErrorKind::NoSession => Ok(false),
                Err(error) => Err(error),
            })
            .await;
            assert!(a.check("bound", guard.token()).await.expect("asked"));
            guard.release().await.expect("it is held");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_goes_on_with_another_server_in_the_same_place() {
    let mut server = Server::start().await;
    let a = handle(&server.url()).await;
    a.lock("x").acquire().await.expect("it is free").release().await.expect("it is held");
    server.replace().await;
    a.lock("x").acquire().await.expect("it is free").release().await.expect("it is held");
    let queue = a.queue("orders");
    queue.declare(&QueueConfig::default()).await.expect("it is declared");
    server.replace().await;
    queue.declare(&QueueConfig::default()).await.expect("it is declared anew");
    assert!(queue.receive(Duration::ZERO).await.expect("asked").is_none());
    server.replace().await;
    queue.declare(&QueueConfig::default()).await.expect("it is declared anew");
    queue.consume().await.expect("it begins");
}
