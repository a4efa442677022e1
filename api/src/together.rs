//! What several processes do together: elect a leader, wait for a latch, meet at a barrier, run a
//! scheduled job once. All of it stands on locks and registers; nothing here polls.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::LockView;
use crate::register::Versioned;
use crate::{Error, ErrorKind, Expect, Leasehold, LockGuard, Register, Result};

/// How long one watch lasts before it is renewed: shorter than what proxies allow.
const WATCH: Duration = Duration::from_secs(30);

/// The lock behind an election.
pub fn election_lock(name: &str) -> String {
    format!("election/{name}")
}

/// An election: at most one candidate leads at a time.
#[derive(Debug, Clone)]
pub struct Election {
    at: Leasehold,
    lock: Arc<str>,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// What the leader said of itself when it campaigned.
    pub value: String,
    /// Its fencing token, the term: later leaders have higher ones.
    pub token: u64,
    /// Since how long it leads.
    pub since: Duration,
}

impl Leader {
    /// The leader that a lock's view shows.
    pub fn of(view: &LockView) -> Option<Self> {
        let holder = view.holders.first()?;
        let value = holder.label.clone().unwrap_or_default();
        Some(Self { value, token: holder.token, since: holder.held })
    }
}

impl Leasehold {
    /// An election by name.
    pub fn election(&self, name: &str) -> Election {
        Election { at: self.clone(), lock: election_lock(name).into() }
    }

    /// A latch that opens after `count` counts.
    pub fn latch(&self, name: &str, count: u64) -> Latch {
        Latch { register: self.register(format!("latch/{name}")), count }
    }

    /// A barrier at which `parties` meet, again and again.
    pub fn barrier(&self, name: &str, parties: u64) -> Barrier {
        Barrier { register: self.register(format!("barrier/{name}")), parties }
    }

    /// A job that runs once per schedule, however many processes try.
    pub fn job(&self, name: &str) -> Job {
        Job {
            at: self.clone(),
            lock: format!("job/{name}").into(),
            at_least: Duration::ZERO,
            at_most: Duration::from_secs(60),
        }
    }
}

impl Election {
    /// Waits to be elected. The guard is the office: when it is lost, so is the office.
    ///
    /// # Errors
    /// As of [`Lock::acquire`](crate::Lock::acquire).
    pub async fn campaign(&self, value: impl Into<Arc<str>>) -> Result<LockGuard> {
        self.at.lock(self.lock.clone()).label(value).acquire().await
    }

    /// Leads if nobody does.
    ///
    /// # Errors
    /// As of [`Lock::acquire`](crate::Lock::acquire).
    pub async fn try_campaign(&self, value: impl Into<Arc<str>>) -> Result<Option<LockGuard>> {
        self.at.lock(self.lock.clone()).label(value).try_acquire().await
    }

    /// Who leads now.
    ///
    /// # Errors
    /// `Unavailable` when the engine cannot be reached.
    pub async fn leader(&self) -> Result<Option<Leader>> {
        Ok(Leader::of(&self.at.locks()?.inspect(&self.lock).await?))
    }

    /// Waits until the leader is another than `known` (its token), and gives the new one; `None`:
    /// nobody leads.
    ///
    /// # Errors
    /// `Unavailable` when the engine cannot be reached.
    pub async fn changed(&self, known: Option<u64>) -> Result<Option<Leader>> {
        loop {
            let view = self.at.locks()?.watch(&self.lock, known, WATCH).await?;
            let leader = Leader::of(&view);
            if leader.as_ref().map(|leader| leader.token) != known {
                return Ok(leader);
            }
        }
    }
}

/// A latch: closed until it has been counted down.
#[derive(Debug, Clone)]
pub struct Latch {
    register: Register,
    count: u64,
}

impl Latch {
    /// Counts once; gives how many counts are missing.
    ///
    /// # Errors
    /// `Unavailable` when the engine cannot be reached: it may have been counted.
    pub async fn count_down(&self) -> Result<u64> {
        let mut left = 0;
        let change = |value: Option<&[u8]>| {
            let counted = number(value).0.saturating_add(1).min(self.count);
            left = self.count - counted;
            Some(format!("{counted}").into_bytes())
        };
        self.register.update(change).await?;
        Ok(left)
    }

