//! Registers: versioned values.
//!
//! Before a value stands a head: who wrote it (an operation, by which one whose answer was lost is
//! known again) and for how long. A value that is written for a time hangs on a lease. Leases last
//! whole seconds, so this process ends them in time, and etcd a little later if it is dead.

use std::time::Duration;

use leasehold_api::engine::{List, Listed, Register, RegisterView, Write};
use leasehold_api::{Error, ErrorKind, Expect, RegisterTtl, Result, Retry};
use leasehold_contenders::{expected, limits, random};
use tokio::time::Instant;

use crate::client::Client;
use crate::connect::Patience;
use crate::core::{Core, odd, us};
use crate::error::Fault;
use crate::lease::seconds;
use crate::part::{absent, delete, end_of, get, present, put, rewrite, unchanged};
use crate::rpc::{Compare, KeyValue, Range, Txn};
use crate::watch::Watched;

/// Registers read at once, as each may have a megabyte.
const PAGE: i64 = 32;
/// Operation and time.
const HEAD: usize = 16;

/// A register as it is kept.
struct Kept<'a> {
    operation: u64,
    /// For how long it was written; zero: for ever.
    lasts: Duration,
    value: &'a [u8],
}

impl<'a> Kept<'a> {
    fn read(kv: &'a KeyValue) -> Result<Self> {
        let Some((head, value)) = kv.value.split_at_checked(HEAD) else {
            let wrong = "the key is no register; who else writes there?";
            return Err(Error::new(ErrorKind::Broken, wrong));
        };
        let number = |at: usize| {
            let bytes = head[at..at + 8].try_into().unwrap_or_default();
            u64::from_le_bytes(bytes)
        };
        let lasts = Duration::from_micros(number(8));
        Ok(Self { operation: number(0), lasts, value })
    }
}

fn written(operation: u64, lasts: Duration, value: &[u8]) -> Vec<u8> {
    [&operation.to_le_bytes(), &us(lasts).to_le_bytes(), value].concat()
}

fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

fn valid(ask: &Write) -> Result<()> {
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
    Ok(())
}

/// What must hold of the register in the transaction.
fn compared(key: &[u8], expect: Expect) -> Option<Compare> {
    match expect {
        Expect::Anything => None,
        Expect::Absent => Some(absent(key.to_vec())),
        Expect::Present => Some(present(key.to_vec())),
        // There is no version beyond what etcd can count to, and none is 0.
        Expect::Version(version) => {
            let version = i64::try_from(version).unwrap_or(i64::MAX).max(1);
            Some(unchanged(key.to_vec(), version))
        }
    }
}

/// What came of an attempt to write.
enum Tried {
    Written(u64),
    /// Something was otherwise than compared. This is how the register is, if it is there.
    Otherwise(Option<KeyValue>),
}

/// One write, over its attempts.
struct Writing<'a> {
    core: &'a Core,
    ask: &'a Write,
    key: Vec<u8>,
    operation: u64,
    /// What the guard demands.
    guard: Vec<Compare>,
    /// An attempt may have been carried out.
    doubt: bool,
}

