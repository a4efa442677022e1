//! Lists of what there is: locks, queues, exchanges, sessions, registers.
//!
//! A list is read in pages, and a page goes on by *slot*, not by name. Names are hashed, so an
//! order by name would have to be made anew for each page, which takes the longer the more names
//! there are. By slot a page costs what it looks at and no more. What is there from the first page
//! to the last is listed exactly once; what comes or goes meanwhile may or may not be. The price is
//! that a page may hold little, or nothing, although more follow.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::outcome::{LockView, QueueView};
use crate::topology::ExchangeConfig;
use crate::{Name, SessionId, Time};

/// What is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Listed {
    /// Locks that are held or in their lock-delay, then claimed keys that have a lock's name.
    Locks,
    /// Queues.
    Queues,
    /// Exchanges.
    Exchanges,
    /// Sessions, also those that nobody has taken up again after a restart.
    Sessions,
    /// Registers that have a value.
    Registers,
}

/// Asks for one page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Of what.
    pub what: Listed,
    /// Only names, or register keys, that begin so. Sessions have no name and are all listed.
    pub prefix: Box<str>,
    /// Where to begin: 0, then [`Listing::next`].
    pub after: u32,
    /// How many items at most, 1 to 1000.
    pub max: u32,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// In slot order.
    pub items: Vec<ListedItem>,
    /// Where to go on; `None`: this was the last page.
    pub next: Option<u32>,
}

/// One thing of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListedItem {
    /// A lock.
    Lock {
        /// Its name.
        name: Name,
        /// As inspect shows it, but the newest 8 holders and the first 8 waiters only.
        view: Box<LockView>,
    },
    /// A queue.
    Queue {
        /// Its name.
        name: Name,
        /// As inspect shows it, without its consumers.
        view: Box<QueueView>,
    },
    /// An exchange.
    Exchange {
        /// Its name.
        name: Name,
        /// Its settings.
        config: ExchangeConfig,
        /// How many bindings it has.
        bindings: u32,
    },
    /// A session.
    Session {
        /// Its identity.
        id: SessionId,
        /// What it says about itself.
        label: Option<Arc<str>>,
        /// Time until it ends unless it is heard of; `None`: it has no TTL.
        left_us: Option<Time>,
        /// Holds that it has.
        holds: u32,
        /// Acquires and watches of it that wait.
        waiting: u32,
        /// Its consumers.
        consumers: u32,
        /// Deliveries to it that are not settled.
        in_flight: u32,
    },
    /// A register.
    Register {
        /// Its key.
        key: Arc<[u8]>,
        /// Its version.
        version: u64,
        /// Length of its value.
        bytes: u32,
        /// Time until it vanishes; `None`: it stays.
        left_us: Option<Time>,
    },
}
