//! What is asked: method, path, body, and whether it may be asked twice.

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use leasehold_api::{Error, ErrorKind, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde::Serialize;

use crate::lines::Parcel;

/// What may stand in a path or a query as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// A long body gets a second more for so many bytes: a slow line is not a dead one.
const BYTES_PER_SECOND: u64 = 1 << 20;

/// Whether a request may be sent again although the one before may have been carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It has a request id, or twice is the same as once.
    Yes,
    /// Twice is not the same as once: only if it certainly was not sent.
    IfUnsent,
}

/// A path and its query, escaped.
#[derive(Debug, Clone)]
pub(crate) struct Path {
    text: String,
    asks: bool,
    /// A name in it is empty; the path would be another one.
    nameless: bool,
}

impl Path {
    /// From a path of the door's own words.
    pub fn new(words: &'static str) -> Self {
        Self { text: words.to_owned(), asks: false, nameless: false }
    }

    /// Adds a name: one segment, whatever it is made of.
    pub fn name(mut self, name: impl AsRef<[u8]>) -> Self {
        self.nameless |= name.as_ref().is_empty();
        self.text.push('/');
        self.text.extend(percent_encode(name.as_ref(), PLAIN));
        self
    }

    /// Adds a word of the door's own.
    pub fn word(mut self, word: &'static str) -> Self {
        self.text.push('/');
        self.text.push_str(word);
        self
    }

    /// Adds to the query.
    pub fn query(mut self, name: &'static str, value: impl Display) -> Self {
        self.text.push(if self.asks { '&' } else { '?' });
        self.asks = true;
        self.text.push_str(name);
        self.text.push('=');
        self.text.extend(percent_encode(value.to_string().as_bytes(), PLAIN));
        self
    }

    /// Adds to the query if there is something to add.
    pub fn query_if(self, name: &'static str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub parcel: Parcel,
    /// What is asked, for errors.
    pub asked: String,
    /// How long the server may let it wait.
    pub wait: Duration,
    /// How long an answer may take besides; `None`: as long as the options say.
    pub within: Option<Duration>,
    /// How long it is tried; `None`: as long as the options say.
    pub patience: Option<Duration>,
    pub repeat: Repeat,
    nameless: bool,
}

impl Ask {
    /// A request without a body.
    pub fn new(method: Method, path: Path, asked: impl Into<String>) -> Self {
        let nameless = path.nameless;
        let parcel = Parcel { method, path: path.text, body: Bytes::new(), raw: None };
        Self {
            parcel,
            asked: asked.into(),
            wait: Duration::ZERO,
            within: None,
            patience: None,
            repeat: Repeat::Yes,
            nameless,
        }
    }

    /// A question.
    pub fn get(path: Path, asked: impl Into<String>) -> Self {
        Self::new(Method::GET, path, asked)
    }

    /// A request with a body of JSON.
    ///
    /// # Errors
    /// `Invalid` when something in it has no JSON, such as a header that is not a number.
    pub fn with(
        method: Method,
        path: Path,
        body: &impl Serialize,
        asked: impl Into<String>,
    ) -> Result<Self> {
        let mut ask = Self::new(method, path, asked);
        ask.parcel.body = json(body).map_err(|error| error.asking(ask.asked.clone()))?;
        Ok(ask)
    }

    /// A request that does something.
    ///
    /// # Errors
    /// See [`with`](Self::with).
    pub fn post(path: Path, body: &impl Serialize, asked: impl Into<String>) -> Result<Self> {
        Self::with(Method::POST, path, body, asked)
    }

    /// The server may let it wait so long.
    pub fn waiting(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// An answer may take no longer, and it is tried so long.
    pub fn hurried(mut self, within: Duration, patience: Duration) -> Self {
        (self.within, self.patience) = (Some(within), Some(patience));
        self
    }

    /// Twice is not the same as once.
    pub fn once(mut self) -> Self {
        self.repeat = Repeat::IfUnsent;
        self
    }

    /// Refuses what no path can say.
    ///
    /// # Errors
    /// `Invalid` for an empty name.
    pub fn check(&self) -> Result<()> {
        match self.nameless {
            true => {
                Err(Error::new(ErrorKind::Invalid, "the name is empty; give it at least a byte"))
            }
            false => Ok(()),
        }
    }

    /// How long one attempt may take.
    pub fn attempt(&self, usual: Duration) -> Duration {
        let long = Duration::from_secs(self.parcel.body.len() as u64 / BYTES_PER_SECOND);
        self.wait + self.within.unwrap_or(usual) + long
    }
}

/// Something as JSON.
///
/// # Errors
/// `Invalid` when something in it has no JSON.
pub(crate) fn json(body: &impl Serialize) -> Result<Bytes> {
    let wrong = |error| Error::new(ErrorKind::Invalid, format!("it cannot be JSON: {error}"));
    serde_json::to_vec(body).map(Bytes::from).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_segment_whatever_it_is_made_of() {
        let path = Path::new("/v1/locks").name("a/b c%?#").word("check").query("token", 7);
        assert_eq!(path.text, "/v1/locks/a%2Fb%20c%25%3F%23/check?token=7");
        let path = Path::new("/v1/registers").name([0xff, b'x']).query("a", "&").query("b", "=");
        assert_eq!(path.text, "/v1/registers/%FFx?a=%26&b=%3D");
    }
}
