//! Pages: items in rows of a fixed length, with a bit for each that is gone.

use alloc::vec::Vec;

use super::{Item, Place};
use crate::Time;
use crate::checkpoint::Mark;
use crate::wire::{self, DecodeError, Reader};

/// Which list a page belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListId {
    /// A queue's lane.
    Lane(u32, u8),
    /// A run of delayed messages.
    Run(u32),
}

/// Journal segments with counts. Nearly every page has one or two, and there may be ten thousand
/// pages: the first is kept in place, because ten thousand small allocations between large ones
/// that come and go would leave the heap in pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shares {
    first: (u32, u32),
    more: Vec<(u32, u32)>,
}

impl Shares {
    /// Adds a segment that is not there yet.
    #[inline]
    pub fn add(&mut self, segment: u32, n: u32) {
        if self.first.1 == 0 { self.first = (segment, n) } else { self.more.push((segment, n)) }
    }

    /// Segments and counts.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        let first = (self.first.1 > 0).then_some(self.first);
        first.into_iter().chain(self.more.iter().copied())
    }

    /// How many segments.
    pub fn len(&self) -> usize {
        usize::from(self.first.1 > 0) + self.more.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.first.1 == 0
    }
}

/// Up to `page_entries` items of one list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// Position of its first item.
    pub base: u64,
    /// Items appended, gone ones included.
    pub count: u32,
    /// Items not gone.
    pub live: u32,
    /// The items, or none while the page is not resident.
    pub items: Vec<T>,
    /// Whether `items` is filled.
    pub resident: bool,
    /// Takes no more items.
    pub sealed: bool,
    /// Where it was stored since its items last changed.
    pub stored: Option<Place>,
    /// The least time of an item that has one; 0: none has.
    pub least: Time,
    /// Journal segments that its live items' records lay in when it was stored, with how many.
    pub segments: Shares,
    pub(crate) gone: Vec<u64>,
    pub(crate) mark: Mark,
}

impl<T: Item> Page<T> {
    pub(crate) fn new(base: u64) -> Self {
        Self {
            base,
            count: 0,
            live: 0,
            items: Vec::new(),
            resident: true,
            sealed: false,
            stored: None,
            least: 0,
            segments: Shares::default(),
            gone: Vec::new(),
            mark: Mark::default(),
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, item: T) {
        let time = item.time();
        if time != 0 && (self.least == 0 || time < self.least) {
            self.least = time;
        }
        self.items.push(item);
        self.count += 1;
        self.live += 1;
    }

    /// The item at a position, if the page is resident.
    #[inline]
    pub fn item(&self, at: u64) -> Option<&T> {
        self.items.get((at - self.base) as usize)
    }

    /// Whether the item at a position is not gone.
    #[inline]
    pub fn is_live(&self, at: u64) -> bool {
        let i = (at - self.base) as usize;
        i < self.count as usize
            && self.gone.get(i / 64).is_none_or(|word| word >> (i % 64) & 1 == 0)
    }

    /// The first live position at or after `from`.
    pub fn next_live(&self, from: u64) -> Option<u64> {
        if self.live == 0 {
            return None;
        }
        let mut i = from.saturating_sub(self.base) as usize;
        while i < self.count as usize {
            match self.gone.get(i / 64) {
                None => return Some(self.base + i as u64),
                Some(word) => {
                    let open = !word >> (i % 64);
                    if open != 0 {
                        let found = i + open.trailing_zeros() as usize;
                        return (found < self.count as usize).then(|| self.base + found as u64);
                    }
                    i = (i / 64 + 1) * 64;
                }
            }
        }
        None
    }

    /// Marks the item at a position as gone; false if it was already.
    #[inline]
    pub(crate) fn remove(&mut self, at: u64) -> bool {
        if !self.is_live(at) {
            return false;
        }
        let i = (at - self.base) as usize;
        if self.gone.len() <= i / 64 {
            self.gone.resize(i / 64 + 1, 0);
        }
        self.gone[i / 64] |= 1 << (i % 64);
        self.live -= 1;
        true
    }

    /// Marks everything as gone. What is appended afterwards is not.
    pub(crate) fn clear(&mut self) {
        self.live = 0;
        self.gone = Vec::new();
        let count = self.count as usize;
        self.gone.resize(count.div_ceil(64), u64::MAX);
        if let Some(last) = self.gone.last_mut().filter(|_| !count.is_multiple_of(64)) {
            *last = (1 << (count % 64)) - 1;
        }
    }

    /// Drops the items from memory; they are stored, or dead. Gives their room to the caller.
    pub(crate) fn drop_items(&mut self) -> Vec<T> {
        self.resident = false;
        self.sealed = true;
        core::mem::take(&mut self.items)
    }

    /// Starts over as an empty page.
    pub(crate) fn restart(&mut self, base: u64) {
        let mut items = core::mem::take(&mut self.items);
        items.clear();
        // An idle queue keeps no more than a handful of entries' room.
        items.shrink_to(32);
        *self = Self { items, ..Self::new(base) };
    }

    /// Points an item's record elsewhere, if the page is resident: replay may meet the event
    /// without the page, and learns of all its places from the `PageStored` that follows.
    pub(crate) fn relocate(&mut self, at: u64, place: Place) {
        if self.resident {
            self.items[(at - self.base) as usize].entry_mut().place = place;
            self.stored = None;
        }
    }

    /// Counts anew which segments the live items' records lie in.
    pub(crate) fn recount(&mut self, segment_bytes: u64) {
        self.segments = self.count_shares(segment_bytes);
    }

    /// Which segments its live messages lie in: counted if the page is in memory, else as it was
    /// when the page was stored.
    pub(crate) fn shares(&self, segment_bytes: u64) -> Shares {
        if self.resident { self.count_shares(segment_bytes) } else { self.segments.clone() }
    }

    fn count_shares(&self, segment_bytes: u64) -> Shares {
        let live = (0..self.items.len()).filter(|i| self.is_live(self.base + *i as u64));
        let mut segments: Vec<u32> =
            live.map(|i| (self.items[i].entry().place.position / segment_bytes) as u32).collect();
        segments.sort_unstable();
        let mut shares = Shares::default();
        for group in segments.chunk_by(|a, b| a == b) {
            shares.add(group[0], group.len() as u32);
        }
        shares
    }

    /// Appends all items, gone ones included, so that positions stay offsets.
    pub fn encode_items(&self, out: &mut Vec<u8>) {
        wire::put_u64(out, self.items.len() as u64);
        for item in &self.items {
            item.encode(out);
        }
    }

    /// Appends the page as a checkpoint cell: items only when they are stored nowhere else.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        wire::put_u64(out, u64::from(self.count));
        wire::put_u64(out, u64::from(self.live));
        wire::put_u64(out, self.least);
        wire::put_u64(out, self.segments.len() as u64);
        for (segment, n) in self.segments.iter() {
            wire::put_u64(out, u64::from(segment));
            wire::put_u64(out, u64::from(n));
        }
        out.push(u8::from(self.sealed));
        if self.live == self.count {
            out.push(0);
        } else {
            out.push(1);
            wire::put_u64(out, self.gone.len() as u64);
            self.gone.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        }
        match self.stored {
            Some(place) => {
                out.push(1);
                wire::put_u64(out, place.position);
                wire::put_u64(out, u64::from(place.size));
            }
            // Only what is dead leaves memory without being stored.
            None if !self.resident => out.push(2),
            None => {
                out.push(0);
                self.encode_items(out);
            }
        }
    }

