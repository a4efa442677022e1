//! Taking locks: into the line, wait, know that it is one's turn.
//!
//! ```text
//! nobody there ─► one transaction: compare that, put the contender ─► holds
//! somebody there ─► the same transaction's other half: stand in line, on the session's lease
//!    ├─ holds by the rule ─► a transaction: compare that it is still there, hang it on a lease
//!    │                       of its own ─► holds
//!    └─ waits ─► watch whoever stands in the way, and oneself ─► read the line again
//! ```
//! The recipe is that of etcd's own `concurrency` package (`client/v3/concurrency/mutex.go`), with
//! two differences. A grant is a transaction that compares that the contender and its session are
//! there, so nobody is granted anything after his lease ended (etcd#11456, Jepsen's analysis of
//! etcd 3.4.3). And who holds follows from the whole line, since not all locks are exclusive.
//!
//! An acquire runs in a task of its own, which sees it through when its caller goes: then it takes
//! its contender out of the line again. A grant on its way to a caller who has gone goes back.

use std::sync::Arc;
use std::time::Duration;

use leasehold_api::engine::{Acquire, Gone, Grant, HoldRef, Mode, apart, moment};
use leasehold_api::{Error, ErrorKind, Result, Wait};
use leasehold_contenders::{Contender, circle, limits, line, operation, too_late};
use tokio::time::{Instant, timeout};

use crate::connect::{PATIENCE, Patience};
use crate::core::{Core, Seen, odd, us, wall};
use crate::error::Fault;
use crate::holds::{Held, State};
use crate::lease::{Lease, seconds};
use crate::part::{absent, all_before, came_after, came_at, delete, none_begin, present, put};
use crate::place::{Line, Place};
use crate::rpc::{Compare, Op, Txn};
use crate::watch::Watched;

/// The lease of a contender that waits and has no session, seconds.
const WAITING: i64 = 10;
/// How often it says that it lives.
const SIGN: Duration = Duration::from_secs(3);
/// How long a refusal waits for its contender to leave the line.
const LEAVING: Duration = Duration::from_secs(1);
/// After this no attempt is under way any more that was given up: etcd itself gives a request up
/// after 5 s and two elections (`ReqTimeout` in `server/config/config.go`).
const LATE: Duration = Duration::from_secs(8);

/// Takes locks, all or none.
pub(crate) async fn acquire(core: &Arc<Core>, ask: &Acquire) -> Result<Grant> {
    limits::acquire(ask)?;
    if !ask.lock_delay.is_zero() {
        return Err(Error::unsupported("etcd", "delay after a loss"));
    }
    let id = match ask.request {
        Some(request) => format!("{:032x}", request.0),
        None => operation()?,
    };
    let (core, ask) = (core.clone(), ask.clone());
    let give = core.clone();
    let work = move |gone| {
        let asked = Instant::now();
        let acquiring = Acquiring {
            names: ask.wants.iter().map(|want| want.name.clone()).collect(),
            session: ask.session.as_ref().map(|session| session.id),
            core,
            ask,
            id,
            asked,
            gone,
            lease: None,
            waiting: None,
            entered: false,
            doubt: false,
            sure: None,
        };
        acquiring.run()
    };
    let give_back = |(_, hold): (Grant, HoldRef)| {
        tokio::spawn(async move { give.give_back(&hold).await });
    };
    apart(work, give_back).await.map(|(grant, _)| grant)
}

struct Acquiring {
    core: Arc<Core>,
    ask: Acquire,
    names: Vec<Arc<str>>,
    session: Option<u64>,
    /// Names the contender.
    id: String,
    asked: Instant,
    /// Ends when the caller goes.
    gone: Gone,
    /// What the hold will hang on.
    lease: Option<Lease>,
    /// What it hangs on while it waits without a session.
    waiting: Option<Lease>,
    /// It may stand in a line.
    entered: bool,
    /// An attempt was given up that may still be carried out.
    doubt: bool,
    /// For how long the session surely lasts that the hold ends with.
    sure: Option<Duration>,
}

/// A hold, and how often it is entered.
type Taken = (Arc<Held>, u32);

/// What came of an attempt to enter a line.
enum Entered {
    Holds(Taken),
    /// It does not hold yet, or did not enter.
    Seen(Seen),
}

