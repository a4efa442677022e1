//! Holds in hand: renewed, released, and ended in time.
//!
//! Leases of etcd last whole seconds, and at least one and a half elections (2 s by default). So a
//! hold that this process was granted is ended by this process when its time is over; the lease
//! does it, later, when the process is dead or cut off. Either way it is after the guard knew.
//!
//! What is remembered of a hold saves reading it again. Nothing is decided by it: every change
//! compares what is there.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use leasehold_api::engine::HoldRef;
use leasehold_api::{Error, ErrorKind, Result};
use leasehold_contenders::{limits, operation};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::connect::Patience;
use crate::core::{Core, odd, us};
use crate::lease::{Lease, seconds};
use crate::part::{came_at, delete_all, present, put, rewrite, unchanged};
use crate::place::{Line, Place};
use crate::rpc::{Compare, Op, Txn};

/// Values that vanish in time because this process sees to it; more vanish by their leases alone.
const VALUES_MAX: usize = 100_000;

/// A hold.
#[derive(Debug)]
pub(crate) struct Held {
    pub names: Vec<Arc<str>>,
    /// Names the request, and the keys.
    pub id: String,
    pub token: u64,
    pub session: u64,
    pub hold: u64,
    pub bound: bool,
    /// Locked while something is done with it, so that its end does not meet a renewal.
    pub state: tokio::sync::Mutex<State>,
}

/// What changes of a hold.
#[derive(Debug)]
pub(crate) struct State {
    /// In the order of the names.
    pub places: Vec<Place>,
    /// When they were last written.
    pub revision: i64,
    pub lease: Option<Lease>,
    /// When it ends unless it is renewed.
    pub until: Option<Instant>,
    pub over: bool,
}

/// What ends at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// The hold with this token.
    Hold(u64),
    /// The value on this lease.
    Value(i64),
}

/// All that this process was granted, or renewed, and what ends when.
#[derive(Default)]
pub(crate) struct Holds {
    all: Mutex<HashMap<u64, Arc<Held>>>,
    due: Mutex<BTreeMap<(Instant, Due), ()>>,
    sooner: Arc<Notify>,
}

impl Drop for Holds {
    fn drop(&mut self) {
        // The task that waits for the next end finds that there is none.
        self.sooner.notify_one();
    }
}

impl Holds {
    pub fn insert(&self, held: Arc<Held>) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(held.token, held);
    }

    /// The same hold as it is remembered, or this.
    pub fn known(&self, held: Arc<Held>) -> Arc<Held> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(held.token).or_insert(held).clone()
    }

    fn remembered(&self, token: u64) -> Option<Arc<Held>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).get(&token).cloned()
    }

    pub fn forget(&self, token: u64) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&token);
    }

    /// Whether somebody holds something.
    pub fn has(&self, session: u64, hold: u64) -> bool {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().any(|held| (held.session, held.hold) == (session, hold))
    }

    /// Those that end with a session.
    pub fn bound_to(&self, session: u64) -> Vec<Arc<Held>> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().filter(|held| held.bound && held.session == session).cloned().collect()
    }

    fn end_at(&self, at: Instant, due: Due) {
        let mut ends = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(due, Due::Value(_)) && ends.len() >= VALUES_MAX {
            return;
        }
        let is_next = ends.keys().next().is_none_or(|(next, _)| at < *next);
        ends.insert((at, due), ());
        drop(ends);
        if is_next {
            self.sooner.notify_one();
        }
    }

    /// Lets the hold with this token end at a time, if it is not renewed before.
    pub fn ends(&self, token: u64, until: Option<Instant>) {
        if let Some(until) = until {
            self.end_at(until, Due::Hold(token));
        }
    }

    /// Lets the values on a lease vanish at a time.
    pub fn vanishes(&self, lease: i64, at: Instant) {
        self.end_at(at, Due::Value(lease));
    }

    /// What is over, and when the next thing is.
    fn over(&self) -> (Vec<Due>, Option<Instant>) {
        let mut ends = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let mut over = Vec::new();
        while let Some(first) = ends.first_entry()
            && first.key().0 <= now
        {
            over.push(first.remove_entry().0.1);
        }
        (over, ends.keys().next().map(|(next, _)| *next))
    }
}

