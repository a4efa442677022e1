//! The engine that talks to a Leasehold server over HTTP, behind the traits of `leasehold-api`.
//!
//! ```text
//! LockEngine, QueueEngine ─► Server ── asks, again if need be ─► Lines ── HTTP/1.1 ─► door
//!   lock.rs  queue.rs         server.rs: patience                 line.rs: hanging up
//!   acquire.rs, receive.rs, consume.rs: what leaves something behind, in tasks of their own
//! ```
//! What it guarantees, what it costs and where the traps are is in `docs.md`:
//!
#![doc = include_str!("../docs.md")]

mod acquire;
mod ask;
mod consume;
mod line;
mod lines;
mod lock;
mod place;
mod publish;
mod queue;
mod receive;
mod server;
mod trust;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leasehold_api::engine::{LockEngine, QueueEngine};
use leasehold_api::{Agreement, Engine, Error, ErrorKind, Guarantees, Modes, Queues, Result};
use leasehold_wire::guarantees::Guarantees as WireGuarantees;

use crate::ask::{Ask, Path};
use crate::lines::Lines;
use crate::server::Server;

pub use place::Credentials;

/// How to talk to a server. What the URL says goes before what is said here.
///
/// ```
/// use leasehold_http::HttpOptions;
/// use std::time::Duration;
/// let options = HttpOptions { patience: Duration::from_secs(5), ..HttpOptions::default() };
/// assert_eq!(options.connect, Duration::from_secs(5));
/// ```
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Who asks; `None`: the token in the environment variable `LEASEHOLD_BEARER_TOKEN`, or nobody.
    pub credentials: Option<Credentials>,
    /// A file with the certificates (PEM) to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// How long a connection may take to be made.
    pub connect: Duration,
    /// How long an answer may take, besides what was asked to be waited for.
    pub answer: Duration,
    /// How long a request is tried while the server is not reached.
    pub patience: Duration,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            credentials: None,
            ca: None,
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(10),
            patience: Duration::from_secs(30),
        }
    }
}

/// What a server on the embedded engine promises. A connection promises what its server says.
pub const GUARANTEES: Guarantees =
    Guarantees { agreement: Agreement::One, ..Guarantees::EVERYTHING };

/// Holds that were asked for as ones that may be entered again: their release is sent once only.
///
/// What is not released here (a hold that somebody else releases) stays in the set: eight bytes
/// each, and such holds are few.
type Entered = Mutex<HashSet<u64>>;

/// A server. Clones are the same engine, with the same connections.
#[derive(Debug, Clone)]
pub struct HttpEngine {
    server: Arc<Server>,
    guarantees: Guarantees,
    entered: Arc<Entered>,
}

/// Opens the engine behind a URL, `http://HOST:PORT` or `https://HOST:PORT`, and asks the server
/// what it promises. The engine lives in the tokio runtime that this is called in.
///
/// # Errors
/// `Invalid` for a bad URL or CA file, naming what is wrong; `Unavailable` when nothing answers
/// there; `Unauthenticated` when the credentials are not known there; `Unsupported` when something
/// answers that is no Leasehold server.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use leasehold_http::{HttpOptions, connect};
/// let error = connect("http://127.0.0.1:1", &HttpOptions::default()).await.unwrap_err();
/// assert_eq!(error.kind, leasehold_api::ErrorKind::Unavailable);
/// # }
/// ```
pub async fn connect(url: &str, options: &HttpOptions) -> Result<Engine> {
    Ok(HttpEngine::connect(url, options).await?.engine())
}

impl HttpEngine {
    /// See [`connect`].
    ///
    /// # Errors
    /// See [`connect`].
    pub async fn connect(url: &str, options: &HttpOptions) -> Result<Self> {
        let place = place::Place::read(url, options);
        let place = place.map_err(|error| error.asking("connect to a server"))?;
        let asked = format!("connect to {}", place.shown);
        let tls = trust::connector(&place).map_err(|error| error.asking(&asked))?;
        if place.authorization.is_some() && !place.https && !place.is_local() {
            tracing::warn!(url = %place.shown, "credentials go over the network unencrypted");
        }
        let lines = Lines::new(place, tls, options.connect);
        let server = Server { lines, within: options.answer, patience: options.patience };
        let mut ask = Ask::get(Path::new("/v1/guarantees"), asked);
        // Whoever opens it wants to know at once that nobody is there.
        ask.patience = Some(Duration::ZERO);
        let guarantees = server.get::<WireGuarantees>(Ok(ask)).await?.into();
        Ok(Self { server: Arc::new(server), guarantees, entered: Arc::default() })
    }

    /// The engine as its users take it: with the halves that the server's has.
    pub fn engine(&self) -> Engine {
        let Guarantees { modes, queues, .. } = self.guarantees;
        let locks: Arc<dyn LockEngine> = Arc::new(self.clone());
        let kept: Arc<dyn QueueEngine> = Arc::new(self.clone());
        Engine {
            url: self.server.url().into(),
            locks: (modes > Modes::No).then_some(locks),
            queues: (queues > Queues::No).then_some(kept),
            checks: None,
        }
    }

    /// What the server promises, as it said when it was connected to.
    pub fn guarantees(&self) -> Guarantees {
        self.guarantees
    }
}

/// Whether an error is of a kind.
fn is(error: &Error, kind: ErrorKind) -> bool {
    error.kind == kind
}
