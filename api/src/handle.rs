//! The handle: one engine, one session, everything else from here.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::{Engine, List, Listed, LockEngine, LockView, QueueEngine, QueueView};
use crate::session::{Life, SESSION_TTL, SESSION_TTL_MAX, SESSION_TTL_MIN, SessionKeeper};
use crate::{Error, ErrorKind, Floor, Guarantees, Result};

/// How many things are asked for at a time.
const PAGE: u32 = 1000;

/// Locks and queues of one engine. Cheap to clone; clones share one session.
///
/// The crate `leasehold` opens one by path or URL.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold::Result<()> {
/// # let leasehold = leasehold::memory().await?;
/// let same = leasehold.clone();
/// let guard = leasehold.lock("nightly").acquire().await?;
/// assert!(same.lock("nightly").try_acquire().await?.is_none());
/// guard.release().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Leasehold {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    session: Arc<SessionKeeper>,
    life: Life,
}

impl std::fmt::Debug for Leasehold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leasehold").field("engine", &self.inner.engine).finish()
    }
}

impl Leasehold {
    /// A handle on an engine.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let other_session = leasehold::Leasehold::new(leasehold.engine().clone());
    /// assert_eq!(other_session.guarantees()?, leasehold.guarantees()?);
    /// # Ok(()) }
    /// ```
    pub fn new(engine: Engine) -> Self {
        Self::labelled(engine, None)
    }

    /// A handle on an engine, with what inspect shows of its user; at most 1024 bytes.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let engine = leasehold.engine().clone();
    /// let worker = leasehold::Leasehold::labelled(engine, Some("worker 7".into()));
    /// let guard = worker.lock("nightly").acquire().await?;
    /// let view = worker.inspect("nightly").await?;
    /// assert_eq!(view.holders[0].label.as_deref(), Some("worker 7"));
    /// # guard.release().await?;
    /// # Ok(()) }
    /// ```
    pub fn labelled(engine: Engine, label: Option<Arc<str>>) -> Self {
        Self::living(engine, Life { ttl: SESSION_TTL, label })
    }

    fn living(engine: Engine, life: Life) -> Self {
        let session = SessionKeeper::new(engine.locks.clone(), life.clone());
        Self { inner: Arc::new(Inner { engine, session, life }) }
    }

