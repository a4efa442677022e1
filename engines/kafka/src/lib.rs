//! The engine that speaks to Apache Kafka, behind the traits of `leasehold-api`. It has queues and
//! no locks.
//!
//! ```text
//! QueueEngine ─► publish.rs ───────────────────────┐
//!     queue.rs   topology.rs, settings.rs          ├─► driver.rs: what is asked of a client,
//!                consume.rs ─► member.rs, window.rs │   and below it the client
//!                              progress.rs ─────────┘
//! ```
#![doc = include_str!("../docs.md")]
#![cfg_attr(
    not(feature = "librdkafka"),
    allow(dead_code, reason = "without a client nobody asks for most of it")
)]

mod checks;
mod config;
mod consume;
mod driver;
mod error;
mod greeting;
mod member;
mod message;
mod names;
mod progress;
mod publish;
mod queue;
mod settings;
mod topology;
mod window;

use std::sync::Arc;

use leasehold_api::engine::Engine;
use leasehold_api::{
    DeadLetters, Ends, Fencing, Guarantees, KeyOrder, Queues, Result, Sharing, Survives,
};

use crate::config::Config;
use crate::consume::Consuming;
use crate::publish::Publisher;

/// What Kafka promises.
pub const GUARANTEES: Guarantees = Guarantees {
    fencing: Fencing::Advisory,
    ends: Ends::One,
    survives: Survives::Process,
    queues: Queues::Leased,
    dead_letters: DeadLetters::Kept,
    key_order: KeyOrder::Keys,
    sharing: Sharing::Partitions,
    ..Guarantees::NOTHING
};

/// Brokers.
#[derive(Clone)]
pub(crate) struct KafkaEngine {
    config: Arc<Config>,
    publisher: Arc<Publisher>,
    consuming: Arc<Consuming>,
}

/// Opens the engine behind a URL, `kafka://USER:PASSWORD@HOST:PORT,HOST:PORT` or `kafkas://`, and
/// looks whether a broker is there, new enough, and lets us in. The engine lives in the tokio
/// runtime that this is called in.
///
/// # Errors
/// `Invalid` for a bad URL, naming what is wrong; `Unavailable` when nothing answers there;
/// `Unauthenticated` for bad credentials; `Unsupported` when something answers that is no broker,
/// or one too old, or when this build has no client (feature `librdkafka`) or no TLS (`tls`).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// // Nobody is there.
/// assert!(leasehold_kafka::connect("kafka://127.0.0.1:1").await.is_err());
/// # }
/// ```
pub async fn connect(url: &str) -> Result<Engine> {
    let config = Config::read(url).map_err(|error| error.asking("connect to Kafka"))?;
    let asked = format!("connect to {}", config.shown);
    let opened = open(Arc::new(config)).await;
    opened.map_err(|error| error.asking(asked))
}

async fn open(config: Arc<Config>) -> Result<Engine> {
    let cluster = driver::connect(&config)?;
    if let Some(greeting) = greeting::greeting(&config).await? {
        greeting.new_enough()?;
    }
    // Who opens it wants to know at once that it is not let in.
    let reached = cluster.brokers().await.map_err(error::Fault::told);
    reached.map_err(|error| error.with_retry(leasehold_api::Retry::Later))?;
    let engine = KafkaEngine {
        config: config.clone(),
        publisher: Arc::new(Publisher::new(cluster.clone())),
        consuming: Arc::new(Consuming::new(cluster, config.clone())),
    };
    let (url, engine) = (config.shown.as_str().into(), Arc::new(engine));
    Ok(Engine { url, locks: None, queues: Some(engine.clone()), checks: Some(engine) })
}
