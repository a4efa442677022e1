//! Locks, semaphores and elections.
//!
//! All that acquires carries the same fields about the hold (TTL, session, wait …). serde cannot
//! flatten them into several structs and deny unknown fields at once, so a macro writes them out.

mod view;

use std::sync::Arc;

use leasehold_api::engine as api;
use leasehold_api::{Error, ErrorKind, RequestId, Result};
use serde::{Deserialize, Serialize};

use crate::handle;
use crate::time::{duration, duration_of, ms, ms_of};

pub use view::*;

/// A hold that no session ends ends after this time, unless the request says otherwise.
pub const TTL_MS_DEFAULT: u64 = 30_000;

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ModeName {
    /// Nobody else.
    #[default]
    Exclusive,
    /// Any number of sharers, no exclusive holder.
    Shared,
}

/// Some permits of a semaphore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Permits {
    /// How many, at least one.
    pub take: u32,
    /// How many there are; all who use it at one time must say the same.
    pub of: u32,
}

fn mode(mode: Option<ModeName>, permits: Option<Permits>) -> Result<api::Mode> {
    match (mode, permits) {
        (None | Some(ModeName::Exclusive), None) => Ok(api::Mode::Exclusive),
        (Some(ModeName::Shared), None) => Ok(api::Mode::Shared),
        (None, Some(Permits { take, of })) => Ok(api::Mode::Permits { take, of }),
        (Some(_), Some(_)) => Err(Error::new(ErrorKind::Invalid, "give mode or permits, not both")),
    }
}

fn mode_fields(mode: api::Mode) -> (Option<ModeName>, Option<Permits>) {
    match mode {
        api::Mode::Exclusive => (Some(ModeName::Exclusive), None),
        api::Mode::Shared => (Some(ModeName::Shared), None),
        api::Mode::Permits { take, of } => (None, Some(Permits { take, of })),
    }
}

/// Writes a request that acquires: its own fields, then those about the hold.
macro_rules! acquiring {
    ($(#[$about:meta])* $name:ident { $($(#[$field_about:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_about])* pub $field: $type,)*
            /// Who asks; without it the hold ends by its TTL or by release only.
            pub session: Option<String>,
            /// Who within the session: the unit of re-entry and of deadlock detection, below
            /// 2^53. Without it the door picks a number and says it in the answer.
            pub hold: Option<u64>,
            /// Enter a hold of the same session and number again.
            pub reentrant: bool,
            /// Time from the grant, and from each renewal, to the deadline. 30000 when the hold
            /// is not bound to a session.
            pub ttl_ms: Option<u64>,
            /// Whether the hold ends with its session; true when a session is given.
            pub bound: Option<bool>,
            /// How long to wait, 0 (not at all) when it is not said, at most 600000. Hanging up
            /// withdraws the request.
            pub wait_ms: u64,
            /// How long nobody may take the lock after this hold was lost (not released).
            pub lock_delay_ms: u64,
            /// What the holder says about itself; at most 1024 bytes.
            pub label: Option<String>,
            /// Names the request across retries: the same one is carried out once and answered
            /// alike. Any text up to 128 bytes, a UUID for example.
            pub request_id: Option<String>,
        }

        impl $name {
            /// What the engine is asked for these locks. The door numbers holds and requests.
            ///
            /// # Errors
            /// `Invalid` when the session has not the form of one.
            fn holding(
                &self,
                wants: Vec<api::Want>,
                hold: u64,
                request: Option<RequestId>,
            ) -> Result<api::Acquire> {
                let session = self.session.as_deref().map(handle::session_of).transpose()?;
                let bound = self.bound.unwrap_or(session.is_some());
                let default = (!bound).then_some(TTL_MS_DEFAULT);
                Ok(api::Acquire {
                    wants,
                    session,
                    hold,
                    reentrant: self.reentrant,
                    ttl: duration_of(self.ttl_ms.or(default)),
                    bound,
                    wait: match self.wait_ms {
                        0 => api::Wait::No,
                        wait => api::Wait::AtMost(duration(wait)),
                    },
                    lock_delay: duration(self.lock_delay_ms),
                    label: self.label.as_deref().map(Arc::from),
                    request,
                })
            }
        }
    };
}

acquiring! {
    /// Asks for the lock named in the path.
    AcquireLock {
        /// exclusive (when it is not said) or shared.
        mode: Option<ModeName>,
        /// Instead of a mode: some permits of a semaphore.
        permits: Option<Permits>,
    }
}

acquiring! {
    /// Asks for several locks, all or none.
    AcquireLocks {
        /// Which, each name once.
        locks: Vec<Want>,
    }
}

acquiring! {
    /// Asks for permits of the semaphore named in the path.
    AcquirePermits {
        /// How many, 1 when it is not said.
        permits: Option<u32>,
        /// How many there are; all who use it at one time must say the same.
        of: u32,
    }
}

acquiring! {
    /// Stands for the election named in the path.
    Campaign {
        /// What the candidate says of itself; observers see it.
        value: String,
    }
}

/// One lock that is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Want {
    /// Its name.
    pub name: String,
    /// exclusive (when it is not said) or shared.
    #[serde(default)]
    pub mode: Option<ModeName>,
    /// Instead of a mode: some permits of a semaphore.
    #[serde(default)]
    pub permits: Option<Permits>,
}

fn only(name: &str, mode: api::Mode) -> Vec<api::Want> {
    vec![api::Want { name: name.into(), mode }]
}

