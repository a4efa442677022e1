//! Sentinels and clusters: the node that has the keys is found, and found again.

use std::process::Command;
use std::time::Duration;

use leasehold_api::{ErrorKind, Fencing, Leasehold, QueueConfig};
use leasehold_testbed::servers::redis::{self as server, sentinel};
use leasehold_testbed::{Certificate, Server, free_port};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

fn ask(port: u16, command: &[&str]) -> redis::RedisResult<redis::Value> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
    let mut line = client.get_connection_with_timeout(Duration::from_secs(5))?;
    let mut ask = redis::cmd(command[0]);
    ask.arg(&command[1..]);
    ask.query(&mut line)
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waits = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, waits).await.unwrap_or_else(|_| panic!("{what} did not come"));
}

fn says(port: u16, command: &[&str], text: &str) -> bool {
    match ask(port, command) {
        Ok(redis::Value::BulkString(bytes)) => String::from_utf8_lossy(&bytes).contains(text),
        _ => false,
    }
}

async fn works(handle: &Leasehold) {
    let guard = handle.lock("here").acquire().await.expect("it is free");
    let queue = handle.queue("here");
    queue.declare(&QueueConfig::default()).await.expect("it is made");
    queue.publish("x").await.expect("it is taken");
    let came = queue.receive(PATIENCE).await.expect("it is there").expect("it was published");
    came.ack().await.expect("it is ours");
    guard.release().await.expect("it is held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_knows_the_master() {
    let mut master = server::start(&[]);
    let port = master.port.to_string();
    let replica = server::start(&["--replicaof", "127.0.0.1", &port]);
    until("the replica", || says(master.port, &["INFO", "replication"], "state=online")).await;
    let sentinel = sentinel(master.port);
    let found = || says(sentinel.port, &["INFO", "sentinel"], "slaves=1");
    until("the sentinel's view", found).await;
    let url = format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{}/mine", sentinel.port);
    let engine = leasehold_redis::connect(&url).await.expect("it is found");
    let a = Leasehold::new(engine);
    assert_eq!(a.guarantees().expect("it has locks").fencing, Fencing::Advisory);
    works(&a).await;
    let before = a.register("r").write("x").await.expect("it is written");
    master.kill();
    until("the failover", || says(replica.port, &["INFO", "replication"], "role:master")).await;
    // The old master is gone, and whoever asks now is led to the new one.
    let write = async {
        loop {
            match a.register("r").write("y").await {
                Ok(version) => return version,
                Err(error) => assert_eq!(error.kind, ErrorKind::Unavailable, "{error}"),
            }
        }
    };
    let after = timeout(PATIENCE, write).await.expect("it is led there");
    assert!(after > before, "version {after} after {before}");
    works(&a).await;
    let nobody = format!("redis+sentinel://127.0.0.1:{}/others", sentinel.port);
    let refused = leasehold_redis::connect(&nobody).await.expect_err("there is none");
    assert_eq!(refused.kind, ErrorKind::NotFound, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_knows_the_node() {
    let nodes = [(); 3].map(|()| server::node());
    let mut form = Command::new("redis-cli");
    form.args(["--cluster", "create", "--cluster-yes"]);
    form.args(nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)));
    let formed = form.output().expect("redis-cli is part of the package redis-tools");
    let said = [formed.stdout, formed.stderr].concat();
    assert!(formed.status.success(), "{}", String::from_utf8_lossy(&said));
    for node in &nodes {
        until("the cluster", || says(node.port, &["CLUSTER", "INFO"], "cluster_state:ok")).await;
        let url = format!("redis+cluster://127.0.0.1:{}", node.port);
        let a = Leasehold::new(leasehold_redis::connect(&url).await.expect("it is found"));
        works(&a).await;
    }
    let url = format!("redis://127.0.0.1:{}", nodes[0].port);
    let refused = leasehold_redis::connect(&url).await.expect_err("it is a cluster");
    assert!(refused.wrong.contains("redis+cluster"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls() {
    let directory = Server::directory();
    let own = Certificate::new(directory.path(), "127.0.0.1");
    let (port, cert, key) = (free_port().to_string(), own.certificate.display(), own.key.display());
    let (cert, key) = (cert.to_string(), key.to_string());
    let mut server = server::start(
        &[
            ["--tls-port", &port],
            ["--tls-cert-file", &cert],
            ["--tls-key-file", &key],
            ["--tls-ca-cert-file", &cert],
            ["--tls-auth-clients", "no"],
        ]
        .concat(),
    );
    server.wait_for(port.parse().expect("it is a number"));
    let url = format!("rediss://127.0.0.1:{port}");
    let a = leasehold_redis::connect(&format!("{url}?ca={cert}")).await.expect("it is trusted");
    works(&Leasehold::new(a)).await;
    let kind = async |url: &str| leasehold_redis::connect(url).await.expect_err(url).kind;
    // Nobody vouches for it, and one who speaks no TLS is not understood.
    assert_eq!(kind(&url).await, ErrorKind::Unavailable);
    assert_eq!(kind(&format!("redis://127.0.0.1:{port}")).await, ErrorKind::Unavailable);
    assert_eq!(kind(&format!("{url}?ca=/nowhere.pem")).await, ErrorKind::Invalid);
}
