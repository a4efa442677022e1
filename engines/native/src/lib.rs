//! The embedded engine: a node in this process, behind the traits of `leasehold-api`.
//!
//! ```text
//! LockEngine, QueueEngine ─► Link ──commands──► node (its own thread, journal, disk)
//!      lock.rs  queue.rs      │ ▲                  │
//!                   slots ────┘ └── dispatcher ◄───┘ notices
//! ```
//! One client of the node serves all callers. Each question has a slot in a table, and one task
//! brings every notice to its slot; see `table.rs` for how a dropped future is undone. What it
//! guarantees, what it costs and where the traps are is in `docs.md`:
//!
#![doc = include_str!("../docs.md")]

mod consumer;
mod convert;
mod dispatch;
mod error;
mod holds;
mod link;
mod lock;
mod queue;
mod receive;
mod table;

use std::path::Path;
use std::sync::{Arc, Mutex};

use leasehold_api::{Agreement, Engine, Error, ErrorKind, Guarantees, Result, Survives};
use leasehold_core::Limits;
use leasehold_node::{Durability, Metrics, Node, OpenError, Options};

pub use table::Kept;

use crate::link::Link;

/// What it promises on a directory with [`Durability::Always`]; the other ways to run it survive
/// less.
pub const GUARANTEES: Guarantees =
    Guarantees { agreement: Agreement::One, ..Guarantees::EVERYTHING };

/// Takes the expected outcome apart; any other is a defect of the node.
macro_rules! expected {
    ($outcome:expr, $pattern:pat => $value:expr) => {
        match $outcome {
            $pattern => Ok($value),
            other => Err($crate::error::odd(&other)),
        }
    };
}
pub(crate) use expected;

/// An embedded engine. Clones are the same engine; it is closed when the last of them, and of the
/// [`Engine`]s made of it, is dropped.
///
/// ```
/// use leasehold_native::NativeEngine;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold_api::Result<()> {
/// let directory = tempfile::tempdir().expect("a directory");
/// let native = NativeEngine::open(directory.path(), leasehold_node::Options::default())?;
/// let locks = native.engine().locks.expect("it has locks");
/// assert!(locks.inspect("nightly").await?.holders.is_empty());
/// native.close().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct NativeEngine {
    link: Arc<Link>,
    limits: Arc<Limits>,
    running: Arc<Running>,
}

/// The node as long as it runs.
#[derive(Debug)]
struct Running {
    node: Mutex<Option<Node>>,
    link: Arc<Link>,
    metrics: Arc<Metrics>,
    guarantees: Guarantees,
    url: Arc<str>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // The node is a field: dropping it finishes what is under way and closes the directory.
        self.link.closing();
    }
}

impl NativeEngine {
    /// Opens a directory, which is made if it is not there. Blocks while the journal is recovered.
    /// The engine lives in the tokio runtime that this is called in, with its timers enabled.
    ///
    /// # Errors
    /// `Unavailable` when another process has it open, it is not Leasehold's, or it cannot be
    /// written; `Broken` when its journal is damaged or a newer release wrote it.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        let path = path.as_ref();
        let survives = match options.durability {
            Durability::Always => Survives::Power,
            Durability::Interval(_) | Durability::None => Survives::Process,
        };
        let url = format!("file:{}", path.display());
        Self::start(url, survives, options, |options| Node::open(path, options))
    }

    /// Starts an engine that keeps everything in memory. It is gone when it is closed.
    ///
    /// # Errors
    /// `Unavailable` when the system has no thread or no randomness.
    pub fn memory(options: Options) -> Result<Self> {
        Self::start("mem:".to_owned(), Survives::Nothing, options, Node::memory)
    }

    fn start(
        url: String,
        survives: Survives,
        options: Options,
        open: impl FnOnce(Options) -> std::result::Result<Node, OpenError>,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|error| {
            let wrong = format!("{error}; open the engine within a tokio runtime");
            Error::new(ErrorKind::Invalid, wrong).asking(format!("open {url}"))
        })?;
        let limits = Arc::new(options.limits.clone());
        let opened = open(options).map_err(|error| error::not_opened(&error));
        let node = opened.map_err(|error| error.asking(format!("open {url}")))?;
        let link = Arc::new(Link::new(node.client()));
        runtime.spawn(dispatch::run(link.clone()));
        let guarantees = Guarantees { survives, ..GUARANTEES };
        let metrics = node.metrics();
        let (node, url) = (Mutex::new(Some(node)), url.into());
        let running = Arc::new(Running { node, link: link.clone(), metrics, guarantees, url });
        Ok(Self { link, limits, running })
    }

    /// The engine as its users take it.
    pub fn engine(&self) -> Engine {
        Engine {
            url: self.running.url.clone(),
            locks: Some(Arc::new(self.clone())),
            queues: Some(Arc::new(self.clone())),
            checks: None,
        }
    }

    /// What it promises.
    pub fn guarantees(&self) -> Guarantees {
        self.running.guarantees
    }

    /// Lets a door live on the thread of its shard; see [`leasehold_node::Resident`].
    ///
    /// # Errors
    /// `Unavailable` when it was closed.
    pub fn lodge(&self, door: leasehold_node::MoveIn) -> Result<()> {
        let node = self.running.node.lock().expect("nobody panics while holding it");
        let closed = || Error::new(ErrorKind::Unavailable, "the engine was closed");
        node.as_ref().ok_or_else(closed)?.lodge(door);
        Ok(())
    }

    /// What its node counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.running.metrics.clone()
    }

    /// How much it keeps for things under way.
    pub fn kept(&self) -> Kept {
        self.link.lock().kept()
    }

    /// Finishes what the node has been asked, syncs everything and closes the directory. Whoever
    /// still waits is answered `Unavailable`. Holds stay held: they end by their TTL, or after a
    /// grace when the directory is opened again.
    ///
    /// # Errors
    /// `Broken` when the journal had failed or fails now.
    pub async fn close(&self) -> Result<()> {
        self.link.closing();
        let node = self.running.node.lock().expect("nobody panics while holding it").take();
        let Some(node) = node else { return Ok(()) };
        // Joining the node's thread waits for its last sync.
        let closed = tokio::task::spawn_blocking(|| node.close()).await;
        match closed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error::ended(&error, false).asking("close the engine")),
            Err(error) => Err(Error::new(ErrorKind::Broken, error.to_string())),
        }
    }
}
