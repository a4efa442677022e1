//! Publishing to queues, exchanges and topics.
//!
//! A queue or topic that does not exist is declared with the usual settings, if the caller may
//! declare it and did not say `declare=false`, so that one `curl` is enough to begin with. The
//! messages are tried first: in the usual case it costs nothing that the queue might be missing.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use leasehold_api::engine::{
    ExchangeConfig, ExchangeKind, Publish, Published, QueueConfig, Target,
};
use leasehold_api::{Error, ErrorKind, Result};
use leasehold_users::Permission::{Admin, Publish as MayPublish};
use leasehold_wire::message as wire;
use leasehold_wire::message::{
    Message, PublishResults, PublishToExchange, PublishToQueue, PublishToTopic,
};
use leasehold_wire::queue::{Declare, PublishQuery};

use crate::ask::{Asked, At, Said, Whole, json};
use crate::caller::Caller;
use crate::door::Door;
use crate::refusal::{Missing, Outcome, Races, Refusal, Refusals, Unroutable, asking};

/// Messages on their way: where to, and how they were given.
struct Posting {
    messages: Vec<Message>,
    /// Answered each by itself, because they were given as several.
    several: bool,
    target: Target,
    mandatory: bool,
    /// Whether what is missing may be declared.
    declare: bool,
}

/// Publish to a queue
///
/// A body of JSON is one message with its settings, or several as `messages`. A body of any other
/// content type is published as it is: `curl -d hello …/v1/queues/greetings/messages`. A queue
/// that does not exist is declared with the usual settings unless `declare=false`.
#[utoipa::path(
    post, path = "/v1/queues/{name}/messages", tag = "queues",
    params(("name" = String, Path, description = "The queue; percent-encoded."), PublishQuery),
    request_body(
        content(
            (PublishToQueue = "application/json"),
            (Vec<u8> = "application/octet-stream")
        ),
        description = "One message or several as JSON; anything else is a message's body."
    ),
    responses(
        (status = 200, description = "Accepted; for several messages `results`.",
            content(
                (wire::Published = "application/json"),
                (PublishResults = "application/json; results")
            )),
        Unroutable, Refusals, Races, Missing
    )
)]
pub(crate) async fn publish_to_queue(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Asked(query): Asked<PublishQuery>,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Outcome<Response> {
    caller.may(MayPublish, &name)?;
    let declare = query.declare && caller.can(Admin, &name);
    let (messages, several) = match is_json(&headers) {
        false => {
            let mut message = query.into_message().into_api()?;
            message.body = body.into();
            return one_raw(&door, &caller, &name, message, declare, &headers).await;
        }
        true if query.about_message() => {
            let wrong = "with a body of JSON the message's settings belong into the body";
            return Err(Refusal::invalid(wrong));
        }
        true => json::<PublishToQueue>(&body)?.messages()?,
    };
    let target = Target::Queue(name.as_str().into());
    let posting = Posting { messages, several, target, mandatory: true, declare };
    publish(&door, &caller, posting).await.map_err(asking("publish to queue", &name))
}

/// Publish through an exchange
#[utoipa::path(
    post, path = "/v1/exchanges/{name}/messages", tag = "exchanges",
    request_body = PublishToExchange,
    params(("name" = String, Path, description = "The exchange; percent-encoded.")),
    responses(
        (status = 200, description = "Accepted; for several messages `results`.",
            content(
                (wire::Published = "application/json"),
                (PublishResults = "application/json; results")
            )),
        Unroutable, Refusals, Races, Missing
    )
)]
pub(crate) async fn publish_to_exchange(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Said(mut said): Said<PublishToExchange>,
) -> Outcome<Response> {
    caller.may(MayPublish, &name)?;
    let key = std::mem::take(&mut said.routing_key);
    let mandatory = said.mandatory;
    let (messages, several) = said.messages()?;
    let target = Target::Exchange(name.as_str().into(), key.into());
    let posting = Posting { messages, several, target, mandatory, declare: false };
    publish(&door, &caller, posting).await.map_err(asking("publish to exchange", &name))
}

