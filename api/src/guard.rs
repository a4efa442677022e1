//! A hold in the hands of its user.
//!
//! The deadline is counted on the local monotonic clock from *before* the request was sent, less a
//! margin, so the guard knows that the lock is lost before the engine can grant it to somebody
//! else, whatever the network does (Gray and Cheriton, "Leases", 1989, section 2). One task per
//! guard renews and in the end releases. It owns the release, so that neither a dropped guard nor
//! a cancelled `release().await` leaves the lock behind.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::engine::{Ending, Grant, HoldRef, LockEngine};
use crate::{Error, ErrorKind, Leasehold, Result, Retry};

/// Renewals within one TTL.
const RENEWALS: u32 = 3;
/// How long after a failed renewal the next is tried.
const RETRY: Duration = Duration::from_millis(100);

/// A lock that is held. Dropping it releases the lock in the background.
///
/// See [`Lock::acquire`](crate::Lock::acquire) for an example.
#[derive(Debug)]
pub struct LockGuard {
    hold: HoldRef,
    entries: u32,
    waited: bool,
    state: watch::Receiver<State>,
    /// Tells the task to release and where to say how that went. Dropping it says "release" too.
    release: Option<oneshot::Sender<End>>,
    /// Keeps the session alive that the lock would end with.
    _bound_to: Option<Leasehold>,
}

/// Asks the task to let go.
#[derive(Debug)]
struct End {
    how: How,
    tell: oneshot::Sender<Result<()>>,
}

#[derive(Debug, Clone, Copy)]
enum How {
    Release,
    /// It stays taken for so long.
    Leave(Duration),
    /// Somebody else looks after it.
    Forget,
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// After this the hold counts as lost; `None`: it has no deadline.
    until: Option<Instant>,
    lost: Option<Ending>,
}

/// How long a hold surely lasts after it was asked for: an engine may be sure of less than the TTL,
/// such as one that only notices after a while that nobody is there any more.
fn sure(ttl: Duration, left: Option<Duration>) -> Duration {
    left.map_or(ttl, |left| left.min(ttl))
}

/// How long before the deadline the hold counts as lost: what clocks may drift apart.
fn margin(ttl: Duration) -> Duration {
    (ttl / 50).max(Duration::from_millis(2)).min(ttl / 4)
}

impl LockGuard {
    /// Starts to look after a hold that was asked for at `asked`.
    pub(crate) fn new(
        locks: Arc<dyn LockEngine>,
        hold: HoldRef,
        grant: Grant,
        ttl: Option<Duration>,
        renew: bool,
        asked: Instant,
    ) -> Self {
        let lasts = ttl.map(|ttl| sure(ttl, grant.left));
        let until = lasts.map(|lasts| asked + lasts - margin(lasts));
        // After a long wait little of that is left, although the engine counts from the grant. How
        // long the grant was under way nobody knows, so a renewal has to tell.
        let waited = lasts.is_some_and(|lasts| asked.elapsed() > lasts / RENEWALS);
        let (told, state) = watch::channel(State { until, lost: None });
        let (release, asked_to) = oneshot::channel();
        let entries = grant.entries;
        let tend = Tend { locks, hold: hold.clone(), ttl, lasts, renew, waited, told };
        tokio::spawn(tend.run(grant.ended, asked_to));
        Self { hold, entries, waited, state, release: Some(release), _bound_to: None }
    }

    /// Keeps a handle's session alive for as long as it is there.
    pub(crate) fn bound_to(self, handle: &Leasehold) -> Self {
        Self { _bound_to: Some(handle.clone()), ..self }
    }

