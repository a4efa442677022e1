//! Messages and settings as the tables keep them.

use std::time::{Duration, SystemTime};

use leasehold_api::engine::{Content, Death, Delivered, Receipt, SessionRef};
use leasehold_api::{DeadLetter, Error, ErrorKind, Message, Overflow, QueueConfig, Result, Value};
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;

use crate::book::us;
use crate::error::{invalid, odd};

/// Bounds, the same as those of the embedded engine.
pub(crate) const NAME_BYTES: usize = 255;
const BODY_BYTES: usize = 16 << 20;
const HEADERS_BYTES: usize = 64 << 10;
const PRIORITY_MAX: u8 = 31;
const TIME_MIN: Duration = Duration::from_millis(1);
const TIME_MAX: Duration = Duration::from_secs(366 * 86_400);

/// Demands a time that can be counted.
pub(crate) fn time(what: &str, time: Duration) -> Result<i64> {
    if (TIME_MIN..=TIME_MAX).contains(&time) {
        return Ok(us(time));
    }
    Err(invalid(format!("{what} is {time:?}; 1 ms to 366 days are allowed")))
}

/// Demands a text that can be kept.
pub(crate) fn text(what: &str, text: &str) -> Result<()> {
    if text.len() > NAME_BYTES {
        let is = text.len();
        return Err(invalid(format!("{what} has {is} bytes, at most {NAME_BYTES} are allowed")));
    }
    if text.contains('\0') {
        return Err(invalid(format!("{what} has a zero in it; PostgreSQL keeps none in texts")));
    }
    Ok(())
}

/// A header's value as it is written down. Floats are kept bit by bit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Kept {
    #[serde(rename = "b")]
    Bool(bool),
    #[serde(rename = "i")]
    Int(i64),
    #[serde(rename = "f")]
    Float(u64),
    #[serde(rename = "t")]
    Text(String),
    #[serde(rename = "x")]
    Bytes(Vec<u8>),
}

impl Kept {
    fn of(value: &Value) -> Self {
        match value {
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Int(*value),
            Value::Float(value) => Self::Float(value.to_bits()),
            Value::Text(value) => Self::Text(value.clone()),
            Value::Bytes(value) => Self::Bytes(value.clone()),
        }
    }

    fn value(self) -> Value {
        match self {
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::Float(value) => Value::Float(f64::from_bits(value)),
            Self::Text(value) => Value::Text(value),
            Self::Bytes(value) => Value::Bytes(value),
        }
    }
}

fn json<T: Serialize>(what: &T) -> Vec<u8> {
    serde_json::to_vec(what).expect("it has only text and numbers")
}

/// Headers as they are kept; `None`: there are none.
pub(crate) fn headers(headers: &[(String, Value)]) -> Option<Vec<u8>> {
    let kept: Vec<_> = headers.iter().map(|(name, value)| (name, Kept::of(value))).collect();
    (!kept.is_empty()).then(|| json(&kept))
}

/// Headers one by one, as a headers exchange compares them.
pub(crate) fn tokens(headers: &[(String, Value)]) -> Vec<Vec<u8>> {
    headers.iter().map(|(name, value)| json(&(name, Kept::of(value)))).collect()
}

