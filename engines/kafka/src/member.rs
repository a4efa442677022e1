//! This engine as a member of one queue's group: the owner of some of its partitions.
//!
//! A member has a thread. It takes messages into the [`Window`] of their partition, commits what
//! was settled, ends leases, and learns what it gets and loses. Consumers and receivers of this
//! process come to it for messages, in any number; what they do changes the windows under one
//! lock, and whoever waits for something is woken when anything changes.
//!
//! An ack is answered when it is committed, and the brokers take commits of the present owner
//! alone: that is the fence. Many acks are one commit: those whom one commit answers come again at
//! about the same time, so the next waits for a moment until as many have come. A partition is
//! handed out of when the first commit of this owner was taken, which raises the epoch of its
//! tokens.
//!
//! Nobody who wants anything, and nothing in hand: then the member leaves, so that it does not sit
//! on partitions that others wait for.

mod users;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use leasehold_api::{Error, ErrorKind, Result, Retry};
use tokio::sync::{Notify, watch};

use crate::config::Config;
use crate::driver::{Bell, Cluster, Desk, Record, Seat, Turns};
use crate::error::{Answer, Fault, stale};
use crate::progress::Progress;
use crate::settings::Rules;
use crate::window::{Handed, Window};
pub(crate) use users::{Taken, User, Want};

/// How long a member stays that nobody needs.
const LINGER: Duration = Duration::from_millis(200);
/// How long the thread sleeps at most.
const TICK: Duration = Duration::from_millis(100);
/// A pause after a commit that failed.
const AGAIN: Duration = Duration::from_millis(30);
/// How long a commit waits for as many changes as the one before it had.
const GATHER: Duration = Duration::from_millis(1);
/// A pause after dead letters that could not be sent.
const REST: Duration = Duration::from_secs(1);
/// Messages that are taken before anything else is looked at.
const BATCH: usize = 256;
/// How often what is committed is asked for, when a partition comes.
const TRIES: u32 = 3;
/// Done messages are removed from the topic when there are so many, or after so long.
const TRIM_COUNT: i64 = 1000;
const TRIM_AFTER: Duration = Duration::from_secs(30);

/// What became of a partition, for those who wait for a commit.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    committed: AtomicU64,
    gone: AtomicBool,
}

/// A change that is committed when its partition's version is.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    seen: Arc<Seen>,
    version: u64,
}

struct Part {
    window: Window,
    /// The first commit of this owner was taken.
    open: bool,
    version: u64,
    seen: Arc<Seen>,
    /// Something is to be committed.
    dirty: bool,
    paused: bool,
    /// It is on its way to somebody else.
    leaving: bool,
    trimmed: (i64, Instant),
}

impl Part {
    fn touch(&mut self) -> Change {
        self.version += 1;
        self.dirty = true;
        Change { seen: self.seen.clone(), version: self.version }
    }
}

struct State {
    parts: BTreeMap<i32, Part>,
    /// The partition that is asked first next time.
    turn: i32,
    /// The group has said what is this member's.
    joined: bool,
    changed_at: Instant,
    /// Who wants messages.
    users: usize,
    idle_since: Instant,
    /// What each consumer has in hand.
    in_hand: HashMap<u64, u32>,
    /// Nobody may come any more.
    closing: bool,
    /// Whoever opened the engine has gone.
    abandoned: bool,
    deleted: bool,
    failed: Option<Error>,
    pause_until: Instant,
    /// Changes that the last commit had, and until when the next waits for as many.
    expected: u64,
    gather_until: Instant,
}

/// See the [module](self).
pub(crate) struct Member {
    pub id: u32,
    pub queue: Arc<str>,
    pub topic: String,
    pub rules: Rules,
    pub cluster: Arc<dyn Cluster>,
    pub runtime: tokio::runtime::Handle,
    partitions: usize,
    config: Arc<Config>,
    state: Mutex<State>,
    changed: Notify,
    bell: OnceLock<Arc<Bell>>,
    gone: watch::Sender<bool>,
    /// The topic may be gone.
    is_missed: AtomicBool,
}

