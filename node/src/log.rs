//! The core's log over the journal.

use leasehold_core::{Event, Log, Stamp};
use leasehold_env::Disk;
use leasehold_journal::{Journal, JournalError};

/// What one turn has to know of the events it made.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Sequence of the last event that outcomes wait for.
    pub must_sync: u64,
    /// The journal could not take an event: the turn must not be answered.
    pub failed: Option<JournalError>,
    /// Where events go then.
    waste: Vec<u8>,
    wasted: u64,
}

/// Borrowed for one step.
pub(crate) struct Adapter<'a, D: Disk> {
    pub journal: &'a mut Journal<D>,
    pub tally: &'a mut Tally,
    pub now: u64,
}

impl<D: Disk> Log for Adapter<'_, D> {
    fn group(&mut self, bytes_max: usize) {
        if self.tally.failed.is_none()
            && let Err(error) = self.journal.reserve_group(bytes_max)
        {
            self.tally.failed = Some(error);
        }
    }

    fn append(&mut self, event: &Event<'_>) -> Stamp {
        if self.tally.failed.is_some() {
            // The shard stops at the end of the turn; until then the rules may finish.
            self.tally.waste.clear();
            event.encode(&mut self.tally.waste);
            self.tally.wasted += 1;
            let sequence = self.journal.last_sequence() + self.tally.wasted;
            let size = self.tally.waste.len() as u32;
            return Stamp { sequence, at: self.now, position: 0, size };
        }
        let placed = self.journal.append(|out| event.encode(out));
        if event.must_sync() {
            self.tally.must_sync = placed.sequence;
        }
        Stamp {
            sequence: placed.sequence,
            at: self.now,
            position: placed.position.0,
            size: placed.size,
        }
    }
}
