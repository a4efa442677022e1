//! What a shard counts. Written by its thread once a turn, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering};

/// Sums since the node was opened, and gauges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it; times are microseconds")]
pub struct Counters {
    pub turns: u64,
    pub commands: u64,
    pub refusals: u64,
    pub lock_requests: u64,
    pub grants: u64,
    pub lock_waits: u64,
    pub lock_wait_us: u64,
    pub lock_wait_us_max: u64,
    pub releases: u64,
    pub published: u64,
    pub deliveries: u64,
    pub settled: u64,
    pub syncs: u64,
    pub sync_us: u64,
    pub sync_us_max: u64,
    pub checkpoints: u64,
    pub relocated: u64,
    pub segments_retired: u64,
    pub damaged_reads: u64,
    pub notices_dropped: u64,
    pub messages: u64,
    pub locks: u64,
    pub sessions: u64,
    pub sequence: u64,
    pub durable_sequence: u64,
    pub resident_entries: u64,
    pub disk_full: u64,
}

const FIELDS: usize = size_of::<Counters>() / 8;

/// The counters as last published.
#[derive(Debug, Default)]
pub struct Metrics {
    cells: [AtomicU64; FIELDS],
}

macro_rules! fields {
    ($($name:ident),*) => {
        impl Counters {
            fn to_array(self) -> [u64; FIELDS] {
                [$(self.$name),*]
            }

            fn from_array(values: [u64; FIELDS]) -> Self {
                let [$($name),*] = values;
                Self { $($name),* }
            }
        }
    };
}

fields!(
    turns,
    commands,
    refusals,
    lock_requests,
    grants,
    lock_waits,
    lock_wait_us,
    lock_wait_us_max,
    releases,
    published,
    deliveries,
    settled,
    syncs,
    sync_us,
    sync_us_max,
    checkpoints,
    relocated,
    segments_retired,
    damaged_reads,
    notices_dropped,
    messages,
    locks,
    sessions,
    sequence,
    durable_sequence,
    resident_entries,
    disk_full
);

impl Metrics {
    pub(crate) fn publish(&self, counters: Counters) {
        for (cell, value) in self.cells.iter().zip(counters.to_array()) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// The counters of the last turn. Each is exact; together they may straddle two turns.
    pub fn read(&self) -> Counters {
        let mut values = [0; FIELDS];
        for (value, cell) in values.iter_mut().zip(&self.cells) {
            *value = cell.load(Ordering::Relaxed);
        }
        Counters::from_array(values)
    }
}
