//! Checkpoints: what of the owner's state need not be replayed.
//!
//! The state is a map of cells, opaque keys to opaque values. A delta holds the cells that changed
//! since the delta before and is appended to the file of the current generation. Now and then the
//! owner sweeps: it starts a new generation and, spread over many deltas, puts every cell once
//! besides the changed ones. When the sweep is complete the new file alone holds everything and
//! the older ones go. So no delta is larger than the owner makes it, and no moment is spent
//! writing the whole state at once.
//!
//! Each generation names the one before it, so a file that went missing is noticed. Rejected: one
//! file per delta (names cost syncs of the directory), and rewriting the whole state each time
//! (five million waiting messages would be written again for one that was added).

use std::collections::BTreeMap;

use leasehold_env::Disk;

use crate::directory::{checkpoint_name, failed};
use crate::error::OpenError;
use crate::frame::{HEADER_BYTES, Header, Kind, Records, crc, record_header, start_sum, u64_at};
use crate::window::{Check, Window};

/// The owner's state, as far as checkpoints hold it.
pub type Cells = BTreeMap<Vec<u8>, Vec<u8>>;

const PUT: u8 = 1;
const DELETE: u8 = 2;

/// Bytes of the record in front of a delta's operations.
const META_BYTES: usize = 24;

/// Where in a sweep a delta stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweep {
    /// A new generation starts: from this delta on every cell will be put at least once.
    Begin,
    /// Changed cells, and during a sweep some of the others.
    Continue,
    /// With this delta every cell has been put since [`Begin`](Sweep::Begin).
    Complete,
    /// This delta alone holds every cell: `Begin` and `Complete` at once.
    Whole,
}

impl Sweep {
    pub(crate) fn begins(self) -> bool {
        matches!(self, Self::Begin | Self::Whole)
    }

    pub(crate) fn completes(self) -> bool {
        matches!(self, Self::Complete | Self::Whole)
    }
}

/// A delta being collected: what changed, in the order it is to be applied.
#[derive(Debug)]
pub struct Checkpoint {
    pub(crate) sweep: Sweep,
    pub(crate) ops: Vec<u8>,
}

impl Checkpoint {
    /// An empty delta.
    pub fn new(sweep: Sweep) -> Self {
        Self { sweep, ops: Vec::new() }
    }

    /// The same delta at another stage of a sweep: the owner may learn only while collecting it
    /// that it is the last of its sweep.
    pub fn at(self, sweep: Sweep) -> Self {
        Self { sweep, ..self }
    }

    /// The cell `key` now has this value. Key and value may have up to 2³² − 1 bytes each.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.ops.push(PUT);
        self.push(key);
        self.push(value);
    }

    /// There is no cell `key` any more.
    pub fn delete(&mut self, key: &[u8]) {
        self.ops.push(DELETE);
        self.push(key);
    }

    /// How many bytes the delta has. At most 1 GiB can be written as one delta.
    pub fn bytes(&self) -> usize {
        self.ops.len()
    }

    fn push(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("a cell's key or value is below 4 GiB");
        self.ops.extend_from_slice(&length.to_le_bytes());
        self.ops.extend_from_slice(bytes);
    }
}

/// Applies a delta's operations; false if they do not decode.
fn apply(mut ops: &[u8], cells: &mut Cells) -> bool {
    while let Some((&tag, rest)) = ops.split_first() {
        let Some((key, rest)) = take(rest) else { return false };
        ops = match tag {
            PUT => {
                let Some((value, rest)) = take(rest) else { return false };
                cells.insert(key.to_vec(), value.to_vec());
                rest
            }
            DELETE => {
                cells.remove(key);
                rest
            }
            _ => return false,
        };
    }
    true
}

fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

/// What a delta says about itself besides its frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub generation: u64,
    /// The generation before, 0 if this is the first.
    pub previous: u64,
    pub sweep: Sweep,
}

