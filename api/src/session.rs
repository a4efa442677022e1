//! The session of one handle: opened when first needed, kept alive by a task, opened anew when the
//! engine says that it has ended.
//!
//! Waiters and deliveries belong to it, so when this process dies they go back within its TTL.
//! Locks do not end with it unless asked to (`bound`): they have a TTL of their own, and a hiccup
//! of the session must not cost a lock that is being renewed.
//!
//! After a restart an engine still has the sessions in which something is held, for a grace and as
//! nobody's: it answers `NoSession` until they are taken up again. So that is what is tried first.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::engine::{LockEngine, OpenSession, SessionRef};
use crate::{Error, ErrorKind, Result};

/// How long a session outlives its process if not said.
pub const SESSION_TTL: Duration = Duration::from_secs(10);
/// The shortest that a session's TTL may be: a slow network or a short pause must not end it.
pub const SESSION_TTL_MIN: Duration = Duration::from_millis(500);
/// The longest that a session's TTL may be: what the dead have in hand must come back.
pub const SESSION_TTL_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Signs of life within one TTL.
const SIGNS: u32 = 3;
/// How long after a failed sign of life the next is given.
const RETRY: Duration = Duration::from_millis(250);
/// A new session that is gone so soon was never there.
const AT_ONCE: Duration = Duration::from_secs(1);

pub(crate) struct SessionKeeper {
    /// `None`: the engine has queues alone, and no sessions.
    locks: Option<Arc<dyn LockEngine>>,
    life: Life,
    open: Mutex<Option<Kept>>,
    /// The engine has said that it knows no sessions: it is asked once.
    unknown: AtomicBool,
}

/// How a session lives.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    pub ttl: Duration,
    pub label: Option<Arc<str>>,
}

impl Life {
    /// Asks for a session of this kind, or for one that is there to be taken up again.
    fn open(&self, resume: Option<SessionRef>) -> OpenSession {
        OpenSession { ttl: Some(self.ttl), resume, label: self.label.clone() }
    }

    /// Says that a session lives. After a restart of the engine it may still be there although
    /// nobody has it, and has to be taken up again.
    async fn show(&self, locks: &dyn LockEngine, session: &SessionRef) -> Result<()> {
        let within = self.ttl / SIGNS;
        match timeout(within, locks.keep_alive(session)).await {
            Ok(Err(error)) if error.kind == ErrorKind::NoSession => {
                locks.open_session(&self.open(Some(session.clone()))).await.map(drop)
            }
            Ok(shown) => shown,
            Err(_) => {
                let wrong = format!("the engine did not answer within {within:?}");
                Err(Error::new(ErrorKind::Unavailable, wrong))
            }
        }
    }
}

struct Kept {
    session: SessionRef,
    /// Gives signs of life; ends when the keeper is dropped or the session is gone.
    task: JoinHandle<()>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SessionKeeper {
    pub fn new(locks: Option<Arc<dyn LockEngine>>, life: Life) -> Arc<Self> {
        let unknown = AtomicBool::new(locks.is_none());
        Arc::new(Self { locks, life, open: Mutex::new(None), unknown })
    }

    /// The session, opened if there is none; [`SessionRef::NONE`] where the engine has none.
    pub async fn session(self: &Arc<Self>) -> Result<SessionRef> {
        let Some(locks) = self.locks.as_ref().filter(|_| !self.unknown.load(Relaxed)) else {
            return Ok(SessionRef::NONE);
        };
        let mut open = self.open.lock().await;
        if let Some(kept) = &*open
            && !kept.task.is_finished()
        {
            return Ok(kept.session.clone());
        }
        let session = match locks.open_session(&self.life.open(None)).await {
            Ok(opened) => opened.session,
            Err(error) if error.kind == ErrorKind::Unsupported => {
                self.unknown.store(true, Relaxed);
                return Ok(SessionRef::NONE);
            }
            Err(error) => return Err(error),
        };
        *open = Some(self.keep(locks, session.clone()));
        Ok(session)
    }

    fn keep(&self, locks: &Arc<dyn LockEngine>, session: SessionRef) -> Kept {
        let locks = Arc::downgrade(locks);
        let task = tokio::spawn(keep_alive(locks, self.life.clone(), session.clone()));
        Kept { session, task }
    }

    /// The engine says that a session has ended. It is taken up again if it is there, and else
    /// forgotten, so that the next call of [`session`](Self::session) opens another.
    async fn ended(&self, session: &SessionRef) -> Result<()> {
        let Some(locks) = &self.locks else { return Ok(()) };
        let mut open = self.open.lock().await;
        if open.as_ref().is_none_or(|kept| kept.session != *session) {
            return Ok(());
        }
        *open = match locks.open_session(&self.life.open(Some(session.clone()))).await {
            Ok(_) => Some(self.keep(locks, session.clone())),
            Err(error) if error.kind == ErrorKind::NoSession => None,
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// Runs a request in the session; if the session has ended, again in a new one. A request may
    /// wait longer than several sessions live, such as over restarts of a server; only a new
    /// session in which it is refused at once is not replaced.
    pub async fn run<T, F>(self: &Arc<Self>, request: impl Fn(SessionRef) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut is_new = false;
        loop {
            let session = self.session().await?;
            let asked = Instant::now();
            match request(session.clone()).await {
                Err(error)
                    if error.kind == ErrorKind::NoSession
                        && !(is_new && asked.elapsed() < AT_ONCE) =>
                {
                    self.ended(&session).await?;
                    is_new = true;
                }
                result => return result,
            }
        }
    }

    /// Ends the session and everything in it.
    pub async fn close(&self) -> Result<()> {
        let mut open = self.open.lock().await;
        let (Some(kept), Some(locks)) = (&*open, &self.locks) else { return Ok(()) };
        // Forgotten only afterwards: if this future is dropped, closing can be asked again.
        let closed = locks.close_session(&kept.session).await;
        *open = None;
        closed
    }
}

async fn keep_alive(locks: Weak<dyn LockEngine>, life: Life, session: SessionRef) {
    let due = life.ttl / SIGNS;
    let mut pause = due;
    loop {
        tokio::time::sleep(pause).await;
        let Some(locks) = locks.upgrade() else { return };
        pause = match life.show(&*locks, &session).await {
            Ok(()) => due,
            Err(error) if error.kind == ErrorKind::NoSession => {
                tracing::warn!(session = session.id, %error, "the session has ended");
                return;
            }
            Err(error) => {
                tracing::warn!(session = session.id, %error, "no sign of life reached the engine");
                RETRY.min(due)
            }
        };
    }
}
