//! A sample a second: the history behind the status page.
//!
//! One task reads the counters and the first queues once a second and keeps two minutes of them.
//! It ends with the door. What the page shows besides, locks and the ages of messages, is read
//! when somebody asks, at most once a second however many look on.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use leasehold_api::Result;
use leasehold_api::engine::{List, LockEngine, LockView, Mode, QueueEngine, QueueView};
use leasehold_wire::status::{
    History, HolderRow, LockRow, QueueRow, Server, Status, Totals as TotalsRow, WaiterRow,
};
use leasehold_wire::time::{ms, ms_of};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::Totals;
use crate::door::Door;

const STEP: Duration = Duration::from_secs(1);
const SAMPLES: usize = 120;
/// Locks and queues that the page lists.
const LISTED: usize = 200;
/// Waiters that the page lists for each lock.
const WAITERS: usize = 50;
/// How long the engine may take to answer for the page.
const PATIENCE: Duration = Duration::from_secs(2);
/// Counting more queues than are listed is done once in so many steps.
const COUNT_STEPS: u32 = 10;

/// What was sampled.
#[derive(Default)]
pub(crate) struct Sampler {
    started: AtomicBool,
    samples: Mutex<Samples>,
    /// The newest answer, for all who look on.
    shown: tokio::sync::Mutex<Option<(Instant, Status)>>,
}

#[derive(Default)]
struct Samples {
    last: Option<(Instant, Totals)>,
    steps: VecDeque<Step>,
    queues: Arc<Vec<QueueView>>,
    queues_total: u64,
    of_queue: HashMap<String, OfQueue>,
    since_count: u32,
}

/// What one second brought.
struct Step {
    published: f64,
    delivered: f64,
    settled: f64,
    lock_requests: f64,
    grants: f64,
    releases: f64,
    lock_wait_ms: Option<f64>,
    sync_ms: Option<f64>,
}

#[derive(Default)]
struct OfQueue {
    ready: VecDeque<u64>,
    publish_rate: f64,
    deliver_rate: f64,
    settle_rate: f64,
}

impl Sampler {
    /// The queues of the newest sample.
    pub fn queues(&self) -> Arc<Vec<QueueView>> {
        self.samples().queues.clone()
    }

    fn samples(&self) -> MutexGuard<'_, Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the task, once for a door.
pub(crate) fn start(door: &Arc<Door>) {
    if door.sampler.started.swap(true, Ordering::Relaxed) {
        return;
    }
    let door = Arc::downgrade(door);
    tokio::spawn(async move {
        let mut seconds = interval(STEP);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            seconds.tick().await;
            let Some(door) = door.upgrade() else { break };
            sample(&door).await;
        }
    });
}

async fn sample(door: &Door) {
    let totals = door.counters.read();
    let queues = match &door.engine.queues {
        Some(queues) => timeout(PATIENCE, first_queues(&**queues)).await,
        None => Ok(Ok((Vec::new(), None))),
    };
    let now = Instant::now();
    let count_from = {
        let mut samples = door.sampler.samples();
        samples.step(now, totals);
        match queues {
            Ok(Ok((queues, next))) => samples.step_queues(queues, next),
            Ok(Err(error)) => {
                tracing::debug!(%error, "queues were not sampled");
                None
            }
            Err(_) => None,
        }
    };
    let (Some(next), Some(queues)) = (count_from, &door.engine.queues) else { return };
    if let Ok(Ok(more)) = timeout(PATIENCE, count_queues(&**queues, next)).await {
        door.sampler.samples().queues_total += more;
    }
}

async fn first_queues(engine: &dyn QueueEngine) -> Result<(Vec<QueueView>, Option<u32>)> {
    let mut found = Vec::new();
    let mut after = Some(0);
    while let Some(next) = after.filter(|_| found.len() < LISTED) {
        let max = (LISTED - found.len()) as u32;
        let some = engine.list_queues(&List { prefix: String::new(), after: next, max }).await?;
        found.extend(some.items);
        after = some.next;
    }
    Ok((found, after))
}

async fn count_queues(engine: &dyn QueueEngine, from: u32) -> Result<u64> {
    let (mut count, mut after) = (0, Some(from));
    while let Some(next) = after {
        let ask = List { prefix: String::new(), after: next, max: 1000 };
        let some = engine.list_queues(&ask).await?;
        count += some.items.len() as u64;
        after = some.next;
    }
    Ok(count)
}

async fn first_locks(engine: &dyn LockEngine) -> Result<Vec<LockView>> {
    let mut found = Vec::new();
    let mut after = Some(0);
    while let Some(next) = after.filter(|_| found.len() < LISTED) {
        let max = (LISTED - found.len()) as u32;
        let some = engine.list_locks(&List { prefix: String::new(), after: next, max }).await?;
        found.extend(some.items);
        after = some.next;
    }
    Ok(found)
}

