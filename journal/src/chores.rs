//! Slow work beside the owner's loop: zeroing the next segment, writing checkpoints, and syncs that
//! nobody waits for.
//!
//! One thread takes one chore after the other; its results are collected by the owner. Where the
//! disk is simulated the same worker runs inline, so one seed gives one order of operations.
//!
//! The worker opens handles of its own. An error of writing back is reported once per handle: had
//! it shared the owner's, its sync could swallow an error that the owner must see.

use std::collections::VecDeque;
use std::io;
use std::ops::RangeInclusive;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use leasehold_env::{Blocks, Disk, DiskFile};

use crate::checkpoint::{Meta, Sweep, encode_delta};
use crate::directory::{checkpoint_name, segment_name};
use crate::frame::Header;
use crate::journal::Mark;
use crate::segments::Spare;

/// A delta on its way to its file.
#[derive(Debug)]
pub(crate) struct Delta {
    pub header: Header,
    pub sweep: Sweep,
    /// True: the first of a new generation.
    pub opens_file: bool,
    pub generation: u64,
    pub ops: Vec<u8>,
    /// Deltas must be written in this order.
    pub index: u64,
    /// It found no room before; this is another try.
    pub retry: bool,
    /// The segments that must be synced first: the delta must not outlive the records it covers.
    pub dirty: RangeInclusive<u64>,
}

/// Something to be done.
#[derive(Debug)]
pub(crate) enum Chore {
    Spare {
        name: String,
        bytes: u64,
    },
    Delta(Box<Delta>),
    /// Everything before the mark is written; these segments hold it.
    Sync {
        mark: Mark,
        dirty: RangeInclusive<u64>,
    },
}

/// A failed step: what was being done, to which file, and what the system said.
#[derive(Debug)]
pub(crate) struct Failure {
    pub step: &'static str,
    pub file: String,
    pub source: io::Error,
}

impl Failure {
    /// There was no room for more. A sync that says so is another matter: what it was to make
    /// durable is lost.
    pub fn is_full(&self) -> bool {
        self.source.kind() == io::ErrorKind::StorageFull && matches!(self.step, "create" | "write")
    }
}

/// Something that was done.
#[derive(Debug)]
pub(crate) enum Done<F> {
    Spare(Result<Spare<F>, Failure>),
    /// Durable; the length of the generation's file.
    Delta {
        delta: Box<Delta>,
        file_bytes: u64,
    },
    /// There was no room; the file is as it was before.
    DeltaFull(Box<Delta>),
    DeltaFailed(Failure),
    /// Everything before the mark is durable.
    Synced(Result<Mark, Failure>),
}

/// Does the chores, wherever it runs.
struct Worker<D: Disk> {
    disk: D,
    file: Option<D::File>,
    /// Generations that a completed sweep makes useless.
    chain: Vec<u64>,
    file_bytes: u64,
    buffer: Vec<u8>,
    /// A delta found no room, so none may pass it until it is tried again.
    full: bool,
}

impl<D: Disk> Worker<D> {
    fn run(&mut self, chore: Chore) -> Done<D::File> {
        match chore {
            Chore::Spare { name, bytes } => {
                Done::Spare(match self.disk.create(&name, bytes, Blocks::Written) {
                    Ok(file) => Ok(Spare { name, file, written: true }),
                    Err(source) => Err(Failure { step: "create", file: name, source }),
                })
            }
            Chore::Delta(delta) if self.full && !delta.retry => Done::DeltaFull(delta),
            Chore::Delta(delta) => match self.write_delta(&delta) {
                Ok(()) => Done::Delta { delta, file_bytes: self.file_bytes },
                Err(failure) if failure.is_full() => match self.undo(&delta) {
                    Ok(()) => Done::DeltaFull(delta),
                    Err(failure) => Done::DeltaFailed(failure),
                },
                Err(failure) => Done::DeltaFailed(failure),
            },
            Chore::Sync { mark, dirty } => {
                let names = |()| self.sync_names(".");
                Done::Synced(self.sync_segments(dirty).and_then(names).map(|()| mark))
            }
        }
    }

