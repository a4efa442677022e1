//! A shard that runs: the core's rules over the journal, one writer, many clients.
//!
//! ```text
//! clients ─► inbox (bounded) ─► shard thread: turn = drain · step each · write · sync · release
//!    ▲                                              │ one write and one sync for all of them
//!    └────────── mailboxes ◄── notices ◄────────────┘ one wake-up per client and turn
//! ```
//! [`Shard`] is the loop's body without the loop: it is handed commands and the time and gives
//! notices, so tests and the simulator drive it without threads. [`Node`] puts it on a thread
//! behind an inbox. While one turn syncs, the commands of the next gather in the inbox: that is the
//! whole of group commit, and an idle node confirms after exactly one sync.

mod client;
mod error;
mod inbox;
mod log;
mod metrics;
mod node;
mod options;
mod resident;
mod shard;
mod turn;
mod upkeep;

pub use client::{Client, Notice, PeekedMessage, Received};
pub use error::{NodeError, OpenError};
pub use metrics::{Counters, Metrics};
pub use node::Node;
pub use options::{Durability, Options};
pub use resident::{Bell, Floor, MoveIn, Resident, resident_ticket};
pub use shard::Shard;
