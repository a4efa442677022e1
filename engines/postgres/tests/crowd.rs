//! What many cost who come to one lock at one moment, in swaps.

mod client;

use std::time::Duration;

use client::client;
use leasehold_api::Leasehold;
use leasehold_testbed::Server;
use leasehold_testbed::servers::postgres;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How many come.
const CROWD: u32 = 60;
/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(120);

async fn open(url: &str) -> Leasehold {
    Leasehold::new(leasehold_postgres::connect(url).await.expect("it accepts"))
}

/// A server that counts calls of functions.
async fn counting() -> Server {
    let server = postgres::start(&[]);
    let sql = "alter database postgres set track_functions = 'all'";
    client(&server).await.batch_execute(sql).await.expect("it is ours");
    server
}

/// How often sessions have swapped; they have told all of it when they have ended.
async fn swaps(server: &Server) -> i64 {
    let client = client(server).await;
    let others = "select count(*) from pg_stat_activity \
                  where backend_type = 'client backend' and pid <> pg_backend_pid()";
    let all_ended = async {
        while client.query_one(others, &[]).await.expect("it answers").get::<_, i64>(0) > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, all_ended).await.expect("they end");
    let sql = "select calls from pg_stat_user_functions where funcname = 'swap'";
    client.query_one(sql, &[]).await.expect("it was called").get(0)
}

/// All come at one moment behind a holder, and have the lock one after the other; gives the swaps
/// for each of them.
async fn crowd(server: &Server, handle: Leasehold) -> f64 {
    let holder = open(&server.url()).await;
    let held = holder.lock("l").acquire().await.expect("it is free");
    let mut crowd = JoinSet::new();
    for _ in 0..CROWD {
        let lock = handle.lock("l");
        crowd.spawn(async move { lock.acquire().await?.release().await });
    }
    let all_in_line = async {
        while holder.inspect("l").await.expect("it answers").waiting < CROWD {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, all_in_line).await.expect("they come");
    held.release().await.expect("it is held");
    while let Some(had) = timeout(PATIENCE, crowd.join_next()).await.expect("turns come") {
        had.expect("no panic").expect("its turn comes");
    }
    drop((holder, handle));
    let swaps = swaps(server).await as f64 / f64::from(CROWD);
    println!("{swaps:.1} swaps each");
    swaps
}

/// Coming, saying that it holds and leaving are three, and some of them are tried twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_one_process_swaps_a_few_times_each() {
    let server = counting().await;
    let handle = open(&server.url()).await;
    let swaps = crowd(&server, handle).await;
    assert!(swaps < 6.0, "{swaps} swaps each");
}
