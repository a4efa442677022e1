//! ZooKeeper of one server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::needed;
use crate::{Kind, Server, free_port};

/// It listens before it serves.
const ZOOKEEPER: Kind = Kind { url, is_ready };

/// The URL of one on a port of this machine.
pub fn url(port: u16) -> String {
    format!("zookeeper://127.0.0.1:{port}")
}

/// Starts one.
///
/// # Panics
/// When a package is not installed, or the server does not start.
pub fn start() -> Server {
    start_with("")
}

/// Starts one with more settings, a line each.
///
/// # Panics
/// When a package is not installed, or the server does not start.
pub fn start_with(more: &str) -> Server {
    let java = needed("java", &[], "default-jre-headless");
    let jar = "/usr/share/java/zookeeper.jar";
    assert!(Path::new(jar).exists(), "{jar} is missing; it is in the Debian package zookeeper");
    let (directory, port) = (Server::directory(), free_port());
    let path = directory.path().display();
    // A short tick allows short sessions.
    let config = format!(
        "tickTime=500\ndataDir={path}/data\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
         admin.enableServer=false\nmaxClientCnxns=0\n4lw.commands.whitelist=*\n{more}"
    );
    let file = directory.path().join("zoo.cfg");
    std::fs::write(&file, config).expect("its directory is ours");
    let mut call = Command::new(java);
    // As Debian's own start script calls it, with a small heap.
    call.args(["-Xmx256m", "-XX:+UseSerialGC", "-cp"]).arg(format!("/etc/zookeeper/conf:{jar}"));
    call.args(["-Dzookeeper.log.dir=."]);
    call.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(file);
    Server::start_kind(&ZOOKEEPER, directory, port, call)
}

fn is_ready(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut line = TcpStream::connect(("127.0.0.1", port))?;
        // One that is just starting may never answer what came too early.
        line.set_read_timeout(Some(Duration::from_secs(1)))?;
        line.write_all(b"srvr")?;
        let mut said = String::new();
        line.read_to_string(&mut said)?;
        Ok(said)
    };
    ask().is_ok_and(|said| said.contains("Mode:"))
}
