//! What keeps a journal going besides appending: room, checkpoints, retiring segments, closing.
//!
//! Room for what must not fail later is set aside in whole segments ahead of time; a full disk is
//! then an answer to a wish and not an accident. A segment is recycled only when a durable
//! checkpoint covers it and everything that led to its retirement is durable itself: otherwise a
//! crash could bring back a record's reader without the record.

use std::io;
use std::ops::RangeInclusive;

use leasehold_env::Disk;

use crate::checkpoint::Checkpoint;
use crate::chores::{Chore, Delta, Done, Failure};
use crate::directory::{Closed, segment_name};
use crate::error::JournalError;
use crate::frame::{Header, Kind};
use crate::journal::{Journal, Mark, Position, SegmentInfo};

/// The most bytes a delta may have.
const DELTA_BYTES_MAX: usize = 1 << 30;

/// How long after a checkpoint found no room it is tried again.
const STALLED_RETRY_US: u64 = 1_000_000;

impl<D: Disk> Journal<D> {
    /// Hands over a delta of the owner's state, valid at [`last_sequence`](Journal::last_sequence),
    /// and writes what was appended. The delta is durable when
    /// [`checkpoint_sequence`](Journal::checkpoint_sequence) has come up to it, never before the
    /// records it covers. Without room on the disk the delta is kept in memory and tried again
    /// about once a second; bound [`checkpoints_in_flight`](Journal::checkpoints_in_flight).
    ///
    /// # Errors
    /// `TooLarge` above 1 GiB; `Io`, `Poisoned`.
    ///
    /// # Panics
    /// If a sweep is completed that was not begun since the journal was opened: a bug of the
    /// caller that would lose cells.
    pub fn checkpoint(&mut self, delta: Checkpoint) -> Result<(), JournalError> {
        if delta.ops.len() > DELTA_BYTES_MAX {
            let (asked, largest) = (delta.ops.len() as u64, DELTA_BYTES_MAX as u64);
            return Err(JournalError::TooLarge { asked, largest });
        }
        self.write()?;
        let opens_file = delta.sweep.begins() || !self.generation_open;
        if opens_file {
            self.generation += 1;
            self.generation_open = true;
        }
        self.sweeping |= delta.sweep.begins();
        if delta.sweep.completes() {
            assert!(self.sweeping, "a sweep is completed that was not begun");
            self.sweeping = false;
        }
        let header = Header {
            kind: Kind::Delta,
            payload_bytes: 0,
            records: 0,
            position: 0,
            first_sequence: self.written.sequence,
            durable: self.written.position,
            time_us: self.time_us,
            epoch: self.epoch,
        };
        self.delta_index += 1;
        let delta = Delta {
            header,
            sweep: delta.sweep,
            opens_file,
            generation: self.generation,
            ops: delta.ops,
            index: self.delta_index,
            retry: false,
            dirty: self.dirty(),
        };
        if self.stalled.is_empty() {
            self.chores.submit(Chore::Delta(Box::new(delta)));
        } else {
            self.stalled.push_back(Box::new(delta));
        }
        self.collect_all()
    }

    /// Has everything written so far made durable without waiting for it;
    /// [`durable_sequence`](Journal::durable_sequence) says so after a later
    /// [`poll`](Journal::poll). One at a time: false if the one before is still under way.
    ///
    /// # Errors
    /// `Io` if the medium failed, which poisons the journal; `Poisoned`.
    pub fn sync_beside(&mut self) -> Result<bool, JournalError> {
        self.collect_all()?;
        if self.sync_in_flight {
            return Ok(false);
        }
        if self.written != self.durable {
            self.sync_in_flight = true;
            self.chores.submit(Chore::Sync { mark: self.written, dirty: self.dirty() });
            self.collect_all()?;
        }
        Ok(true)
    }

    /// The segments that hold written bytes which are not known to be durable.
    fn dirty(&self) -> RangeInclusive<u64> {
        if self.written == self.durable {
            return RangeInclusive::new(1, 0);
        }
        let bytes = self.segments.bytes;
        self.durable.position / bytes..=(self.written.position - 1) / bytes
    }

    /// Deltas that are not durable yet.
    pub fn checkpoints_in_flight(&self) -> usize {
        let others = usize::from(self.spare_in_flight) + usize::from(self.sync_in_flight);
        self.chores.in_flight() - others + self.stalled.len()
    }

