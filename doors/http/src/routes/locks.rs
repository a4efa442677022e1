//! Locks, and what semaphores and elections share with them.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use leasehold_api::engine::{Acquire, HoldRef};
use leasehold_users::Permission::{Admin, Lock};
use leasehold_wire::lock::{
    AcquireLock, AcquireLocks, Check, Checked, ForceReleased, Granted, List, LockView, Locks,
    Release, Released, Renew, Renewed, Watch,
};
use leasehold_wire::time::{duration, ms_of};

use crate::ask::{Asked, At, Said};
use crate::caller::Caller;
use crate::door::Door;
use crate::refusal::{Answer, Ended, Races, Refusal, Refusals, asking};

/// Acquires what was asked for; the wait ends when the client hangs up.
pub(super) async fn acquire(
    door: &Door,
    caller: &Caller,
    mut ask: Acquire,
    wait_ms: u64,
) -> Answer<Granted> {
    let first = ask.wants.first().map(|want| want.name.clone());
    let Some(first) = first else {
        return Err(Refusal::invalid("locks is empty; name at least one"));
    };
    for want in &ask.wants {
        caller.may(Lock, &want.name)?;
    }
    ask.session = door.session(ask.session, caller)?;
    let hold = ask.hold;
    let granted = door.patient(wait_ms, door.locks()?.acquire(&ask)).await;
    let granted = granted.map_err(asking("acquire", &first))?;
    Ok(Json(Granted::of(&first, hold, &granted)))
}

/// Renews a hold.
pub(super) async fn renew(
    door: &Door,
    caller: &Caller,
    mut hold: HoldRef,
    ttl: Duration,
) -> Answer<Renewed> {
    caller.may(Lock, &hold.name)?;
    hold.session = door.session(hold.session, caller)?;
    let left = door.locks()?.renew(&hold, ttl).await.map_err(asking("renew", &hold.name))?;
    Ok(Json(Renewed { left_ms: ms_of(left) }))
}

/// Releases a hold.
pub(super) async fn release(door: &Door, caller: &Caller, mut hold: HoldRef) -> Answer<Released> {
    caller.may(Lock, &hold.name)?;
    hold.session = door.session(hold.session, caller)?;
    let entries = door.locks()?.release(&hold).await.map_err(asking("release", &hold.name))?;
    Ok(Json(Released { entries }))
}

/// Acquire a lock
///
/// Answers at once, or waits up to `wait_ms` for its turn: first come, first served. Hanging up
/// withdraws the request. Without a session the hold ends after `ttl_ms` unless it is renewed.
#[utoipa::path(
    post, path = "/v1/locks/{name}/acquire", tag = "locks", request_body = AcquireLock,
    params(("name" = String, Path, description = "The lock; percent-encoded.")),
    responses((status = 200, body = Granted), Refusals, Races, Ended)
)]
pub(crate) async fn acquire_lock(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Said(said): Said<AcquireLock>,
) -> Answer<Granted> {
    let hold = door.hold(said.hold, said.request_id.as_deref(), &caller)?;
    let request = caller.request(said.request_id.as_deref())?;
    let wait_ms = said.wait_ms;
    acquire(&door, &caller, said.into_api(&name, hold, request)?, wait_ms).await
}

/// Acquire several locks, all or none
///
/// One token covers all; renewing or releasing it by one of the names is for all of them.
#[utoipa::path(
    post, path = "/v1/locks/acquire", tag = "locks", request_body = AcquireLocks,
    responses((status = 200, body = Granted), Refusals, Races, Ended)
)]
pub(crate) async fn acquire_locks(
    State(door): State<Arc<Door>>,
    caller: Caller,
    Said(said): Said<AcquireLocks>,
) -> Answer<Granted> {
    let hold = door.hold(said.hold, said.request_id.as_deref(), &caller)?;
    let request = caller.request(said.request_id.as_deref())?;
    let wait_ms = said.wait_ms;
    acquire(&door, &caller, said.into_api(hold, request)?, wait_ms).await
}

