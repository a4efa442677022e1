//! The commit: several things at once or not at all.

use leasehold_api::engine as api;
use leasehold_api::{Error, ErrorKind, RequestId, Result};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::bytes::{from_base64_url, one_of, to_base64, to_base64_url};
use crate::handle;
use crate::message::Message;
use crate::register::{DeleteRegister, Expect, Guard, WriteRegister};
use crate::time::{duration, ms};

/// What happens all at once or not at all, in this order. Every part may be left out. Deliveries
/// and holds may be of several sessions.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Commit {
    /// Each lock must be held with this token.
    pub checks: Vec<Guard>,
    /// Deliveries to settle.
    pub settles: Vec<CommitSettle>,
    /// Messages to publish.
    pub publishes: Vec<CommitPublish>,
    /// Registers to write.
    pub writes: Vec<CommitWrite>,
    /// Holds to release.
    pub releases: Vec<CommitRelease>,
    /// Names the request across retries; any text up to 128 bytes.
    pub request_id: Option<String>,
}

/// How a delivery is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Done; the message is gone.
    Ack,
    /// Not done; again, after `delay_ms`.
    Nack,
    /// Never again: to the dead letters, or dropped when the queue has none.
    Reject,
}

/// A delivery to settle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CommitSettle {
    /// Which.
    pub receipt: String,
    /// How.
    pub verdict: Verdict,
    /// Only with nack.
    #[serde(default)]
    pub delay_ms: Option<u64>,
}

/// A message to publish, to a queue or through an exchange.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CommitPublish {
    /// To this queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Through this exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
    /// What the exchange chooses by.
    pub routing_key: String,
    /// Refuse the whole commit when no queue takes it; true when it goes to a queue.
    pub mandatory: Option<bool>,
    /// What.
    pub message: Message,
}

/// A register to write or delete.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CommitWrite {
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its key in base64 (URL alphabet, no padding), if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_base64url: Option<String>,
    /// Delete it; then no value may be given.
    pub delete: bool,
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
}

/// A hold to release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CommitRelease {
    /// The lock.
    pub name: String,
    /// The token from the grant.
    pub token: u64,
    /// The hold from the grant.
    pub hold: u64,
    /// The session it was acquired in.
    #[serde(default)]
    pub session: Option<String>,
}

/// Everything happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Committed {
    /// The new versions of the registers, in the order of `writes`.
    pub versions: Vec<u64>,
}

/// What a verdict and its delay mean.
///
/// # Errors
/// `Invalid` when a delay is given to something else than a nack.
pub fn verdict_of(verdict: Verdict, delay_ms: Option<u64>) -> Result<api::Verdict> {
    match (verdict, delay_ms) {
        (Verdict::Ack, None) => Ok(api::Verdict::Ack),
        (Verdict::Reject, None) => Ok(api::Verdict::Reject),
        (Verdict::Nack, delay) => Ok(api::Verdict::Nack(duration(delay.unwrap_or(0)))),
        (_, Some(_)) => {
            let wrong = "delay_ms goes with nack only; an ack or reject ends the message";
            Err(Error::new(ErrorKind::Invalid, wrong))
        }
    }
}

impl CommitSettle {
    fn into_api(self) -> Result<(api::Receipt, api::Verdict)> {
        Ok((handle::receipt_of(&self.receipt)?, verdict_of(self.verdict, self.delay_ms)?))
    }

    fn of((receipt, verdict): &(api::Receipt, api::Verdict)) -> Self {
        let (verdict, delay_ms) = match verdict {
            api::Verdict::Ack => (Verdict::Ack, None),
            api::Verdict::Reject => (Verdict::Reject, None),
            api::Verdict::Nack(delay) => (Verdict::Nack, Some(ms(*delay))),
        };
        Self { receipt: handle::receipt_text(receipt), verdict, delay_ms }
    }
}

impl CommitPublish {
    fn into_api(self) -> Result<api::Publish> {
        let invalid = |wrong: &str| Err(Error::new(ErrorKind::Invalid, wrong));
        let target = match (self.queue, self.exchange) {
            (Some(queue), None) if self.routing_key.is_empty() => api::Target::Queue(queue.into()),
            (Some(_), None) => return invalid("a routing_key goes with an exchange"),
            (None, Some(exchange)) => {
                api::Target::Exchange(exchange.into(), self.routing_key.into())
            }
            _ => return invalid("a publish goes to a queue or an exchange: give one of the two"),
        };
        if self.message.request_id.is_some() {
            return invalid("request_id belongs to the commit, not to its messages");
        }
        let straight = matches!(target, api::Target::Queue(_));
        Ok(api::Publish {
            target,
            message: self.message.into_api()?,
            mandatory: self.mandatory.unwrap_or(straight),
            request: None,
        })
    }

