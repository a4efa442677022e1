//! Numbers with a fraction as Redis 7.0 prints them: C's `%.17g`.
//!
//! Seventeen digits tell every double from its neighbours, but are often not the shortest text:
//! 0.1 is `0.10000000000000001`. Clients compare such texts, so they are the same here.

/// The digits that `%.17g` keeps.
const DIGITS: i32 = 17;

/// The text of a number as in the replies of ZSCORE and ZINCRBY: `3`, `3.5`, `1e+20`, `inf`,
/// `-inf`, `nan`.
pub fn double(number: f64) -> String {
    // Whole numbers below 10^17 are printed in full, and are exact as integers.
    if number.fract() == 0.0 && number.abs() < 1e17 {
        return match number == 0.0 && number.is_sign_negative() {
            true => "-0".to_owned(),
            false => (number as i64).to_string(),
        };
    }
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let text = format!("{:.*e}", DIGITS as usize - 1, number.abs());
    let sign = if number < 0.0 { "-" } else { "" };
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let Ok(exponent) = exponent.parse::<i32>() else { return text };
    let digits = mantissa.replace('.', "");
    let digits = digits.trim_end_matches('0');
    if !(-4..DIGITS).contains(&exponent) {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let way = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{first}{point}{rest}e{way}{:02}", exponent.abs());
    }
    if exponent < 0 {
        let zeros = "0".repeat((-exponent - 1) as usize);
        return format!("{sign}0.{zeros}{digits}");
    }
    // Whole numbers went out above, so there are digits on both sides of the point.
    let (whole, fraction) = digits.split_at((exponent as usize + 1).min(digits.len()));
    format!("{sign}{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use super::double;

    /// Each with what redis-server 7.0.15 answers to ZSCORE.
    #[test]
    fn as_redis_prints_them() {
        let known = [
            (3.0, "3"),
            (3.5, "3.5"),
            (-3.5, "-3.5"),
            (0.1, "0.10000000000000001"),
            (-0.0, "-0"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (99999999999999984.0, "99999999999999984"),
            (123456789012.125, "123456789012.125"),
            (1.5e300, "1.5000000000000001e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1.0000000000000001e-05"),
            (5e-324, "4.9406564584124654e-324"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ];
        for (number, text) in known {
            assert_eq!(double(number), text);
        }
    }
}
