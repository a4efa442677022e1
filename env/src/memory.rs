//! A disk in memory: for tests, for programs that want locks and queues only while they run.
//!
//! Nothing outlives the process, so a sync has nothing to do. A file is a sparse map of chunks:
//! room that was set aside and never written costs nothing, and a removed file gives its memory
//! back as soon as its last handle is gone. One long buffer per file was rejected, because a
//! journal sets whole segments aside ahead of use.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use crate::{Blocks, Disk, DiskFile};

/// The unit in which memory is taken and given back.
const CHUNK: usize = 64 << 10;

/// A flat directory in memory. Clones share it; it goes with the last one.
#[derive(Clone, Debug, Default)]
pub struct MemDisk {
    files: Arc<Mutex<BTreeMap<String, MemFile>>>,
}

/// A file of a [`MemDisk`]. Clones are handles on the same file.
#[derive(Clone, Debug, Default)]
pub struct MemFile {
    content: Arc<RwLock<Content>>,
}

#[derive(Debug, Default)]
struct Content {
    len: u64,
    /// By number; one that is missing is all zeros.
    chunks: BTreeMap<u64, Box<[u8]>>,
}

impl MemDisk {
    /// An empty disk.
    ///
    /// ```
    /// use leasehold_env::{Blocks, Disk, DiskFile, MemDisk};
    /// let disk = MemDisk::new();
    /// let file = disk.create("a", 1 << 30, Blocks::Written)?;
    /// assert_eq!((file.len()?, disk.memory_bytes()), (1 << 30, 0));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Memory behind all files that have a name, bytes.
    pub fn memory_bytes(&self) -> u64 {
        let chunks = |file: &MemFile| file.read().chunks.len();
        self.lock().values().map(|file| (chunks(file) * CHUNK) as u64).sum()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, MemFile>> {
        self.files.lock().expect("nobody panics while holding the names")
    }
}

impl MemFile {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Content> {
        self.content.read().expect("nobody panics while holding a file")
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Content> {
        self.content.write().expect("nobody panics while holding a file")
    }
}

impl Disk for MemDisk {
    type File = MemFile;
    /// Writing a checkpoint copies as many bytes as on any disk: not on the owner's thread.
    const THREADS: bool = true;

    fn create(&self, name: &str, bytes: u64, _: Blocks) -> io::Result<MemFile> {
        let mut files = self.lock();
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = MemFile::default();
        file.write().len = bytes;
        files.insert(name.to_owned(), file.clone());
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<MemFile> {
        self.lock().get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let gone = self.lock().remove(name);
        gone.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Cuts `len` bytes from `offset` on at the borders of chunks: number, place within, length.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % CHUNK as u64) as usize;
        let piece = (CHUNK - within).min(len - done);
        done += piece;
        (piece > 0).then_some((at / CHUNK as u64, within, piece))
    })
}

impl DiskFile for MemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.read().len)
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.read();
        let left = content.len.saturating_sub(offset);
        let count = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut rest = &mut out[..count];
        for (number, within, piece) in pieces(offset, count) {
            let (here, after) = rest.split_at_mut(piece);
            match content.chunks.get(&number) {
                Some(chunk) => here.copy_from_slice(&chunk[within..within + piece]),
                None => here.fill(0),
            }
            rest = after;
        }
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        let mut content = self.write();
        let mut rest = bytes;
        for (number, within, piece) in pieces(offset, bytes.len()) {
            let (here, after) = rest.split_at(piece);
            rest = after;
            // Whoever zeroes a part of a file, before or after its use, needs no memory for that.
            if here.iter().all(|byte| *byte == 0) {
                if piece == CHUNK {
                    content.chunks.remove(&number);
                }
                if !content.chunks.contains_key(&number) {
                    continue;
                }
            }
            let fresh = || vec![0; CHUNK].into_boxed_slice();
            let chunk = content.chunks.entry(number).or_insert_with(fresh);
            chunk[within..within + piece].copy_from_slice(here);
        }
        if !bytes.is_empty() {
            content.len = content.len.max(end);
        }
        Ok(bytes.len())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut content = self.write();
        if bytes < content.len {
            content.chunks.split_off(&bytes.div_ceil(CHUNK as u64));
            // What is cut off must be zeros if the file grows over it again.
            if let Some(chunk) = content.chunks.get_mut(&(bytes / CHUNK as u64)) {
                chunk[(bytes % CHUNK as u64) as usize..].fill(0);
            }
        }
        content.len = bytes;
        Ok(())
    }
}
