//! Bounds of what may be asked; the same as those of the embedded engine, so that changing a URL
//! changes no program.

use std::time::Duration;

use leasehold_api::engine::{Acquire, List, Mode};
use leasehold_api::{Error, ErrorKind, Result};

/// Length of a lock's name, bytes.
pub const NAME_BYTES: usize = 255;
/// Length of a register's key, bytes.
pub const KEY_BYTES: usize = 1024;
/// Length of a register's value, bytes.
pub const VALUE_BYTES: usize = 1 << 20;
/// Length of what a holder says about itself, bytes.
pub const LABEL_BYTES: usize = 1024;
/// The shortest time that may be asked for.
pub const TTL_MIN: Duration = Duration::from_millis(1);
/// The longest.
pub const TTL_MAX: Duration = Duration::from_secs(366 * 86_400);
/// The longest delay after a loss.
pub const DELAY_MAX: Duration = Duration::from_secs(60);
/// Permits of one semaphore.
pub const PERMITS_MAX: u32 = 1_000_000;
/// Locks taken at once.
pub const LOCKS_MAX: usize = 64;
/// How often one hold may be entered.
pub const ENTRIES_MAX: u32 = 1_000_000;
/// Contenders of one lock.
pub const LINE_MAX: usize = 10_000;

fn invalid(wrong: String) -> Error {
    Error::new(ErrorKind::Invalid, wrong)
}

/// Demands a name of a lock.
///
/// # Errors
/// `Invalid`.
pub fn name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(invalid("the name is empty; give 1 to 255 bytes of text".into()));
    }
    if name.len() > NAME_BYTES {
        let is = name.len();
        return Err(invalid(format!("the name has {is} bytes, at most {NAME_BYTES} are allowed")));
    }
    if let Some(bad) = name.chars().find(|char| char.is_control()) {
        return Err(invalid(format!("the name has the control character {bad:?} in it")));
    }
    Ok(())
}

/// Demands a key of a register.
///
/// # Errors
/// `Invalid`.
pub fn key(key: &[u8]) -> Result<()> {
    match key.len() {
        0 => Err(invalid("the key is empty; give 1 to 1024 bytes".into())),
        1..=KEY_BYTES => Ok(()),
        is => Err(invalid(format!("the key has {is} bytes, at most {KEY_BYTES} are allowed"))),
    }
}

/// Demands a time to live.
///
/// # Errors
/// `Invalid`.
pub fn ttl(ttl: Duration) -> Result<()> {
    if (TTL_MIN..=TTL_MAX).contains(&ttl) {
        return Ok(());
    }
    Err(invalid(format!("the TTL is {ttl:?}; 1 ms to 366 days are allowed")))
}

/// Demands a list of sensible size.
///
/// # Errors
/// `Invalid`.
pub fn list(ask: &List) -> Result<()> {
    if (1..=1000).contains(&ask.max) {
        return Ok(());
    }
    Err(invalid(format!("a list of {} was asked for; 1 to 1000 are allowed", ask.max)))
}

/// Demands an acquire that can be carried out.
///
/// # Errors
/// `Invalid`, with what is wrong.
pub fn acquire(ask: &Acquire) -> Result<()> {
    if !(1..=LOCKS_MAX).contains(&ask.wants.len()) {
        let is = ask.wants.len();
        return Err(invalid(format!("{is} locks at once; 1 to {LOCKS_MAX} are allowed")));
    }
    for (place, want) in ask.wants.iter().enumerate() {
        name(&want.name)?;
        if ask.wants[..place].iter().any(|other| other.name == want.name) {
            return Err(invalid(format!("lock {} is asked for twice at once", want.name)));
        }
        if let Mode::Permits { take, of } = want.mode
            && !(1..=of.min(PERMITS_MAX)).contains(&take)
        {
            let wrong = format!(
                "{take} of {of} permits; take 1 to as many as there are, at most \
                                 {PERMITS_MAX}"
            );
            return Err(invalid(wrong));
        }
    }
    ask.ttl.map_or(Ok(()), ttl)?;
    if ask.lock_delay > DELAY_MAX {
        let is = ask.lock_delay;
        return Err(invalid(format!("the lock delay is {is:?}; at most a minute is allowed")));
    }
    if ask.hold >= 1 << 53 {
        return Err(invalid(format!("the hold number {} is not below 2^53", ask.hold)));
    }
    if ask.bound && ask.session.is_none() {
        return Err(invalid("a lock that ends with a session needs one".into()));
    }
    match ask.label.as_ref().map(|label| label.len()) {
        Some(is) if is > LABEL_BYTES => {
            Err(invalid(format!("the label has {is} bytes, at most {LABEL_BYTES} are allowed")))
        }
        _ => Ok(()),
    }
}
