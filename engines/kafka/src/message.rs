//! Messages on their way there and back.
//!
//! A header of Kafka is bytes. Text is written as it is, so that other programs read it; what any
//! other value was stands in a header of our own. A key is the message's key, and the partition
//! follows from it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use leasehold_api::engine::{Content, Death, Due, Message, Value};
use leasehold_api::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::driver::{ATTEMPTS, Outgoing, Record};

/// The longest body.
const BODY_MAX: usize = 16 << 20;
/// The most that all headers may take.
const HEADERS_MAX: usize = 64 << 10;
/// How many deaths of a message are told.
const DEATHS_MAX: usize = 100;
/// What the names of our own headers begin with.
const OURS: &str = "leasehold-";
const ID: &str = "leasehold-id";
const PRIORITY: &str = "leasehold-priority";
/// What values are that are no text: JSON, from the header's name to `bool` and the like.
const TYPES: &str = "leasehold-types";
/// The deaths of a message: JSON.
const DEATHS: &str = "leasehold-deaths";

fn invalid(wrong: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, wrong)
}

fn absent<T>(what: &str) -> Result<T> {
    Err(Error::unsupported("kafka", what))
}

/// A message to a topic.
///
/// # Errors
/// `Unsupported` for what Kafka cannot do; `Invalid` for what is over the limits.
pub(crate) fn outgoing(topic: &str, message: Message) -> Result<Outgoing> {
    match message.due {
        Due::Now => {}
        Due::After(delay) if delay.is_zero() => {}
        Due::After(_) | Due::At(_) => return absent("delayed messages"),
    }
    if message.ttl.is_some() {
        return absent("expiry of messages");
    }
    if message.body.len() > BODY_MAX {
        return Err(invalid(format!("a body has at most {BODY_MAX} bytes")));
    }
    let mut headers = Vec::with_capacity(message.headers.len() + 3);
    let mut types = BTreeMap::new();
    for (name, value) in &message.headers {
        if name.starts_with(OURS) {
            return Err(invalid(format!("header {name}: {OURS} is for the engine's own")));
        }
        if headers.iter().any(|(known, _)| known == name) {
            return Err(invalid(format!("header {name} is there twice")));
        }
        let (bytes, kind) = written(value);
        types.extend(kind.map(|kind| (name.clone(), kind)));
        headers.push((name.clone(), bytes));
    }
    if !types.is_empty() {
        headers.push((TYPES.to_owned(), json(&types)?));
    }
    if let Some(id) = &message.id {
        headers.push((ID.to_owned(), id.clone().into_bytes()));
    }
    if message.priority > 0 {
        headers.push((PRIORITY.to_owned(), message.priority.to_string().into_bytes()));
    }
    let size: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let size = size + message.key.as_ref().map_or(0, String::len);
    if size > HEADERS_MAX {
        return Err(invalid(format!("headers and key take at most {HEADERS_MAX} bytes")));
    }
    Ok(Outgoing {
        topic: topic.to_owned(),
        key: message.key.map(String::into_bytes),
        body: message.body,
        headers,
        timestamp: None,
    })
}

fn json(what: &impl Serialize) -> Result<Vec<u8>> {
    let broken = |error: serde_json::Error| Error::new(ErrorKind::Broken, error.to_string());
    serde_json::to_vec(what).map_err(broken)
}

/// A value as bytes, and what it was if it is no text.
fn written(value: &Value) -> (Vec<u8>, Option<&'static str>) {
    match value {
        Value::Text(text) => (text.clone().into_bytes(), None),
        Value::Bool(value) => (value.to_string().into_bytes(), Some("bool")),
        Value::Int(value) => (value.to_string().into_bytes(), Some("int")),
        Value::Float(value) => (value.to_string().into_bytes(), Some("float")),
        Value::Bytes(bytes) => (bytes.clone(), Some("bytes")),
    }
}

fn read(bytes: &[u8], kind: Option<&str>) -> Value {
    let text = std::str::from_utf8(bytes).ok();
    let number = match (kind, text) {
        (Some("bool"), Some(text)) => text.parse().ok().map(Value::Bool),
        (Some("int"), Some(text)) => text.parse().ok().map(Value::Int),
        (Some("float"), Some(text)) => text.parse().ok().map(Value::Float),
        (None, Some(text)) => Some(Value::Text(text.to_owned())),
        _ => None,
    };
    number.unwrap_or_else(|| Value::Bytes(bytes.to_vec()))
}

/// A death as it is written down.
#[derive(Debug, Serialize, Deserialize)]
struct Grave {
    queue: String,
    reason: String,
    count: u32,
    first_ms: u64,
}

fn text(record: &Record, name: &str) -> Option<String> {
    record.header(name).map(|value| String::from_utf8_lossy(value).into_owned())
}

fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(UNIX_EPOCH)
}

fn graves(record: &Record) -> Vec<Grave> {
    let told = record.header(DEATHS).and_then(|told| serde_json::from_slice(told).ok());
    told.unwrap_or_default()
}

