//! How a message is shown.

use std::time::UNIX_EPOCH;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use leasehold::{Content, Value};
use serde_json::{Map, json};

/// A message as JSON. A body that is not text stands in `body_base64`.
pub fn to_json(content: &Content) -> Map<String, serde_json::Value> {
    let published = content.published_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let headers: Map<_, _> =
        content.headers.iter().map(|(name, value)| (name.clone(), header(value))).collect();
    let death = |death: &leasehold::Death| json!({ "queue": death.queue, "reason": death.reason, "count": death.count });
    let mut object = Map::new();
    match std::str::from_utf8(&content.body) {
        Ok(text) => object.insert("body".to_owned(), text.into()),
        Err(_) => {
            object.insert("body_base64".to_owned(), BASE64_STANDARD.encode(&content.body).into())
        }
    };
    object.insert("id".to_owned(), content.id.clone().into());
    object.insert("key".to_owned(), content.key.clone().into());
    object.insert("priority".to_owned(), content.priority.into());
    object.insert("headers".to_owned(), headers.into());
    object.insert("exchange".to_owned(), content.exchange.clone().into());
    object.insert("routing_key".to_owned(), content.routing_key.clone().into());
    let published_ms = u64::try_from(published.as_millis()).unwrap_or(u64::MAX);
    object.insert("published_unix_ms".to_owned(), published_ms.into());
    let deaths: Vec<_> = content.deaths.iter().map(death).collect();
    object.insert("deaths".to_owned(), deaths.into());
    object
}

/// A header's value as text, for the environment of a command.
pub fn header_text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Bytes(bytes) => BASE64_STANDARD.encode(bytes),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
    }
}

fn header(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        other => header_text(other).into(),
    }
}

/// A body on one line of at most so many columns.
pub fn glance(body: &[u8], columns: usize) -> String {
    let text = String::from_utf8_lossy(body);
    let plain = |c: char| if c.is_control() || c == '\u{fffd}' { '·' } else { c };
    let mut line: String = text.chars().take(columns).map(plain).collect();
    if text.chars().nth(columns).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glance_is_one_short_line() {
        assert_eq!(glance(b"a\nb", 10), "a·b");
        assert_eq!(glance("grün und blau".as_bytes(), 4), "grün…");
        assert_eq!(glance(&[255, b'a'], 4), "·a");
    }
}
