//! Numbers that nobody can guess.

use crate::RequestId;

fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes
}

/// Names a request across retries.
pub(crate) fn request() -> RequestId {
    RequestId(u128::from_le_bytes(bytes()))
}

/// Names a holder; below 2^53, so that JSON keeps it exact.
pub(crate) fn hold() -> u64 {
    u64::from_le_bytes(bytes()) >> 11
}