/// Ends what is over, for as long as the engine is there.
pub(crate) async fn end_in_time(core: Weak<Core>) {
    let Some(sooner) = core.upgrade().map(|core| core.holds.sooner.clone()) else { return };
    loop {
        let Some(strong) = core.upgrade() else { return };
        let (over, next) = strong.holds.over();
        for due in over {
            match due {
                Due::Value(lease) => strong.leases.end(lease),
                Due::Hold(token) => {
                    if let Some(held) = strong.holds.remembered(token) {
                        let core = strong.clone();
                        tokio::spawn(async move { core.end(&held).await });
                    }
                }
            }
        }
        drop(strong);
        match next {
            Some(next) => tokio::select! {
                () = sleep_until(next) => {}
                () = sooner.notified() => {}
            },
            None => sooner.notified().await,
        }
    }
}

/// The refusal of a hold that is not there any more.
pub(crate) fn stale(hold: &HoldRef) -> Error {
    let HoldRef { name, token, .. } = hold;
    let wrong =
        format!("lock {name} is not held with token {token} any more; stop working under it");
    Error::new(ErrorKind::Stale, wrong)
}

impl Core {
    /// The hold that is named.
    async fn find(&self, hold: &HoldRef, patience: &mut Patience) -> Result<Arc<Held>> {
        limits::name(&hold.name)?;
        let held = match self.holds.remembered(hold.token) {
            Some(held) => held,
            None => self.read(hold, patience).await?,
        };
        if !held.names.contains(&hold.name) {
            return Err(stale(hold));
        }
        let session = hold.session.as_ref().map_or(0, |session| session.id);
        if (held.session, held.hold) != (session, hold.hold) {
            let HoldRef { name, token, .. } = hold;
            let wrong = format!("token {token} of lock {name} is another's");
            return Err(Error::new(ErrorKind::Foreign, wrong));
        }
        Ok(held)
    }

    /// Reads a hold that was granted to another process, or to this one before it was restarted.
    async fn read(&self, hold: &HoldRef, patience: &mut Patience) -> Result<Arc<Held>> {
        let (line, _) = self.look_at(&hold.name, patience).await?;
        let place = line.list.iter().position(|own| own.token == hold.token);
        let place = place.filter(|place| line.holds(*place)).ok_or_else(|| stale(hold))?;
        let Some(names) = several(&line.list[place].with) else {
            return Ok(self.held(vec![hold.name.clone()], &[&line], hold.token));
        };
        let seen = self.look(&names, None, patience).await?;
        let lines: Vec<&Line> = seen.lines.iter().collect();
        if !lines.iter().all(|line| line.list.iter().any(|own| own.token == hold.token)) {
            return Err(stale(hold));
        }
        Ok(self.held(names, &lines, hold.token))
    }

    /// A hold from the lines in which it was found.
    pub fn held(&self, names: Vec<Arc<str>>, lines: &[&Line], token: u64) -> Arc<Held> {
        let own =
            |line: &&Line| line.stands.iter().find(|own| own.place.who.token == token).cloned();
        let stands: Vec<_> = lines.iter().filter_map(own).collect();
        let first = stands.first();
        let who = first.map(|stand| stand.place.who.clone());
        let lease = first.filter(|stand| stand.lease != 0).map(|stand| {
            // For how long it was granted is not known, so the next renewal takes a new one.
            Lease { id: stand.lease, seconds: 0, until: Instant::now(), is_new: false }
        });
        let state = State {
            revision: first.map_or(0, |stand| stand.revision),
            places: stands.iter().map(|stand| stand.place.clone()).collect(),
            lease,
            until: None,
            over: false,
        };
        Arc::new(Held {
            names,
            id: who.as_ref().map_or_else(String::new, |who| who.id.clone()),
            token,
            session: who.as_ref().map_or(0, |who| who.session),
            hold: who.as_ref().map_or(0, |who| who.hold),
            bound: first.is_some_and(|stand| stand.place.bound),
            state: tokio::sync::Mutex::new(state),
        })
    }

