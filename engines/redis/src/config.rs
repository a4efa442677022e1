//! What a URL says.

use std::path::PathBuf;
use std::time::Duration;

use leasehold_api::{Error, ErrorKind, Result, engine};
use percent_encoding::percent_decode_str;

/// Where Redis listens if not said.
const PORT: u16 = 6379;
/// Where its sentinels do.
const SENTINEL_PORT: u16 = 26379;
/// Schemes, for errors.
const SCHEMES: &str = "redis://, rediss:// (TLS), redis+unix://, redis+sentinel:// and \
                       redis+cluster:// (rediss+… with TLS), or the same with valkey";
/// Options, for errors.
const OPTIONS: &str = "prefix, allow, wait, wait_ms, connect_ms, answer_ms, patience_ms, ca, \
                       sentinel_user, sentinel_password";

/// How a server is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is said where it is.
    Alone,
    /// A socket of this machine.
    Unix(PathBuf),
    /// Sentinels know where the master of this name is.
    Sentinel(String),
    /// The node that has the keys' slot is asked of the others.
    Cluster,
}

/// Who asks.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Login {
    pub user: Option<String>,
    pub password: Option<String>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What a URL says.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// The URL without credentials.
    pub shown: String,
    pub place: Place,
    pub tls: bool,
    pub hosts: Vec<(String, u16)>,
    pub login: Login,
    pub sentinel: Login,
    pub db: i64,
    /// All keys begin with it; it has a hash tag.
    pub prefix: String,
    pub allow_eviction: bool,
    /// Replicas that must have a change of a lock or register before it counts.
    pub wait: u32,
    /// How long they are waited for.
    pub wait_for: Duration,
    pub connect: Duration,
    pub answer: Duration,
    pub patience: Duration,
    /// Certificates to trust instead of the system's, PEM.
    pub ca: Option<Vec<u8>>,
}

fn invalid(wrong: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, wrong)
}

fn decoded(what: &str, text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    let wrong = |_| invalid(format!("the {what} in the URL is not UTF-8 after decoding %XX"));
    Ok(decoded.map_err(wrong)?.into_owned())
}

/// The scheme's meaning, and whether with TLS.
fn scheme(scheme: &str) -> Result<(Place, bool)> {
    let unknown = || invalid(format!("the scheme {scheme}:// is not known; there are {SCHEMES}"));
    let (base, how) = scheme.split_once('+').unwrap_or((scheme, ""));
    let tls = match base {
        "redis" | "valkey" => false,
        "rediss" | "valkeys" => true,
        _ => return Err(unknown()),
    };
    let place = match how {
        "" => Place::Alone,
        "unix" if !tls => Place::Unix(PathBuf::new()),
        "sentinel" => Place::Sentinel(String::new()),
        "cluster" => Place::Cluster,
        _ => return Err(unknown()),
    };
    Ok((place, tls))
}

fn host(text: &str, port: u16) -> Result<(String, u16)> {
    let (name, given) = engine::host_and_port(text).ok_or_else(|| {
        invalid(format!("the host {text:?} has no closing bracket; write [::1]:6379"))
    })?;
    if name.is_empty() {
        return Err(invalid("a host in the URL is empty; write redis://HOST:PORT"));
    }
    let port = match given {
        None => port,
        Some(given) => given
            .parse()
            .map_err(|_| invalid(format!("the port {given:?} is not a number from 1 to 65535")))?,
    };
    Ok((decoded("host", name)?, port))
}

fn login(text: &str) -> Result<Login> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    let some = |what: &str, text: &str| match text {
        "" => Ok(None),
        text => decoded(what, text).map(Some),
    };
    Ok(Login { user: some("user", user)?, password: some("password", password)? })
}