/// Where the contender stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It holds, with this token.
    Holds(u64),
    Waits,
    /// It is not in all of its lines.
    Out,
}

impl Acquiring {
    async fn run(mut self) -> Result<(Grant, HoldRef)> {
        match self.take().await {
            Ok((held, entries)) => Ok(self.granted(&held, entries)),
            Err(error) => {
                let leaving = tokio::spawn(async move { self.withdraw().await });
                // Who waits for the refusal finds the line as if nothing had been, if it can be.
                timeout(LEAVING, leaving).await.ok();
                Err(error)
            }
        }
    }

    fn granted(mut self, held: &Held, entries: u32) -> (Grant, HoldRef) {
        // A re-entry needs no lease of its own, and a hold none to wait on.
        let spare = [self.lease.take(), self.waiting.take()];
        spare.into_iter().flatten().for_each(|lease| self.core.leases.end(lease.id));
        let (token, name) = (held.token, self.names[0].clone());
        let hold = HoldRef { name, token, hold: held.hold, session: self.ask.session.clone() };
        // It may end with its session sooner than by itself, and whoever has it must know before.
        let left = self.ask.ttl.map(|ttl| self.sure.map_or(ttl, |sure| sure.min(ttl)));
        let grant = Grant { token, left, entries, ended: None };
        (grant, hold)
    }

    /// How long a cluster out of reach is waited for.
    fn patience(&self) -> Patience {
        let until = match self.ask.wait {
            Wait::No => Some(self.asked + PATIENCE),
            Wait::AtMost(wait) => self.asked.checked_add(wait.max(PATIENCE)),
            Wait::Forever => None,
        };
        Patience::until(until, self.gone.clone())
    }

    async fn look(&self) -> Result<Seen> {
        self.core.look(&self.names, self.session, &mut self.patience()).await
    }

    async fn take(&mut self) -> Result<Taken> {
        let mut entered = self.begin().await?;
        loop {
            let seen = match entered {
                Entered::Holds(taken) => return Ok(taken),
                Entered::Seen(seen) => seen,
            };
            self.gone.check()?;
            if !seen.session {
                let wrong = "the session has ended; open a new one and ask again";
                return Err(Error::new(ErrorKind::NoSession, wrong));
            }
            self.check(&seen)?;
            entered = match (self.standing(&seen), self.ask.wait) {
                (Standing::Holds(token), _) => self.confirm(&seen, token).await?,
                (Standing::Waits, Wait::No) => return Err(busy(&seen, &self.id)),
                (Standing::Waits, _) => {
                    self.look_for_circle(&seen).await?;
                    self.wait(&seen).await?;
                    Entered::Seen(self.look().await?)
                }
                (Standing::Out, Wait::No) if !self.has_room(&seen) => {
                    return Err(busy(&seen, &self.id));
                }
                (Standing::Out, Wait::No) => self.enter_after(&seen).await?,
                // It came too late into the line, or an operator took it out.
                (Standing::Out, _) => self.enter_or_wait().await?,
            };
        }
    }

    /// The first step: the one that most likely is the last.
    async fn begin(&mut self) -> Result<Entered> {
        if self.ask.reentrant {
            let seen = self.look().await?;
            return match self.enter_again(&seen).await? {
                Some(taken) => Ok(Entered::Holds(taken)),
                None => Ok(Entered::Seen(seen)),
            };
        }
        if self.ask.wait == Wait::No {
            let ttl = self.ask.ttl;
            self.lease = ttl.and_then(|ttl| self.core.leases.spare(seconds(ttl)));
            if ttl.is_some() && self.lease.is_none() {
                // A lease is a write, and a try that is refused should cost none.
                return Ok(Entered::Seen(self.look().await?));
            }
        }
        self.enter_or_wait().await
    }

    /// Refuses what cannot be in these lines.
    fn check(&self, seen: &Seen) -> Result<()> {
        for (line, want) in seen.lines.iter().zip(&self.ask.wants) {
            let others: Vec<Contender> =
                line.list.iter().filter(|other| other.id != self.id).cloned().collect();
            line::agree(&line.name, &others, want.mode, 0)?;
            if others.len() >= limits::LINE_MAX {
                let wrong = format!("{} stand in line for lock {}", others.len(), line.name);
                return Err(Error::new(ErrorKind::Full, wrong));
            }
        }
        Ok(())
    }

