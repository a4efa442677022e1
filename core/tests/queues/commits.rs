//! Commits and repeated requests.

use super::*;

#[test]
fn a_commit_with_one_bad_part_does_nothing_and_a_good_one_all() {
    let mut b = Bench::new();
    let x = b.session();
    b.queue("in", plain());
    b.queue("out", QueueConfig { messages_max: Some(2), overflow: Overflow::Reject, ..plain() });
    b.put("in", "1");
    b.consume(x, "in", 1);
    let receipt = b.one().receipt;
    let acquire = Acquire {
        wants: Wants::One(name("lock"), Mode::Exclusive),
        hold: 1,
        reentrant: false,
        tenure: Tenure { ttl_us: None, session: true },
        wait: Wait::No,
        lock_delay_us: 0,
        label: None,
    };
    let Ok(Outcome::Granted { token, .. }) = b.ask(x, Op::Acquire(Box::new(acquire))) else {
        panic!("the lock is free")
    };
    let publish = |queue: &str| {
        let target = Target::QueueNamed(name(queue));
        Publish { target, message: Message::new("m"), mandatory: true }
    };
    let write = Write {
        key: b"k".as_slice().into(),
        value: Some(b"v".as_slice().into()),
        expect: Expect::Absent,
        ttl: RegisterTtl::Never,
        guard: Some((name("lock"), token)),
    };
    let good = Commit {
        checks: vec![(name("lock"), token)],
        settles: vec![(x, receipt, Verdict::Ack)],
        publishes: vec![publish("out"), publish("out")],
        writes: vec![write.clone()],
        releases: vec![(x, HoldRef { name: name("lock"), token, hold: 1 })],
    };
    let stale = Token(token.0 - 1);
    let bad: Vec<Commit> = vec![
        Commit { checks: vec![(name("lock"), stale)], ..good.clone() },
        Commit { settles: vec![(x, receipt, Verdict::Ack); 2], ..good.clone() },
        Commit { publishes: vec![publish("out"), publish("none")], ..good.clone() },
        Commit { publishes: vec![publish("out"), publish("out"), publish("out")], ..good.clone() },
        Commit { writes: vec![Write { expect: Expect::Present, ..write.clone() }], ..good.clone() },
        Commit { writes: vec![write.clone(), write], ..good.clone() },
        Commit { releases: vec![good.releases[0].clone(); 2], ..good.clone() },
    ];
    for commit in bad {
        let before = b.shard.log.records.len();
        let answer = b.ask(x, Op::Commit(Box::new(commit.clone())));
        assert!(answer.is_err(), "{commit:?}");
        assert_eq!(b.shard.log.records.len(), before, "{answer:?} left a trace");
    }
    let answer = b.ask(x, Op::Commit(Box::new(good)));
    assert!(matches!(answer, Ok(Outcome::Committed { ref versions }) if versions.len() == 1));
    assert_eq!((b.view("in").in_flight, b.ready("in"), b.ready("out")), (0, 0, 2));
    assert_eq!(b.ask(ME, Op::Check(name("lock"), token)), Ok(Outcome::Held(false)));
    b.done();
}

#[test]
fn a_commit_may_hold_parts_of_several_sessions() {
    let mut b = Bench::new();
    let (x, y) = (b.session(), b.session());
    b.queue("in", plain());
    let mut receipts = Vec::new();
    for who in [x, y] {
        b.put("in", "m");
        b.consume(who, "in", 1);
        receipts.push(b.one().receipt);
    }
    let mut releases = Vec::new();
    for (who, lock) in [(ME, "theirs by time"), (y, "by session")] {
        let bound = who != ME;
        let acquire = Acquire {
            wants: Wants::One(name(lock), Mode::Exclusive),
            hold: 1,
            reentrant: false,
            tenure: Tenure { ttl_us: (!bound).then_some(SECOND), session: bound },
            wait: Wait::No,
            lock_delay_us: 0,
            label: None,
        };
        let Ok(Outcome::Granted { token, .. }) = b.ask(who, Op::Acquire(Box::new(acquire))) else {
            panic!("the lock is free")
        };
        releases.push((who, HoldRef { name: name(lock), token, hold: 1 }));
    }
    let ack = |who, receipt| (who, receipt, Verdict::Ack);
    let settles = vec![ack(x, receipts[0]), ack(y, receipts[1])];
    let good = Commit { settles, releases, ..Commit::default() };
    let late = HoldRef { token: Token(receipts[0].token.0), ..good.releases[1].1.clone() };
    let foreign = vec![ack(x, receipts[0]), ack(x, receipts[1])];
    let nobodys = vec![ack(x, receipts[0]), ack(ME, receipts[1])];
    let bad = [
        Commit { settles: foreign, ..good.clone() },
        Commit { settles: nobodys, ..good.clone() },
        Commit { releases: vec![good.releases[0].clone(), (y, late)], ..good.clone() },
        Commit { releases: vec![(x, good.releases[0].1.clone())], ..good.clone() },
        Commit { releases: vec![(ME, good.releases[1].1.clone())], ..good.clone() },
    ];
    for commit in bad {
        let before = b.shard.log.records.len();
        // Whoever asks, a part counts for the session that it names.
        let answer = b.ask(y, Op::Commit(Box::new(commit)));
        assert!(answer.is_err(), "{answer:?}");
        assert_eq!(b.shard.log.records.len(), before, "{answer:?} left a trace");
    }
    let answer = b.ask(ME, Op::Commit(Box::new(good.clone())));
    assert_eq!(answer, Ok(Outcome::Committed { versions: Vec::new() }));
    assert_eq!((b.view("in").in_flight, b.view("in").totals.acked), (0, 2));
    for (_, HoldRef { name, token, .. }) in good.releases {
        assert_eq!(b.ask(ME, Op::Check(name, token)), Ok(Outcome::Held(false)));
    }
    b.done();
}

#[test]
fn a_repeated_request_is_carried_out_once() {
    let mut b = Bench::new();
    b.queue("q", plain());
    let target = Target::QueueNamed(name("q"));
    let publish = Publish { target, message: Message::new("m"), mandatory: true };
    for _ in 0..2 {
        let op = Op::Publish(Box::new(publish.clone()));
        assert_eq!(b.shard.try_ask(ME, Some(77), op), Some(published(1, 0)));
        b.shard.restart();
    }
    assert_eq!(b.ready("q"), 1);
    b.done();
}
