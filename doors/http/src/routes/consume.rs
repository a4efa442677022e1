//! Consuming as a stream: one delivery per line, as long as the client listens.
//!
//! The stream takes a message from the engine only when the connection wants more bytes, so a slow
//! client holds its own deliveries back and nobody else's. Without a session of the client's the
//! stream has one of its own, which ends with it: what was delivered and not settled goes back at
//! once. An empty line every 15 seconds tells both sides that the other lives.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use futures_util::stream;
use leasehold_api::engine::{Consume as ApiConsume, Delivered, SessionRef};
use leasehold_api::{Error, Result};
use leasehold_users::Permission::Consume as MayConsume;
use leasehold_wire::message::Delivery;
use leasehold_wire::queue::Consume;
use leasehold_wire::{Problem, handle};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

use super::deliveries::sealed;
use crate::ask::{Asked, At};
use crate::caller::Caller;
use crate::door::{Door, closing};
use crate::own_session::PassingSession;
use crate::refusal::{Ended, Missing, Outcome, Races, Refusals, asking};

/// How many deliveries may be in flight, unless the request says.
const PREFETCH_DEFAULT: u32 = 10;

/// What a stream holds on to.
struct Streaming {
    // First, so that the consumer stops before its session ends.
    deliveries: BoxStream<'static, Result<Delivered>>,
    door: Arc<Door>,
    caller: Caller,
    ended: bool,
    _session: Option<PassingSession>,
    _place: OwnedSemaphorePermit,
}

/// Consume a queue as a stream of lines
///
/// Each line is a delivery as JSON; an empty line says that the stream lives. At most `prefetch`
/// deliveries are in flight: settle them through /v1/deliveries to get more. Hanging up stops the
/// consumer; without a session of the caller's what is unsettled then goes back at once. A line
/// with `kind` is a problem and the last one.
#[utoipa::path(
    get, path = "/v1/queues/{name}/consume", tag = "queues",
    params(("name" = String, Path, description = "The queue; percent-encoded."), Consume),
    responses(
        (status = 200, description = "Lines of deliveries.", body = Delivery,
            content_type = "application/x-ndjson"),
        Refusals, Races, Missing, Ended
    )
)]
pub(crate) async fn consume(
    State(door): State<Arc<Door>>,
    caller: Caller,
    At(name): At<String>,
    Asked(asked): Asked<Consume>,
) -> Outcome<Response> {
    caller.may(MayConsume, &name)?;
    let place = door.place()?;
    let session = asked.session.as_deref().map(handle::session_of).transpose()?;
    let (session, passing) = match door.session(session, &caller)? {
        Some(session) => (session, None),
        None => {
            let passing = PassingSession::open(door.engine.locks.as_ref(), "http stream").await?;
            let session = passing.as_ref().map(PassingSession::session);
            (session.cloned().unwrap_or(SessionRef::NONE), passing)
        }
    };
    let ask = ApiConsume {
        queue: name.as_str().into(),
        session,
        prefetch: asked.prefetch.unwrap_or(PREFETCH_DEFAULT),
        no_ack: asked.no_ack,
        exclusive: asked.exclusive,
        label: asked.label.map(Into::into),
    };
    let deliveries = door.queues()?.consume(&ask).await;
    let deliveries = deliveries.map_err(asking("consume queue", &name))?;
    let streaming = Streaming {
        deliveries,
        door: door.clone(),
        caller,
        ended: false,
        _session: passing,
        _place: place,
    };
    let lines = stream::unfold(streaming, next_line).map(Ok::<_, Infallible>);
    let mut answer = Response::new(Body::from_stream(lines));
    let kind = HeaderValue::from_static("application/x-ndjson");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    // A proxy that buffers would hold deliveries back.
    answer.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(answer)
}

async fn next_line(mut streaming: Streaming) -> Option<(Bytes, Streaming)> {
    if streaming.ended {
        return None;
    }
    let quiet = Instant::now() + streaming.door.limits.heartbeat;
    let line = tokio::select! {
        biased;
        () = streaming.door.closed() => problem_line(&mut streaming.ended, closing()),
        error = streaming.caller.departed(&streaming.door.users) => {
            problem_line(&mut streaming.ended, error)
        }
        next = streaming.deliveries.next() => match next {
            Some(Ok(one)) => line(&sealed(&streaming.door, &streaming.caller, one)),
            Some(Err(error)) => problem_line(&mut streaming.ended, error),
            None => return None,
        },
        () = sleep_until(quiet) => Bytes::from_static(b"\n"),
    };
    Some((line, streaming))
}

fn problem_line(ended: &mut bool, error: Error) -> Bytes {
    *ended = true;
    line(&Problem::from(error))
}

fn line(what: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(what).unwrap_or_default();
    line.push(b'\n');
    line.into()
}
