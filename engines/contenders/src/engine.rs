//! The engine over a book: one method for each thing that can be asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_api::engine::{
    Acquire, Grant, HoldRef, HolderView, List, Listed, LockEngine, LockView, OpenSession, Register,
    RegisterView, Session, SessionRef, WaiterView, Write,
};
use leasehold_api::{Error, ErrorKind, Guarantees, Result};
use tokio::time::Instant;

use crate::lines::{Lines, Patience, Step, carry_out, change, read};
use crate::turns::{Turns, Who};
use crate::{Book, Contender, InHand, Key, Seen, Sessions, Space, Watch, acquire, limits, line};

/// Waiters shown of one lock.
const SHOWN: usize = 1000;
/// How long a watch that nothing ends sleeps before it looks again.
const WATCH: Duration = Duration::from_secs(60);

/// A time in the store's unit.
pub(crate) fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Locks, sessions and registers over a [`Book`].
#[derive(Clone)]
pub struct LineEngine<B: Book> {
    inner: Arc<Inner<B>>,
}

/// What tasks share.
pub(crate) struct Inner<B: Book> {
    pub book: Arc<B>,
    pub sessions: Arc<Sessions>,
    in_hand: Option<Arc<dyn InHand>>,
    /// Lines as they were when a hold was last written, by token: mostly nobody has come since,
    /// and a release takes one round trip. A wrong memory costs nothing.
    remembered: Mutex<HashMap<u64, Lines>>,
    pub turns: Turns,
}

/// The refusal of a hold that is not there any more.
fn stale(hold: &HoldRef) -> Error {
    let wrong = format!(
        "lock {} is not held with token {} any more; stop working under it",
        hold.name, hold.token
    );
    Error::new(ErrorKind::Stale, wrong)
}

impl<B: Book> LineEngine<B> {
    /// Over a book, with sessions that an engine's queues share.
    pub fn new(book: Arc<B>, sessions: Arc<Sessions>, in_hand: Option<Arc<dyn InHand>>) -> Self {
        let (remembered, turns) = (Mutex::default(), Turns::default());
        Self { inner: Arc::new(Inner { book, sessions, in_hand, remembered, turns }) }
    }

    /// Forgets what is remembered of a hold that was released by other means, such as a commit.
    pub fn released(&self, hold: &HoldRef) {
        self.inner.forget(hold.token);
        self.inner.unbind(hold);
    }
}

