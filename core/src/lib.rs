//! The rules of Leasehold: locks and queues as one deterministic state machine.
//!
//! Everything in flight is a lease, and all durable state is a fold over one ordered journal. This
//! crate has no clock, no randomness, no input or output, no threads and no dependencies: time is
//! an argument, the journal is a trait with one method, and what is to be done comes back as
//! effects.
//!
//! ```text
//! Command ─► Core::step ─► decide ─► Event ─► Log::append (bytes)      Effect ─► outcomes,
//! deliveries
//!                            ▲          └───► evolve (durable half)       ▲
//!                         volatile half ─────────────────────────────────┘
//! ```
//! Read `command`, `event`, `durable`, `volatile`, then `decide`.
#![no_std]

extern crate alloc;

mod check;
pub mod checkpoint;
pub mod command;
pub mod content;
mod counts;
mod decide;
pub mod delay;
pub mod durable;
pub mod effect;
pub mod event;
pub mod evolve;
pub mod index;
pub mod keys;
pub mod limits;
pub mod list;
pub mod lock;
pub mod message;
mod name;
pub mod outcome;
pub mod queue;
pub mod refusal;
pub mod slab;
pub mod space;
mod step;
pub mod table;
pub mod topology;
pub mod tree;
mod volatile;
pub mod wheel;
pub mod window;
pub mod wire;

pub use checkpoint::{CellSink, RestoreError, SweepState};
pub use command::*;
pub use counts::{ClaimCounts, LockWaits};
pub use decide::SegmentUse;
pub use durable::{Durable, Shape};
pub use event::{Event, message_of};
pub use evolve::Stamp;
pub use keys::{Keys, Leased, Seen};
pub use limits::Limits;
pub use list::{List, Listed, ListedItem, Listing};
pub use lock::Ending;
pub use message::{Due, Envelope, Message, Value};
pub use name::{Name, NameError};
pub use outcome::{Delivery, Effect, EffectKind, Outcome, Refusal, Retry};
pub use queue::QueueConfig;
pub use step::{Core, Log};

/// Microseconds. The shard's time begins with the store and stands still while no server runs.
pub type Time = u64;

/// A logical byte offset in the journal.
pub type Position = u64;
