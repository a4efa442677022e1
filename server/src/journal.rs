//! `leasehold journal`: reads a data directory that no server has open, without changing a byte
//! of the journal.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use leasehold_core::Event;
use leasehold_env::{Disk, DiskFile, FORMAT_NAME, OpenDiskError, OsDisk, OsFile};
use leasehold_journal::{FrameInfo, RECORD_HEADER_BYTES, Report};
use serde_json::json;

use crate::failure::{Failure, REFUSED};
use crate::print;

/// Bytes of a frame's header; part of the frozen file format, see `docs/design/journal.md`.
const FRAME_HEADER_BYTES: usize = 56;

/// What can be done with a journal.
#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// Read everything in a data directory and check it
    Verify {
        /// The data directory
        directory: PathBuf,
    },
    /// Print the events in the segments of a data directory
    Dump(DumpArgs),
}

/// Arguments of `journal dump`.
#[derive(Debug, Args)]
pub struct DumpArgs {
    /// The data directory
    directory: PathBuf,
    /// The first event, by its sequence; older ones may be gone
    #[arg(long, value_name = "SEQUENCE", default_value = "0")]
    from: u64,
    /// How many events at most
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// Does it.
pub fn run(command: JournalCommand, json: bool) -> Result<ExitCode> {
    match command {
        JournalCommand::Verify { directory } => verify(&directory, json),
        JournalCommand::Dump(arguments) => dump(&arguments, json),
    }
}

/// Opens the directory as its only user. A directory that is none of ours is left alone: opening
/// would make it one.
fn open(directory: &Path) -> Result<OsDisk> {
    if !directory.join(FORMAT_NAME).is_file() {
        let wrong = "it is no data directory of leasehold; name one";
        return Err(Failure::usage(wrong).into());
    }
    OsDisk::open(directory).map_err(|error| match error {
        OpenDiskError::Locked { pid, .. } => {
            let who = pid.map_or("a process".to_owned(), |pid| format!("process {pid}"));
            let wrong = format!("{who} has it open; stop that one first, or copy the directory");
            Failure::new(REFUSED, wrong).into()
        }
        error => error.into(),
    })
}

/// Bytes of all segments, for the bar.
fn segment_bytes(disk: &OsDisk) -> u64 {
    let names = disk.list().unwrap_or_default();
    let segments = names.iter().filter(|name| name.starts_with("segment-"));
    segments.filter_map(|name| disk.open(name).and_then(|file| file.len()).ok()).sum()
}

fn verify(directory: &Path, json: bool) -> Result<ExitCode> {
    let asked = || format!("verify {}", directory.display());
    let disk = open(directory).with_context(asked)?;
    let bar = print::progress(Some(segment_bytes(&disk)), "verifying");
    let report = leasehold_journal::verify(&disk, |frame| bar.inc(frame.bytes));
    bar.finish_and_clear();
    let report = report.with_context(asked)?;
    let Report { frames, records, bytes, cells, last_sequence, clean, damage } = report;
    if let Some(damage) = damage {
        if json {
            let damage = json!({
                "file": damage.file, "offset": damage.offset, "detail": damage.detail,
            });
            print::line(&json!({ "sound": false, "damage": damage }).to_string())?;
        }
        let wrong = format!(
            "{} is damaged at byte {}: {}; restore the directory from a copy, and check the medium",
            damage.file, damage.offset, damage.detail
        );
        return Err(Failure::new(REFUSED, wrong)).with_context(asked);
    }
    let value = json!({
        "sound": true,
        "frames": frames,
        "records": records,
        "bytes": bytes,
        "checkpoint_cells": cells,
        "last_sequence": last_sequence,
        "closed_cleanly": clean,
    });
    print::either(json, &value, || {
        print::facts(&[
            ("journal", "sound".to_owned()),
            ("frames", frames.to_string()),
            ("events", records.to_string()),
            ("bytes", bytes.to_string()),
            ("checkpoint cells", cells.to_string()),
            ("last sequence", last_sequence.map_or("–".to_owned(), |last| last.to_string())),
            ("closed cleanly", if clean { "yes" } else { "no" }.to_owned()),
        ])
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Walks the frames that `verify` found whole, and reads their records itself: recovery would
/// start at the checkpoint, and leave its mark.
fn dump(arguments: &DumpArgs, json: bool) -> Result<ExitCode> {
    let asked = || format!("dump {}", arguments.directory.display());
    let disk = open(&arguments.directory).with_context(asked)?;
    let mut dump = Dump { disk: &disk, file: None, left: arguments.limit, json };
    let mut failed = None;
    let report = leasehold_journal::verify(&disk, |frame| {
        let wanted = frame.first_sequence + u64::from(frame.records) > arguments.from;
        if wanted && failed.is_none() && dump.left != Some(0) {
            failed = dump.frame(frame, arguments.from).err();
        }
    });
    if let Some(failed) = failed {
        return Err(failed).with_context(asked);
    }
    if let Some(damage) = report.with_context(asked)?.damage
        && dump.left != Some(0)
    {
        let wrong = format!("{} is damaged at byte {}", damage.file, damage.offset);
        let wrong = format!("{wrong}: {}; see journal verify", damage.detail);
        return Err(Failure::new(REFUSED, wrong)).with_context(asked);
    }
    Ok(ExitCode::SUCCESS)
}

struct Dump<'a> {
    disk: &'a OsDisk,
    /// The segment that was read last.
    file: Option<(String, OsFile)>,
    left: Option<u64>,
    json: bool,
}

impl Dump<'_> {
    fn frame(&mut self, frame: &FrameInfo, from: u64) -> Result<()> {
        let bytes = self.read(frame).with_context(|| format!("read {}", frame.file))?;
        let mut rest = bytes.get(FRAME_HEADER_BYTES..).context("the frame is too short")?;
        for sequence in (frame.first_sequence..).take(frame.records as usize) {
            let (record, behind) = split_record(rest).context("a record is too short")?;
            rest = behind;
            if sequence >= from && self.left != Some(0) {
                self.record(frame, sequence, record)?;
                self.left = self.left.map(|left| left - 1);
            }
        }
        Ok(())
    }

    fn read(&mut self, frame: &FrameInfo) -> std::io::Result<Vec<u8>> {
        if self.file.as_ref().is_none_or(|(name, _)| *name != frame.file) {
            self.file = Some((frame.file.clone(), self.disk.open(&frame.file)?));
        }
        let (_, file) = self.file.as_ref().expect("it was opened just now");
        let mut bytes = vec![0; usize::try_from(frame.bytes).unwrap_or(0)];
        let mut read = 0;
        while read < bytes.len() {
            match file.read_at(&mut bytes[read..], frame.offset + read as u64)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => read += count,
            }
        }
        Ok(bytes)
    }

    fn record(&self, frame: &FrameInfo, sequence: u64, record: &[u8]) -> Result<()> {
        let event = match Event::decode(record) {
            Ok(event) => format!("{event:?}"),
            Err(error) => format!("not understood: {error}"),
        };
        let FrameInfo { file, offset, time_us, epoch, .. } = frame;
        if self.json {
            let value = json!({
                "sequence": sequence,
                "time_us": time_us,
                "epoch": epoch,
                "file": file,
                "offset": offset,
                "bytes": record.len(),
                "event": event,
            });
            return print::line(&value.to_string());
        }
        let seconds = *time_us as f64 / 1e6;
        print::line(&format!("{sequence} {seconds:.6} {event}"))
    }
}

/// The first record, and what comes behind it.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = bytes.get(..4)?;
    let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
    let rest = bytes.get(RECORD_HEADER_BYTES..)?;
    rest.split_at_checked(length)
}