    fn has_room(&self, seen: &Seen) -> bool {
        let mut both = seen.lines.iter().zip(&self.ask.wants);
        both.all(|(line, want)| line::has_room(&line.list, want.mode, 0))
    }

    fn standing(&self, seen: &Seen) -> Standing {
        let (mut token, mut all) = (0, true);
        for line in &seen.lines {
            let Some(place) = line.find(&self.id) else { return Standing::Out };
            all &= line.holds(place);
            token = line.list[place].token;
        }
        if all { Standing::Holds(token) } else { Standing::Waits }
    }

    /// The contender as it is written into a line.
    fn place(&self, mode: Mode, holds: bool) -> Place {
        let now = wall();
        let several = self.names.len() > 1;
        let with = self.names.iter().filter(|_| several).map(|name| name.to_string()).collect();
        let who = Contender {
            id: self.id.clone(),
            token: 0,
            session: self.session.unwrap_or(0),
            hold: self.ask.hold,
            mode,
            with,
            entries: 1,
            label: self.ask.label.as_ref().map(|label| label.to_string()),
            joined: now,
            granted: holds.then_some(now),
            renewed: 0,
            lasts: self.ask.ttl.map(us),
            session_lasts: None,
            session_renewed: 0,
            delay: 0,
        };
        Place { who, bound: holds && self.ask.bound, last: String::new() }
    }

    /// Puts the contender into its lines as one that holds.
    fn puts(&self, places: &[Place]) -> Vec<Op> {
        let session = self.session.unwrap_or(0).cast_signed();
        // Without a TTL it ends with its session, or hangs on nothing.
        let lease = match self.lease {
            Some(lease) => lease.id,
            None if self.ask.bound => session,
            None => 0,
        };
        let mut puts = Vec::with_capacity(2 * places.len());
        for (name, place) in self.names.iter().zip(places) {
            let key = self.core.keys.head(name, &self.id);
            puts.push(put(key, place.written(), lease));
            if place.bound {
                let key = self.core.keys.half(name, &self.id);
                puts.push(put(key, "", session));
            }
        }
        puts
    }

    /// Puts the contender into its lines as one that waits.
    fn joins(&self, lease: i64) -> Op {
        let mut compares: Vec<Compare> = self.session_is_there();
        let mut puts = Vec::with_capacity(self.names.len());
        for (name, want) in self.names.iter().zip(&self.ask.wants) {
            let key = self.core.keys.head(name, &self.id);
            compares.push(absent(key.clone()));
            let value = self.place(want.mode, false).written();
            puts.push(put(key, value, lease));
        }
        Txn::when(compares, puts, Vec::new()).within()
    }

    fn session_is_there(&self) -> Vec<Compare> {
        self.session.map(|id| present(self.core.keys.session(id))).into_iter().collect()
    }

    /// Has a lease for the hold in hand.
    async fn have_lease(&mut self) -> Result<()> {
        let Some(ttl) = self.ask.ttl else { return Ok(()) };
        let soon = Instant::now() + Duration::from_millis(200);
        if self.lease.is_none_or(|lease| lease.until < soon) {
            let spare = self.core.leases.spare(seconds(ttl));
            self.lease = match spare {
                Some(spare) => Some(spare),
                None => Some(self.core.leases.grant(seconds(ttl), &mut self.patience()).await?),
            };
        }
        Ok(())
    }

    /// Whether the lease for the hold is there for as long as it was asked for.
    async fn shown(&self) -> Result<bool> {
        match self.lease.filter(|lease| !lease.is_new) {
            Some(lease) => {
                let shown = self.core.leases.show(lease.id, &mut self.patience()).await?;
                Ok(shown.is_some())
            }
            None => Ok(true),
        }
    }

    /// For how long the session surely lasts that the hold ends with. If it is not there, the
    /// transaction finds the same.
    async fn session_lasts(&self) -> Result<Option<Duration>> {
        match self.session.filter(|_| self.ask.bound) {
            Some(id) => self.core.leases.show(id.cast_signed(), &mut self.patience()).await,
            None => Ok(None),
        }
    }

