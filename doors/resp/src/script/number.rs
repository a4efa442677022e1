//! Numbers as text, the way C prints them with `%g`: Lua, JSON and command arguments all use it.

/// `%.{precision}g` of C.
pub(super) fn format_g(number: f64, precision: usize) -> String {
    if number.is_nan() {
        return if number.is_sign_negative() { "-nan" } else { "nan" }.into();
    }
    if number.is_infinite() {
        return if number < 0.0 { "-inf" } else { "inf" }.into();
    }
    if number == 0.0 {
        return if number.is_sign_negative() { "-0" } else { "0" }.into();
    }
    let precision = precision.max(1);
    let whole_below = 10f64.powi(precision.min(15) as i32);
    if number.fract() == 0.0 && number.abs() < whole_below {
        return (number as i64).to_string();
    }
    let scientific = format!("{number:.*e}", precision - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent >= precision as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trimmed(mantissa), exponent.unsigned_abs());
    }
    let digits = (precision as i32 - 1 - exponent).max(0) as usize;
    trimmed(&format!("{number:.digits$}")).to_owned()
}

fn trimmed(digits: &str) -> &str {
    if !digits.contains('.') {
        return digits;
    }
    digits.trim_end_matches('0').trim_end_matches('.')
}

/// The number that a text means to Lua: decimal or hexadecimal, with blanks around it.
pub(super) fn parse(text: &[u8]) -> Option<f64> {
    let text =
        std::str::from_utf8(text).ok()?.trim_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (sign, bare) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if let Some(hex) = bare.strip_prefix("0x").or_else(|| bare.strip_prefix("0X")) {
        let valid = !hex.is_empty() && hex.bytes().all(|digit| digit.is_ascii_hexdigit());
        return valid.then(|| sign * u64::from_str_radix(hex, 16).unwrap_or(u64::MAX) as f64);
    }
    // `parse` takes a second sign nowhere, but words such as `infinity` that Lua leaves to C too.
    if !bare.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '.') {
        return None;
    }
    bare.parse::<f64>().ok().map(|number| sign * number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_c_prints() {
        for (number, precision, want) in [
            (0.1, 14, "0.1"),
            (1e15, 14, "1e+15"),
            (1e14, 14, "1e+14"),
            (99_999_999_999_999.0, 14, "99999999999999"),
            (123_456_789_012_345_678.0, 14, "1.2345678901235e+17"),
            (1.0 / 3.0, 17, "0.33333333333333331"),
            (1e100, 14, "1e+100"),
            (0.0001, 14, "0.0001"),
            (0.00001, 14, "1e-05"),
            (-2.5, 14, "-2.5"),
            (1e16, 17, "10000000000000000"),
            (9.999e22, 3, "1e+23"),
        ] {
            assert_eq!(format_g(number, precision), want);
        }
    }

    #[test]
    fn as_lua_reads() {
        assert_eq!(parse(b" 12 "), Some(12.0));
        assert_eq!(parse(b"-0x10"), Some(-16.0));
        assert_eq!(parse(b"1e2"), Some(100.0));
        assert_eq!(parse(b"x"), None);
        assert_eq!(parse(b""), None);
    }
}