/// A message as it was published to a queue.
pub(crate) fn content(queue: &str, record: &Record) -> Content {
    let types: BTreeMap<String, String> =
        record.header(TYPES).and_then(|told| serde_json::from_slice(told).ok()).unwrap_or_default();
    let of_user = record.headers.iter().filter(|(name, _)| !name.starts_with(OURS));
    let value = |(name, bytes): &(String, Vec<u8>)| {
        (name.clone(), read(bytes, types.get(name).map(String::as_str)))
    };
    let death = |grave: Grave| Death {
        queue: grave.queue,
        reason: grave.reason,
        count: grave.count,
        first_at: at(grave.first_ms),
    };
    Content {
        body: record.body.clone(),
        priority: text(record, PRIORITY).and_then(|text| text.parse().ok()).unwrap_or(0),
        headers: of_user.map(value).collect(),
        id: text(record, ID),
        key: record.key.as_ref().map(|key| String::from_utf8_lossy(key).into_owned()),
        exchange: String::new(),
        routing_key: queue.to_owned(),
        published_at: at(u64::try_from(record.timestamp).unwrap_or(0)),
        deaths: graves(record).into_iter().map(death).collect(),
    }
}

/// The same message to another place, without these headers of ours.
fn copied(topic: &str, record: &Record, without: &str) -> Outgoing {
    let headers = record.headers.iter().filter(|(name, _)| name != without && name != ATTEMPTS);
    Outgoing {
        topic: topic.to_owned(),
        key: record.key.clone(),
        body: record.body.clone(),
        headers: headers.cloned().collect(),
        timestamp: Some(record.timestamp).filter(|time| *time > 0),
    }
}

/// A message that died in a queue, on its way to the topic of the dead.
pub(crate) fn dead(queue: &str, reason: &str, topic: &str, record: &Record) -> Result<Outgoing> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut graves = graves(record);
    let same = graves.iter().position(|grave| grave.queue == queue && grave.reason == reason);
    let grave = match same.map(|same| graves.remove(same)) {
        Some(grave) => Grave { count: grave.count.saturating_add(1), ..grave },
        None => Grave {
            queue: queue.to_owned(),
            reason: reason.to_owned(),
            count: 1,
            first_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        },
    };
    graves.push(grave);
    let surplus = graves.len().saturating_sub(DEATHS_MAX);
    graves.drain(..surplus);
    let mut message = copied(topic, record, DEATHS);
    message.headers.push((DEATHS.to_owned(), json(&graves)?));
    Ok(message)
}

/// A message that gives up its place, on its way to the end of its topic.
pub(crate) fn moved(topic: &str, record: &Record, attempts: u32) -> Outgoing {
    let mut message = copied(topic, record, ATTEMPTS);
    message.headers.push((ATTEMPTS.to_owned(), attempts.to_string().into_bytes()));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn came(message: Outgoing) -> Record {
        let Outgoing { key, body, headers, .. } = message;
        Record { key, body, headers, timestamp: 1500, ..Record::default() }
    }

    #[test]
    fn everything_of_a_message_comes_back() {
        let message = Message::new("body")
            .id("id-1")
            .key("key-1")
            .priority(3)
            .header("flag", Value::Bool(true))
            .header("number", Value::Int(-7))
            .header("share", Value::Float(0.25))
            .header("text", Value::Text("ü".to_owned()))
            .header("bytes", Value::Bytes(b"17".to_vec()));
        let sent = outgoing("topic", message.clone()).expect("it is plain");
        let content = content("queue", &came(sent));
        assert_eq!(content.headers, message.headers);
        assert_eq!((content.id, content.key), (message.id, message.key));
        assert_eq!((content.priority, &*content.routing_key), (3, "queue"));
        assert_eq!(content.published_at, UNIX_EPOCH + Duration::from_millis(1500));
    }

    #[test]
    fn what_kafka_cannot_do_is_refused() {
        let kind = |message| outgoing("t", message).expect_err("it cannot").kind;
        assert_eq!(kind(Message::new("x").delay(Duration::from_secs(1))), ErrorKind::Unsupported);
        assert_eq!(kind(Message::new("x").ttl(Duration::from_secs(1))), ErrorKind::Unsupported);
        assert_eq!(kind(Message::new(vec![0; BODY_MAX + 1])), ErrorKind::Invalid);
        let ours = Message::new("x").header("leasehold-id", Value::Int(1));
        assert_eq!(kind(ours), ErrorKind::Invalid);
        let twice = Message::new("x").header("h", Value::Int(1)).header("h", Value::Int(2));
        assert_eq!(kind(twice), ErrorKind::Invalid);
    }

    #[test]
    fn deaths_are_counted_and_attempts_go_along() {
        let first = came(outgoing("t", Message::new("x")).expect("it is plain"));
        let once = came(dead("q", "rejected", "d", &moved_back(&first)).expect("it is JSON"));
        assert_eq!(once.attempts(), 0);
        let twice = came(dead("q", "rejected", "d", &once).expect("it is JSON"));
        let other = came(dead("d", "deliveries", "e", &twice).expect("it is JSON"));
        let deaths = content("e", &other).deaths;
        let told: Vec<_> = deaths.iter().map(|d| (&*d.queue, &*d.reason, d.count)).collect();
        assert_eq!(told, [("q", "rejected", 2), ("d", "deliveries", 1)]);
    }

    fn moved_back(record: &Record) -> Record {
        let moved = came(moved("t", record, 4));
        assert_eq!(moved.attempts(), 4);
        moved
    }
}
