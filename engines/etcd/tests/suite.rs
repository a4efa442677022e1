//! The conformance suite over a real etcd.

mod server;

use leasehold_conformance::{Target, judge_engine};

use crate::server::{etcd, url};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite() {
    let server = etcd();
    let url = url(server.port);
    let target = Target::engine(move || {
        let url = url.clone();
        async move { leasehold_etcd::connect(&url).await }
    });
    judge_engine(target).await;
}
