//! Checkpoints: the durable half as cells, written as they change.
//!
//! Every durable object is a *cell*: a key and a value. Objects note when they are touched, so a
//! checkpoint writes what changed since the last one and costs no more than that. Beside the
//! changes each checkpoint carries on a *sweep* through everything, a bounded number of cells at a
//! time; when it has come round, older checkpoint files hold nothing that the newer one lacks. A
//! full snapshot at once was rejected because it stops the writer for as long as the state is
//! large.

mod cells;
mod restore;

use alloc::sync::Arc;
use alloc::vec::Vec;

pub use restore::RestoreError;

use crate::Durable;
use crate::index::ListId;
use crate::window::{CHUNK, Window};

/// Whether an object differs from its cell, and whether it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    changed: bool,
    stored: bool,
}

impl Mark {
    /// Notes a change; true if it is the first since the last checkpoint.
    #[inline]
    pub(crate) fn touch(&mut self) -> bool {
        !core::mem::replace(&mut self.changed, true)
    }

    fn save(&mut self) {
        *self = Self { changed: false, stored: true };
    }
}

/// Names a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CellKey {
    Exchange(u32),
    Routes(u32, Arc<str>),
    Queue(u32),
    Dedup(u32, u64),
    Page(ListId, u64),
    Lock(u32),
    Grant(u32),
    Register(u32),
    Requests(u64),
}

/// What a checkpoint has to write.
#[derive(Debug, Clone, Default)]
pub struct Changed {
    touched: Vec<CellKey>,
    /// Slots of registers among the touched. Locks come and go, in the same slots again and again:
    /// a slot is there once, or the list would be as long as there were locks.
    listed: Vec<bool>,
    gone: Vec<CellKey>,
    sweep: Sweep,
}

impl Changed {
    #[inline]
    pub(crate) fn touched(&mut self, key: CellKey) {
        if !matches!(key, CellKey::Register(slot) if core::mem::replace(self.listed(slot), true)) {
            self.touched.push(key);
        }
    }

    fn listed(&mut self, slot: u32) -> &mut bool {
        let place = slot as usize;
        if self.listed.len() <= place {
            self.listed.resize(place + 1, false);
        }
        &mut self.listed[place]
    }

    #[inline]
    pub(crate) fn removed(&mut self, mark: Mark, key: CellKey) {
        if mark.stored {
            self.gone.push(key);
        }
    }

    pub(crate) fn forget_window<P>(&mut self, kind: CellKey, window: &Window<P>) {
        let CellKey::Dedup(slot, _) = kind else { return };
        if !window.is_empty() || window.chunk_saved > 0 {
            let chunks = window.chunk_low..=window.end() / CHUNK;
            self.gone.extend(chunks.map(|chunk| CellKey::Dedup(slot, chunk)));
        }
    }

    pub(crate) fn touched_keys(&self) -> impl Iterator<Item = &CellKey> {
        self.touched.iter()
    }

    /// How many cells the next checkpoint writes at least.
    pub fn len(&self) -> usize {
        self.touched.len() + self.gone.len()
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where the sweep is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Sweep {
    #[default]
    Idle,
    Exchanges(u32),
    Queues(u32),
    /// The next page at or after (queue, lane, base).
    Lanes(u32, u8, u64),
    Runs(u32, u64),
    Locks(u32),
    Grants(u32),
    Registers(u32),
}

/// Receives the cells of a checkpoint.
pub trait CellSink {
    /// This cell now has this value.
    fn put(&mut self, key: &[u8], value: &[u8]);
    /// This cell is gone.
    fn delete(&mut self, key: &[u8]);
}

/// What a checkpoint did to the sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepState {
    /// It began.
    Begun,
    /// It goes on, or none is under way.
    Continued,
    /// Everything has been written since it began.
    Completed,
}

impl Durable {
    /// How many cells the next checkpoint writes at least.
    pub fn changed_cells(&self) -> usize {
        self.changed.len()
    }

    /// Whether a sweep is under way.
    pub fn is_sweeping(&self) -> bool {
        self.changed.sweep != Sweep::Idle
    }

