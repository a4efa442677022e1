//! Cells: the encodings of keys and values. A file format, like events: append only.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{CellKey, CellSink};
use crate::content::Edits;
use crate::event::{Granted, List, Names, put_exchange, put_route};
use crate::index::{Item, ListId};
use crate::message::encode_headers;
use crate::window::{CHUNK, Window};
use crate::wire;
use crate::{Durable, Name};

pub(super) const GLOBALS: u8 = 0;
pub(super) const EXCHANGE: u8 = 1;
pub(super) const QUEUE: u8 = 2;
pub(super) const ROUTES: u8 = 3;
pub(super) const DEDUP: u8 = 4;
pub(super) const LANE_PAGE: u8 = 5;
pub(super) const RUN_PAGE: u8 = 6;
pub(super) const FRESH: u8 = 7;
pub(super) const LOCK: u8 = 8;
pub(super) const GRANT: u8 = 9;
pub(super) const REGISTER: u8 = 10;
pub(super) const REQUESTS: u8 = 11;
pub(super) const SPACES: u8 = 12;

impl CellKey {
    /// Kinds first, then numbers big endian, so that byte order is the order of restoring.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(16);
        let slot = |key: &mut Vec<u8>, kind: u8, slot: u32| {
            key.push(kind);
            key.extend_from_slice(&slot.to_be_bytes());
        };
        match self {
            Self::Exchange(n) => slot(&mut key, EXCHANGE, *n),
            Self::Routes(n, text) => {
                slot(&mut key, ROUTES, *n);
                key.extend_from_slice(text.as_bytes());
            }
            Self::Queue(n) => slot(&mut key, QUEUE, *n),
            Self::Dedup(n, chunk) => {
                slot(&mut key, DEDUP, *n);
                key.extend_from_slice(&chunk.to_be_bytes());
            }
            Self::Page(ListId::Lane(n, lane), base) => {
                slot(&mut key, LANE_PAGE, *n);
                key.push(*lane);
                key.extend_from_slice(&base.to_be_bytes());
            }
            Self::Page(ListId::Run(n), base) => {
                slot(&mut key, RUN_PAGE, *n);
                key.extend_from_slice(&base.to_be_bytes());
            }
            Self::Lock(n) => slot(&mut key, LOCK, *n),
            Self::Grant(n) => slot(&mut key, GRANT, *n),
            Self::Register(n) => slot(&mut key, REGISTER, *n),
            Self::Requests(chunk) => {
                key.push(REQUESTS);
                key.extend_from_slice(&chunk.to_be_bytes());
            }
        }
        key
    }
}

impl Durable {
    pub(super) fn put_if_changed(
        &mut self,
        key: &CellKey,
        sink: &mut dyn CellSink,
        scratch: &mut Vec<u8>,
    ) {
        let changed = match key {
            CellKey::Exchange(n) => self.exchanges.get(*n).map(|x| x.mark),
            CellKey::Routes(n, text) => {
                self.exchanges.get(*n).and_then(|x| x.routes.get(text)).map(|r| r.mark)
            }
            CellKey::Queue(n) => self.queues.get(*n).map(|x| x.mark),
            CellKey::Page(list, base) => self.page_mark(*list, *base),
            CellKey::Lock(n) => self.locks.get(*n).map(|x| x.mark),
            CellKey::Grant(n) => self.grants.get(*n).map(|x| x.mark),
            CellKey::Register(n) => self.registers.get(*n).map(|x| x.mark),
            CellKey::Dedup(..) | CellKey::Requests(_) => None,
        };
        if !changed.is_some_and(|mark| mark.changed) {
            return;
        }
        match key {
            CellKey::Exchange(n) => self.put_exchange(*n, sink, scratch),
            CellKey::Routes(n, text) => self.put_routes(*n, text, sink, scratch),
            CellKey::Queue(n) => self.put_queue(*n, sink, scratch),
            CellKey::Page(list, base) => self.put_page(*list, *base, sink, scratch),
            CellKey::Lock(n) => self.put_lock(*n, sink, scratch),
            CellKey::Grant(n) => self.put_grant(*n, sink, scratch),
            CellKey::Register(n) => self.put_register(*n, sink, scratch),
            CellKey::Dedup(..) | CellKey::Requests(_) => {}
        }
    }

    fn page_mark(&self, list: ListId, base: u64) -> Option<super::Mark> {
        match list {
            ListId::Lane(n, lane) => {
                let pages = &self.queues.get(n)?.lanes.get(usize::from(lane))?.pages;
                let i = pages.partition_point(|page| page.base < base);
                pages.get(i).filter(|page| page.base == base).map(|page| page.mark)
            }
            ListId::Run(n) => {
                let pages = &self.delays.runs.get(n)?.pages;
                let i = pages.partition_point(|page| page.base < base);
                pages.get(i).filter(|page| page.base == base).map(|page| page.mark)
            }
        }
    }

