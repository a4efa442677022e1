//! The node's figures, as the door shows them.

use std::sync::Arc;

use leasehold_http_door::{Counters, Totals};
use leasehold_node::Metrics;

/// Reads the node's metrics and the process's memory.
pub struct Figures {
    metrics: Arc<Metrics>,
    page_bytes: u64,
}

impl Figures {
    /// The figures of a node.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, page_bytes: rustix::param::page_size() as u64 }
    }

    /// Memory of this process in use; 0 where the system does not say.
    fn memory_bytes(&self) -> u64 {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let resident = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        resident.unwrap_or(0) * self.page_bytes
    }
}

impl Counters for Figures {
    fn read(&self) -> Totals {
        let node = self.metrics.read();
        Totals {
            messages: node.messages,
            locks: node.locks,
            sessions: node.sessions,
            lock_requests: node.lock_requests,
            grants: node.grants,
            releases: node.releases,
            lock_waits: node.lock_waits,
            lock_wait_us: node.lock_wait_us,
            lock_wait_us_max: node.lock_wait_us_max,
            published: node.published,
            delivered: node.deliveries,
            settled: node.settled,
            refused: node.refusals,
            syncs: node.syncs,
            sync_us: node.sync_us,
            memory_bytes: self.memory_bytes(),
        }
    }
}
