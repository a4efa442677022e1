//! Registers: versioned values beside the lines, so that a write can be bound to a lock's token.
//!
//! The guard of a write is the version of the lock's line, compared in the same swap. A holder
//! whose time is over and whose place nobody took may still write; as soon as the next one has
//! learnt that it holds, which is a write to the line, the late hand is refused.

use std::time::Duration;

use leasehold_api::engine::{List, Listed, Register, RegisterView, Write};
use leasehold_api::{Error, ErrorKind, Expect, RegisterTtl, Result};
use tokio::time::Instant;

use crate::engine::{Inner, us};
use crate::lines::Patience;
use crate::{Book, Change, Entry, Key, Seen, Space, Swapped, To, Watch, contender, limits, line};

/// How long a watch that nothing ends sleeps before it looks again.
const WATCH: Duration = Duration::from_secs(60);

/// How long a value lasts after its write stands before it, 0 for ever.
fn written(value: &[u8], lasts: u64) -> Vec<u8> {
    [&lasts.to_le_bytes(), value].concat()
}

/// A value that has not vanished.
fn live(entry: Option<&Entry>, now: u64) -> Result<Option<Register>> {
    let Some(entry) = entry else { return Ok(None) };
    let Some((lasts, value)) = entry.value.split_first_chunk::<8>() else {
        let wrong = "the entry is no register; who else writes there?";
        return Err(Error::new(ErrorKind::Broken, wrong));
    };
    let left = match u64::from_le_bytes(*lasts) {
        0 => None,
        lasts => Some(entry.written.saturating_add(lasts).saturating_sub(now)),
    };
    if left == Some(0) {
        return Ok(None);
    }
    let left = left.map(Duration::from_micros);
    Ok(Some(Register { value: value.to_vec(), version: entry.version, left }))
}

fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

/// Demands a write that can be carried out.
pub(crate) fn valid(ask: &Write) -> Result<()> {
    limits::key(&ask.key)?;
    let bytes = ask.value.as_ref().map_or(0, Vec::len);
    if bytes > limits::VALUE_BYTES {
        let most = limits::VALUE_BYTES;
        let wrong = format!("the value has {bytes} bytes, at most {most} are allowed");
        return Err(Error::new(ErrorKind::Invalid, wrong));
    }
    if let RegisterTtl::After(ttl) = ask.ttl {
        limits::ttl(ttl)?;
    }
    ask.guard.as_ref().map_or(Ok(()), |(name, _)| limits::name(name))
}

/// Demands that a register is as expected, given the version of its value if it has one.
///
/// # Errors
/// `Conflict`, with how it is.
pub fn expected(expect: Expect, version: Option<u64>) -> Result<()> {
    let (wanted, kept) = match expect {
        Expect::Anything => return Ok(()),
        Expect::Absent => ("no value".to_owned(), version.is_none()),
        Expect::Present => ("a value".to_owned(), version.is_some()),
        Expect::Version(wanted) => (format!("version {wanted}"), version == Some(wanted)),
    };
    if kept {
        return Ok(());
    }
    let is = version.map_or("no value".to_owned(), |version| format!("version {version}"));
    let wrong = format!("{wanted} was expected, there is {is}; read it and decide again");
    Err(Error::new(ErrorKind::Conflict, wrong))
}

/// Demands that a lock is held with a token, and gives what must not change meanwhile.
fn guarded(name: &str, token: u64, entry: Option<&Entry>, now: u64) -> Result<Change> {
    let list = entry.map_or(Ok(Vec::new()), contender::read)?;
    let place = list.iter().position(|own| own.token == token && !own.is_over(now));
    if !place.is_some_and(|place| line::holds(&list, place, now)) {
        let wrong = format!("lock {name} is not held with token {token} any more");
        return Err(Error::new(ErrorKind::Stale, wrong));
    }
    let expect = entry.map_or(0, |entry| entry.version);
    Ok(Change { key: Key::lock(name), expect, to: To::Same, ring: false, bells: Vec::new() })
}

