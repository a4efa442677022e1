//! Registers: versioned values.

use leasehold_api::engine as api;
use leasehold_api::{Error, ErrorKind, RequestId, Result};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::bytes::{Text, from_base64_url, one_of, to_base64, to_base64_url};
use crate::time::{duration, duration_of, ms, ms_of};

/// What must hold of a register before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// That there is no value.
    Absent,
    /// That there is a value.
    Present,
    /// That the version is this one: compare-and-set.
    Version(u64),
}

/// A lock that must be held, and the token it must be held with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// The lock.
    pub lock: String,
    /// The token.
    pub token: u64,
}

/// Writes the register named in the path. Exactly one of value, base64 and json.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct WriteRegister {
    /// The new value as text.
    pub value: Option<String>,
    /// The new value in base64.
    pub base64: Option<String>,
    /// The new value as JSON; kept as it is written.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>))]
    pub json: Option<Box<RawValue>>,
    /// "absent", "present" or {"version": 7}.
    pub expect: Option<Expect>,
    /// The value vanishes after this time.
    pub ttl_ms: Option<u64>,
    /// The value vanishes when the value before it would have.
    pub keep_ttl: bool,
    /// Refused unless this lock is held with this token.
    pub guard: Option<Guard>,
    /// Names the request across retries; any text up to 128 bytes.
    pub request_id: Option<String>,
}

/// Deletes the register named in the path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct DeleteRegister {
    /// "absent", "present" or {"version": 7}.
    pub expect: Option<Expect>,
    /// Refused unless this lock is held with this token.
    pub guard: Option<Guard>,
    /// Names the request across retries; any text up to 128 bytes.
    pub request_id: Option<String>,
}

/// The same expectations in the query, for clients that cannot send a body with DELETE.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(default, deny_unknown_fields)]
pub struct DeleteRegisterQuery {
    /// absent, present or a version.
    pub expect: Option<String>,
    /// Refused unless this lock is held with `token`.
    pub lock: Option<String>,
    /// See `lock`.
    pub token: Option<u64>,
    /// Names the request across retries; any text up to 128 bytes.
    pub request_id: Option<String>,
}

impl DeleteRegisterQuery {
    /// As a body would have said it.
    ///
    /// # Errors
    /// `Invalid` when the expectation is none, or only one of lock and token is there.
    pub fn into_body(self) -> Result<DeleteRegister> {
        let invalid = |wrong| Error::new(ErrorKind::Invalid, wrong);
        let expect =
            match self.expect.as_deref() {
                None => None,
                Some("absent") => Some(Expect::Absent),
                Some("present") => Some(Expect::Present),
                Some(version) => Some(Expect::Version(version.parse().map_err(|_| {
                    invalid("expect is absent, present or the number of a version")
                })?)),
            };
        let guard = match (self.lock, self.token) {
            (Some(lock), Some(token)) => Some(Guard { lock, token }),
            (None, None) => None,
            _ => return Err(invalid("a guard is both lock and token")),
        };
        Ok(DeleteRegister { expect, guard, request_id: self.request_id })
    }
}

fn expectation(expect: Option<Expect>) -> api::Expect {
    match expect {
        None => api::Expect::Anything,
        Some(Expect::Absent) => api::Expect::Absent,
        Some(Expect::Present) => api::Expect::Present,
        Some(Expect::Version(version)) => api::Expect::Version(version),
    }
}

fn expect_field(expect: api::Expect) -> Option<Expect> {
    match expect {
        api::Expect::Anything => None,
        api::Expect::Absent => Some(Expect::Absent),
        api::Expect::Present => Some(Expect::Present),
        api::Expect::Version(version) => Some(Expect::Version(version)),
    }
}

fn guarded(guard: Option<Guard>) -> Option<(std::sync::Arc<str>, u64)> {
    guard.map(|guard| (guard.lock.into(), guard.token))
}

fn guard_field(write: &api::Write) -> Option<Guard> {
    let guard = write.guard.as_ref();
    guard.map(|(lock, token)| Guard { lock: lock.to_string(), token: *token })
}

