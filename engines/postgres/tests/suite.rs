//! The whole suite against a real server; every handle is an engine of its own.

use leasehold_conformance::{Target, judge_engine};
use leasehold_testbed::servers::postgres;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres() {
    let server = postgres::start(&[]);
    let url = server.url();
    let target = Target::engine(move || {
        let url = url.clone();
        async move { leasehold_postgres::connect(&url).await }
    });
    judge_engine(target).await;
}
