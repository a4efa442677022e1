//! A real ZooKeeper of one server.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use leasehold_testbed::{Server, free_port, program};

/// Starts one.
pub fn zookeeper() -> Server {
    zookeeper_with("")
}

/// Starts one with more settings.
pub fn zookeeper_with(more: &str) -> Server {
    let java = program("java", &[], "default-jre-headless").unwrap_or_else(|why| panic!("{why}"));
    let jar = "/usr/share/java/zookeeper.jar";
    assert!(Path::new(jar).exists(), "{jar} is missing; it is in the Debian package zookeeper");
    let (port, directory) = (free_port(), Server::directory());
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
    let server = Server::start(directory, port, call);
    serves(port);
    server
}

/// Waits until it serves: it listens before it does.
pub fn serves(port: u16) {
    let began = Instant::now();
    loop {
        let mut said = String::new();
        if let Ok(mut line) = TcpStream::connect(("127.0.0.1", port))
            // One that is just starting may never answer what came too early.
            && line.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
            && line.write_all(b"srvr").is_ok()
            && line.read_to_string(&mut said).is_ok()
            && said.contains("Mode:")
        {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "it does not serve: {said}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Where it is.
pub fn url(port: u16) -> String {
    format!("zookeeper://127.0.0.1:{port}")
}
