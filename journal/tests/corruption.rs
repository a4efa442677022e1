//! Bits flip and ends go missing. What was closed or witnessed is exact or refused.

mod support;

use std::collections::BTreeMap;

use leasehold_journal::{
    Checkpoint, Journal, OpenError, RECORD_HEADER_BYTES, ReadError, ReplayError, Sweep, verify,
};
use leasehold_simulator::disk::{Chance, SimDisk};
use support::{Failure, Model, SEGMENT_BYTES, check_reads, checkpoint, options, recover};

type Files = BTreeMap<String, Vec<u8>>;

/// Appends one record in a frame of its own. `roll`: asks for so much room that the next one of
/// this kind needs a new segment.
fn append(journal: &mut Journal<SimDisk>, model: &mut Model, size: usize, roll: bool) {
    let bytes: Vec<u8> = (0..size).map(|at| (at * 7 + model.records.len()) as u8).collect();
    let room = if roll { journal.group_bytes_max() } else { size + RECORD_HEADER_BYTES };
    journal.reserve_group(room).expect("there is room");
    model.places.push(journal.append(|out| out.extend_from_slice(&bytes)));
    model.records.push(bytes);
    model.group_ends.insert(model.records.len() as u64);
    journal.write().expect("no fault is planted");
    journal.sync().expect("no fault is planted");
    model.durable = journal.durable_sequence();
}

/// A small store over three segments and two checkpoint generations, and its model.
fn store(close: bool) -> (Files, Model) {
    let disk = SimDisk::new(1);
    let mut model = Model::default();
    let mut chance = Chance::new(5);
    let mut journal = recover(&disk, &mut model).expect("an empty disk is fine");
    for round in 0..3 {
        journal.begin_turn(round);
        for size in [40, 17, 130] {
            append(&mut journal, &mut model, size, false);
        }
        append(&mut journal, &mut model, 60, true);
        checkpoint(&mut journal, &mut model, &mut chance).expect("no fault is planted");
    }
    for size in [90, 16, 33] {
        append(&mut journal, &mut model, size, false);
    }
    if close {
        journal.close().expect("no fault is planted");
    }
    (disk.files(), model)
}

/// The parts of each file that were ever used, and a little beyond.
fn interesting(files: &Files) -> Vec<(String, u64)> {
    let mut out = Vec::new();
    for (name, bytes) in files {
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        let end = (used + 64).min(bytes.len());
        out.extend((0..end).map(|offset| (name.clone(), offset as u64)));
    }
    out
}

fn flipped(files: &Files, name: &str, offset: u64, bit: u8) -> SimDisk {
    let disk = SimDisk::from_files(3, files.clone());
    disk.flip_bit(name, offset, bit);
    disk
}

#[test]
fn a_flipped_bit_in_a_closed_store_is_exact_or_refused() {
    let (files, model) = store(true);
    let mut refused = 0;
    let mut unreadable = 0;
    let bits = interesting(&files);
    assert!(bits.len() > 1500, "the store has something in it");
    for (index, (name, offset)) in bits.iter().enumerate() {
        let bit = (index % 8) as u8;
        let disk = flipped(&files, name, *offset, bit);
        let mut model = model.clone();
        let mut journal = match recover(&disk, &mut model) {
            Err(Failure::Broken(told)) if told.starts_with("refused: ") => {
                refused += 1;
                continue;
            }
            Err(failure) => panic!("{name} byte {offset} bit {bit}: {failure:?}"),
            Ok(journal) => journal,
        };
        match check_reads(&mut journal, &model) {
            Ok(()) => {}
            Err(Failure::Broken(told)) if told.contains("is damaged") => unreadable += 1,
            Err(failure) => panic!("{name} byte {offset} bit {bit}: {failure:?}"),
        }
    }
    assert!(refused > 500 && unreadable > 100, "{refused} refused, {unreadable} unreadable");
}

#[test]
fn a_flipped_bit_in_a_crashed_store_costs_at_most_what_nobody_vouches_for() {
    let (files, model) = store(false);
    let last = model.durable;
    for (index, (name, offset)) in interesting(&files).iter().enumerate() {
        let disk = flipped(&files, name, *offset, (index % 8) as u8);
        let mut model = model.clone();
        // The last frame has none behind it that could say it was synced.
        model.durable = last - 1;
        match recover(&disk, &mut model) {
            Ok(_) => {}
            Err(Failure::Broken(told)) if told.starts_with("refused: ") => {}
            Err(failure) => panic!("{name} byte {offset}: {failure:?}"),
        }
    }
}

#[test]
fn every_flip_that_costs_a_record_is_found_by_verify() {
    let (files, model) = store(true);
    let clean = verify(&SimDisk::from_files(3, files.clone()), |_| {}).expect("it is ours");
    assert_eq!(clean.damage, None);
    assert_eq!(clean.records, model.records.len() as u64);
    assert_eq!(clean.last_sequence, Some(model.durable));
    assert!(clean.clean);
    let mut found = 0;
    for (at, placed) in model.places.iter().enumerate() {
        let (segment, offset) =
            (placed.position.0 / SEGMENT_BYTES, placed.position.0 % SEGMENT_BYTES);
        let name = format!("segment-{segment:016x}.log");
        for back in [0, 3, 7, 20] {
            let disk = flipped(&files, &name, offset - back, (at % 8) as u8);
            let report = verify(&disk, |_| {}).expect("it is ours");
            let damage = report.damage.expect("every byte of a record or a header matters");
            assert_eq!(damage.file, name);
            assert!(damage.offset <= offset, "{damage:?}");
            found += 1;
        }
    }
    assert_eq!(found, model.places.len() * 4);
}

