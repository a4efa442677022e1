//! What a request says, read with refusals that name what is wrong with it.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::http::request::Parts;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use leasehold_api::ErrorKind;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use crate::door::Door;
use crate::refusal::{Outcome, Refusal};

/// The names in the path.
pub(crate) struct At<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Door>> for At<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, door: &Arc<Door>) -> Outcome<Self> {
        let found = Path::<T>::from_request_parts(parts, door).await;
        let wrong = |rejection: axum::extract::rejection::PathRejection| {
            Refusal::invalid(format!("the path: {}", rejection.body_text()))
        };
        found.map(|Path(names)| Self(names)).map_err(wrong)
    }
}

/// The query.
pub(crate) struct Asked<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Door>> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, door: &Arc<Door>) -> Outcome<Self> {
        let found = Query::<T>::from_request_parts(parts, door).await;
        let wrong = |rejection: axum::extract::rejection::QueryRejection| {
            Refusal::invalid(format!("the query: {}", rejection.body_text()))
        };
        found.map(|Query(asked)| Self(asked)).map_err(wrong)
    }
}

/// A register's key. It is bytes, so the path is read here and not as text.
pub(crate) struct Key(pub Vec<u8>);

impl Key {
    /// The key as permissions see it.
    pub fn name(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

impl FromRequestParts<Arc<Door>> for Key {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Door>) -> Outcome<Self> {
        // /v1/registers/{key} and what follows.
        let key = parts.uri.path().split('/').nth(3).unwrap_or_default();
        Ok(Self(percent_decode_str(key).collect()))
    }
}

/// A body as it came.
pub(crate) struct Whole(pub Bytes);

impl FromRequest<Arc<Door>> for Whole {
    type Rejection = Refusal;

    async fn from_request(request: Request, door: &Arc<Door>) -> Outcome<Self> {
        let max = door.limits.body_bytes;
        let too_long = || {
            let wrong = format!("the body is longer than {max} bytes; send less at once");
            Refusal::invalid(wrong).with_status(StatusCode::PAYLOAD_TOO_LARGE)
        };
        // What is announced too long is refused before it is sent.
        let announced = request.headers().get(CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > max as u64) {
            return Err(too_long());
        }
        let body = Limited::new(request.into_body(), max).collect();
        match tokio::time::timeout(door.limits.body_read, body).await {
            Ok(Ok(body)) => Ok(Self(body.to_bytes())),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
            Ok(Err(error)) => Err(Refusal::invalid(format!("the body broke off: {error}"))),
            Err(_) => {
                let wrong = "the body did not come in time; send it faster";
                let refusal = Refusal::new(ErrorKind::TimedOut, wrong);
                Err(refusal.with_status(StatusCode::REQUEST_TIMEOUT))
            }
        }
    }
}

/// A body of JSON; none at all counts as `{}`.
pub(crate) struct Said<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<Door>> for Said<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, door: &Arc<Door>) -> Outcome<Self> {
        let Whole(body) = Whole::from_request(request, door).await?;
        json(&body).map(Self)
    }
}

/// Reads JSON and names the field, the line and the column of what is wrong.
pub(crate) fn json<T: DeserializeOwned>(body: &[u8]) -> Outcome<T> {
    let body = if body.is_empty() { b"{}" } else { body };
    // Structs are read from arrays as well, field by field, which nobody means here.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return Err(Refusal::invalid("the body is an array at line 1 column 1; send an object"));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let said = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = error.path().to_string();
        let wrong = error.into_inner();
        match field.as_str() {
            "." | "?" => Refusal::invalid(format!("the body is not as it should be: {wrong}")),
            field => Refusal::invalid(format!("the body's field {field}: {wrong}")),
        }
    })?;
    let rest = |error| Refusal::invalid(format!("after the JSON there is more: {error}"));
    reader.end().map_err(rest)?;
    Ok(said)
}
