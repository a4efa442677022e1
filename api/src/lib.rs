//! What users of Leasehold hold, and what its engines implement.
//!
//! ```text
//! Leasehold ─► Lock · Register · Queue · Topic … ─► LockEngine, QueueEngine ─► native, http, …
//!     guard: token, lost, renewal      delivery: token, ack, nack, extend
//! ```
//! Users add the crate `leasehold`, which re-exports all of this and opens engines by URL. The
//! traits in [`engine`] are the narrow waist: everything above them is written once, everything
//! below them is an adapter.

mod checks;
mod commit;
mod consumer;
pub mod engine;
mod error;
mod guarantees;
mod guard;
mod handle;
mod lock;
mod queue;
mod random;
mod register;
mod session;
mod together;

pub use checks::{Check, CheckVerdict, Checks};
pub use commit::Commit;
pub use consumer::{Consumer, ConsumerOptions, Delivery};
pub use guard::LockGuard;
pub use handle::Leasehold;
pub use lock::Lock;
pub use queue::{Queue, Topic, subscription_queue};
pub use register::{Register, Versioned};
pub use session::{SESSION_TTL, SESSION_TTL_MAX, SESSION_TTL_MIN};
pub use together::{Barrier, Election, Job, Latch, Leader, election_lock};

pub use engine::{
    Binding, Content, DeadLetter, Death, Destination, Due, Ending, Engine, ExchangeConfig,
    ExchangeKind, Expect, Message, Mode, Overflow, Published, QueueConfig, QueueTotals,
    RegisterTtl, RequestId, Target, Value, Verdict, Wait,
};
pub use error::{Error, ErrorKind, Result, Retry};
pub use guarantees::*;
