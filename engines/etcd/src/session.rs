//! Sessions: leases of etcd, so they end in the server, and another process can take one up.

use leasehold_api::engine::{OpenSession, Session, SessionRef};
use leasehold_api::{Error, ErrorKind, Result};
use leasehold_contenders::limits;

use crate::connect::Patience;
use crate::core::Core;
use crate::lease::{SECONDS_MAX, seconds};
use crate::part::put;
use crate::rpc::Txn;

fn no_session() -> Error {
    Error::new(ErrorKind::NoSession, "the session has ended; open a new one and ask again")
}

impl Core {
    /// Opens a session, or takes one up again.
    pub async fn open(&self, ask: &OpenSession) -> Result<Session> {
        if ask.label.as_ref().is_some_and(|label| label.len() > limits::LABEL_BYTES) {
            let wrong = format!("the label has more than {} bytes", limits::LABEL_BYTES);
            return Err(Error::new(ErrorKind::Invalid, wrong));
        }
        if let Some(session) = &ask.resume {
            self.keep(session).await?;
            return Ok(Session { session: session.clone(), resumed: true });
        }
        ask.ttl.map_or(Ok(()), limits::ttl)?;
        let mut patience = Patience::usual();
        let lasts = ask.ttl.map_or(SECONDS_MAX, seconds);
        let lease = self.leases.grant(lasts, &mut patience).await?;
        let id = lease.id.unsigned_abs();
        let label = ask.label.as_deref().unwrap_or_default();
        let txn = Txn::of(vec![put(self.keys.session(id), label, lease.id)]);
        if let Err(fault) = self.server.txn(&mut patience, txn).await {
            self.leases.end(lease.id);
            return Err(fault.into());
        }
        Ok(Session { session: SessionRef { id, proof: None }, resumed: false })
    }

    /// Says that a session lives.
    pub async fn keep(&self, session: &SessionRef) -> Result<()> {
        let shown = self.leases.show(session.id.cast_signed(), &mut Patience::usual()).await?;
        if shown.is_some() { Ok(()) } else { Err(no_session()) }
    }

    /// Ends a session: who waits in it, and what ends with it.
    pub async fn close(&self, session: &SessionRef) -> Result<()> {
        let mut patience = Patience::usual();
        let was_there = self.leases.revoke(session.id.cast_signed(), &mut patience).await?;
        for held in self.holds.bound_to(session.id) {
            self.ended_with_session(&held).await;
        }
        if was_there { Ok(()) } else { Err(no_session()) }
    }
}