impl Member {
    /// Joins the group of a queue, in a thread of its own.
    pub fn start(
        cluster: Arc<dyn Cluster>,
        config: Arc<Config>,
        (queue, topic): (Arc<str>, String),
        rules: Rules,
        partitions: usize,
    ) -> Result<Arc<Self>> {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let now = Instant::now();
        let state = State {
            parts: BTreeMap::new(),
            turn: 0,
            joined: false,
            changed_at: now,
            users: 0,
            idle_since: now,
            in_hand: HashMap::new(),
            closing: false,
            abandoned: false,
            deleted: false,
            failed: None,
            pause_until: now,
            expected: 0,
            gather_until: now,
        };
        let member = Arc::new(Self {
            id: LAST.fetch_add(1, Ordering::Relaxed) + 1,
            queue,
            topic,
            rules,
            cluster,
            runtime: tokio::runtime::Handle::current(),
            partitions,
            config,
            state: Mutex::new(state),
            changed: Notify::new(),
            bell: OnceLock::new(),
            gone: watch::channel(false).0,
            is_missed: AtomicBool::new(false),
        });
        let own = member.clone();
        let thread = std::thread::Builder::new().name("leasehold-kafka".to_owned());
        let failed =
            |error| Error::new(ErrorKind::Broken, format!("no thread can be made: {error}"));
        thread.spawn(move || own.run()).map_err(failed)?;
        Ok(member)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        if let Some(bell) = self.bell.get() {
            bell.ring();
        }
    }

    /// Deliveries die of too many.
    fn counts(&self) -> bool {
        self.rules.deliveries_max.is_some()
    }

    // The member's thread.

    fn run(self: Arc<Self>) {
        let group = self.config.group(&self.topic);
        match self.cluster.join(&group, &self.topic, self.clone()) {
            Err(fault) => self.fail(fault.of_queue(&self.queue)),
            Ok(seat) => {
                self.bell.set(seat.bell()).ok();
                while !self.is_over() {
                    let is_more = self.take_messages(&*seat);
                    let pause = self.work(&*seat);
                    if !is_more {
                        seat.wait(pause);
                    }
                }
                // Leaving takes the partitions away, which commits what is to be committed.
                drop(seat);
            }
        }
        let mut state = self.state();
        state.closing = true;
        state.parts.values().for_each(|part| part.seen.gone.store(true, Ordering::SeqCst));
        state.parts.clear();
        drop(state);
        self.gone.send_replace(true);
        self.changed.notify_waiters();
    }

    fn is_over(&self) -> bool {
        let mut state = self.state();
        // Whoever leaves while the group forms disturbs the others twice.
        let is_calm = match state.joined {
            true => state.changed_at.elapsed() >= LINGER,
            false => state.changed_at.elapsed() >= self.config.timeout,
        };
        let is_idle = state.users == 0
            && is_calm
            && state.idle_since.elapsed() >= LINGER
            && state.parts.values().all(|part| part.window.in_hand() == 0);
        if is_idle || state.abandoned || state.deleted || state.failed.is_some() {
            state.closing = true;
        }
        state.closing
    }

    /// Takes what is there; whether there may be more.
    fn take_messages(&self, seat: &dyn Seat) -> bool {
        let mut took = 0;
        while took < BATCH {
            match seat.next() {
                Some(Ok(record)) => {
                    self.push(seat, record);
                    took += 1;
                }
                Some(Err(fault)) => self.hear(fault),
                None => break,
            }
        }
        if took > 0 {
            self.changed.notify_waiters();
        }
        took == BATCH
    }

    fn push(&self, desk: &dyn Desk, record: Record) {
        let partition = record.partition;
        let mut state = self.state();
        let Some(part) = state.parts.get_mut(&partition) else { return };
        part.window.push(record);
        if part.window.is_full() && !part.paused {
            part.paused = desk.pause(&[partition]).is_ok();
        }
    }

    /// The client has something to say.
    fn hear(&self, fault: Fault) {
        match fault {
            // Looked for besides all else.
            Fault::Missing => self.is_missed.store(true, Ordering::SeqCst),
            Fault::Refused(error)
                if matches!(error.kind, ErrorKind::Forbidden | ErrorKind::Unauthenticated) =>
            {
                self.fail(error);
            }
            other => tracing::debug!(queue = &*self.queue, ?other, "kafka"),
        }
    }

    fn fail(&self, error: Error) {
        tracing::warn!(queue = &*self.queue, %error, "the queue cannot be consumed");
        self.state().failed = Some(error);
        self.changed.notify_waiters();
    }

