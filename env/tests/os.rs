//! The operating system's slits do what their traits say.

use std::io::ErrorKind;

use leasehold_env::{Blocks, Clock, Disk, DiskFile, Entropy, OsClock, OsDisk, OsEntropy};

#[test]
fn files_are_created_written_renamed_and_removed() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let disk = OsDisk::open(scratch.path()).expect("nobody else has it");
    for (name, blocks) in [("b", Blocks::Written), ("a", Blocks::Reserved)] {
        let file = disk.create(name, 3_000_000, blocks).expect("there is room");
        assert_eq!(file.len().expect("it is open"), 3_000_000);
        file.write_all_at(b"hello", 2_999_998).expect("a write may make it longer");
        file.sync().expect("no fault");
        let mut out = [1; 8];
        assert_eq!(file.read_full_at(&mut out, 2_999_996).expect("no fault"), 7);
        assert_eq!(&out, b"\0\0hello\x01");
        let short = file.read_exact_at(&mut out, 2_999_996).map_err(|error| error.kind());
        assert_eq!(short, Err(ErrorKind::UnexpectedEof));
        file.set_len(10).expect("no fault");
        assert_eq!(file.len().expect("it is open"), 10);
    }
    let kind = |error: std::io::Error| error.kind();
    let taken = disk.create("a", 1, Blocks::Reserved).map(|_| ()).map_err(kind);
    assert_eq!(taken, Err(ErrorKind::AlreadyExists));
    assert_eq!(disk.list().expect("no fault"), ["a", "b"]);
    disk.rename("a", "c").expect("it is there");
    disk.sync_names().expect("no fault");
    disk.remove("b").expect("it is there");
    assert_eq!(disk.remove("b").map_err(kind), Err(ErrorKind::NotFound));
    assert_eq!(disk.open("a").map(|_| ()).map_err(kind), Err(ErrorKind::NotFound));
    assert_eq!(disk.list().expect("no fault"), ["c"]);
}

#[test]
fn a_file_that_finds_no_room_leaves_no_name() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let disk = OsDisk::open(scratch.path()).expect("nobody else has it");
    // More than any file system holds: refused as too large or as full, at once.
    assert!(disk.create("huge", 1 << 62, Blocks::Written).is_err());
    assert!(disk.list().expect("no fault").is_empty());
}

#[test]
fn clocks_go_on_and_chance_differs() {
    let clock = OsClock::new();
    let first = clock.monotonic_us();
    assert!(clock.monotonic_us() >= first);
    assert!(clock.wall_us() > 1_600_000_000_000_000, "it is after 2020");
    let mut entropy = OsEntropy::open().expect("the kernel has some");
    let numbers = [entropy.next_u64(), entropy.next_u64()].map(|n| n.expect("no fault"));
    assert_ne!(numbers[0], numbers[1]);
}
