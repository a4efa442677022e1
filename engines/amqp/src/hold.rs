//! Holds: taken, kept while they are renewed, given back at their deadline or when asked.
//!
//! A broker knows no deadlines, so the engine keeps them: at the deadline it gives the token back
//! by itself. A holder that is cut off or stands still cannot do that; then the broker gives the
//! token away when it has heard nothing for two to three heartbeats.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::Channel;
use lapin::options::BasicNackOptions;
use leasehold_api::engine::{Acquire, Ending, Grant, HoldRef, Mode, Wait, moment};
use leasehold_api::{Error, ErrorKind, Result, Retry};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep};

use crate::config::Config;
use crate::connect::{Line, Link, Own, PATIENCE, given_up, jittered};
use crate::error::{Answer, Fault};
use crate::token::{self, Kind, Names};

/// The longest TTL.
const TTL_MAX: Duration = Duration::from_secs(366 * 86_400);
/// The longest label, bytes.
const LABEL_MAX: usize = 1024;
/// Locks that are remembered to be made.
const MADE_MAX: usize = 10_000;
/// A pause while somebody else makes the lock, or the connection is made anew.
const PAUSE: Duration = Duration::from_millis(20);

/// A lock that is held.
struct Hold {
    names: Names,
    number: u64,
    reentrant: bool,
    line: Arc<Line>,
    channel: Channel,
    /// The delivery tag of the lock's token.
    tag: u64,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    entries: u32,
    until: Option<Instant>,
}

impl Hold {
    /// Gives the token back and waits until it is back.
    async fn give_back(&self) -> Answer<()> {
        let requeue = BasicNackOptions { requeue: true, multiple: false };
        self.channel.basic_nack(self.tag, requeue).await?;
        token::at(&self.line, &self.channel, &self.names.token).await?;
        self.line.keep(self.channel.clone());
        Ok(())
    }

    fn is_alive(&self) -> bool {
        self.line.is_alive() && self.channel.status().connected()
    }
}

/// A hold is named by its lock and its token.
type Key = (Arc<str>, u64);

/// All holds of an engine.
pub(crate) struct Holds {
    link: Link,
    config: Arc<Config>,
    kind: Kind,
    held: Mutex<HashMap<Key, Arc<Hold>>>,
    /// Locks that were complete.
    made: Mutex<HashSet<Arc<str>>>,
    /// Held while a lock is made: the broker's guard is for a connection, this is for its tasks.
    making: tokio::sync::Mutex<()>,
}

fn invalid(wrong: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, wrong)
}

pub(crate) fn absent<T>(what: &str) -> Result<T> {
    Err(Error::unsupported("amqp", what))
}

fn stale(hold: &HoldRef) -> Error {
    let wrong = format!("lock {} is not held with token {} here", hold.name, hold.token);
    Error::new(ErrorKind::Stale, wrong)
}

fn ttl(ttl: Duration) -> Result<Duration> {
    if ttl.is_zero() || ttl > TTL_MAX {
        return Err(invalid(format!("a TTL is more than nothing and at most {TTL_MAX:?}")));
    }
    Ok(ttl)
}

/// A grant that goes back unless somebody takes it over.
struct Claim {
    holds: Arc<Holds>,
    key: Key,
    grant: Option<Grant>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.grant.is_none() {
            return;
        }
        // Without a runtime the connection is gone, and the token is back.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (holds, key) = (self.holds.clone(), self.key.clone());
            runtime.spawn(async move { holds.leave(&key).await.ok() });
        }
    }
}