    /// That a hold is there with all its halves.
    pub fn is_there(&self, held: &Held) -> Vec<Compare> {
        let mut compares = Vec::with_capacity(2 * held.names.len());
        for name in &held.names {
            compares.push(came_at(self.keys.head(name, &held.id), held.token));
        }
        if held.bound
            && let Some(name) = held.names.first()
        {
            compares.push(present(self.keys.half(name, &held.id)));
        }
        compares
    }

    /// That nobody has written to a hold since.
    fn is_unchanged(&self, held: &Held, state: &State) -> Vec<Compare> {
        let key = |name: &Arc<str>| self.keys.head(name, &held.id);
        let same = |name: &Arc<str>| unchanged(key(name), state.revision);
        let half = held.names.first().filter(|_| held.bound);
        let half = half.map(|name| present(self.keys.half(name, &held.id)));
        held.names.iter().map(same).chain(half).collect()
    }

    /// Takes a hold's keys away.
    pub fn deletes(&self, names: &[Arc<str>], id: &str) -> Vec<Op> {
        names.iter().map(|name| delete_all(self.keys.head(name, id))).collect()
    }

    /// Forgets a hold that is over, and ends what is left of it.
    fn bury(&self, held: &Held, state: &mut State) {
        state.over = true;
        self.holds.forget(held.token);
        if let Some(lease) = state.lease.take() {
            self.leases.end(lease.id);
        }
    }

    /// Ends a hold whose time is over, unless it was renewed.
    async fn end(&self, held: &Held) {
        let mut state = held.state.lock().await;
        if state.over || state.until.is_none_or(|until| until > Instant::now()) {
            return;
        }
        let txn = Txn::of(self.deletes(&held.names, &held.id));
        if let Err(fault) = self.server.txn(&mut Patience::usual(), txn).await {
            let (lock, error) = (held.names.first(), Error::from(fault));
            tracing::warn!(?lock, token = held.token, %error, "not ended; its lease ends it");
        }
        self.bury(held, &mut state);
    }

    /// Ends a hold that its session took with it.
    pub async fn ended_with_session(&self, held: &Held) {
        let mut state = held.state.lock().await;
        state.until = Some(Instant::now());
        drop(state);
        self.end(held).await;
    }

    /// Sets a hold's deadline to now plus `ttl`; gives for how long it surely lasts, which is less
    /// when its session does.
    pub async fn renew(&self, hold: &HoldRef, ttl: Duration) -> Result<Duration> {
        limits::ttl(ttl)?;
        let mut patience = Patience::usual();
        let held = self.find(hold, &mut patience).await?;
        let mut state = held.state.lock().await;
        if state.over {
            return Err(stale(hold));
        }
        let same = state.lease.filter(|lease| lease.seconds == seconds(ttl));
        let is_there = match same {
            Some(mut lease) => {
                lease.until = Instant::now() + ttl;
                state.lease = Some(lease);
                self.shown(&held, lease, &mut patience).await?
            }
            None => self.moved(&held, &mut state, ttl, &mut patience).await?,
        };
        if !is_there {
            self.bury(&held, &mut state);
            return Err(stale(hold));
        }
        state.until = Some(Instant::now() + ttl);
        self.holds.insert(held.clone());
        self.holds.ends(held.token, state.until);
        if !held.bound {
            return Ok(ttl);
        }
        match self.leases.show(held.session.cast_signed(), &mut patience).await? {
            Some(lasts) => Ok(ttl.min(lasts)),
            None => {
                self.bury(&held, &mut state);
                Err(stale(hold))
            }
        }
    }

