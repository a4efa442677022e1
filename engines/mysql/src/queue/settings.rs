//! What queues and messages are, as they are written in the tables, and the bounds of what may be
//! asked for; the same bounds as those of the embedded engine.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use leasehold_api::engine::{Content, DeadLetter, Publish};
use leasehold_api::{Due, Error, ErrorKind, Message, Overflow, QueueConfig, Result, Target, Value};
use leasehold_contenders::limits;
use serde::{Deserialize, Serialize};

use crate::error::{Fault, odd};

/// The highest priority that a queue may have.
pub(crate) const PRIORITY_MAX: u8 = 31;
/// Length of a message's body, bytes.
const BODY_BYTES: usize = 16 << 20;
/// Length of all headers of a message, bytes.
const HEADERS_BYTES: usize = 64 << 10;
/// Parts of one commit.
pub(crate) const PARTS_MAX: usize = 1024;
/// Messages that one peek shows.
pub(crate) const PEEK_MAX: u32 = 1000;
/// Messages that one redrive moves.
pub(crate) const REDRIVE_MAX: u32 = 10_000;
/// Credit of one consumer.
pub(crate) const CREDIT_MAX: u32 = 65_535;
/// Deaths remembered with a message.
pub(crate) const DEATHS_MAX: usize = 16;

pub(crate) fn invalid(wrong: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, wrong)
}

pub(crate) fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A time of the wall clock from the server's microseconds.
pub(crate) fn wall(us: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(us)
}

/// Demands a name of a queue or an exchange.
pub(crate) fn name(what: &str, name: &str) -> Result<()> {
    limits::name(name).map_err(|error| invalid(format!("the {what}: {}", error.wrong)))
}

/// Demands a time that may be asked for.
pub(crate) fn time(what: &str, time: Duration) -> Result<()> {
    if (limits::TTL_MIN..=limits::TTL_MAX).contains(&time) {
        return Ok(());
    }
    Err(invalid(format!("{what} is {time:?}; 1 ms to 366 days are allowed")))
}

pub(crate) fn size(what: &str, is: usize, most: usize) -> Result<()> {
    if is <= most {
        return Ok(());
    }
    Err(invalid(format!("{what} is {is}, at most {most} is allowed")))
}

/// A queue's settings as they are written: times in microseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Written {
    durable: bool,
    messages_max: Option<u64>,
    bytes_max: Option<u64>,
    reject: bool,
    ttl: Option<u64>,
    lease: Option<u64>,
    deliveries_max: Option<u16>,
    dead: Option<(Option<String>, Option<String>)>,
    priority_max: u8,
    dedup: Option<u64>,
    single_active: bool,
    auto_delete: bool,
}

pub(crate) fn write_config(config: &QueueConfig) -> Vec<u8> {
    let dead = config.dead_letter.clone();
    let written = Written {
        durable: config.durable,
        messages_max: config.messages_max,
        bytes_max: config.bytes_max,
        reject: config.overflow == Overflow::Reject,
        ttl: config.ttl.map(us),
        lease: config.lease.map(us),
        deliveries_max: config.deliveries_max,
        dead: dead.map(|dead| (dead.exchange, dead.routing_key)),
        priority_max: config.priority_max,
        dedup: config.dedup.map(us),
        single_active: config.single_active,
        auto_delete: config.auto_delete,
    };
    serde_json::to_vec(&written).expect("numbers and text")
}

pub(crate) fn read_config(bytes: &[u8]) -> std::result::Result<QueueConfig, Fault> {
    let read: Written = serde_json::from_slice(bytes)
        .map_err(|error| Fault::Refused(odd(&format!("the settings of a queue: {error}"))))?;
    let dead = read.dead;
    Ok(QueueConfig {
        durable: read.durable,
        messages_max: read.messages_max,
        bytes_max: read.bytes_max,
        overflow: if read.reject { Overflow::Reject } else { Overflow::DropOldest },
        ttl: read.ttl.map(Duration::from_micros),
        lease: read.lease.map(Duration::from_micros),
        deliveries_max: read.deliveries_max,
        dead_letter: dead.map(|(exchange, routing_key)| DeadLetter { exchange, routing_key }),
        priority_max: read.priority_max,
        dedup: read.dedup.map(Duration::from_micros),
        single_active: read.single_active,
        auto_delete: read.auto_delete,
    })
}

/// Whether a queue has a bound that publishers must count for.
pub(crate) fn is_bounded(config: &QueueConfig) -> bool {
    config.messages_max.is_some() || config.bytes_max.is_some()
}

