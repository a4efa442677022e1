//! Full disks, failing disks, and wishes that are refused.

mod support;

use std::io::ErrorKind;

use leasehold_journal::{Checkpoint, Journal, JournalError, ReadError, Sweep};
use leasehold_simulator::disk::{Operation, SimDisk};
use support::{Model, SEGMENT_BYTES, options, recover};

fn open(disk: &SimDisk) -> Journal<SimDisk> {
    recover(disk, &mut Model::default()).expect("an empty disk is fine")
}

fn append(journal: &mut Journal<SimDisk>, size: usize) -> Result<(), JournalError> {
    journal.reserve_group(size + 8)?;
    journal.append(|out| out.resize(out.len() + size, 7));
    Ok(())
}

#[test]
fn a_full_disk_refuses_room_and_leaves_what_was_set_aside() {
    let disk = SimDisk::new(1);
    let mut journal = open(&disk);
    disk.set_capacity(2 * SEGMENT_BYTES + 4096);
    journal.ensure_headroom(SEGMENT_BYTES).expect("one spare fits");
    let before = journal.headroom();
    match journal.ensure_headroom(3 * SEGMENT_BYTES) {
        Err(JournalError::Full { needed, available }) => {
            assert_eq!((needed, available), (3 * SEGMENT_BYTES, before));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(journal.headroom(), before);
    let mut appended = 0;
    let full = loop {
        match append(&mut journal, 3000) {
            Ok(()) => appended += 1,
            Err(error) => break error,
        }
        journal.write().expect("the room was set aside");
        journal.sync().expect("the room was set aside");
    };
    assert!(matches!(full, JournalError::Full { .. }), "{full}");
    assert!(appended * 3064 > before - 2 * 4096, "{appended} records in {before} bytes");
    // A smaller one still fits, and the journal is not poisoned.
    append(&mut journal, 16).expect("there is a rest");
    journal.write().expect("no fault is planted");
    journal.sync().expect("no fault is planted");
    assert_eq!(journal.durable_sequence(), appended + 1);
    disk.set_capacity(u64::MAX);
    append(&mut journal, 3000).expect("there is room again");
    journal.close().expect("no fault is planted");
}

#[test]
fn a_checkpoint_without_room_waits_for_some() {
    let disk = SimDisk::new(1);
    let mut journal = open(&disk);
    append(&mut journal, 100).expect("there is room");
    let used: u64 = disk.files().values().map(|bytes| bytes.len() as u64).sum();
    disk.set_capacity(used + 250);
    for round in 1_u8..=3 {
        let mut delta = Checkpoint::new(Sweep::Continue);
        // The later ones would fit, but must not pass the first.
        delta.put(b"cell", &vec![round; if round == 1 { 300 } else { 3 }]);
        journal.checkpoint(delta).expect("it is accepted");
        append(&mut journal, 100).expect("there is room");
    }
    assert!(matches!(journal.poll(), Err(JournalError::Full { .. })));
    assert_eq!((journal.checkpoints_in_flight(), journal.checkpoint_sequence()), (3, 0));
    journal.begin_turn(2_000_000);
    assert!(matches!(journal.poll(), Err(JournalError::Full { .. })), "tried again, told again");
    journal.poll().expect("not tried again within a second");
    disk.set_capacity(u64::MAX);
    journal.begin_turn(4_000_000);
    journal.poll().expect("there is room now");
    assert_eq!((journal.checkpoints_in_flight(), journal.checkpoint_sequence()), (0, 3));
    drop(journal);
    let recovery = Journal::open(disk, options()).expect("nothing was torn");
    assert_eq!(recovery.sequence(), 3);
    assert_eq!(recovery.cells()[&b"cell"[..]], [3; 3]);
}

#[test]
fn the_first_failure_poisons() {
    for operation in [Operation::Write, Operation::Sync] {
        let disk = SimDisk::new(1);
        let mut journal = open(&disk);
        append(&mut journal, 100).expect("there is room");
        journal.write().expect("no fault is planted yet");
        journal.sync().expect("no fault is planted yet");
        append(&mut journal, 100).expect("there is room");
        disk.fail(operation, 0, ErrorKind::Other);
        let first = journal.write().and_then(|()| journal.sync());
        assert!(matches!(first, Err(JournalError::Io { .. })), "{first:?}");
        let verb = if operation == Operation::Write { "write" } else { "sync" };
        let later = [
            journal.write(),
            journal.sync(),
            journal.poll(),
            journal.reserve_group(10),
            journal.ensure_headroom(10),
            journal.retire(0),
            journal.checkpoint(Checkpoint::new(Sweep::Whole)),
        ];
        for result in later {
            match result {
                Err(JournalError::Poisoned { first }) => {
                    let expected = format!("{verb} segment-0000000000000000.log");
                    assert!(first.starts_with(&expected), "{first}");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(journal.durable_sequence(), 1);
        assert!(matches!(journal.close(), Err(JournalError::Poisoned { .. })));
    }
}

#[test]
fn every_failing_operation_is_reported_and_loses_nothing_durable() {
    use support::{Failure, Habits, work};
    let kinds = [
        Operation::Write,
        Operation::Sync,
        Operation::SyncNames,
        Operation::Rename,
        Operation::Create,
        Operation::Remove,
    ];
    let habits = Habits { steps: 40, size: None, close: true };
    let mut failed = 0;
    for seed in 0..6 {
        for kind in kinds {
            for nth in 0..25 {
                let disk = SimDisk::new(seed);
                let mut model = Model::default();
                disk.fail(kind, nth * 3, ErrorKind::Other);
                match work(&disk, &mut model, seed, habits) {
                    Ok(()) => {}
                    Err(Failure::Stopped(_)) => failed += 1,
                    Err(Failure::Broken(told)) => panic!("seed {seed} {kind:?} {nth}: {told}"),
                }
                let mode = leasehold_simulator::disk::Crash::Some;
                recover(&disk.crash(mode, nth), &mut model)
                    .unwrap_or_else(|error| panic!("seed {seed} {kind:?} {nth}: {error:?}"));
            }
        }
    }
    assert!(failed > 200, "{failed}");
}

#[test]
fn wishes_that_cannot_be_met_are_refused() {
    let disk = SimDisk::new(1);
    let mut journal = open(&disk);
    let most = journal.group_bytes_max();
    match journal.reserve_group(most + 1) {
        Err(JournalError::TooLarge { asked, largest }) => {
            assert_eq!((asked, largest), (most as u64 + 1, most as u64));
        }
        other => panic!("{other:?}"),
    }
    append(&mut journal, most - 8).expect("the largest group fits a segment");
    append(&mut journal, most - 8).expect("and another one the next");
    journal.write().expect("no fault is planted");
    journal.sync().expect("no fault is planted");
    let refused = |result| match result {
        Err(JournalError::NotRetirable { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(refused(journal.retire(77)).contains("none of that number"));
    let current = journal.segments().last().expect("there is always one").number;
    assert!(refused(journal.retire(current)).contains("being filled"));
    assert!(refused(journal.retire(0)).contains("checkpoint"));
    let mut out = Vec::new();
    for (position, size) in [(0, 8), (SEGMENT_BYTES * 9, 8), (u64::MAX - 3, 8), (70, u32::MAX)] {
        let read = journal.read(leasehold_journal::Position(position), size, &mut out);
        let refused = matches!(read, Err(ReadError::Absent { .. } | ReadError::Damaged { .. }));
        assert!(refused || position == 0, "{position} {size}: {read:?}");
    }
    journal.close().expect("no fault is planted");
}

#[test]
#[should_panic(expected = "its group has 12 left")]
fn more_than_was_reserved_is_a_bug() {
    let mut journal = open(&SimDisk::new(1));
    journal.reserve_group(12).expect("there is room");
    journal.append(|out| out.extend_from_slice(b"five."));
}

#[test]
#[should_panic(expected = "a sweep is completed that was not begun")]
fn completing_a_sweep_of_another_life_is_a_bug() {
    let mut journal = open(&SimDisk::new(1));
    let _ = journal.checkpoint(Checkpoint::new(Sweep::Complete));
}

#[test]
fn a_journal_may_move_to_its_owners_thread() {
    fn movable<T: Send>() {}
    movable::<Journal<leasehold_env::OsDisk>>();
    movable::<leasehold_journal::Recovery<leasehold_env::OsDisk>>();
}
