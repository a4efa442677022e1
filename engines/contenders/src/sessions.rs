//! Sessions, kept by the process that opened them.
//!
//! What a session has in hand carries deadlines of its own in the store; the sign of life of the
//! session moves them all. So a session needs no entry: when its process dies, what it had ends
//! one by one, all within the session's TTL.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_api::engine::{OpenSession, Session, SessionRef};
use leasehold_api::{Error, ErrorKind, Result};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::limits;
use crate::random;

/// Sessions of one process at once.
const SESSIONS_MAX: usize = 100_000;

/// What else a session has in hand, such as deliveries.
#[async_trait]
pub trait InHand: Send + Sync + 'static {
    /// The session lives: what it has in hand may stay for another `ttl`.
    async fn kept(&self, session: u64, ttl: Duration) -> Result<()>;

    /// The session has ended: what it had in hand goes back.
    async fn ended(&self, session: u64) -> Result<()>;
}

/// One session.
#[derive(Debug)]
pub struct SessionState {
    /// Its number.
    pub id: u64,
    /// It ends when it is silent for so long.
    pub ttl: Option<Duration>,
    /// What it says about itself.
    pub label: Option<Arc<str>>,
    until: watch::Sender<Life>,
    bound: Mutex<BTreeSet<(Arc<str>, u64)>>,
}

#[derive(Debug, Clone, Copy)]
enum Life {
    /// Until then; `None`: until it is closed.
    Until(Option<Instant>),
    Closed,
}

impl SessionState {
    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        match *self.until.borrow() {
            Life::Until(until) => until.is_some_and(|until| until <= Instant::now()),
            Life::Closed => true,
        }
    }

    /// Waits until it has ended.
    pub async fn over(&self) {
        let mut life = self.until.subscribe();
        loop {
            let now = *life.borrow_and_update();
            let changed = match now {
                Life::Closed => return,
                Life::Until(None) => life.changed().await.is_ok(),
                Life::Until(Some(until)) => match timeout_at(until, life.changed()).await {
                    Ok(changed) => changed.is_ok(),
                    Err(_) => return,
                },
            };
            if !changed {
                return;
            }
        }
    }

    fn touch(&self) {
        let until = self.ttl.map(|ttl| Instant::now() + ttl);
        self.until.send_modify(|life| *life = Life::Until(until));
    }

    /// Locks that end with it: name and token.
    pub(crate) fn bound(&self) -> Vec<(Arc<str>, u64)> {
        self.lock().iter().cloned().collect()
    }

    pub(crate) fn bind(&self, name: Arc<str>, token: u64) {
        self.lock().insert((name, token));
    }

    pub(crate) fn unbind(&self, name: &Arc<str>, token: u64) {
        self.lock().remove(&(name.clone(), token));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<(Arc<str>, u64)>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sessions of one process.
#[derive(Debug, Default)]
pub struct Sessions {
    open: Mutex<HashMap<u64, Arc<SessionState>>>,
}

/// A session that is not there.
fn no_session(id: u64) -> Error {
    let wrong = format!("session {id} has ended, or another process opened it; open a new one");
    Error::new(ErrorKind::NoSession, wrong)
}

impl Sessions {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<SessionState>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session, or takes one up again that this process has.
    ///
    /// # Errors
    /// `NoSession` when the one to take up has ended; `Invalid` for a bad TTL; `Full`.
    pub fn open(&self, ask: &OpenSession) -> Result<Session> {
        if let Some(resume) = &ask.resume {
            let state = self.find(resume.id)?;
            state.touch();
            return Ok(Session { session: resume.clone(), resumed: true });
        }
        ask.ttl.map_or(Ok(()), limits::ttl)?;
        let state = SessionState {
            id: random()? & ((1 << 53) - 1),
            ttl: ask.ttl,
            label: ask.label.clone(),
            until: watch::channel(Life::Until(None)).0,
            bound: Mutex::default(),
        };
        state.touch();
        let id = state.id;
        let mut open = self.lock();
        open.retain(|_, state| !state.is_over());
        if open.len() >= SESSIONS_MAX {
            let wrong = format!("this process has {SESSIONS_MAX} sessions; close some");
            return Err(Error::new(ErrorKind::Full, wrong));
        }
        open.insert(id, Arc::new(state));
        Ok(Session { session: SessionRef { id, proof: None }, resumed: false })
    }

    /// A session that lives.
    ///
    /// # Errors
    /// `NoSession`.
    pub fn find(&self, id: u64) -> Result<Arc<SessionState>> {
        let found = self.lock().get(&id).cloned();
        found.filter(|state| !state.is_over()).ok_or_else(|| no_session(id))
    }

    /// Notes a sign of life.
    ///
    /// # Errors
    /// `NoSession`.
    pub fn keep(&self, id: u64) -> Result<Arc<SessionState>> {
        let state = self.find(id)?;
        state.touch();
        Ok(state)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// `NoSession`.
    pub fn close(&self, id: u64) -> Result<Arc<SessionState>> {
        let state = self.find(id)?;
        self.lock().remove(&id);
        state.until.send_modify(|life| *life = Life::Closed);
        Ok(state)
    }
}