    /// Carries a transaction out that grants the locks if it succeeds; gives `None` when the lease
    /// turned out to be gone, so that it must be tried again with another.
    async fn grant(
        &mut self,
        compares: Vec<Compare>,
        mut then: Vec<Op>,
        others: Vec<Op>,
        token: Option<u64>,
    ) -> Result<Option<Entered>> {
        let wants = self.ask.wants.iter();
        let places: Vec<Place> = wants.map(|want| self.place(want.mode, true)).collect();
        then.extend(self.puts(&places));
        let txn = Txn::when(compares, then, others);
        self.entered = true;
        let mut patience = self.patience();
        let began = Instant::now();
        let carried_out = self.core.server.txn(&mut patience, txn);
        let (said, shown, lasts) = tokio::join!(carried_out, self.shown(), self.session_lasts());
        let said = match said {
            Ok(said) => said,
            Err(Fault::NoLease) if self.lease.is_some_and(|lease| !lease.is_new) => {
                self.lease = None;
                return Ok(None);
            }
            Err(Fault::NoLease) => {
                // The session's, if it is not the one that was just granted.
                self.lease = None;
                return Ok(Some(Entered::Seen(self.look().await?)));
            }
            Err(fault) => {
                self.doubt = true;
                return Err(fault.into());
            }
        };
        self.doubt |= said.again;
        if !shown? {
            self.lease = None;
            return Ok(None);
        }
        let lasts = lasts?;
        if !said.answer.succeeded {
            return Ok(Some(Entered::Seen(self.core.seen(&self.names, said.answer)?)));
        }
        let revision = said.answer.header.ok_or_else(odd)?.revision;
        let token = token.unwrap_or(revision.unsigned_abs());
        let lease = self.lease.take().map(|lease| {
            let until = began + Duration::from_secs(lease.seconds.unsigned_abs().min(1 << 31));
            Lease { until, ..lease }
        });
        let until = self.ask.ttl.map(|ttl| Instant::now() + ttl);
        let state = State { places, revision, lease, until, over: false };
        let held = Arc::new(Held {
            names: self.names.clone(),
            id: self.id.clone(),
            token,
            session: self.session.unwrap_or(0),
            hold: self.ask.hold,
            bound: self.ask.bound,
            state: tokio::sync::Mutex::new(state),
        });
        self.core.holds.insert(held.clone());
        self.core.holds.ends(token, until);
        if self.doubt {
            self.sweep(Some(token));
        }
        self.sure = lasts;
        Ok(Some(Entered::Holds((held, 1))))
    }

    /// Enters lines in which nobody is, or stands in line behind whoever is there.
    async fn enter_or_wait(&mut self) -> Result<Entered> {
        loop {
            self.have_lease().await?;
            let mut others = Vec::new();
            if self.ask.wait != Wait::No {
                let lease = match self.session {
                    Some(session) => session.cast_signed(),
                    None => self.have_waiting().await?,
                };
                others.push(self.joins(lease));
            }
            others.extend(self.core.looks(&self.names, self.session));
            let mut compares = self.session_is_there();
            for name in &self.names {
                compares.push(none_begin(self.core.keys.line(name)));
            }
            if let Some(entered) = self.grant(compares, Vec::new(), others, None).await? {
                return Ok(entered);
            }
        }
    }

    /// A lease for a contender that waits without a session.
    async fn have_waiting(&mut self) -> Result<i64> {
        let alive = match self.waiting {
            Some(lease) => self.core.leases.show(lease.id, &mut self.patience()).await?,
            None => None,
        };
        match self.waiting.filter(|_| alive.is_some()) {
            Some(lease) => Ok(lease.id),
            None => {
                let lease = self.core.leases.grant(WAITING, &mut self.patience()).await?;
                Ok(self.waiting.insert(lease).id)
            }
        }
    }

    /// Enters lines in which there is room, if nobody has come since they were read.
    async fn enter_after(&mut self, seen: &Seen) -> Result<Entered> {
        loop {
            self.have_lease().await?;
            let mut compares = self.session_is_there();
            for name in &self.names {
                compares.push(all_before(self.core.keys.line(name), seen.revision + 1));
            }
            let others = self.core.looks(&self.names, self.session);
            if let Some(entered) = self.grant(compares, buries(seen), others, None).await? {
                return Ok(entered);
            }
        }
    }

