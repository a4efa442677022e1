//! All routes, with their descriptions.
//!
//! Routes and description are made from one list of handlers, so neither can miss one of them.
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
use axum::handler::Handler;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, get};
use leasehold_api::ErrorKind;
use utoipa::openapi::HttpMethod;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::door::Door;
use crate::refusal::Refusal;
use crate::{metrics, origin};

/// Makes the routes and their description from one list of handlers.
///
/// The routes are made at the start and the description when somebody asks for it: it is a large
/// tree, and what it leaves behind in the heap is a fifth of what an idle server needs.
macro_rules! handlers {
    ($($module:ident { $($handler:ident),+ $(,)? })+) => {
        #[derive(OpenApi)]
        #[openapi(
            info(
                title = "Leasehold",
                description = "Locks and queues. Durations are milliseconds. A name in a path is \
                    percent-encoded. Every refusal is a problem detail (RFC 9457): `kind` says \
                    what is wrong, `retry` whether asking again can help.",
                license(name = "MIT OR Apache-2.0")
            ),
            paths($($($module::$handler),+),+),
            components(schemas(leasehold_wire::Problem, leasehold_wire::message::PublishResults)),
            modifiers(&Credentials),
            security((), ("basic" = []), ("bearer" = []))
        )]
        struct Description;

        fn described() -> Router<Arc<Door>> {
            let router = Router::new();
            $($(let router = pastey::paste! {
                with::<$module::[<__path_ $handler>], _, _>(router, $module::$handler)
            };)+)+
            router
        }
    };
}

handlers! {
    sessions { open_session, keep_alive, close_session }
    locks {
        acquire_lock, acquire_locks, renew_lock, release_lock, force_release_lock, inspect_lock,
        list_locks, check_lock, watch_lock,
    }
    semaphores { acquire_permits, renew_permits, release_permits, inspect_semaphore }
    elections { campaign, renew_office, resign, leader, observe }
    registers { read_register, write_register, delete_register, list_registers, watch_register }
    queues {
        declare_queue, inspect_queue, delete_queue, list_queues, purge_queue, pause_queue,
        resume_queue, redrive_queue, peek_queue,
    }
    publish { publish_to_queue, publish_to_exchange, publish_to_topic }
    deliveries { receive, ack, nack, reject, extend }
    consume { consume }
    exchanges { declare_exchange, delete_exchange, bind, unbind, subscribe }
    commit { commit }
    guarantees { guarantees }
    status { status, metrics }
    health { healthz, readyz }
    docs { openapi }
}

/// Adds a handler under the path and methods of its description.
fn with<D: utoipa::Path, H, T>(router: Router<Arc<Door>>, handler: H) -> Router<Arc<Door>>
where
    H: Handler<T, Arc<Door>>,
    T: 'static,
{
    let on = |methods: MethodRouter<Arc<Door>>, method| methods.on(filter(method), handler.clone());
    router.route(&D::path(), D::methods().into_iter().fold(MethodRouter::new(), on))
}

fn filter(method: HttpMethod) -> MethodFilter {
    match method {
        HttpMethod::Get => MethodFilter::GET,
        HttpMethod::Put => MethodFilter::PUT,
        HttpMethod::Post => MethodFilter::POST,
        HttpMethod::Delete => MethodFilter::DELETE,
        HttpMethod::Options => MethodFilter::OPTIONS,
        HttpMethod::Head => MethodFilter::HEAD,
        HttpMethod::Patch => MethodFilter::PATCH,
        HttpMethod::Trace => MethodFilter::TRACE,
    }
}

/// The description alone.
pub(crate) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

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

/// Everything that the door answers.
pub(crate) fn router(door: Arc<Door>) -> Router {
    described()
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
