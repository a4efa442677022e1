//! What the tests have in common.

use std::time::Duration;

use leasehold_api::Leasehold;

/// A handle with connections of its own.
#[allow(dead_code, reason = "not every test has handles")]
pub async fn handle(url: &str) -> Leasehold {
    Leasehold::new(leasehold_kafka::connect(url).await.expect("it answers"))
}

/// Longer than anything takes that must come: a session that runs out, and a slow machine.
#[allow(dead_code, reason = "not every test waits")]
pub const LONG: Duration = Duration::from_secs(60);