    /// Everything before it is covered by a durable checkpoint.
    pub fn checkpoint_position(&self) -> Position {
        Position(self.checkpoint.position)
    }

    /// The newest durable checkpoint is valid at this record; 0 if there is none.
    pub fn checkpoint_sequence(&self) -> u64 {
        self.checkpoint.sequence
    }

    /// Takes in what chores have finished meanwhile.
    ///
    /// # Errors
    /// `Full` if a checkpoint found no room: nothing is lost, it will be tried again. `Io` if the
    /// medium failed, which poisons the journal; `Poisoned`.
    pub fn poll(&mut self) -> Result<(), JournalError> {
        self.collect_all()?;
        let waited = self.time_us.abs_diff(self.stalled_at_us) >= STALLED_RETRY_US;
        if waited && self.stalled.len() == self.checkpoints_in_flight() {
            for (at, mut delta) in std::mem::take(&mut self.stalled).into_iter().enumerate() {
                delta.retry = at == 0;
                self.chores.submit(Chore::Delta(delta));
            }
            self.collect_all()?;
        }
        if let Some(needed) = self.full_delta_bytes.take() {
            return Err(JournalError::Full { needed, available: 0 });
        }
        self.recycle_retired()
    }

    /// Takes in finished chores without minding those that found no room.
    pub(crate) fn collect_all(&mut self) -> Result<(), JournalError> {
        self.check_poison()?;
        while let Some(done) = self.collect(false)? {
            self.take_in(done)?;
        }
        Ok(())
    }

    fn collect(&mut self, wait: bool) -> Result<Option<Done<D::File>>, JournalError> {
        let collected = self.chores.collect(wait);
        collected.map_err(|failure| self.fail_chore(failure))
    }

    fn take_in(&mut self, done: Done<D::File>) -> Result<(), JournalError> {
        match done {
            Done::Spare(spare) => {
                self.spare_in_flight = false;
                match spare {
                    Ok(spare) => self.segments.push_spare(spare),
                    // Whoever needs the room asks for it again and gets the answer then.
                    Err(failure) if failure.is_full() => {}
                    Err(failure) => return Err(self.fail_chore(failure)),
                }
            }
            Done::Delta { delta, file_bytes } => {
                let header = delta.header;
                let mark = Mark { sequence: header.first_sequence, position: header.durable };
                self.checkpoint = mark;
                self.stored = (delta.generation, file_bytes);
                // The chore has synced the records and the names below it.
                if mark.position > self.durable.position {
                    self.durable = mark;
                }
            }
            Done::DeltaFull(delta) => {
                self.full_delta_bytes = Some(delta.ops.len() as u64);
                self.stalled_at_us = self.time_us;
                let at = self.stalled.partition_point(|known| known.index < delta.index);
                self.stalled.insert(at, delta);
            }
            Done::DeltaFailed(failure) => return Err(self.fail_chore(failure)),
            Done::Synced(synced) => {
                self.sync_in_flight = false;
                let mark = synced.map_err(|failure| self.fail_chore(failure))?;
                // The owner may have synced more meanwhile.
                if mark.position > self.durable.position {
                    self.durable = mark;
                }
            }
        }
        Ok(())
    }

    fn fail_chore(&mut self, failure: Failure) -> JournalError {
        self.fail(failure.step, failure.file, failure.source)
    }

