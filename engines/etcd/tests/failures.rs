//! What networks and servers do. F1 to F21 are the known failures of locks in the field.

use std::time::Duration;

use leasehold_api::engine::{Acquire, Mode, OpenSession, Wait, Want};
use leasehold_api::{CheckVerdict, ErrorKind, Leasehold, Retry};
use leasehold_testbed::servers::etcd;
use leasehold_testbed::{Proxy, Server};
use tokio::time::{sleep, timeout};

/// How long something may take that must come.
const PATIENCE: Duration = Duration::from_secs(60);

async fn open(port: u16) -> Leasehold {
    Leasehold::new(leasehold_etcd::connect(&etcd::url(port)).await.expect("it answers"))
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

/// Waits until so many stand in line.
async fn until_waiting(handle: &Leasehold, name: &str, count: u32) {
    let there = async {
        while handle.inspect(name).await.expect("it answers").waiting != count {
            sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the line", there).await;
}

fn ask(name: &str, wait: Wait) -> Acquire {
    Acquire {
        wants: vec![Want { name: name.into(), mode: Mode::Exclusive }],
        session: None,
        hold: 1,
        reentrant: false,
        ttl: Some(Duration::from_secs(5)),
        bound: false,
        wait,
        lock_delay: Duration::ZERO,
        label: None,
        request: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_there_is_said_soon() {
    let port = leasehold_testbed::free_port();
    let error = leasehold_etcd::connect(&etcd::url(port)).await.expect_err("nobody is there");
    assert_eq!((error.kind, error.retry), (ErrorKind::Unavailable, Retry::Later), "{error}");
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
}

/// A waiter outlasts kill -9 and restart of the server, and so does the holder's lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_ends_neither_a_hold_nor_a_wait() {
    let mut server = etcd::start();
    let (a, b) = (open(server.port).await, open(server.port).await);
    let held = a.lock("x").ttl(Duration::from_secs(60)).acquire().await.expect("it is free");
    let lock = b.lock("x");
    let waits = tokio::spawn(async move { lock.acquire().await });
    until_waiting(&a, "x", 1).await;
    server.restart();
    assert!(a.check("x", held.token()).await.expect("it answers"), "the lock is lost");
    let token = held.token();
    held.release().await.expect("it is held");
    let next = soon("the lock", waits).await.expect("no panic").expect("its turn");
    assert!(next.token() > token, "{} after {token}", next.token());
    next.release().await.expect("it is held");
}

/// F1: the session of a waiter ends while it waits and nobody hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_cut_off_is_not_granted() {
    let server = etcd::start();
    let proxy = Proxy::to(server.port).await;
    let (a, b) = (open(server.port).await, open(proxy.port()).await);
    let held = a.lock("x").ttl(Duration::from_secs(60)).acquire().await.expect("it is free");
    let engine = b.engine().locks.clone().expect("it has locks");
    let open = OpenSession { ttl: Some(Duration::from_secs(1)), ..OpenSession::default() };
    let session = engine.open_session(&open).await.expect("it answers").session;
    let ask = Acquire { session: Some(session), ..ask("x", Wait::Forever) };
    let waits = tokio::spawn(async move { engine.acquire(&ask).await.map(|grant| grant.token) });
    until_waiting(&a, "x", 1).await;
    proxy.silence();
    until_waiting(&a, "x", 0).await;
    held.release().await.expect("it is held");
    proxy.heal();
    let refused = soon("the refusal", waits).await.expect("no panic").expect_err("it is dead");
    assert_eq!(refused.kind, ErrorKind::NoSession, "{refused}");
    soon("the lock", a.lock("x").acquire()).await.expect("it is free");
}

/// F2, F21: who is cut off knows before another holds, and may not write any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_is_cut_off_knows_first() {
    let server = etcd::start();
    let proxy = Proxy::to(server.port).await;
    let (a, b) = (open(proxy.port()).await, open(server.port).await);
    let held = a.lock("x").ttl(Duration::from_secs(2)).acquire().await.expect("it is free");
    let register = a.register("x").guarded_by(&held);
    register.write("mine").await.expect("it is held");
    proxy.silence();
    let next = soon("the lock", b.lock("x").acquire()).await.expect("it ends by its lease");
    assert_eq!(held.check().expect_err("it is lost").kind, ErrorKind::Stale);
    b.register("x").guarded_by(&next).write("theirs").await.expect("it is held");
    proxy.heal();
    let late = soon("the refusal", register.write("late")).await.expect_err("it is lost");
    assert_eq!(late.kind, ErrorKind::Stale, "{late}");
    let value = b.register("x").read().await.expect("it answers").expect("it is there").value;
    assert_eq!(value, b"theirs");
}

/// A hold that ends with its session is lost when that is, long before its own time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_holder_that_is_cut_off_knows_first() {
    let server = etcd::start();
    let proxy = Proxy::to(server.port).await;
    let a = open(proxy.port()).await.with_session_ttl(Duration::from_secs(2)).expect("allowed");
    let b = open(server.port).await;
    let lock = a.lock("x").with_session().ttl(Duration::from_secs(3600));
    let held = lock.acquire().await.expect("it is free");
    sleep(Duration::from_secs(5)).await;
    held.check().expect("the session is kept alive");
    proxy.silence();
    let next = soon("the lock", b.lock("x").acquire()).await.expect("the session ends");
    assert_eq!(held.check().expect_err("it is lost").kind, ErrorKind::Stale);
    next.release().await.expect("it is held");
}

/// F2: the server is paused for longer than a lock lasts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_costs_the_lock_and_nothing_else() {
    let server = etcd::start();
    let a = open(server.port).await;
    let held = a.lock("x").ttl(Duration::from_secs(2)).acquire().await.expect("it is free");
    server.pause();
    soon("the loss", held.lost()).await;
    server.resume();
    let again = soon("the lock", a.lock("x").acquire()).await.expect("it comes back");
    assert!(again.token() > held.token(), "{} after {}", again.token(), held.token());
}

