//! One shard: the rules, their journal, and what waits between the two.
//!
//! A turn is `begin`, any number of `submit`, `finish`. `finish` writes, syncs if something in the
//! turn must not be lost, and moves to `ready` every notice that may leave. A notice that waits
//! does so for a sequence number; nothing else orders them.

use std::collections::VecDeque;
use std::sync::Arc;

use leasehold_core::{
    Command, Commit, ConsumerId, Core, Delivery, Durable, Effect, EffectKind, Event, Keys, Op,
    Outcome, Receipt, Refusal, Stamp, Ticket, outcome::Peeked,
};
use leasehold_env::{Clock, Disk};
use leasehold_journal::{Journal, JournalError, Options as JournalOptions, ReplayError};

use crate::client::{Notice, PeekedMessage};
use crate::error::OpenError;
use crate::log::{Adapter, Tally};
use crate::metrics::{Counters, Metrics};
use crate::options::{Durability, Options};
use crate::upkeep::{UPKEEP, Upkeep};

/// Journal bytes set aside for settling one message: an ack's record alone in its frame, rounded
/// up. Whoever settles one message a turn writes a frame for each.
pub(crate) const SETTLE_BYTES: u64 = 96;
/// What a segment may leave unused at its end, because a group reserves more than it needs.
const SEAM_BYTES: u64 = 64 << 10;
/// Room beyond that which new things must leave free, so that renewals and releases go on.
pub(crate) const SLACK_BYTES: u64 = 1 << 20;

/// Bytes of records that one peek brings beside the first: a look must not fill the memory.
const PEEK_BYTES: usize = 1 << 20;

/// A notice and the sequence that must be durable before it leaves.
pub(crate) struct Held {
    after: u64,
    pub ticket: Ticket,
    pub notice: Notice,
}

/// A shard that somebody turns.
pub struct Shard<D: Disk> {
    pub(crate) core: Core,
    pub(crate) journal: Journal<D>,
    pub(crate) options: Options,
    pub(crate) upkeep: Upkeep,
    pub(crate) tally: Tally,
    pub(crate) effects: Vec<Effect>,
    held: VecDeque<Held>,
    ready: Vec<Held>,
    /// Set when the journal failed: nothing is carried out or answered any more.
    stopped: Option<String>,
    pub(crate) now: u64,
    /// Monotonic clock minus shard time.
    clock_offset: i64,
    pub(crate) synced_at: u64,
    pub(crate) counters: Counters,
    metrics: Arc<Metrics>,
    /// The commit that is being carried out.
    committing: Option<Parts>,
    /// Deliveries whose records could not be read, until their consumers have the credit back.
    unread: Vec<(ConsumerId, Receipt)>,
    /// Since the last failure to set room aside: what may not be accepted.
    full: Fullness,
}

/// What a commit asks for, to be counted when it is done.
struct Parts {
    ticket: Ticket,
    settles: u64,
    publishes: u64,
    releases: u64,
}

