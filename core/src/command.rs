//! What may be asked of a shard. The set is closed: doors and the library map to these and to
//! nothing else. Durations are microseconds; identities are small numbers handed out by the core.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::message::Message;
use crate::topology::{Binding, ExchangeConfig};
use crate::{List, Name, QueueConfig, Time};

/// A fencing token: one counter for the whole shard, so it rises strictly for every subject, is
/// never used twice, and stays below 2^53 for 285 years at a million grants a second (it survives
/// JSON and SQL's BIGINT). Restarts skip ahead, they never go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Token(pub u64);

/// Who holds: handed out by `OpenSession`. [`SessionId::NONE`] may hold by TTL only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub u64);

impl SessionId {
    /// No session: its locks end by TTL or release only, and it cannot consume.
    pub const NONE: Self = Self(0);
}

/// Where an outcome goes; chosen by the caller, meaningless to the core, unique among what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticket(pub u64);

/// Names a request across retries; random, chosen by the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u128);

/// A queue's identity for as long as it exists: place and serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId {
    /// Its place in the shard's list.
    pub slot: u32,
    /// Tells it from earlier users of the place.
    pub serial: u32,
}

/// A consumer's identity for as long as it exists: place and serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerId {
    /// Its place in the shard's list.
    pub slot: u32,
    /// Tells it from earlier users of the place.
    pub serial: u32,
}

/// Names one delivery: where the core keeps it, and its fencing token. A late hand has an old
/// token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Receipt {
    /// Its place in the shard's list of deliveries.
    pub slot: u32,
    /// The fencing token of the delivery.
    pub token: Token,
}

/// How much of a lock is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Nobody else.
    Exclusive,
    /// Any number of sharers, no exclusive holder. Waiting writers go before later readers.
    Shared,
    /// `take` of the semaphore's `of` permits.
    Permits {
        /// How many, at least one.
        take: u32,
        /// How many the semaphore has; all who use it at one time must say the same.
        of: u32,
    },
}

/// Until when a hold lasts: a deadline, the session's life, or whichever ends first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tenure {
    /// Time from the grant (and from each renewal) to the deadline.
    pub ttl_us: Option<Time>,
    /// Whether the hold ends with its session.
    pub session: bool,
}

/// How long an acquirer or a one-shot consumer waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wait {
    /// Not at all: refused if it cannot be had at once.
    No,
    /// At most so long.
    AtMost(Time),
    /// Until granted, cancelled, or the session ends.
    Forever,
}

/// Asks for one or several locks, all or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquire {
    /// Names and modes; each name once.
    pub wants: Wants,
    /// Who within the session: the unit of reentrancy and of deadlock detection.
    pub hold: u64,
    /// Whether a hold of the same session and `hold` may be entered again.
    pub reentrant: bool,
    /// Until when the grant lasts.
    pub tenure: Tenure,
    /// How long to wait.
    pub wait: Wait,
    /// How long nobody may take the lock after this hold was lost (not after it was released).
    pub lock_delay_us: Time,
    /// What the holder says about itself; shown by inspect.
    pub label: Option<Arc<str>>,
}

/// The locks of one acquire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wants {
    /// The usual case.
    One(Name, Mode),
    /// An atomic multi-lock.
    Many(Box<[(Name, Mode)]>),
}

impl Wants {
    /// The wants as a list.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, Mode)> {
        let (one, many) = match self {
            Self::One(name, mode) => (Some((name, *mode)), &[][..]),
            Self::Many(list) => (None, &list[..]),
        };
        one.into_iter().chain(many.iter().map(|(name, mode)| (name, *mode)))
    }

    /// How many locks.
    pub fn len(&self) -> usize {
        match self {
            Self::One(..) => 1,
            Self::Many(list) => list.len(),
        }
    }

    /// Whether no lock is named.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Names a hold. All three must match, so nobody's lock ends by a guessed or stale number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRef {
    /// A lock that the hold covers.
    pub name: Name,
    /// Its fencing token.
    pub token: Token,
    /// The `hold` given at acquire.
    pub hold: u64,
}

