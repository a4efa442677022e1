//! Registers: versioned values.
//!
//! A register is a node, and its version the transaction that wrote it last. ZooKeeper compares
//! only the count of changes of a node, which begins anew when a node is deleted and made again.
//! So every deletion also writes to `ROOT/deletions`, and every write that depends on what was
//! read also checks that nothing was deleted since: then the node is the one that was read, and
//! its count says whether it was changed. That write also gives a deletion its version.
//!
//! Before a value stands a head: who wrote it (an operation, by which one whose answer was lost is
//! known again) and for how long. A value is over when the leader's clock says so: the time of its
//! last write against the time of a write to `ROOT/clock`, which is made only to ask about values
//! that end. ZooKeeper's own TTL nodes are off by default and end within minutes.

use std::sync::Arc;
use std::time::Duration;

use leasehold_api::engine::{List, Listed, Register, RegisterView, Write, unescaped};
use leasehold_api::{Error, ErrorKind, RegisterTtl, Result, Retry};
use leasehold_contenders::{expected, limits, random};
use tokio::time::{Instant, timeout_at};
use zookeeper_client::{Client, CreateMode, Error as Said, MultiWriteResult, Stat};

use crate::connect::{Link, Patience};
use crate::core::{Core, us};
use crate::error::{Fault, Tried};
use crate::place::token;

/// Length of a value, bytes: a server takes no request above `jute.maxbuffer`, a megabyte, and
/// hangs up on whoever sends one.
const VALUE_BYTES: usize = 1_000_000;
/// Operation and time.
const HEAD: usize = 16;

/// A register as it was read.
#[derive(Debug, Clone)]
struct Kept {
    operation: u64,
    /// For how long it was written; zero: for ever.
    lasts: u64,
    value: Vec<u8>,
    stat: Stat,
}

impl Kept {
    fn read(mut data: Vec<u8>, stat: Stat) -> Result<Self> {
        if data.len() < HEAD {
            let wrong = "the node is no register; who else writes there?";
            return Err(Error::new(ErrorKind::Broken, wrong));
        }
        let value = data.split_off(HEAD);
        let number =
            |at: usize| u64::from_le_bytes(data[at..at + 8].try_into().unwrap_or_default());
        Ok(Self { operation: number(0), lasts: number(8), value, stat })
    }

    /// Time left, microseconds; `None`: it stays.
    fn left(&self, now: u64) -> Option<u64> {
        let written = self.stat.mtime.unsigned_abs().saturating_mul(1000);
        (self.lasts > 0).then(|| written.saturating_add(self.lasts).saturating_sub(now))
    }
}

/// What was seen of a register.
#[derive(Debug, Clone)]
struct Seen {
    /// How often anything was deleted before.
    deletions: i32,
    /// The operation that deleted last, and its version.
    deleted: (Vec<u8>, i64),
    /// The node, also if its time is over.
    node: Option<Kept>,
    /// What time it was, if that matters.
    now: u64,
}

impl Seen {
    /// The value, if its time is not over.
    fn live(&self) -> Option<&Kept> {
        self.node.as_ref().filter(|kept| kept.left(self.now) != Some(0))
    }

    fn version(&self) -> Result<Option<u64>> {
        self.live().map(|kept| token(kept.stat.mzxid)).transpose()
    }

    fn value(&self) -> Result<Option<Register>> {
        let Some(kept) = self.live() else { return Ok(None) };
        let left = kept.left(self.now).map(Duration::from_micros);
        let version = token(kept.stat.mzxid)?;
        Ok(Some(Register { value: kept.value.clone(), version, left }))
    }
}

fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

fn valid(ask: &Write) -> Result<()> {
    limits::key(&ask.key)?;
    let bytes = ask.value.as_ref().map_or(0, Vec::len);
    if bytes > VALUE_BYTES {
        let wrong = format!(
            "the value has {bytes} bytes; ZooKeeper takes {VALUE_BYTES} with its key, keep larger \
             ones elsewhere"
        );
        return Err(Error::new(ErrorKind::Invalid, wrong));
    }
    if let RegisterTtl::After(ttl) = ask.ttl {
        limits::ttl(ttl)?;
    }
    Ok(())
}

