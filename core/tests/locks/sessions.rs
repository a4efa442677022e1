//! Sessions, and what is left of them after a restart.

use super::registers::{write, written};
use super::*;

#[test]
fn a_lost_session_loses_its_locks_and_its_waiters_but_not_what_it_holds_by_ttl() {
    let mut s = Shard::new();
    let a = s.session(Some(5 * SECOND));
    let [b, c] = s.sessions();
    let bound = lock("bound").get(&mut s, a);
    let by_ttl = lock("ttl").ttl(60 * SECOND).get(&mut s, a);
    let other = lock("other").get(&mut s, b);
    let blocked = lock("other").hold(1).send(&mut s, a);
    let heir = lock("bound").send(&mut s, c);
    s.at(4 * SECOND);
    assert_eq!(s.ask(a, Op::KeepAlive), Ok(Outcome::Done));
    s.at(9 * SECOND - 1);
    assert!(s.waits(heir));
    s.at(9 * SECOND);
    assert!(s.token(heir) > bound);
    assert_eq!(s.answer(blocked), Err(Refusal::NoSession(a)));
    assert!(matches!(
        s.notices[..],
        [EffectKind::HoldEnded(_, t, Ending::SessionLost), EffectKind::SessionEnded(_, id)]
            if t == bound && id == a
    ));
    assert_eq!(s.ask(a, Op::KeepAlive), Err(Refusal::NoSession(a)));
    assert_eq!(s.ask(SessionId::NONE, Op::KeepAlive), Err(Refusal::SessionNeeded));
    assert_eq!(s.view("ttl").holders, [by_ttl]);
    s.at(60 * SECOND);
    assert!(s.view("ttl").holders.is_empty());
    assert_eq!(s.view("other").holders, [other]);
    s.done();
}

#[test]
fn after_a_restart_holders_keep_their_locks_and_sessions_can_be_taken_up_again() {
    let mut s = Shard::new();
    let a = s.session(Some(5 * SECOND));
    let [b, c] = s.sessions();
    let by_ttl = lock("ttl").ttl(50 * SECOND).get(&mut s, SessionId::NONE);
    let bound = lock("bound").hold(3).get(&mut s, a);
    let both = lock("both").both(100 * SECOND).get(&mut s, a);
    let lost = lock("lost").get(&mut s, b);
    let waiting = lock("ttl").send(&mut s, c);
    s.at(10 * MS);
    s.restart();
    assert!(s.waits(waiting), "waiters are volatile; clients ask again");
    let d = s.session(None);
    assert!(d.0 > lost.0, "numbers rise over a restart");
    let waiters: Vec<u64> =
        ["ttl", "bound", "both", "lost"].map(|text| lock(text).send(&mut s, d)).into();
    assert!(waiters.iter().all(|ticket| s.waits(*ticket)), "nobody overlaps");
    let resume = |id| Op::OpenSession { ttl_us: None, resume: Some(id), label: None };
    let unknown = SessionId(u64::MAX);
    assert_eq!(s.ask(SessionId::NONE, resume(unknown)), Err(Refusal::NoSession(unknown)));
    assert_eq!(s.ask(SessionId::NONE, resume(c)), Err(Refusal::NoSession(c)), "it held nothing");
    let back = s.ask(SessionId::NONE, resume(a));
    assert_eq!(back, Ok(Outcome::Session { id: a, resumed: true }));
    s.at(30 * SECOND + 10 * MS);
    assert!(s.token(waiters[3]) > lost, "b did not come back within the grace");
    s.at(50 * SECOND);
    assert!(s.token(waiters[0]) > by_ttl, "a TTL goes on over the restart");
    s.at(90 * SECOND);
    assert_eq!(s.view("bound").holders, [bound]);
    assert_eq!(s.view("both").holders, [both]);
    assert_eq!(s.release(a, "bound", bound, 3), Ok(Outcome::Released { entries: 0 }));
    s.token(waiters[1]);
    s.at(100 * SECOND + 10 * MS);
    s.token(waiters[2]);
    s.done();
}

#[test]
fn tokens_and_versions_rise_over_many_restarts() {
    let mut s = Shard::new();
    let mut seen = BTreeSet::new();
    let mut last = 0;
    for _ in 0..5 {
        let [a] = s.sessions();
        let held = lock("x").get(&mut s, a);
        s.release(a, "x", held, 0).unwrap();
        let version = written(s.write(write("k", Some("v"))));
        for number in [a.0, held.0, version] {
            assert!(number > last && seen.insert(number));
            last = number;
        }
        s.restart();
    }
    s.done();
}
