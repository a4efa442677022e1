//! What networks and servers do: partitions, lost answers, crashes. The numbers are those of the
//! project's list of known failures of locks.

use std::time::Duration;

use leasehold_api::{ErrorKind, Expect, Leasehold, QueueConfig};
use leasehold_testbed::servers::mysql;
use leasehold_testbed::{Proxy, Server};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::time::{sleep, timeout};

/// How long something may take that must come, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

async fn open(port: u16) -> Leasehold {
    // Short enough that lost answers are missed soon, and long enough to make tables beside others.
    let url = format!("{}?answer=5000&connect=5000", mysql::url(port));
    Leasehold::new(leasehold_mysql::connect(&url).await.expect("it connects"))
}

async fn behind_a_proxy() -> (Server, Proxy, Leasehold, Leasehold) {
    let server = mysql::start(&[]);
    let proxy = Proxy::to(server.port).await;
    let (far, near) = (open(proxy.port()).await, open(server.port).await);
    (server, proxy, far, near)
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it comes in time")
}

async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    soon(async {
        while !is_so().await {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// F2, F4: a holder that is cut off knows that it lost its lock, and its late hand is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_behind_a_partition_loses() {
    let (_server, proxy, far, near) = behind_a_proxy().await;
    let guard = far.lock("stock").ttl(Duration::from_secs(2)).acquire().await.expect("it is free");
    let token = guard.token();
    proxy.silence();
    let next = soon(near.lock("stock").acquire()).await.expect("the lease ends");
    guard.check().expect_err("it knew before the next one could hold");
    assert!(next.token() > token, "{} after {token}", next.token());
    proxy.heal();
    let late = soon(far.register("stock").fenced("stock", token).write("late")).await;
    assert_eq!(late.expect_err("it is late").kind, ErrorKind::Stale);
    near.register("stock").guarded_by(&next).write("right").await.expect("it holds");
    next.release().await.expect("it holds");
}

/// F1: a waiter that was cut off for longer than its place in line lasts does not come back as a
/// holder beside another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_behind_a_partition_holds_alone_or_not_at_all() {
    let (_server, proxy, far, near) = behind_a_proxy().await;
    let far = far.with_session_ttl(Duration::from_secs(2)).expect("it is long enough");
    let guard = near.lock("one").acquire().await.expect("it is free");
    let lock = far.lock("one");
    let waiting = tokio::spawn(async move { lock.acquire().await });
    until(async || near.inspect("one").await.is_ok_and(|view| view.waiting == 1)).await;
    proxy.silence();
    until(async || near.inspect("one").await.is_ok_and(|view| view.waiting == 0)).await;
    guard.release().await.expect("it holds");
    let guard = near.lock("one").acquire().await.expect("nobody waits");
    proxy.heal();
    // Its session has ended too, for it could not be kept alive: the handle takes it up anew.
    until(async || near.inspect("one").await.is_ok_and(|view| view.waiting == 1)).await;
    assert!(near.check("one", guard.token()).await.expect("it answers"), "two hold it");
    guard.release().await.expect("it holds");
    let late = soon(waiting).await.expect("it does not panic").expect("it comes");
    late.release().await.expect("it holds");
}

/// How late bytes arrive, so that an answer can be lost after its request was carried out.
const LATE: Duration = Duration::from_millis(150);

/// F8: the answer to an acquire is lost: one contender stands in line, and it gets the lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_leaves_one_contender() {
    let (_server, proxy, far, near) = behind_a_proxy().await;
    proxy.delay(LATE);
    let lock = far.lock("f8").ttl(Duration::from_secs(60));
    let acquiring = tokio::spawn(async move { lock.acquire().await });
    until(async || near.inspect("f8").await.is_ok_and(|view| view.holders.len() == 1)).await;
    proxy.lose_answers();
    sleep(2 * LATE).await;
    proxy.heal();
    let guard = soon(acquiring).await.expect("it does not panic").expect("it is its own");
    let view = near.inspect("f8").await.expect("it answers");
    assert_eq!((view.holders.len(), view.waiting), (1, 0), "{view:?}");
    assert_eq!(view.holders[0].token, guard.token());
    guard.release().await.expect("it holds");
}

/// F10, F17: renewals whose answers are lost cost nothing, and go on when the line is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_outlast_lost_answers_and_cuts() {
    let (_server, proxy, far, near) = behind_a_proxy().await;
    let ttl = Duration::from_secs(9);
    let guard = far.lock("f17").ttl(ttl).acquire().await.expect("it is free");
    proxy.lose_answers();
    sleep(Duration::from_secs(4)).await;
    proxy.heal();
    sleep(Duration::from_secs(2)).await;
    proxy.cut();
    // Longer than it would have lasted without being renewed.
    sleep(Duration::from_secs(6)).await;
    guard.check().expect("it was renewed");
    assert!(near.check("f17", guard.token()).await.expect("it answers"), "it was renewed");
    guard.release().await.expect("it holds");
    assert!(near.lock("f17").try_acquire().await.expect("it answers").is_some(), "it is free");
}

