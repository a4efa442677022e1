//! Holds in hand: renewed, released, and ended in time.
//!
//! A hold's nodes hang on this process's session with ZooKeeper, so they end when the process is
//! dead or cut off. When the hold's own time is over, or the session that it is bound to, this
//! process ends it: a task for each hold, which also tells its owner when the session with
//! ZooKeeper has ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use leasehold_api::engine::{Ending, HoldRef, moment};
use leasehold_api::{Error, ErrorKind, Result};
use leasehold_contenders::{Contender, SessionState, limits};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use zookeeper_client::{Client, MultiWriter};

use crate::connect::{Heard, Link, PATIENCE, Patience};
use crate::core::{Core, us};
use crate::error::{Fault, Tried};

/// How long a hold lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// Until then; `None`: until it is released.
    Until(Option<Instant>),
    Over,
}

/// A hold.
pub(crate) struct Held {
    pub names: Vec<Arc<str>>,
    /// Its nodes, in the order of the names.
    pub paths: Vec<String>,
    /// What they hang on.
    pub link: Arc<Link>,
    pub token: u64,
    pub session: u64,
    pub hold: u64,
    /// The session that it ends with.
    pub bound: Option<Arc<SessionState>>,
    /// Its contenders, in the order of the names. Locked while something is done with it, so that
    /// its end does not meet a renewal.
    pub places: tokio::sync::Mutex<Vec<Contender>>,
    life: watch::Sender<Life>,
    tell: Mutex<Vec<oneshot::Sender<Ending>>>,
}

impl Held {
    fn is_over(&self) -> bool {
        *self.life.borrow() == Life::Over
    }

    fn lives(&self, ttl: Option<Duration>) {
        let until = ttl.map(|ttl| Instant::now() + ttl);
        self.life.send_replace(Life::Until(until));
    }

    /// Tells all who entered it why it ended.
    fn tell(&self, ending: Ending) {
        let mut tell = self.tell.lock().unwrap_or_else(PoisonError::into_inner);
        for tell in tell.drain(..) {
            // Who does not listen any more need not know.
            tell.send(ending).ok();
        }
    }

    /// Lets somebody who entered know when it ends.
    pub fn ended(&self) -> oneshot::Receiver<Ending> {
        let (tell, told) = oneshot::channel();
        let mut all = self.tell.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|tell| !tell.is_closed());
        all.push(tell);
        told
    }
}

/// All that this process holds.
#[derive(Default)]
pub(crate) struct Holds {
    all: Mutex<HashMap<u64, Arc<Held>>>,
}

impl Holds {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Held>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hold with this token.
    pub fn find(&self, token: u64) -> Option<Arc<Held>> {
        self.lock().get(&token).cloned()
    }

    /// Whether somebody holds something.
    pub fn has(&self, session: u64, hold: u64) -> bool {
        self.lock().values().any(|held| (held.session, held.hold) == (session, hold))
    }

    /// What somebody holds of a lock.
    pub fn of(&self, session: u64, hold: u64, name: &str) -> Option<Arc<Held>> {
        let all = self.lock();
        let is_it = |held: &&Arc<Held>| {
            (held.session, held.hold) == (session, hold) && held.names.iter().any(|n| **n == *name)
        };
        all.values().find(is_it).cloned()
    }

    /// Those that end with a session.
    fn bound_to(&self, session: u64) -> Vec<Arc<Held>> {
        let all = self.lock();
        let is_bound = |held: &&Arc<Held>| held.bound.is_some() && held.session == session;
        all.values().filter(is_bound).cloned().collect()
    }
}

/// The refusal of a hold that is not there any more.
pub(crate) fn stale(hold: &HoldRef) -> Error {
    let HoldRef { name, token, .. } = hold;
    let wrong =
        format!("lock {name} is not held with token {token} any more; stop working under it");
    Error::new(ErrorKind::Stale, wrong)
}

/// What a hold is made from.
pub(crate) struct Granted {
    pub names: Vec<Arc<str>>,
    pub paths: Vec<String>,
    pub places: Vec<Contender>,
    pub link: Arc<Link>,
    pub bound: Option<Arc<SessionState>>,
    pub ttl: Option<Duration>,
}

impl Core {
    /// Notes that something was granted.
    pub fn hold(self: &Arc<Self>, granted: Granted) -> Arc<Held> {
        let Granted { names, paths, places, link, bound, ttl } = granted;
        let (token, session, hold) =
            places.first().map_or((0, 0, 0), |who| (who.token, who.session, who.hold));
        let held = Arc::new(Held {
            names,
            paths,
            link,
            token,
            session,
            hold,
            bound,
            places: tokio::sync::Mutex::new(places),
            life: watch::channel(Life::Until(None)).0,
            tell: Mutex::default(),
        });
        held.lives(ttl);
        self.holds.lock().insert(token, held.clone());
        tokio::spawn(self.clone().tend(held.clone()));
        held
    }

