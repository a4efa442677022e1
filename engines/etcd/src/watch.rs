//! Waiting for keys to change.
//!
//! A watch begins at the revision after the one that was read, so nothing is missed in between. It
//! ends with the first change, and with everything that may hide one: compaction, a lost member, a
//! broken connection. Whoever waits reads again then; a watch never says what is, only that it is
//! worth looking.

use std::time::Duration;

use tokio::time::timeout;

use crate::connect::Server;
use crate::error::{Fault, fault};
use crate::part::end_of;
use crate::rpc::Watch;

/// How long a watch may take to begin.
const BEGIN: Duration = Duration::from_secs(4);
/// The filter that leaves out what is written.
const NO_WRITES: i32 = 0;

/// What is watched.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    /// These keys.
    pub keys: Vec<Vec<u8>>,
    /// And those that begin with one of them.
    pub and_longer: bool,
    /// Changes from this revision on.
    pub from: i64,
    /// Only what goes counts.
    pub only_ends: bool,
}

impl Server {
    /// Waits until something changes.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn changed(&self, watched: &Watched) -> Result<(), Fault> {
        let watch = |key: &Vec<u8>| Watch {
            range_end: if watched.and_longer { end_of(key) } else { Vec::new() },
            key: key.clone(),
            start_revision: watched.from,
            filters: if watched.only_ends { vec![NO_WRITES] } else { Vec::new() },
        };
        let watches = watched.keys.iter().map(watch).collect();
        let (client, number) = self.client();
        let mut watching = match timeout(BEGIN, client.watch(watches)).await {
            Ok(begun) => begun.map_err(|status| fault(&status))?,
            Err(_) => {
                self.give_up(number);
                return Err(Fault::Away(format!("no answer within {BEGIN:?}")));
            }
        };
        loop {
            match watching.next().await {
                Ok(Some(said)) if said.canceled || !said.events.is_empty() => return Ok(()),
                Ok(Some(_)) => {}
                Ok(None) => return Err(Fault::Away("it ended a watch".to_owned())),
                Err(status) => return Err(fault(&status)),
            }
        }
    }
}
