//! The conformance suite over files.

use leasehold_api::Leasehold;
use leasehold_conformance::{Target, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite() {
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!("file://{}", directory.path().display());
    let target = Target::new(move || {
        let url = url.clone();
        async move { leasehold_files::connect(&url).await.map(Leasehold::new) }
    });
    let filter = std::env::var("LEASEHOLD_CASE").unwrap_or_default();
    let report = run(&target, &filter).await;
    println!("{report}");
    assert!(report.failures().is_empty(), "{}", report.failures().join("\n"));
}
