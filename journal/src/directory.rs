//! The small files of a data directory, and what its large ones are called.
//!
//! `FORMAT` says that the directory is ours, which format it has and how long its segments are;
//! it is written once. `CLOSED` exists only while nobody has the directory open and everything in
//! it is durable: it says exactly where the journal ends, so that an end that was lost later is
//! noticed instead of being taken for the torn tail of a crash.

use std::io;

use leasehold_env::{Blocks, Disk, DiskFile, FORMAT_NAME, FORMAT_NEW_NAME};

use crate::error::OpenError;
use crate::frame::{crc, u32_at, u64_at};

/// The newest directory format this release reads, and the one it writes.
pub(crate) const FORMAT: u32 = 1;

/// Name of the clean-close mark.
pub(crate) const CLOSED_NAME: &str = "CLOSED";
/// Name under which the mark is written before it is renamed into place.
pub(crate) const CLOSED_NEW_NAME: &str = "CLOSED.new";

const FORMAT_START: &str = "leasehold data directory, format ";
const SEGMENT_START: &str = "segment bytes ";
const SMALL_FILE_BYTES_MAX: u64 = 4096;

pub(crate) fn segment_name(number: u64) -> String {
    format!("segment-{number:016x}.log")
}

pub(crate) fn spare_name(number: u64) -> String {
    format!("spare-{number:016x}.log")
}

pub(crate) fn checkpoint_name(generation: u64) -> String {
    format!("checkpoint-{generation:016x}.ckpt")
}

/// Numbers in names are below this, so that every position fits 64 bits. A name with a larger one
/// is not ours.
const NUMBER_BOUND: u64 = 1 << 33;

/// The numbers, ascending, in those `names` that read `start`, 16 hex digits, `end`.
pub(crate) fn numbers(names: &[String], start: &str, end: &str) -> Vec<u64> {
    let mut numbers: Vec<u64> = names
        .iter()
        .filter_map(|name| name.strip_prefix(start)?.strip_suffix(end))
        .filter(|digits| digits.len() == 16)
        .filter_map(|digits| u64::from_str_radix(digits, 16).ok())
        .filter(|number| *number < NUMBER_BOUND)
        .collect();
    numbers.sort_unstable();
    numbers
}

pub(crate) fn segment_numbers(names: &[String]) -> Vec<u64> {
    numbers(names, "segment-", ".log")
}

pub(crate) fn spare_numbers(names: &[String]) -> Vec<u64> {
    numbers(names, "spare-", ".log")
}

pub(crate) fn checkpoint_numbers(names: &[String]) -> Vec<u64> {
    numbers(names, "checkpoint-", ".ckpt")
}

/// Wraps what the system said about `file`.
pub(crate) fn failed<'a>(
    step: &'static str,
    file: &'a str,
) -> impl FnOnce(io::Error) -> OpenError + 'a {
    move |source| OpenError::Io { step, file: file.to_owned(), source }
}

/// Checks that the directory is ours, or makes an empty one so. Returns its segments' length,
/// which is the one asked for only if the directory is new.
pub(crate) fn claim<D: Disk>(disk: &D, segment_bytes: u64) -> Result<u64, OpenError> {
    let names = disk.list().map_err(failed("list", "."))?;
    if names.iter().any(|name| name == FORMAT_NAME) {
        return read_format(disk);
    }
    if let Some(example) = names.iter().find(|name| *name != FORMAT_NEW_NAME) {
        return Err(OpenError::Foreign { example: example.clone() });
    }
    let text = format!("{FORMAT_START}{FORMAT}\n{SEGMENT_START}{segment_bytes}\n");
    replace(disk, FORMAT_NEW_NAME, FORMAT_NAME, text.as_bytes())
        .map_err(failed("create", FORMAT_NAME))?;
    Ok(segment_bytes)
}

