//! Failures that have happened to others: cut lines, dead holders, double tokens, dead brokers.

use std::collections::BTreeSet;
use std::time::Duration;

use leasehold_api::{Ending, ErrorKind, Leasehold, QueueConfig};
use leasehold_testbed::Proxy;
use leasehold_testbed::servers::rabbitmq;
use tokio::time::timeout;

/// Longer than anything takes that must come: two to three heartbeats of 2 s, and a slow machine.
const LONG: Duration = Duration::from_secs(60);

/// A handle with connections of its own.
async fn handle(url: &str) -> Leasehold {
    Leasehold::new(leasehold_amqp::connect(url).await.expect("it answers"))
}

/// How many tokens a lock's queue has ready.
async fn ready(a: &Leasehold, lock: &str) -> u64 {
    a.queue(format!("leasehold.lock.{lock}")).inspect().await.expect("it is made").ready
}

/// Waits until the token is back: a quorum queue puts it there a moment after its answer.
async fn is_back(a: &Leasehold, lock: &str) {
    let back = async {
        while ready(a, lock).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, back).await.expect("the token is lost");
    assert_eq!(ready(a, lock).await, 1, "there is a second token");
}

/// F4: a lock whose holder is cut off without a word is lost to the holder before the broker gives
/// it to another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cut_off_knows_before_the_next_is_granted() {
    let rabbit = rabbitmq::start("");
    let proxy = Proxy::to(rabbit.port).await;
    let cut = handle(&format!("amqp://127.0.0.1:{}/?heartbeat=2", proxy.port())).await;
    let other = handle(&rabbit.url()).await;
    // Its own deadline is far away, so it is the connection that has to tell.
    let guard = cut.lock("cut").ttl(Duration::from_secs(600)).acquire().await.expect("it is free");
    let lock = other.lock("cut");
    let waiting = tokio::spawn(async move { lock.acquire().await });
    proxy.silence();
    let next = timeout(LONG, waiting).await.expect("it comes back").expect("no panic");
    assert!(guard.check().is_err(), "another holds it, and the guard says that all is well");
    assert!(next.expect("it comes").token() > guard.token());
    let ending = timeout(LONG, guard.lost()).await.expect("it is told");
    assert_eq!(ending, Ending::Unknown);
}

/// F18: a token is not used up by holders that die.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_outlives_many_dead_holders() {
    let rabbit = rabbitmq::start("");
    for kind in ["classic", "quorum"] {
        let lock = format!("dying-{kind}");
        let watcher = handle(&format!("{}?locks={kind}", rabbit.url())).await;
        let mut last = 0;
        for _ in 0..25 {
            let proxy = Proxy::to(rabbit.port).await;
            let url = format!("amqp://127.0.0.1:{}?locks={kind}", proxy.port());
            let dies = handle(&url).await;
            let guard = dies.lock(&*lock).acquire_within(LONG).await.expect("it comes back");
            assert!(guard.token() > last, "token {} after {last}", guard.token());
            last = guard.token();
            assert_eq!(ready(&watcher, &lock).await, 0);
            proxy.close();
            guard.lost().await;
        }
        let guard = watcher.lock(&*lock).acquire_within(LONG).await.expect("it comes back");
        assert!(guard.token() > last);
        assert_eq!(ready(&watcher, &lock).await, 0, "there is a second token");
        guard.release().await.expect("it is held");
        is_back(&watcher, &lock).await;
    }
}

/// F18: a broker that takes the token from a live holder is noticed by its renewals.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_learns_that_the_broker_took_its_token() {
    let rabbit = rabbitmq::start("-rabbit consumer_timeout 2000 -rabbit channel_tick_interval 500");
    let (a, b) = (handle(&rabbit.url()).await, handle(&rabbit.url()).await);
    let guard = a.lock("long").ttl(Duration::from_secs(3)).acquire().await.expect("it is free");
    timeout(LONG, guard.lost()).await.expect("it is noticed");
    assert_eq!(guard.release().await.expect_err("it is lost").kind, ErrorKind::Stale);
    let next = b.lock("long").acquire_within(LONG).await.expect("it went back");
    assert_eq!(ready(&b, "long").await, 0, "there is a second token");
    next.release().await.expect("it is held");
}

