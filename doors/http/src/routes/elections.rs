//! Elections: the holder of the lock `election/NAME` leads. The library uses the same lock, so
//! candidates may come through this door and from programs alike.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use leasehold_users::Permission::Lock;
use leasehold_wire::lock::{Campaign, Granted, Leader, Release, Released, Renew, Renewed, Watch};
use leasehold_wire::time::duration;

use super::locks;
use crate::ask::{Asked, At, Said};
use crate::caller::Caller;
use crate::door::Door;
use crate::refusal::{Answer, Ended, Races, Refusals, asking};

/// The lock behind an election.
fn lock_of(election: &str) -> String {
    format!("election/{election}")
}

/// Stand for election
///
/// Waits up to `wait_ms` to be elected. The office is a lock: renew it, or hold it by a session.
#[utoipa::path(
    post, path = "/v1/elections/{name}/campaign", tag = "elections", request_body = Campaign,
    params(("name" = String, Path, description = "The election; percent-encoded.")),
    responses((status = 200, body = Granted), Refusals, Races, Ended)
)]
pub(crate) async fn campaign(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Said(said): Said<Campaign>,
) -> Answer<Granted> {
    let hold = door.hold(said.hold, said.request_id.as_deref(), &caller)?;
    let request = caller.request(said.request_id.as_deref())?;
    let wait_ms = said.wait_ms;
    locks::acquire(&door, &caller, said.into_api(&lock_of(&name), hold, request)?, wait_ms).await
}

/// Stay in office: the deadline is now plus `ttl_ms`
#[utoipa::path(
    post, path = "/v1/elections/{name}/renew", tag = "elections", request_body = Renew,
    params(("name" = String, Path, description = "The election; percent-encoded.")),
    responses((status = 200, body = Renewed), Refusals, Races, Ended)
)]
pub(crate) async fn renew_office(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Said(said): Said<Renew>,
) -> Answer<Renewed> {
    locks::renew(&door, &caller, said.hold(&lock_of(&name))?, duration(said.ttl_ms)).await
}

/// Resign
#[utoipa::path(
    post, path = "/v1/elections/{name}/resign", tag = "elections", request_body = Release,
    params(("name" = String, Path, description = "The election; percent-encoded.")),
    responses((status = 200, body = Released), Refusals, Races, Ended)
)]
pub(crate) async fn resign(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Said(said): Said<Release>,
) -> Answer<Released> {
    locks::release(&door, &caller, said.hold(&lock_of(&name))?).await
}

/// Ask who leads
#[utoipa::path(
    get, path = "/v1/elections/{name}", tag = "elections",
    params(("name" = String, Path, description = "The election; percent-encoded.")),
    responses((status = 200, body = Leader), Refusals)
)]
pub(crate) async fn leader(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
) -> Answer<Leader> {
    let lock = lock_of(&name);
    caller.may(Lock, &lock)?;
    let view = door.locks()?.inspect(&lock).await.map_err(asking("ask who leads", &name))?;
    Ok(Json(Leader::from(&view)))
}

/// Wait until somebody else leads
///
/// Answers when the leader's token is not `known` any more, or after `wait_ms`.
#[utoipa::path(
    get, path = "/v1/elections/{name}/observe", tag = "elections",
    params(("name" = String, Path, description = "The election; percent-encoded."), Watch),
    responses((status = 200, body = Leader), Refusals)
)]
pub(crate) async fn observe(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Asked(watch): Asked<Watch>,
) -> Answer<Leader> {
    let lock = lock_of(&name);
    caller.may(Lock, &lock)?;
    let change = door.locks()?.watch(&lock, watch.known, duration(watch.wait_ms));
    let view = door.patient(watch.wait_ms, change).await.map_err(asking("observe", &name))?;
    Ok(Json(Leader::from(&view)))
}
