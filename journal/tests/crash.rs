//! Power is lost at every operation of a script, and again during the recovery from it.

mod support;

use std::io;

use leasehold_env::{Blocks, Disk, DiskFile};
use leasehold_simulator::disk::{Chance, Crash, SimDisk, SimFile};
use support::{Failure, Habits, Model, check_reads, recover, work};

const MODES: [Crash; 4] = [Crash::KeepAll, Crash::LoseAll, Crash::Some, Crash::Torn];

/// Runs a script, loses power at operation `stop`, loses power again while recovering, recovers,
/// works on, loses power, and recovers. `wrap` puts a disk under test around the simulated one.
fn ordeal<D: Disk>(
    seed: u64,
    stop: u64,
    mode: Crash,
    habits: Habits,
    wrap: impl Fn(SimDisk) -> D,
) -> Result<(), String> {
    let told = |step: &'static str| move |failure: Failure| format!("{step}: {failure:?}");
    let mut chance = Chance::new(seed ^ stop.rotate_left(32));
    let mut model = Model::default();
    let disk = SimDisk::new(seed);
    disk.set_short_writes(20);
    disk.stop_at(stop);
    if let Err(Failure::Broken(broken)) = work(&wrap(disk.clone()), &mut model, seed, habits) {
        return Err(format!("before the crash: {broken}"));
    }
    // Twice from the same moment: once straight, once through a crash during recovery.
    let survivor = disk.crash(mode, chance.next_u64());
    let again = disk.crash(mode, chance.next_u64());
    recover(&wrap(survivor), &mut model.clone()).map_err(told("recover"))?;

    again.stop_at(chance.below(40));
    if let Err(Failure::Broken(broken)) = recover(&wrap(again.clone()), &mut model.clone()) {
        return Err(format!("during the first recovery: {broken}"));
    }
    // What the stopped recovery cut off may be gone now, but nothing that was durable.
    let disk = again.crash(MODES[chance.below(4) as usize], chance.next_u64());
    let epoch = model.epoch;
    let mut journal = recover(&wrap(disk.clone()), &mut model).map_err(told("second recovery"))?;
    assert!(model.epoch > epoch);
    check_reads(&mut journal, &model).map_err(told("reading after recovery"))?;
    drop(journal);
    let more = Habits { close: chance.percent(50), steps: 12, ..habits };
    work(&wrap(disk.clone()), &mut model, chance.next_u64(), more).map_err(told("working on"))?;
    let disk = disk.crash(mode, chance.next_u64());
    let mut journal = recover(&wrap(disk), &mut model).map_err(told("last recovery"))?;
    check_reads(&mut journal, &model).map_err(told("reading at last"))
}

fn operations(seed: u64, habits: Habits) -> u64 {
    let disk = SimDisk::new(seed);
    disk.set_short_writes(20);
    let worked = work(&disk, &mut Model::default(), seed, habits);
    worked.expect("without a fault nothing fails");
    disk.operations()
}

fn every_operation(seeds: std::ops::Range<u64>, habits: Habits) {
    for seed in seeds {
        for stop in 0..=operations(seed, habits) {
            let mode = MODES[((seed + stop) % 4) as usize];
            ordeal(seed, stop, mode, habits, |disk| disk)
                .unwrap_or_else(|error| panic!("seed {seed} stop {stop} {mode:?}: {error}"));
        }
    }
}

#[test]
fn any_operation_may_be_the_last() {
    every_operation(0..40, Habits { steps: 40, size: None, close: true });
}

#[test]
fn frames_of_ended_timelines_stay_dead() {
    every_operation(100..130, Habits { steps: 40, size: Some(1016), close: false });
}

#[test]
fn long_scripts_at_random_moments() {
    let habits = Habits { steps: 200, size: None, close: true };
    for seed in 200..260 {
        let operations = operations(seed, habits);
        let mut chance = Chance::new(seed);
        for _ in 0..12 {
            let (stop, mode) = (chance.below(operations), MODES[chance.below(4) as usize]);
            ordeal(seed, stop, mode, habits, |disk| disk)
                .unwrap_or_else(|error| panic!("seed {seed} stop {stop} {mode:?}: {error}"));
        }
    }
}

