//! The byte codec under events and checkpoint cells.
//!
//! Integers are LEB128 varints because most of them are small or are differences; byte strings
//! carry their length. Decoding never panics and never allocates more than the input holds: a
//! length is checked against the bytes that are left before anything is taken. A general
//! serialisation crate was not used: events are a frozen file format, and a format that lives in
//! a derive changes when a struct does.

use alloc::vec::Vec;

/// Bytes that are not what they should be; says what was being read and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeError {
    /// What was being read.
    pub what: &'static str,
    /// Offset in bytes from the start of the input.
    pub offset: usize,
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "malformed {} at byte {} of the record", self.what, self.offset)
    }
}

impl core::error::Error for DecodeError {}

/// Appends an unsigned varint of 1 to 10 bytes.
#[inline]
pub fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a byte string with its length.
#[inline]
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends an optional byte string: absent is 0, present is its length plus one.
pub fn put_maybe(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => out.push(0),
        Some(bytes) => {
            put_u64(out, bytes.len() as u64 + 1);
            out.extend_from_slice(bytes);
        }
    }
}

/// Appends sixteen bytes, little endian.
pub fn put_u128(out: &mut Vec<u8>, value: u128) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Reads what the `put_` functions wrote.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// Bytes not read yet.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.offset..]
    }

    fn bad<T>(&self, what: &'static str) -> Result<T, DecodeError> {
        Err(DecodeError { what, offset: self.offset })
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        match self.bytes.get(self.offset) {
            Some(&byte) => {
                self.offset += 1;
                Ok(byte)
            }
            None => self.bad(what),
        }
    }

    /// A varint. Overlong and overflowing encodings are refused.
    #[inline]
    pub fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        let mut shift = 0;
        loop {
            let byte = self.u8(what)?;
            if shift == 63 && byte > 1 || shift > 0 && byte == 0 {
                return self.bad(what);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift += 7;
            if shift > 63 {
                return self.bad(what);
            }
        }
    }

    /// A varint that must fit 32 bits.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        let value = self.u64(what)?;
        u32::try_from(value).or_else(|_| self.bad(what))
    }

    /// A varint that must fit 16 bits.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        let value = self.u64(what)?;
        u16::try_from(value).or_else(|_| self.bad(what))
    }

    /// A byte that must be 0 or 1.
    pub fn flag(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => self.bad(what),
        }
    }

    /// Sixteen bytes, little endian.
    pub fn u128(&mut self, what: &'static str) -> Result<u128, DecodeError> {
        let bytes = self.take(16, what)?;
        let mut wide = [0; 16];
        wide.copy_from_slice(bytes);
        Ok(u128::from_le_bytes(wide))
    }

    /// Exactly `len` bytes.
    #[inline]
    pub fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        match self.rest().get(..len) {
            Some(bytes) => {
                self.offset += len;
                Ok(bytes)
            }
            None => self.bad(what),
        }
    }

    /// A byte string with its length.
    #[inline]
    pub fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.u64(what)?;
        match usize::try_from(len) {
            Ok(len) => self.take(len, what),
            Err(_) => self.bad(what),
        }
    }

    /// An optional byte string.
    pub fn maybe(&mut self, what: &'static str) -> Result<Option<&'a [u8]>, DecodeError> {
        match self.u64(what)? {
            0 => Ok(None),
            len => match usize::try_from(len - 1) {
                Ok(len) => self.take(len, what).map(Some),
                Err(_) => self.bad(what),
            },
        }
    }

    /// A byte string that must be UTF-8.
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let bytes = self.bytes(what)?;
        core::str::from_utf8(bytes).or_else(|_| self.bad(what))
    }

    /// How many elements follow, each at least `size_min` bytes: refuses counts that the
    /// remaining input cannot hold, so that a hostile count never sizes an allocation.
    pub fn count(&mut self, size_min: usize, what: &'static str) -> Result<usize, DecodeError> {
        let count = self.u64(what)?;
        match usize::try_from(count) {
            Ok(count) if count <= self.rest().len() / size_min.max(1) => Ok(count),
            _ => self.bad(what),
        }
    }

    /// Refuses bytes left over.
    pub fn end(&self, what: &'static str) -> Result<(), DecodeError> {
        if self.offset == self.bytes.len() { Ok(()) } else { self.bad(what) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_at_the_edges_and_refuse_overlong_forms() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_u64(&mut out, value);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.u64("n"), Ok(value));
            assert_eq!(reader.end("n"), Ok(()));
        }
        assert!(Reader::new(&[0x80, 0x00]).u64("n").is_err());
        assert!(Reader::new(&[0xff; 11]).u64("n").is_err());
        assert!(Reader::new(&[0x05, 1, 2]).bytes("b").is_err());
        assert!(Reader::new(&[0xff, 0xff, 3]).count(1, "c").is_err());
    }
}