/// Set a hold's deadline to now plus `ttl_ms`
#[utoipa::path(
    post, path = "/v1/locks/{name}/renew", tag = "locks", request_body = Renew,
    params(("name" = String, Path, description = "The lock; percent-encoded.")),
    responses((status = 200, body = Renewed), Refusals, Races, Ended)
)]
pub(crate) async fn renew_lock(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Said(said): Said<Renew>,
) -> Answer<Renewed> {
    renew(&door, &caller, said.hold(&name)?, duration(said.ttl_ms)).await
}

/// Release a hold
///
/// A hold that was entered again is left once; `entries` says how often it is still entered.
#[utoipa::path(
    post, path = "/v1/locks/{name}/release", tag = "locks", request_body = Release,
    params(("name" = String, Path, description = "The lock; percent-encoded.")),
    responses((status = 200, body = Released), Refusals, Races, Ended)
)]
pub(crate) async fn release_lock(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Said(said): Said<Release>,
) -> Answer<Released> {
    release(&door, &caller, said.hold(&name)?).await
}

/// End every hold of a lock, whoever has it
#[utoipa::path(
    post, path = "/v1/locks/{name}/force-release", tag = "locks",
    params(("name" = String, Path, description = "The lock; percent-encoded.")),
    responses((status = 200, body = ForceReleased), Refusals)
)]
pub(crate) async fn force_release_lock(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
) -> Answer<ForceReleased> {
    caller.may(Admin, &name)?;
    let holds = door.locks()?.force_release(&name).await.map_err(asking("force-release", &name))?;
    Ok(Json(ForceReleased { holds }))
}

/// Look at a lock: holders, waiters, time left
#[utoipa::path(
    get, path = "/v1/locks/{name}", tag = "locks",
    params(("name" = String, Path, description = "The lock; percent-encoded.")),
    responses((status = 200, body = LockView), Refusals)
)]
pub(crate) async fn inspect_lock(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
) -> Answer<LockView> {
    caller.may(Lock, &name)?;
    let view = door.locks()?.inspect(&name).await.map_err(asking("inspect lock", &name))?;
    Ok(Json(view.into()))
}

/// Look at a lock of the name `acquire`, which the path of the multi-lock would hide.
pub(super) async fn inspect_acquire(door: State<Arc<Door>>, caller: Caller) -> Answer<LockView> {
    inspect_lock(door, caller, At("acquire".to_string())).await
}

/// List locks
#[utoipa::path(
    get, path = "/v1/locks", tag = "locks", params(List),
    responses((status = 200, body = Locks), Refusals)
)]
pub(crate) async fn list_locks(
    State(door): State<Arc<Door>>,
    caller: Caller,
    Asked(list): Asked<List>,
) -> Answer<Locks> {
    caller.may_all(Admin, &list.prefix)?;
    let some =
        door.locks()?.list_locks(&list.into_api()).await.map_err(asking("list locks", ""))?;
    Ok(Json(Locks { items: some.items.into_iter().map(Into::into).collect(), next: some.next }))
}

/// Ask whether a lock is held with a token
#[utoipa::path(
    get, path = "/v1/locks/{name}/check", tag = "locks",
    params(("name" = String, Path, description = "The lock; percent-encoded."), Check),
    responses((status = 200, body = Checked), Refusals)
)]
pub(crate) async fn check_lock(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Asked(check): Asked<Check>,
) -> Answer<Checked> {
    caller.may(Lock, &name)?;
    let held = door.locks()?.check(&name, check.token).await.map_err(asking("check", &name))?;
    Ok(Json(Checked { held }))
}

/// Wait until a lock has another holder
///
/// Answers when the newest token is not `known` any more, or after `wait_ms`, with the lock as it
/// is then.
#[utoipa::path(
    get, path = "/v1/locks/{name}/watch", tag = "locks",
    params(("name" = String, Path, description = "The lock; percent-encoded."), Watch),
    responses((status = 200, body = LockView), Refusals)
)]
pub(crate) async fn watch_lock(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Asked(watch): Asked<Watch>,
) -> Answer<LockView> {
    caller.may(Lock, &name)?;
    let change = door.locks()?.watch(&name, watch.known, duration(watch.wait_ms));
    let view = door.patient(watch.wait_ms, change).await.map_err(asking("watch lock", &name))?;
    Ok(Json(view.into()))
}
