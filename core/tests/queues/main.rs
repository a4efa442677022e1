//! Queues through `Core`, as transcripts: each feature once, and each wrong input once. Every test
//! ends with the laws of replay and checkpoint.

#[path = "../support/mod.rs"]
mod support;

mod commits;
mod consumers;
mod deliveries;
mod messages;
mod topology;

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
