//! The HTTP door: JSON for every language, a status page for people, metrics for machines.
//!
//! ```text
//! socket ─► serve: limits, TLS ─► routes ─► caller (who) ─► ask (what) ─► engine
//!                                    └────────── refusal: problem details ◄──┘
//! ```
//! * It stands before any [`Engine`] and knows none of them.
//! * **A wait is a request that takes its time.** When the client hangs up, the handler's future is
//!   dropped, and dropping an engine's future withdraws what it asked for. Nothing else is needed
//!   for a waiter that vanished, and nothing here polls.
//! * **What is handed out is sealed** (`seal`): a session or receipt that was guessed, or given to
//!   another user, opens nothing.
//! * **Every refusal is a problem detail** (`refusal`), 404 and 405 included.
//! * **The description at `/v1/openapi.json` is made from the handlers**; a route that is not
//!   described cannot be registered.
//! * **Everything is bounded** by a named limit ([`HttpLimits`]).

mod ask;
mod caller;
mod config;
mod connection;
mod door;
mod metrics;
mod origin;
mod own_session;
mod refusal;
mod routes;
mod sampler;
mod seal;
mod serve;

use std::sync::Arc;

use leasehold_api::Engine;

pub use config::{Counters, DoorConfig, HttpLimits, NoCounters, ServerInfo, Totals};
pub use serve::serve;

/// The door: an engine, and what stands before it.
#[derive(Clone)]
pub struct HttpDoor {
    door: Arc<door::Door>,
}

impl HttpDoor {
    /// A door before an engine.
    pub fn new(engine: Engine, config: DoorConfig) -> Self {
        Self { door: Arc::new(door::Door::new(engine, config)) }
    }

    /// The routes. [`serve`] adds limits on connections and time; a router that is served otherwise
    /// has only those on bodies and waits. Call it inside a tokio runtime: the first call starts
    /// the task that takes a sample a second for the status page.
    pub fn router(&self) -> axum::Router {
        sampler::start(&self.door);
        routes::router(self.door.clone())
    }

    /// Ends all waits and streams; [`serve`] does it when it is told to stop.
    pub fn close(&self) {
        self.door.close();
    }

    /// The OpenAPI description of the routes, as JSON.
    pub fn description() -> String {
        routes::description().to_json().unwrap_or_default()
    }
}

impl std::fmt::Debug for HttpDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpDoor").field("engine", &self.door.engine.url).finish_non_exhaustive()
    }
}
