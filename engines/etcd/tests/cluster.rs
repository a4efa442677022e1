//! Three members: the one that leads is killed.

mod server;

use std::time::Duration;

use leasehold_api::Leasehold;
use leasehold_testbed::{Server, free_port};
use tokio::time::{sleep, timeout};

use crate::server::member;

const PATIENCE: Duration = Duration::from_secs(60);

/// Six ports that differ.
fn ports() -> Vec<u16> {
    let mut taken = Vec::new();
    while taken.len() < 6 {
        let port = free_port();
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("it is free");
        taken.push((port, listener));
    }
    taken.iter().map(|(port, _)| *port).collect()
}

fn start() -> Vec<Server> {
    let ports = ports();
    let names = ["one", "two", "three"];
    let peers = names.iter().zip(&ports[3..]);
    let cluster: Vec<String> =
        peers.map(|(name, peer)| format!("{name}=http://127.0.0.1:{peer}")).collect();
    let cluster = cluster.join(",");
    let begin = |place: usize| {
        let directory = Server::directory();
        let (port, peer) = (ports[place], ports[3 + place]);
        let call = member(&directory, names[place], port, peer, &cluster);
        Server::start(directory, port, call)
    };
    (0..3).map(begin).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_outlives_any_one_member() {
    let mut servers = start();
    let hosts: Vec<String> =
        servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
    let url = format!("etcd://{}", hosts.join(","));
    let open = async || {
        let opened = timeout(PATIENCE, async {
            loop {
                match leasehold_etcd::connect(&url).await {
                    Ok(engine) => return Leasehold::new(engine),
                    Err(_) => sleep(Duration::from_millis(200)).await,
                }
            }
        });
        opened.await.expect("it answers")
    };
    let (a, b) = (open().await, open().await);
    let mut last = 0;
    // One of them leads; each is killed once.
    for server in &mut servers {
        let lock = a.lock("x").ttl(Duration::from_secs(30));
        let held = timeout(PATIENCE, lock.acquire()).await.expect("in time").expect("it is free");
        assert!(held.token() > last, "{} after {last}", held.token());
        last = held.token();
        let lock = b.lock("x");
        let waits = tokio::spawn(async move { lock.acquire().await });
        sleep(Duration::from_millis(500)).await;
        server.kill();
        let is_held = timeout(PATIENCE, async {
            loop {
                match b.check("x", last).await {
                    Ok(is_held) => return is_held,
                    Err(_) => sleep(Duration::from_millis(100)).await,
                }
            }
        });
        assert!(is_held.await.expect("in time"), "the lock is lost");
        held.check().expect("it is held");
        held.release().await.expect("it is held");
        let next = timeout(PATIENCE, waits).await.expect("in time").expect("no panic");
        let next = next.expect("its turn");
        assert!(next.token() > last, "{} after {last}", next.token());
        last = next.token();
        next.release().await.expect("it is held");
        server.restart();
    }
}
