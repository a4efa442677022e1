//! Taking pieces off the shelf, so that none is sold twice.
//!
//! A shelf is a register `stock/N` with what is left and the intent that wrote it. Articles with
//! an even number are guarded by a lock: whoever holds it reads, decides and commits, and the
//! commit checks the lock's fencing token, so a worker that slept through its lease is refused.
//! The others are guarded by nothing but the register's version: whoever comes second is refused,
//! reads again and decides again. One commit does everything: the acks of the orders, their
//! payments, the register, the token check and the release.
//!
//! Orders are gathered by article while they wait for their turn, and taken only when the lock is
//! there, so the more an article is fought over the more orders one turn settles.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use leasehold::{Commit, Delivery, Expect, LockGuard, Verdict};
use rustix::process::{Signal, getpid, kill_process};
use tokio::sync::Semaphore;

use super::desk::{Answer, Deed, Desk, Intake, ORDERS, PAYMENTS, forget, micros};
use super::ledger::{Fact, Intent, Seen, Step, now_us};
use super::plan::{Slip, by_lock, order_of};

/// How long an article's lock outlives its holder. Short: the article stands still meanwhile.
pub const LOCK_TTL: Duration = Duration::from_secs(2);
/// How long to wait for a lock before the orders wait for another turn.
const PATIENCE: Duration = Duration::from_secs(10);
/// Orders taken and not settled, per worker.
const PREFETCH: u32 = 256;
/// Orders in one commit; each is an ack and a payment, and a commit has at most 1024 parts.
const TURN_MAX: usize = 400;
/// Turns of one worker at a time.
const TURNS: usize = 12;
/// Reading and deciding again after a conflict; each conflict is somebody else's progress.
const TRIES: u32 = 50;
/// How long a malformed order rests before it is tried again.
const MALFORMED_REST: Duration = Duration::from_millis(200);

/// The register of an article.
pub fn shelf_key(article: u32) -> String {
    format!("stock/{article}")
}

/// The value of a shelf's register.
pub fn shelf_value(left: u32, by: Intent) -> String {
    format!("{left} {by}")
}

/// What a shelf's register says.
pub fn read_shelf(value: &[u8]) -> Option<(u32, Intent)> {
    let (left, by) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    Some((left.parse().ok()?, by.parse().ok()?))
}

/// An order in a worker's hands.
type Work = (Slip, Delivery);

/// Orders of one article that wait for its turn.
#[derive(Debug, Default)]
struct Line {
    waiting: Vec<Work>,
    /// A task takes turns for it.
    running: bool,
}

#[derive(Debug)]
pub struct Clerk {
    desk: Arc<Desk>,
    lines: Mutex<HashMap<u32, Line>>,
    turns: Semaphore,
    /// Turns under a lock until this worker is to be stopped in the middle of one; 0: never.
    freeze_in: AtomicU32,
}

/// How orders are answered with what is left.
struct Split {
    sold: Vec<(u32, u32)>,
    refused: Vec<(u32, u32)>,
    left: u32,
    again: u32,
}

impl Split {
    fn of(mut left: u32, work: &[Work]) -> Self {
        let (mut sold, mut refused, mut again) = (Vec::new(), Vec::new(), 0);
        for (slip, delivery) in work {
            again += u32::from(delivery.redelivered);
            match left.checked_sub(slip.quantity) {
                Some(rest) => {
                    left = rest;
                    sold.push((slip.order, slip.quantity));
                }
                None => refused.push((slip.order, slip.quantity)),
            }
        }
        Self { sold, refused, left, again }
    }
}

/// Takes orders and sells, for ever.
pub async fn run(desk: Arc<Desk>, freeze_in: u32) -> anyhow::Result<()> {
    let mut intake = Intake::new(&desk.at, ORDERS, PREFETCH, Duration::ZERO);
    let clerk = Arc::new(Clerk {
        desk,
        lines: Mutex::default(),
        turns: Semaphore::new(TURNS),
        freeze_in: freeze_in.into(),
    });
    let mut turns = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            deliveries = intake.handful(PREFETCH as usize) => {
                for article in clerk.sort(deliveries)? {
                    turns.spawn(clerk.clone().serve(article));
                }
            }
            Some(ended) = turns.join_next() => ended??,
        }
    }
}

