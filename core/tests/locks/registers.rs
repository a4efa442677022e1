//! Registers: compare-and-set, guards, expiry.

use super::*;

pub fn write(key: &str, value: Option<&str>) -> Write {
    Write {
        key: key.as_bytes().into(),
        value: value.map(|text| text.as_bytes().into()),
        expect: Expect::Anything,
        ttl: RegisterTtl::Never,
        guard: None,
    }
}

pub fn written(answer: Answer) -> u64 {
    match answer {
        Ok(Outcome::Written { version }) => version,
        other => panic!("{other:?}"),
    }
}

impl Shard {
    pub fn write(&mut self, write: Write) -> Answer {
        self.ask(SessionId::NONE, Op::Write(Box::new(write)))
    }

    pub fn read(&mut self, key: &str) -> Option<(String, u64, Option<Time>)> {
        match self.ask(SessionId::NONE, Op::Read(key.as_bytes().into())) {
            Ok(Outcome::Register(view)) => view.map(|view| {
                (String::from_utf8(view.value.to_vec()).unwrap(), view.version, view.left_us)
            }),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn registers_compare_and_set_under_a_guard() {
    let mut s = Shard::new();
    let [a] = s.sessions();
    let expecting = |value, expect| Write { expect, ..write("k", value) };
    assert_eq!(s.write(expecting(Some("v"), Expect::Present)), Err(Refusal::Conflict(None)));
    let one = written(s.write(expecting(Some("1"), Expect::Absent)));
    assert_eq!(s.write(expecting(Some("2"), Expect::Absent)), Err(Refusal::Conflict(Some(one))));
    let two = written(s.write(expecting(Some("2"), Expect::Version(one))));
    assert!(two > one);
    let late = s.write(expecting(Some("3"), Expect::Version(one)));
    assert_eq!(late, Err(Refusal::Conflict(Some(two))));
    assert_eq!(s.read("k"), Some(("2".into(), two, None)));
    let held = lock("x").get(&mut s, a);
    let guarded = Write { guard: Some((name("x"), held)), ..write("k", Some("held")) };
    let three = written(s.write(guarded.clone()));
    s.release(a, "x", held, 0).unwrap();
    assert!(matches!(s.write(guarded), Err(Refusal::StaleToken { .. })));
    let gone = written(s.write(expecting(None, Expect::Version(three))));
    assert_eq!(s.read("k"), None);
    let nothing = written(s.write(write("k", None)));
    let reborn = written(s.write(write("k", Some("again"))));
    assert!(gone > three && nothing > gone && reborn > nothing, "versions survive deletion");
    let retried = |s: &mut Shard| {
        let ticket = s.send(a, Some(9), Op::Write(Box::new(write("once", Some("v")))));
        written(s.answer(ticket))
    };
    assert_eq!(retried(&mut s), retried(&mut s));
    s.done();
}

#[test]
fn a_register_is_absent_from_the_moment_its_ttl_ends() {
    let mut s = Shard::new();
    let lasting = |value, ttl| Write { ttl, ..write("k", Some(value)) };
    let ttl = RegisterTtl::After(10 * MS + 1);
    let first = written(s.write(lasting("a", ttl)));
    s.at(5 * MS);
    let second = written(s.write(lasting("b", RegisterTtl::Keep)));
    s.at(10 * MS);
    assert_eq!(s.read("k"), Some(("b".into(), second, Some(1))));
    s.at(10 * MS + 1);
    assert_eq!(s.read("k"), None);
    let absent = Write { expect: Expect::Absent, ..lasting("c", RegisterTtl::Keep) };
    let third = written(s.write(absent));
    assert!(third > second && second > first);
    s.at(DAY);
    assert_eq!(s.read("k"), Some(("c".into(), third, None)), "the old timer spares the new value");
    written(s.write(lasting("d", RegisterTtl::After(SECOND))));
    s.restart();
    s.at(DAY + SECOND);
    assert_eq!(s.read("k"), None);
    assert!(s.core.state().registers().is_empty(), "the timer took the garbage away");
    s.done();
}
