//! Locks in files of a shared directory: several processes on one machine, no server.
//!
#![doc = include_str!("../docs.md")]

mod book;
mod config;
mod doorbell;
mod entries;
mod error;

use std::sync::Arc;

use leasehold_api::{
    Agreement, Atomicity, Deadlocks, Ends, Engine, Fencing, Guarantees, Inspection, LockDelay,
    Modes, MultiLock, Registers, Result, Revocation, Survives, Waiting, Watching,
};
use leasehold_contenders::{LineEngine, Sessions};

use crate::book::FileBook;

/// What it promises.
pub const GUARANTEES: Guarantees = Guarantees {
    fencing: Fencing::Strict,
    ends: Ends::Both,
    waiting: Waiting::Fair,
    survives: Survives::Process,
    atomicity: Atomicity::Single,
    agreement: Agreement::One,
    modes: Modes::All,
    multi_lock: MultiLock::Atomic,
    lock_delay: LockDelay::Kept,
    deadlocks: Deadlocks::Unseen,
    revocation: Revocation::Forced,
    registers: Registers::Versioned,
    watching: Watching::Woken,
    inspection: Inspection::Line,
    ..Guarantees::NOTHING
};

/// Opens a directory, given as `file:///path`; it is made if it is not there.
///
/// # Errors
/// `Invalid` for a URL that is no absolute path; `Unavailable` when it cannot be written;
/// `Unsupported` on a file system that is shared by several machines, or without inotify;
/// `Broken` when somebody else's files are in it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold_api::Result<()> {
/// # let directory = tempfile::tempdir().expect("a directory");
/// # let url = format!("file://{}", directory.path().display());
/// let engine = leasehold_files::connect(&url).await?; // for instance file:///run/lock/shop
/// let leasehold = leasehold_api::Leasehold::new(engine);
/// let guard = leasehold.lock("nightly").acquire().await?;
/// guard.release().await?;
/// # Ok(()) }
/// ```
pub async fn connect(url: &str) -> Result<Engine> {
    let directory = config::directory(url)?;
    let book = Arc::new(FileBook::open(directory).await?);
    let locks = LineEngine::new(book, Arc::new(Sessions::default()), None);
    Ok(Engine { url: url.into(), locks: Some(Arc::new(locks)), queues: None, checks: None })
}
