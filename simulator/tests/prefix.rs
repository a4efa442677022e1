//! The journal is cut: at each record's end and inside records. What a power loss can leave is
//! exactly such prefixes, so each must open, to the state that the events before the cut fold to.

use leasehold_core::{Durable, Event, Shape, Stamp};
use leasehold_journal::{Journal, Options as JournalOptions};
use leasehold_node::{Durability, Options, Shard};
use leasehold_simulator::audit::{replayed, same_cells};
use leasehold_simulator::disk::{Crash, SimDisk};
use leasehold_simulator::workload::{Habits, Simulation, small_options};

const FIRST: &str = "segment-0000000000000000.log";

/// A store whose whole history is in one segment, without a checkpoint and never synced after its
/// opening, so that nothing vouches for any part of it.
fn history(seed: u64) -> (SimDisk, Options) {
    let limits = leasehold_core::Limits { segment_bytes: 256 << 10, ..small_options().limits };
    let options = Options {
        durability: Durability::None,
        limits,
        checkpoint_bytes: u64::MAX,
        checkpoint_cells: usize::MAX,
        ..small_options()
    };
    let mut simulation =
        Simulation::new(seed, Habits { options: options.clone(), ..Habits::default() });
    simulation.open().and_then(|_| simulation.turns(140)).expect("nothing fails");
    (simulation.disk.crash(Crash::KeepAll, 1), options)
}

/// The records of a store: where each ends in the segment, its stamp and its bytes.
fn records(disk: &SimDisk, options: &Options) -> Vec<(u64, Stamp, Vec<u8>)> {
    let journal_options =
        JournalOptions { segment_bytes: options.limits.segment_bytes, ..JournalOptions::default() };
    let copy = disk.crash(Crash::KeepAll, 0);
    let mut found = Vec::new();
    let recovery = Journal::open(copy, journal_options).expect("the whole store opens");
    let replay = recovery.replay(|record| {
        let size = record.bytes.len() as u32;
        let stamp = Stamp {
            sequence: record.sequence,
            at: record.time_us,
            position: record.position.0,
            size,
        };
        found.push((record.position.0 + u64::from(size), stamp, record.bytes.to_vec()));
        Ok::<(), String>(())
    });
    replay.map(|_| ()).expect("the whole store replays");
    found
}

#[test]
fn every_prefix_opens_to_the_state_of_its_events() {
    for seed in 0..2 {
        let (disk, options) = history(seed);
        let records = records(&disk, &options);
        assert!(records.len() > 300, "a history of {} records", records.len());
        let mut state = Durable::new(Shape::of(&options.limits), 7);
        let mut states = vec![state.all_cells()];
        for (_, stamp, bytes) in &records {
            state.replay(*stamp, &Event::decode(bytes).expect("an event"));
            states.push(state.all_cells());
        }
        let mut legal = 0;
        for (i, (end, ..)) in records.iter().enumerate() {
            let size = records[i].2.len() as u64;
            // At the end, in the middle, and in the record's own header.
            for cut in [*end, end - size / 2, end - size - 3] {
                let mut files = disk.files();
                files.get_mut(FIRST).expect("one segment")[cut as usize..].fill(0);
                let cut_disk = SimDisk::from_files(seed, files);
                let Ok(found) = replayed(&cut_disk, &options) else {
                    // The store vouches for its opening, the first sync of its life.
                    assert!(i < 20, "seed {seed}: the cut at {cut} (record {i}) is refused");
                    continue;
                };
                let sequence = found.sequence() as usize;
                assert!(sequence <= i + 1, "seed {seed}: the cut at {cut} shows {sequence}");
                same_cells(&found.all_cells(), &states[sequence])
                    .unwrap_or_else(|error| panic!("seed {seed} cut {cut}: {error}"));
                legal += 1;
                if i % 16 == 0 {
                    let clock = leasehold_simulator::clock::SimClock::new(seed);
                    let shard = Shard::open(cut_disk, &clock, 1, options.clone());
                    shard.expect("what replays opens").core().check();
                }
            }
        }
        assert!(legal > 600, "{legal} cuts were legal");
    }
}
