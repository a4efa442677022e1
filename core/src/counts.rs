//! What a shard counts while it is open.

use crate::Time;

/// How long those who waited for locks have waited, since the shard was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LockWaits {
    /// Grants to somebody who had waited.
    pub grants: u64,
    /// Their waits together, microseconds.
    pub sum_us: Time,
    /// The longest of them, microseconds.
    pub longest_us: Time,
}

/// Keys taken and given back as locks, since the shard was opened. Leases are not counted here:
/// their answers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClaimCounts {
    /// Commands that would have made a key a lock and found one that somebody holds.
    pub refused: u64,
    /// Claims made.
    pub made: u64,
    /// Claims given back by keys' own commands before their time: removed, or passed on to another
    /// holder.
    pub released: u64,
}