    pub(super) fn put_globals(&mut self, sink: &mut dyn CellSink, scratch: &mut Vec<u8>) {
        scratch.clear();
        self.shape.encode(scratch);
        for number in [
            u64::from(self.epoch),
            self.at,
            self.sequence,
            self.wall_offset,
            self.token_high,
            u64::from(self.queue_serial),
            self.delays.serial,
            self.requests.first(),
        ] {
            wire::put_u64(scratch, number);
        }
        sink.put(&[GLOBALS], scratch);
        self.put_spaces(sink, scratch);
        if core::mem::take(&mut self.delays.fresh_changed) {
            self.put_fresh(sink, scratch);
        }
    }

    /// Which versions are gone; once a space was emptied.
    fn put_spaces(&self, sink: &mut dyn CellSink, scratch: &mut Vec<u8>) {
        let emptied = self.spaces.emptied().count();
        if emptied == 0 {
            return;
        }
        scratch.clear();
        wire::put_u64(scratch, emptied as u64);
        for (space, gone) in self.spaces.emptied() {
            scratch.push(space);
            wire::put_u64(scratch, gone);
        }
        sink.put(&[SPACES], scratch);
    }

    fn put_fresh(&mut self, sink: &mut dyn CellSink, scratch: &mut Vec<u8>) {
        scratch.clear();
        wire::put_u64(scratch, self.delays.fresh.len() as u64);
        for ((_, serial), item) in &self.delays.fresh {
            wire::put_u64(scratch, *serial);
            item.encode(scratch);
        }
        sink.put(&[FRESH], scratch);
    }

    pub(super) fn put_exchange(&mut self, n: u32, sink: &mut dyn CellSink, scratch: &mut Vec<u8>) {
        let exchange = &mut self.exchanges[n];
        exchange.mark.save();
        scratch.clear();
        wire::put_bytes(scratch, exchange.name.as_bytes());
        put_exchange(scratch, exchange.config);
        sink.put(&CellKey::Exchange(n).encode(), scratch);
    }

    pub(super) fn put_routes(
        &mut self,
        n: u32,
        key: &Arc<str>,
        sink: &mut dyn CellSink,
        scratch: &mut Vec<u8>,
    ) {
        let routes = self.exchanges[n].routes.get_mut(key).expect("looked up before");
        routes.mark.save();
        scratch.clear();
        wire::put_u64(scratch, routes.list.len() as u64);
        for route in &routes.list {
            put_route(scratch, route.to);
            let mut arguments = Vec::new();
            encode_headers(&route.arguments, &mut arguments);
            wire::put_bytes(scratch, &arguments);
            scratch.push(u8::from(route.match_all));
        }
        sink.put(&CellKey::Routes(n, key.clone()).encode(), scratch);
    }

    pub(super) fn put_queue(&mut self, n: u32, sink: &mut dyn CellSink, scratch: &mut Vec<u8>) {
        let queue = &mut self.queues[n];
        queue.mark.save();
        scratch.clear();
        wire::put_u64(scratch, u64::from(queue.id.serial));
        wire::put_bytes(scratch, queue.name.as_bytes());
        wire::put_u64(scratch, queue.owner.0);
        let mut config = Vec::new();
        queue.config.encode(&mut config);
        wire::put_bytes(scratch, &config);
        let totals = queue.totals;
        for number in [
            queue.messages,
            queue.bytes,
            queue.delayed,
            u64::from(queue.paused),
            u64::from(queue.bindings),
            queue.dedup.first(),
            totals.published,
            totals.acked,
            totals.returned,
            totals.dead,
            totals.dropped,
            totals.purged,
        ] {
            wire::put_u64(scratch, number);
        }
        for lane in &queue.lanes {
            wire::put_u64(scratch, lane.tail);
            wire::put_u64(scratch, lane.horizon);
            wire::put_u64(scratch, lane.attempts.len() as u64);
            for (at, attempts) in &lane.attempts {
                wire::put_u64(scratch, *at);
                wire::put_u64(scratch, u64::from(*attempts));
            }
        }
        sink.put(&CellKey::Queue(n).encode(), scratch);
        let chunks = save_window(&mut queue.dedup, |chunk| CellKey::Dedup(n, chunk), sink);
        for chunk in chunks {
            scratch.clear();
            let entries: Vec<_> = self.queues[n].dedup.chunk(chunk).collect();
            wire::put_u64(scratch, (chunk * CHUNK).max(self.queues[n].dedup.first()));
            wire::put_u64(scratch, entries.len() as u64);
            for entry in entries {
                wire::put_u128(scratch, entry.id);
                wire::put_u64(scratch, entry.at);
            }
            sink.put(&CellKey::Dedup(n, chunk).encode(), scratch);
        }
    }

