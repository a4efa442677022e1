//! Queues and exchanges themselves: settings, bounds, routes.

use super::*;

#[test]
fn bad_input_gets_a_typed_refusal() {
    let mut b = Bench::with(Limits { body_bytes: 8, headers_bytes: 16, ..Limits::default() });
    let x = b.session();
    b.queue("q", plain());
    let missing = b.publish(Target::QueueNamed(name("none")), Message::new("m"));
    assert_eq!(missing, Err(Refusal::NoQueue));
    let missing = b.publish(Target::Queue(QueueId { slot: 0, serial: 9 }), Message::new("m"));
    assert_eq!(missing, Err(Refusal::NoQueue));
    assert_eq!(b.consume_with(x, "none", 1, |_| ()), Err(Refusal::NoQueue));
    assert_eq!(b.consume_with(ME, "q", 1, |_| ()), Err(Refusal::SessionNeeded));
    assert_eq!(b.consume_with(x, "q", 0, |_| ()), Err(Refusal::Zero("the credit")));
    let much = b.consume_with(x, "q", 1 << 20, |_| ());
    assert!(matches!(much, Err(Refusal::TooLarge("the credit", ..))), "{much:?}");
    let long = b.put_with("q", "nine byte", |_| ());
    assert_eq!(long, Err(Refusal::TooLarge("the body's length", 9, 8)));
    let header = |m: &mut Message| {
        m.more().headers.push(("h".into(), Value::Text("0123456789abcdef".into())));
    };
    let long = b.put_with("q", "m", header);
    assert_eq!(long, Err(Refusal::TooLarge("the headers' length", 17, 16)));
    for ttl in [0, 400 * DAY] {
        let absurd = b.put_with("q", "m", |m| m.more().ttl_us = Some(ttl));
        assert!(matches!(absurd, Err(Refusal::Time("the message's ttl", ..))), "{absurd:?}");
        let absurd = b.declare("t", QueueConfig { ttl_us: Some(ttl), ..plain() });
        assert!(matches!(absurd, Err(Refusal::Time("the message TTL", ..))), "{absurd:?}");
    }
    let never = b.put_with("q", "m", |m| m.more().due = Due::After(400 * DAY));
    assert!(matches!(never, Err(Refusal::Time("the delay", ..))), "{never:?}");
    let empty = b.put_with("q", "m", |m| m.more().id = Some("".into()));
    assert_eq!(empty, Err(Refusal::Zero("the message id")));
    let high = b.declare("p", QueueConfig { priority_max: 32, ..plain() });
    assert_eq!(high, Err(Refusal::TooLarge("the highest priority", 32, 31)));
    let other = b.declare("q", QueueConfig { priority_max: 3, ..plain() });
    assert_eq!(other, Err(Refusal::Different("priority_max")));
    assert!(matches!(b.declare("q", plain()), Ok(Outcome::Queue { existed: true, .. })));
    let none = b.declare("q0", QueueConfig { messages_max: Some(0), ..plain() });
    assert_eq!(none, Err(Refusal::Zero("the highest number of messages")));
    let unroutable = b.route("none", "k");
    assert_eq!(unroutable, Err(Refusal::NoExchange(name("none"))));
    b.exchange("x", ExchangeKind::Direct);
    assert_eq!(b.route("x", "k"), Err(Refusal::Unroutable));
    let ghost = ConsumerId { slot: 5, serial: 5 };
    assert_eq!(b.ask(x, Op::StopConsumer(ghost)), Err(Refusal::NoConsumer));
    b.done();
}

#[test]
fn a_full_queue_refuses_or_drops_its_oldest() {
    let mut b = Bench::new();
    b.queue("dead", plain());
    let messages_max = Some(2);
    b.queue("strict", QueueConfig { messages_max, overflow: Overflow::Reject, ..plain() });
    b.queue("loose", QueueConfig { messages_max, dead_letter: dead_to("dead"), ..plain() });
    for queue in ["strict", "loose"] {
        ["1", "2"].iter().for_each(|body| b.put(queue, body));
    }
    let full = b.put_with("strict", "3", |_| ());
    assert_eq!(full, Err(Refusal::QueueFull(name("strict"))));
    b.put("loose", "3");
    assert_eq!((b.ready("strict"), b.ready("loose"), b.ready("dead")), (2, 2, 1));
    assert_eq!(b.deaths("dead"), [("loose".into(), DeathReason::Overflow, 1)]);
    // Neither a redrive nor a commit makes a queue that refuses drop what it took.
    let op = Op::Redrive { from: name("dead"), to: Some(name("strict")), max: 9 };
    assert_eq!(b.ask(ME, op), Err(Refusal::QueueFull(name("strict"))));
    let bytes_max = Some(100);
    b.queue("bytes", QueueConfig { bytes_max, overflow: Overflow::Reject, ..plain() });
    b.put("bytes", &"x".repeat(95));
    assert_eq!(b.ready("bytes"), 1, "a message that was taken stays");
    b.done();
}

