//! The whole suite against a real server; every handle is an engine of its own.

mod cluster;

use cluster::Cluster;
use leasehold_conformance::{Target, judge_engine};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres() {
    let cluster = Cluster::start(&[]);
    let url = cluster.url();
    let target = Target::engine(move || {
        let url = url.clone();
        async move { leasehold_postgres::connect(&url).await }
    });
    judge_engine(target).await;
}