/// One write, over its attempts.
struct Writing<'a> {
    core: &'a Core,
    ask: &'a Write,
    path: String,
    operation: u64,
    /// The node of the guard's contender.
    guard: Option<String>,
}

impl Writing<'_> {
    /// The data that are written, given what was there.
    fn data(&self, seen: &Seen, value: &[u8]) -> Vec<u8> {
        let lasts = match self.ask.ttl {
            RegisterTtl::Never => 0,
            RegisterTtl::After(ttl) => us(ttl),
            RegisterTtl::Keep => seen.live().and_then(|kept| kept.left(seen.now)).unwrap_or(0),
        };
        [&self.operation.to_le_bytes(), &lasts.to_le_bytes(), value].concat()
    }

    /// Tries once, on what was seen.
    async fn attempt(&self, link: &Link, seen: &Seen) -> Tried<u64> {
        let data = self.ask.value.as_ref().map(|value| self.data(seen, value));
        let before = seen.node.as_ref().map(|kept| kept.stat.version);
        let (deletions, options) =
            (self.core.keys.deletions(), self.core.server.options(CreateMode::Persistent));
        let call = |client: Client| async move {
            let mut writer = client.new_multi_writer();
            if let Some(guard) = &self.guard {
                // Any version: it is there.
                writer.add_check_version(guard, -1)?;
            }
            match (&data, before) {
                (Some(data), Some(version)) => {
                    writer.add_check_version(&deletions, seen.deletions)?;
                    writer.add_set_data(&self.path, data, Some(version))?;
                }
                (Some(data), None) => {
                    writer.add_create(&self.path, b"", &options)?;
                    // Servers before 3.7 answer a creation among others without its number.
                    writer.add_set_data(&self.path, data, Some(0))?;
                }
                (None, before) => {
                    if before.is_some() {
                        writer.add_delete(&self.path, before)?;
                    }
                    let operation = self.operation.to_le_bytes();
                    writer.add_set_data(&deletions, &operation, Some(seen.deletions))?;
                }
            }
            writer.commit().await
        };
        let results = link.once(call).await?;
        let zxid = results.iter().rev().find_map(|result| match result {
            MultiWriteResult::SetData { stat } => Some(stat.mzxid),
            _ => None,
        });
        let zxid = zxid.ok_or_else(|| {
            let wrong = "ZooKeeper wrote it and did not say under which number; read it";
            Error::new(ErrorKind::Unavailable, wrong).with_retry(Retry::Unknown)
        })?;
        Ok(token(zxid)?)
    }

    /// The version of this write, if it is what happened last.
    fn done(&self, seen: &Seen) -> Result<Option<u64>> {
        if self.ask.value.is_none() {
            let (operation, zxid) = &seen.deleted;
            let is_ours = operation[..] == self.operation.to_le_bytes();
            return is_ours.then(|| token(*zxid)).transpose();
        }
        let node = seen.node.as_ref().filter(|kept| kept.operation == self.operation);
        node.map(|kept| token(kept.stat.mzxid)).transpose()
    }

    async fn run(mut self) -> Result<u64> {
        let mut patience = Patience::usual();
        let (mut doubt, mut first) = (false, None);
        loop {
            let link = self.core.server.link(&mut patience).await?;
            let doubtful = |error: Error| match doubt {
                true => error.with_retry(Retry::Unknown),
                false => error,
            };
            if doubt && *first.get_or_insert(link.session) != link.session {
                // What was asked in a session that has ended may still be carried out.
                let wrong = "the session with ZooKeeper ended meanwhile; read it and decide again";
                return Err(doubtful(Error::new(ErrorKind::Unavailable, wrong)));
            }
            first = Some(link.session);
            let seen = match self.core.seen(&link, &self.ask.key, &mut patience).await {
                Err(Fault::Lost) => continue,
                seen => seen?,
            };
            if (doubt || self.ask.request.is_some())
                && let Some(version) = self.done(&seen)?
            {
                return Ok(version);
            }
            expected(self.ask.expect, seen.version()?).map_err(doubtful)?;
            match self.attempt(&link, &seen).await {
                Ok(version) => return Ok(version),
                Err(Fault::Away(why)) => {
                    doubt = true;
                    patience.bear(&self.core.server.config.shown, &why).await?;
                }
                Err(Fault::Lost) => doubt = true,
                // Something came between; the guard, too, is looked at anew.
                Err(Fault::NoNode | Fault::NodeExists | Fault::BadVersion) => {
                    if let Some((name, token)) = &self.ask.guard {
                        let guard = self.core.guarded(name, *token, &mut patience).await;
                        self.guard = Some(guard.map_err(doubtful)?);
                    }
                    self.core.server.prepare(&link, &mut patience).await?;
                }
                Err(fault) => return Err(fault.into()),
            }
        }
    }
}

