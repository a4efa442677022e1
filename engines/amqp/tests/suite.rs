//! The conformance suite against a real broker, every handle with connections of its own.

mod rabbit;

use leasehold_conformance::{Target, judge_engine};
use rabbit::Rabbit;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq() {
    let rabbit = Rabbit::start("");
    let url = rabbit.url();
    judge_engine(Target::engine(move || {
        let url = url.clone();
        async move { leasehold_amqp::connect(&url).await }
    }))
    .await;
}