    fn sync_segments(&self, dirty: RangeInclusive<u64>) -> Result<(), Failure> {
        for number in dirty {
            let name = segment_name(number);
            let synced = self.disk.open(&name).and_then(|file| file.sync());
            match synced {
                // Retired since, which takes a durable checkpoint that covers it; or the end of
                // the last frame is the start of a segment that does not exist yet.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(Failure { step: "sync", file: name, source }),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn sync_names(&self, beside: &str) -> Result<(), Failure> {
        let failed =
            |source| Failure { step: "sync the names beside", file: beside.to_owned(), source };
        self.disk.sync_names().map_err(failed)
    }

    fn write_delta(&mut self, delta: &Delta) -> Result<(), Failure> {
        self.full = false;
        self.sync_segments(delta.dirty.clone())?;
        let name = checkpoint_name(delta.generation);
        let failed = |step| {
            let file = name.clone();
            move |source| Failure { step, file, source }
        };
        if delta.opens_file {
            let file = self.disk.create(&name, 0, Blocks::Reserved).map_err(failed("create"))?;
            self.file = Some(file);
            self.file_bytes = 0;
        }
        self.sync_names(&name)?;
        let previous = self.chain.iter().rev().find(|known| **known != delta.generation);
        let previous = previous.copied().unwrap_or(0);
        let meta = Meta { generation: delta.generation, previous, sweep: delta.sweep };
        let header = Header { position: self.file_bytes, ..delta.header };
        encode_delta(header, meta, &delta.ops, &mut self.buffer);
        let file = self.file.as_ref().expect("the first delta after an open opens a file");
        file.write_all_at(&self.buffer, self.file_bytes).map_err(failed("write"))?;
        file.sync().map_err(failed("sync"))?;
        self.file_bytes += self.buffer.len() as u64;
        if delta.opens_file {
            self.chain.push(delta.generation);
        }
        if delta.sweep.completes() {
            self.drop_older(delta.generation)?;
        }
        Ok(())
    }

    /// Names that come back after a crash do no harm, so they are not synced here.
    fn drop_older(&mut self, generation: u64) -> Result<(), Failure> {
        while let Some(at) = self.chain.iter().position(|known| *known != generation) {
            let name = checkpoint_name(self.chain.remove(at));
            let removed = self.disk.remove(&name);
            removed.map_err(|source| Failure { step: "remove", file: name, source })?;
        }
        Ok(())
    }

    /// Cuts off what a write without room left behind.
    fn undo(&mut self, delta: &Delta) -> Result<(), Failure> {
        self.full = true;
        let name = checkpoint_name(delta.generation);
        let failed = |step| {
            let file = name.clone();
            move |source| Failure { step, file, source }
        };
        if !delta.opens_file {
            let file = self.file.as_ref().expect("the first delta after an open opens a file");
            return file.set_len(self.file_bytes).and_then(|()| file.sync()).map_err(failed("cut"));
        }
        match self.disk.remove(&name) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove")(source))
            }
            _ => Ok(()),
        }
    }
}

/// The chores of one journal.
pub(crate) struct Chores<D: Disk> {
    mode: Mode<D>,
    in_flight: usize,
}

enum Mode<D: Disk> {
    Inline { worker: Worker<D>, done: VecDeque<Done<D::File>> },
    Thread { chores: Option<Sender<Chore>>, done: Receiver<Done<D::File>>, handle: Handle },
}

type Handle = Option<JoinHandle<()>>;

impl<D: Disk> Chores<D> {
    /// `chain` are the checkpoint generations that exist.
    pub fn start(disk: D, chain: Vec<u64>) -> io::Result<Self> {
        let mut worker =
            Worker { disk, file: None, chain, file_bytes: 0, buffer: Vec::new(), full: false };
        if !D::THREADS {
            return Ok(Self { mode: Mode::Inline { worker, done: VecDeque::new() }, in_flight: 0 });
        }
        let (chores, inbox) = channel();
        let (outbox, done) = channel();
        let body = move || {
            for chore in inbox {
                if outbox.send(worker.run(chore)).is_err() {
                    break;
                }
            }
        };
        let handle = std::thread::Builder::new().name("journal-chores".to_owned()).spawn(body)?;
        let mode = Mode::Thread { chores: Some(chores), done, handle: Some(handle) };
        Ok(Self { mode, in_flight: 0 })
    }

    /// Chores whose results have not been collected.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub fn submit(&mut self, chore: Chore) {
        self.in_flight += 1;
        match &mut self.mode {
            Mode::Inline { worker, done } => done.push_back(worker.run(chore)),
            // A thread that is gone shows when its results are collected.
            Mode::Thread { chores, .. } => {
                let _ = chores.as_ref().map(|chores| chores.send(chore));
            }
        }
    }

    /// A finished chore, if there is one. With `wait`, waits for one if any is in flight.
    ///
    /// # Errors
    /// If the thread is gone.
    pub fn collect(&mut self, wait: bool) -> Result<Option<Done<D::File>>, Failure> {
        if self.in_flight == 0 {
            return Ok(None);
        }
        let result = match &mut self.mode {
            Mode::Inline { done, .. } => Ok(done.pop_front()),
            Mode::Thread { done, .. } if wait => done.recv().map(Some).map_err(|_| ()),
            Mode::Thread { done, .. } => match done.try_recv() {
                Ok(done) => Ok(Some(done)),
                Err(TryRecvError::Empty) => Ok(None),
                Err(TryRecvError::Disconnected) => Err(()),
            },
        };
        match result {
            Ok(Some(done)) => {
                self.in_flight -= 1;
                Ok(Some(done))
            }
            Ok(None) => Ok(None),
            Err(()) => Err(Failure {
                step: "run",
                file: "the journal's chores".to_owned(),
                source: io::Error::other("their thread ended early"),
            }),
        }
    }
}

/// Waits for the thread: until it is gone its handle on the disk keeps the directory locked.
impl<D: Disk> Drop for Chores<D> {
    fn drop(&mut self) {
        if let Mode::Thread { chores, handle, .. } = &mut self.mode {
            drop(chores.take());
            if let Some(handle) = handle.take() {
                let _ = handle.join();
            }
        }
    }
}
