//! The operating system's disk, clocks and random numbers.
//!
//! [`OsDisk`] owns a directory: it holds an exclusive `flock` on the file `LOCK` in it for as long
//! as any clone lives. The kernel drops that lock with the process, so a crash never leaves a
//! directory locked. Rejected: a pid file alone, which a crash leaves behind and a recycled pid
//! keeps alive; the pid is written into `LOCK` only to be named in the refusal.
//!
//! The monotonic clock is the one that stands still while the machine sleeps: leases then last
//! longer than asked, which is the safe side for whoever grants them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};

use crate::{Blocks, Clock, Disk, DiskFile, Entropy, FORMAT_NAME, FORMAT_NEW_NAME};

/// The file that carries the directory's lock. Not listed by [`Disk::list`].
const LOCK_NAME: &str = "LOCK";

/// Zeros written at a time when a file's blocks are to be written ahead.
const ZEROS: &[u8] = &[0; 1 << 20];

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenDiskError {
    /// Another process, or this one, has it open.
    #[error(
        "cannot open data directory {directory}: it is in use by {}; stop that one first, or give \
         this one a directory of its own",
        pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked {
        /// The directory asked for.
        directory: PathBuf,
        /// The holder's process id, if it could be read.
        pid: Option<u32>,
    },
    /// It cannot be written to.
    #[error(
        "cannot open data directory {directory}: it is read-only ({reason}); make it writable for \
         the user this process runs as, or choose another directory"
    )]
    ReadOnly {
        /// The directory asked for.
        directory: PathBuf,
        /// What said so.
        reason: String,
    },
    /// It holds files, but not ours.
    #[error(
        "cannot open data directory {directory}: it is not empty and was not made by leasehold \
         (it holds {example:?} but no {FORMAT_NAME} file); choose an empty or a new directory"
    )]
    Foreign {
        /// The directory asked for.
        directory: PathBuf,
        /// One of the names in it.
        example: String,
    },
    /// The path exists and is something else.
    #[error(
        "cannot open data directory {directory}: it is a file, not a directory; name a directory"
    )]
    NotDirectory {
        /// The path asked for.
        directory: PathBuf,
    },
    /// Anything else the system reported.
    #[error("cannot open data directory {directory}: {step}: {source}")]
    Io {
        /// The directory asked for.
        directory: PathBuf,
        /// What was being done.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A directory of the file system, locked for this process.
#[derive(Clone, Debug)]
pub struct OsDisk {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// Opened once: syncing it makes names durable.
    directory: File,
    /// Held for the life of the last clone; closing it releases the lock.
    _lock: File,
}

impl OsDisk {
    /// Opens `path`, creating the directory (and its parents) if missing, and locks it.
    ///
    /// ```
    /// let scratch = tempfile::tempdir()?;
    /// let disk = leasehold_env::OsDisk::open(scratch.path().join("data"))?;
    /// assert!(leasehold_env::OsDisk::open(disk.path()).is_err(), "one owner at a time");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// See [`OpenDiskError`]. A directory that is refused is left as it was.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenDiskError> {
        let path = path.as_ref();
        let failed = |step| move |source| refusal(path, step, source);
        if path.exists() && !path.is_dir() {
            return Err(OpenDiskError::NotDirectory { directory: path.to_owned() });
        }
        let created = !path.exists();
        fs::create_dir_all(path).map_err(failed("create it"))?;
        if created && let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            File::open(parent)
                .and_then(|parent| parent.sync_all())
                .map_err(failed("sync the directory above it"))?;
        }
        check_writable(path)?;
        check_ours(path)?;
        let lock = take_lock(path)?;
        let directory = File::open(path).map_err(failed("open it"))?;
        let path = path.to_owned();
        Ok(Self { shared: Arc::new(Shared { path, directory, _lock: lock }) })
    }

    /// The directory's path, as it was given.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.shared.path.join(name)
    }
}

/// Root passes every permission check, so a directory without any write bit is refused by name:
/// whoever took the bits away meant it.
fn check_writable(path: &Path) -> Result<(), OpenDiskError> {
    let metadata =
        fs::metadata(path).map_err(|source| refusal(path, "read its permissions", source))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o222 == 0 {
        let reason = format!("its mode is {mode:04o}");
        return Err(OpenDiskError::ReadOnly { directory: path.to_owned(), reason });
    }
    Ok(())
}

