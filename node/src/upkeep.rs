//! Upkeep between turns: checkpoints, and letting old segments go.
//!
//! A checkpoint is taken after so many journal bytes or changed cells and costs no more than what
//! changed. After it, segments that no message or index page needs any more are retired. One that
//! holds only a few stragglers is emptied by copying those to the journal's end, one page of index
//! a turn, so that a single old message never pins the disk and no turn takes long.

use std::collections::VecDeque;

use leasehold_core::index::{ListId, Relocation};
use leasehold_core::{CellSink, Command, Op, SessionId, SweepState, Ticket};
use leasehold_env::Disk;
use leasehold_journal::{Checkpoint, JournalError, Position, Sweep};

use crate::shard::{SLACK_BYTES, Shard};

/// Cells of the sweep in one checkpoint.
const SWEEP_CELLS: usize = 4096;
/// Checkpoint bytes after which a new sweep starts, at least.
const SWEEP_BYTES_MIN: u64 = 32 << 20;
/// Segments with a smaller share of live bytes are emptied.
const LIVE_SHARE_MIN: u64 = 4;
/// Messages and bytes copied in one turn.
const COPY_MESSAGES: usize = 256;
const COPY_BYTES: usize = 1 << 20;
/// How often finished chores are looked for while some are under way, microseconds.
const CHORES_US: u64 = 10_000;

/// The ticket of upkeep's own commands; nobody waits for their answers.
pub(crate) const UPKEEP: Ticket = Ticket(0);

/// What upkeep remembers between turns.
#[derive(Debug)]
pub(crate) struct Upkeep {
    /// End of the journal at the last checkpoint.
    checkpoint_end: u64,
    /// Whether this store has never had a sweep.
    never_swept: bool,
    /// Bytes of checkpoints since the last sweep began, and what the last sweep took.
    bytes_since_sweep: u64,
    sweep_bytes: u64,
    /// Where the newest durable checkpoint was when segments were last looked at.
    reviewed: u64,
    /// Pages to copy out of segments.
    copies: VecDeque<(ListId, u64, u64)>,
}

impl Upkeep {
    pub fn new(never_swept: bool) -> Self {
        Self {
            checkpoint_end: 0,
            never_swept,
            bytes_since_sweep: 0,
            sweep_bytes: 0,
            reviewed: 0,
            copies: VecDeque::new(),
        }
    }

    /// When the shard should be turned although nothing else asks for it.
    pub fn due(&self, now: u64, in_flight: usize) -> Option<u64> {
        if !self.copies.is_empty() {
            return Some(now);
        }
        (in_flight > 0).then_some(now + CHORES_US)
    }
}

struct Delta(Checkpoint);

impl CellSink for Delta {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.0.put(key, value);
    }

    fn delete(&mut self, key: &[u8]) {
        self.0.delete(key);
    }
}

impl<D: Disk> Shard<D> {
    pub(crate) fn upkeep(&mut self) {
        if let Err(error) = self.maintain() {
            self.stop(&error.to_string());
        }
    }

    fn maintain(&mut self) -> Result<(), JournalError> {
        match self.journal.poll() {
            Ok(()) => {}
            // A checkpoint without room is tried again by the journal; replay covers it until then.
            // Without it no segment can be retired, so what settling freed of the room set aside
            // is given back for it.
            Err(JournalError::Full { .. }) => {
                let kept = self.journal.headroom().saturating_sub(self.journal.segment_bytes());
                if kept >= self.reserve() + SLACK_BYTES {
                    self.journal.release_spare()?;
                }
            }
            Err(error) => return Err(error),
        }
        if self.checkpoint_is_due() {
            self.take_checkpoint()?;
        }
        let covered = self.journal.checkpoint_position().0;
        if covered / self.journal.segment_bytes() > self.upkeep.reviewed {
            self.upkeep.reviewed = covered / self.journal.segment_bytes();
            self.review_segments()?;
        }
        self.copy_stragglers();
        Ok(())
    }

    fn journal_end(&self) -> u64 {
        let last = self.journal.segments().last();
        last.map_or(0, |info| info.number * self.journal.segment_bytes() + info.bytes_used)
    }

