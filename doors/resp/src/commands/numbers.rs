//! Numbers and words among the arguments, read as strictly as Redis reads them.

use std::borrow::Cow;

use crate::Reply;
use crate::scene::Step;

/// The error for options that do not fit.
pub const SYNTAX: Reply = Reply::Error(Cow::Borrowed("ERR syntax error"));
/// The error for what should be a whole number.
pub const NOT_INTEGER: Reply =
    Reply::Error(Cow::Borrowed("ERR value is not an integer or out of range"));
/// The error for what should be a number.
pub const NOT_FLOAT: Reply = Reply::Error(Cow::Borrowed("ERR value is not a valid float"));
/// The error for a count below 0.
pub const NOT_POSITIVE: Reply =
    Reply::Error(Cow::Borrowed("ERR value is out of range, must be positive"));

/// A whole number, written in the one way that printing it gives.
pub fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        b"0" => return Some(0),
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    if !matches!(digits.first(), Some(b'1'..=b'9')) || digits.len() > 19 {
        return None;
    }
    let mut value: i64 = 0;
    for digit in digits {
        let digit = i64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        let sign = if negative { -1 } else { 1 };
        value = value.checked_mul(10)?.checked_add(sign * digit)?;
    }
    Some(value)
}

/// A whole number.
///
/// # Errors
/// It is none.
pub fn an_integer(text: &[u8]) -> Step<i64> {
    integer(text).ok_or(NOT_INTEGER)
}

/// A count of 0 or more.
///
/// # Errors
/// It is none.
pub fn a_count(text: &[u8]) -> Step<usize> {
    let count = integer(text).ok_or(NOT_POSITIVE)?;
    usize::try_from(count).map_err(|_| NOT_POSITIVE)
}

/// A number as C's `strtod` reads it, all of the text and no space before it. Infinities are
/// numbers; what is too large or too small for a double is none.
pub fn float(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let unsigned = text.trim_start_matches(['+', '-']);
    if text.len() - unsigned.len() > 1 {
        return None;
    }
    if let Some(digits) = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X")) {
        let number = hexadecimal(digits)?;
        return Some(if text.starts_with('-') { -number } else { number });
    }
    let number: f64 = text.parse().ok()?;
    let spelt = unsigned.as_bytes().first().is_some_and(|byte| byte.is_ascii_alphabetic());
    let (mantissa, _) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, ""));
    let nonzero = mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
    let out_of_range = !spelt && (number.is_infinite() || (number == 0.0 && nonzero));
    (!number.is_nan() && !out_of_range).then_some(number)
}

/// Hexadecimal digits with a point and a power of two; exact for up to 13 digits, as people write.
fn hexadecimal(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['p', 'P']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut number = 0.0;
    for digit in whole.chars().chain(fraction.chars()) {
        number = number * 16.0 + f64::from(digit.to_digit(16)?);
    }
    let exponent = exponent.parse::<i32>().ok()? - 4 * fraction.len() as i32;
    let number = number * 2f64.powi(exponent);
    number.is_finite().then_some(number)
}

/// A number.
///
/// # Errors
/// It is none.
pub fn a_float(text: &[u8]) -> Step<f64> {
    float(text).ok_or(NOT_FLOAT)
}

/// Whether an argument is a word, in letters of any case.
pub fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

/// The part of `len` items from `start` to `end` inclusive, where negative places count from the
/// end: where it begins and how many there are.
pub fn range(start: i64, end: i64, len: usize) -> (usize, usize) {
    let len = len as i64;
    let place = |at: i64| if at < 0 { len.saturating_add(at) } else { at };
    let (start, end) = (place(start).max(0), place(end).min(len - 1));
    if start > end { (0, 0) } else { (start as usize, (end - start + 1) as usize) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_written_in_one_way() {
        for good in [0, 1, -1, 10, i64::MAX, i64::MIN] {
            assert_eq!(integer(good.to_string().as_bytes()), Some(good));
        }
        let bad = ["", "-", "-0", "+1", "01", " 1", "1 ", "1.0", "9223372036854775808", "a"];
        for bad in bad {
            assert_eq!(integer(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn floats_as_strtod_reads_them() {
        let good = [
            ("1", 1.0),
            ("+1.5", 1.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("-1e3", -1000.0),
            ("inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("0x10", 16.0),
            ("-0x1.8p1", -3.0),
        ];
        for (text, number) in good {
            assert_eq!(float(text.as_bytes()), Some(number), "{text:?}");
        }
        for bad in ["", " 1", "1 ", "nan", "1e999", "1e-999", "--1", "abc", "1e", "0x", "1_0"] {
            assert_eq!(float(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn ranges_count_from_both_ends() {
        assert_eq!(range(0, -1, 5), (0, 5));
        assert_eq!(range(-2, -1, 5), (3, 2));
        assert_eq!(range(-9, 1, 5), (0, 2));
        assert_eq!(range(3, 1, 5), (0, 0));
        assert_eq!(range(5, 9, 5), (0, 0));
        assert_eq!(range(0, -1, 0), (0, 0));
        assert_eq!(range(i64::MIN, i64::MAX, 3), (0, 3));
    }
}
