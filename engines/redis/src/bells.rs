//! Bells: a subscription for each thing that somebody waits for, all on one connection.
//!
//! Whoever listens has the server's confirmation first, so that a look afterwards misses nothing.
//! A connection that broke, or does not answer any more, rings every bell: all look again, and
//! listen anew. A bell says nothing but that it is worth looking.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use leasehold_api::Result;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, PushKind, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, interval_at};

use crate::connect::Finder;
use crate::error::sent;

/// How often a quiet connection is asked whether it lives; half of what a lost bell may cost.
const PING: Duration = Duration::from_secs(5);
/// Requests handled with one command.
const BATCH: usize = 256;

type Channel = Vec<u8>;

struct Bell {
    rings: watch::Sender<u64>,
    listeners: usize,
    is_confirmed: bool,
}

/// The bells of one connection.
type Hung = Arc<Mutex<HashMap<Channel, Bell>>>;

enum Request {
    Listen(Channel, oneshot::Sender<Result<Listener>>),
    /// Somebody listens no more on this connection.
    Leave(Channel, u64),
}

/// Where bells are listened for.
#[derive(Debug, Clone)]
pub(crate) struct Bells {
    requests: mpsc::UnboundedSender<Request>,
}

/// Listens for a bell until it is dropped.
pub(crate) struct Listener {
    channel: Channel,
    connection: u64,
    rings: watch::Receiver<u64>,
    requests: mpsc::UnboundedSender<Request>,
}

impl Listener {
    /// Forgets the rings so far: whoever looks now sees what they were about.
    pub fn heard(&mut self) {
        self.rings.borrow_and_update();
    }

    /// Waits for a ring since the last [`heard`](Self::heard). Gives whether the connection is
    /// still there; if not, this listener hears nothing any more.
    pub async fn rung(&mut self) -> bool {
        self.rings.changed().await.is_ok()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let channel = std::mem::take(&mut self.channel);
        // If nobody is there any more the connection has gone too.
        self.requests.send(Request::Leave(channel, self.connection)).ok();
    }
}

impl Bells {
    /// Connects when somebody first listens, and ends with the last clone.
    pub fn new(finder: Arc<Finder>) -> Self {
        let (requests, asked) = mpsc::unbounded_channel();
        let weak = requests.downgrade();
        let lost = finder.lost();
        tokio::spawn(Tower { finder, requests: weak, line: None, count: 0 }.run(asked, lost));
        Self { requests }
    }

    /// Listens; the server has confirmed it when this comes back.
    ///
    /// # Errors
    /// `Unavailable` when the server is not reached.
    pub async fn listen(&self, channel: impl Into<Channel>) -> Result<Listener> {
        let (tell, told) = oneshot::channel();
        let gone = || {
            leasehold_api::Error::new(
                leasehold_api::ErrorKind::Unavailable,
                "the runtime is shutting down",
            )
        };
        self.requests.send(Request::Listen(channel.into(), tell)).map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }
}

struct Line {
    connection: MultiplexedConnection,
    number: u64,
    hung: Hung,
    broken: watch::Receiver<bool>,
}

/// The task that has the connection.
struct Tower {
    finder: Arc<Finder>,
    requests: mpsc::WeakUnboundedSender<Request>,
    line: Option<Line>,
    count: u64,
}

fn lock(hung: &Hung) -> std::sync::MutexGuard<'_, HashMap<Channel, Bell>> {
    hung.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn broken(line: &mut Option<Line>) {
    match line {
        Some(line) => drop(line.broken.wait_for(|broken| *broken).await),
        None => std::future::pending().await,
    }
}

