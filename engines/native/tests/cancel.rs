//! Futures dropped at every await: nothing may stay behind.
//!
//! A future is polled so many times and dropped, with round trips between the polls or without, so
//! that the drop meets it before its command was sent, while the command is under way, while it
//! waits, and when the answer is there and unread. The proof is always somebody else who gets the
//! lock or the message.

mod support;

use std::sync::Arc;
use std::time::Duration;

use leasehold_api::engine::{LockEngine, OpenSession, QueueEngine, SessionRef};
use leasehold_api::{ErrorKind, QueueConfig, RequestId, Wait};
use support::*;

const POLLS: usize = 8;

/// Runs `test` with every number of polls, in the three rhythms.
async fn everywhere(home: &Home, test: impl AsyncFn(usize, usize)) {
    for polls in 0..POLLS {
        for rhythm in 0..3 {
            test(polls, rhythm).await;
        }
    }
    home.until_quiet(2).await;
}

/// What happens between two polls.
async fn pass(home: &Home, rhythm: usize) {
    match rhythm {
        0 => {}
        1 => tokio::task::yield_now().await,
        _ => home.round_trip().await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_acquire_leaves_the_lock_free() {
    let home = home();
    let (one, other) = (home.session().await, home.session().await);
    everywhere(&home, async |polls, rhythm| {
        let ask = asking("nightly", Some(&one), Wait::Forever);
        let got = poll_and_drop(home.acquire(&ask), polls, async || pass(&home, rhythm).await);
        if let Some(grant) = got.await {
            let token = grant.expect("granted").token;
            assert_eq!(home.leave("nightly", token, Some(&one)).await, 0);
        }
        let grant = home.take("nightly", Some(&other)).await;
        home.leave("nightly", grant.token, Some(&other)).await;
    })
    .await;
    let view = home.inspect("nightly").await.expect("shown");
    assert!(view.holders.is_empty() && view.waiting == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_waiter_is_passed_over() {
    let home = home();
    let (one, other) = (home.session().await, home.session().await);
    everywhere(&home, async |polls, rhythm| {
        let first = home.take("nightly", None).await;
        let ask = asking("nightly", Some(&one), Wait::Forever);
        let waits = poll_and_drop(home.acquire(&ask), polls, async || pass(&home, rhythm).await);
        assert!(waits.await.is_none(), "it is held");
        home.until("nobody waits", async || {
            home.inspect("nightly").await.expect("shown").waiting == 0
        })
        .await;
        home.leave("nightly", first.token, None).await;
        let grant = home.take("nightly", Some(&other)).await;
        home.leave("nightly", grant.token, Some(&other)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_dropped_while_it_is_granted_gives_the_lock_back() {
    let home = home();
    let (one, other) = (home.session().await, home.session().await);
    for round in 0..40 {
        let first = home.take("nightly", None).await;
        let ask = asking("nightly", Some(&one), Wait::Forever);
        let mut waiting = Box::pin(home.acquire(&ask));
        assert!(poll(&mut waiting).await.is_pending());
        home.leave("nightly", first.token, None).await;
        if round % 2 == 0 {
            // The grant is in the call's hands now, unread.
            home.round_trip().await;
        }
        drop(waiting);
        let grant = home.take("nightly", Some(&other)).await;
        home.leave("nightly", grant.token, Some(&other)).await;
    }
    home.until_quiet(2).await;
    assert_eq!(home.kept().holds, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_re_entry_is_left_once() {
    let home = home();
    let session = home.session().await;
    let first = home.take("nightly", Some(&session)).await;
    for polls in 1..POLLS {
        let mut ask = asking("nightly", Some(&session), Wait::Forever);
        ask.reentrant = true;
        let again = poll_and_drop(home.acquire(&ask), polls, async || home.round_trip().await);
        if let Some(grant) = again.await {
            let grant = grant.expect("entered");
            assert_eq!((grant.token, grant.entries), (first.token, 2));
            assert_eq!(home.leave("nightly", grant.token, Some(&session)).await, 1);
        }
        home.until_quiet(1).await;
        assert!(home.check("nightly", first.token).await.expect("checked"), "{polls} polls");
    }
    assert_eq!(home.leave("nightly", first.token, Some(&session)).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_asked_again_after_a_drop_is_never_half_granted() {
    let home = home();
    let (one, _other) = (home.session().await, home.session().await);
    everywhere(&home, async |polls, rhythm| {
        let mut ask = asking("nightly", Some(&one), Wait::AtMost(PATIENCE));
        ask.request = Some(RequestId((polls * 3 + rhythm + 1) as u128));
        let first = poll_and_drop(home.acquire(&ask), polls, async || pass(&home, rhythm).await);
        let first = first.await.map(|grant| grant.expect("granted").token);
        match soon(home.acquire(&ask)).await {
            Ok(grant) => {
                home.round_trip().await;
                assert!(home.check("nightly", grant.token).await.expect("checked"));
                assert!(first.is_none_or(|first| first == grant.token));
                home.leave("nightly", grant.token, Some(&one)).await;
            }
            Err(error) => assert_eq!(error.kind, ErrorKind::Spent, "{error}"),
        }
        assert!(home.inspect("nightly").await.expect("shown").holders.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_receive_gives_its_messages_back() {
    let home = home();
    let (one, other) = (home.session().await, home.session().await);
    home.declare("orders", QueueConfig::default()).await;
    everywhere(&home, async |polls, rhythm| {
        home.send("orders", 5).await;
        let mut ask = home.receiving("orders", &one, 3, Wait::AtMost(PATIENCE));
        ask.lease = Some(TTL);
        let got = poll_and_drop(home.receive(&ask), polls, async || pass(&home, rhythm).await);
        let mut all = match got.await {
            Some(messages) => {
                let messages = messages.expect("received");
                assert_eq!(messages.len(), 3);
                home.ack(&messages).await;
                messages
            }
            None => Vec::new(),
        };
        while all.len() < 5 {
            let ask = home.receiving("orders", &other, 5, Wait::AtMost(PATIENCE));
            let more = soon(home.receive(&ask)).await.expect("received");
            assert!(!more.is_empty(), "a message is lost");
            home.ack(&more).await;
            all.extend(more);
        }
        let mut bodies: Vec<_> = all.into_iter().map(|one| one.content.body).collect();
        bodies.sort();
        assert_eq!(bodies, [b"0", b"1", b"2", b"3", b"4"]);
    })
    .await;
    let view = home.inspect_queue("orders").await.expect("shown");
    assert_eq!((view.ready, view.in_flight, view.consumers), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_waiting_receive_takes_nothing() {
    let home = home();
    let (one, other) = (home.session().await, home.session().await);
    home.declare("orders", QueueConfig::default()).await;
    everywhere(&home, async |polls, rhythm| {
        let ask = home.receiving("orders", &one, 10, Wait::Forever);
        let none = poll_and_drop(home.receive(&ask), polls, async || pass(&home, rhythm).await);
        assert!(none.await.is_none(), "the queue is empty");
        home.send("orders", 1).await;
        let ask = home.receiving("orders", &other, 1, Wait::AtMost(PATIENCE));
        let came = soon(home.receive(&ask)).await.expect("received");
        assert_eq!(came.len(), 1, "the message is lost");
        home.ack(&came).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consume_dropped_while_it_opens_consumes_nothing() {
    let home = home();
    let (one, other) = (home.session().await, home.session().await);
    home.declare("orders", QueueConfig::default()).await;
    home.send("orders", 3).await;
    everywhere(&home, async |polls, rhythm| {
        let ask = home.consuming("orders", &one, 10);
        let opened = poll_and_drop(home.consume(&ask), polls, async || pass(&home, rhythm).await);
        drop(opened.await);
        home.until("all messages are back", async || {
            let view = home.inspect_queue("orders").await.expect("shown");
            (view.consumers, view.in_flight, view.ready) == (0, 0, 3)
        })
        .await;
    })
    .await;
    let all = home.receive_now("orders", &other, 5).await;
    assert_eq!(all.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_watch_or_session_leaves_no_trace() {
    let home = home();
    let (_one, _other) = (home.session().await, home.session().await);
    everywhere(&home, async |polls, rhythm| {
        let between = async || pass(&home, rhythm).await;
        assert!(poll_and_drop(home.watch("a", None, TTL), polls, between).await.is_none());
        let watch = home.watch_register(b"a", None, TTL);
        assert!(poll_and_drop(watch, polls, between).await.is_none());
        let ask = OpenSession::default();
        if let Some(session) = poll_and_drop(home.open_session(&ask), polls, between).await {
            home.close_session(&session.expect("opened").session).await.expect("closed");
        }
    })
    .await;
    assert_eq!(home.kept().sessions, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_thousands_at_once_through_a_tiny_inbox_loses_nothing() {
    let home = home_with(leasehold_node::Options { inbox_commands: 4, ..small() });
    let session = home.session().await;
    home.declare("orders", QueueConfig::default()).await;
    let home = Arc::new(home);
    let mut tasks = Vec::new();
    for i in 0..500 {
        let (home, session) = (home.clone(), session.clone());
        tasks.push(tokio::spawn(async move { hurry(&home, &session, i).await }));
    }
    home.send("orders", 300).await;
    for task in tasks {
        soon(task).await.expect("no panic");
    }
    home.until_quiet(1).await;
    let mut got = 0;
    while got < 300 {
        let ask = home.receiving("orders", &session, 300, Wait::AtMost(PATIENCE));
        let more = soon(home.receive(&ask)).await.expect("received");
        assert!(!more.is_empty(), "only {got} of 300 came");
        got += more.len();
    }
    let grant = home.take("nightly", None).await;
    assert_eq!(home.leave("nightly", grant.token, None).await, 0);
}

/// Takes the lock and some messages, and has no patience.
async fn hurry(home: &Home, session: &SessionRef, i: u64) {
    let mut ask = asking("nightly", Some(session), Wait::Forever);
    ask.hold = i;
    let patience = Duration::from_micros(i * 40 % 3000);
    if let Ok(grant) = tokio::time::timeout(patience, home.acquire(&ask)).await {
        let mut hold = held("nightly", grant.expect("granted").token, Some(session));
        hold.hold = i;
        home.release(&hold).await.expect("released");
    }
    let ask = home.receiving("orders", session, 3, Wait::Forever);
    if let Ok(came) = tokio::time::timeout(patience, home.receive(&ask)).await {
        let receipts: Vec<_> = came.expect("received").into_iter().map(|d| d.receipt).collect();
        let back = leasehold_api::Verdict::Nack(Duration::ZERO);
        home.settle(&receipts, back).await.expect("given back");
    }
}