impl Meta {
    fn encode(self) -> [u8; META_BYTES] {
        let mut out = [0; META_BYTES];
        out[0..8].copy_from_slice(&self.generation.to_le_bytes());
        out[8..16].copy_from_slice(&self.previous.to_le_bytes());
        out[16] = match self.sweep {
            Sweep::Begin => 1,
            Sweep::Continue => 2,
            Sweep::Complete => 3,
            Sweep::Whole => 4,
        };
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != META_BYTES || bytes[17..] != [0; 7] {
            return None;
        }
        let sweep = match bytes[16] {
            1 => Sweep::Begin,
            2 => Sweep::Continue,
            3 => Sweep::Complete,
            4 => Sweep::Whole,
            _ => return None,
        };
        Some(Self { generation: u64_at(bytes, 0), previous: u64_at(bytes, 8), sweep })
    }
}

/// The bytes of a delta's frame. `header` needs everything but sizes and counts.
pub(crate) fn encode_delta(mut header: Header, meta: Meta, ops: &[u8], out: &mut Vec<u8>) {
    let mut summed = Vec::new();
    start_sum(&mut summed);
    out.clear();
    out.resize(HEADER_BYTES, 0);
    for bytes in [&meta.encode()[..], ops] {
        let length = u32::try_from(bytes.len()).expect("a delta is at most 1 GiB");
        let head = record_header(length, crc(bytes));
        summed.extend_from_slice(&head);
        out.extend_from_slice(&head);
        out.extend_from_slice(bytes);
    }
    header.payload_bytes = (out.len() - HEADER_BYTES) as u32;
    header.records = 2;
    header.seal(&mut summed, &mut out[..HEADER_BYTES]);
    out.resize(header.frame_bytes() as usize, 0);
}

/// A delta's meta record and its operations, out of its payload.
pub(crate) fn decode_delta(payload: &[u8]) -> Option<(Meta, &[u8])> {
    let mut records = Records::new(payload);
    let meta = records.next()?.ok()?;
    let ops = records.next()?.ok()?;
    if records.next().is_some() {
        return None;
    }
    Some((Meta::decode(&payload[meta.bytes])?, &payload[ops.bytes]))
}

/// One generation's file, as it was found.
#[derive(Clone, Copy, Debug)]
struct Survey {
    generation: u64,
    previous: u64,
    deltas: u64,
    complete: bool,
    /// End of the last whole delta.
    end: u64,
    /// Bytes lie behind it.
    torn: bool,
    /// Header of the last whole delta.
    last: Option<Header>,
}

/// What the checkpoint files hold.
#[derive(Debug, Default)]
pub(crate) struct Base {
    pub cells: Cells,
    /// The cells are the state after this record; 0 before the first.
    pub sequence: u64,
    /// Replay starts here.
    pub position: u64,
    pub epoch: u32,
    /// Newest generation with a whole delta, 0 if there is none, and its length up to the end of
    /// the last whole delta.
    pub generation: u64,
    pub generation_bytes: u64,
    /// Newest generation that has a file; the next one must be newer.
    pub generation_max: u64,
    /// Generations that hold the state together.
    pub chain: Vec<u64>,
    /// Generations that are no longer needed, or never had a whole delta.
    pub useless: Vec<u64>,
    /// The newest file is to be cut to this length: a crash tore its last delta.
    pub cut: Option<(u64, u64)>,
}

fn damaged(generation: u64, offset: u64, detail: impl Into<String>) -> OpenError {
    OpenError::Damaged { file: checkpoint_name(generation), offset, detail: detail.into() }
}

/// Reads the state out of the checkpoint files of `generations`, ascending.
pub(crate) fn load<D: Disk>(disk: &D, generations: &[u64]) -> Result<Base, OpenError> {
    let generation_max = generations.last().copied().unwrap_or(0);
    let mut base = Base { generation_max, ..Base::default() };
    let mut chain: Vec<Survey> = Vec::new();
    for &generation in generations.iter().rev() {
        if chain.last().is_some_and(|newer| newer.complete) {
            base.useless.push(generation);
            continue;
        }
        let found = survey(disk, generation)?;
        if found.torn && !chain.is_empty() {
            return Err(damaged(generation, found.end, "a newer generation says it was whole"));
        }
        if let Some(newer) = chain.last()
            && newer.previous != generation
        {
            return Err(missing(newer));
        }
        if found.deltas == 0 {
            base.useless.push(generation);
            continue;
        }
        if found.torn {
            base.cut = Some((generation, found.end));
        }
        chain.push(found);
    }
    if let Some(oldest) = chain.last()
        && !oldest.complete
        && oldest.previous != 0
    {
        return Err(missing(oldest));
    }
    for found in chain.iter().rev() {
        fold(disk, found, &mut base)?;
    }
    Ok(base)
}

