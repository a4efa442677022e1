//! Outcomes: what comes back from a command that did what it was asked.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::content::Kind;
use crate::index::{Death, Place};
use crate::queue::{QueueConfig, QueueTotals};
use crate::{ConsumerId, Listing, Mode, QueueId, SessionId, Ticket, Time, Token};

pub use crate::effect::{ConsumerEnding, Delivery, Effect, EffectKind};
pub use crate::refusal::{Refusal, Retry};

/// A command that did what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing more to say.
    Done,
    /// A session is open.
    Session {
        /// Its identity.
        id: SessionId,
        /// Whether it was taken up again.
        resumed: bool,
    },
    /// Locks are held.
    Granted {
        /// The fencing token.
        token: Token,
        /// Time until the deadline, from the moment of the grant; `None`: no deadline.
        left_us: Option<Time>,
        /// How often the hold is entered; 1 unless it was entered again.
        entries: u32,
    },
    /// A hold has a new deadline.
    Renewed {
        /// Time until it.
        left_us: Option<Time>,
    },
    /// A hold was left; `entries` more times and it is released.
    Released {
        /// 0 when it is released.
        entries: u32,
    },
    /// So many holds were ended.
    Forced(u32),
    /// Whether the lock is held with the token.
    Held(bool),
    /// Everything about a lock. A watch shows the newest 8 holders and the first 8 waiters only.
    Lock(Box<LockView>),
    /// A register's value, if it has one.
    Register(Option<Box<RegisterView>>),
    /// A register was written; or deleted, at this version.
    Written {
        /// The new version.
        version: u64,
    },
    /// A queue exists.
    Queue {
        /// Its identity.
        id: QueueId,
        /// Whether it existed before.
        existed: bool,
        /// Messages ready in it.
        ready: u64,
        /// Its consumers.
        consumers: u32,
    },
    /// A queue was deleted or purged with so many messages.
    Dropped(u64),
    /// Everything about a queue.
    QueueView(Box<QueueView>),
    /// A message was accepted.
    Published {
        /// Queues that took it.
        queues: u32,
        /// Queues that had taken the same message id before.
        duplicates: u32,
    },
    /// A consumer is open.
    Consuming(ConsumerId),
    /// So many deliveries were settled.
    Settled(u32),
    /// The first messages of a queue.
    Peeked(Vec<Peeked>),
    /// So many messages were moved.
    Moved(u32),
    /// A page of a list.
    Listed(Box<Listing>),
    /// Everything was done.
    Committed {
        /// Versions of the registers written, in order.
        versions: Vec<u64>,
    },
}

/// A lock as inspect shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockView {
    /// Its holders, the newest first; at most 1000 of them.
    pub holders: Vec<HolderView>,
    /// How many hold it.
    pub holding: u32,
    /// Those who wait, the next first; at most 1000 of them.
    pub waiters: Vec<WaiterView>,
    /// How many wait.
    pub waiting: u32,
    /// How long nobody may take it after an unclean loss.
    pub delay_left_us: Time,
    /// How long it is held on average.
    pub hold_average_us: Option<Time>,
}

/// A holder as inspect shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderView {
    /// Its fencing token.
    pub token: Token,
    /// Its session.
    pub session: SessionId,
    /// Who within the session.
    pub hold: u64,
    /// How it holds.
    pub mode: Mode,
    /// Since how long.
    pub held_us: Time,
    /// How long it may still hold; `None`: no deadline.
    pub left_us: Option<Time>,
    /// How often it entered.
    pub entries: u32,
    /// What it says about itself.
    pub label: Option<Arc<str>>,
}

/// A waiter as inspect shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaiterView {
    /// Its ticket.
    pub ticket: Ticket,
    /// Its session.
    pub session: SessionId,
    /// How it wants to hold.
    pub mode: Mode,
    /// Since how long it waits.
    pub waited_us: Time,
    /// How long it will wait, from its position and the average hold; `None`: not known yet.
    pub expected_us: Option<Time>,
    /// What it says about itself.
    pub label: Option<Arc<str>>,
}

/// A register as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterView {
    /// Its value; empty when it is not text.
    pub value: Arc<[u8]>,
    /// What it is.
    pub kind: Kind,
    /// Its version.
    pub version: u64,
    /// Time until it vanishes; `None`: it stays.
    pub left_us: Option<Time>,
}

/// A queue as inspect shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueView {
    /// Its identity.
    pub id: QueueId,
    /// Its settings.
    pub config: QueueConfig,
    /// Messages ready for delivery.
    pub ready: u64,
    /// Messages delivered and not settled.
    pub in_flight: u64,
    /// Delayed messages.
    pub delayed: u64,
    /// Messages that wait for one of the same ordering key.
    pub parked: u64,
    /// Bytes waiting and in flight.
    pub bytes: u64,
    /// Its consumers.
    pub consumers: u32,
    /// The first 1000 of them in order of arrival.
    pub consumer_views: Vec<ConsumerView>,
    /// Deliveries are held back.
    pub paused: bool,
    /// Sums since it was declared.
    pub totals: QueueTotals,
}

/// A consumer as inspect shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerView {
    /// Its identity.
    pub id: ConsumerId,
    /// Its session.
    pub session: SessionId,
    /// Deliveries it may have in flight.
    pub credit: u32,
    /// Deliveries it has in flight.
    pub in_flight: u32,
    /// What it says about itself.
    pub label: Option<Arc<str>>,
}

/// A message as peek shows it; the node fetches the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peeked {
    /// Where its record lies.
    pub place: Place,
    /// Failed deliveries so far.
    pub attempts: u32,
    /// Its deaths.
    pub deaths: Vec<Death>,
}