/// Demands a message within the bounds.
pub(crate) fn check(message: &Message) -> Result<()> {
    let is = message.body.len();
    if is > BODY_BYTES {
        return Err(invalid(format!("the body has {is} bytes, at most {BODY_BYTES} are allowed")));
    }
    let bytes = |value: &Value| match value {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 8,
    };
    let is: usize = message.headers.iter().map(|(name, value)| name.len() + bytes(value)).sum();
    if is > HEADERS_BYTES {
        let most = HEADERS_BYTES;
        return Err(invalid(format!("the headers have {is} bytes, at most {most} are allowed")));
    }
    for (what, text) in [("the message id", &message.id), ("the ordering key", &message.key)] {
        match text.as_ref().map(String::len) {
            Some(0) => return Err(invalid(format!("{what} is empty; leave it out"))),
            Some(is) if is > NAME_BYTES => {
                let most = NAME_BYTES;
                return Err(invalid(format!("{what} has {is} bytes, at most {most} are allowed")));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A queue's settings as they are kept; times in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    durable: bool,
    messages_max: Option<u64>,
    bytes_max: Option<u64>,
    rejects: bool,
    ttl: Option<i64>,
    lease: Option<i64>,
    deliveries_max: Option<u16>,
    dead_letter: Option<Dead>,
    priority_max: u8,
    dedup: Option<i64>,
    single_active: bool,
    auto_delete: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Dead {
    exchange: Option<String>,
    routing_key: Option<String>,
}

impl Settings {
    /// Settings that can be kept.
    ///
    /// # Errors
    /// `Invalid`, with the one that is wrong.
    pub fn of(config: &QueueConfig) -> Result<Self> {
        if config.priority_max > PRIORITY_MAX {
            let is = config.priority_max;
            return Err(invalid(format!("the highest priority is {is}; at most {PRIORITY_MAX}")));
        }
        let counts = [
            ("deliveries_max", config.deliveries_max.map(u64::from)),
            ("messages_max", config.messages_max),
            ("bytes_max", config.bytes_max),
        ];
        if let Some((what, _)) = counts.iter().find(|(_, count)| *count == Some(0)) {
            return Err(invalid(format!("{what} is 0; leave it out, or allow at least one")));
        }
        if let Some(DeadLetter { exchange, routing_key }) = &config.dead_letter {
            match (exchange, routing_key) {
                (None, None) => {
                    return Err(invalid("dead letters need an exchange, a routing key, or both"));
                }
                (None, Some(queue)) => leasehold_contenders::limits::name(queue)?,
                (Some(exchange), key) => {
                    leasehold_contenders::limits::name(exchange)?;
                    text("the dead-letter routing key", key.as_deref().unwrap_or_default())?;
                }
            }
        }
        let times = |what, of: Option<Duration>| of.map(|of| time(what, of)).transpose();
        let most = i64::MAX as u64;
        Ok(Self {
            durable: config.durable,
            messages_max: config.messages_max.map(|max| max.min(most)),
            bytes_max: config.bytes_max.map(|max| max.min(most)),
            rejects: config.overflow == Overflow::Reject,
            ttl: times("the message TTL", config.ttl)?,
            lease: times("the delivery lease", config.lease)?,
            deliveries_max: config.deliveries_max,
            dead_letter: config
                .dead_letter
                .clone()
                .map(|dead| Dead { exchange: dead.exchange, routing_key: dead.routing_key }),
            priority_max: config.priority_max,
            dedup: times("the deduplication window", config.dedup)?,
            single_active: config.single_active,
            auto_delete: config.auto_delete,
        })
    }

    /// Reads settings.
    pub fn read(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| {
            let wrong = format!("the settings of a queue cannot be read: {error}");
            Error::new(ErrorKind::Broken, wrong)
        })
    }

    /// As they are written.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("it has only text and numbers")
    }

    /// As they were declared.
    pub fn config(self) -> QueueConfig {
        let time = |of: Option<i64>| of.map(|of| Duration::from_micros(of.cast_unsigned()));
        QueueConfig {
            durable: self.durable,
            messages_max: self.messages_max,
            bytes_max: self.bytes_max,
            overflow: if self.rejects { Overflow::Reject } else { Overflow::DropOldest },
            ttl: time(self.ttl),
            lease: time(self.lease),
            deliveries_max: self.deliveries_max,
            dead_letter: self
                .dead_letter
                .map(|dead| DeadLetter { exchange: dead.exchange, routing_key: dead.routing_key }),
            priority_max: self.priority_max,
            dedup: time(self.dedup),
            single_active: self.single_active,
            auto_delete: self.auto_delete,
        }
    }

    /// The first setting in which two differ.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        let settings = [
            ("durable", self.durable == other.durable),
            ("auto_delete", self.auto_delete == other.auto_delete),
            ("priority_max", self.priority_max == other.priority_max),
            ("messages_max", self.messages_max == other.messages_max),
            ("bytes_max", self.bytes_max == other.bytes_max),
            ("overflow", self.rejects == other.rejects),
            ("ttl", self.ttl == other.ttl),
            ("lease", self.lease == other.lease),
            ("deliveries_max", self.deliveries_max == other.deliveries_max),
            ("dead_letter", self.dead_letter == other.dead_letter),
            ("dedup", self.dedup == other.dedup),
            ("single_active", self.single_active == other.single_active),
        ];
        settings.iter().find(|(_, same)| !same).map(|(what, _)| *what)
    }
}

#[derive(Debug, Deserialize)]
struct KeptDeath {
    queue: String,
    reason: String,
    count: u32,
    first: u64,
}

/// A time of the server.
fn moment(us: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(us.max(0).cast_unsigned())
}

fn broken(error: &serde_json::Error) -> Error {
    Error::new(ErrorKind::Broken, format!("a message in the table cannot be read: {error}"))
}

