//! Errors of the driver and the server as the errors of Leasehold.

use leasehold_api::{Error, ErrorKind, Retry};
use redis::{ErrorKind as DriverKind, RedisError, ServerErrorKind};

/// What to do about a failure besides telling it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cure {
    /// Nothing.
    None,
    /// The connection is of no use any more.
    Reconnect,
    /// The keys are elsewhere.
    Relocate,
    /// The server does not have the script yet.
    Load,
}

/// A request that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub error: Error,
    pub cure: Cure,
}

/// The result of one request.
pub(crate) type Tried<T> = Result<T, Failure>;

fn unavailable(wrong: String, retry: Retry, cure: Cure) -> Failure {
    Failure { error: Error::new(ErrorKind::Unavailable, wrong).with_retry(retry), cure }
}

fn refused(kind: ErrorKind, wrong: String) -> Failure {
    Failure { error: Error::new(kind, wrong), cure: Cure::None }
}

/// What a failure of a request means that was, or may have been, sent.
pub(crate) fn sent(place: &str, error: &RedisError) -> Failure {
    let said = || said(error);
    match error.kind() {
        DriverKind::Server(kind) => served(place, kind, said()),
        DriverKind::Extension => extension(place, error.code().unwrap_or_default(), said()),
        DriverKind::Io => {
            let why = if error.is_timeout() { "it did not answer in time".into() } else { said() };
            let wrong = format!("{place}: {why}; the request may have been carried out");
            unavailable(wrong, Retry::Unknown, Cure::Reconnect)
        }
        DriverKind::Parse | DriverKind::UnexpectedReturnType => {
            let wrong = format!("{place} answers otherwise than Redis does: {}", said());
            Failure { error: Error::new(ErrorKind::Broken, wrong), cure: Cure::Reconnect }
        }
        _ => unavailable(format!("{place}: {}", said()), Retry::Unknown, Cure::Reconnect),
    }
}

/// What a failure to connect means: nothing was sent.
pub(crate) fn connecting(place: &str, error: &RedisError) -> Failure {
    match error.kind() {
        DriverKind::AuthenticationFailed => refused(
            ErrorKind::Unauthenticated,
            format!(
                "{place} does not know these credentials ({}); give them as \
                 redis://USER:PASSWORD@HOST, or :PASSWORD for the default user",
                said(error)
            ),
        ),
        DriverKind::RESP3NotSupported => refused(
            ErrorKind::Unsupported,
            format!("{place} does not speak RESP3; Redis 6 or later is needed"),
        ),
        DriverKind::InvalidClientConfig => {
            refused(ErrorKind::Invalid, format!("{place}: {}", said(error)))
        }
        DriverKind::Server(_) | DriverKind::Extension => {
            let failure = sent(place, error);
            Failure { cure: Cure::Reconnect, ..failure }
        }
        _ => {
            let why = if error.is_timeout() { "no answer in time".into() } else { said(error) };
            let wrong = format!("{place} is not reached: {why}; is the server running?");
            unavailable(wrong, Retry::Later, Cure::Reconnect)
        }
    }
}

fn said(error: &RedisError) -> String {
    match error.detail() {
        Some(detail) => format!("{} {detail}", error.code().unwrap_or(error.category())),
        None => error.to_string(),
    }
}

/// See <https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors>: the first
/// word is a kind. What a server refuses before it runs a script leaves no trace.
fn served(place: &str, kind: ServerErrorKind, said: String) -> Failure {
    let wrong = format!("{place}: {said}");
    match kind {
        ServerErrorKind::NoScript => Failure {
            error: Error::new(ErrorKind::Broken, format!("{wrong}; a script is not kept")),
            cure: Cure::Load,
        },
        ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::ReadOnly => {
            unavailable(wrong, Retry::Later, Cure::Relocate)
        }
        ServerErrorKind::BusyLoading
        | ServerErrorKind::TryAgain
        | ServerErrorKind::ClusterDown
        | ServerErrorKind::MasterDown => unavailable(wrong, Retry::Later, Cure::None),
        ServerErrorKind::NoPerm => refused(
            ErrorKind::Forbidden,
            format!("{wrong}; the user needs the rights listed in the engine's docs.md"),
        ),
        ServerErrorKind::CrossSlot => refused(
            ErrorKind::Invalid,
            format!("{wrong}; the prefix needs a hash tag, such as {{leasehold}}"),
        ),
        _ => refused(ErrorKind::Broken, wrong),
    }
}

fn extension(place: &str, code: &str, said: String) -> Failure {
    let wrong = format!("{place}: {said}");
    match code {
        "NOAUTH" | "WRONGPASS" => refused(
            ErrorKind::Unauthenticated,
            format!("{wrong}; give credentials as redis://USER:PASSWORD@HOST"),
        ),
        "OOM" => refused(
            ErrorKind::Full,
            format!("{wrong}; give the server more memory (maxmemory) or take messages out"),
        ),
        "MISCONF" => refused(
            ErrorKind::DiskFull,
            format!("{wrong}; the server cannot write to its disk, see its log"),
        ),
        "NOREPLICAS" => refused(
            ErrorKind::Unavailable,
            format!("{wrong}; too few replicas are connected (min-replicas-to-write)"),
        ),
        "BUSY" => unavailable(
            format!("{wrong}; somebody's script runs for too long"),
            Retry::Later,
            Cure::None,
        ),
        _ => refused(ErrorKind::Broken, wrong),
    }
}
