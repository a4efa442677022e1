//! Taking locks: one, several at once, shared, or permits of a semaphore.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::{Acquire, HoldRef, LockView, SessionRef, Want};
use crate::{Error, ErrorKind, Leasehold, LockGuard, Mode, Result, Wait, random};

/// How long a lock outlives its holder's last sign of life.
pub const TTL: Duration = Duration::from_secs(10);

/// A lock, a semaphore or several of them, about to be acquired. Cheap to clone and to keep.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold::Result<()> {
/// # let leasehold = leasehold::memory().await?;
/// let stock = leasehold.lock("stock/42").label("worker 7");
/// for _ in 0..3 {
///     stock.run(async |token| println!("working under {token}")).await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a lock does nothing until it is acquired"]
pub struct Lock {
    at: Leasehold,
    wants: Vec<Want>,
    ttl: Option<Duration>,
    renew: bool,
    bound: bool,
    lock_delay: Duration,
    label: Option<Arc<str>>,
    hold: Option<u64>,
}

impl Leasehold {
    /// A lock that only one may hold.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let guard = leasehold.lock("nightly").acquire().await?;
    /// guard.release().await?;
    /// # Ok(()) }
    /// ```
    pub fn lock(&self, name: impl Into<Arc<str>>) -> Lock {
        Lock::new(self, vec![Want { name: name.into(), mode: Mode::Exclusive }])
    }

    /// A semaphore with so many permits; [`Lock::take`] says how many to take, one if not said.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let licences = leasehold.semaphore("licences", 2);
    /// let (one, two) = (licences.acquire().await?, licences.acquire().await?);
    /// assert!(licences.try_acquire().await?.is_none());
    /// # drop((one, two));
    /// # Ok(()) }
    /// ```
    pub fn semaphore(&self, name: impl Into<Arc<str>>, permits: u32) -> Lock {
        let mode = Mode::Permits { take: 1, of: permits };
        Lock::new(self, vec![Want { name: name.into(), mode }])
    }

    /// Several locks, taken in one step, all or none.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// use leasehold::Mode::{Exclusive, Shared};
    /// let transfer = leasehold.multi_lock([("account/1", Exclusive), ("rates", Shared)]);
    /// let guard = transfer.acquire().await?; // both, under one token
    /// assert!(leasehold.lock("account/1").try_acquire().await?.is_none());
    /// guard.release().await?;
    /// # Ok(()) }
    /// ```
    pub fn multi_lock<N: Into<Arc<str>>>(
        &self,
        wants: impl IntoIterator<Item = (N, Mode)>,
    ) -> Lock {
        let wants = wants.into_iter().map(|(name, mode)| Want { name: name.into(), mode });
        Lock::new(self, wants.collect())
    }
}

impl Lock {
    fn new(at: &Leasehold, wants: Vec<Want>) -> Self {
        Self {
            at: at.clone(),
            wants,
            ttl: Some(TTL),
            renew: true,
            bound: false,
            lock_delay: Duration::ZERO,
            label: None,
            hold: None,
        }
    }

    /// Shares it with others who share it; nobody holds it alone meanwhile.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let (reads, writes) = (leasehold.lock("config").shared(), leasehold.lock("config"));
    /// let (one, two) = (reads.acquire().await?, reads.acquire().await?);
    /// assert!(writes.try_acquire().await?.is_none());
    /// # drop((one, two));
    /// # Ok(()) }
    /// ```
    pub fn shared(mut self) -> Self {
        self.wants.iter_mut().for_each(|want| want.mode = Mode::Shared);
        self
    }

    /// How many permits of a semaphore to take.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let guard = leasehold.semaphore("gpu", 8).take(4).acquire().await?;
    /// assert!(leasehold.semaphore("gpu", 8).take(5).try_acquire().await?.is_none());
    /// guard.release().await?;
    /// # Ok(()) }
    /// ```
    pub fn take(mut self, permits: u32) -> Self {
        for want in &mut self.wants {
            if let Mode::Permits { take, .. } = &mut want.mode {
                *take = permits;
            }
        }
        self
    }

    /// How long the lock outlives this process, 1 ms to 366 days; 10 s if not said. While the
    /// guard lives it is renewed three times within that.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// use std::time::Duration;
    /// let guard = leasehold.lock("leader").ttl(Duration::from_secs(3)).acquire().await?;
    /// assert!(guard.remaining() <= Some(Duration::from_secs(3)));
    /// # guard.release().await?;
    /// # Ok(()) }
    /// ```
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Does not renew: the lock ends after its TTL.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// use std::time::Duration;
    /// let lock = leasehold.lock("cooldown").ttl(Duration::from_millis(20)).without_renewal();
    /// let guard = lock.acquire().await?;
    /// guard.lost().await;
    /// leasehold.lock("cooldown").acquire().await?.release().await?;
    /// # Ok(()) }
    /// ```
    pub fn without_renewal(mut self) -> Self {
        self.renew = false;
        self
    }

    /// Lets the lock end with this handle's session too.
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
    pub fn with_session(mut self) -> Self {
        self.bound = true;
        self
    }

