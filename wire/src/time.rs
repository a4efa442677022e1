//! Times as milliseconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The greatest number that every JSON reader keeps exactly.
const EXACT_MAX: u64 = (1 << 53) - 1;

/// A duration in whole milliseconds, rounded down: whoever counts on it gives up early, not late.
pub fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(EXACT_MAX).min(EXACT_MAX)
}

/// An optional duration in milliseconds.
pub fn ms_of(duration: Option<Duration>) -> Option<u64> {
    duration.map(ms)
}

/// The duration of so many milliseconds.
pub fn duration(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The duration of so many milliseconds, if said.
pub fn duration_of(ms: Option<u64>) -> Option<Duration> {
    ms.map(duration)
}

/// A point in time in milliseconds since 1970; 0 for what lies before.
pub fn since_1970_ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, ms)
}

/// The point in time so many milliseconds after 1970.
pub fn at_ms(ms: u64) -> SystemTime {
    UNIX_EPOCH + duration(ms.min(EXACT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_times_are_bounded() {
        assert_eq!(ms(Duration::MAX), EXACT_MAX);
        assert_eq!(since_1970_ms(at_ms(u64::MAX)), EXACT_MAX);
        assert_eq!(since_1970_ms(UNIX_EPOCH - Duration::from_secs(1)), 0);
    }
}