impl Samples {
    fn step(&mut self, now: Instant, totals: Totals) {
        let last = self.last.replace((now, totals));
        let Some((then, before)) = last else { return };
        let seconds = (now - then).as_secs_f64().max(0.001);
        let rate = |after: u64, before: u64| after.saturating_sub(before) as f64 / seconds;
        let average = |sum: u64, sum_before: u64, count: u64, count_before: u64| {
            average_ms(sum.saturating_sub(sum_before), count.saturating_sub(count_before))
        };
        if self.steps.len() == SAMPLES {
            self.steps.pop_front();
        }
        self.steps.push_back(Step {
            published: rate(totals.published, before.published),
            delivered: rate(totals.delivered, before.delivered),
            settled: rate(totals.settled, before.settled),
            lock_requests: rate(totals.lock_requests, before.lock_requests),
            grants: rate(totals.grants, before.grants),
            releases: rate(totals.releases, before.releases),
            lock_wait_ms: average(
                totals.lock_wait_us,
                before.lock_wait_us,
                totals.lock_waits,
                before.lock_waits,
            ),
            sync_ms: average(totals.sync_us, before.sync_us, totals.syncs, before.syncs),
        });
    }

    /// Takes a second's queues; gives where to count on from when that is due.
    fn step_queues(&mut self, queues: Vec<QueueView>, next: Option<u32>) -> Option<u32> {
        let before: HashMap<&str, &QueueView> =
            self.queues.iter().map(|queue| (queue.name.as_str(), queue)).collect();
        let mut of_queue = HashMap::with_capacity(queues.len());
        for queue in &queues {
            let mut one = self.of_queue.remove(&queue.name).unwrap_or_default();
            if let Some(before) = before.get(queue.name.as_str()) {
                let more = |of: fn(&QueueView) -> u64| of(queue).saturating_sub(of(before)) as f64;
                one.publish_rate = more(|queue| queue.totals.published);
                one.settle_rate = more(left);
                one.deliver_rate =
                    more(|queue| left(queue) + queue.totals.returned + queue.in_flight);
            }
            if one.ready.len() == SAMPLES {
                one.ready.pop_front();
            }
            one.ready.push_back(queue.ready);
            of_queue.insert(queue.name.clone(), one);
        }
        self.of_queue = of_queue;
        let listed = queues.len() as u64;
        self.queues = Arc::new(queues);
        self.since_count += 1;
        match next {
            None => (self.queues_total, self.since_count) = (listed, 0),
            Some(_) if self.since_count < COUNT_STEPS && self.queues_total > listed => return None,
            Some(_) => (self.queues_total, self.since_count) = (listed, 0),
        }
        next
    }

    fn history(&self) -> History {
        let all = |of: fn(&Step) -> f64| self.steps.iter().map(of).collect();
        let some = |of: fn(&Step) -> Option<f64>| self.steps.iter().map(of).collect();
        History {
            step_ms: ms(STEP),
            published: all(|step| step.published),
            delivered: all(|step| step.delivered),
            settled: all(|step| step.settled),
            lock_requests: all(|step| step.lock_requests),
            grants: all(|step| step.grants),
            releases: all(|step| step.releases),
            lock_wait_ms: some(|step| step.lock_wait_ms),
            sync_ms: some(|step| step.sync_ms),
        }
    }

    fn queue_row(&self, queue: &QueueView) -> QueueRow {
        let none = OfQueue::default();
        let rates = self.of_queue.get(&queue.name).unwrap_or(&none);
        let waiting = queue.ready + queue.in_flight + queue.delayed + queue.parked;
        let drain_ms = match waiting {
            0 => Some(0),
            _ if rates.settle_rate <= 0.0 => None,
            _ => Some((waiting as f64 / rates.settle_rate * 1000.0) as u64),
        };
        QueueRow {
            name: queue.name.clone(),
            ready: queue.ready,
            in_flight: queue.in_flight,
            delayed: queue.delayed,
            parked: queue.parked,
            dead: queue.totals.dead,
            bytes: queue.bytes,
            consumers: queue.consumers,
            paused: queue.paused,
            publish_rate: rates.publish_rate,
            deliver_rate: rates.deliver_rate,
            settle_rate: rates.settle_rate,
            oldest_ms: None,
            drain_ms,
            history: rates.ready.iter().copied().collect(),
        }
    }
}

/// Messages that left a queue for good.
fn left(queue: &QueueView) -> u64 {
    queue.totals.acked + queue.totals.dead + queue.totals.dropped
}

