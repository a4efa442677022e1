//! The engine that keeps locks and queues in Redis or Valkey, behind the traits of
//! `leasehold-api`.
//!
//! ```text
//! LockEngine ─► lines of contenders ─► book.rs ──┐
//! QueueEngine ─► queue.rs, receive.rs, consume.rs, ├─► connect.rs ── scripts (src/lua) ─► server
//!                commit.rs, keeper.rs ────────────┘     bells.rs ◄── pub/sub ─────────────┘
//! ```
//! What it guarantees, what it costs and where the traps are is in `docs.md`:
//!
#![doc = include_str!("../docs.md")]

mod bells;
mod book;
mod checks;
mod commit;
mod config;
mod connect;
mod consume;
mod error;
mod keeper;
mod message;
mod queue;
mod receive;
mod script;

use std::sync::Arc;

use leasehold_api::{Engine, Result};
use leasehold_contenders::{LineEngine, Sessions};

use crate::bells::Bells;
use crate::book::{RedisBook, Replicas};
use crate::checks::{Found, RedisChecks};
use crate::config::Config;
use crate::connect::{Finder, Link};
use crate::queue::{Inner, Queues, RedisQueues};

pub use crate::checks::GUARANTEES;

/// Opens the engine behind a URL, and looks at the server's version and settings. The engine lives
/// in the tokio runtime that this is called in.
///
/// # Errors
/// `Invalid` for a bad URL, or a replica; `Unavailable` when nothing answers there;
/// `Unauthenticated` and `Forbidden` for bad credentials; `Unsupported` for a server that is too
/// old or throws keys away (`maxmemory-policy`).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let error = leasehold_redis::connect("redis://127.0.0.1:1").await.unwrap_err();
/// assert_eq!(error.kind, leasehold_api::ErrorKind::Unavailable);
/// # }
/// ```
pub async fn connect(url: &str) -> Result<Engine> {
    let config = Config::read(url).map_err(|error| error.asking("connect to Redis"))?;
    let asked = format!("connect to {}", config.shown);
    open(config).await.map_err(|error| error.asking(asked))
}

async fn open(config: Config) -> Result<Engine> {
    let finder = Arc::new(Finder::new(config));
    let link = Arc::new(Link::new(finder.clone()));
    let found = Found::ask(&link).await?;
    found.admit(&link)?;
    let guarantees = found.guarantees(&link);
    let bells = Bells::new(finder.clone());
    let replicas = (finder.config.wait > 0).then(|| Replicas::new(Link::new(finder.clone())));
    let sessions = Arc::new(Sessions::default());
    let inner = Inner::new(link.clone(), bells.clone(), sessions.clone(), guarantees);
    let queues = RedisQueues { inner: Arc::new(inner) };
    let book = Arc::new(RedisBook { guarantees, link: link.clone(), bells, replicas });
    let locks = LineEngine::new(book.clone(), sessions, Some(Arc::new(queues.clone())));
    let locks = Arc::new(locks);
    Ok(Engine {
        url: finder.config.shown.as_str().into(),
        locks: Some(locks.clone()),
        queues: Some(Arc::new(Queues { queues, locks, book })),
        checks: Some(Arc::new(RedisChecks { link })),
    })
}
