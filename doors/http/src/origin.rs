//! Keeps foreign web pages out.
//!
//! A page from anywhere can make its visitor's browser send requests to `localhost`, where a door
//! without users lets everybody do everything, and can send along credentials that the browser
//! remembers. Two things tell such requests apart:
//!
//! * the browser says where the page came from (`Origin`, `Sec-Fetch-Site`);
//! * a page whose host name was made to point at this machine comes under that name. Without
//!   users the door therefore answers to addresses, `localhost` and configured names only.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use leasehold_api::ErrorKind;

use crate::door::Door;
use crate::refusal::Refusal;

/// The layer: refuses what a foreign page asked for.
pub(crate) async fn check(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let host = authority.or_else(|| text(request.headers(), header::HOST.as_str()));
    let host = host.unwrap_or_default();
    if door.users.is_open() && !is_known(host, &door.hosts) {
        let wrong = format!(
            "the host name {host} is not configured; while there are no users the door answers \
             to addresses, localhost and the names in its setting `hosts`"
        );
        return Refusal::new(ErrorKind::Forbidden, wrong).into_response();
    }
    if is_foreign(request.headers(), host, request.uri().path()) {
        let wrong = "a page from another place asked for this; open the door's own page instead";
        return Refusal::new(ErrorKind::Forbidden, wrong).into_response();
    }
    next.run(request).await
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

fn is_known(host: &str, hosts: &[String]) -> bool {
    let name = name_of(host).trim_end_matches('.');
    let local =
        name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost");
    // HTTP/1.0 without a host comes from no browser.
    name.is_empty()
        || local
        || name.parse::<IpAddr>().is_ok()
        || hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn is_foreign(headers: &HeaderMap, host: &str, path: &str) -> bool {
    if let Some(origin) = text(headers, "origin") {
        let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
        return !authority.eq_ignore_ascii_case(host);
    }
    let elsewhere = matches!(text(headers, "sec-fetch-site"), Some("cross-site" | "same-site"));
    // Following a link to a page is no harm; following one to the API might be.
    let link = text(headers, "sec-fetch-mode") == Some("navigate") && !path.starts_with("/v1/");
    elsewhere && !link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_configured_names_are_known() {
        let hosts = ["leasehold.internal".to_string()];
        for host in
            ["127.0.0.1:80", "[::1]:80", "localhost", "a.localhost:1", "Leasehold.internal:8"]
        {
            assert!(is_known(host, &hosts), "{host}");
        }
        for host in ["evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example"] {
            assert!(!is_known(host, &hosts), "{host}");
        }
    }

    #[test]
    fn pages_from_elsewhere_are_foreign() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                (name.parse().unwrap(), axum::http::HeaderValue::from_static(value))
            });
            pairs.collect::<HeaderMap>()
        };
        let foreign = |pairs: &[_], path| is_foreign(&headers(pairs), "here:80", path);
        assert!(!foreign(&[], "/v1/commit"));
        assert!(!foreign(&[("origin", "http://here:80")], "/v1/commit"));
        assert!(foreign(&[("origin", "http://there:80")], "/v1/commit"));
        assert!(foreign(&[("origin", "null")], "/v1/commit"));
        let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert!(!foreign(&link, "/"));
        assert!(foreign(&link, "/v1/queues/a/consume"));
        assert!(foreign(&[("sec-fetch-site", "cross-site")], "/status.js"));
    }
}
