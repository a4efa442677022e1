//! The conformance suite over a real Redis server.

mod servers;

use leasehold_conformance::{Target, judge_engine};
use servers::redis;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_redis() {
    let server = redis(&[]);
    let url = format!("redis://127.0.0.1:{}", server.port);
    judge_engine(Target::engine(move || {
        let url = url.clone();
        async move { leasehold_redis::connect(&url).await }
    }))
    .await;
}
