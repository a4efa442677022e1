//! The volatile half of a shard: what a restart rebuilds or does without.
//!
//! ```text
//! session ─┬─ grants (durable; linked here)      wait queue "stock/42": place ─ place ─ place
//!          ├─ waiters ──────────────────────────────────────────────────┘ one per lock
//!          ├─ watchers ── watch: those who wait for one lock or register to change
//!          ├─ consumers ── queue side: ring of those with credit, cursors, returned, parked
//!          └─ flights (deliveries in flight)
//! ```
//! Everything that waits or runs out has at most one timer. Lists are intrusive: ends are slots.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::counts::{ClaimCounts, LockWaits};
use crate::index::Entry;
use crate::keys::Staged;
use crate::slab::{NONE, Slab};
use crate::table::Table;
use crate::wheel::Wheel;
use crate::{Acquire, ConsumerId, Limits, Mode, Name, RequestId, SessionId, Ticket, Time};

/// What a timer wakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    Session(u32),
    Grant(u32),
    Waiter(u32),
    Watcher(u32),
    /// A lock's slot; whoever is there now is looked at.
    LockDelay(u32),
    Register(u32),
    Flight(u32),
    Queue(u32),
    Consumer(u32),
    Delays,
}

/// Who holds.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub id: SessionId,
    pub ttl_us: Option<Time>,
    /// When it ends unless it is heard of; 0: never.
    pub deadline: Time,
    pub timer: u32,
    /// Where notices go; `None` after a restart until it is taken up again.
    pub ticket: Option<Ticket>,
    pub label: Option<Arc<str>>,
    pub first_grant: u32,
    pub first_waiter: u32,
    pub first_watcher: u32,
    pub first_consumer: u32,
    pub first_flight: u32,
    /// How many grants, waiters with watchers, consumers and flights are in those lists.
    pub holds: u32,
    pub waiting: u32,
    pub consumers: u32,
    pub in_flight: u32,
    /// Exclusive queues that go with it.
    pub queues: Vec<u32>,
}

/// A grant's timer and its place in its session's list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GrantSide {
    pub timer: u32,
    pub session: u32,
    pub prev: u32,
    pub next: u32,
}

impl Default for GrantSide {
    fn default() -> Self {
        Self { timer: NONE, session: NONE, prev: NONE, next: NONE }
    }
}

/// A blocked acquire.
#[derive(Debug, Clone)]
pub(crate) struct Waiter {
    pub ticket: Ticket,
    pub session: u32,
    pub session_id: SessionId,
    pub request: Option<RequestId>,
    pub acquire: Box<Acquire>,
    pub arrived: Time,
    pub timer: u32,
    /// Its places, one per lock.
    pub places: Vec<u32>,
    pub prev: u32,
    pub next: u32,
}

/// A waiter's place in one lock's queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WaitPlace {
    pub waiter: u32,
    pub line: u32,
    pub mode: Mode,
    pub prev: u32,
    pub next: u32,
}

/// Those who wait for one lock, in order of arrival.
#[derive(Debug, Clone)]
pub(crate) struct WaitLine {
    pub name: Name,
    pub first: u32,
    pub last: u32,
    pub len: u32,
    /// How many of them wait for other locks too.
    pub multi: u32,
    /// Average time the lock is held, exponentially weighted; 0: not known yet.
    pub hold_average_us: Time,
}

/// What can be watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Watched {
    Lock(Name),
    Register(Arc<[u8]>),
}

/// The same, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject<'a> {
    Lock(&'a str),
    Register(&'a [u8]),
}

impl Watched {
    pub fn subject(&self) -> Subject<'_> {
        match self {
            Self::Lock(name) => Subject::Lock(name.as_str()),
            Self::Register(key) => Subject::Register(key),
        }
    }
}

impl<'a> Subject<'a> {
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Lock(name) => name.as_bytes(),
            Self::Register(key) => key,
        }
    }
}

/// Those who wait for one lock or register to change. What they know of it is so now, or they
/// would have been answered; so they all know the same.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    pub what: Watched,
    pub known: Option<u64>,
    pub first: u32,
    pub last: u32,
}

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct Watcher {
    pub ticket: Ticket,
    pub session: u32,
    pub session_id: SessionId,
    pub watch: u32,
    /// When it is answered all the same; 0: never.
    pub due: Time,
    pub timer: u32,
    pub prev: u32,
    pub next: u32,
    pub prev_of_session: u32,
    pub next_of_session: u32,
}

