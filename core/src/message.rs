//! A message as it is published and as it lies in the journal.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::Time;
use crate::wire::{self, DecodeError, Reader};

/// A header's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A floating-point number by its bits, so that equality is exact.
    Float(u64),
    /// Text.
    Text(Box<str>),
    /// Anything else, as its door encodes it.
    Bytes(Box<[u8]>),
}

impl Value {
    /// Length of its content in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Bool(_) => 1,
            Self::Int(_) | Self::Float(_) => 8,
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

/// Headers in the order given.
pub type Headers = Vec<(Box<str>, Value)>;

/// When a message may first be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Due {
    /// At once.
    #[default]
    Now,
    /// After this time.
    After(Time),
    /// At this wall-clock time, microseconds since 1970.
    At(u64),
}

/// What is published. The usual message is its body alone; the rest is boxed away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// The payload.
    pub body: Vec<u8>,
    /// 0 is the lowest; more than the queue knows counts as its highest.
    pub priority: u8,
    /// The publisher's confirm does not wait for the disk; the message may be lost with the
    /// machine.
    pub transient: bool,
    /// What few messages have.
    pub more: Option<Box<More>>,
}

impl Message {
    /// A plain message.
    pub fn new(body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    /// The rarer fields, to set them.
    pub fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }
}

/// The rarer fields of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct More {
    /// Application headers; the headers exchange routes by them.
    pub headers: Headers,
    /// Properties as the door that published them encodes them.
    pub properties: Vec<u8>,
    /// The idempotence key: a queue with a window takes each id once.
    pub id: Option<Arc<str>>,
    /// The ordering key: messages of one key are delivered one at a time, in order.
    pub key: Option<Arc<str>>,
    /// Dropped or dead-lettered if it waits longer.
    pub ttl_us: Option<Time>,
    /// When it may first be delivered.
    pub due: Due,
}

/// A message's bytes in the journal, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The exchange it was published to; empty for the default one.
    pub exchange: &'a str,
    /// Its routing key; the queue's name with the default exchange.
    pub routing_key: &'a str,
    /// When it was accepted, wall-clock microseconds since 1970.
    pub published_at: u64,
    /// Its priority as published.
    pub priority: u8,
    /// Whether it was published as transient.
    pub transient: bool,
    /// The idempotence key.
    pub id: Option<&'a str>,
    /// The ordering key.
    pub key: Option<&'a str>,
    /// Encoded headers; see [`Envelope::headers`].
    pub headers: &'a [u8],
    /// Properties as the publishing door encoded them.
    pub properties: &'a [u8],
    /// The payload.
    pub body: &'a [u8],
}

impl<'a> Envelope<'a> {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let flags = u8::from(self.transient)
            | u8::from(self.id.is_some()) << 1
            | u8::from(self.key.is_some()) << 2
            | u8::from(!self.headers.is_empty()) << 3
            | u8::from(!self.properties.is_empty()) << 4;
        out.push(flags);
        out.push(self.priority);
        wire::put_u64(out, self.published_at);
        wire::put_bytes(out, self.exchange.as_bytes());
        wire::put_bytes(out, self.routing_key.as_bytes());
        for text in [self.id, self.key].into_iter().flatten() {
            wire::put_bytes(out, text.as_bytes());
        }
        for bytes in [self.headers, self.properties] {
            if !bytes.is_empty() {
                wire::put_bytes(out, bytes);
            }
        }
        wire::put_bytes(out, self.body);
    }

    pub(crate) fn decode(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let flags = from.u8("message flags")?;
        let bit = |n: u8| flags & (1 << n) != 0;
        Ok(Self {
            transient: bit(0),
            priority: from.u8("priority")?,
            published_at: from.u64("publication time")?,
            exchange: from.text("exchange")?,
            routing_key: from.text("routing key")?,
            id: if bit(1) { Some(from.text("message id")?) } else { None },
            key: if bit(2) { Some(from.text("ordering key")?) } else { None },
            headers: if bit(3) { from.bytes("headers")? } else { &[] },
            properties: if bit(4) { from.bytes("properties")? } else { &[] },
            body: from.bytes("body")?,
        })
    }

    /// The headers, decoded.
    ///
    /// # Errors
    /// When the bytes are not headers.
    pub fn headers(&self) -> Result<Headers, DecodeError> {
        decode_headers(self.headers)
    }
}

pub(crate) fn encode_headers(headers: &Headers, out: &mut Vec<u8>) {
    for (name, value) in headers {
        wire::put_bytes(out, name.as_bytes());
        encode_value(value, out);
    }
}

pub(crate) fn encode_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Bool(b) => out.extend_from_slice(&[0, u8::from(*b)]),
        Value::Int(n) => {
            out.push(1);
            wire::put_u64(out, *n as u64);
        }
        Value::Float(bits) => {
            out.push(2);
            wire::put_u64(out, *bits);
        }
        Value::Text(text) => {
            out.push(3);
            wire::put_bytes(out, text.as_bytes());
        }
        Value::Bytes(bytes) => {
            out.push(4);
            wire::put_bytes(out, bytes);
        }
    }
}

pub(crate) fn decode_value(from: &mut Reader<'_>) -> Result<Value, DecodeError> {
    Ok(match from.u8("header type")? {
        0 => Value::Bool(from.flag("header flag")?),
        1 => Value::Int(from.u64("header number")? as i64),
        2 => Value::Float(from.u64("header number")?),
        3 => Value::Text(from.text("header text")?.into()),
        4 => Value::Bytes(from.bytes("header bytes")?.into()),
        _ => {
            return Err(DecodeError { what: "header type", offset: 0 });
        }
    })
}

pub(crate) fn decode_headers(bytes: &[u8]) -> Result<Headers, DecodeError> {
    let mut from = Reader::new(bytes);
    let mut headers = Headers::new();
    while !from.rest().is_empty() {
        let name = from.text("header name")?.into();
        headers.push((name, decode_value(&mut from)?));
    }
    Ok(headers)
}
