//! The door's own session, for those who receive without one.
//!
//! It is opened when it is first needed and kept alive from then on. Deliveries to it end by their
//! lease, so nothing is lost when a client of it vanishes. Where the engine knows no sessions
//! there is none, and none is named.

use std::sync::Arc;
use std::time::Duration;

use leasehold_api::engine::{LockEngine, OpenSession, SessionRef};
use leasehold_api::{ErrorKind, Result};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;

/// The session ends when the door is silent for so long.
const TTL: Duration = Duration::from_secs(60);
/// A third of that, so that two lost keep-alives do no harm.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// The door's own session.
#[derive(Default)]
pub(crate) struct OwnSession {
    open: Mutex<Option<Kept>>,
}

struct Kept {
    session: SessionRef,
    keeper: AbortHandle,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl OwnSession {
    /// The session, opened if there is none; [`SessionRef::NONE`] where the engine has none.
    pub async fn get(&self, locks: Option<&Arc<dyn LockEngine>>) -> Result<SessionRef> {
        let mut open = self.open.lock().await;
        if let Some(kept) = open.as_ref().filter(|kept| !kept.keeper.is_finished()) {
            return Ok(kept.session.clone());
        }
        let Some((_, kept)) = keep(locks, "http door").await? else { return Ok(SessionRef::NONE) };
        let session = kept.session.clone();
        *open = Some(kept);
        Ok(session)
    }

    /// Forgets a session that turned out to have ended.
    pub async fn forget(&self, session: &SessionRef) {
        let mut open = self.open.lock().await;
        if open.as_ref().is_some_and(|kept| kept.session == *session) {
            *open = None;
        }
    }
}

/// Opens a session and keeps it alive; `None`: the engine has none.
async fn keep(
    locks: Option<&Arc<dyn LockEngine>>,
    label: &str,
) -> Result<Option<(Arc<dyn LockEngine>, Kept)>> {
    let Some(locks) = locks.cloned() else { return Ok(None) };
    let ask = OpenSession { ttl: Some(TTL), resume: None, label: Some(label.into()) };
    let session = match locks.open_session(&ask).await {
        Ok(opened) => opened.session,
        Err(error) if error.kind == ErrorKind::Unsupported => return Ok(None),
        Err(error) => return Err(error),
    };
    let (at, kept) = (locks.clone(), session.clone());
    let keeper = tokio::spawn(async move {
        loop {
            tokio::time::sleep(KEEP_ALIVE).await;
            match at.keep_alive(&kept).await {
                Err(error) if error.kind == ErrorKind::NoSession => break,
                Err(error) => tracing::warn!(%error, "the door's session was not kept alive"),
                Ok(()) => {}
            }
        }
    });
    Ok(Some((locks, Kept { session, keeper: keeper.abort_handle() })))
}

/// A session that lives as long as this value; for one consumer's stream.
pub(crate) struct PassingSession {
    kept: Kept,
    locks: Arc<dyn LockEngine>,
}

impl PassingSession {
    /// Opens one; `None`: the engine has none.
    pub async fn open(locks: Option<&Arc<dyn LockEngine>>, label: &str) -> Result<Option<Self>> {
        Ok(keep(locks, label).await?.map(|(locks, kept)| Self { kept, locks }))
    }

    pub fn session(&self) -> &SessionRef {
        &self.kept.session
    }
}

impl Drop for PassingSession {
    fn drop(&mut self) {
        let (locks, session) = (self.locks.clone(), self.kept.session.clone());
        // Without a runtime the process ends, and its sessions with it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if let Err(error) = locks.close_session(&session).await {
                tracing::debug!(%error, "a consumer's session had ended before");
            }
        });
    }
}
