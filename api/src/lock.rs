//! Taking locks: one, several at once, shared, or permits of a semaphore.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::{Acquire, HoldRef, LockView, SessionRef, Want};
use crate::{Error, ErrorKind, Leasehold, LockGuard, Mode, Result, Wait, random};

/// How long a lock outlives its holder's last sign of life.
pub const TTL: Duration = Duration::from_secs(10);

/// A lock, a semaphore or several of them, about to be acquired. Cheap to clone and to keep.
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
    pub fn lock(&self, name: impl Into<Arc<str>>) -> Lock {
        Lock::new(self, vec![Want { name: name.into(), mode: Mode::Exclusive }])
    }

    /// A semaphore with so many permits; [`Lock::take`] says how many to take, one if not said.
    pub fn semaphore(&self, name: impl Into<Arc<str>>, permits: u32) -> Lock {
        let mode = Mode::Permits { take: 1, of: permits };
        Lock::new(self, vec![Want { name: name.into(), mode }])
    }

    /// Several locks, taken in one step, all or none.
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
    pub fn shared(mut self) -> Self {
        self.wants.iter_mut().for_each(|want| want.mode = Mode::Shared);
        self
    }

    /// How many permits of a semaphore to take.
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
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Does not renew: the lock ends after its TTL.
    pub fn without_renewal(mut self) -> Self {
        self.renew = false;
        self
    }

    /// Lets the lock end with this handle's session too.
    pub fn with_session(mut self) -> Self {
        self.bound = true;
        self
    }

    /// How long nobody may take the lock after it was lost (not after it was released), at most a
    /// minute: time for what its holder had sent out to arrive.
    pub fn lock_delay(mut self, delay: Duration) -> Self {
        self.lock_delay = delay;
        self
    }

    /// What inspect shows of the holder; at most 1024 bytes. The handle's label if not said.
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Lets the lock be entered again by whoever names the same number, below 2^53. A re-entry
    /// keeps the token; the lock is free after as many releases.
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
    /// # use leasehold_api as leasehold;
    /// # async fn example(leasehold: leasehold::Leasehold) -> leasehold::Result<()> {
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
    pub async fn acquire_within(&self, wait: Duration) -> Result<LockGuard> {
        self.ask(Wait::AtMost(wait)).await
    }

    /// Takes the lock if it is free; `None` if it is not.
    ///
    /// # Errors
    /// See [`acquire`](Self::acquire).
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
    /// # use leasehold_api as leasehold;
    /// # async fn example(leasehold: leasehold::Leasehold) -> leasehold::Result<()> {
    /// let sum = leasehold.lock("stock/42").run(async |token| token + 1).await?;
    /// # Ok(()) }
    /// ```
    pub async fn run<T>(&self, work: impl AsyncFnOnce(u64) -> T) -> Result<T> {
        let guard = self.acquire().await?;
        let lost = guard.lost();
        let done = tokio::select! {
            biased;
            done = work(guard.token()) => done,
            _ = lost => {
                guard.check()?;
                return Err(Error::new(ErrorKind::Stale, "the lock was lost"));
            }
        };
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
                Ok(LockGuard::new(locks.clone(), hold, grant, ask.ttl, self.renew, asked))
            }
        };
        let asked = |error: Error| error.asking(format!("acquire {name}"));
        let mut guard = self.at.session()?.run(request).await.map_err(asked)?;
        guard.ready().await.map_err(asked)?;
        Ok(guard)
    }

    /// Everything about the (first) lock: holders, waiters in order, expected waits.
    ///
    /// # Errors
    /// `Invalid` for a bad name.
    pub async fn inspect(&self) -> Result<LockView> {
        let name = self.wants.first().map_or("", |want| &*want.name);
        self.at.locks()?.inspect(name).await
    }
}
