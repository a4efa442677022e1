//! Failures that locks have had elsewhere, over a real ZooKeeper and a bad network. The numbers
//! are those of the list that the suite's cases name too.

use std::time::Duration;

use leasehold_api::engine::{Acquire, Mode, RequestId, Want, Write};
use leasehold_api::{CheckVerdict, Ending, ErrorKind, Expect, Leasehold, RegisterTtl, Wait};
use leasehold_testbed::Proxy;
use leasehold_testbed::servers::zookeeper;
use tokio::time::timeout;

/// How long something may take that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Opens an engine whose session with ZooKeeper is short.
async fn open(port: u16, session: u64) -> Leasehold {
    let url = format!("{}?session={session}", zookeeper::url(port));
    Leasehold::new(leasehold_zookeeper::connect(&url).await.expect("it is there"))
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

/// Waits for a line of so many, and holders.
async fn line(look: &Leasehold, name: &str, holders: usize, waiting: u32) {
    let there = async {
        loop {
            let view = look.inspect(name).await.expect("it answers");
            if (view.holders.len(), view.waiting) == (holders, waiting) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(&format!("a line of {holders} and {waiting}"), there).await;
}

/// F7, F8: the answer to a create is lost. One contender stands in line, and it is ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_leaves_one_contender() {
    let server = zookeeper::start();
    let (proxy, b) = (Proxy::to(server.port).await, open(server.port, 10).await);
    let a = open(proxy.port(), 10).await;
    // The line is there, so that what is lost is the answer to the contender.
    a.lock("lost").acquire().await.expect("it is free").release().await.expect("it is held");
    proxy.lose_answers();
    let lock = a.lock("lost").ttl(Duration::from_secs(60));
    let taking = tokio::spawn(async move { lock.acquire().await });
    line(&b, "lost", 1, 0).await;
    proxy.heal();
    let guard = soon("the lock", taking).await.expect("it does not panic").expect("it is free");
    line(&b, "lost", 1, 0).await;
    guard.check().expect("it is held");
    let view = b.inspect("lost").await.expect("it answers");
    assert_eq!(view.holders[0].token, guard.token());
    guard.release().await.expect("it is held");
    line(&b, "lost", 0, 0).await;
}

/// F7: the session of a waiter ends. Its old node is not taken for its own, and it gets the lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_whose_session_ended_stands_in_line_again() {
    let server = zookeeper::start();
    let (proxy, b) = (Proxy::to(server.port).await, open(server.port, 10).await);
    let a = open(proxy.port(), 2).await;
    let held = b.lock("again").ttl(Duration::from_secs(120)).acquire().await.expect("it is free");
    let lock = a.lock("again");
    let waiting = tokio::spawn(async move { lock.acquire().await });
    line(&b, "again", 1, 1).await;
    proxy.silence();
    line(&b, "again", 1, 0).await;
    proxy.heal();
    line(&b, "again", 1, 1).await;
    held.release().await.expect("it is held");
    let guard = soon("the lock", waiting).await.expect("it does not panic").expect("it is free");
    line(&b, "again", 1, 0).await;
    guard.release().await.expect("it is held");
}

/// The session of a holder ends: it is told so before another can have the lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_is_cut_off_is_told() {
    let server = zookeeper::start();
    let (proxy, b) = (Proxy::to(server.port).await, open(server.port, 10).await);
    let a = open(proxy.port(), 2).await;
    let ttl = Duration::from_secs(600);
    let guard = a.lock("cut").ttl(ttl).acquire().await.expect("it is free");
    let (lost, lock) = (guard.lost(), b.lock("cut"));
    let next = tokio::spawn(async move { lock.acquire().await.map(|guard| (guard, now())) });
    line(&b, "cut", 1, 1).await;
    proxy.silence();
    let ending = soon("the loss", lost).await;
    let known = now();
    assert_eq!(ending, Ending::SessionLost);
    assert!(guard.check().is_err(), "a lost guard says that all is well");
    let (next, granted) =
        soon("the lock", next).await.expect("it does not panic").expect("it is free");
    assert!(known <= granted, "the loss was known {:?} late", known - granted);
    assert!(next.token() > guard.token());
    proxy.heal();
    // F2: what the old holder writes late is refused by the ensemble itself.
    let late = Write {
        key: b"fenced".to_vec(),
        value: Some(b"late".to_vec()),
        expect: Expect::Anything,
        ttl: RegisterTtl::Never,
        guard: Some(("cut".into(), guard.token())),
        request: None,
    };
    let engine = a.engine().locks.clone().expect("it has locks");
    let error = soon("the refusal", engine.write(&late)).await.expect_err("it is late");
    assert_eq!(error.kind, ErrorKind::Stale, "{error}");
    next.release().await.expect("it is held");
    // With a new session all goes on.
    let again = soon("the lock", a.lock("cut").acquire()).await.expect("it is free");
    again.release().await.expect("it is held");
}

fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// F9: a server dies and comes back while somebody holds and somebody waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_finds_all_in_line() {
    let mut server = zookeeper::start();
    let (a, b) = (open(server.port, 10).await, open(server.port, 10).await);
    let ttl = Duration::from_secs(120);
    let guard = a.lock("back").ttl(ttl).acquire().await.expect("it is free");
    let lock = b.lock("back").ttl(ttl);
    let waiting = tokio::spawn(async move { lock.acquire().await });
    line(&a, "back", 1, 1).await;
    server.restart();
    // On a slow machine it may have been away for longer than the session lasts.
    let released = soon("the release", guard.release()).await;
    if let Err(error) = &released {
        assert_eq!(error.kind, ErrorKind::Stale, "{error}");
    }
    let next = soon("the lock", waiting).await.expect("it does not panic").expect("it is free");
    next.release().await.expect("it is held");
    line(&a, "back", 0, 0).await;
}