    /// Waits until it is open.
    ///
    /// # Errors
    /// `Unavailable` when the engine cannot be reached.
    pub async fn wait(&self) -> Result<()> {
        let mut seen = self.register.read().await?;
        while number(seen.as_ref().map(|r| &r.value[..])).0 < self.count {
            let known = seen.as_ref().map(|r| r.version);
            seen = self.register.changed(known, WATCH).await?;
        }
        Ok(())
    }

    /// Closes it again.
    ///
    /// # Errors
    /// `Unavailable` when the engine cannot be reached.
    pub async fn reset(&self) -> Result<()> {
        self.register.delete_if(Expect::Anything).await.map(|_| ())
    }
}

/// A barrier: everybody waits until everybody is there; then it closes for the next round.
#[derive(Debug, Clone)]
pub struct Barrier {
    register: Register,
    parties: u64,
}

impl Barrier {
    /// Waits for the others; gives the number of the round, from 0. Who stops waiting has arrived
    /// nonetheless: a barrier counts arrivals, not those present.
    ///
    /// # Errors
    /// `Unavailable` when the engine cannot be reached.
    pub async fn wait(&self) -> Result<u64> {
        let mut mine = 0;
        let change = |value: Option<&[u8]>| {
            let (round, there) = number(value);
            mine = round;
            let there = there + 1;
            let (round, there) =
                if there >= self.parties { (round + 1, 0) } else { (round, there) };
            Some(format!("{round} {there}").into_bytes())
        };
        let mut known = self.register.update(change).await?;
        let mut seen: Option<Versioned> = self.register.read().await?;
        while number(seen.as_ref().map(|r| &r.value[..])).0 <= mine {
            known = seen.as_ref().map(|r| r.version).or(known);
            seen = self.register.changed(known, WATCH).await?;
        }
        Ok(mine)
    }
}

/// Two numbers in a register's text; what is missing is 0.
fn number(value: Option<&[u8]>) -> (u64, u64) {
    let text = std::str::from_utf8(value.unwrap_or_default()).unwrap_or_default();
    let mut numbers = text.split(' ').map(|word| word.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// A scheduled job: who comes first runs it, the others skip it.
#[derive(Debug, Clone)]
pub struct Job {
    at: Leasehold,
    lock: Arc<str>,
    at_least: Duration,
    at_most: Duration,
}

impl Job {
    /// The lock stays taken at least so long after the start, so that processes whose clocks
    /// differ do not run a short job twice.
    #[must_use]
    pub fn at_least(mut self, time: Duration) -> Self {
        self.at_least = time;
        self
    }

    /// How long the lock outlives a process that died in the job; 60 s if not said.
    #[must_use]
    pub fn at_most(mut self, time: Duration) -> Self {
        self.at_most = time;
        self
    }

    /// Runs the job if nobody else does or just did; `None` when it was skipped.
    ///
    /// # Errors
    /// `Stale` when the lock was lost while the job ran; see
    /// [`Lock::acquire`](crate::Lock::acquire) for the rest.
    ///
    /// ```
    /// # use leasehold_api as leasehold;
    /// # use std::time::Duration;
    /// # async fn example(leasehold: leasehold::Leasehold) -> leasehold::Result<()> {
    /// let job = leasehold.job("nightly").at_least(Duration::from_secs(60));
    /// let ran = job.run(async |token| println!("running under {token}")).await?;
    /// # Ok(()) }
    /// ```
    pub async fn run<T>(&self, work: impl AsyncFnOnce(u64) -> T) -> Result<Option<T>> {
        let started = tokio::time::Instant::now();
        let lock = self.at.lock(self.lock.clone()).ttl(self.at_most.max(self.at_least));
        let Some(guard) = lock.try_acquire().await? else { return Ok(None) };
        let lost = guard.lost();
        let done = tokio::select! {
            biased;
            done = work(guard.token()) => done,
            ending = lost => {
                let wrong = format!("the job's lock was lost: {ending}");
                return Err(Error::new(ErrorKind::Stale, wrong));
            }
        };
        let left = self.at_least.saturating_sub(started.elapsed());
        match left.is_zero() {
            true => guard.release().await?,
            false => guard.leave(left).await?,
        }
        Ok(Some(done))
    }
}
