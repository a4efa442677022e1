//! Chunks of segment files kept in memory after they were read.
//!
//! Consumers that lag behind read neighbouring records one after the other, so a read fetches a
//! whole aligned chunk, once two reads lie close behind each other: due times and relocation
//! read records all over the log, and a chunk for each of those would read a thousand times what
//! is needed. The least recently used chunk goes first. Every record is verified on each
//! read: that costs less than knowing which chunk has been verified, and also notices memory that
//! changed.

use std::collections::{HashMap, VecDeque};
use std::io;

use leasehold_env::DiskFile;

/// Length of a chunk, and where chunks start: at multiples of it.
const CHUNK_BYTES: usize = 256 << 10;

/// How many strays are remembered: more than a queue has priorities in use.
const STRAYS_MAX: usize = 32;
/// A read that starts so close behind another follows it.
const NEAR_BYTES: u64 = 16 << 10;

#[derive(Debug)]
struct Chunk {
    /// Shorter than a chunk if the segment was written only up to there when it was read.
    bytes: Vec<u8>,
    used_at: u64,
}

#[derive(Debug)]
pub(crate) struct Cache {
    /// By segment and chunk number.
    chunks: HashMap<(u64, u64), Chunk>,
    chunks_max: usize,
    /// Ends of the latest reads that were not served from a chunk: segment and offset.
    strays: VecDeque<(u64, u64)>,
    now: u64,
}

impl Cache {
    pub fn new(bytes_max: usize) -> Self {
        let chunks_max = (bytes_max / CHUNK_BYTES).max(1);
        Self { chunks: HashMap::new(), chunks_max, strays: VecDeque::new(), now: 0 }
    }

    /// Appends the `size` bytes at `offset` of `segment` to `out`. `written` is how many bytes of
    /// the segment file are final; what lies behind is not kept.
    pub fn read<F: DiskFile>(
        &mut self,
        file: &F,
        segment: u64,
        written: u64,
        offset: u64,
        size: usize,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let end = offset + size as u64;
        if size > CHUNK_BYTES || self.is_stray(segment, offset, end) {
            let from = out.len();
            out.resize(from + size, 0);
            return file.read_exact_at(&mut out[from..], offset);
        }
        let mut at = offset;
        while at < end {
            let number = at / CHUNK_BYTES as u64;
            let base = number * CHUNK_BYTES as u64;
            let until = end.min(base + CHUNK_BYTES as u64);
            let chunk = self.chunk(file, (segment, number), written, (until - base) as usize)?;
            out.extend_from_slice(&chunk[(at - base) as usize..(until - base) as usize]);
            at = until;
        }
        Ok(())
    }

    /// Whether a read neither finds its chunk nor follows another one closely.
    fn is_stray(&mut self, segment: u64, offset: u64, end: u64) -> bool {
        if self.chunks.contains_key(&(segment, offset / CHUNK_BYTES as u64)) {
            return false;
        }
        let near = NEAR_BYTES + 4 * (end - offset);
        let follows =
            |stray: &(u64, u64)| stray.0 == segment && (stray.1..stray.1 + near).contains(&offset);
        if let Some(i) = self.strays.iter().position(follows) {
            self.strays.remove(i);
            return false;
        }
        if self.strays.len() == STRAYS_MAX {
            self.strays.pop_front();
        }
        self.strays.push_back((segment, end));
        true
    }

    /// Forgets a segment that is going to be something else.
    pub fn forget(&mut self, segment: u64) {
        self.chunks.retain(|key, _| key.0 != segment);
    }

    /// The chunk `key`, at least its first `need` bytes.
    fn chunk<F: DiskFile>(
        &mut self,
        file: &F,
        key: (u64, u64),
        written: u64,
        need: usize,
    ) -> io::Result<&[u8]> {
        self.now += 1;
        let known = self.chunks.get(&key).is_some_and(|chunk| chunk.bytes.len() >= need);
        if !known {
            let mut bytes = match self.chunks.remove(&key) {
                Some(chunk) => chunk.bytes,
                None => self.evict(),
            };
            let base = key.1 * CHUNK_BYTES as u64;
            let length = written.saturating_sub(base).clamp(need as u64, CHUNK_BYTES as u64);
            bytes.resize(length as usize, 0);
            file.read_exact_at(&mut bytes, base)?;
            self.chunks.insert(key, Chunk { bytes, used_at: 0 });
        }
        let chunk = self.chunks.get_mut(&key).expect("inserted above if it was missing");
        chunk.used_at = self.now;
        Ok(&chunk.bytes)
    }

    /// Makes room for one more chunk; hands out the memory of the one that went.
    fn evict(&mut self) -> Vec<u8> {
        if self.chunks.len() < self.chunks_max {
            return Vec::new();
        }
        let oldest = self.chunks.iter().min_by_key(|(_, chunk)| chunk.used_at);
        let oldest = oldest.map(|(key, _)| *key);
        let chunk = oldest.and_then(|key| self.chunks.remove(&key));
        chunk.map(|chunk| chunk.bytes).unwrap_or_default()
    }
}