impl Core {
    /// Reads a register, not older than what was written before.
    async fn seen(&self, link: &Link, key: &[u8], patience: &mut Patience) -> Tried<Seen> {
        let call = |client: Client| {
            let (locks, deletions) = (self.keys.locks(), self.keys.deletions());
            let path = self.keys.register(key);
            async move {
                // Asked at once, answered in order.
                let sync = client.sync(&locks);
                let deletions = client.get_data(&deletions);
                let node = client.get_data(&path);
                let (sync, deletions, node) = tokio::join!(sync, deletions, node);
                sync?;
                let node = match node {
                    Ok(node) => Some(node),
                    Err(Said::NoNode) => None,
                    Err(error) => return Err(error),
                };
                Ok::<_, Said>((deletions?, node))
            }
        };
        let ((operation, stat), node) = link.ask(patience, call).await.said?;
        let node = node.map(|(data, stat)| Kept::read(data, stat)).transpose()?;
        let now = match &node {
            Some(kept) if kept.lasts > 0 => self.now(link, patience).await?,
            _ => 0,
        };
        let deleted = (operation, stat.mzxid);
        Ok(Seen { deletions: stat.version, deleted, node, now })
    }

    /// The node whose being there means that a lock is held with a token.
    async fn guarded(&self, name: &str, token: u64, patience: &mut Patience) -> Result<String> {
        limits::name(name)?;
        let link = self.server.link(patience).await?;
        let line = self.look_at(&link, name, patience).await?;
        // Whoever holds keeps holding for as long as his node is there: nobody comes before him.
        let holder = line.holders().find(|stand| stand.who.token == token);
        let Some(holder) = holder else {
            let wrong = format!("lock {name} is not held with token {token} any more");
            return Err(Error::new(ErrorKind::Stale, wrong));
        };
        Ok(self.keys.contender(name, &holder.node))
    }

    /// See the trait.
    pub async fn read_register(self: &Arc<Self>, key: &[u8]) -> Result<Option<Register>> {
        let asked = |error: Error| error.asking(format!("read register {}", text(key)));
        limits::key(key).map_err(asked)?;
        let (link, seen) = self.look_at_register(key).await.map_err(asked)?;
        let value = seen.value().map_err(asked)?;
        if seen.node.is_some() && value.is_none() {
            let (core, path) = (self.clone(), self.keys.register(key));
            tokio::spawn(async move { core.sweep(&link, path, &seen).await });
        }
        Ok(value)
    }

