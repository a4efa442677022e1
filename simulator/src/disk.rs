//! A disk in memory that can lose power, fill up, fail and rot, all from one seed.
//!
//! Every file has two images: *live*, what reads see, and *durable*, what was synced. Between them
//! lies a list of writes that a crash may keep, lose or tear at 512-byte sectors, each sector on
//! its own, which is also every reordering a real drive can do. The directory has the same two
//! images with a list of changed names between them. A name that depends on a lost one is lost
//! too, but otherwise any subset may survive: harsher than journaling file systems, which keep a
//! prefix.
//!
//! Operations are numbered, so that a test can stop the world, or fail, at each of them in turn.
//! Once stopped a disk refuses everything; [`SimDisk::crash`] then gives what may have survived.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leasehold_env::{Blocks, Disk, DiskFile};

/// What a disk writes as a whole.
pub const SECTOR_BYTES: usize = 512;

/// Random numbers from a seed (splitmix64): small, and good enough to choose faults.
#[derive(Clone, Debug)]
pub struct Chance {
    state: u64,
}

impl Chance {
    /// The sequence of numbers that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    /// True in `percent` of a hundred cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Which unsynced changes survive a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// All of them: the process died, the machine did not.
    KeepAll,
    /// None of them.
    LoseAll,
    /// Each write and each name is kept, lost, or (writes) torn, by chance.
    Some,
    /// Of every unsynced write each sector is kept or lost by chance.
    Torn,
}

/// The kinds of operation, for failing the N-th of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Operation {
    Create,
    Open,
    List,
    Rename,
    Remove,
    SyncNames,
    Length,
    Read,
    Write,
    Sync,
    SetLength,
}

/// A simulated directory. Clones are handles on the same one.
#[derive(Clone, Debug)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
}

/// An open file of a [`SimDisk`].
#[derive(Debug)]
pub struct SimFile {
    world: Arc<Mutex<World>>,
    id: u64,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// What leads from durable to live, oldest first.
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Add { name: String, id: u64 },
    Rename { from: String, to: String },
    Remove { name: String },
}

#[derive(Debug)]
struct World {
    chance: Chance,
    files: BTreeMap<u64, Content>,
    next_id: u64,
    live: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    pending: Vec<NameChange>,
    operations: u64,
    stop_at: Option<u64>,
    fail: Option<(Operation, u64, io::ErrorKind)>,
    capacity: u64,
    short_write_percent: u64,
}

impl SimDisk {
    /// An empty directory without limits or faults.
    pub fn new(seed: u64) -> Self {
        Self::from_files(seed, BTreeMap::new())
    }

    /// A directory that durably holds these files.
    pub fn from_files(seed: u64, files: BTreeMap<String, Vec<u8>>) -> Self {
        let mut world = World {
            chance: Chance::new(seed),
            files: BTreeMap::new(),
            next_id: 0,
            live: BTreeMap::new(),
            durable: BTreeMap::new(),
            pending: Vec::new(),
            operations: 0,
            stop_at: None,
            fail: None,
            capacity: u64::MAX,
            short_write_percent: 0,
        };
        for (name, bytes) in files {
            let id = world.next_id;
            world.next_id += 1;
            let content = Content { live: bytes.clone(), durable: bytes, pending: Vec::new() };
            world.files.insert(id, content);
            world.live.insert(name, id);
        }
        world.durable = world.live.clone();
        Self { world: Arc::new(Mutex::new(world)) }
    }