/// A consumer.
#[derive(Debug, Clone)]
pub(crate) struct Consumer {
    pub id: ConsumerId,
    pub session: u32,
    pub queue: u32,
    pub ticket: Ticket,
    pub credit: u32,
    pub in_flight: u32,
    pub once: bool,
    pub no_ack: bool,
    pub exclusive: bool,
    pub label: Option<Arc<str>>,
    /// Whether it stands in the queue's ring.
    pub ready: bool,
    pub timer: u32,
    pub prev: u32,
    pub next: u32,
}

/// A delivery in flight: a lease on a message.
#[derive(Debug, Clone)]
pub(crate) struct Flight {
    pub token: u64,
    pub queue: u32,
    pub at: u64,
    pub lane: u8,
    pub entry: Entry,
    pub session: u32,
    pub consumer: ConsumerId,
    pub timer: u32,
    pub prev: u32,
    pub next: u32,
}

/// Messages of one ordering key.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeySide {
    /// They wait for the one in flight.
    pub parked: VecDeque<(u8, u64, Entry)>,
}

/// A lane's reading side.
#[derive(Debug, Clone, Default)]
pub(crate) struct LaneSide {
    /// Positions below are in flight, returned, parked or gone.
    pub cursor: u64,
    /// Positions below may have been delivered before the restart.
    pub delivered_before: u64,
    /// Messages to deliver again, in their old places.
    pub returned: BTreeMap<u64, Entry>,
}

/// A queue's reading side.
#[derive(Debug, Clone, Default)]
pub(crate) struct QueueSide {
    /// Consumers with credit, the next to be served first.
    pub ring: VecDeque<u32>,
    /// All consumers in order of arrival.
    pub consumers: Vec<u32>,
    pub lanes: Vec<LaneSide>,
    pub in_flight: u64,
    pub in_flight_bytes: u64,
    /// Ordering keys in flight.
    pub keys: BTreeMap<u64, KeySide>,
    pub parked: u64,
    pub timer: u32,
    /// A page of this queue is being fetched.
    pub loading: bool,
    /// It is on the list of queues to look at.
    pub listed: bool,
    /// It is on the list of queues that wait for room in flight.
    pub crowded: bool,
}

/// The volatile half.
#[derive(Debug, Clone)]
pub(crate) struct Volatile {
    pub limits: Limits,
    /// The last token handed out.
    pub token: u64,
    pub consumer_serial: u32,
    pub sessions: Slab<Session>,
    pub session_index: Table,
    pub grants: Vec<GrantSide>,
    pub registers: Vec<u32>,
    pub waiters: Slab<Waiter>,
    pub places: Slab<WaitPlace>,
    pub lines: Slab<WaitLine>,
    pub line_index: Table,
    pub waiter_index: Table,
    /// Waiters by request id, so that one who asks again finds itself.
    pub request_index: Table,
    pub watches: Slab<Watch>,
    pub watch_index: Table,
    pub watchers: Slab<Watcher>,
    pub watcher_index: Table,
    /// Watches whose subject the step has changed.
    pub stirred: Vec<u32>,
    /// Room for the keys of the next decision.
    pub staged: Vec<Staged>,
    /// Watchers whose time is over.
    pub overdue: Vec<u32>,
    pub consumers: Slab<Consumer>,
    pub flights: Slab<Flight>,
    pub queues: Vec<QueueSide>,
    pub wheel: Wheel<Timer>,
    pub delays_timer: u32,
    pub delays_due: Time,
    /// The earliest due time of each run, as far as it can be told.
    pub run_fronts: alloc::collections::BTreeSet<(Time, u32)>,
    /// Lists reused from step to step.
    pub arrivals: Vec<crate::event::Arrival>,
    pub targets: Vec<u32>,
    pub scratch: Vec<u8>,
    /// Locks whose waiters may be served now.
    pub free: Vec<Name>,
    /// Queues to look at before the step ends.
    pub busy: Vec<u32>,
    /// Queues that could deliver if fewer deliveries were in flight, the next to be let in first.
    pub crowded: VecDeque<u32>,
    /// Where eviction looks next.
    pub evict_hand: u32,
    pub lock_waits: LockWaits,
    pub claim_counts: ClaimCounts,
}

