//! Failures that locks and queues have had elsewhere, over a real server and a bad network. The
//! numbers are those of the list that the suite's cases name too.

use std::time::Duration;

use leasehold_api::engine::{Commit, Mode, RequestId, Write};
use leasehold_api::{
    CheckVerdict, ErrorKind, Expect, Fencing, Leasehold, QueueConfig, RegisterTtl, Survives,
    Verdict,
};
use leasehold_testbed::servers::redis as server;
use leasehold_testbed::{Proxy, Server};
use tokio::time::timeout;

/// How long something may take that must come.
const PATIENCE: Duration = Duration::from_secs(30);

async fn open(port: u16) -> Leasehold {
    let url = format!("redis://127.0.0.1:{port}?answer_ms=1000");
    Leasehold::new(leasehold_redis::connect(&url).await.expect("it is there"))
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

/// Asks the server itself.
fn raw(server: &Server, command: &[&str]) -> redis::Value {
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", server.port));
    let mut line = client.and_then(|client| client.get_connection()).expect("it is there");
    let mut ask = redis::cmd(command[0]);
    ask.arg(&command[1..]);
    ask.query(&mut line).expect("it answers")
}

/// F5: a store that lost everything gives no token that it gave before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_rise_over_a_flushed_store() {
    let server = server::start(&[]);
    let a = open(server.port).await;
    let mut last = 0;
    for _ in 0..5 {
        let guard = soon("the lock", a.lock("flushed").acquire()).await.expect("it is free");
        assert!(guard.token() > last, "{} after {last}", guard.token());
        last = guard.token();
        raw(&server, &["FLUSHALL"]);
        drop(guard);
    }
    let version = a.register("r").write("x").await.expect("it is written");
    assert!(version > last, "version {version} after token {last}");
}

/// F5, with a counter that is ahead of the clock: it rises all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_rise_when_the_clock_goes_back() {
    let server = server::start(&[]);
    let ahead: u64 = 1 << 52;
    raw(&server, &["SET", "{leasehold}:version", &ahead.to_string()]);
    let a = open(server.port).await;
    let first = a.register("r").write("x").await.expect("it is written");
    let second = a.register("r").write("y").await.expect("it is written");
    assert_eq!((first, second), (ahead + 1, ahead + 2));
}

/// A server that forgot the scripts is given them again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_scripts_are_sent_again() {
    let server = server::start(&[]);
    let a = open(server.port).await;
    for _ in 0..3 {
        raw(&server, &["SCRIPT", "FLUSH"]);
        let guard = a.lock("scripts").acquire().await.expect("it is free");
        raw(&server, &["SCRIPT", "FLUSH"]);
        guard.release().await.expect("it is held");
    }
}

