//! The outside world, in three slits: [`Disk`], [`Clock`] and [`Entropy`].
//!
//! Everything above this crate is a function of what comes in here, so a test that brings its own
//! disk, clock and chance can replay any run from a seed. `os.rs` is the one file of the product
//! that talks to the machine's clock, disk and random numbers; `memory.rs` is a disk that needs no
//! machine.
//!
//! The disk is one flat directory of files that are read and written at offsets. Rejected: paths
//! and subdirectories (a data directory needs none), memory mapping (a full disk becomes SIGBUS and
//! a failed write-back is silent), and an asynchronous interface (group commit wants exactly one
//! write and one sync at a time, and a thread that waits for the disk is the clearest queue).

mod memory;
mod os;

use std::io;

pub use memory::{MemDisk, MemFile};
pub use os::{OpenDiskError, OsClock, OsDisk, OsEntropy, OsFile};

/// Name of the file that says a directory is ours and which format it has.
pub const FORMAT_NAME: &str = "FORMAT";

/// Name under which [`FORMAT_NAME`] is written before it is renamed into place. A directory that
/// holds nothing else was left by a crash during its creation and counts as empty.
pub const FORMAT_NEW_NAME: &str = "FORMAT.new";

/// What the blocks of a newly created file are, when [`Disk::create`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// Zeros are written and synced. Later syncs of overwritten bytes change no metadata, which
    /// makes them about 2.5 times faster than syncs of a file that grows.
    Written,
    /// Room is set aside but not written: quick to make, slower to sync the first time each block
    /// is used.
    Reserved,
}

/// One flat directory of files.
///
/// A clone is another handle on the same directory. A crash may lose or keep every write that was
/// not followed by a sync of its file, and every change of names not followed by [`sync_names`].
///
/// [`sync_names`]: Disk::sync_names
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;

    /// True: long chores run on a thread of their own. False (simulation): they run inline, so
    /// that one seed gives one order of operations.
    const THREADS: bool;

    /// Creates the file `name` with a length of `bytes`, all zeros, length synced.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken; `StorageFull` if there is no room. After any error
    /// there is no file of that name (unless it was there before).
    fn create(&self, name: &str, bytes: u64, blocks: Blocks) -> io::Result<Self::File>;

    /// Opens the existing file `name` for reading and writing.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// The names of all files, sorted.
    ///
    /// # Errors
    /// Whatever the medium reports.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Gives the file `from` the name `to`, atomically; a file already called `to` is replaced.
    ///
    /// # Errors
    /// `NotFound` if there is no `from`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes the name `name`. Open handles stay usable.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes every creation, rename and removal so far durable.
    ///
    /// # Errors
    /// After an error it is unknown which names survive a crash; do not retry.
    fn sync_names(&self) -> io::Result<()>;
}

/// An open file, read and written at byte offsets. Handles may be shared between threads.
#[allow(clippy::len_without_is_empty)]
pub trait DiskFile: Send + Sync + 'static {
    /// The file's length in bytes.
    ///
    /// # Errors
    /// Whatever the medium reports.
    fn len(&self) -> io::Result<u64>;

    /// Reads up to `out.len()` bytes from `offset`; 0 means end of file.
    ///
    /// # Errors
    /// Whatever the medium reports.
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes up to `bytes.len()` bytes at `offset` and says how many; may be short. A write
    /// beyond the end makes the file longer.
    ///
    /// # Errors
    /// `StorageFull`, or whatever the medium reports; what was written is then unknown.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes all earlier writes to this file, and its length, durable.
    ///
    /// # Errors
    /// After an error it is unknown what is durable, and a second call may wrongly succeed: do
    /// not retry.
    fn sync(&self) -> io::Result<()>;

    /// Sets the length, cutting off the end or adding zeros.
    ///
    /// # Errors
    /// Whatever the medium reports.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`, continuing after short writes and interruptions.
    ///
    /// # Errors
    /// Those of [`write_at`](DiskFile::write_at); `WriteZero` if the medium takes nothing more.
    fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    bytes = &bytes[count..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Fills `out` from `offset`, continuing after short reads and interruptions.
    ///
    /// # Errors
    /// Those of [`read_at`](DiskFile::read_at); `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        if self.read_full_at(out, offset)? < out.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Reads until `out` is full or the file ends, and says how many bytes were read.
    ///
    /// # Errors
    /// Those of [`read_at`](DiskFile::read_at).
    fn read_full_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < out.len() {
            match self.read_at(&mut out[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// Two clocks: one that never goes back, and one that people read.
pub trait Clock: Send {
    /// Microseconds since an arbitrary point of this process's life. Never goes back.
    fn monotonic_us(&self) -> u64;

    /// Microseconds since 1970-01-01 UTC. May jump either way.
    fn wall_us(&self) -> u64;
}

/// Random bytes.
pub trait Entropy: Send {
    /// Fills `out` with random bytes.
    ///
    /// # Errors
    /// Whatever the source reports; `out` is then not to be used.
    fn fill(&mut self, out: &mut [u8]) -> io::Result<()>;

    /// A random number.
    ///
    /// # Errors
    /// Those of [`fill`](Entropy::fill).
    fn next_u64(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}
