//! Index pages leave memory, come back, and let go of old journal segments.

use alloc::vec::Vec;

use crate::Durable;
use crate::checkpoint::CellKey;
use crate::event::Event;
use crate::index::{Delayed, Item, ListId, Page, Relocation};
use crate::outcome::{EffectKind, Outcome, Refusal};
use crate::step::Step;

/// Pages with fewer items are not worth storing.
const ITEMS_MIN: usize = 16;
/// Pages that eviction passes by.
#[derive(Debug, Clone, Copy)]
enum Spare {
    /// Those that still take messages, and those that are being read.
    Unfinished,
    /// Those that are being read.
    Read,
    /// None.
    None,
}

/// Segments after which a fresh delayed message is stored with its likes.
const FRESH_SEGMENTS: u64 = 4;
/// Pages with more items are stored before a checkpoint, so that it need not carry them.
const ITEMS_LARGE: usize = 512;

impl Durable {
    /// Calls `f` with the page, if it exists.
    pub(crate) fn with_page<R>(&self, list: ListId, base: u64, f: impl PageFn<R>) -> Option<R> {
        fn find<T>(pages: &alloc::collections::VecDeque<Page<T>>, base: u64) -> Option<&Page<T>> {
            let i = pages.partition_point(|page| page.base < base);
            pages.get(i).filter(|page| page.base == base)
        }
        match list {
            ListId::Lane(slot, lane) => {
                let lane = self.queues.get(slot)?.lanes.get(usize::from(lane))?;
                Some(f.call(find(&lane.pages, base)?))
            }
            ListId::Run(slot) => Some(f.call(find(&self.delays.runs.get(slot)?.pages, base)?)),
        }
    }
}

/// A function of a page whatever it holds.
pub(crate) trait PageFn<R> {
    fn call<T: Item>(self, page: &Page<T>) -> R;
}

struct Encode<'a>(&'a mut Vec<u8>);
impl PageFn<()> for Encode<'_> {
    fn call<T: Item>(self, page: &Page<T>) {
        page.encode_items(self.0);
    }
}

struct Large;
impl PageFn<bool> for Large {
    fn call<T: Item>(self, page: &Page<T>) -> bool {
        page.stored.is_none() && page.items.len() >= ITEMS_LARGE && page.live > 0
    }
}

/// What relocation needs to know of a page.
struct Residence;
impl PageFn<(bool, Option<crate::index::Place>)> for Residence {
    fn call<T: Item>(self, page: &Page<T>) -> (bool, Option<crate::index::Place>) {
        (page.resident, page.stored)
    }
}

struct InSegment(u64, u64, usize);
impl PageFn<Vec<(u64, crate::index::Place)>> for InSegment {
    fn call<T: Item>(self, page: &Page<T>) -> Vec<(u64, crate::index::Place)> {
        let Self(segment, segment_bytes, max) = self;
        let items = page.items.iter().enumerate();
        items
            .map(|(i, item)| (page.base + i as u64, item.entry().place))
            .filter(|(at, place)| page.is_live(*at) && place.position / segment_bytes == segment)
            .take(max)
            .collect()
    }
}

struct IsLive(u64);
impl PageFn<bool> for IsLive {
    fn call<T: Item>(self, page: &Page<T>) -> bool {
        page.is_live(self.0)
    }
}

