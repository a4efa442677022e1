//! Receiving and settling.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use leasehold_api::engine::{Receipt, Receive as ApiReceive, Wait};
use leasehold_api::{ErrorKind, Queues, Result};
use leasehold_users::Permission::Consume;
use leasehold_wire::commit::{Verdict, verdict_of};
use leasehold_wire::handle;
use leasehold_wire::message::{Deliveries, Delivery, Extend, Settle, Settled};
use leasehold_wire::queue::Receive;
use leasehold_wire::time::{duration, duration_of};

use crate::ask::{At, Said};
use crate::caller::Caller;
use crate::door::Door;
use crate::refusal::{Answer, Ended, Missing, Outcome, Races, Refusal, Refusals, asking};

/// How long a delivery to the door's own session may stay unsettled, unless the request says.
const LEASE_MS_DEFAULT: u64 = 30_000;

/// A delivery as its user gets it.
pub(super) fn sealed(
    door: &Door,
    caller: &Caller,
    mut delivered: leasehold_api::engine::Delivered,
) -> Delivery {
    delivered.receipt = door.seal.receipt(&delivered.receipt, caller.name());
    delivered.into()
}

/// A receipt as the engine knows it.
pub(super) fn opened(door: &Door, caller: &Caller, receipt: &str) -> Result<Receipt> {
    door.seal.open_receipt(&handle::receipt_of(receipt)?, caller.name())
}

/// Receive messages
///
/// Takes up to `max` messages, waiting up to `wait_ms` for the first. Hanging up gives everything
/// back. Settle each by its receipt; what is not settled in time is delivered again.
#[utoipa::path(
    post, path = "/v1/queues/{name}/receive", tag = "queues", request_body = Receive,
    params(("name" = String, Path, description = "The queue; percent-encoded.")),
    responses((status = 200, body = Deliveries), Refusals, Races, Missing, Ended)
)]
pub(crate) async fn receive(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Said(said): Said<Receive>,
) -> Answer<Deliveries> {
    caller.may(Consume, &name)?;
    let session = said.session.as_deref().map(handle::session_of).transpose()?;
    let named = door.session(session, &caller)?;
    let leased = door.queues()?.guarantees().queues >= Queues::Leased;
    let lease_ms = match (&named, said.lease_ms) {
        (None, None) if leased => Some(LEASE_MS_DEFAULT),
        (_, lease) => lease,
    };
    let own = named.is_none();
    let session = match named {
        Some(session) => session,
        None => door.own.get(door.engine.locks.as_ref()).await?,
    };
    let mut ask = ApiReceive {
        queue: name.as_str().into(),
        session,
        max: said.max.unwrap_or(1),
        wait: match said.wait_ms {
            0 => Wait::No,
            wait => Wait::AtMost(duration(wait)),
        },
        lease: duration_of(lease_ms),
    };
    let mut came = door.patient(said.wait_ms, door.queues()?.receive(&ask)).await;
    if own && came.as_ref().is_err_and(|refusal| refusal.kind() == ErrorKind::NoSession) {
        // The engine was restarted, or the door was asleep: a new session does as well.
        door.own.forget(&ask.session).await;
        ask.session = door.own.get(door.engine.locks.as_ref()).await?;
        came = door.patient(said.wait_ms, door.queues()?.receive(&ask)).await;
    }
    let came = came.map_err(asking("receive from queue", &name))?;
    let deliveries = came.into_iter().map(|one| sealed(&door, &caller, one)).collect();
    Ok(Json(Deliveries { deliveries }))
}

async fn settle(door: &Door, caller: &Caller, said: Settle, verdict: Verdict) -> Answer<Settled> {
    let verdict = verdict_of(verdict, said.delay_ms)?;
    let open = |receipt: &String| opened(door, caller, receipt);
    let receipts = said.receipts.iter().map(open).collect::<Result<Vec<_>>>()?;
    if receipts.is_empty() {
        return Err(Refusal::invalid("receipts is empty; name at least one delivery"));
    }
    let settled = door.queues()?.settle(&receipts, verdict).await.map_err(asking("settle", ""))?;
    Ok(Json(Settled { settled }))
}

/// Acknowledge deliveries, all or none: done, the messages are gone
#[utoipa::path(
    post, path = "/v1/deliveries/ack", tag = "deliveries", request_body = Settle,
    responses((status = 200, body = Settled), Refusals, Races, Ended)
)]
pub(crate) async fn ack(
    State(door): State<Arc<Door>>,
    caller: Caller,
    Said(said): Said<Settle>,
) -> Answer<Settled> {
    settle(&door, &caller, said, Verdict::Ack).await
}

/// Return deliveries, all or none: not done, again after `delay_ms`
#[utoipa::path(
    post, path = "/v1/deliveries/nack", tag = "deliveries", request_body = Settle,
    responses((status = 200, body = Settled), Refusals, Races, Ended)
)]
pub(crate) async fn nack(
    State(door): State<Arc<Door>>,
    caller: Caller,
    Said(said): Said<Settle>,
) -> Answer<Settled> {
    settle(&door, &caller, said, Verdict::Nack).await
}

/// Reject deliveries, all or none: never again, to the dead letters if there are any
#[utoipa::path(
    post, path = "/v1/deliveries/reject", tag = "deliveries", request_body = Settle,
    responses((status = 200, body = Settled), Refusals, Races, Ended)
)]
pub(crate) async fn reject(
    State(door): State<Arc<Door>>,
    caller: Caller,
    Said(said): Said<Settle>,
) -> Answer<Settled> {
    settle(&door, &caller, said, Verdict::Reject).await
}

/// Set the deadline of a delivery's lease to now plus `lease_ms`
#[utoipa::path(
    post, path = "/v1/deliveries/extend", tag = "deliveries", request_body = Extend,
    responses((status = 204, description = "The lease is extended."), Refusals, Races, Ended)
)]
pub(crate) async fn extend(
    State(door): State<Arc<Door>>,
    caller: Caller,
    Said(said): Said<Extend>,
) -> Outcome<StatusCode> {
    let receipt = opened(&door, &caller, &said.receipt)?;
    let extended = door.queues()?.extend(&receipt, duration(said.lease_ms)).await;
    extended.map_err(asking("extend a delivery", ""))?;
    Ok(StatusCode::NO_CONTENT)
}
