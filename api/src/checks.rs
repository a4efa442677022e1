//! What an engine says of the system behind it: whether its settings keep what it promises.

use async_trait::async_trait;

/// What can look at the system behind an engine.
#[async_trait]
pub trait Checks: Send + Sync + 'static {
    /// Looks at everything that is worth looking at, such as a version, or a setting that would
    /// tear a promise. What cannot be looked at is a [`Warning`](CheckVerdict::Warning).
    async fn checks(&self) -> Vec<Check>;
}

/// One thing that was looked at.
///
/// ```
/// use leasehold_api::Check;
/// let check = Check::warning("appendfsync", "everysec: a power loss costs a second");
/// assert_eq!(check.verdict.to_string(), "warning");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub what: String,
    /// How it is.
    pub verdict: CheckVerdict,
    /// What was found, and what to do about it.
    pub why: String,
}

/// How something is that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CheckVerdict {
    /// As it should be.
    Ok,
    /// It works, and costs something.
    Warning,
    /// A promise cannot be kept.
    Failed,
}

impl std::fmt::Display for CheckVerdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        })
    }
}

impl Check {
    /// Something is as it should be.
    pub fn ok(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), verdict: CheckVerdict::Ok, why: why.into() }
    }

    /// Something works, and costs something.
    pub fn warning(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), verdict: CheckVerdict::Warning, why: why.into() }
    }

    /// Something tears a promise.
    pub fn failed(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), verdict: CheckVerdict::Failed, why: why.into() }
    }
}