    /// Shows that a hold is needed still, and looks whether it is there.
    async fn shown(&self, held: &Held, lease: Lease, patience: &mut Patience) -> Result<bool> {
        let mut other = patience.clone();
        let look = Txn::when(self.is_there(held), Vec::new(), Vec::new());
        let (shown, there) =
            tokio::join!(self.leases.show(lease.id, patience), self.server.txn(&mut other, look));
        Ok(shown?.is_some() && there?.answer.succeeded)
    }

    /// Hangs a hold on a lease of another length. Its place and its token stay.
    async fn moved(
        &self,
        held: &Held,
        state: &mut State,
        ttl: Duration,
        patience: &mut Patience,
    ) -> Result<bool> {
        let lease = self.leases.grant(seconds(ttl), patience).await?;
        let mut puts = Vec::new();
        for (name, place) in held.names.iter().zip(&mut state.places) {
            place.who.lasts = Some(us(ttl));
            puts.push(put(self.keys.head(name, &held.id), place.written(), lease.id));
        }
        let txn = Txn::when(self.is_unchanged(held, state), puts, Vec::new());
        let said = match self.server.txn(patience, txn).await {
            Ok(said) => said,
            Err(fault) => {
                self.leases.end(lease.id);
                return Err(fault.into());
            }
        };
        if said.answer.succeeded {
            state.revision = said.answer.header.ok_or_else(odd)?.revision;
            if let Some(old) = state.lease.replace(lease) {
                self.leases.end(old.id);
            }
            return Ok(true);
        }
        // It was changed by another process of the same session, or by an attempt of ours whose
        // answer was lost; or it is gone.
        let fresh = self.refreshed(held, state, patience).await?;
        let moved = state.lease.is_some_and(|now| now.id == lease.id);
        if moved {
            state.lease = Some(lease);
            return Ok(true);
        }
        self.leases.end(lease.id);
        if fresh {
            let wrong = "it was changed at the same time; ask again";
            return Err(Error::new(ErrorKind::Unavailable, wrong));
        }
        Ok(false)
    }

    /// Reads a hold again. False: it is gone.
    async fn refreshed(
        &self,
        held: &Held,
        state: &mut State,
        patience: &mut Patience,
    ) -> Result<bool> {
        let seen = self.look(&held.names, None, patience).await?;
        let own =
            |line: &Line| line.stands.iter().find(|s| s.place.who.token == held.token).cloned();
        let stands: Vec<_> = seen.lines.iter().filter_map(own).collect();
        let Some(first) = stands.first().filter(|_| stands.len() == held.names.len()) else {
            return Ok(false);
        };
        state.revision = first.revision;
        let known = state.lease.filter(|lease| lease.id == first.lease);
        state.lease = (first.lease != 0).then_some(known.unwrap_or(Lease {
            id: first.lease,
            seconds: 0,
            until: Instant::now(),
            is_new: false,
        }));
        state.places = stands.into_iter().map(|stand| stand.place).collect();
        Ok(true)
    }

    /// Changes how often a hold is entered; gives how often it is then. `None`: it is gone.
    async fn entered(
        &self,
        held: &Held,
        state: &mut State,
        change: impl Fn(u32) -> u32,
        patience: &mut Patience,
    ) -> Result<Option<u32>> {
        let operation = operation()?;
        loop {
            let Some(first) = state.places.first() else { return Ok(None) };
            if first.last == operation {
                return Ok(Some(first.who.entries));
            }
            let entries = change(first.who.entries);
            let mut places = state.places.clone();
            for place in &mut places {
                (place.who.entries, place.last) = (entries, operation.clone());
            }
            let key = |name: &Arc<str>| self.keys.head(name, &held.id);
            let all = self.is_unchanged(held, state);
            let (ops, gone) = match entries {
                0 => (self.deletes(&held.names, &held.id), Some(0)),
                _ => {
                    let named = held.names.iter().zip(&places);
                    let write = |(name, place): (_, &Place)| rewrite(key(name), place.written());
                    (named.map(write).collect(), None)
                }
            };
            let said = self.server.txn(patience, Txn::when(all, ops, Vec::new())).await?;
            if said.answer.succeeded {
                state.revision = said.answer.header.ok_or_else(odd)?.revision;
                state.places = places;
                if said.again && entries == 0 {
                    // Nothing hangs on it any more, but an attempt may still be under way.
                    if let Some(lease) = state.lease.take() {
                        self.leases.end(lease.id);
                    }
                }
                return Ok(Some(entries));
            }
            if !self.refreshed(held, state, patience).await? {
                // After a lost answer "it is gone" means that it was released.
                return Ok(gone.filter(|_| said.again));
            }
        }
    }

