//! A bit rots in a store that was closed cleanly.
//!
//! It then opens to exactly the same state or is refused by name, never to anything else. A record
//! below the checkpoint is not read at opening; if it is damaged its message is never delivered
//! with other bytes.

use leasehold_simulator::audit::{drained, replayed};
use leasehold_simulator::clock::SimClock;
use leasehold_simulator::disk::{Chance, Crash, SimDisk};
use leasehold_simulator::verdict::message_in;
use leasehold_simulator::workload::{Habits, Simulation, small_options};

fn closed_store(seed: u64, turns: u64) -> SimDisk {
    let mut simulation = Simulation::new(seed, Habits { publish_percent: 40, ..Habits::default() });
    simulation.open().and_then(|_| simulation.turns(turns)).expect("nothing fails");
    simulation.close(Crash::Some).expect("it closes");
    simulation.disk.crash(Crash::LoseAll, 1)
}

#[test]
fn a_flipped_bit_changes_nothing_or_is_refused() {
    let options = small_options();
    let (mut same, mut refused, mut missing) = (0, 0, 0);
    for seed in 0..4 {
        let disk = closed_store(seed, 150);
        let whole = replayed(&disk, &options).expect("it is whole").all_cells();
        let files = disk.files();
        let mut chance = Chance::new(seed);
        let names: Vec<&String> = files.keys().filter(|name| *name != "LOCK").collect();
        for _ in 0..350 {
            let name = names[chance.below(names.len() as u64) as usize];
            let bytes = files[name].len() as u64;
            if bytes == 0 {
                continue;
            }
            let (offset, bit) = (chance.below(bytes), chance.below(8) as u8);
            let rotten = disk.crash(Crash::KeepAll, 1);
            rotten.flip_bit(name, offset, bit);
            match replayed(&rotten, &options) {
                Err(_) => refused += 1,
                Ok(state) => {
                    assert_eq!(state.all_cells(), whole, "{name} byte {offset} bit {bit}");
                    same += 1;
                    if chance.percent(12) {
                        missing += deliver_all(&rotten, seed);
                    }
                }
            }
        }
    }
    eprintln!("same {same}, refused {refused}, damaged messages {missing}");
    assert!(same > 100 && refused > 50, "same {same}, refused {refused}");
}

/// Consumes everything; every body must be whole. 1 when some message could not be read.
fn deliver_all(disk: &SimDisk, seed: u64) -> u32 {
    match drained(disk, &SimClock::new(seed), &small_options(), seed) {
        Ok(found) => {
            for message in &found {
                message_in(&message.body).expect("a whole body");
            }
            0
        }
        Err(why) => {
            let honest = ["could not be read", "are left", "stopped", "Stopped", "damaged"];
            assert!(honest.iter().any(|word| why.contains(word)), "{why}");
            1
        }
    }
}
