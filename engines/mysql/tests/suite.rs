//! The whole conformance suite against a real MariaDB server.

use leasehold_conformance::{Target, judge_engine};
use leasehold_testbed::servers::mysql;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_is_promised() {
    let server = mysql::start(&[]);
    let url = server.url();
    judge_engine(Target::engine(move || {
        let url = url.clone();
        async move { leasehold_mysql::connect(&url).await }
    }))
    .await;
}
