//! What a command answers, before it is written in the client's version of the protocol.

use std::borrow::Cow;
use std::sync::Arc;

/// An answer. RESP2 has fewer shapes; `codec` says how each is written there.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// A status such as `OK`.
    Status(Cow<'static, str>),
    /// An error with its code first, as in `WRONGTYPE Operation against ...`.
    Error(Cow<'static, str>),
    /// A whole number.
    Int(i64),
    /// Bytes.
    Bulk(Arc<[u8]>),
    /// No value where bytes would stand.
    Nil,
    /// No value where a list would stand.
    NilArray,
    /// A list.
    Array(Vec<Reply>),
    /// Names and values; a flat list in RESP2.
    Map(Vec<(Reply, Reply)>),
    /// A list without an order; a list in RESP2.
    Set(Vec<Reply>),
    /// A number with a fraction; bytes in RESP2.
    Double(f64),
    /// Yes or no; 1 or 0 in RESP2.
    Bool(bool),
    /// A number of any length, in decimal digits; bytes in RESP2.
    Big(String),
    /// Text with its kind, `txt` or `mkd`; bytes in RESP2.
    Verbatim([u8; 3], Arc<[u8]>),
    /// Something the client did not ask for; a list in RESP2.
    Push(Vec<Reply>),
}

impl Reply {
    /// The status `OK`.
    pub const OK: Self = Self::Status(Cow::Borrowed("OK"));

    /// Bytes.
    pub fn bulk(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bulk(bytes.as_ref().into())
    }

    /// About how many bytes it takes when it is written. Parts are shared with what they were read
    /// from, so that an answer may be far larger than the memory that it takes until then.
    pub fn bytes(&self) -> usize {
        let all = |parts: &[Self]| parts.iter().map(Self::bytes).sum::<usize>();
        16 + match self {
            Self::Bulk(bytes) | Self::Verbatim(_, bytes) => bytes.len(),
            Self::Status(text) | Self::Error(text) => text.len(),
            Self::Big(digits) => digits.len(),
            Self::Array(parts) | Self::Set(parts) | Self::Push(parts) => all(parts),
            Self::Map(pairs) => pairs.iter().map(|(one, two)| one.bytes() + two.bytes()).sum(),
            Self::Int(_) | Self::Nil | Self::NilArray | Self::Double(_) | Self::Bool(_) => 0,
        }
    }

    /// An error with a text made for it.
    pub fn error(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Error(text.into())
    }
}