    /// Commits, ends leases, makes room; gives how long there is nothing to do.
    fn work(self: &Arc<Self>, desk: &dyn Desk) -> Duration {
        if self.is_missed.swap(false, Ordering::SeqCst) {
            self.find_topic();
        }
        self.end_leases();
        self.make_room(desk);
        self.commit(desk);
        self.trim(false);
        let state = self.state();
        let now = Instant::now();
        let deadlines = state.parts.values().filter_map(|part| part.window.deadline());
        let next = deadlines.min().map_or(TICK, |next| next.saturating_duration_since(now));
        let is_dirty = state.parts.values().any(|part| part.dirty);
        let again = state.pause_until.max(state.gather_until).saturating_duration_since(now);
        next.min(TICK).min(if is_dirty { again } else { TICK })
    }

    fn find_topic(self: &Arc<Self>) {
        let member = self.clone();
        self.runtime.spawn(async move {
            if let Ok(None) = member.cluster.partitions(&member.topic).await {
                member.delete();
            }
        });
    }

    fn end_leases(self: &Arc<Self>) {
        let now = Instant::now();
        let mut state = self.state();
        let mut ended = false;
        let partitions: Vec<i32> = state.parts.keys().copied().collect();
        for partition in partitions {
            while let Some(part) = state.parts.get_mut(&partition)
                && let Some((offset, hand)) = part.window.expired(now)
            {
                self.take_back(partition, part, offset);
                state.lay_down(hand.consumer);
                ended = true;
            }
        }
        drop(state);
        if ended {
            self.changed.notify_waiters();
        }
    }

    /// Takes messages again where there is room, and moves those on that keep a full window where
    /// it is.
    fn make_room(self: &Arc<Self>, desk: &dyn Desk) {
        let mut moving = Vec::new();
        let mut state = self.state();
        for (partition, part) in &mut state.parts {
            if part.paused && part.window.has_room() {
                part.paused = desk.resume(&[*partition]).is_err();
            }
            if let Some(offset) = part.window.stuck()
                && let Some(record) = part.window.begin_end(offset)
            {
                let attempts = part.window.attempts(offset);
                moving.push((*partition, offset, record, attempts));
            }
        }
        drop(state);
        for (partition, offset, record, attempts) in moving {
            self.move_on(partition, offset, record, attempts);
        }
    }

    /// Appends a message to its topic again; once it is there it is done in its old place.
    fn move_on(self: &Arc<Self>, partition: i32, offset: i64, record: Arc<Record>, attempts: u32) {
        let member = self.clone();
        self.runtime.spawn(async move {
            let message = crate::message::moved(&member.topic, &record, attempts);
            let sent = member.cluster.send(message).await;
            member.ended(partition, offset, sent.map(drop));
        });
    }

