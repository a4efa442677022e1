//! What goes wrong between a client and a server: each test is named after what must hold, with
//! the number of the failure in the field that it is about.

mod client;

use std::time::Duration;

use client::client;
use leasehold_api::engine::{Acquire, Commit, HoldRef, Want};
use leasehold_api::{ErrorKind, Leasehold, Mode, QueueConfig, Retry, Verdict, Wait};
use leasehold_testbed::servers::postgres;
use leasehold_testbed::{Proxy, Server};
use tokio::time::{sleep, timeout};

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(60);
/// A lease within which something must be written.
const KEPT: Duration = Duration::from_secs(2);
/// Long enough for a request to be under way.
const UNDER_WAY: Duration = Duration::from_millis(300);

async fn open(url: &str) -> Leasehold {
    Leasehold::new(leasehold_postgres::connect(url).await.expect("it accepts"))
}

/// A server, a handle through a bad network, and one beside it.
async fn apart() -> (Server, Proxy, Leasehold, Leasehold) {
    let server = postgres::start(&[]);
    let proxy = Proxy::to(server.port).await;
    let far = open(&format!("{}?answer_timeout=2", postgres::url(proxy.port()))).await;
    let near = open(&server.url()).await;
    (server, proxy, far, near)
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let late = |_| panic!("{what} did not come within {PATIENCE:?}");
    timeout(PATIENCE, future).await.unwrap_or_else(late)
}

/// F2, F4, F21: a holder who is cut off knows that it has lost before the next one is granted, and
/// what it wrote late is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_who_is_cut_off_knows_it_in_time() {
    let (_server, proxy, far, near) = apart().await;
    let guard = far.lock("l").ttl(KEPT).acquire().await.expect("it is free");
    let register = far.register("r").guarded_by(&guard);
    register.write("mine").await.expect("it is held");
    proxy.silence();
    let next = soon("the next grant", near.lock("l").acquire()).await.expect("it is free");
    assert!(guard.check().is_err(), "another holds it, and the guard says that all is well");
    soon("the loss", guard.lost()).await;
    assert!(next.token() > guard.token());
    proxy.heal();
    let late = soon("the late write", register.write("late")).await;
    assert_eq!(late.map_err(|error| error.kind), Err(ErrorKind::Stale));
    let value = near.register("r").read().await.expect("it answers").map(|read| read.value);
    assert_eq!(value.as_deref(), Some(&b"mine"[..]));
    next.release().await.expect("it is held");
}

/// F8, F9: an acquire whose answer is lost holds once, and what it leaves is one contender.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_to_an_acquire_leaves_one_contender() {
    let (_server, proxy, far, near) = apart().await;
    far.lock("warm").acquire().await.expect("it is free").release().await.expect("it is held");
    proxy.lose_answers();
    let lock = far.lock("l");
    let acquiring = tokio::spawn(async move { lock.acquire().await });
    sleep(UNDER_WAY).await;
    proxy.heal();
    let guard = soon("the lock", acquiring).await.expect("no panic").expect("it is free");
    let view = near.inspect("l").await.expect("it answers");
    assert_eq!((view.holders.len(), view.waiting), (1, 0), "{view:?}");
    assert_eq!(view.holders[0].token, guard.token());
    guard.release().await.expect("it is held");
    assert!(near.inspect("l").await.expect("it answers").holders.is_empty());
}

/// F9: an acquire that is dropped while nobody answers leaves nothing behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_acquire_leaves_nothing_behind() {
    let (_server, proxy, far, near) = apart().await;
    far.lock("warm").acquire().await.expect("it is free").release().await.expect("it is held");
    proxy.lose_answers();
    assert!(timeout(UNDER_WAY, far.lock("l").acquire()).await.is_err(), "an answer came");
    proxy.heal();
    soon("the lock", near.lock("l").acquire()).await.expect("it is free");
}

/// F10, F17: a renewal whose answer is lost costs no lock, and renewals go on afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_renewals_cost_no_lock() {
    let (_server, proxy, far, near) = apart().await;
    let guard = far.lock("l").ttl(Duration::from_secs(5)).acquire().await.expect("it is free");
    for _ in 0..2 {
        proxy.lose_answers();
        sleep(Duration::from_secs(2)).await;
        proxy.heal();
        sleep(Duration::from_secs(2)).await;
        guard.check().expect("it is renewed");
        let held = near.check("l", guard.token()).await.expect("it answers");
        assert!(held, "the lock is lost");
    }
    guard.release().await.expect("it is held");
}

