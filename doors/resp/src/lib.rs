//! The RESP door: programs that lock with Redis connect unchanged, and get a lock that is durable
//! and fenced.
//!
//! ```text
//! socket ─► codec ─► table ─► judge ─► one decision over keys ─► reply ─► (synced) ─► socket
//!             connection        execute     scene, commands, script        leave
//! ```
//! A door lives on the shard's own thread and decides in place; see `door.rs`. Commands about
//! keys stand in `commands`, on the scene of one decision; scripts run inside such a decision and
//! leave either everything or nothing. `docs.md` tells what is different from Redis and why.

pub mod codec;
pub mod commands;
mod connection;
mod converse;
mod door;
mod execute;
mod glob;
mod house;
mod lasting;
mod listen;
mod native;
mod pubsub;
pub mod reply;
pub mod scene;
pub mod script;
mod secure;
mod session;
mod socket;
pub mod table;
mod together;
mod transact;
mod waiting;

pub use door::{Listening, RespConfig, RespLimits};
pub use reply::Reply;
