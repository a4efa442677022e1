//! Connections: made when needed, made anew when lost.
//!
//! A [`Link`] is one use of a broker (publishing, consuming, locking), each with a connection of
//! its own: a broker that is short of memory stops reading from who publishes, and acks and
//! releases must get through then. A [`Line`] is one connection of a link; what was delivered on
//! it belongs to it and is gone with it. The driver's own recovery is off: it hides which
//! deliveries died with a connection.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties, Event, ExchangeKind};
use leasehold_api::{Error, ErrorKind, Result, Retry};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::config::Config;
use crate::error::{Answer, Fault, connecting, unavailable};

/// How long a short request is tried while the broker is not reached.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer may take. After that the connection counts as dead.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);
/// The first pause before a connection is tried again; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Refusals after which a connection is replaced by another. Each ends a channel, and the driver
/// does not use a number again whose channel was ended by the broker: it answers the first request
/// on it with what ended the former one. There are 2047 numbers.
const WORN: u32 = 500;
/// Channels that are kept for the next request.
const IDLE_MAX: usize = 16;

/// One connection.
pub(crate) struct Line {
    connection: Connection,
    confirms: bool,
    dead: watch::Sender<bool>,
    refusals: AtomicU32,
    /// Why the broker takes nothing at present.
    blocked: Mutex<Option<String>>,
    idle: Mutex<Vec<Channel>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Line {
    fn drop(&mut self) {
        let tasks = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Line {
    pub fn is_alive(&self) -> bool {
        !*self.dead.borrow() && self.connection.status().connected()
    }

    /// Waits until the connection is gone. The line may be dropped meanwhile.
    pub fn gone(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut dead = self.dead.subscribe();
        async move {
            // Without a sender the line is gone as well.
            dead.wait_for(|dead| *dead).await.ok();
        }
    }

    /// Gives the connection up: whoever uses it goes on with another. If it works after all, the
    /// broker is told, so that what was delivered on it goes back.
    pub fn condemn(self: &Arc<Self>) {
        if self.dead.send_replace(true) {
            return;
        }
        self.idle().clear();
        let line = self.clone();
        tokio::spawn(async move { line.connection.close(200, "OK".into()).await.ok() });
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A channel on which nothing is under way.
    pub async fn channel(self: &Arc<Self>) -> Answer<Channel> {
        loop {
            let Some(idle) = self.idle().pop() else { break };
            if idle.status().connected() {
                return Ok(idle);
            }
        }
        let mut stale = 0;
        let channel = loop {
            match self.answer(self.connection.create_channel()).await {
                // Said of a former channel of this number; the next one has another.
                Err(Fault::Refused(error)) if error.kind != ErrorKind::Full && stale < WORN => {
                    stale += 1;
                }
                made => break made?,
            }
        };
        if self.confirms {
            self.answer(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        }
        Ok(channel)
    }

    /// Takes a channel back on which nothing is under way.
    pub fn keep(&self, channel: Channel) {
        let mut idle = self.idle();
        if channel.status().connected() && self.is_alive() && idle.len() < IDLE_MAX {
            idle.push(channel);
        }
    }

    /// Waits for an answer; when it does not come the connection is given up.
    pub async fn answer<T>(
        self: &Arc<Self>,
        asked: impl Future<Output = lapin::Result<T>>,
    ) -> Answer<T> {
        self.answer_within(ANSWER, asked).await
    }

    /// The same for what takes longer.
    pub async fn answer_within<T>(
        self: &Arc<Self>,
        within: Duration,
        asked: impl Future<Output = lapin::Result<T>>,
    ) -> Answer<T> {
        let Ok(answer) = timeout(within, asked).await else {
            let why = match &*self.blocked.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(why) => format!("it takes nothing at present ({why})"),
                None => format!("no answer within {within:?}"),
            };
            self.condemn();
            return Err(Fault::Lost(why));
        };
        answer.map_err(|error| {
            if !self.connection.status().connected() {
                self.dead.send_replace(true);
            }
            let fault = Fault::from(error);
            if matches!(fault, Fault::Refused(_)) {
                self.refusals.fetch_add(1, Ordering::Relaxed);
            }
            fault
        })
    }

    /// Whether it should be replaced. What is under way on it goes on.
    fn is_worn(&self) -> bool {
        self.refusals.load(Ordering::Relaxed) >= WORN
    }

    fn watch_over(self: &Arc<Self>) {
        let mut events = Box::pin(self.connection.events_listener());
        let line = Arc::downgrade(self);
        let listening = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let Some(line) = line.upgrade() else { return };
                let mut blocked = line.blocked.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Event::ConnectionBlocked(why) => {
                        tracing::warn!(why, "the broker takes no messages at present");
                        *blocked = Some(why);
                    }
                    Event::ConnectionUnblocked => *blocked = None,
                    Event::Error(_) if !line.connection.status().connected() => {
                        line.dead.send_replace(true);
                    }
                    _ => {}
                }
            }
        });
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(listening);
    }

    /// Proves again and again that the broker hears us. It ends a connection that it has not heard
    /// from for two heartbeats, and gives what was delivered on it to others; so we give it up
    /// before, one and a quarter heartbeats after the last proof at the latest.
    fn prove(self: &Arc<Self>, heartbeat: Duration) {
        let line = Arc::downgrade(self);
        let proving = tokio::spawn(async move {
            loop {
                sleep(heartbeat / 4).await;
                let Some(line) = line.upgrade() else { return };
                let begun = Instant::now();
                let proof = async {
                    let channel = line.channel().await?;
                    let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
                    let kind = ExchangeKind::Direct;
                    let asked = channel.exchange_declare(
                        "amq.direct".into(),
                        kind,
                        passive,
                        FieldTable::default(),
                    );
                    line.answer(asked).await?;
                    line.keep(channel);
                    Ok::<(), Fault>(())
                };
                if !matches!(timeout_at(begun + heartbeat / 2, proof).await, Ok(Ok(()))) {
                    tracing::warn!("the broker does not answer, the locks held there are lost");
                    return line.condemn();
                }
            }
        });
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(proving);
    }
}

