//! Remembered ids: the memory behind idempotence.
//!
//! A window keeps ids in the order they came, for a time and up to a number; the oldest go first.
//! It is used for request ids (with what was answered) and for message ids (with nothing). Entries
//! have serial numbers, and checkpoints write them in chunks of 256, so that a checkpoint costs
//! what was added and not what is remembered.

use alloc::collections::VecDeque;

use crate::Time;
use crate::table::Table;

/// Entries of one checkpoint chunk.
pub const CHUNK: u64 = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remembered<P> {
    pub id: u128,
    pub at: Time,
    pub what: P,
}

/// Ids with what belongs to them.
#[derive(Debug, Clone)]
pub struct Window<P> {
    entries: VecDeque<Remembered<P>>,
    /// Serial number of the front entry.
    first: u64,
    index: Table,
    /// Chunks below this one have been handed to the checkpoint.
    pub(crate) chunk_saved: u64,
    /// Chunks below this one have been taken out of the checkpoint.
    pub(crate) chunk_low: u64,
}

impl<P> Default for Window<P> {
    fn default() -> Self {
        let index = Table::new(0x51_7c_c1_b7_27_22_0a_95);
        Self { entries: VecDeque::new(), first: 0, index, chunk_saved: 0, chunk_low: 0 }
    }
}

impl<P> Window<P> {
    fn hash(&self, id: u128) -> u32 {
        self.index.hash_u64(id as u64 ^ (id >> 64) as u64)
    }

    fn entry(&self, low: u32) -> &Remembered<P> {
        // Serial numbers in the window differ by less than 2^32, so their low halves are unique.
        &self.entries[low.wrapping_sub(self.first as u32) as usize]
    }

    /// What belongs to an id that came at `oldest` or later.
    pub fn get(&self, id: u128, oldest: Time) -> Option<&P> {
        let found = self.index.find(self.hash(id), |low| self.entry(low).id == id)?;
        let entry = self.entry(found);
        (entry.at >= oldest).then_some(&entry.what)
    }

    /// Remembers an id that is not remembered yet. Returns its serial number.
    pub(crate) fn push(&mut self, id: u128, at: Time, what: P) -> u64 {
        let serial = self.first + self.entries.len() as u64;
        self.index.insert(self.hash(id), serial as u32);
        self.entries.push_back(Remembered { id, at, what });
        serial
    }

    /// Forgets what is older than `oldest` and whatever exceeds `max`.
    pub(crate) fn trim(&mut self, oldest: Time, max: usize) {
        while self.entries.len() > max || self.entries.front().is_some_and(|e| e.at < oldest) {
            let entry = self.entries.pop_front().expect("not empty");
            let hash = self.hash(entry.id);
            self.index.remove(hash, self.first as u32);
            self.first += 1;
        }
    }

    /// How many ids are remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Serial number of the oldest entry.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// One past the serial number of the newest entry.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The entries of a chunk that are still remembered.
    pub(crate) fn chunk(&self, chunk: u64) -> impl Iterator<Item = &Remembered<P>> {
        let from = (chunk * CHUNK).max(self.first).min(self.end()) - self.first;
        let to = ((chunk + 1) * CHUNK).clamp(self.first, self.end()) - self.first;
        self.entries.range(from as usize..to as usize)
    }

    /// Starts a restored window at a serial number.
    pub(crate) fn start_at(&mut self, first: u64) {
        assert!(self.entries.is_empty(), "a restored window starts empty");
        self.first = first;
        self.chunk_saved = first / CHUNK;
        self.chunk_low = first / CHUNK;
    }

    /// Makes the next checkpoint write everything.
    pub(crate) fn rewind(&mut self) {
        self.chunk_saved = self.first / CHUNK;
    }
}

/// A 128-bit fingerprint of a text, the same for ever: two ids that collide would be taken for
/// one, which at a million remembered ids happens once in 10^26 windows.
pub fn fingerprint(bytes: &[u8]) -> u128 {
    let (mut a, mut b) = (0x243f_6a88_85a3_08d3u64, 0x1319_8a2e_0370_7344u64);
    let mut mix = |word: u64| {
        let wide = u128::from(a ^ word) * u128::from(0x9e37_79b9_7f4a_7c15u64 ^ b);
        a = wide as u64 ^ b.rotate_left(23);
        b = (wide >> 64) as u64 ^ word.wrapping_mul(0xd6e8_feb8_6659_fd93);
    };
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(u64::from_le_bytes(word));
    }
    mix(bytes.len() as u64);
    mix(0x5851_f42d_4c95_7f2d);
    mix(0x1405_7b7e_f767_814f);
    u128::from(a) << 64 | u128::from(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_in_order_and_forgets_by_age_and_number() {
        let mut window = Window::default();
        for i in 0..1000u64 {
            assert_eq!(window.get(u128::from(i), 0), None);
            window.push(u128::from(i), i, i * 2);
            window.trim(i.saturating_sub(300), 200);
        }
        assert_eq!(window.len(), 200);
        assert_eq!(window.get(799, 0), None);
        assert_eq!(window.get(800, 0), Some(&1600));
        window.trim(950, 200);
        assert_eq!(window.len(), 50);
        assert_eq!(window.chunk(3).map(|e| e.at).min(), Some(950));
    }

    #[test]
    fn fingerprints_differ_for_near_texts() {
        let mut seen = alloc::collections::BTreeSet::new();
        for i in 0..10_000u32 {
            assert!(seen.insert(fingerprint(alloc::format!("order-{i}").as_bytes())));
        }
        assert_ne!(fingerprint(b""), fingerprint(b"\0"));
    }
}
