//! Refusals as answers: problem details with the headers that go with them.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use leasehold_api::{Error, ErrorKind, Retry};
use leasehold_wire::Problem;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};

/// What comes of a request.
pub(crate) type Outcome<T> = Result<T, Refusal>;

/// What a handler answers.
pub(crate) type Answer<T> = Outcome<Json<T>>;

/// A refusal on its way out.
#[derive(Debug)]
pub(crate) struct Refusal {
    error: Error,
    /// Where HTTP has a better status than the kind's.
    status: Option<StatusCode>,
    /// Whether to ask for credentials in the way that makes a browser ask its user.
    challenge: bool,
}

impl Refusal {
    /// A refusal of a kind.
    pub fn new(kind: ErrorKind, wrong: impl Into<String>) -> Self {
        Error::new(kind, wrong).into()
    }

    pub fn invalid(wrong: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, wrong)
    }

    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    pub fn with_challenge(mut self, challenge: bool) -> Self {
        self.challenge = challenge;
        self
    }

    pub fn kind(&self) -> ErrorKind {
        self.error.kind
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, status: None, challenge: false }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let retry = self.error.retry;
        let mut problem = Problem::from(self.error);
        if let Some(status) = self.status {
            problem = problem.with_status(status.as_u16());
        }
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST);
        let mut answer = (status, Json(problem)).into_response();
        let headers = answer.headers_mut();
        let problem_json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, problem_json);
        let crowded =
            status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE;
        if crowded && retry == Retry::Later {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.challenge {
            let basic = HeaderValue::from_static("Basic realm=\"leasehold\", charset=\"UTF-8\"");
            headers.append(header::WWW_AUTHENTICATE, basic);
            headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        answer
    }
}

/// Says what was asked, for `map_err`.
pub(crate) fn asking<E: Into<Refusal>>(what: &str, name: &str) -> impl FnOnce(E) -> Refusal {
    move |error| {
        let asked = if name.is_empty() { what.to_string() } else { format!("{what} {name}") };
        let refusal = error.into();
        Refusal { error: refusal.error.asking(asked), ..refusal }
    }
}

/// The refusals that every operation shares, for the OpenAPI description.
pub(crate) struct Refusals;

impl utoipa::IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let about = [
            ("400", "The request is not acceptable; the detail names the field."),
            ("401", "Who asks is not known."),
            ("403", "Who asks may not do this."),
            ("413", "The body is too long."),
            ("429", "A queue or limit is full."),
            ("501", "The engine cannot do this."),
            ("503", "The engine cannot be reached or is not sure, or too many requests wait."),
            ("507", "The disk is full; acks and releases are still accepted."),
        ];
        about.into_iter().map(|(status, about)| (status.to_string(), response(about))).collect()
    }
}

/// The refusal of what lost a race: something is held, stale, somebody else's or otherwise.
pub(crate) struct Races;

impl utoipa::IntoResponses for Races {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let about = "busy, timed-out, stale, foreign, conflict, different, in-use, deadlock, spent \
                     or cancelled: `kind` says which, `retry` whether asking again can help.";
        BTreeMap::from([("409".to_string(), response(about))])
    }
}

/// The refusal of what does not exist.
pub(crate) struct Missing;

impl utoipa::IntoResponses for Missing {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        BTreeMap::from([("404".to_string(), response("There is no such thing."))])
    }
}

/// The refusal of a message that reaches no queue.
pub(crate) struct Unroutable;

impl utoipa::IntoResponses for Unroutable {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        BTreeMap::from([("422".to_string(), response("No queue takes it."))])
    }
}

/// The refusal of a session that has ended.
pub(crate) struct Ended;

impl utoipa::IntoResponses for Ended {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        BTreeMap::from([("410".to_string(), response("The session has ended."))])
    }
}

fn response(about: &str) -> RefOr<utoipa::openapi::Response> {
    let problem = Ref::from_schema_name("Problem");
    let content = ContentBuilder::new().schema(Some(problem)).build();
    let response = ResponseBuilder::new().description(about);
    response.content("application/problem+json", content).build().into()
}
