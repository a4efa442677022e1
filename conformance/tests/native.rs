//! The suite over the embedded engine, durable and in memory.

use leasehold_conformance::{Target, run};

fn filter() -> String {
    std::env::var("LEASEHOLD_CASE").unwrap_or_default()
}

async fn all_pass(target: Target) {
    let report = run(&target, &filter()).await;
    println!("{report}");
    assert!(report.failures().is_empty(), "{}", report.failures().join("\n"));
    let not_run = report.count(|v| matches!(v, leasehold_conformance::Verdict::NotRun(_)));
    assert_eq!(not_run, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_and_durable() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let first = leasehold::open(directory.path()).await.expect("it opens");
    all_pass(Target::new(move || {
        let engine = first.engine().clone();
        async { Ok(leasehold::Leasehold::new(engine)) }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_in_memory() {
    let first = leasehold::memory().await.expect("it opens");
    all_pass(Target::new(move || {
        let engine = first.engine().clone();
        async { Ok(leasehold::Leasehold::new(engine)) }
    }))
    .await;
}
