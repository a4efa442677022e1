//! The book: files under one lock of the system.
//!
//! Whoever reads or swaps holds the system's lock on the file `book` meanwhile; it is a few file
//! operations long and ends with its process. That file also has the clock and the version. A swap
//! of several entries is written down in `pending` before any of them changes, and whoever comes
//! next finishes what a killed process began.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_api::{Error, ErrorKind, Guarantees, Result};
use leasehold_contenders::bell::Bell;
use leasehold_contenders::{Book, Change, Entry, Key, Seen, Space, Swapped, To, Watch};
use rustix::fs::{FlockOperation, flock};
use rustix::time::{ClockId, clock_gettime};

use crate::doorbell::Doorbell;
use crate::entries::{self, Written};
use crate::error;

/// Versions set aside with one sync: after a power loss they begin behind them.
const SET_ASIDE: u64 = 4096;
/// What the first line of `book` looks like: boot, base, version, time, set aside.
const LINE: usize = 37 + 4 * 21;
/// Places of the directories that are listened to.
const LOCKS: usize = 0;
const REGISTERS: usize = 1;
const BELLS: usize = 2;
/// Where the system says which start of the machine this is.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// File systems that several machines share: their locks and changes are not heard everywhere.
/// Numbers from statfs(2).
const SHARED: &[(u64, &str)] = &[
    (0x6969, "NFS"),
    (0xFE53_4D42, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9p"),
    (0x0BD0_0BD0, "Lustre"),
    (0x00C3_6400, "Ceph"),
];

/// Entries in the files of a directory.
pub struct FileBook {
    files: Arc<Files>,
    doorbell: Doorbell,
}

struct Files {
    directory: PathBuf,
    boot: String,
    /// The file `book`; one thread of this process at a time, as the system's lock is the
    /// process's.
    book: Mutex<File>,
}

/// The first line of `book`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    boot: String,
    /// Our time minus the machine's since boot, microseconds.
    base: i64,
    /// The last version.
    version: u64,
    /// When it was given.
    time: u64,
    /// The last version that is set aside.
    aside: u64,
}

impl State {
    fn read(path: &Path, book: &File) -> Result<Option<Self>> {
        let mut line = vec![0; LINE];
        match book.read_exact_at(&mut line, 0) {
            Ok(()) => {}
            Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(cause) => return Err(error::of("read", path, cause)),
        }
        let text = std::str::from_utf8(&line).ok();
        let words: Vec<&str> =
            text.map(|text| text.split_whitespace().collect()).unwrap_or_default();
        let [boot, base, version, time, aside] = words[..] else {
            return Err(error::strange(path, "its first line"));
        };
        let number = |text: &str| text.parse().map_err(|_| error::strange(path, "a number"));
        let base = base.parse().map_err(|_| error::strange(path, "the base of its clock"))?;
        let (version, time, aside) = (number(version)?, number(time)?, number(aside)?);
        Ok(Some(Self { boot: boot.to_owned(), base, version, time, aside }))
    }

    fn write(&self, path: &Path, book: &File) -> Result<()> {
        let Self { boot, base, version, time, aside } = self;
        let line = format!("{boot:<36} {base:>20} {version:>20} {time:>20} {aside:>20}\n");
        book.write_all_at(line.as_bytes(), 0).map_err(|cause| error::of("write", path, cause))
    }

    fn now(&self) -> u64 {
        let now = clock_gettime(ClockId::Boottime);
        let us = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        u64::try_from(us + self.base).unwrap_or(0).max(1)
    }
}

impl FileBook {
    /// Opens or makes a directory.
    pub async fn open(directory: PathBuf) -> Result<Self> {
        let opened = tokio::task::spawn_blocking(move || Files::open(directory)).await;
        let files = opened.map_err(|_| shutting_down())??;
        // In the order of LOCKS, REGISTERS and BELLS.
        let (locks, registers) = (
            entries::space(&files.directory, Space::Lock),
            entries::space(&files.directory, Space::Register),
        );
        let doorbell = Doorbell::listen(&[&locks, &registers, &files.bells()])?;
        Ok(Self { files: Arc::new(files), doorbell })
    }