impl Config {
    /// Reads a URL.
    pub fn read(url: &str) -> Result<Self> {
        let (before, rest) = url.split_once("://").ok_or_else(|| {
            invalid(format!("{url:?} is no URL of Redis; it begins with one of {SCHEMES}"))
        })?;
        let (place, tls) = scheme(before)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut config = Self::new(place, tls);
        match config.place {
            Place::Unix(_) => {
                if !rest.starts_with('/') {
                    return Err(invalid("the socket's path is absolute: redis+unix:///run/r.sock"));
                }
                config.place = Place::Unix(decoded("path", rest)?.into());
                config.shown = format!("{before}://{rest}");
            }
            _ => config.network(before, rest)?,
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            config.option(name, &decoded(name, value)?)?;
        }
        if config.db != 0 && config.place == Place::Cluster {
            return Err(invalid("a cluster has only database 0; leave out the path"));
        }
        Ok(config)
    }

    fn new(place: Place, tls: bool) -> Self {
        Self {
            shown: String::new(),
            place,
            tls,
            hosts: Vec::new(),
            login: Login::default(),
            sentinel: Login::default(),
            db: 0,
            prefix: "{leasehold}".to_owned(),
            allow_eviction: false,
            wait: 0,
            wait_for: Duration::from_secs(1),
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(5),
            patience: Duration::from_secs(10),
            ca: None,
        }
    }

    fn network(&mut self, scheme: &str, rest: &str) -> Result<()> {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (who, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        self.login = login(who)?;
        let port = if self.is_sentinel() { SENTINEL_PORT } else { PORT };
        self.hosts = hosts.split(',').map(|text| host(text, port)).collect::<Result<_>>()?;
        if self.place == Place::Alone && self.hosts.len() > 1 {
            return Err(invalid(format!(
                "{} hosts are given; several are for redis+cluster:// or redis+sentinel://",
                self.hosts.len()
            )));
        }
        let mut db = path;
        if self.is_sentinel() {
            let (master, rest) = path.split_once('/').unwrap_or((path, ""));
            if master.is_empty() {
                let wrong = "the master's name is missing; write \
                             redis+sentinel://HOST:26379/MASTER";
                return Err(invalid(wrong));
            }
            self.place = Place::Sentinel(decoded("master's name", master)?);
            db = rest;
        }
        if !db.is_empty() {
            let wrong = |_| invalid(format!("the path {db:?} is not the number of a database"));
            self.db = db.parse::<u16>().map_err(wrong)?.into();
        }
        self.shown = format!("{scheme}://{hosts}");
        if !path.is_empty() {
            self.shown = format!("{}/{path}", self.shown);
        }
        Ok(())
    }

    fn is_sentinel(&self) -> bool {
        matches!(self.place, Place::Sentinel(_))
    }

    fn option(&mut self, name: &str, value: &str) -> Result<()> {
        let number = |least: u64, most: u64| {
            let number = value.parse().ok().filter(|is| (least..=most).contains(is));
            number.ok_or_else(|| {
                invalid(format!("{name}={value} is not a number from {least} to {most}"))
            })
        };
        let ms = || number(1, 600_000).map(Duration::from_millis);
        match name {
            "prefix" => self.prefix = prefix(value)?,
            "allow" if value == "eviction" => self.allow_eviction = true,
            "allow" => {
                let wrong = format!("allow={value} is not known; there is allow=eviction");
                return Err(invalid(wrong));
            }
            "wait" => self.wait = number(0, 100)? as u32,
            "wait_ms" => self.wait_for = ms()?,
            "connect_ms" => self.connect = ms()?,
            "answer_ms" => self.answer = ms()?,
            "patience_ms" => self.patience = ms()?,
            "ca" => self.ca = Some(certificates(value)?),
            "sentinel_user" => self.sentinel.user = Some(value.to_owned()),
            "sentinel_password" => self.sentinel.password = Some(value.to_owned()),
            _ => {
                let wrong = format!("the option {name} is not known; there are {OPTIONS}");
                return Err(invalid(wrong));
            }
        }
        Ok(())
    }
}

fn certificates(path: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        invalid(format!("the certificates ca={path} cannot be read: {error}; give a PEM file"))
    })
}

