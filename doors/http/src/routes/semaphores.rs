//! Semaphores: locks that are held by permits. A semaphore and a lock of one name are one thing.

use std::sync::Arc;

use axum::extract::State;
use leasehold_wire::lock::{AcquirePermits, Granted, LockView, Release, Released, Renew, Renewed};
use leasehold_wire::time::duration;

use super::locks;
use crate::ask::{At, Said};
use crate::caller::Caller;
use crate::door::Door;
use crate::refusal::{Answer, Ended, Races, Refusals};

/// Acquire permits of a semaphore
///
/// Every permit is leased: a holder that dies gives its permits back.
#[utoipa::path(
    post, path = "/v1/semaphores/{name}/acquire", tag = "semaphores",
    request_body = AcquirePermits,
    params(("name" = String, Path, description = "The semaphore; percent-encoded.")),
    responses((status = 200, body = Granted), Refusals, Races, Ended)
)]
pub(crate) async fn acquire_permits(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Said(said): Said<AcquirePermits>,
) -> Answer<Granted> {
    let hold = door.hold(said.hold, said.request_id.as_deref(), &caller)?;
    let request = caller.request(said.request_id.as_deref())?;
    let wait_ms = said.wait_ms;
    locks::acquire(&door, &caller, said.into_api(&name, hold, request)?, wait_ms).await
}

/// Set the deadline of a hold of permits to now plus `ttl_ms`
#[utoipa::path(
    post, path = "/v1/semaphores/{name}/renew", tag = "semaphores", request_body = Renew,
    params(("name" = String, Path, description = "The semaphore; percent-encoded.")),
    responses((status = 200, body = Renewed), Refusals, Races, Ended)
)]
pub(crate) async fn renew_permits(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Said(said): Said<Renew>,
) -> Answer<Renewed> {
    locks::renew(&door, &caller, said.hold(&name)?, duration(said.ttl_ms)).await
}

/// Give permits back
#[utoipa::path(
    post, path = "/v1/semaphores/{name}/release", tag = "semaphores", request_body = Release,
    params(("name" = String, Path, description = "The semaphore; percent-encoded.")),
    responses((status = 200, body = Released), Refusals, Races, Ended)
)]
pub(crate) async fn release_permits(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Said(said): Said<Release>,
) -> Answer<Released> {
    locks::release(&door, &caller, said.hold(&name)?).await
}

/// Look at a semaphore: who holds permits, who waits
#[utoipa::path(
    get, path = "/v1/semaphores/{name}", tag = "semaphores",
    params(("name" = String, Path, description = "The semaphore; percent-encoded.")),
    responses((status = 200, body = LockView), Refusals)
)]
pub(crate) async fn inspect_semaphore(
    door: State<Arc<Door>>,
    caller: Caller,
    name: At<String>,
) -> Answer<LockView> {
    locks::inspect_lock(door, caller, name).await
}
