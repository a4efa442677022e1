//! Reading a file of frames from front to back, holding one stretch of it in memory.
//!
//! Memory is bounded by the largest frame (or [`STRETCH_BYTES`], if larger). Nothing read here is
//! believed before its checksums hold: a length in a header only decides how much is read next.

use std::io;

use leasehold_env::DiskFile;

use crate::frame::{ALIGNMENT, HEADER_BYTES, Header, MAGIC, Records, crc};

/// How much is read at a time.
const STRETCH_BYTES: u64 = 1 << 20;

/// How much of a frame is to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// The header and all record headers: enough to believe what the header says.
    Headers,
    /// The bytes of every record too.
    Everything,
}

/// Why there is no frame at an offset, in words for a message.
pub(crate) type Fault = &'static str;

/// A file of frames and the stretch of it that is in memory.
pub(crate) struct Window<'f, F> {
    file: &'f F,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
    summed: Vec<u8>,
}

impl<'f, F: DiskFile> Window<'f, F> {
    pub fn new(file: &'f F) -> io::Result<Self> {
        let length = file.len()?;
        Ok(Self { file, length, start: 0, bytes: Vec::new(), summed: Vec::new() })
    }

    /// The file's length.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The `count` bytes at `offset`, or nothing if the file ends before.
    pub fn get(&mut self, offset: u64, count: usize) -> io::Result<Option<&[u8]>> {
        let end = offset.saturating_add(count as u64);
        if end > self.length {
            return Ok(None);
        }
        if offset < self.start || end > self.start + self.bytes.len() as u64 {
            let want = (count as u64).max(STRETCH_BYTES).min(self.length - offset);
            self.bytes.resize(want as usize, 0);
            self.start = offset;
            if let Err(error) = self.file.read_exact_at(&mut self.bytes, offset) {
                self.bytes.clear();
                return Err(error);
            }
        }
        let from = (offset - self.start) as usize;
        Ok(Some(&self.bytes[from..from + count]))
    }

    /// The whole frame at `offset` whose own position is `position`: its header and its payload.
    pub fn frame(
        &mut self,
        offset: u64,
        position: u64,
        check: Check,
    ) -> io::Result<Result<(Header, &[u8]), Fault>> {
        let mut head = [0; HEADER_BYTES];
        match self.get(offset, HEADER_BYTES)? {
            Some(bytes) => head.copy_from_slice(bytes),
            None => return Ok(Err("the file ends here")),
        }
        let header = match Header::parse(&head) {
            Ok(header) => header,
            Err(fault) => return Ok(Err(fault)),
        };
        if header.position != position {
            return Ok(Err("the frame here belongs to another position"));
        }
        let mut summed = std::mem::take(&mut self.summed);
        let payload_at = offset + HEADER_BYTES as u64;
        let Some(payload) = self.get(payload_at, header.payload_bytes as usize)? else {
            return Ok(Err("the frame is longer than the file"));
        };
        let mut verdict = header.verify(&head, payload, &mut summed);
        if verdict.is_ok() && check == Check::Everything {
            verdict = check_records(payload);
        }
        self.summed = summed;
        match verdict {
            Ok(()) => {
                let payload = self.get(payload_at, header.payload_bytes as usize)?;
                Ok(payload.map(|payload| (header, payload)).ok_or("the file ends here"))
            }
            Err(fault) => Ok(Err(fault)),
        }
    }

    /// Visits every frame at or after `from` whose headers hold, at whatever aligned offset it
    /// lies. `base` is the position of the file's first byte.
    pub fn scan(
        &mut self,
        from: u64,
        base: u64,
        mut visit: impl FnMut(u64, &Header),
    ) -> io::Result<()> {
        let mut candidates = Vec::new();
        let mut offset = from.next_multiple_of(ALIGNMENT as u64);
        while offset + HEADER_BYTES as u64 <= self.length {
            let count = (self.length - offset).min(STRETCH_BYTES) as usize;
            candidates.clear();
            if let Some(bytes) = self.get(offset, count)? {
                for (index, word) in bytes.chunks_exact(ALIGNMENT).enumerate() {
                    if word[..4] == MAGIC.to_le_bytes() {
                        candidates.push(offset + (index * ALIGNMENT) as u64);
                    }
                }
            }
            for &candidate in &candidates {
                let found = self.frame(candidate, base + candidate, Check::Headers)?;
                if let Ok((header, _)) = found {
                    visit(candidate, &header);
                }
            }
            offset += (count as u64).next_multiple_of(ALIGNMENT as u64);
        }
        Ok(())
    }
}

fn check_records(payload: &[u8]) -> Result<(), Fault> {
    for record in Records::new(payload) {
        let record = record?;
        if crc(&payload[record.bytes]) != record.crc {
            return Err("a record's checksum does not match");
        }
    }
    Ok(())
}