impl Volatile {
    pub fn new(limits: Limits, seed: u64) -> Self {
        let table = |n: u64| Table::new(seed.wrapping_add(n).wrapping_mul(0xd6e8_feb8_6659_fd93));
        Self {
            limits,
            token: 0,
            consumer_serial: 0,
            sessions: Slab::default(),
            session_index: table(1),
            grants: Vec::new(),
            registers: Vec::new(),
            waiters: Slab::default(),
            places: Slab::default(),
            lines: Slab::default(),
            line_index: table(2),
            waiter_index: table(3),
            request_index: table(4),
            watches: Slab::default(),
            watch_index: table(5),
            watchers: Slab::default(),
            watcher_index: table(6),
            stirred: Vec::new(),
            staged: Vec::new(),
            overdue: Vec::new(),
            consumers: Slab::default(),
            flights: Slab::default(),
            queues: Vec::new(),
            wheel: Wheel::default(),
            delays_timer: NONE,
            delays_due: 0,
            run_fronts: Default::default(),
            arrivals: Vec::new(),
            targets: Vec::new(),
            scratch: Vec::new(),
            free: Vec::new(),
            busy: Vec::new(),
            crowded: VecDeque::new(),
            evict_hand: 0,
            lock_waits: LockWaits::default(),
            claim_counts: ClaimCounts::default(),
        }
    }

    /// The slot of an open session.
    #[inline]
    pub fn session(&self, id: SessionId) -> Option<u32> {
        let hash = self.session_index.hash_u64(id.0);
        self.session_index.find(hash, |slot| self.sessions[slot].id == id)
    }

    /// The line of those who wait for a lock.
    #[inline]
    pub fn line_for(&self, name: &str) -> Option<u32> {
        if self.lines.is_empty() {
            return None;
        }
        let hash = self.line_index.hash_bytes(name.as_bytes());
        self.line_index.find(hash, |slot| self.lines[slot].name.as_str() == name)
    }

    /// Those who watch a lock or a register.
    #[inline]
    pub fn watch_on(&self, subject: Subject<'_>) -> Option<u32> {
        if self.watches.is_empty() {
            return None;
        }
        let hash = self.watch_index.hash_bytes(subject.bytes());
        self.watch_index.find(hash, |slot| self.watches[slot].what.subject() == subject)
    }

    /// Notes a change, for those who watch.
    #[inline]
    pub fn stir(&mut self, subject: Subject<'_>) {
        if let Some(watch) = self.watch_on(subject) {
            self.stirred.push(watch);
        }
    }

    /// Waiters and watchers, which share one limit.
    pub fn waiting(&self) -> usize {
        self.waiters.len() + self.watchers.len()
    }

    /// A grant's side, made when it is not there.
    #[inline]
    pub fn grant_mut(&mut self, slot: u32) -> &mut GrantSide {
        if self.grants.len() <= slot as usize {
            self.grants.resize(slot as usize + 1, GrantSide::default());
        }
        &mut self.grants[slot as usize]
    }

    /// A queue's side, made when it is not there.
    #[inline]
    pub fn queue_mut(&mut self, slot: u32) -> &mut QueueSide {
        if self.queues.len() <= slot as usize {
            let empty = QueueSide { timer: NONE, ..QueueSide::default() };
            self.queues.resize(slot as usize + 1, empty);
        }
        &mut self.queues[slot as usize]
    }

    /// Links a grant into its session's list.
    pub fn link_grant(&mut self, slot: u32, session: u32) {
        let next = core::mem::replace(&mut self.sessions[session].first_grant, slot);
        self.sessions[session].holds += 1;
        *self.grant_mut(slot) = GrantSide { timer: NONE, session, prev: NONE, next };
        if next != NONE {
            self.grants[next as usize].prev = slot;
        }
    }

    /// Takes a grant out of its session's list and forgets its timer.
    pub fn unlink_grant(&mut self, slot: u32) {
        let side = core::mem::take(self.grant_mut(slot));
        self.wheel.cancel(side.timer);
        if side.next != NONE {
            self.grants[side.next as usize].prev = side.prev;
        }
        if side.prev != NONE {
            self.grants[side.prev as usize].next = side.next;
        } else if side.session != NONE {
            self.sessions[side.session].first_grant = side.next;
        }
        if side.session != NONE {
            self.sessions[side.session].holds -= 1;
        }
    }
}
