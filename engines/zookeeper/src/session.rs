//! Sessions, kept by the process that opened them: its session with ZooKeeper ends them all when
//! it dies.

use std::sync::Arc;

use leasehold_api::engine::{OpenSession, Session, SessionRef};
use leasehold_api::{Error, ErrorKind, Result};
use leasehold_contenders::limits;

use crate::core::Core;

impl Core {
    /// Opens a session, or takes one up again that this process has.
    pub fn open(&self, ask: &OpenSession) -> Result<Session> {
        if ask.label.as_ref().is_some_and(|label| label.len() > limits::LABEL_BYTES) {
            let wrong = format!("the label has more than {} bytes", limits::LABEL_BYTES);
            return Err(Error::new(ErrorKind::Invalid, wrong));
        }
        self.sessions.open(ask)
    }

    /// Says that a session lives.
    pub fn keep(&self, session: &SessionRef) -> Result<()> {
        self.sessions.keep(session.id).map(drop)
    }

    /// Ends a session: who waits in it, and what ends with it.
    pub async fn close(self: &Arc<Self>, session: &SessionRef) -> Result<()> {
        self.sessions.close(session.id)?;
        self.end_bound(session.id).await;
        Ok(())
    }
}
