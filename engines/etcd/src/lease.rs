//! Leases: what ends the keys of those who died.
//!
//! Every hold has a lease of its own, since two holds on one lease end together (etcd#10756). A
//! lease whose keys are gone can serve the next hold: a few are kept, so that taking a free lock
//! is one write, and none that is in doubt. A lease that is kept is shown to be alive beside the
//! write that uses it, so its time counts anew.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use leasehold_api::Result;
use leasehold_contenders::random;
use tokio::time::Instant;

use crate::client::Client;
use crate::connect::{Patience, Server};
use crate::error::Fault;

/// Leases that are kept for the next hold.
const SPARE_MAX: usize = 64;
/// What must be left of a lease for it to be used again: two attempts to reach the server.
const SPARE_LEFT: Duration = Duration::from_millis(500);
/// The longest that etcd grants, seconds.
pub(crate) const SECONDS_MAX: i64 = 9_000_000_000;

/// A lease.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lease {
    pub id: i64,
    /// What was asked for, seconds; it may be granted for longer.
    pub seconds: i64,
    /// It is there at least until then, if nobody revokes it.
    pub until: Instant,
    /// It was granted for this very use.
    pub is_new: bool,
}

/// The whole seconds that cover a time.
pub(crate) fn seconds(time: Duration) -> i64 {
    let whole = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    i64::try_from(whole).unwrap_or(SECONDS_MAX).clamp(1, SECONDS_MAX)
}

fn after(seconds: i64) -> Instant {
    let now = Instant::now();
    let long = Duration::from_secs(seconds.unsigned_abs().min(1 << 31));
    now + long
}

/// Grants, shows and ends leases.
pub(crate) struct Leases {
    server: Arc<Server>,
    spare: Mutex<Vec<Lease>>,
}

impl Leases {
    pub fn new(server: Arc<Server>) -> Self {
        Self { server, spare: Mutex::default() }
    }

    /// One that was kept.
    pub fn spare(&self, seconds: i64) -> Option<Lease> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let soon = Instant::now() + SPARE_LEFT;
        spare.retain(|lease| lease.until > soon);
        let place = spare.iter().position(|lease| lease.seconds == seconds)?;
        Some(spare.swap_remove(place))
    }

    /// A new one.
    pub async fn grant(&self, seconds: i64, patience: &mut Patience) -> Result<Lease> {
        // Below 2^52, so that the same serves as the number of a session.
        let id = (random()? >> 12).max(1).cast_signed();
        self.grant_as(id, seconds, patience).await
    }

    /// A new one with a number.
    pub async fn grant_as(&self, id: i64, seconds: i64, patience: &mut Patience) -> Result<Lease> {
        let until = after(seconds);
        let call = |client: Client| async move { client.grant(id, seconds).await };
        match self.server.ask(patience, call).await {
            // The first attempt was carried out although its answer was lost.
            Ok(_) | Err(Fault::LeaseThere) => Ok(Lease { id, seconds, until, is_new: true }),
            Err(fault) => Err(fault.into()),
        }
    }

    /// Says that a lease is needed still: its time counts anew, and is given. `None`: it is not
    /// there any more.
    pub async fn show(&self, id: i64, patience: &mut Patience) -> Result<Option<Duration>> {
        let call = |client: Client| async move { client.keep_alive(id).await };
        match self.server.ask(patience, call).await {
            Ok(heard) => {
                let lasts = heard.answer.ttl.max(0).unsigned_abs();
                Ok((lasts > 0).then(|| Duration::from_secs(lasts)))
            }
            Err(Fault::NoLease) => Ok(None),
            Err(fault) => Err(fault.into()),
        }
    }

    /// Ends a lease and its keys. False: it was not there any more.
    pub async fn revoke(&self, id: i64, patience: &mut Patience) -> Result<bool> {
        let call = |client: Client| async move { client.revoke(id).await };
        match self.server.ask(patience, call).await {
            Ok(_) => Ok(true),
            Err(Fault::NoLease) => Ok(false),
            Err(fault) => Err(fault.into()),
        }
    }

    /// Takes a lease back of which it is certain that no key hangs on it.
    pub fn take_back(self: &Arc<Self>, lease: Lease) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_MAX {
            spare.push(Lease { is_new: false, ..lease });
        } else {
            drop(spare);
            self.end(lease.id);
        }
    }

    /// Ends a lease some time soon; if that fails it ends by itself.
    pub fn end(self: &Arc<Self>, id: i64) {
        let leases = self.clone();
        tokio::spawn(async move {
            if let Err(error) = leases.revoke(id, &mut Patience::usual()).await {
                tracing::debug!(lease = id, %error, "not revoked; it ends by itself");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_cover_the_time() {
        assert_eq!(seconds(Duration::from_millis(1)), 1);
        assert_eq!(seconds(Duration::from_secs(10)), 10);
        assert_eq!(seconds(Duration::from_millis(10_001)), 11);
        assert_eq!(seconds(Duration::MAX), SECONDS_MAX);
    }
}