    /// Does something while no other process does anything. Once begun it is finished, also when
    /// nobody waits for it any more.
    async fn alone<R: Send + 'static>(
        &self,
        with: impl FnOnce(&Files, &mut State) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let files = self.files.clone();
        let done = tokio::task::spawn_blocking(move || files.alone(with)).await;
        done.map_err(|_| shutting_down())?
    }
}

fn shutting_down() -> Error {
    Error::new(ErrorKind::Broken, "the runtime is shutting down")
}

impl Files {
    fn open(directory: PathBuf) -> Result<Self> {
        let spaces = [Space::Lock, Space::Register].map(|one| entries::space(&directory, one));
        for path in spaces.iter().chain([&directory.join("bells")]) {
            fs::create_dir_all(path).map_err(|cause| error::of("make", path, cause))?;
        }
        local(&directory)?;
        let boot = fs::read_to_string(BOOT);
        let boot = boot.map_err(|cause| error::of("read", Path::new(BOOT), cause))?;
        let path = directory.join("book");
        let mut options = File::options();
        let book = options.read(true).write(true).create(true).truncate(false).open(&path);
        let book = book.map_err(|cause| error::of("open", &path, cause))?;
        let files = Self { directory, boot: boot.trim().to_owned(), book: Mutex::new(book) };
        files.alone(|files, state| files.sweep(state.now()))?;
        Ok(files)
    }

    fn alone<R>(&self, with: impl FnOnce(&Self, &mut State) -> Result<R>) -> Result<R> {
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.directory.join("book");
        let failed = |what: &str, errno: rustix::io::Errno| error::of(what, &path, errno.into());
        while let Err(errno) = flock(&*book, FlockOperation::LockExclusive) {
            if errno != rustix::io::Errno::INTR {
                return Err(failed("lock", errno));
            }
        }
        let done = self.locked(&path, &book, with);
        // It is freed with the file at the latest; an error here would change nothing.
        flock(&*book, FlockOperation::Unlock).map_err(|errno| failed("unlock", errno))?;
        done
    }

    fn locked<R>(
        &self,
        path: &Path,
        book: &File,
        with: impl FnOnce(&Self, &mut State) -> Result<R>,
    ) -> Result<R> {
        let before = State::read(path, book)?;
        let mut state = match before.clone() {
            Some(state) if state.boot == self.boot => state,
            other => self.first_of_this_boot(other)?,
        };
        self.finish_pending()?;
        let done = with(self, &mut state);
        if before.as_ref() != Some(&state) {
            state.write(path, book)?;
        }
        done
    }

    /// The state at the first use since the machine was started. Time goes on from where it was,
    /// since what was held then must not end sooner for it; versions begin behind those that may
    /// have been lost.
    fn first_of_this_boot(&self, old: Option<State>) -> Result<State> {
        let path = self.aside();
        let aside = match fs::read_to_string(&path) {
            Ok(text) => text.parse().map_err(|_| error::strange(&path, "it is no number"))?,
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => 0,
            Err(cause) => return Err(error::of("read", &path, cause)),
        };
        let (boot, time) = (self.boot.clone(), old.map_or(0, |old| old.time));
        let mut state = State { boot, base: 0, version: aside, time, aside };
        state.base = time as i64 - state.now() as i64;
        Ok(state)
    }

    /// The file with the last version that is set aside; unlike `book` it is synced.
    fn aside(&self) -> PathBuf {
        self.directory.join("aside")
    }

    /// The next version, which no power loss brings back.
    fn next_version(&self, state: &mut State) -> Result<u64> {
        state.version += 1;
        if state.version > state.aside {
            state.aside = state.version + SET_ASIDE;
            let path = self.aside();
            let text = state.aside.to_string();
            let kept = File::create(&path).and_then(|mut file| {
                io::Write::write_all(&mut file, text.as_bytes())?;
                file.sync_all()
            });
            kept.map_err(|cause| error::of("write", &path, cause))?;
        }
        Ok(state.version)
    }

    fn read(&self, keys: &[Key], now: u64) -> Result<Seen> {
        let entry = |key| Ok(entries::read(&self.directory, key)?.map(|written| written.entry));
        let entries = keys.iter().map(entry).collect::<Result<Vec<Option<Entry>>>>()?;
        Ok(Seen { entries, now })
    }