    /// Waits until it is known for how long the lock is held.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        if self.waited && self.state.changed().await.is_ok() {
            self.check()?;
        }
        Ok(())
    }

    /// The fencing token. Show it to whatever the lock protects, and let that refuse lower ones.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let guard = leasehold.lock("stock/42").acquire().await?;
    /// let sql = "UPDATE stock SET amount = 9, token = $1 WHERE id = 42 AND token <= $1";
    /// let parameters = [guard.token()];
    /// # let _ = (sql, parameters);
    /// # guard.release().await?;
    /// # Ok(()) }
    /// ```
    pub fn token(&self) -> u64 {
        self.hold.token
    }

    /// How the hold is named on the wire.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let guard = leasehold.lock("nightly").acquire().await?;
    /// assert_eq!(&*guard.hold().name, "nightly");
    /// # guard.release().await?;
    /// # Ok(()) }
    /// ```
    pub fn hold(&self) -> &HoldRef {
        &self.hold
    }

    /// How often the hold was entered when this guard got it; 1 unless it is a re-entry.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let lock = leasehold.lock("nightly").reentrant(7);
    /// let (outer, inner) = (lock.acquire().await?, lock.acquire().await?);
    /// assert_eq!((outer.entries(), inner.entries()), (1, 2));
    /// assert_eq!(outer.token(), inner.token());
    /// # inner.release().await?;
    /// # outer.release().await?;
    /// # Ok(()) }
    /// ```
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Whether the lock is certainly still held: local, without a round trip.
    ///
    /// # Errors
    /// `Stale` when its time is over or the engine said that it ended.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let guard = leasehold.lock("nightly").acquire().await?;
    /// guard.check()?; // cheap: before every step that must not happen twice
    /// leasehold.force_release("nightly").await?;
    /// guard.lost().await;
    /// assert!(guard.check().is_err());
    /// # Ok(()) }
    /// ```
    pub fn check(&self) -> Result<()> {
        self.ending().map_or(Ok(()), |ending| Err(self.stale(ending)))
    }

    fn stale(&self, ending: Ending) -> Error {
        let HoldRef { name, token, .. } = &self.hold;
        let wrong = format!(
            "lock {name} is lost ({ending}), token {token} counts no more; stop working under it \
             and acquire again"
        );
        Error::new(ErrorKind::Stale, wrong)
    }

    fn ending(&self) -> Option<Ending> {
        let state = *self.state.borrow();
        let late = state.until.is_some_and(|until| Instant::now() >= until);
        state.lost.or(late.then_some(Ending::Expired))
    }

    /// Time left in which the lock is certainly held; `None`: it has no deadline.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let guard = leasehold.lock("nightly").acquire().await?;
    /// assert!(guard.remaining().is_some_and(|left| left <= std::time::Duration::from_secs(10)));
    /// # guard.release().await?;
    /// # Ok(()) }
    /// ```
    pub fn remaining(&self) -> Option<Duration> {
        let until = self.state.borrow().until;
        until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// Waits until the lock is lost, and says why. It fires before the engine can grant the lock
    /// to another. The future does not borrow the guard, and dropping it costs nothing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let guard = leasehold.lock("nightly").acquire().await?;
    /// let lost = guard.lost();
    /// let watching = tokio::spawn(async move { println!("stop: {}", lost.await) });
    /// leasehold.force_release("nightly").await?;
    /// watching.await.expect("it does not panic");
    /// # Ok(()) }
    /// ```
    pub fn lost(&self) -> impl Future<Output = Ending> + Send + 'static {
        let mut state = self.state.clone();
        async move {
            loop {
                let now = *state.borrow_and_update();
                if let Some(ending) = now.lost {
                    return ending;
                }
                let Some(until) = now.until else {
                    if state.changed().await.is_err() {
                        return Ending::Unknown;
                    }
                    continue;
                };
                match timeout_at(until, state.changed()).await {
                    Ok(Ok(())) => {}
                    Err(_) => return Ending::Expired,
                    // The task has ended with the guard's release.
                    Ok(Err(_)) => return state.borrow().lost.unwrap_or(Ending::Unknown),
                }
            }
        }
    }

    /// Works until the lock is lost: gives what the work gives, or drops it at its next await. The
    /// lock stays held afterwards.
    ///
    /// # Errors
    /// `Stale`, with the reason, when the lock was lost before the work was done.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let guard = leasehold.lock("nightly").acquire().await?;
    /// let rows = guard.during(async { 40 + 2 }).await?;
    /// let more = guard.during(async { rows + 1 }).await?;
    /// assert_eq!(more, 43);
    /// guard.release().await?;
    /// # Ok(()) }
    /// ```
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            ending = self.lost() => Err(self.stale(ending)),
        }
    }

    /// Lets go without releasing: the lock stays taken for so long and nobody renews it.
    ///
    /// # Errors
    /// `Stale` when it was lost before; `Unavailable` when the engine cannot be reached, in which
    /// case the lock ends by its TTL.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// use std::time::Duration;
    /// let guard = leasehold.lock("nightly").acquire().await?;
    /// guard.leave(Duration::from_secs(60)).await?;
    /// assert!(leasehold.lock("nightly").try_acquire().await?.is_none());
    /// # Ok(()) }
    /// ```
    pub async fn leave(self, stays: Duration) -> Result<()> {
        self.end(How::Leave(stays)).await
    }

    /// Releases the lock and waits for the answer. If this future is dropped the lock is released
    /// all the same.
    ///
    /// # Errors
    /// `Stale` when it was lost before; `Unavailable` when the engine cannot be reached, in which
    /// case the lock ends by its TTL.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let guard = leasehold.lock("nightly").acquire().await?;
    /// guard.release().await?;
    /// assert!(leasehold.lock("nightly").try_acquire().await?.is_some());
    /// # Ok(()) }
    /// ```
    pub async fn release(self) -> Result<()> {
        self.end(How::Release).await
    }

    /// Gives the guard up: from now on it neither renews nor releases.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let guard = leasehold.lock("nightly").acquire().await?;
    /// let hold = guard.forget();
    /// assert!(leasehold.check("nightly", hold.token).await?);
    /// # Ok(()) }
    /// ```
    pub fn forget(mut self) -> HoldRef {
        if let Some(release) = self.release.take() {
            let (tell, _) = oneshot::channel();
            // The task may have seen the loss and be gone; there is nothing to stop then.
            release.send(End { how: How::Forget, tell }).ok();
        }
        self.hold.clone()
    }

    async fn end(mut self, how: How) -> Result<()> {
        let (tell, told) = oneshot::channel();
        let ask = End { how, tell };
        let asked = self.release.take().is_some_and(|release| release.send(ask).is_ok());
        if !asked {
            return self.check();
        }
        told.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Broken, "the runtime is gone")))
    }
}

