//! The disk fails or fills up while the machine runs.
//!
//! After a failed write or sync nothing more may be confirmed, and the next opening must find a
//! legal state. A full disk is no failure: new things are refused, what is there can be settled to
//! the last message, and when there is room again work goes on.

use std::io::ErrorKind;

use leasehold_core::{
    Acquire, Command, Consume, HoldRef, Limits, Message, Mode, Name, Op, Outcome, Publish, Refusal,
    SessionId, Target, Tenure, Ticket, Verdict, Wait, Wants,
};
use leasehold_node::{Notice, Options, Shard};
use leasehold_simulator::clock::{MS, SECOND, SimClock};
use leasehold_simulator::disk::{Crash, Operation, SimDisk};
use leasehold_simulator::verdict::Lawful;
use leasehold_simulator::workload::{Habits, Simulation, small_options};

/// The `nth` operation of a kind fails, the machine then dies as `mode` says.
fn fail(seed: u64, operation: Operation, nth: u64, mode: Crash) -> Lawful<bool> {
    let mut simulation = Simulation::new(seed, Habits::default());
    simulation.open()?;
    simulation.disk.fail(operation, nth, ErrorKind::Other);
    let went_on = simulation.turns(60)?;
    if !went_on {
        assert!(simulation.stopped().is_some());
        // It stays stopped, whatever the disk does: every answer from here on says so.
        assert!(!simulation.turns(10)?);
    }
    simulation.crash(mode);
    simulation.reopen()?;
    simulation.turns(10)?;
    simulation.compare_with_replay()?;
    Ok(!went_on)
}

#[test]
fn after_a_failed_write_or_sync_nothing_is_confirmed() {
    let mut stopped = 0;
    let modes = [Crash::KeepAll, Crash::LoseAll, Crash::Some, Crash::Torn];
    for operation in [Operation::Write, Operation::Sync, Operation::SyncNames, Operation::Create] {
        for nth in (0..60).chain([80, 110, 150]) {
            let mode = modes[nth as usize % 4];
            let ended = fail(nth / 20, operation, nth, mode);
            let ended = ended.unwrap_or_else(|e| panic!("{operation:?} {nth} {mode:?}: {e}"));
            stopped += u32::from(ended);
        }
    }
    assert!(stopped > 100, "only {stopped} faults were met");
}

