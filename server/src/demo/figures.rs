//! How fast it was, from what the workers wrote down.

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::Value;

use super::accounts::{Accounts, Standing};
use super::ledger::{Fact, Why};

/// A duration that nobody waits for, in microseconds: the histograms end there.
const LONGEST_US: u64 = 3_600_000_000;

/// Percentiles of one kind of wait, in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Percentiles {
    pub count: u64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Percentiles {
    fn of(times_us: impl Iterator<Item = u64>) -> Result<Self> {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, LONGEST_US, 3)?;
        times_us.for_each(|us| histogram.saturating_record(us.max(1)));
        let ms = |us: u64| us as f64 / 1000.0;
        Ok(Self {
            count: histogram.len(),
            p50_ms: ms(histogram.value_at_quantile(0.5)),
            p90_ms: ms(histogram.value_at_quantile(0.9)),
            p99_ms: ms(histogram.value_at_quantile(0.99)),
            max_ms: ms(histogram.max()),
        })
    }
}

/// The server's own count of lock traffic, summed over its restarts. What it counted in the
/// moments before it was killed is not in it.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct LockTraffic {
    pub requests: u64,
    pub grants: u64,
    pub releases: u64,
}

impl LockTraffic {
    /// Adds one life of the server.
    pub fn add(&mut self, totals: &Value) {
        let of = |name: &str| totals[name].as_u64().unwrap_or(0);
        self.requests += of("lock_requests");
        self.grants += of("grants");
        self.releases += of("releases");
    }
}

/// The figures of one run.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// From the first order placed to the last step done.
    pub seconds: f64,
    /// Orders from end to end.
    pub orders_per_second: f64,
    pub placed_to_shipped: Percentiles,
    pub lock_wait: Percentiles,
    pub commit: Percentiles,
    /// Commits that happened.
    pub commits: u64,
    /// Lock traffic by the workers' own count.
    pub locks: LockTraffic,
    /// Lock traffic by the server's count.
    pub locks_by_server: LockTraffic,
    pub workers_killed: usize,
    pub server_restarts_ms: Vec<f64>,
    /// Messages delivered again after a crash, a freeze or a refusal.
    pub redelivered: u64,
    /// Copies of orders that the queue took for what they were.
    pub copies_absorbed: u32,
    pub stale_refused: usize,
    pub races_lost: usize,
}

impl Figures {
    pub fn of(accounts: &Accounts, locks_by_server: LockTraffic) -> Result<Self> {
        let done = || accounts.done.values();
        let first = accounts.placing.values().min().copied().unwrap_or(0);
        let last = done().map(|done| done.at).max().unwrap_or(first);
        let seconds = last.saturating_sub(first) as f64 / 1e6;
        let orders = accounts.confirmed.len() as f64;
        let void = |why| accounts.count(move |standing| standing == Standing::Void(why));
        Ok(Self {
            seconds,
            orders_per_second: orders / seconds.max(0.001),
            placed_to_shipped: Percentiles::of(placed_to_shipped(accounts))?,
            lock_wait: Percentiles::of(done().filter_map(|d| d.waited_us).map(u64::from))?,
            commit: Percentiles::of(done().map(|done| u64::from(done.us)))?,
            commits: accounts.count(Standing::holds) as u64,
            locks: locks(accounts),
            locks_by_server,
            workers_killed: accounts.killed.len(),
            server_restarts_ms: accounts.restarts_us.iter().map(|us| *us as f64 / 1e3).collect(),
            redelivered: accounts.again,
            copies_absorbed: accounts.absorbed,
            stale_refused: void(Why::Stale),
            races_lost: void(Why::Conflict),
        })
    }
}

fn placed_to_shipped(accounts: &Accounts) -> impl Iterator<Item = u64> + '_ {
    let shipped = accounts.happened().filter_map(|(intent, fact)| match fact {
        Fact::Ship { orders, .. } => Some((accounts.done.get(&intent)?.at, orders)),
        _ => None,
    });
    let one = |at: u64, order: &u32| Some(at.saturating_sub(*accounts.placing.get(order)?));
    shipped.flat_map(move |(at, orders)| orders.iter().filter_map(move |(order, _)| one(at, order)))
}

/// Lock traffic as the workers saw it; a killed worker's last requests are not in it.
fn locks(accounts: &Accounts) -> LockTraffic {
    let under_lock = |fact: &&Fact| matches!(fact, Fact::Stock { token: Some(_), .. });
    let grants = accounts.intents.values().filter(under_lock).count() as u64;
    let releases = accounts.done.values().filter(|done| done.waited_us.is_some()).count() as u64;
    LockTraffic { requests: grants + u64::from(accounts.missed), grants, releases }
}
