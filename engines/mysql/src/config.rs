//! What a URL says about a server and how to talk to it.

use std::path::PathBuf;
use std::time::Duration;

use leasehold_api::{Error, ErrorKind, Result, engine};
use percent_encoding::percent_decode_str;

/// What can be said after the question mark.
const WORDS: [&str; 9] =
    ["prefix", "tls", "ca", "pool", "waiters", "look", "answer", "connect", "socket"];

/// How a connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    /// Not at all.
    Off,
    /// Encrypted, and the server shows who it is.
    Verify,
    /// Encrypted, whoever it is.
    Trust,
}

/// Where a server is and how to talk to it.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Option<String>,
    pub database: String,
    /// Goes before the names of all tables and bells.
    pub prefix: String,
    pub tls: Tls,
    pub ca: Option<PathBuf>,
    pub socket: Option<String>,
    /// Connections for requests.
    pub pool: usize,
    /// Connections on which bells are waited for.
    pub waiters: usize,
    /// How often a queue is looked into while nobody in this process publishes to it.
    pub look: Duration,
    /// How long an answer may take.
    pub answer: Duration,
    /// How long a connection may take to be made.
    pub connect: Duration,
    /// The URL without credentials.
    pub shown: String,
}

fn invalid(wrong: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, wrong)
}

fn decoded(what: &str, text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    let wrong = |_| invalid(format!("the {what} in the URL is not UTF-8 after %XX is resolved"));
    Ok(decoded.map_err(wrong)?.into_owned())
}

fn number(word: &str, value: &str, least: u64, most: u64) -> Result<u64> {
    let number = value.parse().ok().filter(|number| (least..=most).contains(number));
    let wrong = format!("{word}={value} in the URL; give a number from {least} to {most}");
    number.ok_or_else(|| invalid(wrong))
}

/// A time in milliseconds.
fn time(word: &str, value: &str, least: u64, most: u64) -> Result<Duration> {
    let ms = value.strip_suffix("ms").unwrap_or(value);
    Ok(Duration::from_millis(number(word, ms, least, most)?))
}

impl Config {
    /// Reads a URL.
    ///
    /// # Errors
    /// `Invalid`, naming the part that is wrong and what is possible.
    pub fn read(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| {
            invalid("the URL has no scheme; write mysql://USER:PASSWORD@HOST:PORT/DATABASE")
        })?;
        if !matches!(scheme, "mysql" | "mariadb") {
            return Err(invalid(format!(
                "the scheme {scheme}: this engine takes mysql and mariadb"
            )));
        }
        let (place, words) = rest.split_once('?').unwrap_or((rest, ""));
        let (place, database) = place.split_once('/').unwrap_or((place, ""));
        let (credentials, place) = place.rsplit_once('@').unwrap_or(("", place));
        let (host, port) = host_and_port(place)?;
        let (user, password) = match credentials.split_once(':') {
            Some((user, password)) => (user, Some(decoded("password", password)?)),
            None => (credentials, std::env::var("MYSQL_PWD").ok()),
        };
        let user = match decoded("user", user)? {
            user if user.is_empty() => "root".to_owned(),
            user => user,
        };
        let database = decoded("database", database)?;
        if database.is_empty() || database.contains('/') {
            let wrong = "the URL names no database; write mysql://HOST/DATABASE, and create it \
                         with CREATE DATABASE";
            return Err(invalid(wrong));
        }
        let local = matches!(&*host, "localhost" | "127.0.0.1" | "::1");
        let mut config = Self {
            shown: format!("{scheme}://{place}/{database}"),
            user,
            password,
            database,
            prefix: "leasehold_".to_owned(),
            tls: if local { Tls::Off } else { Tls::Verify },
            ca: None,
            socket: None,
            pool: 8,
            waiters: 32,
            look: Duration::from_millis(100),
            answer: Duration::from_secs(10),
            connect: Duration::from_secs(5),
            host,
            port,
        };
        for word in words.split('&').filter(|word| !word.is_empty()) {
            config.word(word)?;
        }
        if config.ca.is_some() && config.tls != Tls::Verify {
            return Err(invalid("ca= is for tls=verify; say that too, or leave ca= out"));
        }
        if config.socket.is_some() && !words.contains("tls=") {
            config.tls = Tls::Off;
        }
        Ok(config)
    }

    fn word(&mut self, word: &str) -> Result<()> {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let value = decoded(name, value)?;
        match name {
            "prefix" => {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                if value.len() > 32 || !value.bytes().all(plain) {
                    let wrong = format!(
                        "prefix={value} in the URL; give at most 32 of A-Z a-z \
                                         0-9 _"
                    );
                    return Err(invalid(wrong));
                }
                self.prefix = value;
            }
            "tls" => {
                self.tls = match &*value {
                    "off" => Tls::Off,
                    "verify" => Tls::Verify,
                    "trust" => Tls::Trust,
                    _ => {
                        let wrong = format!(
                            "tls={value} in the URL; give off, verify, or trust \
                                             (encrypted, whoever the server is)"
                        );
                        return Err(invalid(wrong));
                    }
                };
            }
            "ca" => {
                self.ca = Some(value.into());
                self.tls = Tls::Verify;
            }
            "socket" => self.socket = Some(value),
            "pool" => self.pool = number(name, &value, 2, 1000)? as usize,
            "waiters" => self.waiters = number(name, &value, 0, 10_000)? as usize,
            "look" => self.look = time(name, &value, 1, 60_000)?,
            "answer" => self.answer = time(name, &value, 100, 600_000)?,
            "connect" => self.connect = time(name, &value, 100, 600_000)?,
            _ => {
                let known = WORDS.join(", ");
                return Err(invalid(format!("{name}= in the URL is not known; known are {known}")));
            }
        }
        Ok(())
    }
}