impl Parts {
    fn of(ticket: Ticket, commit: &Commit) -> Self {
        Self {
            ticket,
            settles: commit.settles.len() as u64,
            publishes: commit.publishes.len() as u64,
            releases: commit.releases.len() as u64,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fullness {
    /// There is room.
    Roomy,
    /// Nothing new.
    Tight,
    /// Not even renewals: what is left is for acks and releases.
    Critical,
}

impl<D: Disk> Shard<D> {
    /// Recovers the state from a directory and starts a new epoch.
    ///
    /// # Errors
    /// See [`OpenError`]; a directory that is refused is left as it was.
    pub fn open(
        disk: D,
        clock: &impl Clock,
        seed: u64,
        options: Options,
    ) -> Result<Self, OpenError> {
        let journal_options = JournalOptions {
            segment_bytes: options.limits.segment_bytes,
            tail_cache_bytes: options.tail_cache_bytes,
            read_cache_bytes: options.read_cache_bytes,
            ..JournalOptions::default()
        };
        let mut recovery = Journal::open(disk, journal_options)?;
        let cells = recovery.take_cells();
        let pairs = cells.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
        let restored = Durable::restore(pairs, seed)?;
        let fresh = restored.is_none();
        drop(cells);
        let mut state = restored
            .unwrap_or_else(|| Durable::new(leasehold_core::Shape::of(&options.limits), seed));
        let journal = recovery
            .replay(|record| {
                let event = Event::decode(record.bytes)
                    .map_err(|error| OpenError::Event { sequence: record.sequence, error })?;
                let stamp = Stamp {
                    sequence: record.sequence,
                    at: record.time_us,
                    position: record.position.0,
                    size: record.bytes.len() as u32,
                };
                state.replay(stamp, &event);
                Ok(())
            })
            .map_err(|error| match error {
                ReplayError::Open(error) => OpenError::Journal(error),
                ReplayError::Visit { source, .. } => source,
            })?;
        let mut options = options;
        options.limits.segment_bytes = journal.segment_bytes();
        let now = state.at();
        let core = Core::from_durable(state, options.limits.clone(), seed);
        let mut shard = Self {
            core,
            journal,
            upkeep: Upkeep::new(fresh),
            options,
            tally: Tally::default(),
            effects: Vec::new(),
            held: VecDeque::new(),
            ready: Vec::new(),
            stopped: None,
            now,
            clock_offset: clock.monotonic_us() as i64 - now as i64,
            synced_at: now,
            counters: Counters::default(),
            metrics: Arc::new(Metrics::default()),
            committing: None,
            unread: Vec::new(),
            full: Fullness::Roomy,
        };
        shard.boot(clock);
        Ok(shard)
    }

    fn boot(&mut self, clock: &impl Clock) {
        self.begin(clock);
        let wall = clock.wall_us();
        self.with_log(|core, log, now, out| core.boot(now, wall, log, out));
        // What was promised before the restart holds after it; without room nothing new comes in.
        self.full = self.make_room(self.reserve());
        self.finish(clock);
    }

    /// What the shard counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// The rules and their state.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Why it stopped, if it did.
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.as_deref()
    }

    /// The shard's time, microseconds.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Starts a turn.
    pub fn begin(&mut self, clock: &impl Clock) {
        let time = clock.monotonic_us() as i64 - self.clock_offset;
        // A monotonic clock should not go back; if one does, the shard's time stands still.
        self.now = self.now.max(u64::try_from(time).unwrap_or(0));
        self.journal.begin_turn(self.now);
    }

    /// Carries out one command within the turn.
    pub fn submit(&mut self, command: Command) {
        let ticket = command.ticket;
        if self.stopped.is_some() {
            return self.answer_now(ticket, Err(Refusal::Stopped));
        }
        self.counters.commands += 1;
        self.counters.lock_requests += u64::from(matches!(command.op, Op::Acquire(_)));
        self.committing = match &command.op {
            Op::Commit(commit) => Some(Parts::of(ticket, commit)),
            _ => None,
        };
        if let Err(refusal) = self.admit(&command.op) {
            return self.answer_now(ticket, Err(refusal));
        }
        // Only these may need a page; they change nothing until they have it.
        let again = match &command.op {
            Op::Peek(..) | Op::Redrive { .. } | Op::Relocate(_) => Some(command.clone()),
            _ => None,
        };
        self.with_log(|core, log, now, out| core.step(now, command, log, out));
        if let Some(command) = again {
            self.repeat(command);
        }
    }

    /// Asks again while pages have to be fetched, one at a time.
    fn repeat(&mut self, command: Command) {
        let needs_page = |held: &Held| {
            held.ticket == command.ticket
                && matches!(&held.notice, Notice::Reply(Err(Refusal::PageNeeded)))
        };
        // A page that comes in may also make deliveries, which then stand behind the answer.
        while self.stopped.is_none()
            && let Some(i) = self.held.iter().rposition(needs_page)
        {
            self.held.remove(i);
            let command = command.clone();
            self.with_log(|core, log, now, out| core.step(now, command, log, out));
        }
    }

    /// Refuses what the disk has no room for, so that acks and releases always have some.
    fn admit(&mut self, op: &Op) -> Result<(), Refusal> {
        let bytes = match op {
            Op::Publish(publish) => publish.bytes() as u64,
            Op::Write(write) => write.bytes() as u64,
            Op::Acquire(_)
            | Op::DeclareQueue(..)
            | Op::DeclareExchange(..)
            | Op::Bind(_)
            | Op::Consume(_)
            | Op::Renew { .. } => 4096,
            Op::Commit(commit) => {
                let publishes: usize = commit.publishes.iter().map(|p| p.bytes()).sum();
                let writes: usize = commit.writes.iter().map(|w| w.bytes()).sum();
                (publishes + writes) as u64
            }
            _ => 0,
        };
        if bytes == 0 {
            return Ok(());
        }
        // Who holds may go on holding, and who would empty a queue must be able to begin.
        let goes_on = matches!(op, Op::Renew { .. } | Op::Consume(_));
        let least = if goes_on { Fullness::Critical } else { Fullness::Tight };
        if self.has_room(bytes, least) { Ok(()) } else { Err(Refusal::DiskFull) }
    }

    /// Whether there is room for so many bytes and for settling everything, made if need be. None
    /// from this fullness on; that is counted.
    fn has_room(&mut self, bytes: u64, least: Fullness) -> bool {
        let needed = self.reserve() + bytes;
        let roomy = self.journal.headroom() >= needed + SLACK_BYTES;
        self.full = if roomy { Fullness::Roomy } else { self.make_room(needed) };
        let room = self.full < least;
        self.counters.disk_full += u64::from(!room);
        room
    }

    /// Runs a procedure over keys; gives the sequence that its answer waits for. It is never 0: at
    /// every durability the answer waits at least for the end of the turn, which writes.
    pub(crate) fn decide_keys(&mut self, procedure: &mut dyn FnMut(&mut Keys<'_, '_>)) -> u64 {
        if self.stopped.is_some() {
            return u64::MAX;
        }
        self.with_log(|core, log, now, out| core.keys(now, log, out, |keys| procedure(keys)));
        self.tally.must_sync.max(1)
    }

    /// Whether the disk has room for what one decision over keys may write at most.
    pub(crate) fn has_room_for_keys(&mut self) -> bool {
        self.has_room(self.options.limits.decision_bytes as u64, Fullness::Tight)
    }

    fn make_room(&mut self, needed: u64) -> Fullness {
        // Spares are whole segments, and the end of one may stay unused.
        match self.journal.ensure_headroom(needed + SLACK_BYTES) {
            Ok(()) => Fullness::Roomy,
            Err(JournalError::Full { .. }) if self.journal.headroom() >= needed => Fullness::Tight,
            Err(JournalError::Full { .. }) => Fullness::Critical,
            Err(error) => {
                self.stop(&error.to_string());
                Fullness::Critical
            }
        }
    }

    /// Room that settling everything there is may need.
    pub(crate) fn reserve(&self) -> u64 {
        let state = self.core.state();
        let bytes = (state.messages() + state.grants().len() as u64) * SETTLE_BYTES;
        let seam_bytes = SEAM_BYTES.min(self.journal.segment_bytes() / 2);
        bytes + bytes.div_ceil(self.journal.segment_bytes() - seam_bytes) * seam_bytes
    }

    /// Runs a step of the core and takes in its effects.
    pub(crate) fn with_log(
        &mut self,
        step: impl FnOnce(&mut Core, &mut Adapter<'_, D>, u64, &mut Vec<Effect>),
    ) {
        let mut effects = std::mem::take(&mut self.effects);
        let now = self.now;
        let mut log = Adapter { journal: &mut self.journal, tally: &mut self.tally, now };
        step(&mut self.core, &mut log, now, &mut effects);
        // A page that comes in may ask for the next one.
        let mut i = 0;
        while i < effects.len() {
            if let EffectKind::LoadPage(_, _, place) = effects[i].kind {
                self.load_page(place, &mut effects);
            }
            i += 1;
        }
        for effect in effects.drain(..) {
            self.take_in(effect);
        }
        self.effects = effects;
        if let Some(error) = self.tally.failed.take() {
            self.stop(&error.to_string());
        }
    }

    pub(crate) fn load_page(
        &mut self,
        place: leasehold_core::index::Place,
        effects: &mut Vec<Effect>,
    ) {
        let mut record = Vec::new();
        let position = leasehold_journal::Position(place.position);
        let loaded =
            self.journal.read(position, place.size, &mut record).map_err(|e| e.to_string());
        let loaded = loaded.and_then(|()| {
            let now = self.now;
            let mut log = Adapter { journal: &mut self.journal, tally: &mut self.tally, now };
            let done = self.core.page_loaded(now, &record, &mut log, effects);
            done.map_err(|error| error.to_string())
        });
        if let Err(error) = loaded {
            // Without its index the queue cannot go on, and going on without it would lose
            // messages.
            self.stop(&error);
        }
    }

    fn take_in(&mut self, effect: Effect) {
        let after = if effect.after_sync { self.tally.must_sync } else { 0 };
        let (ticket, notice) = match effect.kind {
            EffectKind::Reply(UPKEEP, _) => return,
            EffectKind::Reply(ticket, result) => {
                self.count(&result);
                self.count_commit(ticket, &result);
                match result {
                    Ok(Outcome::Peeked(list)) => (ticket, Notice::Peeked(self.fetch_peeked(list))),
                    result => (ticket, Notice::Reply(result)),
                }
            }
            EffectKind::Deliver(ticket, delivery) => match self.fetch(delivery) {
                Some(notice) => (ticket, notice),
                None => return,
            },
            EffectKind::HoldEnded(ticket, token, ending) => {
                (ticket, Notice::HoldEnded(token, ending))
            }
            EffectKind::DeliveryEnded(ticket, receipt, ending) => {
                (ticket, Notice::DeliveryEnded(receipt, ending))
            }
            EffectKind::SessionEnded(ticket, session) => (ticket, Notice::SessionEnded(session)),
            EffectKind::ConsumerEnded(ticket, ending) => (ticket, Notice::ConsumerEnded(ending)),
            EffectKind::LoadPage(..) => return,
        };
        self.held.push_back(Held { after, ticket, notice });
    }

    /// Brings a delivery's record. A message whose record cannot be read is not delivered; it stays
    /// in flight until its lease or session ends, and is tried again then. Who asked for one is
    /// told why there is none; who takes them as they come gets the next one in its place.
    fn fetch(&mut self, delivery: Delivery) -> Option<Notice> {
        let place = delivery.place;
        let mut record = Vec::with_capacity(place.size as usize);
        let position = leasehold_journal::Position(place.position);
        match self.journal.read(position, place.size, &mut record) {
            Ok(()) => {
                self.counters.deliveries += 1;
                Some(Notice::Delivery(Box::new((delivery, record))))
            }
            Err(error) => {
                self.counters.damaged_reads += 1;
                if !delivery.once {
                    self.unread.push((delivery.consumer, delivery.receipt));
                    return None;
                }
                let refused = Err(Refusal::Unreadable(error.to_string().into()));
                self.count(&refused);
                Some(Notice::Reply(refused))
            }
        }
    }

    /// Brings the records of what was peeked at, until they are many bytes. One that cannot be read
    /// is left out and counted.
    fn fetch_peeked(&mut self, list: Vec<Peeked>) -> Vec<PeekedMessage> {
        let mut messages: Vec<PeekedMessage> = Vec::new();
        let mut room = PEEK_BYTES;
        for peeked in list {
            let place = peeked.place;
            if !messages.is_empty() {
                let Some(left) = room.checked_sub(place.size as usize) else { break };
                room = left;
            }
            let mut record = Vec::with_capacity(place.size as usize);
            let position = leasehold_journal::Position(place.position);
            match self.journal.read(position, place.size, &mut record) {
                Ok(()) => messages.push(PeekedMessage { peeked, record }),
                Err(_) => self.counters.damaged_reads += 1,
            }
        }
        messages
    }

    fn count(&mut self, result: &Result<Outcome, Refusal>) {
        match result {
            Ok(Outcome::Granted { .. }) => self.counters.grants += 1,
            Ok(Outcome::Released { .. }) => self.counters.releases += 1,
            Ok(Outcome::Published { .. }) => self.counters.published += 1,
            Ok(Outcome::Settled(n)) => self.counters.settled += u64::from(*n),
            Err(_) => self.counters.refusals += 1,
            _ => {}
        }
    }

    /// A commit's answer does not say what was in it.
    fn count_commit(&mut self, ticket: Ticket, result: &Result<Outcome, Refusal>) {
        let done = matches!(result, Ok(Outcome::Committed { .. }));
        if let Some(parts) = self.committing.take_if(|parts| parts.ticket == ticket)
            && done
        {
            self.counters.settled += parts.settles;
            self.counters.published += parts.publishes;
            self.counters.releases += parts.releases;
        }
    }

    fn answer_now(&mut self, ticket: Ticket, result: Result<Outcome, Refusal>) {
        self.count(&result);
        self.held.push_back(Held { after: 0, ticket, notice: Notice::Reply(result) });
    }

    /// Ends the turn: timers, write, sync, release. Afterwards [`Shard::take_ready`] has what may
    /// leave.
    pub fn finish(&mut self, clock: &impl Clock) {
        if self.stopped.is_none() {
            self.give_credit_back();
            self.run_timers();
            self.upkeep();
            if let Err(error) = self.write_and_sync(clock) {
                self.stop(&error.to_string());
            }
        }
        self.release();
        self.publish_metrics();
    }

    /// What this brings may be unreadable as well; that is left for the next turn.
    fn give_credit_back(&mut self) {
        let unread = std::mem::take(&mut self.unread);
        if !unread.is_empty() {
            self.with_log(|core, log, now, out| core.unreadable(now, &unread, log, out));
        }
    }

    fn run_timers(&mut self) {
        if self.core.next_due().is_some_and(|due| due <= self.now) {
            // One bounded helping a turn: commands that wait are served in between.
            self.with_log(|core, log, now, out| {
                core.tick(now, log, out);
            });
        }
    }

    fn write_and_sync(&mut self, clock: &impl Clock) -> Result<(), JournalError> {
        self.journal.write()?;
        let unsynced = self.journal.written_sequence() > self.journal.durable_sequence();
        if !unsynced {
            self.synced_at = self.now;
            return Ok(());
        }
        match self.options.durability {
            Durability::Always => {
                let late = self.now >= self.synced_at + self.options.lazy_sync_us;
                if late || self.tally.must_sync > self.journal.durable_sequence() {
                    self.sync(clock)?;
                }
            }
            // Nobody waits for this sync, so no turn does. A disk that needs longer than the
            // interval is waited for all the same: what a power loss costs stays bounded.
            Durability::Interval(us) if self.now >= self.synced_at + us => {
                match self.journal.sync_beside()? {
                    true => self.count_sync(0),
                    false => self.sync(clock)?,
                }
            }
            Durability::Interval(_) | Durability::None => {}
        }
        Ok(())
    }

    fn sync(&mut self, clock: &impl Clock) -> Result<(), JournalError> {
        let started = clock.monotonic_us();
        self.journal.sync()?;
        self.count_sync(clock.monotonic_us().saturating_sub(started));
        Ok(())
    }

    /// `waited_us`: how long this thread did nothing else.
    fn count_sync(&mut self, waited_us: u64) {
        self.counters.sync_us += waited_us;
        self.counters.sync_us_max = self.counters.sync_us_max.max(waited_us);
        self.counters.syncs += 1;
        self.synced_at = self.now;
    }

    /// The sequence up to which what was decided may be told.
    pub(crate) fn released(&self) -> u64 {
        match self.options.durability {
            Durability::Always => self.journal.durable_sequence(),
            Durability::Interval(_) | Durability::None => self.journal.written_sequence(),
        }
    }

    fn release(&mut self) {
        if self.stopped.is_some() {
            // What was not released may not be durable: it is answered with the truth.
            for held in self.held.drain(..) {
                let notice = match held.notice {
                    Notice::Reply(Err(refusal)) => Notice::Reply(Err(refusal)),
                    Notice::Reply(Ok(_)) | Notice::Peeked(_) => {
                        Notice::Reply(Err(Refusal::Stopped))
                    }
                    _ => continue,
                };
                self.ready.push(Held { notice, ..held });
            }
            return;
        }
        let durable = self.released();
        if self.held.iter().all(|held| held.after <= durable) {
            self.ready.extend(self.held.drain(..));
            return;
        }
        for _ in 0..self.held.len() {
            let held = self.held.pop_front().expect("counted");
            if held.after <= durable {
                self.ready.push(held);
            } else {
                self.held.push_back(held);
            }
        }
    }

    fn publish_metrics(&mut self) {
        self.counters.turns += 1;
        let state = self.core.state();
        self.counters.messages = state.messages();
        self.counters.locks = state.locks().len() as u64;
        self.counters.sessions = self.core.sessions() as u64;
        let waits = self.core.lock_waits();
        self.counters.lock_waits = waits.grants;
        self.counters.lock_wait_us = waits.sum_us;
        self.counters.lock_wait_us_max = waits.longest_us;
        self.counters.resident_entries = state.resident_entries() as u64;
        self.counters.sequence = self.journal.last_sequence();
        self.counters.durable_sequence = self.journal.durable_sequence();
        let claims = self.core.claim_counts();
        let mut counters = self.counters;
        counters.lock_requests += claims.made + claims.refused;
        counters.grants += claims.made;
        counters.releases += claims.released;
        self.metrics.publish(counters);
    }

    pub(crate) fn take_ready_held(&mut self) -> std::vec::Drain<'_, Held> {
        self.ready.drain(..)
    }

    /// What may leave: tickets and notices in order.
    pub fn take_ready(&mut self) -> Vec<(Ticket, Notice)> {
        self.ready.drain(..).map(|held| (held.ticket, held.notice)).collect()
    }

    /// How long nothing will happen by itself, microseconds from the turn's time.
    pub fn idle_us(&self) -> Option<u64> {
        let timer = self.core.next_due();
        let unsynced = self.journal.written_sequence() > self.journal.durable_sequence();
        let sync = match self.options.durability {
            Durability::Always => Some(self.options.lazy_sync_us),
            Durability::Interval(us) => Some(us),
            Durability::None => None,
        };
        let sync = sync.filter(|_| unsynced).map(|us| self.synced_at + us);
        let chores = self.upkeep.due(self.now, self.journal.checkpoints_in_flight());
        let unread = (!self.unread.is_empty()).then_some(0);
        let due = [timer, sync, chores, unread].into_iter().flatten().min()?;
        Some(due.saturating_sub(self.now))
    }

    /// Stops for good: the first failure of the journal decides.
    pub(crate) fn stop(&mut self, why: &str) {
        self.stopped.get_or_insert_with(|| why.to_owned());
    }

    /// Syncs everything and marks the directory as cleanly closed.
    ///
    /// # Errors
    /// When the journal failed, now or before.
    pub fn close(mut self, clock: &impl Clock) -> Result<(), JournalError> {
        self.finish(clock);
        if let Some(first) = self.stopped {
            return Err(JournalError::Poisoned { first });
        }
        self.journal.close()
    }
}
