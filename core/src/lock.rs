//! Locks: the durable half.
//!
//! ```text
//! lock ──parts──► part ──► grant     a grant is one lease over one or more locks,
//!  "stock/42"      mode     token    with one token and one tenure
//! ```
//! A lock exists while somebody holds it, a lock-delay runs, or it is kept for a waiter; its name
//! costs nothing afterwards, because tokens come from the shard's one counter and never go back.

use alloc::sync::Arc;

use crate::checkpoint::Mark;
use crate::content::{Content, Kind};
use crate::slab::NONE;
use crate::{Mode, Name, SessionId, Tenure, Time, Token};

/// Why a lease ended. Exactly one applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ending {
    /// Its holder gave it back.
    Released = 0,
    /// Its deadline passed.
    Expired = 1,
    /// Its session ended.
    SessionLost = 2,
    /// An administrator took it.
    Revoked = 3,
    /// The server restarted, and what it was a lease on did not survive.
    Restarted = 4,
}

impl Ending {
    pub(crate) fn from_u8(byte: u8) -> Option<Self> {
        use Ending::*;
        [Released, Expired, SessionLost, Revoked, Restarted].get(usize::from(byte)).copied()
    }

    /// Whether the holder may not know of it, so that a lock-delay applies.
    pub fn is_unclean(self) -> bool {
        matches!(self, Self::Expired | Self::SessionLost)
    }
}

/// One lock.
#[derive(Debug, Clone)]
pub struct Lock {
    /// Its name.
    pub name: Name,
    /// First of its parts.
    pub first_part: u32,
    /// How many parts it has.
    pub parts: u32,
    /// Whether one of them is exclusive (then it is the only one).
    pub exclusive: bool,
    /// Permits taken, when it is used as a semaphore.
    pub taken: u32,
    /// Permits it has; 0 while it is not used as a semaphore.
    pub of: u32,
    /// Nobody may take it before this time.
    pub delay_until: Time,
    /// Stays although nobody holds it.
    pub kept: bool,
    pub(crate) mark: Mark,
}

impl Lock {
    pub(crate) fn new(name: Name) -> Self {
        Self {
            name,
            first_part: NONE,
            parts: 0,
            exclusive: false,
            taken: 0,
            of: 0,
            delay_until: 0,
            kept: false,
            mark: Mark::default(),
        }
    }

    /// Whether the present holders leave room for `mode`.
    pub fn admits(&self, mode: Mode, now: Time) -> bool {
        if self.delay_until > now {
            return false;
        }
        match mode {
            Mode::Exclusive => self.parts == 0,
            Mode::Shared => !self.exclusive && self.of == 0,
            Mode::Permits { take, of } => {
                self.parts == 0 || self.of == of && take <= of - self.taken
            }
        }
    }
}

/// One lease on one or more locks.
#[derive(Debug, Clone)]
pub struct Grant {
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
    /// Since when it is held.
    pub granted_at: Time,
    /// How often it was entered and not left.
    pub entries: u32,
    /// How long nobody may take the locks after an unclean end.
    pub lock_delay_us: Time,
    /// What the holder says about itself.
    pub label: Option<Arc<str>>,
    /// First of its parts.
    pub first_part: u32,
    pub(crate) mark: Mark,
}

/// One lock of one grant; a member of two lists.
#[derive(Debug, Clone)]
pub struct Part {
    /// The lock.
    pub lock: u32,
    /// The grant.
    pub grant: u32,
    /// How it is held.
    pub mode: Mode,
    /// Next part of the grant.
    pub next_in_grant: u32,
    /// Neighbours in the lock's list.
    pub prev_in_lock: u32,
    /// See `prev_in_lock`.
    pub next_in_lock: u32,
}

/// A versioned value under a key.
#[derive(Debug, Clone)]
pub struct Register {
    /// Its key.
    pub key: Arc<[u8]>,
    /// What it holds.
    pub content: Content,
    /// What that takes, see [`Content::bytes`].
    pub bytes: usize,
    /// Rises with every write of any register of the shard and survives deletion.
    pub version: u64,
    /// When it vanishes; 0: never.
    pub expires: Time,
    /// The fencing token under which it is held like a lock; 0: it is not. See [`crate::keys`].
    pub claim: u64,
    /// Since when it is claimed.
    pub since: Time,
    pub(crate) mark: Mark,
}

impl Register {
    /// A key that holds nothing yet.
    pub(crate) fn new(key: Arc<[u8]>) -> Self {
        Self {
            key,
            content: Content::empty(Kind::Text),
            bytes: 0,
            version: 0,
            expires: 0,
            claim: 0,
            since: 0,
            mark: Mark::default(),
        }
    }
}
