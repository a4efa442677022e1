//! The door's state, the same for all requests.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use leasehold_api::engine::{Engine, LockEngine, QueueEngine, Receive, SessionRef, Wait};
use leasehold_api::{Error, ErrorKind, Result, Retry};
use leasehold_users::{Users, sha256};
use leasehold_wire::lock::WAIT_MS_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::caller::Caller;
use crate::config::{Counters, DoorConfig, HttpLimits, ServerInfo};
use crate::metrics::Requests;
use crate::own_session::OwnSession;
use crate::refusal::{Outcome, Refusal};
use crate::sampler::Sampler;
use crate::seal::Seal;

/// What all requests share.
pub(crate) struct Door {
    pub engine: Engine,
    pub limits: HttpLimits,
    pub info: ServerInfo,
    pub warnings: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    pub hosts: Vec<String>,
    pub counters: Arc<dyn Counters>,
    pub users: Arc<Users>,
    pub seal: Seal,
    pub own: OwnSession,
    pub sampler: Sampler,
    pub requests: Requests,
    pub started: Instant,
    waiting: Arc<Semaphore>,
    closing: watch::Sender<bool>,
}

impl Door {
    pub fn new(engine: Engine, config: DoorConfig) -> Self {
        Self {
            users: config.users,
            seal: Seal::new(&config.secret),
            own: OwnSession::default(),
            sampler: Sampler::default(),
            requests: Requests::default(),
            started: Instant::now(),
            waiting: Arc::new(Semaphore::new(config.limits.waiting)),
            closing: watch::Sender::new(false),
            engine,
            limits: config.limits,
            info: config.info,
            warnings: config.warnings,
            hosts: config.hosts,
            counters: config.counters,
        }
    }

    /// The engine's locks.
    pub fn locks(&self) -> Result<&Arc<dyn LockEngine>> {
        let none = || Error::unsupported(&self.engine.url, "locks");
        self.engine.locks.as_ref().ok_or_else(none)
    }

    /// The engine's queues.
    pub fn queues(&self) -> Result<&Arc<dyn QueueEngine>> {
        let none = || Error::unsupported(&self.engine.url, "queues");
        self.engine.queues.as_ref().ok_or_else(none)
    }

    /// Ends all waits; whoever waits is told to ask again.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Resolves when the door closes.
    pub async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        // The sender lives as long as the door, so this ends by closing only.
        let _ = closing.wait_for(|closing| *closing).await;
    }

    /// Waits for something, unless too many wait already or the door closes. When the client
    /// hangs up, the handler is dropped, and what it waited for with it.
    pub async fn patient<T>(
        &self,
        wait_ms: u64,
        what: impl Future<Output = Result<T>>,
    ) -> Outcome<T> {
        if wait_ms > WAIT_MS_MAX {
            let wrong = format!("wait_ms is at most {WAIT_MS_MAX}; ask again after that");
            return Err(Refusal::invalid(wrong));
        }
        if wait_ms == 0 {
            return Ok(what.await?);
        }
        let _place = self.place()?;
        tokio::select! {
            biased;
            done = what => Ok(done?),
            () = self.closed() => Err(closing().into()),
        }
    }

    /// A place among those who wait.
    pub fn place(&self) -> Outcome<OwnedSemaphorePermit> {
        self.waiting.clone().try_acquire_owned().map_err(|_| {
            let max = self.limits.waiting;
            let wrong = format!("{max} requests wait already; ask again, or with wait_ms 0");
            let refusal = Refusal::new(ErrorKind::Full, wrong);
            refusal.with_status(StatusCode::SERVICE_UNAVAILABLE)
        })
    }

    /// The session that a request names, as the engine knows it.
    pub fn session(
        &self,
        session: Option<SessionRef>,
        caller: &Caller,
    ) -> Result<Option<SessionRef>> {
        session.map(|session| self.seal.open_session(&session, caller.name())).transpose()
    }

    /// The hold that a request names, or a number of our own. A request that names itself gets
    /// the same number each time, so that its retry is answered alike.
    pub fn hold(&self, hold: Option<u64>, request: Option<&str>, caller: &Caller) -> Outcome<u64> {
        if let Some(hold) = hold {
            return Ok(hold);
        }
        let mut bytes = [0; 8];
        match request {
            Some(id) => {
                let name = caller.name();
                let digest = sha256(format!("hold {}:{name}{id}", name.len()).as_bytes());
                bytes.copy_from_slice(&digest[..8]);
            }
            None => getrandom::fill(&mut bytes).map_err(|error| {
                Refusal::new(ErrorKind::Broken, format!("the system has no randomness: {error}"))
            })?,
        }
        Ok((u64::from_le_bytes(bytes) >> 11).max(1))
    }

    /// Whether the engine answers, soon.
    pub async fn ready(&self) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(2);
        let answer = self.asked();
        let silent = |_| {
            let wrong = "the engine does not answer; look at the server's log";
            Error::new(ErrorKind::Unavailable, wrong).with_retry(Retry::Later)
        };
        tokio::time::timeout(PATIENCE, answer).await.map_err(silent)?
    }

    /// Asks the engine something small that it can answer. That there is nothing of the name is
    /// an answer; that it cannot do something may come from this side of it.
    async fn asked(&self) -> Result<()> {
        const NAME: &str = "readyz";
        let unable = |asked: &Result<()>| {
            asked.as_ref().is_err_and(|error| error.kind == ErrorKind::Unsupported)
        };
        let mut answer = Err(Error::unsupported(&self.engine.url, "locks and queues"));
        if let Some(locks) = &self.engine.locks {
            answer = locks.inspect(NAME).await.map(drop);
            if unable(&answer) {
                answer = locks.check(NAME, 1).await.map(drop);
            }
            if unable(&answer) {
                answer = locks.read(NAME.as_bytes()).await.map(drop);
            }
        }
        if let Some(queues) = self.engine.queues.as_ref().filter(|_| unable(&answer)) {
            answer = queues.inspect_queue(NAME).await.map(drop);
            if unable(&answer) {
                let none = queues.receive(&nothing_of(NAME)).await;
                answer = none.map(drop);
            }
        }
        match answer {
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Invalid) => Ok(()),
            answer => answer,
        }
    }
}

/// Asks for a message of a queue that is not there.
fn nothing_of(name: &str) -> Receive {
    let session = SessionRef::NONE;
    Receive { queue: name.into(), session, max: 1, wait: Wait::No, lease: None }
}

/// What those are told who wait while the door closes. Nothing of theirs happened.
pub(crate) fn closing() -> Error {
    let wrong = "the server is shutting down; ask again in a moment";
    Error::new(ErrorKind::Unavailable, wrong).with_retry(Retry::Later)
}
