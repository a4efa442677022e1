//! The conformance suite against a real broker, every handle with connections of its own.

use leasehold_conformance::{Target, judge_engine};
use leasehold_testbed::servers::rabbitmq;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq() {
    let rabbit = rabbitmq::start("");
    let url = rabbit.url();
    judge_engine(Target::engine(move || {
        let url = url.clone();
        async move { leasehold_amqp::connect(&url).await }
    }))
    .await;
}
