//! Who may come in, and what they may do.
//!
//! A password costs 50 ms of a core on purpose, which at one request each would be twenty requests
//! a second. What was verified is therefore remembered for a while under its SHA-256, and no more
//! than a few are verified at once. A name that nobody has costs as much as one that somebody has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use aws_lc_rs::{constant_time, digest};
use leasehold_api::{Error, ErrorKind, Result, Retry};
use tokio::sync::Semaphore;

use crate::{HttpLimits, hex};

/// What somebody may do with the names of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Acquire, renew, release, watch and inspect locks; read and write registers.
    Lock,
    /// Publish to queues, exchanges and topics.
    Publish,
    /// Receive, settle and look at messages.
    Consume,
    /// Declare, delete, purge, pause, redrive, force-release and list; on `*` status and metrics.
    Admin,
}

impl Permission {
    /// All of them with their names in configuration files.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Lock, "lock"),
        (Self::Publish, "publish"),
        (Self::Consume, "consume"),
        (Self::Admin, "admin"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(one, _)| *one == self).map_or("", |(_, name)| name)
    }

    /// The permission with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(one, _)| *one)
    }
}

/// Some permissions on some names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// Names of locks, registers, queues and exchanges; `*` stands for any characters.
    pub on: String,
    /// What may be done with them.
    pub allow: Vec<Permission>,
}

/// Somebody who may come in.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password as [`hash_password`] made it; `None`: only tokens.
    pub password: Option<String>,
    /// SHA-256 of each bearer token, as [`hash_token`] made it.
    pub tokens: Vec<[u8; 32]>,
    /// What the user may do.
    pub allowances: Vec<Allowance>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

impl User {
    /// Whether the user may do something with one name.
    pub(crate) fn may(&self, permission: Permission, name: &str) -> bool {
        self.patterns(permission).any(|pattern| matches(pattern, name))
    }

    /// Whether the user may do something with all names that begin with a prefix.
    pub(crate) fn may_all(&self, permission: Permission, prefix: &str) -> bool {
        let covers = |pattern: &str| pattern.ends_with('*') && matches(pattern, prefix);
        self.patterns(permission).any(covers)
    }

    fn patterns(&self, permission: Permission) -> impl Iterator<Item = &str> {
        let allowing = self.allowances.iter().filter(move |one| one.allow.contains(&permission));
        allowing.map(|one| one.on.as_str())
    }
}

/// The hash of a password, as a configuration file keeps it. Takes 50 ms.
///
/// # Errors
/// `Broken` when the system has no randomness.
pub fn hash_password(password: &str) -> Result<String> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    let hash: PasswordHash =
        hash.map_err(|error| Error::new(ErrorKind::Broken, format!("no hash: {error}")))?;
    Ok(hash.to_string())
}

/// The hash of a bearer token, as a configuration file keeps it, in hexadecimal.
pub fn hash_token(token: &str) -> String {
    hex::of(&sha256(token.as_bytes()))
}

/// Reads what [`hash_token`] wrote.
pub fn token_hash(text: &str) -> Option<[u8; 32]> {
    hex::to_32(text)
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// Whether a name fits a pattern in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where the last star stands, and how much of the name it has swallowed.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(one) if *one == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, swallowed)) => {
                    star = Some((at, swallowed + 1));
                    (p, n) = (at + 1, swallowed + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|rest| *rest == b'*')
}

/// What a client says to prove who it is.
pub(crate) enum Credential {
    Password { user: String, password: String },
    Token(String),
}

/// Since when a credential is known to be whose.
type Remembered = HashMap<[u8; 32], (Instant, Arc<User>)>;

/// The users, and what was verified lately.
pub(crate) struct Users {
    users: Vec<Arc<User>>,
    remembered: Mutex<Remembered>,
    verifying: Semaphore,
    remembered_max: usize,
    remember: Duration,
}

/// How long a password may wait for its turn to be verified.
const VERIFY_PATIENCE: Duration = Duration::from_secs(5);

