//! Locks, sessions and registers in their ordinary course, and how holds end.

mod support;

use std::sync::Arc;
use std::time::Duration;

use leasehold_api::engine::{
    Ending, Expect, List, LockEngine, OpenSession, RegisterTtl, RequestId, Write,
};
use leasehold_api::{Atomicity, Ends, ErrorKind, Fencing, Mode, Retry, Survives, Wait, Waiting};
use leasehold_native::NativeEngine;
use leasehold_node::Durability;
use support::*;

fn write(key: &str, value: Option<&str>, expect: Expect) -> Write {
    Write {
        key: key.into(),
        value: value.map(Into::into),
        expect,
        ttl: RegisterTtl::Never,
        guard: None,
        request: None,
    }
}

#[tokio::test]
async fn it_says_what_it_promises() {
    let none = leasehold_node::Options { durability: Durability::None, ..small() };
    let promises = home().engine().locks.expect("locks").guarantees();
    assert_eq!((promises.fencing, promises.ends), (Fencing::Strict, Ends::Both));
    assert_eq!((promises.waiting, promises.atomicity), (Waiting::Fair, Atomicity::Commit));
    assert_eq!(promises.survives, Survives::Power);
    assert_eq!(home_with(none).guarantees().survives, Survives::Process);
    let memory = NativeEngine::memory(small()).expect("started");
    assert_eq!(memory.engine().queues.expect("queues").guarantees().survives, Survives::Nothing);
    assert_eq!(&*memory.engine().url, "mem:");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_is_taken_renewed_checked_shown_and_released() {
    let home = home();
    let session = home.session().await;
    let mut ask = asking("nightly", Some(&session), Wait::No);
    ask.label = Some(Arc::from("report"));
    let grant = home.acquire(&ask).await.expect("granted");
    assert_eq!((grant.left, grant.entries), (Some(TTL), 1));
    let hold = held("nightly", grant.token, Some(&session));
    assert!(home.check("nightly", grant.token).await.expect("checked"));
    assert!(!home.check("hourly", grant.token).await.expect("checked"));
    assert_eq!(home.renew(&hold, TTL * 2).await.expect("renewed"), Some(TTL * 2));

    let busy = home.acquire(&asking("nightly", None, Wait::No)).await.expect_err("held");
    assert_eq!((busy.kind, busy.retry), (ErrorKind::Busy, Retry::Later));
    assert_eq!(busy.asked, "acquire lock nightly");
    assert!(busy.wrong.contains(&format!("held with token {}", grant.token)), "{busy}");

    let view = home.inspect("nightly").await.expect("shown");
    assert_eq!((view.name.as_str(), view.waiting), ("nightly", 0));
    let [holder] = &view.holders[..] else { panic!("one holder, not {:?}", view.holders) };
    assert_eq!((holder.token, holder.session), (grant.token, session.id));
    assert_eq!((holder.mode, holder.label.as_deref()), (Mode::Exclusive, Some("report")));

    assert_eq!(home.release(&hold).await.expect("released"), 0);
    let stale = home.release(&hold).await.expect_err("released before");
    assert_eq!((stale.kind, stale.retry), (ErrorKind::Stale, Retry::Never));
    assert_eq!(stale.asked, "release lock nightly");
    assert!(home.inspect("nightly").await.expect("shown").holders.is_empty());
    assert_eq!(home.kept().holds, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_locks_modes_and_request_ids() {
    let home = home();
    let session = home.session().await;
    let mut ask = asking("a", Some(&session), Wait::No);
    ask.wants = vec![want("a"), want("b")];
    ask.request = Some(RequestId(7));
    let grant = home.acquire(&ask).await.expect("granted");
    let again = home.acquire(&ask).await.expect("answered alike");
    assert_eq!(again.token, grant.token);
    assert!(home.check("b", grant.token).await.expect("checked"));
    assert_eq!(home.leave("b", grant.token, Some(&session)).await, 0);
    assert_eq!(kind(home.acquire(&ask).await), ErrorKind::Spent);

    let permits = |take| {
        let mut ask = asking("pool", Some(&session), Wait::No);
        ask.wants[0].mode = Mode::Permits { take, of: 3 };
        ask
    };
    home.acquire(&permits(2)).await.expect("granted");
    assert_eq!(kind(home.acquire(&permits(2)).await), ErrorKind::Busy);
    home.acquire(&permits(1)).await.expect("granted");
    let mut other = permits(1);
    other.wants[0].mode = Mode::Permits { take: 1, of: 5 };
    assert_eq!(kind(home.acquire(&other).await), ErrorKind::Different);
    assert_eq!(home.force_release("pool").await.expect("forced"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_are_served_in_order() {
    let home = home();
    let first = home.take("nightly", None).await;
    let sessions = [home.session().await, home.session().await];
    let asks = sessions.each_ref().map(|one| asking("nightly", Some(one), Wait::Forever));
    let mut one = Box::pin(home.acquire(&asks[0]));
    let mut two = Box::pin(home.acquire(&asks[1]));
    assert!(poll(&mut one).await.is_pending());
    assert!(poll(&mut two).await.is_pending());
    home.round_trip().await;
    assert_eq!(home.inspect("nightly").await.expect("shown").waiting, 2);
    home.leave("nightly", first.token, None).await;
    let granted = soon(one).await.expect("granted");
    assert!(poll(&mut two).await.is_pending());
    home.leave("nightly", granted.token, Some(&sessions[0])).await;
    assert!(soon(two).await.expect("granted").token > granted.token);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_end_of_a_hold_is_told() {
    let home = home();
    let owner = home.session().await;
    let bound = |name: &str, ttl| {
        let mut ask = asking(name, Some(&owner), Wait::No);
        (ask.bound, ask.ttl) = (true, ttl);
        ask
    };
    let short = Some(Duration::from_millis(20));
    let expires = home.acquire(&bound("a", short)).await.expect("granted").ended;
    let ended = soon(expires.expect("it is told")).await;
    assert_eq!(ended, Ok(Ending::Expired));

    let taken = home.acquire(&bound("a", None)).await.expect("granted").ended;
    home.force_release("a").await.expect("forced");
    assert_eq!(soon(taken.expect("it is told")).await, Ok(Ending::Revoked));

    let closed = home.acquire(&bound("a", None)).await.expect("granted").ended;
    home.close_session(&owner).await.expect("closed");
    assert_eq!(soon(closed.expect("it is told")).await, Ok(Ending::SessionLost));

    let ask = OpenSession { ttl: short, ..OpenSession::default() };
    let silent = home.open_session(&ask).await.expect("opened").session;
    let mut ask = asking("a", Some(&silent), Wait::AtMost(PATIENCE));
    (ask.bound, ask.ttl) = (true, None);
    let lost = home.acquire(&ask).await.expect("granted").ended;
    assert_eq!(soon(lost.expect("it is told")).await, Ok(Ending::SessionLost));
    assert_eq!(kind(home.keep_alive(&silent).await), ErrorKind::NoSession);

    assert!(home.take("a", None).await.ended.is_none(), "without a session nobody tells");
    assert_eq!((home.kept().holds, home.kept().sessions), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_kept_alive_taken_up_and_closed() {
    let home = home();
    let ask = OpenSession { ttl: Some(TTL), resume: None, label: Some(Arc::from("worker")) };
    let opened = home.open_session(&ask).await.expect("opened");
    assert!(!opened.resumed);
    home.keep_alive(&opened.session).await.expect("kept");
    let mut hold = asking("nightly", Some(&opened.session), Wait::No);
    hold.bound = true;
    let grant = home.acquire(&hold).await.expect("granted");

    let resume = OpenSession { resume: Some(opened.session.clone()), ..ask };
    let again = home.open_session(&resume).await.expect("taken up");
    assert_eq!((again.resumed, &again.session), (true, &opened.session));
    assert_eq!(home.kept().slots, 1, "the old ticket is forgotten");
    home.force_release("nightly").await.expect("forced");
    assert_eq!(soon(grant.ended.expect("it is told")).await, Ok(Ending::Revoked));

    home.close_session(&again.session).await.expect("closed");
    assert_eq!(kind(home.close_session(&again.session).await), ErrorKind::NoSession);
    assert_eq!(kind(home.open_session(&resume).await), ErrorKind::NoSession);
    assert_eq!(home.kept(), Default::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_holds_leave_nothing() {
    let home = home();
    let session = home.session().await;
    for i in 0..3000 {
        let mut ask = asking("many", Some(&session), Wait::No);
        (ask.hold, ask.wants[0].mode) = (i, Mode::Shared);
        drop(home.acquire(&ask).await.expect("granted"));
    }
    assert!(home.kept().holds <= 1025, "{:?}", home.kept());
    for i in 0..3000 {
        let mut ask = asking("more", Some(&session), Wait::No);
        (ask.hold, ask.wants[0].mode) = (i, Mode::Shared);
        let grant = home.acquire(&ask).await.expect("granted");
        let mut hold = held("more", grant.token, Some(&session));
        hold.hold = i;
        home.release(&hold).await.expect("released");
    }
    home.close_session(&session).await.expect("closed");
    assert!(home.kept().holds <= 1025 && home.kept().slots == 0, "{:?}", home.kept());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_a_lock_is_seen() {
    let home = home();
    let grant = home.take("nightly", None).await;
    let same = home.watch("nightly", Some(grant.token), Duration::ZERO).await.expect("shown");
    assert_eq!(same.holders[0].token, grant.token);
    let other = home.watch("nightly", None, TTL);
    assert_eq!(soon(other).await.expect("at once").holders.len(), 1);
    let mut watch = Box::pin(home.watch("nightly", Some(grant.token), TTL));
    assert!(poll(&mut watch).await.is_pending());
    home.leave("nightly", grant.token, None).await;
    assert!(soon(watch).await.expect("shown").holders.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registers_are_written_read_and_watched() {
    let home = home();
    assert_eq!(home.read(b"leader").await.expect("read"), None);
    let first = home.write(&write("leader", Some("a"), Expect::Absent)).await.expect("written");
    let again = home.write(&write("leader", Some("b"), Expect::Absent)).await;
    let again = again.expect_err("it has a value");
    assert_eq!((again.kind, again.asked.as_str()), (ErrorKind::Conflict, "write register leader"));
    let mut watch = Box::pin(home.watch_register(b"leader", Some(first), TTL));
    assert!(poll(&mut watch).await.is_pending());
    let mut next = write("leader", Some("b"), Expect::Version(first));
    next.ttl = RegisterTtl::After(TTL);
    let second = home.write(&next).await.expect("written");
    let seen = soon(watch).await.expect("seen").expect("a value");
    assert_eq!((seen.value.as_slice(), seen.version), (&b"b"[..], second));
    assert!(seen.left.is_some_and(|left| left <= TTL));

    let grant = home.take("nightly", None).await;
    let mut guarded = write("leader", None, Expect::Present);
    guarded.guard = Some((Arc::from("nightly"), grant.token));
    home.leave("nightly", grant.token, None).await;
    assert_eq!(kind(home.write(&guarded).await), ErrorKind::Stale);
    guarded.guard = None;
    home.write(&guarded).await.expect("deleted");
    assert_eq!(home.read(b"leader").await.expect("read"), None);
    assert_eq!(kind(home.read(b"").await), ErrorKind::Invalid);
    assert_eq!(kind(home.watch_register(b"", None, TTL).await), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_go_on_where_they_stopped() {
    let home = home();
    for i in 0..25 {
        home.take(&format!("jobs/{i}"), None).await;
        home.write(&write(&format!("keys/{i}"), Some("x"), Expect::Anything)).await.expect("ok");
    }
    home.take("other", None).await;
    let (mut locks, mut keys) = (Vec::new(), Vec::new());
    let mut ask = List { prefix: "jobs/".to_owned(), after: 0, max: 10 };
    loop {
        let page = home.list_locks(&ask).await.expect("listed");
        assert!(page.items.len() <= 10);
        locks.extend(page.items.into_iter().map(|lock| lock.name));
        let Some(next) = page.next else { break };
        ask.after = next;
    }
    ask = List { prefix: "keys/".to_owned(), after: 0, max: 10 };
    loop {
        let page = home.list_registers(&ask).await.expect("listed");
        keys.extend(page.items.into_iter().map(|register| (register.key, register.bytes)));
        let Some(next) = page.next else { break };
        ask.after = next;
    }
    locks.sort();
    locks.dedup();
    assert_eq!((locks.len(), keys.len()), (25, 25));
    assert!(keys.iter().all(|(_, bytes)| *bytes == 1));
    ask.max = 0;
    assert_eq!(kind(home.list_locks(&ask).await), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said() {
    let home = home();
    let session = home.session().await;
    let bad = home.acquire(&asking("a\nb", None, Wait::No)).await.expect_err("a bad name");
    assert_eq!((bad.kind, bad.retry), (ErrorKind::Invalid, Retry::Never));
    assert!(bad.wrong.contains("control character at byte 1"), "{bad}");
    for name in ["", &"x".repeat(256)] {
        assert_eq!(kind(home.inspect(name).await), ErrorKind::Invalid);
        assert_eq!(kind(home.watch(name, None, TTL).await), ErrorKind::Invalid);
        assert_eq!(kind(home.force_release(name).await), ErrorKind::Invalid);
        assert_eq!(kind(home.check(name, 1).await), ErrorKind::Invalid);
    }
    let mut none = asking("a", None, Wait::No);
    none.wants.clear();
    assert_eq!(kind(home.acquire(&none).await), ErrorKind::Invalid);
    let mut endless = asking("a", None, Wait::No);
    endless.ttl = None;
    assert_eq!(kind(home.acquire(&endless).await), ErrorKind::Invalid);

    let grant = home.take("a", Some(&session)).await;
    let foreign = held("a", grant.token, None);
    assert_eq!(kind(home.renew(&foreign, TTL).await), ErrorKind::Foreign);
    assert_eq!(kind(home.release(&foreign).await), ErrorKind::Foreign);
    let never = held("a", grant.token + 1_000, None);
    assert_eq!(kind(home.release(&never).await), ErrorKind::Invalid);
    let brief = asking("a", None, Wait::AtMost(Duration::from_millis(5)));
    let late = home.acquire(&brief).await.expect_err("held");
    assert_eq!((late.kind, late.retry), (ErrorKind::TimedOut, Retry::Later));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_is_refused_with_its_cycle() {
    let home = home();
    let (one, two) = (home.session().await, home.session().await);
    home.take("a", Some(&one)).await;
    home.take("b", Some(&two)).await;
    let ask = asking("b", Some(&one), Wait::Forever);
    let mut waits = Box::pin(home.acquire(&ask));
    assert!(poll(&mut waits).await.is_pending());
    home.round_trip().await;
    let refused = home.acquire(&asking("a", Some(&two), Wait::Forever)).await;
    let refused = refused.expect_err("a deadlock");
    assert_eq!(refused.kind, ErrorKind::Deadlock);
    assert!(refused.wrong.contains("waits for b"), "{refused}");
    // A session that ends takes its waiters along.
    home.close_session(&one).await.expect("closed");
    assert_eq!(kind(soon(waits).await), ErrorKind::NoSession);
}
