//! The disk in memory does what its trait says, as the system's disk does, and takes no more
//! memory than was written to it.

use std::io::ErrorKind;

use leasehold_env::{Blocks, Disk, DiskFile, MemDisk, OsDisk};

const CHUNK: u64 = 64 << 10;

/// The same on both: what a test of one disk would demand, the other shows to be right.
fn files_and_names(disk: &impl Disk) {
    for (name, blocks) in [("b", Blocks::Written), ("a", Blocks::Reserved)] {
        let file = disk.create(name, 3_000_000, blocks).expect("there is room");
        assert_eq!(file.len().expect("it is open"), 3_000_000);
        file.write_all_at(b"hello", 2_999_998).expect("a write may make it longer");
        file.sync().expect("no fault");
        let mut out = [1; 8];
        assert_eq!(file.read_full_at(&mut out, 2_999_996).expect("no fault"), 7);
        assert_eq!(&out, b"\0\0hello\x01");
        assert_eq!(file.read_at(&mut out, 9_000_000).expect("no fault"), 0, "beyond the end");
        file.set_len(2_999_999).expect("no fault");
        file.set_len(3_000_010).expect("no fault");
        let mut out = [1; 8];
        file.read_exact_at(&mut out, 2_999_997).expect("no fault");
        assert_eq!(&out, b"\0h\0\0\0\0\0\0", "what was cut off does not come back");
        file.write_all_at(b"x", 4_000_000).expect("a hole is left");
        assert_eq!(file.len().expect("it is open"), 4_000_001);
    }
    let kind = |error: std::io::Error| error.kind();
    let taken = disk.create("a", 1, Blocks::Reserved).map(|_| ()).map_err(kind);
    assert_eq!(taken, Err(ErrorKind::AlreadyExists));
    assert_eq!(disk.list().expect("no fault"), ["a", "b"]);
    let open = disk.open("a").expect("it is there");
    disk.rename("a", "b").expect("what was there is replaced");
    disk.sync_names().expect("no fault");
    disk.remove("b").expect("it is there");
    assert_eq!(open.len().expect("open handles stay usable"), 4_000_001);
    assert_eq!(disk.remove("b").map_err(kind), Err(ErrorKind::NotFound));
    assert_eq!(disk.rename("b", "c").map_err(kind), Err(ErrorKind::NotFound));
    assert_eq!(disk.open("a").map(|_| ()).map_err(kind), Err(ErrorKind::NotFound));
    assert!(disk.list().expect("no fault").is_empty());
}

#[test]
fn it_does_what_the_systems_disk_does() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    files_and_names(&OsDisk::open(scratch.path()).expect("nobody else has it"));
    files_and_names(&MemDisk::new());
}

/// Random writes, cuts and reads against one long buffer.
#[test]
fn its_files_are_like_a_buffer() {
    let disk = MemDisk::new();
    let file = disk.create("f", 0, Blocks::Reserved).expect("there is room");
    let mut model: Vec<u8> = Vec::new();
    let mut state = 7_u64;
    let mut dice = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (state >> 33) % n
    };
    for _ in 0..3_000 {
        let (at, len) = (dice(5 * CHUNK) as usize, dice(2 * CHUNK) as usize);
        match dice(8) {
            0 => {
                file.set_len(at as u64).expect("no fault");
                model.resize(at, 0);
            }
            1..=4 => {
                // Zeros are the ones that need no memory.
                let bytes = vec![if dice(3) == 0 { 0 } else { dice(255) as u8 + 1 }; len];
                file.write_all_at(&bytes, at as u64).expect("no fault");
                if len > 0 {
                    model.resize(model.len().max(at + len), 0);
                    model[at..at + len].copy_from_slice(&bytes);
                }
            }
            _ => {
                let mut out = vec![9; len];
                let count = file.read_full_at(&mut out, at as u64).expect("no fault");
                let expected = model.get(at..).unwrap_or_default();
                let expected = &expected[..expected.len().min(len)];
                assert_eq!(count, expected.len());
                assert!(out[..count] == *expected, "{len} bytes at {at}");
            }
        }
        assert_eq!(file.len().expect("no fault"), model.len() as u64);
        let most = (model.len() as u64).div_ceil(CHUNK) * CHUNK;
        assert!(disk.memory_bytes() <= most);
    }
}

#[test]
fn room_costs_nothing_and_what_goes_gives_its_memory_back() {
    let disk = MemDisk::new();
    let file = disk.create("f", 1 << 40, Blocks::Written).expect("there is room");
    assert_eq!(disk.memory_bytes(), 0);
    file.write_all_at(&[0; 1 << 20], 5).expect("no fault");
    assert_eq!(disk.memory_bytes(), 0, "zeros are there already");
    file.write_all_at(&[1; 10], CHUNK - 5).expect("no fault");
    assert_eq!(disk.memory_bytes(), 2 * CHUNK, "a write across a border");
    file.write_all_at(&vec![0; CHUNK as usize], CHUNK).expect("no fault");
    assert_eq!(disk.memory_bytes(), CHUNK, "a chunk of zeros is given back");
    file.write_all_at(&[1; 10], 1 << 39).expect("no fault");
    file.set_len(CHUNK).expect("no fault");
    assert_eq!(disk.memory_bytes(), CHUNK);
    disk.clone().remove("f").expect("a clone is the same disk");
    assert_eq!(disk.memory_bytes(), 0);
}