impl AcquireLock {
    /// What the engine is asked.
    ///
    /// # Errors
    /// `Invalid` when fields contradict each other or the session has not the form of one.
    pub fn into_api(
        self,
        name: &str,
        hold: u64,
        request: Option<RequestId>,
    ) -> Result<api::Acquire> {
        let wants = only(name, mode(self.mode, self.permits)?);
        self.holding(wants, hold, request)
    }
}

impl AcquireLocks {
    /// What the engine is asked.
    ///
    /// # Errors
    /// `Invalid` when fields contradict each other or the session has not the form of one.
    pub fn into_api(self, hold: u64, request: Option<RequestId>) -> Result<api::Acquire> {
        let want = |want: &Want| {
            let mode = mode(want.mode, want.permits)?;
            Ok(api::Want { name: want.name.as_str().into(), mode })
        };
        let wants = self.locks.iter().map(want).collect::<Result<_>>()?;
        self.holding(wants, hold, request)
    }

    /// What a client sends; it says every field, so the door's defaults do not matter.
    pub fn of(ask: &api::Acquire, request_id: Option<String>) -> Self {
        let want = |want: &api::Want| {
            let (mode, permits) = mode_fields(want.mode);
            Want { name: want.name.to_string(), mode, permits }
        };
        Self {
            locks: ask.wants.iter().map(want).collect(),
            session: ask.session.as_ref().map(handle::session_text),
            hold: Some(ask.hold),
            reentrant: ask.reentrant,
            ttl_ms: ms_of(ask.ttl),
            bound: Some(ask.bound),
            wait_ms: match ask.wait {
                api::Wait::No => 0,
                api::Wait::AtMost(wait) => ms(wait),
                api::Wait::Forever => WAIT_MS_MAX,
            },
            lock_delay_ms: ms(ask.lock_delay),
            label: ask.label.as_deref().map(str::to_owned),
            request_id,
        }
    }
}

/// The longest wait that a door accepts.
pub const WAIT_MS_MAX: u64 = 600_000;

impl AcquirePermits {
    /// What the engine is asked.
    ///
    /// # Errors
    /// `Invalid` when the session has not the form of one.
    pub fn into_api(
        self,
        name: &str,
        hold: u64,
        request: Option<RequestId>,
    ) -> Result<api::Acquire> {
        let mode = api::Mode::Permits { take: self.permits.unwrap_or(1), of: self.of };
        self.holding(only(name, mode), hold, request)
    }
}

impl Campaign {
    /// What the engine is asked. The value is the holder's label.
    ///
    /// # Errors
    /// `Invalid` when both a value and a label are given.
    pub fn into_api(
        mut self,
        lock: &str,
        hold: u64,
        request: Option<RequestId>,
    ) -> Result<api::Acquire> {
        if self.label.is_some() {
            let wrong = "give value, not label: the value is what observers see";
            return Err(Error::new(ErrorKind::Invalid, wrong));
        }
        self.label = (!self.value.is_empty()).then(|| std::mem::take(&mut self.value));
        self.holding(only(lock, api::Mode::Exclusive), hold, request)
    }
}

/// A lock was granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Granted {
    /// The lock, or the first of several.
    pub name: String,
    /// The fencing token: higher than every token given out before.
    pub token: u64,
    /// Names the hold, with the token, when it is renewed or released.
    pub hold: u64,
    /// Time left until the deadline; null: no deadline.
    pub left_ms: Option<u64>,
    /// How often the hold is entered.
    pub entries: u32,
}

impl Granted {
    /// What the engine answered.
    pub fn of(name: &str, hold: u64, grant: &api::Grant) -> Self {
        Self {
            name: name.to_string(),
            token: grant.token,
            hold,
            left_ms: ms_of(grant.left),
            entries: grant.entries,
        }
    }

    /// What a client was granted. The door does not tell when it ends; the guard's renewals do.
    pub fn into_api(self) -> api::Grant {
        let left = duration_of(self.left_ms);
        api::Grant { token: self.token, left, entries: self.entries, ended: None }
    }
}

/// Sets a hold's deadline anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Renew {
    /// The token from the grant.
    pub token: u64,
    /// The hold from the grant.
    pub hold: u64,
    /// The deadline is now plus this.
    pub ttl_ms: u64,
    /// The session it was acquired in.
    #[serde(default)]
    pub session: Option<String>,
}

/// Ends a hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The token from the grant.
    pub token: u64,
    /// The hold from the grant.
    pub hold: u64,
    /// The session it was acquired in.
    #[serde(default)]
    pub session: Option<String>,
}

fn hold_ref(name: &str, token: u64, hold: u64, session: Option<&str>) -> Result<api::HoldRef> {
    let session = session.map(handle::session_of).transpose()?;
    Ok(api::HoldRef { name: name.into(), token, hold, session })
}

impl Renew {
    /// The hold it names.
    ///
    /// # Errors
    /// `Invalid` when the session has not the form of one.
    pub fn hold(&self, name: &str) -> Result<api::HoldRef> {
        hold_ref(name, self.token, self.hold, self.session.as_deref())
    }

    /// What a client sends.
    pub fn of(hold: &api::HoldRef, ttl: std::time::Duration) -> Self {
        let session = hold.session.as_ref().map(handle::session_text);
        Self { token: hold.token, hold: hold.hold, ttl_ms: ms(ttl), session }
    }
}

impl Release {
    /// The hold it names.
    ///
    /// # Errors
    /// `Invalid` when the session has not the form of one.
    pub fn hold(&self, name: &str) -> Result<api::HoldRef> {
        hold_ref(name, self.token, self.hold, self.session.as_deref())
    }

    /// What a client sends.
    pub fn of(hold: &api::HoldRef) -> Self {
        let session = hold.session.as_ref().map(handle::session_text);
        Self { token: hold.token, hold: hold.hold, session }
    }
}
