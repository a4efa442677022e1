//! Bytes in JSON: text where they are text, base64 where they are not.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use leasehold_api::{Error, ErrorKind, Result};

/// Bytes as one of two JSON fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text {
    /// The bytes, if they are UTF-8.
    pub text: Option<String>,
    /// The bytes in base64, if they are not.
    pub base64: Option<String>,
}

impl Text {
    /// Puts bytes into the field they fit.
    pub fn of(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self { text: Some(text), base64: None },
            Err(other) => Self { text: None, base64: Some(STANDARD.encode(other.as_bytes())) },
        }
    }
}

/// Reads base64: the usual alphabet with padding.
///
/// # Errors
/// `Invalid`, naming the field.
pub(crate) fn from_base64(field: &str, text: &str) -> Result<Vec<u8>> {
    STANDARD.decode(text).map_err(|error| {
        let wrong = format!("{field} is not base64 ({error}); use the standard alphabet with =");
        Error::new(ErrorKind::Invalid, wrong)
    })
}

/// Writes base64.
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Writes the base64 that may stand in a path.
pub(crate) fn to_base64_url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads the base64 that may stand in a path.
///
/// # Errors
/// `Invalid`, naming the field.
pub(crate) fn from_base64_url(field: &str, text: &str) -> Result<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).map_err(|error| {
        let wrong = format!("{field} is not base64 ({error}); use the URL alphabet without =");
        Error::new(ErrorKind::Invalid, wrong)
    })
}

/// The bytes of at most one of several fields; none is no bytes.
///
/// # Errors
/// `Invalid` when two are given.
pub(crate) fn one_of(
    text: Option<String>,
    base64: Option<String>,
    json: Option<Box<serde_json::value::RawValue>>,
    names: &str,
) -> Result<Option<Vec<u8>>> {
    match (text, base64, json) {
        (None, None, None) => Ok(None),
        (Some(text), None, None) => Ok(Some(text.into_bytes())),
        (None, Some(base64), None) => from_base64("base64", &base64).map(Some),
        (None, None, Some(json)) => Ok(Some(Box::<str>::from(json).into_string().into_bytes())),
        _ => Err(Error::new(ErrorKind::Invalid, format!("give only one of {names}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_and_bytes_become_base64() {
        assert_eq!(Text::of(b"hello".to_vec()).text.as_deref(), Some("hello"));
        let bytes = Text::of(vec![0xff, 0]);
        assert_eq!(bytes.text, None);
        assert_eq!(from_base64("base64", &bytes.base64.unwrap()).unwrap(), [0xff, 0]);
        assert!(from_base64("base64", "?").unwrap_err().wrong.contains("base64"));
    }
}