    fn of(publish: &api::Publish) -> Self {
        let (queue, exchange, routing_key) = match &publish.target {
            api::Target::Queue(queue) => (Some(queue.to_string()), None, String::new()),
            api::Target::Exchange(exchange, key) => {
                (None, Some(exchange.to_string()), key.to_string())
            }
        };
        let mandatory = Some(publish.mandatory);
        let message = Message::of(&publish.message, None);
        Self { queue, exchange, routing_key, mandatory, message }
    }
}

impl CommitWrite {
    fn into_api(self) -> Result<api::Write> {
        let invalid = |wrong: &str| Err(Error::new(ErrorKind::Invalid, wrong));
        let key = match (self.key, self.key_base64url) {
            (Some(key), None) => key.into_bytes(),
            (None, Some(key)) => from_base64_url("key_base64url", &key)?,
            _ => return invalid("a write names its register: give key or key_base64url"),
        };
        if !self.delete {
            let write = WriteRegister {
                value: self.value,
                base64: self.base64,
                json: self.json,
                expect: self.expect,
                ttl_ms: self.ttl_ms,
                keep_ttl: self.keep_ttl,
                guard: self.guard,
                request_id: None,
            };
            return write.into_api(key, None);
        }
        if one_of(self.value, self.base64, self.json, "value, base64 and json")?.is_some() {
            return invalid("a delete has no value");
        }
        let delete = DeleteRegister { expect: self.expect, guard: self.guard, request_id: None };
        Ok(delete.into_api(key, None))
    }

    fn of(write: &api::Write) -> Self {
        let (key, key_base64url) = match std::str::from_utf8(&write.key) {
            Ok(key) => (Some(key.to_string()), None),
            Err(_) => (None, Some(to_base64_url(&write.key))),
        };
        let expectations = DeleteRegister::of(write, None);
        let (ttl_ms, keep_ttl) = match write.ttl {
            api::RegisterTtl::Never => (None, false),
            api::RegisterTtl::Keep => (None, true),
            api::RegisterTtl::After(ttl) => (Some(ms(ttl)), false),
        };
        Self {
            key,
            key_base64url,
            delete: write.value.is_none(),
            value: None,
            base64: write.value.as_deref().map(to_base64),
            json: None,
            expect: expectations.expect,
            ttl_ms,
            keep_ttl,
            guard: expectations.guard,
        }
    }
}

impl CommitRelease {
    fn into_api(self) -> Result<api::HoldRef> {
        let session = self.session.as_deref().map(handle::session_of).transpose()?;
        Ok(api::HoldRef { name: self.name.into(), token: self.token, hold: self.hold, session })
    }

    fn of(hold: &api::HoldRef) -> Self {
        let session = hold.session.as_ref().map(handle::session_text);
        Self { name: hold.name.to_string(), token: hold.token, hold: hold.hold, session }
    }
}

impl Commit {
    /// What the engine is asked.
    ///
    /// # Errors
    /// `Invalid` when a part contradicts itself.
    pub fn into_api(self, request: Option<RequestId>) -> Result<api::Commit> {
        let check = |guard: Guard| (guard.lock.into(), guard.token);
        Ok(api::Commit {
            checks: self.checks.into_iter().map(check).collect(),
            settles: all(self.settles, CommitSettle::into_api)?,
            publishes: all(self.publishes, CommitPublish::into_api)?,
            writes: all(self.writes, CommitWrite::into_api)?,
            releases: all(self.releases, CommitRelease::into_api)?,
            request,
        })
    }

    /// What a client sends.
    pub fn of(commit: &api::Commit, request_id: Option<String>) -> Self {
        let check = |(lock, token): &(std::sync::Arc<str>, u64)| Guard {
            lock: lock.to_string(),
            token: *token,
        };
        Self {
            checks: commit.checks.iter().map(check).collect(),
            settles: commit.settles.iter().map(CommitSettle::of).collect(),
            publishes: commit.publishes.iter().map(CommitPublish::of).collect(),
            writes: commit.writes.iter().map(CommitWrite::of).collect(),
            releases: commit.releases.iter().map(CommitRelease::of).collect(),
            request_id,
        }
    }
}

fn all<T, U>(parts: Vec<T>, into: impl Fn(T) -> Result<U>) -> Result<Vec<U>> {
    parts.into_iter().map(into).collect()
}