/// F5: tokens and versions rise over a crash, and what was confirmed is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_loses_nothing_that_was_confirmed() {
    let mut server = postgres::start(&[]);
    let handle = open(&server.url()).await;
    let queue = handle.queue("q");
    queue.declare(&QueueConfig::default()).await.expect("it is new");
    let mut newest = 0;
    for round in 0..4 {
        // A restart may take its time.
        let lock = handle.lock("l").ttl(PATIENCE);
        let guard = soon("the lock", lock.acquire()).await.expect("it is free");
        assert!(guard.token() > newest, "token {} after {newest}", guard.token());
        newest = guard.token();
        let version = handle.register("r").write(format!("{round}")).await.expect("it answers");
        assert!(version > newest, "version {version} after {newest}");
        newest = version;
        queue.publish(format!("{round}")).await.expect("it is there");
        server.restart();
        let read = soon("the register", handle.register("r").read()).await.expect("it answers");
        assert_eq!(read.map(|read| read.version), Some(version));
        let held = handle.check("l", guard.token()).await.expect("it answers");
        assert!(held, "a restart freed the lock");
        soon("the release", guard.release()).await.expect("it is held");
    }
    for round in 0..4 {
        let one = queue.receive(Duration::ZERO).await.expect("it answers").expect("it is there");
        assert_eq!(one.body(), format!("{round}").as_bytes());
        assert!(one.token() > newest, "token {} after {newest}", one.token());
        newest = one.token();
        one.ack().await.expect("it is ours");
    }
}

/// Who waits outlasts a restart, and is woken after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_outlast_a_crash() {
    let mut server = postgres::start(&[]);
    let (a, b) = (open(&server.url()).await, open(&server.url()).await);
    let queue = a.queue("q");
    queue.declare(&QueueConfig::default()).await.expect("it is new");
    let guard = a.lock("l").ttl(PATIENCE).acquire().await.expect("it is free");
    let mut consumer = b.queue("q").consume().await.expect("it is there");
    let (lock, receiver, watched) = (b.lock("l"), b.queue("other"), b.register("r"));
    receiver.declare(&QueueConfig::default()).await.expect("it is new");
    let acquiring = tokio::spawn(async move { lock.acquire().await });
    let sender = receiver.clone();
    let receiving = tokio::spawn(async move { receiver.receive(PATIENCE).await });
    let watching = tokio::spawn(async move { watched.changed(None, PATIENCE).await });
    sleep(UNDER_WAY).await;
    server.restart();
    soon("the release", guard.release()).await.expect("it is held");
    let next = soon("the lock", acquiring).await.expect("no panic").expect("it is free");
    soon("the publish", queue.publish("x")).await.expect("it is there");
    let came = soon("a delivery", consumer.next()).await.expect("it goes on").expect("it is there");
    came.ack().await.expect("it is ours");
    sender.publish("y").await.expect("it is there");
    let came = soon("the message", receiving).await.expect("no panic").expect("it answers");
    came.expect("it was published").ack().await.expect("it is ours");
    a.register("r").write("z").await.expect("it answers");
    let seen = soon("the change", watching).await.expect("no panic").expect("it answers");
    assert!(seen.is_some());
    next.release().await.expect("it is held");
}

/// A server that stands still for a while is waited for, and nothing happens twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_is_waited_for() {
    let server = postgres::start(&[]);
    let handle = open(&format!("{}?answer_timeout=1", server.url())).await;
    let queue = handle.queue("q");
    queue.declare(&QueueConfig::default()).await.expect("it is new");
    queue.publish("warm").await.expect("it is there");
    server.pause();
    let sender = queue.clone();
    let publishing = tokio::spawn(async move { sender.publish("x").await });
    let reader = handle.register("r");
    let reading = tokio::spawn(async move { reader.read().await });
    sleep(Duration::from_secs(3)).await;
    server.resume();
    soon("the publish", publishing).await.expect("no panic").expect("it is waited for");
    soon("the read", reading).await.expect("no panic").expect("it is waited for");
    assert_eq!(queue.inspect().await.expect("it answers").ready, 2);
}