/// The task behind a guard.
struct Tend {
    locks: Arc<dyn LockEngine>,
    hold: HoldRef,
    ttl: Option<Duration>,
    /// How long it lasts after the grant was asked for.
    lasts: Option<Duration>,
    renew: bool,
    /// The grant came after a wait: the deadline is not known before the first renewal.
    waited: bool,
    told: watch::Sender<State>,
}

impl Tend {
    async fn run(
        self,
        ended: Option<oneshot::Receiver<Ending>>,
        mut release: oneshot::Receiver<End>,
    ) {
        let ending = async {
            match ended {
                // An engine that forgets to tell is one that does not tell.
                Some(ended) => match ended.await {
                    Ok(ending) => ending,
                    Err(_) => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            asked = &mut release => {
                return self.let_go(asked.ok()).await;
            }
            ending = ending => self.lose(ending),
            ending = self.keep() => self.lose(ending),
        }
        // It is lost, but its owner may still ask to release: then the engine is asked as well,
        // because "expired" is our clock's word and the hold may still be there.
        let asked = release.await.ok();
        self.let_go(asked).await;
    }

    fn lose(&self, ending: Ending) {
        tracing::warn!(lock = %self.hold.name, token = self.hold.token, %ending, "lock lost");
        self.told.send_modify(|state| state.lost = Some(ending));
    }

    /// Renews until the hold is lost.
    async fn keep(&self) -> Ending {
        let Some(ttl) = self.ttl else { return std::future::pending().await };
        let until = || self.told.borrow().until.expect("it has a TTL");
        let mut deadline = if self.waited { Instant::now() + ttl } else { until() };
        let lasts = self.lasts.unwrap_or(ttl);
        let mut pause = if self.waited { Duration::ZERO } else { lasts / RENEWALS };
        loop {
            if !self.renew && !pause.is_zero() {
                sleep_until(deadline).await;
                return Ending::Expired;
            }
            sleep_until((Instant::now() + pause).min(deadline)).await;
            let asked = Instant::now();
            if asked >= deadline {
                return Ending::Expired;
            }
            pause = match timeout_at(deadline, self.locks.renew(&self.hold, ttl)).await {
                Err(_) => return Ending::Expired,
                Ok(Ok(left)) => {
                    let lasts = sure(ttl, left);
                    deadline = asked + lasts - margin(lasts);
                    self.told.send_modify(|state| state.until = Some(deadline));
                    lasts / RENEWALS
                }
                Ok(Err(error)) if error.retry == Retry::Never => {
                    tracing::debug!(lock = %self.hold.name, %error, "renewal refused");
                    return Ending::Unknown;
                }
                Ok(Err(error)) => {
                    tracing::warn!(lock = %self.hold.name, %error, "renewal failed, trying again");
                    RETRY.min(ttl / RENEWALS)
                }
            };
        }
    }

    async fn let_go(&self, asked: Option<End>) {
        let result = match asked.as_ref().map_or(How::Release, |end| end.how) {
            How::Release => self.locks.release(&self.hold).await.map(|_| ()),
            How::Leave(stays) => self.locks.renew(&self.hold, stays).await.map(|_| ()),
            How::Forget => return,
        };
        match (asked, result) {
            // Whoever asked may have stopped waiting; the lock is released all the same.
            (Some(end), result) => drop(end.tell.send(result)),
            (None, Err(error)) if error.kind != ErrorKind::Stale => {
                tracing::warn!(lock = %self.hold.name, %error, "not released; it ends by its TTL");
            }
            (None, _) => {}
        }
    }
}
