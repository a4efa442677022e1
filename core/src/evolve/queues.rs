//! Messages enter, leave and move.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::Stamp;
use crate::checkpoint::CellKey;
use crate::delay::Run;
use crate::event::{Arrival, List, Range, Why};
use crate::index::{Delayed, Entry, Extra, Item, ListId, Page, Place, decode_items};
use crate::queue::Lane;
use crate::wire::Reader;
use crate::{Durable, QueueId, Time};

impl Durable {
    pub(super) fn publish(
        &mut self,
        stamp: Stamp,
        due: Time,
        key: u64,
        id: u128,
        arrivals: &List<'_, Arrival>,
        routing_key: &str,
    ) {
        let place = Place { position: stamp.position, size: stamp.size };
        for arrival in arrivals.iter() {
            let queue = &mut self.queues[arrival.queue];
            let entry = Entry {
                place,
                weight: stamp.size,
                attempts: 0,
                expires: arrival.expires,
                key,
                extra: queue.keeps_routing_key().then(|| {
                    Box::new(Extra { routing_key: Some(routing_key.into()), deaths: Vec::new() })
                }),
            };
            queue.totals.published += 1;
            if id != 0
                && let Some(dedup_us) = queue.config.dedup_us
            {
                queue.dedup.push(id, stamp.at, ());
                let oldest = stamp.at.saturating_sub(dedup_us);
                queue.dedup.trim(oldest, self.shape.dedup_max as usize);
            }
            if due == 0 {
                self.append(arrival.queue, arrival.lane, entry);
            } else {
                let queue = queue.id;
                self.delay(Delayed { due, queue, lane: arrival.lane, entry });
            }
        }
    }

    /// Puts a message at the tail of a lane.
    fn append(&mut self, slot: u32, lane: u8, entry: Entry) {
        let queue = &mut self.queues[slot];
        self.messages += 1;
        queue.messages += 1;
        queue.bytes += u64::from(entry.weight);
        let state = &mut queue.lanes[usize::from(lane)];
        let open = state
            .pages
            .back()
            .is_some_and(|page| !page.sealed && page.count < self.shape.page_entries);
        if !open {
            // A queue that has just filled a page will fill the next one too.
            let busy = state.pages.back().is_some_and(|last| last.count == self.shape.page_entries);
            // A page that died as the last one was kept; now it is not the last any more.
            if let Some(mut last) = state.pages.pop_back_if(|page| page.live == 0) {
                let items = last.drop_items();
                self.resident -= items.len();
                recycle(&mut self.pool, items);
                let key = CellKey::Page(ListId::Lane(slot, lane), last.base);
                self.changed.removed(last.mark, key);
            }
            let mut page = Page::new(state.tail);
            if busy && let Some(room) = self.pool.pop() {
                page.items = room;
            }
            state.pages.push_back(page);
        }
        let page = state.pages.back_mut().expect("just made sure");
        page.push(entry);
        if page.mark.touch() {
            self.changed.touched(CellKey::Page(ListId::Lane(slot, lane), page.base));
        }
        state.tail += 1;
        self.resident += 1;
        if queue.mark.touch() {
            self.changed.touched(CellKey::Queue(slot));
        }
    }

    fn delay(&mut self, item: Delayed) {
        let slot = item.queue.slot;
        self.queues[slot].delayed += 1;
        self.messages += 1;
        self.touch_queue(slot);
        self.delays.add(item);
    }

    pub(super) fn remove(
        &mut self,
        slot: u32,
        lane: u8,
        why: Why,
        weight: u64,
        ranges: &List<'_, Range>,
    ) {
        let mut removed = 0;
        for range in ranges.iter() {
            removed += self.take_out(slot, lane, range);
        }
        let queue = &mut self.queues[slot];
        queue.bytes -= weight;
        let total = match why {
            Why::Acked => &mut queue.totals.acked,
            Why::Purged => &mut queue.totals.purged,
            Why::Died(_) => &mut queue.totals.dropped,
            Why::Redriven => &mut queue.totals.dead,
        };
        *total += removed;
    }

