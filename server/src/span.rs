//! Times as people write them: `500ms`, `30s`, `1h30m`, `7d`.

use std::time::Duration;

/// What is accepted, for help and errors.
pub const FORM: &str = "a number with its unit, such as 500ms, 30s, 5m, 1h30m or 7d";

const UNITS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Reads a time; a plain 0 needs no unit.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("it has to be {FORM}");
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut ms = 0_f64;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = rest[digits..].find(|c: char| !c.is_ascii_alphabetic());
        let unit = unit.map_or(rest.len(), |length| digits + length);
        let (_, factor) =
            UNITS.iter().find(|(name, _)| *name == &rest[digits..unit]).ok_or_else(wrong)?;
        ms += number * *factor as f64;
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(ms / 1_000.0).map_err(|_| wrong())
}

/// Writes a time with its two largest units.
pub fn show(time: Duration) -> String {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    if ms < 1_000 {
        return format!("{ms}ms");
    }
    let mut rest = ms;
    let mut out = String::new();
    let mut units = 0;
    for (name, factor) in UNITS.iter().rev().filter(|(name, _)| *name != "ms") {
        if rest >= *factor && units < 2 {
            out.push_str(&format!("{}{name}", rest / factor));
            rest %= factor;
        }
        units += u8::from(!out.is_empty());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_they_are_written() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse("0"), Ok(Duration::ZERO));
        for wrong in ["", "5", "s", "5 s", "5x", "-1s", "1..2s", "99999999999999999999d"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_shown_by_their_two_largest_units() {
        assert_eq!(show(Duration::from_millis(5)), "5ms");
        assert_eq!(show(Duration::from_secs(65)), "1m5s");
        assert_eq!(show(Duration::from_secs(3600)), "1h");
        assert_eq!(show(Duration::from_secs(90_061)), "1d1h");
    }
}