    /// The remembered requests; those of queues go with their queue.
    pub(super) fn put_windows(&mut self, sink: &mut dyn CellSink, scratch: &mut Vec<u8>) {
        for chunk in save_window(&mut self.requests, CellKey::Requests, sink) {
            scratch.clear();
            let entries: Vec<_> = self.requests.chunk(chunk).collect();
            wire::put_u64(scratch, (chunk * CHUNK).max(self.requests.first()));
            wire::put_u64(scratch, entries.len() as u64);
            for entry in entries {
                wire::put_u128(scratch, entry.id);
                wire::put_u64(scratch, entry.at);
                scratch.push(entry.what.kind);
                wire::put_u64(scratch, entry.what.a);
                wire::put_u64(scratch, entry.what.b);
            }
            sink.put(&CellKey::Requests(chunk).encode(), scratch);
        }
    }

    /// Makes the windows and the fresh delays be written whole next time, as a sweep must.
    pub(super) fn rewind_windows(&mut self) {
        self.delays.fresh_changed = true;
        self.requests.rewind();
        let slots: Vec<u32> = self.queues.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.queues[slot].dedup.rewind();
        }
    }

    pub(super) fn put_page(
        &mut self,
        list: ListId,
        base: u64,
        sink: &mut dyn CellSink,
        scratch: &mut Vec<u8>,
    ) {
        scratch.clear();
        match list {
            ListId::Lane(n, lane) => {
                let pages = &mut self.queues[n].lanes[usize::from(lane)].pages;
                let page = crate::evolve::queues::page_at(pages, base);
                if page.count == 0 {
                    // Kept for its room alone; a lane without it is the same lane.
                    return;
                }
                page.mark.save();
                page.encode(scratch);
            }
            ListId::Run(n) => {
                let pages = &mut self.delays.runs[n].pages;
                let page = crate::evolve::queues::page_at(pages, base);
                page.mark.save();
                page.encode(scratch);
            }
        }
        sink.put(&CellKey::Page(list, base).encode(), scratch);
    }

    pub(super) fn put_lock(&mut self, n: u32, sink: &mut dyn CellSink, scratch: &mut Vec<u8>) {
        let lock = &mut self.locks[n];
        lock.mark.save();
        scratch.clear();
        wire::put_bytes(scratch, lock.name.as_bytes());
        wire::put_u64(scratch, lock.delay_until);
        scratch.push(u8::from(lock.kept));
        sink.put(&CellKey::Lock(n).encode(), scratch);
    }

    pub(super) fn put_grant(&mut self, n: u32, sink: &mut dyn CellSink, scratch: &mut Vec<u8>) {
        self.grants[n].mark.save();
        let grant = &self.grants[n];
        let mut parts: Vec<_> = self.parts_of_grant(n).map(|p| (p.lock, p.mode)).collect();
        parts.reverse();
        let names: Vec<Name> =
            parts.iter().map(|(lock, _)| self.locks[*lock].name.clone()).collect();
        scratch.clear();
        wire::put_u64(scratch, grant.granted_at);
        wire::put_u64(scratch, u64::from(grant.entries));
        Granted {
            slot: n,
            token: grant.token,
            session: grant.session,
            hold: grant.hold,
            tenure: grant.tenure,
            deadline: grant.deadline,
            lock_delay_us: grant.lock_delay_us,
            label: grant.label.as_deref(),
            parts: List::Made(&parts),
            names: Names::Made(&names),
        }
        .encode(scratch);
        sink.put(&CellKey::Grant(n).encode(), scratch);
    }

    pub(super) fn put_register(&mut self, n: u32, sink: &mut dyn CellSink, scratch: &mut Vec<u8>) {
        let register = &mut self.registers[n];
        register.mark.save();
        scratch.clear();
        wire::put_bytes(scratch, &register.key);
        let plain = register.content.text().filter(|_| register.claim == 0);
        wire::put_bytes(scratch, plain.map_or(&[], |text| text));
        wire::put_u64(scratch, register.version);
        wire::put_u64(scratch, register.expires);
        if plain.is_none() {
            wire::put_u64(scratch, register.claim);
            wire::put_u64(scratch, register.since);
            scratch.push(register.content.kind() as u8);
            Edits::Made(&register.content.edits()).encode(scratch);
        }
        sink.put(&CellKey::Register(n).encode(), scratch);
    }
}

/// Deletes the chunks that were forgotten and says which ones have to be written.
fn save_window<P>(
    window: &mut Window<P>,
    key: impl Fn(u64) -> CellKey,
    sink: &mut dyn CellSink,
) -> core::ops::Range<u64> {
    let low = window.first() / CHUNK;
    for chunk in window.chunk_low..low {
        sink.delete(&key(chunk).encode());
    }
    window.chunk_low = low;
    let from = window.chunk_saved.max(low);
    let to = window.end().div_ceil(CHUNK);
    window.chunk_saved = window.end() / CHUNK;
    from..to.max(from)
}
