//! What is in the URL.

use lapin::tcp::OwnedTLSConfig;
use lapin::types::ShortString;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use leasehold_api::{Error, ErrorKind, Result, engine};

/// Seconds between signs of life, if the URL does not say.
const HEARTBEAT: u16 = 10;
/// What the names of lock queues begin with, if the URL does not say.
const PREFIX: &str = "leasehold.";
/// How long a connection may take to be made, milliseconds.
const CONNECT: u64 = 5_000;
/// The longest name of a queue or an exchange, bytes.
pub(crate) const NAME_MAX: usize = 255;

/// A broker, and how to talk to it.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub uri: AMQPUri,
    /// Certificates to trust instead of the usual ones, as PEM.
    pub ca: Option<String>,
    /// The URL without credentials.
    pub shown: String,
    /// Seconds between signs of life; the broker gives up after two to three of them.
    pub heartbeat: u16,
    /// Locks are kept in quorum queues.
    pub quorum: bool,
    /// What the names of lock queues begin with.
    pub prefix: String,
}

fn wrong(what: impl std::fmt::Display) -> Error {
    let form = "amqp://USER:PASSWORD@HOST:PORT/VHOST?heartbeat=10";
    Error::new(ErrorKind::Invalid, format!("{what}; the form is {form}"))
}

impl Config {
    /// Reads a URL.
    ///
    /// # Errors
    /// `Invalid`, naming the part that is wrong.
    pub fn read(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("the URL has no ://"))?;
        let (scheme, port) = match scheme {
            "amqp" => (AMQPScheme::AMQP, 5672),
            "amqps" => (AMQPScheme::AMQPS, 5671),
            other => return Err(wrong(format!("the scheme is amqp or amqps, not {other}"))),
        };
        if rest.contains('#') {
            return Err(wrong("a # in the URL must be written as %23"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, vhost) = match rest.split_once('/') {
            // As everywhere with AMQP: a path that is there and empty is the vhost without a name,
            // but hardly anybody means that.
            None | Some((_, "")) => (rest.trim_end_matches('/'), "/".to_owned()),
            Some((authority, vhost)) => (authority, decoded("the vhost", vhost)?),
        };
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (user, place),
            None => ("guest:guest", authority),
        };
        let (username, password) = user.split_once(':').unwrap_or((user, ""));
        let userinfo = AMQPUserInfo {
            username: decoded("the user", username)?,
            password: decoded("the password", password)?,
        };
        let (host, port) = host_and_port(place, port)?;
        let shown = format!("{}://{place}/{}", name(&scheme), vhost.trim_start_matches('/'));
        let query_string = AMQPQueryString {
            heartbeat: Some(HEARTBEAT),
            connection_timeout: Some(CONNECT),
            ..AMQPQueryString::default()
        };
        let authority = AMQPAuthority { userinfo, host, port };
        let uri = AMQPUri { scheme, authority, vhost, query: query_string };
        if ShortString::try_new(uri.vhost.clone()).is_err() {
            return Err(wrong("the vhost is longer than 255 bytes"));
        }
        let prefix = PREFIX.to_owned();
        let mut config = Self { uri, ca: None, shown, heartbeat: HEARTBEAT, quorum: false, prefix };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            config.set(key, &decoded(key, value)?)?;
        }
        Ok(config)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match (key, value) {
            ("heartbeat", seconds) => {
                let seconds = seconds.parse().ok().filter(|seconds| (2..=60).contains(seconds));
                self.heartbeat = seconds.ok_or_else(|| wrong("heartbeat is 2 to 60 seconds"))?;
                self.uri.query.heartbeat = Some(self.heartbeat);
            }
            ("ca", path) => {
                let pem = std::fs::read_to_string(path);
                let read = |error| wrong(format!("ca={path} cannot be read: {error}"));
                self.ca = Some(pem.map_err(read)?);
            }
            ("locks", "classic") => self.quorum = false,
            ("locks", "quorum") => self.quorum = true,
            ("locks", other) => {
                return Err(wrong(format!("locks are classic or quorum, not {other}")));
            }
            ("prefix", prefix) if !prefix.is_empty() && prefix.len() <= 40 => {
                self.prefix = prefix.to_owned();
            }
            ("prefix", _) => return Err(wrong("a prefix has 1 to 40 bytes")),
            (other, _) => {
                let known = "heartbeat, ca, locks and prefix";
                return Err(wrong(format!("there is no parameter {other}, there are {known}")));
            }
        }
        Ok(())
    }

    pub fn tls(&self) -> OwnedTLSConfig {
        OwnedTLSConfig { identity: None, cert_chain: self.ca.clone() }
    }
}

fn name(scheme: &AMQPScheme) -> &'static str {
    match scheme {
        AMQPScheme::AMQP => "amqp",
        AMQPScheme::AMQPS => "amqps",
    }
}

fn host_and_port(place: &str, default: u16) -> Result<(String, u16)> {
    let found = engine::host_and_port(place);
    let (host, port) = found.ok_or_else(|| wrong("the host has no ]"))?;
    if host.is_empty() {
        return Err(wrong("the URL has no host"));
    }
    let port = match port {
        None => default,
        Some(port) => {
            let read = port.parse().ok().filter(|port| *port != 0);
            read.ok_or_else(|| wrong(format!("the port is 1 to 65535, not {port}")))?
        }
    };
    Ok((decoded("the host", host)?, port))
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
        let config = Config::read("amqps://me:a%2Fb@[::1]:5/my%2fhost?heartbeat=4&locks=quorum");
        let config = config.expect("it is well formed");
        let AMQPUri { authority, vhost, .. } = config.uri;
        assert_eq!((&*authority.host, authority.port, &*vhost), ("::1", 5, "my/host"));
        assert_eq!(authority.userinfo.password, "a/b");
        assert_eq!(config.shown, "amqps://[::1]:5/my/host");
        assert!(config.quorum && config.heartbeat == 4);
        let plain = Config::read("amqp://broker").expect("it is well formed");
        assert_eq!((plain.uri.authority.port, &*plain.uri.vhost), (5672, "/"));
    }

    #[test]
    fn a_wrong_url_is_told_what_is_wrong() {
        for (url, part) in [
            ("redis://x", "scheme"),
            ("amqp:x", "://"),
            ("amqp://", "host"),
            ("amqp://x:99999", "port"),
            ("amqp://x/%zz", "vhost"),
            ("amqp://x?heartbeat=0", "heartbeat"),
            ("amqp://x?locks=some", "locks"),
            ("amqp://x?ca=/nowhere", "/nowhere"),
            ("amqp://x?speed=1", "speed"),
        ] {
            let error = Config::read(url).expect_err(url);
            assert_eq!(error.kind, ErrorKind::Invalid);
            assert!(error.wrong.contains(part), "{url}: {error}");
        }
    }
}
