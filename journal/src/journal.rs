//! The journal while it is open: appending, writing, syncing and reading back.
//!
//! Three marks move along the log: *last* (encoded in memory), *written* (handed to the operating
//! system, survives the process) and *durable* (synced, survives power loss). Frames are encoded
//! in place at the end of the newest page and written from there, normally with one call however
//! many records a turn had.
//!
//! After the first failed write or sync the journal is poisoned. Rejected: trying again, since the
//! kernel may drop the pages that it could not write and report success the next time.

use std::io;

use leasehold_env::{Disk, DiskFile};

use crate::cache::Cache;
use crate::chores::{Chores, Delta};
use crate::directory::{failed, segment_name};
use crate::error::{JournalError, OpenError};
use crate::frame::{
    ALIGNMENT, HEADER_BYTES, Header, Kind, RECORD_HEADER_BYTES, aligned, crc, record_header,
    start_sum,
};
use crate::options::Options;
use crate::pages::Pages;
use crate::recover::Recovery;
use crate::segments::Segments;

/// Zeros written behind the end of a segment whose blocks are only set aside, so that the slow
/// first sync of a block is paid once per stretch and not by every small write.
const ZEROS: &[u8] = &[0; 1 << 20];

/// A place in the journal's endless byte space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// Where an appended record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its number: one more than that of the record before, starting at 1.
    pub sequence: u64,
    /// Where its bytes start, for [`Journal::read`].
    pub position: Position,
    /// How many bytes it has.
    pub size: u32,
}

/// A segment file that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its first byte has the position `number` times [`Journal::segment_bytes`].
    pub number: u64,
    /// How far it is filled. A sealed segment counts as full.
    pub bytes_used: u64,
    /// Nothing will be appended to it any more.
    pub sealed: bool,
}

/// The frame that is being filled.
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// Where its header starts in the last page.
    start: usize,
    first_sequence: u64,
}

/// How far something has got: a record and the end of the frame it is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub sequence: u64,
    pub position: u64,
}

/// Where a recovered journal goes on.
pub(crate) struct Start {
    pub sequence: u64,
    pub position: u64,
    /// Where the next frame starts in the current segment.
    pub offset: u64,
    pub epoch: u32,
    pub time_us: u64,
    pub checkpoint_sequence: u64,
    pub checkpoint_position: u64,
    pub generation: u64,
    pub generation_bytes: u64,
    pub generation_max: u64,
    pub chain: Vec<u64>,
}

/// An open journal. Dropping it without [`close`](Journal::close) is a crash as far as the next
/// opening is concerned.
pub struct Journal<D: Disk> {
    pub(crate) disk: D,
    pub(crate) options: Options,
    pub(crate) segments: Segments<D>,
    pub(crate) pages: Pages,
    pub(crate) cache: Cache,
    pub(crate) chores: Chores<D>,

    /// End of the last closed frame within the current segment.
    pub(crate) offset: u64,
    frame: Option<Frame>,
    /// The open frame's summed bytes: room for its header, then all its record headers.
    summed: Vec<u8>,
    /// What the group being appended may still take.
    group_left: usize,
    pub(crate) time_us: u64,
    pub(crate) epoch: u32,

    last_sequence: u64,
    /// Of closed frames. The open frame is only in `last_sequence`.
    closed: Mark,
    pub(crate) written: Mark,
    pub(crate) durable: Mark,
    /// Covered by a durable checkpoint.
    pub(crate) checkpoint: Mark,

    /// Newest checkpoint generation that was begun.
    pub(crate) generation: u64,
    /// A generation was begun since the journal was opened.
    pub(crate) generation_open: bool,
    /// Its sweep has begun and is not complete.
    pub(crate) sweeping: bool,
    /// Newest generation with a durable delta, and the length of its file.
    pub(crate) stored: (u64, u64),
    /// Deltas that found no room; all later ones queue behind them.
    pub(crate) stalled: std::collections::VecDeque<Box<Delta>>,
    pub(crate) stalled_at_us: u64,
    /// Size of a delta that found no room, until the owner was told.
    pub(crate) full_delta_bytes: Option<u64>,
    pub(crate) delta_index: u64,
    pub(crate) spare_in_flight: bool,
    pub(crate) sync_in_flight: bool,
    /// Segments to be recycled once the record beside them is durable.
    pub(crate) retiring: Vec<(u64, u64)>,
    poison: Option<String>,
}