    /// Enters a hold again; gives how often it is entered. `None`: it is gone.
    pub async fn enter(&self, held: &Held, patience: &mut Patience) -> Result<Option<u32>> {
        let mut state = held.state.lock().await;
        if state.over {
            return Ok(None);
        }
        let most = state.places.first().map_or(0, |place| place.who.entries);
        if most >= limits::ENTRIES_MAX {
            let wrong = format!("it is entered {most} times already");
            return Err(Error::new(ErrorKind::Full, wrong));
        }
        self.entered(held, &mut state, |entries| entries + 1, patience).await
    }

    /// Leaves a hold once; gives the entries left.
    pub async fn release(&self, hold: &HoldRef) -> Result<u32> {
        let mut patience = Patience::usual();
        let held = self.find(hold, &mut patience).await?;
        let mut state = held.state.lock().await;
        if state.over {
            return Err(stale(hold));
        }
        let left = |entries: u32| entries.saturating_sub(1);
        match self.entered(&held, &mut state, left, &mut patience).await? {
            Some(0) => {
                state.over = true;
                self.holds.forget(held.token);
                if let Some(lease) = state.lease.take() {
                    match lease.seconds {
                        0 => self.leases.end(lease.id),
                        _ => self.leases.take_back(lease),
                    }
                }
                Ok(0)
            }
            Some(left) => Ok(left),
            None => {
                self.bury(&held, &mut state);
                Err(stale(hold))
            }
        }
    }

    /// Releases what was granted to somebody who has gone.
    pub async fn give_back(&self, hold: &HoldRef) {
        match self.release(hold).await {
            Err(error) if error.kind != ErrorKind::Stale => {
                tracing::warn!(lock = %hold.name, %error, "not given back; it ends by its TTL");
            }
            _ => {}
        }
    }

    /// Ends every hold of a lock; gives how many.
    pub async fn force(&self, name: &str) -> Result<u32> {
        limits::name(name)?;
        let mut patience = Patience::usual();
        let (line, _) = self.look_at(name, &mut patience).await?;
        let mut count = 0;
        for stand in line.holders() {
            let who = &stand.place.who;
            let names = several(&who.with).unwrap_or_else(|| vec![name.into()]);
            let there = came_at(self.keys.head(name, &who.id), who.token);
            let txn = Txn::when(vec![there], self.deletes(&names, &who.id), Vec::new());
            let said = self.server.txn(&mut patience, txn).await?;
            // After a lost answer "it is gone" means that we ended it.
            count += u32::from(said.answer.succeeded || said.again);
        }
        Ok(count)
    }

    /// What a guarded write compares: that a lock is held with a token.
    pub async fn guarded(
        &self,
        name: &str,
        token: u64,
        patience: &mut Patience,
    ) -> Result<Vec<Compare>> {
        limits::name(name)?;
        let remembered = self.holds.remembered(token);
        if let Some(held) = remembered.filter(|held| held.names.iter().any(|own| **own == *name)) {
            return Ok(self.is_there(&held));
        }
        let hold = HoldRef { name: name.into(), token, hold: 0, session: None };
        // Whoever holds keeps holding for as long as its keys are there.
        let held = self.read(&hold, patience).await?;
        Ok(self.is_there(&held))
    }
}

/// The locks of a hold that covers several.
pub(crate) fn several(with: &[String]) -> Option<Vec<Arc<str>>> {
    (!with.is_empty()).then(|| with.iter().map(|name| name.as_str().into()).collect())
}