/// Demands settings that can be kept.
pub(crate) fn check_config(config: &QueueConfig) -> Result<()> {
    size("the highest priority", config.priority_max.into(), PRIORITY_MAX.into())?;
    let times = [
        ("the message TTL", config.ttl),
        ("the delivery lease", config.lease),
        ("the deduplication window", config.dedup),
    ];
    for (what, given) in times {
        given.map_or(Ok(()), |given| time(what, given))?;
    }
    let counts = [
        ("the highest number of deliveries", config.deliveries_max.map(u64::from)),
        ("the highest number of messages", config.messages_max),
        ("the highest number of bytes", config.bytes_max),
    ];
    if let Some((what, _)) = counts.iter().find(|(_, count)| *count == Some(0)) {
        return Err(invalid(format!("{what} is 0; give at least 1, or none")));
    }
    match &config.dead_letter {
        Some(DeadLetter { exchange: None, routing_key: None }) => {
            Err(invalid("dead letters need an exchange, a routing key, or both; give one"))
        }
        Some(DeadLetter { exchange: None, routing_key: Some(queue) }) => {
            name("queue of the dead letters", queue)
        }
        Some(DeadLetter { routing_key: Some(key), .. }) => {
            size("the length of the dead-letter routing key", key.len(), limits::NAME_BYTES)
        }
        _ => Ok(()),
    }
}

/// The first setting in which two declarations differ.
pub(crate) fn difference(known: &QueueConfig, asked: &QueueConfig) -> Option<&'static str> {
    let settings = [
        ("durable", known.durable == asked.durable),
        ("auto_delete", known.auto_delete == asked.auto_delete),
        ("priority_max", known.priority_max == asked.priority_max),
        ("messages_max", known.messages_max == asked.messages_max),
        ("bytes_max", known.bytes_max == asked.bytes_max),
        ("overflow", known.overflow == asked.overflow),
        ("ttl", known.ttl == asked.ttl),
        ("lease", known.lease == asked.lease),
        ("deliveries_max", known.deliveries_max == asked.deliveries_max),
        ("dead_letter", known.dead_letter == asked.dead_letter),
        ("dedup", known.dedup == asked.dedup),
        ("single_active", known.single_active == asked.single_active),
    ];
    settings.iter().find(|(_, same)| !same).map(|(what, _)| *what)
}

/// A header's value as it is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Header {
    #[serde(rename = "b")]
    Bool(bool),
    #[serde(rename = "i")]
    Int(i64),
    /// The bits of a float: JSON has neither infinities nor NaN.
    #[serde(rename = "f")]
    Float(u64),
    #[serde(rename = "t")]
    Text(String),
    #[serde(rename = "x")]
    Bytes(String),
}

impl From<&Value> for Header {
    fn from(value: &Value) -> Self {
        match value {
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Int(*value),
            Value::Float(value) => Self::Float(value.to_bits()),
            Value::Text(value) => Self::Text(value.clone()),
            Value::Bytes(value) => Self::Bytes(STANDARD.encode(value)),
        }
    }
}

impl Header {
    fn value(self) -> Value {
        match self {
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::Float(bits) => Value::Float(f64::from_bits(bits)),
            Self::Text(value) => Value::Text(value),
            Self::Bytes(value) => Value::Bytes(STANDARD.decode(value).unwrap_or_default()),
        }
    }
}

/// Headers as they are written.
pub(crate) fn write_headers(headers: &[(String, Value)]) -> Vec<u8> {
    let headers: Vec<(&str, Header)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.into())).collect();
    serde_json::to_vec(&headers).expect("numbers and text")
}

pub(crate) fn read_headers(bytes: &[u8]) -> std::result::Result<Vec<(String, Value)>, Fault> {
    let headers: Vec<(String, Header)> = serde_json::from_slice(bytes)
        .map_err(|error| Fault::Refused(odd(&format!("headers: {error}"))))?;
    Ok(headers.into_iter().map(|(name, header)| (name, header.value())).collect())
}

/// Everything of a message but its body.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Head {
    #[serde(skip_serializing_if = "is_zero")]
    priority: u8,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, Header)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    exchange: String,
    pub routing_key: String,
}

fn is_zero(number: &u8) -> bool {
    *number == 0
}

/// A death as it is written: queue, reason, count, microseconds.
type WrittenDeath = (String, String, u32, u64);

