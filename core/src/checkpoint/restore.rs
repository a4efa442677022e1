//! From cells back to the state.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{CellSink, Mark, cells};
use crate::content::{Content, Edits, Kind};
use crate::delay::Run;
use crate::event::{Answered, Granted, get_exchange, get_route};
use crate::index::{Delayed, Item, Page};
use crate::lock::{Grant, Register};
use crate::message::decode_headers;
use crate::queue::{Lane, Queue, QueueConfig, QueueTotals};
use crate::slab::{NONE, Slab};
use crate::topology::{Exchange, Route, Routes};
use crate::window::Window;
use crate::wire::{DecodeError, Reader};
use crate::{Durable, Mode, Name, QueueId, SessionId, Shape};

const STORED: Mark = Mark { changed: false, stored: true };

/// A cell that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreError {
    /// The cell's key.
    pub key: Vec<u8>,
    /// What is wrong with it.
    pub error: DecodeError,
}

impl core::fmt::Display for RestoreError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "checkpoint cell {:02x?}: {}", self.key, self.error)
    }
}

impl core::error::Error for RestoreError {}

impl Durable {
    /// Rebuilds the state from cells in key order. `None` when there are no cells.
    ///
    /// # Errors
    /// When a cell cannot be decoded or does not fit those before it.
    pub fn restore<'a>(
        cells: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        seed: u64,
    ) -> Result<Option<Self>, RestoreError> {
        let mut state: Option<Self> = None;
        for (key, value) in cells {
            let mut from = Reader::new(value);
            let done = match &mut state {
                None => globals(key, &mut from, seed).map(|new| state = Some(new)),
                Some(state) => state.restore_cell(key, &mut from),
            };
            done.and_then(|()| from.end("cell"))
                .map_err(|error| RestoreError { key: key.to_vec(), error })?;
        }
        if let Some(state) = &mut state {
            state.resident = state.count_resident();
            state.messages = state.count_messages();
            state.list_registers();
        }
        Ok(state)
    }

    fn restore_cell(&mut self, key: &[u8], f: &mut Reader<'_>) -> Result<(), DecodeError> {
        let mut k = Reader::new(key);
        match k.u8("cell kind")? {
            cells::EXCHANGE => {
                let exchange = Exchange {
                    name: name(f)?,
                    config: get_exchange(f)?,
                    routes: Default::default(),
                    bindings: 0,
                    mark: STORED,
                };
                self.insert_exchange(free(&self.exchanges, slot(&mut k)?)?, exchange);
            }
            cells::QUEUE => self.restore_queue(free(&self.queues, slot(&mut k)?)?, f)?,
            cells::ROUTES => self.restore_routes(&mut k, f)?,
            cells::DEDUP => {
                let queue = self.queues.get_mut(slot(&mut k)?).ok_or(misfit("queue of ids"))?;
                restore_chunk(&mut queue.dedup, f, |_| Ok(()))?;
            }
            cells::LANE_PAGE => {
                let (queue, lane) = (slot(&mut k)?, k.u8("lane")?);
                let page = Page::decode(position(&mut k)?, f)?;
                let queue = self.queues.get_mut(queue).ok_or(misfit("queue of a page"))?;
                let lane = queue.lanes.get_mut(usize::from(lane)).ok_or(misfit("lane"))?;
                push_page(&mut lane.pages, page)?;
            }
            cells::RUN_PAGE => {
                let run = slot(&mut k)?;
                let page = Page::decode(position(&mut k)?, f)?;
                if self.delays.runs.get(run).is_none() {
                    self.delays.runs.insert_at(run, Run::default());
                }
                push_page(&mut self.delays.runs[run].pages, page)?;
            }
            cells::FRESH => {
                for _ in 0..f.count(3, "delayed messages")? {
                    let serial = f.u64("serial")?;
                    let item = Delayed::decode(f)?;
                    self.delays.fresh.insert((item.due, serial), item);
                }
            }
            cells::LOCK => {
                let slot = free(&self.locks, slot(&mut k)?)?;
                let name = name(f)?;
                self.ensure_lock(slot, name.as_str());
                let lock = &mut self.locks[slot];
                lock.delay_until = f.u64("lock-delay")?;
                lock.kept = f.flag("kept")?;
                lock.mark = STORED;
            }
            cells::GRANT => self.restore_grant(f)?,
            cells::REGISTER => {
                let mut register = Register::new(Arc::from(f.bytes("key")?));
                register.content = Content::Text(Arc::from(f.bytes("value")?));
                (register.version, register.expires) = (f.u64("version")?, f.u64("expiry")?);
                if !f.rest().is_empty() {
                    restore_content(&mut register, f)?;
                }
                register.bytes = register.content.bytes();
                register.mark = STORED;
                self.insert_register(free(&self.registers, slot(&mut k)?)?, register);
            }
            cells::REQUESTS => restore_chunk(&mut self.requests, f, |f| {
                Ok(Answered { kind: f.u8("answer")?, a: f.u64("answer")?, b: f.u64("answer")? })
            })?,
            cells::SPACES => self.restore_spaces(f)?,
            _ => return Err(misfit("cell kind (a newer version wrote it?)")),
        }
        Ok(())
    }

    fn restore_spaces(&mut self, f: &mut Reader<'_>) -> Result<(), DecodeError> {
        for _ in 0..f.count(2, "spaces")? {
            self.spaces.empty(f.u8("space")?, f.u64("version")?);
        }
        Ok(())
    }

    fn restore_queue(&mut self, slot: u32, f: &mut Reader<'_>) -> Result<(), DecodeError> {
        let id = QueueId { slot, serial: f.u32("queue serial")? };
        let name = name(f)?;
        let owner = SessionId(f.u64("owner")?);
        let config = QueueConfig::decode(f.bytes("queue settings")?)?;
        let mut numbers = [0; 12];
        for number in &mut numbers {
            *number = counted(f.u64("queue counter")?)?;
        }
        let [messages, bytes, delayed, paused, bindings, first_id, ..] = numbers;
        let [_, _, _, _, _, _, published, acked, returned, dead, dropped, purged] = numbers;
        let mut dedup = Window::default();
        dedup.start_at(first_id);
        let mut lanes = Vec::new();
        for _ in 0..=config.priority_max {
            let mut lane =
                Lane { tail: f.u64("tail")?, horizon: f.u64("horizon")?, ..Lane::default() };
            for _ in 0..f.count(2, "attempts")? {
                lane.attempts.insert(f.u64("position")?, f.u16("attempts")?);
            }
            lanes.push(lane);
        }
        self.insert_queue(Queue {
            id,
            name,
            config,
            owner,
            lanes,
            messages,
            bytes,
            delayed,
            paused: paused != 0,
            bindings: bindings as u32,
            dedup,
            totals: QueueTotals { published, acked, returned, dead, dropped, purged },
            mark: STORED,
        });
        Ok(())
    }

    fn restore_routes(
        &mut self,
        k: &mut Reader<'_>,
        f: &mut Reader<'_>,
    ) -> Result<(), DecodeError> {
        let exchange = slot(k)?;
        let key = core::str::from_utf8(k.rest()).map_err(|_| misfit("routing key"))?;
        let mut list = Vec::new();
        for _ in 0..f.count(3, "routes")? {
            let to = get_route(f)?;
            let arguments = decode_headers(f.bytes("arguments")?)?;
            list.push(Route { to, arguments, match_all: f.flag("match")? });
        }
        let exchange = self.exchanges.get_mut(exchange).ok_or(misfit("exchange of routes"))?;
        exchange.bindings += list.len();
        exchange.routes.insert(key.into(), Routes { list, mark: STORED });
        Ok(())
    }

    fn restore_grant(&mut self, f: &mut Reader<'_>) -> Result<(), DecodeError> {
        let granted_at = f.u64("grant time")?;
        let entries = f.u32("entries")?;
        let granted = Granted::decode(f)?;
        free(&self.grants, granted.slot)?;
        let mut locks = Vec::new();
        for (lock, mode) in granted.parts.iter() {
            let known = self.locks.get(in_range(lock)?).map_or(0, |lock| lock.taken);
            let fits = match mode {
                Mode::Permits { take, of } => known.checked_add(take).is_some_and(|n| n <= of),
                Mode::Exclusive | Mode::Shared => true,
            };
            if !fits || locks.contains(&lock) {
                return Err(misfit("locks of a grant"));
            }
            locks.push(lock);
        }
        let grant = Grant {
            token: granted.token,
            session: granted.session,
            hold: granted.hold,
            tenure: granted.tenure,
            deadline: granted.deadline,
            granted_at,
            entries,
            lock_delay_us: granted.lock_delay_us,
            label: Self::text(granted.label),
            first_part: NONE,
            mark: STORED,
        };
        self.insert_grant(grant, &granted);
        Ok(())
    }

    pub(crate) fn count_messages(&self) -> u64 {
        self.queues.iter().map(|(_, queue)| queue.messages + queue.delayed).sum()
    }

    pub(crate) fn count_resident(&self) -> usize {
        let lanes = self.queues.iter().flat_map(|(_, queue)| &queue.lanes);
        let runs = self.delays.runs.iter().flat_map(|(_, run)| &run.pages);
        lanes.flat_map(|lane| &lane.pages).map(|page| page.items.len()).sum::<usize>()
            + runs.map(|page| page.items.len()).sum::<usize>()
    }

    /// All cells, whether they changed or not: two states are equal when these are.
    pub fn all_cells(&self) -> alloc::collections::BTreeMap<Vec<u8>, Vec<u8>> {
        struct Collect(alloc::collections::BTreeMap<Vec<u8>, Vec<u8>>);
        impl CellSink for Collect {
            fn put(&mut self, key: &[u8], value: &[u8]) {
                self.0.insert(key.to_vec(), value.to_vec());
            }
            fn delete(&mut self, key: &[u8]) {
                self.0.remove(key);
            }
        }
        let mut sink = Collect(Default::default());
        let mut copy = self.clone();
        copy.changed.sweep = super::Sweep::Idle;
        copy.checkpoint(&mut sink, true, 0);
        while copy.checkpoint(&mut sink, false, usize::MAX) != super::SweepState::Completed {}
        sink.0
    }
}

