//! What is refused.

use super::registers::{write, written};
use super::*;

#[test]
fn bad_input_gets_a_typed_refusal() {
    assert_eq!(Name::new(""), Err(NameError::Empty));
    assert_eq!(Name::new(&"n".repeat(256)), Err(NameError::TooLong(256)));
    assert_eq!(Name::new("a\0b"), Err(NameError::Control(1)));
    assert!(Name::new(&"n".repeat(255)).is_ok() && Name::new("Lager/Käse ✓").is_ok());
    let mut s = Shard::new();
    let [a] = s.sessions();
    let (min, max) = (MS, 366 * DAY);
    for ttl in [0, 1, 1000 * 365 * DAY, u64::MAX] {
        let refused = Err(Refusal::Time("the TTL", ttl, min, max));
        assert_eq!(s.ask(a, lock("x").ttl(ttl).op()), refused);
    }
    let zero = Err(Refusal::Zero("the number of permits"));
    assert_eq!(s.ask(a, lock("x").permits(0, 3).op()), zero);
    for (take, of) in [(4, 3), (1, 1 << 21), (u32::MAX, u32::MAX)] {
        let refused = s.ask(a, lock("x").permits(take, of).op());
        assert!(matches!(refused, Err(Refusal::TooLarge(..))), "{refused:?}");
    }
    assert_eq!(s.ask(a, many(&[]).op()), Err(Refusal::Zero("the list of locks")));
    let twice = many(&[("x", Mode::Shared), ("x", Mode::Exclusive)]).op();
    assert_eq!(s.ask(a, twice), Err(Refusal::NamedTwice(name("x"))));
    let names: Vec<String> = (0..65).map(|i| i.to_string()).collect();
    let wants: Vec<_> = names.iter().map(|text| (&text[..], Mode::Shared)).collect();
    assert!(matches!(s.ask(a, many(&wants).op()), Err(Refusal::TooLarge(_, 65, 64))));
    assert_eq!(s.ask(SessionId::NONE, lock("x").op()), Err(Refusal::NoTenure));
    let mut endless = lock("x");
    endless.0.tenure = Tenure { ttl_us: None, session: false };
    assert_eq!(s.ask(a, endless.op()), Err(Refusal::NoTenure));
    let ghost = SessionId(u64::MAX);
    assert_eq!(s.ask(ghost, lock("x").op()), Err(Refusal::NoSession(ghost)));
    let slow = s.ask(a, lock("x").delay(61 * SECOND).op());
    assert!(matches!(slow, Err(Refusal::Time("the lock-delay", ..))));
    let mut wordy = lock("x");
    wordy.0.label = Some("l".repeat(1025).into());
    assert!(matches!(s.ask(a, wordy.op()), Err(Refusal::TooLarge(_, 1025, 1024))));
    assert!(matches!(s.write(write("", Some("v"))), Err(Refusal::Zero(_))));
    let long = write(&"k".repeat(1025), Some("v"));
    assert!(matches!(s.write(long), Err(Refusal::TooLarge(_, 1025, 1024))));
    let op = Op::OpenSession { ttl_us: Some(0), resume: None, label: None };
    assert!(matches!(s.ask(a, op), Err(Refusal::Time(_, 0, ..))));
    assert!(s.core.state().locks().is_empty(), "nothing came of any of it");
    s.done();
}

#[test]
fn limits_refuse_one_more() {
    let limits = Limits {
        locks_max: 1,
        waiters_max: 1,
        sessions_max: 2,
        registers_max: 1,
        entries_max: 2,
        ..Limits::default()
    };
    let mut s = Shard::with(limits);
    let [a, b] = s.sessions();
    let op = Op::OpenSession { ttl_us: None, resume: None, label: None };
    assert_eq!(s.ask(SessionId::NONE, op), Err(Refusal::Limit("sessions", 2)));
    lock("x").again().get(&mut s, a);
    lock("x").again().get(&mut s, a);
    let deep = s.ask(a, lock("x").again().op());
    assert_eq!(deep, Err(Refusal::Limit("entries of one hold", 2)));
    assert_eq!(s.ask(a, lock("y").op()), Err(Refusal::Limit("locks", 1)));
    let waiting = lock("x").send(&mut s, b);
    assert_eq!(s.ask(b, lock("x").hold(1).op()), Err(Refusal::Limit("waiters", 1)));
    written(s.write(write("k", Some("v"))));
    assert_eq!(s.write(write("l", Some("v"))), Err(Refusal::Limit("registers", 1)));
    written(s.write(write("k", Some("w"))));
    s.close(a, false);
    s.token(waiting);
    s.done();
}
