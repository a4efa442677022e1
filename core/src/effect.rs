//! Effects: what the node has to do after a step.

use alloc::vec::Vec;

use crate::index::{Death, ListId, Place};
use crate::lock::Ending;
use crate::outcome::Outcome;
use crate::refusal::Refusal;
use crate::{ConsumerId, QueueId, Receipt, SessionId, Ticket, Token};

/// A message on its way to a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Names the delivery when it is settled.
    pub receipt: Receipt,
    /// The consumer.
    pub consumer: ConsumerId,
    /// Whether the consumer took this one only, and has ended with it.
    pub once: bool,
    /// The queue it came from.
    pub queue: QueueId,
    /// 1 for the first delivery.
    pub attempt: u32,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// Where its record lies; the node fetches it.
    pub place: Place,
    /// Its deaths, the latest last.
    pub deaths: Vec<Death>,
}

/// Why a consumer ended without being asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumerEnding {
    /// Its queue was deleted.
    QueueDeleted,
}

/// What the node has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// Whether it waits until everything journaled before it that must not be lost is synced.
    pub after_sync: bool,
    /// What.
    pub kind: EffectKind,
}

/// What the node has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EffectKind {
    /// Answer a command.
    Reply(Ticket, Result<Outcome, Refusal>),
    /// Hand a message to the consumer opened with this ticket.
    Deliver(Ticket, Delivery),
    /// Tell the session opened with this ticket that it lost a hold.
    HoldEnded(Ticket, Token, Ending),
    /// Tell the session opened with this ticket that it lost a delivery.
    DeliveryEnded(Ticket, Receipt, Ending),
    /// Tell that a session ended without being asked to.
    SessionEnded(Ticket, SessionId),
    /// Tell the consumer opened with this ticket that it ended.
    ConsumerEnded(Ticket, ConsumerEnding),
    /// Fetch a page's record and call `Core::page_loaded`.
    LoadPage(ListId, u64, Place),
}
