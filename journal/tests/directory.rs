//! Real directories: locks, refusals, threads.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use leasehold_env::{Disk, OpenDiskError, OsDisk};
use leasehold_journal::{Journal, OpenError, Options, Sweep};
use support::{Habits, Model, check_reads, options, recover, work};

#[test]
fn scripts_run_on_a_real_directory_with_threads() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let mut model = Model::default();
    for seed in 0..6 {
        let disk = OsDisk::open(scratch.path()).expect("nobody else has it");
        let habits = Habits { steps: 60, size: None, close: seed % 2 == 0 };
        work(&disk, &mut model, seed, habits).expect("the script works");
    }
    let disk = OsDisk::open(scratch.path()).expect("nobody else has it");
    let mut journal = recover(&disk, &mut model).expect("everything is there");
    check_reads(&mut journal, &model).expect("everything reads back");
    assert!(model.records.len() > 300);
}

#[test]
fn a_second_open_is_refused_by_name_and_pid() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let path = scratch.path().join("deep/data");
    let disk = OsDisk::open(&path).expect("it is created");
    match OsDisk::open(&path) {
        Err(OpenDiskError::Locked { directory, pid }) => {
            assert_eq!((directory, pid), (path.clone(), Some(std::process::id())));
        }
        other => panic!("{other:?}"),
    }
    // A journal holds it too, until the journal is gone, threads and all.
    let journal = recover(&disk, &mut Model::default()).expect("it is empty");
    drop(disk);
    assert!(OsDisk::open(&path).is_err());
    drop(journal);
    OsDisk::open(&path).expect("free again");
}

#[test]
fn directories_that_are_not_for_us_are_refused_untouched() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let foreign = scratch.path().join("photos");
    fs::create_dir(&foreign).expect("a directory");
    fs::write(foreign.join("cat.jpg"), b"meow").expect("a file");
    match OsDisk::open(&foreign) {
        Err(error @ OpenDiskError::Foreign { .. }) => {
            let told = error.to_string();
            assert!(told.contains("photos") && told.contains("cat.jpg"), "{told}");
            assert!(told.contains("choose an empty or a new directory"), "{told}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::read_dir(&foreign).expect("still there").count(), 1);

    let locked = scratch.path().join("locked");
    fs::create_dir(&locked).expect("a directory");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).expect("its owner may");
    let refused = OsDisk::open(&locked);
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).expect("its owner may");
    assert!(matches!(refused, Err(OpenDiskError::ReadOnly { .. })), "{refused:?}");

    let file = foreign.join("cat.jpg");
    assert!(matches!(OsDisk::open(&file), Err(OpenDiskError::NotDirectory { .. })));
}

#[test]
fn a_newer_format_is_refused_naming_both() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let text = "leasehold data directory, format 2\nanything the future needs\n";
    fs::write(scratch.path().join("FORMAT"), text).expect("a file");
    let disk = OsDisk::open(scratch.path()).expect("it is ours");
    match Journal::open(disk, options()).map(|_| ()) {
        Err(error @ OpenError::NewerFormat { found: 2, supported: 1 }) => {
            assert!(error.to_string().contains("format 2"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_directory_keeps_the_segment_length_it_was_made_with() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let mut model = Model::default();
    for _ in 0..2 {
        let disk = OsDisk::open(scratch.path()).expect("nobody else has it");
        work(&disk, &mut model, 9, Habits { steps: 20, size: None, close: true }).expect("works");
    }
    let disk = OsDisk::open(scratch.path()).expect("nobody else has it");
    let larger = Options { segment_bytes: 1 << 20, ..Options::default() };
    let recovery = Journal::open(disk, larger).expect("the option is for new directories");
    let journal = recovery.replay(|_| Ok::<(), ()>(())).expect("nothing is damaged");
    assert_eq!(journal.segment_bytes(), support::SEGMENT_BYTES);
    assert_eq!(journal.last_sequence(), model.durable);

    let wrong = Options { segment_bytes: 1000, ..Options::default() };
    let disk = leasehold_simulator::disk::SimDisk::new(1);
    assert!(matches!(Journal::open(disk, wrong), Err(OpenError::Options { .. })));
}

#[test]
fn checkpoints_on_a_thread_become_durable_and_let_segments_go() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let disk = OsDisk::open(scratch.path()).expect("nobody else has it");
    let mut journal = recover(&disk, &mut Model::default()).expect("it is empty");
    for _ in 0..3 {
        journal.reserve_group(40_000).expect("there is room");
        journal.append(|out| out.resize(out.len() + 30_000, 1));
    }
    // Nothing was synced by the owner: the checkpoint sees to that itself.
    let mut delta = leasehold_journal::Checkpoint::new(Sweep::Whole);
    delta.put(b"sum", b"90000");
    journal.checkpoint(delta).expect("it is accepted");
    while journal.checkpoints_in_flight() > 0 {
        journal.poll().expect("no fault");
        std::thread::yield_now();
    }
    assert_eq!((journal.checkpoint_sequence(), journal.durable_sequence()), (3, 3));
    assert!(journal.segments().count() >= 3);
    journal.retire(0).expect("it is sealed and covered");
    let names = disk.list().expect("it can be listed");
    assert!(!names.contains(&"segment-0000000000000000.log".to_owned()));
    assert!(names.iter().any(|name| name.starts_with("spare-")), "{names:?}");
    journal.close().expect("no fault");
}
