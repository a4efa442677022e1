//! The engine that keeps locks and registers in etcd, behind the traits of `leasehold-api`.
//!
//! ```text
//! LockEngine ─► Core ─┬─ acquire.rs   into the line, wait, hold
//!   lock.rs           ├─ holds.rs     renew, release, end in time
//!   session.rs        ├─ lease.rs     what ends the keys of the dead
//!   register.rs       └─ connect.rs   asked until there is an answer; watch.rs
//!                          client.rs, rpc.rs   etcd's API over gRPC
//! ```
//! What it guarantees, what it costs and where the traps are is in `docs.md`:
//!
#![doc = include_str!("../docs.md")]

mod acquire;
mod checks;
mod client;
mod config;
mod connect;
mod core;
mod error;
mod holds;
mod lease;
mod lock;
mod part;
mod place;
mod register;
mod rpc;
mod session;
mod watch;

use std::sync::Arc;

use leasehold_api::{
    Agreement, Deadlocks, Ends, Engine, Error, Fencing, Guarantees, Inspection, Modes, MultiLock,
    Registers, Result, Revocation, Survives, Waiting, Watching,
};

use crate::config::Config;
use crate::connect::{Patience, Server};
use crate::core::Core;
use crate::holds::Holds;
use crate::lease::Leases;
use crate::place::Keys;

/// What the engine promises. [`checks`](leasehold_api::Checks) tell what a cluster is like: one of
/// a single member is its own majority.
pub const GUARANTEES: Guarantees = Guarantees {
    fencing: Fencing::Strict,
    ends: Ends::Both,
    waiting: Waiting::Fair,
    survives: Survives::Power,
    agreement: Agreement::Majority,
    modes: Modes::All,
    multi_lock: MultiLock::Atomic,
    deadlocks: Deadlocks::Named,
    revocation: Revocation::Forced,
    registers: Registers::Versioned,
    watching: Watching::Woken,
    inspection: Inspection::Line,
    ..Guarantees::NOTHING
};

/// A cluster. Clones are the same engine.
#[derive(Clone)]
pub(crate) struct EtcdEngine {
    core: Arc<Core>,
}

/// Opens the engine behind a URL, `etcd://HOST[:2379][,HOST...][/PREFIX]`, or `etcds://...` for
/// TLS. The engine lives in the tokio runtime that this is called in.
///
/// # Errors
/// `Invalid` for a bad URL or bad certificates, naming what is wrong; `Unavailable` when nobody
/// answers there; `Unauthenticated`, `Forbidden`; `Unsupported` when the cluster is too old.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let error = leasehold_etcd::connect("etcd://127.0.0.1:port").await.unwrap_err();
/// assert_eq!(error.kind, leasehold_api::ErrorKind::Invalid);
/// assert!(error.wrong.starts_with("the port"));
/// # }
/// ```
pub async fn connect(url: &str) -> Result<Engine> {
    let config = Config::read(url)?;
    let shown = config.shown.clone();
    let asked = |error: Error| error.asking(format!("connect to {shown}"));
    let keys = Keys::new(&config.prefix);
    let server = Server::connect(config).await.map_err(asked)?;
    // Who may not read is told so now, and who the user is.
    let range = rpc::Range { keys_only: true, limit: 1, ..part::all(keys.locks("")) };
    server.range(&mut Patience::usual(), range).await.map_err(asked)?;
    let server = Arc::new(server);
    let leases = Arc::new(Leases::new(server.clone()));
    let core = Arc::new(Core { server, keys, leases, holds: Holds::default() });
    tokio::spawn(holds::end_in_time(Arc::downgrade(&core)));
    let engine = Arc::new(EtcdEngine { core });
    let url = shown.as_str().into();
    Ok(Engine { url, locks: Some(engine.clone()), queues: None, checks: Some(engine) })
}