impl<B: Book> Inner<B> {
    pub fn remember(&self, token: u64, lines: Lines) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.insert(token, lines);
    }

    fn recall(&self, token: u64) -> Option<Lines> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).get(&token).cloned()
    }

    /// A hold has ended without a release: its bell goes too.
    async fn lost(&self, token: u64) {
        let lines = self.recall(token);
        self.forget(token);
        let list = lines.iter().flat_map(|lines| &lines.lines).flat_map(|line| &line.list);
        if let Some(own) = list.into_iter().find(|own| own.token == token) {
            self.book.take_down(&own.id).await;
        }
    }

    fn forget(&self, token: u64) {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).remove(&token);
    }

    fn unbind(&self, hold: &HoldRef) {
        if let Some(session) = &hold.session
            && let Ok(state) = self.sessions.find(session.id)
        {
            state.unbind(&hold.name, hold.token);
        }
    }

    /// The locks that a hold covers.
    async fn covered(&self, hold: &HoldRef, patience: &mut Patience) -> Result<Lines> {
        let names = [hold.name.clone()];
        let lines = match self.recall(hold.token) {
            Some(lines) if lines.lines.iter().any(|line| line.name == hold.name) => {
                return Ok(lines);
            }
            _ => read(&*self.book, &names, patience).await?,
        };
        let own = lines.lines[0].list.iter().find(|own| own.token == hold.token);
        match own.map(|own| &own.with) {
            Some(with) if !with.is_empty() => {
                let names: Vec<Arc<str>> = with.iter().map(|name| name.as_str().into()).collect();
                read(&*self.book, &names, patience).await
            }
            _ => Ok(lines),
        }
    }

    /// Does something with a hold in all its lines.
    async fn with_hold<R>(
        &self,
        hold: &HoldRef,
        mut with: impl FnMut(&mut Lines, usize) -> R,
        if_gone: Option<R>,
        who: Option<Who>,
    ) -> Result<(R, Lines)>
    where
        R: Clone,
    {
        limits::name(&hold.name)?;
        let mut patience = Patience::usual();
        let lines = self.covered(hold, &mut patience).await?;
        let at = lines.lines.iter().position(|line| line.name == hold.name).unwrap_or(0);
        let session = hold.session.as_ref().map_or(0, |session| session.id);
        let step = |lines: &mut Lines, maybe_done: bool| {
            let (list, now) = (&lines.lines[at].list, lines.now);
            let place = list.iter().position(|own| own.token == hold.token);
            let Some(place) = place.filter(|place| !list[*place].is_over(now)) else {
                return match &if_gone {
                    Some(answer) if maybe_done => Ok(Step::Leave(answer.clone())),
                    _ => Err(stale(hold)),
                };
            };
            if !list[place].is(session, hold.hold) {
                let wrong = format!("token {} of lock {} is another's", hold.token, hold.name);
                return Err(Error::new(ErrorKind::Foreign, wrong));
            }
            if !line::holds(list, place, now) {
                return Err(stale(hold));
            }
            // What was over in the meantime is not revived, even if nobody has taken it.
            let until = list[place].until();
            Ok(Step::Before(until, with(lines, place)))
        };
        change(self, lines, &mut patience, who, step).await
    }

    async fn renew(&self, hold: &HoldRef, ttl: Duration) -> Result<()> {
        limits::ttl(ttl)?;
        let renewed = |lines: &mut Lines, _: usize| {
            for own in own(lines, hold.token) {
                (own.renewed, own.lasts) = (0, Some(us(ttl)));
            }
        };
        let result = self.with_hold(hold, renewed, None, None).await;
        match result {
            Ok(((), lines)) => {
                self.remember(hold.token, lines);
                Ok(())
            }
            Err(error) => {
                if error.kind == ErrorKind::Stale {
                    self.lost(hold.token).await;
                }
                Err(error)
            }
        }
    }

    /// The turn of something that has a task of its own, or goes its way. Whatever runs in its
    /// caller's task takes none: it would keep it for as long as nobody polls it.
    pub fn inside(&self) -> Option<Who> {
        (!self.book.goes_its_way()).then_some(Who::Inside)
    }

    /// Leaves a hold once, or ends it; gives the entries left.
    async fn leave(&self, hold: &HoldRef, wholly: bool) -> Result<u32> {
        let mut bell = None;
        let left = |lines: &mut Lines, place: usize| {
            let at = lines.lines.iter().position(|line| line.name == hold.name).unwrap_or(0);
            let first = &lines.lines[at].list[place];
            let left = if wholly { 0 } else { first.entries - 1 };
            bell = Some(first.id.clone());
            match left {
                0 => lines.lines.iter_mut().for_each(|line| {
                    line.list.retain(|own| own.token != hold.token);
                }),
                _ => own(lines, hold.token).for_each(|own| own.entries = left),
            }
            left
        };
        let (left, lines) = match self.with_hold(hold, left, Some(0), self.inside()).await {
            Ok(done) => done,
            Err(error) => {
                if error.kind == ErrorKind::Stale {
                    self.lost(hold.token).await;
                    self.unbind(hold);
                }
                return Err(error);
            }
        };
        if left > 0 {
            self.remember(hold.token, lines);
            return Ok(left);
        }
        self.forget(hold.token);
        self.unbind(hold);
        if let Some(bell) = bell {
            self.book.take_down(&bell).await;
        }
        Ok(0)
    }

    /// Releases what was granted to somebody who has gone.
    pub async fn give_back(&self, hold: &HoldRef) {
        match self.leave(hold, false).await {
            Err(error) if error.kind != ErrorKind::Stale => {
                tracing::warn!(lock = %hold.name, %error, "not given back; it ends by its TTL");
            }
            _ => {}
        }
    }

    /// Says for everything that ends with a session that it lives.
    async fn keep_bound(&self, session: &SessionRef) -> Result<()> {
        let state = self.sessions.find(session.id)?;
        for (name, token) in state.bound() {
            let alive = |lines: &mut Lines, _: bool| {
                let now = lines.now;
                let mut found = false;
                for own in own(lines, token).filter(|own| !own.is_over(now)) {
                    own.session_renewed = 0;
                    found = true;
                }
                Ok(if found { Step::Write(true) } else { Step::Leave(false) })
            };
            let mut patience = Patience::usual();
            let hold = HoldRef { name: name.clone(), token, hold: 0, session: None };
            let lines = self.covered(&hold, &mut patience).await?;
            let who = Some(Who::Inside);
            let (found, lines) = change(self, lines, &mut patience, who, alive).await?;
            match found {
                true => self.remember(token, lines),
                false => state.unbind(&name, token),
            }
        }
        Ok(())
    }

    async fn force_release(&self, name: &Arc<str>) -> Result<u32> {
        let mut patience = Patience::usual();
        let mut names = vec![name.clone()];
        loop {
            let mut wider: Vec<Arc<str>> = Vec::new();
            let mut bells = Vec::new();
            let step = |lines: &mut Lines, _: bool| {
                let (first, now) = (&lines.lines[0], lines.now);
                let places = (0..first.list.len()).filter(|place| {
                    line::holds(&first.list, *place, now) && !first.list[*place].is_over(now)
                });
                let held: Vec<&Contender> = places.map(|place| &first.list[place]).collect();
                let with = held.iter().flat_map(|own| &own.with);
                wider = with.map(|name| name.as_str().into()).collect();
                wider.retain(|name| !names.contains(name));
                let tokens: Vec<u64> = held.iter().map(|own| own.token).collect();
                bells = held.iter().map(|own| own.id.clone()).collect();
                if tokens.is_empty() || !wider.is_empty() {
                    return Ok(Step::Leave(0));
                }
                for line in &mut lines.lines {
                    line.list.retain(|own| !tokens.contains(&own.token));
                }
                Ok(Step::Write(tokens.len() as u32))
            };
            let lines = read(&*self.book, &names, &mut patience).await?;
            let (count, _) = change(self, lines, &mut patience, None, step).await?;
            if wider.is_empty() {
                for bell in bells {
                    self.book.take_down(&bell).await;
                }
                return Ok(count);
            }
            names.extend(wider);
        }
    }

    async fn look(&self, name: &str) -> Result<Lines> {
        limits::name(name)?;
        read(&*self.book, &[name.into()], &mut Patience::usual()).await
    }
}

