//! What several processes do together: elect a leader, wait for a latch, meet at a barrier, run a
//! scheduled job once. All of it stands on locks and registers; nothing here polls.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::LockView;
use crate::register::Versioned;
use crate::{Expect, Leasehold, LockGuard, Register, Result};

/// How long one watch lasts before it is renewed: shorter than what proxies allow.
const WATCH: Duration = Duration::from_secs(30);

/// The lock behind an election.
pub fn election_lock(name: &str) -> String {
    format!("election/{name}")
}

/// An election: at most one candidate leads at a time.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold::Result<()> {
/// # let leasehold = leasehold::memory().await?;
/// let election = leasehold.election("scheduler");
/// let office = election.campaign("node 1").await?;
/// let leader = election.leader().await?.expect("one leads");
/// assert_eq!((leader.value.as_str(), leader.token), ("node 1", office.token()));
/// office.release().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Election {
    at: Leasehold,
    lock: Arc<str>,
}

/// Who leads.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold::Result<()> {
/// # let leasehold = leasehold::memory().await?;
/// let office = leasehold.election("scheduler").campaign("node 1").await?;
/// if let Some(leader) = leasehold.election("scheduler").leader().await? {
///     println!("{} leads since {:?}, term {}", leader.value, leader.since, leader.token);
/// }
/// # office.release().await?;
/// # Ok(()) }
/// ```
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
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let office = leasehold.election("scheduler").campaign("node 1").await?;
    /// let view = leasehold.inspect(&leasehold::election_lock("scheduler")).await?;
    /// assert_eq!(leasehold::Leader::of(&view).map(|leader| leader.token), Some(office.token()));
    /// # office.release().await?;
    /// # Ok(()) }
    /// ```
    pub fn of(view: &LockView) -> Option<Self> {
        let holder = view.holders.first()?;
        let value = holder.label.clone().unwrap_or_default();
        Some(Self { value, token: holder.token, since: holder.held })
    }
}

impl Leasehold {
    /// An election by name.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// assert!(leasehold.election("scheduler").leader().await?.is_none());
    /// # Ok(()) }
    /// ```
    pub fn election(&self, name: &str) -> Election {
        Election { at: self.clone(), lock: election_lock(name).into() }
    }

    /// A latch that opens after `count` counts.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let ready = leasehold.latch("ready", 2);
    /// assert_eq!(ready.count_down().await?, 1);
    /// assert_eq!(ready.count_down().await?, 0);
    /// ready.wait().await?;
    /// # Ok(()) }
    /// ```
    pub fn latch(&self, name: &str, count: u64) -> Latch {
        Latch { register: self.register(format!("latch/{name}")), count }
    }

    /// A barrier at which `parties` meet, again and again.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// assert_eq!(leasehold.barrier("phase", 1).wait().await?, 0); // one party meets itself
    /// # Ok(()) }
    /// ```
    pub fn barrier(&self, name: &str, parties: u64) -> Barrier {
        Barrier { register: self.register(format!("barrier/{name}")), parties }
    }

    /// A job that runs once per schedule, however many processes try.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let ran = leasehold.job("nightly").run(async |_| "done").await?;
    /// assert_eq!(ran, Some("done"));
    /// # Ok(()) }
    /// ```
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
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let office = leasehold.election("scheduler").campaign("node 1").await?;
    /// office.during(async { println!("leading") }).await?;
    /// office.release().await?;
    /// # Ok(()) }
    /// ```
    pub async fn campaign(&self, value: impl Into<Arc<str>>) -> Result<LockGuard> {
        self.at.lock(self.lock.clone()).label(value).acquire().await
    }

    /// Leads if nobody does.
    ///
    /// # Errors
    /// As of [`Lock::acquire`](crate::Lock::acquire).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let election = leasehold.election("scheduler");
    /// let office = election.try_campaign("node 1").await?;
    /// assert!(office.is_some());
    /// assert!(election.try_campaign("node 2").await?.is_none());
    /// # Ok(()) }
    /// ```
    pub async fn try_campaign(&self, value: impl Into<Arc<str>>) -> Result<Option<LockGuard>> {
        self.at.lock(self.lock.clone()).label(value).try_acquire().await
    }