    /// Takes the live messages of a range out of a lane; says how many.
    fn take_out(&mut self, slot: u32, lane: u8, range: Range) -> u64 {
        let queue = &mut self.queues[slot];
        let state = &mut queue.lanes[usize::from(lane)];
        let end = range.first + range.count;
        let (mut at, mut removed) = (range.first, 0);
        while at < end {
            // Dead pages are gone: the range may start or go on in a gap.
            let Some(i) = state.page_from(at) else { break };
            let last = i + 1 == state.pages.len();
            let page = &mut state.pages[i];
            at = at.max(page.base);
            let page_end = page.base + u64::from(page.count);
            if at == page.base && end >= page_end {
                removed += u64::from(page.live);
                page.clear();
            } else {
                for position in at..end.min(page_end) {
                    removed += u64::from(page.remove(position));
                }
            }
            let key = CellKey::Page(ListId::Lane(slot, lane), page.base);
            if page.live == 0 && !last {
                let items = page.drop_items();
                self.resident -= items.len();
                recycle(&mut self.pool, items);
                self.changed.removed(page.mark, key);
                state.pages.remove(i);
            } else if page.mark.touch() {
                self.changed.touched(key);
            }
            at = page_end;
        }
        if !state.attempts.is_empty() {
            if range.count == 1 {
                state.attempts.remove(&range.first);
            } else {
                state.attempts.retain(|at, _| *at < range.first || *at >= end);
            }
        }
        queue.messages -= removed;
        self.messages -= removed;
        if queue.mark.touch() {
            self.changed.touched(CellKey::Queue(slot));
        }
        self.drop_dead_front(slot, lane);
        removed
    }

    /// A dead tail page that is alone starts over in place.
    fn drop_dead_front(&mut self, slot: u32, lane: u8) {
        let state: &mut Lane = &mut self.queues[slot].lanes[usize::from(lane)];
        loop {
            let alone = state.pages.len() == 1;
            let Some(page) = state.pages.front_mut() else { break };
            if page.live > 0 || page.count == 0 {
                break;
            }
            self.changed.removed(page.mark, CellKey::Page(ListId::Lane(slot, lane), page.base));
            self.resident -= page.items.len();
            if !alone || page.sealed {
                state.pages.pop_front();
            } else {
                page.restart(state.tail);
                break;
            }
        }
    }

    pub(super) fn defer(&mut self, slot: u32, lane: u8, at: u64, item: &Delayed) {
        self.take_out(slot, lane, Range { first: at, count: 1 });
        let queue = &mut self.queues[slot];
        queue.bytes -= u64::from(item.entry.weight);
        queue.totals.returned += 1;
        self.delay(item.clone());
    }

    pub(super) fn move_on(
        &mut self,
        slot: u32,
        lane: u8,
        at: u64,
        why: Why,
        arrivals: &List<'_, Arrival>,
        entry: &Entry,
    ) {
        self.take_out(slot, lane, Range { first: at, count: 1 });
        let queue = &mut self.queues[slot];
        queue.bytes -= u64::from(entry.weight);
        queue.totals.dead += u64::from(matches!(why, Why::Died(_)));
        for arrival in arrivals.iter() {
            self.queues[arrival.queue].totals.published += 1;
            let entry = Entry { expires: arrival.expires, ..entry.clone() };
            self.append(arrival.queue, arrival.lane, entry);
        }
    }

    pub(super) fn start_run(&mut self, slot: u32) {
        let items = self.delays.take_fresh(usize::MAX);
        self.resident += items.len();
        let mut pages: VecDeque<Page<Delayed>> = VecDeque::new();
        let page_entries = self.shape.run_page_entries();
        for (at, item) in items.into_iter().enumerate() {
            if (at as u64).is_multiple_of(page_entries) {
                pages.push_back(Page::new(at as u64));
            }
            pages.back_mut().expect("just made").push(item);
        }
        for page in &mut pages {
            page.mark.touch();
            self.changed.touched(CellKey::Page(ListId::Run(slot), page.base));
        }
        self.delays.runs.insert_at(slot, Run { pages });
    }

    pub(super) fn promote(&mut self, run: Option<u32>, count: u32, items: &[u8]) {
        let items = match run {
            None => self.delays.take_fresh(count as usize),
            Some(run) => {
                self.advance_run(run, count);
                let mut from = Reader::new(items);
                decode_items(&mut from).expect("journaled items were encoded by us")
            }
        };
        for item in items {
            let Delayed { queue: QueueId { slot, serial }, lane, entry, .. } = item;
            if self.queues.get(slot).is_some_and(|queue| queue.id.serial == serial) {
                self.queues[slot].delayed -= 1;
                self.messages -= 1;
                self.append(slot, lane, entry);
            }
        }
    }

    fn advance_run(&mut self, slot: u32, count: u32) {
        let run = &mut self.delays.runs[slot];
        for _ in 0..count {
            let page = run.pages.front_mut().expect("promoted items are there");
            let at = page.next_live(page.base).expect("front pages are alive");
            page.remove(at);
            if page.live == 0 {
                self.resident -= page.items.len();
                self.changed.removed(page.mark, CellKey::Page(ListId::Run(slot), page.base));
                run.pages.pop_front();
            } else if page.mark.touch() {
                self.changed.touched(CellKey::Page(ListId::Run(slot), page.base));
            }
        }
        if run.pages.is_empty() {
            self.delays.runs.remove(slot);
        }
    }

