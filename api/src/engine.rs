//! What an engine implements: two narrow traits, locks and queues.
//!
//! Every future is cancel-safe in one sense: dropping it leaves nothing behind. An acquire that is
//! dropped is withdrawn, or released if it was granted meanwhile; a receive that is dropped gives
//! the message back. An engine that cannot do something says `Unsupported`; it emulates nothing.

mod address;
mod apart;
mod lock;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;

pub use address::{host_and_port, unescaped};
pub use apart::{Gone, apart, seen_through};
pub use lock::*;
pub use queue::*;

use crate::{Checks, Guarantees, Result};

/// Locks, sessions and registers of one engine.
#[async_trait]
pub trait LockEngine: Send + Sync + 'static {
    /// What it promises.
    fn guarantees(&self) -> Guarantees;

    /// Opens a session, or takes one up again.
    ///
    /// # Errors
    /// `NoSession` when the session to take up has ended.
    async fn open_session(&self, ask: &OpenSession) -> Result<Session>;

    /// Says that a session lives.
    ///
    /// # Errors
    /// `NoSession` when it has ended.
    async fn keep_alive(&self, session: &SessionRef) -> Result<()>;

    /// Ends a session and all its leases.
    ///
    /// # Errors
    /// `NoSession` when it has ended already.
    async fn close_session(&self, session: &SessionRef) -> Result<()>;

    /// Takes locks, all or none. Dropping the future withdraws it.
    ///
    /// # Errors
    /// `Busy`, `TimedOut`, `Deadlock`, `Invalid`, `NoSession`, `Full`.
    async fn acquire(&self, ask: &Acquire) -> Result<Grant>;

    /// Sets a hold's deadline to now plus `ttl`; gives the time left.
    ///
    /// # Errors
    /// `Stale` when it is not held any more, `Foreign` when it is somebody else's.
    async fn renew(&self, hold: &HoldRef, ttl: Duration) -> Result<Option<Duration>>;

    /// Ends a hold, or leaves it once when it was entered again; gives the entries left.
    ///
    /// # Errors
    /// `Stale` when it is not held any more, `Foreign` when it is somebody else's.
    async fn release(&self, hold: &HoldRef) -> Result<u32>;

    /// Ends every hold of a lock, whoever has it; gives how many.
    ///
    /// # Errors
    /// `Invalid` for a bad name.
    async fn force_release(&self, name: &str) -> Result<u32>;

    /// Whether a lock is held with a token, asked of the engine itself.
    ///
    /// # Errors
    /// `Invalid` for a bad name or a token that was never given out.
    async fn check(&self, name: &str, token: u64) -> Result<bool>;

    /// Everything about one lock; a lock that nobody holds is an empty view.
    ///
    /// # Errors
    /// `Invalid` for a bad name.
    async fn inspect(&self, name: &str) -> Result<LockView>;

    /// Waits until the newest token of the lock's holders is not `known` any more (`None`: nobody
    /// holds it), at most `wait`, and gives the lock as it is then.
    ///
    /// # Errors
    /// `Invalid` for a bad name.
    async fn watch(&self, name: &str, known: Option<u64>, wait: Duration) -> Result<LockView>;

    /// Locks whose names begin with a prefix, some at a time.
    ///
    /// # Errors
    /// `Invalid` for absurd sizes.
    async fn list_locks(&self, ask: &List) -> Result<Listed<LockView>>;

    /// Reads a register.
    ///
    /// # Errors
    /// `Invalid` for a bad key.
    async fn read(&self, key: &[u8]) -> Result<Option<Register>>;

    /// Writes or deletes a register; gives its new version.
    ///
    /// # Errors
    /// `Conflict` when it is not as expected, `Stale` when the guard's token is.
    async fn write(&self, ask: &Write) -> Result<u64>;

    /// Waits until a register's version is not `known` any more (`None`: it has no value), at most
    /// `wait`, and gives the register as it is then.
    ///
    /// # Errors
    /// `Invalid` for a bad key.
    async fn watch_register(
        &self,
        key: &[u8],
        known: Option<u64>,
        wait: Duration,
    ) -> Result<Option<Register>>;

    /// Registers whose keys begin with a prefix, some at a time.
    ///
    /// # Errors
    /// `Invalid` for absurd sizes.
    async fn list_registers(&self, ask: &List) -> Result<Listed<RegisterView>>;
}

