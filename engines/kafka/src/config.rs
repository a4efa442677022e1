//! What is in the URL.

use std::time::Duration;

use leasehold_api::{Error, ErrorKind, Result, engine};

/// A broker's port, if the URL does not say.
const PORT: u16 = 9092;
/// How long a request is tried, seconds, if the URL does not say.
const TIMEOUT: u64 = 10;
/// How long a member of a group may be silent, seconds, if the URL does not say.
const SESSION: u64 = 10;
/// What groups and the topic of settings begin with, if the URL does not say.
const PREFIX: &str = "leasehold.";

/// How a user proves who he is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Plain,
    Scram256,
    Scram512,
}

impl Mechanism {
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram256 => "SCRAM-SHA-256",
            Self::Scram512 => "SCRAM-SHA-512",
        }
    }
}

/// Brokers, and how to talk to them.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Host and port of each.
    pub brokers: Vec<(String, u16)>,
    pub tls: bool,
    /// A file of certificates to trust.
    pub ca: Option<String>,
    pub user: Option<(String, String)>,
    pub mechanism: Mechanism,
    /// Partitions of new queues.
    pub partitions: i32,
    /// Replicas of new queues; −1: as many as the brokers say.
    pub replicas: i32,
    /// How long a request is tried.
    pub timeout: Duration,
    /// How long a member of a group may be silent.
    pub session: Duration,
    /// Whether what is done is removed from the topics.
    pub trim: bool,
    /// What groups and the topic of settings begin with.
    pub prefix: String,
    /// The URL without credentials.
    pub shown: String,
}

fn wrong(what: impl std::fmt::Display) -> Error {
    let form = "kafka://USER:PASSWORD@HOST:PORT,HOST:PORT?partitions=4";
    Error::new(ErrorKind::Invalid, format!("{what}; the form is {form}"))
}

