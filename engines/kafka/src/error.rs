//! What the client says, as what it means.

use leasehold_api::{Error, ErrorKind, Retry};

/// Why a request had no answer, or a bad one.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// No answer came: whether it was carried out is not known.
    Lost(String),
    /// Others have what it was about now, or will in a moment: the group changes.
    Moving(String),
    /// There is no such topic or partition.
    Missing,
    /// It was refused.
    Refused(Error),
}

/// The answer to a request.
pub(crate) type Answer<T> = Result<T, Fault>;

impl Fault {
    /// As an error for whoever asked.
    pub fn told(self) -> Error {
        match self {
            Self::Lost(why) => unavailable(&why).with_retry(Retry::Unknown),
            Self::Moving(why) => {
                let wrong = format!("the group is changing its members ({why}); ask again");
                Error::new(ErrorKind::Unavailable, wrong).with_retry(Retry::Later)
            }
            Self::Missing => Error::new(ErrorKind::NotFound, "there is no such topic"),
            Self::Refused(error) => error,
        }
    }

    /// The same, where a missing topic is a missing queue.
    pub fn of_queue(self, queue: &str) -> Error {
        match self {
            Self::Missing => not_found(queue),
            other => other.told(),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// The brokers are not reached.
pub(crate) fn unavailable(why: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the brokers cannot be reached: {why}"))
}

/// There is no such queue.
pub(crate) fn not_found(queue: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no queue {queue}; declare it"))
}

/// Somebody else has the message now.
pub(crate) fn stale(token: u64) -> Error {
    let wrong = format!(
        "delivery {token} is not open any more: it was settled, its lease is over, or its \
         partition went to another consumer and the message comes again there"
    );
    Error::new(ErrorKind::Stale, wrong)
}
