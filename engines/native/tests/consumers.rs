//! Streams of deliveries: how they go on, how they end, and what becomes of what was not taken.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use leasehold_api::engine::{Delivered, LockEngine, OpenSession, QueueEngine};
use leasehold_api::{ErrorKind, QueueConfig, Result, Verdict, Wait};
use support::*;

async fn next(stream: &mut BoxStream<'static, Result<Delivered>>) -> Delivered {
    soon(stream.next()).await.expect("it goes on").expect("a delivery")
}

async fn in_flight(home: &Home, queue: &str) -> u64 {
    home.inspect_queue(queue).await.expect("shown").in_flight
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_come_in_order_and_credit_is_renewed_by_acks() {
    let home = home();
    let session = home.session().await;
    home.declare("orders", QueueConfig::default()).await;
    let mut stream = home.consume(&home.consuming("orders", &session, 7)).await.expect("open");
    home.send("orders", 100).await;
    for i in 0..100 {
        let came = next(&mut stream).await;
        assert_eq!(came.content.body, i.to_string().into_bytes());
        assert!(in_flight(&home, "orders").await <= 7);
        home.ack(&[came]).await;
    }
    drop(stream);
    home.until_quiet(1).await;
    assert_eq!(home.inspect_queue("orders").await.expect("shown").consumers, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_consumer_gives_back_all_that_it_did_not_hand_out() {
    let home = home();
    let (one, other) = (home.session().await, home.session().await);
    home.declare("orders", QueueConfig::default()).await;
    for round in 0..20_usize {
        home.send("orders", 100).await;
        let ask = home.consuming("orders", &one, 50);
        let mut stream = home.consume(&ask).await.expect("open");
        if round % 2 == 0 {
            home.until("all is prefetched", async || in_flight(&home, "orders").await == 50).await;
        }
        let mut seen = BTreeSet::new();
        let mut taken = Vec::new();
        for _ in 0..round % 4 {
            taken.push(next(&mut stream).await);
        }
        drop(stream);
        home.until("the rest is back", async || {
            in_flight(&home, "orders").await == taken.len() as u64
        })
        .await;
        while seen.len() + taken.len() < 100 {
            let ask = home.receiving("orders", &other, 100, Wait::AtMost(PATIENCE));
            let more = soon(home.receive(&ask)).await.expect("received");
            assert!(!more.is_empty(), "a message is lost");
            home.ack(&more).await;
            seen.extend(more.into_iter().map(|one| one.content.body));
        }
        // What was handed out is still its user's.
        home.ack(&taken).await;
        seen.extend(taken.into_iter().map(|one| one.content.body));
        assert_eq!(seen.len(), 100);
    }
    home.until_quiet(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_acks_it_goes_on_for_ever() {
    let home = home();
    let session = home.session().await;
    home.declare("orders", QueueConfig::default()).await;
    home.send("orders", 500).await;
    for prefetch in [1, 2, 5] {
        let mut ask = home.consuming("orders", &session, prefetch);
        ask.no_ack = true;
        let mut stream = home.consume(&ask).await.expect("open");
        for _ in 0..100 {
            next(&mut stream).await;
        }
        drop(stream);
        home.until_quiet(1).await;
    }
    let view = home.inspect_queue("orders").await.expect("shown");
    // Read ahead and lost: at most the prefetch each time.
    assert!((200 - 1 - 2 - 5..=200).contains(&view.ready), "{}", view.ready);
    assert_eq!(view.in_flight, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_with_its_queue() {
    let home = home();
    let session = home.session().await;
    home.declare("orders", QueueConfig::default()).await;
    home.send("orders", 5).await;
    let mut stream = home.consume(&home.consuming("orders", &session, 10)).await.expect("open");
    let first = next(&mut stream).await;
    home.delete_queue("orders", false, false).await.expect("deleted");
    home.round_trip().await;
    assert!(soon(stream.next()).await.is_none());
    assert!(soon(stream.next()).await.is_none());
    assert_eq!(kind(home.settle(&[first.receipt], Verdict::Ack).await), ErrorKind::Stale);
    assert_eq!(home.kept().slots, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_with_its_session_closed_or_lost() {
    let home = home();
    home.declare("orders", QueueConfig::default()).await;
    home.send("orders", 5).await;
    for ttl in [None, Some(Duration::from_millis(20))] {
        let ask = OpenSession { ttl, ..OpenSession::default() };
        let session = home.open_session(&ask).await.expect("opened").session;
        let mut stream = home.consume(&home.consuming("orders", &session, 10)).await.expect("open");
        if ttl.is_none() {
            home.close_session(&session).await.expect("closed");
        } else {
            home.until("the session is lost", async || home.kept().sessions == 0).await;
        }
        // What was prefetched is others' by now.
        let error = soon(stream.next()).await.expect("it says why").expect_err("it has ended");
        assert_eq!(error.kind, ErrorKind::NoSession);
        assert!(soon(stream.next()).await.is_none());
        drop(stream);
        home.until_quiet(0).await;
        assert_eq!(in_flight(&home, "orders").await, 0);
    }
    let nobody = leasehold_api::engine::SessionRef::NONE;
    let refused = home.consume(&home.consuming("orders", &nobody, 1)).await;
    assert_eq!(refused.err().expect("refused").kind, ErrorKind::NoSession);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ran_out_before_it_was_handed_out_is_not_handed_out() {
    let home = home();
    let session = home.session().await;
    let lease = Some(Duration::from_millis(40));
    home.declare("orders", QueueConfig { lease, ..QueueConfig::default() }).await;
    home.send("orders", 3).await;
    let mut stream = home.consume(&home.consuming("orders", &session, 3)).await.expect("open");
    home.until("all leases ran out once", async || {
        home.inspect_queue("orders").await.expect("shown").totals.returned >= 3
    })
    .await;
    for _ in 0..3 {
        let came = next(&mut stream).await;
        assert!(came.attempt >= 2, "attempt {} is stale", came.attempt);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exclusive_consumer_is_alone() {
    let home = home();
    let session = home.session().await;
    home.declare("orders", QueueConfig::default()).await;
    let mut ask = home.consuming("orders", &session, 1);
    ask.exclusive = true;
    let stream = home.consume(&ask).await.expect("open");
    let other = home.consume(&home.consuming("orders", &session, 1)).await;
    let other = other.err().expect("refused");
    assert_eq!((other.kind, other.asked.as_str()), (ErrorKind::InUse, "consume from queue orders"));
    assert_eq!(kind(home.delete_queue("orders", true, false).await), ErrorKind::InUse);
    drop(stream);
    home.until_quiet(1).await;
    home.delete_queue("orders", true, false).await.expect("deleted");
    let gone = home.consume(&home.consuming("orders", &session, 1)).await;
    assert_eq!(gone.err().expect("refused").kind, ErrorKind::NotFound);
    let many = home.consume(&home.consuming("orders", &session, 100_000)).await;
    assert!(many.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_may_outlive_the_handle_of_its_engine() {
    let home = home();
    let session = home.session().await;
    home.declare("orders", QueueConfig::default()).await;
    home.send("orders", 1).await;
    let mut stream = home.consume(&home.consuming("orders", &session, 1)).await.expect("open");
    next(&mut stream).await;
    let Home { native, directory } = home;
    drop(native);
    let error = soon(stream.next()).await.expect("it says why").expect_err("it has ended");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    drop((stream, directory));
}
