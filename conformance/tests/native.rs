//! The suite over the embedded engine, durable and in memory.

use leasehold_api::{Engine, Leasehold, Result};
use leasehold_conformance::{Target, judge_engine};

/// Sessions of one engine that is open already.
fn target(first: Leasehold) -> Target {
    Target::engine(move || std::future::ready(Result::<Engine>::Ok(first.engine().clone())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_and_durable() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    judge_engine(target(leasehold::open(directory.path()).await.expect("it opens"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_in_memory() {
    judge_engine(target(leasehold::memory().await.expect("it opens"))).await;
}
