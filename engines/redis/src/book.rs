//! The book of lines and registers: a string for each entry, and a script for each thing to do.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::select_all;
use leasehold_api::{Error, ErrorKind, Guarantees, Result, Retry};
use leasehold_contenders::bell::Bell;
use leasehold_contenders::{Book, Change, Entry, Key, Seen, Space, Swapped, To, Watch};
use redis::Value;
use tokio::time::{Instant, timeout_at};

use crate::bells::Bells;
use crate::connect::{Link, Patience};
use crate::script::{Args, LIST, READ, Reply, SWAP, Script, odd};

/// Lines and registers in Redis.
pub(crate) struct RedisBook {
    pub guarantees: Guarantees,
    pub link: Arc<Link>,
    pub bells: Bells,
    pub replicas: Option<Replicas>,
}

/// Replicas that must have every change. Their connection is apart, since it stands still while
/// it waits for them.
pub(crate) struct Replicas {
    link: Link,
    /// A change may be on too few replicas: whatever is seen is not to be trusted before they
    /// have it.
    is_unsure: AtomicBool,
}

/// Milliseconds that an entry outlives its meaning.
const SLACK: u64 = 60_000;
/// Keys walked through with one request.
const WALK: u32 = 1000;

fn letter(space: Space) -> &'static str {
    match space {
        Space::Lock => "l",
        Space::Register => "r",
    }
}

/// Digits of the version at the front of an entry, and of the time behind it.
const DIGITS: usize = 16;

/// The key of an entry.
fn put_key(args: &mut Args, prefix: &str, key: &Key) {
    args.parts(&[prefix.as_bytes(), b":", letter(key.space).as_bytes(), b":", &key.name]);
}

/// Reads the time and the entries behind it.
pub(crate) fn entries(reply: &mut Reply) -> Result<Seen> {
    let now = reply.number("time")?;
    let mut entries = Vec::new();
    while !reply.is_empty() {
        entries.push(reply.maybe("entry")?.map(entry).transpose()?);
    }
    Ok(Seen { entries, now })
}

fn entry(mut written: Vec<u8>) -> Result<Entry> {
    let (version, time) = head(&written)?;
    written.drain(..2 * DIGITS);
    Ok(Entry { version, written: time, value: written })
}

/// The version and the time with which an entry begins.
fn head(written: &[u8]) -> Result<(u64, u64)> {
    let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse().ok();
    let (version, rest) = written.split_at_checked(DIGITS).ok_or_else(|| odd("version"))?;
    let time = rest.get(..DIGITS).and_then(number).ok_or_else(|| odd("time of writing"))?;
    Ok((number(version).ok_or_else(|| odd("version"))?, time))
}

