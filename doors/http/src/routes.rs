//! All routes, with their descriptions.
//!
//! A handler is registered together with its description, so the description cannot miss a route.
//! What is for browsers (the page, its files, the try-it page) is described nowhere.

mod commit;
mod consume;
mod deliveries;
mod docs;
mod elections;
mod exchanges;
mod guarantees;
mod health;
mod locks;
mod page;
mod publish;
mod queues;
mod registers;
mod semaphores;
mod sessions;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use leasehold_api::ErrorKind;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::door::Door;
use crate::refusal::Refusal;
use crate::{metrics, origin};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Leasehold",
        description = "Locks and queues. Durations are milliseconds. A name in a path is \
            percent-encoded. Every refusal is a problem detail (RFC 9457): `kind` says what is \
            wrong, `retry` whether asking again can help.",
        license(name = "MIT OR Apache-2.0")
    ),
    components(schemas(leasehold_wire::Problem, leasehold_wire::message::PublishResults)),
    modifiers(&Credentials),
    security((), ("basic" = []), ("bearer" = []))
)]
struct Description;

struct Credentials;

impl Modify for Credentials {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let components = description.components.get_or_insert_default();
        for (name, scheme) in [("basic", HttpAuthScheme::Basic), ("bearer", HttpAuthScheme::Bearer)]
        {
            components.add_security_scheme(name, SecurityScheme::Http(Http::new(scheme)));
        }
    }
}

/// The routes and their description.
pub(crate) fn described() -> OpenApiRouter<Arc<Door>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .merge(locking())
        .merge(queueing())
        .routes(routes!(commit::commit))
        .routes(routes!(guarantees::guarantees))
        .routes(routes!(status::status))
        .routes(routes!(status::metrics))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(docs::openapi))
}

fn locking() -> OpenApiRouter<Arc<Door>> {
    OpenApiRouter::new()
        .routes(routes!(sessions::open_session))
        .routes(routes!(sessions::keep_alive))
        .routes(routes!(sessions::close_session))
        .routes(routes!(locks::acquire_lock))
        .routes(routes!(locks::acquire_locks))
        .routes(routes!(locks::renew_lock))
        .routes(routes!(locks::release_lock))
        .routes(routes!(locks::force_release_lock))
        .routes(routes!(locks::inspect_lock))
        .routes(routes!(locks::list_locks))
        .routes(routes!(locks::check_lock))
        .routes(routes!(locks::watch_lock))
        .routes(routes!(semaphores::acquire_permits))
        .routes(routes!(semaphores::renew_permits))
        .routes(routes!(semaphores::release_permits))
        .routes(routes!(semaphores::inspect_semaphore))
        .routes(routes!(elections::campaign))
        .routes(routes!(elections::renew_office))
        .routes(routes!(elections::resign))
        .routes(routes!(elections::leader))
        .routes(routes!(elections::observe))
        .routes(routes!(
            registers::read_register,
            registers::write_register,
            registers::delete_register
        ))
        .routes(routes!(registers::list_registers))
        .routes(routes!(registers::watch_register))
}

fn queueing() -> OpenApiRouter<Arc<Door>> {
    OpenApiRouter::new()
        .routes(routes!(queues::declare_queue, queues::inspect_queue, queues::delete_queue))
        .routes(routes!(queues::list_queues))
        .routes(routes!(queues::purge_queue))
        .routes(routes!(queues::pause_queue))
        .routes(routes!(queues::resume_queue))
        .routes(routes!(queues::redrive_queue))
        .routes(routes!(queues::peek_queue))
        .routes(routes!(publish::publish_to_queue))
        .routes(routes!(deliveries::receive))
        .routes(routes!(consume::consume))
        .routes(routes!(deliveries::ack))
        .routes(routes!(deliveries::nack))
        .routes(routes!(deliveries::reject))
        .routes(routes!(deliveries::extend))
        .routes(routes!(exchanges::declare_exchange, exchanges::delete_exchange))
        .routes(routes!(exchanges::bind, exchanges::unbind))
        .routes(routes!(publish::publish_to_exchange))
        .routes(routes!(publish::publish_to_topic))
        .routes(routes!(exchanges::subscribe))
}

/// The description alone.
pub(crate) fn description() -> utoipa::openapi::OpenApi {
    described().into_openapi()
}

/// Everything that the door answers.
pub(crate) fn router(door: Arc<Door>) -> Router {
    let (router, _) = described().split_for_parts();
    router
        // The multi-lock's path must not hide a lock of the name `acquire`.
        .route("/v1/locks/acquire", get(locks::inspect_acquire))
        .merge(page::routes())
        .merge(docs::routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(from_fn_with_state(door.clone(), origin::check))
        .layer(from_fn_with_state(door.clone(), metrics::observe))
        .layer(from_fn(secure))
        .with_state(door)
}

async fn unknown_path(request: Request) -> Refusal {
    let path = request.uri().path();
    let wrong = format!("there is nothing at {path}; the API is described at /docs");
    Refusal::new(ErrorKind::NotFound, wrong)
}

async fn unknown_method(method: Method, request: Request) -> Refusal {
    let path = request.uri().path();
    let wrong = format!("{path} has no {method}; the API is described at /docs");
    Refusal::invalid(wrong).with_status(StatusCode::METHOD_NOT_ALLOWED)
}

/// Headers that keep browsers from doing what nobody asked them to.
async fn secure(request: Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    let same = HeaderValue::from_static("same-origin");
    headers.insert("cross-origin-resource-policy", same);
    answer
}