/// F5: a crash of the server forgets nothing that was confirmed, and tokens go on rising.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_forgets_nothing() {
    let mut server = mysql::start(&[]);
    let (a, b) = (open(server.port).await, open(server.port).await);
    let held = a.lock("held").ttl(Duration::from_secs(600)).acquire().await.expect("it is free");
    let mut last = held.token();
    let orders = a.queue("orders");
    orders.declare(&QueueConfig::default()).await.expect("it is new");
    orders.publish("order").await.expect("it is taken");
    a.register("r").write("1").await.expect("it is written");
    for _ in 0..3 {
        server.restart();
        let free = soon(b.lock("held").try_acquire()).await.expect("it answers");
        assert!(free.is_none(), "the crash freed it");
        let guard = soon(b.lock("other").acquire()).await.expect("it is free");
        assert!(guard.token() > last, "token {} after {last}", guard.token());
        last = guard.token();
        guard.release().await.expect("it holds");
    }
    held.check().expect("its time is not over");
    soon(held.release()).await.expect("it holds");
    let order = soon(b.queue("orders").receive(PATIENCE)).await.expect("it answers");
    assert_eq!(order.expect("it was confirmed").body(), b"order");
    let read = b.register("r").read().await.expect("it answers").map(|read| read.value);
    assert_eq!(read.as_deref(), Some(&b"1"[..]));
}

/// A waiter outlasts a crash of the server; a stopped server is a slow one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_outlasts_the_server() {
    let mut server = mysql::start(&[]);
    let (a, b) = (open(server.port).await, open(server.port).await);
    let guard = a.lock("w").ttl(Duration::from_secs(600)).acquire().await.expect("it is free");
    let lock = b.lock("w");
    let waiting = tokio::spawn(async move { lock.acquire().await });
    until(async || a.inspect("w").await.is_ok_and(|view| view.waiting == 1)).await;
    server.restart();
    server.pause();
    sleep(Duration::from_secs(3)).await;
    server.resume();
    until(async || a.inspect("w").await.is_ok_and(|view| view.waiting == 1)).await;
    soon(guard.release()).await.expect("it holds");
    let next = soon(waiting).await.expect("it does not panic").expect("its turn comes");
    next.release().await.expect("it holds");
}

/// F12: many wait, a third of them go; the lock is never idle while somebody waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_waiters_gets_through() {
    let server = mysql::start(&[]);
    let (a, b) = (open(server.port).await, open(server.port).await);
    // A crowd keeps a busy machine so busy that a short hold could end before its renewal.
    let held = a.lock("crowd").ttl(Duration::from_secs(600));
    let guard = held.acquire().await.expect("it is free");
    let waiting: Vec<_> = (0..60)
        .map(|place| {
            let lock = if place % 2 == 0 { &a } else { &b }.lock("crowd");
            tokio::spawn(async move { lock.acquire().await?.release().await })
        })
        .collect();
    until(async || a.inspect("crowd").await.is_ok_and(|view| view.waiting == 60)).await;
    waiting.iter().step_by(3).for_each(tokio::task::JoinHandle::abort);
    guard.release().await.expect("it holds");
    for (place, one) in waiting.into_iter().enumerate() {
        match soon(one).await {
            Ok(done) => done.expect("its turn comes"),
            Err(error) => assert!(error.is_cancelled() && place % 3 == 0, "{error}"),
        }
    }
    until(async || {
        let view = a.inspect("crowd").await.expect("it answers");
        view.waiting == 0 && view.holders.is_empty()
    })
    .await;
}

/// A publish and a commit whose answers are lost happen once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_answered_happens_once() {
    let (_server, proxy, far, near) = behind_a_proxy().await;
    let orders = near.queue("orders");
    orders.declare(&QueueConfig::default()).await.expect("it is new");
    let lose = async |count: u64| {
        until(async || orders.inspect().await.is_ok_and(|view| view.ready == count)).await;
        proxy.lose_answers();
        sleep(2 * LATE).await;
        proxy.heal();
    };
    proxy.delay(LATE);
    let queue = far.queue("orders");
    let publishing = tokio::spawn(async move { queue.publish("once").await });
    lose(1).await;
    soon(publishing).await.expect("it does not panic").expect("it was carried out");
    proxy.delay(LATE);
    let other = far.clone();
    let committing = tokio::spawn(async move {
        other.commit().publish("orders", "commit").write("r", "1", Expect::Absent).await
    });
    lose(2).await;
    let versions = soon(committing).await.expect("it does not panic").expect("it was carried out");
    let read = near.register("r").read().await.expect("it answers").map(|read| read.version);
    assert_eq!(read, versions.first().copied());
    assert_eq!(orders.inspect().await.expect("it answers").ready, 2, "something counts twice");
}

