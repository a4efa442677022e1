//! Messages, deliveries and how they are settled.

mod header;

use leasehold_api::engine as api;
use leasehold_api::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use header::Headers;

use crate::bytes::{Text, one_of, to_base64};
use crate::time::{at_ms, duration, duration_of, ms, ms_of, since_1970_ms};
use crate::{Problem, handle};

/// A message to publish. At most one of body, base64 and json; none is an empty body.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Message {
    /// The payload as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The payload in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// The payload as JSON; kept as it is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>))]
    pub json: Option<Box<RawValue>>,
    /// 0 is the lowest; more than the queue knows counts as its highest.
    pub priority: u8,
    /// Application headers; the headers exchange routes by them.
    pub headers: Headers,
    /// The idempotence key: a queue with a window takes each id once.
    pub id: Option<String>,
    /// The ordering key: messages of one key are delivered one at a time, in order.
    pub key: Option<String>,
    /// Dropped or dead-lettered if it waits longer.
    pub ttl_ms: Option<u64>,
    /// Delivered after this time at the earliest.
    pub delay_ms: Option<u64>,
    /// Delivered at this time (milliseconds since 1970) at the earliest.
    pub at_ms: Option<u64>,
    /// It may be lost with the machine; its confirm does not wait for the disk.
    pub transient: bool,
    /// Names the request across retries; any text up to 128 bytes.
    pub request_id: Option<String>,
}

impl Message {
    /// What the engine is given.
    ///
    /// # Errors
    /// `Invalid` when there is more than one body or time.
    pub fn into_api(self) -> Result<api::Message> {
        let body = one_of(self.body, self.base64, self.json, "body, base64 and json")?;
        let due = match (self.delay_ms, self.at_ms) {
            (None, None) => api::Due::Now,
            (Some(delay), None) => api::Due::After(duration(delay)),
            (None, Some(at)) => api::Due::At(at_ms(at)),
            (Some(_), Some(_)) => {
                let wrong = "give delay_ms or at_ms, not both";
                return Err(Error::new(ErrorKind::Invalid, wrong));
            }
        };
        Ok(api::Message {
            body: body.unwrap_or_default(),
            priority: self.priority,
            transient: self.transient,
            headers: self.headers.0,
            id: self.id,
            key: self.key,
            ttl: duration_of(self.ttl_ms),
            due,
        })
    }

    /// What a client sends.
    pub fn of(message: &api::Message, request_id: Option<String>) -> Self {
        let (body, base64) = match std::str::from_utf8(&message.body) {
            Ok(text) => (Some(text.to_string()), None),
            Err(_) => (None, Some(to_base64(&message.body))),
        };
        let (delay_ms, at_ms) = match message.due {
            api::Due::Now => (None, None),
            api::Due::After(delay) => (Some(ms(delay)), None),
            api::Due::At(at) => (None, Some(since_1970_ms(at))),
        };
        Self {
            body,
            base64,
            json: None,
            priority: message.priority,
            headers: Headers(message.headers.clone()),
            id: message.id.clone(),
            key: message.key.clone(),
            ttl_ms: ms_of(message.ttl),
            delay_ms,
            at_ms,
            transient: message.transient,
            request_id,
        }
    }
}