/// A hold in all its lines.
fn own(lines: &mut Lines, token: u64) -> impl Iterator<Item = &mut Contender> {
    lines
        .lines
        .iter_mut()
        .flat_map(move |line| line.list.iter_mut().filter(move |own| own.token == token))
}

/// A line as people see it.
fn view(name: &str, list: &[Contender], now: u64) -> LockView {
    let mut view = LockView { name: name.to_owned(), ..LockView::default() };
    let since = |then: u64| Duration::from_micros(now.saturating_sub(then));
    for (place, one) in list.iter().enumerate() {
        if one.is_over(now) {
            let end = one.out_of_the_way().unwrap_or(now);
            view.delay_left = view.delay_left.max(Duration::from_micros(end.saturating_sub(now)));
        } else if line::holds(list, place, now) {
            view.holders.push(HolderView {
                token: one.token,
                session: one.session,
                mode: one.mode,
                held: since(one.granted.unwrap_or(now)),
                left: one.until().map(|until| Duration::from_micros(until - now)),
                entries: one.entries,
                label: one.label.clone(),
            });
        } else {
            view.waiting += 1;
            if view.waiters.len() < SHOWN {
                view.waiters.push(WaiterView {
                    session: one.session,
                    mode: one.mode,
                    waited: since(one.joined),
                    expected: None,
                    label: one.label.clone(),
                });
            }
        }
    }
    view.holders.reverse();
    view
}