impl Clerk {
    fn lines(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Line>> {
        self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Puts orders into the lines of their articles; gives those that need a task.
    fn sort(&self, deliveries: Vec<Delivery>) -> anyhow::Result<Vec<u32>> {
        let mut wake = Vec::new();
        for delivery in deliveries {
            let Some(slip) = Slip::read(delivery.body()) else {
                self.turn_away(delivery, false)?;
                continue;
            };
            let mut lines = self.lines();
            let line = lines.entry(slip.article).or_default();
            if !std::mem::replace(&mut line.running, true) {
                wake.push(slip.article);
            }
            line.waiting.push((slip, delivery));
        }
        Ok(wake)
    }

    /// Returns or rejects an order that cannot be handled.
    fn turn_away(&self, delivery: Delivery, reject: bool) -> anyhow::Result<()> {
        let order = order_of(delivery.content.id.as_deref()).unwrap_or(u32::MAX);
        let attempt = delivery.attempt;
        self.desk.ledger.enter(&Fact::Bad { at: now_us(), order, attempt, reject })?;
        tokio::spawn(async move {
            let settled = match reject {
                true => delivery.reject().await,
                false => delivery.nack_after(MALFORMED_REST).await,
            };
            if let Err(error) = settled {
                tracing::info!(order, %error, "not turned away; it comes again");
            }
        });
        Ok(())
    }

    /// Takes turns until nobody waits for the article.
    async fn serve(self: Arc<Self>, article: u32) -> anyhow::Result<()> {
        loop {
            let turn = self.turns.acquire().await?;
            self.turn(article).await?;
            drop(turn);
            let mut lines = self.lines();
            if lines.get(&article).is_none_or(|line| line.waiting.is_empty()) {
                lines.remove(&article);
                return Ok(());
            }
        }
    }

    async fn turn(&self, article: u32) -> anyhow::Result<()> {
        let asked = Instant::now();
        let guard = match by_lock(article) {
            false => None,
            true => {
                let lock = self.desk.at.lock(shelf_key(article)).ttl(LOCK_TTL);
                match lock.acquire_within(PATIENCE).await {
                    Ok(guard) => Some(guard),
                    Err(error) => {
                        let wrong = error.to_string();
                        self.desk.ledger.enter(&Fact::Missed { at: now_us(), article, wrong })?;
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        return Ok(());
                    }
                }
            }
        };
        let waited_us = guard.is_some().then(|| micros(asked.elapsed()));
        let session = guard.as_ref().and_then(|guard| Some(guard.hold().session.as_ref()?.id));
        let work = self.take(article, session);
        if work.is_empty() {
            return Ok(());
        }
        self.sell(article, guard, waited_us, work).await
    }

    /// Takes the orders of a turn out of their line: those of the lock's session, or else of the
    /// last order's. Orders of an older one are other workers' by now, as that session ended when
    /// the server was killed, and one of them would have the whole commit refused.
    fn take(&self, article: u32, session: Option<u64>) -> Vec<Work> {
        let mut lines = self.lines();
        let Some(line) = lines.get_mut(&article) else { return Vec::new() };
        let last = || Some(line.waiting.last()?.1.receipt.session.id);
        let session = session.or_else(last);
        let ours = |(_, order): &Work| Some(order.receipt.session.id) == session;
        let (ours, late): (Vec<Work>, Vec<Work>) =
            std::mem::take(&mut line.waiting).into_iter().partition(ours);
        line.waiting = ours;
        late.into_iter().for_each(|(_, order)| forget(order));
        let rest = line.waiting.split_off(line.waiting.len().min(TURN_MAX));
        std::mem::replace(&mut line.waiting, rest)
    }

    async fn sell(
        &self,
        article: u32,
        mut guard: Option<LockGuard>,
        waited_us: Option<u32>,
        mut work: Vec<Work>,
    ) -> anyhow::Result<()> {
        let register = self.desk.at.register(shelf_key(article));
        for _ in 0..TRIES {
            let shelf = match register.read().await {
                Ok(shelf) => shelf,
                Err(error) => {
                    tracing::info!(article, %error, "the orders go back");
                    return Ok(());
                }
            };
            let Some(now) = shelf else {
                return work.into_iter().try_for_each(|(_, order)| self.turn_away(order, true));
            };
            let (left, by) = read_shelf(&now.value)
                .ok_or_else(|| anyhow::anyhow!("register stock/{article} is not a shelf"))?;
            let seen = Seen { version: now.version, left, by };
            let split = Split::of(left, &work);
            let did = [split.sold.len() as u32, split.refused.len() as u32];
            let intent = self.desk.ledger.intent();
            let deed = Deed { intent, step: Step::Stock, did, waited_us };
            let commit = self.commit(article, seen, &split, &work, intent);
            self.write_down(article, guard.as_ref(), seen, split, intent)?;
            let commit = match guard.take() {
                Some(guard) => {
                    self.freeze(intent)?;
                    commit.check(&guard).release(guard)
                }
                None => commit,
            };
            let (slips, deliveries): (Vec<_>, Vec<_>) = work.into_iter().unzip();
            let parts = deliveries.into_iter().map(|order| (order, Verdict::Ack)).collect();
            match self.desk.settle(deed, commit, parts).await? {
                Answer::Conflict(deliveries) => work = slips.into_iter().zip(deliveries).collect(),
                Answer::Done | Answer::Gone => return Ok(()),
            }
        }
        tracing::warn!(article, "too many conflicts; the orders go back");
        Ok(())
    }

    fn commit(&self, article: u32, seen: Seen, split: &Split, work: &[Work], by: Intent) -> Commit {
        // Under a lock the token check is the guard; the version would hide a broken lock.
        let expect = match by_lock(article) {
            true => Expect::Present,
            false => Expect::Version(seen.version),
        };
        let value = shelf_value(split.left, by);
        let mut commit = self.desk.at.commit().write(shelf_key(article), value, expect);
        let mut sold = split.sold.iter().map(|(order, _)| *order).peekable();
        for (slip, _) in work {
            if sold.next_if_eq(&slip.order).is_some() {
                commit = commit.publish(PAYMENTS, slip.sent_by(by));
            }
        }
        commit
    }

    fn write_down(
        &self,
        article: u32,
        guard: Option<&LockGuard>,
        from: Seen,
        split: Split,
        intent: Intent,
    ) -> anyhow::Result<()> {
        let Split { sold, refused, left, again } = split;
        let token = guard.map(LockGuard::token);
        let (n, at) = (intent.n, now_us());
        let fact = Fact::Stock { n, at, article, token, from, left, sold, refused, again };
        Ok(self.desk.ledger.enter(&fact)?)
    }

    /// Has the kernel stop this process, once, where it hurts most: the lock is held, the decision
    /// is made, and the write not sent. The demo lets it go on when the lock is long somebody
    /// else's. (Stopping it from outside would hit this moment only by luck.)
    fn freeze(&self, intent: Intent) -> anyhow::Result<()> {
        let count = |left: u32| left.checked_sub(1);
        if self.freeze_in.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count) == Ok(1) {
            self.desk.ledger.enter(&Fact::Frozen { n: intent.n, at: now_us() })?;
            kill_process(getpid(), Signal::STOP)?;
        }
        Ok(())
    }
}
