//! The messages of one partition that were taken and are not all done: what turns acks in any order
//! into the one offset that Kafka keeps.
//!
//! It knows neither the network nor the clock. Messages come in by [`push`](Window::push) in the
//! order of their offsets, go out by [`hand_out`](Window::hand_out), and end. The lowest that has
//! not ended is the offset to commit, and what ended behind it is the [`Progress`] beside it. A
//! returned message keeps its place and goes out before later ones. Of several with one key only
//! the first that has not ended may go out.
//!
//! The window is bounded: when it spans [`SPAN`] offsets or holds too many bytes no more are taken.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use crate::driver::Record;
use crate::progress::{EXCEPTIONS_MAX, Progress, SPAN};

/// The most bytes of messages that are held.
const BYTES_MAX: usize = 24 << 20;
/// The most messages that wait in memory to be handed out.
const WAITING_MAX: usize = 1000;
/// Bits of a token that count deliveries within an epoch.
const SERIAL_BITS: u32 = 24;

/// Who has a message, and until when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hand {
    pub token: u64,
    /// The consumer whose prefetch it counts against.
    pub consumer: u64,
    deadline: Option<Instant>,
}

#[derive(Debug)]
enum State {
    /// It waits.
    Ready,
    /// Somebody has it.
    InHand(Hand),
    /// It is on its way to the dead letters or to the end of the topic.
    Ending,
    /// It ended.
    Done,
}

#[derive(Debug)]
struct Entry {
    /// Gone when it is done.
    record: Option<Arc<Record>>,
    /// How often it was handed out.
    attempts: u32,
    state: State,
}

/// A message that was handed out.
#[derive(Debug, Clone)]
pub(crate) struct Handed {
    pub offset: i64,
    pub token: u64,
    pub attempt: u32,
    pub record: Arc<Record>,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Window {
    entries: BTreeMap<i64, Entry>,
    /// Those that may go out now.
    ready: BTreeSet<i64>,
    /// Of each key those that have not ended.
    keys: HashMap<Vec<u8>, BTreeSet<i64>>,
    deadlines: BTreeSet<(Instant, i64)>,
    /// Behind the last that was taken.
    next: i64,
    /// Behind the last that was handed out.
    handed: i64,
    bytes: usize,
    /// Messages that have not ended, and those of them that are with somebody.
    alive: usize,
    in_hand: usize,
    epoch: u64,
    serial: u64,
    /// What the former owner committed, and at which offset.
    former: Progress,
    origin: i64,
    /// Deliveries are counted exactly, since a message dies of too many.
    is_counted: bool,
}

impl Window {
    /// A window for the next owner of a partition, from what the former one committed.
    pub fn new(origin: i64, former: Progress, is_counted: bool) -> Self {
        Self {
            entries: BTreeMap::new(),
            ready: BTreeSet::new(),
            keys: HashMap::new(),
            deadlines: BTreeSet::new(),
            next: origin,
            handed: origin,
            bytes: 0,
            alive: 0,
            in_hand: 0,
            epoch: former.epoch + 1,
            serial: 0,
            former,
            origin,
            is_counted,
        }
    }

    /// Takes a message. One that was taken before is ignored: it is fetched again after a pause.
    pub fn push(&mut self, record: Record) {
        let offset = record.offset;
        if offset < self.next {
            return;
        }
        self.next = offset + 1;
        let behind = offset - self.origin;
        if self.former.done.binary_search(&behind).is_ok() {
            let done = Entry { record: None, attempts: 0, state: State::Done };
            self.entries.insert(offset, done);
            return self.advance();
        }
        let before = self.former.counts.get(&behind).copied();
        let before = before.unwrap_or(u32::from(behind < self.former.handed));
        self.bytes += record.size();
        self.alive += 1;
        let attempts = before + record.attempts();
        let key = record.key.clone();
        let entry = Entry { record: Some(Arc::new(record)), attempts, state: State::Ready };
        self.entries.insert(offset, entry);
        if before > 0 {
            self.handed = offset + 1;
        }
        match key {
            None => {
                self.ready.insert(offset);
            }
            Some(key) => {
                let same = self.keys.entry(key).or_default();
                same.insert(offset);
                if same.first() == Some(&offset) {
                    self.ready.insert(offset);
                }
            }
        }
    }