/// F8, F9, F17: answers are lost; exactly one contender, one message, one ack remains.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_found_out() {
    let server = server::start(&[]);
    let proxy = Proxy::to(server.port).await;
    let (a, b) = (open(proxy.port()).await, open(server.port).await);
    let queue = a.queue("jobs");
    queue.declare(&QueueConfig::default()).await.expect("it is made");
    // From now on the server has the scripts.
    queue.publish("x").await.expect("it is taken");
    let first = queue.receive(PATIENCE).await.expect("it is there").expect("one");
    first.ack().await.expect("it is ours");
    a.lock("lost").acquire().await.expect("it is free").release().await.expect("it is held");
    for round in 1..4 {
        proxy.lose_answers();
        let lock = a.lock("lost");
        let acquiring = tokio::spawn(async move { lock.acquire().await });
        let publishing = tokio::spawn({
            let queue = queue.clone();
            async move { queue.publish("x").await }
        });
        // Both arrive at the server although nobody hears of it.
        let arrived = async {
            while b.queue("jobs").inspect().await.expect("it is there").totals.published <= round
                || b.inspect("lost").await.expect("it answers").holders.is_empty()
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("the requests", arrived).await;
        proxy.heal();
        let guard = soon("the grant", acquiring).await.expect("no panic").expect("it is ours");
        let view = b.inspect("lost").await.expect("it answers");
        assert_eq!((view.holders.len(), view.waiting), (1, 0), "{view:?}");
        assert_eq!(view.holders[0].token, guard.token());
        soon("the confirm", publishing).await.expect("no panic").expect("it was taken");
        let view = b.queue("jobs").inspect().await.expect("it is there");
        assert_eq!((view.ready, view.totals.published), (1, round + 1), "{view:?}");

        let taken = soon("the message", queue.receive(PATIENCE)).await.expect("it is there");
        proxy.lose_answers();
        let acking = tokio::spawn(taken.expect("it was published").ack());
        let acked = async {
            while b.queue("jobs").inspect().await.expect("it is there").in_flight > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("the ack", acked).await;
        proxy.heal();
        soon("its answer", acking).await.expect("no panic").expect("it counted");
        soon("the release", guard.release()).await.expect("it was held");
    }
}

/// F17 for commits: what is asked again counts once, and is answered as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_carried_out_once() {
    let server = server::start(&[]);
    let (a, b) = (open(server.port).await, open(server.port).await);
    a.queue("orders").declare(&QueueConfig::default()).await.expect("it is made");
    a.queue("orders").publish("order").await.expect("it is taken");
    let order = a.queue("orders").receive(PATIENCE).await.expect("it is there").expect("one");
    let guard = a.lock("stock").acquire().await.expect("it is free");
    let write = Write {
        key: b"stock".to_vec(),
        value: Some(b"9".to_vec()),
        expect: Expect::Absent,
        ttl: RegisterTtl::Never,
        guard: None,
        request: None,
    };
    let commit = Commit {
        checks: vec![("stock".into(), guard.token())],
        settles: vec![(order.into_receipt(), Verdict::Ack)],
        writes: vec![write],
        releases: vec![guard.hold().clone()],
        request: Some(RequestId(7)),
        ..Commit::default()
    };
    guard.forget();
    let queues = a.engine().queues.clone().expect("it has queues");
    let versions = queues.commit(&commit).await.expect("everything is as expected");
    let same = queues.commit(&commit).await.expect("it was done");
    assert_eq!(versions, same);
    let view = b.queue("orders").inspect().await.expect("it is there");
    assert_eq!((view.in_flight, view.totals.acked), (0, 1));
    assert!(b.lock("stock").try_acquire().await.expect("it answers").is_some());
}

/// F2, F4, F21: a holder who is cut off knows his loss before the next one holds, and his late
/// write is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cut_off_knows_it_first() {
    let server = server::start(&[]);
    let proxy = Proxy::to(server.port).await;
    let (a, b) = (open(proxy.port()).await, open(server.port).await);
    let ttl = Duration::from_secs(2);
    let guard = a.lock("cut").ttl(ttl).acquire().await.expect("it is free");
    let late = a.register("cut").guarded_by(&guard);
    proxy.silence();
    let lost = guard.lost();
    let known = tokio::spawn(async move {
        lost.await;
        std::time::Instant::now()
    });
    let next = soon("the lock", b.lock("cut").acquire()).await.expect("it comes");
    let granted = std::time::Instant::now();
    assert!(soon("the loss", known).await.expect("no panic") <= granted);
    b.register("cut").guarded_by(&next).write("theirs").await.expect("it holds");
    proxy.heal();
    let refused = late.write("late").await.expect_err("it is lost");
    assert_eq!(refused.kind, ErrorKind::Stale);
    assert!(next.token() > guard.token());
}

/// F10: renewals go on after the connection was cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_go_on_over_a_cut() {
    let server = server::start(&[]);
    let proxy = Proxy::to(server.port).await;
    let (a, b) = (open(proxy.port()).await, open(server.port).await);
    let ttl = Duration::from_secs(5);
    let guard = a.lock("renewed").ttl(ttl).acquire().await.expect("it is free");
    let began = std::time::Instant::now();
    while began.elapsed() < 2 * ttl {
        proxy.cut();
        tokio::time::sleep(Duration::from_millis(300)).await;
        guard.check().expect("it is renewed");
    }
    assert!(b.check("renewed", guard.token()).await.expect("it answers"));
    guard.release().await.expect("it is held");
}