#[test]
fn short_writes_are_continued() {
    for seed in 0..10 {
        let mut simulation = Simulation::new(seed, Habits::default());
        simulation.disk.set_short_writes(40);
        let lived = simulation.open().and_then(|_| simulation.turns(100)).and_then(|went_on| {
            assert!(went_on);
            simulation.crash(Crash::Torn);
            simulation.reopen()
        });
        lived.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

/// Random traffic on a disk that keeps filling up and being freed.
#[test]
fn a_full_disk_breaks_no_law() {
    let mut refused = 0;
    for seed in 0..12 {
        let mut simulation =
            Simulation::new(seed, Habits { publish_percent: 60, ..Habits::default() });
        let lived = (|| {
            simulation.open()?;
            for round in 0..4 {
                let used: usize = simulation.disk.files().values().map(Vec::len).sum();
                simulation.disk.set_capacity(used as u64 + simulation.chance.below(300 << 10));
                assert!(
                    simulation.turns(120)?,
                    "a full disk stopped the shard: {:?}",
                    simulation.stopped()
                );
                simulation.disk.set_capacity(u64::MAX);
                assert!(simulation.turns(20)?);
                if round % 2 == 1 {
                    let counters = simulation.shard().expect("it is open").metrics().read();
                    refused += counters.disk_full;
                    simulation.crash(Crash::Some);
                    simulation.reopen()?;
                }
            }
            Ok::<(), leasehold_simulator::verdict::Violation>(())
        })();
        lived.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    assert!(refused > 100, "only {refused} commands met a full disk");
}

/// A client that asks one thing at a time.
struct Asker {
    shard: Shard<SimDisk>,
    clock: SimClock,
    tickets: u64,
    deliveries: Vec<leasehold_core::Receipt>,
}

impl Asker {
    fn ask(&mut self, session: SessionId, op: Op) -> Result<Outcome, Refusal> {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.clock.advance(MS);
        self.shard.begin(&self.clock);
        self.shard.submit(Command { ticket, session, request: None, op });
        self.shard.finish(&self.clock);
        let mut answer = None;
        for (to, notice) in self.shard.take_ready() {
            match notice {
                Notice::Reply(result) if to == ticket => answer = Some(result),
                Notice::Delivery(parts) => self.deliveries.push(parts.0.receipt),
                _ => {}
            }
        }
        answer.expect("an answer in the same turn")
    }

    fn publish(&mut self, bytes: usize) -> Result<Outcome, Refusal> {
        let target = Target::QueueNamed(name("q"));
        let message = Message::new(vec![7; bytes]);
        let publish = Publish { target, message, mandatory: true };
        self.ask(SessionId::NONE, Op::Publish(Box::new(publish)))
    }

    fn acquire(&mut self, session: SessionId, lock: &str) -> Result<Outcome, Refusal> {
        let tenure = Tenure { ttl_us: Some(3600 * SECOND), session: false };
        let acquire = Acquire {
            wants: Wants::One(name(lock), Mode::Exclusive),
            hold: 1,
            reentrant: false,
            tenure,
            wait: Wait::No,
            lock_delay_us: 0,
            label: None,
        };
        self.ask(session, Op::Acquire(Box::new(acquire)))
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a good name")
}

impl Asker {
    /// A client with a session on a new store with the queue `q`.
    fn new(disk: &SimDisk, options: Options) -> (Self, SessionId) {
        let clock = SimClock::new(1);
        let shard = Shard::open(disk.clone(), &clock, 1, options).expect("an empty disk");
        let mut asker = Self { shard, clock, tickets: 0, deliveries: Vec::new() };
        let open = Op::OpenSession { ttl_us: None, resume: None, label: None };
        let Ok(Outcome::Session { id, .. }) = asker.ask(SessionId::NONE, open) else {
            panic!("no session")
        };
        let declare = Op::DeclareQueue(name("q"), Box::default());
        asker.ask(id, declare).expect("there is room");
        (asker, id)
    }

    /// Publishes until the disk is full; says how many were accepted.
    fn fill(&mut self, bytes: usize) -> u32 {
        let mut accepted = 0;
        while self.publish(bytes).is_ok() {
            accepted += 1;
            assert!(accepted < 200_000, "the disk never fills up");
        }
        assert_eq!(self.publish(bytes), Err(Refusal::DiskFull));
        accepted
    }

    /// Consumes and acknowledges one after the other, each in a turn of its own.
    fn settle_all(&mut self, session: SessionId) -> u32 {
        let consume = Consume {
            queue: name("q"),
            credit: 10,
            once: None,
            no_ack: false,
            exclusive: false,
            label: None,
        };
        let consuming = self.ask(session, Op::Consume(Box::new(consume)));
        consuming.expect("who would empty the queue may begin");
        let mut settled = 0;
        while let Some(receipt) = self.deliveries.pop() {
            let done = self.ask(session, Op::Settle(receipt, Verdict::Ack));
            let why = self.shard.stopped();
            assert_eq!(done, Ok(Outcome::Settled(1)), "ack number {settled}: {why:?}");
            settled += 1;
        }
        settled
    }
}

#[test]
fn on_a_full_disk_everything_there_can_be_settled() {
    let disk = SimDisk::new(1);
    let (mut asker, id) = Asker::new(&disk, small_options());
    let mut held = Vec::new();
    for lock in 0..40 {
        let lock = format!("lock-{lock}");
        match asker.acquire(id, &lock) {
            Ok(Outcome::Granted { token, .. }) => held.push((lock, token)),
            other => panic!("{other:?}"),
        }
    }
    disk.set_capacity(6 << 20);
    let accepted = asker.fill(900);
    assert!(accepted > 300, "only {accepted} were accepted");
    assert_eq!(asker.acquire(id, "one-more"), Err(Refusal::DiskFull));
    assert_eq!(asker.shard.stopped(), None);
    for (lock, token) in held {
        let hold = HoldRef { name: name(&lock), token, hold: 1 };
        let released = asker.ask(id, Op::Release(hold));
        assert_eq!(released, Ok(Outcome::Released { entries: 0 }));
    }
    assert_eq!(asker.settle_all(id), accepted);
    disk.set_capacity(u64::MAX);
    asker.publish(900).expect("there is room again");
    assert_eq!(asker.shard.core().state().messages(), 1);
}

/// The messages are so small that settling them, one a turn, takes as much room as they do, and
/// without checkpoints no segment becomes free meanwhile.
#[test]
fn the_room_set_aside_is_enough_for_many_small_messages() {
    let disk = SimDisk::new(1);
    let limits = Limits { segment_bytes: 1 << 20, ..Limits::default() };
    let (checkpoint_bytes, checkpoint_cells) = (u64::MAX, usize::MAX);
    let options = Options { limits, checkpoint_bytes, checkpoint_cells, ..Options::default() };
    let (mut asker, id) = Asker::new(&disk, options);
    disk.set_capacity(14 << 20);
    let accepted = asker.fill(1);
    assert!(accepted > 30_000, "only {accepted} were accepted");
    assert_eq!(asker.settle_all(id), accepted);
}