/// What lost its answer is asked again and counts once: a publish, an ack, a commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lost_its_answer_counts_once() {
    let (_server, proxy, far, near) = apart().await;
    let (queue, seen) = (far.queue("q"), near.queue("q"));
    queue.declare(&QueueConfig::default()).await.expect("it is new");
    queue.publish("0").await.expect("it is there");
    let first = queue.receive(Duration::ZERO).await.expect("it answers").expect("it is there");
    first.ack().await.expect("it is ours");
    for round in 1..=3 {
        proxy.lose_answers();
        let sender = queue.clone();
        let publishing = tokio::spawn(async move { sender.publish("x").await });
        sleep(UNDER_WAY).await;
        proxy.heal();
        let published = soon("the publish", publishing).await.expect("no panic");
        assert_eq!(published.expect("it is known").queues, 1);
        assert_eq!(seen.inspect().await.expect("it answers").ready, 1, "in round {round}");
        let one = soon("the message", queue.receive(PATIENCE)).await.expect("it answers");
        let one = one.expect("it was published");
        proxy.lose_answers();
        let acking = tokio::spawn(one.ack());
        sleep(UNDER_WAY).await;
        proxy.heal();
        soon("the ack", acking).await.expect("no panic").expect("it counts once");
        let view = seen.inspect().await.expect("it answers");
        assert_eq!((view.ready, view.in_flight, view.totals.acked), (0, 0, round + 1));
    }
}

/// A commit that lost its answer happened once, and is answered as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_lost_its_answer_happened_once() {
    let (_server, proxy, far, near) = apart().await;
    let queue = far.queue("q");
    queue.declare(&QueueConfig::default()).await.expect("it is new");
    queue.publish("order").await.expect("it is there");
    let order = queue.receive(Duration::ZERO).await.expect("it answers").expect("it is there");
    let guard = far.lock("l").acquire().await.expect("it is free");
    far.register("warm").write("x").await.expect("it answers");
    let commit = far.commit().check(&guard).ack(order).publish("q", "next");
    let commit = commit.write("r", "1", leasehold_api::Expect::Absent).release(guard);
    proxy.delay(Duration::from_millis(100));
    let sending = tokio::spawn(commit.send());
    // Its first step is a read; the second is the commit.
    sleep(Duration::from_millis(250)).await;
    proxy.lose_answers();
    sleep(Duration::from_millis(500)).await;
    proxy.heal();
    let versions = soon("the commit", sending).await.expect("no panic").expect("it happened");
    let read = near.register("r").read().await.expect("it answers").expect("it was written");
    assert_eq!(read.version, versions[0]);
    let view = near.queue("q").inspect().await.expect("it answers");
    assert_eq!((view.ready, view.in_flight, view.totals.published), (1, 0, 2));
    assert!(near.lock("l").try_acquire().await.expect("it answers").is_some(), "still held");
}

/// A receive whose answer is lost gets the same message, and one that is dropped gives it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receive_that_lost_its_answer_gets_its_message() {
    let (_server, proxy, far, near) = apart().await;
    let (queue, beside) = (far.queue("q"), near.queue("q"));
    queue.declare(&QueueConfig::default()).await.expect("it is new");
    // The connection that was used last is used first, and knows the statement.
    assert!(queue.receive(Duration::ZERO).await.expect("it answers").is_none());
    beside.publish("x").await.expect("it is there");
    proxy.lose_answers();
    let receiver = queue.clone();
    let receiving = tokio::spawn(async move { receiver.receive(PATIENCE).await });
    let taken = async {
        while beside.inspect().await.expect("it answers").in_flight != 1 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the take", taken).await;
    proxy.heal();
    let one = soon("the message", receiving).await.expect("no panic").expect("it answers");
    let one = one.expect("it was taken");
    assert_eq!(one.attempt, 1);
    one.nack().await.expect("it is ours");
    proxy.lose_answers();
    assert!(timeout(UNDER_WAY, queue.receive(PATIENCE)).await.is_err(), "an answer came");
    proxy.heal();
    let again = soon("the message", beside.receive(PATIENCE)).await.expect("it answers");
    again.expect("it went back").ack().await.expect("it is ours");
}