/// Changes as the scripts take them.
pub(crate) fn put_changes(args: &mut Args, prefix: &str, changes: &[Change]) {
    for change in changes {
        put_key(args, prefix, &change.key);
        match change.expect {
            0 => args.text(""),
            version => args.digits(version, DIGITS),
        };
        match &change.to {
            To::Same => args.text("same").text("").text(""),
            To::Nothing => args.text("nothing").text("").text(""),
            To::Value { value, lasts } => {
                let ms = lasts.map(|lasts| u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
                // What lasts for thousands of years need not be taken away.
                match ms.filter(|ms| *ms < 1 << 45) {
                    Some(ms) => args.text("value").number(ms + SLACK).bytes(value),
                    None => args.text("value").text("").bytes(value),
                }
            }
        };
    }
}

/// The bells that changes ring.
pub(crate) fn put_bells(args: &mut Args, prefix: &str, changes: &[Change]) {
    for change in changes {
        if change.ring {
            args.bytes(entry_channel(prefix, &change.key));
        }
        for bell in &change.bells {
            args.bytes(bell_channel(prefix, bell));
        }
    }
}

/// The channel of an entry; the names of entries and bells begin with different letters.
fn entry_channel(prefix: &str, key: &Key) -> Vec<u8> {
    [prefix.as_bytes(), b":b:", letter(key.space).as_bytes(), b":", &key.name].concat()
}

fn bell_channel(prefix: &str, bell: &Bell) -> Vec<u8> {
    format!("{prefix}:b:{}", bell.name()).into_bytes()
}

impl Replicas {
    pub fn new(link: Link) -> Self {
        Self { link, is_unsure: AtomicBool::new(false) }
    }

    /// Runs a script, and waits until enough replicas have what it wrote.
    async fn run(&self, script: &Script, args: &Args, writes: bool) -> Result<Value> {
        if writes {
            self.is_unsure.store(true, Ordering::SeqCst);
        }
        let value = self.link.run(script, args).await?;
        if self.is_unsure.load(Ordering::SeqCst) {
            self.wait().await?;
            self.is_unsure.store(false, Ordering::SeqCst);
        }
        Ok(value)
    }

    /// See <https://redis.io/docs/latest/commands/wait/>: for what this connection has written.
    async fn wait(&self) -> Result<()> {
        let config = self.link.config();
        let mut wait = redis::cmd("WAIT");
        wait.arg(config.wait).arg(config.wait_for.as_millis() as u64);
        let have = self.link.command(&wait).await.map_err(|failure| failure.error);
        let have = match have.map_err(|error| error.with_retry(Retry::Unknown))? {
            Value::Int(have) => have,
            _ => return Err(odd("number of replicas")),
        };
        if have >= i64::from(config.wait) {
            return Ok(());
        }
        let wrong = format!(
            "{}: {have} of {} replicas have the change after {:?}; it may be lost with the master",
            config.shown, config.wait, config.wait_for
        );
        Err(Error::new(ErrorKind::Unavailable, wrong).with_retry(Retry::Unknown))
    }
}

impl RedisBook {
    /// Runs a script over entries, on replicas too if that is asked for.
    pub async fn run(&self, script: &Script, args: &Args, writes: bool) -> Result<Value> {
        match &self.replicas {
            Some(replicas) => replicas.run(script, args, writes).await,
            None => self.link.run(script, args).await,
        }
    }

    fn prefix(&self) -> &str {
        &self.link.config().prefix
    }

    /// The names of locks that begin with a prefix, in order, from one place on. They are in no
    /// index, since that would make every acquire and release dearer: all keys are walked through.
    async fn locks(&self, prefix: &[u8], after: u32, max: u32) -> Result<Vec<Vec<u8>>> {
        let mut patience = Patience::new(self.link.config().patience);
        loop {
            // One that was broken off begins anew: another node knows no such place.
            match self.walk(prefix, after as usize + max as usize).await {
                Err(error) => patience.after(error).await?,
                found => return Ok(found?.into_iter().skip(after as usize).collect()),
            }
        }
    }

    /// The first names of locks that begin with a prefix.
    async fn walk(&self, prefix: &[u8], max: usize) -> Result<BTreeSet<Vec<u8>>> {
        let begins = [self.prefix().as_bytes(), b":l:", prefix].concat();
        let before = begins.len() - prefix.len();
        let pattern = pattern(&begins);
        let mut found = BTreeSet::new();
        let mut place = b"0".to_vec();
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(&place).arg("MATCH").arg(&pattern).arg("COUNT").arg(WALK);
            let reply = self.link.command(&scan).await.map_err(|failure| failure.error)?;
            let mut reply = Reply::new(reply)?;
            place = reply.bytes("place")?;
            let mut keys = reply.list("keys")?;
            while !keys.is_empty() {
                found.insert(keys.bytes("key")?.split_off(before));
                if found.len() > max {
                    found.pop_last();
                }
            }
            if place == b"0" {
                return Ok(found);
            }
        }
    }
}

