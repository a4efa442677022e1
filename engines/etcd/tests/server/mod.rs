//! A real etcd of one member.
#![allow(dead_code)]

use std::process::Command;

use leasehold_testbed::{Server, free_port, program};

/// Starts one.
pub fn etcd() -> Server {
    let port = free_port();
    let peer = free_port_but(port);
    let directory = Server::directory();
    let call = member(&directory, "one", port, peer, &format!("one=http://127.0.0.1:{peer}"));
    Server::start(directory, port, call)
}

/// A second port.
pub fn free_port_but(other: u16) -> u16 {
    loop {
        let port = free_port();
        if port != other {
            return port;
        }
        // It is free until somebody has it: take the next one meanwhile.
        let _taken = std::net::TcpListener::bind(("127.0.0.1", port));
        let next = free_port();
        if next != other {
            return next;
        }
    }
}

/// How a member is started.
pub fn member(
    directory: &tempfile::TempDir,
    name: &str,
    port: u16,
    peer: u16,
    cluster: &str,
) -> Command {
    let program = program("etcd", &[], "etcd-server").unwrap_or_else(|error| panic!("{error}"));
    let mut call = Command::new(program);
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
    call.arg("--name").arg(name).arg("--data-dir").arg(directory.path().join("data"));
    call.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    call.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    call.args(["--initial-cluster", cluster, "--log-level", "warn"]);
    call
}

/// Where it is.
pub fn url(port: u16) -> String {
    format!("etcd://127.0.0.1:{port}")
}
