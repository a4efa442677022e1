//! The durable half of a shard: everything that a restart brings back.
//!
//! ```text
//! durable                                   volatile (volatile.rs)
//!   grants ── parts ── locks                  sessions ─ waiters ─ wait queues
//!   registers                                 consumers ─ deliveries
//!   exchanges ── routes                       cursors, parked keys, timers
//!   queues ── lanes ── pages ── entries
//!   delays ── runs ── pages
//!   requests, token counter, epoch
//! ```
//! Only `evolve` changes it, and only by an event. The one exception is invisible: index pages
//! that are stored may leave memory and come back.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::checkpoint::Changed;
use crate::delay::Delays;
use crate::event::Answered;
use crate::lock::{Grant, Lock, Part, Register};
use crate::queue::Queue;
use crate::slab::Slab;
use crate::space::Spaces;
use crate::table::Table;
use crate::topology::Exchange;
use crate::window::Window;
use crate::wire::{self, DecodeError, Reader};
use crate::{Limits, Time};

/// The numbers that decide how state is cut up; fixed when the store is made, because replay must
/// cut as the first run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Entries of an index page.
    pub page_entries: u32,
    /// Bytes of a journal segment.
    pub segment_bytes: u64,
    /// Remembered request ids.
    pub requests_max: u32,
    /// How long a request id is remembered, microseconds.
    pub request_window_us: Time,
    /// Remembered message ids of one queue.
    pub dedup_max: u32,
}

impl Shape {
    /// The shape that limits ask for.
    pub fn of(limits: &Limits) -> Self {
        Self {
            page_entries: limits.page_entries as u32,
            segment_bytes: limits.segment_bytes,
            requests_max: limits.requests_max as u32,
            request_window_us: limits.request_window_us,
            dedup_max: limits.dedup_max as u32,
        }
    }

    /// Entries of a run's page. The fronts of all runs may be in memory at once, so these pages
    /// are smaller than those of lanes.
    pub(crate) fn run_page_entries(&self) -> u64 {
        u64::from(self.page_entries / 8).max(1)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        wire::put_u64(out, u64::from(self.page_entries));
        wire::put_u64(out, self.segment_bytes);
        wire::put_u64(out, u64::from(self.requests_max));
        wire::put_u64(out, self.request_window_us);
        wire::put_u64(out, u64::from(self.dedup_max));
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let shape = Self {
            page_entries: from.u32("page entries")?,
            segment_bytes: from.u64("segment bytes")?,
            requests_max: from.u32("remembered requests")?,
            request_window_us: from.u64("request window")?,
            dedup_max: from.u32("remembered messages")?,
        };
        if shape.page_entries == 0 || shape.segment_bytes == 0 {
            return Err(DecodeError { what: "shape", offset: 0 });
        }
        Ok(shape)
    }
}

/// The durable half.
#[derive(Debug, Clone)]
pub struct Durable {
    pub(crate) shape: Shape,
    /// Counts the starts of the shard.
    pub(crate) epoch: u32,
    /// Where the last event was recorded; not part of the state, only of where it is.
    pub(crate) position: u64,
    /// Time of the last event.
    pub(crate) at: Time,
    /// Sequence number of the last event.
    pub(crate) sequence: u64,
    /// Wall-clock time minus the shard's time, fixed for one run.
    pub(crate) wall_offset: u64,
    /// The highest token that may have been handed out.
    pub(crate) token_high: u64,
    /// Serial number of the last queue declared.
    pub(crate) queue_serial: u32,

    pub(crate) locks: Slab<Lock>,
    pub(crate) lock_index: Table,
    pub(crate) grants: Slab<Grant>,
    pub(crate) grant_index: Table,
    pub(crate) parts: Slab<Part>,

    pub(crate) registers: Slab<Register>,
    pub(crate) register_index: Table,
    pub(crate) spaces: Spaces,
    /// Slots of the registers that are claimed, also of those that are gone and not yet cleared.
    pub(crate) claims: BTreeSet<u32>,

    pub(crate) exchanges: Slab<Exchange>,
    pub(crate) exchange_index: Table,
    pub(crate) queues: Slab<Queue>,
    pub(crate) queue_index: Table,
    pub(crate) delays: Delays,
    /// Messages waiting, in flight and delayed, over all queues.
    pub(crate) messages: u64,
    /// Index entries in memory.
    pub(crate) resident: usize,
    /// Room of pages that left memory, for those that come.
    pub(crate) pool: Vec<Vec<crate::index::Entry>>,

