//! Planted bugs. A checker that never objects proves nothing, so each of these worlds is broken on
//! purpose and the verdict must say so.

use std::io;

use leasehold_env::{Blocks, Disk, DiskFile};
use leasehold_simulator::disk::{Crash, SimDisk, SimFile};
use leasehold_simulator::verdict::Violation;
use leasehold_simulator::workload::{Habits, Simulation};

/// A disk that says it has synced and has not.
#[derive(Clone)]
struct Liar<const FILES: bool>(SimDisk);

struct LiarFile<const FILES: bool>(SimFile);

impl<const FILES: bool> Disk for Liar<FILES> {
    type File = LiarFile<FILES>;
    const THREADS: bool = false;

    fn create(&self, name: &str, bytes: u64, blocks: Blocks) -> io::Result<Self::File> {
        self.0.create(name, bytes, blocks).map(LiarFile)
    }
    fn open(&self, name: &str) -> io::Result<Self::File> {
        self.0.open(name).map(LiarFile)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn sync_names(&self) -> io::Result<()> {
        if FILES { self.0.sync_names() } else { Ok(()) }
    }
}

impl<const FILES: bool> DiskFile for LiarFile<FILES> {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(out, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        if FILES { Ok(()) } else { self.0.sync() }
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
}

/// How many of 20 lives are objected to.
fn objections<D: Disk>(
    wrap: fn(SimDisk) -> D,
    life: impl Fn(&mut Simulation<D>) -> Result<(), Violation>,
) -> usize {
    let broken = (0..20).filter(|&seed| {
        let mut simulation = Simulation::on(seed, Habits::default(), wrap);
        simulation.open().and_then(|_| simulation.turns(60)).expect("nothing has failed yet");
        let objection = life(&mut simulation);
        if let Err(objection) = &objection {
            eprintln!("seed {seed}: {objection:.150}");
        }
        objection.is_err()
    });
    broken.count()
}

fn lose_power<D: Disk>(simulation: &mut Simulation<D>) -> Result<(), Violation> {
    simulation.crash(Crash::LoseAll);
    simulation.reopen()
}

#[test]
fn an_honest_disk_is_not_objected_to() {
    assert_eq!(objections(|disk| disk, lose_power), 0);
}

#[test]
fn a_sync_of_files_that_does_nothing_is_noticed() {
    assert!(objections(Liar::<true>, lose_power) >= 18);
}

#[test]
fn a_sync_of_names_that_does_nothing_is_noticed() {
    // What is lost are the segments and checkpoints made since; an early power loss loses all.
    assert!(objections(Liar::<false>, lose_power) >= 18);
}

/// The disk as it was some turns ago comes back, as with a snapshot restored by mistake.
fn set_back(turns: u64, power: bool) -> usize {
    objections(
        |disk| disk,
        |simulation| {
            let before = simulation.disk.crash(Crash::KeepAll, 1);
            simulation.turns(turns)?;
            simulation.die_with(before, power);
            simulation.reopen()?;
            simulation.turns(40).map(|_| ())
        },
    )
}

#[test]
fn a_disk_that_was_set_back_is_noticed() {
    assert_eq!(set_back(40, true), 20);
}

/// The log forgets the end of what was answered, the least that can be forgotten.
#[test]
fn a_log_that_forgets_its_last_turns_is_noticed() {
    // Not every turn leaves something that a client can miss; most do.
    assert!(set_back(4, false) >= 15);
}

/// A message is there twice: the log has one publish more than was asked for, under the same body.
#[test]
fn a_message_that_doubles_is_noticed() {
    use leasehold_core::{Message, Op, Outcome, Publish, Target};
    use leasehold_simulator::verdict::{Standing, body_of};
    let doubled = objections(
        |disk| disk,
        |simulation| {
            let must = |m: &leasehold_simulator::verdict::Message| m.standing() == Standing::Must;
            let messages = simulation.ledger.messages.iter();
            let id = messages.filter(|(_, m)| must(m)).map(|(id, _)| *id).next_back();
            let id = id.expect("some message is there");
            let name = leasehold_core::Name::new("plain").expect("a good name");
            let target = Target::QueueNamed(name);
            let publish = Publish { target, message: Message::new(body_of(id)), mandatory: true };
            let outcome = simulation.ask(Op::Publish(Box::new(publish)))?;
            assert!(matches!(outcome, Outcome::Published { queues: 1, .. }));
            simulation.crash(Crash::KeepAll);
            simulation.reopen()
        },
    );
    assert_eq!(doubled, 20);
}

/// A message vanishes, and a lock is let go, by commands that no client sent.
#[test]
fn what_vanishes_without_being_asked_is_noticed() {
    use leasehold_core::Op;
    let purged = objections(
        |disk| disk,
        |simulation| {
            for queue in ["plain", "ranked", "keyed", "late"] {
                let name = leasehold_core::Name::new(queue).expect("a good name");
                simulation.ask(Op::Purge(name))?;
            }
            simulation.crash(Crash::KeepAll);
            simulation.reopen()
        },
    );
    assert!(purged >= 18, "{purged} purges were noticed");
    let freed = objections(
        |disk| disk,
        |simulation| {
            let books = simulation.ledger.clone();
            for hold in books.holds.values() {
                let name = leasehold_core::Name::new(&hold.wants[0].name).expect("a good name");
                simulation.ask(Op::ForceRelease(name))?;
            }
            // The holders were told; here they did not listen.
            simulation.ledger = books;
            simulation.crash(Crash::KeepAll);
            simulation.reopen()
        },
    );
    assert!(freed >= 10, "{freed} freed locks were noticed");
}

/// Half of what decisions over keys made is taken back, and a claim taken away, by nobody.
#[test]
fn a_torn_decision_and_a_lost_claim_are_noticed() {
    use leasehold_core::{Expect, Op, RegisterTtl, Write};
    let torn = objections(
        |disk| disk,
        |simulation| {
            let (value, expect, ttl, guard) = (None, Expect::Anything, RegisterTtl::Never, None);
            let key = b"\xFF\xFF\x01key-0"[..].into();
            simulation.ask(Op::Write(Box::new(Write { key, value, expect, ttl, guard })))?;
            simulation.crash(Crash::KeepAll);
            simulation.reopen()
        },
    );
    assert!(torn >= 12, "{torn} lost keys were noticed");
    let freed = objections(
        |disk| disk,
        |simulation| {
            let shard = simulation.shard().expect("it is open");
            let registers = shard.core().state().registers().iter();
            let claims = registers.filter(|(_, register)| register.claim != 0);
            let names = claims.map(|(_, register)| String::from_utf8_lossy(&register.key));
            for name in names.map(|name| name.into_owned()).collect::<Vec<_>>() {
                let name = leasehold_core::Name::new(&name).expect("a good name");
                simulation.ask(Op::ForceRelease(name))?;
            }
            simulation.crash(Crash::KeepAll);
            simulation.reopen()
        },
    );
    assert!(freed >= 12, "{freed} lost claims were noticed");
}