#[test]
fn a_last_frame_cut_anywhere_is_dropped_whole() {
    let (files, model) = store(false);
    let placed = model.places[model.places.len() - 1];
    let offset = (placed.position.0 % SEGMENT_BYTES) as usize;
    let start = offset - RECORD_HEADER_BYTES - 56;
    let name = format!("segment-{:016x}.log", placed.position.0 / SEGMENT_BYTES);
    let end = offset + placed.size as usize;
    for cut in start..end {
        let mut files = files.clone();
        let bytes = files.get_mut(&name).expect("the last segment");
        if bytes[cut..end].iter().all(|byte| *byte == 0) {
            continue;
        }
        bytes[cut..].fill(0);
        let mut model = model.clone();
        model.durable -= 1;
        let disk = SimDisk::from_files(3, files);
        let journal = recover(&disk, &mut model).expect("a torn tail is no damage");
        assert_eq!(journal.last_sequence() as usize, model.records.len());
        assert_eq!(journal.last_sequence() + 1, placed.sequence, "cut at {cut}");
        // The file cannot be shorter than it was made, whatever tore.
        drop(journal);
        let mut files = disk.files();
        files.get_mut(&name).expect("the last segment").truncate(cut);
        let shorter = Journal::open(SimDisk::from_files(3, files), options());
        let replayed = shorter.expect("its checkpoint is fine").replay(|_| Ok::<(), ()>(()));
        assert!(matches!(replayed, Err(ReplayError::Open(OpenError::Damaged { .. }))));
    }
}

#[test]
fn damage_in_the_middle_names_file_and_offset_and_changes_nothing() {
    let (files, model) = store(false);
    let placed = model.places[model.places.len() - 2];
    let name = format!("segment-{:016x}.log", placed.position.0 / SEGMENT_BYTES);
    let at = placed.position.0 % SEGMENT_BYTES;
    let disk = flipped(&files, &name, at + 3, 0);
    let before = disk.files();
    let refused = Journal::open(disk.clone(), options())
        .expect("its checkpoint is fine")
        .replay(|_| Ok::<(), ()>(()));
    match refused.map(|_| ()) {
        Err(ReplayError::Open(OpenError::Damaged { file, offset, detail })) => {
            assert_eq!((file, offset), (name, at - RECORD_HEADER_BYTES as u64 - 56));
            assert!(detail.contains("checksum"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(disk.files(), before);
}

#[test]
fn a_file_that_went_missing_is_noticed() {
    let (files, model) = store(true);
    for name in files.keys().filter(|name| !name.starts_with("spare") && *name != "FORMAT") {
        let mut fewer = files.clone();
        fewer.remove(name);
        let mut model = model.clone();
        match recover(&SimDisk::from_files(3, fewer), &mut model) {
            // A segment below the checkpoint is missed when it is read, the mark not at all.
            Ok(_) => assert!(name == "CLOSED" || name.starts_with("segment"), "{name}"),
            Err(Failure::Broken(told)) => assert!(told.starts_with("refused: "), "{told}"),
            Err(failure) => panic!("{name}: {failure:?}"),
        }
    }
}

#[test]
fn a_damaged_record_below_the_checkpoint_is_named_when_it_is_read() {
    let (files, model) = store(true);
    let placed = model.places[0];
    let disk = flipped(&files, "segment-0000000000000000.log", placed.position.0 + 1, 4);
    let mut journal = recover(&disk, &mut model.clone()).expect("replay does not need it");
    let mut out = b"kept".to_vec();
    match journal.read(placed.position, placed.size, &mut out) {
        Err(ReadError::Damaged { file, offset, .. }) => {
            assert_eq!(file, "segment-0000000000000000.log");
            assert_eq!(offset, placed.position.0);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(out, b"kept");
}

#[test]
fn a_generation_that_others_build_on_is_missed_even_after_a_crash() {
    let disk = SimDisk::new(1);
    let mut model = Model::default();
    let mut journal = recover(&disk, &mut model).expect("an empty disk is fine");
    for sweep in [Sweep::Whole, Sweep::Continue, Sweep::Begin, Sweep::Begin] {
        append(&mut journal, &mut model, 40, false);
        let mut delta = Checkpoint::new(sweep);
        for (key, value) in model.fold(model.durable) {
            delta.put(&key, &value);
        }
        journal.checkpoint(delta).expect("no fault is planted");
    }
    recover(&SimDisk::from_files(3, disk.files()), &mut model.clone()).expect("nothing is missing");
    let name = "checkpoint-0000000000000001.ckpt";
    let last = disk.files()[name].len() as u64 - 20;
    let opened = Journal::open(flipped(&disk.files(), name, last, 0), options()).map(|_| ());
    assert!(matches!(opened, Err(OpenError::Damaged { .. })), "{opened:?}");
    for generation in [1, 2] {
        let mut files = disk.files();
        let name = format!("checkpoint-{generation:016x}.ckpt");
        assert!(files.remove(&name).is_some(), "{name} is there");
        let opened = Journal::open(SimDisk::from_files(3, files), options()).map(|_| ());
        assert!(matches!(opened, Err(OpenError::Damaged { .. })), "{generation}: {opened:?}");
    }
}
