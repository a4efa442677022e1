//! The session of one handle: opened when first needed, kept alive by a task, opened anew when the
//! engine says that it has ended.
//!
//! Waiters and deliveries belong to it, so when this process dies they go back within its TTL.
//! Locks do not end with it unless asked to (`bound`): they have a TTL of their own, and a hiccup
//! of the session must not cost a lock that is being renewed.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::engine::{LockEngine, OpenSession, SessionRef};
use crate::{ErrorKind, Result};

/// How long a session outlives its process.
pub(crate) const SESSION_TTL: Duration = Duration::from_secs(10);
/// How long after a failed sign of life the next is given.
const RETRY: Duration = Duration::from_millis(250);
/// A new session that is gone so soon was never there.
const AT_ONCE: Duration = Duration::from_secs(1);

pub(crate) struct SessionKeeper {
    locks: Arc<dyn LockEngine>,
    label: Option<Arc<str>>,
    open: Mutex<Option<Kept>>,
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
    pub fn new(locks: Arc<dyn LockEngine>, label: Option<Arc<str>>) -> Arc<Self> {
        Arc::new(Self { locks, label, open: Mutex::new(None) })
    }

    /// The session, opened if there is none; [`SessionRef::NONE`] where the engine has none.
    pub async fn session(self: &Arc<Self>) -> Result<SessionRef> {
        let mut open = self.open.lock().await;
        if let Some(kept) = &*open
            && !kept.task.is_finished()
        {
            return Ok(kept.session.clone());
        }
        let ask = OpenSession { ttl: Some(SESSION_TTL), resume: None, label: self.label.clone() };
        let session = match self.locks.open_session(&ask).await {
            Ok(opened) => opened.session,
            Err(error) if error.kind == ErrorKind::Unsupported => return Ok(SessionRef::NONE),
            Err(error) => return Err(error),
        };
        let task = tokio::spawn(keep_alive(Arc::downgrade(&self.locks), session.clone()));
        *open = Some(Kept { session: session.clone(), task });
        Ok(session)
    }

    /// Forgets a session of which the engine says that it has ended, so that the next call of
    /// [`session`](Self::session) opens another.
    pub async fn ended(&self, session: &SessionRef) {
        let mut open = self.open.lock().await;
        if open.as_ref().is_some_and(|kept| kept.session == *session) {
            *open = None;
        }
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
                    self.ended(&session).await;
                    is_new = true;
                }
                result => return result,
            }
        }
    }

    /// Ends the session and everything in it.
    pub async fn close(&self) -> Result<()> {
        let kept = self.open.lock().await.take();
        match kept {
            Some(kept) => self.locks.close_session(&kept.session).await,
            None => Ok(()),
        }
    }
}

async fn keep_alive(locks: Weak<dyn LockEngine>, session: SessionRef) {
    let mut pause = SESSION_TTL / 3;
    loop {
        tokio::time::sleep(pause).await;
        let Some(locks) = locks.upgrade() else { return };
        pause = match locks.keep_alive(&session).await {
            Ok(()) => SESSION_TTL / 3,
            Err(error) if error.kind == ErrorKind::NoSession => {
                tracing::warn!(session = session.id, %error, "the session has ended");
                return;
            }
            Err(error) => {
                tracing::warn!(session = session.id, %error, "no sign of life reached the engine");
                RETRY
            }
        };
    }
}
