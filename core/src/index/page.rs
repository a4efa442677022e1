//! Pages: items in rows of a fixed length, with a bit for each that is gone.

use alloc::vec::Vec;

use super::{Item, Place};
use crate::checkpoint::Mark;
use crate::wire::{self, DecodeError, Reader};
use crate::{Position, Time};

/// Which list a page belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListId {
    /// A queue's lane.
    Lane(u32, u8),
    /// A run of delayed messages.
    Run(u32),
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
    /// Journal segments that its items' records lie in, with how many.
    pub segments: Vec<(u32, u32)>,
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
            segments: Vec::new(),
            gone: Vec::new(),
            mark: Mark::default(),
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, item: T, segment_bytes: u64) {
        let time = item.time();
        if time != 0 && (self.least == 0 || time < self.least) {
            self.least = time;
        }
        self.refer(item.entry().place.position, segment_bytes);
        self.items.push(item);
        self.count += 1;
        self.live += 1;
    }

    #[inline]
    fn refer(&mut self, position: Position, segment_bytes: u64) {
        let segment = (position / segment_bytes) as u32;
        match self.segments.iter_mut().rev().find(|(s, _)| *s == segment) {
            Some((_, n)) => *n += 1,
            None => self.segments.push((segment, 1)),
        }
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

    /// Drops the items from memory; they are stored. Returns how many there were.
    pub(crate) fn drop_items(&mut self) -> usize {
        let dropped = self.items.len();
        self.items = Vec::new();
        self.resident = false;
        self.sealed = true;
        dropped
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
        self.segments.clear();
        for i in 0..self.items.len() {
            if self.is_live(self.base + i as u64) {
                self.refer(self.items[i].entry().place.position, segment_bytes);
            }
        }
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
        for (segment, n) in &self.segments {
            wire::put_u64(out, u64::from(*segment));
            wire::put_u64(out, u64::from(*n));
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
            None if self.live == 0 => out.push(2),
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
            page.segments.push((from.u32("segment")?, from.u32("segment share")?));
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
