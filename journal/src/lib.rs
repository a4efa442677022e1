//! The ordered durable log, its checkpoints and its recovery.
//!
//! The journal stores opaque records: it knows nothing of events, locks or queues. It is one
//! endless byte space, cut into preallocated segment files and filled with checksummed frames; see
//! `docs/design/journal.md` for every byte and for what is assumed about the medium.
//!
//! A turn of the owner's loop looks like this:
//!
//! ```
//! use leasehold_journal::{Journal, Options};
//! # let scratch = tempfile::tempdir()?;
//! # let directory = scratch.path();
//! let disk = leasehold_env::OsDisk::open(directory)?;
//! let recovery = Journal::open(disk, Options::default())?;
//! let mut journal = recovery.replay(|record| {
//!     println!("{}: {} bytes", record.sequence, record.bytes.len());
//!     Ok::<(), std::convert::Infallible>(())
//! })?;
//!
//! journal.begin_turn(1_700_000_000_000_000);
//! journal.reserve_group(64)?; // the records up to the next reserve_group are one atomic group
//! let placed = journal.append(|out| out.extend_from_slice(b"a record"));
//! journal.write()?;
//! journal.sync()?; // now it survives power loss
//! assert_eq!(journal.durable_sequence(), placed.sequence);
//!
//! let mut bytes = Vec::new();
//! journal.read(placed.position, placed.size, &mut bytes)?;
//! assert_eq!(bytes, b"a record");
//! journal.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Rejected: a log per queue (each hot file costs a sync of its own), memory mapping (see
//! `leasehold-env`), a separate index of records (the owner keeps [`Placed`], and whoever lost it
//! replays), and retrying a failed sync (the kernel may have dropped the pages already).

mod cache;
mod checkpoint;
mod chores;
mod directory;
mod error;
mod frame;
mod journal;
mod options;
mod pages;
mod read;
mod recover;
mod segments;
mod upkeep;
mod verify;
mod window;

pub use checkpoint::{Cells, Checkpoint, Sweep};
pub use error::{JournalError, OpenError, ReadError, ReplayError};
pub use frame::RECORD_HEADER_BYTES;
pub use journal::{Journal, Placed, Position, SegmentInfo};
pub use options::Options;
pub use recover::{Record, Recovery};
pub use verify::{Damage, FrameInfo, Report, verify};