    /// Ends a hold when it is due. A process that keeps a hold keeps the engine.
    async fn tend(self: Arc<Self>, held: Arc<Held>) {
        let mut lives = held.life.subscribe();
        loop {
            let life = *lives.borrow_and_update();
            let Life::Until(until) = life else { return };
            let over = moment(until);
            let session_over = async {
                match &held.bound {
                    Some(session) => session.over().await,
                    None => std::future::pending().await,
                }
            };
            let ending = tokio::select! {
                biased;
                _ = lives.changed() => continue,
                () = held.link.lost() => Ending::SessionLost,
                () = session_over => Ending::SessionLost,
                () = over => Ending::Expired,
            };
            let places = held.places.lock().await;
            if *held.life.borrow() == life {
                self.bury(&held, ending);
                drop(places);
                self.delete_for_good(&held.link, held.paths.clone()).await;
            }
        }
    }

    /// Forgets a hold that is over.
    fn bury(&self, held: &Held, ending: Ending) {
        self.holds.lock().remove(&held.token);
        held.tell(ending);
        held.life.send_replace(Life::Over);
    }

    /// Takes nodes away, however long it takes: until they are gone, or their session.
    pub async fn delete_for_good(&self, link: &Link, paths: Vec<String>) {
        if let Err(fault) = self.delete(link, &paths, &mut Patience::endless()).await
            && !matches!(fault, Fault::Lost)
        {
            let (path, error) = (paths.first(), Error::from(fault));
            tracing::warn!(?path, %error, "not taken away; it stays until the session ends");
        }
    }

    /// The same in a task of its own.
    pub fn delete_later(
        self: &Arc<Self>,
        link: &Arc<Link>,
        paths: &[String],
    ) -> tokio::task::JoinHandle<()> {
        let (core, link, paths) = (self.clone(), link.clone(), paths.to_vec());
        tokio::spawn(async move { core.delete_for_good(&link, paths).await })
    }

    /// Ends what is bound to a session.
    pub async fn end_bound(self: &Arc<Self>, session: u64) {
        for held in self.holds.bound_to(session) {
            let places = held.places.lock().await;
            if !held.is_over() {
                self.bury(&held, Ending::SessionLost);
                drop(places);
                let deleting = self.delete_later(&held.link, &held.paths);
                tokio::time::timeout(PATIENCE, deleting).await.ok();
            }
        }
    }

    /// The hold that is named. What another process holds only that one can renew or release.
    async fn find(&self, hold: &HoldRef) -> Result<Arc<Held>> {
        limits::name(&hold.name)?;
        let foreign = || {
            let HoldRef { name, token, .. } = hold;
            Error::new(ErrorKind::Foreign, format!("token {token} of lock {name} is another's"))
        };
        let Some(held) = self.holds.find(hold.token) else {
            let mut patience = Patience::usual();
            let link = self.server.link(&mut patience).await?;
            let line = self.look_at(&link, &hold.name, &mut patience).await?;
            let is_there = line.holders().any(|stand| stand.who.token == hold.token);
            return Err(if is_there { foreign() } else { stale(hold) });
        };
        if !held.names.contains(&hold.name) {
            return Err(stale(hold));
        }
        let session = hold.session.as_ref().map_or(0, |session| session.id);
        if (held.session, held.hold) != (session, hold.hold) {
            return Err(foreign());
        }
        Ok(held)
    }

