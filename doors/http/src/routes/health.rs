//! Whether the process lives, and whether it can be used.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use crate::door::Door;
use crate::refusal::{Outcome, Refusals, asking};

/// Ask whether the process lives
#[utoipa::path(
    get, path = "/healthz", tag = "server", security(()),
    responses((status = 200, description = "It lives.", body = String))
)]
pub(crate) async fn healthz() -> &'static str {
    "alive\n"
}

/// Ask whether the engine answers
#[utoipa::path(
    get, path = "/readyz", tag = "server", security(()),
    responses((status = 200, description = "It does.", body = String), Refusals)
)]
pub(crate) async fn readyz(State(door): State<Arc<Door>>) -> Outcome<(StatusCode, &'static str)> {
    door.ready().await.map_err(|error| {
        let refusal = asking("ask whether the engine is ready", "")(error);
        refusal.with_status(StatusCode::SERVICE_UNAVAILABLE)
    })?;
    Ok((StatusCode::OK, "ready\n"))
}