/// Writes what is published: a message, or several, and where to.
macro_rules! publishing {
    ($(#[$about:meta])* $name:ident { $($(#[$field_about:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_about])* pub $field: $type,)*
            /// Several messages; then no field of a single message may be given. Each is
            /// confirmed or refused by itself.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub messages: Option<Vec<Message>>,
            /// The payload as text.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub body: Option<String>,
            /// The payload in base64.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub base64: Option<String>,
            /// The payload as JSON; kept as it is written.
            #[serde(skip_serializing_if = "Option::is_none")]
            #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>))]
            pub json: Option<Box<RawValue>>,
            /// 0 is the lowest; more than the queue knows counts as its highest.
            pub priority: u8,
            /// Application headers; the headers exchange routes by them.
            pub headers: Headers,
            /// The idempotence key: a queue with a window takes each id once.
            pub id: Option<String>,
            /// The ordering key: messages of one key are delivered one at a time, in order.
            pub key: Option<String>,
            /// Dropped or dead-lettered if it waits longer.
            pub ttl_ms: Option<u64>,
            /// Delivered after this time at the earliest.
            pub delay_ms: Option<u64>,
            /// Delivered at this time (milliseconds since 1970) at the earliest.
            pub at_ms: Option<u64>,
            /// It may be lost with the machine; its confirm does not wait for the disk.
            pub transient: bool,
            /// Names the request across retries; any text up to 128 bytes. With several messages
            /// it names all of them in their order.
            pub request_id: Option<String>,
        }

        impl $name {
            /// The messages, and whether they were given as several.
            ///
            /// # Errors
            /// `Invalid` when both one and several are given.
            pub fn messages(self) -> Result<(Vec<Message>, bool)> {
                let one = Message {
                    body: self.body,
                    base64: self.base64,
                    json: self.json,
                    priority: self.priority,
                    headers: self.headers,
                    id: self.id,
                    key: self.key,
                    ttl_ms: self.ttl_ms,
                    delay_ms: self.delay_ms,
                    at_ms: self.at_ms,
                    transient: self.transient,
                    request_id: self.request_id,
                };
                several(one, self.messages)
            }
        }
    };
}

publishing! {
    /// What is published to a queue.
    PublishToQueue {}
}

publishing! {
    /// What is published through an exchange.
    PublishToExchange {
        /// What the exchange chooses by; may be empty.
        routing_key: String,
        /// Refuse when no queue takes it.
        mandatory: bool,
    }
}

publishing! {
    /// What is published to a topic.
    PublishToTopic {
        /// What subscriptions filter by: words with dots between them.
        subject: String,
    }
}

fn several(one: Message, messages: Option<Vec<Message>>) -> Result<(Vec<Message>, bool)> {
    let Some(mut messages) = messages else { return Ok((vec![one], false)) };
    let plain = one.body.is_none() && one.base64.is_none() && one.json.is_none();
    let plain = plain && one.priority == 0 && one.headers.0.is_empty() && !one.transient;
    let plain = plain && one.id.is_none() && one.key.is_none() && one.ttl_ms.is_none();
    if !plain || one.delay_ms.is_some() || one.at_ms.is_some() {
        let wrong = "give messages or the fields of one message, not both";
        return Err(Error::new(ErrorKind::Invalid, wrong));
    }
    if let Some(request) = one.request_id {
        for (at, message) in messages.iter_mut().enumerate() {
            message.request_id.get_or_insert_with(|| format!("{request}/{at}"));
        }
    }
    Ok((messages, true))
}

/// A message was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Published {
    /// Queues that took it.
    pub queues: u32,
    /// Queues that had taken the same message id before.
    pub duplicates: u32,
}

impl From<api::Published> for Published {
    fn from(published: api::Published) -> Self {
        Self { queues: published.queues, duplicates: published.duplicates }
    }
}

/// What became of one of several messages: the numbers, or the problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PublishResult {
    /// Queues that took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u32>,
    /// Queues that had taken the same message id before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicates: Option<u32>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

impl From<Result<api::Published>> for PublishResult {
    fn from(result: Result<api::Published>) -> Self {
        match result {
            Ok(done) => {
                Self { queues: Some(done.queues), duplicates: Some(done.duplicates), problem: None }
            }
            Err(error) => Self { queues: None, duplicates: None, problem: Some(error.into()) },
        }
    }
}

impl PublishResult {
    /// What a client reads.
    ///
    /// # Errors
    /// The problem, if it was refused.
    pub fn into_api(self) -> Result<api::Published> {
        match self.problem {
            Some(problem) => Err(problem.into()),
            None => Ok(api::Published {
                queues: self.queues.unwrap_or_default(),
                duplicates: self.duplicates.unwrap_or_default(),
            }),
        }
    }
}

/// What became of several messages, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PublishResults {
    /// One for each.
    pub results: Vec<PublishResult>,
}