/// The segments' length of a directory that is ours.
pub(crate) fn read_format<D: Disk>(disk: &D) -> Result<u64, OpenError> {
    let bytes = read_small(disk, FORMAT_NAME).map_err(failed("read", FORMAT_NAME))?;
    let damaged = || OpenError::Damaged {
        file: FORMAT_NAME.to_owned(),
        offset: 0,
        detail: "it does not read as a leasehold format file".to_owned(),
    };
    let text = String::from_utf8(bytes).map_err(|_| damaged())?;
    let (first, rest) = text.split_once('\n').ok_or_else(damaged)?;
    let found = first.strip_prefix(FORMAT_START).and_then(|digits| digits.parse().ok());
    let found: u32 = found.ok_or_else(damaged)?;
    if found > FORMAT {
        return Err(OpenError::NewerFormat { found, supported: FORMAT });
    }
    let digits = rest.strip_prefix(SEGMENT_START).and_then(|rest| rest.strip_suffix('\n'));
    let segment_bytes = digits.and_then(|digits| digits.parse().ok()).ok_or_else(damaged)?;
    // Writing what was understood must give what was read: no second spelling is accepted.
    let again = format!("{FORMAT_START}{FORMAT}\n{SEGMENT_START}{segment_bytes}\n");
    if again != text || crate::options::check_segment_bytes(segment_bytes).is_err() {
        return Err(damaged());
    }
    Ok(segment_bytes)
}

/// Where everything ended when the directory was last closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    /// Sequence of the last record.
    pub sequence: u64,
    /// End of the last frame.
    pub position: u64,
    /// Epoch of the run that closed it.
    pub epoch: u32,
    /// Newest checkpoint generation, 0 if there is none.
    pub generation: u64,
    /// Length of that generation's file.
    pub generation_bytes: u64,
}

const CLOSED_MAGIC: &[u8; 8] = b"LHCLOSED";
const CLOSED_BYTES: usize = 48;

impl Closed {
    fn encode(self) -> [u8; CLOSED_BYTES] {
        let mut out = [0; CLOSED_BYTES];
        out[0..8].copy_from_slice(CLOSED_MAGIC);
        out[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        out[16..24].copy_from_slice(&self.position.to_le_bytes());
        out[24..32].copy_from_slice(&self.generation.to_le_bytes());
        out[32..40].copy_from_slice(&self.generation_bytes.to_le_bytes());
        out[40..44].copy_from_slice(&self.epoch.to_le_bytes());
        let sum = crc(&out[..44]);
        out[44..48].copy_from_slice(&sum.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() != CLOSED_BYTES || bytes[..8] != *CLOSED_MAGIC {
            return Err("it does not read as a clean-close mark");
        }
        if crc(&bytes[..44]) != u32_at(bytes, 44) {
            return Err("the clean-close mark's checksum does not match");
        }
        Ok(Self {
            sequence: u64_at(bytes, 8),
            position: u64_at(bytes, 16),
            generation: u64_at(bytes, 24),
            generation_bytes: u64_at(bytes, 32),
            epoch: u32_at(bytes, 40),
        })
    }

    /// Puts the mark in place, durably.
    pub fn store<D: Disk>(self, disk: &D) -> io::Result<()> {
        replace(disk, CLOSED_NEW_NAME, CLOSED_NAME, &self.encode())
    }

    /// Reads the mark, if there is one.
    pub fn load<D: Disk>(disk: &D, names: &[String]) -> Result<Option<Self>, OpenError> {
        if !names.iter().any(|name| name == CLOSED_NAME) {
            return Ok(None);
        }
        let bytes = read_small(disk, CLOSED_NAME).map_err(failed("read", CLOSED_NAME))?;
        Self::decode(&bytes).map(Some).map_err(|detail| OpenError::Damaged {
            file: CLOSED_NAME.to_owned(),
            offset: 0,
            detail: detail.to_owned(),
        })
    }
}

/// Writes a small file under `draft`, syncs it and gives it its `name`, durably.
fn replace<D: Disk>(disk: &D, draft: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    match disk.remove(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(draft, 0, Blocks::Reserved)?;
    file.write_all_at(bytes, 0)?;
    file.sync()?;
    disk.rename(draft, name)?;
    disk.sync_names()
}

fn read_small<D: Disk>(disk: &D, name: &str) -> io::Result<Vec<u8>> {
    let file = disk.open(name)?;
    let length = file.len()?.min(SMALL_FILE_BYTES_MAX);
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
