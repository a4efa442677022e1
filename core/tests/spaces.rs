//! Spaces of keys: counting, walking, emptying. Every test ends with the laws.

mod support;

use std::collections::BTreeSet;

use leasehold_core::content::Bytes;
use leasehold_core::limits::SECOND;
use leasehold_core::*;

use support::{Shard, bytes, decide};

fn shard() -> Shard {
    Shard::new(Limits { work_per_step: 16, ..Limits::default() })
}

fn key(space: u8, name: &str) -> Vec<u8> {
    match space {
        0 => name.as_bytes().to_vec(),
        _ => [&space::MARK[..], &[space], name.as_bytes()].concat(),
    }
}

fn set(shard: &mut Shard, space: u8, name: &str) {
    decide(shard, |keys| keys.set(&key(space, name), bytes("v"))).expect("it may be written");
}

fn count(shard: &mut Shard, space: u8) -> usize {
    decide(shard, |keys| keys.count(space))
}

/// All keys of a space by a walk of steps of so many places.
fn walk(keys: &Keys<'_, '_>, space: u8, places: usize) -> BTreeSet<Bytes> {
    let mut found = BTreeSet::new();
    let mut from = 0;
    loop {
        let (some, next) = keys.scan(space, from, places);
        assert!(some.len() <= places, "a step is bounded");
        found.extend(some);
        match next {
            Some(next) => from = next,
            None => return found,
        }
    }
}

fn done(mut shard: Shard) {
    shard.laws();
    shard.checkpoint(true, usize::MAX);
    shard.laws();
    shard.restart();
    shard.laws();
    while !shard.tick() {}
    shard.laws();
    let state = shard.core.state();
    assert_eq!(state.registers().len(), state.register_count(), "what is gone was cleared");
}

#[test]
fn spaces_are_counted_walked_and_emptied_apart() {
    let mut shard = shard();
    for n in 0..40 {
        set(&mut shard, 0, &format!("k{n}"));
        set(&mut shard, 7, &format!("k{n}"));
    }
    set(&mut shard, 255, "last");
    assert_eq!([0, 1, 7, 255].map(|space| count(&mut shard, space)), [40, 0, 40, 1]);
    decide(&mut shard, |keys| {
        let all: BTreeSet<Bytes> = (0..40).map(|n| key(7, &format!("k{n}"))[..].into()).collect();
        assert_eq!(walk(keys, 7, 7), all);
        assert!((0..40).all(|place| keys.at(7, place).is_some_and(|key| all.contains(&key))));
        assert_eq!((keys.places(7), keys.at(7, 40)), (40, None));
    });
    decide(&mut shard, |keys| keys.empty(7));
    assert_eq!([0, 7].map(|space| count(&mut shard, space)), [40, 0]);
    decide(&mut shard, |keys| {
        assert!(keys.get(&key(7, "k3")).is_none() && keys.get(b"k3").is_some());
        assert!(walk(keys, 7, 100).is_empty());
    });
    let records = shard.log.records.len();
    decide(&mut shard, |keys| keys.empty(7));
    assert_eq!(shard.log.records.len(), records, "nothing was there");
    // Made anew while the old ones wait to be cleared.
    set(&mut shard, 7, "k5");
    assert_eq!(shard.core.state().registers().len(), 81);
    assert!(!shard.tick(), "one helping is not all");
    set(&mut shard, 7, "k39");
    while !shard.tick() {}
    assert_eq!(shard.core.state().registers().len(), 43);
    assert_eq!(count(&mut shard, 7), 2);
    decide(&mut shard, |keys| keys.empty_all());
    assert_eq!([0, 7, 255].map(|space| count(&mut shard, space)), [0; 3]);
    done(shard);
}

#[test]
fn a_walk_meets_every_key_that_is_there_all_the_time() {
    let mut shard = shard();
    let names: Vec<String> = (0..300).map(|n| format!("k{n}")).collect();
    names.iter().for_each(|name| set(&mut shard, 2, name));
    let mut gone = BTreeSet::new();
    let (mut seen, mut from, mut turn) = (BTreeSet::new(), 0, 0);
    loop {
        let (some, next) = decide(&mut shard, |keys| keys.scan(2, from, 7));
        seen.extend(some);
        // Some go, at all places, and others come.
        for n in [turn * 5 % 300, turn * 11 % 300, 299 - turn] {
            decide(&mut shard, |keys| keys.remove(&key(2, &names[n]))).expect("no lease");
            gone.insert(n);
        }
        set(&mut shard, 2, &format!("new{turn}"));
        turn += 1;
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    let stayed = (0..300).filter(|n| !gone.contains(n));
    let missed: Vec<usize> =
        stayed.filter(|n| !seen.contains(&Bytes::from(&key(2, &names[*n])[..]))).collect();
    assert!(gone.len() > 90 && missed.is_empty(), "missed {missed:?}");
    done(shard);
}

#[test]
fn a_decision_sees_that_it_has_emptied_a_space_and_what_it_made_since() {
    let mut shard = shard();
    ["a", "b", "c"].iter().for_each(|name| set(&mut shard, 3, name));
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| key(3, name));
    decide(&mut shard, |keys| {
        keys.set(&d, bytes("made")).unwrap();
        keys.remove(&c).unwrap();
        assert_eq!(keys.count(3), 3);
        keys.empty(3);
        assert_eq!(keys.count(3), 0);
        assert!([&a, &b, &c, &d].iter().all(|key| keys.get(key).is_none()));
        assert!(keys.expect_absent(&a));
        keys.set(&a, bytes("new")).unwrap();
        keys.expire(&a, Some(keys.now() + SECOND)).unwrap();
        assert_eq!((keys.count(3), keys.made(3).count()), (1, 1));
        assert!(walk(keys, 3, 10).is_empty());
    });
    assert_eq!(count(&mut shard, 3), 1);
    let state = shard.core.state();
    let slot = state.register_at(&a).expect("it is there");
    assert_ne!(state.registers()[slot].claim, 0, "sought in vain and made: a claim");
    decide(&mut shard, |keys| {
        keys.empty(3);
        keys.abandon();
    });
    assert_eq!(count(&mut shard, 3), 1, "what is abandoned has not been");
    done(shard);
}

#[test]
fn whoever_watches_a_key_is_told_that_its_space_was_emptied() {
    let mut shard = shard();
    set(&mut shard, 0, "key");
    let version = shard.core.state().registers().iter().next().expect("the key").1.version;
    let watch = Op::WatchRegister { key: bytes("key"), known: Some(version), wait: Wait::Forever };
    let watching = shard.send(SessionId::NONE, None, watch);
    decide(&mut shard, |keys| keys.empty(0));
    let told = shard.said.iter().any(|kind| {
        let gone = Outcome::Register(None);
        matches!(kind, EffectKind::Reply(to, Ok(told)) if *to == watching && *told == gone)
    });
    assert!(told, "{:?}", shard.said);
    let list = List { what: Listed::Registers, prefix: "".into(), after: 0, max: 10 };
    let Ok(Outcome::Listed(listing)) = shard.ask(SessionId::NONE, Op::List(list)) else {
        panic!("a list")
    };
    assert!(listing.items.is_empty(), "what is gone is not listed: {listing:?}");
    let limit = Limits { registers_max: 1, ..Limits::default() };
    let mut small = Shard::new(limit);
    set(&mut small, 0, "one");
    decide(&mut small, |keys| keys.empty(0));
    set(&mut small, 0, "another");
    done(small);
    done(shard);
}
