//! Messages on their way there and back.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use leasehold_api::engine::{Content, Death, Due, Message, Publish, Target, Value};
use leasehold_api::{Error, ErrorKind, Result};

use crate::config::NAME_MAX;

/// The longest body.
const BODY_MAX: usize = 16 << 20;
/// The most that all headers may take.
const HEADERS_MAX: usize = 64 << 10;
/// The longest time that the broker takes, milliseconds.
const TIME_MAX: u128 = u32::MAX as u128;
/// How many deaths of a message are told.
const DEATHS_MAX: usize = 100;

fn invalid(wrong: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, wrong)
}

/// A name of a queue, exchange or routing key as AMQP has them.
pub(crate) fn short(what: &str, text: &str) -> Result<ShortString> {
    let long = |_| invalid(format!("{what} has {} bytes, at most 255 are allowed", text.len()));
    ShortString::try_new(text).map_err(long)
}

/// The name of a queue or an exchange.
pub(crate) fn name(what: &str, name: &str) -> Result<ShortString> {
    if name.is_empty() || name.chars().any(char::is_control) {
        let wrong = format!("a {what} has 1 to {NAME_MAX} bytes without control characters");
        return Err(invalid(wrong));
    }
    short(&format!("the name of the {what}"), name)
}

/// A time in milliseconds, rounded up.
pub(crate) fn millis(what: &str, time: Duration) -> Result<u32> {
    let millis = time.as_nanos().div_ceil(1_000_000);
    let short = (millis <= TIME_MAX).then_some(millis as u32);
    short.ok_or_else(|| invalid(format!("{what} is at most 2^32 milliseconds (49 days)")))
}

/// A value as AMQP has it.
pub(crate) fn value(value: &Value) -> AMQPValue {
    match value {
        Value::Bool(value) => AMQPValue::Boolean(*value),
        Value::Int(value) => AMQPValue::LongLongInt(*value),
        Value::Float(value) => AMQPValue::Double(*value),
        Value::Text(value) => AMQPValue::LongString(value.as_str().into()),
        Value::Bytes(value) => AMQPValue::ByteArray(value.as_slice().into()),
    }
}

/// Headers or arguments as AMQP has them.
pub(crate) fn table(values: &[(String, Value)]) -> Result<FieldTable> {
    let mut table = BTreeMap::new();
    for (name, of) in values {
        if table.insert(short("a header's name", name)?, value(of)).is_some() {
            return Err(invalid(format!("header {name} is there twice")));
        }
    }
    Ok(table.into())
}

/// A value as we have it; what we have no type for is JSON.
fn read(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(value) => Value::Bool(*value),
        AMQPValue::ShortShortInt(value) => Value::Int((*value).into()),
        AMQPValue::ShortShortUInt(value) => Value::Int((*value).into()),
        AMQPValue::ShortInt(value) => Value::Int((*value).into()),
        AMQPValue::ShortUInt(value) => Value::Int((*value).into()),
        AMQPValue::LongInt(value) => Value::Int((*value).into()),
        AMQPValue::LongUInt(value) => Value::Int((*value).into()),
        AMQPValue::LongLongInt(value) => Value::Int(*value),
        AMQPValue::Timestamp(value) => Value::Int((*value).cast_signed()),
        AMQPValue::Float(value) => Value::Float((*value).into()),
        AMQPValue::Double(value) => Value::Float(*value),
        AMQPValue::ShortString(value) => Value::Text(value.to_string()),
        AMQPValue::LongString(value) => match std::str::from_utf8(value.as_bytes()) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => Value::Bytes(value.as_bytes().to_vec()),
        },
        AMQPValue::ByteArray(value) => Value::Bytes(value.as_slice().to_vec()),
        other => Value::Bytes(serde_json::to_vec(other).unwrap_or_default()),
    }
}

fn int(value: &AMQPValue) -> Option<u64> {
    match read(value) {
        Value::Int(value) => u64::try_from(value).ok(),
        _ => None,
    }
}

/// Refuses what a broker cannot do or would not take.
pub(crate) fn acceptable(message: &Message) -> Result<()> {
    let absent = |what| Err(Error::unsupported("amqp", what));
    match message.due {
        Due::Now => {}
        Due::After(delay) if delay.is_zero() => {}
        Due::After(_) | Due::At(_) => return absent("delayed messages"),
    }
    if message.key.is_some() {
        return absent("ordering keys");
    }
    if message.body.len() > BODY_MAX {
        return Err(invalid(format!("a body has at most {BODY_MAX} bytes")));
    }
    let size = |of: &Value| match of {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 8,
    };
    let headers = message.headers.iter().map(|(name, of)| name.len() + 5 + size(of));
    if headers.sum::<usize>() > HEADERS_MAX {
        return Err(invalid(format!("headers take at most {HEADERS_MAX} bytes")));
    }
    Ok(())
}

