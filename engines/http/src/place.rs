//! Where the server is and who asks: what a URL says, checked before anything is sent.
//!
//! ```text
//! https://user:password@host:7070/prefix?ca=/etc/ca.pem
//! http://:token@[::1]:7070          http://host?token=…
//! ```
//! The URL is taken apart here, not by a crate: what is needed of the standard is one page, and an
//! error can say which part is wrong. What is shown of it never has the credentials.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use leasehold_api::{Error, ErrorKind, Result};
use percent_encoding::percent_decode_str;

use crate::HttpOptions;

/// Where a token is looked for when neither the URL nor the options have credentials.
const TOKEN_VARIABLE: &str = "LEASEHOLD_BEARER_TOKEN";

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user and a password, sent as `Authorization: Basic`.
    Password {
        /// The user; without a colon.
        user: String,
        /// The password.
        password: String,
    },
    /// A token, sent as `Authorization: Bearer`.
    Token(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password({user})"),
            Self::Token(_) => f.write_str("Token"),
        }
    }
}

/// Where the server is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub https: bool,
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
    /// The header `Host`.
    pub authority: HeaderValue,
    /// What stands before `/v1`, without a slash at the end.
    pub base: String,
    /// The URL as it may be shown.
    pub shown: Arc<str>,
    /// The header `Authorization`.
    pub authorization: Option<HeaderValue>,
    /// The certificates to trust instead of the system's.
    pub ca: Option<PathBuf>,
}

fn invalid(wrong: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, wrong)
}

fn decoded(what: &str, text: &str) -> Result<String> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(Into::into).map_err(|_| invalid(format!("the {what} is not UTF-8")))
}

/// What a query says.
#[derive(Default)]
struct Query {
    token: Option<String>,
    ca: Option<PathBuf>,
}

impl Query {
    fn read(text: &str) -> Result<Self> {
        let mut query = Self::default();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if value.is_empty() {
                return Err(invalid(format!("?{name} is empty; give it a value")));
            }
            let twice = match name {
                "token" => query.token.replace(decoded(name, value)?).is_some(),
                "ca" => query.ca.replace(decoded(name, value)?.into()).is_some(),
                other => {
                    return Err(invalid(format!(
                        "?{other} means nothing; use ?ca=FILE or ?token="
                    )));
                }
            };
            if twice {
                return Err(invalid(format!("?{name} is given twice")));
            }
        }
        Ok(query)
    }
}

/// The parts of a URL.
struct Parts<'a> {
    https: bool,
    user: Option<&'a str>,
    /// Host and port as they are written.
    authority: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Result<Self> {
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
            None => return Err(invalid("a server's URL begins with http:// or https://")),
        };
        let https = match scheme.as_str() {
            "http" => false,
            "https" => true,
            other => return Err(invalid(format!("{other}:// is not http:// or https://"))),
        };
        if rest.contains('#') {
            return Err(invalid("a server's URL has no #fragment; leave it out"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (before, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (user, authority) = match before.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, before),
        };
        Ok(Self { https, user, authority, path, query })
    }

    fn host_and_port(&self) -> Result<(&'a str, u16)> {
        let (host, port) = match self.authority.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((host, "")) => (host, None),
                Some((host, port)) => (host, port.strip_prefix(':').or(Some("?"))),
                None => return Err(invalid("the address has no ] at its end")),
            },
            None => match self.authority.split_once(':') {
                Some((_, port)) if port.contains(':') => {
                    return Err(invalid("an IPv6 address stands in brackets: http://[::1]:7070"));
                }
                Some((host, port)) => (host, Some(port)),
                None => (self.authority, None),
            },
        };
        if host.is_empty() {
            return Err(invalid("the URL names no host; such as http://localhost:7070"));
        }
        let usual = if self.https { 443 } else { 80 };
        let Some(port) = port else { return Ok((host, usual)) };
        match port.parse::<u16>() {
            Ok(0) => Err(invalid("port 0 is none; a server listens on 1 to 65535, usually 7070")),
            Ok(number) if !port.starts_with('+') => Ok((host, number)),
            _ => Err(invalid(format!("{port:?} is no port; ports are 1 to 65535"))),
        }
    }

    fn credentials(&self, token: Option<String>) -> Result<Option<Credentials>> {
        let user = match (self.user, token) {
            (Some(_), Some(_)) => {
                return Err(invalid("the URL has a user and ?token=; leave one of them out"));
            }
            (None, token) => return Ok(token.map(Credentials::Token)),
            (Some(user), None) => user,
        };
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        let (user, password) = (decoded("user", user)?, decoded("password", password)?);
        match (user.as_str(), password.as_str()) {
            ("", "") => Err(invalid("before the @ there is neither a user nor a token")),
            ("", _) => Ok(Some(Credentials::Token(password))),
            (user, _) if user.contains(':') => Err(invalid("a user's name has no colon")),
            _ => Ok(Some(Credentials::Password { user, password })),
        }
    }
}

