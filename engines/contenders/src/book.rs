//! What an engine keeps lines and registers in.

use std::time::Duration;

use async_trait::async_trait;
use leasehold_api::{Guarantees, Result};

use crate::Contender;
use crate::bell::Bell;

/// What a key is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// The line of a lock.
    Lock,
    /// A register.
    Register,
}

/// The key of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// What it is about.
    pub space: Space,
    /// Its name there: up to 255 bytes of text for a lock, up to 1024 of any kind for a register.
    pub name: Vec<u8>,
}

impl Key {
    /// The key of a lock's line.
    pub fn lock(name: &str) -> Self {
        Self { space: Space::Lock, name: name.as_bytes().to_vec() }
    }

    /// The key of a register.
    pub fn register(name: &[u8]) -> Self {
        Self { space: Space::Register, name: name.to_vec() }
    }
}

/// An entry as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Given by the store to each swap: above every version before, over all keys, also of entries
    /// that are gone, also after a restart. Not 0, below 2^53.
    pub version: u64,
    /// When it was written by the store's clock, microseconds.
    pub written: u64,
    /// What was written.
    pub value: Vec<u8>,
}

/// Entries as they are, all at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// In the order of the keys; `None`: there is no such entry.
    pub entries: Vec<Option<Entry>>,
    /// The store's clock then, microseconds.
    pub now: u64,
}

impl Seen {
    /// The versions of the entries; 0: there is none.
    pub fn versions(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().map(|entry| entry.as_ref().map_or(0, |entry| entry.version))
    }
}

/// One entry in a swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub key: Key,
    /// The version that it must have; 0: it must not be there.
    pub expect: u64,
    /// What becomes of it.
    pub to: To,
    /// Somebody may be waiting for any change of it.
    pub ring: bool,
    /// Bells that it rings besides. They may ring once more without a reason.
    pub bells: Vec<Bell>,
}

/// What becomes of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// It stays; only its version is compared.
    Same,
    /// It is written. After `lasts`, if given, nobody misses it and the store may remove it.
    Value {
        /// What.
        value: Vec<u8>,
        /// How long it means anything.
        lasts: Option<Duration>,
    },
    /// It goes.
    Nothing,
}

/// What came of a swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swapped {
    /// All was written.
    Done {
        /// The version of all entries that were written.
        version: u64,
        /// The store's clock at the write, microseconds.
        now: u64,
    },
    /// Nothing was written, as an entry was not as expected or it was too late. This is how all
    /// are.
    Changed(Seen),
}

/// What a waiter waits for.
pub struct Watch<'a> {
    /// Entries.
    pub keys: &'a [Key],
    /// What is waited for; `None`: any change of the entries that had `ring` set.
    pub bell: Option<Bell>,
    /// A contender whose going is such a ring, for stores that hear of nothing else; see
    /// [`Book::hang`].
    pub going: Option<String>,
    /// Whether there is nothing new in entries as they are now.
    pub same: &'a (dyn Fn(&Seen) -> bool + Send + Sync),
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut to = to.debug_struct("Watch");
        to.field("keys", &self.keys).field("bell", &self.bell).finish_non_exhaustive()
    }
}

/// Versioned entries that are compared and swapped, several at a time, and a clock.
///
/// Methods are cancel-safe in this sense: one that is dropped may still take effect, and leaves the
/// book usable. Errors are `Unavailable`, with `Retry::Unknown` when a swap may have taken effect;
/// the callers ask again and find out.
#[async_trait]
pub trait Book: Send + Sync + 'static {
    /// What it promises.
    fn guarantees(&self) -> Guarantees;

    /// Reads entries, all at one moment.
    async fn read(&self, keys: &[Key]) -> Result<Seen>;

    /// Whether a swap is one request that goes its way once it is sent, so that one whose caller
    /// does not poll it holds up nobody. If not, acquires and releases run in tasks of their own.
    fn goes_its_way(&self) -> bool {
        false
    }

    /// Writes all changes if every entry is as expected and the store's clock is before `until`, if
    /// that is given (microseconds); or none.
    async fn swap(&self, changes: &[Change], until: Option<u64>) -> Result<Swapped>;

    /// Puts a contender that waits at the end of the line of a lock in which somebody stands,
    /// whatever the version of the line is: for stores that can let those who come in in the order
    /// in which they ask. Gives the line as it is afterwards, and the contender is in it; if not,
    /// it could not come in this way and nothing was written. What was written as 0 by an earlier
    /// write, as only the store knew it, means that write still, and what the contender has as 0
    /// means this one. Nobody is in the line twice, so it may be asked again.
    ///
    /// `None`: the store has no such way.
    async fn append(&self, _key: &Key, _contender: &Contender) -> Result<Option<Seen>> {
        Ok(None)
    }

    /// Waits until the bell rings, at most so long. It may come back sooner without a reason, but
    /// must not miss a ring: it reads the entries after it has begun to listen, and if there is
    /// something new in them it comes back at once, with how they are.
    async fn wait(&self, watch: &Watch<'_>, at_most: Duration) -> Result<Option<Seen>>;

    /// Keys of one space that begin with a prefix, in order: those from place `after` on, at most
    /// `max` of them.
    async fn list(&self, space: Space, prefix: &[u8], after: u32, max: u32) -> Result<Vec<Key>>;

    /// Waits, for so long at most, until none of those in other processes is at it who come to this
    /// line and have failed to write it as often. Stores that can keep them in order save them
    /// tries; it decides nothing. It is over when what is given is dropped; `None`: go without.
    async fn turn(&self, _key: &Key, _at_most: Duration) -> Option<Box<dyn Send>> {
        None
    }

    /// A contender comes: for stores whose only way to wake a waiter is something that the
    /// contender holds. It is hung before the contender stands in line.
    async fn hang(&self, _bell: &str) -> Result<()> {
        Ok(())
    }

    /// That contender has gone.
    async fn take_down(&self, _bell: &str) {}
}
