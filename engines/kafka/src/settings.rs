//! What a queue was declared with, where every process reads it.
//!
//! Kafka keeps no words of ours beside a topic, and what a group commits is forgotten a week after
//! its last member has gone. So the settings are messages in a compacted topic of one partition,
//! `leasehold.settings`: the key is the queue's topic, the value JSON. It is read to its end when a
//! queue is declared or opened, from where it was read before. Who makes the queue's topic writes
//! its settings. Of two who write at once the first one's count, and the second writes them again,
//! since compaction keeps the last.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use leasehold_api::engine::QueueConfig;
use leasehold_api::{DeadLetter, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::config::Config;
use crate::driver::{Cluster, NewTopic, Outgoing, Record};
use crate::error::{Answer, Fault};

/// Settings of a queue, as far as this engine has them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Rules {
    /// How long a delivery may stay unsettled.
    pub lease_ms: Option<u64>,
    /// Deliveries after which a message is dead.
    pub deliveries_max: Option<u16>,
    /// The queue of the dead.
    pub dead_letter: Option<String>,
}

fn absent<T>(what: &str) -> Result<T> {
    Err(Error::unsupported("kafka", what))
}

impl Rules {
    /// Reads what a queue is declared with.
    ///
    /// # Errors
    /// `Unsupported` for what Kafka has not; `Invalid` for absurd values.
    pub fn of(config: &QueueConfig) -> Result<Self> {
        if !config.durable {
            return absent("transient queues");
        }
        if config.messages_max.is_some() || config.bytes_max.is_some() {
            return absent("bounds of queues");
        }
        if config.ttl.is_some() {
            return absent("expiry of messages");
        }
        if config.priority_max > 0 {
            return absent("priorities");
        }
        if config.dedup.is_some() {
            return absent("deduplication");
        }
        if config.single_active {
            return absent("single active consumers; a queue of one partition has one at a time");
        }
        if config.auto_delete {
            return absent("queues that go with their last consumer");
        }
        let invalid = |wrong: &str| Err(Error::new(ErrorKind::Invalid, wrong));
        if config.deliveries_max == Some(0) {
            return invalid("a message is delivered at least once");
        }
        let lease_ms = match config.lease {
            None => None,
            Some(lease) => match u64::try_from(lease.as_millis()) {
                Ok(millis @ 1..) => Some(millis),
                _ => return invalid("a lease has at least one millisecond"),
            },
        };
        let dead_letter = match &config.dead_letter {
            None => None,
            Some(DeadLetter { exchange: Some(_), .. }) => {
                return absent("exchanges; dead letters go straight to a queue");
            }
            Some(DeadLetter { routing_key: None, .. }) => {
                return invalid("dead letters need a queue as routing key");
            }
            Some(DeadLetter { routing_key: Some(queue), .. }) => {
                crate::names::topic(queue)?;
                Some(queue.clone())
            }
        };
        Ok(Self { lease_ms, deliveries_max: config.deliveries_max, dead_letter })
    }

    pub fn lease(&self) -> Option<Duration> {
        self.lease_ms.map(Duration::from_millis)
    }
}

/// The settings of all queues.
pub(crate) struct Settings {
    cluster: Arc<dyn Cluster>,
    config: Arc<Config>,
    read: Mutex<Read>,
}

/// What was read so far.
#[derive(Default)]
struct Read {
    /// The topic was there.
    exists: bool,
    next: i64,
    rules: HashMap<String, Rules>,
}

impl Settings {
    pub fn new(cluster: Arc<dyn Cluster>, config: Arc<Config>) -> Self {
        Self { cluster, config, read: Mutex::default() }
    }

    /// The settings of the queue with this topic; `None`: nobody said anything.
    pub async fn of(&self, topic: &str) -> Answer<Option<Rules>> {
        let mut read = self.read.lock().await;
        self.catch_up(&mut read).await?;
        Ok(read.rules.get(topic).cloned())
    }

    /// The topics of all queues that were declared.
    pub async fn topics(&self) -> Answer<Vec<String>> {
        let mut read = self.read.lock().await;
        self.catch_up(&mut read).await?;
        let mut topics: Vec<_> = read.rules.keys().cloned().collect();
        topics.sort();
        Ok(topics)
    }

