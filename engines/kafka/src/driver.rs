//! What this engine needs of a Kafka client, so that the client can be exchanged: everything that
//! names one is in the files below this one.
//!
//! What the client does while it blocks is kept off the threads of the runtime in there. Only a
//! [`Seat`] blocks on purpose: a member of a group has a thread of its own.

#[cfg(feature = "librdkafka")]
mod codes;
#[cfg(feature = "librdkafka")]
mod librdkafka;
#[cfg(feature = "librdkafka")]
mod seat;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use leasehold_api::Result;

use crate::config::Config;
use crate::error::Answer;

/// Opens the client; nothing is sent yet.
///
/// # Errors
/// `Unsupported` when this build has none.
pub(crate) fn connect(config: &Arc<Config>) -> Result<Arc<dyn Cluster>> {
    #[cfg(feature = "librdkafka")]
    return Ok(librdkafka::connect(config.clone()));
    #[cfg(not(feature = "librdkafka"))]
    {
        let wrong = "this build has no client for Kafka; add the feature `kafka` to leasehold";
        let error = leasehold_api::Error::new(leasehold_api::ErrorKind::Unsupported, wrong);
        Err(error.asking(format!("connect to {}", config.shown)))
    }
}

/// A message in a partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub body: Vec<u8>,
    pub headers: Vec<(String, Vec<u8>)>,
    /// Milliseconds since 1970, by the publisher's clock unless the topic says otherwise.
    pub timestamp: i64,
}

/// Brought along by a message that gave up its place: how often it was handed out there.
pub(crate) const ATTEMPTS: &str = "leasehold-attempts";

impl Record {
    /// What it takes in memory, about.
    pub fn size(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len() + 48);
        256 + self.body.len() + self.key.as_ref().map_or(0, Vec::len) + headers.sum::<usize>()
    }

    /// The last header of a name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let found = self.headers.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_slice())
    }

    /// Deliveries before it gave up its place.
    pub fn attempts(&self) -> u32 {
        let text = self.header(ATTEMPTS).and_then(|value| std::str::from_utf8(value).ok());
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// A message on its way to a topic.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub topic: String,
    pub key: Option<Vec<u8>>,
    pub body: Vec<u8>,
    pub headers: Vec<(String, Vec<u8>)>,
    /// `None`: now.
    pub timestamp: Option<i64>,
}

/// A partition of a topic.
#[derive(Debug, Clone)]
pub(crate) struct Partition {
    pub id: i32,
    pub has_leader: bool,
    pub replicas: usize,
    pub in_sync: usize,
}

/// What is committed for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub partition: i32,
    /// `None`: nothing is.
    pub offset: Option<i64>,
    pub text: String,
}

/// A topic to make.
#[derive(Debug, Clone)]
pub(crate) struct NewTopic {
    pub name: String,
    pub partitions: i32,
    /// −1: as many as the brokers say.
    pub replicas: i32,
    pub settings: Vec<(&'static str, String)>,
}

/// A member of a group as the brokers tell of it.
pub(crate) type Members = usize;

/// Brokers, seen from outside of any group.
#[async_trait]
pub(crate) trait Cluster: Send + Sync {
    /// The ids of the brokers.
    async fn brokers(&self) -> Answer<Vec<i32>>;
    /// A topic's partitions; `None`: there is no such topic.
    async fn partitions(&self, topic: &str) -> Answer<Option<Vec<Partition>>>;
    /// Makes a topic; whether it was not there before.
    async fn create(&self, topic: &NewTopic) -> Answer<bool>;
    /// Removes a topic; whether it was there.
    async fn delete(&self, topic: &str) -> Answer<bool>;
    /// Forgets a group that has no members.
    async fn forget(&self, group: &str) -> Answer<()>;
    /// Removes what lies below these offsets.
    async fn trim(&self, topic: &str, below: &[(i32, i64)]) -> Answer<()>;
    /// The lowest offset of a partition and the one behind its last.
    async fn ends(&self, topic: &str, partition: i32) -> Answer<(i64, i64)>;
    /// What a group has committed.
    async fn committed(
        &self,
        group: &str,
        topic: &str,
        partitions: &[i32],
    ) -> Answer<Vec<Committed>>;
    /// How many members a group has.
    async fn members(&self, group: &str) -> Answer<Members>;
    /// A topic's settings.
    async fn topic_settings(&self, topic: &str) -> Answer<BTreeMap<String, String>>;
    /// A broker's settings.
    async fn broker_settings(&self, broker: i32) -> Answer<BTreeMap<String, String>>;
    /// Everything in partition 0 of a topic from an offset on.
    async fn read(&self, topic: &str, from: i64) -> Answer<Vec<Record>>;
    /// Appends a message, and gives where it is once all replicas that are in step have it. It is
    /// under way when this returns; a future that is dropped takes nothing back.
    fn send(&self, message: Outgoing) -> futures_util::future::BoxFuture<'static, Answer<i64>>;
    /// Becomes a member of a group. Blocks.
    fn join(&self, group: &str, topic: &str, turns: Arc<dyn Turns>) -> Answer<Box<dyn Seat>>;
}

/// Told what a member gets and loses, in the member's own thread.
pub(crate) trait Turns: Send + Sync {
    /// These partitions are the member's now, beside those that it has. Called after every change
    /// in the group, with none if nothing came.
    fn granted(&self, desk: &dyn Desk, partitions: &[i32]);
    /// These are not the member's any more. Unless they are `lost` already, what is committed now
    /// is seen by the next owner.
    fn revoked(&self, desk: &dyn Desk, partitions: &[i32], lost: bool);
}

/// What the owner of partitions can do with them. Everything blocks.
pub(crate) trait Desk {
    /// Reads what is committed.
    fn committed(&self, partitions: &[i32]) -> Answer<Vec<Committed>>;
    /// Commits offsets with texts. Refused by the brokers when the partitions are others' now.
    fn commit(&self, marks: &[(i32, i64, String)]) -> Answer<()>;
    /// Takes no more messages from these partitions for now.
    fn pause(&self, partitions: &[i32]) -> Answer<()>;
    /// Takes messages from them again.
    fn resume(&self, partitions: &[i32]) -> Answer<()>;
}

/// Membership in a group. Dropping it leaves the group, and blocks.
pub(crate) trait Seat: Desk + Send {
    /// Waits for something to do, until then or until the bell rings.
    fn wait(&self, within: Duration);
    /// The next message that is there.
    fn next(&self) -> Option<Answer<Record>>;
    /// What ends a wait.
    fn bell(&self) -> Arc<Bell>;
}

/// Wakes a thread that waits; one that does not wait yet will not.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: std::sync::Mutex<bool>,
    heard: std::sync::Condvar,
}

impl Bell {
    pub fn ring(&self) {
        *self.rung.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = true;
        self.heard.notify_all();
    }

    pub fn wait(&self, within: Duration) {
        let rung = self.rung.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let waited = self.heard.wait_timeout_while(rung, within, |rung| !*rung);
        let (mut rung, _) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        *rung = false;
    }
}
