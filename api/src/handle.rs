//! The handle: one engine, one session, everything else from here.

use std::sync::Arc;

use crate::engine::{Engine, List, LockEngine, LockView, QueueEngine, QueueView};
use crate::session::SessionKeeper;
use crate::{Error, Floor, Guarantees, Result};

/// Locks and queues of one engine. Cheap to clone; clones share one session.
///
/// The crate `leasehold` opens one by path or URL.
#[derive(Clone)]
pub struct Leasehold {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    session: Option<Arc<SessionKeeper>>,
    label: Option<Arc<str>>,
}

impl std::fmt::Debug for Leasehold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leasehold").field("engine", &self.inner.engine).finish()
    }
}

impl Leasehold {
    /// A handle on an engine.
    pub fn new(engine: Engine) -> Self {
        Self::labelled(engine, None)
    }

    /// A handle on an engine, with what inspect shows of its user; at most 1024 bytes.
    pub fn labelled(engine: Engine, label: Option<Arc<str>>) -> Self {
        let keeper = |locks: &Arc<dyn LockEngine>| SessionKeeper::new(locks.clone(), label.clone());
        let session = engine.locks.as_ref().map(keeper);
        Self { inner: Arc::new(Inner { engine, session, label }) }
    }

    /// The same engine under another name: a session of its own.
    #[must_use]
    pub fn with_label(&self, label: impl Into<Arc<str>>) -> Self {
        Self::labelled(self.inner.engine.clone(), Some(label.into()))
    }

    /// The engine behind it.
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// What the engine promises; of one with locks and queues what its locks do.
    ///
    /// # Errors
    /// `Unsupported` when it has neither.
    pub fn guarantees(&self) -> Result<Guarantees> {
        match &self.inner.engine {
            Engine { locks: Some(locks), .. } => Ok(locks.guarantees()),
            Engine { queues: Some(queues), .. } => Ok(queues.guarantees()),
            engine => Err(Error::unsupported(&engine.url, "locks and no queues")),
        }
    }

    /// Demands a guarantee, to fail early.
    ///
    /// # Errors
    /// `Unsupported` when the engine gives less.
    ///
    /// ```
    /// # use leasehold_api as leasehold;
    /// # fn example(leasehold: leasehold::Leasehold) -> leasehold::Result<()> {
    /// let leasehold = leasehold.require(leasehold::Fencing::Strict)?;
    /// # Ok(()) }
    /// ```
    pub fn require(self, floor: impl Into<Floor>) -> Result<Self> {
        self.guarantees()?.require(floor.into())?;
        Ok(self)
    }

    /// Whether a lock is held with a token, asked of the engine itself.
    ///
    /// # Errors
    /// `Invalid` for a bad name or a token that was never given out.
    pub async fn check(&self, lock: &str, token: u64) -> Result<bool> {
        self.locks()?.check(lock, token).await
    }

    /// Everything about one lock; a lock that nobody holds is an empty view.
    ///
    /// # Errors
    /// `Invalid` for a bad name.
    pub async fn inspect(&self, lock: &str) -> Result<LockView> {
        self.locks()?.inspect(lock).await
    }

    /// Every lock that is held or waited for and whose name begins with a prefix. While others take
    /// and release locks, the list is of no single moment.
    ///
    /// # Errors
    /// `Unavailable` when the engine cannot be reached.
    pub async fn locks_with_prefix(&self, prefix: &str) -> Result<Vec<LockView>> {
        let mut ask = List { prefix: prefix.to_owned(), after: 0, max: 1000 };
        let mut found = Vec::new();
        loop {
            let some = self.locks()?.list_locks(&ask).await?;
            found.extend(some.items);
            match some.next {
                Some(next) => ask.after = next,
                None => return Ok(found),
            }
        }
    }

    /// Every queue whose name begins with a prefix.
    ///
    /// # Errors
    /// `Unavailable` when the engine cannot be reached.
    pub async fn queues_with_prefix(&self, prefix: &str) -> Result<Vec<QueueView>> {
        let mut ask = List { prefix: prefix.to_owned(), after: 0, max: 1000 };
        let mut found = Vec::new();
        loop {
            let some = self.queues()?.list_queues(&ask).await?;
            found.extend(some.items);
            match some.next {
                Some(next) => ask.after = next,
                None => return Ok(found),
            }
        }
    }

    /// Ends every hold of a lock, whoever has it; gives how many.
    ///
    /// # Errors
    /// `Invalid` for a bad name.
    pub async fn force_release(&self, lock: &str) -> Result<u32> {
        self.locks()?.force_release(lock).await
    }

    /// Ends the session and everything in it. Locks that do not end with the session end by
    /// their guards.
    ///
    /// # Errors
    /// `Unavailable` when the engine cannot be reached; the session then ends by its TTL.
    pub async fn close(&self) -> Result<()> {
        match &self.inner.session {
            Some(session) => session.close().await,
            None => Ok(()),
        }
    }

    pub(crate) fn locks(&self) -> Result<&Arc<dyn LockEngine>> {
        let engine = &self.inner.engine;
        engine.locks.as_ref().ok_or_else(|| Error::unsupported(&engine.url, "locks"))
    }

    pub(crate) fn queues(&self) -> Result<&Arc<dyn QueueEngine>> {
        let engine = &self.inner.engine;
        engine.queues.as_ref().ok_or_else(|| Error::unsupported(&engine.url, "queues"))
    }

    pub(crate) fn session(&self) -> Result<&Arc<SessionKeeper>> {
        let engine = &self.inner.engine;
        self.inner.session.as_ref().ok_or_else(|| Error::unsupported(&engine.url, "sessions"))
    }

    pub(crate) fn label(&self) -> Option<Arc<str>> {
        self.inner.label.clone()
    }
}