impl Tower {
    async fn run(
        mut self,
        mut asked: mpsc::UnboundedReceiver<Request>,
        mut lost: watch::Receiver<u64>,
    ) {
        let mut ping = interval_at(Instant::now() + PING, PING);
        ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                count = asked.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    self.handle(std::mem::take(&mut batch)).await;
                }
                () = broken(&mut self.line) => self.hang_up(),
                // The node may have become a replica, or be gone without a word: it is found anew.
                Ok(()) = lost.changed() => self.hang_up(),
                _ = ping.tick(), if self.line.is_some() => self.ping().await,
            }
        }
    }

    /// Rings all bells for the last time.
    fn hang_up(&mut self) {
        if let Some(line) = self.line.take() {
            lock(&line.hung).clear();
        }
    }

    async fn ping(&mut self) {
        let Some(line) = &mut self.line else { return };
        let ping = redis::cmd("PING");
        if let Err(error) = ping.query_async::<Value>(&mut line.connection).await {
            tracing::debug!(%error, "the connection for signals is lost");
            self.hang_up();
        }
    }

    async fn connect(&mut self) -> Result<()> {
        if self.line.is_some() {
            return Ok(());
        }
        let hung = Hung::default();
        let (tell, told) = watch::channel(false);
        let (bells, tell) = (hung.clone(), Arc::new(tell));
        let settings = move || {
            let (bells, tell) = (bells.clone(), tell.clone());
            AsyncConnectionConfig::new().set_push_sender(move |push: PushInfo| {
                ring(&bells, &tell, &push);
                Ok::<(), ()>(())
            })
        };
        let connecting = self.finder.connect(settings, ProtocolVersion::RESP3);
        let connection = connecting.await.map_err(|failure| failure.error)?;
        self.count += 1;
        self.line = Some(Line { connection, number: self.count, hung, broken: told });
        Ok(())
    }

    async fn handle(&mut self, batch: Vec<Request>) {
        let listens = batch.iter().any(|request| matches!(request, Request::Listen(..)));
        let connected = if listens { self.connect().await } else { Ok(()) };
        let mut waiting = Vec::new();
        for request in batch {
            match (request, &connected, &self.line) {
                (Request::Listen(channel, tell), Ok(()), Some(line)) => {
                    let bell =
                        |_| Bell { rings: watch::channel(0).0, listeners: 0, is_confirmed: false };
                    let mut hung = lock(&line.hung);
                    hung.entry(channel.clone()).or_insert_with(|| bell(())).listeners += 1;
                    waiting.push((channel, tell));
                }
                (Request::Listen(_, tell), Err(error), _) => drop(tell.send(Err(error.clone()))),
                (Request::Leave(channel, number), _, Some(line)) if line.number == number => {
                    if let Some(bell) = lock(&line.hung).get_mut(&channel) {
                        bell.listeners -= 1;
                    }
                }
                _ => {}
            }
        }
        let subscribed = self.subscribe().await;
        for (channel, tell) in waiting {
            let listener = subscribed.clone().and_then(|()| self.listener(channel));
            // Who has gone meanwhile drops the listener, which then leaves.
            drop(tell.send(listener));
        }
    }

    fn listener(&self, channel: Channel) -> Result<Listener> {
        let lost = || {
            leasehold_api::Error::new(
                leasehold_api::ErrorKind::Unavailable,
                "the connection for signals was lost",
            )
        };
        let line = self.line.as_ref().ok_or_else(lost)?;
        let requests = self.requests.upgrade().ok_or_else(lost)?;
        let rings = lock(&line.hung).get(&channel).map(|bell| bell.rings.subscribe());
        let rings = rings.ok_or_else(lost)?;
        Ok(Listener { channel, connection: line.number, rings, requests })
    }

    /// Tells the server which channels are wanted now, and waits for its confirmation.
    async fn subscribe(&mut self) -> Result<()> {
        let Some(line) = &mut self.line else { return Ok(()) };
        let (mut more, mut less) = (Vec::new(), Vec::new());
        lock(&line.hung).retain(|channel, bell| {
            if bell.listeners == 0 {
                if bell.is_confirmed {
                    less.push(channel.clone());
                }
                return false;
            }
            if !std::mem::replace(&mut bell.is_confirmed, true) {
                more.push(channel.clone());
            }
            true
        });
        let mut done = Ok(());
        if !less.is_empty() {
            done = line.connection.unsubscribe(&less[..]).await;
        }
        if !more.is_empty() && done.is_ok() {
            done = line.connection.subscribe(&more[..]).await;
        }
        done.map_err(|error| {
            let error = sent(&self.finder.config.shown, &error).error;
            self.hang_up();
            error
        })
    }
}

/// What the server sent without being asked.
fn ring(hung: &Hung, broken: &watch::Sender<bool>, push: &PushInfo) {
    match (&push.kind, push.data.first()) {
        (PushKind::Message, Some(Value::BulkString(channel))) => {
            if let Some(bell) = lock(hung).get(channel) {
                bell.rings.send_modify(|rings| *rings = rings.wrapping_add(1));
            }
        }
        (PushKind::Disconnection, _) => drop(broken.send(true)),
        _ => {}
    }
}
