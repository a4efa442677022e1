//! Statements as text, with every value escaped in one place.
//!
//! The text protocol is used because it carries several statements in one round trip, which the
//! prepared one cannot. Values come in through [`Sql`] alone: numbers as numbers, bytes as quoted
//! binary literals. Within quotes only `'` and `\` mean something (the sessions here run without
//! `NO_BACKSLASH_ESCAPES`, and in utf8mb4 neither occurs inside a longer character); see "String
//! Literals" in the MySQL manual.

use std::fmt::{Display, Write};

/// Microseconds since 1970 by the server's clock, fixed for a statement and free of time zones.
pub(crate) const NOW: &str = "TIMESTAMPDIFF(MICROSECOND,'1970-01-01',UTC_TIMESTAMP(6))";

/// Statements under construction.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sql {
    text: Vec<u8>,
}

impl Sql {
    pub fn new(text: &str) -> Self {
        Self { text: text.as_bytes().to_vec() }
    }

    /// A transaction, with the time in `@n`.
    pub fn begin() -> Self {
        Self::new("START TRANSACTION;").clock()
    }

    /// Sets `@n` to the time.
    pub fn clock(self) -> Self {
        self.add("SET @n=").add(NOW).add(";")
    }

    /// Text of our own: never a value.
    #[must_use]
    pub fn add(mut self, text: &str) -> Self {
        self.text.extend_from_slice(text.as_bytes());
        self
    }

    /// Further statements.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.text.extend_from_slice(&other.text);
        self
    }

    /// A whole number.
    #[must_use]
    pub fn number(mut self, number: impl Into<i128> + Copy) -> Self {
        self.text.extend_from_slice(number.into().to_string().as_bytes());
        self
    }

    /// Bytes of any kind.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.text.reserve(bytes.len() + 10);
        self.text.extend_from_slice(b"_binary'");
        for byte in bytes {
            if matches!(byte, b'\'' | b'\\') {
                self.text.push(b'\\');
            }
            self.text.push(*byte);
        }
        self.text.push(b'\'');
        self
    }

    /// A number or NULL.
    #[must_use]
    pub fn number_or_null(self, number: Option<u64>) -> Self {
        match number {
            Some(number) => self.number(number),
            None => self.add("NULL"),
        }
    }

    /// Bytes or NULL.
    #[must_use]
    pub fn bytes_or_null(self, bytes: Option<&[u8]>) -> Self {
        match bytes {
            Some(bytes) => self.bytes(bytes),
            None => self.add("NULL"),
        }
    }

    /// Numbers with commas between them, in brackets.
    #[must_use]
    pub fn numbers(self, numbers: impl IntoIterator<Item = u64>) -> Self {
        self.list(numbers, |sql, number| sql.number(number))
    }

    /// Things with commas between them, in brackets.
    #[must_use]
    pub fn list<T>(
        self,
        things: impl IntoIterator<Item = T>,
        each: impl Fn(Self, T) -> Self,
    ) -> Self {
        self.add("(").joined(things, ",", each).add(")")
    }

    /// Things with a text between them.
    #[must_use]
    pub fn joined<T>(
        mut self,
        things: impl IntoIterator<Item = T>,
        between: &str,
        each: impl Fn(Self, T) -> Self,
    ) -> Self {
        for (place, thing) in things.into_iter().enumerate() {
            if place > 0 {
                self = self.add(between);
            }
            self = each(self, thing);
        }
        self
    }

    pub fn len(&self) -> usize {
        self.text.len()
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.text
    }
}

/// A name of ours in hex: tables and bells may only have such.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

/// The first bytes of the SHA-256 of some parts, each with its length before it.
pub(crate) fn hash<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let digest = context.finish();
    let mut short = [0; N];
    short.copy_from_slice(&digest.as_ref()[..N]);
    short
}

/// Names of tables, all with one prefix.
#[derive(Debug, Clone)]
pub(crate) struct Tables {
    prefix: String,
}

impl Tables {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// A statement with `{}` before each name of a table of ours.
    pub fn named(&self, text: &str) -> Sql {
        Sql::new(&text.replace("{}", &self.prefix))
    }

    /// The text itself.
    pub fn text(&self, text: &str) -> String {
        text.replace("{}", &self.prefix)
    }

    /// What makes names of this installation unlike those of another on one server.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl Display for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_literal_is_escaped() {
        let sql = Sql::new("SELECT ").bytes(b"a'b\\c\0;--").add(",").number(7u64);
        assert_eq!(sql.into_bytes(), b"SELECT _binary'a\\'b\\\\c\0;--',7");
    }

    #[test]
    fn a_hash_knows_where_its_parts_end() {
        assert_ne!(hash::<16>(&[b"a", b"bc"]), hash::<16>(&[b"ab", b"c"]));
        assert_eq!(hex(&hash::<24>(&[b"x"])).len(), 48);
    }
}
