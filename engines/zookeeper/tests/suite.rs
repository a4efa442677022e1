//! The conformance suite over a real ZooKeeper.

mod server;

use leasehold_conformance::{Target, judge_engine};

use crate::server::{url, zookeeper};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite() {
    let server = zookeeper();
    let url = url(server.port);
    let target = Target::engine(move || {
        let url = url.clone();
        async move { leasehold_zookeeper::connect(&url).await }
    });
    judge_engine(target).await;
}