    pub(crate) fn decode(base: u64, from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut page = Self::new(base);
        page.count = from.u32("page count")?;
        page.live = from.u32("page live count")?;
        page.least = from.u64("page least time")?;
        for _ in 0..from.count(2, "page segments")? {
            page.segments.add(from.u32("segment")?, from.u32("segment share")?);
        }
        page.sealed = from.flag("page seal")?;
        if from.flag("page gaps")? {
            for _ in 0..from.count(8, "page gaps")? {
                let word = from.take(8, "page gaps")?;
                page.gone.push(u64::from_le_bytes(word.try_into().expect("eight bytes")));
            }
        }
        match from.u8("page place")? {
            0 => page.items = decode_items(from)?,
            1 => {
                page.stored = Some(Place { position: from.u64("place")?, size: from.u32("size")? });
                page.resident = false;
            }
            _ => page.resident = false,
        }
        if page.resident && page.items.len() != page.count as usize {
            return Err(DecodeError { what: "page items", offset: 0 });
        }
        let gone: u32 = page.gone.iter().map(|word| word.count_ones()).sum();
        let agree = page.live.checked_add(gone) == Some(page.count) || page.live == 0;
        let closed = page.sealed || page.resident && page.stored.is_none();
        if !agree || !closed || page.gone.len() > (page.count as usize).div_ceil(64) {
            return Err(DecodeError { what: "page gaps", offset: 0 });
        }
        Ok(page)
    }
}

/// Reads the items of a stored page.
///
/// # Errors
/// When the bytes are not items.
pub fn decode_items<T: Item>(from: &mut Reader<'_>) -> Result<Vec<T>, DecodeError> {
    let count = from.count(3, "page items")?;
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        items.push(T::decode(from)?);
    }
    Ok(items)
}

/// Asks that messages be copied out of an old segment, a few at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relocation {
    /// The list and the page.
    pub list: ListId,
    /// The page's base position.
    pub base: u64,
    /// Positions and the records found there.
    pub records: Vec<(u64, Vec<u8>)>,
}
