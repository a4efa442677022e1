//! The engine that keeps locks and registers in ZooKeeper, behind the traits of `leasehold-api`.
//!
//! ```text
//! LockEngine ─► Core ─┬─ acquire.rs   into the line, wait, hold
//!   lock.rs           ├─ holds.rs     renew, release, end in time
//!   session.rs        ├─ circle.rs    those who wait for each other
//!   register.rs       └─ connect.rs   a session with ZooKeeper, asked until there is an answer
//! ```
//! What it guarantees, what it costs and where the traps are is in `docs.md`:
//!
#![doc = include_str!("../docs.md")]

mod acquire;
mod checks;
mod config;
mod connect;
mod core;
mod error;
mod holds;
mod lock;
mod place;
mod register;
mod session;

use std::sync::Arc;

use leasehold_api::{
    Agreement, Deadlocks, Ends, Engine, Error, Fencing, Guarantees, Inspection, Modes, MultiLock,
    Registers, Result, Revocation, Survives, Waiting, Watching,
};
use leasehold_contenders::Sessions;

use crate::config::Config;
use crate::connect::Server;
use crate::core::Core;
use crate::holds::Holds;
use crate::place::Keys;

/// What the engine promises. [`checks`](leasehold_api::Checks) tell what an ensemble is like: one
/// of a single server is its own majority.
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

/// An ensemble. Clones are the same engine.
#[derive(Clone)]
pub(crate) struct ZookeeperEngine {
    core: Arc<Core>,
}

/// Opens the engine behind a URL, `zookeeper://[USER:PASSWORD@]HOST[:2181][,HOST...][/ROOT]`, with
/// `?session=SECONDS` for the time after which a dead process loses what it held (10 if not said).
/// The engine lives in the tokio runtime that this is called in.
///
/// # Errors
/// `Invalid` for a bad URL, naming what is wrong; `Unavailable` when nobody answers there;
/// `Unauthenticated`, `Forbidden`; `Unsupported` when the server is too old, or keeps the sessions
/// of the dead for longer than was asked for.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let error = leasehold_zookeeper::connect("zookeeper://127.0.0.1:port").await.unwrap_err();
/// assert_eq!(error.kind, leasehold_api::ErrorKind::Invalid);
/// assert!(error.wrong.starts_with("the port"));
/// # }
/// ```
pub async fn connect(url: &str) -> Result<Engine> {
    let config = Config::read(url)?;
    let shown = config.shown.clone();
    let asked = |error: Error| error.asking(format!("connect to {shown}"));
    let keys = Keys::new(&config.root);
    let server = Server::connect(config).await.map_err(asked)?;
    let (sessions, holds) = (Sessions::default(), Holds::default());
    let core = Arc::new(Core { server, keys, sessions, holds });
    let engine = Arc::new(ZookeeperEngine { core });
    let url = shown.as_str().into();
    Ok(Engine { url, locks: Some(engine.clone()), queues: None, checks: Some(engine) })
}
