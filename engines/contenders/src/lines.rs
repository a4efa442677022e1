//! Reading lines, changing them, writing them back until nothing came between.

use std::sync::Arc;
use std::time::Duration;

use leasehold_api::engine::{Gone, apart, seen_through};
use leasehold_api::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep_until};

use crate::bell::{self, Rung};
use crate::engine::Inner;
use crate::turns::{Turn, Who};
use crate::{Book, Change, Contender, Key, Seen, Swapped, To, contender, jittered};

/// How long an engine that is out of reach is waited for, where nobody says how long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// The first pause before asking again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How often who comes may fail to write before it waits for its turn among all processes. Once is
/// for the guess, once for somebody who was faster by chance.
const FAILURES: u32 = 3;
/// How long it waits for that.
const TURN: Duration = Duration::from_secs(1);

/// One line and the version of its entry; 0: it has none.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub name: Arc<str>,
    pub version: u64,
    pub list: Vec<Contender>,
}

/// Lines as they were at one moment of the store.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    pub lines: Vec<Line>,
    pub now: u64,
}

/// What is to be done with lines.
pub(crate) enum Step<R> {
    /// Nothing.
    Leave(R),
    /// They are to be written.
    Write(R),
    /// They are to be written before this time of the store, or looked at again.
    Before(Option<u64>, R),
    /// All that is new is the last of the only line, and it need not know who else is there when it
    /// is written.
    Append(R),
}

impl Lines {
    /// A guess: nobody is there. It may be wrong, and is worth a try, as most locks are free.
    pub fn empty(names: &[Arc<str>]) -> Self {
        let line = |name: &Arc<str>| Line { name: name.clone(), version: 0, list: Vec::new() };
        Self { lines: names.iter().map(line).collect(), now: 0 }
    }

    /// Reads entries as lines.
    pub fn of(names: &[Arc<str>], seen: &Seen) -> Result<Self> {
        let line = |(name, entry): (&Arc<str>, &Option<crate::Entry>)| {
            let list = entry.as_ref().map_or(Ok(Vec::new()), contender::read);
            let version = entry.as_ref().map_or(0, |entry| entry.version);
            let asked = |error: Error| error.asking(format!("read the line of lock {name}"));
            Ok(Line { name: name.clone(), version, list: list.map_err(asked)? })
        };
        let lines = names.iter().zip(&seen.entries).map(line).collect::<Result<_>>()?;
        Ok(Self { lines, now: seen.now })
    }

    /// Takes out who is in nobody's way any more.
    pub fn prune(&mut self) {
        let now = self.now;
        for line in &mut self.lines {
            line.list.retain(|contender| contender.blocks(now));
        }
    }

    /// The names.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.lines.iter().map(|line| line.name.clone()).collect()
    }

    /// What must be written to get here from how they were.
    pub fn changes(&self, before: &Self) -> Vec<Change> {
        let change = |(line, before): (&Line, &Line)| {
            let to = match line.list.is_empty() {
                _ if line.list == before.list => To::Same,
                true if before.version == 0 => To::Same,
                true => To::Nothing,
                false => {
                    let value = contender::write(&line.list);
                    To::Value { value, lasts: self.lasts(line) }
                }
            };
            let Rung { bells, any: ring } = match to {
                To::Same => Rung::default(),
                _ => bell::rung(&before.list, &line.list, self.now),
            };
            Change { key: Key::lock(&line.name), expect: line.version, to, ring, bells }
        };
        self.lines.iter().zip(&before.lines).map(change).collect()
    }

    /// How long a line means anything.
    fn lasts(&self, line: &Line) -> Option<Duration> {
        let ends = line.list.iter().map(|contender| {
            let renewed = if contender.renewed == 0 { self.now } else { contender.renewed };
            let lasts = contender.lasts?.saturating_add(contender.delay);
            Some(renewed.saturating_add(lasts).saturating_sub(self.now))
        });
        let all: Option<Vec<u64>> = ends.collect();
        all.and_then(|ends| ends.into_iter().max()).map(Duration::from_micros)
    }

    /// Notes what the store gave to a write.
    fn written(&mut self, version: u64, now: u64, changes: &[Change]) {
        self.now = now;
        for (line, change) in self.lines.iter_mut().zip(changes) {
            contender::resolve(&mut line.list, version, now);
            match change.to {
                To::Same => {}
                To::Value { .. } => line.version = version,
                To::Nothing => line.version = 0,
            }
        }
    }
}

/// How long an engine out of reach is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    until: Option<Instant>,
    pause: Duration,
}

impl Patience {
    pub fn usual() -> Self {
        Self::until(Some(Instant::now() + PATIENCE))
    }

    pub fn until(until: Option<Instant>) -> Self {
        Self { until, pause: PAUSES.0 }
    }

    /// Waits before the next try; the error when there is none.
    pub async fn after(&mut self, error: Error) -> Result<()> {
        let now = Instant::now();
        if error.kind != ErrorKind::Unavailable || self.until.is_some_and(|until| until <= now) {
            return Err(error);
        }
        let next = now + jittered(self.pause);
        self.pause = (self.pause * 2).min(PAUSES.1);
        sleep_until(self.until.map_or(next, |until| until.min(next))).await;
        Ok(())
    }
}