    /// Who leads now.
    ///
    /// # Errors
    /// `Unavailable` when the engine cannot be reached.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let election = leasehold.election("scheduler");
    /// assert!(election.leader().await?.is_none());
    /// let office = election.campaign("node 1").await?;
    /// assert_eq!(election.leader().await?.map(|leader| leader.value), Some("node 1".to_owned()));
    /// # office.release().await?;
    /// # Ok(()) }
    /// ```
    pub async fn leader(&self) -> Result<Option<Leader>> {
        Ok(Leader::of(&self.at.locks()?.inspect(&self.lock).await?))
    }

    /// Waits until the leader is another than `known` (its token), and gives the new one; `None`:
    /// nobody leads.
    ///
    /// # Errors
    /// `Unavailable` when the engine cannot be reached.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let election = leasehold.election("scheduler");
    /// let observer = election.clone();
    /// let watching = tokio::spawn(async move { observer.changed(None).await });
    /// let office = election.campaign("node 1").await?;
    /// let leader = watching.await.expect("it does not panic")?;
    /// assert_eq!(leader.map(|leader| leader.value), Some("node 1".to_owned()));
    /// # office.release().await?;
    /// # Ok(()) }
    /// ```
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
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold::Result<()> {
/// # let leasehold = leasehold::memory().await?;
/// let ready = leasehold.latch("ready", 1);
/// ready.count_down().await?;
/// ready.wait().await?;
/// # Ok(()) }
/// ```
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
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// assert_eq!(leasehold.latch("ready", 3).count_down().await?, 2);
    /// # Ok(()) }
    /// ```
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
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let ready = leasehold.latch("ready", 1);
    /// let waits = ready.clone();
    /// let waiting = tokio::spawn(async move { waits.wait().await });
    /// ready.count_down().await?;
    /// waiting.await.expect("it does not panic")?;
    /// # Ok(()) }
    /// ```
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
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let ready = leasehold.latch("ready", 2);
    /// ready.count_down().await?;
    /// ready.reset().await?;
    /// assert_eq!(ready.count_down().await?, 1);
    /// # Ok(()) }
    /// ```
    pub async fn reset(&self) -> Result<()> {
        self.register.delete_if(Expect::Anything).await.map(|_| ())
    }
}

/// A barrier: everybody waits until everybody is there; then it closes for the next round.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold::Result<()> {
/// # let leasehold = leasehold::memory().await?;
/// let phase = leasehold.barrier("phase", 2);
/// let other = phase.clone();
/// let waiting = tokio::spawn(async move { other.wait().await });
/// assert_eq!(phase.wait().await?, 0);
/// assert_eq!(waiting.await.expect("it does not panic")?, 0);
/// # Ok(()) }
/// ```
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
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let phase = leasehold.barrier("phase", 1);
    /// assert_eq!((phase.wait().await?, phase.wait().await?), (0, 1));
    /// # Ok(()) }
    /// ```
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
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold::Result<()> {
/// # let leasehold = leasehold::memory().await?;
/// use std::time::Duration;
/// let job = leasehold.job("nightly").at_least(Duration::from_secs(60));
/// assert!(job.run(async |_| ()).await?.is_some());
/// assert!(job.run(async |_| ()).await?.is_none()); // it just ran
/// # Ok(()) }
/// ```
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
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// use std::time::Duration;
    /// let job = leasehold.job("hourly").at_least(Duration::from_secs(60));
    /// # job.run(async |_| ()).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn at_least(mut self, time: Duration) -> Self {
        self.at_least = time;
        self
    }

    /// How long the lock outlives a process that died in the job; 60 s if not said.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// use std::time::Duration;
    /// let job = leasehold.job("report").at_most(Duration::from_secs(600));
    /// # job.run(async |_| ()).await?;
    /// # Ok(()) }
    /// ```
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
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let job = leasehold.job("nightly").at_least(Duration::from_secs(60));
    /// let ran = job.run(async |token| println!("running under {token}")).await?;
    /// # Ok(()) }
    /// ```
    pub async fn run<T>(&self, work: impl AsyncFnOnce(u64) -> T) -> Result<Option<T>> {
        let started = tokio::time::Instant::now();
        let lock = self.at.lock(self.lock.clone()).ttl(self.at_most.max(self.at_least));
        let Some(guard) = lock.try_acquire().await? else { return Ok(None) };
        let done = guard.during(work(guard.token())).await?;
        let left = self.at_least.saturating_sub(started.elapsed());
        match left.is_zero() {
            true => guard.release().await?,
            false => guard.leave(left).await?,
        }
        Ok(Some(done))
    }
}
