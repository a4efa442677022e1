//! How far a partition has been worked through, as it is committed.
//!
//! Kafka keeps one offset per group and partition: all below it is done. Messages are settled in
//! any order, so the rest goes into the text that may be committed along with an offset: which of
//! the messages behind it are done too, which may have been handed out and how often, and an epoch
//! that grows with every owner, from which tokens are made. The next owner of the partition reads
//! it, hands out nothing that is done, and knows what it hands out again. The idea is known from
//! others who work on messages of one partition in parallel.
//!
//! The text is short, since brokers take 4096 bytes (`offset.metadata.max.bytes`): a window spans
//! at most [`SPAN`] offsets, and at most [`EXCEPTIONS_MAX`] counts are written down.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;

/// The most offsets from the first message that is not done to the last that was taken.
pub(crate) const SPAN: i64 = 2048;
/// The most deliveries that are counted one by one; further ones count as one each.
pub(crate) const EXCEPTIONS_MAX: usize = 400;
/// The first thing in the text: what it is, and its version.
const MARK: &str = "lh1";

/// What stands beside a committed offset. Offsets are counted from that one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// Grows with every owner.
    pub epoch: u64,
    /// Messages below may have been handed out once, unless `counts` knows better.
    pub handed: i64,
    /// Those that are done.
    pub done: Vec<i64>,
    /// How often those below `handed` were handed out that were not exactly once.
    pub counts: BTreeMap<i64, u32>,
}

impl Progress {
    /// As text.
    pub fn written(&self) -> String {
        let mut bits = Vec::new();
        for &at in self.done.iter().filter(|at| (0..SPAN).contains(*at)) {
            let (byte, bit) = ((at / 8) as usize, at % 8);
            if bits.len() <= byte {
                bits.resize(byte + 1, 0u8);
            }
            bits[byte] |= 1 << bit;
        }
        let mut counts = Vec::new();
        let mut last = 0;
        for (&at, &count) in self.counts.iter().take(EXCEPTIONS_MAX) {
            counts.extend(((at - last).clamp(0, SPAN) as u16).to_le_bytes());
            counts.push(u8::try_from(count).unwrap_or(u8::MAX));
            last = at;
        }
        let (bits, counts) = (BASE64.encode(bits), BASE64.encode(counts));
        format!("{MARK}:{}:{}:{bits}:{counts}", self.epoch, self.handed)
    }

    /// Reads it; `None` for what was not written here.
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        if parts.next() != Some(MARK) {
            return None;
        }
        let epoch = parts.next()?.parse().ok()?;
        let handed = parts.next()?.parse().ok()?;
        let bits = BASE64.decode(parts.next()?).ok()?;
        let bytes = BASE64.decode(parts.next()?).ok()?;
        let is_set = |at: &i64| {
            let byte = bits.get((at / 8) as usize).copied().unwrap_or(0);
            byte & (1 << (at % 8)) != 0
        };
        let done = (0..8 * bits.len() as i64).filter(is_set).collect();
        let mut counts = BTreeMap::new();
        let mut at = 0;
        for three in bytes.chunks_exact(3) {
            at += i64::from(u16::from_le_bytes([three[0], three[1]]));
            counts.insert(at, u32::from(three[2]));
        }
        Some(Self { epoch, handed, done, counts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_comes_back_as_it_was_written(
            epoch in 0..u64::from(u32::MAX),
            handed in 0..2 * SPAN,
            done in proptest::collection::btree_set(0..SPAN, 0..600),
            counts in proptest::collection::btree_map(0..SPAN, 0..200u32, 0..EXCEPTIONS_MAX),
        ) {
            let progress = Progress { epoch, handed, done: done.into_iter().collect(), counts };
            let text = progress.written();
            prop_assert!(text.len() < 3000, "{} bytes", text.len());
            prop_assert_eq!(Progress::read(&text), Some(progress));
        }

        #[test]
        fn nothing_that_stands_there_is_a_panic(text in ".*", rest in "lh1:[0-9:]*[A-Za-z+/:]*") {
            Progress::read(&text);
            Progress::read(&rest);
        }
    }
}
