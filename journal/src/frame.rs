//! Frames: the unit of writing, and of being whole.
//!
//! A frame is a header, records and padding to 8 bytes. The header's checksum covers the header
//! and every record header inside; each record header carries the checksum of its own bytes. So no
//! byte is summed twice, one record can be read and verified alone, and a frame is whole exactly
//! when its header and all its records are.
//!
//! A frame names its own position. Segment files are recycled without being wiped, and this is
//! what keeps yesterday's frame, still lying at the same offset of the same file, from being taken
//! for today's. Rejected: a magic number drawn per segment, which needs a segment header that must
//! itself be trusted.

use std::ops::Range;

/// Bytes of a frame's header.
pub(crate) const HEADER_BYTES: usize = 56;

/// Bytes in front of every record: its length and the checksum of its bytes, 4 each. A group's
/// reservation counts them.
pub const RECORD_HEADER_BYTES: usize = 8;

/// Frames start at multiples of this.
pub(crate) const ALIGNMENT: usize = 8;

/// "LHFR", little endian.
pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"LHFR");

const VERSION: u8 = 1;
/// Where the checksum lies in the header, and so how much of the header it covers.
const CRC_OFFSET: usize = 52;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Records of the journal.
    Records = 1,
    /// The journal was opened: no records, a new epoch.
    Opened = 2,
    /// A checkpoint delta, in a checkpoint file.
    Delta = 3,
}

/// A frame's header; the byte table is in `docs/design/journal.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub kind: Kind,
    /// Records with their headers, without padding.
    pub payload_bytes: u32,
    pub records: u32,
    /// Where this frame lies: in the journal's byte space, or in its checkpoint file.
    pub position: u64,
    /// Sequence of the first record; of a frame without records, what the next one will have. Of a
    /// delta, the sequence it is valid at.
    pub first_sequence: u64,
    /// The journal was known to be durable up to this position when the frame was closed. Of a
    /// delta: the journal position it is valid at, which is durable by then.
    pub durable: u64,
    pub time_us: u64,
    pub epoch: u32,
}

/// Checksum of a record's bytes.
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// `bytes` rounded up to a frame boundary.
pub(crate) fn aligned(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT as u64)
}

/// The eight bytes in front of a record.
pub(crate) fn record_header(length: u32, crc: u32) -> [u8; RECORD_HEADER_BYTES] {
    let mut out = [0; RECORD_HEADER_BYTES];
    out[..4].copy_from_slice(&length.to_le_bytes());
    out[4..].copy_from_slice(&crc.to_le_bytes());
    out
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(out)
}

pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(out)
}

impl Header {
    /// Bytes from this frame's start to the next one's.
    pub fn frame_bytes(&self) -> u64 {
        aligned(HEADER_BYTES as u64 + u64::from(self.payload_bytes))
    }

    /// Writes the header into `out`. `summed` holds room for the summed part of the header (see
    /// [`start_sum`]), followed by all record headers of the frame.
    pub fn seal(&self, summed: &mut [u8], out: &mut [u8]) {
        let fixed = self.fixed();
        summed[..CRC_OFFSET].copy_from_slice(&fixed);
        out[..CRC_OFFSET].copy_from_slice(&fixed);
        out[CRC_OFFSET..HEADER_BYTES].copy_from_slice(&crc(summed).to_le_bytes());
    }

    fn fixed(&self) -> [u8; CRC_OFFSET] {
        let mut out = [0; CRC_OFFSET];
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4] = VERSION;
        out[5] = self.kind as u8;
        out[8..12].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.records.to_le_bytes());
        out[16..24].copy_from_slice(&self.position.to_le_bytes());
        out[24..32].copy_from_slice(&self.first_sequence.to_le_bytes());
        out[32..40].copy_from_slice(&self.durable.to_le_bytes());
        out[40..48].copy_from_slice(&self.time_us.to_le_bytes());
        out[48..52].copy_from_slice(&self.epoch.to_le_bytes());
        out
    }

    /// Reads a header, not yet knowing whether its checksum holds.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, &'static str> {
        if u32_at(bytes, 0) != MAGIC {
            return Err("no frame starts here");
        }
        if bytes[4] != VERSION {
            return Err("the frame has an unknown version");
        }
        let kind = match bytes[5] {
            1 => Kind::Records,
            2 => Kind::Opened,
            3 => Kind::Delta,
            _ => return Err("the frame has an unknown kind"),
        };
        if bytes[6..8] != [0; 2] {
            return Err("the frame's header has set bits where none are defined");
        }
        Ok(Self {
            kind,
            payload_bytes: u32_at(bytes, 8),
            records: u32_at(bytes, 12),
            position: u64_at(bytes, 16),
            first_sequence: u64_at(bytes, 24),
            durable: u64_at(bytes, 32),
            time_us: u64_at(bytes, 40),
            epoch: u32_at(bytes, 48),
        })
    }

    /// Checks the header's checksum against the record headers found in `payload`.
    pub fn verify(
        &self,
        header: &[u8; HEADER_BYTES],
        payload: &[u8],
        summed: &mut Vec<u8>,
    ) -> Result<(), &'static str> {
        start_sum(summed);
        summed[..CRC_OFFSET].copy_from_slice(&header[..CRC_OFFSET]);
        let mut count = 0_u32;
        for record in Records::new(payload) {
            let record = record?;
            let start = record.bytes.start - RECORD_HEADER_BYTES;
            summed.extend_from_slice(&payload[start..record.bytes.start]);
            count += 1;
        }
        if count != self.records {
            return Err("the frame's number of records does not add up");
        }
        if crc(summed) != u32_at(header, CRC_OFFSET) {
            return Err("the frame header's checksum does not match");
        }
        Ok(())
    }
}

/// Empties `summed` and leaves the room that [`Header::seal`] fills.
pub(crate) fn start_sum(summed: &mut Vec<u8>) {
    summed.clear();
    summed.resize(CRC_OFFSET, 0);
}

/// A record within a frame's payload.
#[derive(Clone, Debug)]
pub(crate) struct RecordSpan {
    /// Its bytes, as a range of the payload.
    pub bytes: Range<usize>,
    pub crc: u32,
}

/// Walks the records of a payload. Ends after the first one that does not fit.
pub(crate) struct Records<'a> {
    payload: &'a [u8],
    offset: usize,
}

impl<'a> Records<'a> {
    pub fn new(payload: &'a [u8]) -> Self {
        Self { payload, offset: 0 }
    }
}

impl Iterator for Records<'_> {
    type Item = Result<RecordSpan, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset == self.payload.len() {
            return None;
        }
        let start = self.offset + RECORD_HEADER_BYTES;
        if start > self.payload.len() {
            self.offset = self.payload.len();
            return Some(Err("the frame ends within a record's header"));
        }
        let length = u32_at(self.payload, self.offset) as usize;
        if length > self.payload.len() - start {
            self.offset = self.payload.len();
            return Some(Err("a record is longer than its frame"));
        }
        let crc = u32_at(self.payload, self.offset + 4);
        self.offset = start + length;
        Some(Ok(RecordSpan { bytes: start..start + length, crc }))
    }
}