/// Queues, exchanges and the commit of one engine.
#[async_trait]
pub trait QueueEngine: Send + Sync + 'static {
    /// What it promises.
    fn guarantees(&self) -> Guarantees;

    /// Makes a queue, or finds it with equal settings; gives whether it existed.
    ///
    /// # Errors
    /// `Different` when it exists with other settings.
    async fn declare_queue(&self, name: &str, config: &QueueConfig) -> Result<bool>;

    /// Removes a queue; gives how many messages went with it.
    ///
    /// # Errors
    /// `NotFound`, `InUse` when `if_unused` or `if_empty` forbids it.
    async fn delete_queue(&self, name: &str, if_unused: bool, if_empty: bool) -> Result<u64>;

    /// Removes the messages that wait; gives how many.
    ///
    /// # Errors
    /// `NotFound`.
    async fn purge(&self, name: &str) -> Result<u64>;

    /// Holds deliveries back, or lets them go.
    ///
    /// # Errors
    /// `NotFound`.
    async fn pause(&self, name: &str, paused: bool) -> Result<()>;

    /// Everything about one queue.
    ///
    /// # Errors
    /// `NotFound`.
    async fn inspect_queue(&self, name: &str) -> Result<QueueView>;

    /// Queues whose names begin with a prefix, some at a time.
    ///
    /// # Errors
    /// `Invalid` for absurd sizes.
    async fn list_queues(&self, ask: &List) -> Result<Listed<QueueView>>;

    /// Makes an exchange, or finds it with equal settings.
    ///
    /// # Errors
    /// `Different` when it exists with other settings.
    async fn declare_exchange(&self, name: &str, config: &ExchangeConfig) -> Result<()>;

    /// Removes an exchange.
    ///
    /// # Errors
    /// `NotFound`; `InUse` when `if_unused` forbids it.
    async fn delete_exchange(&self, name: &str, if_unused: bool) -> Result<()>;

    /// Binds a queue or an exchange to an exchange.
    ///
    /// # Errors
    /// `NotFound`.
    async fn bind(&self, binding: &Binding) -> Result<()>;

    /// Takes a binding back.
    ///
    /// # Errors
    /// `NotFound`.
    async fn unbind(&self, binding: &Binding) -> Result<()>;

    /// Publishes messages, each by itself, all with one round trip; the answers are in order and
    /// each is a confirm or its own refusal.
    ///
    /// # Errors
    /// `Unavailable` when it is not known what became of them.
    async fn publish(&self, messages: Vec<Publish>) -> Result<Vec<Result<Published>>>;

    /// Consumes: a stream of deliveries that ends when the queue is deleted. Dropping it stops the
    /// consumer and gives back what it had not handed out yet.
    ///
    /// # Errors
    /// `NotFound`, `InUse` when somebody consumes exclusively, `NoSession`.
    async fn consume(&self, ask: &Consume) -> Result<BoxStream<'static, Result<Delivered>>>;

    /// Takes up to `max` messages, waiting for the first at most `wait`; none is an empty list.
    ///
    /// # Errors
    /// `NotFound`, `NoSession`.
    async fn receive(&self, ask: &Receive) -> Result<Vec<Delivered>>;

    /// Settles deliveries, all or none; gives how many.
    ///
    /// # Errors
    /// `Stale` when one is not open any more, `Foreign` when it is somebody else's.
    async fn settle(&self, receipts: &[Receipt], verdict: Verdict) -> Result<u32>;

    /// Sets the deadline of a delivery's lease to now plus `lease`.
    ///
    /// # Errors
    /// `Stale` when it is not open any more.
    async fn extend(&self, receipt: &Receipt, lease: Duration) -> Result<()>;

    /// Looks at the first messages without taking them.
    ///
    /// # Errors
    /// `NotFound`.
    async fn peek(&self, name: &str, max: u32) -> Result<Vec<Peeked>>;

    /// Moves up to `max` messages to another queue (`None`: each to where it died first); gives
    /// how many.
    ///
    /// # Errors
    /// `NotFound`.
    async fn redrive(&self, from: &str, to: Option<&str>, max: u32) -> Result<u32>;

    /// Everything at once or nothing; gives the versions of the registers written.
    ///
    /// # Errors
    /// The first refusal among its parts.
    async fn commit(&self, commit: &Commit) -> Result<Vec<u64>>;
}

/// An engine: its two halves. An engine without queues (or locks) has `None` there.
#[derive(Clone)]
pub struct Engine {
    /// What it was opened with, without credentials.
    pub url: Arc<str>,
    /// Its locks.
    pub locks: Option<Arc<dyn LockEngine>>,
    /// Its queues.
    pub queues: Option<Arc<dyn QueueEngine>>,
    /// Whether the system behind it is set up well, if it can tell.
    pub checks: Option<Arc<dyn Checks>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("url", &self.url).finish_non_exhaustive()
    }
}