impl Users {
    pub fn new(users: Vec<User>, limits: &HttpLimits) -> Self {
        Self {
            users: users.into_iter().map(Arc::new).collect(),
            remembered: Mutex::default(),
            verifying: Semaphore::new(limits.verifications),
            remembered_max: limits.remembered,
            remember: limits.remember,
        }
    }

    /// Whether everybody may do everything.
    pub fn is_open(&self) -> bool {
        self.users.is_empty()
    }

    /// Who this is; `None`: nobody we know.
    ///
    /// # Errors
    /// `Unavailable` when too many passwords are being verified.
    pub async fn find(&self, credential: Credential) -> Result<Option<Arc<User>>> {
        let (user, password) = match credential {
            Credential::Token(token) => return Ok(self.by_token(&token)),
            Credential::Password { user, password } => (user, password),
        };
        let key = sha256(format!("{}:{user}{password}", user.len()).as_bytes());
        if let Some(known) = self.recall(&key) {
            return Ok(Some(known));
        }
        let found = self.verify(&user, password).await?;
        if let Some(user) = &found {
            self.keep(key, user.clone());
        }
        Ok(found)
    }

    fn by_token(&self, token: &str) -> Option<Arc<User>> {
        let hash = sha256(token.as_bytes());
        let same = |known: &[u8; 32]| constant_time::verify_slices_are_equal(known, &hash).is_ok();
        self.users.iter().find(|user| user.tokens.iter().any(same)).cloned()
    }

    async fn verify(&self, name: &str, password: String) -> Result<Option<Arc<User>>> {
        let crowded = |_| {
            let wrong = "too many passwords are being verified; ask again, or use a bearer token";
            Error::new(ErrorKind::Unavailable, wrong).with_retry(Retry::Later)
        };
        let turn = tokio::time::timeout(VERIFY_PATIENCE, self.verifying.acquire());
        let _turn = turn.await.map_err(crowded)?;

        let user = self.users.iter().find(|user| user.name == name && user.password.is_some());
        // Verifying somebody's hash takes the time that tells nothing about the name.
        let stand_in = || self.users.iter().find(|user| user.password.is_some());
        let Some(hash) = user.or_else(stand_in).and_then(|user| user.password.clone()) else {
            return Ok(None);
        };
        let fits = move || {
            let hash = PasswordHash::new(&hash);
            hash.is_ok_and(|hash| {
                Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
            })
        };
        let fits = tokio::task::spawn_blocking(fits).await;
        let fits = fits.map_err(|error| Error::new(ErrorKind::Broken, error.to_string()))?;
        Ok(user.filter(|_| fits).cloned())
    }

    fn recall(&self, key: &[u8; 32]) -> Option<Arc<User>> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, user) = remembered.get(key)?;
        (since.elapsed() < self.remember).then(|| user.clone())
    }

    fn keep(&self, key: [u8; 32], user: Arc<User>) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= self.remembered_max {
            remembered.retain(|_, (since, _)| since.elapsed() < self.remember);
        }
        if remembered.len() >= self.remembered_max {
            remembered.clear();
        }
        remembered.insert(key, (Instant::now(), user));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_what_they_say() {
        for (pattern, name, fits) in [
            ("*", "", true),
            ("*", "a/b", true),
            ("orders", "orders", true),
            ("orders", "orders2", false),
            ("orders*", "orders", true),
            ("*/dead", "a/b/dead", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("**", "x", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn a_list_needs_a_pattern_that_covers_it() {
        let allowances = vec![Allowance { on: "shop.*".into(), allow: vec![Permission::Admin] }];
        let (name, password, tokens) = ("ada".into(), None, Vec::new());
        let user = User { name, password, tokens, allowances };
        assert!(user.may_all(Permission::Admin, "shop."));
        assert!(user.may_all(Permission::Admin, "shop.a"));
        assert!(!user.may_all(Permission::Admin, "shop"));
        assert!(!user.may_all(Permission::Lock, "shop."));
    }
}
