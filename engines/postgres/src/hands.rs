//! What sessions have in hand besides locks: deliveries and consumers.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_api::Result;
use leasehold_api::engine::SessionRef;
use leasehold_contenders::{InHand, SessionState, Sessions};

use crate::book::us;
use crate::server::Server;

/// Sessions beyond which those that have ended are forgotten.
const MANY: usize = 1000;

/// The sessions of this process that have used queues. A sign of life of the others costs nothing.
#[derive(Debug)]
pub(crate) struct Hands {
    pub server: Arc<Server>,
    pub sessions: Arc<Sessions>,
    pub used: Mutex<HashSet<u64>>,
}

impl Hands {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session that is about to take something in hand.
    ///
    /// # Errors
    /// `NoSession`.
    pub fn session(&self, session: &SessionRef) -> Result<Arc<SessionState>> {
        let state = self.sessions.find(session.id)?;
        let mut used = self.lock();
        if used.insert(session.id) && used.len() > MANY {
            used.retain(|id| self.sessions.find(*id).is_ok());
        }
        Ok(state)
    }
}

#[async_trait]
impl InHand for Hands {
    async fn kept(&self, session: u64, ttl: Duration) -> Result<()> {
        if !self.lock().contains(&session) {
            return Ok(());
        }
        let sql = self.server.call("keep", 2);
        self.server.rows(&sql, &[&session.cast_signed(), &us(ttl)]).await.map(drop)
    }

    async fn ended(&self, session: u64) -> Result<()> {
        if !self.lock().remove(&session) {
            return Ok(());
        }
        let sql = self.server.call("end_session", 1);
        self.server.whole(&sql, &[&session.cast_signed()]).await.map(drop)
    }
}
