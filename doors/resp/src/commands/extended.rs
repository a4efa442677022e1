//! Numbers as INCRBYFLOAT and HINCRBYFLOAT of Redis have them: the 80-bit floats of x86, with 64
//! bits of precision, printed with up to 17 digits after the point.
//!
//! Rust has no such type. A double would print other digits, and counters that grew under Redis
//! would suddenly end in `...0001`. So reading, adding and printing are done here with whole
//! numbers, each rounded once to the nearest, ties to even.

use std::borrow::Cow;

use super::numbers::NOT_FLOAT;
use crate::Reply;
use crate::scene::Step;

/// A number: its sign, 64 bits of which the first is set unless it is 0, and the power of two that
/// they are multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extended {
    negative: bool,
    bits: u64,
    power: i32,
}

/// The power that stands for infinity; the largest that is a number is below.
const INFINITE: i32 = 16_384 - 63;
/// Below this a number is 0.
const LEAST: i32 = -16_445 - 63;
/// Redis reads no longer texts as numbers.
const TEXT_MAX: usize = 5119;
/// 10 to the 17th: digits after the point that are printed.
const FRACTION: u128 = 100_000_000_000_000_000;

const NOT_FINITE: Reply =
    Reply::Error(Cow::Borrowed("ERR increment would produce NaN or Infinity"));

/// A whole number of any length, the lowest 32 bits first.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Large(Vec<u32>);

impl Large {
    fn times_plus(&mut self, factor: u32, more: u32) {
        let mut carry = u64::from(more);
        for word in &mut self.0 {
            let product = u64::from(*word) * u64::from(factor) + carry;
            (*word, carry) = (product as u32, product >> 32);
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    fn len(&self) -> usize {
        self.0.last().map_or(0, |word| self.0.len() * 32 - word.leading_zeros() as usize)
    }

    fn shifted(&self, by: usize) -> Self {
        let mut words = vec![0; by / 32];
        let mut carry = 0;
        for word in &self.0 {
            let wide = u64::from(*word) << (by % 32) | carry;
            words.push(wide as u32);
            carry = wide >> 32;
        }
        if carry > 0 {
            words.push(carry as u32);
        }
        Self(words)
    }

    /// Takes another away if it is not larger.
    fn take(&mut self, other: &Self) -> bool {
        let longer = self.len().cmp(&other.len());
        let order = longer.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()));
        if order.is_lt() {
            return false;
        }
        let mut borrow = false;
        for (i, word) in self.0.iter_mut().enumerate() {
            let (less, under) = word.overflowing_sub(other.0.get(i).copied().unwrap_or(0));
            let (less, again) = less.overflowing_sub(borrow.into());
            (*word, borrow) = (less, under | again);
        }
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
        true
    }

    /// The highest bits, how many more there were, and whether one of these was set.
    fn top(&self) -> (u128, i32, bool) {
        let more = self.len().saturating_sub(96).div_ceil(32);
        let high = self.0[more..].iter().rev();
        let bits = high.fold(0, |bits, word| bits << 32 | u128::from(*word));
        (bits, more as i32 * 32, self.0[..more].iter().any(|word| *word != 0))
    }

    fn decimal(mut self) -> String {
        let mut groups = Vec::new();
        while !self.0.is_empty() {
            let mut rest = 0;
            for word in self.0.iter_mut().rev() {
                let wide = rest << 32 | u64::from(*word);
                (*word, rest) = ((wide / 1_000_000_000) as u32, wide % 1_000_000_000);
            }
            groups.push(rest);
            while self.0.last() == Some(&0) {
                self.0.pop();
            }
        }
        let mut text = groups.pop().unwrap_or(0).to_string();
        groups.iter().rev().for_each(|group| text.push_str(&format!("{group:09}")));
        text
    }
}

