//! Exchanges, their bindings, and topics, which are exchanges with named queues behind them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use leasehold_api::engine as api;
use leasehold_users::Permission::Admin;
use leasehold_wire::exchange::{Binding, ExchangeConfig};
use leasehold_wire::queue::{Declared, DeleteQueue, Subscription};

use crate::ask::{Asked, At, Said};
use crate::caller::Caller;
use crate::door::Door;
use crate::refusal::{Answer, Missing, Outcome, Races, Refusal, Refusals, asking};

/// Declare an exchange
#[utoipa::path(
    put, path = "/v1/exchanges/{name}", tag = "exchanges", request_body = ExchangeConfig,
    params(("name" = String, Path, description = "The exchange; percent-encoded.")),
    responses((status = 204, description = "It is there."), Refusals, Races)
)]
pub(crate) async fn declare_exchange(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Said(said): Said<ExchangeConfig>,
) -> Outcome<StatusCode> {
    caller.may(Admin, &name)?;
    let declared = door.queues()?.declare_exchange(&name, &said.into()).await;
    declared.map_err(asking("declare exchange", &name))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Delete an exchange
#[utoipa::path(
    delete, path = "/v1/exchanges/{name}", tag = "exchanges",
    params(("name" = String, Path, description = "The exchange; percent-encoded."), DeleteQueue),
    responses((status = 204, description = "It is gone."), Refusals, Races, Missing)
)]
pub(crate) async fn delete_exchange(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Asked(ask): Asked<DeleteQueue>,
) -> Outcome<StatusCode> {
    caller.may(Admin, &name)?;
    if ask.if_empty {
        return Err(Refusal::invalid("if_empty is for queues; an exchange holds no messages"));
    }
    let deleted = door.queues()?.delete_exchange(&name, ask.if_unused).await;
    deleted.map_err(asking("delete exchange", &name))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn change(
    door: &Door,
    caller: &Caller,
    name: &str,
    said: Binding,
    there: bool,
) -> Outcome<StatusCode> {
    let binding = said.into_api(name)?;
    caller.may(Admin, &binding.exchange)?;
    let (api::Destination::Queue(to) | api::Destination::Exchange(to)) = &binding.to;
    caller.may(Admin, to)?;
    let queues = door.queues()?;
    if there {
        queues.bind(&binding).await.map_err(asking("bind to exchange", name))?;
    } else {
        queues.unbind(&binding).await.map_err(asking("unbind from exchange", name))?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Bind a queue or an exchange to an exchange
#[utoipa::path(
    post, path = "/v1/exchanges/{name}/bindings", tag = "exchanges", request_body = Binding,
    params(("name" = String, Path, description = "The exchange; percent-encoded.")),
    responses((status = 204, description = "It is bound."), Refusals, Missing)
)]
pub(crate) async fn bind(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Said(said): Said<Binding>,
) -> Outcome<StatusCode> {
    change(&door, &caller, &name, said, true).await
}

/// Take a binding back
#[utoipa::path(
    delete, path = "/v1/exchanges/{name}/bindings", tag = "exchanges", request_body = Binding,
    params(("name" = String, Path, description = "The exchange; percent-encoded.")),
    responses((status = 204, description = "It is not bound any more."), Refusals, Missing)
)]
pub(crate) async fn unbind(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Said(said): Said<Binding>,
) -> Outcome<StatusCode> {
    change(&door, &caller, &name, said, false).await
}

/// Subscribe to a topic
///
/// Declares the topic and the queue `NAME/SUBSCRIPTION`, and binds the queue to the subjects that
/// the filter matches. Receive from that queue. Another filter for the same subscription is added
/// to the ones before; take those back as bindings of the exchange.
#[utoipa::path(
    put, path = "/v1/topics/{name}/subscriptions/{subscription}", tag = "topics",
    request_body = Subscription,
    params(
        ("name" = String, Path, description = "The topic; percent-encoded."),
        ("subscription" = String, Path, description = "The subscription; percent-encoded.")
    ),
    responses((status = 200, body = Declared), Refusals, Races)
)]
pub(crate) async fn subscribe(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At((topic, subscription)): At<(String, String)>,
    Said(mut said): Said<Subscription>,
) -> Answer<Declared> {
    let queue = format!("{topic}/{subscription}");
    caller.may(Admin, &topic)?;
    caller.may(Admin, &queue)?;
    let filter = said.filter.take().unwrap_or_else(|| "#".to_string());
    let config = said.into_api()?;
    let queues = door.queues()?;

    let kind = api::ExchangeConfig::of(api::ExchangeKind::Topic);
    let declared = queues.declare_exchange(&topic, &kind).await;
    declared.map_err(asking("declare topic", &topic))?;
    let existed = queues.declare_queue(&queue, &config).await;
    let existed = existed.map_err(asking("declare queue", &queue))?;
    let binding = api::Binding {
        exchange: topic,
        to: api::Destination::Queue(queue.clone()),
        key: filter,
        arguments: Vec::new(),
        match_all: true,
    };
    queues.bind(&binding).await.map_err(asking("subscribe queue", &queue))?;
    Ok(Json(Declared { name: queue, existed }))
}
