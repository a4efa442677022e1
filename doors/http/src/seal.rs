//! Seals on sessions and receipts: a guessed number opens nothing.
//!
//! A session's number is no secret, it is shown by inspect. What the door hands out is the number
//! with a seal, the first 16 bytes of an HMAC-SHA256 over what it names and the name of the user
//! it was given to. Another user's session is therefore as good as none. If the engine behind the
//! door has a proof of its own, it travels along, sealed as well.

use aws_lc_rs::{constant_time, hmac};
use leasehold_api::engine::{Receipt, SessionRef};
use leasehold_api::{Error, ErrorKind, Result};
use leasehold_users::hex;

const SEAL_BYTES: usize = 16;

/// Seals, and opens what it sealed.
pub(crate) struct Seal {
    key: hmac::Key,
}

impl Seal {
    pub fn new(secret: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// The session as its user gets it.
    pub fn session(&self, session: &SessionRef, user: &str) -> SessionRef {
        let seal = self.seal(&session_parts(session, user));
        sealed(session, &seal)
    }

    /// The session as the engine knows it.
    ///
    /// # Errors
    /// `Foreign` when this door did not give it to this user.
    pub fn open_session(&self, session: &SessionRef, user: &str) -> Result<SessionRef> {
        let (seal, inner) = unsealed(session);
        let good = seal.is_some_and(|seal| self.fits(&seal, &session_parts(&inner, user)));
        if good {
            return Ok(inner);
        }
        let wrong = "this session was not given to you by this server; open one of your own";
        Err(Error::new(ErrorKind::Foreign, wrong))
    }

    /// The receipt as its user gets it.
    pub fn receipt(&self, receipt: &Receipt, user: &str) -> Receipt {
        let seal = self.seal(&receipt_parts(receipt, user));
        let session = sealed(&receipt.session, &seal);
        Receipt { session, ..receipt.clone() }
    }

    /// The receipt as the engine knows it.
    ///
    /// # Errors
    /// `Foreign` when this door did not give it to this user.
    pub fn open_receipt(&self, receipt: &Receipt, user: &str) -> Result<Receipt> {
        let (seal, session) = unsealed(&receipt.session);
        let inner = Receipt { session, ..receipt.clone() };
        let good = seal.is_some_and(|seal| self.fits(&seal, &receipt_parts(&inner, user)));
        if good {
            return Ok(inner);
        }
        let wrong = "this receipt was not given to you by this server; settle what you received";
        Err(Error::new(ErrorKind::Foreign, wrong))
    }

    fn seal(&self, parts: &[u8]) -> String {
        hex(&hmac::sign(&self.key, parts).as_ref()[..SEAL_BYTES])
    }

    fn fits(&self, seal: &str, parts: &[u8]) -> bool {
        let right = self.seal(parts);
        constant_time::verify_slices_are_equal(right.as_bytes(), seal.as_bytes()).is_ok()
    }
}

fn sealed(session: &SessionRef, seal: &str) -> SessionRef {
    let proof = match &session.proof {
        Some(inner) => format!("{seal}.{inner}"),
        None => seal.to_string(),
    };
    SessionRef { id: session.id, proof: Some(proof.into()) }
}

fn unsealed(session: &SessionRef) -> (Option<String>, SessionRef) {
    let (seal, inner) = match session.proof.as_deref().map(|proof| proof.split_once('.')) {
        None => (None, None),
        Some(None) => (session.proof.as_deref().map(str::to_string), None),
        Some(Some((seal, inner))) => (Some(seal.to_string()), Some(inner.into())),
    };
    (seal, SessionRef { id: session.id, proof: inner })
}

/// Lengths go before what they measure, so that no two things have the same parts.
fn session_parts(session: &SessionRef, user: &str) -> Vec<u8> {
    let mut parts = b"session".to_vec();
    write(&mut parts, session, user);
    parts
}

fn receipt_parts(receipt: &Receipt, user: &str) -> Vec<u8> {
    let mut parts = b"receipt".to_vec();
    parts.extend(receipt.token.to_le_bytes());
    parts.extend(receipt.place.to_le_bytes());
    write(&mut parts, &receipt.session, user);
    parts
}

fn write(parts: &mut Vec<u8>, session: &SessionRef, user: &str) {
    parts.extend(session.id.to_le_bytes());
    let inner = session.proof.as_deref().unwrap_or("");
    for text in [user, inner] {
        parts.extend((text.len() as u64).to_le_bytes());
        parts.extend(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sealed_for_a_user_opens() {
        let (seal, other) = (Seal::new(&[1; 32]), Seal::new(&[2; 32]));
        for proof in [None, Some("a.b".into())] {
            let session = SessionRef { id: 7, proof };
            let given = seal.session(&session, "ada");
            assert_eq!(seal.open_session(&given, "ada").unwrap(), session);
            assert!(seal.open_session(&given, "bob").is_err());
            assert!(other.open_session(&given, "ada").is_err());
            assert!(seal.open_session(&session, "ada").is_err());
            assert!(seal.open_session(&SessionRef { id: 8, ..given.clone() }, "ada").is_err());

            let receipt = Receipt { token: 1, place: 2, session };
            let given = seal.receipt(&receipt, "ada");
            assert_eq!(seal.open_receipt(&given, "ada").unwrap(), receipt);
            assert!(seal.open_receipt(&given, "bob").is_err());
            assert!(seal.open_receipt(&Receipt { token: 2, ..given.clone() }, "ada").is_err());
            assert!(seal.open_session(&given.session, "ada").is_err());
        }
    }
}
