//! Redis.

use std::process::Command;

use super::needed;
use crate::{Kind, Server, free_port};

const REDIS: Kind = Kind { url, is_ready: |_| true };

/// The URL of one on a port of this machine.
pub fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}

/// Starts one with an append-only log, and with more settings as arguments.
///
/// # Panics
/// When the package is not installed, or the server does not start.
pub fn start(more: &[&str]) -> Server {
    let (directory, port) = (Server::directory(), free_port());
    let mut call = Command::new(needed("redis-server", &[], "redis-server"));
    call.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
    call.args(["--appendonly", "yes", "--dir"]).arg(directory.path()).args(more);
    Server::start_kind(&REDIS, directory, port, call)
}

/// Starts a node of a cluster, which is to be formed. Its second port would be the first and
/// 10,000, which may be another test's.
///
/// # Panics
/// When the package is not installed, or the server does not start.
pub fn node() -> Server {
    start(&["--cluster-enabled", "yes", "--cluster-port", &free_port().to_string()])
}

/// Starts a sentinel that watches a master, which it calls `mine`.
///
/// # Panics
/// When the package is not installed, or the server does not start.
pub fn sentinel(master: u16) -> Server {
    let (directory, port) = (Server::directory(), free_port());
    let path = directory.path().join("sentinel.conf");
    let text = format!(
        "port {port}\nbind 127.0.0.1\nsentinel monitor mine 127.0.0.1 {master} 1\n\
         sentinel down-after-milliseconds mine 1000\nsentinel failover-timeout mine 5000\n"
    );
    std::fs::write(&path, text).expect("it is ours");
    let mut call = Command::new(needed("redis-server", &[], "redis-server"));
    call.arg(path).arg("--sentinel");
    Server::start(directory, port, call)
}
