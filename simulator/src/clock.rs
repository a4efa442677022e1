//! Time that passes when a test says so.
//!
//! Both clocks are plain numbers behind a shared handle. The monotonic one only moves forward; the
//! wall clock moves along with it and can be stepped either way, as an administrator or a time
//! server does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use leasehold_env::Clock;

/// One millisecond, in the clock's unit.
pub const MS: u64 = 1_000;
/// One second.
pub const SECOND: u64 = 1_000 * MS;
/// One hour.
pub const HOUR: u64 = 3_600 * SECOND;

/// Where the wall clock starts: a day in 2025.
const WALL_START_US: u64 = 1_750_000_000 * SECOND;

/// A clock that stands still unless moved. Clones are handles on the same one.
#[derive(Clone, Debug)]
pub struct SimClock {
    times: Arc<Times>,
}

#[derive(Debug)]
struct Times {
    monotonic_us: AtomicU64,
    wall_us: AtomicU64,
}

impl SimClock {
    /// A clock whose monotonic half starts at a number that belongs to `seed`, because nothing may
    /// depend on where it starts.
    pub fn new(seed: u64) -> Self {
        Self::at(seed % HOUR, WALL_START_US)
    }

    /// A clock that shows these times, microseconds.
    pub fn at(monotonic_us: u64, wall_us: u64) -> Self {
        let times =
            Times { monotonic_us: AtomicU64::new(monotonic_us), wall_us: AtomicU64::new(wall_us) };
        Self { times: Arc::new(times) }
    }

    /// Another clock that shows the same times now and goes its own way.
    pub fn fork(&self) -> Self {
        Self::at(self.monotonic_us(), self.wall_us())
    }

    /// Lets time pass on both clocks, microseconds.
    pub fn advance(&self, us: u64) {
        self.times.monotonic_us.fetch_add(us, Ordering::Relaxed);
        self.times.wall_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Steps the wall clock alone, microseconds either way.
    pub fn step_wall(&self, us: i64) {
        let wall = self.wall_us().saturating_add_signed(us);
        self.times.wall_us.store(wall, Ordering::Relaxed);
    }

    /// Sets the monotonic clock, as a reboot does.
    pub fn set_monotonic(&self, us: u64) {
        self.times.monotonic_us.store(us, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn monotonic_us(&self) -> u64 {
        self.times.monotonic_us.load(Ordering::Relaxed)
    }

    fn wall_us(&self) -> u64 {
        self.times.wall_us.load(Ordering::Relaxed)
    }
}