    fn swap(&self, changes: &[Change], until: Option<u64>, state: &mut State) -> Result<Swapped> {
        let now = state.now();
        let keys: Vec<Key> = changes.iter().map(|change| change.key.clone()).collect();
        let seen = self.read(&keys, now)?;
        let version = |entry: &Option<Entry>| entry.as_ref().map_or(0, |entry| entry.version);
        let differs = |(change, entry): (&Change, &Option<Entry>)| change.expect != version(entry);
        let is_late = until.is_some_and(|until| until <= now);
        if is_late || changes.iter().zip(&seen.entries).any(differs) {
            return Ok(Swapped::Changed(seen));
        }
        let version = self.next_version(state)?;
        state.time = now;
        let writes: Vec<(Key, Option<Vec<u8>>)> = changes
            .iter()
            .filter_map(|Change { key, to, .. }| match to {
                To::Same => None,
                To::Nothing => Some((key.clone(), None)),
                To::Value { value, lasts } => {
                    let entry = Entry { version, written: now, value: value.clone() };
                    let lasts = lasts.map_or(0, |lasts| lasts.as_micros() as u64);
                    let written = Written { key: key.clone(), entry, lasts };
                    Some((key.clone(), Some(entries::encode(&written))))
                }
            })
            .collect();
        if writes.len() > 1 {
            self.put(&self.directory.join("pending"), &pending(&writes))?;
        }
        writes.iter().try_for_each(|write| self.apply(write))?;
        if writes.len() > 1 {
            self.remove(&self.directory.join("pending"))?;
        }
        for bell in changes.iter().flat_map(|change| &change.bells) {
            self.ring(bell);
        }
        Ok(Swapped::Done { version, now })
    }

    fn apply(&self, (key, content): &(Key, Option<Vec<u8>>)) -> Result<()> {
        let path = entries::path(&self.directory, key);
        match content {
            Some(content) => self.put(&path, content),
            None => self.remove(&path),
        }
    }

    /// Where a file that comes and goes is a ring.
    fn bells(&self) -> PathBuf {
        self.directory.join("bells")
    }

    /// Rings a bell. What was written is there already, so an error is not the writer's: who is not
    /// woken looks later.
    fn ring(&self, bell: &Bell) {
        let path = self.bells().join(file_of(bell));
        if let Err(error) = File::create(&path).and_then(|_| fs::remove_file(&path)) {
            tracing::warn!(path = %path.display(), %error, "a bell did not ring");
        }
    }

    /// Writes a file beside its place and renames it into it.
    fn put(&self, path: &Path, content: &[u8]) -> Result<()> {
        let beside = self.directory.join("new");
        fs::write(&beside, content).map_err(|cause| error::of("write", &beside, cause))?;
        fs::rename(&beside, path).map_err(|cause| error::of("rename", path, cause))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        match fs::remove_file(path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(error::of("remove", path, cause))
            }
            _ => Ok(()),
        }
    }

    /// Finishes what a killed process began.
    fn finish_pending(&self) -> Result<()> {
        let path = self.directory.join("pending");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(cause) => return Err(error::of("read", &path, cause)),
        };
        let writes = decode_pending(&bytes).ok_or_else(|| error::strange(&path, "its shape"))?;
        writes.iter().try_for_each(|write| self.apply(write))?;
        self.remove(&path)
    }

    /// All entries of a space.
    fn all(&self, space: Space) -> Result<Vec<Written>> {
        let directory = entries::space(&self.directory, space);
        let failed = |cause| error::of("list", &directory, cause);
        let mut all = Vec::new();
        for file in fs::read_dir(&directory).map_err(failed)? {
            let path = file.map_err(failed)?.path();
            let bytes = fs::read(&path).map_err(|cause| error::of("read", &path, cause))?;
            let written = entries::decode(space, &bytes);
            all.push(written.ok_or_else(|| error::strange(&path, "its first line"))?);
        }
        Ok(all)
    }

    /// Removes entries that mean nothing any more.
    fn sweep(&self, now: u64) -> Result<()> {
        for space in [Space::Lock, Space::Register] {
            for Written { key, entry, lasts } in self.all(space)? {
                if lasts > 0 && entry.written.saturating_add(lasts) < now {
                    self.remove(&entries::path(&self.directory, &key))?;
                }
            }
        }
        Ok(())
    }
}