fn missing(newer: &Survey) -> OpenError {
    let detail = format!("generation {} comes before it and is missing", newer.previous);
    damaged(newer.generation, 0, detail)
}

/// Walks one file without keeping anything, and judges what lies behind its last whole delta.
fn survey<D: Disk>(disk: &D, generation: u64) -> Result<Survey, OpenError> {
    let name = checkpoint_name(generation);
    let file = disk.open(&name).map_err(failed("open", &name))?;
    let mut window = Window::new(&file).map_err(failed("read", &name))?;
    let mut found = Survey {
        generation,
        previous: 0,
        deltas: 0,
        complete: false,
        end: 0,
        torn: false,
        last: None,
    };
    let fault = loop {
        let at = found.end;
        let step = window.frame(at, at, Check::Everything).map_err(failed("read", &name))?;
        let (header, payload) = match step {
            Ok(step) => step,
            Err(fault) => break fault,
        };
        let meta = decode_delta(payload).filter(|meta| meta.0.generation == generation);
        let Some((meta, _)) = meta.filter(|_| header.kind == Kind::Delta) else {
            break "the frame here is not a delta of this generation";
        };
        found.previous = meta.previous;
        found.deltas += 1;
        found.complete |= meta.sweep.completes();
        found.end += header.frame_bytes();
        found.last = Some(header);
    };
    found.torn = window.length() > found.end;
    let mut later = None;
    window
        .scan(found.end + 1, 0, |offset, _| later = later.or(Some(offset)))
        .map_err(failed("read", &name))?;
    match later {
        Some(later) => {
            let detail = format!("{fault}, but a later delta at byte {later} is whole");
            Err(damaged(generation, found.end, detail))
        }
        None => Ok(found),
    }
}

/// Applies one file's whole deltas to the cells.
fn fold<D: Disk>(disk: &D, found: &Survey, base: &mut Base) -> Result<(), OpenError> {
    let name = checkpoint_name(found.generation);
    let file = disk.open(&name).map_err(failed("open", &name))?;
    let mut window = Window::new(&file).map_err(failed("read", &name))?;
    let mut at = 0;
    while at < found.end {
        let step = window.frame(at, at, Check::Everything).map_err(failed("read", &name))?;
        let applied = step.ok().and_then(|(header, payload)| {
            let (_, ops) = decode_delta(payload)?;
            apply(ops, &mut base.cells).then_some(header)
        });
        let Some(header) = applied else {
            return Err(damaged(found.generation, at, "the delta's operations do not decode"));
        };
        at += header.frame_bytes();
    }
    if let Some(last) = &found.last {
        if last.first_sequence < base.sequence || last.durable < base.position {
            return Err(damaged(found.generation, 0, "it is older than the generation before it"));
        }
        base.sequence = last.first_sequence;
        base.position = last.durable;
        base.epoch = base.epoch.max(last.epoch);
    }
    base.chain.push(found.generation);
    base.generation = found.generation;
    base.generation_bytes = found.end;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_apply_in_order_and_refuse_garbage() {
        let mut delta = Checkpoint::new(Sweep::Continue);
        delta.put(b"a", b"1");
        delta.put(b"b", b"");
        delta.delete(b"a");
        let mut cells = Cells::new();
        assert!(apply(&delta.ops, &mut cells));
        assert_eq!(cells, Cells::from([(b"b".to_vec(), Vec::new())]));
        for length in 1..delta.ops.len() {
            let whole = [11, 21].contains(&length);
            assert_eq!(apply(&delta.ops[..length], &mut cells.clone()), whole, "cut to {length}");
        }
    }
}