impl Config {
    /// Reads a URL.
    ///
    /// # Errors
    /// `Invalid`, naming the part that is wrong; `Unsupported` when this build has no TLS.
    pub fn read(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("the URL has no ://"))?;
        let tls = match scheme {
            "kafka" => false,
            "kafkas" => true,
            other => return Err(wrong(format!("the scheme is kafka or kafkas, not {other}"))),
        };
        if tls && !cfg!(feature = "tls") {
            let wrong = "this build has no TLS for Kafka; add the feature `kafka-tls` to leasehold";
            return Err(Error::new(ErrorKind::Unsupported, wrong));
        }
        if rest.contains('#') {
            return Err(wrong("a # in the URL must be written as %23"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('/') {
            return Err(wrong(
                "there is nothing behind the hosts: queues are named in the program",
            ));
        }
        let (user, places) = match rest.rsplit_once('@') {
            None => (None, rest),
            Some((user, places)) => {
                let (name, password) = user.split_once(':').unwrap_or((user, ""));
                let user = decoded("the user", name)?;
                (Some((user, decoded("the password", password)?)), places)
            }
        };
        let brokers = places.split(',').map(host_and_port).collect::<Result<Vec<_>>>()?;
        let mut config = Self {
            brokers,
            tls,
            ca: None,
            user,
            mechanism: Mechanism::Plain,
            partitions: 1,
            replicas: -1,
            timeout: Duration::from_secs(TIMEOUT),
            session: Duration::from_secs(SESSION),
            trim: true,
            prefix: PREFIX.to_owned(),
            shown: format!("{scheme}://{places}"),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            config.set(key, &decoded(key, value)?)?;
        }
        Ok(config)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let number = |least: u64, most: u64| {
            let read = value.parse().ok().filter(|number| (least..=most).contains(number));
            read.ok_or_else(|| wrong(format!("{key} is {least} to {most}, not {value}")))
        };
        match (key, value) {
            ("partitions", _) => self.partitions = number(1, 10_000)? as i32,
            ("replicas", _) => self.replicas = number(1, 100)? as i32,
            ("timeout", _) => self.timeout = Duration::from_secs(number(1, 600)?),
            ("session", _) => self.session = Duration::from_secs(number(6, 1800)?),
            ("trim", "yes") => self.trim = true,
            ("trim", "no") => self.trim = false,
            ("trim", other) => return Err(wrong(format!("trim is yes or no, not {other}"))),
            ("sasl", "plain") => self.mechanism = Mechanism::Plain,
            ("sasl", scram @ ("scram-sha-256" | "scram-sha-512")) => {
                if !cfg!(feature = "tls") {
                    let wrong = "SCRAM needs the feature `kafka-tls` of leasehold: its \
                                 cryptography comes from OpenSSL";
                    return Err(Error::new(ErrorKind::Unsupported, wrong));
                }
                self.mechanism = match scram {
                    "scram-sha-256" => Mechanism::Scram256,
                    _ => Mechanism::Scram512,
                };
            }
            ("sasl", other) => {
                let known = "plain, scram-sha-256 or scram-sha-512";
                return Err(wrong(format!("sasl is {known}, not {other}")));
            }
            ("ca", _) if !self.tls => return Err(wrong("ca is for kafkas://")),
            ("ca", path) => {
                let read = |error| wrong(format!("ca={path} cannot be read: {error}"));
                std::fs::metadata(path).map_err(read)?;
                self.ca = Some(path.to_owned());
            }
            ("prefix", prefix) => {
                let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
                if prefix.is_empty() || prefix.len() > 40 || !prefix.chars().all(is_plain) {
                    return Err(wrong("a prefix has 1 to 40 of the characters a-zA-Z0-9.-_"));
                }
                self.prefix = prefix.to_owned();
            }
            (other, _) => {
                let known = "partitions, replicas, session, timeout, trim, sasl, ca and prefix";
                return Err(wrong(format!("there is no parameter {other}, there are {known}")));
            }
        }
        Ok(())
    }

    /// The brokers as the client wants them.
    pub fn bootstrap(&self) -> String {
        let shown = |(host, port): &(String, u16)| match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        self.brokers.iter().map(shown).collect::<Vec<_>>().join(",")
    }

    /// The group that consumes a topic.
    pub fn group(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    /// The topic in which the settings of queues are.
    pub fn settings(&self) -> String {
        format!("{}settings", self.prefix)
    }
}

fn host_and_port(place: &str) -> Result<(String, u16)> {
    let found = engine::host_and_port(place);
    let (host, port) = found.ok_or_else(|| wrong("a host has no ]"))?;
    if host.is_empty() {
        return Err(wrong("the URL has no host"));
    }
    let port = match port {
        None => PORT,
        Some(port) => {
            let read = port.parse().ok().filter(|port| *port != 0);
            read.ok_or_else(|| wrong(format!("a port is 1 to 65535, not {port}")))?
        }
    };
    Ok((decoded("a host", host)?, port))
}

/// Undoes `%XX`.
fn decoded(what: &str, text: &str) -> Result<String> {
    let bytes =
        engine::unescaped(text).ok_or_else(|| wrong(format!("{what} has a % that is not %XX")))?;
    String::from_utf8(bytes).map_err(|_| wrong(format!("{what} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read() {
        let config = Config::read("kafka://me:a%2Fb@one,[::1]:5/?partitions=6&replicas=3&trim=no");
        let config = config.expect("it is well formed");
        assert_eq!(config.bootstrap(), "one:9092,[::1]:5");
        assert_eq!(config.user, Some(("me".to_owned(), "a/b".to_owned())));
        assert_eq!(config.shown, "kafka://one,[::1]:5");
        assert_eq!((config.partitions, config.replicas, config.trim), (6, 3, false));
        assert_eq!(config.group("orders"), "leasehold.orders");
    }

    #[test]
    fn a_wrong_url_is_told_what_is_wrong() {
        for (url, part) in [
            ("redis://x", "scheme"),
            ("kafka:x", "://"),
            ("kafka://", "host"),
            ("kafka://a,,b", "host"),
            ("kafka://x:99999", "port"),
            ("kafka://x/orders", "nothing behind"),
            ("kafka://x?partitions=0", "partitions"),
            ("kafka://x?session=1", "session"),
            ("kafka://x?sasl=gssapi", "sasl"),
            ("kafka://x?ca=/nowhere", "ca"),
            ("kafka://x?speed=1", "speed"),
            ("kafka://x?prefix=a%2Fb", "prefix"),
        ] {
            let error = Config::read(url).expect_err(url);
            assert_eq!(error.kind, ErrorKind::Invalid);
            assert!(error.wrong.contains(part), "{url}: {error}");
        }
    }

    #[test]
    fn tls_is_there_or_its_feature_is_named() {
        for url in ["kafkas://x", "kafka://u:p@x?sasl=scram-sha-256"] {
            let read = Config::read(url);
            assert_eq!(read.is_ok(), cfg!(feature = "tls"));
            if let Err(error) = read {
                assert_eq!(error.kind, ErrorKind::Unsupported);
                assert!(error.wrong.contains("kafka-tls"), "{error}");
            }
        }
    }
}
