//! Redis servers for the tests.

use std::process::Command;

use leasehold_testbed::{Server, free_port, program};

/// A server with an append-only log, and with more settings as arguments.
pub fn redis(more: &[&str]) -> Server {
    let program = program("redis-server", &[], "redis-server");
    let program = program.unwrap_or_else(|why| panic!("{why}"));
    let (directory, port) = (Server::directory(), free_port());
    let mut call = Command::new(program);
    call.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
    call.args(["--appendonly", "yes", "--dir"]).arg(directory.path()).args(more);
    Server::start(directory, port, call)
}