impl Head {
    pub fn of(publish: &Publish) -> Self {
        let Message { priority, headers, id, key, .. } = &publish.message;
        let (exchange, routing_key) = match &publish.target {
            Target::Queue(queue) => (String::new(), queue.to_string()),
            Target::Exchange(exchange, key) => (exchange.to_string(), key.to_string()),
        };
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.into()));
        let (headers, id, key) = (headers.collect(), id.clone(), key.clone());
        Self { priority: *priority, headers, id, key, exchange, routing_key }
    }

    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and text")
    }

    pub fn read(bytes: &[u8]) -> std::result::Result<Self, Fault> {
        serde_json::from_slice(bytes)
            .map_err(|error| Fault::Refused(odd(&format!("the head of a message: {error}"))))
    }

    pub fn content(
        self,
        body: Vec<u8>,
        published: u64,
        deaths: Option<Vec<u8>>,
    ) -> std::result::Result<Content, Fault> {
        let headers = self.headers.into_iter().map(|(name, header)| (name, header.value()));
        Ok(Content {
            body,
            priority: self.priority,
            headers: headers.collect(),
            id: self.id,
            key: self.key,
            exchange: self.exchange,
            routing_key: self.routing_key,
            published_at: wall(published),
            deaths: read_deaths(deaths.as_deref())?
                .into_iter()
                .map(|(queue, reason, count, first)| leasehold_api::engine::Death {
                    queue,
                    reason,
                    count,
                    first_at: wall(first),
                })
                .collect(),
        })
    }
}

pub(crate) fn read_deaths(bytes: Option<&[u8]>) -> std::result::Result<Vec<WrittenDeath>, Fault> {
    let Some(bytes) = bytes else { return Ok(Vec::new()) };
    serde_json::from_slice(bytes)
        .map_err(|error| Fault::Refused(odd(&format!("the deaths of a message: {error}"))))
}

/// Adds a death; the oldest is forgotten when there are too many.
pub(crate) fn add_death(deaths: &mut Vec<WrittenDeath>, queue: &str, reason: &str, now: u64) {
    let known = deaths.iter().position(|death| death.0 == queue && death.1 == reason);
    let death = match known {
        Some(place) => {
            let old = deaths.remove(place);
            (old.0, old.1, old.2.saturating_add(1), old.3)
        }
        None => (queue.to_owned(), reason.to_owned(), 1, now),
    };
    if deaths.len() >= DEATHS_MAX {
        deaths.remove(0);
    }
    deaths.push(death);
}

pub(crate) fn write_deaths(deaths: &[WrittenDeath]) -> Vec<u8> {
    serde_json::to_vec(deaths).expect("numbers and text")
}

/// Demands a message that may be published.
pub(crate) fn check_publish(publish: &Publish) -> Result<()> {
    let message = &publish.message;
    match &publish.target {
        Target::Queue(queue) => name("queue", queue)?,
        Target::Exchange(exchange, key) => {
            name("exchange", exchange)?;
            size("the routing key's length", key.len(), limits::NAME_BYTES)?;
        }
    }
    size("the body's length", message.body.len(), BODY_BYTES)?;
    let headers = message.headers.iter().map(|(name, value)| {
        name.len()
            + match value {
                Value::Bool(_) => 1,
                Value::Int(_) | Value::Float(_) => 8,
                Value::Text(text) => text.len(),
                Value::Bytes(bytes) => bytes.len(),
            }
    });
    size("the headers' length", headers.sum(), HEADERS_BYTES)?;
    for (what, text) in [("the message id", &message.id), ("the ordering key", &message.key)] {
        match text.as_ref().map(String::len) {
            Some(0) => return Err(invalid(format!("{what} is empty; give one or none"))),
            Some(length) => size(&format!("the length of {what}"), length, limits::NAME_BYTES)?,
            None => {}
        }
    }
    if let Some(ttl) = message.ttl {
        time("the message's TTL", ttl)?;
    }
    match message.due {
        Due::After(delay) if !delay.is_zero() => time("the delay", delay),
        _ => Ok(()),
    }
}

/// When a message may first be delivered; `None`: at once.
pub(crate) fn due(due: Due, now: u64) -> Result<Option<u64>> {
    match due {
        Due::Now => Ok(None),
        Due::After(delay) if delay.is_zero() => Ok(None),
        Due::After(delay) => Ok(Some(now.saturating_add(us(delay)))),
        Due::At(at) => {
            let at = at.duration_since(UNIX_EPOCH).map_or(0, us);
            if at <= now {
                return Ok(None);
            }
            time("the delay", Duration::from_micros(at - now).max(limits::TTL_MIN))?;
            Ok(Some(at))
        }
    }
}
