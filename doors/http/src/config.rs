//! What the door is told by whoever opens it.

use std::sync::Arc;
use std::time::Duration;

use leasehold_users::Users;

/// What the door is told.
pub struct DoorConfig {
    /// Seals sessions and receipts. The same over restarts, or clients lose their sessions.
    pub secret: [u8; 32],
    /// Who may come in. Nobody at all: everybody may do everything.
    pub users: Arc<Users>,
    /// Host names under which the door is reached besides `localhost` and addresses. Only asked
    /// while there are no users: then the name is all that keeps foreign web pages out.
    pub hosts: Vec<String>,
    /// What it bounds.
    pub limits: HttpLimits,
    /// Where the figures of the status page and the metrics come from.
    pub counters: Arc<dyn Counters>,
    /// What the status page says about the server.
    pub info: ServerInfo,
    /// What an operator should know now, a sentence each. Called once a second while somebody
    /// looks; it must not block.
    pub warnings: Box<dyn Fn() -> Vec<String> + Send + Sync>,
}

impl DoorConfig {
    /// A door for everybody, with the usual limits.
    pub fn new(secret: [u8; 32], counters: Arc<dyn Counters>, info: ServerInfo) -> Self {
        let (users, hosts, limits) = (Arc::default(), Vec::new(), HttpLimits::default());
        Self { secret, users, hosts, limits, counters, info, warnings: Box::new(Vec::new) }
    }
}

impl std::fmt::Debug for DoorConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DoorConfig").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// What the status page says about the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerInfo {
    /// Its version.
    pub version: String,
    /// `always`, `interval` or `none`.
    pub durability: String,
    /// The engine behind the door, for people.
    pub engine: String,
}

/// Where the door's figures come from. The server reads its node; the door must not know one.
pub trait Counters: Send + Sync + 'static {
    /// The figures now. Called about once a second; it must not block.
    fn read(&self) -> Totals;
}

/// No figures, for engines that count nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCounters;

impl Counters for NoCounters {
    fn read(&self) -> Totals {
        Totals::default()
    }
}

/// Sums since the server started; the first three and the last are what there is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
    /// How long those waited together, microseconds.
    pub lock_wait_us: u64,
    /// The longest wait, microseconds.
    pub lock_wait_us_max: u64,
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
    /// How long those took together, microseconds.
    pub sync_us: u64,
    /// Memory of the process.
    pub memory_bytes: u64,
}

/// What the door bounds. Every bound is a name; `Default` is what the server runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpLimits {
    /// Length of a request's body. A message's 16 MiB are 21.4 MiB in base64.
    pub body_bytes: usize,
    /// How long a client may take to send a body.
    pub body_read: Duration,
    /// Headers of a request.
    pub headers: usize,
    /// Length of a request's line and headers together.
    pub head_bytes: usize,
    /// How long a client may take to send them, and for the TLS handshake.
    pub head_read: Duration,
    /// Connections at once; more are refused.
    pub connections: usize,
    /// How long a connection may be idle, or take nothing of an answer.
    pub idle: Duration,
    /// HTTP/2 requests at once on one connection.
    pub streams_per_connection: u32,
    /// Requests that wait at once: acquires, receives, watches, consumers.
    pub waiting: usize,
    /// How often a consumer's stream says that it lives.
    pub heartbeat: Duration,
    /// How long requests may take to finish at a shutdown.
    pub drain: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            body_bytes: 24 << 20,
            body_read: Duration::from_secs(30),
            headers: 100,
            head_bytes: 64 << 10,
            head_read: Duration::from_secs(10),
            connections: 20_000,
            idle: Duration::from_secs(75),
            streams_per_connection: 256,
            waiting: 10_000,
            heartbeat: Duration::from_secs(15),
            drain: Duration::from_secs(10),
        }
    }
}
