//! What is in a store, found out without trusting the shard that runs on it.
//!
//! Two ways, both on a copy of the disk: [`replayed`] folds the journal anew, so its cells can be
//! compared with those of a running shard; [`drained`] opens the copy as any server would and
//! consumes until nothing is left, delayed messages included.

use std::collections::BTreeMap;

use leasehold_core::{
    Command, Consume, Durable, Event, Name, Op, Outcome, SessionId, Stamp, Ticket, Verdict,
};
use leasehold_env::Disk;
use leasehold_journal::{Journal, Options as JournalOptions, ReplayError};
use leasehold_node::{Notice, Options, Received, Shard};

use crate::clock::{SECOND, SimClock};
use crate::disk::{Crash, SimDisk};

/// A message as the audit found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The queue it was in at last.
    pub queue: String,
    /// Its body.
    pub body: Vec<u8>,
    /// The delivery's fencing token.
    pub token: u64,
    /// Whether it was said to have been delivered before.
    pub redelivered: bool,
}

/// The state that the journal on this disk folds to. The disk is copied and left alone.
///
/// # Errors
/// Why it cannot be recovered, as text.
pub fn replayed(disk: &SimDisk, options: &Options) -> Result<Durable, String> {
    let copy = disk.crash(Crash::KeepAll, 0);
    let journal_options =
        JournalOptions { segment_bytes: options.limits.segment_bytes, ..JournalOptions::default() };
    let mut recovery = Journal::open(copy, journal_options).map_err(|e| e.to_string())?;
    let cells = recovery.take_cells();
    let pairs = cells.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
    let restored = Durable::restore(pairs, 7).map_err(|e| e.to_string())?;
    let mut state =
        restored.unwrap_or_else(|| Durable::new(leasehold_core::Shape::of(&options.limits), 7));
    let replay = recovery.replay(|record| {
        let event = Event::decode(record.bytes).map_err(|e| e.to_string())?;
        let stamp = Stamp {
            sequence: record.sequence,
            at: record.time_us,
            position: record.position.0,
            size: record.bytes.len() as u32,
        };
        state.replay(stamp, &event);
        Ok::<(), String>(())
    });
    match replay {
        Ok(_) => Ok(state),
        Err(ReplayError::Open(error)) => Err(error.to_string()),
        Err(ReplayError::Visit { source, .. }) => Err(source),
    }
}

/// The first difference between a running shard's cells and those its journal folds to.
///
/// # Errors
/// The difference, as text.
pub fn same_as_replayed<D: Disk>(
    shard: &Shard<D>,
    disk: &SimDisk,
    options: &Options,
) -> Result<(), String> {
    let (live, folded) = (shard.core().state().all_cells(), replayed(disk, options)?.all_cells());
    same_cells(&live, &folded)
}

/// Compares two sets of cells.
///
/// # Errors
/// The first cell in which they differ.
pub fn same_cells(
    live: &BTreeMap<Vec<u8>, Vec<u8>>,
    folded: &BTreeMap<Vec<u8>, Vec<u8>>,
) -> Result<(), String> {
    let keys = live.keys().chain(folded.keys());
    for key in keys {
        let (a, b) = (live.get(key), folded.get(key));
        if a != b {
            return Err(format!("cell {key:?} is {a:?} in memory and {b:?} after a replay"));
        }
    }
    Ok(())
}

/// Turns without a delivery after which time is moved on, and how often that may be in vain.
const PATIENCE: usize = 4_000;

/// Opens a copy of the disk and consumes everything, waiting for what is delayed.
///
/// # Errors
/// When the copy cannot be opened or messages are left that do not come.
pub fn drained(
    disk: &SimDisk,
    clock: &SimClock,
    options: &Options,
    seed: u64,
) -> Result<Vec<Found>, String> {
    let copy = disk.crash(Crash::KeepAll, seed);
    let clock = clock.fork();
    let shard = Shard::open(copy, &clock, seed, options.clone()).map_err(|e| e.to_string())?;
    Drain { shard, clock, found: Vec::new(), tickets: 1 }.run()
}

struct Drain {
    shard: Shard<SimDisk>,
    clock: SimClock,
    found: Vec<Found>,
    tickets: u64,
}

impl Drain {
    fn run(mut self) -> Result<Vec<Found>, String> {
        let open = Op::OpenSession { ttl_us: None, resume: None, label: None };
        let session = match self.ask(SessionId::NONE, open)? {
            Outcome::Session { id, .. } => id,
            other => return Err(format!("opening a session gave {other:?}")),
        };
        let queues: Vec<(u32, Name)> = {
            let queues = self.shard.core().state().queues();
            queues.iter().map(|(slot, queue)| (slot, queue.name.clone())).collect()
        };
        self.shard.begin(&self.clock);
        for (_, name) in &queues {
            let consume = Consume {
                queue: name.clone(),
                credit: 500,
                once: None,
                no_ack: false,
                exclusive: false,
                label: None,
            };
            self.submit(session, Op::Consume(Box::new(consume)));
        }
        self.shard.finish(&self.clock);
        let mut in_vain = 0;
        loop {
            let came = self.take(session, &queues)?;
            if self.shard.core().state().messages() == 0 {
                return Ok(self.found);
            }
            in_vain = if came > 0 { 0 } else { in_vain + 1 };
            if in_vain > PATIENCE {
                let left = self.shard.core().state().messages();
                return Err(format!("{left} messages are left in the store and do not come"));
            }
            if in_vain > 3 {
                self.clock.advance(SECOND / 2);
            }
        }
    }

    fn submit(&mut self, session: SessionId, op: Op) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.shard.submit(Command { ticket, session, request: None, op });
        ticket
    }

    fn ask(&mut self, session: SessionId, op: Op) -> Result<Outcome, String> {
        self.shard.begin(&self.clock);
        let asked = self.submit(session, op);
        self.shard.finish(&self.clock);
        let notices = self.shard.take_ready();
        let reply = notices.into_iter().find(|(ticket, _)| *ticket == asked);
        match reply {
            Some((_, Notice::Reply(Ok(outcome)))) => Ok(outcome),
            other => Err(format!("the audit was answered {other:?}")),
        }
    }

    /// One turn: takes what came, acknowledges it; says how much it was.
    fn take(&mut self, session: SessionId, queues: &[(u32, Name)]) -> Result<usize, String> {
        let notices = self.shard.take_ready();
        self.shard.begin(&self.clock);
        let before = self.found.len();
        for (_, notice) in notices {
            let delivery = match notice {
                Notice::Delivery(delivery) => Received::from(delivery),
                Notice::Reply(Ok(_)) => continue,
                other => return Err(format!("the audit was told {other:?}")),
            };
            let message = delivery.message().map_err(|e| e.to_string())?;
            let slot = delivery.delivery.queue.slot;
            let name = queues.iter().find(|(known, _)| *known == slot);
            self.found.push(Found {
                queue: name.map_or_else(String::new, |(_, name)| name.as_str().to_owned()),
                body: message.body.to_vec(),
                token: delivery.delivery.receipt.token.0,
                redelivered: delivery.delivery.redelivered,
            });
            self.submit(session, Op::Settle(delivery.delivery.receipt, Verdict::Ack));
        }
        self.shard.finish(&self.clock);
        if let Some(why) = self.shard.stopped() {
            return Err(format!("the audited shard stopped: {why}"));
        }
        if self.shard.metrics().read().damaged_reads > 0 {
            return Err("a message could not be read back".to_owned());
        }
        Ok(self.found.len() - before)
    }
}