/// A prefix has one hash tag, so that a cluster keeps all keys together
/// (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags>).
fn prefix(text: &str) -> Result<String> {
    let plain = |text: &str| {
        !text.is_empty()
            && text.len() <= 64
            && text.chars().all(|char| char.is_ascii_graphic() && !"{}*?[]\\^".contains(char))
    };
    let tag = text.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    match tag {
        None if plain(text) => Ok(format!("{{{text}}}")),
        Some((tag, _)) if plain(tag) && plain(&text.replacen(['{', '}'], "", 2)) => {
            Ok(text.to_owned())
        }
        _ => Err(invalid(format!(
            "the prefix {text:?} is not 1 to 64 visible ASCII characters, with at most one hash \
             tag in braces, without * ? [ ] ^ and \\"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(url: &str) -> String {
        let error = Config::read(url).expect_err("it is wrong");
        assert_eq!(error.kind, ErrorKind::Invalid);
        error.wrong
    }

    #[test]
    fn a_url_says_where_and_who() {
        let config = Config::read("rediss://me:p%40ss@example.org:7000/3").unwrap();
        assert_eq!(config.hosts, [("example.org".to_owned(), 7000)]);
        assert_eq!(config.login.user.as_deref(), Some("me"));
        assert_eq!(config.login.password.as_deref(), Some("p@ss"));
        assert!(config.tls && config.db == 3);
        assert_eq!(config.shown, "rediss://example.org:7000/3");
        assert!(!format!("{config:?}").contains("p@ss"));
        let config = Config::read("valkey://:secret@[::1]").unwrap();
        assert_eq!(config.hosts, [("::1".to_owned(), 6379)]);
        assert_eq!(config.login.user, None);
    }

    #[test]
    fn sentinels_clusters_and_sockets_have_urls() {
        let config = Config::read("redis+sentinel://a,b:1/mine/2?sentinel_password=x").unwrap();
        assert_eq!(config.hosts, [("a".to_owned(), 26379), ("b".to_owned(), 1)]);
        assert_eq!((config.place, config.db), (Place::Sentinel("mine".into()), 2));
        assert!(!config.shown.contains("password"));
        assert_eq!(Config::read("redis+cluster://a:1,b:2").unwrap().place, Place::Cluster);
        let config = Config::read("redis+unix:///run/redis.sock?prefix=app").unwrap();
        assert_eq!(config.place, Place::Unix("/run/redis.sock".into()));
        assert_eq!(config.prefix, "{app}");
    }

    #[test]
    fn options_are_read() {
        let url = "redis://h?prefix=a%7Bb%7Dc&allow=eviction&wait=2&wait_ms=5&answer_ms=7";
        let config = Config::read(url).unwrap();
        assert_eq!((config.prefix.as_str(), config.wait), ("a{b}c", 2));
        assert!(config.allow_eviction);
        assert_eq!(config.answer, Duration::from_millis(7));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(wrong("http://h").contains("http://"));
        assert!(wrong("localhost:6379").contains("redis://"));
        assert!(wrong("redis+magic://h").contains("redis+magic"));
        assert!(wrong("redis://h:port").contains("port"));
        assert!(wrong("redis://").contains("host"));
        assert!(wrong("redis://a,b").contains("redis+cluster"));
        assert!(wrong("redis://h/x").contains("database"));
        assert!(wrong("redis+sentinel://h").contains("master"));
        assert!(wrong("redis+cluster://h/1").contains("database 0"));
        assert!(wrong("redis://h?wait=x").contains("wait=x"));
        assert!(wrong("redis://h?allow=all").contains("allow=eviction"));
        assert!(wrong("redis://h?prefx=a").contains("prefx"));
        assert!(wrong("redis://h?prefix=%7B%7D").contains("prefix"));
        assert!(wrong("redis://h?prefix=a*").contains("prefix"));
        assert!(wrong("redis://h?ca=/none").contains("/none"));
        assert!(wrong("redis+unix://run").contains("absolute"));
    }
}
