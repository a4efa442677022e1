//! The conformance suite over a real ZooKeeper.

use leasehold_conformance::{Target, judge_engine};
use leasehold_testbed::servers::zookeeper;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite() {
    let server = zookeeper::start();
    let url = server.url();
    let target = Target::engine(move || {
        let url = url.clone();
        async move { leasehold_zookeeper::connect(&url).await }
    });
    judge_engine(target).await;
}