impl Writing<'_> {
    /// Tries once; `seen`: the register must still be as it was seen.
    async fn attempt(
        &mut self,
        seen: Option<Option<&KeyValue>>,
        patience: &mut Patience,
    ) -> Result<Tried> {
        let mut lease = 0;
        let mut compares = self.guard.clone();
        compares.extend(match seen {
            Some(Some(kv)) => Some(unchanged(self.key.clone(), kv.mod_revision)),
            Some(None) => Some(absent(self.key.clone())),
            None => compared(&self.key, self.ask.expect),
        });
        let op = match (&self.ask.value, self.ask.ttl) {
            (None, _) => delete(self.key.clone()),
            (Some(value), RegisterTtl::After(ttl)) => {
                lease = self.core.leases.grant(seconds(ttl), patience).await?.id;
                put(self.key.clone(), written(self.operation, ttl, value), lease)
            }
            (Some(value), RegisterTtl::Keep) => {
                let before = seen.flatten().map(Kept::read).transpose()?;
                let lasts = before.as_ref().map_or(Duration::ZERO, |kept| kept.lasts);
                let value = written(self.operation, lasts, value);
                match before {
                    Some(_) => rewrite(self.key.clone(), value),
                    None => put(self.key.clone(), value, 0),
                }
            }
            (Some(value), RegisterTtl::Never) => {
                put(self.key.clone(), written(self.operation, Duration::ZERO, value), 0)
            }
        };
        let txn = Txn::when(compares, vec![op], vec![get(self.key.clone())]);
        let call = |client: Client| async move { client.txn(txn).await };
        let said = self.core.server.once(call).await;
        let done = said.as_ref().is_ok_and(|said| said.succeeded);
        match (done, self.ask.ttl) {
            (true, RegisterTtl::After(ttl)) => {
                self.core.holds.vanishes(lease, Instant::now() + ttl);
            }
            _ if lease != 0 && !matches!(said, Err(Fault::Away(_))) => {
                self.core.leases.end(lease);
            }
            _ => {}
        }
        let said = match said {
            Ok(said) => said,
            Err(Fault::Away(why)) => {
                // Whether it was carried out is seen from what is there.
                self.doubt = true;
                patience.bear(&self.core.server.config.shown, &why).await?;
                let (now, _) = self.core.register(&self.ask.key, patience).await?;
                return Ok(Tried::Otherwise(now));
            }
            Err(fault) => return Err(fault.into()),
        };
        let revision = said.header.ok_or_else(odd)?.revision;
        if done {
            return Ok(Tried::Written(revision.unsigned_abs()));
        }
        let mut read = said.reads().pop().ok_or_else(odd)?;
        Ok(Tried::Otherwise(read.kvs.pop()))
    }

    /// Whether the value that is there is this write's.
    fn is_ours(&self, kv: &KeyValue) -> Result<bool> {
        Ok(self.ask.value.is_some() && Kept::read(kv)?.operation == self.operation)
    }

    async fn run(mut self) -> Result<u64> {
        let mut patience = Patience::usual();
        // What is kept of the value before must be known.
        let mut seen = match self.ask.ttl {
            RegisterTtl::Keep if self.ask.value.is_some() => {
                Some(self.core.register(&self.ask.key, &mut patience).await?.0)
            }
            _ => None,
        };
        loop {
            if let Some(seen) = &seen {
                let is = seen.as_ref().map(|kv| kv.mod_revision.unsigned_abs());
                expected(self.ask.expect, is).map_err(|error| self.doubtful(error))?;
            }
            let before = seen.as_ref().map(Option::as_ref);
            let now = match self.attempt(before, &mut patience).await? {
                Tried::Written(version) => return Ok(version),
                Tried::Otherwise(now) => now,
            };
            if let Some(kv) = now.as_ref().filter(|_| self.doubt)
                && self.is_ours(kv)?
            {
                if let RegisterTtl::After(ttl) = self.ask.ttl {
                    self.core.holds.vanishes(kv.lease, Instant::now() + ttl);
                }
                return Ok(kv.mod_revision.unsigned_abs());
            }
            let is = now.as_ref().map(|kv| kv.mod_revision.unsigned_abs());
            expected(self.ask.expect, is).map_err(|error| self.doubtful(error))?;
            // It is as expected: then it was seen otherwise, or the guard does not hold any more.
            if let Some((name, token)) = &self.ask.guard {
                self.guard = self.core.guarded(name, *token, &mut patience).await?;
                let there = Txn::when(self.guard.clone(), Vec::new(), Vec::new());
                let there = self.core.server.txn(&mut patience, there).await?.answer.succeeded;
                if !there {
                    let wrong = format!("lock {name} is not held with token {token} any more");
                    return Err(Error::new(ErrorKind::Stale, wrong));
                }
            }
            // Once in doubt, it is not written over what another wrote meanwhile unseen.
            seen = (seen.is_some() || self.doubt).then_some(now);
        }
    }

    /// A refusal after an attempt without an answer may be of our own making.
    fn doubtful(&self, error: Error) -> Error {
        if self.doubt { error.with_retry(Retry::Unknown) } else { error }
    }
}

impl Core {
    /// A register and the revision at which it was read.
    async fn register(
        &self,
        key: &[u8],
        patience: &mut Patience,
    ) -> Result<(Option<KeyValue>, i64)> {
        let range = Range { key: self.keys.register(key), ..Range::default() };
        let mut read = self.server.range(patience, range).await?;
        let revision = read.header.ok_or_else(odd)?.revision;
        Ok((read.kvs.pop(), revision))
    }

