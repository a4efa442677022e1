//! The book of lines and registers: a hash for each entry, and a script for each thing to do.

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
use crate::connect::Link;
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

fn letter(space: Space) -> &'static str {
    match space {
        Space::Lock => "l",
        Space::Register => "r",
    }
}

/// The name of an entry below the prefix.
pub(crate) fn entry_name(key: &Key) -> Vec<u8> {
    [letter(key.space).as_bytes(), b":", &key.name].concat()
}

fn entries(reply: &mut Reply) -> Result<Seen> {
    let now = reply.number("time")?;
    let mut entries = Vec::new();
    while !reply.is_empty() {
        let version = reply.maybe("version")?;
        let written = reply.maybe("time of writing")?;
        let value = reply.maybe("data")?;
        entries.push(match (version, written, value) {
            (Some(version), Some(written), Some(value)) => {
                Some(Entry { version: number(&version)?, written: number(&written)?, value })
            }
            _ => None,
        });
    }
    Ok(Seen { entries, now })
}

fn number(text: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(text).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| odd("number"))
}

/// What a swap or a commit said of the entries.
pub(crate) fn seen(reply: &mut Reply) -> Result<Seen> {
    entries(reply)
}

/// Changes as the scripts take them.
pub(crate) fn put(args: &mut Args, changes: &[Change]) {
    for change in changes {
        args.bytes(entry_name(&change.key)).number(change.expect);
        match &change.to {
            To::Same => args.text("s").text("").text(""),
            To::Nothing => args.text("n").text("").text(""),
            To::Value { value, lasts } => {
                let ms = lasts.map(|lasts| u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
                // What lasts for thousands of years need not be taken away.
                let ms = ms.filter(|ms| *ms < 1 << 45).map(|ms| (ms + 1).to_string());
                args.text("v").bytes(&value[..]).text(&ms.unwrap_or_default())
            }
        };
        args.flag(change.ring);
        let bells: Vec<String> = change.bells.iter().map(Bell::name).collect();
        args.text(&bells.join(" "));
    }
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

    /// The channel of an entry or of a bell; their names begin with different letters.
    fn channel(&self, name: &[u8]) -> Vec<u8> {
        [self.link.config().prefix.as_bytes(), b":b:", name].concat()
    }
}

#[async_trait]
impl Book for RedisBook {
    fn guarantees(&self) -> Guarantees {
        self.guarantees
    }

    async fn read(&self, keys: &[Key]) -> Result<Seen> {
        let mut args = Args::default();
        for key in keys {
            args.bytes(entry_name(key));
        }
        let mut reply = Reply::new(self.run(&READ, &args, false).await?)?;
        reply.text("answer")?;
        entries(&mut reply)
    }

    async fn swap(&self, changes: &[Change], until: Option<u64>) -> Result<Swapped> {
        let mut args = Args::default();
        args.text(&until.map(|until| until.to_string()).unwrap_or_default());
        put(&mut args, changes);
        let mut reply = Reply::new(self.run(&SWAP, &args, true).await?)?;
        match reply.text("answer")?.as_str() {
            "done" => {
                let version = reply.number("version")?;
                Ok(Swapped::Done { version, now: reply.number("time")? })
            }
            _ => Ok(Swapped::Changed(entries(&mut reply)?)),
        }
    }

    async fn wait(&self, watch: &Watch<'_>, at_most: Duration) -> Result<Option<Seen>> {
        let until = Instant::now() + at_most;
        let channels = match &watch.bell {
            Some(bell) => vec![self.channel(bell.name().as_bytes())],
            None => watch.keys.iter().map(|key| self.channel(&entry_name(key))).collect(),
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
        let mut args = Args::default();
        let (from, upto) = range(prefix);
        args.text(letter(space)).bytes(from).bytes(upto).number(after).number(max);
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
    fn a_prefix_is_a_range() {
        assert_eq!(range(b"ab"), (b"[ab".to_vec(), b"(ac".to_vec()));
        assert_eq!(range(b""), (b"-".to_vec(), b"+".to_vec()));
        assert_eq!(range(b"a\xff"), (b"[a\xff".to_vec(), b"(b".to_vec()));
        assert_eq!(range(b"\xff"), (b"[\xff".to_vec(), b"+".to_vec()));
    }
}
