//! What a URL says.
//!
//! `zookeeper://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/ROOT][?session=SECONDS]`.

use std::time::Duration;

use leasehold_api::engine::{host_and_port, unescaped};
use leasehold_api::{Error, ErrorKind, Result};

/// Where ZooKeeper listens for clients.
const PORT: u16 = 2181;
/// Below this node everything is kept unless the URL says otherwise.
const ROOT: &str = "/leasehold";
/// After how long a process that is silent loses what it holds, seconds.
const SESSION: u64 = 10;
/// The longest that may be asked for, seconds.
const SESSION_MAX: u64 = 3600;

/// How to reach an ensemble, and where in it everything is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// The URL without its password.
    pub shown: String,
    /// `HOST:PORT,HOST:PORT…`.
    pub hosts: String,
    /// `NAME:PASSWORD`, as the scheme `digest` has it.
    pub user: Option<String>,
    /// The node below which everything is, with a slash before it and none behind.
    pub root: String,
    /// After how long a process that is silent loses what it holds.
    pub session: Duration,
}

fn invalid(part: &str, wrong: &str) -> Error {
    let wrong = format!(
        "{part}: {wrong}; a ZooKeeper ensemble is named \
         zookeeper://[USER:PASSWORD@]HOST[:2181][,HOST...][/ROOT][?session=SECONDS]"
    );
    Error::new(ErrorKind::Invalid, wrong).asking("open a ZooKeeper ensemble")
}

impl Config {
    /// Reads a URL.
    ///
    /// # Errors
    /// `Invalid`, naming the part that is wrong and what is possible.
    pub fn read(url: &str) -> Result<Self> {
        let Some(("zookeeper", rest)) = url.split_once("://") else {
            return Err(invalid("the scheme", "it is not zookeeper://"));
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        let credentials = user.map(credentials).transpose()?;
        let hosts = hosts.split(',').map(place).collect::<Result<Vec<_>>>()?.join(",");
        let shown = match user {
            Some(user) => url.replacen(&format!("{user}@"), "", 1),
            None => url.to_owned(),
        };
        let (root, session) = (root(path)?, session(query)?);
        Ok(Self { shown, hosts, user: credentials, root, session })
    }
}

fn root(path: &str) -> Result<String> {
    let path = path.trim_end_matches('/');
    if path.is_empty() {
        return Ok(ROOT.to_owned());
    }
    let decoded = decoded("the root", path)?;
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    if !decoded.split('/').all(is_part) || decoded.chars().any(char::is_control) {
        return Err(invalid("the root", &format!("{decoded:?} is no path of a node")));
    }
    if decoded.split('/').next() == Some("zookeeper") {
        return Err(invalid("the root", "/zookeeper is ZooKeeper's own"));
    }
    Ok(format!("/{decoded}"))
}

fn session(query: &str) -> Result<Duration> {
    let mut seconds = SESSION;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some(("session", value)) = pair.split_once('=') else {
            return Err(invalid(pair, "there is no such option, only session"));
        };
        seconds = match value.parse() {
            Ok(seconds @ 1..=SESSION_MAX) => seconds,
            _ => return Err(invalid("session", "it is a number of seconds from 1 to 3600")),
        };
    }
    Ok(Duration::from_secs(seconds))
}

/// `HOST:PORT`, with the usual port if none is said.
fn place(host: &str) -> Result<String> {
    let (name, port) = host_and_port(host)
        .ok_or_else(|| invalid("the host", &format!("{host} has no closing bracket")))?;
    let name = match host.starts_with('[') {
        true => format!("[{name}]"),
        false => name.to_owned(),
    };
    let fits = |char: char| char.is_ascii_alphanumeric() || "-._[]:".contains(char);
    if name.is_empty() || !name.chars().all(fits) {
        return Err(invalid("the host", &format!("{name:?} is no name or address")));
    }
    let port = match port.map(str::parse::<u16>) {
        None => PORT,
        Some(Ok(port @ 1..)) => port,
        Some(_) => return Err(invalid("the port", &format!("{host} has none from 1 to 65535"))),
    };
    Ok(format!("{name}:{port}"))
}

fn credentials(user: &str) -> Result<String> {
    let Some((name, password)) = user.split_once(':') else {
        return Err(invalid("the user", "a password is missing: USER:PASSWORD@"));
    };
    let (name, password) = (decoded("the user", name)?, decoded("the password", password)?);
    if name.is_empty() || name.contains(':') {
        return Err(invalid("the user", "it is empty or has a colon in it"));
    }
    Ok(format!("{name}:{password}"))
}

/// Takes `%XX` apart.
fn decoded(part: &str, text: &str) -> Result<String> {
    let bytes = unescaped(text)
        .ok_or_else(|| invalid(part, "a % is not followed by two hexadecimal digits"))?;
    String::from_utf8(bytes).map_err(|_| invalid(part, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read() {
        let url = "zookeeper://me:p%40ss@a,b:1,[::1]:2/some/where?session=3";
        let config = Config::read(url).expect("it is right");
        assert_eq!(config.hosts, "a:2181,b:1,[::1]:2");
        assert_eq!(config.user.as_deref(), Some("me:p@ss"));
        assert_eq!(config.root, "/some/where");
        assert_eq!(config.session, Duration::from_secs(3));
        assert_eq!(config.shown, "zookeeper://a,b:1,[::1]:2/some/where?session=3");
        let plain = Config::read("zookeeper://localhost").expect("it is right");
        assert_eq!((plain.root.as_str(), plain.session.as_secs()), ("/leasehold", 10));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = [
            ("http://a", "the scheme"),
            ("zookeeper://", "the host"),
            ("zookeeper://a,,b", "the host"),
            ("zookeeper://a:x", "the port"),
            ("zookeeper://a:0", "the port"),
            ("zookeeper://me@a", "the user"),
            ("zookeeper://me:%zz@a", "the password"),
            ("zookeeper://[::1", "the host"),
            ("zookeeper://a/b//c", "the root"),
            ("zookeeper://a/zookeeper/x", "the root"),
            ("zookeeper://a?session=0", "session"),
            ("zookeeper://a?pool=3", "pool"),
        ];
        for (url, part) in wrong {
            let error = Config::read(url).expect_err(url);
            assert_eq!(error.kind, ErrorKind::Invalid);
            assert!(error.wrong.starts_with(part), "{url}: {error}");
            assert!(error.wrong.contains("zookeeper://["), "{url}: {error}");
        }
    }
}