/// F11: bells on a connection that broke ring, and waiters listen anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_wakes_who_waits() {
    let server = server::start(&[]);
    let proxy = Proxy::to(server.port).await;
    let (a, b) = (open(proxy.port()).await, open(server.port).await);
    a.queue("bells").declare(&QueueConfig::default()).await.expect("it is made");
    let held = b.lock("bells").ttl(Duration::from_secs(600)).acquire().await.expect("it is free");
    let (lock, queue) = (a.lock("bells"), a.queue("bells"));
    let waiting = tokio::spawn(async move { lock.acquire().await });
    let receiving = tokio::spawn(async move { queue.receive(2 * PATIENCE).await });
    let stands = async {
        while b.inspect("bells").await.expect("it answers").waiting == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the waiter", stands).await;
    proxy.close();
    // Nobody hears this.
    held.release().await.expect("it is held");
    b.queue("bells").publish("x").await.expect("it is taken");
    proxy.heal();
    let guard = soon("the lock", waiting).await.expect("no panic").expect("it comes");
    let came = soon("the message", receiving).await.expect("no panic").expect("it comes");
    came.expect("it was published").ack().await.expect("it is ours");
    guard.release().await.expect("it is held");
}

/// F12: many who wait and die leave nobody stuck.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_waiters_are_passed_by() {
    let server = server::start(&[]);
    let (a, dying) = (open(server.port).await, Proxy::to(server.port).await);
    let gone = open(dying.port()).await;
    let held = a.lock("line").acquire().await.expect("it is free");
    let mut tasks = Vec::new();
    for i in 0..60 {
        let handle = if i % 3 == 0 { &gone } else { &a };
        let lock = handle.lock("line");
        let task = tokio::spawn(async move { lock.acquire().await?.release().await });
        if i % 3 == 0 { drop(task) } else { tasks.push(task) }
    }
    let all = async {
        while a.inspect("line").await.expect("it answers").waiting < 60 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the line", all).await;
    dying.silence();
    held.release().await.expect("it is held");
    for task in tasks {
        soon("a turn", task).await.expect("no panic").expect("it comes");
    }
}

/// A crash: what was confirmed is there afterwards, and who waits goes on waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_loses_nothing_and_ends_no_wait() {
    let mut server = server::start(&["--appendfsync", "always"]);
    let a = open(server.port).await;
    assert_eq!(a.guarantees().expect("it has locks").survives, Survives::Power);
    a.queue("kept").declare(&QueueConfig::default()).await.expect("it is made");
    for i in 0..50 {
        a.queue("kept").publish(format!("{i}")).await.expect("it is taken");
    }
    let held = a.lock("kept").ttl(Duration::from_secs(60)).acquire().await.expect("it is free");
    let lock = a.lock("kept");
    let waiting = tokio::spawn(async move { lock.acquire().await });
    while a.inspect("kept").await.expect("it answers").waiting == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.kill();
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.restart();
    assert!(a.check("kept", held.token()).await.expect("it is back"));
    assert!(!waiting.is_finished());
    soon("the release", held.release()).await.expect("it is held");
    let guard = soon("the lock", waiting).await.expect("no panic").expect("it comes");
    guard.release().await.expect("it is held");
    let view = a.queue("kept").inspect().await.expect("it is there");
    assert_eq!(view.ready, 50);
}

/// A server that stands still for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_of_the_server_is_waited_out() {
    let server = server::start(&[]);
    let a = open(server.port).await;
    let guard = a.lock("pause").ttl(Duration::from_secs(20)).acquire().await.expect("it is free");
    server.pause();
    let register = a.register("pause");
    let reading = tokio::spawn(async move { register.read().await });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    server.resume();
    soon("the answer", reading).await.expect("no panic").expect("it comes");
    guard.release().await.expect("it is held");
}

/// A multi-lock under lost answers is there wholly or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_multi_lock_leaves_nothing() {
    let server = server::start(&[]);
    let proxy = Proxy::to(server.port).await;
    let (a, b) = (open(proxy.port()).await, open(server.port).await);
    a.lock("x").acquire().await.expect("it is free").release().await.expect("it is held");
    for _ in 0..3 {
        proxy.lose_answers();
        let both = a.multi_lock([("x", Mode::Exclusive), ("y", Mode::Exclusive)]);
        assert!(timeout(Duration::from_millis(100), both.acquire()).await.is_err());
        proxy.heal();
        for name in ["x", "y"] {
            soon("the lock", b.lock(name).acquire()).await.expect("it comes");
        }
    }
}

