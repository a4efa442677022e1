//! The systems that engines are over, each started in one way: `start` gives a [`Server`] that has
//! its [`url`](Server::url), can be killed, paused and restarted, and ends with its test.
//!
//! Programs come from Debian's packages. One that is missing is a panic that names its package: a
//! test without its server proves nothing.

pub mod etcd;
pub mod kafka;
pub mod mysql;
pub mod pgbouncer;
pub mod postgres;
pub mod rabbitmq;
pub mod redis;
pub mod zookeeper;

use std::path::PathBuf;

use crate::{Server, program};

/// Starts the system that an engine is over, by the engine's name.
///
/// # Panics
/// When it does not start.
pub fn of_engine(name: &str) -> Option<Server> {
    Some(match name {
        "amqp" => rabbitmq::start(""),
        "etcd" => etcd::start(),
        "mysql" => mysql::start(&[]),
        "postgres" => postgres::start(&[]),
        // What it confirms has to survive its death, and without this it may write later.
        "redis" => redis::start(&["--appendfsync", "always"]),
        "zookeeper" => zookeeper::start(),
        _ => return None,
    })
}

/// A program that has to be there.
fn needed(name: &str, also_in: &[&str], package: &str) -> PathBuf {
    program(name, also_in, package).unwrap_or_else(|missing| panic!("{missing}"))
}
