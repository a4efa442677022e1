//! What a URL says.
//!
//! `etcd://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/PREFIX][?ca=FILE&cert=FILE&key=FILE]`, and
//! `etcds://…` for TLS.

use std::path::PathBuf;

use leasehold_api::engine::{host_and_port, unescaped};
use leasehold_api::{Error, ErrorKind, Result};

/// Where etcd listens for clients.
const PORT: u16 = 2379;
/// Where everything is kept unless the URL says otherwise.
const PREFIX: &str = "leasehold";

/// How to reach a cluster, and where in it everything is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// The URL without its password.
    pub shown: String,
    /// `http://HOST:PORT` of each member.
    pub endpoints: Vec<String>,
    /// Name and password.
    pub user: Option<(String, String)>,
    /// Files with certificates; `None`: no TLS.
    pub tls: Option<Files>,
    /// All keys begin with this, without a slash at its end.
    pub prefix: String,
}

/// Files in PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// Whom to trust, instead of the authorities of the web.
    pub ca: Option<PathBuf>,
    /// Who we are.
    pub identity: Option<(PathBuf, PathBuf)>,
}

fn invalid(part: &str, wrong: &str) -> Error {
    let wrong = format!(
        "{part}: {wrong}; an etcd cluster is named \
         etcd://[USER:PASSWORD@]HOST[:2379][,HOST...][/PREFIX], or etcds://... for TLS with \
         ?ca=FILE, ?cert=FILE and ?key=FILE"
    );
    Error::new(ErrorKind::Invalid, wrong).asking("open an etcd cluster")
}

impl Config {
    /// Reads a URL.
    ///
    /// # Errors
    /// `Invalid`, naming the part that is wrong and what is possible.
    pub fn read(url: &str) -> Result<Self> {
        let (tls, rest) = match url.split_once("://") {
            Some(("etcd", rest)) => (false, rest),
            Some(("etcds", rest)) => (true, rest),
            _ => return Err(invalid("the scheme", "it is neither etcd:// nor etcds://")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(credentials(user)?), hosts),
            None => (None, authority),
        };
        let scheme = if tls { "https" } else { "http" };
        let endpoint = |host: &str| Ok(format!("{scheme}://{}", place(host)?));
        let endpoints = hosts.split(',').map(endpoint).collect::<Result<Vec<_>>>()?;
        let prefix = decoded("the prefix", path.trim_end_matches('/'))?;
        if prefix.chars().any(char::is_control) {
            return Err(invalid("the prefix", "it has a control character in it"));
        }
        let prefix = if prefix.is_empty() { PREFIX.to_owned() } else { prefix };
        let shown = url.replacen(&format!("{}@", authority_user(authority)), "", 1);
        let files = files(query)?;
        if !tls && files != Files::default() {
            return Err(invalid("the scheme", "certificates are for etcds://"));
        }
        Ok(Self { shown, endpoints, user, tls: tls.then_some(files), prefix })
    }
}

fn authority_user(authority: &str) -> &str {
    authority.rsplit_once('@').map_or("", |(user, _)| user)
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

fn credentials(user: &str) -> Result<(String, String)> {
    let Some((name, password)) = user.split_once(':') else {
        return Err(invalid("the user", "a password is missing: USER:PASSWORD@"));
    };
    Ok((decoded("the user", name)?, decoded("the password", password)?))
}

fn files(query: &str) -> Result<Files> {
    let mut files = Files::default();
    let (mut cert, mut key) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let path = Some(PathBuf::from(decoded(name, value)?));
        match name {
            "ca" => files.ca = path,
            "cert" => cert = path,
            "key" => key = path,
            _ => return Err(invalid(name, "there is no such option, only ca, cert and key")),
        }
    }
    files.identity = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err(invalid("cert", "cert and key belong together")),
    };
    Ok(files)
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
        let config = Config::read("etcds://me:p%40ss@a,b:1,[::1]:2/some/where?ca=/ca.pem");
        let config = config.expect("it is right");
        assert_eq!(config.endpoints, ["https://a:2379", "https://b:1", "https://[::1]:2"]);
        assert_eq!(config.user, Some(("me".to_owned(), "p@ss".to_owned())));
        assert_eq!(config.prefix, "some/where");
        assert_eq!(config.shown, "etcds://a,b:1,[::1]:2/some/where?ca=/ca.pem");
        assert_eq!(config.tls.expect("TLS").ca, Some("/ca.pem".into()));
        let plain = Config::read("etcd://localhost").expect("it is right");
        assert_eq!((plain.prefix.as_str(), plain.tls), ("leasehold", None));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = [
            ("http://a", "the scheme"),
            ("etcd://", "the host"),
            ("etcd://a,,b", "the host"),
            ("etcd://a:x", "the port"),
            ("etcd://a:0", "the port"),
            ("etcd://me@a", "the user"),
            ("etcd://me:%zz@a", "the password"),
            ("etcd://[::1", "the host"),
            ("etcd://a?ca=x", "the scheme"),
            ("etcds://a?cert=x", "cert"),
            ("etcds://a?pool=3", "pool"),
        ];
        for (url, part) in wrong {
            let error = Config::read(url).expect_err(url);
            assert_eq!(error.kind, ErrorKind::Invalid);
            assert!(error.wrong.starts_with(part), "{url}: {error}");
            assert!(error.wrong.contains("etcd://["), "{url}: {error}");
        }
    }
}
