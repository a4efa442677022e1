//! The conformance suite over a real etcd.

use leasehold_conformance::{Target, judge_engine};

use leasehold_testbed::servers::etcd;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite() {
    let server = etcd::start();
    let url = server.url();
    let target = Target::engine(move || {
        let url = url.clone();
        async move { leasehold_etcd::connect(&url).await }
    });
    judge_engine(target).await;
}
