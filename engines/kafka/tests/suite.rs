//! The conformance suite against a real broker, every handle with connections of its own.

#![cfg(feature = "librdkafka")]

use leasehold_conformance::{Target, judge_engine};
use leasehold_testbed::servers::kafka::Broker;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka() {
    let broker = Broker::start();
    let url = broker.url();
    judge_engine(Target::engine(move || {
        let url = url.clone();
        async move { leasehold_kafka::connect(&url).await }
    }))
    .await;
}
