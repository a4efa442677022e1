//! The conformance suite over a real Redis server, or over the one that the environment variable
//! `LEASEHOLD_REDIS_URL` names.

use leasehold_conformance::{Target, judge_engine};
use leasehold_testbed::servers::redis;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_redis() {
    let given = std::env::var("LEASEHOLD_REDIS_URL").ok();
    let server = given.is_none().then(|| redis::start(&[]));
    let own = server.as_ref().map(leasehold_testbed::Server::url);
    let url = given.or(own).expect("there is one or the other");
    judge_engine(Target::engine(move || {
        let url = url.clone();
        async move { leasehold_redis::connect(&url).await }
    }))
    .await;
}