/// F19: many make the same lock at once, and some of them die meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_make_one_lock() {
    let rabbit = rabbitmq::start("");
    for round in 0..3 {
        let lock = format!("new-{round}");
        let watcher = handle(&rabbit.url()).await;
        let mut tasks = Vec::new();
        for i in 0..50 {
            let (url, lock) = (rabbit.url(), lock.clone());
            let client = handle(&url).await;
            tasks.push(tokio::spawn(async move {
                if i % 10 == 9 {
                    // Dropped at some moment of it, with its connection.
                    let dies = client.lock(&*lock);
                    timeout(Duration::from_millis(i), dies.acquire()).await.ok();
                    return None;
                }
                let guard = client.lock(&*lock).acquire_within(LONG).await.expect("its turn");
                let token = guard.token();
                guard.release().await.expect("it is held");
                Some(token)
            }));
        }
        let mut tokens = BTreeSet::new();
        for task in tasks {
            let token = task.await.expect("it does not panic");
            assert!(token.is_none_or(|token| tokens.insert(token)), "{token:?} was there twice");
        }
        assert_eq!(tokens.len(), 45);
        let guard = watcher.lock(&*lock).acquire_within(LONG).await.expect("it is free");
        assert_eq!(ready(&watcher, &lock).await, 0, "there is a second token");
        guard.release().await.expect("it is held");
        is_back(&watcher, &lock).await;
    }
}

/// A broker that is killed and comes back has what was confirmed, and the lock is free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_survives_the_broker() {
    let mut rabbit = rabbitmq::start("");
    let a = handle(&rabbit.url()).await;
    let queue = a.queue("kept");
    queue.declare(&QueueConfig::default()).await.expect("it is new");
    let bodies: Vec<_> = (0..500).map(|i| format!("{i}")).collect();
    for answer in queue.publish_all(bodies.clone()).await.expect("it answers") {
        answer.expect("it is taken");
    }
    let guard = a.lock("kept").acquire().await.expect("it is free");
    let in_hand = queue.receive(LONG).await.expect("it answers").expect("it was published");
    rabbit.kill();
    timeout(LONG, guard.lost()).await.expect("the connection is gone");
    let late = in_hand.ack().await.expect_err("its connection is gone");
    assert_eq!(late.kind, ErrorKind::Stale);
    rabbit.restart();
    // The same handle goes on.
    let next = a.lock("kept").acquire_within(LONG).await.expect("its token is back");
    assert!(next.token() > guard.token(), "{} after {}", next.token(), guard.token());
    let mut left: BTreeSet<_> = bodies.into_iter().collect();
    let mut consumer = queue.consume().await.expect("it is there");
    while !left.is_empty() {
        let came = timeout(LONG, consumer.next()).await.expect("a confirmed message is lost");
        let came = came.expect("it answers").expect("it goes on");
        left.remove(&*String::from_utf8_lossy(came.body()));
        came.ack().await.expect("it is in hand");
    }
    next.release().await.expect("it is held");
}

