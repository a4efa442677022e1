//! What an owner may choose about its journal.

use crate::error::OpenError;

/// Smallest and largest length of a segment, in bytes.
const SEGMENT_BYTES_RANGE: std::ops::RangeInclusive<u64> = 64 << 10..=1 << 30;

/// Sizes, all in bytes unless named otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Length of a segment file: a multiple of 8 from 64 KiB to 1 GiB. Bounds a group. Only used
    /// when a directory is created; an existing one keeps its own. Default 64 MiB.
    pub segment_bytes: u64,
    /// A frame is closed when the next group would make it longer than this; a longer group gets a
    /// frame of its own. Bounds the memory of a replay together with the largest group. Default
    /// 1 MiB.
    pub frame_bytes: usize,
    /// Recently appended bytes kept in memory for [`read`](crate::Journal::read). At least the
    /// newest page of up to 1 MiB is always kept. Default 16 MiB.
    pub tail_cache_bytes: usize,
    /// Bytes read back from the disk kept in memory, in chunks of 256 KiB; the least recently used
    /// go first. Default 8 MiB.
    pub read_cache_bytes: usize,
    /// Retired segment files kept for reuse, a count. Default 2.
    pub spares_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            frame_bytes: 1 << 20,
            tail_cache_bytes: 16 << 20,
            read_cache_bytes: 8 << 20,
            spares_max: 2,
        }
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        check_segment_bytes(self.segment_bytes)
            .map_err(|problem| OpenError::Options { option: "segment_bytes", problem })
    }
}

pub(crate) fn check_segment_bytes(bytes: u64) -> Result<(), String> {
    if bytes.is_multiple_of(8) && SEGMENT_BYTES_RANGE.contains(&bytes) {
        return Ok(());
    }
    let (least, most) = (SEGMENT_BYTES_RANGE.start(), SEGMENT_BYTES_RANGE.end());
    Err(format!("is {bytes}; a multiple of 8 from {least} to {most} is allowed"))
}
