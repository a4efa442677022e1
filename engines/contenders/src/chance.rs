//! What must not be guessed, or not happen in step.

use std::time::Duration;

use leasehold_api::{Error, ErrorKind, Result};

/// A number that nobody can guess.
///
/// # Errors
/// `Broken` when the system has no randomness.
pub fn random() -> Result<u64> {
    let none = |error| Error::new(ErrorKind::Broken, format!("the system's randomness: {error}"));
    getrandom::u64().map_err(none)
}

/// Names an operation, so that one whose answer was lost is known again: 32 hexadecimal digits.
///
/// # Errors
/// `Broken` when the system has no randomness.
pub fn operation() -> Result<String> {
    Ok(format!("{:016x}{:016x}", random()?, random()?))
}

/// A time between half and one and a half of another: those who lost the same server must not all
/// come back at once. Without randomness they do, and that is all.
pub fn jittered(pause: Duration) -> Duration {
    let spread = random().unwrap_or(0) % 1000;
    pause.mul_f64(0.5 + spread as f64 / 1000.0)
}
