//! Who listens to which channel. Nothing here is durable: a message reaches those who listen when
//! it is published, as in Redis.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::Reply;
use crate::glob;

/// Bytes of a name, shared.
pub type Name = Arc<[u8]>;

/// The three ways to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// To a channel.
    Channel,
    /// To all channels whose names match.
    Pattern,
    /// To a shard channel, which is a namespace of its own.
    Shard,
}

/// All who listen.
#[derive(Debug, Default)]
pub struct Pubsub {
    lines: BTreeMap<(Way, Name), BTreeSet<u64>>,
}

impl Way {
    /// The word of the answer to a client that begins to listen.
    pub fn begun(self) -> &'static str {
        match self {
            Self::Channel => "subscribe",
            Self::Pattern => "psubscribe",
            Self::Shard => "ssubscribe",
        }
    }

    /// The word of the answer to a client that stops.
    pub fn ended(self) -> &'static str {
        match self {
            Self::Channel => "unsubscribe",
            Self::Pattern => "punsubscribe",
            Self::Shard => "sunsubscribe",
        }
    }
}

impl Pubsub {
    /// A client listens.
    pub fn join(&mut self, way: Way, name: Name, client: u64) {
        self.lines.entry((way, name)).or_default().insert(client);
    }

    /// A client listens no more.
    pub fn part(&mut self, way: Way, name: &Name, client: u64) {
        let key = (way, name.clone());
        if let Some(clients) = self.lines.get_mut(&key) {
            clients.remove(&client);
            if clients.is_empty() {
                self.lines.remove(&key);
            }
        }
    }

    /// Whom a message reaches, and what each is told.
    pub fn reach(&self, way: Way, channel: &[u8], body: &[u8]) -> Vec<(u64, Reply)> {
        let name: Name = channel.into();
        let mut reached = Vec::new();
        let word = if way == Way::Shard { "smessage" } else { "message" };
        if let Some(clients) = self.lines.get(&(way, name)) {
            let told =
                Reply::Push(vec![Reply::bulk(word), Reply::bulk(channel), Reply::bulk(body)]);
            reached.extend(clients.iter().map(|client| (*client, told.clone())));
        }
        if way == Way::Channel {
            for (pattern, clients) in self.of(Way::Pattern) {
                if glob::matches(pattern, channel) {
                    let told = Reply::Push(vec![
                        Reply::bulk("pmessage"),
                        Reply::bulk(pattern),
                        Reply::bulk(channel),
                        Reply::bulk(body),
                    ]);
                    reached.extend(clients.iter().map(|client| (*client, told.clone())));
                }
            }
        }
        reached
    }

    /// Names that somebody listens to, and who.
    pub fn of(&self, way: Way) -> impl Iterator<Item = (&Name, &BTreeSet<u64>)> {
        let from: (Way, Name) = (way, Arc::from(&[][..]));
        let lines = self.lines.range(from..).take_while(move |((other, _), _)| *other == way);
        lines.map(|((_, name), clients)| (name, clients))
    }

    /// How many listen to a name.
    pub fn count(&self, way: Way, name: &[u8]) -> usize {
        self.lines.get(&(way, name.into())).map_or(0, BTreeSet::len)
    }
}
