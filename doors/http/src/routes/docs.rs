//! The description of the API, and a page on which to try it.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use leasehold_api::ErrorKind;
use utoipa_swagger_ui::Config;

use crate::HttpDoor;
use crate::door::Door;
use crate::refusal::Refusal;

/// The try-it page comes from elsewhere and sets styles in its elements.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                      img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// The OpenAPI description
///
/// Made from the handlers when it is first asked for, and kept.
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "server", security(()),
    responses((status = 200, description = "OpenAPI 3.1.", body = serde_json::Value))
)]
pub(crate) async fn openapi() -> Response {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    let text = TEXT.get_or_init(|| HttpDoor::description().into()).clone();
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// The try-it page.
pub(super) fn routes() -> Router<Arc<Door>> {
    Router::new()
        .route("/docs", get(async || Redirect::permanent("/docs/")))
        .route("/docs/", get(async || file("index.html")))
        .route("/docs/{file}", get(async |Path(name): Path<String>| file(&name)))
}

fn file(name: &str) -> Response {
    let config = Arc::new(Config::from("/v1/openapi.json"));
    match utoipa_swagger_ui::serve(name, config) {
        Ok(Some(file)) => {
            let headers = [
                (header::CONTENT_TYPE, file.content_type),
                (header::CONTENT_SECURITY_POLICY, POLICY.to_string()),
                (header::CACHE_CONTROL, "no-cache".to_string()),
            ];
            (StatusCode::OK, headers, file.bytes.into_owned()).into_response()
        }
        Ok(None) => {
            let wrong = format!("there is nothing at /docs/{name}; the page is at /docs/");
            Refusal::new(ErrorKind::NotFound, wrong).into_response()
        }
        Err(error) => Refusal::new(ErrorKind::Broken, error.to_string()).into_response(),
    }
}