    /// Takes a value away whose time is over, if it is still the one that was seen.
    async fn sweep(&self, link: &Link, path: String, seen: &Seen) {
        let version = seen.node.as_ref().map(|kept| kept.stat.version);
        let deletions = self.keys.deletions();
        let call = |client: Client| async move {
            let mut writer = client.new_multi_writer();
            writer.add_delete(&path, version)?;
            writer.add_set_data(&deletions, b"", Some(seen.deletions))?;
            writer.commit().await
        };
        if let Err(fault) = link.once(call).await {
            tracing::debug!(?fault, "a value whose time is over stays for now");
        }
    }

    async fn look_at_register(&self, key: &[u8]) -> Result<(Arc<Link>, Seen)> {
        let mut patience = Patience::usual();
        loop {
            let link = self.server.link(&mut patience).await?;
            match self.seen(&link, key, &mut patience).await {
                Err(Fault::Lost) => {}
                seen => return Ok((link, seen?)),
            }
        }
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
                let guard = self.guarded(name, *token, &mut Patience::usual()).await;
                Some(guard.map_err(asked)?)
            }
            None => None,
        };
        let path = self.keys.register(&ask.key);
        let writing = Writing { core: self, ask, path, operation, guard };
        writing.run().await.map_err(asked)
    }

    /// Waits until a register's node changes from how it was seen, or comes, or goes.
    async fn register_changed(&self, link: &Link, key: &[u8], seen: &Seen) -> Tried<()> {
        let watched = link.once(|client| {
            let path = self.keys.register(key);
            async move { client.check_and_watch_stat(&path).await }
        });
        let (stat, watcher) = match watched.await {
            Err(Fault::Away(_) | Fault::Lost) => return Ok(()),
            watched => watched?,
        };
        let was = seen.node.as_ref().map(|kept| kept.stat.mzxid);
        if stat.map(|stat| stat.mzxid) == was {
            tokio::select! {
                _ = watcher.changed() => {}
                () = link.lost() => {}
            }
        }
        Ok(())
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
            let (link, seen) = self.look_at_register(key).await.map_err(asked)?;
            let is_late = until.is_some_and(|until| until <= Instant::now());
            if seen.version().map_err(asked)? != known || is_late {
                return seen.value().map_err(asked);
            }
            // A millisecond more, as that is how fine ZooKeeper's clock is.
            let end = seen.live().and_then(|kept| kept.left(seen.now));
            let end = end.map(|left| Instant::now() + Duration::from_micros(left + 1000));
            let changed = self.register_changed(&link, key, &seen);
            match [until, end].into_iter().flatten().min() {
                Some(next) => timeout_at(next, changed).await.unwrap_or(Ok(())),
                None => changed.await,
            }
            .map_err(|fault| asked(fault.into()))?;
        }
    }

    /// See the trait.
    pub async fn list_registers(&self, ask: &List) -> Result<Listed<RegisterView>> {
        let asked = |error: Error| error.asking(format!("list registers {}", ask.prefix));
        limits::list(ask).map_err(asked)?;
        self.try_list_registers(ask).await.map_err(|fault| asked(fault.into()))
    }

    async fn try_list_registers(&self, ask: &List) -> Tried<Listed<RegisterView>> {
        let mut patience = Patience::usual();
        let link = self.server.link(&mut patience).await?;
        self.sync(&link, &mut patience).await?;
        let nodes = self.below(&link, &self.keys.registers(), &mut patience).await?;
        let keys = nodes.iter().filter_map(|node| unescaped(node));
        let mut keys: Vec<Vec<u8>> =
            keys.filter(|key| key.starts_with(ask.prefix.as_bytes())).collect();
        keys.sort_unstable();
        let (after, max) = (ask.after as usize, ask.max as usize);
        let next = (keys.len() > after.saturating_add(max)).then_some(ask.after + ask.max);
        let mut items = Vec::new();
        for key in keys.into_iter().skip(after).take(max) {
            let seen = self.seen(&link, &key, &mut patience).await?;
            if let Some(Register { value, version, left }) = seen.value()? {
                items.push(RegisterView { key, version, bytes: value.len() as u32, left });
            }
        }
        Ok(Listed { items, next })
    }
}