/// F8, F17, F19: requests arrive, answers do not. One contender, one hold, one write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_are_found_out() {
    let server = etcd::start();
    let proxy = Proxy::to(server.port).await;
    let (a, b) = (open(proxy.port()).await, open(server.port).await);
    // A session and a spare lease, so that the next request is the one that takes the lock.
    a.lock("warm").acquire().await.expect("it is free").release().await.expect("it is held");
    let register = a.register("n");
    let version = register.write("0").await.expect("it answers");
    proxy.lose_answers();
    let lock = a.lock("x");
    let acquires = tokio::spawn(async move { lock.acquire().await });
    let writes = tokio::spawn(async move {
        register.write_if(leasehold_api::Expect::Version(version), "1").await
    });
    let there = async {
        while b.inspect("x").await.expect("it answers").holders.is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
        while b.register("n").read().await.expect("it answers").expect("there").version == version {
            sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the requests", there).await;
    proxy.heal();
    let held = soon("the answer", acquires).await.expect("no panic").expect("it is free");
    let written = soon("the answer", writes).await.expect("no panic").expect("it was written");
    let read = b.register("n").read().await.expect("it answers").expect("it is there");
    assert_eq!((read.value, read.version), (b"1".to_vec(), written));
    let view = b.inspect("x").await.expect("it answers");
    assert_eq!((view.holders.len(), view.waiting), (1, 0), "{view:?}");
    assert_eq!(view.holders[0].token, held.token());
    proxy.lose_answers();
    let releases = tokio::spawn(held.release());
    let free = async {
        while !b.inspect("x").await.expect("it answers").holders.is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the release", free).await;
    proxy.heal();
    soon("the answer", releases).await.expect("no panic").expect("it was released");
}

/// F9: whoever gives up while the server is out of reach leaves nothing in the line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_up_in_the_dark_leaves_the_line() {
    let server = etcd::start();
    let proxy = Proxy::to(server.port).await;
    let (a, b) = (open(server.port).await, open(proxy.port()).await);
    let held = a.lock("x").ttl(Duration::from_secs(60)).acquire().await.expect("it is free");
    let lock = b.lock("x");
    let waits = tokio::spawn(async move { lock.acquire().await.map(|_| ()) });
    until_waiting(&a, "x", 1).await;
    proxy.silence();
    waits.abort();
    sleep(Duration::from_secs(1)).await;
    proxy.heal();
    until_waiting(&a, "x", 0).await;
    held.release().await.expect("it is held");
    soon("the lock", a.lock("x").acquire()).await.expect("it is free");
}

/// F10: after an outage renewals resume.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_resume_after_a_cut() {
    let server = etcd::start();
    let proxy = Proxy::to(server.port).await;
    let (a, b) = (open(proxy.port()).await, open(server.port).await);
    let held = a.lock("x").ttl(Duration::from_secs(10)).acquire().await.expect("it is free");
    for _ in 0..5 {
        proxy.close();
        sleep(Duration::from_secs(1)).await;
        proxy.heal();
        sleep(Duration::from_secs(2)).await;
        held.check().expect("it is renewed");
        assert!(b.check("x", held.token()).await.expect("it answers"));
    }
    held.release().await.expect("it is held");
}

/// A process that is gone: its locks end by the server's leases, its places in line by its
/// session's.
#[test]
fn the_dead_leave() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().expect("a runtime")
    };
    let server: Server = etcd::start();
    let dies = runtime();
    let port = server.port;
    dies.block_on(async {
        let a = open(port).await.with_session_ttl(Duration::from_secs(1)).expect("it is allowed");
        a.lock("x").ttl(Duration::from_millis(500)).acquire().await.expect("it is free").forget();
        let bound = a.lock("y").with_session().ttl(Duration::from_secs(3600));
        bound.acquire().await.expect("it is free").forget();
        let lock = a.lock("x");
        tokio::spawn(async move { lock.acquire().await });
        until_waiting(&a, "x", 1).await;
    });
    // Nothing of it runs any more, not even what would clean up.
    dies.shutdown_background();
    runtime().block_on(async {
        let b = open(port).await;
        for name in ["x", "y"] {
            soon(name, b.lock(name).acquire()).await.expect("it is free").release().await.ok();
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_tell_how_it_is_set_up() {
    let server = etcd::start();
    let a = open(server.port).await;
    let checks = a.engine().checks.clone().expect("it can tell").checks().await;
    let of = |what: &str| checks.iter().find(|check| check.what == what).map(|c| c.verdict);
    assert_eq!(of("version"), Some(CheckVerdict::Ok), "{checks:?}");
    assert_eq!(of("members"), Some(CheckVerdict::Warning), "{checks:?}");
    assert_eq!(of("alarms"), Some(CheckVerdict::Ok), "{checks:?}");
    assert_eq!(of("election timeout"), Some(CheckVerdict::Ok), "{checks:?}");
}
