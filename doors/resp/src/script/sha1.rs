//! SHA-1, by which clients name scripts. Nothing here depends on it being hard to forge.

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY};

/// The SHA-1 of `bytes`.
pub(super) fn digest(bytes: &[u8]) -> [u8; 20] {
    let digest = digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes);
    digest.as_ref().try_into().expect("SHA-1 has twenty bytes")
}

/// Twenty bytes as forty small hexadecimal digits.
pub(super) fn hex(digest: &[u8; 20]) -> [u8; 40] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = [0; 40];
    for (pair, byte) in out.chunks_exact_mut(2).zip(digest) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    out
}

/// The bytes of forty hexadecimal digits of either case.
pub(super) fn unhex(text: &[u8]) -> Option<[u8; 20]> {
    let text: &[u8; 40] = text.try_into().ok()?;
    let (mut out, mut wrong) = ([0; 20], 0);
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        let (high, low) = (DIGIT[usize::from(pair[0])], DIGIT[usize::from(pair[1])]);
        *byte = high << 4 | low;
        wrong |= (high | low) & NO_DIGIT;
    }
    (wrong == 0).then_some(out)
}

const NO_DIGIT: u8 = 0x80;

/// What each byte means as a hexadecimal digit.
const DIGIT: [u8; 256] = {
    let mut table = [NO_DIGIT; 256];
    let mut digit = 0;
    while digit < 16 {
        table[b"0123456789abcdef"[digit] as usize] = digit as u8;
        table[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digests() {
        for (text, want) in [
            (&b""[..], "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
            (b"abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (&[b'a'; 1_000_000], "34aa973cd4c4daa4f61eeb2bdbad27316534016f"),
        ] {
            let digest = digest(text);
            assert_eq!(hex(&digest), want.as_bytes());
            assert_eq!(unhex(&want.as_bytes()[1..]), None);
            assert_eq!(unhex(want.replace('9', "g").as_bytes()), None);
            assert_eq!(unhex(want.to_uppercase().as_bytes()), Some(digest));
        }
    }
}
