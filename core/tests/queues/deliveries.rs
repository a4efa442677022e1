//! Deliveries: credit, leases, attempts, order.

use super::*;

#[test]
fn work_is_shared_out_in_order_within_credit() {
    let mut b = Bench::new();
    let (x, y) = (b.session(), b.session());
    b.queue("q", plain());
    ["1", "2", "3", "4", "5"].iter().for_each(|body| b.put("q", body));
    b.consume(x, "q", 2);
    let first = b.got();
    assert_eq!(first.iter().map(|got| got.body.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    b.consume(y, "q", 1);
    assert_eq!(b.bodies(), ["3"]);
    b.ack(x, first[1].receipt);
    assert_eq!(b.bodies(), ["4"]);
    // What comes back goes first.
    let back = Verdict::Nack { delay_us: 0 };
    assert_eq!(b.settle(x, first[0].receipt, back), Ok(Outcome::Settled(1)));
    let again = b.one();
    assert_eq!((again.body.as_str(), again.attempt, again.redelivered), ("1", 2, true));
    let view = b.view("q");
    assert_eq!((view.ready, view.in_flight, view.consumers), (1, 3, 2));
    b.done();
}

#[test]
fn a_delivery_is_settled_once_by_its_own_session_and_in_time() {
    let mut b = Bench::new();
    let (x, y) = (b.session(), b.session());
    b.queue("q", QueueConfig { lease_us: Some(SECOND), ..plain() });
    b.put("q", "1");
    b.consume(x, "q", 1);
    let receipt = b.one().receipt;
    let ack = Verdict::Ack;
    assert_eq!(b.settle(y, receipt, ack), Err(Refusal::ForeignDelivery(receipt)));
    let unknown = Receipt { slot: 0, token: Token(1 << 40) };
    assert_eq!(b.settle(x, unknown, ack), Err(Refusal::UnknownDelivery(unknown)));
    let zero = Receipt { slot: 0, token: Token(0) };
    assert_eq!(b.settle(x, zero, ack), Err(Refusal::UnknownDelivery(zero)));
    let elsewhere = Receipt { slot: 9, ..receipt };
    assert_eq!(b.settle(x, elsewhere, ack), Err(Refusal::StaleDelivery(elsewhere)));

    // Its lease expires: the consumer is told and gets it again; the old receipt is worth nothing.
    b.after(2 * SECOND);
    let ended = EffectKind::DeliveryEnded(Ticket(1), receipt, lock::Ending::Expired);
    assert!(b.shard.said.contains(&ended), "{:?}", b.shard.said);
    let again = b.one();
    assert_eq!((again.attempt, again.redelivered), (2, true));
    assert_ne!(again.receipt.token, receipt.token);
    assert_eq!(b.settle(x, receipt, ack), Err(Refusal::StaleDelivery(receipt)));
    let extended = b.ask(x, Op::Extend(again.receipt, 5 * SECOND));
    assert_eq!(extended, Ok(Outcome::Renewed { left_us: Some(5 * SECOND) }));
    let absurd = b.ask(x, Op::Extend(again.receipt, 0));
    assert!(matches!(absurd, Err(Refusal::Time("the lease", 0, ..))), "{absurd:?}");
    b.after(3 * SECOND);
    b.ack(x, again.receipt);
    assert_eq!(b.settle(x, again.receipt, ack), Err(Refusal::StaleDelivery(again.receipt)));

    b.put("q", "2");
    let two = b.one().receipt;
    let twice = Op::SettleMany([two, two].into(), ack);
    assert_eq!(b.ask(x, twice), Err(Refusal::SettledTwice(two)));
    let one_bad = Op::SettleMany([two, receipt].into(), ack);
    assert_eq!(b.ask(x, one_bad), Err(Refusal::StaleDelivery(receipt)));
    assert_eq!(b.view("q").in_flight, 1, "a bad part, and nothing happened");
    b.done();
}

#[test]
fn extending_sets_a_deadline_on_a_delivery_that_had_none() {
    let mut b = Bench::new();
    let x = b.session();
    b.queue("q", plain());
    b.put("q", "m");
    b.consume(x, "q", 1);
    let first = b.got().remove(0);
    b.shard.log.now += DAY;
    b.shard.tick();
    assert_eq!(b.got(), [], "without a lease it lasts as its session");
    let extended = b.ask(x, Op::Extend(first.receipt, 5 * SECOND));
    assert_eq!(extended, Ok(Outcome::Renewed { left_us: Some(5 * SECOND) }));
    b.shard.log.now += 4 * SECOND;
    b.shard.tick();
    assert_eq!(b.got(), [], "the lease runs");
    b.shard.log.now += SECOND;
    b.shard.tick();
    let again = b.got();
    assert_eq!(again.len(), 1, "it came back when the lease ran out");
    assert_eq!((again[0].body.as_str(), again[0].attempt), ("m", 2));
    let late = b.ask(x, Op::Settle(first.receipt, Verdict::Ack));
    assert_eq!(late, Err(Refusal::StaleDelivery(first.receipt)));
    b.shard.laws();
}

#[test]
fn nack_with_a_delay_comes_again_later_and_counts() {
    let mut b = Bench::new();
    let x = b.session();
    b.queue("q", plain());
    b.put("q", "1");
    b.put("q", "2");
    b.consume(x, "q", 1);
    let first = b.one();
    let later = Verdict::Nack { delay_us: SECOND };
    assert_eq!(b.settle(x, first.receipt, later), Ok(Outcome::Settled(1)));
    let second = b.one();
    assert_eq!(second.body, "2");
    b.ack(x, second.receipt);
    b.after(SECOND + MS);
    let again = b.one();
    assert_eq!((again.body.as_str(), again.attempt, again.redelivered), ("1", 2, true));
    b.done();
}

#[test]
fn what_was_fetched_ahead_goes_back_uncounted() {
    let mut b = Bench::new();
    let x = b.session();
    b.queue("dead", plain());
    b.queue("q", QueueConfig { deliveries_max: Some(1), dead_letter: dead_to("dead"), ..plain() });
    for body in ["1", "2"] {
        b.put("q", body);
    }
    b.consume(x, "q", 1);
    for _ in 0..3 {
        let got = b.one();
        assert_eq!((got.body.as_str(), got.attempt), ("1", 1), "in its old place, as if untouched");
        assert_eq!(b.settle(x, got.receipt, Verdict::Return), Ok(Outcome::Settled(1)));
    }
    assert_eq!((b.view("q").totals.dead, b.ready("dead")), (0, 0));
    let got = b.one();
    assert_eq!(b.settle(x, got.receipt, Verdict::Nack { delay_us: 0 }), Ok(Outcome::Settled(1)));
    assert_eq!(b.view("q").totals.dead, 1, "a failure still counts");
    b.done();
}

#[test]
fn messages_of_one_key_go_one_at_a_time_in_order() {
    let mut b = Bench::new();
    let (x, y) = (b.session(), b.session());
    b.queue("q", plain());
    let put = |b: &mut Bench, body, key: &str| {
        let key = key.to_owned();
        assert_eq!(b.put_with("q", body, |m| m.more().key = Some(key.into())), published(1, 0));
    };
    [("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a")]
        .iter()
        .for_each(|(m, k)| put(&mut b, m, k));
    b.consume(x, "q", 9);
    b.consume(y, "q", 9);
    let got = b.got();
    assert_eq!(got.iter().map(|g| g.body.as_str()).collect::<Vec<_>>(), ["a1", "b1"]);
    assert_eq!(b.view("q").parked, 2);
    // It fails: it comes again before those behind it, to whom it may.
    let back = Verdict::Nack { delay_us: 0 };
    assert_eq!(b.settle(x, got[0].receipt, back), Ok(Outcome::Settled(1)));
    for expected in ["a1", "a2", "a3"] {
        let one = b.one();
        assert_eq!(one.body, expected);
        let mine = b.settle(x, one.receipt, Verdict::Ack);
        if mine != Ok(Outcome::Settled(1)) {
            b.ack(y, one.receipt);
        }
    }
    b.done();
}

#[test]
fn after_a_restart_what_may_have_been_delivered_says_so_and_the_rest_does_not() {
    let mut b = Bench::new();
    let x = b.session();
    b.queue("q", plain());
    b.put("q", "seen");
    b.consume(x, "q", 1);
    assert!(!b.one().redelivered);
    b.shard.restart();
    b.put("q", "new");
    let x = b.session();
    b.consume(x, "q", 9);
    let got = b.got();
    let flags: Vec<_> = got.iter().map(|got| (got.body.as_str(), got.redelivered)).collect();
    assert_eq!(flags, [("seen", true), ("new", false)]);
    b.done();
}

#[test]
fn an_unreadable_message_waits_for_its_lease_and_nobody_for_it() {
    let mut b = Bench::new();
    let x = b.session();
    b.queue("q", QueueConfig { lease_us: Some(SECOND), ..plain() });
    ["rotten", "good", "last"].iter().for_each(|body| b.put("q", body));
    let consumer = b.consume(x, "q", 1);
    let rotten = b.one().receipt;
    let unreadable = |b: &mut Bench, consumer, receipt| {
        let lost = [(consumer, receipt)];
        b.shard.act(|core, log, out| core.unreadable(log.now, &lost, log, out));
    };
    unreadable(&mut b, consumer, rotten);
    let good = b.one();
    assert_eq!((good.body.as_str(), b.view("q").in_flight), ("good", 2));
    // Told twice it frees nothing more.
    unreadable(&mut b, consumer, rotten);
    assert_eq!(b.bodies(), [""; 0]);
    b.ack(x, good.receipt);
    let last = b.one();
    b.ack(x, last.receipt);
    assert_eq!((last.body.as_str(), b.view("q").in_flight), ("last", 1));
    b.after(2 * SECOND);
    let again = b.one();
    assert_eq!((again.body.as_str(), again.attempt), ("rotten", 2));
    // When the lease was over first, that gave the credit back.
    b.after(2 * SECOND);
    assert_eq!(b.one().attempt, 3);
    unreadable(&mut b, consumer, again.receipt);
    assert_eq!((b.bodies(), b.view("q").in_flight), (vec![], 1));

    b.queue("fast", plain());
    let fast = b.consume_with(x, "fast", 1, |consume| consume.no_ack = true).expect("a consumer");
    ["rotten", "good"].iter().for_each(|body| b.put("fast", body));
    let rotten = b.one().receipt;
    unreadable(&mut b, fast, rotten);
    assert_eq!(b.bodies(), ["good"]);
    b.done();
}

#[test]
fn a_queue_that_waits_for_room_in_flight_is_let_in() {
    let mut b = Bench::with(Limits { in_flight_max: 1, ..Limits::default() });
    let (x, y) = (b.session(), b.session());
    ["p", "q"].iter().for_each(|queue| b.queue(queue, plain()));
    b.consume(x, "p", 9);
    b.consume(y, "q", 9);
    b.put("p", "p1");
    b.put("q", "q1");
    let one = b.one();
    assert_eq!(one.body, "p1");
    b.ack(x, one.receipt);
    assert_eq!(b.bodies(), ["q1"], "although nothing else happened to its queue");
    b.done();
}

#[test]
fn many_failures_of_one_message_do_not_overflow() {
    let mut b = Bench::new();
    let x = b.session();
    b.queue("q", plain());
    b.put("q", "poison");
    b.consume(x, "q", 1);
    for _ in 0..70_000 {
        let EffectKind::Deliver(_, delivery) = b.shard.said.pop().expect("a delivery") else {
            panic!("a delivery")
        };
        let back = Op::Settle(delivery.receipt, Verdict::Nack { delay_us: 0 });
        b.shard.said.clear();
        b.shard.send(x, None, back);
    }
    let attempt = b.one().attempt;
    assert_eq!(attempt, u32::from(u16::MAX) + 1);
}
