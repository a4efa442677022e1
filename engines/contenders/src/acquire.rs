//! Taking locks: into the line, wait, know that it is one's turn.
//!
//! Most locks are free, so an acquire comes into the line in its caller's task if the book allows;
//! one that has to wait does so in a task of its own. When the caller goes the contender is taken
//! out of the line again, and a grant on its way to a caller who has gone goes back. While it waits
//! it shows three times within its lease that it lives, and it looks again when a bell rings, when
//! somebody's time is over, and at nothing else.

use std::sync::Arc;
use std::time::Duration;

use leasehold_api::engine::{Acquire, Gone, Grant, HoldRef, Mode, apart};
use leasehold_api::{Error, ErrorKind, Result, Wait};
use tokio::time::Instant;

use crate::bell::{self, Awaited, Bell, LOOK};
use crate::engine::{Inner, us};
use crate::lines::{Line, Lines, PATIENCE, Patience, Step, carry_out, change, read};
use crate::turns::Who;
use crate::{Book, Contender, Key, Seen, SessionState, Watch, limits, line, operation};

/// How long a contender without a session stands in line without a sign of life.
const WAITING: Duration = Duration::from_secs(10);
/// Signs of life within that.
const SIGNS: u32 = 3;

/// Takes locks, all or none.
pub(crate) async fn acquire<B: Book>(inner: &Arc<Inner<B>>, ask: &Acquire) -> Result<Grant> {
    limits::acquire(ask)?;
    let session = match &ask.session {
        Some(session) => Some(inner.sessions.find(session.id)?),
        None => None,
    };
    let id = match ask.request {
        Some(request) => format!("{:032x}", request.0),
        None => operation()?,
    };
    let asked = Instant::now();
    let acquiring = Acquiring {
        names: ask.wants.iter().map(|want| want.name.clone()).collect(),
        patience: Patience::until(patience(asked, ask.wait)),
        inner: inner.clone(),
        ask: ask.clone(),
        session,
        id,
        asked,
        gone: Gone::never(),
    };
    let give = inner.clone();
    let begin = |gone| Acquiring { gone, ..acquiring }.begin();
    let begun = carry_out(&*inner.book, begin, move |begun| match begun {
        Begun::Holds(grant) => give_back(give, grant),
        Begun::Waits(mut acquiring, _) => {
            tokio::spawn(async move { acquiring.withdraw().await });
        }
    });
    let (acquiring, lines) = match begun.await? {
        Begun::Holds((grant, _)) => return Ok(grant),
        Begun::Waits(acquiring, lines) => (acquiring, lines),
    };
    let give = inner.clone();
    let work = move |gone| Acquiring { gone, ..*acquiring }.wait_for_turn(lines);
    apart(work, |grant| give_back(give, grant)).await.map(|(grant, _)| grant)
}

fn give_back<B: Book>(inner: Arc<Inner<B>>, (_, hold): Granted) {
    tokio::spawn(async move { inner.give_back(&hold).await });
}

/// Until when an engine out of reach is waited for.
fn patience(asked: Instant, wait: Wait) -> Option<Instant> {
    match wait {
        Wait::No => Some(asked + PATIENCE),
        Wait::AtMost(wait) => asked.checked_add(wait.max(PATIENCE)),
        Wait::Forever => None,
    }
}

/// A grant, and the hold that gives it back.
type Granted = (Grant, HoldRef);

/// Where a contender is that has come.
enum Begun<B: Book> {
    Holds(Granted),
    /// It stands in these lines.
    Waits(Box<Acquiring<B>>, Lines),
}

struct Acquiring<B: Book> {
    inner: Arc<Inner<B>>,
    ask: Acquire,
    names: Vec<Arc<str>>,
    session: Option<Arc<SessionState>>,
    /// Names the contender.
    id: String,
    asked: Instant,
    patience: Patience,
    /// Ends when the caller goes.
    gone: Gone,
}

/// Where the contender stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It holds, with this token, entered so often.
    Holds(u64, u32),
    /// It waits.
    Waits,
    /// It is in no line.
    Out,
}

impl<B: Book> Acquiring<B> {
    /// Comes into the lines.
    async fn begin(mut self) -> Result<Begun<B>> {
        self.inner.book.hang(&self.id).await?;
        // In its caller's task it might keep its turn for as long as nobody polls it.
        let who = if self.inner.book.goes_its_way() { None } else { self.comer() };
        match self.join_first(who).await {
            Ok((Standing::Holds(token, entries), lines)) => {
                Ok(Begun::Holds(self.granted(token, entries, lines)))
            }
            Ok((_, lines)) => Ok(Begun::Waits(Box::new(self), lines)),
            Err(error) => {
                self.withdraw().await;
                Err(error)
            }
        }
    }

