//! Messages: priorities, ids, delays, expiry, and what becomes of the dead.

use super::*;

#[test]
fn priorities_go_first_and_in_order_within_each() {
    let mut b = Bench::new();
    let x = b.session();
    b.queue("q", QueueConfig { priority_max: 2, ..plain() });
    for (body, priority) in [("low", 0), ("high", 9), ("mid", 1), ("high too", 2)] {
        assert_eq!(b.put_with("q", body, |m| m.priority = priority), published(1, 0));
    }
    b.consume(x, "q", 9);
    assert_eq!(b.bodies(), ["high", "high too", "mid", "low"]);
    b.done();
}

#[test]
fn a_message_id_is_taken_once_within_the_window() {
    let mut b = Bench::new();
    b.queue("q", QueueConfig { dedup_us: Some(SECOND), ..plain() });
    let with_id = |m: &mut Message| m.more().id = Some("order-1".into());
    assert_eq!(b.put_with("q", "1", with_id), published(1, 0));
    assert_eq!(b.put_with("q", "2", with_id), published(0, 1));
    b.shard.restart();
    assert_eq!(b.put_with("q", "3", with_id), published(0, 1));
    let twice = ["4", "5"].map(|body| {
        let mut message = Message::new(body);
        message.more().id = Some("order-2".into());
        Publish { target: Target::QueueNamed(name("q")), message, mandatory: false }
    });
    let commit = Commit { publishes: twice.into(), ..Commit::default() };
    assert_eq!(
        b.ask(ME, Op::Commit(Box::new(commit))),
        Ok(Outcome::Committed { versions: vec![] })
    );
    assert_eq!(b.ready("q"), 2, "within one commit too");
    b.after(2 * SECOND);
    assert_eq!(b.put_with("q", "6", with_id), published(1, 0));
    b.done();
}

#[test]
fn a_delayed_message_comes_when_it_is_due_across_a_restart() {
    let mut b = Bench::new();
    let x = b.session();
    b.queue("q", plain());
    let at = WALL + b.shard.log.now + 5 * SECOND;
    assert_eq!(b.put_with("q", "later", |m| m.more().due = Due::At(at)), published(1, 0));
    let soon = |m: &mut Message| m.more().due = Due::After(2 * SECOND);
    assert_eq!(b.put_with("q", "soon", soon), published(1, 0));
    assert_eq!(b.put_with("q", "past", |m| m.more().due = Due::At(7)), published(1, 0));
    b.consume(x, "q", 9);
    assert_eq!(b.bodies(), ["past"]);
    assert_eq!(b.view("q").delayed, 2);
    b.after(2 * SECOND + MS);
    assert_eq!(b.bodies(), ["soon"]);
    b.shard.restart();
    let x = b.session();
    b.consume(x, "q", 9);
    b.got();
    b.after(3 * SECOND);
    assert_eq!(b.bodies(), ["later"]);
    b.done();
}

#[test]
fn the_dead_are_counted_and_do_not_go_round_for_ever() {
    let mut b = Bench::new();
    let x = b.session();
    b.exchange("dlx", ExchangeKind::Direct);
    let exchange = Some(name("dlx"));
    let by_key = Some(DeadLetter { exchange, routing_key: None });
    b.queue("work", QueueConfig { deliveries_max: Some(2), dead_letter: by_key, ..plain() });
    b.queue("wait", QueueConfig { ttl_us: Some(SECOND), dead_letter: dead_to("work"), ..plain() });
    b.bind("dlx", "work", to_queue("wait"));
    b.put("work", "1");
    b.consume(x, "work", 1);
    for attempt in 1..=2 {
        let got = b.one();
        assert_eq!(got.attempt, attempt);
        let back = Verdict::Nack { delay_us: 0 };
        assert_eq!(b.settle(x, got.receipt, back), Ok(Outcome::Settled(1)));
    }
    assert_eq!(b.deaths("wait"), [("work".into(), DeathReason::Deliveries, 1)]);
    // Nobody rejected it, so it is not let into a queue again where it died before.
    b.after(2 * SECOND);
    assert_eq!((b.ready("wait"), b.ready("work"), b.bodies().len()), (0, 0, 0));
    assert_eq!(b.view("wait").totals.dropped, 1);

    // A consumer that rejects makes it go round, and each round is counted.
    b.put("work", "2");
    for round in 1..=3 {
        let got = b.one();
        assert_eq!((got.body.as_str(), got.attempt), ("2", 1), "it starts anew");
        assert_eq!(b.settle(x, got.receipt, Verdict::Reject), Ok(Outcome::Settled(1)));
        let deaths = b.deaths("wait");
        assert_eq!(deaths.last(), Some(&("work".into(), DeathReason::Rejected, round)));
        b.after(2 * SECOND);
    }
    b.done();
}

#[test]
fn an_expired_message_dies_at_the_head_with_or_without_a_consumer() {
    let mut b = Bench::new();
    let x = b.session();
    b.queue("dead", plain());
    b.queue("q", QueueConfig { dead_letter: dead_to("dead"), ..plain() });
    assert_eq!(b.put_with("q", "short", |m| m.more().ttl_us = Some(SECOND)), published(1, 0));
    b.put("q", "long");
    b.after(2 * SECOND);
    assert_eq!((b.ready("q"), b.deaths("dead")), (1, vec![("q".into(), DeathReason::Expired, 1)]));
    b.consume(x, "q", 9);
    assert_eq!(b.bodies(), ["long"]);
    b.done();
}

#[test]
fn redrive_sends_the_dead_home_and_they_start_anew() {
    let mut b = Bench::new();
    let x = b.session();
    b.queue("dead", plain());
    b.queue("q", QueueConfig { dead_letter: dead_to("dead"), ..plain() });
    b.put("q", "1");
    b.consume(x, "q", 1);
    let got = b.one();
    assert_eq!(b.settle(x, got.receipt, Verdict::Reject), Ok(Outcome::Settled(1)));
    b.put("dead", "homeless");
    let home = Op::Redrive { from: name("dead"), to: None, max: 100 };
    assert_eq!(b.ask(ME, home), Ok(Outcome::Moved(1)));
    let again = b.one();
    assert_eq!((again.body.as_str(), again.attempt), ("1", 1));
    assert_eq!(b.ready("dead"), 1);
    let itself = Op::Redrive { from: name("dead"), to: Some(name("dead")), max: 1 };
    assert!(matches!(b.ask(ME, itself), Err(Refusal::BadSettings(_))));
    b.done();
}

#[test]
fn one_stuck_message_does_not_keep_the_index_of_all_that_passed_it() {
    let limits = Limits { page_entries: 16, resident_entries: 1 << 20, ..Limits::default() };
    let mut b = Bench::with(limits);
    let (x, y) = (b.session(), b.session());
    b.queue("q", plain());
    b.put("q", "stuck");
    let stuck = b.consume(x, "q", 1);
    b.got();
    assert_eq!(b.ask(x, Op::Credit(stuck, 0)), Ok(Outcome::Done));
    b.consume(y, "q", 1);
    for _ in 0..1000 {
        b.put("q", "m");
        let receipt = b.one().receipt;
        b.ack(y, receipt);
    }
    assert!(b.shard.core.state().resident_entries() <= 48, "dead pages leave memory");
    b.done();
}
