//! Consumers, and receives of one message.

use super::*;

/// What is on its way cannot be called back: it has to be settled.
#[test]
fn a_one_shot_receive_that_was_served_cannot_be_cancelled() {
    let mut b = Bench::new();
    let x = b.session();
    b.queue("q", plain());
    let once = Consume {
        queue: name("q"),
        credit: 1,
        once: Some(Wait::Forever),
        no_ack: false,
        exclusive: false,
        label: None,
    };
    let ticket = b.shard.send(x, None, Op::Consume(Box::new(once)));
    b.put("q", "m");
    assert_eq!(b.ask(x, Op::Cancel(ticket)), Err(Refusal::NothingToCancel));
    let got = b.got();
    assert_eq!(got.len(), 1);
    let settled = b.ask(x, Op::Settle(got[0].receipt, Verdict::Nack { delay_us: 0 }));
    assert_eq!(settled, Ok(Outcome::Settled(1)));
    b.shard.laws();
}

#[test]
fn exclusive_and_single_active_consumers() {
    let mut b = Bench::new();
    let (x, y) = (b.session(), b.session());
    b.queue("solo", QueueConfig { single_active: true, ..plain() });
    let first = b.consume(x, "solo", 1);
    b.consume(y, "solo", 9);
    ["1", "2", "3"].iter().for_each(|body| b.put("solo", body));
    let one = b.one();
    assert_eq!(one.body, "1", "the second stands by");
    assert_eq!(b.ask(x, Op::StopConsumer(first)), Ok(Outcome::Done));
    assert_eq!(b.bodies(), ["2", "3"], "and takes over; what is in flight stays with its session");
    b.ack(x, one.receipt);

    b.queue("mine", plain());
    b.consume_with(x, "mine", 1, |c| c.exclusive = true).expect("the only one");
    assert_eq!(b.consume_with(y, "mine", 1, |_| ()), Err(Refusal::Exclusive));
    let config = QueueConfig { durable: false, exclusive: true, ..plain() };
    let declare = |b: &mut Bench, who| {
        b.ask(who, Op::DeclareQueue(name("private"), Box::new(config.clone())))
    };
    assert!(matches!(declare(&mut b, x), Ok(Outcome::Queue { existed: false, .. })));
    assert_eq!(declare(&mut b, y), Err(Refusal::Exclusive));
    assert_eq!(b.ask(x, Op::CloseSession { lost: true }), Ok(Outcome::Done));
    assert_eq!(b.ask(ME, Op::InspectQueue(name("private"))), Err(Refusal::NoQueue));
    let durable = b.declare("odd", QueueConfig { exclusive: true, ..plain() });
    assert!(matches!(durable, Err(Refusal::BadSettings(_))), "{durable:?}");
    b.done();
}

#[test]
fn without_ack_credit_is_used_up_and_renewed() {
    let mut b = Bench::new();
    let x = b.session();
    b.queue("q", plain());
    ["1", "2", "3"].iter().for_each(|body| b.put("q", body));
    let id = b.consume_with(x, "q", 2, |c| c.no_ack = true).expect("a consumer");
    assert_eq!(b.bodies(), ["1", "2"]);
    assert_eq!((b.ready("q"), b.view("q").in_flight), (1, 0));
    assert_eq!(b.ask(x, Op::Credit(id, 2)), Ok(Outcome::Done));
    assert_eq!(b.bodies(), ["3"]);
    b.done();
}

#[test]
fn one_shot_receives_wait_time_out_and_are_cancelled() {
    let mut b = Bench::new();
    let x = b.session();
    b.queue("q", plain());
    let once = |wait| move |c: &mut Consume| c.once = Some(wait);
    assert_eq!(b.consume_with(x, "q", 1, once(Wait::No)), Err(Refusal::Empty));
    let ask = |wait| {
        let (queue, credit, once) = (name("q"), 1, Some(wait));
        let (no_ack, exclusive, label) = (false, false, None);
        Op::Consume(Box::new(Consume { queue, credit, once, no_ack, exclusive, label }))
    };
    let tired = b.shard.send(x, None, ask(Wait::AtMost(SECOND)));
    let withdrawn = b.shard.send(x, None, ask(Wait::Forever));
    assert_eq!(b.shard.try_ask(x, None, Op::Cancel(withdrawn)), Some(Ok(Outcome::Done)));
    assert!(b.shard.said.contains(&EffectKind::Reply(withdrawn, Err(Refusal::Cancelled))));
    b.after(2 * SECOND);
    assert!(b.shard.said.contains(&EffectKind::Reply(tired, Err(Refusal::Empty))));
    b.shard.send(x, None, ask(Wait::Forever));
    b.put("q", "1");
    b.put("q", "2");
    assert_eq!(b.bodies(), ["1"], "one message, then it is over");
    b.done();
}
