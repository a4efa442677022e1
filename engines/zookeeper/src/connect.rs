//! The connection: a session with ZooKeeper, asked until there is an answer, within a patience.
//!
//! The driver connects again by itself for as long as the session lives. Whether it does, only
//! the ensemble knows; but it cannot have ended before its timeout has passed since the last
//! question that was answered was asked. So such a question is asked six times within a timeout,
//! and when the time is over without an answer the session counts as lost, although the ensemble
//! may still know it: what was held in it is not held any more, before anybody else can have it.
//! Then a new session is begun.
//!
//! An attempt that was not answered may have been carried out. Whoever asks is told so, and finds
//! out from what is there. Questions of one session are carried out in the order in which they
//! were asked, also those that nobody waits for any more.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use leasehold_api::engine::{Gone, moment};
use leasehold_api::{Error, ErrorKind, Result, Retry};
use leasehold_contenders::jittered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use zookeeper_client::{Acls, Client, CreateMode, CreateOptions};

use crate::config::Config;
use crate::error::{Fault, Tried, fault};

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(4);
/// How long an ensemble that is out of reach is waited for, where nobody says how long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// The first pause before asking again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(25), Duration::from_secs(1));
/// Signs of life within a session's timeout.
const SIGNS: u32 = 6;

/// How long an ensemble out of reach is waited for.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    until: Option<Instant>,
    pause: Duration,
    /// Ends when nobody waits for the answer any more.
    gone: Gone,
}

impl Patience {
    pub fn usual() -> Self {
        Self::until(Some(Instant::now() + PATIENCE), Gone::never())
    }

    /// Until the session ends.
    pub fn endless() -> Self {
        Self::until(None, Gone::never())
    }

    pub fn until(until: Option<Instant>, gone: Gone) -> Self {
        Self { until, pause: PAUSES.0, gone }
    }

    fn over(&self, url: &str, why: &str) -> Error {
        let wrong = format!("{url} cannot be reached: {why}");
        Error::new(ErrorKind::Unavailable, wrong).with_retry(Retry::Unknown)
    }

    /// Waits until the next attempt is due.
    ///
    /// # Errors
    /// `Unavailable` when no time is left, `Cancelled` when nobody waits any more.
    pub async fn bear(&mut self, url: &str, why: &str) -> Result<()> {
        let now = Instant::now();
        if self.until.is_some_and(|until| until <= now) {
            return Err(self.over(url, why));
        }
        let next = now + jittered(self.pause);
        self.pause = (self.pause * 2).min(PAUSES.1);
        let next = self.until.map_or(next, |until| until.min(next));
        tokio::select! {
            () = sleep_until(next) => Ok(()),
            () = self.gone.wait() => Err(Gone::cancelled()),
        }
    }

    /// Waits for something for as long as there is patience.
    async fn within<T>(&mut self, url: &str, what: impl Future<Output = T>) -> Result<T> {
        let too_late = moment(self.until);
        tokio::select! {
            done = what => return Ok(done),
            () = too_late => {}
            () = self.gone.wait() => return Err(Gone::cancelled()),
        }
        Err(self.over(url, "it has not answered yet"))
    }
}

/// What was heard, and whether an attempt before it may have been carried out.
#[derive(Debug)]
pub(crate) struct Heard<T> {
    pub said: Tried<T>,
    pub again: bool,
}

/// A session with ZooKeeper. All that hangs on it ends with it.
pub(crate) struct Link {
    pub client: Client,
    /// Its number, which ephemeral nodes show as their owner.
    pub session: i64,
    timeout: Duration,
    url: String,
    lost: watch::Sender<bool>,
    /// It cannot have ended before.
    certain: Mutex<Instant>,
}

