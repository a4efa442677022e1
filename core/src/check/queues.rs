//! Messages: every live one is in exactly one place, and all counts of them agree.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::index::{Item, Page};
use crate::queue::{Lane, Queue};
use crate::slab::NONE;
use crate::volatile::{QueueSide, Volatile};
use crate::{Durable, QueueId};

/// What holds for every page whatever it holds.
fn page<T: Item>(page: &Page<T>, page_entries: u32) {
    assert!(page.count <= page_entries, "a page has no more items than it may");
    let positions = page.base..page.base + u64::from(page.count);
    let live = positions.filter(|at| page.is_live(*at)).count();
    assert_eq!(page.live as usize, live, "a page's count of live items");
    let items = if page.resident { page.count as usize } else { 0 };
    assert_eq!(page.items.len(), items, "a page has all of its items in memory or none");
    let found_again = page.resident || page.live == 0 || page.stored.is_some();
    assert!(found_again, "a page that left memory is stored");
    let closed = page.resident && page.stored.is_none() || page.sealed;
    assert!(closed, "a page that is stored or left memory takes no more items");
}

/// The durable counts of queues.
pub(super) fn lanes(d: &Durable) {
    for (slot, queue) in d.queues.iter() {
        assert_eq!(queue.id.slot, slot, "a queue's identity has its place");
        let lanes = usize::from(queue.config.priority_max) + 1;
        assert_eq!(queue.lanes.len(), lanes, "a lane for each priority");
        queue.lanes.iter().for_each(|state| lane(state, d.shape.page_entries));
        let live: u64 = queue.lanes.iter().map(Lane::live).sum();
        assert_eq!(queue.messages, live, "a queue's count of messages");
        weights(queue);
    }
    assert_eq!(d.messages, d.count_messages(), "the shard's count of messages");
    assert_eq!(d.resident, d.count_resident(), "the count of index entries in memory");
}

fn lane(lane: &Lane, page_entries: u32) {
    let mut end = 0;
    for (i, state) in lane.pages.iter().enumerate() {
        page(state, page_entries);
        assert!(state.base >= end, "a lane's pages are in order");
        end = state.base + u64::from(state.count);
        assert!(i > 0 || state.live > 0 || state.count == 0, "the first page of a lane lives");
    }
    assert!(lane.pages.is_empty() || end == lane.tail, "a lane's last page ends at its tail");
    let known = lane.attempts.keys().all(|at| lane.is_live(*at));
    assert!(known, "only live messages have attempts");
}

/// A queue's bytes, when all of its entries are in memory.
fn weights(queue: &Queue) {
    let pages = || queue.lanes.iter().flat_map(|lane| &lane.pages);
    if pages().all(|page| page.resident || page.live == 0) {
        let items = pages().flat_map(|page| {
            let live = |(i, _): &(usize, _)| page.is_live(page.base + *i as u64);
            page.items.iter().enumerate().filter(live)
        });
        let bytes: u64 = items.map(|(_, entry)| u64::from(entry.weight)).sum();
        assert_eq!(queue.bytes, bytes, "a queue's count of bytes");
    }
}

/// Delayed messages are counted at their queues, and the earliest of each run is known.
pub(super) fn delays(d: &Durable, v: &Volatile) {
    let mut counts: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    let mut count = |QueueId { slot, serial }| *counts.entry((slot, serial)).or_default() += 1;
    d.delays.fresh.values().for_each(|item| count(item.queue));
    let mut all_known = true;
    for (slot, run) in d.delays.runs.iter() {
        assert!(!run.pages.is_empty(), "a run that is through is gone");
        for state in &run.pages {
            page(state, d.shape.page_entries);
            assert!(state.live > 0, "a page that is through has left its run");
            all_known &= state.resident;
            for (i, item) in state.items.iter().enumerate() {
                if state.is_live(state.base + i as u64) {
                    count(item.queue);
                }
            }
        }
        let fronts = v.run_fronts.iter().filter(|(_, run)| *run == slot);
        let fronts: Vec<_> = fronts.map(|(due, _)| Some(*due)).collect();
        assert_eq!(fronts.len(), 1, "each run has one front");
        // A page that has left memory tells the least due time it ever had.
        let exact = run.pages[0].resident;
        let agree = fronts[0] == run.front_due() || !exact && fronts[0] > run.front_due();
        assert!(agree, "a run's front is the earliest it has");
    }
    assert_eq!(v.run_fronts.len(), d.delays.runs.len(), "fronts belong to runs");
    for (slot, queue) in d.queues.iter() {
        let counted = counts.get(&(slot, queue.id.serial)).copied().unwrap_or(0);
        assert!(counted <= queue.delayed, "delayed messages are counted at their queue");
        assert!(!all_known || counted == queue.delayed, "a queue's count of delayed messages");
    }
    let fetching = d.delays.runs.iter().any(|(_, run)| !run.pages[0].resident);
    let waking = v.delays_timer != NONE || fetching || d.delays.is_empty();
    assert!(waking, "somebody wakes the delayed messages");
}

