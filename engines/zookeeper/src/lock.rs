//! The engine's side of the API: looking at locks, and the rest handed on.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use leasehold_api::engine::{
    Acquire, Grant, HoldRef, HolderView, List, Listed, LockEngine, LockView, OpenSession, Register,
    RegisterView, Session, SessionRef, WaiterView, Write, unescaped,
};
use leasehold_api::{Error, ErrorKind, Guarantees, Result};
use leasehold_contenders::limits;
use tokio::time::{Instant, timeout_at};

use crate::acquire::acquire;
use crate::connect::{Link, Patience};
use crate::core::Core;
use crate::error::{Fault, Tried};
use crate::place::{Line, token};
use crate::{GUARANTEES, ZookeeperEngine};

/// Waiters shown of one lock.
const SHOWN: usize = 1000;
/// Lines read at one time.
const TOGETHER: usize = 16;

/// A line as people see it.
fn view(line: &Line, now: u64) -> LockView {
    let mut view = LockView { name: line.name.to_string(), ..LockView::default() };
    let since = |then: u64| Duration::from_micros(now.saturating_sub(then));
    for (place, stand) in line.stands.iter().enumerate() {
        let who = &stand.who;
        if line.holds(place) {
            let until = who.lasts.map(|lasts| who.renewed.saturating_add(lasts));
            view.holders.push(HolderView {
                token: who.token,
                session: who.session,
                mode: who.mode,
                held: since(who.granted.unwrap_or(who.joined)),
                left: until.map(|until| Duration::from_micros(until.saturating_sub(now))),
                entries: who.entries,
                label: who.label.clone(),
            });
            continue;
        }
        view.waiting += 1;
        if view.waiters.len() < SHOWN {
            view.waiters.push(WaiterView {
                session: who.session,
                mode: who.mode,
                waited: since(who.joined),
                expected: None,
                label: who.label.clone(),
            });
        }
    }
    view.holders.reverse();
    view
}