    async fn join_first(&mut self, who: Option<Who>) -> Result<(Standing, Lines)> {
        let guess = match self.ask.reentrant {
            true => read(&*self.inner.book, &self.names, &mut self.patience).await?,
            false => Lines::empty(&self.names),
        };
        self.join(guess, who).await
    }

    /// Waits in the lines until it holds.
    async fn wait_for_turn(mut self, lines: Lines) -> Result<Granted> {
        match self.take(lines).await {
            Ok((token, entries, lines)) => Ok(self.granted(token, entries, lines)),
            Err(error) => {
                self.withdraw().await;
                Err(error)
            }
        }
    }

    fn granted(self, token: u64, entries: u32, lines: Lines) -> Granted {
        let name = self.names[0].clone();
        if let Some(session) = self.session.as_ref().filter(|_| self.ask.bound) {
            session.bind(name.clone(), token);
        }
        let left = self.ask.ttl;
        let hold = HoldRef { name, token, hold: self.ask.hold, session: self.ask.session };
        if entries > 1 {
            // It is the first entry's bell that hangs.
            let (inner, id) = (self.inner.clone(), self.id);
            tokio::spawn(async move { inner.book.take_down(&id).await });
        }
        self.inner.remember(token, lines);
        let grant = Grant { token, left, entries, ended: None };
        (grant, hold)
    }

    async fn take(&mut self, mut lines: Lines) -> Result<(u64, u32, Lines)> {
        loop {
            let mut standing;
            let looked = match stands(&lines, &self.id) {
                // Its turn came while it came.
                Standing::Holds(..) => lines,
                _ => match self.wait(&lines).await? {
                    Some(looked) => looked,
                    None => read(&*self.inner.book, &self.names, &mut self.patience).await?,
                },
            };
            (standing, lines) = self.look(looked).await?;
            if standing == Standing::Out {
                // It showed no sign of life for too long, or an operator sent all away.
                (standing, lines) = self.join(lines, self.comer()).await?;
            }
            if let Standing::Holds(token, entries) = standing {
                return Ok((token, entries, lines));
            }
        }
    }

    /// Whose turn it waits for. Who does not wait for the lock is written down once at most.
    fn comer(&self) -> Option<Who> {
        let (gone, asked, wait) = (self.gone.clone(), self.asked, self.ask.wait);
        (wait != Wait::No).then_some(Who::Comer { gone, asked, wait })
    }

    /// Puts the contender into the lines.
    async fn join(&mut self, guess: Lines, who: Option<Who>) -> Result<(Standing, Lines)> {
        let new = self.contender();
        let (ask, id) = (&self.ask, &self.id);
        // Who may enter a hold again must see whether it is there, and who comes into several lines
        // comes into all at one moment.
        let appends = !ask.reentrant && self.names.len() == 1;
        let step = |lines: &mut Lines, maybe_done: bool| {
            if maybe_done && let Some(standing) = came(lines, id) {
                return Ok(Step::Leave(standing));
            }
            if ask.reentrant
                && let Some(entered) = enter(lines, ask)?
            {
                return Ok(entered);
            }
            let now = lines.now;
            let mut room = true;
            for (line, want) in lines.lines.iter().zip(&ask.wants) {
                line::agree(&line.name, &line.list, want.mode, now)?;
                if line.list.len() >= limits::LINE_MAX {
                    let wrong = format!("{} stand in line for lock {}", line.list.len(), line.name);
                    return Err(Error::new(ErrorKind::Full, wrong));
                }
                let free = line::has_room(&line.list, want.mode, now);
                if !free && ask.wait == Wait::No {
                    return Err(busy(&line.name, &line.list));
                }
                room &= free;
            }
            for (line, want) in lines.lines.iter_mut().zip(&ask.wants) {
                let mut new = Contender { mode: want.mode, ..new.clone() };
                if room {
                    (new.granted, new.lasts) = (Some(0), ask.ttl.map(us));
                }
                line.list.push(new);
            }
            Ok(match room {
                true => Step::Write(Standing::Holds(0, 1)),
                false if appends => Step::Append(Standing::Waits),
                false => Step::Write(Standing::Waits),
            })
        };
        let (standing, lines) = change(&self.inner, guess, &mut self.patience, who, step).await?;
        let standing = match standing {
            // The token is the version of the write.
            Standing::Holds(0, _) => stands(&lines, &self.id),
            standing => standing,
        };
        Ok((standing, lines))
    }

    /// The contender as it comes into a line.
    fn contender(&self) -> Contender {
        let several = self.names.len() > 1;
        let with = self.names.iter().filter(|_| several).map(|name| name.to_string()).collect();
        let session = self.session.as_ref();
        let bound = session.filter(|_| self.ask.bound).and_then(|session| session.ttl);
        Contender {
            id: self.id.clone(),
            token: 0,
            session: session.map_or(0, |session| session.id),
            hold: self.ask.hold,
            mode: Mode::Exclusive,
            with,
            entries: 1,
            label: self.ask.label.as_ref().map(|label| label.to_string()),
            joined: 0,
            granted: None,
            renewed: 0,
            lasts: Some(us(self.lease())),
            session_lasts: bound.map(us),
            session_renewed: 0,
            delay: us(self.ask.lock_delay),
        }
    }

