//! The end of the engine in all its ways, and the errors that come of it: nobody hangs.

mod support;

use std::time::Duration;

use futures_util::StreamExt;
use leasehold_api::engine::{LockEngine, OpenSession, QueueEngine};
use leasehold_api::{ErrorKind, QueueConfig, Retry, Wait};
use leasehold_native::NativeEngine;
use leasehold_node::Options;
use support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_when_it_is_closed_is_told() {
    let home = home();
    let session = home.session().await;
    home.declare("orders", QueueConfig::default()).await;
    let grant = home.take("nightly", Some(&session)).await;
    let acquire = asking("nightly", None, Wait::Forever);
    let receive = home.receiving("orders", &session, 5, Wait::Forever);
    let mut stream = home.consume(&home.consuming("orders", &session, 5)).await.expect("open");
    let mut acquire = Box::pin(home.acquire(&acquire));
    let mut receive = Box::pin(home.receive(&receive));
    let mut watch = Box::pin(home.watch("nightly", Some(grant.token), TTL));
    assert!(poll(&mut acquire).await.is_pending());
    assert!(poll(&mut receive).await.is_pending());
    assert!(poll(&mut watch).await.is_pending());
    home.round_trip().await;

    soon(home.close()).await.expect("closed");
    let errors = [
        soon(acquire).await.expect_err("it is closed"),
        soon(receive).await.expect_err("it is closed"),
        soon(watch).await.expect_err("it is closed"),
        soon(stream.next()).await.expect("it says why").expect_err("it is closed"),
    ];
    for error in errors {
        assert_eq!((error.kind, error.retry), (ErrorKind::Unavailable, Retry::Unknown), "{error}");
    }
    assert!(soon(stream.next()).await.is_none());
    assert!(
        soon(grant.ended.expect("it was told")).await.is_err(),
        "it is not known to have ended"
    );

    let late = home.read(b"x").await.expect_err("it is closed");
    assert_eq!((late.kind, late.retry), (ErrorKind::Unavailable, Retry::Later), "{late}");
    let late = home.publish(vec![message("orders", "x")]).await.expect("each by itself");
    assert_eq!(kind(late[0].clone()), ErrorKind::Unavailable);
    let gone = home.consume(&home.consuming("orders", &session, 5)).await;
    assert_eq!(gone.err().expect("refused").kind, ErrorKind::Unavailable);
    home.close().await.expect("closed before");
    assert_eq!(home.kept(), Default::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_held_and_sent_is_there_when_it_is_opened_again() {
    let Home { native, directory } = home();
    let before = Home { native, directory };
    let session = before.session().await;
    before.declare("orders", QueueConfig::default()).await;
    before.send("orders", 3).await;
    let mut ask = asking("nightly", Some(&session), Wait::No);
    (ask.bound, ask.ttl) = (true, None);
    let grant = before.acquire(&ask).await.expect("granted");
    let taken = before.receive_now("orders", &session, 1).await;
    let Home { native, directory } = before;

    let busy = NativeEngine::open(directory.path(), small()).expect_err("it is in use");
    assert_eq!((busy.kind, busy.retry), (ErrorKind::Unavailable, Retry::Later));
    assert!(busy.asked.starts_with("open file:") && busy.wrong.contains("in use"), "{busy}");
    native.close().await.expect("closed");

    let native = NativeEngine::open(directory.path(), small()).expect("opened again");
    let after = Home { native, directory };
    let resume = OpenSession { resume: Some(session.clone()), ..OpenSession::default() };
    assert!(after.open_session(&resume).await.expect("taken up").resumed);
    assert!(after.check("nightly", grant.token).await.expect("checked"));
    assert_eq!(after.leave("nightly", grant.token, Some(&session)).await, 0);
    assert!(after.take("nightly", None).await.token > grant.token);
    let late = after.settle(&[taken[0].receipt.clone()], leasehold_api::Verdict::Ack).await;
    assert_eq!(kind(late), ErrorKind::Stale);
    assert_eq!(after.receive_now("orders", &session, 5).await.len(), 3);
}

/// Nobody would be told of its end, and no sign of life would keep it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_found_after_a_restart_has_to_be_taken_up() {
    let Home { native, directory } = home();
    let before = Home { native, directory };
    let session = before.session().await;
    before.declare("orders", QueueConfig::default()).await;
    before.take("nightly", Some(&session)).await;
    let Home { native, directory } = before;
    native.close().await.expect("closed");

    let native = NativeEngine::open(directory.path(), small()).expect("opened again");
    let after = Home { native, directory };
    let ask = after.consuming("orders", &session, 5);
    assert_eq!(after.consume(&ask).await.err().expect("refused").kind, ErrorKind::NoSession);
    assert_eq!(kind(after.keep_alive(&session).await), ErrorKind::NoSession);
    let ttl = Some(Duration::from_millis(50));
    let resume = OpenSession { ttl, resume: Some(session.clone()), label: None };
    assert!(after.open_session(&resume).await.expect("taken up").resumed);
    after.keep_alive(&session).await.expect("it is ours");
    let mut stream = after.consume(&ask).await.expect("open");
    let error = soon(stream.next()).await.expect("it says why").expect_err("it has ended");
    assert_eq!(error.kind, ErrorKind::NoSession);
    assert!(soon(stream.next()).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_of_somebody_else_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("thesis.txt"), "dear reader").expect("written");
    let foreign = NativeEngine::open(directory.path(), small()).expect_err("not ours");
    assert_eq!(foreign.kind, ErrorKind::Unavailable);

    let home = home();
    home.take("nightly", None).await;
    home.close().await.expect("closed");
    let format = home.directory.path().join("FORMAT");
    let text = std::fs::read_to_string(&format).expect("it has a format");
    let newer: String = text.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    std::fs::write(&format, newer).expect("written");
    let newer = NativeEngine::open(home.directory.path(), small()).expect_err("newer");
    assert_eq!((newer.kind, newer.retry), (ErrorKind::Broken, Retry::Never), "{newer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_notices_are_said_to_be_lost() {
    // The node closes a mailbox that is over its limit; here that is the first notice.
    let home = home_with(Options { mailbox_notices: 0, ..small() });
    let lost = soon(home.read(b"x")).await.expect_err("nothing can arrive");
    assert_eq!((lost.kind, lost.retry), (ErrorKind::Broken, Retry::Unknown));
    assert!(lost.wrong.contains("unread"), "{lost}");
    assert_eq!(lost.asked, "read register x");
    assert_eq!(kind(soon(home.read(b"x")).await), ErrorKind::Broken);
    home.close().await.expect("its journal is well");
}

#[test]
fn the_end_of_its_runtime_is_the_end_of_the_engine() {
    let directory = tempfile::tempdir().expect("a directory");
    let outside = NativeEngine::open(directory.path(), small()).expect_err("no runtime");
    assert_eq!(outside.kind, ErrorKind::Invalid);
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_time().build().expect("a runtime")
    };
    let first = runtime();
    let native = {
        let _inside = first.enter();
        NativeEngine::open(directory.path(), small()).expect("opened")
    };
    first.shutdown_timeout(Duration::from_secs(10));
    let second = runtime();
    let error = second.block_on(async { soon(native.read(b"x")).await.expect_err("it has ended") });
    assert_eq!(error.kind, ErrorKind::Unavailable);
    second.block_on(native.close()).expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_inbox_is_waited_for() {
    let home = home_with(Options { inbox_commands: 2, ..small() });
    home.declare("orders", QueueConfig::default()).await;
    home.send("orders", 2000).await;
    let session = home.session().await;
    let mut got = 0;
    while got < 2000 {
        let came = home.receive_now("orders", &session, 500).await;
        home.ack(&came).await;
        got += came.len();
    }
    home.until_quiet(1).await;
}

#[tokio::test]
async fn it_works_in_a_runtime_of_one_thread_and_in_memory() {
    let native = NativeEngine::memory(small()).expect("started");
    let home = Home { native, directory: tempfile::tempdir().expect("a directory") };
    let session = home.session().await;
    home.declare("orders", QueueConfig::default()).await;
    home.send("orders", 3000).await;
    let mut stream = home.consume(&home.consuming("orders", &session, 100)).await.expect("open");
    for _ in 0..3000 {
        let came = soon(stream.next()).await.expect("it goes on").expect("a delivery");
        home.ack(&[came]).await;
    }
    let grant = home.take("nightly", Some(&session)).await;
    assert_eq!(home.leave("nightly", grant.token, Some(&session)).await, 0);
    assert!(home.metrics().read().commands > 3000);
    soon(home.close()).await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_while_thousands_ask_leaves_nobody_hanging() {
    let home = std::sync::Arc::new(home());
    let session = home.session().await;
    let mut tasks = Vec::new();
    for i in 0..200 {
        let (home, session) = (home.clone(), session.clone());
        tasks.push(tokio::spawn(async move {
            loop {
                let mut ask = asking("nightly", Some(&session), Wait::Forever);
                ask.hold = i;
                let grant = match home.acquire(&ask).await {
                    Ok(grant) => grant,
                    Err(error) => return error.kind,
                };
                let mut hold = held("nightly", grant.token, Some(&session));
                hold.hold = i;
                if let Err(error) = home.release(&hold).await {
                    return error.kind;
                }
            }
        }));
    }
    for _ in 0..50 {
        home.round_trip().await;
    }
    soon(home.close()).await.expect("closed");
    for task in tasks {
        assert_eq!(soon(task).await.expect("no panic"), ErrorKind::Unavailable);
    }
    assert_eq!(home.kept(), Default::default());
}
