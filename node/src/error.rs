//! Why a node cannot be opened, and why a command got no answer.

use leasehold_env::OpenDiskError;

/// Why a directory cannot be opened as a shard.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory is in use, foreign, or cannot be written.
    #[error(transparent)]
    Disk(#[from] OpenDiskError),
    /// The journal is damaged, of a newer format, or cannot be read.
    #[error(transparent)]
    Journal(#[from] leasehold_journal::OpenError),
    /// A journal record is not an event: its checksum is right, so a newer release wrote it.
    #[error(
        "journal record {sequence} cannot be understood ({error}); it was written by a newer \
         release: open the directory with that one"
    )]
    Event {
        /// The record's number.
        sequence: u64,
        /// What is wrong with it.
        error: leasehold_core::wire::DecodeError,
    },
    /// A checkpoint cell cannot be understood.
    #[error("{0}; it was written by a newer release: open the directory with that one")]
    Cell(#[from] leasehold_core::RestoreError),
    /// No randomness, no thread, no directory.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Why a command got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// The inbox is full.
    #[error("the node is overloaded: its inbox is full; try again later")]
    Overloaded,
    /// The node was closed, or stopped after its journal failed.
    #[error("the node has stopped: {0}")]
    Stopped(String),
    /// No answer within the time. What was asked may have happened: ask again with the same
    /// request id.
    #[error("no answer within {0:?}; it may have happened: repeat it with the same request id")]
    TimedOut(std::time::Duration),
}