    async fn value(&self, kv: Option<&KeyValue>) -> Result<Option<Register>> {
        let Some(kv) = kv else { return Ok(None) };
        let kept = Kept::read(kv)?;
        let left = match kv.lease {
            0 => None,
            lease => self.left(lease, Some(kept.lasts)).await,
        };
        let version = kv.mod_revision.unsigned_abs();
        Ok(Some(Register { value: kept.value.to_vec(), version, left }))
    }

    /// See the trait.
    pub async fn read_register(&self, key: &[u8]) -> Result<Option<Register>> {
        let asked = |error: Error| error.asking(format!("read register {}", text(key)));
        limits::key(key).map_err(asked)?;
        let (kv, _) = self.register(key, &mut Patience::usual()).await.map_err(asked)?;
        self.value(kv.as_ref()).await.map_err(asked)
    }

    /// See the trait.
    pub async fn write_register(&self, ask: &Write) -> Result<u64> {
        let what = if ask.value.is_some() { "write" } else { "delete" };
        let asked = |error: Error| error.asking(format!("{what} register {}", text(&ask.key)));
        valid(ask).map_err(asked)?;
        let operation = match ask.request {
            // Half of it is random enough to tell an operation from the others on one key.
            Some(request) => request.0 as u64,
            None => random().map_err(asked)?,
        };
        let guard = match &ask.guard {
            Some((name, token)) => {
                self.guarded(name, *token, &mut Patience::usual()).await.map_err(asked)?
            }
            None => Vec::new(),
        };
        let key = self.keys.register(&ask.key);
        let writing = Writing { core: self, ask, key, operation, guard, doubt: false };
        writing.run().await.map_err(asked)
    }

    /// See the trait.
    pub async fn watch_register(
        &self,
        key: &[u8],
        known: Option<u64>,
        wait: Duration,
    ) -> Result<Option<Register>> {
        let asked = |error: Error| error.asking(format!("watch register {}", text(key)));
        limits::key(key).map_err(asked)?;
        let until = Instant::now().checked_add(wait);
        loop {
            let (kv, revision) = self.register(key, &mut Patience::usual()).await.map_err(asked)?;
            let version = kv.as_ref().map(|kv| kv.mod_revision.unsigned_abs());
            let is_late = until.is_some_and(|until| until <= Instant::now());
            if version != known || is_late {
                return self.value(kv.as_ref()).await.map_err(asked);
            }
            let (keys, from) = (vec![self.keys.register(key)], revision + 1);
            let watched = Watched { keys, and_longer: false, from, only_ends: false };
            if !self.wait_for(&watched, until).await.map_err(asked)? {
                return self.read_register(key).await;
            }
        }
    }

    /// See the trait.
    pub async fn list_registers(&self, ask: &List) -> Result<Listed<RegisterView>> {
        let asked = |error: Error| error.asking(format!("list registers {}", ask.prefix));
        limits::list(ask).map_err(asked)?;
        let prefix = self.keys.register(ask.prefix.as_bytes());
        let mut patience = Patience::usual();
        let mut range = Range { range_end: end_of(&prefix), key: prefix, ..Range::default() };
        if ask.after > 0 {
            // Places are counted from the first, by keys alone.
            let keys = Range { keys_only: true, limit: i64::from(ask.after), ..range.clone() };
            let read = self.server.range(&mut patience, keys).await.map_err(asked)?;
            let Some(last) = read.kvs.last().filter(|_| read.more) else {
                return Ok(Listed { items: Vec::new(), next: None });
            };
            range.key = [&last.key[..], &[0]].concat();
            range.revision = read.header.map_or(0, |header| header.revision);
        }
        range.limit = i64::from(ask.max).min(PAGE);
        let read = self.server.range(&mut patience, range).await.map_err(asked)?;
        let mut items = Vec::with_capacity(read.kvs.len());
        for kv in &read.kvs {
            let kept = Kept::read(kv).map_err(asked)?;
            let left = match kv.lease {
                0 => None,
                lease => self.left(lease, Some(kept.lasts)).await,
            };
            items.push(RegisterView {
                key: self.keys.register_of(&kv.key).to_vec(),
                version: kv.mod_revision.unsigned_abs(),
                bytes: kept.value.len() as u32,
                left,
            });
        }
        let next = read.more.then(|| ask.after.saturating_add(items.len() as u32));
        Ok(Listed { items, next })
    }
}
