//! Clients that wait: for elements of a key, in order of arrival, or for the shard's answer.
//!
//! Whoever came first to a key is served first, whatever else it waits for. A client that waits for
//! several keys stands in the line of each and leaves all of them at once.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use leasehold_core::Name;

use crate::lasting::Wanted;
use crate::session::{Kept, Waits};

/// Lines of clients, one for each key that somebody waits for.
#[derive(Debug, Default)]
pub struct Blocked {
    lines: HashMap<Vec<u8>, VecDeque<u64>>,
    dues: BTreeSet<(Instant, u64)>,
}

/// What a client asked the shard for, which tells how the answer is written.
#[derive(Debug)]
pub enum Asked {
    /// A lock.
    Lease,
    /// How long something still lasts.
    Left,
    /// A look at something.
    View,
    /// Anything whose outcome says enough.
    Done,
    /// One message.
    Message,
    /// All parts of a transaction, so many, at once.
    Parts(usize),
    /// Messages of a queue as they come.
    Consumer(Name),
    /// The end of the consumer with this ticket.
    Stop(u32),
    /// A session that outlives this connection.
    Lasting(Wanted),
    /// A session for this connection, before the request that needs it is carried out.
    Session(Kept),
}

impl Asked {
    /// Whether messages are to come until it is stopped.
    pub fn is_consumer(&self) -> bool {
        matches!(self, Self::Consumer(_))
    }
}

impl Blocked {
    /// How many keys are waited for.
    pub fn lines(&self) -> usize {
        self.lines.len()
    }

    /// A client waits.
    pub fn join(&mut self, client: u64, keys: &[Vec<u8>], until: Option<Instant>) {
        for key in keys {
            let line = self.lines.entry(key.clone()).or_default();
            if !line.contains(&client) {
                line.push_back(client);
            }
        }
        self.dues.extend(until.map(|until| (until, client)));
    }

    /// A client waits no more.
    pub fn forget(&mut self, client: u64, waits: Option<&Waits>) {
        let Some(Waits::Keys { keys, until, .. }) = waits else { return };
        for key in keys {
            if let Some(line) = self.lines.get_mut(key) {
                line.retain(|other| *other != client);
                if line.is_empty() {
                    self.lines.remove(key);
                }
            }
        }
        if let Some(until) = until {
            self.dues.remove(&(*until, client));
        }
    }

    /// Those who wait for a key, the first first.
    pub fn line(&self, key: &[u8]) -> Vec<u64> {
        self.lines.get(key).map_or_else(Vec::new, |line| line.iter().copied().collect())
    }

    /// Forgets when somebody who is gone would have waited long enough.
    pub fn drop_due(&mut self, client: u64) {
        self.dues.retain(|(_, other)| *other != client);
    }

    /// When somebody has waited long enough.
    pub fn next_due(&self) -> Option<Instant> {
        self.dues.first().map(|(due, _)| *due)
    }

    /// Somebody who has.
    pub fn due(&self, now: Instant) -> Option<u64> {
        self.dues.first().filter(|(due, _)| *due <= now).map(|(_, client)| *client)
    }
}