    /// Every file as it reads now.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let world = self.world();
        world.live.iter().map(|(name, id)| (name.clone(), world.files[id].live.clone())).collect()
    }

    /// Operations so far, failed ones included.
    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    /// Stops the world before operation number `operation` (the first is 0): it and all later ones
    /// fail. A write that is stopped may have begun.
    pub fn stop_at(&self, operation: u64) {
        self.world().stop_at = Some(operation);
    }

    /// Whether the world has stopped.
    pub fn stopped(&self) -> bool {
        let world = self.world();
        world.stop_at.is_some_and(|stop| world.operations > stop)
    }

    /// Makes the `nth` operation of this kind from now on (the first is 0) fail, once.
    pub fn fail(&self, operation: Operation, nth: u64, error: io::ErrorKind) {
        self.world().fail = Some((operation, nth, error));
    }

    /// Limits the sum of all files' lengths, in bytes.
    pub fn set_capacity(&self, bytes: u64) {
        self.world().capacity = bytes;
    }

    /// Lets this many of a hundred writes write only a part.
    pub fn set_short_writes(&self, percent: u64) {
        self.world().short_write_percent = percent;
    }

    /// Flips one bit of a file, in both images.
    ///
    /// # Panics
    /// If there is no such file or byte.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) {
        let mut world = self.world();
        let id = world.live[name];
        let content = world.files.get_mut(&id).expect("a name leads to a file");
        content.live[offset as usize] ^= 1 << bit;
        if let Some(byte) = content.durable.get_mut(offset as usize) {
            *byte ^= 1 << bit;
        }
    }

    /// What may be found after power comes back: a new disk, everything on it durable, no faults.
    /// This one stays as it is, so many crashes can be tried from one moment.
    pub fn crash(&self, mode: Crash, seed: u64) -> SimDisk {
        let world = self.world();
        let mut chance = Chance::new(seed);
        let names = world.surviving_names(mode, &mut chance);
        let files = names
            .into_iter()
            .map(|(name, id)| (name, world.files[&id].surviving(mode, &mut chance)))
            .collect();
        Self::from_files(chance.next_u64(), files)
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn surviving(&self, mode: Crash, chance: &mut Chance) -> Vec<u8> {
        let mut image = self.durable.clone();
        for change in &self.pending {
            let fate = match mode {
                Crash::KeepAll => 0,
                Crash::LoseAll => 1,
                Crash::Torn => 2,
                Crash::Some => chance.below(3),
            };
            match (fate, change) {
                (0, Change::Write { offset, bytes }) => put(&mut image, *offset, bytes),
                (0, Change::Length(length)) => image.resize(*length, 0),
                (2, Change::Length(length)) if chance.percent(50) => image.resize(*length, 0),
                (2, Change::Write { offset, bytes }) => tear(&mut image, *offset, bytes, chance),
                _ => {}
            }
        }
        image
    }
}

fn put(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset..end].copy_from_slice(bytes);
}

/// Writes some of the sectors that `bytes` touch. A file that should have grown may have grown
/// without its bytes.
fn tear(image: &mut Vec<u8>, offset: usize, bytes: &[u8], chance: &mut Chance) {
    let mut done = 0;
    while done < bytes.len() {
        let at = offset + done;
        let next = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
        let count = (next - at).min(bytes.len() - done);
        if chance.percent(50) {
            put(image, at, &bytes[done..done + count]);
        }
        done += count;
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Add { name, id } => {
                names.insert(name.clone(), *id);
            }
            Self::Rename { from, to } => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
            Self::Remove { name } => {
                names.remove(name);
            }
        }
    }

    fn names(&self) -> [&String; 2] {
        match self {
            Self::Add { name, .. } | Self::Remove { name } => [name, name],
            Self::Rename { from, to } => [from, to],
        }
    }
}

impl World {
    fn surviving_names(&self, mode: Crash, chance: &mut Chance) -> BTreeMap<String, u64> {
        let mut names = self.durable.clone();
        let mut lost: BTreeSet<&String> = BTreeSet::new();
        for change in &self.pending {
            let kept = match mode {
                Crash::KeepAll => true,
                Crash::LoseAll => false,
                Crash::Torn | Crash::Some => chance.percent(50),
            };
            if kept && !change.names().iter().any(|name| lost.contains(name)) {
                change.apply(&mut names);
            } else {
                lost.extend(change.names());
            }
        }
        names
    }