    pub(super) fn store_page(&mut self, stamp: Stamp, list: ListId, base: u64, items: &[u8]) {
        let place = Place { position: stamp.position, size: stamp.size };
        let segment_bytes = self.shape.segment_bytes;
        let mark = match list {
            ListId::Lane(slot, lane) => {
                let lane = &mut self.queues[slot].lanes[usize::from(lane)];
                store(page_at(&mut lane.pages, base), place, items, segment_bytes)
            }
            ListId::Run(slot) => {
                let run = &mut self.delays.runs[slot];
                store(page_at(&mut run.pages, base), place, items, segment_bytes)
            }
        };
        if mark {
            self.changed.touched(CellKey::Page(list, base));
        }
    }

    pub(super) fn relocate(&mut self, stamp: Stamp, list: ListId, base: u64, at: u64) {
        let place = Place { position: stamp.position, size: stamp.size };
        match list {
            ListId::Lane(slot, lane) => {
                let lane = &mut self.queues[slot].lanes[usize::from(lane)];
                page_at(&mut lane.pages, base).relocate(at, place);
            }
            ListId::Run(slot) => {
                page_at(&mut self.delays.runs[slot].pages, base).relocate(at, place);
            }
        }
    }

    /// Brings the items of a stored page into memory. Not an event: nothing is different.
    pub(crate) fn cache_page(&mut self, list: ListId, base: u64, items: &[u8]) {
        let mut from = Reader::new(items);
        let added = match list {
            ListId::Lane(slot, lane) => {
                let Some(queue) = self.queues.get_mut(slot) else { return };
                fill(&mut queue.lanes[usize::from(lane)].pages, base, &mut from)
            }
            ListId::Run(slot) => {
                let Some(run) = self.delays.runs.get_mut(slot) else { return };
                fill(&mut run.pages, base, &mut from)
            }
        };
        self.resident += added;
    }

    /// Drops the items of a page that is stored. Not an event: nothing is different.
    pub(crate) fn uncache_page(&mut self, list: ListId, base: u64) {
        match list {
            ListId::Lane(slot, lane) => {
                let lane = &mut self.queues[slot].lanes[usize::from(lane)];
                let items = page_at(&mut lane.pages, base).drop_items();
                self.resident -= items.len();
                recycle(&mut self.pool, items);
            }
            ListId::Run(slot) => {
                let items = page_at(&mut self.delays.runs[slot].pages, base).drop_items();
                self.resident -= items.len();
            }
        }
    }
}

/// Room for this many pages is kept for the next ones.
const POOL_MAX: usize = 8;

/// Keeps the room of a large page. Without it, every page would grow from nothing, and what it
/// leaves behind on the heap would add up.
fn recycle(pool: &mut Vec<Vec<Entry>>, mut items: Vec<Entry>) {
    if pool.len() < POOL_MAX && items.capacity() >= RECYCLED_MIN {
        items.clear();
        pool.push(items);
    }
}

/// Smaller pages are left to the allocator.
const RECYCLED_MIN: usize = 256;

pub(crate) fn page_at<T: Item>(pages: &mut VecDeque<Page<T>>, base: u64) -> &mut Page<T> {
    let i = pages.partition_point(|page| page.base < base);
    let page = &mut pages[i];
    assert_eq!(page.base, base, "the page exists");
    page
}

/// Notes where a page was stored. It takes no more items; whether they stay in memory is not
/// part of the state.
fn store<T: Item>(page: &mut Page<T>, place: Place, items: &[u8], segment_bytes: u64) -> bool {
    if page.resident {
        page.recount(segment_bytes);
    } else {
        // Replay of a relocation: the page was in memory then and is not now.
        let mut from = Reader::new(items);
        page.items = decode_items(&mut from).expect("journaled items were encoded by us");
        page.recount(segment_bytes);
        page.items = Vec::new();
    }
    page.stored = Some(place);
    page.sealed = true;
    page.mark.touch()
}

fn fill<T: Item>(pages: &mut VecDeque<Page<T>>, base: u64, from: &mut Reader<'_>) -> usize {
    let i = pages.partition_point(|page| page.base < base);
    match pages.get_mut(i) {
        Some(page) if page.base == base && !page.resident && page.live > 0 => {
            let items: Vec<T> = decode_items(from).expect("stored pages were encoded by us");
            assert_eq!(items.len(), page.count as usize, "the stored page is this page");
            page.items = items;
            page.resident = true;
            page.items.len()
        }
        _ => 0,
    }
}
