//! What goes wrong below, said in the words of the API.

use std::error::Error as _;

use deadpool_postgres::{HookError, PoolError};
use leasehold_api::{Error, ErrorKind, Retry};
use tokio_postgres::error::DbError;

/// What our own functions raise; the detail names the kind.
const OURS: &str = "LH000";

/// A request that failed, and what that means for asking again.
#[derive(Debug)]
pub(crate) struct Failed {
    /// What to tell.
    pub error: Error,
    /// Whether the same request may be sent again at once: it was rolled back, or the way to the
    /// server is broken.
    pub again: bool,
    /// Whether the connection is good for nothing any more.
    pub is_lost: bool,
}

impl Failed {
    fn told(error: Error) -> Self {
        Self { error, again: false, is_lost: false }
    }

    /// Nobody answers. `sent`: whether it may have been carried out.
    pub fn lost(wrong: impl Into<String>, sent: bool) -> Self {
        let retry = if sent { Retry::Unknown } else { Retry::Later };
        let error = Error::new(ErrorKind::Unavailable, wrong).with_retry(retry);
        Self { error, again: true, is_lost: true }
    }
}

/// An answer that is not what was agreed on.
pub(crate) fn odd(error: &tokio_postgres::Error) -> Error {
    let wrong = format!("an answer that nobody expects ({}); is it our schema?", text(error));
    Error::new(ErrorKind::Broken, wrong).with_retry(Retry::Never)
}

/// All that a driver's error says.
pub(crate) fn text(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// A refusal of the pool.
pub(crate) fn pool(error: &PoolError) -> Failed {
    match error {
        PoolError::Backend(error) => {
            let mut failed = driver(error, false);
            // Whoever gets no connection has asked nothing yet.
            if failed.error.kind == ErrorKind::Unavailable {
                failed.error.retry = Retry::Later;
            }
            failed
        }
        PoolError::PostCreateHook(HookError::Backend(error)) => driver(error, false),
        PoolError::Timeout(_) => Failed::lost("no connection within the time", false),
        other => Failed::lost(format!("the pool of connections: {other}"), false),
    }
}

/// A refusal of the driver or the server. `sent`: whether a request was under way.
pub(crate) fn driver(error: &tokio_postgres::Error, sent: bool) -> Failed {
    match error.as_db_error() {
        Some(refusal) => refused(refusal),
        None if sent && !error.is_closed() && error.source().is_none() => Failed::told(odd(error)),
        None => Failed::lost(text(error), sent),
    }
}

/// A refusal of the server; see appendix A of its manual for the codes.
fn refused(refusal: &DbError) -> Failed {
    let code = refusal.code().code();
    let said = refusal.message();
    let tell = |kind, wrong: String| Failed::told(Error::new(kind, wrong));
    match code {
        OURS => {
            let kind = refusal.detail().and_then(ErrorKind::named).unwrap_or(ErrorKind::Broken);
            tell(kind, said.to_owned())
        }
        // Rolled back, and worth the same again: a deadlock, a conflict of transactions.
        "40P01" | "40001" => {
            let wrong = format!("the transaction was rolled back ({said})");
            let error = Error::new(ErrorKind::Unavailable, wrong).with_retry(Retry::Later);
            Failed { error, again: true, is_lost: false }
        }
        "42501" => tell(
            ErrorKind::Forbidden,
            format!("{said}; grant it to the user, see the engine's page on privileges"),
        ),
        "28000" | "28P01" => {
            let wrong =
                format!("{said}; check the user and the password in the URL, and pg_hba.conf");
            tell(ErrorKind::Unauthenticated, wrong)
        }
        "3D000" => tell(ErrorKind::NotFound, format!("{said}; create it, or name another")),
        "53100" => tell(ErrorKind::DiskFull, format!("the server's disk is full: {said}")),
        "53300" => Failed::lost(
            format!("{said}; raise max_connections, or lower ?pool= in the URL"),
            false,
        ),
        // A standby, or a primary that became one.
        "25006" => Failed::lost(format!("the server only reads ({said}); name the primary"), false),
        "26000" | "42P05" => tell(
            ErrorKind::Unsupported,
            format!(
                "{said}: a pooler in transaction mode stands between; connect to PostgreSQL \
                     itself, or set pool_mode = session"
            ),
        ),
        "42P01" | "42883" | "3F000" => tell(
            ErrorKind::Broken,
            format!("{said}; somebody removed a part of the schema: open the engine anew"),
        ),
        // The server ends, starts, or ended this connection.
        _ if code.starts_with("57P") || code.starts_with("08") => Failed::lost(said, true),
        "57014" | "53200" | "55P03" => {
            let error = Error::new(ErrorKind::Unavailable, said).with_retry(Retry::Later);
            Failed { error, again: true, is_lost: false }
        }
        _ => Failed::told(
            Error::new(ErrorKind::Broken, format!("{said} (SQLSTATE {code})"))
                .with_retry(Retry::Never),
        ),
    }
}

/// An argument that is not acceptable.
pub(crate) fn invalid(wrong: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, wrong)
}

/// Somebody waits for a task that the runtime has ended.
pub(crate) fn ending() -> Error {
    Error::new(ErrorKind::Broken, "the runtime is shutting down")
}