    /// How long it stands in line without a sign of life.
    fn lease(&self) -> Duration {
        self.session.as_ref().and_then(|session| session.ttl).unwrap_or(WAITING)
    }

    /// Waits until it is worth looking again; gives the lines if they were read.
    async fn wait(&mut self, lines: &Lines) -> Result<Option<Lines>> {
        let mut at_most = (self.lease() / SIGNS).min(LOOK);
        let awaited = awaited(lines, &self.id);
        if let Some(end) = awaited.as_ref().and_then(|awaited| awaited.until) {
            // The store counts in microseconds and "over" begins at the deadline itself.
            at_most = at_most.min(Duration::from_micros(end.saturating_sub(lines.now) + 1));
        }
        if let Wait::AtMost(wait) = self.ask.wait {
            let left = wait.checked_sub(self.asked.elapsed()).filter(|left| !left.is_zero());
            let Some(left) = left else { return Err(too_late(self.ask.wait)) };
            at_most = at_most.min(left);
        }
        let keys: Vec<Key> = lines.lines.iter().map(|line| Key::lock(&line.name)).collect();
        // Others may come and go: it is the same as long as it waits for the same one, until the
        // same time or longer. What cannot be read is looked at by the caller.
        let same = |seen: &Seen| {
            let now =
                Lines::of(&self.names, seen).ok().and_then(|now| self::awaited(&now, &self.id));
            match (&now, &awaited) {
                (Some(now), Some(then)) => {
                    let until = |one: &Awaited| one.until.unwrap_or(u64::MAX);
                    now.bell == then.bell && until(now) >= until(then)
                }
                _ => false,
            }
        };
        let bell = awaited.as_ref().and_then(|awaited| awaited.bell.clone());
        let going = bell.as_ref().map(|Bell(id)| id.clone());
        let watch = Watch { keys: &keys, bell, going, same: &same };
        let session_over = async {
            match &self.session {
                Some(session) => session.over().await,
                None => std::future::pending().await,
            }
        };
        let mut gone = self.gone.clone();
        let waited = tokio::select! {
            biased;
            () = gone.wait() => return Err(Gone::cancelled()),
            () = session_over => {
                let wrong = "the session ended while it waited; open a new one and ask again";
                return Err(Error::new(ErrorKind::NoSession, wrong));
            }
            waited = self.inner.book.wait(&watch, at_most) => waited,
        };
        match waited {
            Ok(seen) => {
                self.patience = Patience::until(patience(self.asked, self.ask.wait));
                seen.map(|seen| Lines::of(&self.names, &seen)).transpose()
            }
            Err(error) => self.patience.after(error).await.map(|()| None),
        }
    }

    /// Finds out where the contender stands, and writes down that it is alive, or that it holds.
    async fn look(&mut self, lines: Lines) -> Result<(Standing, Lines)> {
        let (id, ttl, lease) = (self.id.clone(), self.ask.ttl.map(us), self.lease());
        let step = |lines: &mut Lines, _: bool| {
            let standing = stands(lines, &id);
            let now = lines.now;
            let mut waits_well = standing == Standing::Waits;
            for line in &mut lines.lines {
                let Some(own) = line.list.iter_mut().find(|own| own.id == id) else { continue };
                match standing {
                    Standing::Holds(..) => {
                        (own.granted, own.lasts) = (Some(0), ttl);
                        (own.renewed, own.session_renewed) = (0, 0);
                    }
                    // A sign of life is due when a third of the lease is over.
                    _ if now.saturating_sub(own.renewed) >= us(lease / SIGNS) => {
                        own.renewed = 0;
                        waits_well = false;
                    }
                    _ => {}
                }
            }
            match standing {
                Standing::Out => Ok(Step::Leave(standing)),
                _ if waits_well => Ok(Step::Leave(standing)),
                _ => Ok(Step::Write(standing)),
            }
        };
        change(&self.inner, lines, &mut self.patience, Some(Who::Inside), step).await
    }

