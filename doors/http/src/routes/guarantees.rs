//! What the engine promises, for clients that demand it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use leasehold_wire::guarantees::Guarantees;

use crate::caller::Caller;
use crate::door::Door;
use crate::refusal::{Answer, Refusals};

/// What the engine behind the door promises
///
/// Everybody with credentials may ask, so a client that connects learns at once whether its are
/// right.
#[utoipa::path(
    get, path = "/v1/guarantees", tag = "server",
    responses((status = 200, body = Guarantees), Refusals)
)]
pub(crate) async fn guarantees(State(door): State<Arc<Door>>, _: Caller) -> Answer<Guarantees> {
    let promised = match door.locks() {
        Ok(locks) => locks.guarantees(),
        Err(_) => door.queues()?.guarantees(),
    };
    Ok(Json(promised.into()))
}
