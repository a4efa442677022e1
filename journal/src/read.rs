//! Reading one record back: from the pages it was encoded in, from cached chunks, from the disk.
//!
//! The owner names the place and the size; the record's own header in front of it proves both.

use leasehold_env::Disk;

use crate::directory::segment_name;
use crate::error::ReadError;
use crate::frame::{HEADER_BYTES, RECORD_HEADER_BYTES, crc, u32_at};
use crate::journal::{Journal, Position};

impl<D: Disk> Journal<D> {
    /// Appends the `size` bytes of the record at `position` to `out`, from memory if they are
    /// there. Bytes that come from the disk are verified.
    ///
    /// # Errors
    /// See [`ReadError`]; `out` then has its old length.
    pub fn read(
        &mut self,
        position: Position,
        size: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        if let Some(bytes) = self.pages.get(position.0, size as usize) {
            out.extend_from_slice(bytes);
            return Ok(());
        }
        let length = out.len();
        let read = self.read_from_disk(position.0, size, out);
        if read.is_err() {
            out.truncate(length);
        }
        read
    }

    fn read_from_disk(
        &mut self,
        position: u64,
        size: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let bytes = self.segments.bytes;
        let (segment, offset) = (position / bytes, position % bytes);
        let absent = |reason| Err(ReadError::Absent { position, size, reason });
        if offset < (HEADER_BYTES + RECORD_HEADER_BYTES) as u64
            || offset + u64::from(size) > bytes
            || position + u64::from(size) > self.written.position
        {
            return absent("no record can be there");
        }
        if !self.segments.contains(segment) {
            return absent("its segment has been retired");
        }
        let name = || segment_name(segment);
        let failed = |source| ReadError::Io { file: name(), offset, source };
        let pinned = self.durable.position / bytes;
        let file = self.segments.file(segment, pinned).map_err(failed)?;
        let written = (self.written.position - segment * bytes).min(bytes);
        // The record's own header in front of it is read into `out` too, and taken out again.
        let from = out.len();
        let start = offset - RECORD_HEADER_BYTES as u64;
        let length = size as usize + RECORD_HEADER_BYTES;
        self.cache.read(&*file, segment, written, start, length, out).map_err(failed)?;
        let record = &out[from..];
        let damaged =
            |detail: String| Err(ReadError::Damaged { file: name(), offset, size, detail });
        if u32_at(record, 0) != size {
            return damaged(format!("its header says {} bytes", u32_at(record, 0)));
        }
        let found = crc(&record[RECORD_HEADER_BYTES..]);
        if found != u32_at(record, 4) {
            let expected = u32_at(record, 4);
            return damaged(format!("its checksum is {found:08x}, expected is {expected:08x}"));
        }
        out.drain(from..from + RECORD_HEADER_BYTES);
        Ok(())
    }
}
