//! What is asked of and answered by [`LockEngine`](super::LockEngine).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

/// Names a request across retries: the same id is carried out once and answered alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(pub u128);

/// A session as its owner names it. Equal are those with the same number: the proof is how a
/// session is shown, not which one it is.
#[derive(Debug, Clone)]
pub struct SessionRef {
    /// Its number.
    pub id: u64,
    /// What an engine needs besides, such as a signature.
    pub proof: Option<Arc<str>>,
}

impl PartialEq for SessionRef {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for SessionRef {}

impl std::hash::Hash for SessionRef {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl SessionRef {
    /// No session, for engines that have none.
    pub const NONE: Self = Self { id: 0, proof: None };
}

/// Asks for a session.
#[derive(Debug, Clone, Default)]
pub struct OpenSession {
    /// It ends when it is silent for so long; `None`: it ends when it is closed.
    pub ttl: Option<Duration>,
    /// The session to take up again.
    pub resume: Option<SessionRef>,
    /// Shown by inspect; at most 1024 bytes.
    pub label: Option<Arc<str>>,
}

/// An open session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// How it is named.
    pub session: SessionRef,
    /// Whether it was taken up again.
    pub resumed: bool,
}

/// How much of a lock is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Nobody else.
    #[default]
    Exclusive,
    /// Any number of sharers, no exclusive holder. Waiting writers go before later readers.
    Shared,
    /// `take` of the semaphore's `of` permits.
    Permits {
        /// How many, at least one.
        take: u32,
        /// How many there are; all who use it at one time must say the same.
        of: u32,
    },
}

/// One lock that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Want {
    /// Its name, 1 to 255 bytes of UTF-8 without control characters.
    pub name: Arc<str>,
    /// How much of it.
    pub mode: Mode,
}

/// How long an acquirer waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wait {
    /// Not at all.
    No,
    /// At most so long.
    AtMost(Duration),
    /// Until granted or dropped.
    Forever,
}

impl Wait {
    /// When somebody gives up who waits since then; `None`: never, or it does not wait at all.
    ///
    /// ```
    /// use leasehold_api::Wait;
    /// use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let asked = tokio::time::Instant::now();
    /// let wait = Duration::from_secs(3);
    /// assert_eq!(Wait::AtMost(wait).until(asked), Some(asked + wait));
    /// assert_eq!(Wait::Forever.until(asked), None);
    /// # }
    /// ```
    pub fn until(self, asked: Instant) -> Option<Instant> {
        match self {
            // What lies beyond the clock's end is forever.
            Self::AtMost(wait) => asked.checked_add(wait),
            Self::No | Self::Forever => None,
        }
    }
}

/// Waits until a moment; without one for ever.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use leasehold_api::engine::moment;
/// moment(Some(tokio::time::Instant::now())).await;
/// # }
/// ```
pub async fn moment(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Asks for one or several locks, all or none.
#[derive(Debug, Clone)]
pub struct Acquire {
    /// Which, each name once.
    pub wants: Vec<Want>,
    /// Who asks; `None`: the hold ends by its TTL or by release only.
    pub session: Option<SessionRef>,
    /// Who within the session: the unit of re-entry and of deadlock detection. Below 2^53.
    pub hold: u64,
    /// Whether a hold of the same session and number may be entered again.
    pub reentrant: bool,
    /// Time from the grant, and from each renewal, to the deadline.
    pub ttl: Option<Duration>,
    /// Whether the hold ends with its session.
    pub bound: bool,
    /// How long to wait.
    pub wait: Wait,
    /// How long nobody may take the lock after this hold was lost (not after it was released).
    pub lock_delay: Duration,
    /// What the holder says about itself; at most 1024 bytes.
    pub label: Option<Arc<str>>,
    /// Names the request across retries.
    pub request: Option<RequestId>,
}

/// Locks were granted.
#[derive(Debug)]
pub struct Grant {
    /// The fencing token: higher than every token given out before. Below 2^53.
    pub token: u64,
    /// Time left until the deadline as the engine saw it; `None`: no deadline.
    pub left: Option<Duration>,
    /// How often the hold is entered.
    pub entries: u32,
    /// Resolves when the engine says that the hold ended without a release. An engine that does
    /// not tell gives `None`; the guard then learns it from its renewals.
    pub ended: Option<oneshot::Receiver<Ending>>,
}

/// Why a hold ended without a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Its deadline passed.
    Expired,
    /// Its session ended.
    SessionLost,
    /// An operator ended it.
    Revoked,
    /// The engine says that it is not held, not why.
    Unknown,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Expired => "its time ran out",
            Self::SessionLost => "its session ended",
            Self::Revoked => "an operator took it away",
            Self::Unknown => "the engine does not know it any more",
        })
    }
}