fn authorization(credentials: &Credentials) -> Result<HeaderValue> {
    let text = match credentials {
        Credentials::Password { user, password } => {
            format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
        }
        Credentials::Token(token) => format!("Bearer {token}"),
    };
    let wrong = |_| invalid("the token has characters that no HTTP header can carry");
    let mut value = HeaderValue::from_str(&text).map_err(wrong)?;
    value.set_sensitive(true);
    Ok(value)
}

impl Place {
    /// Reads a URL.
    ///
    /// # Errors
    /// `Invalid`, naming the part that is wrong.
    pub fn read(url: &str, options: &HttpOptions) -> Result<Self> {
        let parts = Parts::of(url)?;
        let (host, port) = parts.host_and_port()?;
        let plain = |c: char| c.is_ascii_graphic() && !"<>\"\\^`{|}".contains(c);
        if !host.chars().all(plain) || !parts.path.chars().all(plain) {
            return Err(invalid("the URL has characters that must be escaped as %XX"));
        }
        let query = Query::read(parts.query)?;
        let named = parts.credentials(query.token)?.or_else(|| options.credentials.clone());
        let from_environment = || {
            let token = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
            token.map(Credentials::Token)
        };
        let credentials = named.or_else(from_environment);
        let scheme = if parts.https { "https" } else { "http" };
        let base = parts.path.trim_end_matches('/');
        let authority = HeaderValue::from_str(parts.authority);
        Ok(Self {
            https: parts.https,
            host: host.to_owned(),
            port,
            authority: authority.map_err(|_| invalid("the host has characters of no host"))?,
            base: base.to_owned(),
            shown: format!("{scheme}://{}{base}", parts.authority).into(),
            authorization: credentials.as_ref().map(authorization).transpose()?,
            ca: query.ca.or_else(|| options.ca.clone()),
        })
    }

    /// Whether the server is on this machine, so that nobody can listen in between.
    pub fn is_local(&self) -> bool {
        let address = self.host.parse::<std::net::IpAddr>();
        self.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Place> {
        let nobody = Credentials::Token("env".to_owned());
        let options = HttpOptions { credentials: Some(nobody), ..HttpOptions::default() };
        Place::read(url, &options)
    }

    #[test]
    fn a_url_is_taken_apart() {
        let place = read("https://ada:p%40ss@h.example:7070/a/b/?ca=%2Fx").unwrap();
        assert_eq!((place.host.as_str(), place.port), ("h.example", 7070));
        assert_eq!((place.base.as_str(), &*place.shown), ("/a/b", "https://h.example:7070/a/b"));
        assert_eq!(place.authorization.unwrap(), "Basic YWRhOnBAc3M=");
        assert_eq!(place.ca.unwrap(), PathBuf::from("/x"));

        let place = read("http://[::1]").unwrap();
        assert_eq!((place.host.as_str(), place.port, place.is_local()), ("::1", 80, true));
        assert_eq!(place.authorization.unwrap(), "Bearer env");
        assert_eq!(read("http://:t@h").unwrap().authorization.unwrap(), "Bearer t");
        assert_eq!(read("HTTPS://h?token=t").unwrap().authorization.unwrap(), "Bearer t");
        assert_eq!(read("https://h").unwrap().port, 443);
    }

    #[test]
    fn bad_urls_are_refused_with_what_is_wrong() {
        let bad = [
            ("gopher://h", "http"),
            ("h:7070", "http://"),
            ("http://", "host"),
            ("http://:7070", "host"),
            ("http://h:0", "port 0"),
            ("http://h:65536", "65536"),
            ("http://h:", "port"),
            ("http://h:+80", "+80"),
            ("http://[::1", "]"),
            ("http://[::1]7070", "port"),
            ("http://::1:7070", "brackets"),
            ("http://h#x", "#"),
            ("http://h?x=1", "?x"),
            ("http://h?ca=", "?ca"),
            ("http://h?ca=a&ca=b", "twice"),
            ("http://u@h?token=t", "one of them"),
            ("http://@h", "@"),
            ("http://a%3Ab:c@h", "colon"),
            ("http://h?token=%00", "header"),
            ("http://h h", "escaped"),
            ("http://%ff@h", "UTF-8"),
        ];
        for (url, wrong) in bad {
            let error = read(url).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid, "{url}");
            assert!(error.wrong.contains(wrong), "{url}: {}", error.wrong);
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        let place = read("http://ada:secret@h?token=").unwrap_err();
        assert!(!place.to_string().contains("secret"));
        let place = read("http://ada:secret@h").unwrap();
        assert!(!format!("{place:?}").contains("c2VjcmV0"));
        let password = Credentials::Password { user: "ada".into(), password: "secret".into() };
        assert_eq!(
            format!("{password:?} {:?}", Credentials::Token("t".into())),
            "Password(ada) Token"
        );
    }
}