    /// Whether no more should be taken.
    pub fn is_full(&self) -> bool {
        self.span() >= SPAN || self.bytes >= BYTES_MAX || self.waiting() >= WAITING_MAX
    }

    /// Whether there is room again, and for many where that is up to consumers. The span is up to
    /// the first that is not done: it has to be used up before that one gives up its place.
    pub fn has_room(&self) -> bool {
        self.span() < SPAN && self.bytes < BYTES_MAX / 2 && self.waiting() < WAITING_MAX / 2
    }

    fn span(&self) -> i64 {
        self.next - self.offset()
    }

    fn waiting(&self) -> usize {
        self.alive - self.in_hand
    }

    /// The offset to commit: everything below is done.
    pub fn offset(&self) -> i64 {
        self.entries.first_key_value().map_or(self.next, |(offset, _)| *offset)
    }

    /// Behind the last message that was taken.
    pub fn position(&self) -> i64 {
        self.next
    }

    /// How many are in somebody's hand or on their way elsewhere.
    pub fn in_hand(&self) -> usize {
        self.in_hand
    }

    /// What to commit beside the offset. While a queue that does not count deliveries is `open`,
    /// anything may have been handed out.
    pub fn progress(&self, open: bool) -> Progress {
        let offset = self.offset();
        let is_exact = self.is_counted || !open;
        let handed = if is_exact { (self.handed - offset).max(0) } else { SPAN };
        let mut progress =
            Progress { epoch: self.epoch, handed, done: Vec::new(), counts: BTreeMap::new() };
        for (at, entry) in &self.entries {
            let behind = at - offset;
            if matches!(entry.state, State::Done) {
                progress.done.push(behind);
                continue;
            }
            // What a message brought along in its header it brings to the next owner, too.
            let brought = entry.record.as_ref().map_or(0, |record| record.attempts());
            let count = entry.attempts.saturating_sub(brought);
            let is_exception = if is_exact { count != 1 && *at < self.handed } else { count > 1 };
            if is_exception && progress.counts.len() < EXCEPTIONS_MAX {
                progress.counts.insert(behind, count);
            }
        }
        progress
    }

    /// Hands out the first message that may go, if there is one.
    pub fn hand_out(&mut self, consumer: u64, deadline: Option<Instant>) -> Option<Handed> {
        let offset = self.ready.pop_first()?;
        let entry = self.entries.get_mut(&offset)?;
        let record = entry.record.clone()?;
        self.serial += 1;
        let token = self.epoch << SERIAL_BITS | self.serial;
        entry.attempts = entry.attempts.saturating_add(1);
        entry.state = State::InHand(Hand { token, consumer, deadline });
        self.deadlines.extend(deadline.map(|deadline| (deadline, offset)));
        self.handed = self.handed.max(offset + 1);
        self.in_hand += 1;
        Some(Handed { offset, token, attempt: entry.attempts, record })
    }

    /// The consumers of what is in hand, each as often as it has something.
    pub fn consumers(&self) -> Vec<u64> {
        let hand = |entry: &Entry| match entry.state {
            State::InHand(hand) => Some(hand.consumer),
            _ => None,
        };
        self.entries.values().filter_map(hand).collect()
    }

    /// Whether tokens have run out: a new epoch has to be committed.
    pub fn is_worn(&self) -> bool {
        self.serial + 1 >= 1 << SERIAL_BITS
    }

    /// Begins a new epoch.
    pub fn renew(&mut self) {
        self.epoch += 1;
        self.serial = 0;
    }

    /// How many messages were handed out in this epoch.
    #[cfg(test)]
    fn serial(&self) -> u64 {
        self.serial
    }

    /// The delivery with this token, if it is open.
    pub fn open(&self, offset: i64, token: u64) -> Option<Hand> {
        match self.entries.get(&offset)?.state {
            State::InHand(hand) if hand.token == token => Some(hand),
            _ => None,
        }
    }