impl<D: Disk> Journal<D> {
    /// Opens the directory `disk`, or makes an empty one a journal's, and reads its checkpoint.
    /// Replaying the rest gives the journal.
    ///
    /// # Errors
    /// See [`OpenError`]. A directory that is refused is left as it was.
    pub fn open(disk: D, options: Options) -> Result<Recovery<D>, OpenError> {
        crate::recover::open(disk, options)
    }

    /// Starts appending, with a frame that makes the new epoch durable: whatever is handed out
    /// under its number later, no other run will have the same.
    pub(crate) fn start(
        disk: D,
        options: Options,
        segments: Segments<D>,
        start: Start,
    ) -> Result<Self, OpenError> {
        let chores = Chores::start(disk.clone(), start.chain)
            .map_err(failed("start the thread for", "chores"))?;
        let mark = Mark { sequence: start.sequence, position: start.position };
        let checkpoint =
            Mark { sequence: start.checkpoint_sequence, position: start.checkpoint_position };
        let next = segments.current * segments.bytes + start.offset;
        let mut journal = Self {
            disk,
            pages: Pages::new(options.tail_cache_bytes, next),
            cache: Cache::new(options.read_cache_bytes),
            options,
            segments,
            chores,
            offset: start.offset,
            frame: None,
            summed: Vec::new(),
            group_left: 0,
            time_us: start.time_us,
            epoch: start.epoch,
            last_sequence: start.sequence,
            closed: mark,
            written: mark,
            durable: mark,
            checkpoint,
            generation: start.generation_max,
            generation_open: false,
            sweeping: false,
            stored: (start.generation, start.generation_bytes),
            stalled: std::collections::VecDeque::new(),
            stalled_at_us: 0,
            full_delta_bytes: None,
            delta_index: 0,
            spare_in_flight: false,
            sync_in_flight: false,
            retiring: Vec::new(),
            poison: None,
        };
        journal.announce_epoch().map_err(|error| match error {
            JournalError::Io { step, file, source } => OpenError::Io { step, file, source },
            other => OpenError::Io {
                step: "start a new epoch in",
                file: segment_name(journal.segments.current),
                source: io::Error::new(io::ErrorKind::StorageFull, other.to_string()),
            },
        })?;
        Ok(journal)
    }

    fn announce_epoch(&mut self) -> Result<(), JournalError> {
        self.reserve_group(0)?;
        self.close_frame(Kind::Opened);
        self.segments.names_dirty = true;
        self.write()?;
        self.sync()
    }

    /// The number of this opening: higher than any before, durable since before this journal was
    /// handed out.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Length of a segment, in bytes.
    pub fn segment_bytes(&self) -> u64 {
        self.segments.bytes
    }

    /// The largest group that [`reserve_group`](Journal::reserve_group) accepts, in bytes.
    pub fn group_bytes_max(&self) -> usize {
        (self.segments.bytes as usize) - HEADER_BYTES - ALIGNMENT
    }

    /// All records appended until the next call carry this time, in microseconds of the owner's
    /// clock. Ends the reserved group.
    pub fn begin_turn(&mut self, time_us: u64) {
        if time_us != self.time_us {
            self.close_frame(Kind::Records);
            self.time_us = time_us;
        }
        self.group_left = 0;
    }

    /// Makes the records appended until the next call one atomic group: after a crash all of them
    /// are there, or none. `bytes_max` bounds the sum of their bytes plus
    /// [`RECORD_HEADER_BYTES`] each.
    ///
    /// # Errors
    /// `TooLarge` and `Full` harm nothing; after them nothing is reserved. `Poisoned`, `Io`.
    pub fn reserve_group(&mut self, bytes_max: usize) -> Result<(), JournalError> {
        self.check_poison()?;
        self.group_left = 0;
        if bytes_max > self.group_bytes_max() {
            let largest = self.group_bytes_max() as u64;
            return Err(JournalError::TooLarge { asked: bytes_max as u64, largest });
        }
        if let Some(frame) = self.frame
            && !self.fits_in_frame(frame, bytes_max)
        {
            self.close_frame(Kind::Records);
        }
        if self.frame.is_none() {
            self.start_frame(aligned((HEADER_BYTES + bytes_max) as u64))?;
        }
        self.group_left = bytes_max;
        Ok(())
    }