    /// How long nobody may take the lock after it was lost (not after it was released), at most a
    /// minute: time for what its holder had sent out to arrive.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// use std::time::Duration;
    /// let lock = leasehold.lock("printer").lock_delay(Duration::from_secs(5));
    /// lock.acquire().await?.release().await?; // released cleanly: no delay
    /// assert!(lock.try_acquire().await?.is_some());
    /// # Ok(()) }
    /// ```
    pub fn lock_delay(mut self, delay: Duration) -> Self {
        self.lock_delay = delay;
        self
    }

    /// What inspect shows of the holder; at most 1024 bytes. The handle's label if not said.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let guard = leasehold.lock("nightly").label("backup of db1").acquire().await?;
    /// let view = leasehold.inspect("nightly").await?;
    /// assert_eq!(view.holders[0].label.as_deref(), Some("backup of db1"));
    /// # guard.release().await?;
    /// # Ok(()) }
    /// ```
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Lets the lock be entered again by whoever names the same number, below 2^53. A re-entry
    /// keeps the token; the lock is free after as many releases.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let lock = leasehold.lock("tree").reentrant(7);
    /// let outer = lock.acquire().await?;
    /// let inner = lock.acquire().await?;
    /// inner.release().await?;
    /// assert!(leasehold.check("tree", outer.token()).await?);
    /// outer.release().await?;
    /// # Ok(()) }
    /// ```
    pub fn reentrant(mut self, hold: u64) -> Self {
        self.hold = Some(hold);
        self
    }

    /// Waits for the lock as long as it takes. Dropping the future withdraws the request.
    ///
    /// # Errors
    /// `Deadlock` naming the cycle, `Invalid` for a bad name or time, `Full`, `Unavailable`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let guard = leasehold.lock("nightly").acquire().await?;
    /// println!("working under token {}", guard.token());
    /// guard.check()?; // still ours?
    /// guard.release().await?;
    /// # Ok(()) }
    /// ```
    pub async fn acquire(&self) -> Result<LockGuard> {
        self.ask(Wait::Forever).await
    }

    /// Waits for the lock at most so long.
    ///
    /// # Errors
    /// `TimedOut`; see [`acquire`](Self::acquire) for the rest.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// use std::time::Duration;
    /// let held = leasehold.lock("nightly").acquire().await?;
    /// let late = leasehold.lock("nightly").acquire_within(Duration::from_millis(10)).await;
    /// assert_eq!(late.unwrap_err().kind, leasehold::ErrorKind::TimedOut);
    /// # held.release().await?;
    /// # Ok(()) }
    /// ```
    pub async fn acquire_within(&self, wait: Duration) -> Result<LockGuard> {
        self.ask(Wait::AtMost(wait)).await
    }

    /// Takes the lock if it is free; `None` if it is not.
    ///
    /// # Errors
    /// See [`acquire`](Self::acquire).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// match leasehold.lock("nightly").try_acquire().await? {
    ///     Some(guard) => guard.release().await?,
    ///     None => println!("somebody else is at it"),
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>> {
        match self.ask(Wait::No).await {
            Ok(guard) => Ok(Some(guard)),
            Err(Error { kind: ErrorKind::Busy, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Runs something under the lock and releases it afterwards. If the lock is lost first the
    /// future is dropped at its next await.
    ///
    /// # Errors
    /// `Stale` when the lock was lost; see [`acquire`](Self::acquire) for the rest.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let sum = leasehold.lock("stock/42").run(async |token| token + 1).await?;
    /// # Ok(()) }
    /// ```
    pub async fn run<T>(&self, work: impl AsyncFnOnce(u64) -> T) -> Result<T> {
        let guard = self.acquire().await?;
        let done = guard.during(work(guard.token())).await?;
        guard.release().await?;
        Ok(done)
    }

    async fn ask(&self, wait: Wait) -> Result<LockGuard> {
        let name = self.wants.first().map_or_else(|| "".into(), |want| want.name.clone());
        let hold = self.hold.unwrap_or_else(random::hold);
        let locks = self.at.locks()?;
        let request = |session| {
            let ask = Acquire {
                wants: self.wants.clone(),
                session: (session != SessionRef::NONE).then_some(session),
                hold,
                reentrant: self.hold.is_some(),
                ttl: self.ttl,
                bound: self.bound,
                wait,
                lock_delay: self.lock_delay,
                label: self.label.clone().or_else(|| self.at.label()),
                request: Some(random::request()),
            };
            let name = name.clone();
            async move {
                let asked = Instant::now();
                let grant = locks.acquire(&ask).await?;
                let hold = HoldRef { name, token: grant.token, hold, session: ask.session };
                let guard = LockGuard::new(locks.clone(), hold, grant, ask.ttl, self.renew, asked);
                Ok(if ask.bound { guard.bound_to(&self.at) } else { guard })
            }
        };
        let asked = |error: Error| error.asking(format!("acquire {name}"));
        let mut guard = self.at.session().run(request).await.map_err(asked)?;
        guard.ready().await.map_err(asked)?;
        Ok(guard)
    }

    /// Everything about the (first) lock: holders, waiters in order, expected waits.
    ///
    /// # Errors
    /// `Invalid` for a bad name.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let lock = leasehold.lock("nightly");
    /// let guard = lock.acquire().await?;
    /// assert_eq!(lock.inspect().await?.holders.len(), 1);
    /// # guard.release().await?;
    /// # Ok(()) }
    /// ```
    pub async fn inspect(&self) -> Result<LockView> {
        let name = self.wants.first().map_or("", |want| &*want.name);
        self.at.locks()?.inspect(name).await
    }
}
