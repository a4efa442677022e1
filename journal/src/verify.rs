//! Checking a closed directory, and listing what is in it, without changing a byte.
//!
//! Opening reads only what must be replayed. This reads everything: also the segments below the
//! checkpoint, whose records are otherwise verified one by one as they are read back.

use leasehold_env::Disk;

use crate::directory::{failed, read_format, segment_name, segment_numbers};
use crate::error::OpenError;
use crate::frame::Kind;
use crate::options::Options;
use crate::recover;
use crate::window::{Check, Window};

/// One frame of a segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameInfo {
    /// Name of the file within the directory.
    pub file: String,
    /// Byte within the file.
    pub offset: u64,
    /// Bytes up to the next frame.
    pub bytes: u64,
    /// Sequence of its first record, or of the next one if it has none.
    pub first_sequence: u64,
    /// How many records it has. A frame without records marks an opening.
    pub records: u32,
    /// The opening it was written by.
    pub epoch: u32,
    /// Its turn's time.
    pub time_us: u64,
    /// Up to this position the journal was known to be durable.
    pub durable: u64,
}

/// The first place that does not read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Name of the file within the directory.
    pub file: String,
    /// Byte within the file.
    pub offset: u64,
    /// What was expected and what was found.
    pub detail: String,
}

/// What a directory holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Frames in segment files.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of those frames.
    pub bytes: u64,
    /// Cells in the checkpoint.
    pub cells: u64,
    /// Sequence of the last record, if the journal can be opened.
    pub last_sequence: Option<u64>,
    /// The directory was closed cleanly.
    pub clean: bool,
    /// The first damage found; a torn tail is none.
    pub damage: Option<Damage>,
}

/// Reads every frame, in order, and shows it to `visit`. Nothing is written.
///
/// # Errors
/// [`OpenError::Io`] and the refusals of a directory that is not ours. Damage is in the report.
pub fn verify<D: Disk>(disk: &D, mut visit: impl FnMut(&FrameInfo)) -> Result<Report, OpenError> {
    let mut report = Report::default();
    let options = Options { segment_bytes: read_format(disk)?, ..Options::default() };
    let names = disk.list().map_err(failed("list", "."))?;
    let mut before = None;
    for number in segment_numbers(&names) {
        let walked = walk(disk, number, &options, &mut report, &mut visit)?;
        if let Some((last, end, next)) = before
            && last + 1 == number
            && walked.is_some_and(|(first, ..)| first != next)
        {
            let detail = format!("record {next} is missing between this and the next segment");
            report.damaged(segment_name(last), end, detail);
        }
        before = walked.map(|(_, end, next)| (number, end, next));
    }
    let recovered = recover::open(disk.clone(), options).and_then(|recovery| {
        report.clean = recovery.clean();
        report.cells = recovery.cells().len() as u64;
        recovery.check()
    });
    match recovered {
        Ok(sequence) => report.last_sequence = Some(sequence),
        Err(OpenError::Damaged { file, offset, detail }) => report.damaged(file, offset, detail),
        Err(error) => return Err(error),
    }
    Ok(report)
}

/// Walks one segment. Returns its first record's sequence, the end of its last frame, and the
/// sequence after its last record; nothing if it has no frames.
fn walk<D: Disk>(
    disk: &D,
    number: u64,
    options: &Options,
    report: &mut Report,
    visit: &mut impl FnMut(&FrameInfo),
) -> Result<Option<(u64, u64, u64)>, OpenError> {
    let name = segment_name(number);
    let base = number * options.segment_bytes;
    let file = disk.open(&name).map_err(failed("open", &name))?;
    let mut window = Window::new(&file).map_err(failed("read", &name))?;
    let mut offset = 0;
    let mut span: Option<(u64, u64, u64)> = None;
    let fault = loop {
        let step = window
            .frame(offset, base + offset, Check::Everything)
            .map_err(failed("read", &name))?;
        let header = match step {
            Ok((header, _)) if header.kind != Kind::Delta => header,
            Ok(_) => break "the frame here is a checkpoint's",
            Err(fault) => break fault,
        };
        let bytes = header.frame_bytes();
        let first_sequence = header.first_sequence;
        visit(&FrameInfo {
            file: name.clone(),
            offset,
            bytes,
            first_sequence,
            records: header.records,
            epoch: header.epoch,
            time_us: header.time_us,
            durable: header.durable,
        });
        report.frames += 1;
        report.records += u64::from(header.records);
        report.bytes += bytes;
        offset += bytes;
        let next = first_sequence + u64::from(header.records);
        span = Some((span.map_or(first_sequence, |(first, ..)| first), offset, next));
    };
    let mut witness = None;
    window
        .scan(offset, base, |at, header| {
            if header.durable > base + offset {
                witness = witness.or(Some(at));
            }
        })
        .map_err(failed("read", &name))?;
    if let Some(at) = witness {
        let detail = format!("{fault}, but the frame at byte {at} says it had been durable");
        report.damaged(name, offset, detail);
    }
    Ok(span)
}

impl Report {
    fn damaged(&mut self, file: String, offset: u64, detail: String) {
        self.damage.get_or_insert(Damage { file, offset, detail });
    }
}