impl Step<'_> {
    /// Writes a resident page into the journal. Its items stay in memory until they are dropped.
    pub(super) fn store_page(&mut self, list: ListId, base: u64) {
        let mut items = core::mem::take(&mut self.v.scratch);
        items.clear();
        self.d.with_page(list, base, Encode(&mut items));
        self.emit_large(items.len(), Event::PageStored { list, base, items: &items });
        self.v.scratch = items;
    }

    /// Drops items from memory until there are no more than the limit allows, storing their pages
    /// first where need be. Looks at the newest pages of a lane first: they are needed last.
    pub(crate) fn evict(&mut self) {
        let limit = self.v.limits.resident_entries;
        // A little below the limit, so that looking for pages pays for more than one message.
        let goal = limit - limit / 64;
        let end = self.d.queues.end();
        // Whole pages of the next few queues first: storing half a page makes two of one.
        let rounds = [(Spare::Unfinished, end.min(64)), (Spare::Read, end), (Spare::None, end)];
        for (spare, queues) in rounds {
            for _ in 0..=queues {
                let slot = self.v.evict_hand;
                while self.d.resident > goal
                    && let Some((lane, base, stored)) = self.victim(slot, spare)
                {
                    let list = ListId::Lane(slot, lane);
                    if !stored {
                        self.store_page(list, base);
                    }
                    self.cache().uncache_page(list, base);
                }
                if self.d.resident <= goal {
                    return;
                }
                self.v.evict_hand = if slot + 1 >= end { 0 } else { slot + 1 };
            }
        }
        self.evict_runs();
    }

    /// Pages of runs are stored as soon as they are made; those in memory are being promoted.
    fn evict_runs(&mut self) {
        let resident: Vec<(u32, u64)> = self
            .d
            .delays
            .runs
            .iter()
            .flat_map(|(run, state)| state.pages.iter().map(move |page| (run, page)))
            .filter(|(_, page)| page.resident && page.live > 0 && page.stored.is_some())
            .map(|(run, page)| (run, page.base))
            .collect();
        for (run, base) in resident {
            if self.d.resident <= self.v.limits.resident_entries {
                return;
            }
            self.cache().uncache_page(ListId::Run(run), base);
        }
    }

    fn victim(&self, slot: u32, spare: Spare) -> Option<(u8, u64, bool)> {
        let queue = self.d.queues.get(slot)?;
        let side = self.v.queues.get(slot as usize)?;
        let items_min = ITEMS_MIN.min(self.d.shape.page_entries as usize);
        for (lane, state) in queue.lanes.iter().enumerate() {
            let cursor = side.lanes[lane].cursor;
            let read = state.page_of(cursor.min(state.tail.saturating_sub(1)));
            for (i, page) in state.pages.iter().enumerate().rev() {
                let open = i + 1 == state.pages.len() && !page.sealed;
                let unfinished = open && page.count < self.d.shape.page_entries;
                let spared = match spare {
                    Spare::Unfinished => unfinished || read == Some(i),
                    Spare::Read => read == Some(i),
                    Spare::None => false,
                };
                if page.resident && page.live > 0 && page.items.len() >= items_min && !spared {
                    return Some((lane as u8, page.base, page.stored.is_some()));
                }
            }
        }
        None
    }

    /// Stores the pages that changed and would make the coming checkpoint large.
    pub(crate) fn store_large_pages(&mut self) {
        // Fresh ones are not relocated: an old one would pin its segment until it is due.
        let old = FRESH_SEGMENTS * self.d.shape.segment_bytes;
        let pins = |item: &Delayed| item.entry.place.position + old < self.d.position;
        if self.d.delays.fresh.len() > ITEMS_LARGE || self.d.delays.fresh.values().any(pins) {
            self.start_run();
        }
        let pages: Vec<(ListId, u64)> = self
            .d
            .changed
            .touched_keys()
            .filter_map(|key| match key {
                CellKey::Page(list, base) => Some((*list, *base)),
                _ => None,
            })
            .collect();
        for (list, base) in pages {
            if self.d.with_page(list, base, Large) == Some(true) {
                self.store_page(list, base);
            }
        }
    }

    pub(crate) fn page_loaded(&mut self, list: ListId, base: u64, items: &[u8]) {
        self.keeps_pages = true;
        self.cache().cache_page(list, base, items);
        match list {
            ListId::Lane(slot, _) => {
                if let Some(side) = self.v.queues.get_mut(slot as usize) {
                    side.loading = false;
                    self.look_at(slot);
                }
            }
            ListId::Run(run) => self.run_page_loaded(run),
        }
    }

    /// Copies messages of one page to the journal's end, so that an old segment can go.
    pub(super) fn relocate(&mut self, relocation: &Relocation) -> Result<Outcome, Refusal> {
        let Relocation { list, base, ref records } = *relocation;
        let (resident, stored) = self.d.with_page(list, base, Residence).ok_or(Refusal::NoQueue)?;
        if !resident {
            let place = stored.ok_or(Refusal::NoQueue)?;
            self.effect_now(EffectKind::LoadPage(list, base, place));
            self.keeps_pages = true;
            return Err(Refusal::PageNeeded);
        }
        let mut moved = 0;
        for (at, record) in records {
            if self.d.with_page(list, base, IsLive(*at)) != Some(true) {
                continue;
            }
            let record = published(record);
            self.emit_large(record.len(), Event::Relocated { list, base, at: *at, record });
            self.move_copies(list, *at);
            moved += 1;
        }
        // Without records it is the stored page itself that has to move.
        if moved > 0 || records.is_empty() {
            self.store_page(list, base);
            self.cache().uncache_page(list, base);
        }
        Ok(Outcome::Moved(moved))
    }

    /// Deliveries, returned and parked messages carry copies of their entries.
    fn move_copies(&mut self, list: ListId, at: u64) {
        let ListId::Lane(slot, lane) = list else { return };
        let state = &self.d.queues[slot].lanes[usize::from(lane)];
        let page = &state.pages[state.page_of(at).expect("relocated messages live")];
        let place = page.item(at).expect("the page is resident").place;
        let side = &mut self.v.queues[slot as usize];
        if let Some(entry) = side.lanes[usize::from(lane)].returned.get_mut(&at) {
            entry.place = place;
            return;
        }
        let parked = side.keys.values_mut().flat_map(|key| &mut key.parked);
        for (parked_lane, parked_at, entry) in parked {
            if (*parked_lane, *parked_at) == (lane, at) {
                entry.place = place;
                return;
            }
        }
        if side.in_flight > 0 && at < side.lanes[usize::from(lane)].cursor {
            let (queue, key) = (slot, (lane, at));
            let slots = self.v.flights.iter();
            let found = slots.filter(|(_, f)| f.queue == queue && (f.lane, f.at) == key);
            let found: Vec<u32> = found.map(|(slot, _)| slot).collect();
            for slot in found {
                self.v.flights[slot].entry.place = place;
            }
        }
    }
}

