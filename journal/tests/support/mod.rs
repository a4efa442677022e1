//! A naive model of the journal, a scripted owner that drives both, and the checker that compares
//! them after a crash.
//!
//! The owner's state is a fold over the records: each sets the cell its first byte names. So a
//! checkpoint can be judged without knowing when it was taken: its cells must be the fold of the
//! records it claims to cover. Every record is unique, so one that comes back from a timeline that
//! a crash has ended is noticed.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};

use leasehold_env::Disk;
use leasehold_journal::{
    Cells, Checkpoint, Journal, JournalError, Options, Placed, Position, RECORD_HEADER_BYTES, Sweep,
};
use leasehold_simulator::disk::Chance;

pub const SEGMENT_BYTES: u64 = 64 << 10;

pub fn options() -> Options {
    Options {
        segment_bytes: SEGMENT_BYTES,
        frame_bytes: 8 << 10,
        tail_cache_bytes: 0,
        read_cache_bytes: 256 << 10,
        spares_max: 2,
    }
}

/// What should be in the journal.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Every record, by sequence - 1.
    pub records: Vec<Vec<u8>>,
    pub places: Vec<Placed>,
    /// Sequences at which a group ends.
    pub group_ends: BTreeSet<u64>,
    /// Known to survive power loss.
    pub durable: u64,
    /// Retired segments and the last sequence at that time.
    pub retired: BTreeMap<u64, u64>,
    pub epoch: u32,
    pub unique: u64,
    /// What the newest checkpoint handed over covered, and the cells put since the sweep began.
    pub sweeping: bool,
    pub checkpointed: u64,
    pub began: bool,
}

impl Model {
    pub fn fold(&self, sequence: u64) -> Cells {
        let mut cells = Cells::new();
        for record in &self.records[..sequence as usize] {
            if record[1] == 0 {
                cells.remove(&record[..1]);
            } else {
                cells.insert(record[..1].to_vec(), record.clone());
            }
        }
        cells
    }

    fn record(&mut self, chance: &mut Chance, size: usize) -> Vec<u8> {
        self.unique += 1;
        let mut bytes = vec![(self.unique % 251) as u8; size.max(16)];
        bytes[0] = chance.below(7) as u8;
        bytes[1] = u8::from(!chance.percent(15));
        bytes[2..10].copy_from_slice(&self.unique.to_le_bytes());
        bytes
    }
}

/// How an owner behaves.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    pub steps: u64,
    /// All records have this size, so that frames of different timelines share their boundaries.
    pub size: Option<usize>,
    pub close: bool,
}

/// Why a script ended early.
#[derive(Debug)]
pub enum Failure {
    /// The disk stopped or failed, which the journal reported.
    Stopped(String),
    /// The journal broke its word.
    Broken(String),
}

use Failure::{Broken, Stopped};

/// Opens, compares with the model and cuts the model to what was recovered.
pub fn recover<D: Disk>(disk: &D, model: &mut Model) -> Result<Journal<D>, Failure> {
    use leasehold_journal::{OpenError, ReplayError};
    let open_failed = |error: OpenError| match error {
        OpenError::Io { .. } => Stopped(error.to_string()),
        error => Broken(format!("refused: {error}")),
    };
    let mut recovery = Journal::open(disk.clone(), options()).map_err(open_failed)?;
    let base = recovery.sequence();
    if base > model.records.len() as u64 {
        return Err(Broken(format!("the checkpoint covers {base}, more than was appended")));
    }
    if recovery.take_cells() != model.fold(base) {
        return Err(Broken(format!("the checkpoint's cells are not the state at {base}")));
    }
    let mut last = base;
    let mut replay = |record: leasehold_journal::Record<'_>| {
        if record.sequence != last + 1 {
            return Err(format!("record {} follows {last}", record.sequence));
        }
        last = record.sequence;
        let at = (last - 1) as usize;
        if model.records.get(at).map(Vec::as_slice) != Some(record.bytes) {
            return Err(format!("record {last} is not what was appended"));
        }
        if model.places[at].position != record.position {
            return Err(format!("record {last} is at another position"));
        }
        Ok(())
    };
    let journal = recovery.replay(&mut replay).map_err(|error| match error {
        ReplayError::Open(error) => open_failed(error),
        ReplayError::Visit { source, .. } => Broken(source),
    })?;
    if last < model.durable {
        return Err(Broken(format!("{last} recovered, {} had been durable", model.durable)));
    }
    if last != 0 && !model.group_ends.contains(&last) {
        return Err(Broken(format!("the log ends at {last}, within a group")));
    }
    if journal.epoch() <= model.epoch {
        return Err(Broken(format!("epoch {} was used before", journal.epoch())));
    }
    model.epoch = journal.epoch();
    model.records.truncate(last as usize);
    model.places.truncate(last as usize);
    model.group_ends = model.group_ends.split_off(&0).into_iter().filter(|s| *s <= last).collect();
    model.retired.retain(|_, sequence| *sequence <= last);
    model.durable = last;
    model.checkpointed = base;
    model.sweeping = false;
    model.began = false;
    Ok(journal)
}

