//! What the status page shows.

use serde::{Deserialize, Serialize};

/// Everything that the status page shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    /// The server itself.
    pub server: Server,
    /// Sums since the server started, and what there is now.
    pub totals: Totals,
    /// The last two minutes.
    pub history: History,
    /// The first 200 locks.
    pub locks: Vec<LockRow>,
    /// How many locks there are.
    pub locks_total: u64,
    /// The first 200 queues.
    pub queues: Vec<QueueRow>,
    /// How many queues there are.
    pub queues_total: u64,
}

/// The server itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Server {
    /// Its version.
    pub version: String,
    /// Since how long it runs.
    pub uptime_ms: u64,
    /// What a confirmed change survives: always, interval or none.
    pub durability: String,
    /// The engine behind it.
    pub engine: String,
    /// Whether the engine answers.
    pub ready: bool,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// Sums since the server started, and what there is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Totals {
    /// Messages there are.
    pub messages: u64,
    /// Locks that are held.
    pub locks: u64,
    /// Open sessions.
    pub sessions: u64,
    /// Times that a lock was asked for.
    pub lock_requests: u64,
    /// Times that one was granted.
    pub grants: u64,
    /// Times that one was released.
    pub releases: u64,
    /// Grants that had to wait.
    pub lock_waits: u64,
    /// How long those waited on average; null: none waited.
    pub lock_wait_ms_avg: Option<f64>,
    /// The longest wait.
    pub lock_wait_ms_max: f64,
    /// Messages accepted.
    pub published: u64,
    /// Deliveries.
    pub delivered: u64,
    /// Deliveries settled.
    pub settled: u64,
    /// Requests refused.
    pub refused: u64,
    /// Syncs of the journal.
    pub syncs: u64,
    /// How long a sync takes on average; null: there was none.
    pub sync_ms_avg: Option<f64>,
    /// Memory of the process.
    pub memory_bytes: u64,
}

/// Rates per second and averages, one for each step, the oldest first, at most 120.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct History {
    /// The length of a step.
    pub step_ms: u64,
    /// Messages accepted.
    pub published: Vec<f64>,
    /// Deliveries.
    pub delivered: Vec<f64>,
    /// Deliveries settled.
    pub settled: Vec<f64>,
    /// Times that a lock was asked for.
    pub lock_requests: Vec<f64>,
    /// Times that one was granted.
    pub grants: Vec<f64>,
    /// Times that one was released.
    pub releases: Vec<f64>,
    /// Average wait for a lock; null: none waited.
    pub lock_wait_ms: Vec<Option<f64>>,
    /// Average sync; null: there was none.
    pub sync_ms: Vec<Option<f64>>,
}

/// A lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockRow {
    /// Its name.
    pub name: String,
    /// Its holders, the newest first.
    pub holders: Vec<HolderRow>,
    /// How many wait.
    pub waiting: u32,
    /// How long one who asks now would wait; null: not known.
    pub expected_wait_ms: Option<u64>,
    /// The first of those who wait.
    pub waiters: Vec<WaiterRow>,
}

/// A holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HolderRow {
    /// Its fencing token.
    pub token: u64,
    /// What it says about itself.
    pub label: Option<String>,
    /// The number of its session; null: none.
    pub session: Option<u64>,
    /// exclusive, shared or `permits 2 of 5`.
    pub mode: String,
    /// Since how long.
    pub held_ms: u64,
    /// How long it may still hold; null: no deadline.
    pub left_ms: Option<u64>,
    /// How often it entered.
    pub entries: u32,
}

/// A waiter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WaiterRow {
    /// What it says about itself.
    pub label: Option<String>,
    /// exclusive, shared or `permits 2 of 5`.
    pub mode: String,
    /// Since how long it waits.
    pub waited_ms: u64,
    /// How long it will wait; null: not known.
    pub expected_ms: Option<u64>,
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QueueRow {
    /// Its name.
    pub name: String,
    /// Messages ready for delivery.
    pub ready: u64,
    /// Messages delivered and not settled.
    pub in_flight: u64,
    /// Delayed messages.
    pub delayed: u64,
    /// Messages that wait for one of the same ordering key.
    pub parked: u64,
    /// Messages that died here since it was declared.
    pub dead: u64,
    /// Bytes waiting and in flight.
    pub bytes: u64,
    /// Its consumers.
    pub consumers: u32,
    /// Deliveries are held back.
    pub paused: bool,
    /// Messages accepted per second.
    pub publish_rate: f64,
    /// Deliveries per second.
    pub deliver_rate: f64,
    /// Messages that left for good per second.
    pub settle_rate: f64,
    /// Age of the first message that waits; null: none waits.
    pub oldest_ms: Option<u64>,
    /// When it is empty at this rate; null: never.
    pub drain_ms: Option<u64>,
    /// Messages waiting in the last two minutes, the oldest first.
    pub history: Vec<u64>,
}