/// The listening connection alone breaks, again and again: no wake-up is missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_breaks_misses_nothing() {
    let (server, _proxy, far, near) = apart().await;
    let client = client(&server).await;
    let (queue, sender) = (far.queue("q"), near.queue("q"));
    queue.declare(&QueueConfig::default()).await.expect("it is new");
    let mut consumer = queue.consume().await.expect("it is there");
    for round in 0..10u8 {
        let killed = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                      where application_name = 'leasehold' and query ilike 'listen%'";
        client.query(killed, &[]).await.expect("it answers");
        sender.publish(vec![round]).await.expect("it is there");
        let one = soon("the message", consumer.next()).await.expect("it goes on");
        let one = one.expect("the queue is there");
        assert_eq!(one.body(), [round]);
        one.ack().await.expect("it is ours");
    }
}

/// F12: of many who wait some die; the others get the lock, each in turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_with_dead_waiters_does_not_jam() {
    let server = postgres::start(&[]);
    let a = open(&server.url()).await;
    let first = a.lock("l").acquire().await.expect("it is free");
    let waiting: Vec<_> = (0..30)
        .map(|_| {
            let lock = a.lock("l");
            tokio::spawn(async move { lock.acquire().await?.release().await })
        })
        .collect();
    let all = async {
        while a.inspect("l").await.expect("it answers").waiting < 30 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the line", all).await;
    let (dead, living): (Vec<_>, Vec<_>) =
        waiting.into_iter().enumerate().partition(|(place, _)| place % 3 == 0);
    dead.iter().for_each(|(_, task)| task.abort());
    first.release().await.expect("it is held");
    for (place, task) in living {
        let done = soon(&format!("waiter {place}"), task).await.expect("it was not aborted");
        done.expect("it had its turn");
    }
}

/// F20: what a client's clock says does not matter; a hold that the server ended is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_clock_decides() {
    let server = postgres::start(&[]);
    let a = open(&server.url()).await;
    let locks = a.engine().locks.clone().expect("it has locks");
    let ask = Acquire {
        wants: vec![Want { name: "l".into(), mode: Mode::Exclusive }],
        session: None,
        hold: 7,
        reentrant: false,
        ttl: Some(Duration::from_millis(200)),
        bound: false,
        wait: Wait::No,
        lock_delay: Duration::ZERO,
        label: None,
        request: None,
    };
    let token = locks.acquire(&ask).await.expect("it is free").token;
    let hold = HoldRef { name: "l".into(), token, hold: 7, session: None };
    let gone = async {
        while a.check("l", token).await.expect("it answers") {
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the end", gone).await;
    let queues = a.engine().queues.clone().expect("it has queues");
    let checks = Commit { checks: vec![("l".into(), token)], ..Commit::default() };
    let releases = Commit { releases: vec![hold], ..Commit::default() };
    for commit in [checks, releases] {
        let late = queues.commit(&commit).await.map_err(|error| error.kind);
        assert_eq!(late, Err(ErrorKind::Stale));
    }
}

/// Nobody answers: the error says whether it may have happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stays_away_is_told() {
    let (_server, proxy, far, _near) = apart().await;
    let queue = far.queue("q");
    queue.declare(&QueueConfig::default()).await.expect("it is new");
    queue.publish("x").await.expect("it is there");
    let receipt = queue.receive(Duration::ZERO).await.expect("it answers").expect("there");
    let receipt = receipt.into_receipt();
    let queues = far.engine().queues.clone().expect("it has queues");
    proxy.close();
    // What was open is known to be lost; what is not sent has not happened.
    sleep(UNDER_WAY).await;
    let error = queue.publish("y").await.expect_err("nobody is there");
    assert_eq!((error.kind, error.retry), (ErrorKind::Unavailable, Retry::Later), "{error}");
    proxy.heal();
    soon("an answer", queue.inspect()).await.expect("it is back");
    proxy.lose_answers();
    let error = queues.settle(&[receipt], Verdict::Ack).await.expect_err("nobody answers");
    assert_eq!((error.kind, error.retry), (ErrorKind::Unavailable, Retry::Unknown), "{error}");
}