fn average_ms(us: u64, count: u64) -> Option<f64> {
    (count > 0).then(|| us as f64 / count as f64 / 1000.0)
}

/// What the status page shows.
pub(crate) async fn status(door: &Door) -> Status {
    let mut shown = door.sampler.shown.lock().await;
    if let Some((_, status)) = shown.as_ref().filter(|(at, _)| at.elapsed() < STEP / 2) {
        return status.clone();
    }
    let status = look(door).await;
    *shown = Some((Instant::now(), status.clone()));
    status
}

async fn look(door: &Door) -> Status {
    let totals = door.counters.read();
    let ready = door.ready().await.is_ok();
    let locks = match &door.engine.locks {
        Some(locks) if ready => timeout(PATIENCE, first_locks(&**locks)).await,
        _ => Ok(Ok(Vec::new())),
    };
    let locks = locks.ok().and_then(Result::ok).unwrap_or_default();
    let mut queues = match &door.engine.queues {
        Some(queues) if ready => timeout(PATIENCE, first_queues(&**queues)).await,
        _ => Ok(Ok((Vec::new(), None))),
    };
    let views = queues.as_mut().ok().and_then(|found| found.as_mut().ok());
    let views = views.map(|(views, _)| std::mem::take(views)).unwrap_or_default();
    let (history, mut rows, queues_total) = {
        let samples = door.sampler.samples();
        let rows: Vec<QueueRow> = views.iter().map(|queue| samples.queue_row(queue)).collect();
        (samples.history(), rows, samples.queues_total)
    };
    if let Some(queues) = &door.engine.queues {
        // What is too slow to look at is left out.
        let _ = timeout(PATIENCE, ages(&**queues, &mut rows)).await;
    }
    Status {
        server: Server {
            version: door.info.version.clone(),
            uptime_ms: ms(door.started.elapsed()),
            durability: door.info.durability.clone(),
            engine: door.info.engine.clone(),
            ready,
            warnings: (door.warnings)(),
        },
        totals: totals_row(&totals),
        history,
        locks_total: totals.locks.max(locks.len() as u64),
        locks: locks.into_iter().map(lock_row).collect(),
        queues_total: queues_total.max(rows.len() as u64),
        queues: rows,
    }
}

async fn ages(engine: &dyn QueueEngine, rows: &mut [QueueRow]) {
    for row in rows.iter_mut().filter(|row| row.ready > 0) {
        let first = engine.peek(&row.name, 1).await.ok().and_then(|seen| seen.into_iter().next());
        let age = first.map(|first| SystemTime::now().duration_since(first.content.published_at));
        row.oldest_ms = age.map(|age| age.map_or(0, ms));
    }
}

fn totals_row(totals: &Totals) -> TotalsRow {
    TotalsRow {
        messages: totals.messages,
        locks: totals.locks,
        sessions: totals.sessions,
        lock_requests: totals.lock_requests,
        grants: totals.grants,
        releases: totals.releases,
        lock_waits: totals.lock_waits,
        lock_wait_ms_avg: average_ms(totals.lock_wait_us, totals.lock_waits),
        lock_wait_ms_max: totals.lock_wait_us_max as f64 / 1000.0,
        published: totals.published,
        delivered: totals.delivered,
        settled: totals.settled,
        refused: totals.refused,
        syncs: totals.syncs,
        sync_ms_avg: average_ms(totals.sync_us, totals.syncs),
        memory_bytes: totals.memory_bytes,
    }
}

fn mode_text(mode: Mode) -> String {
    match mode {
        Mode::Exclusive => "exclusive".to_string(),
        Mode::Shared => "shared".to_string(),
        Mode::Permits { take, of } => format!("permits {take} of {of}"),
    }
}

fn lock_row(lock: LockView) -> LockRow {
    // Who asks now waits behind all others.
    let expected = match lock.holders.is_empty() {
        true => Some(lock.delay_left),
        false => lock.hold_average.map(|average| average * (lock.waiting + 1)),
    };
    LockRow {
        name: lock.name,
        holders: lock
            .holders
            .into_iter()
            .map(|holder| HolderRow {
                token: holder.token,
                label: holder.label,
                session: (holder.session != 0).then_some(holder.session),
                mode: mode_text(holder.mode),
                held_ms: ms(holder.held),
                left_ms: ms_of(holder.left),
                entries: holder.entries,
            })
            .collect(),
        waiting: lock.waiting,
        expected_wait_ms: ms_of(expected),
        waiters: lock
            .waiters
            .into_iter()
            .take(WAITERS)
            .map(|waiter| WaiterRow {
                label: waiter.label,
                mode: mode_text(waiter.mode),
                waited_ms: ms(waiter.waited),
                expected_ms: ms_of(waiter.expected),
            })
            .collect(),
    }
}
