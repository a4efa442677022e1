//! Events: what the journal holds and what alone changes the durable half.
//!
//! This is a file format. A tag is never reused, a field never changes its meaning; a new need gets
//! a new tag, and `tests/golden` keeps one encoded example of each for ever. Events carry slots and
//! results, not wishes, so replay needs neither rules nor anything that is not in memory.
//!
//! An event borrows what it carries: encoding one copies a body once, from the command into the
//! journal's buffer, and decoding copies nothing.

use alloc::vec::Vec;

use crate::content::{Edits, Kind};
use crate::index::{DeathReason, Delayed, Entry, Item, ListId};
use crate::lock::Ending;
use crate::message::Envelope;
use crate::topology::{ExchangeConfig, ExchangeKind, RouteTo};
use crate::wire::{self, DecodeError, Reader};
use crate::{Mode, SessionId, Shape, Tenure, Time, Token};

/// Why messages left a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// Acknowledged, or delivered to a consumer that does not acknowledge.
    Acked,
    /// Purged.
    Purged,
    /// Dead.
    Died(DeathReason),
    /// Moved on by a redrive.
    Redriven,
}

impl Why {
    fn to_u8(self) -> u8 {
        match self {
            Self::Acked => 0,
            Self::Purged => 1,
            Self::Redriven => 2,
            Self::Died(reason) => 16 + reason as u8,
        }
    }

    fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Acked),
            1 => Some(Self::Purged),
            2 => Some(Self::Redriven),
            _ => DeathReason::from_u8(byte.checked_sub(16)?).map(Self::Died),
        }
    }
}

/// A queue that a message enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The queue's slot.
    pub queue: u32,
    /// Its lane.
    pub lane: u8,
    /// Wall-clock time after which the message is dead there; 0: never.
    pub expires: Time,
}

/// One lock of a grant: slot and mode. Names follow in [`Granted::names`].
impl Wire for (u32, Mode) {
    fn put(&self, out: &mut Vec<u8>) {
        wire::put_u64(out, u64::from(self.0));
        put_mode(out, self.1);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok((from.u32("lock")?, get_mode(from)?))
    }
}

pub(crate) fn put_mode(out: &mut Vec<u8>, mode: Mode) {
    match mode {
        Mode::Exclusive => out.push(0),
        Mode::Shared => out.push(1),
        Mode::Permits { take, of } => {
            out.push(2);
            wire::put_u64(out, u64::from(take));
            wire::put_u64(out, u64::from(of));
        }
    }
}

pub(crate) fn get_mode(from: &mut Reader<'_>) -> Result<Mode, DecodeError> {
    Ok(match from.u8("lock mode")? {
        0 => Mode::Exclusive,
        1 => Mode::Shared,
        2 => Mode::Permits { take: from.u32("permits")?, of: from.u32("permits")? },
        _ => return Err(DecodeError { what: "lock mode", offset: 0 }),
    })
}

/// A lock grant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Granted<'a> {
    /// Its slot.
    pub slot: u32,
    /// Its fencing token.
    pub token: Token,
    /// Who holds it.
    pub session: SessionId,
    /// Who within the session.
    pub hold: u64,
    /// Until when.
    pub tenure: Tenure,
    /// When it ends of itself; 0: never.
    pub deadline: Time,
    /// How long nobody may take the locks after an unclean end.
    pub lock_delay_us: Time,
    /// What the holder says about itself.
    pub label: Option<&'a str>,
    /// Slots and modes of its locks.
    pub parts: List<'a, (u32, Mode)>,
    /// Their names, in the same order.
    pub names: Names<'a>,
}

/// The queues that a message enters.
pub type Arrivals<'a> = List<'a, Arrival>;

/// What was answered to a request whose id is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// Which kind of answer; see `decide`.
    pub kind: u8,
    /// Its numbers.
    pub a: u64,
    /// See `a`.
    pub b: u64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the variant's line says it; fields are named as in the state")]
