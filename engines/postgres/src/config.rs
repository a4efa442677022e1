//! The URL of an engine.
//!
//! It is the URL that libpq reads (PostgreSQL's manual, 34.1.1.2) with a few words of our own.

use std::path::PathBuf;
use std::time::Duration;

use leasehold_api::{Error, Result};
use percent_encoding::percent_decode_str;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};

use crate::error::invalid;

/// How well the server is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Not at all: the connection is encrypted, the server may be anybody.
    Anybody,
    /// Its certificate is signed by whom we trust.
    Signed,
    /// And it is for the host that the URL names.
    Named,
}

/// What a URL says.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// How to connect.
    pub driver: tokio_postgres::Config,
    /// What is shown of the URL: no credentials.
    pub shown: String,
    /// The schema that everything is kept in.
    pub schema: String,
    /// Connections of the pool; one more listens.
    pub pool: usize,
    /// How long one answer may take.
    pub answer: Duration,
    /// Whom to believe.
    pub trust: Trust,
    /// Certificates to trust instead of the system's.
    pub root: Option<PathBuf>,
    /// A certificate and a key of our own.
    pub own: (Option<PathBuf>, Option<PathBuf>),
}

const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];
const WORDS: &str = "schema, pool, answer_timeout, connect_timeout, sslmode, sslrootcert, sslcert, \
                     sslkey, application_name, host, port, user, password, dbname";

fn decoded(what: &str, text: &str) -> Result<String> {
    let text = percent_decode_str(text).decode_utf8();
    Ok(text.map_err(|_| invalid(format!("the {what} in the URL is no UTF-8")))?.into_owned())
}

fn number(name: &str, text: &str, least: u64, most: u64) -> Result<u64> {
    let wrong = || invalid(format!("{name}={text} in the URL: give {least} to {most}"));
    let number: u64 = text.parse().map_err(|_| wrong())?;
    if (least..=most).contains(&number) { Ok(number) } else { Err(wrong()) }
}

