//! Names of locks, queues and exchanges, checked once where they enter.

use alloc::sync::Arc;

use crate::limits::NAME_BYTES;

/// 1 to 255 bytes of UTF-8 without control characters. Cloning shares the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameError {
    /// It has no characters.
    Empty,
    /// It has this many bytes; 255 are allowed.
    TooLong(usize),
    /// There is a control character at this byte.
    Control(usize),
}

impl core::fmt::Display for NameError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Empty => write!(f, "the name is empty; give 1 to {NAME_BYTES} bytes of UTF-8"),
            Self::TooLong(n) => {
                write!(f, "the name has {n} bytes; shorten it to {NAME_BYTES} or fewer")
            }
            Self::Control(at) => {
                write!(f, "the name has a control character at byte {at}; remove it")
            }
        }
    }
}

impl core::error::Error for NameError {}

impl Name {
    /// Checks a text.
    ///
    /// # Errors
    /// When it is empty, longer than 255 bytes or has a control character.
    ///
    /// ```
    /// use leasehold_core::{Name, NameError};
    /// assert_eq!(Name::new("stock/42").unwrap().as_str(), "stock/42");
    /// assert_eq!(Name::new(""), Err(NameError::Empty));
    /// assert_eq!(Name::new("a\nb"), Err(NameError::Control(1)));
    /// ```
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_BYTES {
            return Err(NameError::TooLong(text.len()));
        }
        match text.char_indices().find(|(_, c)| c.is_control()) {
            Some((at, _)) => Err(NameError::Control(at)),
            None => Ok(Self(text.into())),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, shared.
    pub(crate) fn shared(&self) -> Arc<str> {
        self.0.clone()
    }

    /// The text's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl core::fmt::Display for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0)
    }
}
