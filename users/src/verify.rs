//! The users there are now, and what was verified lately.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use aws_lc_rs::constant_time;
use leasehold_api::{Error, ErrorKind, Result, Retry};
use tokio::sync::{Semaphore, watch};

use crate::User;
use crate::digest::{from_hex, hex, sha256};

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
    hex(&sha256(token.as_bytes()))
}

/// Reads what [`hash_token`] wrote.
pub fn token_hash(text: &str) -> Option<[u8; 32]> {
    from_hex(text)
}

/// What verifying may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserLimits {
    /// Passwords that are verified at once; each takes 50 ms of a core and 19 MiB.
    pub verifications: usize,
    /// How long a password may wait for its turn to be verified.
    pub patience: Duration,
    /// Verified passwords that are remembered.
    pub remembered: usize,
    /// How long they are remembered.
    pub remember: Duration,
}

impl Default for UserLimits {
    fn default() -> Self {
        Self {
            verifications: 2,
            patience: Duration::from_secs(5),
            remembered: 1024,
            remember: Duration::from_secs(300),
        }
    }
}

/// Who may come in. One for all doors.
pub struct Users {
    set: watch::Sender<Arc<Set>>,
    /// Counts replacements.
    edition: AtomicU64,
    verifying: Semaphore,
    limits: UserLimits,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users").field("users", &self.now().users).finish_non_exhaustive()
    }
}

impl Default for Users {
    /// Nobody, which lets everybody do everything.
    fn default() -> Self {
        Self::new(Vec::new(), UserLimits::default())
    }
}

impl Users {
    /// These users. None at all: everybody may do everything.
    pub fn new(users: Vec<User>, limits: UserLimits) -> Self {
        let verifying = Semaphore::new(limits.verifications);
        let set = watch::Sender::new(Arc::new(Set::new(users)));
        Self { set, edition: AtomicU64::new(0), verifying, limits }
    }

    /// Puts other users in the place of those there are. Whatever was verified is forgotten.
    pub fn replace(&self, users: Vec<User>) {
        self.set.send_replace(Arc::new(Set::new(users)));
        self.edition.fetch_add(1, Ordering::Release);
    }

    /// Whether everybody may do everything, as no user is configured.
    pub fn is_open(&self) -> bool {
        self.set.borrow().users.is_empty()
    }

    /// The user with this name and password.
    ///
    /// # Errors
    /// `Unauthenticated` when there is none; `Unavailable` when too many passwords are being
    /// verified.
    pub async fn password(&self, name: &str, password: &str) -> Result<Arc<User>> {
        let set = self.now();
        let key = sha256(format!("{}:{name}{password}", name.len()).as_bytes());
        if let Some(known) = set.recall(&key, self.limits.remember) {
            return Ok(known);
        }
        let user = self.verify(&set, name, password.to_owned()).await?;
        let user = user.ok_or_else(|| unknown("user and password are not known here"))?;
        // Into the set that it was verified against: it must not outlive that one.
        set.keep(key, user.clone(), &self.limits);
        Ok(user)
    }

    /// The user with this bearer token.
    ///
    /// # Errors
    /// `Unauthenticated` when there is none.
    pub fn token(&self, token: &str) -> Result<Arc<User>> {
        let hash = sha256(token.as_bytes());
        let same = |known: &[u8; 32]| constant_time::verify_slices_are_equal(known, &hash).is_ok();
        let set = self.now();
        let user = set.users.iter().find(|user| user.tokens.iter().any(same));
        user.cloned().ok_or_else(|| unknown("the token is not known here"))
    }

    /// Resolves when somebody who came in is no longer a user or has other permissions or
    /// credentials, for connections that last. It never does for one whom nothing happens to.
    pub async fn departed(&self, user: &User) {
        self.becomes(|users| !users.iter().any(|known| **known == *user)).await;
    }

    /// Resolves when there are users, for connections of those who came in while there were none.
    pub async fn closed(&self) {
        self.becomes(|users| !users.is_empty()).await;
    }

    /// Another number after each replacement, for doors that look in passing.
    pub fn edition(&self) -> u64 {
        self.edition.load(Ordering::Acquire)
    }

    /// Whether somebody who came in is still a user, with the same permissions and credentials.
    pub fn knows(&self, user: &User) -> bool {
        self.set.borrow().users.iter().any(|known| **known == *user)
    }

    async fn becomes(&self, so: impl Fn(&[Arc<User>]) -> bool) {
        // The sender lives as long as this, so waiting ends by a replacement only.
        if self.set.subscribe().wait_for(|set| so(&set.users)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn now(&self) -> Arc<Set> {
        self.set.borrow().clone()
    }

    async fn verify(&self, set: &Set, name: &str, password: String) -> Result<Option<Arc<User>>> {
        let crowded = |_| {
            let wrong = "too many passwords are being verified; ask again, or use a bearer token";
            Error::new(ErrorKind::Unavailable, wrong).with_retry(Retry::Later)
        };
        let turn = tokio::time::timeout(self.limits.patience, self.verifying.acquire());
        let _turn = turn.await.map_err(crowded)?;

        let user = set.users.iter().find(|user| user.name == name && user.password.is_some());
        // Verifying somebody's hash takes the time that tells nothing about the name.
        let stand_in = || set.users.iter().find(|user| user.password.is_some());
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
}

fn unknown(wrong: &str) -> Error {
    Error::new(ErrorKind::Unauthenticated, wrong)
}

/// Since when a credential is known to be whose.
type Remembered = HashMap<[u8; 32], (Instant, Arc<User>)>;

/// The users of one moment, and what was verified against them.
struct Set {
    users: Vec<Arc<User>>,
    remembered: Mutex<Remembered>,
}

impl Set {
    fn new(users: Vec<User>) -> Self {
        Self { users: users.into_iter().map(Arc::new).collect(), remembered: Mutex::default() }
    }

    fn recall(&self, key: &[u8; 32], remember: Duration) -> Option<Arc<User>> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, user) = remembered.get(key)?;
        (since.elapsed() < remember).then(|| user.clone())
    }

    fn keep(&self, key: [u8; 32], user: Arc<User>, limits: &UserLimits) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= limits.remembered {
            remembered.retain(|_, (since, _)| since.elapsed() < limits.remember);
        }
        if remembered.len() >= limits.remembered {
            remembered.clear();
        }
        remembered.insert(key, (Instant::now(), user));
    }
}
