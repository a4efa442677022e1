//! What the driver says, as what it means.

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use leasehold_api::{Error, ErrorKind, Retry};

/// Why a request had no answer.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The connection or the channel is gone: whether it was carried out is not known.
    Lost(String),
    /// The broker refused it.
    Refused(Error),
}

/// The answer to a request to the broker.
pub(crate) type Answer<T> = Result<T, Fault>;

impl Fault {
    /// As an error for whoever cannot ask again.
    pub fn unknown(self) -> Error {
        match self {
            Self::Lost(why) => unavailable(&why).with_retry(Retry::Unknown),
            Self::Refused(error) => error,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// The broker is not reached.
pub(crate) fn unavailable(why: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the broker cannot be reached: {why}"))
}

/// There is no such queue or exchange.
pub(crate) fn not_found(what: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no {what}"))
}

impl From<lapin::Error> for Fault {
    fn from(error: lapin::Error) -> Self {
        let lapin::ErrorKind::ProtocolError(said) = error.kind() else {
            return match error.kind() {
                lapin::ErrorKind::ChannelsLimitReached => {
                    let wrong = "the connection has as many channels as the broker allows \
                                 (channel_max); hold, wait or consume less at once";
                    Self::Refused(Error::new(ErrorKind::Full, wrong))
                }
                lapin::ErrorKind::SerialisationError(_) => {
                    Self::Refused(Error::new(ErrorKind::Invalid, error.to_string()))
                }
                _ => Self::Lost(error.to_string()),
            };
        };
        let text = said.get_message().to_string();
        match said.kind() {
            AMQPErrorKind::Soft(code) => Self::Refused(refused(code, text)),
            AMQPErrorKind::Hard(code) => hard(code, text),
        }
    }
}

/// What the broker says when it closes a channel.
fn refused(code: &AMQPSoftError, text: String) -> Error {
    let kind = match code {
        AMQPSoftError::NOTFOUND => ErrorKind::NotFound,
        AMQPSoftError::ACCESSREFUSED if text.contains("exclusive") => ErrorKind::InUse,
        AMQPSoftError::ACCESSREFUSED => ErrorKind::Forbidden,
        AMQPSoftError::RESOURCELOCKED => ErrorKind::InUse,
        AMQPSoftError::PRECONDITIONFAILED if text.contains("inequivalent arg") => {
            ErrorKind::Different
        }
        AMQPSoftError::PRECONDITIONFAILED
            if text.contains("in use") || text.contains("not empty") =>
        {
            ErrorKind::InUse
        }
        AMQPSoftError::PRECONDITIONFAILED
            if text.contains("delivery tag") || text.contains("timed out") =>
        {
            ErrorKind::Stale
        }
        _ => ErrorKind::Invalid,
    };
    Error::new(kind, format!("the broker says: {text}"))
}

/// What the broker says when it closes the connection.
fn hard(code: &AMQPHardError, text: String) -> Fault {
    let kind = match code {
        AMQPHardError::NOTALLOWED => ErrorKind::Forbidden,
        AMQPHardError::NOTIMPLEMENTED => ErrorKind::Unsupported,
        AMQPHardError::RESOURCEERROR => ErrorKind::Full,
        _ => return Fault::Lost(text),
    };
    Fault::Refused(Error::new(kind, format!("the broker says: {text}")))
}

/// What went wrong when a connection was made.
pub(crate) fn connecting(error: lapin::Error, user: &str, vhost: &str) -> Error {
    let lapin::ErrorKind::ProtocolError(said) = error.kind() else {
        if let lapin::ErrorKind::AuthProviderError(why) = error.kind() {
            return Error::new(ErrorKind::Unauthenticated, why.clone());
        }
        return unavailable(&error.to_string()).with_retry(Retry::Later);
    };
    let text = said.get_message();
    match said.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => {
            let wrong = format!(
                "user {user} is not let in ({text}); is the password right? guest may come from \
                 localhost only"
            );
            Error::new(ErrorKind::Unauthenticated, wrong)
        }
        AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
            let wrong = format!(
                "vhost {vhost} is not there or not for user {user} ({text}); the default one is \
                 written as / or left out; see rabbitmqctl list_vhosts and set_permissions"
            );
            Error::new(ErrorKind::Forbidden, wrong)
        }
        _ => unavailable(&error.to_string()).with_retry(Retry::Later),
    }
}