    fn fits_in_frame(&mut self, frame: Frame, bytes_max: usize) -> bool {
        let left = self.segments.bytes - self.offset;
        let page = &self.pages.last().bytes;
        let used = page.len() - frame.start;
        let length = aligned((used + bytes_max) as u64);
        used + bytes_max <= self.options.frame_bytes
            && length <= left
            && length <= (page.capacity() - frame.start) as u64
    }

    /// Opens a frame for which `room` bytes are guaranteed, padding included.
    fn start_frame(&mut self, room: u64) -> Result<(), JournalError> {
        if self.offset + room > self.segments.bytes {
            self.roll(room)?;
        }
        let next = self.segments.current * self.segments.bytes + self.offset;
        let page = self.pages.last();
        let left = (page.bytes.capacity() - page.bytes.len()) as u64;
        // A page lies within one segment, even where the next one starts right behind it.
        let other = page.start / self.segments.bytes != self.segments.current;
        if other || page.end() != next || left < room {
            self.pages.start_page(next, room as usize);
        }
        let page = self.pages.last();
        let start = page.bytes.len();
        page.bytes.resize(start + HEADER_BYTES, 0);
        start_sum(&mut self.summed);
        self.frame = Some(Frame { start, first_sequence: self.last_sequence + 1 });
        Ok(())
    }

    /// Goes on in the next segment.
    fn roll(&mut self, room: u64) -> Result<(), JournalError> {
        if self.segments.spares() == 0 {
            self.collect_all()?;
        }
        if self.segments.spares() == 0 {
            self.reserve_spare(room)?;
        }
        let rolled = self.segments.roll();
        let name = segment_name(self.segments.current);
        rolled.map_err(|source| self.fail("start the segment after", name, source))?;
        self.offset = 0;
        Ok(())
    }

