//! Locks as lines of contenders.
//!
//! A lock is a line: everybody who wants it, in the order in which they came. Who holds it follows
//! from the line and from nothing else (see [`mod@line`]), so there is no step in which a lock is
//! handed over, and none that can tear: a release takes its contender out of the line, and
//! whoever is first now holds. The fencing token is the place in the line, a number that rises
//! with every change of the store, so tokens rise from holder to holder by construction.
//!
//! An engine gives a [`Book`]: versioned entries that are compared and swapped several at a time,
//! with the store's own clock. Everything else is here once: waiting, renewal, re-entry,
//! semaphores, several locks at once, sessions, registers. Engines that keep contenders as
//! entries of their own (etcd, ZooKeeper) use the line alone.
//!
//! Deadlines are judged by the store's clock, never by a client's: a client's clock may be wrong
//! by any amount. A contender who waits shows that it is alive as a holder does, by renewing.

mod acquire;
pub mod bell;
mod book;
mod chance;
pub mod circle;
mod commit;
mod contender;
mod engine;
pub mod limits;
pub mod line;
mod lines;
mod registers;
mod sessions;
mod turns;

pub use acquire::too_late;
pub use book::{Book, Change, Entry, Key, Seen, Space, Swapped, To, Watch};
pub use chance::{jittered, operation, random};
pub use commit::{CommitPlan, Planning, commit_keys, plan_commit};
pub use contender::Contender;
pub use engine::LineEngine;
pub use registers::expected;
pub use sessions::{InHand, SessionState, Sessions};