pub enum Event<'a> {
    /// The shard started: volatile things are gone, transient queues too, session-held locks run
    /// out after a grace. `wall_offset` is what to add to the shard's time for wall-clock time.
    Booted { epoch: u32, wall_offset: u64, grace_us: Time, shape: Shape },
    /// Tokens up to here may be handed out without further notice.
    TokensReserved { upto: u64 },
    /// Locks were granted.
    Granted(Granted<'a>),
    /// A hold was entered again, left once, or renewed.
    Entered { slot: u32, entries: u32, deadline: Time },
    /// A hold ended.
    Ended { slot: u32, ending: Ending, delay_until: Time, keep: bool },
    /// A lock that nobody holds is forgotten.
    LockFreed { slot: u32 },
    /// A register was written.
    Written { slot: u32, key: &'a [u8], value: &'a [u8], version: u64, expires: Time },
    /// A register is gone.
    Unwritten { slot: u32, version: u64 },
    /// A key has new content, another expiry, or both.
    Keyed {
        /// Its place.
        slot: u32,
        /// Its name.
        key: &'a [u8],
        /// Its new version.
        version: u64,
        /// When it vanishes; 0: never.
        expires: Time,
        /// The token under which it is held like a lock; 0: it is not. Equal to the version: it is
        /// held from now on.
        claim: u64,
        /// The edits make it anew, of this kind; `None`: they change what it holds.
        fresh: Option<Kind>,
        /// What changes.
        edits: Edits<'a>,
    },
    /// A claimed key with an expiry was given back. Another event than `Unwritten`, since losing
    /// it is safe.
    Unclaimed { slot: u32, version: u64 },
    /// All keys of a space are gone, up to this version.
    Emptied { space: u8, version: u64 },
    /// Keys that are gone were cleared.
    Cleared { slots: List<'a, Range> },
    /// A queue was made.
    QueueDeclared { slot: u32, serial: u32, name: &'a str, owner: SessionId, config: &'a [u8] },
    /// A queue is gone with its messages and bindings.
    QueueDeleted { slot: u32 },
    /// Deliveries from a queue were held back or let go.
    QueuePaused { slot: u32, paused: bool },
    /// An exchange was made.
    ExchangeDeclared { slot: u32, name: &'a str, config: ExchangeConfig },
    /// An exchange is gone with all bindings from and to it.
    ExchangeDeleted { slot: u32 },
    /// A binding was made.
    Bound { exchange: u32, key: &'a str, to: RouteTo, arguments: &'a [u8], match_all: bool },
    /// A binding is gone.
    Unbound { exchange: u32, key: &'a str, to: RouteTo, arguments: &'a [u8], match_all: bool },
    /// A message was accepted. `key` and `id` are fingerprints, 0 when absent; `due` is 0 or the
    /// wall-clock time before which it is delayed.
    Published { due: Time, key: u64, id: u128, arrivals: Arrivals<'a>, envelope: Envelope<'a> },
    /// Messages left a lane.
    Removed { queue: u32, lane: u8, why: Why, weight: u64, ranges: List<'a, Range> },
    /// A delivery failed; the message waits in its place with this many attempts behind it.
    Returned { queue: u32, lane: u8, at: u64, attempts: u16 },
    /// A delivery failed; the message is delayed.
    Deferred { queue: u32, lane: u8, at: u64, item: Delayed },
    /// A message went from one queue to others.
    Moved { queue: u32, lane: u8, at: u64, why: Why, arrivals: List<'a, Arrival>, entry: Entry },
    /// The newest delayed messages became a run.
    RunStarted { run: u32 },
    /// The first `count` delayed messages became ready; `items` holds them when they come from a
    /// run.
    Promoted { run: Option<u32>, count: u32, items: &'a [u8] },
    /// A page was stored: this record is the page.
    PageStored { list: ListId, base: u64, items: &'a [u8] },
    /// A message was copied: this record holds it now.
    Relocated { list: ListId, base: u64, at: u64, record: &'a [u8] },
    /// Positions below `upto` may have been delivered.
    HorizonRaised { queue: u32, lane: u8, upto: u64 },
    /// A request was answered.
    Requested { id: u128, answer: Answered },
}

fn put_list(out: &mut Vec<u8>, list: ListId) {
    match list {
        ListId::Lane(queue, lane) => {
            out.push(0);
            wire::put_u64(out, u64::from(queue));
            out.push(lane);
        }
        ListId::Run(run) => {
            out.push(1);
            wire::put_u64(out, u64::from(run));
        }
    }
}

fn get_list(from: &mut Reader<'_>) -> Result<ListId, DecodeError> {
    Ok(match from.flag("list kind")? {
        false => ListId::Lane(from.u32("queue")?, from.u8("lane")?),
        true => ListId::Run(from.u32("run")?),
    })
}

pub(crate) fn put_route(out: &mut Vec<u8>, to: RouteTo) {
    let (kind, slot) = match to {
        RouteTo::Queue(slot) => (0, slot),
        RouteTo::Exchange(slot) => (1, slot),
    };
    out.push(kind);
    wire::put_u64(out, u64::from(slot));
}

pub(crate) fn get_route(from: &mut Reader<'_>) -> Result<RouteTo, DecodeError> {
    Ok(match from.flag("route kind")? {
        false => RouteTo::Queue(from.u32("queue")?),
        true => RouteTo::Exchange(from.u32("exchange")?),
    })
}

pub(crate) fn put_exchange(out: &mut Vec<u8>, config: ExchangeConfig) {
    out.push(match config.kind {
        ExchangeKind::Direct => 0,
        ExchangeKind::Fanout => 1,
        ExchangeKind::Topic => 2,
        ExchangeKind::Headers => 3,
    });
    out.push(
        u8::from(config.durable)
            | u8::from(config.auto_delete) << 1
            | u8::from(config.internal) << 2,
    );
}

pub(crate) fn get_exchange(from: &mut Reader<'_>) -> Result<ExchangeConfig, DecodeError> {
    let kind = match from.u8("exchange kind")? {
        0 => ExchangeKind::Direct,
        1 => ExchangeKind::Fanout,
        2 => ExchangeKind::Topic,
        3 => ExchangeKind::Headers,
        _ => return Err(DecodeError { what: "exchange kind", offset: 0 }),
    };
    let flags = from.u8("exchange flags")?;
    Ok(ExchangeConfig {
        kind,
        durable: flags & 1 != 0,
        auto_delete: flags & 2 != 0,
        internal: flags & 4 != 0,
    })
}

fn put_tenure(out: &mut Vec<u8>, tenure: Tenure) {
    out.push(u8::from(tenure.session) | u8::from(tenure.ttl_us.is_some()) << 1);
    if let Some(ttl) = tenure.ttl_us {
        wire::put_u64(out, ttl);
    }
}

fn get_tenure(from: &mut Reader<'_>) -> Result<Tenure, DecodeError> {
    let flags = from.u8("tenure")?;
    let ttl_us = if flags & 2 != 0 { Some(from.u64("ttl")?) } else { None };
    Ok(Tenure { ttl_us, session: flags & 1 != 0 })
}

impl Granted<'_> {
    /// Appends the grant; also its checkpoint cell.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        wire::put_u64(out, u64::from(self.slot));
        wire::put_u64(out, self.token.0);
        wire::put_u64(out, self.session.0);
        wire::put_u64(out, self.hold);
        put_tenure(out, self.tenure);
        wire::put_u64(out, self.deadline);
        wire::put_u64(out, self.lock_delay_us);
        wire::put_maybe(out, self.label.map(str::as_bytes));
        self.parts.encode(out);
        self.names.iter().for_each(|name| wire::put_bytes(out, name.as_bytes()));
    }
}

impl<'a> Granted<'a> {
    pub(crate) fn decode(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let slot = from.u32("grant slot")?;
        let token = Token(from.u64("token")?);
        let session = SessionId(from.u64("session")?);
        let hold = from.u64("hold")?;
        let tenure = get_tenure(from)?;
        let deadline = from.u64("deadline")?;
        let lock_delay_us = from.u64("lock-delay")?;
        let label = match from.maybe("label")? {
            Some(bytes) => Some(
                core::str::from_utf8(bytes)
                    .map_err(|_| DecodeError { what: "label", offset: 0 })?,
            ),
            None => None,
        };
        let parts = List::<(u32, Mode)>::decode(from, "lock parts")?;
        let rest = from.rest();
        for _ in 0..parts.len() {
            let bad = DecodeError { what: "lock name", offset: 0 };
            crate::Name::new(from.text("lock name")?).map_err(|_| bad)?;
        }
        let names = Names::Read(&rest[..rest.len() - from.rest().len()]);
        Ok(Self {
            slot,
            token,
            session,
            hold,
            tenure,
            deadline,
            lock_delay_us,
            label,
            parts,
            names,
        })
    }
}

mod codec;
mod list;
pub use codec::message_of;
pub use list::{List, Names, Range, Wire};
