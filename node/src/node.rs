//! A shard on a thread of its own.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use leasehold_env::{Disk, Entropy, MemDisk, OsClock, OsDisk, OsEntropy};
use leasehold_journal::JournalError;

use crate::client::Client;
use crate::error::{NodeError, OpenError};
use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::resident::MoveIn;
use crate::shard::Shard;
use crate::turn;

/// A running node with one shard. Dropping it closes it; [`Node::close`] also says how that went.
#[derive(Debug)]
pub struct Node {
    inbox: Arc<Inbox>,
    metrics: Arc<Metrics>,
    thread: Option<JoinHandle<Result<(), JournalError>>>,
}

impl Node {
    /// Opens a directory, recovers what it holds and starts serving.
    ///
    /// # Errors
    /// See [`OpenError`].
    ///
    /// ```
    /// use leasehold_node::{Node, Options};
    /// let directory = tempfile::tempdir()?;
    /// let node = Node::open(directory.path(), Options::default())?;
    /// let client = node.client();
    /// node.close()?;
    /// # drop(client);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        Self::start(OsDisk::open(path)?, options)
    }

    /// Starts an empty node that keeps everything in memory: it is gone when the node is closed.
    ///
    /// Room for large things counts more here than time: the journal is cut into segments of at
    /// most 4 MiB, which also bounds a message, checkpoints are taken after 4 MiB, and the caches
    /// are small, as what they would save is a copy.
    ///
    /// # Errors
    /// When the system has no thread or randomness, or the options are refused.
    ///
    /// ```
    /// let node = leasehold_node::Node::memory(leasehold_node::Options::default())?;
    /// node.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn memory(options: Options) -> Result<Self, OpenError> {
        Self::start(MemDisk::new(), options.for_memory())
    }

    fn start<D: Disk>(disk: D, options: Options) -> Result<Self, OpenError> {
        let system = |what| move |source| OpenError::System { what, source };
        let mut entropy = OsEntropy::open().map_err(system("open the source of randomness"))?;
        let seed = entropy.next_u64().map_err(system("read randomness"))?;
        let clock = OsClock::new();
        let inbox = Arc::new(Inbox::new(options.inbox_commands, options.inbox_bytes));
        let shard = Shard::open(disk, &clock, seed, options)?;
        let metrics = shard.metrics();
        let serving = inbox.clone();
        let thread = std::thread::Builder::new()
            .name("leasehold-shard".to_owned())
            .spawn(move || turn::run(shard, &clock, &serving))
            .map_err(|source| OpenError::System { what: "start the shard's thread", source })?;
        Ok(Self { inbox, metrics, thread: Some(thread) })
    }

    /// A new client.
    pub fn client(&self) -> Client {
        let (id, mailbox) = self.inbox.join();
        Client::new(id, self.inbox.clone(), mailbox)
    }

    /// Lets a door live on the shard's thread; one at a time.
    pub fn lodge(&self, resident: MoveIn) {
        self.inbox.lodge(resident);
    }

    /// What it counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// Finishes what is in the inbox, syncs everything and leaves the directory cleanly closed.
    ///
    /// # Errors
    /// `Stopped` when the journal had failed or fails now.
    pub fn close(mut self) -> Result<(), NodeError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), NodeError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.inbox.close();
        match thread.join() {
            Ok(result) => result.map_err(|error| NodeError::Stopped(error.to_string())),
            Err(_) => Err(NodeError::Stopped("the shard's thread panicked".to_owned())),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Whoever wants to know how it went calls `close`.
        self.end().ok();
    }
}