/// The changes that a write makes, given the register's entry and its guard's line.
pub(crate) fn changes(ask: &Write, seen: &Seen) -> Result<Vec<Change>> {
    let entry = seen.entries[0].as_ref();
    let is = live(entry, seen.now)?;
    expected(ask.expect, is.as_ref().map(|is| is.version))?;
    let lasts = match ask.ttl {
        RegisterTtl::Never => 0,
        RegisterTtl::After(ttl) => us(ttl),
        RegisterTtl::Keep => is.and_then(|is| is.left).map_or(0, us),
    };
    let to = match &ask.value {
        Some(value) => {
            let value = written(value, lasts);
            To::Value { value, lasts: (lasts > 0).then(|| Duration::from_micros(lasts)) }
        }
        None => To::Nothing,
    };
    let expect = entry.map_or(0, |entry| entry.version);
    let key = Key::register(&ask.key);
    let mut changes = vec![Change { key, expect, to, ring: true, bells: Vec::new() }];
    if let Some((name, token)) = &ask.guard {
        changes.push(guarded(name, *token, seen.entries[1].as_ref(), seen.now)?);
    }
    Ok(changes)
}

impl<B: Book> Inner<B> {
    async fn seen(&self, keys: &[Key]) -> Result<Seen> {
        let mut patience = Patience::usual();
        loop {
            match self.book.read(keys).await {
                Ok(seen) => return Ok(seen),
                Err(error) => patience.after(error).await?,
            }
        }
    }

    pub async fn read_register(&self, key: &[u8]) -> Result<Option<Register>> {
        let asked = |error: Error| error.asking(format!("read register {}", text(key)));
        limits::key(key).map_err(asked)?;
        let seen = self.seen(&[Key::register(key)]).await.map_err(asked)?;
        live(seen.entries[0].as_ref(), seen.now).map_err(asked)
    }

    pub async fn write_register(&self, ask: &Write) -> Result<u64> {
        self.try_write(ask).await.map_err(|error| {
            let what = if ask.value.is_some() { "write" } else { "delete" };
            error.asking(format!("{what} register {}", text(&ask.key)))
        })
    }

    async fn try_write(&self, ask: &Write) -> Result<u64> {
        valid(ask)?;
        let mut keys = vec![Key::register(&ask.key)];
        keys.extend(ask.guard.as_ref().map(|(name, _)| Key::lock(name)));
        let mut seen = self.seen(&keys).await?;
        loop {
            // A swap without an answer is not asked again: whether a value is ours cannot be seen
            // from it. The error says that it may have been written.
            match self.book.swap(&changes(ask, &seen)?, None).await? {
                Swapped::Done { version, .. } => return Ok(version),
                Swapped::Changed(now) => seen = now,
            }
        }
    }

    pub async fn watch_register(
        &self,
        key: &[u8],
        known: Option<u64>,
        wait: Duration,
    ) -> Result<Option<Register>> {
        let asked = |error: Error| error.asking(format!("watch register {}", text(key)));
        limits::key(key).map_err(asked)?;
        let until = Instant::now().checked_add(wait);
        let keys = [Key::register(key)];
        let mut seen = self.seen(&keys).await.map_err(asked)?;
        loop {
            let entry = seen.entries[0].as_ref();
            let is = live(entry, seen.now).map_err(asked)?;
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let changed = is.as_ref().map(|is| is.version) != known;
            if changed || left.is_some_and(|left| left.is_zero()) {
                return Ok(is);
            }
            let end = is.and_then(|is| is.left);
            let at_most = [left, end, Some(WATCH)].into_iter().flatten().min().unwrap_or(WATCH);
            let version = seen.versions().next();
            let same = move |now: &Seen| now.versions().next() == version;
            let watch = Watch { keys: &keys, bell: None, going: None, same: &same };
            seen = match self.book.wait(&watch, at_most).await.map_err(asked)? {
                Some(seen) => seen,
                None => self.seen(&keys).await.map_err(asked)?,
            };
        }
    }

    pub async fn list_registers(&self, ask: &List) -> Result<Listed<RegisterView>> {
        let asked = |error: Error| error.asking(format!("list registers from {:?}", ask.prefix));
        limits::list(ask).map_err(asked)?;
        let prefix = ask.prefix.as_bytes();
        let keys = self.book.list(Space::Register, prefix, ask.after, ask.max).await;
        let keys = keys.map_err(asked)?;
        let next = (keys.len() as u32 == ask.max).then(|| ask.after + ask.max);
        if keys.is_empty() {
            return Ok(Listed { items: Vec::new(), next });
        }
        let seen = self.seen(&keys).await.map_err(asked)?;
        let mut items = Vec::new();
        for (key, entry) in keys.into_iter().zip(&seen.entries) {
            if let Some(register) = live(entry.as_ref(), seen.now).map_err(asked)? {
                let Register { value, version, left } = register;
                let bytes = value.len() as u32;
                items.push(RegisterView { key: key.name, version, bytes, left });
            }
        }
        Ok(Listed { items, next })
    }
}
