//! The whole conformance suite against a real MariaDB server.

mod started;

use leasehold_conformance::{Target, judge_engine};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_is_promised() {
    let server = started::mariadb(&[]);
    let url = started::url(server.port);
    judge_engine(Target::engine(move || {
        let url = url.clone();
        async move { leasehold_mysql::connect(&url).await }
    }))
    .await;
}