/// Every live message is exactly one of: ahead of the cursor, returned, parked, in flight.
pub(super) fn reading(d: &Durable, v: &Volatile) {
    let mut busy: Vec<u32> = v.busy.clone();
    busy.sort_unstable();
    let listed = (0..v.queues.len() as u32).filter(|slot| v.queues[*slot as usize].listed);
    assert!(busy.into_iter().eq(listed), "a queue is on the list to look at once, and knows it");
    let mut crowded: Vec<u32> = v.crowded.iter().copied().collect();
    crowded.sort_unstable();
    let known = (0..v.queues.len() as u32).filter(|slot| v.queues[*slot as usize].crowded);
    assert!(crowded.into_iter().eq(known), "a crowded queue is on the list once, and knows it");
    for (slot, queue) in d.queues.iter() {
        let side = &v.queues[slot as usize];
        assert_eq!(side.lanes.len(), queue.lanes.len(), "both halves of a queue have its lanes");
        places(slot, queue, side, v);
        let idle = !side.ring.is_empty() && !queue.paused && !side.listed && !side.loading;
        let room =
            v.flights.len() < v.limits.in_flight_max && side.parked < v.limits.parked_max as u64;
        if idle && room {
            let ready = queue.lanes.iter().zip(&side.lanes).any(|(lane, side)| {
                !side.returned.is_empty() || lane.next_live(side.cursor).is_some()
            });
            assert!(!ready, "no message waits while a consumer has credit");
        }
    }
}

fn places(slot: u32, queue: &Queue, side: &QueueSide, v: &Volatile) {
    let mut seen: BTreeSet<(u8, u64)> = BTreeSet::new();
    let mut place = |lane: u8, at: u64, cursor: bool| {
        let (state, reading) = (&queue.lanes[usize::from(lane)], &side.lanes[usize::from(lane)]);
        assert!(state.is_live(at), "whoever is in flight, returned or parked lives");
        assert!(cursor || at < reading.cursor, "the cursor is past what was taken");
        assert!(seen.insert((lane, at)), "a message is in one place");
    };
    let mut parked = 0;
    for (key, lined) in &side.keys {
        let holders = v.flights.iter().filter(|(_, f)| f.queue == slot && f.entry.key == *key);
        assert_eq!(holders.count(), 1, "an ordering key in flight has one delivery");
        for (lane, at, entry) in &lined.parked {
            assert_eq!(entry.key, *key, "a message is parked behind its own key");
            place(*lane, *at, false);
            parked += 1;
        }
    }
    assert_eq!(side.parked, parked, "a queue's count of parked messages");
    let (mut in_flight, mut bytes) = (0, 0);
    for (_, flight) in v.flights.iter().filter(|(_, flight)| flight.queue == slot) {
        place(flight.lane, flight.at, false);
        let keyed = flight.entry.key == 0 || side.keys.contains_key(&flight.entry.key);
        assert!(keyed, "a delivery holds its ordering key");
        in_flight += 1;
        bytes += u64::from(flight.entry.weight);
    }
    assert_eq!((side.in_flight, side.in_flight_bytes), (in_flight, bytes), "deliveries in flight");
    assert!(queue.bytes >= bytes, "what is in flight counts as the queue's");
    for (i, (lane, reading)) in queue.lanes.iter().zip(&side.lanes).enumerate() {
        reading.returned.keys().for_each(|at| place(i as u8, *at, false));
        let mut from = reading.cursor;
        while let Some(at) = lane.next_live(from) {
            place(i as u8, at, true);
            from = at + 1;
        }
    }
    let placed = seen.len() as u64;
    assert_eq!(placed, queue.messages, "every live message is somewhere");
}

/// Consumers are in their queues' lists; the ring has exactly those that may be served.
pub(super) fn consumers(d: &Durable, v: &Volatile) {
    let mut listed = 0;
    for (slot, side) in v.queues.iter().enumerate() {
        let slot = slot as u32;
        let queue = d.queues.get(slot);
        assert!(queue.is_some() || side.consumers.is_empty(), "consumers go with their queue");
        for consumer in &side.consumers {
            let state = &v.consumers[*consumer];
            assert_eq!((state.queue, state.id.slot), (slot, *consumer), "a queue's consumers");
            let in_ring = side.ring.iter().filter(|other| *other == consumer).count();
            assert_eq!(in_ring, usize::from(state.ready), "a consumer is in the ring once or not");
            let stands_by = queue.is_some_and(|queue| queue.config.single_active)
                && side.consumers[0] != *consumer;
            let may = state.in_flight < state.credit && !stands_by;
            assert_eq!(state.ready, may, "the ring has those with credit and their turn");
            let flights = v.flights.iter().filter(|(_, flight)| flight.consumer == state.id);
            let counted = state.no_ack || flights.count() == state.in_flight as usize;
            assert!(counted, "a consumer's count of deliveries");
        }
        assert!(
            side.ring.iter().all(|one| side.consumers.contains(one)),
            "the ring is the queue's"
        );
        listed += side.consumers.len();
    }
    assert_eq!(listed, v.consumers.len(), "every consumer is in its queue's list");
}