/// Where a message goes: exchange and routing key.
pub(crate) fn route(publish: &Publish) -> Result<(ShortString, ShortString)> {
    Ok(match &publish.target {
        Target::Queue(queue) => (ShortString::default(), name("queue", queue)?),
        Target::Exchange(exchange, key) => {
            (name("exchange", exchange)?, short("the routing key", key)?)
        }
    })
}

/// What goes along with a body.
pub(crate) fn properties(message: &Message) -> Result<BasicProperties> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut properties = BasicProperties::default()
        .with_delivery_mode(if message.transient { 1 } else { 2 })
        .with_priority(message.priority)
        .with_timestamp(now.as_secs())
        .with_headers(table(&message.headers)?);
    if let Some(id) = &message.id {
        properties = properties.with_message_id(short("the id", id)?);
    }
    if let Some(ttl) = message.ttl {
        properties = properties.with_expiration(millis("a TTL", ttl)?.to_string().into());
    }
    Ok(properties)
}

/// How often a message was delivered before: quorum queues count, others say whether.
pub(crate) fn attempt(delivery: &Delivery) -> u32 {
    let headers = delivery.properties.headers().as_ref();
    let counted = headers.and_then(|headers| headers.inner().get("x-delivery-count"));
    let before = counted.and_then(int).unwrap_or(u64::from(delivery.redelivered));
    u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
}

/// A message as it was published.
pub(crate) fn content(delivery: Delivery) -> Content {
    let properties = &delivery.properties;
    let empty = FieldTable::default();
    let headers = properties.headers().as_ref().unwrap_or(&empty);
    // What the broker adds is not the publisher's.
    let own = |name: &str| {
        let added = ["x-death", "x-delivery-count"].contains(&name);
        let added = added || name.starts_with("x-first-death-");
        !added && !name.starts_with("x-last-death-")
    };
    let of_user = headers.inner().iter().filter(|(name, _)| own(name.as_str()));
    let published = properties.timestamp().unwrap_or_default();
    Content {
        priority: properties.priority().unwrap_or_default(),
        headers: of_user.map(|(name, value)| (name.to_string(), read(value))).collect(),
        id: properties.message_id().as_ref().map(ToString::to_string),
        key: None,
        exchange: delivery.exchange.to_string(),
        routing_key: delivery.routing_key.to_string(),
        published_at: at(published),
        deaths: deaths(headers),
        body: delivery.data,
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH)
}

/// The deaths of a message; the broker puts the latest first
/// (<https://www.rabbitmq.com/docs/dlx#effects>).
fn deaths(headers: &FieldTable) -> Vec<Death> {
    let Some(AMQPValue::FieldArray(deaths)) = headers.inner().get("x-death") else {
        return Vec::new();
    };
    let deaths = deaths.as_slice().iter().take(DEATHS_MAX).rev();
    deaths.filter_map(|death| death.as_field_table().map(death_of)).collect()
}

fn death_of(death: &FieldTable) -> Death {
    let text = |name: &str| match death.inner().get(name).map(read) {
        Some(Value::Text(text)) => text,
        _ => String::new(),
    };
    let number = |name: &str| death.inner().get(name).and_then(int);
    let reason = match text("reason").as_str() {
        "maxlen" => "overflow".to_owned(),
        "delivery_limit" => "deliveries".to_owned(),
        other => other.to_owned(),
    };
    Death {
        queue: text("queue"),
        reason,
        count: u32::try_from(number("count").unwrap_or(1)).unwrap_or(u32::MAX),
        first_at: at(number("time").unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_went() {
        let values = [
            Value::Bool(true),
            Value::Int(-7),
            Value::Float(0.25),
            Value::Text("ü".to_owned()),
            Value::Bytes(vec![0, 255]),
        ];
        for one in values {
            assert_eq!(read(&value(&one)), one);
        }
        assert_eq!(read(&AMQPValue::LongUInt(7)), Value::Int(7));
        assert_eq!(read(&AMQPValue::Void), Value::Bytes(b"\"Void\"".to_vec()));
    }

    #[test]
    fn what_a_broker_cannot_do_is_refused() {
        let kind = |message| acceptable(&message).expect_err("it cannot").kind;
        let delayed = Message::new("x").delay(Duration::from_secs(1));
        assert_eq!(kind(delayed), ErrorKind::Unsupported);
        assert_eq!(kind(Message::new("x").key("k")), ErrorKind::Unsupported);
        assert_eq!(kind(Message::new(vec![0; BODY_MAX + 1])), ErrorKind::Invalid);
        let twice = Message::new("x").header("h", Value::Int(1)).header("h", Value::Int(2));
        assert!(properties(&twice).is_err());
        assert!(millis("a time", Duration::from_secs(60 * 86_400)).is_err());
        assert_eq!(millis("a time", Duration::from_nanos(1)).expect("it is short"), 1);
    }
}