    fn checkpoint_is_due(&self) -> bool {
        let bytes = self.journal_end().saturating_sub(self.upkeep.checkpoint_end);
        let cells = self.core.state().changed_cells();
        (bytes >= self.options.checkpoint_bytes || cells >= self.options.checkpoint_cells)
            && self.journal.checkpoints_in_flight() == 0
    }

    /// Takes a checkpoint now.
    ///
    /// # Errors
    /// When the journal fails.
    pub fn take_checkpoint(&mut self) -> Result<(), JournalError> {
        self.with_log(|core, log, now, out| core.before_checkpoint(now, log, out));
        let begin = !self.core.state().is_sweeping()
            && (self.upkeep.never_swept
                || self.upkeep.bytes_since_sweep
                    > SWEEP_BYTES_MIN.max(2 * self.upkeep.sweep_bytes));
        let mut delta = Delta(Checkpoint::new(Sweep::Continue));
        let state = self.core.checkpoint(&mut delta, begin, SWEEP_CELLS);
        let Delta(delta) = delta;
        let bytes = delta.bytes() as u64;
        self.upkeep.bytes_since_sweep += bytes;
        let sweep = match state {
            SweepState::Begun => {
                self.upkeep.never_swept = false;
                self.upkeep.bytes_since_sweep = bytes;
                Sweep::Begin
            }
            SweepState::Continued => Sweep::Continue,
            SweepState::Completed => {
                self.upkeep.sweep_bytes = self.upkeep.bytes_since_sweep;
                Sweep::Complete
            }
        };
        self.journal.checkpoint(delta.at(sweep))?;
        self.upkeep.checkpoint_end = self.journal_end();
        self.counters.checkpoints += 1;
        Ok(())
    }

    /// Retires what nobody needs and plans to empty what few need.
    fn review_segments(&mut self) -> Result<(), JournalError> {
        let segment_bytes = self.journal.segment_bytes();
        let covered = self.journal.checkpoint_position().0 / segment_bytes;
        let uses = self.core.state().segment_use();
        let sealed: Vec<u64> = self
            .journal
            .segments()
            .filter(|info| info.sealed && info.number < covered)
            .map(|info| info.number)
            .collect();
        self.upkeep.copies.clear();
        for segment in sealed {
            match uses.binary_search_by_key(&segment, |found| found.segment) {
                Err(_) => {
                    self.journal.retire(segment)?;
                    self.counters.segments_retired += 1;
                }
                Ok(i) if uses[i].bytes < segment_bytes / LIVE_SHARE_MIN => {
                    let found = &uses[i];
                    let pages = found.pages.iter().chain(&found.stored);
                    let copies = pages.map(|(list, base)| (*list, *base, segment));
                    self.upkeep.copies.extend(copies);
                }
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Copies the messages of one page out of the segment that is to go.
    fn copy_stragglers(&mut self) {
        let Some((list, base, segment)) = self.upkeep.copies.pop_front() else { return };
        if let Some(place) = self.core.state().page_to_load(list, base) {
            let mut effects = std::mem::take(&mut self.effects);
            self.load_page(place, &mut effects);
            self.effects = effects;
        }
        let found = self.core.state().messages_in(list, base, segment, COPY_MESSAGES);
        // The copies go into one group, which has to fit into a segment beside their page.
        let copy_bytes = COPY_BYTES.min(self.journal.segment_bytes() as usize / 8);
        let mut records = Vec::new();
        let mut bytes = 0;
        for (at, place) in &found {
            let mut record = Vec::new();
            match self.journal.read(Position(place.position), place.size, &mut record) {
                Ok(()) => {
                    bytes += record.len();
                    records.push((*at, record));
                }
                // It stays where it is, and keeps its segment: damage is never deleted.
                Err(_) => self.counters.damaged_reads += 1,
            }
            if bytes >= copy_bytes {
                break;
            }
        }
        if records.len() == found.len() && found.len() == COPY_MESSAGES || bytes >= copy_bytes {
            self.upkeep.copies.push_front((list, base, segment));
        }
        if records.is_empty() && !found.is_empty() {
            return;
        }
        self.counters.relocated += records.len() as u64;
        let relocation = Box::new(Relocation { list, base, records });
        self.with_log(|core, log, now, out| {
            let op = Op::Relocate(relocation);
            let command = Command { ticket: UPKEEP, session: SessionId::NONE, request: None, op };
            core.step(now, command, log, out);
        });
    }
}