impl Holds {
    pub fn new(link: Link, config: Arc<Config>, limits_returns: bool) -> Self {
        let kind = Kind { quorum: config.quorum, limits_returns };
        Self {
            link,
            config,
            kind,
            held: Mutex::default(),
            made: Mutex::default(),
            making: tokio::sync::Mutex::default(),
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Key, Arc<Hold>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn made(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Demands that a name can be a lock's.
    pub fn named(&self, name: &str) -> Result<()> {
        let longest = Names::longest(self.config.prefix.len());
        let is_bad = name.is_empty() || name.len() > longest || name.chars().any(char::is_control);
        if is_bad {
            let wrong =
                format!("a lock's name has 1 to {longest} bytes without control characters");
            return Err(invalid(wrong));
        }
        Ok(())
    }

    /// Looks at what is asked for before anything is done.
    fn acceptable(&self, ask: &Acquire) -> Result<Arc<str>> {
        let name = match &ask.wants[..] {
            [] => return Err(invalid("nothing is wanted")),
            [want] => want.name.clone(),
            _ => return absent("way to take several locks at once"),
        };
        self.named(&name)?;
        if ask.label.as_ref().is_some_and(|label| label.len() > LABEL_MAX) {
            return Err(invalid(format!("a label has at most {LABEL_MAX} bytes")));
        }
        ask.ttl.map_or(Ok(Duration::ZERO), ttl)?;
        match ask.wants[0].mode {
            Mode::Exclusive => {}
            Mode::Shared => return absent("shared locks"),
            Mode::Permits { .. } => return absent("semaphores"),
        }
        if ask.bound || ask.session.is_some() {
            return absent("sessions");
        }
        if !ask.lock_delay.is_zero() {
            return absent("delay after a loss");
        }
        Ok(name)
    }

    /// Takes a lock.
    pub async fn acquire(self: &Arc<Self>, ask: &Acquire) -> Result<Grant> {
        let name = self.acceptable(ask)?;
        if ask.reentrant
            && let Some(grant) = self.enter_again(&name, ask)
        {
            return Ok(grant);
        }
        let (tell, told) = oneshot::channel();
        let (_wanted, mut gone) = watch::channel(());
        let (holds, ask) = (self.clone(), ask.clone());
        // Dropped, this ends the wait; the task itself goes on to a point where nothing is under
        // way.
        tokio::spawn(async move {
            let claim = holds.claim(name, &ask, &mut gone).await;
            // A claim that nobody takes goes back when it is dropped.
            tell.send(claim).ok();
        });
        let gone = |_| Error::new(ErrorKind::Broken, "the runtime is gone");
        let mut claim = told.await.map_err(gone)??;
        claim.grant.take().ok_or_else(|| Error::new(ErrorKind::Broken, "the grant is gone"))
    }

    fn enter_again(&self, name: &Arc<str>, ask: &Acquire) -> Option<Grant> {
        let held = self.held();
        let mut holds = held.iter();
        let (key, hold) = holds.find(|((of, _), hold)| {
            of == name && hold.reentrant && hold.number == ask.hold && hold.is_alive()
        })?;
        let until = ask.ttl.and_then(|ttl| Instant::now().checked_add(ttl));
        hold.state.send_modify(|state| {
            state.entries += 1;
            state.until = until;
        });
        let entries = hold.state.borrow().entries;
        Some(Grant { token: key.1, left: ask.ttl, entries, ended: None })
    }

    /// Tries until it is granted, refused, or not waited for any longer.
    async fn claim(
        self: &Arc<Self>,
        name: Arc<str>,
        ask: &Acquire,
        gone: &mut watch::Receiver<()>,
    ) -> Result<Claim> {
        let begun = Instant::now();
        let (until, patience) = match ask.wait {
            Wait::No => (Some(begun), Some(begun + PATIENCE)),
            Wait::Forever => (None, None),
            Wait::AtMost(wait) => {
                let until = begun.checked_add(wait);
                (until, until.map(|until| until.max(begun + PATIENCE)))
            }
        };
        let names = Names::of(&self.config.prefix, &name);
        let mut is_torn = false;
        loop {
            match self.take(&name, &names, ask, (until, patience), gone).await {
                Ok(Some(claim)) => return Ok(claim),
                _ if gone.has_changed().is_err() => {
                    return Err(Error::new(ErrorKind::Cancelled, "nobody wants it any more"));
                }
                Ok(None) if ask.wait == Wait::No => {
                    return Err(Error::new(ErrorKind::Busy, format!("lock {name} is held")));
                }
                Ok(None) => {
                    let wrong = format!("lock {name} did not become free in time");
                    return Err(Error::new(ErrorKind::TimedOut, wrong));
                }
                Err(Fault::Lost(_)) if patience.is_none_or(|end| Instant::now() < end) => {}
                // Nothing is left behind: the token goes back with the connection.
                Err(fault @ Fault::Lost(_)) => {
                    return Err(fault.unknown().with_retry(Retry::Later));
                }
                Err(Fault::Refused(error)) if error.kind == ErrorKind::NotFound => {
                    // If all of it is gone it is made again. If the mark is there somebody may
                    // believe to hold it, so another token would be one too many.
                    self.made().remove(&name);
                    if std::mem::replace(&mut is_torn, true) {
                        return Err(token::torn(&names, &error.wrong));
                    }
                }
                Err(Fault::Refused(error)) => return Err(error),
            }
            sleep(jittered(PAUSE)).await;
        }
    }

    async fn take(
        self: &Arc<Self>,
        name: &Arc<str>,
        names: &Names,
        ask: &Acquire,
        (until, patience): (Option<Instant>, Option<Instant>),
        gone: &mut watch::Receiver<()>,
    ) -> Answer<Option<Claim>> {
        let line = tokio::select! {
            line = self.link.line(patience) => line?,
            () = given_up(gone) => return Ok(None),
        };
        self.make(&line, name, names).await?;
        let channel = line.channel().await?;
        let own = Own::new(&channel);
        let tag = match token::take(&line, &channel, names).await? {
            Some(tag) => tag,
            None if ask.wait == Wait::No => {
                own.done();
                line.keep(channel);
                return Ok(None);
            }
            None => match token::wait(&line, &channel, &names.token, until, Some(gone)).await? {
                Some(came) => came.delivery_tag,
                None => {
                    own.done();
                    line.keep(channel);
                    return Ok(None);
                }
            },
        };
        let number = token::count(&line, &channel, names).await?;
        own.done();
        let until = ask.ttl.and_then(|ttl| Instant::now().checked_add(ttl));
        let hold = Arc::new(Hold {
            names: names.clone(),
            number: ask.hold,
            reentrant: ask.reentrant,
            line,
            channel,
            tag,
            state: watch::channel(State { entries: 1, until }).0,
        });
        let key = (name.clone(), number);
        self.held().insert(key.clone(), hold.clone());
        let (tell, ended) = oneshot::channel();
        tokio::spawn(self.clone().tend(key.clone(), hold, tell));
        let grant = Grant { token: number, left: ask.ttl, entries: 1, ended: Some(ended) };
        Ok(Some(Claim { holds: self.clone(), key, grant: Some(grant) }))
    }

    /// Makes a lock, or waits until another has made it. In a task of its own: the guard is the
    /// connection's, and would stay there if this were dropped halfway.
    async fn make(
        self: &Arc<Self>,
        line: &Arc<Line>,
        name: &Arc<str>,
        names: &Names,
    ) -> Answer<()> {
        if self.made().contains(name) {
            return Ok(());
        }
        let (holds, line, names) = (self.clone(), line.clone(), names.clone());
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let _making = holds.making.lock().await;
            let mut pause = PAUSE;
            // The broker tells nobody when a guard ends. It is there for the moment in the life of
            // a lock in which it is made, so asking again is all there is to do.
            let made = loop {
                match token::make(&line, &names, holds.kind).await {
                    Ok(true) => break Ok(()),
                    Ok(false) if tell.is_closed() => return,
                    Ok(false) => {}
                    Err(fault) => break Err(fault),
                }
                sleep(jittered(pause)).await;
                pause = (2 * pause).min(Duration::from_secs(1));
            };
            // Whoever asked may be gone.
            tell.send(made).ok();
        });
        let gone = |_| Fault::Lost("the runtime is gone".to_owned());
        told.await.map_err(gone)??;
        let mut made = self.made();
        if made.len() >= MADE_MAX {
            made.clear();
        }
        made.insert(name.clone());
        Ok(())
    }

    /// Looks after a hold until it ends: it ends at its deadline, or with its connection.
    async fn tend(self: Arc<Self>, key: Key, hold: Arc<Hold>, tell: oneshot::Sender<Ending>) {
        let mut state = hold.state.subscribe();
        let ending = loop {
            let until = state.borrow_and_update().until;
            let due = moment(until);
            tokio::select! {
                () = hold.line.gone() => break Ending::Unknown,
                changed = state.changed() => {
                    if changed.is_err() || state.borrow().entries == 0 {
                        // Released.
                        return;
                    }
                }
                () = due => break Ending::Expired,
            }
        };
        // Told first, then given back: the loss is known before the next grant.
        if self.held().remove(&key).is_some() {
            tell.send(ending).ok();
            if hold.give_back().await.is_err() {
                tracing::debug!(lock = %key.0, "its token goes back with its connection");
            }
        }
    }

    /// Whether a lock is held with a token, by anybody.
    ///
    /// It must not be dropped halfway.
    pub async fn check(&self, name: &str, token: u64) -> Result<bool> {
        self.named(name)?;
        let names = Names::of(&self.config.prefix, name);
        let request = |line: Arc<Line>, _| {
            let names = names.clone();
            async move {
                if !token::is_made(&line, &names).await? {
                    return Ok(false);
                }
                token::check(&line, &names, token).await
            }
        };
        self.link.ask(request).await
    }

    fn find(&self, hold: &HoldRef) -> Result<(Key, Arc<Hold>)> {
        let key = (hold.name.clone(), hold.token);
        let found = self.held().get(&key).cloned().ok_or_else(|| stale(hold))?;
        if found.number != hold.hold {
            let wrong = format!("lock {} is another's with token {}", hold.name, hold.token);
            return Err(Error::new(ErrorKind::Foreign, wrong));
        }
        if !found.is_alive() {
            return Err(stale(hold));
        }
        Ok((key, found))
    }

    /// Renews a hold, if the broker still has it on its channel.
    pub async fn renew(&self, hold: &HoldRef, for_time: Duration) -> Result<Option<Duration>> {
        let for_time = ttl(for_time)?;
        let (key, found) = self.find(hold)?;
        // Asked on the channel that has the token: when that is closed, the token is another's.
        if token::at(&found.line, &found.channel, &found.names.token).await.is_err() {
            self.held().remove(&key);
            // Nobody looks after it any more.
            found.state.send_modify(|state| state.entries = 0);
            return Err(stale(hold));
        }
        let held = self.held();
        if !held.contains_key(&key) {
            return Err(stale(hold));
        }
        let until = Instant::now().checked_add(for_time);
        found.state.send_modify(|state| state.until = until);
        Ok(Some(for_time))
    }

    /// Leaves a hold once; gives the entries left.
    pub async fn release(&self, hold: &HoldRef) -> Result<u32> {
        let (key, _) = self.find(hold)?;
        match self.leave(&key).await {
            Ok(Some(left)) => Ok(left),
            // Its connection ended meanwhile: it is free, or another's.
            Ok(None) | Err(Fault::Lost(_)) => Err(stale(hold)),
            Err(Fault::Refused(error)) => Err(error),
        }
    }

    /// Leaves a hold once. It must not be dropped halfway.
    async fn leave(&self, key: &Key) -> Answer<Option<u32>> {
        let hold = {
            let mut held = self.held();
            let Some(hold) = held.get(key).cloned() else { return Ok(None) };
            let mut left = 0;
            hold.state.send_modify(|state| {
                state.entries = state.entries.saturating_sub(1);
                left = state.entries;
            });
            if left > 0 {
                return Ok(Some(left));
            }
            held.remove(key);
            hold
        };
        hold.give_back().await?;
        Ok(Some(0))
    }
}