    /// It is this contender's turn: hangs it on the hold's lease, if it is there still.
    async fn confirm(&mut self, seen: &Seen, token: u64) -> Result<Entered> {
        let first = seen.lines.first().and_then(|line| Some(&line.stands[line.find(&self.id)?]));
        if first.is_some_and(|stand| stand.place.who.granted.is_some()) {
            // An attempt of which we did not hear, or a request that was sent twice.
            let lines: Vec<&Line> = seen.lines.iter().collect();
            let held = self.core.held(self.names.clone(), &lines, token);
            let until = self.ask.ttl.map(|ttl| Instant::now() + ttl);
            held.state.lock().await.until = until;
            let entries = first.map_or(1, |stand| stand.place.who.entries);
            self.core.holds.insert(held.clone());
            self.core.holds.ends(token, until);
            self.sure = self.session_lasts().await?;
            self.forget_own_lease(first.map_or(0, |stand| stand.lease));
            return Ok(Entered::Holds((held, entries)));
        }
        loop {
            self.have_lease().await?;
            let mut compares = self.session_is_there();
            for name in &self.names {
                compares.push(came_at(self.core.keys.head(name, &self.id), token));
            }
            let others = self.core.looks(&self.names, self.session);
            let then = buries(seen);
            if let Some(entered) = self.grant(compares, then, others, Some(token)).await? {
                return Ok(entered);
            }
        }
    }

    /// A lease that the hold hangs on is not ours to end.
    fn forget_own_lease(&mut self, used: i64) {
        self.lease = self.lease.filter(|lease| lease.id != used);
    }

    /// Enters a hold again that the same session and number have.
    async fn enter_again(&mut self, seen: &Seen) -> Result<Option<Taken>> {
        let session = self.session.unwrap_or(0);
        let own = |line: &Line| {
            let place = line.list.iter().position(|own| own.is(session, self.ask.hold))?;
            line.holds(place).then(|| line.list[place].clone())
        };
        let Some(first) = seen.lines.first().and_then(own) else { return Ok(None) };
        let different = |wrong: &str| Err(Error::new(ErrorKind::Different, wrong));
        if first.with.len() > 1 && first.with.len() != self.names.len() {
            return different("the hold to enter again covers other locks");
        }
        for (line, want) in seen.lines.iter().zip(&self.ask.wants) {
            match own(line) {
                Some(own) if own.token == first.token && own.mode == want.mode => {}
                Some(_) => return different("the hold to enter again holds otherwise"),
                None => return different("the hold to enter again does not cover all these locks"),
            }
        }
        let lines: Vec<&Line> = seen.lines.iter().collect();
        let found = self.core.held(self.names.clone(), &lines, first.token);
        let held = self.core.holds.known(found);
        let Some(entries) = self.core.enter(&held, &mut self.patience()).await? else {
            return Ok(None);
        };
        if let Some(ttl) = self.ask.ttl {
            let (name, session) = (self.names[0].clone(), self.ask.session.clone());
            let hold = HoldRef { name, token: held.token, hold: held.hold, session };
            match self.core.renew(&hold, ttl).await {
                Ok(left) => self.sure = Some(left),
                Err(error) => {
                    self.core.give_back(&hold).await;
                    return Err(error);
                }
            }
        }
        Ok(Some((held, entries)))
    }

    /// Waits for something to happen to whoever stands in the way, or to oneself.
    async fn wait(&mut self, seen: &Seen) -> Result<()> {
        let mut keys = Vec::new();
        for line in &seen.lines {
            let Some(place) = line.find(&self.id) else { return Ok(()) };
            if keys.is_empty() {
                keys.push(self.core.keys.head(&line.name, &self.id));
            }
            if !line.holds(place) {
                keys.push(match line::blocker(&line.list, place, 0) {
                    Some(blocker) => self.core.keys.head(&line.name, &blocker.id),
                    // Any going may make room.
                    None => self.core.keys.line(&line.name),
                });
            }
        }
        // When its turn comes the lease in hand is not new any more.
        self.lease = self.lease.map(|lease| Lease { is_new: false, ..lease });
        let from = seen.revision + 1;
        let watched = Watched { keys, and_longer: true, from, only_ends: true };
        let over = moment(self.ask.wait.until(self.asked));
        let mut gone = self.gone.clone();
        tokio::select! {
            biased;
            () = gone.wait() => Err(Gone::cancelled()),
            () = over => Err(too_late(self.ask.wait)),
            changed = self.core.server.changed(&watched) => match changed {
                Ok(()) => Ok(()),
                Err(Fault::Away(why)) => {
                    self.patience().bear(&self.core.server.config.shown, &why).await
                }
                Err(fault) => Err(fault.into()),
            },
            ended = self.signs() => ended,
        }
    }

