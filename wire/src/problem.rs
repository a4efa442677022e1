//! Errors on the wire: problem details after RFC 9457.
//!
//! The kind decides the status. The status alone is never enough: nine kinds share 409, and what a
//! program needs to know, whether asking again can help, is in `retry`.

use leasehold_api::{Error, ErrorKind, Retry};
use serde::{Deserialize, Serialize};

/// What stands before the kind in a problem's type.
pub const PROBLEM_PREFIX: &str = "urn:leasehold:problem:";

/// A request that was refused, or whose outcome is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// `urn:leasehold:problem:` and the kind.
    pub r#type: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong with this request and what to do.
    pub detail: String,
    /// invalid, busy, timed-out, cancelled, deadlock, stale, foreign, no-session, not-found,
    /// different, conflict, in-use, unroutable, full, disk-full, spent, unauthenticated,
    /// forbidden, unsupported, unavailable or broken.
    pub kind: String,
    /// `never`: it will be refused again. `later`: nothing happened, it may be accepted later.
    /// `unknown`: it may have happened; ask again with the same request_id, or look.
    pub retry: String,
    /// What was asked; may be empty.
    pub asked: String,
}

/// The HTTP status of a kind.
///
/// What timed out is 409, not 408: browsers and proxies repeat a request that got a 408.
pub fn status_of(kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::Invalid => 400,
        ErrorKind::Unauthenticated => 401,
        ErrorKind::Forbidden => 403,
        ErrorKind::NotFound => 404,
        ErrorKind::Busy
        | ErrorKind::Conflict
        | ErrorKind::Different
        | ErrorKind::InUse
        | ErrorKind::Stale
        | ErrorKind::Foreign
        | ErrorKind::Deadlock
        | ErrorKind::Spent
        | ErrorKind::TimedOut
        | ErrorKind::Cancelled => 409,
        ErrorKind::NoSession => 410,
        ErrorKind::Unroutable => 422,
        ErrorKind::Full => 429,
        ErrorKind::DiskFull => 507,
        ErrorKind::Unsupported => 501,
        ErrorKind::Unavailable | ErrorKind::Broken => 503,
    }
}

fn title_of(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Invalid => "The request is not acceptable",
        ErrorKind::Busy => "The lock is held",
        ErrorKind::TimedOut => "The wait was over before the turn came",
        ErrorKind::Cancelled => "The request was withdrawn",
        ErrorKind::Deadlock => "Waiting would never end",
        ErrorKind::Stale => "It is not held any more",
        ErrorKind::Foreign => "It belongs to somebody else",
        ErrorKind::NoSession => "The session has ended",
        ErrorKind::NotFound => "There is no such thing",
        ErrorKind::Different => "It exists, but otherwise",
        ErrorKind::Conflict => "The register has another version",
        ErrorKind::InUse => "It is in use",
        ErrorKind::Unroutable => "No queue takes the message",
        ErrorKind::Full => "There is no room",
        ErrorKind::DiskFull => "The disk is full",
        ErrorKind::Spent => "The request id was used up",
        ErrorKind::Unauthenticated => "Who asks is not known",
        ErrorKind::Forbidden => "Who asks may not do this",
        ErrorKind::Unsupported => "The engine cannot do this",
        ErrorKind::Unavailable => "The engine cannot be reached",
        ErrorKind::Broken => "The engine failed",
    }
}

fn retry_name(retry: Retry) -> &'static str {
    match retry {
        Retry::Never => "never",
        Retry::Later => "later",
        Retry::Unknown => "unknown",
    }
}

impl Problem {
    /// The same problem with another status, where HTTP has a better one than the kind's.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self {
            r#type: format!("{PROBLEM_PREFIX}{}", error.kind.name()),
            title: title_of(error.kind).to_string(),
            status: status_of(error.kind),
            detail: error.wrong,
            kind: error.kind.name().to_string(),
            retry: retry_name(error.retry).to_string(),
            asked: error.asked,
        }
    }
}

impl From<Problem> for Error {
    /// For clients. A kind or retry that this version does not know counts as broken, unknown.
    fn from(problem: Problem) -> Self {
        let kind = ErrorKind::named(&problem.kind).unwrap_or(ErrorKind::Broken);
        let retry = match problem.retry.as_str() {
            "never" => Retry::Never,
            "later" => Retry::Later,
            _ => Retry::Unknown,
        };
        Self { kind, retry, asked: problem.asked, wrong: problem.detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_back_as_itself() {
        for (kind, name) in ErrorKind::ALL {
            let error = Error::new(kind, "so").asking("this");
            let problem = Problem::from(error.clone());
            assert_eq!(problem.r#type, format!("urn:leasehold:problem:{name}"));
            assert!((400..=507).contains(&problem.status));
            assert_eq!(Error::from(problem), error);
        }
    }
}