/// Connections are cut while messages are published: what was confirmed is there once or more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_confirmed_message_is_lost_with_a_connection() {
    let rabbit = rabbitmq::start("");
    let proxy = Proxy::to(rabbit.port).await;
    let cut = handle(&format!("amqp://127.0.0.1:{}", proxy.port())).await;
    let whole = handle(&rabbit.url()).await;
    let queue = whole.queue("cut");
    queue.declare(&QueueConfig::default()).await.expect("it is new");
    let publishing = tokio::spawn(async move {
        let queue = cut.queue("cut");
        let (mut confirmed, mut unknown) = (Vec::new(), 0);
        for batch in 0..60u32 {
            let bodies: Vec<_> = (0..50).map(|i| format!("{batch}/{i}")).collect();
            let answers = queue.publish_all(bodies.clone()).await.expect("it answers each");
            for (body, answer) in bodies.into_iter().zip(answers) {
                match answer {
                    Ok(_) => confirmed.push(body),
                    Err(error) => {
                        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
                        unknown += 1;
                    }
                }
            }
        }
        (confirmed, unknown)
    });
    while !publishing.is_finished() {
        tokio::time::sleep(Duration::from_millis(40)).await;
        proxy.cut();
    }
    let (confirmed, unknown) = publishing.await.expect("it does not panic");
    println!("{} confirmed, {unknown} unknown", confirmed.len());
    assert!(!confirmed.is_empty());
    let mut there = BTreeSet::new();
    while let Some(one) = queue.receive(Duration::ZERO).await.expect("it answers") {
        there.insert(String::from_utf8_lossy(one.body()).into_owned());
        one.ack().await.expect("it is in hand");
    }
    let lost = confirmed.iter().find(|body| !there.contains(*body));
    assert_eq!(lost, None, "it was confirmed");
}

/// A consumer goes on after its connection was cut, and what it had in hand comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_outlives_its_connection() {
    let rabbit = rabbitmq::start("");
    let proxy = Proxy::to(rabbit.port).await;
    let cut = handle(&format!("amqp://127.0.0.1:{}", proxy.port())).await;
    let whole = handle(&rabbit.url()).await;
    let queue = whole.queue("goes-on");
    queue.declare(&QueueConfig::default()).await.expect("it is new");
    queue.publish("1").await.expect("it is taken");
    let mut consumer = cut.queue("goes-on").consume().await.expect("it is there");
    let first = consumer.next().await.expect("it answers").expect("it was published");
    proxy.cut();
    let again = timeout(LONG, consumer.next()).await.expect("it goes on");
    let again = again.expect("it answers").expect("it goes on");
    assert!(again.redelivered && again.token() > first.token());
    assert_eq!(first.ack().await.expect_err("it is old").kind, ErrorKind::Stale);
    again.ack().await.expect("it is in hand");
    queue.delete().await.expect("it is there");
    let end = timeout(LONG, consumer.next()).await.expect("it ends").expect("without an error");
    assert!(end.is_none());
}

/// Whoever waits for a lock while the broker is away gets it when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_outlives_the_broker() {
    let mut rabbit = rabbitmq::start("");
    let (a, b) = (handle(&rabbit.url()).await, handle(&rabbit.url()).await);
    let guard = a.lock("away").acquire().await.expect("it is free");
    let lock = b.lock("away");
    let waiting = tokio::spawn(async move { lock.acquire().await });
    rabbit.kill();
    timeout(LONG, guard.lost()).await.expect("the connection is gone");
    rabbit.restart();
    let next = timeout(2 * LONG, waiting).await.expect("it comes").expect("no panic");
    let next = next.expect("it waited");
    assert!(next.token() > guard.token());
    next.release().await.expect("it is held");
}

/// The driver does not use the number of a refused channel again, and there are 2047: a handle
/// outlives more refusals and more channels than that, and what it has in hand stays its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_outlives_many_refusals() {
    let rabbit = rabbitmq::start("");
    let a = handle(&rabbit.url()).await;
    let queue = a.queue("there");
    queue.declare(&QueueConfig::default()).await.expect("it is new");
    queue.publish_all(["1", "2"]).await.expect("it answers");
    let in_hand = queue.receive(LONG).await.expect("it answers").expect("it was published");
    for _ in 0..2500 {
        let error = a.queue("not-there").purge().await.expect_err("it is not");
        assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    }
    for _ in 0..2500 {
        let one = queue.receive(LONG).await.expect("it is there").expect("it was published");
        one.nack().await.expect("it is in hand");
    }
    in_hand.ack().await.expect("it is in hand");
}
