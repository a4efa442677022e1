//! The JSON of the HTTP door: what is asked of it and what it answers.
//!
//! ```text
//! client ─ api types ─► wire ─ JSON ─► door ─► wire ─ api types ─► engine
//! ```
//! The door and a client that speaks to it use the same structs, so the two cannot drift apart.
//! The conversions to and from the types of `leasehold-api` are here as well; nothing else is.
//!
//! * **Requests deny unknown fields**: a misspelt `ttl` is an error that names it, not a lock
//!   without a TTL. Answers do not: an older client reads a newer door's answers.
//! * **Durations** are whole milliseconds in fields that end in `_ms`. Points in time are
//!   milliseconds since 1970 and end in `_at_ms`.
//! * **Tokens, versions and hold numbers** are JSON numbers below 2^53, which every language's
//!   JSON reader keeps exactly.
//! * **Bytes that are UTF-8** travel as text, others as base64 in the field `base64`.
//! * **Sessions and receipts** are opaque text; see [`handle`].

mod bytes;
pub mod commit;
pub mod exchange;
pub mod guarantees;
pub mod handle;
pub mod lock;
pub mod message;
mod problem;
pub mod queue;
pub mod register;
pub mod session;
pub mod status;
pub mod time;

pub use bytes::Text;
pub use problem::{PROBLEM_PREFIX, Problem, status_of};