/// A channel on which something may be under way. Dropped, it is closed in so many words: what
/// was delivered on it goes back. The driver closes what is dropped, too, but not always when an
/// answer is under way.
pub(crate) struct Own(Option<Channel>);

impl Own {
    pub fn new(channel: &Channel) -> Self {
        Self(Some(channel.clone()))
    }

    /// Nothing is under way.
    pub fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let Some(channel) = self.0.take().filter(|channel| channel.status().connected()) else {
            return;
        };
        // Without a runtime the driver is gone, and with it the connection.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { channel.close(200, "OK".into()).await.ok() });
        }
    }
}

/// Resolves when whoever holds the other end is gone.
pub(crate) async fn given_up(gone: &mut watch::Receiver<()>) {
    while gone.changed().await.is_ok() {}
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Publishing,
    Consuming,
    Locking,
}

/// One use of a broker.
pub(crate) struct Link {
    config: Arc<Config>,
    what_for: Use,
    line: tokio::sync::Mutex<Option<Arc<Line>>>,
}

impl Link {
    pub fn new(config: Arc<Config>, what_for: Use) -> Self {
        Self { config, what_for, line: tokio::sync::Mutex::default() }
    }

    /// The connection, made anew if it is lost; tries until then.
    ///
    /// # Errors
    /// `Unavailable` with `Retry::Later`; `Unauthenticated`, `Forbidden`.
    pub async fn line(&self, until: Option<Instant>) -> Result<Arc<Line>> {
        let mut last = unavailable("it is being connected to");
        let working = async {
            let mut line = self.line.lock().await;
            if let Some(line) = line.as_ref().filter(|line| line.is_alive() && !line.is_worn()) {
                return Ok(line.clone());
            }
            let mut pause = PAUSE_MIN;
            loop {
                match self.connect().await {
                    Ok(made) => {
                        *line = Some(made.clone());
                        return Ok(made);
                    }
                    Err(error) if error.kind == ErrorKind::Unavailable => last = error,
                    Err(error) => return Err(error),
                }
                sleep(jittered(pause)).await;
                pause = (2 * pause).min(PAUSE_MAX);
            }
        };
        let late = Error::new(ErrorKind::Unavailable, String::new());
        let made = match until {
            None => working.await,
            Some(until) => tokio::select! {
                biased;
                made = working => made,
                () = sleep_until(until) => Err(late),
            },
        };
        made.map_err(|error| if error.wrong.is_empty() { last } else { error })
            .map_err(|error| error.with_retry(Retry::Later))
    }

    /// Connects, once.
    pub async fn try_connect(&self) -> Result<()> {
        let made = self.connect().await?;
        *self.line.lock().await = Some(made);
        Ok(())
    }

    async fn connect(&self) -> Result<Arc<Line>> {
        let Config { uri, .. } = &*self.config;
        let what_for = format!("leasehold {:?}", self.what_for).to_lowercase();
        let properties = ConnectionProperties::default().with_connection_name(what_for.into());
        let runtime = lapin::runtime::default_runtime();
        let runtime = runtime.map_err(|error| unavailable(&error.to_string()))?;
        let tls = self.config.tls();
        let made = Connection::connect_uri_with_config(uri.clone(), properties, tls, runtime);
        let connection = match timeout(ANSWER, made).await {
            Err(_) => return Err(unavailable(&format!("no answer within {ANSWER:?}"))),
            Ok(Err(error)) => {
                return Err(connecting(error, &uri.authority.userinfo.username, &uri.vhost));
            }
            Ok(Ok(connection)) => connection,
        };
        let line = Arc::new(Line {
            connection,
            confirms: self.what_for != Use::Consuming,
            dead: watch::channel(false).0,
            refusals: AtomicU32::new(0),
            blocked: Mutex::default(),
            idle: Mutex::default(),
            tasks: Mutex::default(),
        });
        line.watch_over();
        if self.what_for == Use::Locking {
            line.prove(Duration::from_secs(self.config.heartbeat.into()));
        }
        Ok(line)
    }

    /// Asks for something that may be asked twice: after a lost connection it is asked again.
    pub async fn ask<T, F>(&self, request: impl Fn(Arc<Line>, Channel) -> F) -> Result<T>
    where
        F: Future<Output = Answer<T>>,
    {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.once(until, &request).await {
                Err(Fault::Lost(why)) if Instant::now() < until => {
                    tracing::debug!(why, "asking the broker again");
                    sleep(jittered(PAUSE_MIN)).await;
                }
                result => return result.map_err(Fault::unknown),
            }
        }
    }

    /// Asks for something that must not be asked twice.
    pub async fn once<T, F>(
        &self,
        until: Instant,
        request: impl Fn(Arc<Line>, Channel) -> F,
    ) -> Answer<T>
    where
        F: Future<Output = Answer<T>>,
    {
        let line = self.line(Some(until)).await?;
        let channel = line.channel().await?;
        let own = Own::new(&channel);
        let answer = request(line.clone(), channel.clone()).await;
        if answer.is_ok() {
            own.done();
            line.keep(channel);
        }
        answer
    }
}

/// A time between half and all of this one, so that those who were cut off together do not come
/// back together.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without chance all wait alike, which is worse only in being less polite.
    getrandom::fill(&mut byte).ok();
    pause / 2 + pause / 2 * u32::from(byte[0]) / 255
}
