#![doc = include_str!("../docs.md")]

mod acks;
mod bells;
mod book;
mod checks;
mod clock;
mod commit;
mod config;
mod connect;
mod consume;
mod content;
mod error;
mod hands;
mod publish;
mod queue;
mod schema;
mod server;
mod take;
mod tls;
mod turn;

use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leasehold_api::engine::Engine;
use leasehold_api::{Agreement, Deadlocks, Guarantees, Result};
use leasehold_contenders::{InHand, LineEngine, Sessions};

use crate::acks::Acks;
use crate::bells::{Bells, Listener};
use crate::book::Pages;
use crate::clock::{Clock, Ticking};
use crate::config::Config;
use crate::consume::Credits;
use crate::hands::Hands;
use crate::server::Server;
use crate::turn::Turns;

/// What one PostgreSQL server promises that is set up well. An engine that is connected to one
/// with `synchronous_commit = off` or `fsync = off` promises less.
pub const GUARANTEES: Guarantees = Guarantees {
    agreement: Agreement::One,
    deadlocks: Deadlocks::Unseen,
    ..Guarantees::EVERYTHING
};

/// What everything here shares.
pub(crate) struct Inner {
    pub server: Arc<Server>,
    pub bells: Arc<Bells>,
    pub clock: Arc<Clock>,
    pub lines: LineEngine<Pages>,
    pub hands: Arc<Hands>,
    pub credits: Credits,
    pub acks: Acks,
    /// Names this engine among those that share the schema.
    pub home: i64,
}

/// The engine over one schema of a PostgreSQL database. Clones are the same engine.
#[derive(Clone)]
pub(crate) struct PostgresEngine {
    inner: Arc<Inner>,
    guarantees: Guarantees,
    life: Arc<Life>,
}

/// What ends with the engine.
struct Life {
    _listener: Listener,
    /// Begins when queues are first used.
    ticking: Mutex<Option<Ticking>>,
}

impl Deref for PostgresEngine {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

/// Opens the engine behind a URL, `postgres://USER:PASSWORD@HOST:PORT/DATABASE`: connects, checks
/// the server, and makes the schema or brings it up to date. The engine lives in the tokio runtime
/// that this is called in.
///
/// # Errors
/// `Invalid` for a bad URL, naming what is wrong; `Unavailable` when nothing answers there;
/// `Unauthenticated` for a wrong user or password; `Forbidden` with the privilege that is missing;
/// `Unsupported` for a server that is too old, a standby, a schema of a newer release, or a pooler
/// between that tears sessions.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let error = leasehold_postgres::connect("postgres://me@127.0.0.1:1/db").await.unwrap_err();
/// assert_eq!(error.kind, leasehold_api::ErrorKind::Unavailable);
/// # }
/// ```
pub async fn connect(url: &str) -> Result<Engine> {
    let config = Config::read(url).map_err(|error| error.asking("connect to PostgreSQL"))?;
    let connected = connect::connect(&config).await.map_err(config.asked())?;
    let guarantees = connected.settings.weaken(GUARANTEES);
    let connect::Connected { server, bells, clock, listener, .. } = connected;
    let sessions = Arc::new(Sessions::default());
    let turns = Arc::new(Turns::new(server.clone()));
    let pages = Arc::new(Pages { server: server.clone(), bells: bells.clone(), turns, guarantees });
    let hands = Arc::new(Hands {
        server: server.clone(),
        sessions: sessions.clone(),
        used: Mutex::default(),
    });
    let in_hand: Arc<dyn InHand> = hands.clone();
    let lines = LineEngine::new(pages, sessions, Some(in_hand));
    let home = (random() >> 1).cast_signed();
    let credits = Credits::default();
    let acks = Acks::default();
    let inner = Inner { server, bells, clock, lines: lines.clone(), hands, credits, acks, home };
    let life = Arc::new(Life { _listener: listener, ticking: Mutex::default() });
    let engine = PostgresEngine { inner: Arc::new(inner), guarantees, life };
    Ok(Engine {
        url: config.shown.into(),
        locks: Some(Arc::new(lines)),
        queues: Some(Arc::new(engine.clone())),
        checks: Some(Arc::new(engine)),
    })
}

impl PostgresEngine {
    /// Begins to do what is due, if that was not begun.
    pub(crate) fn begin(&self) {
        let mut ticking = self.life.ticking.lock().unwrap_or_else(|broken| broken.into_inner());
        if ticking.is_none() {
            *ticking = Some(Ticking::start(self.clock.clone(), self.server.clone()));
        }
    }
}

/// A number that nobody else has.
pub(crate) fn random() -> u64 {
    request() as u64
}

/// A request id of our own.
pub(crate) fn request() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    u128::from_le_bytes(bytes)
}

/// A pause, so that those who lost the same server do not all come back at once.
pub(crate) fn spread(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + (random() % 1000) as f64 / 1000.0)
}
