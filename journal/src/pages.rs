//! The newest bytes of the journal, in memory: those still to be written, and those just written.
//!
//! Frames are encoded at the end of the last page and written from there; a written page stays
//! until newer ones push it out, so a record that is read soon after it was appended costs neither
//! a copy nor a disk access. Rejected: a ring buffer, in which a frame may wrap around and then
//! has no slice; and a cache filled after writing, which copies every byte once more.

use std::collections::VecDeque;

/// Room of an ordinary page. A group that needs more gets a page of its own size.
const PAGE_BYTES_MAX: usize = 1 << 20;
const PAGE_BYTES_MIN: usize = 64 << 10;

/// Pages kept for reuse, so that the steady state allocates nothing.
const FREE_PAGES_MAX: usize = 4;

/// A contiguous stretch of the journal within one segment.
#[derive(Debug)]
pub(crate) struct Page {
    /// Position of the first byte.
    pub start: u64,
    /// Never grows beyond its capacity: room is checked when a group is reserved.
    pub bytes: Vec<u8>,
    /// How many of the bytes have been written to the segment file.
    pub written: usize,
}

impl Page {
    pub fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

/// All pages, oldest first; positions ascend. There is always a last one.
#[derive(Debug)]
pub(crate) struct Pages {
    pages: VecDeque<Page>,
    free: Vec<Vec<u8>>,
    page_bytes: usize,
    cache_bytes: usize,
    /// Sum of the pages' capacities.
    held_bytes: usize,
}

impl Pages {
    /// An empty last page at `start`.
    pub fn new(cache_bytes: usize, start: u64) -> Self {
        let page_bytes = (cache_bytes / 4).clamp(PAGE_BYTES_MIN, PAGE_BYTES_MAX);
        let pages = VecDeque::new();
        let mut out = Self { pages, free: Vec::new(), page_bytes, cache_bytes, held_bytes: 0 };
        out.start_page(start, 0);
        out
    }

    /// The page that is being filled.
    pub fn last(&mut self) -> &mut Page {
        self.pages.back_mut().expect("there is always a last page")
    }

    /// The page that is being filled, to look at.
    pub fn last_ref(&self) -> &Page {
        self.pages.back().expect("there is always a last page")
    }

    /// Makes an empty last page at position `start` with room for `room` bytes.
    pub fn start_page(&mut self, start: u64, room: usize) {
        if let Some(unused) = self.pages.pop_back_if(|page| page.bytes.is_empty()) {
            self.held_bytes -= unused.bytes.capacity();
            self.recycle(unused.bytes);
        }
        let mut bytes = match self.free.pop() {
            Some(bytes) if bytes.capacity() >= room => bytes,
            _ => Vec::with_capacity(room.max(self.page_bytes)),
        };
        bytes.clear();
        self.held_bytes += bytes.capacity();
        self.pages.push_back(Page { start, bytes, written: 0 });
        self.trim();
    }

    /// Lets go of the oldest written pages beyond what is to be kept.
    fn trim(&mut self) {
        while self.held_bytes > self.cache_bytes && self.pages.len() > 1 {
            let oldest = &self.pages[0];
            if oldest.written < oldest.bytes.len() {
                break;
            }
            if let Some(page) = self.pages.pop_front() {
                self.held_bytes -= page.bytes.capacity();
                self.recycle(page.bytes);
            }
        }
    }

    /// Keeps an ordinary page's memory for later; one made for a huge group is given back.
    fn recycle(&mut self, bytes: Vec<u8>) {
        if bytes.capacity() == self.page_bytes && self.free.len() < FREE_PAGES_MAX {
            self.free.push(bytes);
        }
    }

    /// Pages with bytes still to be written, oldest first.
    pub fn unwritten(&mut self) -> impl Iterator<Item = &mut Page> {
        self.pages.iter_mut().filter(|page| page.written < page.bytes.len())
    }

    /// The `size` bytes at `position`, if they are all here.
    pub fn get(&self, position: u64, size: usize) -> Option<&[u8]> {
        let after = self.pages.partition_point(|page| page.start <= position);
        let page = self.pages.get(after.checked_sub(1)?)?;
        let from = usize::try_from(position - page.start).ok()?;
        page.bytes.get(from..from.checked_add(size)?)
    }
}