    /// Writes a hold's contenders if all its nodes are there: a write, so that the majority says
    /// so. False: it is not held any more.
    pub async fn write(
        &self,
        link: &Link,
        paths: &[String],
        places: &[Contender],
        patience: &mut Patience,
    ) -> Tried<Option<i64>> {
        let data: Vec<Vec<u8>> = places.iter().map(written).collect();
        let call = |client: Client| {
            let both = paths.iter().zip(&data);
            let both: Vec<_> = both.map(|(path, data)| (path.clone(), data.clone())).collect();
            async move {
                let mut writer = client.new_multi_writer();
                for (path, data) in &both {
                    writer.add_set_data(path, data, None)?;
                }
                commit(&mut writer).await
            }
        };
        let Heard { said, .. } = link.ask(patience, call).await;
        match said {
            Ok(time) => Ok(Some(time)),
            Err(Fault::NoNode) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// The same for a hold; an end that shows itself is told.
    async fn rewrite(
        self: &Arc<Self>,
        held: &Held,
        places: &[Contender],
        hold: &HoldRef,
    ) -> Result<()> {
        let mut patience = Patience::usual();
        let ending = match self.write(&held.link, &held.paths, places, &mut patience).await {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => Ending::Unknown,
            Err(Fault::Lost) => Ending::SessionLost,
            Err(fault) => return Err(fault.into()),
        };
        self.bury(held, ending);
        // One of several may be missing.
        self.delete_later(&held.link, &held.paths);
        Err(stale(hold))
    }

    /// Sets a hold's deadline to now plus `ttl`.
    pub async fn renew(self: &Arc<Self>, hold: &HoldRef, ttl: Duration) -> Result<()> {
        limits::ttl(ttl)?;
        let held = self.find(hold).await?;
        let mut places = held.places.lock().await;
        if held.is_over() {
            return Err(stale(hold));
        }
        places.iter_mut().for_each(|who| who.lasts = Some(us(ttl)));
        self.rewrite(&held, &places, hold).await?;
        held.lives(Some(ttl));
        Ok(())
    }

    /// Enters a hold again; gives how often it is entered. `None`: it is gone.
    pub async fn enter(
        self: &Arc<Self>,
        held: &Held,
        ttl: Option<Duration>,
    ) -> Result<Option<u32>> {
        let mut places = held.places.lock().await;
        let entries = places.first().map_or(0, |who| who.entries);
        if held.is_over() {
            return Ok(None);
        }
        if entries >= limits::ENTRIES_MAX {
            let wrong = format!("it is entered {entries} times already");
            return Err(Error::new(ErrorKind::Full, wrong));
        }
        let mut now = places.clone();
        for who in &mut now {
            (who.entries, who.lasts) = (entries + 1, ttl.map(us));
        }
        let name = held.names[0].clone();
        let hold = HoldRef { name, token: held.token, hold: held.hold, session: None };
        match self.rewrite(held, &now, &hold).await {
            Ok(()) => {
                *places = now;
                held.lives(ttl);
                Ok(Some(entries + 1))
            }
            Err(error) if error.kind == ErrorKind::Stale => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Leaves a hold once; gives the entries left.
    pub async fn release(self: &Arc<Self>, hold: &HoldRef) -> Result<u32> {
        let held = self.find(hold).await?;
        let mut places = held.places.lock().await;
        if held.is_over() {
            return Err(stale(hold));
        }
        let left = places.first().map_or(0, |who| who.entries.saturating_sub(1));
        if left > 0 {
            places.iter_mut().for_each(|who| who.entries = left);
            self.rewrite(&held, &places, hold).await?;
            return Ok(left);
        }
        match self.delete(&held.link, &held.paths, &mut Patience::usual()).await {
            Ok(true) => {
                self.bury_released(&held);
                Ok(0)
            }
            Ok(false) => {
                self.bury(&held, Ending::Unknown);
                Err(stale(hold))
            }
            Err(Fault::Lost) => {
                self.bury(&held, Ending::SessionLost);
                Err(stale(hold))
            }
            Err(fault) => {
                // Its node must not stay behind, or nobody has the lock until the session ends.
                self.bury_released(&held);
                self.delete_later(&held.link, &held.paths);
                Err(fault.into())
            }
        }
    }

    /// Forgets a hold whose owner let it go.
    fn bury_released(&self, held: &Held) {
        self.holds.lock().remove(&held.token);
        held.tell.lock().unwrap_or_else(PoisonError::into_inner).clear();
        held.life.send_replace(Life::Over);
    }

    /// Releases what was granted to somebody who has gone.
    pub async fn give_back(self: &Arc<Self>, hold: &HoldRef) {
        match self.release(hold).await {
            Err(error) if error.kind != ErrorKind::Stale => {
                tracing::warn!(lock = %hold.name, %error, "not given back yet");
            }
            _ => {}
        }
    }

    /// Ends every hold of a lock; gives how many.
    pub async fn force(&self, name: &str) -> Result<u32> {
        limits::name(name)?;
        let mut patience = Patience::usual();
        let link = self.server.link(&mut patience).await?;
        let line = self.look_at(&link, name, &mut patience).await?;
        let mut count = 0;
        for stand in line.holders() {
            let mut paths = vec![self.keys.contender(name, &stand.node)];
            let others = stand.who.with.iter().filter(|other| **other != *name);
            paths.extend(others.map(|other| self.keys.contender(other, &stand.node)));
            let ended = self.delete(&link, &paths, &mut patience).await?;
            count += u32::from(ended);
            if let Some(held) = self.holds.find(stand.who.token) {
                let _places = held.places.lock().await;
                if !held.is_over() {
                    self.bury(&held, Ending::Revoked);
                }
            }
        }
        Ok(count)
    }
}

/// A contender as it is written. What ZooKeeper knows itself is not.
pub(crate) fn written(who: &Contender) -> Vec<u8> {
    let who = Contender { token: 0, joined: 0, renewed: 0, ..who.clone() };
    serde_json::to_vec(&who).expect("it has only text and numbers")
}

/// Commits writes; gives when that was, milliseconds.
async fn commit(writer: &mut MultiWriter<'_>) -> std::result::Result<i64, zookeeper_client::Error> {
    let results = writer.commit().await?;
    let time = results.iter().find_map(|result| match result {
        zookeeper_client::MultiWriteResult::SetData { stat } => Some(stat.mtime),
        _ => None,
    });
    Ok(time.unwrap_or(0))
}
