//! The segment files: which are kept, which is being filled, and which lie ready as spares.
//!
//! A spare is a file of full length under a name of its own. It becomes the next segment by being
//! renamed; the name is made durable by the next sync, before anything in the file is confirmed.
//! Rejected: preparing the next segment under its final name, which lets two preparations in
//! flight finish in the wrong order and leave a hole.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use leasehold_env::{Blocks, Disk};

use crate::directory::{segment_name, spare_name};

/// Sealed segments whose files are kept open for reading.
const OPEN_MAX: usize = 64;

/// A file of full length, ready to become a segment.
#[derive(Debug)]
pub(crate) struct Spare<F> {
    pub name: String,
    pub file: F,
    /// Its blocks have been written before, so syncs of it are quick from the start.
    pub written: bool,
}

#[derive(Debug)]
pub(crate) struct Segments<D: Disk> {
    disk: D,
    /// Length of every segment and spare.
    pub bytes: u64,
    /// The segment being filled. Older ones are sealed.
    pub current: u64,
    /// All kept segments, with those files that are open.
    files: BTreeMap<u64, Option<Arc<D::File>>>,
    spares: VecDeque<Spare<D::File>>,
    next_spare: u64,
    /// Names changed since they were last synced.
    pub names_dirty: bool,
    /// The current segment's blocks are written up to here, so syncs before it are quick.
    pub zeroed_to: u64,
}

impl<D: Disk> Segments<D> {
    pub fn new(disk: D, bytes: u64, kept: &[u64], current: u64, next_spare: u64) -> Self {
        let files = kept.iter().map(|&number| (number, None)).collect();
        let spares = VecDeque::new();
        let names_dirty = false;
        Self { disk, bytes, current, files, spares, next_spare, names_dirty, zeroed_to: 0 }
    }

    pub fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.files.keys().copied()
    }

    pub fn contains(&self, number: u64) -> bool {
        self.files.contains_key(&number)
    }

    /// The open file of a kept segment. Files from `pinned` on stay open: the handle that wrote
    /// must be the one that syncs, or an error of the writing could be reported to nobody.
    pub fn file(&mut self, number: u64, pinned: u64) -> io::Result<Arc<D::File>> {
        if let Some(Some(file)) = self.files.get(&number) {
            return Ok(Arc::clone(file));
        }
        let open = self.files.range(..pinned).filter(|(_, file)| file.is_some()).count();
        if open >= OPEN_MAX {
            self.files.range_mut(..pinned).for_each(|(_, file)| *file = None);
        }
        let file = Arc::new(self.disk.open(&segment_name(number))?);
        self.files.insert(number, Some(Arc::clone(&file)));
        Ok(file)
    }

    /// Forgets a segment and says whether it was there.
    pub fn forget(&mut self, number: u64) -> bool {
        self.files.remove(&number).is_some()
    }

    pub fn spares(&self) -> usize {
        self.spares.len()
    }

    /// Whether the next segment's blocks are written already.
    pub fn has_written_spare(&self) -> bool {
        self.spares.iter().any(|spare| spare.written)
    }

    pub fn push_spare(&mut self, spare: Spare<D::File>) {
        self.spares.push_back(spare);
    }

    /// A name no spare has had.
    pub fn new_spare_name(&mut self) -> String {
        self.next_spare += 1;
        spare_name(self.next_spare)
    }

    /// Sets room aside for one more segment, without writing it.
    ///
    /// # Errors
    /// `StorageFull` harms nothing.
    pub fn reserve_spare(&mut self) -> io::Result<()> {
        let name = self.new_spare_name();
        let file = self.disk.create(&name, self.bytes, Blocks::Reserved)?;
        self.spares.push_back(Spare { name, file, written: false });
        Ok(())
    }

    /// Gives the room of a spare back to the disk, if there is one.
    pub fn drop_spare(&mut self) -> io::Result<bool> {
        let plain = self.spares.iter().position(|spare| !spare.written).unwrap_or(0);
        let Some(spare) = self.spares.remove(plain) else { return Ok(false) };
        self.names_dirty = true;
        self.disk.remove(&spare.name)?;
        Ok(true)
    }

    /// Makes a spare, of which there must be one, the current segment.
    pub fn roll(&mut self) -> io::Result<()> {
        let number = self.current + 1;
        self.adopt(number)?;
        self.current = number;
        Ok(())
    }

    /// Makes a spare, of which there must be one, the segment `number`.
    pub fn adopt(&mut self, number: u64) -> io::Result<()> {
        // One whose blocks are written, if any: those sync faster.
        let best = self.spares.iter().position(|spare| spare.written).unwrap_or(0);
        let spare = self.spares.remove(best).expect("the caller made sure of a spare");
        self.names_dirty = true;
        self.disk.rename(&spare.name, &segment_name(number))?;
        self.zeroed_to = if spare.written { self.bytes } else { 0 };
        self.files.insert(number, Some(Arc::new(spare.file)));
        Ok(())
    }

    /// Turns a sealed segment into a spare, or removes it if there are `spares_max` already.
    pub fn recycle(&mut self, number: u64, spares_max: usize) -> io::Result<()> {
        let from = segment_name(number);
        self.files.remove(&number);
        self.names_dirty = true;
        if self.spares.len() >= spares_max {
            return self.disk.remove(&from);
        }
        let name = self.new_spare_name();
        self.disk.rename(&from, &name)?;
        let file = self.disk.open(&name)?;
        self.spares.push_back(Spare { name, file, written: true });
        Ok(())
    }
}
