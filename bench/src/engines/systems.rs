//! The systems, started as tests start them.

use std::any::Any;

use leasehold_testbed::{Server, servers};

use super::ways::Way;

/// A system and the ways to be compared, ours first.
pub struct System {
    pub name: &'static str,
    /// `None`: it needs the feature of its name, which this build has not.
    pub start: Option<fn() -> Started>,
    pub locks: &'static [Way],
    pub queues: &'static [Way],
}

/// A server that runs until this is dropped.
pub struct Started {
    pub url: String,
    _server: Box<dyn Any>,
}

pub const SYSTEMS: &[System] = &[
    System { name: "files", start: Some(files), locks: &[Way::Ours, Way::Flock], queues: &[] },
    System {
        name: "redis",
        start: Some(redis),
        locks: &[Way::Ours, Way::RedisPoll, Way::RedisList],
        queues: &[Way::Ours, Way::RedisStream],
    },
    System {
        name: "postgres",
        start: Some(postgres),
        locks: &[Way::Ours, Way::PostgresAdvisory],
        queues: &[Way::Ours, Way::PostgresTable],
    },
    System {
        name: "mysql",
        start: Some(mysql),
        locks: &[Way::Ours, Way::MysqlUser],
        queues: &[Way::Ours, Way::MysqlTable],
    },
    System { name: "etcd", start: Some(etcd), locks: &[Way::Ours, Way::EtcdLock], queues: &[] },
    System {
        name: "zookeeper",
        start: Some(zookeeper),
        locks: &[Way::Ours, Way::ZooKeeperLock],
        queues: &[],
    },
    System {
        name: "amqp",
        start: Some(amqp),
        locks: &[Way::Ours],
        queues: &[Way::Ours, Way::Lapin],
    },
    System {
        name: "kafka",
        #[cfg(feature = "kafka")]
        start: Some(kafka),
        #[cfg(not(feature = "kafka"))]
        start: None,
        locks: &[],
        queues: &[Way::Ours, Way::Rdkafka, Way::RdkafkaEach],
    },
];

fn started(url: String, server: impl Any) -> Started {
    Started { url, _server: Box::new(server) }
}

fn files() -> Started {
    let directory = tempfile::tempdir().expect("a scratch directory");
    started(format!("file://{}", directory.path().display()), directory)
}

fn of(server: Server) -> Started {
    started(server.url(), server)
}

fn redis() -> Started {
    of(servers::redis::start(&["--appendfsync", "everysec"]))
}

fn postgres() -> Started {
    of(servers::postgres::start(&[]))
}

fn mysql() -> Started {
    of(servers::mysql::start(&[]))
}

fn etcd() -> Started {
    of(servers::etcd::start())
}

fn zookeeper() -> Started {
    let server = servers::zookeeper::start();
    // Short, so that the dead are missed for a short time.
    started(format!("{}?session=2", server.url()), server)
}

fn amqp() -> Started {
    of(servers::rabbitmq::start(""))
}

#[cfg(feature = "kafka")]
fn kafka() -> Started {
    let broker = servers::kafka::Broker::start();
    started(broker.url(), broker)
}