    /// The same engine under another name: a session of its own.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let worker = leasehold.with_label("worker 7");
    /// let guard = worker.lock("nightly").acquire().await?;
    /// let view = leasehold.inspect("nightly").await?;
    /// assert_eq!(view.holders[0].label.as_deref(), Some("worker 7"));
    /// # guard.release().await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn with_label(&self, label: impl Into<Arc<str>>) -> Self {
        let life = Life { label: Some(label.into()), ..self.inner.life.clone() };
        Self::living(self.inner.engine.clone(), life)
    }

    /// The same engine in a session of its own that outlives this process by so long:
    /// [`SESSION_TTL_MIN`] to [`SESSION_TTL_MAX`], [`SESSION_TTL`] if not said. Signs of life are
    /// given three times within that. With a short one the waits and deliveries of a process that
    /// died, and the locks that end with its session, are others' sooner; with a long one a
    /// process may be cut off or stand still for longer and lose nothing.
    ///
    /// # Errors
    /// `Invalid` for a time outside these bounds.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// use std::time::Duration;
    /// let brisk = leasehold.with_session_ttl(Duration::from_secs(2))?;
    /// let guard = brisk.lock("leader").with_session().acquire().await?;
    /// assert!(leasehold.with_session_ttl(Duration::ZERO).is_err());
    /// # guard.release().await?;
    /// # Ok(()) }
    /// ```
    pub fn with_session_ttl(&self, ttl: Duration) -> Result<Self> {
        if !(SESSION_TTL_MIN..=SESSION_TTL_MAX).contains(&ttl) {
            let wrong = format!(
                "a session's TTL is {SESSION_TTL_MIN:?} to {SESSION_TTL_MAX:?}, not {ttl:?}"
            );
            return Err(Error::new(ErrorKind::Invalid, wrong).asking("set the session's TTL"));
        }
        let life = Life { ttl, ..self.inner.life.clone() };
        Ok(Self::living(self.inner.engine.clone(), life))
    }

    /// The engine behind it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// assert_eq!(&*leasehold.engine().url, "mem:");
    /// # Ok(()) }
    /// ```
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// What the engine promises; of one with locks and queues what its locks do.
    ///
    /// # Errors
    /// `Unsupported` when it has neither.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let guarantees = leasehold.guarantees()?;
    /// assert_eq!(guarantees.survives, leasehold::Survives::Nothing); // it is in memory
    /// # Ok(()) }
    /// ```
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
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let guard = leasehold.lock("nightly").acquire().await?;
    /// let token = guard.token();
    /// assert!(leasehold.check("nightly", token).await?);
    /// guard.release().await?;
    /// assert!(!leasehold.check("nightly", token).await?);
    /// # Ok(()) }
    /// ```
    pub async fn check(&self, lock: &str, token: u64) -> Result<bool> {
        self.locks()?.check(lock, token).await
    }

    /// Everything about one lock; a lock that nobody holds is an empty view.
    ///
    /// # Errors
    /// `Invalid` for a bad name.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let guard = leasehold.lock("nightly").acquire().await?;
    /// let view = leasehold.inspect("nightly").await?;
    /// assert_eq!(view.holders[0].token, guard.token());
    /// assert_eq!(view.waiting, 0);
    /// # guard.release().await?;
    /// # Ok(()) }
    /// ```
    pub async fn inspect(&self, lock: &str) -> Result<LockView> {
        self.locks()?.inspect(lock).await
    }

    /// Every lock that is held or waited for and whose name begins with a prefix. While others take
    /// and release locks, the list is of no single moment.
    ///
    /// # Errors
    /// `Unavailable` when the engine cannot be reached.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let guard = leasehold.lock("stock/42").acquire().await?;
    /// let held = leasehold.locks_with_prefix("stock/").await?;
    /// assert_eq!(held[0].name, "stock/42");
    /// # guard.release().await?;
    /// # Ok(()) }
    /// ```
    pub async fn locks_with_prefix(&self, prefix: &str) -> Result<Vec<LockView>> {
        let locks = self.locks()?;
        all(prefix, |ask| async move { locks.list_locks(&ask).await }).await
    }

    /// Every queue whose name begins with a prefix.
    ///
    /// # Errors
    /// `Unavailable` when the engine cannot be reached.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// leasehold.queue("mail/out").declare(&leasehold::QueueConfig::default()).await?;
    /// assert_eq!(leasehold.queues_with_prefix("mail/").await?[0].name, "mail/out");
    /// # Ok(()) }
    /// ```
    pub async fn queues_with_prefix(&self, prefix: &str) -> Result<Vec<QueueView>> {
        let queues = self.queues()?;
        all(prefix, |ask| async move { queues.list_queues(&ask).await }).await
    }

    /// Ends every hold of a lock, whoever has it; gives how many.
    ///
    /// # Errors
    /// `Invalid` for a bad name.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let guard = leasehold.lock("nightly").acquire().await?;
    /// assert_eq!(leasehold.force_release("nightly").await?, 1);
    /// guard.lost().await;
    /// assert!(guard.check().is_err());
    /// # Ok(()) }
    /// ```
    pub async fn force_release(&self, lock: &str) -> Result<u32> {
        self.locks()?.force_release(lock).await
    }

    /// Ends the session and everything in it. Locks that do not end with the session end by
    /// their guards.
    ///
    /// # Errors
    /// `Unavailable` when the engine cannot be reached; the session then ends by its TTL.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let guard = leasehold.lock("leader").with_session().acquire().await?;
    /// leasehold.close().await?;
    /// guard.lost().await;
    /// # Ok(()) }
    /// ```
    pub async fn close(&self) -> Result<()> {
        self.inner.session.close().await
    }

    pub(crate) fn locks(&self) -> Result<&Arc<dyn LockEngine>> {
        let engine = &self.inner.engine;
        engine.locks.as_ref().ok_or_else(|| Error::unsupported(&engine.url, "locks"))
    }

    pub(crate) fn queues(&self) -> Result<&Arc<dyn QueueEngine>> {
        let engine = &self.inner.engine;
        engine.queues.as_ref().ok_or_else(|| Error::unsupported(&engine.url, "queues"))
    }

    pub(crate) fn session(&self) -> &Arc<SessionKeeper> {
        &self.inner.session
    }

    pub(crate) fn label(&self) -> Option<Arc<str>> {
        self.inner.life.label.clone()
    }
}

/// Asks page after page until there are no more.
async fn all<T, F>(prefix: &str, page: impl Fn(List) -> F) -> Result<Vec<T>>
where
    F: Future<Output = Result<Listed<T>>>,
{
    let mut found = Vec::new();
    let mut after = 0;
    loop {
        let some = page(List { prefix: prefix.to_owned(), after, max: PAGE }).await?;
        found.extend(some.items);
        match some.next {
            Some(next) => after = next,
            None => return Ok(found),
        }
    }
}
