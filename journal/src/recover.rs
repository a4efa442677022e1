//! Opening: from whatever a crash, or a clean close, left behind to a journal that can go on.
//!
//! The hard part is to tell a torn tail, which is dropped, from damage, which must be refused.
//! Where the log stops making sense, everything behind is searched for a witness: a frame that was
//! written when the log was already known to be durable beyond that place. Every frame carries
//! that knowledge (`durable`), and so do checkpoints and the clean-close mark. With a witness, the
//! bytes were once safe and are not any more: refuse. Without, nobody was promised them: the log
//! ends here.
//!
//! Replay verifies and hands out in one pass; until it has reached the end nothing on the disk is
//! changed. Then the remains behind the end are wiped and a frame without records, carrying a
//! higher epoch, is written there and synced. Epochs never go down along the log, so whatever
//! remains might survive the wiping still cannot become part of it; and a crash during all this
//! finds the same end again.

use leasehold_env::{Disk, DiskFile};

use crate::checkpoint::{Base, Cells, load};
use crate::directory::{
    CLOSED_NAME, CLOSED_NEW_NAME, Closed, checkpoint_name, checkpoint_numbers, claim, failed,
    segment_name, segment_numbers, spare_name, spare_numbers,
};
use crate::error::{OpenError, ReplayError};
use crate::frame::{HEADER_BYTES, Header, Kind, Records};
use crate::journal::{Journal, Position};
use crate::options::Options;
use crate::segments::{Segments, Spare};
use crate::window::{Check, Window};

/// One record, as it is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its number; the next record's is one higher.
    pub sequence: u64,
    /// The time its turn began, as given to [`Journal::begin_turn`].
    pub time_us: u64,
    /// Where its bytes are, for [`Journal::read`].
    pub position: Position,
    /// The record.
    pub bytes: &'a [u8],
}

/// A journal that has been opened and is still to be replayed.
pub struct Recovery<D: Disk> {
    disk: D,
    options: Options,
    names: Vec<String>,
    base: Base,
    closed: Option<Closed>,
}

/// Where the replay stands, and at last where the log ends.
#[derive(Clone, Copy, Debug)]
struct End {
    segment: u64,
    offset: u64,
    /// Sequence of the last record.
    sequence: u64,
    /// Epoch of the last frame.
    epoch: u32,
    epoch_max: u32,
    /// End of the last frame; differs from segment and offset before the first frame of a segment.
    position: u64,
    time_us: u64,
}

/// Checks the directory, or claims an empty one, and reads its checkpoint.
pub(crate) fn open<D: Disk>(disk: D, mut options: Options) -> Result<Recovery<D>, OpenError> {
    options.check()?;
    options.segment_bytes = claim(&disk, options.segment_bytes)?;
    let names = disk.list().map_err(failed("list", "."))?;
    let closed = Closed::load(&disk, &names)?;
    let base = load(&disk, &checkpoint_numbers(&names))?;
    if let Some(closed) = &closed
        && (closed.generation, closed.generation_bytes) != (base.generation, base.generation_bytes)
    {
        return Err(OpenError::Damaged {
            file: checkpoint_name(closed.generation),
            offset: base.generation_bytes,
            detail: format!(
                "generation {} with {} bytes was there when the directory was closed, found is \
                 generation {} with {} bytes",
                closed.generation, closed.generation_bytes, base.generation, base.generation_bytes
            ),
        });
    }
    Ok(Recovery { disk, options, names, base, closed })
}

impl<D: Disk> Recovery<D> {
    /// The checkpoint's cells: the owner's state after record [`sequence`](Recovery::sequence).
    pub fn cells(&self) -> &Cells {
        &self.base.cells
    }

    /// Hands the cells over and forgets them.
    pub fn take_cells(&mut self) -> Cells {
        std::mem::take(&mut self.base.cells)
    }

