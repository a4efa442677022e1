//! The engine that speaks to RabbitMQ and other AMQP 0-9-1 brokers, behind the traits of
//! `leasehold-api`.
//!
//! ```text
//! QueueEngine ─► publish.rs ──────────┐
//!     queue.rs   consume.rs, lanes.rs ├─► connect.rs: a Link for each use, a Line for each
//!                topology.rs          │   connection, made anew when it is lost
//! LockEngine ──► hold.rs, token.rs ───┘
//!     lock.rs
//! ```
#![doc = include_str!("../docs.md")]

mod checks;
mod config;
mod connect;
mod consume;
mod error;
mod greeting;
mod hold;
mod lanes;
mod lock;
mod message;
mod publish;
mod queue;
mod token;
mod topology;

use std::sync::Arc;

use leasehold_api::engine::Engine;
use leasehold_api::{
    Bounds, Consumers, DeadLetters, Expiry, Fencing, Guarantees, Management, Modes, Priorities,
    Queues, Result, Routing, Sharing, Survives, Waiting,
};

use crate::config::Config;
use crate::connect::{Link, Use};
use crate::consume::Consuming;
use crate::hold::Holds;
use crate::lanes::Lanes;
use crate::publish::Publisher;

/// What a broker promises.
pub const GUARANTEES: Guarantees = Guarantees {
    fencing: Fencing::Advisory,
    waiting: Waiting::Unordered,
    survives: Survives::Process,
    modes: Modes::Exclusive,
    queues: Queues::Acked,
    routing: Routing::Exchanges,
    priorities: Priorities::Levels,
    expiry: Expiry::Timed,
    dead_letters: DeadLetters::Kept,
    bounds: Bounds::Kept,
    consumers: Consumers::Alone,
    sharing: Sharing::Messages,
    management: Management::Counts,
    ..Guarantees::NOTHING
};

/// A broker.
#[derive(Clone)]
pub(crate) struct AmqpEngine {
    config: Arc<Config>,
    publisher: Arc<Publisher>,
    consuming: Arc<Consuming>,
    holds: Arc<Holds>,
}

/// Opens the engine behind a URL, `amqp://USER:PASSWORD@HOST:PORT/VHOST` or `amqps://`, and looks
/// whether the broker is new enough and lets us in. The engine lives in the tokio runtime that
/// this is called in.
///
/// # Errors
/// `Invalid` for a bad URL, naming what is wrong; `Unavailable` when nothing answers there;
/// `Unauthenticated` for bad credentials; `Forbidden` for a vhost that is not there or not for
/// this user; `Unsupported` when something answers that is no AMQP 0-9-1 broker, or one too old.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let error = leasehold_amqp::connect("amqp://127.0.0.1:1").await.unwrap_err();
/// assert_eq!(error.kind, leasehold_api::ErrorKind::Unavailable);
/// # }
/// ```
pub async fn connect(url: &str) -> Result<Engine> {
    let config = Config::read(url).map_err(|error| error.asking("connect to a broker"))?;
    let asked = format!("connect to {}", config.shown);
    let opened = open(Arc::new(config)).await;
    opened.map_err(|error| error.asking(asked))
}

async fn open(config: Arc<Config>) -> Result<Engine> {
    let greeting = greeting::greeting(&config).await?;
    greeting.new_enough()?;
    let link = |what_for| Link::new(config.clone(), what_for);
    let consuming = link(Use::Consuming);
    // Who opens it wants to know at once that it is not let in.
    consuming.try_connect().await?;
    let engine = AmqpEngine {
        config: config.clone(),
        publisher: Arc::new(Publisher::new(link(Use::Publishing))),
        consuming: Arc::new(Consuming { link: consuming, lanes: Lanes::default() }),
        holds: Arc::new(Holds::new(link(Use::Locking), config.clone(), greeting.limits_returns())),
    };
    let url = config.shown.as_str().into();
    let engine = Arc::new(engine);
    Ok(Engine {
        url,
        locks: Some(engine.clone()),
        queues: Some(engine.clone()),
        checks: Some(engine),
    })
}
