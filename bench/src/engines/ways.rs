//! Ways to lock and to queue: ours, and what each system or its clients bring.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

#[cfg(feature = "kafka")]
use super::own::kafka::Commits;
use super::{ours, own};

/// A way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// An engine.
    Ours,
    /// `SET NX PX` and a compare-and-delete script; who waits asks every 10 ms.
    RedisPoll,
    /// A token in a list, taken with BLPOP.
    RedisList,
    /// A stream with a consumer group.
    RedisStream,
    /// `pg_advisory_lock` on a connection that is kept.
    PostgresAdvisory,
    /// A table whose rows are taken with SKIP LOCKED.
    PostgresTable,
    /// `GET_LOCK` on a connection that is kept.
    MysqlUser,
    /// A table whose rows are taken with SKIP LOCKED.
    MysqlTable,
    /// flock of a file.
    Flock,
    /// etcd's own lock service, with a lease.
    EtcdLock,
    /// The recipe with ephemeral sequential nodes.
    ZooKeeperLock,
    /// A durable queue, with confirms and acks.
    Lapin,
    /// A topic and a group, offsets stored in the client and committed every five seconds.
    Rdkafka,
    /// The same, each offset committed and the answer waited for.
    RdkafkaEach,
}

const WAYS: [Way; 14] = [
    Way::Ours,
    Way::RedisPoll,
    Way::RedisList,
    Way::RedisStream,
    Way::PostgresAdvisory,
    Way::PostgresTable,
    Way::MysqlUser,
    Way::MysqlTable,
    Way::Flock,
    Way::EtcdLock,
    Way::ZooKeeperLock,
    Way::Lapin,
    Way::Rdkafka,
    Way::RdkafkaEach,
];

/// A process that locks.
#[async_trait]
pub trait Process: Send + Sync {
    /// One of its tasks.
    async fn client(&self) -> Box<dyn Client>;
}

/// Somebody who locks.
#[async_trait]
pub trait Client: Send {
    /// Waits until it has the lock; without a renewal it lasts for `ttl`, where there is such a
    /// thing.
    async fn acquire(&mut self, lock: &str, ttl: Duration);

    /// Gives it back.
    async fn release(&mut self);
}

/// Somebody who uses one queue.
#[async_trait]
pub trait Mail: Send {
    /// Publishes so many messages of 100 bytes with one request, and waits until all are confirmed.
    async fn publish(&mut self, count: usize);

    /// Gets ready to take, where that takes long and is not to be measured.
    async fn join(&mut self) {}

    /// Takes messages and acknowledges each, until a moment or until none came for a while. Gives
    /// how many, and when the last was acknowledged.
    async fn take(&mut self, until: Instant) -> (u64, Instant);
}

impl Way {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "Leasehold",
            Self::RedisPoll => "SET NX polled",
            Self::RedisList => "BLPOP",
            Self::RedisStream => "stream",
            Self::PostgresAdvisory => "advisory lock",
            Self::PostgresTable | Self::MysqlTable => "SKIP LOCKED",
            Self::MysqlUser => "GET_LOCK",
            Self::Flock => "flock",
            Self::EtcdLock => "lock service",
            Self::ZooKeeperLock => "recipe",
            Self::Lapin => "lapin",
            Self::Rdkafka => "rdkafka",
            Self::RdkafkaEach => "rdkafka, each committed",
        }
    }

    /// The way with a name that [`Debug`] gives.
    pub fn of(name: &str) -> Option<Self> {
        WAYS.into_iter().find(|way| format!("{way:?}") == name)
    }

    /// Whether it is meant for locks that nobody else wants too; a token in a list is there to be
    /// waited for.
    pub fn is_for_one(self) -> bool {
        self != Self::RedisList
    }

    /// Whether somebody gets the lock when its holder has died. A token that was taken out of a
    /// list is gone.
    pub fn recovers(self) -> bool {
        self != Self::RedisList
    }

    /// Whether a lock outlives its holder for the rest of its TTL. If not, it ends with the
    /// holder's connection, its process, or its session.
    pub fn outlives(self, url: &str) -> bool {
        match self {
            Self::Ours => !url.starts_with("amqp") && !url.starts_with("zookeeper"),
            other => other == Self::RedisPoll || other == Self::EtcdLock,
        }
    }

    /// A process that locks in this way.
    pub async fn process(self, url: &str) -> Arc<dyn Process> {
        match self {
            Self::Ours => ours::process(url).await,
            Self::RedisPoll => own::redis::poller(url).await,
            Self::RedisList => own::redis::lister(url),
            Self::PostgresAdvisory => own::postgres::advisory(url),
            Self::MysqlUser => own::mysql::user_locks(url),
            Self::Flock => own::flock::process(url),
            Self::EtcdLock => own::etcd::process(url).await,
            Self::ZooKeeperLock => own::zookeeper::process(url).await,
            other => panic!("{other:?} is no way to lock"),
        }
    }

    /// So many users of a queue, which is made.
    pub async fn mails(self, url: &str, queue: &str, count: usize) -> Vec<Box<dyn Mail>> {
        match self {
            Self::Ours => ours::mails(url, queue, count).await,
            Self::RedisStream => own::redis::streams(url, queue, count).await,
            Self::PostgresTable => own::postgres::tables(url, queue, count).await,
            Self::MysqlTable => own::mysql::tables(url, queue, count).await,
            Self::Lapin => own::rabbit::mails(url, queue, count).await,
            #[cfg(feature = "kafka")]
            Self::Rdkafka => own::kafka::mails(url, queue, count, Commits::Stored).await,
            #[cfg(feature = "kafka")]
            Self::RdkafkaEach => own::kafka::mails(url, queue, count, Commits::Each).await,
            other => panic!("{other:?} is no way to queue"),
        }
    }
}