impl Config {
    /// Reads a URL.
    ///
    /// # Errors
    /// `Invalid`, with the part that is wrong.
    pub fn read(url: &str) -> Result<Self> {
        let rest = SCHEMES.iter().find_map(|scheme| url.strip_prefix(scheme));
        let rest = rest
            .ok_or_else(|| invalid("the URL does not begin with postgres:// or postgresql://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        let mut config = Self::new();
        if let Some(credentials) = credentials {
            let (user, password) = match credentials.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (credentials, None),
            };
            config.driver.user(decoded("user", user)?);
            if let Some(password) = password {
                config.driver.password(decoded("password", password)?);
            }
        }
        for host in hosts.split(',').filter(|host| !host.is_empty()) {
            config.host(host)?;
        }
        if !database.is_empty() {
            config.driver.dbname(decoded("database", database)?);
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            config.word(name, &decoded(name, value)?)?;
        }
        config.finish()
    }

    fn new() -> Self {
        let mut driver = tokio_postgres::Config::new();
        driver.application_name("leasehold").connect_timeout(Duration::from_secs(5));
        // A dead network is noticed within half a minute, also by who only listens.
        driver.keepalives_idle(Duration::from_secs(10));
        driver.keepalives_interval(Duration::from_secs(5)).keepalives_retries(3);
        driver.tcp_user_timeout(Duration::from_secs(20));
        Self {
            driver,
            shown: String::new(),
            schema: "leasehold".to_owned(),
            pool: 10,
            answer: Duration::from_secs(5),
            trust: Trust::Anybody,
            root: None,
            own: (None, None),
        }
    }

    fn host(&mut self, host: &str) -> Result<()> {
        let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((name, port)) => (name, port.strip_prefix(':')),
            None => match host.rsplit_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (host, None),
            },
        };
        self.driver.host(decoded("host", name)?);
        let port = port.map_or(Ok(5432), |port| number("the port", port, 1, 65_535))?;
        self.driver.port(port as u16);
        Ok(())
    }

    fn word(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "schema" => self.schema = value.to_owned(),
            "pool" => self.pool = number(name, value, 1, 1000)? as usize,
            "answer_timeout" => self.answer = Duration::from_secs(number(name, value, 1, 600)?),
            "connect_timeout" => {
                self.driver.connect_timeout(Duration::from_secs(number(name, value, 1, 600)?));
            }
            "sslmode" => self.sslmode(value)?,
            "sslrootcert" => self.root = Some(value.into()).filter(|_| value != "system"),
            "sslcert" => self.own.0 = Some(value.into()),
            "sslkey" => self.own.1 = Some(value.into()),
            "application_name" => drop(self.driver.application_name(value)),
            "host" => drop(self.driver.host(value)),
            "port" => drop(self.driver.port(number(name, value, 1, 65_535)? as u16)),
            "user" => drop(self.driver.user(value)),
            "password" => drop(self.driver.password(value)),
            "dbname" => drop(self.driver.dbname(value)),
            other => {
                return Err(invalid(format!("?{other}= is not known; possible are {WORDS}")));
            }
        }
        Ok(())
    }

    fn sslmode(&mut self, mode: &str) -> Result<()> {
        (self.trust, _) = match mode {
            "disable" => (Trust::Anybody, self.driver.ssl_mode(SslMode::Disable)),
            "prefer" => (Trust::Anybody, self.driver.ssl_mode(SslMode::Prefer)),
            "require" => (Trust::Anybody, self.driver.ssl_mode(SslMode::Require)),
            "verify-ca" => (Trust::Signed, self.driver.ssl_mode(SslMode::Require)),
            "verify-full" => (Trust::Named, self.driver.ssl_mode(SslMode::Require)),
            other => {
                let wrong = format!(
                    "sslmode={other}: possible are disable, prefer, require, \
                                     verify-ca and verify-full"
                );
                return Err(invalid(wrong));
            }
        };
        Ok(())
    }

    fn finish(mut self) -> Result<Self> {
        let plain = |char: char| char.is_ascii_alphanumeric() || char == '_';
        // Room for the names that are made of it.
        if !(1..=48).contains(&self.schema.len()) || !self.schema.chars().all(plain) {
            let wrong = format!("schema={}: give 1 to 48 letters, digits and _", self.schema);
            return Err(invalid(wrong));
        }
        if self.driver.get_hosts().is_empty() {
            return Err(invalid("the URL names no host; postgres://USER@HOST/DATABASE"));
        }
        if self.driver.get_user().is_none() {
            return Err(invalid("the URL names no user; postgres://USER@HOST/DATABASE"));
        }
        if self.own.0.is_some() != self.own.1.is_some() {
            return Err(invalid("sslcert and sslkey belong together; give both or none"));
        }
        // As libpq does: who gives certificates to trust wants them looked at.
        if self.root.is_some() && self.trust == Trust::Anybody {
            self.trust = Trust::Signed;
        }
        if self.driver.get_hosts().len() > 1 {
            self.driver.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        self.shown = self.show();
        Ok(self)
    }

    fn show(&self) -> String {
        let ports = self.driver.get_ports();
        let hosts = self.driver.get_hosts().iter().enumerate().map(|(place, host)| {
            let name = match host {
                tokio_postgres::config::Host::Tcp(name) => name.clone(),
                #[cfg(unix)]
                tokio_postgres::config::Host::Unix(path) => path.display().to_string(),
            };
            let port = ports.get(place).or(ports.first()).copied().unwrap_or(5432);
            format!("{name}:{port}")
        });
        let hosts = hosts.collect::<Vec<_>>().join(",");
        let database = self.driver.get_dbname().or(self.driver.get_user()).unwrap_or_default();
        format!("postgres://{hosts}/{database}?schema={}", self.schema)
    }

    /// The schema's name as SQL has it.
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.schema)
    }

    /// The channel on which waiters are woken.
    pub fn channel(&self) -> String {
        format!("leasehold_{}", self.schema)
    }

    /// An error with the URL in it.
    pub fn asked(&self) -> impl Fn(Error) -> Error + use<> {
        let asked = format!("connect to {}", self.shown);
        move |error| error.asking(asked.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_shown_without_credentials() {
        let url =
            "postgresql://me%40home:s%3Ae@one:5433,[::1]/db?schema=mine&pool=3&sslmode=require";
        let config = Config::read(url).expect("it is right");
        assert_eq!(config.driver.get_user(), Some("me@home"));
        assert_eq!(config.driver.get_password(), Some(&b"s:e"[..]));
        assert_eq!(config.driver.get_ports(), [5433, 5432]);
        assert_eq!((config.pool, config.trust), (3, Trust::Anybody));
        assert_eq!(config.shown, "postgres://one:5433,::1:5432/db?schema=mine");
        assert_eq!(config.channel(), "leasehold_mine");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrongs = [
            ("mysql://me@host/db", "postgres://"),
            ("postgres://me@/db", "no host"),
            ("postgres://host/db", "no user"),
            ("postgres://me@host:0/db", "port"),
            ("postgres://me@host/db?pool=0", "pool=0"),
            ("postgres://me@host/db?colour=red", "?colour="),
            ("postgres://me@host/db?sslmode=maybe", "verify-full"),
            ("postgres://me@host/db?schema=a-b", "schema=a-b"),
            ("postgres://me@host/db?sslcert=x", "sslkey"),
        ];
        for (url, named) in wrongs {
            let error = Config::read(url).expect_err(url);
            assert_eq!(error.kind, leasehold_api::ErrorKind::Invalid);
            assert!(error.wrong.contains(named), "{url}: {error}");
        }
    }

    #[test]
    fn certificates_to_trust_are_looked_at() {
        let config = Config::read("postgres://me@host/db?sslmode=require&sslrootcert=/x");
        assert_eq!(config.expect("it is right").trust, Trust::Signed);
    }
}
