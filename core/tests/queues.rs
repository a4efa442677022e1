//! Queues through `Core`, as transcripts: each feature once, and each wrong input once. Every test
//! ends with the laws of replay and checkpoint.

mod support;

use leasehold_core::index::DeathReason;
use leasehold_core::limits::{DAY, MS, SECOND};
use leasehold_core::queue::{DeadLetter, Overflow};
use leasehold_core::topology::{Binding, Destination, ExchangeConfig, ExchangeKind};
use leasehold_core::*;

use support::{Answer, Shard, WALL, name};

const ME: SessionId = SessionId::NONE;

/// A shard with short verbs.
struct Bench {
    shard: Shard,
}

/// A delivery as a consumer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Got {
    body: String,
    attempt: u32,
    redelivered: bool,
    receipt: Receipt,
}

impl Bench {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        Self { shard: Shard::new(limits) }
    }

    fn ask(&mut self, session: SessionId, op: Op) -> Answer {
        let answer = self.shard.ask(session, op);
        let is_reply = |kind: &EffectKind| matches!(kind, EffectKind::Reply(..));
        self.shard.said.retain(|kind| !is_reply(kind));
        answer
    }

    fn session(&mut self) -> SessionId {
        match self.ask(ME, Op::OpenSession { ttl_us: None, resume: None, label: None }) {
            Ok(Outcome::Session { id, .. }) => id,
            other => panic!("{other:?}"),
        }
    }

    fn declare(&mut self, queue: &str, config: QueueConfig) -> Answer {
        self.ask(ME, Op::DeclareQueue(name(queue), Box::new(config)))
    }

    fn queue(&mut self, queue: &str, config: QueueConfig) {
        let answer = self.declare(queue, config);
        assert!(matches!(answer, Ok(Outcome::Queue { existed: false, .. })), "{answer:?}");
    }

    fn publish(&mut self, target: Target, message: Message) -> Answer {
        self.ask(ME, Op::Publish(Box::new(Publish { target, message, mandatory: true })))
    }

    fn put(&mut self, queue: &str, body: &str) {
        let answer = self.publish(Target::QueueNamed(name(queue)), Message::new(body));
        assert_eq!(answer, published(1, 0));
    }

    fn put_with(&mut self, queue: &str, body: &str, set: impl FnOnce(&mut Message)) -> Answer {
        let mut message = Message::new(body);
        set(&mut message);
        self.publish(Target::QueueNamed(name(queue)), message)
    }

    fn consume(&mut self, who: SessionId, queue: &str, credit: u32) -> ConsumerId {
        self.consume_with(who, queue, credit, |_| ()).expect("a consumer")
    }

    fn consume_with(
        &mut self,
        who: SessionId,
        queue: &str,
        credit: u32,
        set: impl FnOnce(&mut Consume),
    ) -> Result<ConsumerId, Refusal> {
        let mut consume = Consume {
            queue: name(queue),
            credit,
            once: None,
            no_ack: false,
            exclusive: false,
            label: None,
        };
        set(&mut consume);
        match self.ask(who, Op::Consume(Box::new(consume)))? {
            Outcome::Consuming(id) => Ok(id),
            other => panic!("{other:?}"),
        }
    }

    /// What was delivered since the last look.
    fn got(&mut self) -> Vec<Got> {
        let said = std::mem::take(&mut self.shard.said);
        let deliveries = said.into_iter().filter_map(|kind| match kind {
            EffectKind::Deliver(_, delivery) => Some(delivery),
            _ => None,
        });
        let log = &self.shard.log;
        let seen = deliveries.map(|delivery| Got {
            body: String::from_utf8(log.message(delivery.place).body.to_vec()).expect("text"),
            attempt: delivery.attempt,
            redelivered: delivery.redelivered,
            receipt: delivery.receipt,
        });
        seen.collect()
    }

    fn bodies(&mut self) -> Vec<String> {
        self.got().into_iter().map(|got| got.body).collect()
    }

    fn one(&mut self) -> Got {
        let mut got = self.got();
        assert_eq!(got.len(), 1, "{got:?}");
        got.remove(0)
    }

    fn settle(&mut self, who: SessionId, receipt: Receipt, verdict: Verdict) -> Answer {
        self.ask(who, Op::Settle(receipt, verdict))
    }

    fn ack(&mut self, who: SessionId, receipt: Receipt) {
        assert_eq!(self.settle(who, receipt, Verdict::Ack), Ok(Outcome::Settled(1)));
    }

    fn view(&mut self, queue: &str) -> outcome::QueueView {
        match self.ask(ME, Op::InspectQueue(name(queue))) {
            Ok(Outcome::QueueView(view)) => *view,
            other => panic!("{other:?}"),
        }
    }

    fn ready(&mut self, queue: &str) -> u64 {
        self.view(queue).ready
    }

    fn after(&mut self, time: Time) {
        self.shard.log.now += time;
        for _ in 0..100 {
            let done = self.shard.tick();
            if done && self.shard.core.next_due().is_none_or(|due| due > self.shard.log.now) {
                return;
            }
        }
        panic!("ticks go on for ever");
    }

    fn peek(&mut self, queue: &str) -> Vec<outcome::Peeked> {
        match self.ask(ME, Op::Peek(name(queue), 100)) {
            Ok(Outcome::Peeked(list)) => list,
            other => panic!("{other:?}"),
        }
    }

    /// Queue, reason and count of each death of the first message.
    fn deaths(&mut self, queue: &str) -> Vec<(String, DeathReason, u32)> {
        let peeked = self.peek(queue);
        let deaths = peeked[0].deaths.iter();
        deaths.map(|d| (d.queue.as_str().to_owned(), d.reason, d.count)).collect()
    }

    fn exchange(&mut self, exchange: &str, kind: ExchangeKind) {
        let config = ExchangeConfig { kind, durable: true, auto_delete: false, internal: false };
        let answer = self.ask(ME, Op::DeclareExchange(name(exchange), config));
        assert_eq!(answer, Ok(Outcome::Done));
    }

    fn bind(&mut self, exchange: &str, key: &str, to: Destination) {
        let arguments = Vec::new();
        let (exchange, key) = (name(exchange), key.into());
        let binding = Binding { exchange, to, key, arguments, match_all: true };
        assert_eq!(self.ask(ME, Op::Bind(Box::new(binding))), Ok(Outcome::Done));
    }

    fn route(&mut self, exchange: &str, key: &str) -> Answer {
        self.publish(Target::Exchange(name(exchange), key.into()), Message::new("m"))
    }

    fn done(mut self) {
        self.shard.laws();
        self.shard.checkpoint(true, 0);
        self.shard.checkpoint(false, usize::MAX);
        self.shard.laws();
        self.shard.restart();
        self.shard.laws();
    }
}

fn published(queues: u32, duplicates: u32) -> Answer {
    Ok(Outcome::Published { queues, duplicates })
}

fn plain() -> QueueConfig {
    QueueConfig::default()
}

fn dead_to(queue: &str) -> Option<DeadLetter> {
    Some(DeadLetter { exchange: None, routing_key: Some(queue.into()) })
}

fn to_queue(queue: &str) -> Destination {
    Destination::Queue(name(queue))
}

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
