//! Any damage: verifying and opening a directory with damaged files never panics. It opens, or it
//! is refused with a reason; records that are shown are those that were written, in order.
//!
//! The input is a row of edits, file, offset and bytes, on a directory of one small segment.
#![no_main]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::OnceLock;

use leasehold_journal::{Checkpoint, Journal, Options, Sweep, verify};
use leasehold_simulator::disk::SimDisk;
use libfuzzer_sys::fuzz_target;

const RECORDS: u64 = 12;

fn options() -> Options {
    Options { segment_bytes: 64 << 10, frame_bytes: 4 << 10, ..Options::default() }
}

fn record(n: u64) -> Vec<u8> {
    vec![n as u8; 40 + 61 * n as usize]
}

/// A directory with a checkpoint and some turns after it.
fn files() -> &'static BTreeMap<String, Vec<u8>> {
    static FILES: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    FILES.get_or_init(|| {
        let disk = SimDisk::new(1);
        let recovery = Journal::open(disk.clone(), options()).expect("a new directory");
        let mut journal = recovery.replay(|_| Ok::<(), Infallible>(())).expect("nothing yet");
        for n in 1..=RECORDS {
            journal.begin_turn(n);
            journal.reserve_group(4 << 10).expect("room");
            let bytes = record(n);
            journal.append(|out| out.extend_from_slice(&bytes));
            journal.write().expect("written");
            journal.sync().expect("synced");
            if n == 4 {
                let mut cells = Checkpoint::new(Sweep::Begin);
                cells.put(b"key", b"value");
                journal.checkpoint(cells).expect("a checkpoint");
            }
        }
        drop(journal);
        disk.files()
    })
}

fuzz_target!(|bytes: &[u8]| {
    let mut files = files().clone();
    let names: Vec<String> = files.keys().cloned().collect();
    for edit in bytes.chunks(8) {
        let Some((&[file, low, high], new)) = edit.split_first_chunk::<3>() else { break };
        let name = &names[usize::from(file) % names.len()];
        let content = files.get_mut(name).expect("listed");
        let at = usize::from(u16::from_le_bytes([low, high]));
        if file > 250 {
            content.truncate(at);
        } else if let Some(old) = content.get_mut(at..at + new.len()) {
            old.copy_from_slice(new);
        }
    }
    let disk = SimDisk::from_files(2, files);
    let _ = verify(&disk, |_| ());
    let Ok(recovery) = Journal::open(disk, options()) else { return };
    let mut next = recovery.sequence() + 1;
    let _ = recovery.replay(|shown| {
        assert_eq!(shown.sequence, next, "records are shown in order, none left out");
        assert_eq!(shown.bytes, record(next), "a record that is shown is as it was written");
        next += 1;
        Ok::<(), Infallible>(())
    });
});