    pub(crate) requests: Window<Answered>,
    pub(crate) changed: Changed,
}

impl Durable {
    /// A new, empty state. `seed` protects the name indexes from chosen collisions.
    pub fn new(shape: Shape, seed: u64) -> Self {
        let table = |n: u64| Table::new(seed.wrapping_add(n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self {
            shape,
            epoch: 0,
            position: 0,
            at: 0,
            sequence: 0,
            wall_offset: 0,
            token_high: 0,
            queue_serial: 0,
            locks: Slab::default(),
            lock_index: table(1),
            grants: Slab::default(),
            grant_index: table(2),
            parts: Slab::default(),
            registers: Slab::default(),
            register_index: table(3),
            spaces: Spaces::default(),
            claims: BTreeSet::new(),
            exchanges: Slab::default(),
            exchange_index: table(4),
            queues: Slab::default(),
            queue_index: table(5),
            delays: Delays::default(),
            messages: 0,
            resident: 0,
            pool: Vec::new(),
            requests: Window::default(),
            changed: Changed::default(),
        }
    }

    /// The shape it was made with.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Counts the starts of the shard.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Time of the last event, microseconds.
    pub fn at(&self) -> Time {
        self.at
    }

    /// Sequence number of the last event.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Wall-clock time minus the shard's time, microseconds.
    pub fn wall_offset(&self) -> u64 {
        self.wall_offset
    }

    /// Exchanges by slot.
    pub fn exchanges(&self) -> &Slab<Exchange> {
        &self.exchanges
    }

    /// Queues by slot.
    pub fn queues(&self) -> &Slab<Queue> {
        &self.queues
    }

    /// Registers by slot, also those that are gone and not yet cleared, see [`crate::space`].
    pub fn registers(&self) -> &Slab<Register> {
        &self.registers
    }

    /// Locks by slot.
    pub fn locks(&self) -> &Slab<Lock> {
        &self.locks
    }

    /// Grants by slot.
    pub fn grants(&self) -> &Slab<Grant> {
        &self.grants
    }

    /// Delayed messages.
    pub fn delays(&self) -> &Delays {
        &self.delays
    }

    /// Index entries in memory.
    pub fn resident_entries(&self) -> usize {
        self.resident
    }

    /// Messages waiting, in flight and delayed; what room for acks is reserved for.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// The slot of a lock.
    #[inline]
    pub fn lock_named(&self, name: &str) -> Option<u32> {
        let hash = self.lock_index.hash_bytes(name.as_bytes());
        self.lock_index.find(hash, |slot| self.locks[slot].name.as_str() == name)
    }

    /// The slot of a grant.
    #[inline]
    pub fn grant_with(&self, token: u64) -> Option<u32> {
        let hash = self.grant_index.hash_u64(token);
        self.grant_index.find(hash, |slot| self.grants[slot].token.0 == token)
    }

    /// The slot of a register, also of one that is gone and not yet cleared.
    #[inline]
    pub fn register_at(&self, key: &[u8]) -> Option<u32> {
        let hash = self.register_index.hash_bytes(key);
        self.register_index.find(hash, |slot| *self.registers[slot].key == *key)
    }

    /// The slot of a queue.
    #[inline]
    pub fn queue_named(&self, name: &str) -> Option<u32> {
        let hash = self.queue_index.hash_bytes(name.as_bytes());
        self.queue_index.find(hash, |slot| self.queues[slot].name.as_str() == name)
    }

    /// The slot of an exchange.
    #[inline]
    pub fn exchange_named(&self, name: &str) -> Option<u32> {
        let hash = self.exchange_index.hash_bytes(name.as_bytes());
        self.exchange_index.find(hash, |slot| self.exchanges[slot].name.as_str() == name)
    }

    /// The slots of a grant's parts.
    pub fn parts_of_grant(&self, grant: u32) -> impl Iterator<Item = &Part> {
        let mut next = self.grants[grant].first_part;
        core::iter::from_fn(move || {
            let part = self.parts.get(next)?;
            next = part.next_in_grant;
            Some(part)
        })
    }

    /// The parts of a lock, the newest first.
    pub fn parts_of_lock(&self, lock: u32) -> impl Iterator<Item = &Part> {
        let mut next = self.locks[lock].first_part;
        core::iter::from_fn(move || {
            let part = self.parts.get(next)?;
            next = part.next_in_lock;
            Some(part)
        })
    }

    /// The label of a holder, shared.
    pub(crate) fn text(text: Option<&str>) -> Option<Arc<str>> {
        text.map(Arc::from)
    }
}
