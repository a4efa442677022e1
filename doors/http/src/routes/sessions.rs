//! Sessions.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use leasehold_wire::handle;
use leasehold_wire::session::{OpenSession, Session};

use crate::ask::{At, Said};
use crate::caller::Caller;
use crate::door::Door;
use crate::refusal::{Answer, Ended, Outcome, Races, Refusals, asking};

/// Open a session, or take one up again
///
/// A session is what holds: locks bound to it and messages delivered to it come back when it ends.
#[utoipa::path(
    post, path = "/v1/sessions", tag = "sessions", request_body = OpenSession,
    responses((status = 200, body = Session), Refusals, Races, Ended)
)]
pub(crate) async fn open_session(
    State(door): State<Arc<Door>>,
    caller: Caller,
    Said(said): Said<OpenSession>,
) -> Answer<Session> {
    let mut ask = said.into_api()?;
    ask.resume = door.session(ask.resume, &caller)?;
    let opened = door.locks()?.open_session(&ask).await.map_err(asking("open a session", ""))?;
    let session = door.seal.session(&opened.session, caller.name());
    let session = handle::session_text(&session);
    Ok(Json(Session { session, resumed: opened.resumed }))
}

/// Say that a session lives
#[utoipa::path(
    post, path = "/v1/sessions/{session}/keep-alive", tag = "sessions",
    params(("session" = String, Path, description = "As POST /v1/sessions gave it.")),
    responses((status = 204, description = "It lives."), Refusals, Races, Ended)
)]
pub(crate) async fn keep_alive(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(session): At<String>,
) -> Outcome<StatusCode> {
    let session = door.seal.open_session(&handle::session_of(&session)?, caller.name())?;
    door.locks()?.keep_alive(&session).await.map_err(asking("keep a session alive", ""))?;
    Ok(StatusCode::NO_CONTENT)
}

/// End a session and all its leases
#[utoipa::path(
    delete, path = "/v1/sessions/{session}", tag = "sessions",
    params(("session" = String, Path, description = "As POST /v1/sessions gave it.")),
    responses((status = 204, description = "It has ended."), Refusals, Races, Ended)
)]
pub(crate) async fn close_session(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(session): At<String>,
) -> Outcome<StatusCode> {
    let session = door.seal.open_session(&handle::session_of(&session)?, caller.name())?;
    door.locks()?.close_session(&session).await.map_err(asking("close a session", ""))?;
    Ok(StatusCode::NO_CONTENT)
}
