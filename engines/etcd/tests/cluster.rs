//! Three members: the one that leads is killed.

use std::time::Duration;

use leasehold_api::Leasehold;
use leasehold_testbed::servers::etcd;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_outlives_any_one_member() {
    let mut servers = etcd::cluster(3);
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
