//! Small pieces of load that the benchmarks share.

use std::time::Duration;

use leasehold_core::message::Message;
use leasehold_core::{
    Acquire, Command, Consume, HoldRef, Mode, Name, Op, Outcome, Publish, QueueConfig, QueueId,
    SessionId, Target, Tenure, Ticket, Token, Wait, command::Wants,
};
use leasehold_node::{Client, Notice};

/// How long a benchmark waits for an answer before it gives up.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A name known to be good.
pub fn name(text: &str) -> Name {
    Name::new(text).expect("a good name")
}

/// Sends one command and gives its outcome.
///
/// # Panics
/// When it is refused: a benchmark that is refused measures nothing.
pub fn call(client: &Client, session: SessionId, op: Op) -> Outcome {
    let mut others = Vec::new();
    let answer = client.call(session, op, PATIENCE, &mut others).expect("the node answers");
    assert!(others.is_empty(), "no other notices are expected here");
    answer.expect("the command is good")
}

/// Opens a session without an end of its own.
pub fn open_session(client: &Client) -> SessionId {
    let op = Op::OpenSession { ttl_us: None, resume: None, label: None };
    match call(client, SessionId::NONE, op) {
        Outcome::Session { id, .. } => id,
        other => panic!("a session was expected, not {other:?}"),
    }
}

/// Declares a queue.
pub fn declare(client: &Client, queue: &str, config: QueueConfig) -> QueueId {
    match call(client, SessionId::NONE, Op::DeclareQueue(name(queue), Box::new(config))) {
        Outcome::Queue { id, .. } => id,
        other => panic!("a queue was expected, not {other:?}"),
    }
}

/// A publish of `message` to a queue.
pub fn publish(queue: QueueId, message: Message) -> Op {
    Op::Publish(Box::new(Publish { target: Target::Queue(queue), message, mandatory: false }))
}

/// A consumer of a queue.
pub fn consume(queue: &str, credit: u32) -> Op {
    Op::Consume(Box::new(Consume {
        queue: name(queue),
        credit,
        once: None,
        no_ack: false,
        exclusive: false,
        label: None,
    }))
}

/// An exclusive lock for ten seconds.
pub fn acquire(lock: Name, hold: u64) -> Op {
    Op::Acquire(Box::new(Acquire {
        wants: Wants::One(lock, Mode::Exclusive),
        hold,
        reentrant: false,
        tenure: Tenure { ttl_us: Some(10_000_000), session: false },
        wait: Wait::No,
        lock_delay_us: 0,
        label: None,
    }))
}

/// The release of such a lock.
pub fn release(lock: Name, token: Token, hold: u64) -> Op {
    Op::Release(HoldRef { name: lock, token, hold })
}

/// A command with a ticket of the client.
pub fn command(client: &Client, session: SessionId, op: Op) -> Command {
    Command { ticket: client.ticket(), session, request: None, op }
}

/// The place of a ticket in the client's count.
pub fn serial(ticket: Ticket) -> u32 {
    ticket.0 as u32
}

/// Waits for notices and hands each to `take` until it says that it has enough.
pub fn take_until(client: &Client, mut take: impl FnMut(u32, Notice) -> bool) {
    let mut notices = Vec::new();
    loop {
        client.receive(&mut notices, Some(PATIENCE)).expect("the node runs");
        assert!(!notices.is_empty(), "nothing came for {PATIENCE:?}");
        let mut enough = false;
        for (to, notice) in notices.drain(..) {
            enough |= take(to, notice);
        }
        if enough {
            return;
        }
    }
}