/// What a connection promises follows from the server's settings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_decide_what_is_promised() {
    let every = server::start(&["--appendfsync", "everysec"]);
    let engine = open(every.port).await;
    assert_eq!(engine.guarantees().expect("locks").survives, Survives::Process);
    let checks = engine.engine().checks.clone().expect("it can tell").checks().await;
    let log = checks.iter().find(|check| check.what.starts_with("appendonly")).expect("it is told");
    assert_eq!(log.verdict, CheckVerdict::Warning, "{log:?}");
    let nothing = server::start(&["--appendonly", "no"]);
    let engine = open(nothing.port).await;
    assert_eq!(engine.guarantees().expect("locks").survives, Survives::Nothing);

    let evicts = server::start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let url = format!("redis://127.0.0.1:{}", evicts.port);
    let refused = leasehold_redis::connect(&url).await.expect_err("it throws keys away");
    assert_eq!(refused.kind, ErrorKind::Unsupported);
    assert!(refused.wrong.contains("noeviction"), "{refused}");
    leasehold_redis::connect(&format!("{url}?allow=eviction")).await.expect("it was accepted");
}

/// Replicas: locks are told to be for efficiency only, and `wait` is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_weaken_what_is_promised() {
    let master = server::start(&[]);
    let port = master.port.to_string();
    let replica = server::start(&["--replicaof", "127.0.0.1", &port]);
    let linked = async {
        loop {
            let redis::Value::BulkString(info) = raw(&master, &["INFO", "replication"]) else {
                panic!("no text")
            };
            if String::from_utf8_lossy(&info).contains("state=online") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon("the replica", linked).await;
    let url = format!("redis://127.0.0.1:{}?wait=1&wait_ms=500", master.port);
    let a = Leasehold::new(leasehold_redis::connect(&url).await.expect("it is there"));
    assert_eq!(a.guarantees().expect("locks").fencing, Fencing::Advisory);
    assert_eq!(a.guarantees().expect("locks").label(), "efficiency only");
    a.lock("copied").acquire().await.expect("it is copied").release().await.expect("it is held");
    let refused = leasehold_redis::connect(&format!("redis://127.0.0.1:{}", replica.port)).await;
    assert_eq!(refused.expect_err("it is a replica").kind, ErrorKind::Invalid);
    replica.pause();
    let error = a.register("copied").write("x").await.expect_err("the replica does not have it");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    replica.resume();
    soon("the lock", a.lock("copied").acquire()).await.expect("the replica is back");
}

/// Who may not come in is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_credentials_are_told() {
    let server = server::start(&["--requirepass", "secret"]);
    let at = format!("127.0.0.1:{}", server.port);
    for url in [format!("redis://{at}"), format!("redis://:wrong@{at}")] {
        let refused = leasehold_redis::connect(&url).await.expect_err("they are wrong");
        assert_eq!(refused.kind, ErrorKind::Unauthenticated, "{refused}");
        assert!(!refused.to_string().contains("wrong@"), "{refused}");
    }
    let url = format!("redis://:secret@{at}");
    let engine = leasehold_redis::connect(&url).await.expect("they are right");
    assert!(!engine.url.contains("secret"));
    let rules = ["+@all", "-eval", "-evalsha"];
    let client = redis::Client::open(url.as_str()).expect("a URL");
    let mut line = client.get_connection().expect("it is there");
    let mut ask = redis::cmd("ACL");
    ask.arg("SETUSER").arg("weak").arg("on").arg(">pass").arg("~*").arg("&*");
    ask.arg(&rules[..]);
    let () = ask.query(&mut line).expect("it is set");
    let weak = leasehold_redis::connect(&format!("redis://weak:pass@{at}")).await;
    let weak = Leasehold::new(weak.expect("it may come in"));
    let refused = weak.lock("x").acquire().await.expect_err("it may not");
    assert_eq!(refused.kind, ErrorKind::Forbidden, "{refused}");
}