fn globals(key: &[u8], f: &mut Reader<'_>, seed: u64) -> Result<Durable, DecodeError> {
    if key != [cells::GLOBALS] {
        return Err(misfit("first cell"));
    }
    let mut state = Durable::new(Shape::decode(f)?, seed);
    state.epoch = f.u32("epoch")?;
    state.at = f.u64("time")?;
    state.sequence = f.u64("sequence")?;
    state.wall_offset = f.u64("wall offset")?;
    state.token_high = f.u64("token")?;
    state.queue_serial = f.u32("queue serial")?;
    state.delays.serial = f.u64("delay serial")?;
    state.requests.start_at(counted(f.u64("request serial")?)?);
    Ok(state)
}

fn push_page<T: Item>(pages: &mut VecDeque<Page<T>>, page: Page<T>) -> Result<(), DecodeError> {
    if pages.back().is_some_and(|last| last.base + u64::from(last.count) > page.base) {
        return Err(misfit("page (out of order)"));
    }
    pages.push_back(Page { mark: STORED, ..page });
    Ok(())
}

fn restore_chunk<P>(
    window: &mut Window<P>,
    f: &mut Reader<'_>,
    mut what: impl FnMut(&mut Reader<'_>) -> Result<P, DecodeError>,
) -> Result<(), DecodeError> {
    let first = counted(f.u64("first serial")?)?;
    for i in 0..f.count(17, "remembered ids")? as u64 {
        let (id, at) = (f.u128("id")?, f.u64("time")?);
        let what = what(f)?;
        // Entries forgotten after the chunk was written are still in it.
        if first + i >= window.first() {
            window.push(id, at, what);
        }
    }
    window.chunk_saved = window.end() / crate::window::CHUNK;
    Ok(())
}

fn misfit(what: &'static str) -> DecodeError {
    DecodeError { what, offset: 0 }
}

fn name(from: &mut Reader<'_>) -> Result<Name, DecodeError> {
    Name::new(from.text("name")?).map_err(|_| misfit("name"))
}

/// Slots are dense, and a cell has a checksum: a slot beyond this is none. A fuzzer knows no
/// checksums, and must not spend its memory on slots.
const SLOTS_MAX: u32 = if cfg!(fuzzing) { 1 << 12 } else { 1 << 30 };

/// Positions and serial numbers beyond this are none either; so sums of them do not overflow.
const NUMBER_MAX: u64 = 1 << 60;

fn in_range(slot: u32) -> Result<u32, DecodeError> {
    if slot < SLOTS_MAX { Ok(slot) } else { Err(misfit("slot")) }
}

/// A slot for a new object.
fn free<T>(slab: &Slab<T>, slot: u32) -> Result<u32, DecodeError> {
    if slab.get(in_range(slot)?).is_none() { Ok(slot) } else { Err(misfit("slot (taken)")) }
}

fn counted(number: u64) -> Result<u64, DecodeError> {
    if number < NUMBER_MAX { Ok(number) } else { Err(misfit("number")) }
}

fn slot(key: &mut Reader<'_>) -> Result<u32, DecodeError> {
    let bytes = key.take(4, "slot")?;
    in_range(u32::from_be_bytes(bytes.try_into().expect("four bytes")))
}

fn position(key: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let bytes = key.take(8, "position")?;
    counted(u64::from_be_bytes(bytes.try_into().expect("eight bytes")))
}

/// The rest of a register that is no plain text.
fn restore_content(register: &mut Register, f: &mut Reader<'_>) -> Result<(), DecodeError> {
    (register.claim, register.since) = (f.u64("claim")?, f.u64("claimed since")?);
    let kind = Kind::from_u8(f.u8("kind")?).ok_or(misfit("kind of content"))?;
    let mut content = Content::empty(kind);
    let mut good = true;
    Edits::decode(f)?.each(|edit| {
        good = good && content.fits(edit);
        if good {
            content.apply(edit);
        }
    });
    register.content = content;
    if good { Ok(()) } else { Err(misfit("content")) }
}