/// Names a hold. All must match, so nobody's lock ends by a guessed or stale number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HoldRef {
    /// A lock that the hold covers.
    pub name: Arc<str>,
    /// Its fencing token.
    pub token: u64,
    /// The number given at acquire.
    pub hold: u64,
    /// The session it was acquired in.
    pub session: Option<SessionRef>,
}

/// A lock as inspect shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LockView {
    /// Its name.
    pub name: String,
    /// Its holders, the newest first.
    pub holders: Vec<HolderView>,
    /// Those who wait, the next first; the first thousand of them.
    pub waiters: Vec<WaiterView>,
    /// How many wait.
    pub waiting: u32,
    /// How long nobody may take it after an unclean loss.
    pub delay_left: Duration,
    /// How long it is held on average.
    pub hold_average: Option<Duration>,
}

/// A holder as inspect shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderView {
    /// Its fencing token.
    pub token: u64,
    /// Its session; 0: none.
    pub session: u64,
    /// How it holds.
    pub mode: Mode,
    /// Since how long.
    pub held: Duration,
    /// How long it may still hold; `None`: no deadline.
    pub left: Option<Duration>,
    /// How often it entered.
    pub entries: u32,
    /// What it says about itself.
    pub label: Option<String>,
}

/// A waiter as inspect shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaiterView {
    /// Its session; 0: none.
    pub session: u64,
    /// How it wants to hold.
    pub mode: Mode,
    /// Since how long it waits.
    pub waited: Duration,
    /// How long it will wait, from its position and the average hold.
    pub expected: Option<Duration>,
    /// What it says about itself.
    pub label: Option<String>,
}

/// Asks for things by prefix, some at a time.
#[derive(Debug, Clone, Default)]
pub struct List {
    /// Names begin with this.
    pub prefix: String,
    /// Where to go on: `next` of the answer before; 0 at first.
    pub after: u32,
    /// How many at most, 1 to 1000.
    pub max: u32,
}

/// Some of the things asked for.
#[derive(Debug, Clone)]
pub struct Listed<T> {
    /// These.
    pub items: Vec<T>,
    /// Where to go on; `None`: that was all. Items may be few although there is more.
    pub next: Option<u32>,
}

/// A register's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// Its value.
    pub value: Vec<u8>,
    /// Its version: higher than every version before, over all registers.
    pub version: u64,
    /// Time until it vanishes; `None`: it stays.
    pub left: Option<Duration>,
}

/// A register in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterView {
    /// Its key.
    pub key: Vec<u8>,
    /// Its version.
    pub version: u64,
    /// Length of its value.
    pub bytes: u32,
    /// Time until it vanishes; `None`: it stays.
    pub left: Option<Duration>,
}

/// Writes or deletes a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// 1 to 1024 bytes of any kind.
    pub key: Vec<u8>,
    /// The new value, at most 1 MiB; `None` deletes.
    pub value: Option<Vec<u8>>,
    /// What must hold now.
    pub expect: Expect,
    /// When the value vanishes.
    pub ttl: RegisterTtl,
    /// Refused unless this lock is held with this token.
    pub guard: Option<(Arc<str>, u64)>,
    /// Names the request across retries.
    pub request: Option<RequestId>,
}

/// What a register write demands of the present state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Expect {
    /// Nothing.
    #[default]
    Anything,
    /// That there is no value.
    Absent,
    /// That there is a value.
    Present,
    /// That the version is this one: compare-and-set.
    Version(u64),
}

/// When a written value vanishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RegisterTtl {
    /// Never.
    #[default]
    Never,
    /// As the value before it.
    Keep,
    /// After this time.
    After(Duration),
}
