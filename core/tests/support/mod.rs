//! One shard on a journal in memory, with a checkpoint beside it and restarts on demand.
//!
//! It does what a node does, without a disk: it keeps every record at its position, serves the
//! pages that the core asks for, and applies checkpoints to a map of cells as the journal would.
#![allow(dead_code, reason = "each test uses its part of the bench")]

use std::collections::BTreeMap;

use leasehold_core::content::Bytes;
use leasehold_core::index::{Entry, Page, Place, decode_items};
use leasehold_core::limits::SECOND;
use leasehold_core::wire::Reader;
use leasehold_core::*;

/// Wall-clock time when the shard's time was 0.
pub const WALL: Time = 1_000_000 * SECOND;

/// Records stand so far apart at least: journal segments then hold few of them, and grow old soon.
const RECORD_BYTES: u64 = 8 << 10;

pub type Cells = BTreeMap<Vec<u8>, Vec<u8>>;
pub type Answer = Result<Outcome, Refusal>;

/// A journal in memory.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    pub now: Time,
    pub records: Vec<(Stamp, Vec<u8>)>,
    /// How many records there were before each group.
    pub groups: Vec<usize>,
    /// The most bytes that a group was made for.
    pub largest_group: usize,
    end: Position,
}

impl Log for Memory {
    fn group(&mut self, bytes_max: usize) {
        self.largest_group = self.largest_group.max(bytes_max);
        self.groups.push(self.records.len());
    }

    /// Law: every event decodes to itself, and encodes to the same bytes again.
    fn append(&mut self, event: &Event<'_>) -> Stamp {
        let mut bytes = Vec::new();
        event.encode(&mut bytes);
        let again = Event::decode(&bytes).expect("an event decodes");
        assert_eq!(again, *event, "an event decodes to itself");
        let mut twice = Vec::new();
        again.encode(&mut twice);
        assert_eq!(twice, bytes, "an event encodes to the same bytes again");
        let stamp = Stamp {
            sequence: self.records.len() as u64 + 1,
            at: self.now,
            position: self.end,
            size: bytes.len() as u32,
        };
        self.end += (bytes.len() as u64).max(RECORD_BYTES);
        self.records.push((stamp, bytes));
        stamp
    }
}

impl Memory {
    pub fn read(&self, place: Place) -> &[u8] {
        let at = self.records.partition_point(|(stamp, _)| stamp.position < place.position);
        let (stamp, bytes) = &self.records[at];
        assert_eq!((stamp.position, stamp.size), (place.position, place.size), "a record's place");
        bytes
    }

    pub fn message(&self, place: Place) -> Envelope<'_> {
        message_of(self.read(place)).expect("a place leads to a message")
    }
}

struct Delta<'a>(Vec<&'a mut Cells>);

impl CellSink for Delta<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        for cells in &mut self.0 {
            cells.insert(key.to_vec(), value.to_vec());
        }
    }

    fn delete(&mut self, key: &[u8]) {
        for cells in &mut self.0 {
            cells.remove(key);
        }
    }
}

/// The shard.
pub struct Shard {
    pub core: Core,
    pub log: Memory,
    pub last_ticket: u64,
    /// What the newest checkpoint holds, and up to which event it is good.
    pub cells: Cells,
    pub covered: u64,
    /// The generation that a sweep is filling.
    sweep: Option<Cells>,
    /// What it said and nobody looked at yet.
    pub said: Vec<EffectKind>,
    pub loads: u64,
    /// The last commands and what was said; shown when a test fails.
    transcript: Vec<String>,
}

impl Drop for Shard {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("LEASEHOLD_TRANSCRIPT").is_some() {
            let from = self.transcript.len().saturating_sub(60);
            self.transcript[from..].iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

impl Shard {
    pub fn new(limits: Limits) -> Self {
        let mut shard = Self {
            core: Core::new(limits, 1),
            log: Memory { now: SECOND, ..Memory::default() },
            last_ticket: 0,
            cells: Cells::new(),
            covered: 0,
            sweep: None,
            said: Vec::new(),
            loads: 0,
            transcript: Vec::new(),
        };
        shard.boot();
        shard
    }

    fn boot(&mut self) {
        self.act(|core, log, out| core.boot(log.now, WALL + log.now, log, out));
    }

    /// One step, with the pages it asks for, and the check of all invariants.
    pub fn act(&mut self, rules: impl FnOnce(&mut Core, &mut Memory, &mut Vec<Effect>)) {
        let mut out = Vec::new();
        rules(&mut self.core, &mut self.log, &mut out);
        let mut i = 0;
        while i < out.len() {
            if let EffectKind::LoadPage(_, _, place) = out[i].kind {
                let record = self.log.read(place).to_vec();
                let now = self.log.now;
                self.core.page_loaded(now, &record, &mut self.log, &mut out).expect("a page");
                self.loads += 1;
                assert!(self.loads < 1_000_000 && out.len() < 100_000, "loading pages ends");
            }
            i += 1;
        }
        let now = self.log.now;
        self.transcript.extend(out.iter().map(|effect| format!("  {now} → {:?}", effect.kind)));
        self.core.check();
        let kinds = out.into_iter().map(|effect| effect.kind);
        self.said.extend(kinds.filter(|kind| !matches!(kind, EffectKind::LoadPage(..))));
    }

    /// Sends a command; what is said meanwhile is in `said`.
    pub fn send(&mut self, session: SessionId, request: Option<u128>, op: Op) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        let command = Command { ticket, session, request: request.map(RequestId), op };
        let now = self.log.now;
        let mut line = format!("{now} {:?} {:?} {:?}", ticket.0, session.0, command.op);
        line = line.replace("0, 0, 0, 0, ", "");
        line.truncate(line.floor_char_boundary(300));
        self.transcript.push(line);
        self.act(|core, log, out| core.step(log.now, command, log, out));
        ticket
    }