/// A message in a queue, as published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Content {
    /// The payload, if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The payload in base64, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// Its priority as published.
    pub priority: u8,
    /// Application headers.
    pub headers: Headers,
    /// The idempotence key.
    pub id: Option<String>,
    /// The ordering key.
    pub key: Option<String>,
    /// The exchange it was published to; empty: straight to the queue.
    pub exchange: String,
    /// Its routing key; the queue's name when it went straight there.
    pub routing_key: String,
    /// When it was accepted.
    pub published_at_ms: u64,
    /// Its deaths, the latest last.
    pub deaths: Vec<Death>,
}

/// One death of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Death {
    /// The queue in which it died.
    pub queue: String,
    /// rejected, expired, overflow or deliveries.
    pub reason: String,
    /// How often, there and for that reason.
    pub count: u32,
    /// When first.
    pub first_at_ms: u64,
}

impl From<api::Content> for Content {
    fn from(content: api::Content) -> Self {
        let Text { text, base64 } = Text::of(content.body);
        let death = |death: api::Death| Death {
            queue: death.queue,
            reason: death.reason,
            count: death.count,
            first_at_ms: since_1970_ms(death.first_at),
        };
        Self {
            body: text,
            base64,
            priority: content.priority,
            headers: Headers(content.headers),
            id: content.id,
            key: content.key,
            exchange: content.exchange,
            routing_key: content.routing_key,
            published_at_ms: since_1970_ms(content.published_at),
            deaths: content.deaths.into_iter().map(death).collect(),
        }
    }
}

impl Content {
    /// What a client reads.
    ///
    /// # Errors
    /// `Invalid` when the base64 is none.
    pub fn into_api(self) -> Result<api::Content> {
        let death = |death: Death| api::Death {
            queue: death.queue,
            reason: death.reason,
            count: death.count,
            first_at: at_ms(death.first_at_ms),
        };
        Ok(api::Content {
            body: one_of(self.body, self.base64, None, "body and base64")?.unwrap_or_default(),
            priority: self.priority,
            headers: self.headers.0,
            id: self.id,
            key: self.key,
            exchange: self.exchange,
            routing_key: self.routing_key,
            published_at: at_ms(self.published_at_ms),
            deaths: self.deaths.into_iter().map(death).collect(),
        })
    }
}

/// A message as delivered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Delivery {
    /// Names the delivery when it is settled or extended.
    pub receipt: String,
    /// Its fencing token: a late hand has an old one.
    pub token: u64,
    /// 1 for the first delivery.
    pub attempt: u32,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// What.
    #[serde(flatten)]
    pub content: Content,
}

impl From<api::Delivered> for Delivery {
    fn from(delivered: api::Delivered) -> Self {
        Self {
            receipt: handle::receipt_text(&delivered.receipt),
            token: delivered.receipt.token,
            attempt: delivered.attempt,
            redelivered: delivered.redelivered,
            content: delivered.content.into(),
        }
    }
}

impl Delivery {
    /// What a client reads.
    ///
    /// # Errors
    /// `Invalid` when the receipt or the base64 is none.
    pub fn into_api(self) -> Result<api::Delivered> {
        Ok(api::Delivered {
            receipt: handle::receipt_of(&self.receipt)?,
            attempt: self.attempt,
            redelivered: self.redelivered,
            content: self.content.into_api()?,
        })
    }
}

/// Some deliveries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Deliveries {
    /// These; none when nothing came in time.
    pub deliveries: Vec<Delivery>,
}

/// A message as peek shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Peeked {
    /// Failed deliveries so far.
    pub attempts: u32,
    /// What.
    #[serde(flatten)]
    pub content: Content,
}

impl From<api::Peeked> for Peeked {
    fn from(peeked: api::Peeked) -> Self {
        Self { attempts: peeked.attempts, content: peeked.content.into() }
    }
}

/// Some messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Messages {
    /// These.
    pub messages: Vec<Peeked>,
}

/// Settles deliveries, all or none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Settle {
    /// Which.
    pub receipts: Vec<String>,
    /// Only with nack: when it may be delivered again, 0 (at once, in its old place) when it is
    /// not said.
    #[serde(default)]
    pub delay_ms: Option<u64>,
}

/// Deliveries were settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Settled {
    /// How many.
    pub settled: u32,
}

/// Sets the deadline of a delivery's lease to now plus `lease_ms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Extend {
    /// Which.
    pub receipt: String,
    /// How long.
    pub lease_ms: u64,
}