    /// Appends one record of the reserved group. `fill` pushes its bytes at the end of a buffer
    /// that already holds other records, and must leave those alone.
    ///
    /// # Panics
    /// If the group is longer than was reserved, which is a bug of the caller.
    pub fn append(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Placed {
        let page = self.pages.last();
        let start = page.bytes.len();
        page.bytes.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
        let from = start + RECORD_HEADER_BYTES;
        fill(&mut page.bytes);
        let taken = page.bytes.len().saturating_sub(start);
        assert!(
            self.frame.is_some() && (RECORD_HEADER_BYTES..=self.group_left).contains(&taken),
            "a record takes {taken} bytes, its group has {} left",
            self.group_left
        );
        self.group_left -= taken;
        let size = (taken - RECORD_HEADER_BYTES) as u32;
        let head = record_header(size, crc(&page.bytes[from..]));
        page.bytes[start..from].copy_from_slice(&head);
        self.summed.extend_from_slice(&head);
        self.last_sequence += 1;
        let position = Position(page.start + from as u64);
        Placed { sequence: self.last_sequence, position, size }
    }

    /// [`append`](Journal::append) for callers behind a `dyn` interface. `fill` is called once.
    ///
    /// # Panics
    /// As [`append`](Journal::append).
    pub fn append_with(&mut self, fill: &mut dyn FnMut(&mut Vec<u8>)) -> Placed {
        self.append(fill)
    }

    /// Seals the open frame, if there is one with something in it.
    fn close_frame(&mut self, kind: Kind) {
        self.group_left = 0;
        let Some(frame) = self.frame.take() else { return };
        let page = self.pages.last();
        let records = self.last_sequence + 1 - frame.first_sequence;
        if records == 0 && kind == Kind::Records {
            page.bytes.truncate(frame.start);
            return;
        }
        let payload = page.bytes.len() - frame.start - HEADER_BYTES;
        let header = Header {
            kind,
            payload_bytes: payload as u32,
            records: records as u32,
            position: page.start + frame.start as u64,
            first_sequence: frame.first_sequence,
            durable: self.durable.position,
            time_us: self.time_us,
            epoch: self.epoch,
        };
        header.seal(&mut self.summed, &mut page.bytes[frame.start..frame.start + HEADER_BYTES]);
        page.bytes.resize(frame.start + header.frame_bytes() as usize, 0);
        self.offset += header.frame_bytes();
        self.closed = Mark { sequence: self.last_sequence, position: page.end() };
    }

    /// Hands everything appended to the operating system: it then survives this process.
    ///
    /// # Errors
    /// `Io` if the medium fails, which poisons the journal; `Poisoned`.
    pub fn write(&mut self) -> Result<(), JournalError> {
        self.check_poison()?;
        self.close_frame(Kind::Records);
        if self.written == self.closed {
            return Ok(());
        }
        if let Err((number, source)) = self.write_pages() {
            return Err(self.fail("write", segment_name(number), source));
        }
        let count = self.closed.position - self.written.position;
        self.written = self.closed;
        self.zero_ahead(count)?;
        self.want_spare();
        Ok(())
    }

    fn write_pages(&mut self) -> Result<(), (u64, io::Error)> {
        let bytes = self.segments.bytes;
        let pinned = self.durable.position / bytes;
        for page in self.pages.unwritten() {
            let number = page.start / bytes;
            let offset = page.start % bytes + page.written as u64;
            let file = self.segments.file(number, pinned);
            file.and_then(|file| file.write_all_at(&page.bytes[page.written..], offset))
                .map_err(|source| (number, source))?;
            page.written = page.bytes.len();
        }
        Ok(())
    }

    /// See [`ZEROS`]. After a large write, of `count` bytes, it would cost more than it saves.
    fn zero_ahead(&mut self, count: u64) -> Result<(), JournalError> {
        let useless = self.offset == self.segments.bytes || count >= ZEROS.len() as u64 / 8;
        if useless || self.offset <= self.segments.zeroed_to {
            return Ok(());
        }
        let length = (self.segments.bytes / 16).min(ZEROS.len() as u64);
        let end = (self.offset + length).min(self.segments.bytes);
        let number = self.segments.current;
        let zeros = &ZEROS[..(end - self.offset) as usize];
        let file = self.segments.file(number, self.durable.position / self.segments.bytes);
        file.and_then(|file| file.write_all_at(zeros, self.offset))
            .map_err(|source| self.fail("write", segment_name(number), source))?;
        self.segments.zeroed_to = end;
        Ok(())
    }

    /// Makes everything written durable: it then survives power loss.
    ///
    /// # Errors
    /// `Io` if the medium fails, which poisons the journal; `Poisoned`.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.check_poison()?;
        if self.written != self.durable {
            let bytes = self.segments.bytes;
            let pinned = self.durable.position / bytes;
            // The end of a frame may be the start of a segment that does not exist yet.
            for number in pinned..=(self.written.position - 1) / bytes {
                if !self.segments.contains(number) {
                    continue;
                }
                let synced = self.segments.file(number, pinned).and_then(|file| file.sync());
                synced.map_err(|source| self.fail("sync", segment_name(number), source))?;
            }
        }
        if self.segments.names_dirty {
            let synced = self.disk.sync_names();
            synced.map_err(|source| self.fail("sync the names in", ".".to_owned(), source))?;
            self.segments.names_dirty = false;
        }
        self.durable = self.written;
        self.recycle_retired()
    }

    /// Sequence of the last appended record; 0 before the first.
    pub fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// Sequence of the last record that was handed to the operating system.
    pub fn written_sequence(&self) -> u64 {
        self.written.sequence
    }

    /// Sequence of the last record that survives power loss.
    pub fn durable_sequence(&self) -> u64 {
        self.durable.sequence
    }

    /// End of the last closed frame: how many bytes the journal has had in all.
    pub fn end(&self) -> Position {
        Position(self.closed.position)
    }

    /// What the open frame has so far.
    pub(crate) fn open_frame_bytes(&self) -> u64 {
        self.frame.map_or(0, |frame| (self.pages.last_ref().bytes.len() - frame.start) as u64)
    }

    pub(crate) fn check_poison(&self) -> Result<(), JournalError> {
        match &self.poison {
            None => Ok(()),
            Some(first) => Err(JournalError::Poisoned { first: first.clone() }),
        }
    }

    /// Poisons the journal with its first failure.
    pub(crate) fn fail(
        &mut self,
        step: &'static str,
        file: String,
        source: io::Error,
    ) -> JournalError {
        if self.poison.is_none() {
            self.poison = Some(format!("{step} {file}: {source}"));
        }
        JournalError::Io { step, file, source }
    }
}
