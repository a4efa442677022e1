//! What can go wrong, one enum per kind of operation.
//!
//! Each message says what was asked, what was wrong and what to do. An error of the medium is
//! reported once as what it is; from then on the journal is poisoned and says so, because after a
//! failed write or sync nobody knows what the medium holds, and asking again may wrongly succeed.

use std::io;

/// Why a directory could not be opened as a journal.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory holds files, but not ours.
    #[error(
        "cannot open the journal: the directory holds {example:?} but no FORMAT file of \
         leasehold's; choose an empty directory or one made by leasehold"
    )]
    Foreign {
        /// One of the names found.
        example: String,
    },
    /// The directory was written by a newer release.
    #[error(
        "cannot open the journal: its directory has format {found}, this release reads format \
         {supported}; start a release that knows format {found}"
    )]
    NewerFormat {
        /// The format the directory has.
        found: u32,
        /// The newest format this release reads.
        supported: u32,
    },
    /// Bytes that were once durable no longer read back.
    #[error(
        "cannot open the journal: {file} is damaged at byte {offset}: {detail}; nothing was \
         changed. Restore the directory from a copy, or check the medium and its cables first"
    )]
    Damaged {
        /// Name of the file within the directory.
        file: String,
        /// Byte within the file.
        offset: u64,
        /// What was expected and what was found.
        detail: String,
    },
    /// The options contradict themselves.
    #[error("cannot open the journal: option {option} {problem}")]
    Options {
        /// Name of the option.
        option: &'static str,
        /// What is wrong with it and what is allowed.
        problem: String,
    },
    /// The medium failed.
    #[error("cannot open the journal: {step} {file}: {source}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// To which file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError<E> {
    /// The journal could not be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The visitor refused a record.
    #[error("the record at sequence {sequence} could not be replayed: {source}")]
    Visit {
        /// Which record.
        sequence: u64,
        /// What the visitor said.
        source: E,
    },
}

/// Why a journal did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// An earlier write or sync failed. Nothing can be written until the directory is reopened.
    #[error(
        "the journal stopped at its first failure ({first}); what was not confirmed before it may \
         or may not be durable. Check the medium, then reopen"
    )]
    Poisoned {
        /// The failure that ended it.
        first: String,
    },
    /// The medium failed just now. The journal is poisoned from here on.
    #[error("{step} {file}: {source}; the journal stops here")]
    Io {
        /// What was being done.
        step: &'static str,
        /// To which file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// There is no room on the medium. Nothing was harmed; room that was set aside stays usable.
    #[error(
        "the disk is full: {needed} bytes of room were asked for, {available} are set aside and no \
         more can be; free some space, then try again"
    )]
    Full {
        /// Bytes asked for.
        needed: u64,
        /// Bytes set aside for the journal.
        available: u64,
    },
    /// A group larger than a segment holds. Nothing was harmed.
    #[error("a group of {asked} bytes was asked for, the largest is {largest} bytes; split it")]
    TooLarge {
        /// Bytes asked for.
        asked: u64,
        /// The most a group may have.
        largest: u64,
    },
    /// The segment is still needed, or unknown. Nothing was harmed.
    #[error("segment {segment} cannot be retired: {reason}")]
    NotRetirable {
        /// Which segment.
        segment: u64,
        /// Why not.
        reason: &'static str,
    },
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No journal bytes are kept at that position: never written, or its segment was retired.
    #[error("no record of {size} bytes at position {position}: {reason}")]
    Absent {
        /// The position asked for.
        position: u64,
        /// The size asked for.
        size: u32,
        /// Why there is none.
        reason: &'static str,
    },
    /// The bytes are there and are not what was written.
    #[error(
        "the record of {size} bytes at byte {offset} of {file} is damaged: {detail}; restore the \
         directory from a copy, or check the medium"
    )]
    Damaged {
        /// Name of the file within the directory.
        file: String,
        /// Byte within the file at which the record's bytes start.
        offset: u64,
        /// The size asked for.
        size: u32,
        /// What was expected and what was found.
        detail: String,
    },
    /// The medium failed.
    #[error("read {file} at byte {offset}: {source}")]
    Io {
        /// Name of the file within the directory.
        file: String,
        /// Byte within the file.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
}