fn host_and_port(place: &str) -> Result<(String, u16)> {
    let (host, port) = engine::host_and_port(place).ok_or_else(|| {
        invalid(format!("the address {place} in the URL; close the bracket with ]"))
    })?;
    if host.is_empty() {
        return Err(invalid("the URL names no host; write mysql://HOST:PORT/DATABASE"));
    }
    let port = match port {
        None => 3306,
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
            invalid(format!("the port {port} in the URL; give a number from 1 to 65535"))
        })?,
    };
    Ok((decoded("host", host)?, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_everything() {
        let url =
            "mariadb://lease:p%40ss@db.example:3307/work?prefix=a_&pool=3&look=50ms&waiters=0";
        let config = Config::read(url).expect("it is good");
        assert_eq!((config.host.as_str(), config.port), ("db.example", 3307));
        assert_eq!((config.user.as_str(), config.password.as_deref()), ("lease", Some("p@ss")));
        assert_eq!((config.database.as_str(), config.prefix.as_str()), ("work", "a_"));
        assert_eq!((config.pool, config.waiters), (3, 0));
        assert_eq!(config.look, Duration::from_millis(50));
        assert_eq!(config.tls, Tls::Verify);
        assert_eq!(config.shown, "mariadb://db.example:3307/work");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = [
            ("mysql:/x", "scheme"),
            ("http://x/y", "http"),
            ("mysql:///y", "host"),
            ("mysql://x", "database"),
            ("mysql://x:0/y", "port"),
            ("mysql://[::1/y", "bracket"),
            ("mysql://x/y?prefix=a-b", "prefix"),
            ("mysql://x/y?tls=yes", "tls"),
            ("mysql://x/y?pool=1", "pool"),
            ("mysql://x/y?colour=red", "colour"),
            ("mysql://x/y?tls=trust&ca=f&tls=trust", "ca="),
        ];
        for (url, part) in wrong {
            let error = Config::read(url).expect_err(url);
            assert_eq!(error.kind, ErrorKind::Invalid);
            assert!(error.wrong.contains(part), "{url}: {error}");
        }
    }
}