    /// Counts an operation and decides whether it happens.
    fn begin(&mut self, operation: Operation) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        if self.stop_at.is_some_and(|stop| number >= stop) {
            return Err(io::Error::other("the simulated machine has stopped"));
        }
        match &mut self.fail {
            Some((kind, 0, error)) if *kind == operation => {
                let error = io::Error::from(*error);
                self.fail = None;
                Err(error)
            }
            Some((kind, left, _)) if *kind == operation => {
                *left -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn room(&self) -> u64 {
        // Files without a name still take room while they are open; that is not modelled.
        let used: u64 = self.live.values().map(|id| self.files[id].live.len() as u64).sum();
        self.capacity.saturating_sub(used)
    }

    fn id_of(&self, name: &str) -> io::Result<u64> {
        self.live.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    fn content(&mut self, id: u64) -> &mut Content {
        self.files.get_mut(&id).expect("files are never forgotten")
    }
}

impl Disk for SimDisk {
    type File = SimFile;
    const THREADS: bool = false;

    fn create(&self, name: &str, bytes: u64, _blocks: Blocks) -> io::Result<SimFile> {
        let mut world = self.world();
        world.begin(Operation::Create)?;
        if world.live.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if world.room() < bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let id = world.next_id;
        world.next_id += 1;
        let zeros = vec![0; bytes as usize];
        let content = Content { live: zeros.clone(), durable: zeros, pending: Vec::new() };
        world.files.insert(id, content);
        world.change_name(NameChange::Add { name: name.to_owned(), id });
        Ok(SimFile { world: Arc::clone(&self.world), id })
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let mut world = self.world();
        world.begin(Operation::Open)?;
        let id = world.id_of(name)?;
        Ok(SimFile { world: Arc::clone(&self.world), id })
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut world = self.world();
        world.begin(Operation::List)?;
        Ok(world.live.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        world.begin(Operation::Rename)?;
        world.id_of(from)?;
        world.change_name(NameChange::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        world.begin(Operation::Remove)?;
        world.id_of(name)?;
        world.change_name(NameChange::Remove { name: name.to_owned() });
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut world = self.world();
        world.begin(Operation::SyncNames)?;
        world.durable = world.live.clone();
        world.pending.clear();
        Ok(())
    }
}

impl SimFile {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut world = self.world();
        world.begin(Operation::Length)?;
        Ok(world.content(self.id).live.len() as u64)
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.world();
        world.begin(Operation::Read)?;
        let live = &world.content(self.id).live;
        let from = (offset as usize).min(live.len());
        let count = out.len().min(live.len() - from);
        out[..count].copy_from_slice(&live[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut world = self.world();
        let begun = world.begin(Operation::Write);
        let stops = world.stop_at == Some(world.operations - 1);
        if begun.is_err() && !stops {
            return begun.map(|()| 0);
        }
        let length = world.content(self.id).live.len() as u64;
        let growth = (offset + bytes.len() as u64).saturating_sub(length);
        if growth > world.room() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let percent = world.short_write_percent;
        let short = bytes.len() > 1 && world.chance.percent(percent);
        let most = bytes.len() as u64;
        let count = if short { 1 + world.chance.below(most - 1) } else { most } as usize;
        let content = world.content(self.id);
        put(&mut content.live, offset as usize, &bytes[..count]);
        let bytes = bytes[..count].to_vec();
        content.pending.push(Change::Write { offset: offset as usize, bytes });
        begun.map(|()| count)
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.world();
        world.begin(Operation::Sync)?;
        let content = world.content(self.id);
        for change in std::mem::take(&mut content.pending) {
            match change {
                Change::Write { offset, bytes } => put(&mut content.durable, offset, &bytes),
                Change::Length(length) => content.durable.resize(length, 0),
            }
        }
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut world = self.world();
        world.begin(Operation::SetLength)?;
        let content = world.content(self.id);
        content.live.resize(bytes as usize, 0);
        content.pending.push(Change::Length(bytes as usize));
        Ok(())
    }
}