    /// Reads what was written since.
    async fn catch_up(&self, read: &mut Read) -> Answer<()> {
        let topic = self.config.settings();
        if !read.exists {
            read.exists = self.cluster.partitions(&topic).await?.is_some();
        }
        if !read.exists {
            return Ok(());
        }
        let (low, end) = match self.cluster.ends(&topic, 0).await {
            // It was deleted, and is read anew if somebody makes it again.
            Err(Fault::Missing) => {
                *read = Read::default();
                return Ok(());
            }
            ends => ends?,
        };
        if end < read.next {
            *read = Read { exists: true, ..Read::default() };
        }
        if end == read.next {
            return Ok(());
        }
        let records = self.cluster.read(&topic, read.next.max(low)).await?;
        for record in &records {
            let Some(key) = record.key.as_ref().and_then(|key| std::str::from_utf8(key).ok())
            else {
                continue;
            };
            match meaning(record) {
                // Of several the first counts.
                Some(rules) => {
                    read.rules.entry(key.to_owned()).or_insert(rules);
                }
                None => {
                    read.rules.remove(key);
                }
            }
        }
        read.next = end;
        Ok(())
    }

    /// Writes the settings of a queue that has none, and gives those that count: those that
    /// somebody wrote before.
    pub async fn write(&self, topic: &str, rules: &Rules) -> Answer<Rules> {
        let mut read = self.read.lock().await;
        self.catch_up(&mut read).await?;
        if let Some(theirs) = read.rules.get(topic) {
            return Ok(theirs.clone());
        }
        if !read.exists {
            self.make().await?;
        }
        self.put(topic, Some(rules)).await?;
        self.catch_up(&mut read).await?;
        let counts = read.rules.get(topic).unwrap_or(rules).clone();
        if counts != *rules {
            // Compaction keeps the last.
            self.put(topic, Some(&counts)).await?;
        }
        Ok(counts)
    }

    /// Forgets the settings of a queue.
    pub async fn erase(&self, topic: &str) -> Answer<()> {
        if self.of(topic).await?.is_some() {
            self.put(topic, None).await?;
        }
        Ok(())
    }

    async fn make(&self) -> Answer<()> {
        let topic = NewTopic {
            name: self.config.settings(),
            partitions: 1,
            replicas: self.config.replicas,
            settings: vec![
                ("cleanup.policy", "compact".to_owned()),
                ("unclean.leader.election.enable", "false".to_owned()),
            ],
        };
        self.cluster.create(&topic).await?;
        crate::topology::led(&*self.cluster, &topic.name, self.config.timeout).await
    }

    async fn put(&self, topic: &str, rules: Option<&Rules>) -> Answer<i64> {
        let broken = |error: serde_json::Error| Error::new(ErrorKind::Broken, error.to_string());
        // A value without bytes is a tombstone to us, and compaction keeps the last one alone.
        let body = rules.map_or(Ok(Vec::new()), serde_json::to_vec).map_err(broken)?;
        let message = Outgoing {
            topic: self.config.settings(),
            key: Some(topic.as_bytes().to_vec()),
            body,
            headers: Vec::new(),
            timestamp: None,
        };
        self.cluster.send(message).await
    }
}

/// The settings in a message.
fn meaning(record: &Record) -> Option<Rules> {
    if record.body.is_empty() {
        return None;
    }
    match serde_json::from_slice(&record.body) {
        Ok(rules) => Some(rules),
        Err(error) => {
            tracing::warn!(%error, "settings of a queue that nobody understands");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kafka_has_not_is_refused() {
        let plain = QueueConfig::default();
        assert_eq!(Rules::of(&plain).expect("it is plain"), Rules::default());
        for config in [
            QueueConfig { durable: false, ..plain.clone() },
            QueueConfig { messages_max: Some(1), ..plain.clone() },
            QueueConfig { ttl: Some(Duration::from_secs(1)), ..plain.clone() },
            QueueConfig { priority_max: 1, ..plain.clone() },
            QueueConfig { dedup: Some(Duration::from_secs(1)), ..plain.clone() },
            QueueConfig { single_active: true, ..plain.clone() },
            QueueConfig { auto_delete: true, ..plain.clone() },
            QueueConfig {
                dead_letter: Some(DeadLetter { exchange: Some("x".into()), routing_key: None }),
                ..plain.clone()
            },
        ] {
            let error = Rules::of(&config).expect_err("it has not");
            assert_eq!(error.kind, ErrorKind::Unsupported, "{config:?}");
        }
        let lease = QueueConfig { lease: Some(Duration::ZERO), ..plain };
        assert_eq!(Rules::of(&lease).expect_err("it is absurd").kind, ErrorKind::Invalid);
    }

    #[test]
    fn settings_come_back_as_they_were_written() {
        let rules = Rules {
            lease_ms: Some(7),
            deliveries_max: Some(3),
            dead_letter: Some("dead".to_owned()),
        };
        let body = serde_json::to_vec(&rules).expect("it is plain");
        assert_eq!(meaning(&Record { body, ..Record::default() }), Some(rules));
        assert_eq!(meaning(&Record::default()), None);
    }
}
