//! The types of settings: how each is written and read.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use leasehold_node::Durability;

use crate::span;

/// A type that a setting may have.
pub trait Value: Sized {
    /// What is accepted, for help and errors.
    const FORM: &'static str;
    /// As a flag it needs no value.
    const SWITCH: bool = false;

    /// Reads it; what is wrong with it otherwise.
    fn parse(text: &str) -> Result<Self, String>;
}

fn has_to_be<T: Value>() -> String {
    format!("it has to be {}", T::FORM)
}

impl Value for PathBuf {
    const FORM: &'static str = "a path";

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err(has_to_be::<Self>()) } else { Ok(text.into()) }
    }
}

impl Value for Option<PathBuf> {
    const FORM: &'static str = "a path";

    fn parse(text: &str) -> Result<Self, String> {
        Ok((!text.is_empty()).then(|| text.into()))
    }
}

impl Value for Option<String> {
    const FORM: &'static str = "text";

    fn parse(text: &str) -> Result<Self, String> {
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }
}

impl Value for SocketAddr {
    const FORM: &'static str = "an address and a port, such as 127.0.0.1:7070 or [::]:7070";

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.replacen("localhost:", "127.0.0.1:", 1);
        text.parse().map_err(|_| has_to_be::<Self>())
    }
}

/// Where a door listens that can be left closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doorway(pub Option<SocketAddr>);

impl Value for Doorway {
    const FORM: &'static str = "an address and a port, such as 127.0.0.1:7379, or off";

    fn parse(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let address = SocketAddr::parse(text).map_err(|_| has_to_be::<Self>())?;
        Ok(Self(Some(address)))
    }
}

impl Value for bool {
    const FORM: &'static str = "true or false";
    const SWITCH: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| has_to_be::<Self>())
    }
}

impl Value for u32 {
    const FORM: &'static str = "a whole number from 1";

    fn parse(text: &str) -> Result<Self, String> {
        let number = text.replace('_', "").parse().ok().filter(|number| *number > 0);
        number.ok_or_else(has_to_be::<Self>)
    }
}

impl Value for String {
    const FORM: &'static str = "text";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Value for Duration {
    const FORM: &'static str = span::FORM;

    fn parse(text: &str) -> Result<Self, String> {
        span::parse(text)
    }
}

impl Value for Durability {
    const FORM: &'static str = "always, interval=TIME (such as interval=50ms) or none";

    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "always" => Ok(Self::Always),
            None if text == "none" => Ok(Self::None),
            Some(("interval", time)) => {
                let time = span::parse(time).ok().filter(|time| !time.is_zero());
                let micros = time.and_then(|time| u64::try_from(time.as_micros()).ok());
                micros.map(Self::Interval).ok_or_else(has_to_be::<Self>)
            }
            _ => Err(has_to_be::<Self>()),
        }
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl Bytes {
    /// As the machine counts.
    pub fn size(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Value for Bytes {
    const FORM: &'static str = "a number of bytes, such as 65536, 64KiB, 16MiB or 1GiB";

    fn parse(text: &str) -> Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
        let shift = match &text[digits..] {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return Err(has_to_be::<Self>()),
        };
        let number: Option<u64> = text[..digits].replace('_', "").parse().ok();
        let bytes = number.and_then(|number| number.checked_mul(1 << shift));
        bytes.map(Self).ok_or_else(has_to_be::<Self>)
    }
}

/// Some names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl Value for Names {
    const FORM: &'static str = "names with commas between";

    fn parse(text: &str) -> Result<Self, String> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        Ok(Self(names.map(str::to_owned).collect()))
    }
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Value for LogFormat {
    const FORM: &'static str = "text or json";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(has_to_be::<Self>()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_as_they_are_written() {
        assert_eq!(Bytes::parse("64KiB"), Ok(Bytes(65536)));
        assert_eq!(Bytes::parse("1_000"), Ok(Bytes(1000)));
        assert!(Bytes::parse("64KB").is_err() && Bytes::parse("99999999999GiB").is_err());
        assert_eq!(Durability::parse("interval=50ms"), Ok(Durability::Interval(50_000)));
        assert!(Durability::parse("interval").is_err() && Durability::parse("interval=0").is_err());
        assert!(SocketAddr::parse("localhost:80").is_ok() && SocketAddr::parse("80").is_err());
        assert!(u32::parse("0").is_err() && u32::parse("262_144").is_ok());
    }
}