/// What a register write demands of the present state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expect {
    /// Nothing.
    Anything,
    /// That there is no value.
    Absent,
    /// That there is a value.
    Present,
    /// That the version is this one: compare-and-set.
    Version(u64),
}

/// Writes or deletes a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// 1 to `key_bytes` bytes of any kind.
    pub key: Arc<[u8]>,
    /// The new value; `None` deletes.
    pub value: Option<Arc<[u8]>>,
    /// What must hold now.
    pub expect: Expect,
    /// When the value vanishes.
    pub ttl: RegisterTtl,
    /// The write is refused unless this lock is held with this token.
    pub guard: Option<(Name, Token)>,
}

/// When a written value vanishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RegisterTtl {
    /// Never.
    Never,
    /// As the value before it.
    Keep,
    /// After this time.
    After(Time),
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To one queue by its identity, the quick way.
    Queue(QueueId),
    /// To one queue by name, as through the default exchange.
    QueueNamed(Name),
    /// Through an exchange with a routing key (which may be empty).
    Exchange(Name, Arc<str>),
}

/// One message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Where to.
    pub target: Target,
    /// What.
    pub message: Message,
    /// Refuse when no queue takes it.
    pub mandatory: bool,
}

impl Publish {
    /// About how many journal bytes it takes, never less.
    pub fn bytes(&self) -> usize {
        let more = self.message.more.as_ref().map_or(0, |more| {
            let header = |(name, value): &(Box<str>, crate::Value)| name.len() + value.bytes() + 24;
            more.headers.iter().map(header).sum::<usize>() + more.properties.len() + 512
        });
        self.message.body.len() + more + 1024
    }
}

impl Write {
    /// About how many journal bytes it takes, never less.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, |value| value.len()) + 128
    }
}

/// How a delivery is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Done; the message is gone.
    Ack,
    /// Not done; again, after `delay_us` (0: at once, in its old place).
    Nack {
        /// How long to hold it back.
        delay_us: Time,
    },
    /// Never again: to the dead letters, or dropped when the queue has none.
    Reject,
    /// Not begun, nobody has looked at it: again at once, in its old place, and the delivery does
    /// not count. For messages that were fetched ahead of their use.
    Return,
}

/// Takes messages as they come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consume {
    /// From which queue.
    pub queue: Name,
    /// How many may be in flight to this consumer at once.
    pub credit: u32,
    /// Take one message, then stop; how long to wait for it.
    pub once: Option<Wait>,
    /// Deliver and forget: no lease, no ack. Credit is then used up by deliveries and renewed by
    /// [`Op::Credit`], so that a slow reader does not fill memory.
    pub no_ack: bool,
    /// Refuse, and be refused, any other consumer of the queue.
    pub exclusive: bool,
    /// Shown by inspect.
    pub label: Option<Arc<str>>,
}

