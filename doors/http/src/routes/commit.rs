//! The commit: acks, publishes, register writes, releases and token checks in one step.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use leasehold_api::engine as api;
use leasehold_users::Permission::{Lock, Publish};
use leasehold_wire::commit::{Commit, Committed};

use crate::ask::Said;
use crate::caller::Caller;
use crate::door::Door;
use crate::refusal::{Answer, Ended, Missing, Outcome, Races, Refusals, asking};

/// Do several things at once or not at all
///
/// In this order: check that locks are held with their tokens, settle deliveries, publish
/// messages, write registers, release holds. What it settles and releases may have been received
/// and acquired with several sessions of the caller, or without one.
#[utoipa::path(
    post, path = "/v1/commit", tag = "commit", request_body = Commit,
    responses(
        (status = 200, body = Committed),
        (status = 422, description = "No queue takes a message.", body = leasehold_wire::Problem,
            content_type = "application/problem+json"),
        Refusals, Races, Missing, Ended
    )
)]
pub(crate) async fn commit(
    State(door): State<Arc<Door>>,
    caller: Caller,
    Said(said): Said<Commit>,
) -> Answer<Committed> {
    let request = caller.request(said.request_id.as_deref())?;
    let mut commit = said.into_api(request)?;
    for (receipt, _) in &mut commit.settles {
        *receipt = door.seal.open_receipt(receipt, caller.name())?;
    }
    for hold in &mut commit.releases {
        hold.session = door.session(hold.session.take(), &caller)?;
    }
    may(&caller, &commit)?;
    let versions = door.queues()?.commit(&commit).await.map_err(asking("commit", ""))?;
    Ok(Json(Committed { versions }))
}

fn may(caller: &Caller, commit: &api::Commit) -> Outcome<()> {
    for (lock, _) in &commit.checks {
        caller.may(Lock, lock)?;
    }
    for publish in &commit.publishes {
        match &publish.target {
            api::Target::Queue(name) | api::Target::Exchange(name, _) => {
                caller.may(Publish, name)?;
            }
        }
    }
    for write in &commit.writes {
        caller.may(Lock, &String::from_utf8_lossy(&write.key))?;
        if let Some((lock, _)) = &write.guard {
            caller.may(Lock, lock)?;
        }
    }
    for hold in &commit.releases {
        caller.may(Lock, &hold.name)?;
    }
    Ok(())
}