/// The record as it was published: what was relocated before is unwrapped, never nested.
fn published(record: &[u8]) -> &[u8] {
    match Event::decode(record) {
        Ok(Event::Relocated { record, .. }) => record,
        _ => record,
    }
}

/// How full journal segments are, as the state sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentUse {
    /// The segment's number.
    pub segment: u64,
    /// Pages with messages in it: list, base, live messages of the page, all of its messages.
    pub pages: Vec<(ListId, u64)>,
    /// Estimated live messages in it.
    pub messages: u64,
    /// Estimated bytes of those.
    pub bytes: u64,
    /// Index pages stored in it.
    pub stored: Vec<(ListId, u64)>,
}

impl Durable {
    /// Where a page is to be fetched from; `None` if it is in memory or does not exist.
    pub fn page_to_load(&self, list: ListId, base: u64) -> Option<crate::index::Place> {
        match self.with_page(list, base, Residence)? {
            (false, place) => place,
            (true, _) => None,
        }
    }

    /// Live messages of a page in memory whose records lie in a segment, at most `max` of them.
    pub fn messages_in(
        &self,
        list: ListId,
        base: u64,
        segment: u64,
        max: usize,
    ) -> Vec<(u64, crate::index::Place)> {
        let find = InSegment(segment, self.shape.segment_bytes, max);
        self.with_page(list, base, find).unwrap_or_default()
    }

    /// Which pages keep which segments, in order of segments. Derived by a walk over the page
    /// descriptors, because keeping it would cost every ack more than this costs once a segment.
    pub fn segment_use(&self) -> Vec<SegmentUse> {
        let mut uses = alloc::collections::BTreeMap::new();
        for (slot, queue) in self.queues.iter() {
            for (lane, state) in queue.lanes.iter().enumerate() {
                for page in &state.pages {
                    self.add_use(&mut uses, ListId::Lane(slot, lane as u8), page);
                }
            }
        }
        for (slot, run) in self.delays.runs.iter() {
            for page in &run.pages {
                self.add_use(&mut uses, ListId::Run(slot), page);
            }
        }
        for item in self.delays.fresh.values() {
            let segment = item.entry.place.position / self.shape.segment_bytes;
            use_of(&mut uses, segment).messages += 1;
        }
        uses.into_values().collect()
    }

    fn add_use<T: Item>(
        &self,
        uses: &mut alloc::collections::BTreeMap<u64, SegmentUse>,
        list: ListId,
        page: &Page<T>,
    ) {
        // Pages do not know the sizes of their messages; the queue's average is near enough.
        let average = match list {
            ListId::Lane(slot, _) => {
                let queue = &self.queues[slot];
                queue.bytes / queue.messages.max(1)
            }
            ListId::Run(_) => 512,
        };
        if page.live == 0 {
            return;
        }
        let shares = page.shares(self.shape.segment_bytes);
        let counted: u64 = shares.iter().map(|(_, n)| u64::from(n)).sum();
        for (segment, n) in shares.iter() {
            // Some may be gone since the page was stored; which ones is not known.
            let share = u64::from(n) * u64::from(page.live) / counted.max(1);
            let at = use_of(uses, u64::from(segment));
            at.messages += share.max(1);
            at.bytes += share.max(1) * average.max(1);
            at.pages.push((list, page.base));
        }
        if let Some(place) = page.stored {
            use_of(uses, place.position / self.shape.segment_bytes).stored.push((list, page.base));
        }
    }
}

fn use_of(
    uses: &mut alloc::collections::BTreeMap<u64, SegmentUse>,
    segment: u64,
) -> &mut SegmentUse {
    uses.entry(segment).or_insert_with(|| SegmentUse {
        segment,
        pages: Vec::new(),
        messages: 0,
        bytes: 0,
        stored: Vec::new(),
    })
}
