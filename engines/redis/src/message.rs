//! Messages as they lie in a queue, and queues as they are declared.
//!
//! What a script must know of a message is beside it; the rest, which only consumers read, is a
//! length, that many bytes of JSON, and the body as it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use leasehold_api::engine::{Content, Death, Message, QueueConfig, QueueTotals, QueueView};
use leasehold_api::{DeadLetter, Error, ErrorKind, Overflow, Result, Value};
use leasehold_contenders::limits;
use serde::{Deserialize, Serialize};

use crate::script::{Args, Reply, odd, us};

/// Length of a message's body, bytes.
const BODY_BYTES: usize = 16 << 20;
/// Length of its headers together, bytes.
const HEADERS_BYTES: usize = 64 << 10;
/// The highest priority.
const PRIORITY_MAX: u8 = 31;

#[derive(Serialize, Deserialize)]
struct Head {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, Header)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default)]
    priority: u8,
    routing_key: String,
}

#[derive(Serialize, Deserialize)]
enum Header {
    #[serde(rename = "b")]
    Bool(bool),
    #[serde(rename = "i")]
    Int(i64),
    /// Its bits: JSON has no infinity and no NaN.
    #[serde(rename = "f")]
    Float(u64),
    #[serde(rename = "t")]
    Text(String),
    #[serde(rename = "o")]
    Bytes(Vec<u8>),
}

impl From<&Value> for Header {
    fn from(value: &Value) -> Self {
        match value {
            Value::Bool(is) => Self::Bool(*is),
            Value::Int(number) => Self::Int(*number),
            Value::Float(number) => Self::Float(number.to_bits()),
            Value::Text(text) => Self::Text(text.clone()),
            Value::Bytes(bytes) => Self::Bytes(bytes.clone()),
        }
    }
}

impl From<Header> for Value {
    fn from(header: Header) -> Self {
        match header {
            Header::Bool(is) => Self::Bool(is),
            Header::Int(number) => Self::Int(number),
            Header::Float(bits) => Self::Float(f64::from_bits(bits)),
            Header::Text(text) => Self::Text(text),
            Header::Bytes(bytes) => Self::Bytes(bytes),
        }
    }
}

fn invalid(wrong: String) -> Error {
    Error::new(ErrorKind::Invalid, wrong)
}

fn size(what: &str, is: usize, most: usize) -> Result<()> {
    if is <= most {
        return Ok(());
    }
    Err(invalid(format!("{what} has {is} bytes, at most {most} are allowed")))
}

fn label(what: &str, text: Option<&String>) -> Result<()> {
    let Some(text) = text else { return Ok(()) };
    if text.is_empty() {
        return Err(invalid(format!("{what} is empty; leave it out")));
    }
    size(what, text.len(), limits::NAME_BYTES)
}