/// A release whose answer is lost is carried out, and no node stays behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_without_an_answer_is_found_out() {
    let server = zookeeper::start();
    let (proxy, b) = (Proxy::to(server.port).await, open(server.port, 10).await);
    let a = open(proxy.port(), 10).await;
    let ttl = Duration::from_secs(120);
    let guard = a.lock("release").ttl(ttl).acquire().await.expect("it is free");
    proxy.lose_answers();
    let releasing = tokio::spawn(guard.release());
    line(&b, "release", 0, 0).await;
    proxy.heal();
    soon("the release", releasing).await.expect("it does not panic").expect("it was held");
}

/// A write whose answer is lost is carried out once and answered with its version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_without_an_answer_is_found_out() {
    let server = zookeeper::start();
    let (proxy, b) = (Proxy::to(server.port).await, open(server.port, 10).await);
    let a = open(proxy.port(), 10).await;
    a.register("r").write("0").await.expect("it is written");
    proxy.lose_answers();
    let register = a.register("r");
    let writing = tokio::spawn(async move { register.write("1").await });
    // The reads before it get no answer either: it is tried until there is one.
    tokio::time::sleep(Duration::from_millis(200)).await;
    proxy.heal();
    let version = soon("the answer", writing).await.expect("it does not panic").expect("it is");
    let read = b.register("r").read().await.expect("it answers").expect("it is there");
    assert_eq!((read.value, read.version), (b"1".to_vec(), version));
}

/// The same request twice is one contender, and the same grant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_sent_twice_is_one() {
    let server = zookeeper::start();
    let a = open(server.port, 10).await;
    let engine = a.engine().locks.clone().expect("it has locks");
    let ask = Acquire {
        wants: vec![Want { name: "twice".into(), mode: Mode::Exclusive }],
        session: None,
        hold: 1,
        reentrant: false,
        ttl: Some(Duration::from_secs(60)),
        bound: false,
        wait: Wait::No,
        lock_delay: Duration::ZERO,
        label: None,
        request: Some(RequestId(7)),
    };
    let first = engine.acquire(&ask).await.expect("it is free");
    let second = engine.acquire(&ask).await.expect("it is the same");
    assert_eq!((first.token, second.entries), (second.token, 1));
    line(&a, "twice", 1, 0).await;
}

/// Of those who try at the same time one gets the lock, not none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_those_who_try_one_succeeds() {
    let server = zookeeper::start();
    let (a, b) = (open(server.port, 10).await, open(server.port, 10).await);
    for round in 0..50 {
        let name = format!("try-{round}");
        let (lock_a, lock_b) = (a.lock(&*name), b.lock(&*name));
        let (by_a, by_b) = tokio::join!(lock_a.try_acquire(), lock_b.try_acquire());
        let (by_a, by_b) = (by_a.expect("it answers"), by_b.expect("it answers"));
        assert!(by_a.is_some() != by_b.is_some(), "round {round}: {by_a:?} {by_b:?}");
    }
}

/// A server that is paused answers later; nobody takes it for a refusal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_of_the_server_is_waited_for() {
    let server = zookeeper::start();
    let a = open(server.port, 10).await;
    server.pause();
    let lock = a.lock("pause");
    let taking = tokio::spawn(async move { lock.acquire().await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.resume();
    let guard = soon("the lock", taking).await.expect("it does not panic").expect("it is free");
    guard.release().await.expect("it is held");
}

/// What is wrong is said when the engine is opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said() {
    let server = zookeeper::start();
    let refused = async |url: String, kind| {
        let error = leasehold_zookeeper::connect(&url).await.expect_err("it is wrong");
        assert_eq!(error.kind, kind, "{error}");
        error
    };
    refused("zookeeper://127.0.0.1:1".to_owned(), ErrorKind::Unavailable).await;
    // With somebody's password its nodes are nobody else's.
    let port = server.port;
    let theirs = format!("zookeeper://me:secret@127.0.0.1:{port}/mine");
    let mine = Leasehold::new(leasehold_zookeeper::connect(&theirs).await.expect("it is there"));
    mine.lock("x").acquire().await.expect("it is free").release().await.expect("it is held");
    let error = refused(format!("zookeeper://127.0.0.1:{port}/mine/below"), ErrorKind::Forbidden);
    let error = error.await;
    assert!(error.wrong.contains("ACL"), "{error}");
    assert!(!format!("{error}").contains("secret"));
    let checks = mine.engine().checks.clone().expect("it has some").checks().await;
    assert!(checks.iter().all(|check| check.verdict != CheckVerdict::Failed), "{checks:?}");
}

/// An ensemble that keeps the dead for longer than was asked for is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_sessions_are_refused() {
    let server = zookeeper::start_with("minSessionTimeout=5000\n");
    let url = format!("{}?session=2", server.url());
    let error = leasehold_zookeeper::connect(&url).await.expect_err("it is too long");
    assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
    assert!(error.wrong.contains("minSessionTimeout"), "{error}");
}