/// What SCAN matches keys with that begin so.
fn pattern(begins: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(begins.len() + 1);
    for byte in begins {
        if b"*?[]^-\\".contains(byte) {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern.push(b'*');
    pattern
}

#[async_trait]
impl Book for RedisBook {
    fn guarantees(&self) -> Guarantees {
        self.guarantees
    }

    async fn read(&self, keys: &[Key]) -> Result<Seen> {
        let mut args = Args::default();
        for key in keys {
            put_key(&mut args, self.prefix(), key);
        }
        entries(&mut Reply::new(self.run(&READ, &args, false).await?)?)
    }

    fn goes_its_way(&self) -> bool {
        true
    }

    async fn swap(&self, changes: &[Change], until: Option<u64>) -> Result<Swapped> {
        let mut args = Args::default();
        match until {
            Some(until) => args.number(until),
            None => args.text(""),
        };
        args.number(changes.len() as u64);
        put_changes(&mut args, self.prefix(), changes);
        put_bells(&mut args, self.prefix(), changes);
        match self.run(&SWAP, &args, true).await? {
            Value::BulkString(written) => {
                let (version, now) = head(&written)?;
                Ok(Swapped::Done { version, now })
            }
            reply => Ok(Swapped::Changed(entries(&mut Reply::new(reply)?)?)),
        }
    }

    async fn wait(&self, watch: &Watch<'_>, at_most: Duration) -> Result<Option<Seen>> {
        let until = Instant::now() + at_most;
        let channels = match &watch.bell {
            Some(bell) => vec![bell_channel(self.prefix(), bell)],
            None => watch.keys.iter().map(|key| entry_channel(self.prefix(), key)).collect(),
        };
        let mut listeners = Vec::new();
        for channel in channels {
            let listening = timeout_at(until, self.bells.listen(channel)).await;
            let Ok(listener) = listening else { return Ok(None) };
            let mut listener = listener?;
            listener.heard();
            listeners.push(listener);
        }
        let Ok(seen) = timeout_at(until, self.read(watch.keys)).await else { return Ok(None) };
        let seen = seen?;
        if !(watch.same)(&seen) || listeners.is_empty() {
            return Ok(Some(seen));
        }
        let rings = listeners.iter_mut().map(|listener| Box::pin(listener.rung()));
        // Nothing else is to be done when the time is over.
        drop(timeout_at(until, select_all(rings)).await);
        Ok(None)
    }

    async fn list(&self, space: Space, prefix: &[u8], after: u32, max: u32) -> Result<Vec<Key>> {
        if space == Space::Lock {
            let names = self.locks(prefix, after, max).await?;
            return Ok(names.into_iter().map(|name| Key { space, name }).collect());
        }
        let mut args = Args::default();
        let (from, upto) = range(prefix);
        args.bytes(from).bytes(upto).number(after).number(max);
        let mut reply = Reply::new(self.link.run_again(&LIST, &args).await?)?;
        let mut keys = Vec::new();
        while !reply.is_empty() {
            keys.push(Key { space, name: reply.bytes("name")? });
        }
        Ok(keys)
    }
}

/// The ends of the names that begin with a prefix, as ZRANGEBYLEX takes them.
pub(crate) fn range(prefix: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let from = if prefix.is_empty() { b"-".to_vec() } else { [b"[", prefix].concat() };
    let mut after = prefix.to_vec();
    while after.last() == Some(&u8::MAX) {
        after.pop();
    }
    match after.last_mut() {
        Some(last) => {
            *last += 1;
            (from, [b"(", &after[..]].concat())
        }
        None => (from, b"+".to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_pattern() {
        assert_eq!(pattern(b"{a}:l:"), b"{a}:l:*");
        assert_eq!(pattern(b"a*[b-c]?\\"), b"a\\*\\[b\\-c\\]\\?\\\\*");
    }

    #[test]
    fn an_entry_begins_with_its_version() {
        let written = b"00000000000000120000000000000034data".to_vec();
        let value = b"data".to_vec();
        assert_eq!(entry(written).unwrap(), Entry { version: 12, written: 34, value });
        assert!(entry(b"0000000000000012".to_vec()).is_err());
        assert!(entry(b"[{}]".to_vec()).is_err());
    }

    #[test]
    fn a_prefix_is_a_range() {
        assert_eq!(range(b"ab"), (b"[ab".to_vec(), b"(ac".to_vec()));
        assert_eq!(range(b""), (b"-".to_vec(), b"+".to_vec()));
        assert_eq!(range(b"a\xff"), (b"[a\xff".to_vec(), b"(b".to_vec()));
        assert_eq!(range(b"\xff"), (b"[\xff".to_vec(), b"+".to_vec()));
    }
}