/// The file of a bell.
fn file_of(bell: &Bell) -> String {
    entries::file_name(bell.name().as_bytes())
}

/// A swap as it is written down: for each entry its space, its name and its new file.
fn pending(writes: &[(Key, Option<Vec<u8>>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut part = |part: &[u8]| {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(part);
    };
    for (key, content) in writes {
        part(if key.space == Space::Lock { b"lock" } else { b"register" });
        part(&key.name);
        part(if content.is_some() { b"file" } else { b"nothing" });
        part(content.as_deref().unwrap_or_default());
    }
    bytes
}

fn decode_pending(mut bytes: &[u8]) -> Option<Vec<(Key, Option<Vec<u8>>)>> {
    let mut part = || {
        let (length, rest) = bytes.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (part, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        Some(part)
    };
    let mut writes = Vec::new();
    while let Some(space) = part() {
        let space = if space == b"lock" { Space::Lock } else { Space::Register };
        let (name, what, content) = (part()?, part()?, part()?);
        let content = (what == b"file").then(|| content.to_vec());
        writes.push((Key { space, name: name.to_vec() }, content));
    }
    Some(writes)
}

/// Demands a file system of this machine.
fn local(directory: &Path) -> Result<()> {
    let about = rustix::fs::statfs(directory);
    let about = about.map_err(|errno| error::of("look at", directory, errno.into()))?;
    let kind = about.f_type as u64 & 0xFFFF_FFFF;
    let Some((_, name)) = SHARED.iter().find(|(number, _)| *number == kind) else { return Ok(()) };
    let wrong = format!(
        "{} is on {name}, which several machines share, and one does not hear of the others' \
         changes; use a directory of this machine, or an engine with a server",
        directory.display()
    );
    Err(Error::new(ErrorKind::Unsupported, wrong))
}

#[async_trait]
impl Book for FileBook {
    fn guarantees(&self) -> Guarantees {
        crate::GUARANTEES
    }

    async fn read(&self, keys: &[Key]) -> Result<Seen> {
        let keys = keys.to_vec();
        self.alone(move |files, state| files.read(&keys, state.now())).await
    }

    async fn swap(&self, changes: &[Change], until: Option<u64>) -> Result<Swapped> {
        let changes = changes.to_vec();
        self.alone(move |files, state| files.swap(&changes, until, state)).await
    }

    async fn wait(&self, watch: &Watch<'_>, at_most: Duration) -> Result<Option<Seen>> {
        let entry = |key: &Key| {
            let directory = if key.space == Space::Lock { LOCKS } else { REGISTERS };
            self.doorbell.bell(directory, entries::file_name(&key.name))
        };
        let bells: Vec<_> = match &watch.bell {
            Some(bell) => vec![self.doorbell.bell(BELLS, file_of(bell))],
            None => watch.keys.iter().map(entry).collect(),
        };
        let mut rung: Vec<_> = bells.iter().map(|bell| Box::pin(bell.notified())).collect();
        // From here on they are heard; what came before is seen by looking.
        for rung in &mut rung {
            rung.as_mut().enable();
        }
        let seen = self.read(watch.keys).await?;
        if !(watch.same)(&seen) {
            return Ok(Some(seen));
        }
        let any = std::future::poll_fn(|context| {
            let ready = rung.iter_mut().any(|rung| rung.as_mut().poll(context).is_ready());
            if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        });
        // The time being over is an answer like a bell.
        tokio::time::timeout(at_most, any).await.ok();
        Ok(None)
    }

    async fn list(&self, space: Space, prefix: &[u8], after: u32, max: u32) -> Result<Vec<Key>> {
        let prefix = prefix.to_vec();
        self.alone(move |files, state| {
            files.sweep(state.now())?;
            let all = files.all(space)?.into_iter().map(|written| written.key);
            let mut keys: Vec<Key> = all.filter(|key| key.name.starts_with(&prefix)).collect();
            keys.sort();
            Ok(keys.into_iter().skip(after as usize).take(max as usize).collect())
        })
        .await
    }
}
