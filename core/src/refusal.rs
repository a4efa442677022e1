//! Refusals: what was asked, what is wrong with it, what to do.

use alloc::boxed::Box;

use crate::{Name, Receipt, SessionId, Time, Token};

/// Whether asking again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It will be refused again.
    Never,
    /// It may be accepted when something else has happened.
    Later,
    /// It may have happened.
    Unknown,
}

/// A command that was refused: nothing happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A time is shorter or longer than allowed: what, how much, least, most (microseconds).
    Time(&'static str, Time, Time, Time),
    /// Something is larger than allowed: what, how much, most.
    TooLarge(&'static str, u64, u64),
    /// Something must not be empty or zero.
    Zero(&'static str),
    /// A limit of the shard is reached: which, how many.
    Limit(&'static str, u64),
    /// The tenure names neither a TTL nor the session, or a session-bound hold has no session.
    NoTenure,
    /// The session does not exist: it never did, expired, or was closed.
    NoSession(SessionId),
    /// This command needs a session.
    SessionNeeded,
    /// The lock is held, and the command did not want to wait.
    Busy {
        /// The lock.
        name: Name,
        /// The token of one holder; `None` during a lock-delay.
        holder: Option<Token>,
        /// Time until that holder's deadline, if it has one.
        left_us: Option<Time>,
    },
    /// It waited as long as it wanted to.
    TimedOut,
    /// The waiting command was cancelled.
    Cancelled,
    /// There is nothing to cancel with this ticket.
    NothingToCancel,
    /// Waiting would never end: each waits for the next, the last for the first.
    Deadlock(Box<[(SessionId, u64, Name)]>),
    /// The same name twice in one acquire.
    NamedTwice(Name),
    /// The semaphore is in use with another number of permits.
    Permits {
        /// The semaphore.
        name: Name,
        /// Permits it has.
        of: u32,
        /// Permits this command believes in.
        asked: u32,
    },
    /// The hold exists already in a weaker mode; release it first.
    Upgrade(Name),
    /// Nobody holds this lock with this token: it was released, expired, or was taken away.
    StaleToken {
        /// The lock.
        name: Name,
        /// The token shown.
        token: Token,
        /// The newest token of the lock's present holders.
        current: Option<Token>,
    },
    /// The token is good, but belongs to another session, hold or lock.
    ForeignToken(Name, Token),
    /// The token was never given out.
    UnknownToken(Token),
    /// The hold has no TTL to renew.
    NothingToRenew(Token),
    /// The register is not as expected; its version now (`None`: it has no value).
    Conflict(Option<u64>),
    /// There is no such queue.
    NoQueue,
    /// There is no such exchange.
    NoExchange(Name),
    /// It exists with other settings; which one differs.
    Different(&'static str),
    /// The queue or exchange is in use.
    InUse,
    /// The queue is not empty.
    NotEmpty,
    /// The queue belongs to another session.
    Exclusive,
    /// Settings that contradict each other.
    BadSettings(&'static str),
    /// Only exchanges may publish to this one.
    Internal(Name),
    /// No queue takes the message.
    Unroutable,
    /// The queue is full and refuses.
    QueueFull(Name),
    /// There is no such binding.
    NoBinding,
    /// There is no such consumer.
    NoConsumer,
    /// No message within the time.
    Empty,
    /// The delivery is not open: it was settled, its lease expired, or its session ended.
    StaleDelivery(Receipt),
    /// The delivery was never made.
    UnknownDelivery(Receipt),
    /// The delivery belongs to another session.
    ForeignDelivery(Receipt),
    /// The record of the message cannot be read: why, which file, which byte.
    Unreadable(Box<str>),
    /// The same delivery twice in one command.
    SettledTwice(Receipt),
    /// The request id was used for another kind of command, or its hold has ended since.
    RequestSpent,
    /// A request with this id is waiting already.
    RequestWaiting,
    /// The command needs an index page that is being fetched; the node asks again.
    PageNeeded,
    /// The disk has no room for more; room for acks and releases of what there is remains.
    DiskFull,
    /// The journal failed; the shard has stopped and must be opened again.
    Stopped,
}

impl Refusal {
    /// Whether asking again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Limit(..)
            | Self::Busy { .. }
            | Self::TimedOut
            | Self::Cancelled
            | Self::Deadlock(_)
            | Self::QueueFull(_)
            | Self::Empty
            | Self::InUse
            | Self::NotEmpty
            | Self::Permits { .. }
            | Self::Unreadable(_)
            | Self::DiskFull
            | Self::PageNeeded => Retry::Later,
            Self::Stopped => Retry::Unknown,
            _ => Retry::Never,
        }
    }
}

impl core::fmt::Display for Refusal {
    // long: one line per refusal, a table in the shape of a match.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Time(what, is, min, max) => write!(
                f,
                "{what} is {is} µs; choose {min} to {max} µs (the limits are configurable)"
            ),
            Self::TooLarge(what, is, max) => write!(f, "{what} is {is}; at most {max} is allowed"),
            Self::Zero(what) => write!(f, "{what} is empty or zero; give at least one"),
            Self::Limit(what, max) => {
                write!(f, "there are {max} {what} already, the configured limit; end some first")
            }
            Self::NoTenure => write!(
                f,
                "the hold would have no end: give a TTL, or bind it to a session and name one"
            ),
            Self::NoSession(id) => {
                write!(f, "session {} does not exist or has ended; open a new one", id.0)
            }
            Self::SessionNeeded => write!(f, "this needs a session; open one first"),
            Self::Busy { name, holder, left_us } => {
                write!(f, "lock {name} is ")?;
                match holder {
                    Some(token) => write!(f, "held with token {}", token.0)?,
                    None => write!(f, "in its lock-delay after an unclean loss, or others wait")?,
                }
                if let Some(left) = left_us {
                    write!(f, " for at most {left} µs more")?;
                }
                write!(f, "; wait for it or try again later")
            }
            Self::TimedOut => write!(f, "the lock was not free within the time; try again later"),
            Self::Cancelled => write!(f, "the request was cancelled while it waited"),
            Self::NothingToCancel => {
                write!(f, "nothing waits with this ticket: it was granted, refused, or never asked")
            }
            Self::Deadlock(cycle) => {
                write!(f, "waiting would be a deadlock:")?;
                for (session, hold, name) in cycle.iter() {
                    write!(f, " session {} (hold {hold}) waits for {name};", session.0)?;
                }
                write!(f, " release one of these locks and try again")
            }
            Self::NamedTwice(name) => write!(f, "lock {name} is named twice; name it once"),
            Self::Permits { name, of, asked } => write!(
                f,
                "semaphore {name} is in use with {of} permits, not {asked}; use the same number \
                 everywhere or wait until it is free"
            ),
            Self::Upgrade(name) => write!(
                f,
                "lock {name} is held in a weaker mode by this hold; release it before asking for more"
            ),
            Self::StaleToken { name, token, current } => {
                write!(f, "lock {name} is not held with token {} any more", token.0)?;
                if let Some(current) = current {
                    write!(f, " (now {})", current.0)?;
                }
                write!(f, "; stop working under it and acquire again")
            }
            Self::ForeignToken(name, token) => write!(
                f,
                "token {} of lock {name} belongs to another session, hold or lock; use your own",
                token.0
            ),
            Self::UnknownToken(token) => {
                write!(f, "token {} was never given out; use the one from acquire", token.0)
            }
            Self::NothingToRenew(token) => {
                write!(f, "the hold with token {} has no TTL; it lasts as its session", token.0)
            }
            Self::Conflict(Some(version)) => {
                write!(f, "the register is at version {version}; read it and decide again")
            }
            Self::Conflict(None) => {
                write!(f, "the register has no value; read it and decide again")
            }
            Self::NoQueue => write!(f, "there is no such queue; declare it first"),
            Self::NoExchange(name) => {
                write!(f, "there is no exchange {name}; declare it first")
            }
            Self::Different(what) => {
                write!(f, "it exists with another {what}; use the same, or delete it first")
            }
            Self::InUse => write!(f, "it is in use; end its consumers or bindings first"),
            Self::NotEmpty => write!(f, "the queue still has messages; purge it first"),
            Self::Exclusive => {
                write!(f, "the queue is exclusive to another session or consumer; use your own")
            }
            Self::BadSettings(why) => write!(f, "{why}"),
            Self::Internal(name) => {
                write!(f, "exchange {name} is internal; publish to one that is bound to it")
            }
            Self::Unroutable => write!(f, "no queue takes the message; bind one first"),
            Self::QueueFull(name) => {
                write!(f, "queue {name} is full and refuses; consume from it or try again later")
            }
            Self::NoBinding => write!(f, "there is no such binding"),
            Self::NoConsumer => write!(f, "there is no such consumer; it was stopped or never was"),
            Self::Empty => write!(f, "no message came within the time"),
            Self::StaleDelivery(receipt) => write!(
                f,
                "the delivery with token {} is settled or lost; the message may be delivered \
                 again, so undo or repeat its work idempotently",
                receipt.token.0
            ),
            Self::UnknownDelivery(receipt) => {
                write!(f, "no delivery with token {} was ever made", receipt.token.0)
            }
            Self::ForeignDelivery(receipt) => {
                write!(f, "the delivery with token {} belongs to another session", receipt.token.0)
            }
            Self::Unreadable(why) => write!(
                f,
                "{why}. The message was not delivered; it stays in its queue, in flight until its \
                 lease or session ends. Ask again for the next one"
            ),
            Self::SettledTwice(receipt) => write!(
                f,
                "the delivery with token {} is named twice; name it once",
                receipt.token.0
            ),
            Self::RequestSpent => write!(
                f,
                "this request id was carried out before and its result is gone; use a new id"
            ),
            Self::RequestWaiting => write!(f, "a request with this id is waiting already"),
            Self::PageNeeded => write!(f, "an index page is being fetched; ask again"),
            Self::DiskFull => write!(
                f,
                "the disk is full: nothing new is accepted, acks and releases are; free some space"
            ),
            Self::Stopped => write!(
                f,
                "the shard stopped after its journal failed; what was not confirmed may or may \
                 not have happened. See its log, mend the medium and open it again"
            ),
        }
    }
}

impl core::error::Error for Refusal {}
