//! The API's words in the core's, and back.
//!
//! Durations become microseconds, what does not fit becomes the longest there is and is refused
//! with its name by the core. Names are checked here, once; everything else the core checks.

mod ask;
mod show;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use leasehold_api::{Error, ErrorKind};
use leasehold_core::{Name, SessionId, Time};

pub(crate) use ask::*;
pub(crate) use show::*;

/// A duration in microseconds.
pub(crate) fn us(duration: Duration) -> Time {
    Time::try_from(duration.as_micros()).unwrap_or(Time::MAX)
}

fn duration(us: Time) -> Duration {
    Duration::from_micros(us)
}

/// A time of the wall clock; what was before 1970 is long due.
fn wall_us(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, us)
}

fn wall(us: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(us)
}

/// A name of a lock, queue or exchange.
pub(crate) fn name(text: &str) -> Result<Name, Error> {
    Name::new(text).map_err(|error| Error::new(ErrorKind::Invalid, error.to_string()))
}

/// A session; its proof means nothing here, nobody but this process can speak to the node.
pub(crate) fn session(session: Option<&leasehold_api::engine::SessionRef>) -> SessionId {
    session.map_or(SessionId::NONE, |session| SessionId(session.id))
}
