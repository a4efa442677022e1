//! Random scripts equal a naive model: a vector of records and a map of cells.

mod support;

use leasehold_simulator::disk::{Chance, Crash, SimDisk};
use proptest::prelude::*;
use support::{Failure, Model, append_group, check_reads, checkpoint, recover, retire};

#[derive(Clone, Copy, Debug)]
enum Step {
    Append,
    Write,
    /// Of what was written; more may have been appended.
    Sync,
    /// The same by somebody else.
    SyncBeside,
    Flush,
    Checkpoint,
    Retire,
    Headroom(u8),
    Read,
    Close,
    /// The process dies, the machine does not.
    Kill,
    Crash(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => Just(Step::Append),
        4 => Just(Step::Write),
        2 => Just(Step::Sync),
        2 => Just(Step::SyncBeside),
        4 => Just(Step::Flush),
        3 => Just(Step::Checkpoint),
        2 => Just(Step::Retire),
        1 => (0..4_u8).prop_map(Step::Headroom),
        1 => Just(Step::Read),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        2 => (0..4_u8).prop_map(Step::Crash),
    ]
}

fn run(seed: u64, steps: &[Step]) -> Result<(), Failure> {
    let mut disk = SimDisk::new(seed);
    let mut chance = Chance::new(seed);
    let mut model = Model::default();
    let mut journal = recover(&disk, &mut model)?;
    for (turn, step) in steps.iter().enumerate() {
        let told = |error: leasehold_journal::JournalError| Failure::Broken(error.to_string());
        journal.begin_turn(turn as u64 / 3);
        match *step {
            Step::Append => append_group(&mut journal, &mut model, &mut chance, None),
            Step::Write => journal.write(),
            Step::Sync => journal.sync(),
            Step::SyncBeside => journal.sync_beside().map(|_| ()),
            Step::Flush => journal.write().and_then(|()| journal.sync()),
            Step::Checkpoint => checkpoint(&mut journal, &mut model, &mut chance),
            Step::Retire => retire(&mut journal, &mut model, &mut chance),
            Step::Headroom(segments) => {
                let bytes = u64::from(segments) * support::SEGMENT_BYTES;
                let ensured = journal.ensure_headroom(bytes);
                assert!(journal.headroom() >= bytes);
                ensured
            }
            Step::Read => return_reads(&mut journal, &model)?,
            Step::Close => {
                let last = journal.last_sequence();
                journal.close().map_err(told)?;
                model.durable = last;
                let lost = disk.crash(Crash::LoseAll, chance.next_u64());
                disk = lost;
                journal = recover(&disk, &mut model)?;
                assert_eq!(journal.last_sequence(), last);
                Ok(())
            }
            Step::Kill => {
                // What was written is still there, and from here on it counts as durable.
                model.durable = journal.written_sequence();
                drop(journal);
                journal = recover(&disk, &mut model)?;
                Ok(())
            }
            Step::Crash(mode) => {
                model.durable = model.durable.max(journal.durable_sequence());
                let written = journal.written_sequence();
                let mode =
                    [Crash::KeepAll, Crash::LoseAll, Crash::Some, Crash::Torn][usize::from(mode)];
                if mode == Crash::KeepAll {
                    model.durable = written;
                }
                let survivor = disk.crash(mode, chance.next_u64());
                disk = survivor;
                journal = recover(&disk, &mut model)?;
                Ok(())
            }
        }
        .map_err(told)?;
        assert_eq!(journal.last_sequence(), model.records.len() as u64);
    }
    check_reads(&mut journal, &model)
}

fn return_reads(
    journal: &mut leasehold_journal::Journal<SimDisk>,
    model: &Model,
) -> Result<Result<(), leasehold_journal::JournalError>, Failure> {
    check_reads(journal, model).map(Ok)
}

fn cases() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn scripts_equal_the_model(seed: u64, steps in prop::collection::vec(step(), 1..120)) {
        if let Err(failure) = run(seed, &steps) {
            prop_assert!(false, "{:?}", failure);
        }
    }
}