impl Link {
    async fn open(config: &Config) -> Result<Arc<Self>> {
        let began = Instant::now();
        let mut connector =
            Client::connector().with_session_timeout(config.session).with_fail_eagerly();
        if let Some(user) = &config.user {
            connector = connector.with_auth("digest", user.as_bytes());
        }
        let client = match timeout(ATTEMPT, connector.connect(&config.hosts)).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => match fault(&error) {
                Fault::Refused(error) => return Err(error),
                _ => return Err(unreachable(config, &error.to_string())),
            },
            Err(_) => return Err(unreachable(config, &format!("no answer within {ATTEMPT:?}"))),
        };
        let granted = client.session_timeout();
        if granted > config.session {
            let wrong = format!(
                "the ensemble keeps the session of a dead process for {granted:?} at least, not \
                 for {:?}; lower minSessionTimeout or tickTime there, or ask for more with \
                 ?session=SECONDS",
                config.session
            );
            return Err(Error::new(ErrorKind::Unsupported, wrong));
        }
        let certain = Mutex::new(began + granted);
        let (lost, session) = (watch::channel(false).0, client.session_id().0);
        let url = config.shown.clone();
        Ok(Arc::new(Self { client, session, timeout: granted, url, lost, certain }))
    }

    /// Whether the session has ended.
    pub fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }

    /// Waits until the session has ended.
    pub async fn lost(&self) {
        // It lasts as long as its sender, which is here.
        self.lost.subscribe().wait_for(|lost| *lost).await.ok();
    }

    fn lose(&self) {
        if !self.lost.send_replace(true) {
            tracing::warn!(url = self.url, session = self.session, "the session ended");
        }
    }

    /// Asks once.
    pub async fn once<T, E, F>(&self, call: impl FnOnce(Client) -> F) -> Tried<T>
    where
        F: Future<Output = std::result::Result<T, E>>,
        zookeeper_client::Error: From<E>,
    {
        if self.is_lost() {
            return Err(Fault::Lost);
        }
        tokio::select! {
            answer = timeout(ATTEMPT, call(self.client.clone())) => match answer {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => {
                    let fault = fault(&error.into());
                    if matches!(fault, Fault::Lost) {
                        self.lose();
                    }
                    Err(fault)
                }
                Err(_) => Err(Fault::Away(format!("no answer within {ATTEMPT:?}"))),
            },
            () = self.lost() => Err(Fault::Lost),
        }
    }

    /// Asks until there is an answer. What is asked must be such that twice is the same as once,
    /// or that its traces can be found.
    pub async fn ask<T, E, F>(
        &self,
        patience: &mut Patience,
        call: impl Fn(Client) -> F,
    ) -> Heard<T>
    where
        F: Future<Output = std::result::Result<T, E>>,
        zookeeper_client::Error: From<E>,
    {
        let mut again = false;
        loop {
            let why = match self.once(&call).await {
                Err(Fault::Away(why)) => why,
                said => return Heard { said, again },
            };
            again = true;
            tracing::debug!(url = self.url, why, "asking again");
            if let Err(error) = patience.bear(&self.url, &why).await {
                return Heard { said: Err(Fault::Refused(error)), again };
            }
        }
    }

    /// Shows a sign of life, and waits for the answer; gives when to show the next.
    async fn show(&self) -> Duration {
        let sent = Instant::now();
        let certain = *self.certain.lock().unwrap_or_else(PoisonError::into_inner);
        tokio::select! {
            biased;
            () = sleep_until(certain) => {
                self.lose();
                Duration::ZERO
            }
            said = self.once(|client| async move { client.check_stat("/").await }) => match said {
                // That one may not look is an answer, too.
                Ok(_) | Err(Fault::Refused(_)) => {
                    let mut certain = self.certain.lock().unwrap_or_else(PoisonError::into_inner);
                    *certain = sent + self.timeout;
                    self.timeout / SIGNS
                }
                Err(_) => PAUSES.0,
            },
        }
    }
}

/// The refusal of who opens an ensemble that is not there.
fn unreachable(config: &Config, why: &str) -> Error {
    let wrong = format!(
        "{} cannot be reached: {why}; do the servers run, and does a majority of them?",
        config.shown
    );
    Error::new(ErrorKind::Unavailable, wrong).with_retry(Retry::Later)
}

/// An ensemble.
pub(crate) struct Server {
    pub config: Config,
    link: watch::Sender<Option<Arc<Link>>>,
}

