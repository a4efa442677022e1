//! Who calls: found from the request's credentials before anything is done.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use leasehold_api::{Error, ErrorKind, RequestId};
use leasehold_users::{Permission, User, Users, sha256};

use crate::door::Door;
use crate::refusal::{Outcome, Refusal};

/// The longest request id.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Who calls; `None`: there are no users, everybody may do everything.
#[derive(Debug, Clone)]
pub(crate) struct Caller(Option<Arc<User>>);

impl Caller {
    /// The name that seals are made for.
    pub fn name(&self) -> &str {
        self.0.as_ref().map_or("", |user| &user.name)
    }

    /// Whether the caller may do something with one name.
    pub fn can(&self, permission: Permission, name: &str) -> bool {
        self.0.as_ref().is_none_or(|user| user.may(permission, name))
    }

    /// Refuses unless the caller may do something with one name.
    pub fn may(&self, permission: Permission, name: &str) -> Outcome<()> {
        if self.can(permission, name) {
            return Ok(());
        }
        Err(self.forbidden(permission, name))
    }

    /// Refuses unless the caller may do something with all names that begin with a prefix.
    pub fn may_all(&self, permission: Permission, prefix: &str) -> Outcome<()> {
        if self.0.as_ref().is_none_or(|user| user.may_all(permission, prefix)) {
            return Ok(());
        }
        Err(self.forbidden(permission, &format!("{prefix}*")))
    }

    /// Resolves when the caller may no longer be here, for requests that last. Who came in while
    /// there were no users has to say who it is once there are.
    pub async fn departed(&self, users: &Users) -> Error {
        match &self.0 {
            Some(user) => users.departed(user).await,
            None => users.closed().await,
        }
        let wrong = "your user was changed or taken out, or users were added; come in again";
        Error::new(ErrorKind::Unauthenticated, wrong)
    }

    fn forbidden(&self, permission: Permission, name: &str) -> Refusal {
        let (user, permission) = (self.name(), permission.name());
        let wrong = format!("{user} has not the permission {permission} on {name}");
        Refusal::new(ErrorKind::Forbidden, wrong)
    }

    /// The engine's number for a request id: one user cannot use up another's.
    pub fn request(&self, id: Option<&str>) -> Outcome<Option<RequestId>> {
        let Some(id) = id else { return Ok(None) };
        if id.is_empty() || id.len() > REQUEST_ID_BYTES_MAX {
            let wrong = format!("request_id has 1 to {REQUEST_ID_BYTES_MAX} bytes");
            return Err(Refusal::invalid(wrong));
        }
        let digest = sha256(format!("{}:{}{id}", self.name().len(), self.name()).as_bytes());
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        Ok(Some(RequestId(u128::from_le_bytes(first))))
    }
}

impl FromRequestParts<Arc<Door>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, door: &Arc<Door>) -> Outcome<Self> {
        if door.users.is_open() {
            return Ok(Self(None));
        }
        // A page that asks its user itself does not want the browser to ask as well.
        let page = parts.headers.get("x-requested-with").is_some_and(|by| by == "leasehold");
        let unknown =
            |wrong: &str| Refusal::new(ErrorKind::Unauthenticated, wrong).with_challenge(!page);
        let Some(credential) = credential(&parts.headers) else {
            return Err(unknown("say who you are: Authorization: Basic or Bearer"));
        };
        let user = match credential {
            Credential::Token(token) => door.users.token(&token),
            Credential::Password { user, password } => door.users.password(&user, &password).await,
        };
        let refused = |error: Error| {
            let stranger = error.kind == ErrorKind::Unauthenticated;
            Refusal::from(error).with_challenge(stranger && !page)
        };
        Ok(Self(Some(user.map_err(refused)?)))
    }
}

/// What a client says to prove who it is.
enum Credential {
    Password { user: String, password: String },
    Token(String),
}

fn credential(headers: &HeaderMap) -> Option<Credential> {
    let (scheme, rest) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Credential::Token(rest.to_string()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Credential::Password { user: user.to_string(), password: password.to_string() })
}