/// The nearest number to `bits` and a little more (if `more`), times a power of two.
fn round(negative: bool, bits: u128, power: i32, more: bool) -> Extended {
    let len = 128 - bits.leading_zeros() as i32;
    if len <= 64 {
        let up = 64 - len.max(1);
        let bits = (bits as u64) << up;
        return Extended { negative, bits, power: if bits == 0 { 0 } else { power - up } };
    }
    let cut = len - 64;
    let (kept, lost) = ((bits >> cut) as u64, bits & ((1 << cut) - 1));
    let half = 1 << (cut - 1);
    let up = lost > half || lost == half && (more || kept & 1 == 1);
    match kept.checked_add(up.into()) {
        Some(bits) => Extended { negative, bits, power: power + cut },
        None => Extended { negative, bits: 1 << 63, power: power + cut + 1 },
    }
}

/// Reads a number.
///
/// # Errors
/// It is none.
pub fn read(text: &[u8]) -> Step<Extended> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= TEXT_MAX);
    text.and_then(parse).ok_or(NOT_FLOAT)
}

fn parse(text: &str) -> Option<Extended> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if ["inf", "infinity"].iter().any(|word| unsigned.eq_ignore_ascii_case(word)) {
        return Some(Extended { negative, bits: 1 << 63, power: INFINITE });
    }
    let hexadecimal = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X"));
    let (digits, base, mark) = match hexadecimal {
        Some(digits) => (digits, 16, ['p', 'P']),
        None => (unsigned, 10, ['e', 'E']),
    };
    let (mantissa, exponent) = match digits.split_once(mark) {
        Some((mantissa, exponent)) => (mantissa, read_exponent(exponent)?),
        None => (digits, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut large = Large(Vec::new());
    for digit in whole.chars().chain(fraction.chars()) {
        large.times_plus(base, digit.to_digit(base)?);
    }
    let zero = Extended { negative, bits: 0, power: 0 };
    if large.0.is_empty() {
        return Some(zero);
    }
    let places = fraction.len() as i32;
    let number = match base {
        16 => {
            let (bits, power, more) = large.top();
            round(negative, bits, power + exponent - 4 * places, more)
        }
        _ => decimal(negative, large, exponent - places),
    };
    (LEAST..INFINITE).contains(&number.power).then_some(number)
}

/// Exponents far out are all the same: too large or too small.
fn read_exponent(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let far = |text: &str| text.parse::<i32>().unwrap_or(i32::MAX).min(100_000);
    Some(if text.starts_with('-') { -far(digits) } else { far(digits) })
}

/// Digits times a power of ten.
fn decimal(negative: bool, mut digits: Large, power: i32) -> Extended {
    if power > 5_000 {
        return Extended { negative, bits: 1 << 63, power: INFINITE };
    }
    if power < -5_500 {
        return Extended { negative, bits: 1 << 63, power: LEAST - 1 };
    }
    if power >= 0 {
        (0..power).for_each(|_| digits.times_plus(10, 0));
        let (bits, power, more) = digits.top();
        return round(negative, bits, power, more);
    }
    let mut divisor = Large(vec![1]);
    (0..-power).for_each(|_| divisor.times_plus(10, 0));
    // So many bits before that the quotient has 66 or 67: two more than are kept.
    let shift = (divisor.len() + 66).saturating_sub(digits.len());
    let mut rest = digits.shifted(shift);
    let mut quotient = 0u128;
    let steps = rest.len() - divisor.len();
    let (mut power, mut more) = (-(shift as i32), false);
    if steps > 120 {
        // Long texts with a short fraction: the lowest bits only say that there is more.
        power += (steps - 120) as i32;
    }
    for step in (0..=steps).rev() {
        let fits = rest.take(&divisor.shifted(step));
        if step + 120 >= steps {
            quotient = quotient << 1 | u128::from(fits);
        } else {
            more |= fits;
        }
    }
    round(negative, quotient, power, more || !rest.0.is_empty())
}

/// The sum of two numbers as text.
///
/// # Errors
/// It is infinite.
pub fn add(one: Extended, other: Extended) -> Step<String> {
    let sum = (one.is_finite() && other.is_finite()).then(|| plus(one, other));
    sum.filter(|sum| sum.is_finite()).map(Extended::text).ok_or(NOT_FINITE)
}

/// The sum of two texts as text.
///
/// # Errors
/// One is no number, or the sum is infinite.
pub fn sum(one: &[u8], other: &[u8]) -> Step<String> {
    add(read(one)?, read(other)?)
}

fn plus(one: Extended, other: Extended) -> Extended {
    if one.bits == 0 || other.bits == 0 {
        return if one.bits == 0 { other } else { one };
    }
    let by_size = (one.power, one.bits) >= (other.power, other.bits);
    let (high, low) = if by_size { (one, other) } else { (other, one) };
    let power = high.power - 63;
    let apart = (high.power - low.power) as u32;
    let wide = u128::from(low.bits) << 63;
    let (shifted, lost) = match apart {
        0..=127 => (wide >> apart, wide & ((1 << apart) - 1) != 0),
        _ => (0, true),
    };
    let high_bits = u128::from(high.bits) << 63;
    if high.negative == low.negative {
        return round(high.negative, high_bits + shifted, power, lost);
    }
    let difference = high_bits - shifted - u128::from(lost);
    match difference {
        0 => Extended { negative: false, bits: 0, power: 0 },
        _ => round(high.negative, difference, power, lost),
    }
}

impl Extended {
    /// Whether it is no infinity.
    pub fn is_finite(self) -> bool {
        self.power < INFINITE
    }

    /// A thousand times as much, rounded up to a whole number that fits.
    pub fn milliseconds(self) -> Option<i64> {
        let thousandfold = round(self.negative, u128::from(self.bits) * 1000, self.power, false);
        let bits = u128::from(thousandfold.bits);
        let whole = match thousandfold.power {
            1.. => return (bits == 0).then_some(0),
            power if power > -64 => {
                let up = !self.negative && bits & ((1 << -power) - 1) != 0;
                (bits >> -power) + u128::from(up)
            }
            _ => u128::from(bits != 0 && !self.negative),
        };
        let whole = i64::try_from(whole).ok()?;
        Some(if self.negative { -whole } else { whole })
    }

    fn text(self) -> String {
        let digits = match self.power {
            0.. => {
                let bits = Large(vec![self.bits as u32, (self.bits >> 32) as u32]);
                match self.bits {
                    0 => "0".to_owned(),
                    _ => bits.shifted(self.power as usize).decimal(),
                }
            }
            power => fraction(u128::from(self.bits) * FRACTION, power.unsigned_abs()),
        };
        if self.negative && digits != "0" { format!("-{digits}") } else { digits }
    }
}

/// `scaled` is 10^17 times too large; it is divided by a power of two.
fn fraction(scaled: u128, down: u32) -> String {
    let rounded = match down {
        0..=127 => {
            let (kept, lost, half) = (scaled >> down, scaled & ((1 << down) - 1), 1 << (down - 1));
            kept + u128::from(lost > half || lost == half && kept & 1 == 1)
        }
        _ => 0,
    };
    let text = format!("{}.{:017}", rounded / FRACTION, rounded % FRACTION);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_as_redis_prints_them() {
        let known = [
            ("0", "0", "0"),
            ("3", "1.5", "4.5"),
            ("0.1", "0.2", "0.3"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("1000", "0.1", "1000.09999999999999998"),
            ("-1", "1", "0"),
            ("-0.5", "0.25", "-0.25"),
            ("1e30", "1", "1000000000000000000024696061952"),
            ("0x10", "0", "16"),
            ("1e-30", "0", "0"),
            ("9007199254740993", "0", "9007199254740993"),
        ];
        for (one, other, sum_of) in known {
            let sum = sum(one.as_bytes(), other.as_bytes());
            assert_eq!(sum, Ok(sum_of.to_owned()), "{one} + {other}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", " 1", "1 ", "nan", "1e", "abc", "0x", "1e6000", "1e-6000", "--1", "."] {
            assert_eq!(read(text.as_bytes()), Err(NOT_FLOAT), "{text:?}");
        }
        assert_eq!(sum(b"inf", b"1"), Err(NOT_FINITE));
        assert_eq!(sum(b"1e4932", b"1e4932"), Err(NOT_FINITE));
    }
}
