//! The status page and its files, compiled in.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, header};
use axum::routing::get;

use crate::door::Door;

/// The page loads its own files and talks to its own door, nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

type Asset = ([(HeaderName, &'static str); 3], &'static str);

fn asset(kind: &'static str, text: &'static str) -> Asset {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        // Asked again each time: after an upgrade page and files must fit.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text)
}

/// The page and its files.
pub(super) fn routes() -> Router<Arc<Door>> {
    Router::new()
        .route("/", get(async || asset("text/html; charset=utf-8", HTML)))
        .route("/status.css", get(async || asset("text/css; charset=utf-8", CSS)))
        .route("/status.js", get(async || asset("text/javascript; charset=utf-8", SCRIPT)))
        .route("/favicon.svg", get(async || asset("image/svg+xml", ICON)))
}

const HTML: &str = include_str!("../../assets/index.html");
const CSS: &str = include_str!("../../assets/status.css");
const SCRIPT: &str = include_str!("../../assets/status.js");
const ICON: &str = include_str!("../../assets/favicon.svg");