    /// Leaves no trace in the lines.
    async fn withdraw(&mut self) {
        let id = self.id.clone();
        let mut patience = Patience::until(Instant::now().checked_add(self.lease()));
        let step = |lines: &mut Lines, _: bool| {
            let mut was_there = false;
            for line in &mut lines.lines {
                let count = line.list.len();
                line.list.retain(|other| other.id != id);
                was_there |= line.list.len() != count;
            }
            Ok(if was_there { Step::Write(()) } else { Step::Leave(()) })
        };
        let gone = match read(&*self.inner.book, &self.names, &mut patience).await {
            Ok(lines) => {
                change(&self.inner, lines, &mut patience, self.inner.inside(), step).await.map(drop)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = gone {
            let name = &self.names[0];
            tracing::warn!(lock = %name, %error, "a waiter could not leave; its lease ends it");
        }
        self.inner.book.take_down(&self.id).await;
    }
}

/// What a contender waits for; `None`: it stands in none, or not in all lines.
fn awaited(lines: &Lines, id: &str) -> Option<Awaited> {
    let place = |line: &Line| line.list.iter().position(|other| other.id == id);
    let stands = lines.lines.iter().filter_map(|line| Some((&line.list[..], place(line)?)));
    let stands: Vec<_> = stands.collect();
    if stands.len() < lines.lines.len() {
        return None;
    }
    // Who is over itself, and still in the way, waits for that to pass.
    let passes = || lines.lines.iter().filter_map(|line| line::next_end(&line.list, lines.now));
    let over = || Awaited { bell: None, until: passes().min() };
    Some(bell::awaited_in(&stands, lines.now).unwrap_or_else(over))
}

/// Where a contender stands: it holds when it does so in every line.
fn stands(lines: &Lines, id: &str) -> Standing {
    let mut found = None;
    let mut all = true;
    for line in &lines.lines {
        let Some(place) = line.list.iter().position(|other| other.id == id) else {
            return Standing::Out;
        };
        all &= line::holds(&line.list, place, lines.now) && !line.list[place].is_over(lines.now);
        found = Some(&line.list[place]);
    }
    match found {
        Some(own) if all => Standing::Holds(own.token, own.entries),
        Some(_) => Standing::Waits,
        None => Standing::Out,
    }
}

/// Where a contender stands that may have come without hearing of it; `None`: it has not. Whose
/// turn has come since must still write that it holds: until then it stays for as long as one who
/// waits.
fn came(lines: &Lines, id: &str) -> Option<Standing> {
    let own = |line: &Line| line.list.iter().any(|own| own.id == id && own.granted.is_some());
    match stands(lines, id) {
        Standing::Out => None,
        Standing::Holds(..) if !lines.lines.iter().all(own) => Some(Standing::Waits),
        standing => Some(standing),
    }
}

/// Enters a hold again that the same session and number have.
fn enter(lines: &mut Lines, ask: &Acquire) -> Result<Option<Step<Standing>>> {
    let session = ask.session.as_ref().map_or(0, |session| session.id);
    let now = lines.now;
    let first = &lines.lines[0];
    let place = first.list.iter().position(|own| own.is(session, ask.hold) && !own.is_over(now));
    let Some(place) = place.filter(|place| line::holds(&first.list, *place, now)) else {
        return Ok(None);
    };
    let own = &first.list[place];
    let (token, entries) = (own.token, own.entries + 1);
    if own.mode != ask.wants[0].mode || own.with.len() > 1 && own.with.len() != ask.wants.len() {
        let wrong = "the hold to enter again covers other locks, or holds them otherwise";
        return Err(Error::new(ErrorKind::Different, wrong));
    }
    if entries > limits::ENTRIES_MAX {
        let wrong = format!("it is entered {} times already", own.entries);
        return Err(Error::new(ErrorKind::Full, wrong));
    }
    for line in &mut lines.lines {
        let own = line.list.iter_mut().find(|own| own.is(session, ask.hold) && own.token == token);
        let Some(own) = own else {
            let wrong = "the hold to enter again does not cover all these locks";
            return Err(Error::new(ErrorKind::Different, wrong));
        };
        (own.entries, own.lasts) = (entries, ask.ttl.map(us));
        (own.renewed, own.session_renewed) = (0, 0);
    }
    Ok(Some(Step::Write(Standing::Holds(token, entries))))
}

/// The refusal of somebody who has waited for as long as it would.
pub fn too_late(wait: Wait) -> Error {
    let wait = match wait {
        Wait::AtMost(wait) => wait,
        Wait::No | Wait::Forever => Duration::ZERO,
    };
    let wrong = format!("it was not free within {wait:?}; wait longer or try later");
    Error::new(ErrorKind::TimedOut, wrong)
}

/// The refusal of somebody who does not wait.
fn busy(name: &str, line: &[Contender]) -> Error {
    let wrong = match line.first() {
        Some(first) if line.len() == 1 => {
            format!("lock {name} is held with token {}; wait for it or try later", first.token)
        }
        Some(first) => format!(
            "lock {name} is held with token {}, {} more stand in line; wait for it or try later",
            first.token,
            line.len() - 1
        ),
        None => format!("lock {name} is held; wait for it or try later"),
    };
    Error::new(ErrorKind::Busy, wrong)
}