    /// The kept segments, ascending. The last one is being filled.
    pub fn segments(&self) -> impl Iterator<Item = SegmentInfo> + '_ {
        self.segments.numbers().map(|number| {
            let sealed = number < self.segments.current;
            let bytes_used = if sealed { self.segments.bytes } else { self.offset };
            SegmentInfo { number, bytes_used, sealed }
        })
    }

    /// Gives up a segment: no record in it will be read again. It can be recycled as soon as the
    /// records appended so far are durable; until then a crash may bring it back.
    ///
    /// # Errors
    /// `NotRetirable` if it is unknown, still being filled or not covered by a durable checkpoint;
    /// `Io`, `Poisoned`.
    pub fn retire(&mut self, segment: u64) -> Result<(), JournalError> {
        self.check_poison()?;
        let refuse = |reason| Err(JournalError::NotRetirable { segment, reason });
        if !self.segments.contains(segment) {
            return refuse("there is none of that number");
        }
        if segment >= self.segments.current {
            return refuse("it is still being filled");
        }
        if (segment + 1) * self.segments.bytes > self.checkpoint.position {
            return refuse("a restart would replay it: no durable checkpoint lies behind it");
        }
        self.segments.forget(segment);
        self.cache.forget(segment);
        self.retiring.push((segment, self.last_sequence()));
        self.recycle_retired()
    }

    pub(crate) fn recycle_retired(&mut self) -> Result<(), JournalError> {
        let mut at = 0;
        while at < self.retiring.len() {
            let (segment, sequence) = self.retiring[at];
            if sequence > self.durable.sequence {
                at += 1;
                continue;
            }
            self.retiring.swap_remove(at);
            let recycled = self.segments.recycle(segment, self.options.spares_max);
            recycled.map_err(|source| self.fail("recycle", segment_name(segment), source))?;
        }
        Ok(())
    }

    /// Bytes of room set aside: the rest of the current segment and all spares. A group that does
    /// not fit into the rest of a segment leaves that rest unused.
    pub fn headroom(&self) -> u64 {
        let open = self.open_frame_bytes();
        let rest = self.segments.bytes - self.offset;
        rest.saturating_sub(open) + self.segments.spares() as u64 * self.segments.bytes
    }

    /// Makes sure that at least `bytes` bytes of [`headroom`](Journal::headroom) exist.
    ///
    /// # Errors
    /// `Full` if the disk has no room for them: nothing was harmed, what is set aside stays so.
    /// `Io`, `Poisoned`.
    pub fn ensure_headroom(&mut self, bytes: u64) -> Result<(), JournalError> {
        self.check_poison()?;
        while self.headroom() < bytes {
            self.reserve_spare(bytes)?;
        }
        Ok(())
    }

    /// Gives the room of one spare segment back to the disk, for a checkpoint that found none;
    /// false if there is no spare. The caller makes sure that the rest is enough for what it
    /// promised.
    ///
    /// # Errors
    /// `Io`, `Poisoned`.
    pub fn release_spare(&mut self) -> Result<bool, JournalError> {
        self.check_poison()?;
        let dropped = self.segments.drop_spare();
        dropped.map_err(|source| self.fail("remove", "a spare segment".to_owned(), source))
    }

    /// Sets room aside for one more segment, because `needed` bytes are asked for.
    pub(crate) fn reserve_spare(&mut self, needed: u64) -> Result<(), JournalError> {
        match self.segments.reserve_spare() {
            Ok(()) => Ok(()),
            Err(source) if source.kind() == io::ErrorKind::StorageFull => {
                Err(JournalError::Full { needed, available: self.headroom() })
            }
            Err(source) => Err(self.fail("create", "a spare segment".to_owned(), source)),
        }
    }

    /// Has the next segment prepared once half of the current one is used.
    pub(crate) fn want_spare(&mut self) {
        let half = self.offset > self.segments.bytes / 2;
        // Spares that are only room for settling do not count: their first syncs are slow.
        if !half || self.spare_in_flight || self.segments.has_written_spare() {
            return;
        }
        self.spare_in_flight = true;
        let (name, bytes) = (self.segments.new_spare_name(), self.segments.bytes);
        self.chores.submit(Chore::Spare { name, bytes });
    }

    /// Writes and syncs everything, waits for the chores and leaves the clean-close mark.
    ///
    /// # Errors
    /// `Io`, `Poisoned`: the next opening finds what a crash would have left. `Full` if the mark
    /// found no room: the same, and everything appended is durable. A checkpoint that found no
    /// room is no error: the records it covers will be replayed instead.
    pub fn close(mut self) -> Result<(), JournalError> {
        self.write()?;
        while let Some(done) = self.collect(true)? {
            self.take_in(done)?;
        }
        self.sync()?;
        if self.segments.names_dirty {
            self.sync()?;
        }
        let closed = Closed {
            sequence: self.written.sequence,
            position: self.written.position,
            epoch: self.epoch,
            generation: self.stored.0,
            generation_bytes: self.stored.1,
        };
        match closed.store(&self.disk) {
            Err(source) if source.kind() == io::ErrorKind::StorageFull => {
                Err(JournalError::Full { needed: 0, available: 0 })
            }
            Err(source) => Err(self.fail("write", "the clean-close mark".to_owned(), source)),
            Ok(()) => Ok(()),
        }
    }
}