    fn commit(&self, desk: &dyn Desk) {
        let mut state = self.state();
        let now = Instant::now();
        if now < state.pause_until {
            return;
        }
        let come = state.parts.values().map(Part::changes).sum::<u64>();
        if come < state.expected && now < state.gather_until {
            return;
        }
        let dirty = state.parts.iter_mut().filter(|(_, part)| part.dirty && !part.leaving);
        let (marks, versions): (Vec<_>, Vec<_>) = dirty
            .map(|(partition, part)| {
                if part.window.is_worn() {
                    part.window.renew();
                    part.open = false;
                }
                (part.mark(*partition, true), (*partition, part.version))
            })
            .unzip();
        drop(state);
        if marks.is_empty() {
            return;
        }
        let answer = desk.commit(&marks);
        let mut state = self.state();
        match answer {
            Ok(()) => {
                for (partition, version) in versions {
                    if let Some(part) = state.parts.get_mut(&partition) {
                        part.committed(version);
                    }
                }
                state.expected = come;
                state.gather_until = Instant::now() + GATHER;
            }
            Err(fault) => {
                state.pause_until = Instant::now() + AGAIN;
                tracing::debug!(queue = &*self.queue, ?fault, "a commit was not taken");
                match fault {
                    Fault::Refused(error) => state.failed = Some(error),
                    Fault::Missing => self.is_missed.store(true, Ordering::SeqCst),
                    Fault::Lost(_) | Fault::Moving(_) => {}
                }
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Removes what is done from the topic, now and then.
    fn trim(&self, all: bool) {
        if !self.config.trim {
            return;
        }
        let mut below = Vec::new();
        for (partition, part) in &mut self.state().parts {
            let offset = part.window.offset();
            let (last, when) = part.trimmed;
            // What is not committed yet may still be needed.
            let is_committed = part.open && !part.dirty;
            let is_much = offset - last >= TRIM_COUNT || when.elapsed() >= TRIM_AFTER || all;
            if is_committed && offset > last && is_much {
                part.trimmed = (offset, Instant::now());
                below.push((*partition, offset));
            }
        }
        if below.is_empty() {
            return;
        }
        let (cluster, topic) = (self.cluster.clone(), self.topic.clone());
        self.runtime.spawn(async move {
            if let Err(fault) = cluster.trim(&topic, &below).await {
                tracing::debug!(topic, ?fault, "what is done could not be removed");
            }
        });
    }
}

impl Part {
    fn mark(&self, partition: i32, open: bool) -> (i32, i64, String) {
        (partition, self.window.offset(), self.window.progress(open).written())
    }

    /// Changes that are not committed.
    fn changes(&self) -> u64 {
        self.version - self.seen.committed.load(Ordering::SeqCst)
    }

    fn committed(&mut self, version: u64) {
        self.seen.committed.store(version, Ordering::SeqCst);
        self.open = true;
        self.dirty = self.version != version;
    }
}

impl State {
    /// A consumer has one less in hand.
    fn lay_down(&mut self, consumer: u64) {
        if let Some(held) = self.in_hand.get_mut(&consumer) {
            *held -= 1;
            if *held == 0 {
                self.in_hand.remove(&consumer);
            }
        }
        // What was in hand last keeps the member for a moment, too.
        self.idle_since = Instant::now();
    }
}

impl Change {
    /// Whether it is committed, or never will be.
    fn done(&self) -> Option<bool> {
        let is_committed = self.seen.committed.load(Ordering::SeqCst) >= self.version;
        let is_gone = self.seen.gone.load(Ordering::SeqCst);
        (is_committed || is_gone).then_some(is_committed)
    }
}

impl Turns for Member {
    fn granted(&self, desk: &dyn Desk, partitions: &[i32]) {
        let mut found = desk.committed(partitions);
        for _ in 1..TRIES {
            if found.is_ok() {
                break;
            }
            std::thread::sleep(AGAIN);
            found = desk.committed(partitions);
        }
        let committed = match found {
            Ok(committed) => committed,
            Err(fault) => {
                let error = fault.of_queue(&self.queue);
                return self.fail(error.with_retry(Retry::Later));
            }
        };
        let mut state = self.state();
        for one in committed {
            let origin = one.offset.unwrap_or(0);
            let progress = Progress::read(&one.text).unwrap_or_default();
            let part = Part {
                window: Window::new(origin, progress, self.counts()),
                open: false,
                version: 1,
                seen: Arc::default(),
                dirty: true,
                paused: false,
                leaving: false,
                trimmed: (origin, Instant::now()),
            };
            state.parts.insert(one.partition, part);
        }
        state.joined = true;
        state.changed_at = Instant::now();
        drop(state);
        self.changed.notify_waiters();
    }

    fn revoked(&self, desk: &dyn Desk, partitions: &[i32], lost: bool) {
        let mut state = self.state();
        let mut marks = Vec::new();
        let mut versions = Vec::new();
        for partition in partitions {
            let Some(part) = state.parts.get_mut(partition) else { continue };
            part.leaving = true;
            if part.open && !lost {
                marks.push(part.mark(*partition, false));
                versions.push((*partition, part.version));
            }
        }
        drop(state);
        let committed = match marks.is_empty() {
            true => Ok(()),
            false => desk.commit(&marks),
        };
        if let Err(fault) = &committed {
            // What was settled and not committed comes again.
            tracing::debug!(queue = &*self.queue, ?fault, "the last commit was not taken");
        } else {
            for (partition, version) in versions {
                if let Some(part) = self.state().parts.get_mut(&partition) {
                    part.committed(version);
                }
            }
            self.trim(true);
        }
        let mut state = self.state();
        for partition in partitions {
            if let Some(part) = state.parts.remove(partition) {
                part.seen.gone.store(true, Ordering::SeqCst);
                for consumer in part.window.consumers() {
                    state.lay_down(consumer);
                }
            }
        }
        state.changed_at = Instant::now();
        drop(state);
        self.changed.notify_waiters();
    }
}