    /// How often a message was handed out.
    pub fn attempts(&self, offset: i64) -> u32 {
        self.entries.get(&offset).map_or(0, |entry| entry.attempts)
    }

    /// Sets an open delivery's deadline.
    pub fn extend(&mut self, offset: i64, deadline: Option<Instant>) {
        let Some(Entry { state: State::InHand(hand), .. }) = self.entries.get_mut(&offset) else {
            return;
        };
        if let Some(old) = hand.deadline {
            self.deadlines.remove(&(old, offset));
        }
        hand.deadline = deadline;
        self.deadlines.extend(deadline.map(|deadline| (deadline, offset)));
    }

    /// When the first lease is over.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// A delivery whose lease is over.
    pub fn expired(&self, now: Instant) -> Option<(i64, Hand)> {
        let (_, offset) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now)?;
        match self.entries.get(offset)?.state {
            State::InHand(hand) => Some((*offset, hand)),
            _ => None,
        }
    }

    fn leave_hand(&mut self, offset: i64, state: State) {
        let Some(entry) = self.entries.get_mut(&offset) else { return };
        if let State::InHand(Hand { deadline: Some(deadline), .. }) = entry.state {
            self.deadlines.remove(&(deadline, offset));
        }
        let was_held = matches!(entry.state, State::InHand(_) | State::Ending);
        self.in_hand -= usize::from(was_held);
        self.in_hand += usize::from(matches!(state, State::Ending));
        entry.state = state;
    }

    /// It goes back to its place; `unseen` by anybody, it was not handed out.
    pub fn give_back(&mut self, offset: i64, unseen: bool) {
        self.leave_hand(offset, State::Ready);
        if let Some(entry) = self.entries.get_mut(&offset) {
            entry.attempts -= u32::from(unseen && entry.attempts > 0);
            self.ready.insert(offset);
        }
    }

    /// It ends somewhere else, which is under way.
    pub fn begin_end(&mut self, offset: i64) -> Option<Arc<Record>> {
        self.ready.remove(&offset);
        self.leave_hand(offset, State::Ending);
        self.entries.get(&offset)?.record.clone()
    }

    /// It ended.
    pub fn end(&mut self, offset: i64) {
        self.leave_hand(offset, State::Done);
        self.ready.remove(&offset);
        let Some(entry) = self.entries.get_mut(&offset) else { return };
        let Some(record) = entry.record.take() else { return };
        self.bytes -= record.size();
        self.alive -= 1;
        if let Some(key) = &record.key
            && let Some(same) = self.keys.get_mut(key)
        {
            same.remove(&offset);
            match same.first() {
                Some(next) => {
                    let is_ready = |entry: &Entry| matches!(entry.state, State::Ready);
                    if self.entries.get(next).is_some_and(is_ready) {
                        self.ready.insert(*next);
                    }
                }
                None => {
                    self.keys.remove(key);
                }
            }
        }
        self.advance();
    }

    fn advance(&mut self) {
        while let Some(first) = self.entries.first_entry() {
            if !matches!(first.get().state, State::Done) {
                break;
            }
            first.remove();
        }
    }

    /// Ends everything that waits; gives how many.
    pub fn purge(&mut self) -> u64 {
        let is_ready = |entry: &Entry| matches!(entry.state, State::Ready);
        let ready = self.entries.iter().filter(|(_, entry)| is_ready(entry));
        let ready: Vec<i64> = ready.map(|(offset, _)| *offset).collect();
        ready.iter().for_each(|offset| self.end(*offset));
        ready.len() as u64
    }

    /// A returned message that keeps a full window from moving on, if it may lose its place.
    pub fn stuck(&self) -> Option<i64> {
        let (offset, first) = self.entries.first_key_value()?;
        let is_returned = matches!(first.state, State::Ready) && first.attempts > 0;
        let is_keyed = first.record.as_ref().is_some_and(|record| record.key.is_some());
        (self.span() >= SPAN && is_returned && !is_keyed).then_some(*offset)
    }
}

#[cfg(test)]
mod tests;