impl Server {
    /// Connects, and makes the nodes that everything is below.
    ///
    /// # Errors
    /// `Unavailable` when nobody answers, `Unauthenticated`, `Forbidden`, `Unsupported` when the
    /// server is too old or keeps sessions for too long.
    pub async fn connect(config: Config) -> Result<Arc<Self>> {
        // A server that has just been started hangs up at first.
        let until = Instant::now() + ATTEMPT;
        let link = loop {
            match Link::open(&config).await {
                Err(error) if error.kind == ErrorKind::Unavailable && Instant::now() < until => {
                    sleep(jittered(PAUSES.0 * 4)).await;
                }
                link => break link?,
            }
        };
        let server = Arc::new(Self { config, link: watch::channel(Some(link.clone())).0 });
        server.prepare(&link, &mut Patience::usual()).await?;
        tokio::spawn(tend(Arc::downgrade(&server)));
        Ok(server)
    }

    /// Who may do what with the nodes that are made.
    pub fn acls(&self) -> Acls<'static> {
        match self.config.user {
            Some(_) => Acls::creator_all(),
            None => Acls::anyone_all(),
        }
    }

    /// How nodes of a kind are made.
    pub fn options(&self, mode: CreateMode) -> CreateOptions<'static> {
        mode.with_acls(self.acls())
    }

    /// Makes the nodes that everything is below.
    pub async fn prepare(&self, link: &Link, patience: &mut Patience) -> Result<()> {
        let root = &self.config.root;
        for below in ["locks", "registers", "clock", "deletions"] {
            let (path, options) = (format!("{root}/{below}"), self.options(CreateMode::Persistent));
            let call = |client: Client| {
                let (path, options) = (path.clone(), options.clone());
                async move { client.mkdir(&path, &options).await }
            };
            link.ask(patience, call).await.said?;
        }
        Ok(())
    }

    /// The session at present, or the next one.
    pub async fn link(&self, patience: &mut Patience) -> Result<Arc<Link>> {
        let mut links = self.link.subscribe();
        let is_alive = |link: &Option<Arc<Link>>| link.as_ref().is_some_and(|link| !link.is_lost());
        let next = async { links.wait_for(is_alive).await.ok().and_then(|link| link.clone()) };
        let next = patience.within(&self.config.shown, next).await?;
        next.ok_or_else(|| Error::new(ErrorKind::Broken, "the engine was closed"))
    }

    /// Asks until there is an answer, in any session.
    pub async fn ask<T, E, F>(
        &self,
        patience: &mut Patience,
        call: impl Fn(Client) -> F,
    ) -> Heard<T>
    where
        F: Future<Output = std::result::Result<T, E>>,
        zookeeper_client::Error: From<E>,
    {
        let mut before = false;
        loop {
            let link = match self.link(patience).await {
                Ok(link) => link,
                Err(error) => return Heard { said: Err(error.into()), again: before },
            };
            let Heard { said, again } = link.ask(patience, &call).await;
            before |= again;
            match said {
                Err(Fault::Lost) => before = true,
                said => return Heard { said, again: before },
            }
        }
    }
}

/// Keeps the session alive, and begins another when it has ended, for as long as there is an
/// engine.
async fn tend(server: Weak<Server>) {
    let mut pause = PAUSES.0;
    loop {
        let Some(strong) = server.upgrade() else { return };
        let link = strong.link.borrow().clone().filter(|link| !link.is_lost());
        let rest = match link {
            Some(link) => {
                pause = PAUSES.0;
                link.show().await
            }
            None => {
                // The old one is let go first, so that it is closed if it can be.
                strong.link.send_replace(None);
                match Link::open(&strong.config).await {
                    Ok(link) => {
                        strong.link.send_replace(Some(link));
                        continue;
                    }
                    Err(error) => tracing::debug!(%error, "not connected yet"),
                }
                let rest = jittered(pause);
                pause = (pause * 2).min(PAUSES.1);
                rest
            }
        };
        drop(strong);
        sleep(rest).await;
    }
}
