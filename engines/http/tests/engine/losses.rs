//! Carried out, and the answer lost: everything counts once nonetheless.

use std::time::Duration;

use leasehold_api::engine::{Acquire, HoldRef, Mode, Want};
use leasehold_api::{ErrorKind, Expect, QueueConfig, Retry, Verdict, Wait};

use crate::proxy::Proxy;
use crate::server::{Server, engine, handle, locks, queues, soon, until};

async fn lossy() -> (Server, Proxy) {
    let server = Server::start().await;
    let proxy = Proxy::before(server.address).await;
    (server, proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_whose_answer_is_lost_is_one_hold() {
    let (server, proxy) = lossy().await;
    let a = handle(&proxy.url()).await;
    let native = locks(&server.native());
    for lost in 1..=3 {
        proxy.lose("/v1/locks/acquire", lost);
        let guard = soon("the grant", a.lock("one").acquire()).await.expect("it is granted");
        assert_eq!(proxy.lost(), lost);
        let view = native.inspect("one").await.expect("a good name");
        let held: Vec<_> = view.holders.iter().map(|h| (h.token, h.entries)).collect();
        assert_eq!((held, view.waiting), (vec![(guard.token(), 1)], 0));
        guard.check().expect("it is held");
        guard.release().await.expect("it is held");
        assert!(native.inspect("one").await.expect("a good name").holders.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_whose_connection_breaks_gets_its_turn() {
    let (server, proxy) = lossy().await;
    let (a, b) = (server.handle().await, handle(&proxy.url()).await);
    let held = a.lock("turn").acquire().await.expect("it is free");
    let lock = b.lock("turn");
    let waiting = tokio::spawn(async move { lock.acquire().await });
    until("the waiter", async || Ok(a.inspect("turn").await?.waiting == 1)).await;
    for _ in 0..3 {
        proxy.cut();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    until("the waiter again", async || Ok(a.inspect("turn").await?.waiting == 1)).await;
    held.release().await.expect("it is held");
    let guard = soon("the turn", waiting).await.expect("no panic").expect("it is granted");
    assert_eq!(a.inspect("turn").await.expect("a good name").holders.len(), 1);
    guard.release().await.expect("it is held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_re_entry_whose_answer_is_lost_is_entered_once_more() {
    let (server, proxy) = lossy().await;
    let a = handle(&proxy.url()).await;
    let lock = a.lock("again").reentrant(7);
    let outer = lock.acquire().await.expect("it is free");
    proxy.lose("/v1/locks/acquire", 2);
    let inner = lock.acquire().await.expect("it is entered again");
    assert_eq!((inner.token(), inner.entries()), (outer.token(), 2));

    // Left twice by one release, it would be free under the outer guard.
    proxy.lose("/release", 1);
    let error = inner.release().await.expect_err("nobody knows whether it was left");
    assert_eq!((error.kind, error.retry), (ErrorKind::Unavailable, Retry::Unknown));
    let holders = server.handle().await.inspect("again").await.expect("a good name").holders;
    assert_eq!(holders[0].entries, 1);
    outer.check().expect("it is held");
    outer.release().await.expect("it is held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_whose_answer_is_lost_is_made_again() {
    let (_server, proxy) = lossy().await;
    let a = handle(&proxy.url()).await;
    let ttl = Duration::from_millis(600);
    let guard = a.lock("renewed").ttl(ttl).acquire().await.expect("it is free");
    for _ in 0..6 {
        proxy.lose("/renew", 1);
        tokio::time::sleep(ttl / 2).await;
        assert_eq!(proxy.lost(), 1);
        guard.check().expect("it was renewed");
    }
    guard.release().await.expect("it is held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_whose_answer_is_lost_is_one() {
    let (server, proxy) = lossy().await;
    let a = handle(&proxy.url()).await;
    let guard = a.lock("released").acquire().await.expect("it is free");
    proxy.lose("/release", 2);
    guard.release().await.expect("it was released by the first attempt");
    assert!(server.handle().await.lock("released").try_acquire().await.expect("asked").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_whose_answer_is_lost_is_one_message() {
    let (server, proxy) = lossy().await;
    let a = handle(&proxy.url()).await;
    let queue = a.queue("orders");
    proxy.lose("PUT /v1/queues/orders", 1);
    queue.declare(&QueueConfig::default()).await.expect("it is declared");
    proxy.lose("/messages", 3);
    queue.publish("one").await.expect("it is published");
    assert_eq!(proxy.lost(), 3);
    proxy.lose("/messages", 2);
    let answers = queue.publish_all((0..10u8).map(|i| vec![i])).await.expect("published");
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|done| done.queues == 1)));
    proxy.lose("/messages", 1);
    queue.publish(vec![0xff; 3 << 20]).await.expect("a long one is published");
    let view = queues(&server.native()).inspect_queue("orders").await.expect("it is there");
    assert_eq!((view.ready, view.totals.published), (12, 12));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_is_lost_is_one() {
    let (_server, proxy) = lossy().await;
    let a = handle(&proxy.url()).await;
    proxy.lose("/v1/registers/stock", 2);
    let register = a.register("stock");
    let version = register.write_if(Expect::Absent, "9").await.expect("nobody else writes");
    let read = register.read().await.expect("it can be read").expect("it has a value");
    assert_eq!((read.version, &read.value[..]), (version, &b"9"[..]));
    proxy.lose("DELETE /v1/registers/stock", 2);
    register.delete_if(Expect::Version(version)).await.expect("nobody else writes");
    assert!(register.read().await.expect("it can be read").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_one() {
    let (_server, proxy) = lossy().await;
    let a = handle(&proxy.url()).await;
    let (from, to) = (a.queue("from"), a.queue("to"));
    for queue in [&from, &to] {
        queue.declare(&QueueConfig::default()).await.expect("it is declared");
    }
    from.publish("order").await.expect("it is published");
    let guard = a.lock("stock").acquire().await.expect("it is free");
    let order = from.receive(Duration::from_secs(5)).await.expect("asked").expect("it is there");
    proxy.lose("/v1/commit", 2);
    let commit = a.commit().check(&guard).ack(order).publish("to", "payment");
    let versions = commit.write("stock", "9", Expect::Absent).release(guard).await;
    assert_eq!(versions.expect("it is made").len(), 1);
    assert_eq!(proxy.lost(), 2);
    let (from, to) = (from.inspect().await.expect("there"), to.inspect().await.expect("there"));
    assert_eq!((from.ready, from.in_flight, to.ready), (0, 0, 1));
    assert!(a.inspect("stock").await.expect("a good name").holders.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_became_of_a_delivery_is_said_as_far_as_it_is_known() {
    let (_server, proxy) = lossy().await;
    let a = handle(&proxy.url()).await;
    let queue = a.queue("settled");
    queue.declare(&QueueConfig::default()).await.expect("it is declared");
    queue.publish("x").await.expect("it is published");
    let receive = async || {
        let came = queue.receive(Duration::from_secs(5)).await.expect("asked");
        came.expect("it is there")
    };

    let delivery = receive().await;
    proxy.lose("/v1/deliveries/nack", 1);
    delivery.nack().await.expect("it is back, whichever attempt did it");
    let delivery = receive().await;
    assert_eq!(delivery.attempt, 2);
    proxy.lose("/v1/deliveries/extend", 2);
    delivery.extend(Duration::from_secs(60)).await.expect("it is extended");

    proxy.lose("/v1/deliveries/ack", 1);
    let error = delivery.ack().await.expect_err("done, or lost before: nobody knows");
    assert_eq!((error.kind, error.retry), (ErrorKind::Stale, Retry::Unknown));
    let view = queue.inspect().await.expect("it is there");
    assert_eq!((view.ready, view.in_flight, view.totals.acked), (0, 0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_not_happen_twice_is_not_asked_twice() {
    let (server, proxy) = lossy().await;
    let a = handle(&proxy.url()).await;
    let queue = a.queue("purged");
    queue.declare(&QueueConfig::default()).await.expect("it is declared");
    queue.publish("x").await.expect("it is published");
    proxy.lose("/purge", 1);
    let error = queue.purge().await.expect_err("the answer was lost");
    assert_eq!((error.kind, error.retry), (ErrorKind::Unavailable, Retry::Unknown));
    assert!(error.to_string().contains(&proxy.url()), "{error}");

    let guard = server.handle().await.lock("forced").acquire().await.expect("it is free");
    proxy.lose("/force-release", 1);
    a.force_release("forced").await.expect_err("the answer was lost");
    drop(guard);
    proxy.lose("DELETE /v1/queues/purged", 1);
    queue.delete().await.expect_err("the answer was lost");
    assert_eq!(queue.inspect().await.expect_err("it is gone").kind, ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receive_whose_answer_is_lost_comes_again_by_its_lease() {
    let (_server, proxy) = lossy().await;
    let a = handle(&proxy.url()).await;
    let queue = a.queue("leased");
    let lease = Some(Duration::from_millis(300));
    queue.declare(&QueueConfig { lease, ..QueueConfig::default() }).await.expect("declared");
    queue.publish("x").await.expect("it is published");
    proxy.lose("/receive", 1);
    let came = queue.receive(Duration::from_secs(10)).await.expect("asked").expect("it comes");
    assert!(came.redelivered);
    came.ack().await.expect("it is ours");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_stream_says_so_and_ends() {
    let (_server, proxy) = lossy().await;
    let a = handle(&proxy.url()).await;
    let queue = a.queue("stream");
    queue.declare(&QueueConfig::default()).await.expect("it is declared");
    let mut consumer = queue.consume().await.expect("it begins");
    proxy.cut();
    let error = soon("the end", consumer.next()).await.expect_err("it broke");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.to_string().contains("consume anew"), "{error}");
    assert!(consumer.next().await.expect("it has ended").is_none());
    queue.publish("x").await.expect("it is published");
    let mut consumer = queue.consume().await.expect("it begins anew");
    let one = soon("the message", consumer.next()).await.expect("it goes on").expect("there");
    one.ack().await.expect("it is ours");
}

/// Without a session nothing but its request id connects an attempt with the one before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_that_ended_unheard_is_asked_for_anew() {
    let (server, proxy) = lossy().await;
    let engine = locks(&engine(&proxy.url()).await);
    let ask = Acquire {
        wants: vec![Want { name: "brief".into(), mode: Mode::Exclusive }],
        session: None,
        hold: 5,
        reentrant: false,
        ttl: Some(Duration::from_millis(50)),
        bound: false,
        wait: Wait::AtMost(Duration::from_secs(10)),
        lock_delay: Duration::ZERO,
        label: None,
        request: None,
    };
    // Between attempts there are 50 ms at least, so the first hold is over when it is asked again.
    proxy.lose("/v1/locks/acquire", 2);
    let grant = engine.acquire(&ask).await.expect("it is granted anew");
    let view = locks(&server.native()).inspect("brief").await.expect("a good name");
    assert!(view.holders.iter().all(|holder| holder.token == grant.token));
    let hold = HoldRef { name: "brief".into(), token: grant.token, hold: 5, session: None };
    drop(engine.release(&hold).await);
    let none: &[leasehold_api::engine::Receipt] = &[];
    let queues = queues(&server.native());
    assert_eq!(queues.settle(none, Verdict::Ack).await.expect("nothing to do"), 0);
}
