//! A queue's durable half: settings, lanes, counters, remembered message ids.
//!
//! A queue has one lane per priority. A lane is an endless row of positions; a message enters at
//! the tail and keeps its position until it is gone, so redelivery happens in the old place and an
//! ack is a position or a range of them. What a lane keeps per waiting message is an [`Entry`] in
//! an index page; see `index.rs` for how those leave and re-enter memory.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::checkpoint::Mark;
use crate::index::{Entry, Page};
use crate::window::Window;
use crate::wire::{self, DecodeError, Reader};
use crate::{Name, QueueId, Time};

/// What happens to a publish when the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Overflow {
    /// The oldest waiting message goes (to the dead letters if there are any).
    #[default]
    DropOldest,
    /// The publish is refused.
    Reject,
}

/// Where messages go that died in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Through this exchange; `None`: straight to the queue named by `routing_key`.
    pub exchange: Option<Name>,
    /// With this routing key; `None`: the one it was published with.
    pub routing_key: Option<Arc<str>>,
}

/// What a queue is declared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueConfig {
    /// Whether the queue and its messages outlive a restart.
    pub durable: bool,
    /// Most messages waiting and in flight.
    pub messages_max: Option<u64>,
    /// Most bytes waiting and in flight, as stored.
    pub bytes_max: Option<u64>,
    /// What happens beyond those.
    pub overflow: Overflow,
    /// How long a message may wait, microseconds. Applied when it reaches the head.
    pub ttl_us: Option<Time>,
    /// How long a delivery may stay unsettled, microseconds; `None`: as long as its session lives.
    pub lease_us: Option<Time>,
    /// Deliveries after which a message is dead.
    pub deliveries_max: Option<u16>,
    /// Where the dead go; `None`: they are dropped.
    pub dead_letter: Option<DeadLetter>,
    /// Highest priority; 0 makes a plain queue.
    pub priority_max: u8,
    /// How long message ids are remembered, microseconds; `None`: not at all.
    pub dedup_us: Option<Time>,
    /// Deliver to one consumer at a time; the others stand by.
    pub single_active: bool,
    /// Only the session that declared it may use it; it goes with that session.
    pub exclusive: bool,
    /// It goes when its last consumer goes.
    pub auto_delete: bool,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            durable: true,
            messages_max: None,
            bytes_max: None,
            overflow: Overflow::DropOldest,
            ttl_us: None,
            lease_us: None,
            deliveries_max: None,
            dead_letter: None,
            priority_max: 0,
            dedup_us: None,
            single_active: false,
            exclusive: false,
            auto_delete: false,
        }
    }
}

impl QueueConfig {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let flags = u8::from(self.durable)
            | u8::from(self.single_active) << 1
            | u8::from(self.exclusive) << 2
            | u8::from(self.auto_delete) << 3
            | u8::from(self.overflow == Overflow::Reject) << 4
            | u8::from(self.dead_letter.is_some()) << 5;
        // A queue's kind: 0 is the work queue; streams will have a number of their own.
        out.extend_from_slice(&[0, flags, self.priority_max]);
        for number in [
            self.messages_max,
            self.bytes_max,
            self.ttl_us,
            self.lease_us,
            self.deliveries_max.map(u64::from),
            self.dedup_us,
        ] {
            wire::put_u64(out, number.map_or(0, |n| n.saturating_add(1)));
        }
        if let Some(dead) = &self.dead_letter {
            wire::put_maybe(out, dead.exchange.as_ref().map(Name::as_bytes));
            wire::put_maybe(out, dead.routing_key.as_ref().map(|key| key.as_bytes()));
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let bad = |what| DecodeError { what, offset: 0 };
        let mut from = Reader::new(bytes);
        if from.u8("queue kind")? != 0 {
            return Err(bad("queue kind (a newer version wrote it?)"));
        }
        let flags = from.u8("queue flags")?;
        let bit = |n: u8| flags & (1 << n) != 0;
        let priority_max = from.u8("highest priority")?;
        let mut numbers = [None; 6];
        for number in &mut numbers {
            *number = from.u64("queue setting")?.checked_sub(1);
        }
        let [messages_max, bytes_max, ttl_us, lease_us, deliveries_max, dedup_us] = numbers;
        let dead_letter = if bit(5) {
            let text = |bytes: &[u8]| core::str::from_utf8(bytes).map(Arc::<str>::from);
            let exchange = from.maybe("dead-letter exchange")?.map(text).transpose();
            let routing_key = from.maybe("dead-letter key")?.map(text).transpose();
            let exchange = exchange.map_err(|_| bad("dead-letter exchange"))?;
            Some(DeadLetter {
                exchange: match exchange {
                    Some(name) => Some(Name::new(&name).map_err(|_| bad("dead-letter exchange"))?),
                    None => None,
                },
                routing_key: routing_key.map_err(|_| bad("dead-letter key"))?,
            })
        } else {
            None
        };
        from.end("queue settings")?;
        let overflow = if bit(4) { Overflow::Reject } else { Overflow::DropOldest };
        Ok(Self {
            durable: bit(0),
            messages_max,
            bytes_max,
            overflow,
            ttl_us,
            lease_us,
            deliveries_max: deliveries_max.map(|n| n.min(u64::from(u16::MAX)) as u16),
            dead_letter,
            priority_max,
            dedup_us,
            single_active: bit(1),
            exclusive: bit(2),
            auto_delete: bit(3),
        })
    }
}