impl WriteRegister {
    /// What the engine is asked.
    ///
    /// # Errors
    /// `Invalid` when there is no value or more than one, or two TTLs.
    pub fn into_api(self, key: Vec<u8>, request: Option<RequestId>) -> Result<api::Write> {
        let value = one_of(self.value, self.base64, self.json, "value, base64 and json")?;
        let Some(value) = value else {
            let wrong = "give value, base64 or json; DELETE takes a register away";
            return Err(Error::new(ErrorKind::Invalid, wrong));
        };
        let ttl = match (self.ttl_ms, self.keep_ttl) {
            (None, false) => api::RegisterTtl::Never,
            (None, true) => api::RegisterTtl::Keep,
            (Some(ttl), false) => api::RegisterTtl::After(duration(ttl)),
            (Some(_), true) => {
                return Err(Error::new(ErrorKind::Invalid, "give ttl_ms or keep_ttl, not both"));
            }
        };
        let (expect, guard) = (expectation(self.expect), guarded(self.guard));
        Ok(api::Write { key, value: Some(value), expect, ttl, guard, request })
    }

    /// What a client sends; `None` when the write is a delete.
    pub fn of(write: &api::Write, request_id: Option<String>) -> Option<Self> {
        let (ttl_ms, keep_ttl) = match write.ttl {
            api::RegisterTtl::Never => (None, false),
            api::RegisterTtl::Keep => (None, true),
            api::RegisterTtl::After(ttl) => (Some(ms(ttl)), false),
        };
        Some(Self {
            value: None,
            base64: Some(to_base64(write.value.as_deref()?)),
            json: None,
            expect: expect_field(write.expect),
            ttl_ms,
            keep_ttl,
            guard: guard_field(write),
            request_id,
        })
    }
}

impl DeleteRegister {
    /// What the engine is asked.
    pub fn into_api(self, key: Vec<u8>, request: Option<RequestId>) -> api::Write {
        api::Write {
            key,
            value: None,
            expect: expectation(self.expect),
            ttl: api::RegisterTtl::Never,
            guard: guarded(self.guard),
            request,
        }
    }

    /// What a client sends.
    pub fn of(write: &api::Write, request_id: Option<String>) -> Self {
        Self { expect: expect_field(write.expect), guard: guard_field(write), request_id }
    }
}

/// A register was written or deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Written {
    /// Its new version.
    pub version: u64,
}

/// A register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Register {
    /// Its value, if that is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Its value in base64, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// Its version: higher than every version before, over all registers.
    pub version: u64,
    /// Time until it vanishes; null: it stays.
    pub left_ms: Option<u64>,
}

impl From<api::Register> for Register {
    fn from(register: api::Register) -> Self {
        let Text { text, base64 } = Text::of(register.value);
        let left_ms = ms_of(register.left);
        Self { value: text, base64, version: register.version, left_ms }
    }
}

impl Register {
    /// What a client reads.
    ///
    /// # Errors
    /// `Invalid` when the base64 is none.
    pub fn into_api(self) -> Result<api::Register> {
        let value = one_of(self.value, self.base64, None, "value and base64")?.unwrap_or_default();
        Ok(api::Register { value, version: self.version, left: duration_of(self.left_ms) })
    }
}

/// What a watch of a register found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Watched {
    /// The register as it is now; null: it has no value.
    pub register: Option<Register>,
}

/// A register in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RegisterView {
    /// Its key, if that is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its key in base64 for paths, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64url: Option<String>,
    /// Its version.
    pub version: u64,
    /// Length of its value.
    pub bytes: u32,
    /// Time until it vanishes; null: it stays.
    pub left_ms: Option<u64>,
}

impl From<api::RegisterView> for RegisterView {
    fn from(view: api::RegisterView) -> Self {
        let (key, key_base64url) = match String::from_utf8(view.key) {
            Ok(key) => (Some(key), None),
            Err(other) => (None, Some(to_base64_url(other.as_bytes()))),
        };
        let left_ms = ms_of(view.left);
        Self { key, key_base64url, version: view.version, bytes: view.bytes, left_ms }
    }
}

impl RegisterView {
    /// What a client reads.
    ///
    /// # Errors
    /// `Invalid` when the base64 is none.
    pub fn into_api(self) -> Result<api::RegisterView> {
        let key = match (self.key, self.key_base64url) {
            (Some(key), _) => key.into_bytes(),
            (None, Some(key)) => from_base64_url("key_base64url", &key)?,
            (None, None) => Vec::new(),
        };
        let left = duration_of(self.left_ms);
        Ok(api::RegisterView { key, version: self.version, bytes: self.bytes, left })
    }
}

/// Some registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Registers {
    /// These.
    pub items: Vec<RegisterView>,
    /// Where to go on; null: that was all.
    pub next: Option<u32>,
}