#[async_trait]
impl<B: Book> LockEngine for LineEngine<B> {
    fn guarantees(&self) -> Guarantees {
        self.inner.book.guarantees()
    }

    async fn open_session(&self, ask: &OpenSession) -> Result<Session> {
        self.inner.sessions.open(ask).map_err(|error| error.asking("open a session"))
    }

    async fn keep_alive(&self, session: &SessionRef) -> Result<()> {
        let asked = |error: Error| error.asking(format!("keep session {} alive", session.id));
        let state = self.inner.sessions.keep(session.id).map_err(asked)?;
        self.inner.keep_bound(session).await.map_err(asked)?;
        if let (Some(in_hand), Some(ttl)) = (&self.inner.in_hand, state.ttl) {
            in_hand.kept(session.id, ttl).await.map_err(asked)?;
        }
        Ok(())
    }

    async fn close_session(&self, session: &SessionRef) -> Result<()> {
        let asked = |error: Error| error.asking(format!("close session {}", session.id));
        let state = self.inner.sessions.close(session.id).map_err(asked)?;
        let inner = self.inner.clone();
        let session = session.clone();
        // Once begun it is carried through, also when nobody waits for it any more.
        let closing = tokio::spawn(async move {
            for (name, token) in state.bound() {
                let own = HoldRef { name, token, hold: 0, session: Some(session.clone()) };
                inner.end_bound(&own).await?;
            }
            match &inner.in_hand {
                Some(in_hand) => in_hand.ended(session.id).await,
                None => Ok(()),
            }
        });
        let gone = |_| Err(Error::new(ErrorKind::Broken, "the runtime is shutting down"));
        closing.await.unwrap_or_else(gone).map_err(asked)
    }

    async fn acquire(&self, ask: &Acquire) -> Result<Grant> {
        let names = || ask.wants.iter().map(|want| &*want.name).collect::<Vec<_>>().join(", ");
        let asked = |error: Error| error.asking(format!("acquire lock {}", names()));
        acquire::acquire(&self.inner, ask).await.map_err(asked)
    }

    async fn renew(&self, hold: &HoldRef, ttl: Duration) -> Result<Option<Duration>> {
        let asked = |error: Error| error.asking(format!("renew lock {}", hold.name));
        self.inner.renew(hold, ttl).await.map_err(asked)?;
        Ok(Some(ttl))
    }

    async fn release(&self, hold: &HoldRef) -> Result<u32> {
        let asked = |error: Error| error.asking(format!("release lock {}", hold.name));
        let (inner, hold_again) = (self.inner.clone(), hold.clone());
        // A release that has begun is carried through, or the bell of a contender who has gone
        // might go on hanging.
        let leaving = |_| async move { inner.leave(&hold_again, false).await };
        carry_out(&*self.inner.book, leaving, drop).await.map_err(asked)
    }

    async fn force_release(&self, name: &str) -> Result<u32> {
        let asked = |error: Error| error.asking(format!("force the release of lock {name}"));
        limits::name(name).map_err(asked)?;
        self.inner.force_release(&name.into()).await.map_err(asked)
    }

    async fn check(&self, name: &str, token: u64) -> Result<bool> {
        let asked = |error: Error| error.asking(format!("check token {token} of lock {name}"));
        let lines = self.inner.look(name).await.map_err(asked)?;
        let (list, now) = (&lines.lines[0].list, lines.now);
        let place = list.iter().position(|own| own.token == token && !own.is_over(now));
        Ok(place.is_some_and(|place| line::holds(list, place, now)))
    }

    async fn inspect(&self, name: &str) -> Result<LockView> {
        let asked = |error: Error| error.asking(format!("inspect lock {name}"));
        let lines = self.inner.look(name).await.map_err(asked)?;
        Ok(view(name, &lines.lines[0].list, lines.now))
    }