/// The highest priority a queue may be declared with.
pub const PRIORITY_MAX: u8 = 31;

/// One priority's row of messages.
#[derive(Debug, Clone, Default)]
pub struct Lane {
    /// Index pages from the oldest live message to the tail, by base position.
    pub pages: VecDeque<Page<Entry>>,
    /// The position that the next message takes.
    pub tail: u64,
    /// Positions below this may have been delivered before the last restart, or will be before
    /// it is raised; reserved in blocks so that a delivery costs no journal record.
    pub horizon: u64,
    /// Earlier failed deliveries of live messages, by position. Messages without any are not here,
    /// so it is bounded by what was ever in flight and came back.
    pub attempts: BTreeMap<u64, u16>,
}

impl Lane {
    /// Index of the page that holds a position, if the page still lives.
    #[inline]
    pub fn page_of(&self, at: u64) -> Option<usize> {
        // Nearly always the first or the last page is meant.
        let last = self.pages.back()?;
        let i = if at >= last.base {
            self.pages.len() - 1
        } else if self.pages.len() > 1 && at < self.pages[1].base {
            0
        } else {
            self.pages.partition_point(|page| page.base <= at).checked_sub(1)?
        };
        let page = &self.pages[i];
        (at >= page.base && at < page.base + u64::from(page.count)).then_some(i)
    }

    /// Index of the page that holds a position, or else of the first one after it.
    pub fn page_from(&self, at: u64) -> Option<usize> {
        let i = self.page_of(at).unwrap_or_else(|| self.pages.partition_point(|p| p.base < at));
        (i < self.pages.len()).then_some(i)
    }

    /// Whether the message at a position still lives.
    pub fn is_live(&self, at: u64) -> bool {
        self.page_of(at).is_some_and(|i| self.pages[i].is_live(at))
    }

    /// The first live position at or after `from`.
    pub fn next_live(&self, from: u64) -> Option<u64> {
        let start = self.page_from(from)?;
        self.pages.iter().skip(start).find_map(|page| page.next_live(from))
    }

    /// Live messages.
    pub fn live(&self) -> u64 {
        self.pages.iter().map(|page| u64::from(page.live)).sum()
    }
}

/// Sums since the queue was declared; they survive restarts as far as checkpoints and replay go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueTotals {
    /// Messages accepted.
    pub published: u64,
    /// Messages acknowledged.
    pub acked: u64,
    /// Deliveries that came back.
    pub returned: u64,
    /// Messages sent to the dead letters.
    pub dead: u64,
    /// Messages dropped by expiry, overflow, rejection or delivery count without dead letters.
    pub dropped: u64,
    /// Messages purged.
    pub purged: u64,
}

/// A queue in the state.
#[derive(Debug, Clone)]
pub struct Queue {
    /// Its identity.
    pub id: QueueId,
    /// Its name.
    pub name: Name,
    /// Its settings.
    pub config: QueueConfig,
    /// Who may use it when it is exclusive.
    pub owner: crate::SessionId,
    /// One per priority, the lowest first.
    pub lanes: Vec<Lane>,
    /// Messages waiting and in flight, delayed ones not counted.
    pub messages: u64,
    /// Their bytes as stored.
    pub bytes: u64,
    /// Delayed messages.
    pub delayed: u64,
    /// Deliveries are held back.
    pub paused: bool,
    /// Bindings that lead here.
    pub bindings: u32,
    /// Remembered message ids.
    pub dedup: Window<()>,
    /// Sums.
    pub totals: QueueTotals,
    pub(crate) mark: Mark,
}

impl Queue {
    /// Whether a message that dies here is routed by the key it was published with, which must
    /// then be kept in memory.
    pub fn keeps_routing_key(&self) -> bool {
        let dead = self.config.dead_letter.as_ref();
        dead.is_some_and(|dead| dead.exchange.is_some() && dead.routing_key.is_none())
    }

    /// The lane for a message's priority.
    #[inline]
    pub fn lane_for(&self, priority: u8) -> u8 {
        priority.min(self.config.priority_max)
    }
}
