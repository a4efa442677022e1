//! Taking locks: into the line, wait, know that it is one's turn.
//!
//! ```text
//! create the contender ─► read the line
//!    ├─ holds by the rule, and came just now ─► holds
//!    ├─ holds by the rule, after a wait ─► write to one's own node, which proves that it is there
//!    │                                     and the session alive ─► holds
//!    └─ waits ─► watch the node of whoever stands last in the way ─► read the line again
//! ```
//! The recipe is that of ZooKeeper's own documentation (`zookeeperRecipes`, "Locks"), with these
//! differences: order is that of czxids, since sequence numbers wrap; nodes are watched with their
//! data and not for their existence, so that no watch stays behind on a node that has gone; and
//! who holds follows from the whole line, since not all locks are exclusive. A line that is read
//! after one's own node was made has everybody in it who came before, on whatever server.
//!
//! An acquire runs in a task of its own, which sees it through when its caller goes: then it takes
//! its contender out of the line again. A grant on its way to a caller who has gone goes back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use leasehold_api::engine::{Acquire, Gone, Grant, HoldRef, Mode, apart, moment};
use leasehold_api::{Error, ErrorKind, Result, Wait};
use leasehold_contenders::{Contender, SessionState, circle, limits, line, operation, too_late};
use tokio::time::{Instant, timeout};
use zookeeper_client::{Client, CreateMode, OneshotWatcher};

use crate::connect::{Heard, Link, PATIENCE, Patience};
use crate::core::{Core, us};
use crate::error::{Fault, Tried};
use crate::holds::{Granted, Held, written};
use crate::place::{Line, Stand};

/// How long a refusal waits for its contender to leave the line.
const LEAVING: Duration = Duration::from_secs(1);

/// Takes locks, all or none.
pub(crate) async fn acquire(core: &Arc<Core>, ask: &Acquire) -> Result<Grant> {
    limits::acquire(ask)?;
    if !ask.lock_delay.is_zero() {
        return Err(Error::unsupported("ZooKeeper", "delay after a loss"));
    }
    let session = match &ask.session {
        Some(session) => Some(core.sessions.find(session.id)?),
        None => None,
    };
    let id = match ask.request {
        Some(request) => format!("{:032x}", request.0),
        None => operation()?,
    };
    let (core, ask) = (core.clone(), ask.clone());
    let give = core.clone();
    let work = move |gone| {
        let acquiring = Acquiring {
            names: ask.wants.iter().map(|want| want.name.clone()).collect(),
            session,
            core,
            ask,
            id,
            asked: Instant::now(),
            gone,
            known: Vec::new(),
            entered: None,
        };
        acquiring.run()
    };
    let give_back = |(_, hold): (Grant, HoldRef)| {
        tokio::spawn(async move { give.give_back(&hold).await });
    };
    apart(work, give_back).await.map(|(grant, _)| grant)
}

struct Acquiring {
    core: Arc<Core>,
    ask: Acquire,
    names: Vec<Arc<str>>,
    session: Option<Arc<SessionState>>,
    /// Names the contender.
    id: String,
    asked: Instant,
    /// Ends when the caller goes.
    gone: Gone,
    /// Contenders that were read, of each line.
    known: Vec<HashMap<String, Stand>>,
    /// It may stand in the lines, on this session with ZooKeeper.
    entered: Option<Arc<Link>>,
}

/// A hold, and how often it is entered.
type Taken = (Arc<Held>, u32);

/// Where the contender stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Holds,
    Waits,
    /// It is not in all of its lines.
    Out,
}

impl Acquiring {
    async fn run(mut self) -> Result<(Grant, HoldRef)> {
        match self.take().await {
            Ok((held, entries)) => Ok(self.granted(&held, entries)),
            Err(error) => {
                if let Some(link) = self.entered.take() {
                    let leaving = self.core.delete_later(&link, &self.paths(&link));
                    // Who waits for the refusal finds the line as if nothing had been.
                    timeout(LEAVING, leaving).await.ok();
                }
                Err(error)
            }
        }
    }