    async fn watch(&self, name: &str, known: Option<u64>, wait: Duration) -> Result<LockView> {
        let asked = |error: Error| error.asking(format!("watch lock {name}"));
        let until = Instant::now().checked_add(wait);
        let (names, keys) = ([name.into()], [Key::lock(name)]);
        let mut lines = self.inner.look(name).await.map_err(asked)?;
        loop {
            let (line, now) = (&lines.lines[0], lines.now);
            let seen = view(name, &line.list, now);
            let newest = seen.holders.iter().map(|holder| holder.token).max();
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if newest != known || left.is_some_and(|left| left.is_zero()) {
                return Ok(seen);
            }
            let end = line::next_end(&line.list, now).map(|end| Duration::from_micros(end - now));
            let at_most = [left, end, Some(WATCH)].into_iter().flatten().min().unwrap_or(WATCH);
            let version = line.version;
            let same = move |now: &Seen| now.versions().next() == Some(version);
            let going = line.list.first().map(|first| first.id.clone());
            let watch = Watch { keys: &keys, bell: None, going, same: &same };
            lines = match self.inner.book.wait(&watch, at_most).await.map_err(asked)? {
                Some(seen) => Lines::of(&names, &seen).map_err(asked)?,
                None => self.inner.look(name).await.map_err(asked)?,
            };
        }
    }

    async fn list_locks(&self, ask: &List) -> Result<Listed<LockView>> {
        let asked = |error: Error| error.asking(format!("list locks from {:?}", ask.prefix));
        limits::list(ask).map_err(asked)?;
        let prefix = ask.prefix.as_bytes();
        let keys = self.inner.book.list(Space::Lock, prefix, ask.after, ask.max).await;
        let keys = keys.map_err(asked)?;
        let names: Vec<Arc<str>> = keys
            .iter()
            .filter_map(|key| Some(std::str::from_utf8(&key.name).ok()?.into()))
            .collect();
        let next = (keys.len() as u32 == ask.max).then(|| ask.after + ask.max);
        if names.is_empty() {
            return Ok(Listed { items: Vec::new(), next });
        }
        let lines = read(&*self.inner.book, &names, &mut Patience::usual()).await.map_err(asked)?;
        let now = lines.now;
        let views = lines.lines.iter().map(|line| view(&line.name, &line.list, now));
        let items = views.filter(|view| !view.holders.is_empty() || view.waiting > 0).collect();
        Ok(Listed { items, next })
    }

    async fn read(&self, key: &[u8]) -> Result<Option<Register>> {
        self.inner.read_register(key).await
    }

    async fn write(&self, ask: &Write) -> Result<u64> {
        self.inner.write_register(ask).await
    }

    async fn watch_register(
        &self,
        key: &[u8],
        known: Option<u64>,
        wait: Duration,
    ) -> Result<Option<Register>> {
        self.inner.watch_register(key, known, wait).await
    }

    async fn list_registers(&self, ask: &List) -> Result<Listed<RegisterView>> {
        self.inner.list_registers(ask).await
    }
}

impl<B: Book> Inner<B> {
    /// Ends a hold with its session, whoever in the session has it.
    async fn end_bound(&self, hold: &HoldRef) -> Result<()> {
        let mut patience = Patience::usual();
        let lines = self.covered(hold, &mut patience).await?;
        let mut bells = Vec::new();
        let step = |lines: &mut Lines, _: bool| {
            let mine = own(lines, hold.token).map(|own| own.id.clone());
            bells = mine.collect::<Vec<_>>();
            for line in &mut lines.lines {
                line.list.retain(|own| own.token != hold.token);
            }
            Ok(if bells.is_empty() { Step::Leave(()) } else { Step::Write(()) })
        };
        change(self, lines, &mut patience, Some(Who::Inside), step).await?;
        self.forget(hold.token);
        for bell in bells {
            self.book.take_down(&bell).await;
        }
        Ok(())
    }
}