    /// The checkpoint holds everything up to this record; 0 if there is no checkpoint.
    pub fn sequence(&self) -> u64 {
        self.base.sequence
    }

    /// Whether the directory was closed cleanly. True for a new one too.
    pub fn clean(&self) -> bool {
        self.closed.is_some() || segment_numbers(&self.names).is_empty()
    }

    /// Shows every record after the checkpoint to `visit`, in order, and opens the journal for
    /// writing. Memory is bounded by the largest frame.
    ///
    /// What was shown before an error must be forgotten. Until the last record has been visited
    /// nothing on the disk is changed.
    ///
    /// # Errors
    /// [`ReplayError::Visit`] with whatever `visit` returned, [`ReplayError::Open`] if the log is
    /// damaged or the medium fails.
    pub fn replay<E>(
        self,
        mut visit: impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<Journal<D>, ReplayError<E>> {
        let numbers = segment_numbers(&self.names);
        let (end, remains) = self.find_end(&numbers, &mut visit)?;
        Ok(self.finish(&numbers, end, &remains)?)
    }

    /// Shows every record to `visit` and judges what lies behind the last one. Changes nothing.
    /// Returns where the log ends and the offsets of whole headers behind that in its segment.
    fn find_end<E>(
        &self,
        numbers: &[u64],
        visit: &mut impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<(End, Vec<u64>), ReplayError<E>> {
        let mut end = self.start();
        let fault = loop {
            let fault = self.walk(numbers, &mut end, visit)?;
            // A segment is left early when a group does not fit. Then the next one starts with
            // exactly the record that is expected, and nothing is missing in between.
            let mut seam = End { segment: end.segment + 1, offset: 0, ..end };
            self.walk(numbers, &mut seam, visit)?;
            if seam.position == end.position {
                break fault;
            }
            end = seam;
        };
        let mut remains = Vec::new();
        match self.closed {
            Some(closed) => self.check_closed(&closed, &mut end, fault)?,
            None => self.find_witness(numbers, &mut end, fault, &mut remains)?,
        }
        Ok((end, remains))
    }

    /// Reads everything a replay would, changing nothing. Returns the last sequence.
    pub(crate) fn check(&self) -> Result<u64, OpenError> {
        let numbers = segment_numbers(&self.names);
        let mut visit = |_: Record<'_>| Ok::<(), std::convert::Infallible>(());
        match self.find_end(&numbers, &mut visit) {
            Ok((end, _)) => Ok(end.sequence),
            Err(ReplayError::Open(error)) => Err(error),
            Err(ReplayError::Visit { source, .. }) => match source {},
        }
    }

    fn start(&self) -> End {
        let bytes = self.options.segment_bytes;
        End {
            segment: self.base.position / bytes,
            offset: self.base.position % bytes,
            sequence: self.base.sequence,
            epoch: self.base.epoch,
            epoch_max: self.base.epoch,
            position: self.base.position,
            time_us: 0,
        }
    }

    /// Visits the records of one segment from `end` on and moves `end` behind them. Returns why
    /// there are no more.
    fn walk<E>(
        &self,
        numbers: &[u64],
        end: &mut End,
        visit: &mut impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<&'static str, ReplayError<E>> {
        let bytes = self.options.segment_bytes;
        if numbers.binary_search(&end.segment).is_err() {
            return Ok("the file is missing");
        }
        let name = segment_name(end.segment);
        let file = self.disk.open(&name).map_err(failed("open", &name))?;
        let mut window = Window::new(&file).map_err(failed("read", &name))?;
        if window.length() != bytes {
            let detail = format!("the file has {} bytes instead of {bytes}", window.length());
            return Err(OpenError::Damaged { file: name, offset: 0, detail }.into());
        }
        loop {
            let position = end.segment * bytes + end.offset;
            let step = window
                .frame(end.offset, position, Check::Everything)
                .map_err(failed("read", &name))?;
            let (header, payload) = match step {
                Ok(step) => step,
                Err(fault) => return Ok(fault),
            };
            if let Err(fault) = end.follows(&header) {
                return Ok(fault);
            }
            for span in Records::new(payload).flatten() {
                end.sequence += 1;
                let at = position + (HEADER_BYTES + span.bytes.start) as u64;
                let record = Record {
                    sequence: end.sequence,
                    time_us: header.time_us,
                    position: Position(at),
                    bytes: &payload[span.bytes],
                };
                visit(record)
                    .map_err(|source| ReplayError::Visit { sequence: end.sequence, source })?;
            }
            end.epoch = header.epoch;
            end.epoch_max = end.epoch_max.max(header.epoch);
            end.time_us = header.time_us;
            end.offset += header.frame_bytes();
            end.position = position + header.frame_bytes();
        }
    }

    /// Makes the directory ready for appending.
    fn finish(self, numbers: &[u64], end: End, remains: &[u64]) -> Result<Journal<D>, OpenError> {
        let kept = self.clean_up(numbers, &end, remains)?;
        let epoch = end.epoch_max + 1;
        let next_spare = spare_numbers(&self.names).last().copied().unwrap_or(0);
        let bytes = self.options.segment_bytes;
        let mut segments = Segments::new(self.disk.clone(), bytes, &kept, end.segment, next_spare);
        if self.closed.is_some() {
            adopt_spares(&self.disk, &self.names, &mut segments)?;
        }
        if !segments.contains(end.segment) {
            let name = segment_name(end.segment);
            if segments.spares() == 0 {
                segments.reserve_spare().map_err(failed("create", &name))?;
            }
            segments.adopt(end.segment).map_err(failed("create", &name))?;
        }
        let start = crate::journal::Start {
            sequence: end.sequence,
            position: end.position,
            offset: end.offset,
            epoch,
            time_us: end.time_us,
            checkpoint_sequence: self.base.sequence,
            checkpoint_position: self.base.position,
            generation: self.base.generation,
            generation_bytes: self.base.generation_bytes,
            generation_max: self.base.generation_max,
            chain: self.base.chain,
        };
        Journal::start(self.disk, self.options, segments, start)
    }

    fn check_closed(
        &self,
        closed: &Closed,
        end: &mut End,
        fault: &'static str,
    ) -> Result<(), OpenError> {
        end.epoch_max = end.epoch_max.max(closed.epoch);
        if (closed.sequence, closed.position) == (end.sequence, end.position) {
            return Ok(());
        }
        Err(end.damaged(format!(
            "{fault}; the directory was closed after record {} at position {}, found are records \
             up to {} at position {}",
            closed.sequence, closed.position, end.sequence, end.position
        )))
    }

    /// Searches everything behind the end. Fills `remains` with the offsets of whole headers in
    /// the last segment.
    fn find_witness(
        &self,
        numbers: &[u64],
        end: &mut End,
        fault: &'static str,
        remains: &mut Vec<u64>,
    ) -> Result<(), OpenError> {
        let bytes = self.options.segment_bytes;
        if end.offset > 0 && !numbers.contains(&end.segment) {
            return Err(end.damaged(format!("{fault}; a checkpoint relies on it")));
        }
        let mut witness: Option<(u64, u64, u64)> = None;
        let mut epoch_max = end.epoch_max;
        for &number in numbers.iter().filter(|number| **number >= end.segment) {
            let name = segment_name(number);
            let file = self.disk.open(&name).map_err(failed("open", &name))?;
            let mut window = Window::new(&file).map_err(failed("read", &name))?;
            let from = if number == end.segment { end.offset } else { 0 };
            let found = window.scan(from, number * bytes, |offset, header: &Header| {
                epoch_max = epoch_max.max(header.epoch);
                if number == end.segment {
                    remains.push(offset);
                }
                if header.durable > end.position && witness.is_none() {
                    witness = Some((number, offset, header.durable));
                }
            });
            found.map_err(failed("read", &name))?;
        }
        end.epoch_max = epoch_max;
        match witness {
            None => Ok(()),
            Some((number, offset, durable)) => Err(end.damaged(format!(
                "{fault}; record {} was expected, and a whole frame at byte {offset} of {} says \
                 that everything before position {durable} had been durable",
                end.sequence + 1,
                segment_name(number)
            ))),
        }
    }

    /// Takes away what is not to be seen again. Returns the segments that stay. The order is such
    /// that a crash between any two steps leaves something that recovers to the same end.
    fn clean_up(&self, numbers: &[u64], end: &End, remains: &[u64]) -> Result<Vec<u64>, OpenError> {
        let disk = &self.disk;
        for name in [CLOSED_NAME, CLOSED_NEW_NAME] {
            self.remove_listed(name)?;
        }
        disk.sync_names().map_err(failed("sync the names in", "."))?;
        if let Some((generation, length)) = self.base.cut {
            let name = checkpoint_name(generation);
            let cut = disk.open(&name).and_then(|file| {
                file.set_len(length)?;
                file.sync()
            });
            cut.map_err(failed("cut", &name))?;
        }
        for &generation in &self.base.useless {
            self.remove_listed(&checkpoint_name(generation))?;
        }
        for &number in numbers.iter().filter(|number| **number > end.segment) {
            self.remove_listed(&segment_name(number))?;
        }
        if self.closed.is_none() {
            for number in spare_numbers(&self.names) {
                self.remove_listed(&spare_name(number))?;
            }
        }
        let kept: Vec<u64> = numbers.iter().copied().filter(|n| *n <= end.segment).collect();
        // What was replayed may so far exist only in the page cache, and the next frame will say
        // that it is durable.
        let replayed = self.base.position / self.options.segment_bytes;
        for &number in kept.iter().filter(|number| **number >= replayed) {
            let name = segment_name(number);
            let file = disk.open(&name).map_err(failed("open", &name))?;
            if number == end.segment {
                for &offset in remains {
                    file.write_all_at(&[0; HEADER_BYTES], offset).map_err(failed("wipe", &name))?;
                }
            }
            file.sync().map_err(failed("sync", &name))?;
        }
        disk.sync_names().map_err(failed("sync the names in", "."))?;
        Ok(kept)
    }

    fn remove_listed(&self, name: &str) -> Result<(), OpenError> {
        if self.names.iter().any(|listed| listed == name) {
            self.disk.remove(name).map_err(failed("remove", name))?;
        }
        Ok(())
    }
}

/// After a clean close spares hold zeros or frames of positions that will not come again. After a
/// crash they may hold frames of positions that will, and are removed instead.
fn adopt_spares<D: Disk>(
    disk: &D,
    names: &[String],
    segments: &mut Segments<D>,
) -> Result<(), OpenError> {
    for number in spare_numbers(names) {
        let name = spare_name(number);
        let file = disk.open(&name).map_err(failed("open", &name))?;
        if file.len().map_err(failed("read", &name))? == segments.bytes {
            segments.push_spare(Spare { name, file, written: false });
        }
    }
    Ok(())
}

impl End {
    /// Whether `header`'s frame may come next.
    fn follows(&self, header: &Header) -> Result<(), &'static str> {
        let opened = match header.kind {
            Kind::Records => false,
            Kind::Opened => true,
            Kind::Delta => return Err("the frame here is a checkpoint's"),
        };
        if header.first_sequence != self.sequence + 1 {
            return Err("the frame here starts with another record");
        }
        if header.epoch < self.epoch || (opened && header.epoch == self.epoch) {
            return Err("the frame here is older than the one before");
        }
        Ok(())
    }

    fn damaged(&self, detail: String) -> OpenError {
        OpenError::Damaged { file: segment_name(self.segment), offset: self.offset, detail }
    }
}