/// What happens all at once or not at all, in this order. Its parts may be of several sessions, so
/// it does not matter which one asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Commit {
    /// Each lock must be held with this token.
    pub checks: Vec<(Name, Token)>,
    /// Deliveries to settle, each with the session it was made to.
    pub settles: Vec<(SessionId, Receipt, Verdict)>,
    /// Messages to publish.
    pub publishes: Vec<Publish>,
    /// Registers to write.
    pub writes: Vec<Write>,
    /// Holds to release, each with the session it was acquired in.
    pub releases: Vec<(SessionId, HoldRef)>,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Where the outcome goes.
    pub ticket: Ticket,
    /// Who asks.
    pub session: SessionId,
    /// Names the request across retries: the same id is carried out once and answered alike.
    pub request: Option<RequestId>,
    /// What is asked.
    pub op: Op,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Opens a session, or takes one up again after a lost connection or a restart.
    OpenSession {
        /// It ends when it is silent for so long; `None`: it ends by `CloseSession` only.
        ttl_us: Option<Time>,
        /// The session to take up again, with what it holds.
        resume: Option<SessionId>,
        /// Shown by inspect.
        label: Option<Arc<str>>,
    },
    /// Says that the session lives.
    KeepAlive,
    /// Ends the session and all its leases. `lost`: without its will, so lock-delays apply.
    CloseSession {
        /// Whether it was lost.
        lost: bool,
    },
    /// Takes locks.
    Acquire(Box<Acquire>),
    /// Withdraws the waiting acquire, one-shot consume or watch with this ticket.
    Cancel(Ticket),
    /// Sets a hold's deadline to now plus its TTL, or plus `ttl_us`.
    Renew {
        /// Which hold.
        hold: HoldRef,
        /// A new TTL.
        ttl_us: Option<Time>,
    },
    /// Ends a hold, or leaves it once when it was entered again.
    Release(HoldRef),
    /// Ends every hold of a lock, whoever has it.
    ForceRelease(Name),
    /// Whether a lock is held with a token.
    Check(Name, Token),
    /// Everything about one lock.
    InspectLock(Name),
    /// Waits until the token of a lock's newest holder is another one, or none, and shows the lock.
    /// When the time is over it is shown as it is.
    WatchLock {
        /// Which lock.
        name: Name,
        /// The token that is known; `None`: the lock is believed free.
        known: Option<Token>,
        /// How long to wait for another one.
        wait: Wait,
    },
    /// Waits until a register has another version, or none, and reads it. When the time is over it
    /// is read as it is.
    WatchRegister {
        /// Its key.
        key: Arc<[u8]>,
        /// The version that is known; `None`: the register is believed absent.
        known: Option<u64>,
        /// How long to wait for another one.
        wait: Wait,
    },
    /// A page of a list.
    List(List),
    /// Reads a register.
    Read(Arc<[u8]>),
    /// Writes a register.
    Write(Box<Write>),
    /// Makes a queue, or finds it with equal settings.
    DeclareQueue(Name, Box<QueueConfig>),
    /// Removes a queue and its messages.
    DeleteQueue {
        /// Which.
        name: Name,
        /// Only when nobody consumes.
        if_unused: bool,
        /// Only when no message is left.
        if_empty: bool,
    },
    /// Removes the messages that wait.
    Purge(Name),
    /// Holds deliveries back, or lets them go.
    Pause(Name, bool),
    /// Everything about one queue.
    InspectQueue(Name),
    /// Makes an exchange, or finds it with equal settings.
    DeclareExchange(Name, ExchangeConfig),
    /// Removes an exchange.
    DeleteExchange {
        /// Which.
        name: Name,
        /// Only when nothing is bound to it.
        if_unused: bool,
    },
    /// Binds a queue or an exchange to an exchange.
    Bind(Box<Binding>),
    /// Takes a binding back.
    Unbind(Box<Binding>),
    /// Publishes a message.
    Publish(Box<Publish>),
    /// Consumes.
    Consume(Box<Consume>),
    /// Ends a consumer; what it has in flight stays its own.
    StopConsumer(ConsumerId),
    /// Sets a consumer's credit.
    Credit(ConsumerId, u32),
    /// Settles one delivery.
    Settle(Receipt, Verdict),
    /// Settles several; all must be good or none is touched.
    SettleMany(Box<[Receipt]>, Verdict),
    /// Sets the deadline of a delivery's lease to now plus this time.
    Extend(Receipt, Time),
    /// Looks at the first messages without taking them.
    Peek(Name, u32),
    /// Moves up to so many messages from one queue to another, without their deaths.
    Redrive {
        /// From which queue.
        from: Name,
        /// To which queue; `None`: each to where it died first.
        to: Option<Name>,
        /// How many at most.
        max: u32,
    },
    /// All at once or nothing.
    Commit(Box<Commit>),
    /// Copies messages out of an old journal segment; sent by the node.
    Relocate(Box<crate::index::Relocation>),
}

// A command is moved through an inbox by value: keep it within two cache lines.
const _: () = assert!(core::mem::size_of::<Command>() <= 112);
