//! The trait, and locks as people see them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt};
use leasehold_api::engine::{
    Acquire, Grant, HoldRef, HolderView, List, Listed, LockEngine, LockView, OpenSession, Register,
    RegisterView, Session, SessionRef, WaiterView, Write,
};
use leasehold_api::{Error, ErrorKind, Guarantees, Result};
use leasehold_contenders::limits;
use tokio::time::{Instant, timeout_at};

use crate::acquire::acquire;
use crate::client::Client;
use crate::connect::Patience;
use crate::core::{Core, odd, wall};
use crate::error::Fault;
use crate::part::end_of;
use crate::place::{Line, Stand};
use crate::rpc::{KeyValue, Range};
use crate::watch::Watched;
use crate::{EtcdEngine, GUARANTEES};

/// Waiters shown of one lock.
const SHOWN: usize = 1000;
/// Keys read at once.
const PAGE: i64 = 1000;
/// Leases asked about at one time.
const TOGETHER: usize = 16;

impl Core {
    /// All lines of locks whose names begin so, as they are now, or at a revision.
    pub async fn all_lines(
        &self,
        names: &str,
        revision: Option<i64>,
        patience: &mut Patience,
    ) -> Result<Vec<Line>> {
        let prefix = self.keys.locks(names);
        let (mut from, mut at) = (prefix.clone(), revision.unwrap_or(0));
        let mut lines: BTreeMap<String, Vec<KeyValue>> = BTreeMap::new();
        loop {
            let (key, range_end) = (from, end_of(&prefix));
            let range = Range { key, range_end, limit: PAGE, revision: at, keys_only: false };
            let read = self.server.range(patience, range).await?;
            // What comes later is of the same moment.
            at = if at == 0 { read.header.ok_or_else(odd)?.revision } else { at };
            let done = !read.more;
            from = read.kvs.last().map_or_else(Vec::new, |last| [&last.key[..], &[0]].concat());
            for kv in read.kvs {
                if let Some(name) = self.keys.lock_of(&kv.key) {
                    lines.entry(name).or_default().push(kv);
                }
            }
            if done {
                break;
            }
        }
        lines.into_iter().map(|(name, keys)| Line::read(&name.into(), &keys)).collect()
    }

    /// Time left of a lease; `None`: there is none.
    pub async fn left(&self, lease: i64, at_most: Option<Duration>) -> Option<Duration> {
        if lease == 0 {
            return at_most;
        }
        let call = |client: Client| async move { client.left(lease).await };
        let left = match self.server.ask(&mut Patience::usual(), call).await {
            Ok(heard) => Duration::from_secs(heard.answer.ttl.max(0).unsigned_abs()),
            Err(fault) => {
                tracing::debug!(lease, ?fault, "its time left is not known");
                return at_most;
            }
        };
        // A lease lasts whole seconds and at least two or so, also when less was asked for.
        Some(at_most.map_or(left, |most| left.min(most)))
    }

    async fn holder(&self, stand: Stand, now: u64) -> HolderView {
        let who = stand.place.who;
        let since = who.granted.unwrap_or(who.joined);
        HolderView {
            token: who.token,
            session: who.session,
            mode: who.mode,
            held: Duration::from_micros(now.saturating_sub(since)),
            left: self.left(stand.lease, who.lasts.map(Duration::from_micros)).await,
            entries: who.entries,
            label: who.label,
        }
    }

    /// A line as people see it.
    async fn view(&self, line: &Line) -> LockView {
        let now = wall();
        let mut view = LockView { name: line.name.to_string(), ..LockView::default() };
        let mut holders: Vec<Stand> = line.holders().cloned().collect();
        holders.reverse();
        let views = stream::iter(holders).map(|stand| async move { self.holder(stand, now).await });
        view.holders = views.buffered(TOGETHER).collect().await;
        for (place, one) in line.list.iter().enumerate() {
            if line.holds(place) {
                continue;
            }
            view.waiting += 1;
            if view.waiters.len() < SHOWN {
                view.waiters.push(WaiterView {
                    session: one.session,
                    mode: one.mode,
                    waited: Duration::from_micros(now.saturating_sub(one.joined)),
                    expected: None,
                    label: one.label.clone(),
                });
            }
        }
        view
    }

    async fn inspect(&self, name: &str) -> Result<LockView> {
        limits::name(name)?;
        let (line, _) = self.look_at(name, &mut Patience::usual()).await?;
        Ok(self.view(&line).await)
    }

    async fn check(&self, name: &str, token: u64) -> Result<bool> {
        limits::name(name)?;
        let (line, revision) = self.look_at(name, &mut Patience::usual()).await?;
        if token == 0 || token > revision.unsigned_abs() {
            let wrong = format!("token {token} was never given out");
            return Err(Error::new(ErrorKind::Invalid, wrong));
        }
        let is_it = line.holders().any(|stand| stand.place.who.token == token);
        Ok(is_it)
    }

    /// Waits for a change of keys, until a time; true: it is worth looking again.
    pub async fn wait_for(&self, watched: &Watched, until: Option<Instant>) -> Result<bool> {
        let changed = self.server.changed(watched);
        let changed = match until {
            Some(until) => match timeout_at(until, changed).await {
                Ok(changed) => changed,
                Err(_) => return Ok(false),
            },
            None => changed.await,
        };
        match changed {
            Ok(()) => Ok(true),
            Err(Fault::Away(why)) => {
                Patience::usual().bear(&self.server.config.shown, &why).await?;
                Ok(true)
            }
            Err(fault) => Err(fault.into()),
        }
    }