/// A message from a row, whose columns begin at `at`: key, level, exchange, routing key, id,
/// headers, deaths, published, body.
pub(crate) fn content(row: &Row, at: usize) -> Result<Content> {
    let text = |bytes: Option<Vec<u8>>| bytes.map(|b| String::from_utf8_lossy(&b).into_owned());
    let read = || {
        Ok::<_, tokio_postgres::Error>((
            row.try_get::<_, Option<Vec<u8>>>(at)?,
            row.try_get::<_, i16>(at + 1)?,
            row.try_get::<_, String>(at + 2)?,
            row.try_get::<_, String>(at + 3)?,
            row.try_get::<_, Option<Vec<u8>>>(at + 4)?,
            row.try_get::<_, Option<Vec<u8>>>(at + 5)?,
            row.try_get::<_, Option<String>>(at + 6)?,
            row.try_get::<_, i64>(at + 7)?,
            row.try_get::<_, Vec<u8>>(at + 8)?,
        ))
    };
    let (key, level, exchange, routing_key, id, headers, deaths, published, body) =
        read().map_err(|error| odd(&error))?;
    let headers: Vec<(String, Kept)> = match headers {
        Some(kept) => serde_json::from_slice(&kept).map_err(|error| broken(&error))?,
        None => Vec::new(),
    };
    let deaths: Vec<KeptDeath> = match deaths {
        Some(kept) => serde_json::from_str(&kept).map_err(|error| broken(&error))?,
        None => Vec::new(),
    };
    Ok(Content {
        body,
        priority: u8::try_from(level).unwrap_or(0),
        headers: headers.into_iter().map(|(name, kept)| (name, kept.value())).collect(),
        id: text(id),
        key: text(key),
        exchange,
        routing_key,
        published_at: moment(published),
        deaths: deaths
            .into_iter()
            .map(|death| Death {
                queue: death.queue,
                reason: death.reason,
                count: death.count,
                first_at: moment(death.first.cast_signed()),
            })
            .collect(),
    })
}

/// A delivery from a row: id, token, attempts, and the message; `None` for the last row.
pub(crate) fn delivered(row: &Row, session: &SessionRef) -> Result<Option<Delivered>> {
    let read = || {
        let Some(id) = row.try_get::<_, Option<i64>>(0)? else { return Ok(None) };
        Ok(Some((id, row.try_get::<_, i64>(1)?, row.try_get::<_, i32>(2)?)))
    };
    let Some((id, token, attempts)) = read().map_err(|error| odd(&error))? else {
        return Ok(None);
    };
    let attempts = attempts.max(0).cast_unsigned();
    Ok(Some(Delivered {
        receipt: Receipt {
            token: token.cast_unsigned(),
            place: u128::from(id.cast_unsigned()),
            session: session.clone(),
        },
        attempt: attempts + 1,
        redelivered: attempts > 0,
        content: content(row, 3)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_back_as_they_were() {
        let config = QueueConfig {
            durable: false,
            messages_max: Some(7),
            overflow: Overflow::Reject,
            ttl: Some(Duration::from_millis(3)),
            dead_letter: Some(DeadLetter::queue("dead")),
            priority_max: 31,
            ..QueueConfig::default()
        };
        let settings = Settings::of(&config).expect("they are right");
        let read = Settings::read(&settings.text()).expect("it was just written");
        assert_eq!(read.difference(&settings), None);
        assert_eq!(read.config(), config);
    }

    #[test]
    fn absurd_settings_are_named() {
        let wrongs = [
            (QueueConfig { priority_max: 32, ..QueueConfig::default() }, "priority"),
            (QueueConfig { messages_max: Some(0), ..QueueConfig::default() }, "messages_max"),
            (QueueConfig { lease: Some(Duration::ZERO), ..QueueConfig::default() }, "lease"),
            (
                QueueConfig {
                    dead_letter: Some(DeadLetter { exchange: None, routing_key: None }),
                    ..QueueConfig::default()
                },
                "dead letters",
            ),
        ];
        for (config, named) in wrongs {
            let error = Settings::of(&config).expect_err(named);
            assert!(error.wrong.contains(named), "{error}");
        }
    }

    #[test]
    fn headers_are_kept_to_the_bit() {
        let all = [("nan".to_owned(), Value::Float(f64::NAN)), ("b".to_owned(), Value::Int(-1))];
        let kept = headers(&all).expect("there are some");
        let read: Vec<(String, Kept)> = serde_json::from_slice(&kept).expect("just written");
        let Value::Float(nan) = read[0].1.clone().value() else { panic!("{read:?}") };
        assert!(nan.is_nan());
        assert_eq!(headers(&[]), None);
        assert_eq!(tokens(&all).len(), 2);
    }
}