/// Demands a message within the limits.
pub(crate) fn valid(message: &Message) -> Result<()> {
    size("the body", message.body.len(), BODY_BYTES)?;
    let value = |value: &Value| match value {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 8,
    };
    let bytes = message.headers.iter().map(|(name, of)| name.len() + value(of)).sum();
    size("the headers", bytes, HEADERS_BYTES)?;
    label("the message id", message.id.as_ref())?;
    label("the ordering key", message.key.as_ref())?;
    message.ttl.map_or(Ok(()), limits::ttl)?;
    match message.due {
        leasehold_api::Due::After(delay) if !delay.is_zero() => limits::ttl(delay),
        leasehold_api::Due::At(at) => match at.duration_since(SystemTime::now()) {
            Ok(delay) if delay > limits::TTL_MAX => limits::ttl(delay),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// A message as it lies in a queue.
pub(crate) fn content(message: &Message, routing_key: &str) -> Vec<u8> {
    let headers = message.headers.iter().map(|(name, value)| (name.clone(), value.into()));
    let head = Head {
        headers: headers.collect(),
        id: message.id.clone(),
        key: message.key.clone(),
        priority: message.priority,
        routing_key: routing_key.to_owned(),
    };
    let head = serde_json::to_vec(&head).expect("it has only text and numbers");
    let length = u32::try_from(head.len()).expect("it is bounded").to_le_bytes();
    [&length[..], &head, &message.body].concat()
}

/// Reads what [`content`] wrote.
pub(crate) fn read(bytes: &[u8], born: u64, deaths: Vec<Death>) -> Result<Content> {
    let torn = || odd("whole message");
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(torn)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (head, body) = rest.split_at_checked(length).ok_or_else(torn)?;
    let head: Head = serde_json::from_slice(head).map_err(|_| torn())?;
    Ok(Content {
        body: body.to_vec(),
        priority: head.priority,
        headers: head.headers.into_iter().map(|(name, value)| (name, value.into())).collect(),
        id: head.id,
        key: head.key,
        exchange: String::new(),
        routing_key: head.routing_key,
        published_at: at(born),
        deaths,
    })
}

fn at(us: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(us)
}

/// Reads deaths as the scripts show them.
pub(crate) fn deaths(mut list: Reply) -> Result<Vec<Death>> {
    let mut deaths = Vec::new();
    while !list.is_empty() {
        let mut death = list.list("death")?;
        deaths.push(Death {
            queue: death.text("queue of a death")?,
            reason: death.text("reason of a death")?,
            count: death.number("count of deaths")? as u32,
            first_at: at(death.number("time of a death")?),
        });
    }
    Ok(deaths)
}

/// A queue's settings as it keeps them.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Settings {
    durable: bool,
    messages_max: Option<u64>,
    bytes_max: Option<u64>,
    reject: bool,
    ttl: Option<u64>,
    lease: Option<u64>,
    deliveries_max: Option<u16>,
    dead: Option<String>,
    priority_max: u8,
    dedup: Option<u64>,
    single_active: bool,
    auto_delete: bool,
}

/// Demands settings that can be kept.
pub(crate) fn valid_config(config: &QueueConfig) -> Result<()> {
    if config.priority_max > PRIORITY_MAX {
        let is = config.priority_max;
        let wrong = format!("the highest priority is {is}; 0 to {PRIORITY_MAX} are allowed");
        return Err(invalid(wrong));
    }
    for time in [config.ttl, config.lease, config.dedup].into_iter().flatten() {
        limits::ttl(time)?;
    }
    let counts = [
        ("number of deliveries", config.deliveries_max.map(u64::from)),
        ("number of messages", config.messages_max),
        ("number of bytes", config.bytes_max),
    ];
    if let Some((what, _)) = counts.iter().find(|(_, count)| *count == Some(0)) {
        return Err(invalid(format!("the highest {what} is 0; leave it out or give more")));
    }
    match &config.dead_letter {
        Some(DeadLetter { exchange: Some(_), .. }) => Err(Error::unsupported("redis", "exchanges")),
        Some(DeadLetter { routing_key: Some(queue), .. }) => limits::name(queue),
        Some(_) => Err(invalid("dead letters need the name of a queue as routing key".into())),
        None => Ok(()),
    }
}

/// A queue's settings as text, and as what the scripts read.
pub(crate) fn settings(args: &mut Args, config: &QueueConfig) -> String {
    let dead = config.dead_letter.as_ref().and_then(|dead| dead.routing_key.clone());
    let settings = Settings {
        durable: config.durable,
        messages_max: config.messages_max,
        bytes_max: config.bytes_max,
        reject: config.overflow == Overflow::Reject,
        ttl: config.ttl.map(us),
        lease: config.lease.map(us),
        deliveries_max: config.deliveries_max,
        dead: dead.clone(),
        priority_max: config.priority_max,
        dedup: config.dedup.map(us),
        single_active: config.single_active,
        auto_delete: config.auto_delete,
    };
    let text = serde_json::to_string(&settings).expect("it has only text and numbers");
    args.text(&text);
    args.text("messages_max").number(config.messages_max.unwrap_or(0));
    args.text("bytes_max").number(config.bytes_max.unwrap_or(0));
    args.text("reject").flag(settings.reject);
    args.text("ttl").time(config.ttl).text("lease").time(config.lease);
    args.text("deliveries_max").number(config.deliveries_max.unwrap_or(0));
    args.text("priority_max").number(config.priority_max);
    args.text("dedup").time(config.dedup);
    args.text("single").flag(config.single_active);
    args.text("auto").flag(config.auto_delete);
    args.text("paused").flag(false);
    if let Some(dead) = dead {
        args.text("dead_letter").text(&dead);
    }
    text
}

/// Which settings differ.
pub(crate) fn differences(known: &str, asked: &str) -> Result<Vec<String>> {
    let read = |text: &str| {
        serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text)
            .map_err(|_| odd("settings of a queue"))
    };
    let (known, asked) = (read(known)?, read(asked)?);
    let differs = asked.iter().filter(|(name, value)| known.get(*name) != Some(value));
    Ok(differs
        .map(|(name, value)| {
            let is = known.get(name).unwrap_or(&serde_json::Value::Null);
            format!("{name} is {is}, not {value}")
        })
        .collect())
}

fn config(text: &str) -> Result<QueueConfig> {
    let known: Settings = serde_json::from_str(text).map_err(|_| odd("settings of a queue"))?;
    Ok(QueueConfig {
        durable: known.durable,
        messages_max: known.messages_max,
        bytes_max: known.bytes_max,
        overflow: if known.reject { Overflow::Reject } else { Overflow::DropOldest },
        ttl: known.ttl.map(Duration::from_micros),
        lease: known.lease.map(Duration::from_micros),
        deliveries_max: known.deliveries_max,
        dead_letter: known.dead.map(DeadLetter::queue),
        priority_max: known.priority_max,
        dedup: known.dedup.map(Duration::from_micros),
        single_active: known.single_active,
        auto_delete: known.auto_delete,
    })
}

/// Reads a queue as the scripts show it.
pub(crate) fn view(mut reply: Reply) -> Result<QueueView> {
    let name = reply.text("name")?;
    let config = config(&reply.text("settings")?)?;
    let mut number = |what: &str| reply.number(what);
    let (ready, in_flight) = (number("ready")?, number("in flight")?);
    let (delayed, consumers) = (number("delayed")?, number("consumers")? as u32);
    let (parked, bytes) = (number("parked")?, number("bytes")?);
    let paused = number("paused")? == 1;
    let totals = QueueTotals {
        published: number("published")?,
        acked: number("acknowledged")?,
        returned: number("returned")?,
        dead: number("dead")?,
        dropped: number("dropped")?,
        purged: number("purged")?,
    };
    Ok(QueueView {
        name,
        config,
        ready,
        in_flight,
        delayed,
        parked,
        bytes,
        consumers,
        paused,
        totals,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let message = Message::new(vec![0, 255])
            .priority(3)
            .id("i")
            .key("k")
            .header("f", Value::Float(f64::INFINITY))
            .header("b", Value::Bytes(vec![1, 2]));
        let read = read(&content(&message, "q"), 1_000_000, Vec::new()).unwrap();
        assert_eq!((read.body, read.headers), (message.body, message.headers));
        assert_eq!((read.priority, read.routing_key.as_str()), (3, "q"));
        assert_eq!(read.published_at, UNIX_EPOCH + Duration::from_secs(1));
    }

    #[test]
    fn settings_are_read_as_they_were_written() {
        let config = QueueConfig {
            lease: Some(Duration::from_millis(5)),
            dead_letter: Some(DeadLetter::queue("dead")),
            ..QueueConfig::default()
        };
        let mut args = Args::default();
        let text = settings(&mut args, &config);
        assert_eq!(super::config(&text).unwrap(), config);
        let other = QueueConfig { priority_max: 3, ..config };
        let other = settings(&mut Args::default(), &other);
        assert_eq!(differences(&text, &other).unwrap(), ["priority_max is 0, not 3"]);
    }
}