    fn granted(self, held: &Held, entries: u32) -> (Grant, HoldRef) {
        let (token, name) = (held.token, self.names[0].clone());
        let hold = HoldRef { name, token, hold: held.hold, session: self.ask.session.clone() };
        let grant = Grant { token, left: self.ask.ttl, entries, ended: Some(held.ended()) };
        (grant, hold)
    }

    /// How long an ensemble out of reach is waited for.
    fn patience(&self) -> Patience {
        let until = match self.ask.wait {
            Wait::No => Some(self.asked + PATIENCE),
            Wait::AtMost(wait) => self.asked.checked_add(wait.max(PATIENCE)),
            Wait::Forever => None,
        };
        Patience::until(until, self.gone.clone())
    }

    /// The name of the contender's nodes: in a line, on a session with ZooKeeper.
    fn node(&self, link: &Link) -> String {
        format!("{}-{:x}", self.id, link.session)
    }

    fn paths(&self, link: &Link) -> Vec<String> {
        let node = self.node(link);
        self.names.iter().map(|name| self.core.keys.contender(name, &node)).collect()
    }

    /// Refuses to go on for nobody, or without the session.
    fn is_wanted(&self) -> Result<()> {
        self.gone.check()?;
        if self.session.as_ref().is_some_and(|session| session.is_over()) {
            return Err(no_session());
        }
        Ok(())
    }

    async fn take(&mut self) -> Result<Taken> {
        if self.ask.reentrant
            && let Some(taken) = self.enter_again().await?
        {
            return Ok(taken);
        }
        loop {
            let link = self.core.server.link(&mut self.patience()).await?;
            match self.take_in(&link).await {
                Ok(taken) => return Ok(taken),
                Err(Fault::Lost) => {
                    self.is_wanted()?;
                    self.leave_behind(&link).await;
                }
                Err(fault) => return Err(fault.into()),
            }
        }
    }

    /// Takes away what an ended session left in the lines: the ensemble may notice later.
    async fn leave_behind(&mut self, old: &Link) {
        self.entered = None;
        let (core, paths) = (self.core.clone(), self.paths(old));
        tokio::spawn(async move {
            let mut patience = Patience::usual();
            if let Ok(link) = core.server.link(&mut patience).await
                && let Err(fault) = core.delete(&link, &paths, &mut patience).await
            {
                tracing::debug!(?fault, "not taken away; it goes with its session");
            }
        });
    }

    /// Takes the locks in a session with ZooKeeper.
    async fn take_in(&mut self, link: &Arc<Link>) -> Tried<Taken> {
        self.known = vec![HashMap::new(); self.names.len()];
        let mut came_now = self.join(link).await?;
        loop {
            let lines = self.look(link).await?;
            self.is_wanted()?;
            match (self.standing(link, &lines), self.ask.wait) {
                (Standing::Holds, _) if came_now => return Ok(self.taken(link, &lines, None)),
                (Standing::Holds, _) => {
                    if let Some(taken) = self.confirm(link, &lines).await? {
                        return Ok(taken);
                    }
                    // An operator took it out: then it is not known any more.
                    self.known = vec![HashMap::new(); self.names.len()];
                }
                (Standing::Waits, wait) => {
                    self.check(link, &lines)?;
                    if wait == Wait::No {
                        return Err(busy(&lines, &self.node(link)).into());
                    }
                    self.look_for_circle(link).await?;
                    self.wait(link, &lines).await?;
                    came_now = false;
                }
                (Standing::Out, _) => came_now = self.join(link).await?,
            }
        }
    }