/// Does something that takes a few round trips, and sees it through when its caller goes: then what
/// it brings is given back.
pub(crate) async fn carry_out<B: Book, T: Send + 'static, W>(
    book: &B,
    work: impl FnOnce(Gone) -> W + Send,
    give_back: impl FnOnce(T) + Send + 'static,
) -> Result<T>
where
    W: Future<Output = Result<T>> + Send + 'static,
{
    match book.goes_its_way() {
        true => seen_through(work(Gone::never()), give_back).await,
        false => apart(work, give_back).await,
    }
}

/// Reads lines.
pub(crate) async fn read<B: Book>(
    book: &B,
    names: &[Arc<str>],
    patience: &mut Patience,
) -> Result<Lines> {
    let keys: Vec<Key> = names.iter().map(|name| Key::lock(name)).collect();
    loop {
        match book.read(&keys).await {
            Ok(seen) => return Lines::of(names, &seen),
            Err(error) => patience.after(error).await?,
        }
    }
}

/// Changes lines: asks `step` what to do with them as they are, and asks again whenever somebody
/// else was faster. `step` is told whether an earlier write may have been carried out although no
/// answer came; it must find its own traces then. Gives the lines as they are afterwards.
///
/// Nobody waits for a turn who has nothing to write, or says `None` for whose it is.
pub(crate) async fn change<B: Book, R>(
    inner: &Inner<B>,
    guess: Lines,
    patience: &mut Patience,
    who: Option<Who>,
    mut step: impl FnMut(&mut Lines, bool) -> Result<Step<R>>,
) -> Result<(R, Lines)> {
    let (book, names) = (&*inner.book, guess.names());
    let (mut lines, mut who, mut turn) = (guess, who, None::<Turn<'_>>);
    let (mut maybe_done, mut is_inherited, mut may_append) = (false, false, true);
    let is_comer = matches!(who, Some(Who::Comer { .. }));
    let (mut writes, mut _held) = (0, None);
    loop {
        let before = lines.clone();
        lines.prune();
        let (until, appends, answer) = match step(&mut lines, maybe_done) {
            Ok(Step::Write(answer)) => (None, false, answer),
            Ok(Step::Before(until, answer)) => (until, false, answer),
            Ok(Step::Append(answer)) => (None, may_append, answer),
            // Only a swap finds out whether they are still as somebody else has seen them.
            Ok(Step::Leave(_)) | Err(_) if is_inherited => {
                lines = read(book, &names, patience).await?;
                is_inherited = false;
                continue;
            }
            Ok(Step::Leave(answer)) => {
                if let Some(turn) = turn {
                    turn.leave(&before);
                }
                return Ok((answer, lines));
            }
            Err(error) => return Err(error),
        };
        if let Some(who) = who.take() {
            let taken = inner.turns.take(&names, &who).await?;
            let newer = taken.newer(&before);
            turn = Some(taken);
            if let Some(newer) = newer {
                (lines, is_inherited) = (newer, true);
                continue;
            }
        }
        // Who could not be appended swaps next.
        (writes, may_append) = (writes + 1, !appends);
        lines = match write(book, lines, &before, until, appends).await {
            Ok((true, lines)) => {
                if let Some(turn) = turn {
                    turn.leave(&lines);
                }
                return Ok((answer, lines));
            }
            Ok((false, _)) if is_comer && writes == FAILURES => {
                _held = among_processes(book, &names, turn.as_mut()).await;
                read(book, &names, patience).await?
            }
            Ok((false, lines)) => lines,
            Err(error) => {
                if let Some(turn) = turn.take() {
                    turn.disband();
                }
                _held = None;
                patience.after(error).await?;
                maybe_done = true;
                read(book, &names, patience).await?
            }
        };
        is_inherited = false;
    }
}

/// Writes lines, or puts the last of the only line behind all who are there, unless somebody was
/// faster; gives whether it is done, and how they are.
async fn write<B: Book>(
    book: &B,
    mut lines: Lines,
    before: &Lines,
    until: Option<u64>,
    appends: bool,
) -> Result<(bool, Lines)> {
    if appends && let Some(appended) = append(book, &lines).await? {
        return Ok(appended);
    }
    let changes = lines.changes(before);
    match book.swap(&changes, until).await? {
        Swapped::Done { version, now } => {
            lines.written(version, now, &changes);
            Ok((true, lines))
        }
        Swapped::Changed(seen) => Ok((false, Lines::of(&lines.names(), &seen)?)),
    }
}

/// Appends the last of the only line; `None`: the book cannot do that.
async fn append<B: Book>(book: &B, lines: &Lines) -> Result<Option<(bool, Lines)>> {
    let [Line { name, list, .. }] = &lines.lines[..] else { return Ok(None) };
    let Some(new) = list.last() else { return Ok(None) };
    let Some(seen) = book.append(&Key::lock(name), new).await? else { return Ok(None) };
    let now = Lines::of(std::slice::from_ref(name), &seen)?;
    let is_there = now.lines[0].list.iter().any(|one| one.id == new.id);
    Ok(Some((is_there, now)))
}

/// Waits for a turn among all processes; others of this one may write meanwhile.
async fn among_processes<B: Book>(
    book: &B,
    names: &[Arc<str>],
    mut turn: Option<&mut Turn<'_>>,
) -> Option<Box<dyn Send>> {
    if let Some(turn) = &mut turn {
        turn.step_aside();
    }
    // All choose the same line of several.
    let held = book.turn(&Key::lock(names.iter().min()?), TURN).await;
    if let Some(turn) = turn {
        turn.step_back().await;
    }
    held
}