    /// Sends a command and takes its answer out of what was said, asking again for pages.
    pub fn try_ask(&mut self, session: SessionId, request: Option<u128>, op: Op) -> Option<Answer> {
        for _ in 0..64 {
            let ticket = self.send(session, request, op.clone());
            let is_mine =
                |kind: &EffectKind| matches!(kind, EffectKind::Reply(t, _) if *t == ticket);
            let at = self.said.iter().position(is_mine)?;
            let EffectKind::Reply(_, answer) = self.said[at].clone() else { unreachable!() };
            if answer != Err(Refusal::PageNeeded) {
                return Some(answer);
            }
            self.said.remove(at);
        }
        panic!("a command asks for pages for ever")
    }

    pub fn ask(&mut self, session: SessionId, op: Op) -> Answer {
        self.try_ask(session, None, op).expect("an answer at once")
    }

    /// Ticks once.
    pub fn tick(&mut self) -> bool {
        let mut done = true;
        self.act(|core, log, out| done = core.tick(log.now, log, out));
        done
    }

    pub fn replayed(&self) -> Durable {
        let mut state = Durable::new(Shape::of(self.core.limits()), 99);
        self.replay(&mut state, 0);
        state
    }

    fn replay(&self, state: &mut Durable, after: u64) {
        for (stamp, bytes) in self.log.records.iter().filter(|(s, _)| s.sequence > after) {
            state.replay(*stamp, &Event::decode(bytes).expect("a recorded event decodes"));
        }
    }

    /// The state from the checkpoint and the events after it.
    pub fn restored(&self) -> Durable {
        if self.cells.is_empty() {
            return self.replayed();
        }
        let cells = self.cells.iter().map(|(key, value)| (&key[..], &value[..]));
        let mut state = Durable::restore(cells, 98).expect("cells fit").expect("a state");
        assert_eq!(state.sequence(), self.covered, "a checkpoint is good up to its last event");
        self.replay(&mut state, self.covered);
        state
    }

    /// Law: replay and checkpoint lead to the same state as running did.
    pub fn laws(&self) {
        let here = self.core.state().all_cells();
        same("replay", &self.replayed().all_cells(), &here);
        same("the checkpoint and what came after it", &self.restored().all_cells(), &here);
    }

    pub fn restart(&mut self) {
        let limits = self.core.limits().clone();
        self.core = Core::from_durable(self.restored(), limits, 7);
        // A half-filled generation is not used after a crash.
        self.sweep = None;
        self.boot();
    }

    pub fn checkpoint(&mut self, begin: bool, sweep_max: usize) {
        self.act(|core, log, out| core.before_checkpoint(log.now, log, out));
        // The first checkpoint must hold everything, so that it begins the first sweep.
        let mut delta = Cells::new();
        let mut gone = Cells::new();
        struct Split<'a>(&'a mut Cells, &'a mut Cells);
        impl CellSink for Split<'_> {
            fn put(&mut self, key: &[u8], value: &[u8]) {
                self.1.remove(key);
                self.0.insert(key.to_vec(), value.to_vec());
            }
            fn delete(&mut self, key: &[u8]) {
                self.0.remove(key);
                self.1.insert(key.to_vec(), Vec::new());
            }
        }
        let begin = begin && !self.core.state().is_sweeping();
        let state = self.core.checkpoint(&mut Split(&mut delta, &mut gone), begin, sweep_max);
        if state == SweepState::Begun {
            self.sweep = Some(Cells::new());
        }
        let mut sink = Delta(vec![&mut self.cells]);
        sink.0.extend(&mut self.sweep);
        gone.keys().for_each(|key| sink.delete(key));
        delta.iter().for_each(|(key, value)| sink.put(key, value));
        if state == SweepState::Completed
            && let Some(whole) = self.sweep.take()
        {
            self.cells = whole;
        }
        self.covered = self.core.state().sequence();
    }

    /// The entries of a lane's page, from memory or from its record.
    pub fn entries(&self, page: &Page<Entry>) -> Vec<(u64, Entry)> {
        let items = self.items(page);
        let live = (page.base..).zip(items).filter(|(at, _)| page.is_live(*at));
        live.collect()
    }

    pub fn items<T: index::Item>(&self, page: &Page<T>) -> Vec<T> {
        if page.resident || page.live == 0 {
            return page.items.clone();
        }
        let record = self.log.read(page.stored.expect("a page that left memory is stored"));
        let Ok(Event::PageStored { items, .. }) = Event::decode(record) else {
            panic!("a page's record is the page")
        };
        decode_items(&mut Reader::new(items)).expect("a page's record has its items")
    }
}

fn same(what: &str, there: &Cells, here: &Cells) {
    for (key, value) in here {
        assert_eq!(there.get(key), Some(value), "{what}: cell {key:02x?}");
    }
    for key in there.keys() {
        assert!(here.contains_key(key), "{what}: cell {key:02x?} is too much");
    }
}

pub fn name(text: &str) -> Name {
    Name::new(text).expect("a good name")
}

/// Carries out a decision over keys.
pub fn decide<R>(shard: &mut Shard, procedure: impl FnOnce(&mut Keys<'_, '_>) -> R) -> R {
    let mut result = None;
    shard.act(|core, log, out| result = Some(core.keys(log.now, log, out, procedure)));
    result.expect("it decided")
}

/// What a key holds.
pub fn bytes(text: &str) -> Bytes {
    text.as_bytes().into()
}