impl Core {
    /// The names of all locks that begin so, in order; also of some that nobody stands in line for.
    async fn names(
        &self,
        link: &Link,
        prefix: &str,
        patience: &mut Patience,
    ) -> Tried<Vec<Arc<str>>> {
        let nodes = self.below(link, &self.keys.locks(), patience).await?;
        let name = |node: &String| String::from_utf8(unescaped(node)?).ok();
        let names = nodes.iter().filter_map(name).filter(|name| name.starts_with(prefix));
        let mut names: Vec<Arc<str>> = names.map(Arc::from).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Reads lines.
    async fn lines(
        &self,
        link: &Link,
        names: Vec<Arc<str>>,
        patience: &Patience,
    ) -> Tried<Vec<Line>> {
        let reading = stream::iter(names).map(|name| {
            let mut patience = patience.clone();
            async move { self.line(link, &name, &mut Default::default(), &mut patience).await }
        });
        reading.buffered(TOGETHER).try_collect().await
    }

    /// All lines, not older than what was written before.
    pub async fn all_lines(&self, link: &Link, patience: &mut Patience) -> Tried<Vec<Line>> {
        self.sync(link, patience).await?;
        let names = self.names(link, "", patience).await?;
        self.lines(link, names, patience).await
    }

    /// A line as people see it.
    async fn view(&self, link: &Link, line: &Line, patience: &mut Patience) -> Result<LockView> {
        let now = match line.list.is_empty() {
            true => 0,
            false => self.now(link, patience).await?,
        };
        Ok(view(line, now))
    }

    async fn inspect(&self, name: &str) -> Result<LockView> {
        limits::name(name)?;
        let mut patience = Patience::usual();
        let link = self.server.link(&mut patience).await?;
        let line = self.look_at(&link, name, &mut patience).await?;
        self.view(&link, &line, &mut patience).await
    }

    async fn check(&self, name: &str, asked: u64) -> Result<bool> {
        limits::name(name)?;
        if asked.try_into().map_or(true, |asked| token(asked).is_err()) {
            let wrong = format!("token {asked} was never given out");
            return Err(Error::new(ErrorKind::Invalid, wrong));
        }
        let mut patience = Patience::usual();
        let link = self.server.link(&mut patience).await?;
        let line = self.look_at(&link, name, &mut patience).await?;
        let is_it = line.holders().any(|stand| stand.who.token == asked);
        Ok(is_it)
    }

    async fn watch(&self, name: &str, known: Option<u64>, wait: Duration) -> Result<LockView> {
        limits::name(name)?;
        let until = Instant::now().checked_add(wait);
        loop {
            let mut patience = Patience::usual();
            let link = self.server.link(&mut patience).await?;
            let line = match self.look_at(&link, name, &mut patience).await {
                Err(Fault::Lost) => continue,
                line => line?,
            };
            let is_late = until.is_some_and(|until| until <= Instant::now());
            if line.newest() != known || is_late {
                return self.view(&link, &line, &mut patience).await;
            }
            let changed = async {
                tokio::select! {
                    changed = self.line_changed(&link, &line, &mut patience) => changed,
                    () = link.lost() => Ok(()),
                }
            };
            let changed = match until {
                Some(until) => timeout_at(until, changed).await.unwrap_or(Ok(())),
                None => changed.await,
            };
            match changed {
                Err(Fault::Lost) => {}
                changed => changed?,
            }
        }
    }

    async fn list(&self, ask: &List) -> Result<Listed<LockView>> {
        limits::list(ask)?;
        let mut patience = Patience::usual();
        let link = self.server.link(&mut patience).await?;
        self.sync(&link, &mut patience).await?;
        let names = self.names(&link, &ask.prefix, &mut patience).await?;
        let (after, max) = (ask.after as usize, ask.max as usize);
        let next = (names.len() > after.saturating_add(max)).then_some(ask.after + ask.max);
        let some = names.into_iter().skip(after).take(max).collect();
        let mut lines = self.lines(&link, some, &patience).await?;
        lines.retain(|line| !line.list.is_empty());
        if lines.is_empty() {
            return Ok(Listed { items: Vec::new(), next });
        }
        let now = self.now(&link, &mut patience).await?;
        Ok(Listed { items: lines.iter().map(|line| view(line, now)).collect(), next })
    }
}

fn about(what: &str, name: &str) -> impl Fn(Error) -> Error {
    move |error| error.asking(format!("{what} {name}"))
}

fn shutting_down<T>(_: tokio::task::JoinError) -> Result<T> {
    Err(Error::new(ErrorKind::Broken, "the runtime is shutting down"))
}

#[async_trait]
impl LockEngine for ZookeeperEngine {
    fn guarantees(&self) -> Guarantees {
        GUARANTEES
    }

    async fn open_session(&self, ask: &OpenSession) -> Result<Session> {
        self.core.open(ask).map_err(about("open", "a session"))
    }

    async fn keep_alive(&self, session: &SessionRef) -> Result<()> {
        self.core.keep(session).map_err(about("keep", "a session alive"))
    }

    async fn close_session(&self, session: &SessionRef) -> Result<()> {
        // Once begun it is carried through, also when nobody waits for it any more.
        let (core, session) = (self.core.clone(), session.clone());
        let closing =
            tokio::spawn(
                async move { core.close(&session).await.map_err(about("close", "a session")) },
            );
        closing.await.unwrap_or_else(shutting_down)
    }

    async fn acquire(&self, ask: &Acquire) -> Result<Grant> {
        let name = ask.wants.first().map_or("", |want| &*want.name);
        acquire(&self.core, ask).await.map_err(about("acquire", name))
    }

    async fn renew(&self, hold: &HoldRef, ttl: Duration) -> Result<Option<Duration>> {
        self.core.renew(hold, ttl).await.map_err(about("renew", &hold.name))?;
        Ok(Some(ttl))
    }

    async fn release(&self, hold: &HoldRef) -> Result<u32> {
        // It is seen through also when nobody waits any more.
        let (core, hold) = (self.core.clone(), hold.clone());
        let released =
            tokio::spawn(
                async move { core.release(&hold).await.map_err(about("release", &hold.name)) },
            );
        released.await.unwrap_or_else(shutting_down)
    }

    async fn force_release(&self, name: &str) -> Result<u32> {
        // It goes no further when nobody waits any more: it would meet the next holder.
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
        // A write that is cut off half-way could not be told from one that never was.
        let (core, ask) = (self.core.clone(), ask.clone());
        let writing = tokio::spawn(async move { core.write_register(&ask).await });
        writing.await.unwrap_or_else(shutting_down)
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
