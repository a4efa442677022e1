//! One node runs the nightly job, however many start it.
//!
//! `at_least` keeps the lock taken for a while after a short job, so that a node whose clock is a
//! little late does not run it again. `at_most` is how long a node that died in the job is waited
//! for.

use std::time::Duration;

#[tokio::main]
async fn main() -> leasehold::Result<()> {
    let leasehold = leasehold_examples::engine().await?;
    let mut nodes = Vec::new();
    for node in 1..=5 {
        let job = leasehold
            .with_label(format!("node-{node}"))
            .job("nightly-report")
            .at_least(Duration::from_secs(1))
            .at_most(Duration::from_secs(60));
        nodes.push(tokio::spawn(async move {
            let ran = job.run(async |token| println!("node {node} runs the job, token {token}"));
            Ok::<bool, leasehold::Error>(ran.await?.is_some())
        }));
    }
    let mut ran = 0;
    for node in nodes {
        ran += u32::from(node.await.expect("it does not panic")?);
    }
    println!("{ran} of 5 nodes ran it");
    assert_eq!(ran, 1);
    Ok(())
}
