//! The figures: for the status page and for Prometheus.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use leasehold_users::Permission::Admin;
use leasehold_wire::status::Status;

use crate::caller::Caller;
use crate::door::Door;
use crate::refusal::{Answer, Outcome, Refusals};
use crate::{metrics as figures, sampler};

/// Everything that the status page shows
#[utoipa::path(
    get, path = "/v1/status", tag = "server",
    responses((status = 200, body = Status), Refusals)
)]
pub(crate) async fn status(State(door): State<Arc<Door>>, caller: Caller) -> Answer<Status> {
    caller.may_all(Admin, "")?;
    Ok(Json(sampler::status(&door).await))
}

/// Figures for Prometheus, in the OpenMetrics text format
#[utoipa::path(
    get, path = "/metrics", tag = "server",
    responses(
        (status = 200, description = "OpenMetrics text.", body = String,
            content_type = "application/openmetrics-text"),
        Refusals
    )
)]
pub(crate) async fn metrics(State(door): State<Arc<Door>>, caller: Caller) -> Outcome<Response> {
    caller.may_all(Admin, "")?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = figures::text(&door)?;
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
