//! Sessions.

use leasehold_api::Result;
use leasehold_api::engine as api;
use serde::{Deserialize, Serialize};

use crate::handle;
use crate::time::{duration_of, ms_of};

/// Asks for a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct OpenSession {
    /// It ends when it is silent for so long. Without it the session stays until it is closed.
    pub ttl_ms: Option<u64>,
    /// Shown to whoever looks at what the session holds; at most 1024 bytes.
    pub label: Option<String>,
    /// A session to take up again.
    pub resume: Option<String>,
}

impl OpenSession {
    /// What the engine is asked.
    ///
    /// # Errors
    /// `Invalid` when `resume` is no session.
    pub fn into_api(self) -> Result<api::OpenSession> {
        Ok(api::OpenSession {
            ttl: duration_of(self.ttl_ms),
            resume: self.resume.as_deref().map(handle::session_of).transpose()?,
            label: self.label.map(Into::into),
        })
    }

    /// What a client sends.
    pub fn of(ask: &api::OpenSession) -> Self {
        Self {
            ttl_ms: ms_of(ask.ttl),
            label: ask.label.as_deref().map(str::to_owned),
            resume: ask.resume.as_ref().map(handle::session_text),
        }
    }
}

/// An open session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Session {
    /// Names the session in other requests; keep it to yourself.
    pub session: String,
    /// Whether it was taken up again.
    pub resumed: bool,
}