    /// Says again and again that a contender without a session lives.
    async fn signs(&self) -> Result<()> {
        let Some(lease) = self.waiting.filter(|_| self.session.is_none()) else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(SIGN).await;
            if self.core.leases.show(lease.id, &mut self.patience()).await?.is_none() {
                return Ok(());
            }
        }
    }

    /// Refuses to wait if that would never end.
    async fn look_for_circle(&self, seen: &Seen) -> Result<()> {
        let session = self.session.unwrap_or(0);
        if !self.ask.reentrant && !self.core.holds.has(session, self.ask.hold) {
            // Nobody waits for somebody who holds nothing.
            return Ok(());
        }
        let mut patience = self.patience();
        let lines = self.core.all_lines("", Some(seen.revision), &mut patience).await?;
        let own = lines.iter().find_map(|line| Some(line.list[line.find(&self.id)?].token));
        let lines: Vec<_> = lines.iter().map(|line| (&*line.name, &line.list[..])).collect();
        let Some(circle) = own.and_then(|token| circle::find(&lines, token)) else { return Ok(()) };
        let wrong = format!("waiting would never end: {circle}; release one of them first");
        Err(Error::new(ErrorKind::Deadlock, wrong))
    }

    /// Takes away, later, what an attempt that was given up may yet put into the lines.
    fn sweep(&self, but: Option<u64>) {
        let (core, names, id) = (self.core.clone(), self.names.clone(), self.id.clone());
        tokio::spawn(async move {
            tokio::time::sleep(LATE).await;
            let newer = |name: &Arc<str>| {
                came_after(core.keys.head(name, &id), but.unwrap_or(0).cast_signed())
            };
            let newer: Vec<_> = names.iter().map(newer).collect();
            let txn = Txn::when(newer, core.deletes(&names, &id), Vec::new());
            if let Err(fault) = core.server.txn(&mut Patience::usual(), txn).await {
                tracing::warn!(lock = %names[0], ?fault, "it may stand in line; its lease ends it");
            }
        });
    }

    /// Leaves no trace in the lines.
    async fn withdraw(&mut self) {
        if self.entered {
            let mut patience = Patience::usual();
            let txn = Txn::of(self.core.deletes(&self.names, &self.id));
            if let Err(fault) = self.core.server.txn(&mut patience, txn).await {
                let (lock, error) = (&self.names[0], Error::from(fault));
                tracing::warn!(%lock, %error, "a waiter could not leave; its lease ends it");
                self.doubt = true;
            }
            if self.doubt {
                self.sweep(None);
            }
        }
        for lease in [self.lease.take(), self.waiting.take()].into_iter().flatten() {
            match self.doubt {
                true => self.core.leases.end(lease.id),
                false => self.core.leases.take_back(lease),
            }
        }
    }
}

/// Takes away what is left of holds that ended with their sessions.
fn buries(seen: &Seen) -> Vec<Op> {
    // Some at a time: a transaction has 128 parts, and those of 64 locks that are bound.
    let room = 128_usize.saturating_sub(2 * seen.lines.len());
    let corpses = seen.lines.iter().flat_map(|line| &line.corpses).take(room);
    corpses.map(|key| delete(key.clone())).collect()
}

/// The refusal of somebody who does not wait.
fn busy(seen: &Seen, own: &str) -> Error {
    let others = |line: &&Line| line.list.iter().any(|other| other.id != own);
    let Some(line) = seen.lines.iter().find(others) else {
        return Error::new(ErrorKind::Busy, "it is held; wait for it or try later");
    };
    let (name, token) = (&line.name, line.list[0].token);
    let wrong = format!(
        "lock {name} is held with token {token}, {} more stand in line; wait for it or try later",
        line.list.len() - 1
    );
    Error::new(ErrorKind::Busy, wrong)
}