/// Publish to a topic
///
/// Every subscription whose filter matches the subject gets the message. A topic that does not
/// exist is declared unless `declare=false`.
#[utoipa::path(
    post, path = "/v1/topics/{name}/messages", tag = "topics", request_body = PublishToTopic,
    params(("name" = String, Path, description = "The topic; percent-encoded."), Declare),
    responses(
        (status = 200, description = "Accepted; for several messages `results`.",
            content(
                (wire::Published = "application/json"),
                (PublishResults = "application/json; results")
            )),
        Refusals, Races, Missing
    )
)]
pub(crate) async fn publish_to_topic(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Asked(query): Asked<Declare>,
    Said(mut said): Said<PublishToTopic>,
) -> Outcome<Response> {
    caller.may(MayPublish, &name)?;
    let declare = query.declare && caller.can(Admin, &name);
    let subject = std::mem::take(&mut said.subject);
    let (messages, several) = said.messages()?;
    let target = Target::Exchange(name.as_str().into(), subject.into());
    let posting = Posting { messages, several, target, mandatory: false, declare };
    publish(&door, &caller, posting).await.map_err(asking("publish to topic", &name))
}

/// Whether a body is JSON: `application/json` and everything `+json`.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return false };
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json") || kind.to_ascii_lowercase().ends_with("+json")
}

/// A message whose body is the request's body.
async fn one_raw(
    door: &Door,
    caller: &Caller,
    name: &str,
    message: leasehold_api::Message,
    declare: bool,
    headers: &HeaderMap,
) -> Outcome<Response> {
    let request = headers.get("idempotency-key").and_then(|id| id.to_str().ok());
    let target = Target::Queue(name.into());
    let request = caller.request(request)?;
    let publish = Publish { target, message, mandatory: true, request };
    let done = send(door, vec![publish], declare).await?;
    single(done).map_err(asking("publish to queue", name))
}

async fn publish(door: &Door, caller: &Caller, posting: Posting) -> Outcome<Response> {
    let Posting { messages, several, target, mandatory, declare } = posting;
    let mut publishes = Vec::with_capacity(messages.len());
    for (at, mut message) in messages.into_iter().enumerate() {
        let request = message.request_id.take();
        let named = || if several { format!("message {at}") } else { String::new() };
        publishes.push(Publish {
            target: target.clone(),
            request: caller.request(request.as_deref()).map_err(asking(&named(), ""))?,
            message: message.into_api().map_err(|error| error.asking(named()))?,
            mandatory,
        });
    }
    let done = send(door, publishes, declare).await?;
    if !several {
        return single(done);
    }
    let results = done.into_iter().map(Into::into).collect();
    Ok(Json(PublishResults { results }).into_response())
}

fn single(done: Vec<Result<Published>>) -> Outcome<Response> {
    let published = done.into_iter().next().unwrap_or_else(no_answer)?;
    Ok(Json(wire::Published::from(published)).into_response())
}

/// Publishes; what is refused because its target is missing, once more after declaring that.
async fn send(
    door: &Door,
    publishes: Vec<Publish>,
    declare: bool,
) -> Outcome<Vec<Result<Published>>> {
    let queues = door.queues()?;
    let Some(target) = publishes.first().map(|publish| publish.target.clone()) else {
        return Ok(Vec::new());
    };
    if !declare {
        return Ok(queues.publish(publishes).await?);
    }
    let mut spare = publishes.clone();
    let mut done = queues.publish(publishes).await?;
    let missing = |one: &Result<Published>| {
        let kind = one.as_ref().err().map(|error| error.kind);
        matches!(kind, Some(ErrorKind::NotFound | ErrorKind::Unroutable))
    };
    if !done.iter().any(missing) {
        return Ok(done);
    }
    let declared = match &target {
        Target::Queue(name) => queues.declare_queue(name, &QueueConfig::default()).await.map(drop),
        Target::Exchange(name, _) => {
            queues.declare_exchange(name, &ExchangeConfig::of(ExchangeKind::Topic)).await
        }
    };
    match declared {
        // Somebody was quicker, and knows better what it should be.
        Err(error) if error.kind == ErrorKind::Different => {}
        other => other?,
    }
    let mut refused = done.iter().map(missing);
    spare.retain(|_| refused.next().unwrap_or(false));
    let mut again = queues.publish(spare).await?.into_iter();
    for one in done.iter_mut().filter(|one| missing(one)) {
        *one = again.next().unwrap_or_else(no_answer);
    }
    Ok(done)
}

fn no_answer() -> Result<Published> {
    Err(Error::new(ErrorKind::Broken, "the engine gave no answer to the publish"))
}