    /// Puts the contender into its lines. False: it may have stood there before.
    async fn join(&mut self, link: &Arc<Link>) -> Tried<bool> {
        self.entered = Some(link.clone());
        loop {
            let (mut patience, paths) = (self.patience(), self.paths(link));
            let Heard { said, again } = self.create(link, &paths, &mut patience).await;
            match said {
                Ok(()) => return Ok(!again),
                Err(Fault::NoNode) => self.make_lines(link, &mut patience).await?,
                Err(Fault::NodeExists) => {
                    let lines = self.look(link).await?;
                    if self.standing(link, &lines) != Standing::Out {
                        return Ok(false);
                    }
                    // It stands in some of its lines only: an operator is at work.
                    self.core.delete(link, &paths, &mut patience).await?;
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Creates all nodes at once.
    async fn create(&self, link: &Link, paths: &[String], patience: &mut Patience) -> Heard<()> {
        let options = self.core.server.options(CreateMode::Ephemeral);
        let data = self.ask.wants.iter().map(|want| written(&self.contender(want.mode)));
        let nodes: Vec<(String, Vec<u8>)> = paths.iter().cloned().zip(data).collect();
        let call = |client: Client| {
            let (nodes, options) = (nodes.clone(), options.clone());
            async move {
                if let [(path, data)] = &nodes[..] {
                    return client.create(path, data, &options).await.map(drop);
                }
                let mut writer = client.new_multi_writer();
                for (path, data) in &nodes {
                    writer.add_create(path, data, &options)?;
                }
                writer.commit().await?;
                Ok(())
            }
        };
        link.ask(patience, call).await
    }

    /// Makes the containers of the lines.
    async fn make_lines(&self, link: &Link, patience: &mut Patience) -> Tried<()> {
        let options = self.core.server.options(CreateMode::Container);
        for name in &self.names {
            let call = |client: Client| {
                let (path, options) = (self.core.keys.line(name), options.clone());
                async move { client.create(&path, b"", &options).await }
            };
            match link.ask(patience, call).await.said {
                Ok(_) | Err(Fault::NodeExists) => {}
                Err(Fault::NoNode) => self.core.server.prepare(link, patience).await?,
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    /// The contender as it is written into a line.
    fn contender(&self, mode: Mode) -> Contender {
        let several = self.names.len() > 1;
        let with = self.names.iter().filter(|_| several).map(|name| name.to_string()).collect();
        Contender {
            id: self.id.clone(),
            token: 0,
            session: self.session.as_ref().map_or(0, |session| session.id),
            hold: self.ask.hold,
            mode,
            with,
            entries: 1,
            label: self.ask.label.as_ref().map(|label| label.to_string()),
            joined: 0,
            granted: None,
            renewed: 0,
            lasts: self.ask.ttl.map(us),
            session_lasts: None,
            session_renewed: 0,
            delay: 0,
        }
    }

    /// Reads the lines.
    async fn look(&mut self, link: &Link) -> Tried<Vec<Line>> {
        let mut patience = self.patience();
        let mut lines = Vec::with_capacity(self.names.len());
        for (name, known) in self.names.iter().zip(&mut self.known) {
            lines.push(self.core.line(link, name, known, &mut patience).await?);
        }
        Ok(lines)
    }

    fn standing(&self, link: &Link, lines: &[Line]) -> Standing {
        let (node, mut all) = (self.node(link), true);
        for line in lines {
            let Some(place) = line.find(&node, link.session) else { return Standing::Out };
            all &= line.holds(place);
        }
        if all { Standing::Holds } else { Standing::Waits }
    }

    /// Refuses what cannot be in these lines.
    fn check(&self, link: &Link, lines: &[Line]) -> Result<()> {
        for (line, want) in lines.iter().zip(&self.ask.wants) {
            let before = line.find(&self.node(link), link.session).unwrap_or(0);
            line::agree(&line.name, &line.list[..before], want.mode, 0)?;
            if before >= limits::LINE_MAX {
                let wrong = format!("{before} stand in line for lock {}", line.name);
                return Err(Error::new(ErrorKind::Full, wrong));
            }
        }
        Ok(())
    }

    /// The contender's own places.
    fn own(&self, link: &Link, lines: &[Line]) -> Vec<Contender> {
        let node = self.node(link);
        let own = |line: &Line| Some(line.stands[line.find(&node, link.session)?].who.clone());
        lines.iter().filter_map(own).collect()
    }

    fn taken(&mut self, link: &Arc<Link>, lines: &[Line], time: Option<u64>) -> Taken {
        let mut places = self.own(link, lines);
        for who in &mut places {
            who.granted = time.or(who.granted);
            who.lasts = self.ask.ttl.map(us);
        }
        let entries = places.first().map_or(1, |who| who.entries);
        self.entered = None;
        let held = self.core.hold(Granted {
            names: self.names.clone(),
            paths: self.paths(link),
            places,
            link: link.clone(),
            bound: self.session.clone().filter(|_| self.ask.bound),
            ttl: self.ask.ttl,
        });
        (held, entries)
    }

    /// It is this contender's turn: proves that it is there still, and notes since when.
    async fn confirm(&mut self, link: &Arc<Link>, lines: &[Line]) -> Tried<Option<Taken>> {
        let mut places = self.own(link, lines);
        if let Some(held) = places.first().and_then(|who| self.core.holds.find(who.token)) {
            // A request that was sent twice.
            self.entered = None;
            let entries = places[0].entries;
            return Ok(Some((held, entries)));
        }
        places.iter_mut().for_each(|who| who.granted = Some(0));
        let paths = self.paths(link);
        let time = self.core.write(link, &paths, &places, &mut self.patience()).await?;
        let Some(time) = time else { return Ok(None) };
        let time = time.unsigned_abs().saturating_mul(1000);
        Ok(Some(self.taken(link, lines, Some(time))))
    }

    /// Enters a hold again that the same session and number have.
    async fn enter_again(&self) -> Result<Option<Taken>> {
        let session = self.session.as_ref().map_or(0, |session| session.id);
        let Some(held) = self.core.holds.of(session, self.ask.hold, &self.names[0]) else {
            return Ok(None);
        };
        let places = held.places.lock().await.clone();
        let is_same = self.ask.wants.iter().all(|want| {
            let mut both = held.names.iter().zip(&places);
            both.any(|(name, who)| *name == want.name && who.mode == want.mode)
        });
        if !is_same || held.names.len() != self.names.len() {
            let wrong = "the hold to enter again covers other locks, or holds them otherwise";
            return Err(Error::new(ErrorKind::Different, wrong));
        }
        let entries = self.core.enter(&held, self.ask.ttl).await?;
        Ok(entries.map(|entries| (held, entries)))
    }

    /// Waits for something to happen to whoever stands in the way.
    async fn wait(&mut self, link: &Link, lines: &[Line]) -> Tried<()> {
        let over = moment(self.ask.wait.until(self.asked));
        let session_over = async {
            match &self.session {
                Some(session) => session.over().await,
                None => std::future::pending().await,
            }
        };
        let mut gone = self.gone.clone();
        tokio::select! {
            biased;
            () = gone.wait() => Err(Gone::cancelled().into()),
            () = session_over => Err(no_session().into()),
            () = over => Err(too_late(self.ask.wait).into()),
            () = link.lost() => Err(Fault::Lost),
            changed = self.changed(link, lines) => changed,
        }
    }

    /// Waits until it is worth looking again.
    async fn changed(&self, link: &Link, lines: &[Line]) -> Tried<()> {
        let node = self.node(link);
        for line in lines {
            let Some(place) = line.find(&node, link.session) else { return Ok(()) };
            if line.holds(place) {
                continue;
            }
            // With several lines the first that is in the way will do: it must go in any case.
            let Some(blocker) = line::blocker(&line.list, place, 0) else {
                return self.core.line_changed(link, line, &mut self.patience()).await;
            };
            let at = line.list.iter().position(|other| other.id == blocker.id);
            let Some(stand) = at.map(|at| &line.stands[at]) else { return Ok(()) };
            let path = self.core.keys.contender(&line.name, &stand.node);
            return self.core.gone(link, &path, &mut self.patience()).await;
        }
        Ok(())
    }

    /// Refuses to wait if that would never end.
    async fn look_for_circle(&self, link: &Link) -> Tried<()> {
        let session = self.session.as_ref().map_or(0, |session| session.id);
        if !self.core.holds.has(session, self.ask.hold) {
            // Nobody waits for somebody who holds nothing.
            return Ok(());
        }
        let (mut patience, node) = (self.patience(), self.node(link));
        let mut find = async || {
            let lines = self.core.all_lines(link, &mut patience).await?;
            let own = lines.iter().flat_map(|line| &line.stands).find(|own| own.node == node);
            let token = own.map(|own| own.who.token);
            let lines: Vec<_> = lines.iter().map(|line| (&*line.name, &line.list[..])).collect();
            Tried::Ok(token.and_then(|token| circle::find(&lines, token)))
        };
        // Lines are read one after the other, so a circle may be put together from pieces of
        // different times. One that is found twice was there, whole, between the two.
        let Some(circle) = find().await? else { return Ok(()) };
        if find().await? != Some(circle.clone()) {
            return Ok(());
        }
        let wrong = format!("waiting would never end: {circle}; release one of them first");
        Err(Error::new(ErrorKind::Deadlock, wrong).into())
    }
}

impl Core {
    /// Waits until a node has gone.
    async fn gone(&self, link: &Link, path: &str, patience: &mut Patience) -> Tried<()> {
        loop {
            // The answer comes with a watch that begins at it; the driver keeps it when it
            // connects again, and takes it away when nobody waits any more.
            let watched = link.once(|client| {
                let path = path.to_owned();
                async move {
                    let (_, _, watcher) = client.get_and_watch_data(&path).await?;
                    Ok::<_, zookeeper_client::Error>(watcher)
                }
            });
            let watcher: OneshotWatcher = match watched.await {
                Ok(watcher) => watcher,
                Err(Fault::NoNode) => return Ok(()),
                Err(Fault::Away(why)) => {
                    patience.bear(&self.server.config.shown, &why).await?;
                    continue;
                }
                Err(fault) => return Err(fault),
            };
            // It may have been renewed only.
            watcher.changed().await;
        }
    }

    /// Waits until somebody comes into a line, or goes.
    pub async fn line_changed(
        &self,
        link: &Link,
        line: &Line,
        patience: &mut Patience,
    ) -> Tried<()> {
        let path = self.keys.line(&line.name);
        loop {
            let watched = link.once(|client| {
                let path = path.clone();
                async move { client.list_and_watch_children(&path).await }
            });
            match watched.await {
                Ok((nodes, watcher)) => {
                    let is_same = nodes.len() == line.nodes.len()
                        && nodes.iter().all(|node| line.nodes.contains(node));
                    if is_same {
                        watcher.changed().await;
                    }
                    return Ok(());
                }
                Err(Fault::NoNode) if !line.nodes.is_empty() => return Ok(()),
                Err(Fault::NoNode) => return self.exists(link, &path, patience).await,
                Err(Fault::Away(why)) => {
                    patience.bear(&self.server.config.shown, &why).await?;
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Waits until a node is there.
    async fn exists(&self, link: &Link, path: &str, patience: &mut Patience) -> Tried<()> {
        loop {
            let watched = link.once(|client| {
                let path = path.to_owned();
                async move { client.check_and_watch_stat(&path).await }
            });
            match watched.await {
                Ok((None, watcher)) => drop(watcher.changed().await),
                Ok((Some(_), _)) => return Ok(()),
                Err(Fault::Away(why)) => {
                    patience.bear(&self.server.config.shown, &why).await?;
                }
                Err(fault) => return Err(fault),
            }
        }
    }
}

fn no_session() -> Error {
    let wrong = "the session ended while it waited; open a new one and ask again";
    Error::new(ErrorKind::NoSession, wrong)
}

/// The refusal of somebody who does not wait.
fn busy(lines: &[Line], own: &str) -> Error {
    let others = |line: &&Line| line.stands.iter().any(|other| other.node != own);
    let Some(line) = lines.iter().find(others) else {
        return Error::new(ErrorKind::Busy, "it is held; wait for it or try later");
    };
    let (name, token) = (&line.name, line.list[0].token);
    let more = line.stands.iter().filter(|other| other.node != own).count() - 1;
    let wrong = format!(
        "lock {name} is held with token {token}, {more} more stand in line; wait for it or try \
         later"
    );
    Error::new(ErrorKind::Busy, wrong)
}