fn check_ours(path: &Path) -> Result<(), OpenDiskError> {
    let names = list_names(path).map_err(|source| refusal(path, "list it", source))?;
    if names.iter().any(|name| name == FORMAT_NAME) {
        return Ok(());
    }
    match names.into_iter().find(|name| name != FORMAT_NEW_NAME) {
        Some(example) => Err(OpenDiskError::Foreign { directory: path.to_owned(), example }),
        None => Ok(()),
    }
}

fn take_lock(path: &Path) -> Result<File, OpenDiskError> {
    let failed = |step| move |source| refusal(path, step, source);
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join(LOCK_NAME))
        .map_err(failed("open its LOCK file"))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let pid = lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(OpenDiskError::Locked { directory: path.to_owned(), pid });
        }
        Err(error) => return Err(failed("lock its LOCK file")(error.into())),
    }
    lock.set_len(0)
        .and_then(|()| writeln!(lock, "{}", std::process::id()))
        .map_err(failed("write its LOCK file"))?;
    Ok(lock)
}

fn refusal(path: &Path, step: &'static str, source: io::Error) -> OpenDiskError {
    let directory = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            OpenDiskError::ReadOnly { directory, reason: format!("{step}: {source}") }
        }
        _ => OpenDiskError::Io { directory, step, source },
    }
}

/// Sorted names of everything in `path` except the lock. A name that is not UTF-8 cannot be ours;
/// it is listed with replacement characters, so that it still makes a directory foreign.
fn list_names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != LOCK_NAME {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

impl Disk for OsDisk {
    type File = OsFile;
    const THREADS: bool = true;

    fn create(&self, name: &str, bytes: u64, blocks: Blocks) -> io::Result<OsFile> {
        let path = self.path_of(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let file = OsFile { file };
        match allocate(&file, bytes, blocks) {
            Ok(()) => Ok(file),
            Err(error) => {
                fs::remove_file(&path)?;
                Err(error)
            }
        }
    }

    fn open(&self, name: &str) -> io::Result<OsFile> {
        let file = OpenOptions::new().read(true).write(true).open(self.path_of(name))?;
        Ok(OsFile { file })
    }

    fn list(&self) -> io::Result<Vec<String>> {
        list_names(&self.shared.path)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path_of(from), self.path_of(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path_of(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.shared.directory.sync_all()
    }
}

/// Room is set aside in one call first, so that a full disk is noticed before gigabytes of zeros
/// are written. A file system that cannot set room aside gets the zeros instead.
fn allocate(file: &OsFile, bytes: u64, blocks: Blocks) -> io::Result<()> {
    let mut write = blocks == Blocks::Written;
    if bytes > 0 {
        match fallocate(&file.file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => {}
            Err(rustix::io::Errno::OPNOTSUPP) => write = true,
            Err(error) => return Err(error.into()),
        }
    }
    if write {
        let mut offset = 0;
        while offset < bytes {
            let count = (bytes - offset).min(ZEROS.len() as u64);
            file.write_all_at(&ZEROS[..count as usize], offset)?;
            // Step by step: a sync of someone else's few bytes never waits for all of these.
            file.sync()?;
            offset += count;
        }
    }
    file.sync()
}

/// A file of an [`OsDisk`].
#[derive(Debug)]
pub struct OsFile {
    file: File,
}

impl DiskFile for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(out, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct OsClock {
    start: Instant,
}

impl OsClock {
    /// A clock whose monotonic time starts at zero now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for OsClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for OsClock {
    fn monotonic_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A clock set before 1970 reads as 0.
    fn wall_us(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

/// The kernel's random numbers, fit for names that must not be guessed.
#[derive(Debug)]
pub struct OsEntropy {
    source: File,
}

impl OsEntropy {
    /// Opens the kernel's source.
    ///
    /// # Errors
    /// If `/dev/urandom` cannot be opened.
    pub fn open() -> io::Result<Self> {
        Ok(Self { source: File::open("/dev/urandom")? })
    }
}

impl Entropy for OsEntropy {
    fn fill(&mut self, out: &mut [u8]) -> io::Result<()> {
        self.source.read_exact(out)
    }
}
