//! F16: a pool of connections between the engine and PostgreSQL. Where a connection is somebody
//! else's after each transaction the engine refuses to work; where it stays, nothing is different.

use std::time::Duration;

use leasehold_api::{ErrorKind, Leasehold, QueueConfig};
use leasehold_testbed::servers::{pgbouncer, postgres};
use tokio::time::timeout;

/// How long something may take that must come.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_of_transactions_is_refused() {
    let server = postgres::start(&[]);
    // With the tables there is less to be done, and nothing else that could fail.
    leasehold_postgres::connect(&server.url()).await.expect("it accepts");
    for mode in ["transaction", "statement"] {
        let pooler = pgbouncer::start(&server, mode);
        // Which connection one gets is chance, so it is tried more than once, and at one time.
        let tries = (0..8).map(|_| {
            let url = pooler.url();
            tokio::spawn(async move { leasehold_postgres::connect(&url).await })
        });
        for one in tries.collect::<Vec<_>>() {
            let refused = one.await.expect("it does not panic").expect_err(mode);
            assert_eq!(refused.kind, ErrorKind::Unsupported, "{mode}: {refused}");
            assert!(refused.to_string().contains("pool_mode = session"), "{mode}: {refused}");
        }
    }
    // Nothing that was refused is in the way of who comes straight.
    let straight = leasehold_postgres::connect(&server.url()).await.expect("it accepts");
    let guard = Leasehold::new(straight).lock("l").acquire().await.expect("it is free");
    guard.release().await.expect("it is held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_of_sessions_is_not_noticed() {
    let server = postgres::start(&[]);
    let mut pooler = pgbouncer::start(&server, "session");
    let open = async || {
        let engine = leasehold_postgres::connect(&pooler.url()).await;
        Leasehold::new(engine.expect("it accepts"))
    };
    let (a, b) = (open().await, open().await);
    let held = a.lock("l").ttl(Duration::from_secs(600)).acquire().await.expect("it is free");
    let lock = b.lock("l");
    let waiting = tokio::spawn(async move { lock.acquire().await });
    let waits = async {
        while a.inspect("l").await.expect("it answers").waiting != 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, waits).await.expect("it waits");
    // Its death cuts all connections, and ends no hold and no wait.
    pooler.restart();
    let queue = a.queue("q");
    timeout(PATIENCE, async {
        while let Err(error) = queue.declare(&QueueConfig::default()).await {
            assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
        }
    })
    .await
    .expect("it is back");
    queue.publish("x").await.expect("it is there");
    let one = queue.receive(PATIENCE).await.expect("it answers").expect("it was published");
    one.ack().await.expect("it is ours");
    held.release().await.expect("it is held");
    let next = timeout(PATIENCE, waiting).await.expect("its turn comes").expect("no panic");
    next.expect("its turn comes").release().await.expect("it is held");
}
