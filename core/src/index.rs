//! Index pages: what the state knows of each waiting message, and how it leaves memory.
//!
//! ```text
//! lane:  page ──── page ──── page ──── page          page: up to 2048 entries, appended in order
//!        stored    stored    stored    resident      entry: where the record lies, size, expiry,
//! key
//!        ▲ head                        ▲ tail        gone: one bit per entry, set by an ack
//! ```
//! Entries never change once appended (relocation, which moves a record, makes the page unstored
//! again), so a full page is written once, as a journal record of its own (`PageStored`), and then
//! dropped from memory; `gone` and the counters stay. Everything that replay needs of a page that
//! is not resident is in the events themselves, so `evolve` never waits for the disk. A page that
//! the consumers reach is asked for by an effect and brought in by the node between two commands.
//!
//! The same pages hold delayed messages: a *run* is a list of them sorted by due time (`delay.rs`).

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::name::Name;
use crate::wire::{self, DecodeError, Reader};
use crate::{Position, QueueId, Time};

/// Where a record lies in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Its logical position.
    pub position: Position,
    /// Its length in bytes.
    pub size: u32,
}

/// One death of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// The queue in which it died.
    pub queue: Name,
    /// Why.
    pub reason: DeathReason,
    /// How often, there and for that reason.
    pub count: u32,
    /// When first, wall-clock microseconds.
    pub first_at: u64,
}

/// Why a message left its queue without an ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DeathReason {
    /// A consumer rejected it.
    Rejected = 0,
    /// It waited too long.
    Expired = 1,
    /// The queue was full.
    Overflow = 2,
    /// It was delivered too often.
    Deliveries = 3,
}

impl DeathReason {
    pub(crate) fn from_u8(byte: u8) -> Option<Self> {
        [Self::Rejected, Self::Expired, Self::Overflow, Self::Deliveries]
            .get(usize::from(byte))
            .copied()
    }
}

/// What few entries have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extra {
    /// The routing key, kept only where a dead-letter exchange will need it.
    pub routing_key: Option<Box<str>>,
    /// The message's deaths, the latest last.
    pub deaths: Vec<Death>,
}

/// What the state keeps of a waiting message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The journal record with the message.
    pub place: Place,
    /// Bytes counted against the queue's limit; stays when the record moves.
    pub weight: u32,
    /// Failed deliveries before it took this place.
    pub attempts: u16,
    /// Wall-clock time after which it is dead; 0: never.
    pub expires: Time,
    /// Hash of its ordering key; 0: none.
    pub key: u64,
    /// What few entries have.
    pub extra: Option<Box<Extra>>,
}

impl Entry {
    /// Its deaths, the latest last.
    pub fn deaths(&self) -> &[Death] {
        self.extra.as_ref().map_or(&[], |extra| &extra.deaths)
    }
}

/// A delayed message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delayed {
    /// Wall-clock time at which it becomes ready.
    pub due: Time,
    /// For which queue.
    pub queue: QueueId,
    /// Into which lane.
    pub lane: u8,
    /// The message.
    pub entry: Entry,
}

/// What a page holds.
pub trait Item: Clone {
    /// Appends the item.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads what `encode` wrote.
    ///
    /// # Errors
    /// When the bytes are not an item.
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError>;
    /// The message in it.
    fn entry(&self) -> &Entry;
    /// The message in it, to move its record.
    fn entry_mut(&mut self) -> &mut Entry;
    /// The time that a page keeps the least of; 0 does not count.
    fn time(&self) -> Time;
}

impl Item for Entry {
    fn encode(&self, out: &mut Vec<u8>) {
        let flags = u8::from(self.attempts > 0)
            | u8::from(self.expires > 0) << 1
            | u8::from(self.key > 0) << 2
            | u8::from(self.extra.is_some()) << 3
            | u8::from(self.weight != self.place.size) << 4;
        out.push(flags);
        wire::put_u64(out, self.place.position);
        wire::put_u64(out, u64::from(self.place.size));
        if self.weight != self.place.size {
            wire::put_u64(out, u64::from(self.weight));
        }
        if self.attempts > 0 {
            wire::put_u64(out, u64::from(self.attempts));
        }
        if self.expires > 0 {
            wire::put_u64(out, self.expires);
        }
        if self.key > 0 {
            out.extend_from_slice(&self.key.to_le_bytes());
        }
        if let Some(extra) = &self.extra {
            wire::put_maybe(out, extra.routing_key.as_ref().map(|key| key.as_bytes()));
            wire::put_u64(out, extra.deaths.len() as u64);
            for death in &extra.deaths {
                wire::put_bytes(out, death.queue.as_bytes());
                out.push(death.reason as u8);
                wire::put_u64(out, u64::from(death.count));
                wire::put_u64(out, death.first_at);
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags = from.u8("entry flags")?;
        let bit = |n: u8| flags & (1 << n) != 0;
        let position = from.u64("record position")?;
        let size = from.u32("record size")?;
        let weight = if bit(4) { from.u32("weight")? } else { size };
        let attempts = if bit(0) { from.u16("attempts")? } else { 0 };
        let expires = if bit(1) { from.u64("expiry")? } else { 0 };
        let key = if bit(2) {
            let bytes = from.take(8, "key hash")?;
            u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
        } else {
            0
        };
        let extra = if bit(3) { Some(Box::new(decode_extra(from)?)) } else { None };
        Ok(Self { place: Place { position, size }, weight, attempts, expires, key, extra })
    }

    fn entry(&self) -> &Entry {
        self
    }

    fn entry_mut(&mut self) -> &mut Entry {
        self
    }

    fn time(&self) -> Time {
        self.expires
    }
}

fn decode_extra(from: &mut Reader<'_>) -> Result<Extra, DecodeError> {
    let routing_key = match from.maybe("routing key")? {
        Some(bytes) => {
            let bad = DecodeError { what: "routing key", offset: 0 };
            Some(core::str::from_utf8(bytes).map_err(|_| bad)?.into())
        }
        None => None,
    };
    let count = from.count(4, "deaths")?;
    let mut deaths = Vec::with_capacity(count);
    for _ in 0..count {
        let bad = DecodeError { what: "death", offset: 0 };
        deaths.push(Death {
            queue: Name::new(from.text("queue name")?).map_err(|_| bad)?,
            reason: DeathReason::from_u8(from.u8("reason")?).ok_or(bad)?,
            count: from.u32("death count")?,
            first_at: from.u64("death time")?,
        });
    }
    Ok(Extra { routing_key, deaths })
}

impl Item for Delayed {
    fn encode(&self, out: &mut Vec<u8>) {
        wire::put_u64(out, self.due);
        wire::put_u64(out, u64::from(self.queue.slot));
        wire::put_u64(out, u64::from(self.queue.serial));
        out.push(self.lane);
        self.entry.encode(out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            due: from.u64("due time")?,
            queue: QueueId { slot: from.u32("queue")?, serial: from.u32("queue serial")? },
            lane: from.u8("lane")?,
            entry: Entry::decode(from)?,
        })
    }

    fn entry(&self) -> &Entry {
        &self.entry
    }

    fn entry_mut(&mut self) -> &mut Entry {
        &mut self.entry
    }

    fn time(&self) -> Time {
        self.due
    }
}

mod page;
pub use page::{ListId, Page, Relocation, decode_items};