/// A disk with a planted bug.
#[derive(Clone)]
struct Liar {
    disk: SimDisk,
    lie: Lie,
}

#[derive(Clone, Copy, PartialEq)]
enum Lie {
    /// Syncing a file does nothing.
    Files,
    /// Syncing names does nothing.
    Names,
}

struct LiarFile {
    file: SimFile,
    lie: Lie,
}

impl Disk for Liar {
    type File = LiarFile;
    const THREADS: bool = false;

    fn create(&self, name: &str, bytes: u64, blocks: Blocks) -> io::Result<LiarFile> {
        Ok(LiarFile { file: self.disk.create(name, bytes, blocks)?, lie: self.lie })
    }
    fn open(&self, name: &str) -> io::Result<LiarFile> {
        Ok(LiarFile { file: self.disk.open(name)?, lie: self.lie })
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_names(&self) -> io::Result<()> {
        if self.lie == Lie::Names { Ok(()) } else { self.disk.sync_names() }
    }
}

impl DiskFile for LiarFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(out, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        if self.lie == Lie::Files { Ok(()) } else { self.file.sync() }
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
}

#[test]
fn the_checker_notices_a_disk_that_lies() {
    let habits = Habits { steps: 40, size: None, close: true };
    for lie in [Lie::Files, Lie::Names] {
        let caught = (0..40).filter(|&seed| {
            let mode = MODES[1 + seed as usize % 3];
            ordeal(seed, 200, mode, habits, |disk| Liar { disk, lie }).is_err()
        });
        assert!(caught.count() > 20, "a sync that does nothing must be noticed");
    }
}

/// The first of two unsynced frames is lost, the second survives. Later a new first frame ends
/// exactly where the second still lies, or would, and the second has exactly the next sequence.
#[test]
fn a_frame_that_was_cut_off_never_comes_back() {
    const FRAME_HEADER_BYTES: usize = 56;
    for rolls in [false, true] {
        let disk = SimDisk::new(1);
        let mut journal = recover(&disk, &mut Model::default()).expect("an empty disk is fine");
        let room = if rolls { journal.group_bytes_max() - 64 } else { 208 };
        let mut places = Vec::new();
        for value in [1, 2] {
            journal.reserve_group(room).expect("there is room");
            places.push(journal.append(|out| out.resize(out.len() + 200, value)));
            journal.write().expect("no fault is planted");
        }
        assert_eq!(places[1].position.0 / journal.segment_bytes(), u64::from(rolls));
        drop(journal);
        let mut files = disk.files();
        let first = files.get_mut("segment-0000000000000000.log").expect("the first segment");
        let at = places[0].position.0 as usize - 8 - FRAME_HEADER_BYTES;
        first[at..at + FRAME_HEADER_BYTES + 208].fill(0);
        let disk = SimDisk::from_files(2, files);

        let mut model = Model::default();
        model.records.extend([vec![1; 200], vec![2; 200]]);
        model.places = places;
        let mut journal = recover(&disk, &mut model).expect("nobody was promised these");
        assert_eq!((journal.last_sequence(), journal.segments().count()), (0, 1));
        // The frame that announced the opening took the place of the missing bytes.
        journal.reserve_group(208 - FRAME_HEADER_BYTES).expect("there is room");
        let placed = journal.append(|out| out.resize(out.len() + 200 - FRAME_HEADER_BYTES, 3));
        journal.write().expect("no fault is planted");
        drop(journal);
        model.records.push(vec![3; 200 - FRAME_HEADER_BYTES]);
        model.places.push(placed);
        model.group_ends.insert(1);
        let journal = recover(&disk, &mut model).expect("what is there is whole");
        assert_eq!(journal.last_sequence(), 1);
    }
}