/// A statement that fails behind others of its request is heard of: nothing is confirmed that was
/// not done. Here it is the server that gives up waiting for a row, after five seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_confirmed_that_failed_half_way() {
    let server = mysql::start(&[]);
    let engine = leasehold_mysql::connect(&server.url()).await.expect("it connects");
    let orders = Leasehold::new(engine).queue("orders");
    orders.declare(&QueueConfig::default()).await.expect("it is new");
    orders.publish_all(["first", "second"]).await.expect("they are taken");
    let first = orders.receive(PATIENCE).await.expect("it answers").expect("it is there");
    let second = orders.receive(PATIENCE).await.expect("it answers").expect("it is there");
    let mut other = Conn::from_url(server.url()).await.expect("it connects");
    other.query_drop("START TRANSACTION").await.expect("it begins");
    other.query_drop("SELECT * FROM leasehold_sums FOR UPDATE").await.expect("they are free");
    let queue = orders.clone();
    let publishing = tokio::spawn(async move { queue.publish("third").await });
    let acking = tokio::spawn(async move { first.ack().await });
    let returning = tokio::spawn(async move { second.nack().await });
    sleep(Duration::from_secs(7)).await;
    assert!(!publishing.is_finished(), "confirmed, though its row is locked");
    assert!(!acking.is_finished(), "acknowledged, though its row is locked");
    assert!(!returning.is_finished(), "returned, though its row is locked");
    other.query_drop("ROLLBACK").await.expect("it ends");
    soon(publishing).await.expect("it does not panic").expect("it is taken in the end");
    soon(acking).await.expect("it does not panic").expect("it is acknowledged in the end");
    soon(returning).await.expect("it does not panic").expect("it is returned in the end");
    let view = orders.inspect().await.expect("it answers");
    let totals = view.totals;
    assert_eq!((view.ready, view.in_flight), (2, 0), "{view:?}");
    assert_eq!((totals.acked, totals.returned), (1, 1), "{view:?}");
}

/// Deliveries whose answer was lost come again, while their session lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_delivery_comes_again() {
    let (_server, proxy, far, near) = behind_a_proxy().await;
    let far = far.with_session_ttl(Duration::from_secs(5)).expect("it is long enough");
    let orders = near.queue("orders");
    orders.declare(&QueueConfig::default()).await.expect("it is new");
    assert!(far.queue("orders").receive(Duration::ZERO).await.expect("it answers").is_none());
    orders.publish_all((0..20u8).map(|i| vec![i])).await.expect("they are taken");
    let queue = far.queue("orders");
    let taking = tokio::spawn(async move {
        let mut bodies = std::collections::BTreeSet::new();
        while bodies.len() < 20 {
            let Ok(Some(one)) = queue.receive(Duration::from_secs(1)).await else { continue };
            let body = one.body().to_vec();
            if one.ack().await.is_ok() {
                bodies.insert(body);
            }
        }
    });
    for _ in 0..3 {
        sleep(Duration::from_millis(30)).await;
        proxy.lose_answers();
        sleep(Duration::from_millis(300)).await;
        proxy.heal();
    }
    until(async || {
        let view = orders.inspect().await.expect("it answers");
        view.totals.acked == 20 && (view.ready, view.in_flight) == (0, 0)
    })
    .await;
    // An ack whose answer was lost has happened although it does not say so.
    taking.abort();
}

/// The bells of a process that is gone are taken down by the server: its successor need not wait
/// for a look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_line_hangs_its_bells_again() {
    let (_server, proxy, far, near) = behind_a_proxy().await;
    let guard = far.lock("bell").ttl(Duration::from_secs(60)).acquire().await.expect("it is free");
    let lock = near.lock("bell");
    let waiting = tokio::spawn(async move { lock.acquire().await });
    until(async || near.inspect("bell").await.is_ok_and(|view| view.waiting == 1)).await;
    for _ in 0..3 {
        proxy.cut();
        sleep(Duration::from_millis(200)).await;
        assert!(near.check("bell", guard.token()).await.expect("it answers"), "it is held");
    }
    soon(guard.release()).await.expect("it holds");
    let next = soon(waiting).await.expect("it does not panic").expect("its turn comes");
    next.release().await.expect("it holds");
}
