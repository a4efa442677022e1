//! The engine that keeps locks and queues in MySQL or MariaDB, behind the traits of
//! `leasehold-api`.
//!
//! ```text
//! LineEngine (contenders) ─► Entries ── a swap is one packet ──┐
//!   locks, registers         book.rs                           ├─► Server ─► connections, each in
//! QueueHalf ─► Queues ── transactions over rows ───────────────┘   connect.rs  a task of its own
//!   queue.rs    queue/
//! Bells ── GET_LOCK: who waits is woken; doors: who waits in this process
//! ```
//! What it guarantees, what it costs and where the traps are is in `docs.md`:
//!
#![doc = include_str!("../docs.md")]

mod bells;
mod book;
mod checks;
mod config;
mod connect;
mod error;
mod queue;
mod schema;
mod sql;

use std::sync::Arc;

use leasehold_api::{Agreement, Deadlocks, Engine, Guarantees, Result};
use leasehold_contenders::{LineEngine, Sessions};

use crate::bells::Bells;
use crate::book::Entries;
use crate::checks::Doctor;
use crate::config::Config;
use crate::connect::Server;
use crate::queue::{QueueHalf, Queues};

/// What it promises, if the server writes to disk before it confirms
/// (`innodb_flush_log_at_trx_commit=1`, which it does unless told otherwise). Of a server that does
/// not, an engine says that confirmed changes survive a process only.
pub const GUARANTEES: Guarantees = Guarantees {
    agreement: Agreement::One,
    deadlocks: Deadlocks::Unseen,
    ..Guarantees::EVERYTHING
};

/// Opens the engine behind a URL, `mysql://USER:PASSWORD@HOST:PORT/DATABASE` or `mariadb://…`, and
/// makes its tables there if they are not there yet. The engine lives in the tokio runtime that
/// this is called in.
///
/// # Errors
/// `Invalid` for a bad URL, naming what is wrong; `Unavailable` when nothing answers there;
/// `Unauthenticated` for credentials that the server does not know; `Forbidden` for a privilege
/// that is missing; `Unsupported` for a server that is too old, or tables of a newer release.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let error = leasehold_mysql::connect("mysql://127.0.0.1:1/work").await.unwrap_err();
/// assert_eq!(error.kind, leasehold_api::ErrorKind::Unavailable);
/// # }
/// ```
pub async fn connect(url: &str) -> Result<Engine> {
    let config = Config::read(url).map_err(|error| error.asking("connect to a server"))?;
    let server = Server::new(config);
    let asked = format!("connect to {}", server.config.shown);
    schema::prepare(&server).await.map_err(|error| error.asking(asked))?;
    let bells = Bells::new(server.clone());
    let book = Arc::new(Entries::new(server.clone(), bells.clone()));
    let sessions = Arc::new(Sessions::default());
    let queues = Queues::new(server.clone(), bells, sessions.clone());
    let lines = LineEngine::new(book, sessions, Some(queues.clone()));
    Ok(Engine {
        url: server.config.shown.as_str().into(),
        locks: Some(Arc::new(lines.clone())),
        queues: Some(Arc::new(QueueHalf { queues, lines })),
        checks: Some(Arc::new(Doctor(server))),
    })
}
