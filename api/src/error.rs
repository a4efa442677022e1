//! One error for everything that can be asked of an engine.
//!
//! It says what was asked, what is wrong with it and what to do, and whether asking again can help.
//! `Unknown` is first-class: a timed-out acquire may have succeeded.

use std::fmt;

/// Whether asking again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// It will be refused again.
    Never,
    /// Nothing happened, and it may be accepted later.
    Later,
    /// It may have happened. Ask again with the same request id, or look.
    Unknown,
}

/// What kind of refusal an [`Error`] is. The set is closed; engines map to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A name, time, size or setting is not acceptable.
    Invalid,
    /// The lock is held, and the request did not want to wait.
    Busy,
    /// It waited as long as it wanted to.
    TimedOut,
    /// The request was withdrawn while it waited.
    Cancelled,
    /// Waiting would never end.
    Deadlock,
    /// The hold or delivery is not the caller's any more.
    Stale,
    /// The hold or delivery belongs to somebody else.
    Foreign,
    /// The session has ended.
    NoSession,
    /// There is no such thing.
    NotFound,
    /// It exists, but otherwise than asked for.
    Different,
    /// The register has another version.
    Conflict,
    /// It is in use, or not empty.
    InUse,
    /// No queue takes the message.
    Unroutable,
    /// A queue or limit is full.
    Full,
    /// The disk is full.
    DiskFull,
    /// The request id was used up.
    Spent,
    /// Who asks is not known.
    Unauthenticated,
    /// Who asks may not do this.
    Forbidden,
    /// The engine cannot do this.
    Unsupported,
    /// The engine cannot be reached.
    Unavailable,
    /// The engine failed.
    Broken,
}

impl ErrorKind {
    /// All kinds with the names they have on the wire.
    pub const ALL: [(Self, &'static str); 21] = [
        (Self::Invalid, "invalid"),
        (Self::Busy, "busy"),
        (Self::TimedOut, "timed-out"),
        (Self::Cancelled, "cancelled"),
        (Self::Deadlock, "deadlock"),
        (Self::Stale, "stale"),
        (Self::Foreign, "foreign"),
        (Self::NoSession, "no-session"),
        (Self::NotFound, "not-found"),
        (Self::Different, "different"),
        (Self::Conflict, "conflict"),
        (Self::InUse, "in-use"),
        (Self::Unroutable, "unroutable"),
        (Self::Full, "full"),
        (Self::DiskFull, "disk-full"),
        (Self::Spent, "spent"),
        (Self::Unauthenticated, "unauthenticated"),
        (Self::Forbidden, "forbidden"),
        (Self::Unsupported, "unsupported"),
        (Self::Unavailable, "unavailable"),
        (Self::Broken, "broken"),
    ];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(kind, _)| *kind == self);
        found.map_or("broken", |(_, name)| name)
    }

    /// The kind with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }

    /// Whether asking again can help, unless the engine knows better.
    pub fn retry(self) -> Retry {
        match self {
            Self::Busy
            | Self::TimedOut
            | Self::Cancelled
            | Self::Deadlock
            | Self::InUse
            | Self::Full
            | Self::DiskFull => Retry::Later,
            Self::Unavailable | Self::Broken => Retry::Unknown,
            _ => Retry::Never,
        }
    }
}

/// A request that was refused, or whose outcome is not known.
///
/// ```
/// use leasehold_api::{Error, ErrorKind, Retry};
/// let error = Error::new(ErrorKind::Busy, "lock nightly is held").asking("acquire nightly");
/// assert_eq!(error.retry, Retry::Later);
/// assert_eq!(error.to_string(), "acquire nightly: lock nightly is held");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What kind of refusal it is.
    pub kind: ErrorKind,
    /// Whether asking again can help.
    pub retry: Retry,
    /// What was asked; may be empty.
    pub asked: String,
    /// What is wrong with it and what to do.
    pub wrong: String,
}

/// The result of a request.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of a kind, with what is wrong and what to do.
    pub fn new(kind: ErrorKind, wrong: impl Into<String>) -> Self {
        Self { kind, retry: kind.retry(), asked: String::new(), wrong: wrong.into() }
    }

    /// Says what was asked, unless that was said before.
    #[must_use]
    pub fn asking(mut self, asked: impl Into<String>) -> Self {
        if self.asked.is_empty() {
            self.asked = asked.into();
        }
        self
    }

    /// Says whether asking again can help.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// What an engine says that cannot do something.
    pub fn unsupported(engine: &str, what: &str) -> Self {
        Self::new(ErrorKind::Unsupported, format!("{engine} has no {what}; see GUARANTEES.md"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.asked.is_empty() {
            write!(f, "{}: ", self.asked)?;
        }
        f.write_str(&self.wrong)
    }
}

impl std::error::Error for Error {}
