//! Every bound has a name here. What exceeds one is refused with that name; nothing grows freely.

use crate::Time;

/// One millisecond, second and day in microseconds, the unit of every duration in the core.
pub const MS: Time = 1_000;
/// One second.
pub const SECOND: Time = 1_000 * MS;
/// One day.
pub const DAY: Time = 86_400 * SECOND;

/// Bounds on names, times, sizes and numbers. `Default` is what the server runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Length of a register's key, bytes.
    pub key_bytes: usize,
    /// Length of a register's value, bytes.
    pub value_bytes: usize,
    /// What the hash, list, set or sorted set under one key takes in memory, bytes.
    pub content_bytes: usize,
    /// What one decision over keys writes, a command or a script, bytes.
    pub decision_bytes: usize,
    /// Length of a message's body, bytes.
    pub body_bytes: usize,
    /// Length of all headers and properties of a message together, bytes.
    pub headers_bytes: usize,
    /// Length of the text that a holder or session says about itself, bytes.
    pub label_bytes: usize,
    /// Shortest and longest time that may be asked for, microseconds.
    pub ttl_us_min: Time,
    /// See `ttl_us_min`.
    pub ttl_us_max: Time,
    /// Longest lock-delay, microseconds.
    pub lock_delay_us_max: Time,
    /// Permits of one semaphore.
    pub permits_max: u32,
    /// Locks taken in one atomic step.
    pub multi_lock_max: usize,
    /// How often one hold may be entered again.
    pub entries_max: u32,
    /// Locks held at once.
    pub locks_max: usize,
    /// Waiters for locks, and watchers of locks and registers, at once.
    pub waiters_max: usize,
    /// Sessions at once.
    pub sessions_max: usize,
    /// Registers at once.
    pub registers_max: usize,
    /// Queues at once.
    pub queues_max: usize,
    /// Exchanges at once.
    pub exchanges_max: usize,
    /// Bindings of one exchange.
    pub bindings_max: usize,
    /// Queues that one message may reach.
    pub fan_out_max: usize,
    /// Consumers at once.
    pub consumers_max: usize,
    /// Credit of one consumer.
    pub credit_max: u32,
    /// Deliveries in flight at once.
    pub in_flight_max: usize,
    /// Parts of one atomic commit.
    pub commit_parts_max: usize,
    /// Remembered request ids. An id takes 48 bytes and its place in the index 8 to 16, so all of
    /// them 64 MiB; as many as came within the window are there, not more. At the default numbers
    /// the window is whole up to 8,333 named requests a second and shorter beyond that. Just below
    /// a power of two: the ring that keeps them would double otherwise.
    pub requests_max: usize,
    /// How long a request id is remembered, microseconds. A retry after that is a new request.
    pub request_window_us: Time,
    /// Remembered message ids of one queue.
    pub dedup_max: usize,
    /// Messages looked past for one whose ordering key is free, per queue.
    pub parked_max: usize,
    /// Deaths remembered with a dead-lettered message.
    pub deaths_max: usize,
    /// Entries of an index page.
    pub page_entries: usize,
    /// Delayed messages kept in memory before they are written as a sorted run.
    pub delayed_entries: usize,
    /// Index entries kept in memory over all queues.
    pub resident_entries: usize,
    /// Timers, promotions and deliveries handled in one step.
    pub work_per_step: usize,
    /// Bytes of a journal segment; tells which segment a position lies in.
    pub segment_bytes: u64,
    /// How long a lock whose tenure is a session outlives a restart, microseconds.
    pub restart_grace_us: Time,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes: 1024,
            value_bytes: 1 << 20,
            content_bytes: 16 << 20,
            decision_bytes: 16 << 20,
            body_bytes: 16 << 20,
            headers_bytes: 64 << 10,
            label_bytes: 1024,
            ttl_us_min: MS,
            ttl_us_max: 366 * DAY,
            lock_delay_us_max: 60 * SECOND,
            permits_max: 1 << 20,
            multi_lock_max: 64,
            entries_max: 1 << 16,
            locks_max: 10_000_000,
            waiters_max: 1_000_000,
            sessions_max: 4_000_000,
            registers_max: 10_000_000,
            queues_max: 100_000,
            exchanges_max: 10_000,
            bindings_max: 100_000,
            fan_out_max: 10_000,
            consumers_max: 1_000_000,
            credit_max: 65_535,
            in_flight_max: 1_000_000,
            commit_parts_max: 1024,
            requests_max: 1_000_000,
            request_window_us: 120 * SECOND,
            dedup_max: 100_000,
            parked_max: 4096,
            deaths_max: 16,
            page_entries: 2048,
            delayed_entries: 32_768,
            resident_entries: 262_144,
            work_per_step: 1024,
            segment_bytes: 64 << 20,
            restart_grace_us: 30 * SECOND,
        }
    }
}

impl Limits {
    /// The most bytes that one index entry takes when it is written.
    pub(crate) fn entry_bytes(&self) -> usize {
        64 + NAME_BYTES + self.deaths_max * (NAME_BYTES + 24)
    }

    /// The most bytes that moving one message between queues takes.
    pub(crate) fn move_bytes(&self) -> usize {
        self.entry_bytes() + 32
    }
}

/// The longest lock, queue, exchange and routing name, bytes.
pub const NAME_BYTES: usize = 255;
