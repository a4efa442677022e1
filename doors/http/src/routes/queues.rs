//! Queues: declaring, looking, emptying.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use leasehold_users::Permission::{Admin, Consume};
use leasehold_wire::lock::List;
use leasehold_wire::message::Messages;
use leasehold_wire::queue::{
    Declared, DeleteQueue, Peek, QueueConfig, QueueView, Queues, Redrive, Removed,
};

use crate::ask::{Asked, At, Said};
use crate::caller::Caller;
use crate::door::Door;
use crate::refusal::{Answer, Missing, Outcome, Races, Refusals, asking};

/// Declare a queue
///
/// A queue that exists with equal settings is left as it is.
#[utoipa::path(
    put, path = "/v1/queues/{name}", tag = "queues", request_body = QueueConfig,
    params(("name" = String, Path, description = "The queue; percent-encoded.")),
    responses((status = 200, body = Declared), Refusals, Races)
)]
pub(crate) async fn declare_queue(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Said(said): Said<QueueConfig>,
) -> Answer<Declared> {
    caller.may(Admin, &name)?;
    let existed = door.queues()?.declare_queue(&name, &said.into_api()?).await;
    let existed = existed.map_err(asking("declare queue", &name))?;
    Ok(Json(Declared { name, existed }))
}

/// Look at a queue
#[utoipa::path(
    get, path = "/v1/queues/{name}", tag = "queues",
    params(("name" = String, Path, description = "The queue; percent-encoded.")),
    responses((status = 200, body = QueueView), Refusals, Missing)
)]
pub(crate) async fn inspect_queue(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
) -> Answer<QueueView> {
    if !caller.can(Admin, &name) {
        caller.may(Consume, &name)?;
    }
    let view = door.queues()?.inspect_queue(&name).await.map_err(asking("look at queue", &name))?;
    Ok(Json(view.into()))
}

/// List queues
#[utoipa::path(
    get, path = "/v1/queues", tag = "queues", params(List),
    responses((status = 200, body = Queues), Refusals)
)]
pub(crate) async fn list_queues(
    State(door): State<Arc<Door>>,
    caller: Caller,
    Asked(list): Asked<List>,
) -> Answer<Queues> {
    caller.may_all(Admin, &list.prefix)?;
    let some = door.queues()?.list_queues(&list.into_api()).await;
    let some = some.map_err(asking("list queues", ""))?;
    Ok(Json(Queues { items: some.items.into_iter().map(Into::into).collect(), next: some.next }))
}

/// Delete a queue with its messages
#[utoipa::path(
    delete, path = "/v1/queues/{name}", tag = "queues",
    params(("name" = String, Path, description = "The queue; percent-encoded."), DeleteQueue),
    responses((status = 200, body = Removed), Refusals, Races, Missing)
)]
pub(crate) async fn delete_queue(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Asked(ask): Asked<DeleteQueue>,
) -> Answer<Removed> {
    caller.may(Admin, &name)?;
    let gone = door.queues()?.delete_queue(&name, ask.if_unused, ask.if_empty).await;
    Ok(Json(Removed { messages: gone.map_err(asking("delete queue", &name))? }))
}

/// Remove the messages that wait
#[utoipa::path(
    post, path = "/v1/queues/{name}/purge", tag = "queues",
    params(("name" = String, Path, description = "The queue; percent-encoded.")),
    responses((status = 200, body = Removed), Refusals, Missing)
)]
pub(crate) async fn purge_queue(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
) -> Answer<Removed> {
    caller.may(Admin, &name)?;
    let messages = door.queues()?.purge(&name).await.map_err(asking("purge queue", &name))?;
    Ok(Json(Removed { messages }))
}

async fn pause(door: &Door, caller: &Caller, name: &str, paused: bool) -> Outcome<StatusCode> {
    caller.may(Admin, name)?;
    let asked = if paused { "pause queue" } else { "resume queue" };
    door.queues()?.pause(name, paused).await.map_err(asking(asked, name))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Hold deliveries back
#[utoipa::path(
    post, path = "/v1/queues/{name}/pause", tag = "queues",
    params(("name" = String, Path, description = "The queue; percent-encoded.")),
    responses((status = 204, description = "It is paused."), Refusals, Missing)
)]
pub(crate) async fn pause_queue(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
) -> Outcome<StatusCode> {
    pause(&door, &caller, &name, true).await
}

/// Let deliveries go on
#[utoipa::path(
    post, path = "/v1/queues/{name}/resume", tag = "queues",
    params(("name" = String, Path, description = "The queue; percent-encoded.")),
    responses((status = 204, description = "It goes on."), Refusals, Missing)
)]
pub(crate) async fn resume_queue(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
) -> Outcome<StatusCode> {
    pause(&door, &caller, &name, false).await
}

/// Move messages to another queue, or dead letters back to where they died
#[utoipa::path(
    post, path = "/v1/queues/{name}/redrive", tag = "queues", request_body = Redrive,
    params(("name" = String, Path, description = "The queue; percent-encoded.")),
    responses((status = 200, body = Removed), Refusals, Missing)
)]
pub(crate) async fn redrive_queue(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Said(said): Said<Redrive>,
) -> Answer<Removed> {
    const MAX: u32 = 1000;
    caller.may(Admin, &name)?;
    match &said.to {
        Some(to) => caller.may(Admin, to)?,
        // Where they died is known to the engine only.
        None => caller.may_all(Admin, "")?,
    }
    let moved = door.queues()?.redrive(&name, said.to.as_deref(), said.max.unwrap_or(MAX)).await;
    Ok(Json(Removed { messages: moved.map_err(asking("redrive queue", &name))?.into() }))
}

/// Look at the first messages without taking them
#[utoipa::path(
    get, path = "/v1/queues/{name}/peek", tag = "queues",
    params(("name" = String, Path, description = "The queue; percent-encoded."), Peek),
    responses((status = 200, body = Messages), Refusals, Missing)
)]
pub(crate) async fn peek_queue(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Asked(peek): Asked<Peek>,
) -> Answer<Messages> {
    caller.may(Consume, &name)?;
    let seen = door.queues()?.peek(&name, peek.max.unwrap_or(10)).await;
    let seen = seen.map_err(asking("peek into queue", &name))?;
    Ok(Json(Messages { messages: seen.into_iter().map(Into::into).collect() }))
}