/// Reads every record whose segment was not retired.
pub fn check_reads<D: Disk>(journal: &mut Journal<D>, model: &Model) -> Result<(), Failure> {
    let mut out = Vec::new();
    for (placed, bytes) in model.places.iter().zip(&model.records) {
        if model.retired.contains_key(&(placed.position.0 / journal.segment_bytes())) {
            continue;
        }
        out.clear();
        match journal.read(placed.position, placed.size, &mut out) {
            Ok(()) if out == *bytes => {}
            Ok(()) => return Err(Broken(format!("record {} reads as another", placed.sequence))),
            Err(error @ leasehold_journal::ReadError::Io { .. }) => {
                return Err(Stopped(error.to_string()));
            }
            Err(error) => return Err(Broken(format!("record {}: {error}", placed.sequence))),
        }
    }
    Ok(())
}

fn broken(error: JournalError) -> Failure {
    match error {
        JournalError::Io { .. } | JournalError::Poisoned { .. } | JournalError::Full { .. } => {
            Stopped(error.to_string())
        }
        error => Broken(error.to_string()),
    }
}

/// Opens, works through a script and maybe closes.
pub fn work<D: Disk>(
    disk: &D,
    model: &mut Model,
    seed: u64,
    habits: Habits,
) -> Result<(), Failure> {
    let mut chance = Chance::new(seed);
    let mut journal = recover(disk, model)?;
    check_reads(&mut journal, model)?;
    for turn in 0..habits.steps {
        journal.begin_turn(1_000_000 * turn);
        let stepped = step(&mut journal, model, &mut chance, habits);
        model.durable = model.durable.max(journal.durable_sequence());
        stepped.map_err(broken)?;
    }
    check_reads(&mut journal, model)?;
    if habits.close {
        let last = journal.last_sequence();
        journal.close().map_err(broken)?;
        model.durable = last;
    }
    Ok(())
}

fn step<D: Disk>(
    journal: &mut Journal<D>,
    model: &mut Model,
    chance: &mut Chance,
    habits: Habits,
) -> Result<(), JournalError> {
    for _ in 0..1 + chance.below(3) {
        append_group(journal, model, chance, habits.size)?;
    }
    match chance.below(11) {
        0..=2 => {
            journal.write()?;
            journal.sync()
        }
        3 => journal.sync(),
        4..=6 => journal.write(),
        7 => {
            checkpoint(journal, model, chance)?;
            retire(journal, model, chance)
        }
        8 => journal.ensure_headroom(chance.below(3) * SEGMENT_BYTES),
        9 => {
            journal.write()?;
            journal.sync_beside().map(|_| ())
        }
        _ => journal.poll(),
    }
}

pub fn append_group<D: Disk>(
    journal: &mut Journal<D>,
    model: &mut Model,
    chance: &mut Chance,
    size: Option<usize>,
) -> Result<(), JournalError> {
    let count = 1 + chance.below(3);
    let records: Vec<Vec<u8>> = (0..count)
        .map(|_| {
            let size = size.unwrap_or_else(|| 16 + chance.below(5000) as usize);
            model.record(chance, size)
        })
        .collect();
    let bytes = records.iter().map(|record| record.len() + RECORD_HEADER_BYTES).sum();
    journal.reserve_group(bytes)?;
    for record in records {
        let placed = journal.append(|out| out.extend_from_slice(&record));
        model.records.push(record);
        model.places.push(placed);
        assert_eq!(placed.sequence, model.records.len() as u64);
    }
    model.group_ends.insert(model.records.len() as u64);
    Ok(())
}

/// Hands over what changed; in a sweep's last delta (or a whole one) everything.
pub fn checkpoint<D: Disk>(
    journal: &mut Journal<D>,
    model: &mut Model,
    chance: &mut Chance,
) -> Result<(), JournalError> {
    let last = journal.last_sequence();
    let sweep = match chance.below(4) {
        0 => Sweep::Begin,
        1 if model.began => Sweep::Complete,
        2 => Sweep::Whole,
        _ => Sweep::Continue,
    };
    let everything = matches!(sweep, Sweep::Complete | Sweep::Whole);
    let before = model.fold(model.checkpointed);
    let now = model.fold(last);
    let mut delta = Checkpoint::new(sweep);
    for key in before.keys().filter(|key| !now.contains_key(*key)) {
        delta.delete(key);
    }
    for (key, value) in &now {
        if everything || before.get(key) != Some(value) {
            delta.put(key, value);
        }
    }
    model.checkpointed = last;
    model.began = match sweep {
        Sweep::Begin => true,
        Sweep::Continue => model.began,
        Sweep::Complete | Sweep::Whole => false,
    };
    journal.checkpoint(delta)
}

pub fn retire<D: Disk>(
    journal: &mut Journal<D>,
    model: &mut Model,
    chance: &mut Chance,
) -> Result<(), JournalError> {
    let below = journal.checkpoint_position();
    let bytes = journal.segment_bytes();
    let sealed: Vec<u64> = journal
        .segments()
        .filter(|segment| segment.sealed && Position((segment.number + 1) * bytes) <= below)
        .map(|segment| segment.number)
        .collect();
    for segment in sealed {
        if chance.percent(60) {
            // One that a crash brought back is retired again; what counts is the first time.
            model.retired.entry(segment).or_insert(journal.last_sequence());
            journal.retire(segment)?;
        }
    }
    Ok(())
}
