//! The connection: asked until there is an answer, within a patience.
//!
//! The driver's channel connects again by itself when a connection breaks. One that is silent is
//! given up as a whole after an attempt without an answer, and made anew. Pauses between attempts
//! double and are jittered, so that those who lost the same server do not come back in step.
//!
//! An attempt that was not answered may have been carried out. Whoever asks is told so, and finds
//! out from what is there.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use leasehold_api::engine::Gone;
use leasehold_api::{Error, ErrorKind, Result, Retry};
use leasehold_contenders::jittered;
use tokio::time::{Instant, sleep_until, timeout};

use crate::client::Client;
use crate::config::Config;
use crate::error::{Fault, fault};
use crate::rpc::{Range, Read, Txn, TxnDone};

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(4);
/// How long a cluster that is out of reach is waited for, where nobody says how long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// The first pause before asking again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(25), Duration::from_secs(1));

/// How long a cluster out of reach is waited for.
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

    pub fn until(until: Option<Instant>, gone: Gone) -> Self {
        Self { until, pause: PAUSES.0, gone }
    }

    /// Waits until the next attempt is due.
    ///
    /// # Errors
    /// `Unavailable` when no time is left, `Cancelled` when nobody waits any more.
    pub async fn bear(&mut self, url: &str, why: &str) -> Result<()> {
        let now = Instant::now();
        if self.until.is_some_and(|until| until <= now) {
            let wrong = format!("{url} cannot be reached: {why}");
            return Err(Error::new(ErrorKind::Unavailable, wrong).with_retry(Retry::Unknown));
        }
        let next = now + jittered(self.pause);
        self.pause = (self.pause * 2).min(PAUSES.1);
        let next = self.until.map_or(next, |until| until.min(next));
        tokio::select! {
            () = sleep_until(next) => Ok(()),
            () = self.gone.wait() => Err(Gone::cancelled()),
        }
    }
}

/// An answer, and whether an attempt before it may have been carried out.
#[derive(Debug)]
pub(crate) struct Heard<T> {
    pub answer: T,
    pub again: bool,
}

/// A cluster.
pub(crate) struct Server {
    pub config: Config,
    link: Mutex<(Client, u64)>,
}

impl Server {
    /// Connects, and looks whether somebody answers who is new enough.
    ///
    /// # Errors
    /// `Unavailable` when nobody answers, `Unauthenticated`, `Invalid` for bad certificates,
    /// `Unsupported` when the cluster is too old.
    pub async fn connect(config: Config) -> Result<Self> {
        let client = Client::new(&config, ATTEMPT)?;
        let server = Self { config, link: Mutex::new((client, 0)) };
        // Whoever opens it wants to know soon that nobody is there.
        let mut patience = Patience::until(Some(Instant::now() + ATTEMPT), Gone::never());
        let status = server.ask(&mut patience, |client| async move { client.status().await });
        let status = match status.await {
            Ok(heard) => heard.answer,
            Err(fault) => {
                let error = Error::from(fault);
                let nothing_happened = error.kind == ErrorKind::Unavailable;
                return Err(if nothing_happened { error.with_retry(Retry::Later) } else { error });
            }
        };
        version(&status.version)?;
        Ok(server)
    }

    /// The client at present, and which one it is.
    pub fn client(&self) -> (Client, u64) {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives a silent client up.
    pub fn give_up(&self, number: u64) {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if link.1 != number {
            return;
        }
        match Client::new(&self.config, ATTEMPT) {
            Ok(client) => *link = (client, number + 1),
            Err(error) => tracing::debug!(url = self.config.shown, %error, "not connected anew"),
        }
    }

    /// Asks once.
    pub async fn once<T, F>(&self, call: impl FnOnce(Client) -> F) -> std::result::Result<T, Fault>
    where
        F: Future<Output = std::result::Result<T, tonic::Status>>,
    {
        let (client, number) = self.client();
        match timeout(ATTEMPT, call(client)).await {
            Ok(answer) => answer.map_err(|error| fault(&error)),
            Err(_) => {
                self.give_up(number);
                Err(Fault::Away(format!("no answer within {ATTEMPT:?}")))
            }
        }
    }

    /// Asks until there is an answer. What is asked must be such that twice is the same as once,
    /// or that its traces can be found.
    pub async fn ask<T, F>(
        &self,
        patience: &mut Patience,
        call: impl Fn(Client) -> F,
    ) -> std::result::Result<Heard<T>, Fault>
    where
        F: Future<Output = std::result::Result<T, tonic::Status>>,
    {
        let mut again = false;
        loop {
            let why = match self.once(&call).await {
                Ok(answer) => return Ok(Heard { answer, again }),
                Err(Fault::Away(why)) => why,
                Err(other) => return Err(other),
            };
            again = true;
            tracing::debug!(url = self.config.shown, why, "asking again");
            patience.bear(&self.config.shown, &why).await.map_err(Fault::Refused)?;
        }
    }

    /// Carries a transaction out.
    pub async fn txn(
        &self,
        patience: &mut Patience,
        txn: Txn,
    ) -> std::result::Result<Heard<TxnDone>, Fault> {
        let call = |client: Client| {
            let txn = txn.clone();
            async move { client.txn(txn).await }
        };
        self.ask(patience, call).await
    }

    /// Reads keys.
    ///
    /// # Errors
    /// `Unavailable`, `Forbidden`.
    pub async fn range(&self, patience: &mut Patience, range: Range) -> Result<Read> {
        let call = |client: Client| {
            let range = range.clone();
            async move { client.range(range).await }
        };
        Ok(self.ask(patience, call).await?.answer)
    }
}

/// Demands a version that is new enough: nested transactions and comparisons of ranges came with
/// 3.3, leases that outlive a change of the leader in order with 3.4.
fn version(version: &str) -> Result<()> {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let is = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if is >= (3, 4) {
        return Ok(());
    }
    let wrong = format!("the cluster runs etcd {version}; 3.4 or newer is needed");
    Err(Error::new(ErrorKind::Unsupported, wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_clusters_are_refused() {
        for good in ["3.4.23", "3.5.0", "3.10.1", "4.0.0"] {
            version(good).expect(good);
        }
        for old in ["3.3.27", "2.3.8", ""] {
            assert_eq!(version(old).expect_err(old).kind, ErrorKind::Unsupported);
        }
    }
}
