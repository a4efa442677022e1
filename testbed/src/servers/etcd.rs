//! etcd.

use std::process::Command;

use tempfile::TempDir;

use super::needed;
use crate::{Kind, Server, free_port};

const ETCD: Kind = Kind { url, is_ready: |_| true };

/// The URL of one on a port of this machine.
pub fn url(port: u16) -> String {
    format!("etcd://127.0.0.1:{port}")
}

/// Starts one of one member.
///
/// # Panics
/// When the package is not installed, or the server does not start.
pub fn start() -> Server {
    let (directory, port) = (Server::directory(), free_port());
    let call = alone(&directory, port);
    Server::start_kind(&ETCD, directory, port, call)
}

/// Starts several members of one cluster.
///
/// # Panics
/// When the package is not installed, or they do not start.
pub fn cluster(count: usize) -> Vec<Server> {
    let members: Vec<(String, u16)> =
        (0..count).map(|number| (format!("m{number}"), free_port())).collect();
    let cluster: Vec<String> =
        members.iter().map(|(name, peer)| format!("{name}=http://127.0.0.1:{peer}")).collect();
    let cluster = cluster.join(",");
    let start = |(name, peer): &(String, u16)| {
        let (directory, port) = (Server::directory(), free_port());
        let call = member(&directory, name, port, *peer, &cluster);
        Server::start_kind(&ETCD, directory, port, call)
    };
    members.iter().map(start).collect()
}

/// How a cluster of one member is started; more arguments can follow.
///
/// # Panics
/// When the package is not installed.
pub fn alone(directory: &TempDir, port: u16) -> Command {
    let peer = free_port();
    member(directory, "one", port, peer, &format!("one=http://127.0.0.1:{peer}"))
}

fn member(directory: &TempDir, name: &str, port: u16, peer: u16, cluster: &str) -> Command {
    let mut call = Command::new(needed("etcd", &[], "etcd-server"));
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
    call.arg("--name").arg(name).arg("--data-dir").arg(directory.path().join("data"));
    call.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    call.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    call.args(["--initial-cluster", cluster, "--log-level", "warn"]);
    call
}
