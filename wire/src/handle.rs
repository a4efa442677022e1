//! Sessions and receipts as text.
//!
//! A door seals what it hands out, so that a guessed number is no session and no receipt. To a
//! client the seal is the session's proof; it gives the text back as it got it.
//!
//! ```text
//! session   id.proof                     81.5f0c…
//! receipt   token.place.session.proof    4711.9f.81.77ab…     (place in hexadecimal)
//! ```

use std::sync::Arc;

use leasehold_api::engine::{Receipt, SessionRef};
use leasehold_api::{Error, ErrorKind, Result};

/// No session or receipt is longer.
pub const HANDLE_BYTES_MAX: usize = 512;

/// A session as text.
pub fn session_text(session: &SessionRef) -> String {
    match &session.proof {
        Some(proof) => format!("{}.{proof}", session.id),
        None => session.id.to_string(),
    }
}

/// Reads a session.
///
/// # Errors
/// `Invalid` when the text has not the form of one.
pub fn session_of(text: &str) -> Result<SessionRef> {
    let wrong = || {
        let wrong = "this is not a session; send the text that POST /v1/sessions gave you";
        Error::new(ErrorKind::Invalid, wrong)
    };
    if text.len() > HANDLE_BYTES_MAX {
        return Err(wrong());
    }
    session_in(text).ok_or_else(wrong)
}

fn session_in(text: &str) -> Option<SessionRef> {
    let (id, proof) = match text.split_once('.') {
        Some((id, proof)) => (id, Some(Arc::from(proof))),
        None => (text, None),
    };
    Some(SessionRef { id: number(id)?, proof })
}

/// A receipt as text.
pub fn receipt_text(receipt: &Receipt) -> String {
    let Receipt { token, place, session } = receipt;
    format!("{token}.{place:x}.{}", session_text(session))
}

/// Reads a receipt.
///
/// # Errors
/// `Invalid` when the text has not the form of one.
pub fn receipt_of(text: &str) -> Result<Receipt> {
    let read = || {
        let (token, rest) = text.split_once('.')?;
        let (place, session) = rest.split_once('.')?;
        let hex = !place.is_empty() && place.bytes().all(|c| c.is_ascii_hexdigit());
        let place = if hex { u128::from_str_radix(place, 16).ok()? } else { return None };
        Some(Receipt { token: number(token)?, place, session: session_in(session)? })
    };
    let found = if text.len() > HANDLE_BYTES_MAX { None } else { read() };
    found.ok_or_else(|| {
        let wrong = "this is not a receipt; send the text that came with the delivery";
        Error::new(ErrorKind::Invalid, wrong)
    })
}

/// `parse` would take a sign as well.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_as_they_were() {
        let session = SessionRef { id: 81, proof: Some("5f.0c".into()) };
        assert_eq!(session_of(&session_text(&session)).unwrap(), session);
        let receipt = Receipt { token: 4711, place: u128::MAX, session };
        assert_eq!(receipt_of(&receipt_text(&receipt)).unwrap(), receipt);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", ".", "x", "-1.a", "+1.a", "99999999999999999999.a"] {
            assert_eq!(session_of(text).unwrap_err().kind, ErrorKind::Invalid, "{text}");
        }
        for text in ["", "1", "1.2", "1.g.3.a", "1..3.a", "1.+2.3.a", "1.2.x.a"] {
            assert_eq!(receipt_of(text).unwrap_err().kind, ErrorKind::Invalid, "{text}");
        }
        assert!(session_of(&"1".repeat(HANDLE_BYTES_MAX + 1)).is_err());
    }
}