#[test]
fn transient_and_auto_delete_queues_go_when_they_should() {
    let mut b = Bench::new();
    let x = b.session();
    b.queue("auto", QueueConfig { auto_delete: true, ..plain() });
    b.queue("transient", QueueConfig { durable: false, ..plain() });
    b.put("auto", "1");
    let id = b.consume(x, "auto", 1);
    assert_eq!(b.ask(x, Op::StopConsumer(id)), Ok(Outcome::Done));
    assert_eq!(b.ask(ME, Op::InspectQueue(name("auto"))), Err(Refusal::NoQueue));
    b.put("transient", "1");
    b.shard.restart();
    assert_eq!(b.ask(ME, Op::InspectQueue(name("transient"))), Err(Refusal::NoQueue));
    b.done();
}

#[test]
fn pause_purge_peek_and_delete() {
    let mut b = Bench::new();
    let x = b.session();
    b.queue("q", plain());
    assert_eq!(b.ask(ME, Op::Pause(name("q"), true)), Ok(Outcome::Done));
    ["1", "2", "3"].iter().for_each(|body| b.put("q", body));
    b.consume(x, "q", 1);
    assert_eq!(b.bodies().len(), 0);
    assert_eq!(b.peek("q").len(), 3);
    b.shard.restart();
    let x = b.session();
    b.consume(x, "q", 1);
    assert_eq!(b.bodies().len(), 0, "a pause outlives a restart");
    assert_eq!(b.ask(ME, Op::Pause(name("q"), false)), Ok(Outcome::Done));
    let one = b.one();
    assert_eq!(b.ask(ME, Op::Purge(name("q"))), Ok(Outcome::Dropped(2)));
    assert_eq!((b.view("q").in_flight, b.ready("q")), (1, 0), "what is in flight stays");
    let delete = |if_unused, if_empty| Op::DeleteQueue { name: name("q"), if_unused, if_empty };
    assert_eq!(b.ask(ME, delete(true, false)), Err(Refusal::InUse));
    assert_eq!(b.ask(ME, delete(false, true)), Err(Refusal::NotEmpty));
    b.got();
    assert_eq!(b.ask(ME, delete(false, false)), Ok(Outcome::Dropped(1)));
    let ended = |kind: &EffectKind| matches!(kind, EffectKind::ConsumerEnded(..));
    assert!(b.shard.said.iter().any(ended), "the consumer is told");
    let stale = Err(Refusal::StaleDelivery(one.receipt));
    assert_eq!(b.settle(x, one.receipt, Verdict::Ack), stale);
    b.done();
}

#[test]
fn exchanges_route_by_their_kind_and_through_each_other() {
    let mut b = Bench::new();
    ["a", "b", "c", "d"].iter().for_each(|queue| b.queue(queue, plain()));
    b.exchange("direct", ExchangeKind::Direct);
    b.exchange("fan", ExchangeKind::Fanout);
    b.exchange("topic", ExchangeKind::Topic);
    b.exchange("headers", ExchangeKind::Headers);
    b.bind("direct", "k", to_queue("a"));
    b.bind("fan", "", to_queue("a"));
    b.bind("fan", "", to_queue("b"));
    b.bind("topic", "eu.*", to_queue("c"));
    b.bind("topic", "#.de", to_queue("d"));
    assert_eq!(b.route("direct", "k"), published(1, 0));
    assert_eq!(b.route("direct", "other"), Err(Refusal::Unroutable));
    assert_eq!(b.route("fan", "whatever"), published(2, 0));
    assert_eq!(b.route("topic", "eu.de"), published(2, 0));
    assert_eq!(b.route("topic", "eu.de.by"), Err(Refusal::Unroutable));

    // Through each other, in a circle: each queue gets one copy.
    b.bind("fan", "", Destination::Exchange(name("topic")));
    b.bind("topic", "#", Destination::Exchange(name("fan")));
    assert_eq!(b.route("fan", "eu.de"), published(4, 0));
    assert_eq!(b.route("topic", "x"), published(2, 0));

    let header = |n: &str, v: i64| (n.into(), Value::Int(v));
    for (queue, match_all) in [("a", true), ("b", false)] {
        let arguments = vec![header("x", 1), header("y", 2)];
        let (exchange, to) = (name("headers"), to_queue(queue));
        let binding = Binding { exchange, to, key: "".into(), arguments, match_all };
        assert_eq!(b.ask(ME, Op::Bind(Box::new(binding))), Ok(Outcome::Done));
    }
    let mut send = |headers: Vec<(Box<str>, Value)>| {
        let mut message = Message::new("m");
        message.more().headers = headers;
        b.publish(Target::Exchange(name("headers"), "".into()), message)
    };
    assert_eq!(send(vec![header("x", 1), header("y", 2)]), published(2, 0));
    assert_eq!(send(vec![header("x", 1)]), published(1, 0));
    assert_eq!(send(vec![header("x", 2)]), Err(Refusal::Unroutable));
    b.done();
}