    async fn watch(&self, name: &str, known: Option<u64>, wait: Duration) -> Result<LockView> {
        limits::name(name)?;
        let until = Instant::now().checked_add(wait);
        loop {
            let (line, revision) = self.look_at(name, &mut Patience::usual()).await?;
            let is_late = until.is_some_and(|until| until <= Instant::now());
            if line.newest() != known || is_late {
                return Ok(self.view(&line).await);
            }
            let (keys, from) = (vec![self.keys.line(name)], revision + 1);
            let watched = Watched { keys, and_longer: true, from, only_ends: false };
            if !self.wait_for(&watched, until).await? {
                return self.inspect(name).await;
            }
        }
    }

    async fn list(&self, ask: &List) -> Result<Listed<LockView>> {
        limits::list(ask)?;
        let mut lines = self.all_lines(&ask.prefix, None, &mut Patience::usual()).await?;
        lines.retain(|line| !line.list.is_empty());
        let (after, max) = (ask.after as usize, ask.max as usize);
        let more = lines.len() > after.saturating_add(max);
        let next = more.then(|| ask.after.saturating_add(ask.max));
        let some = stream::iter(lines.into_iter().skip(after).take(max));
        let views = some.map(|line| async move { self.view(&line).await });
        let items = views.buffered(TOGETHER).collect().await;
        Ok(Listed { items, next })
    }
}

fn about(what: &str, name: &str) -> impl Fn(Error) -> Error {
    move |error| error.asking(format!("{what} {name}"))
}

#[async_trait]
impl LockEngine for EtcdEngine {
    fn guarantees(&self) -> Guarantees {
        GUARANTEES
    }

    async fn open_session(&self, ask: &OpenSession) -> Result<Session> {
        // It is seen through also when nobody waits any more, and then ended again.
        let (core, ask) = (self.core.clone(), ask.clone());
        let (tell, told) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let opened = Opened { opened: Some(core.open(&ask).await), core };
            drop(tell.send(opened));
        });
        match told.await {
            Ok(mut opened) => opened.opened.take().unwrap_or_else(|| Err(odd())),
            Err(_) => Err(Error::new(ErrorKind::Broken, "the runtime is shutting down")),
        }
    }

    async fn keep_alive(&self, session: &SessionRef) -> Result<()> {
        self.core.keep(session).await
    }

    async fn close_session(&self, session: &SessionRef) -> Result<()> {
        self.core.close(session).await
    }

    async fn acquire(&self, ask: &Acquire) -> Result<Grant> {
        let name = ask.wants.first().map_or("", |want| &*want.name);
        acquire(&self.core, ask).await.map_err(about("acquire", name))
    }

    async fn renew(&self, hold: &HoldRef, ttl: Duration) -> Result<Option<Duration>> {
        self.core.renew(hold, ttl).await.map(Some).map_err(about("renew", &hold.name))
    }

    async fn release(&self, hold: &HoldRef) -> Result<u32> {
        // It is seen through also when nobody waits any more.
        let (core, hold) = (self.core.clone(), hold.clone());
        let released =
            tokio::spawn(
                async move { core.release(&hold).await.map_err(about("release", &hold.name)) },
            );
        let broken = |_| Err(Error::new(ErrorKind::Broken, "the runtime is shutting down"));
        released.await.unwrap_or_else(broken)
    }

    async fn force_release(&self, name: &str) -> Result<u32> {
        self.core.force(name).await.map_err(about("force the release of", name))
    }

    async fn check(&self, name: &str, token: u64) -> Result<bool> {
        self.core.check(name, token).await.map_err(about("check", name))
    }

    async fn inspect(&self, name: &str) -> Result<LockView> {
        self.core.inspect(name).await.map_err(about("inspect", name))
    }

    async fn watch(&self, name: &str, known: Option<u64>, wait: Duration) -> Result<LockView> {
        self.core.watch(name, known, wait).await.map_err(about("watch", name))
    }

    async fn list_locks(&self, ask: &List) -> Result<Listed<LockView>> {
        self.core.list(ask).await.map_err(about("list locks", &ask.prefix))
    }

    async fn read(&self, key: &[u8]) -> Result<Option<Register>> {
        self.core.read_register(key).await
    }

    async fn write(&self, ask: &Write) -> Result<u64> {
        self.core.write_register(ask).await
    }

    async fn watch_register(
        &self,
        key: &[u8],
        known: Option<u64>,
        wait: Duration,
    ) -> Result<Option<Register>> {
        self.core.watch_register(key, known, wait).await
    }

    async fn list_registers(&self, ask: &List) -> Result<Listed<RegisterView>> {
        self.core.list_registers(ask).await
    }
}

/// A session on its way. If nobody takes it, it ends.
struct Opened {
    opened: Option<Result<Session>>,
    core: Arc<Core>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(Ok(Session { session, resumed: false })) = self.opened.take() {
            self.core.leases.end(session.id.cast_signed());
        }
    }
}
