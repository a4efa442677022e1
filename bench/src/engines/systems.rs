//! The systems, started as the engines' own tests start them.

use std::any::Any;

use super::ways::Way;

#[path = "../../../engines/postgres/tests/cluster/mod.rs"]
mod cluster;
#[path = "../../../engines/etcd/tests/server/mod.rs"]
mod etcd;
#[allow(dead_code, reason = "only the broker is used")]
#[path = "../../../engines/amqp/tests/rabbit/mod.rs"]
mod rabbit;
#[path = "../../../engines/redis/tests/servers/mod.rs"]
mod redis;
#[path = "../../../engines/mysql/tests/started/mod.rs"]
mod started;
#[path = "../../../engines/zookeeper/tests/server/mod.rs"]
mod zookeeper;

/// A system and the ways to be compared, ours first.
pub struct System {
    pub name: &'static str,
    pub start: fn() -> Started,
    pub locks: &'static [Way],
    pub queues: &'static [Way],
}

/// A server that runs until this is dropped.
pub struct Started {
    pub url: String,
    _server: Box<dyn Any>,
}

pub const SYSTEMS: &[System] = &[
    System { name: "files", start: files, locks: &[Way::Ours, Way::Flock], queues: &[] },
    System {
        name: "redis",
        start: start_redis,
        locks: &[Way::Ours, Way::RedisPoll, Way::RedisList],
        queues: &[Way::Ours, Way::RedisStream],
    },
    System {
        name: "postgres",
        start: postgres,
        locks: &[Way::Ours, Way::PostgresAdvisory],
        queues: &[Way::Ours, Way::PostgresTable],
    },
    System {
        name: "mysql",
        start: mysql,
        locks: &[Way::Ours, Way::MysqlUser],
        queues: &[Way::Ours, Way::MysqlTable],
    },
    System { name: "etcd", start: start_etcd, locks: &[Way::Ours, Way::EtcdLock], queues: &[] },
    System {
        name: "zookeeper",
        start: start_zookeeper,
        locks: &[Way::Ours, Way::ZooKeeperLock],
        queues: &[],
    },
    System { name: "amqp", start: amqp, locks: &[Way::Ours], queues: &[Way::Ours, Way::Lapin] },
];

fn started(url: String, server: impl Any) -> Started {
    Started { url, _server: Box::new(server) }
}

fn files() -> Started {
    let directory = tempfile::tempdir().expect("a scratch directory");
    started(format!("file://{}", directory.path().display()), directory)
}

fn start_redis() -> Started {
    let server = redis::redis(&["--appendfsync", "everysec"]);
    started(format!("redis://127.0.0.1:{}", server.port), server)
}

fn postgres() -> Started {
    let cluster = cluster::Cluster::start(&[]);
    started(cluster.url(), cluster)
}

fn mysql() -> Started {
    let server = started::mariadb(&[]);
    started(started::url(server.port), server)
}

fn start_etcd() -> Started {
    let server = etcd::etcd();
    started(etcd::url(server.port), server)
}

fn start_zookeeper() -> Started {
    let server = zookeeper::zookeeper();
    // Short, so that the dead are missed for a short time.
    started(format!("{}?session=2", zookeeper::url(server.port)), server)
}

fn amqp() -> Started {
    let rabbit = rabbit::Rabbit::start("");
    started(rabbit.url(), rabbit)
}