    /// Writes what changed since the last checkpoint, and up to `sweep_max` cells of a sweep;
    /// `begin` starts a new sweep if none is under way. With [`SweepState::Begun`], a sweep that is
    /// complete at once is reported as complete by the next call.
    pub fn checkpoint(
        &mut self,
        sink: &mut dyn CellSink,
        begin: bool,
        sweep_max: usize,
    ) -> SweepState {
        let mut scratch = Vec::new();
        for key in core::mem::take(&mut self.changed.gone) {
            sink.delete(&key.encode());
        }
        self.put_globals(sink, &mut scratch);
        let mut touched = core::mem::take(&mut self.changed.touched);
        for key in touched.drain(..) {
            self.put_if_changed(&key, sink, &mut scratch);
            if let CellKey::Register(slot) = key {
                *self.changed.listed(slot) = false;
            }
        }
        self.changed.touched = touched;
        self.put_windows(sink, &mut scratch);
        if self.changed.sweep == Sweep::Idle {
            if !begin {
                return SweepState::Continued;
            }
            self.changed.sweep = Sweep::Exchanges(0);
            self.rewind_windows();
            return SweepState::Begun;
        }
        for _ in 0..sweep_max {
            match self.sweep_step(sink, &mut scratch) {
                Some(next) => self.changed.sweep = next,
                None => {
                    self.changed.sweep = Sweep::Idle;
                    return SweepState::Completed;
                }
            }
        }
        SweepState::Continued
    }

    /// Puts the cell at the sweep's place, if there is one, and says where to go on.
    fn sweep_step(&mut self, sink: &mut dyn CellSink, scratch: &mut Vec<u8>) -> Option<Sweep> {
        use Sweep::*;
        match self.changed.sweep {
            Idle => None,
            Exchanges(from) => Some(match self.exchanges.seek(from) {
                Some(slot) => {
                    self.put_exchange(slot, sink, scratch);
                    let keys: Vec<_> = self.exchanges[slot].routes.keys().cloned().collect();
                    keys.iter().for_each(|key| self.put_routes(slot, key, sink, scratch));
                    Exchanges(slot + 1)
                }
                None => Queues(0),
            }),
            Queues(from) => Some(match self.queues.seek(from) {
                Some(slot) => {
                    self.put_queue(slot, sink, scratch);
                    Queues(slot + 1)
                }
                None => Lanes(0, 0, 0),
            }),
            Lanes(slot, lane, base) => Some(self.sweep_lane(slot, lane, base, sink, scratch)),
            Runs(slot, base) => Some(self.sweep_run(slot, base, sink, scratch)),
            Locks(from) => Some(match self.locks.seek(from) {
                Some(slot) => {
                    self.put_lock(slot, sink, scratch);
                    Locks(slot + 1)
                }
                None => Grants(0),
            }),
            Grants(from) => Some(match self.grants.seek(from) {
                Some(slot) => {
                    self.put_grant(slot, sink, scratch);
                    Grants(slot + 1)
                }
                None => Registers(0),
            }),
            Registers(from) => self.registers.seek(from).map(|slot| {
                self.put_register(slot, sink, scratch);
                Registers(slot + 1)
            }),
        }
    }

    fn sweep_lane(
        &mut self,
        slot: u32,
        lane: u8,
        base: u64,
        sink: &mut dyn CellSink,
        scratch: &mut Vec<u8>,
    ) -> Sweep {
        let Some(found) = self.queues.seek(slot) else { return Sweep::Runs(0, 0) };
        if found != slot {
            return Sweep::Lanes(found, 0, 0);
        }
        let Some(state) = self.queues[slot].lanes.get(usize::from(lane)) else {
            return Sweep::Lanes(slot + 1, 0, 0);
        };
        let i = state.pages.partition_point(|page| page.base < base);
        // A page without items is as good as none, and has no cell.
        match state.pages.get(i).filter(|page| page.count > 0).map(|page| page.base) {
            None => Sweep::Lanes(slot, lane + 1, 0),
            Some(base) => {
                self.put_page(ListId::Lane(slot, lane), base, sink, scratch);
                Sweep::Lanes(slot, lane, base + 1)
            }
        }
    }

    fn sweep_run(
        &mut self,
        slot: u32,
        base: u64,
        sink: &mut dyn CellSink,
        scratch: &mut Vec<u8>,
    ) -> Sweep {
        let Some(found) = self.delays.runs.seek(slot) else { return Sweep::Locks(0) };
        if found != slot {
            return Sweep::Runs(found, 0);
        }
        let pages = &self.delays.runs[slot].pages;
        let i = pages.partition_point(|page| page.base < base);
        match pages.get(i).map(|page| page.base) {
            None => Sweep::Runs(slot + 1, 0),
            Some(base) => {
                self.put_page(ListId::Run(slot), base, sink, scratch);
                Sweep::Runs(slot, base + 1)
            }
        }
    }
}
