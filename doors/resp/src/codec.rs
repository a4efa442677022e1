//! RESP, the protocol of Redis, as bytes: requests are read from what a client sent, replies are
//! written in the version that it speaks.
//!
//! Nothing here touches a socket. [`Parser`] is handed the bytes that have come so far and says
//! which of them are a request; it looks at no byte twice, copies none of an array request and
//! keeps no more memory than the client has sent. [`write()`] appends a reply to a buffer.

mod double;
mod inline;
mod parse;
mod write;

#[cfg(test)]
mod tests;

pub use double::double;
pub use parse::{Arguments, Parsed, Parser, ProtocolError, Request, RequestLimits};
pub use write::write;

/// The version of the protocol that a client has chosen with HELLO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// Without maps, doubles and pushes; what every client begins with.
    #[default]
    Resp2,
    /// The newer one.
    Resp3,
}
