//! A worker's desk: its connection, its ledger, and the one way to commit.
//!
//! [`Desk::settle`] is where a commit's answer becomes a line of the ledger and where deliveries
//! are let go, so that every step of the pipeline treats doubt alike: *done* and *unknown* give
//! the deliveries up (after "unknown" the server either has acked them or will bring them again),
//! *void* drops them, which returns them at once.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use leasehold::{
    Commit, Consumer, Delivery, Error, ErrorKind, Leasehold, QueueConfig, Retry, Verdict,
};

use super::ledger::{Fact, Intent, Ledger, Step, Why, now_us};

/// The queues, in the order of an order's way.
pub const ORDERS: &str = "orders";
pub const PAYMENTS: &str = "payments";
pub const REMINDERS: &str = "reminders";
pub const SHIPPING: &str = "shipping";
pub const ORDERS_DEAD: &str = "orders.dead";
pub const QUEUES: [&str; 5] = [ORDERS, PAYMENTS, REMINDERS, SHIPPING, ORDERS_DEAD];

/// Deliveries of one order before it is dead.
pub const DELIVERIES_MAX: u16 = 5;
/// How long a delivery outlives its worker. Longer than the slowest worker needs for what it has
/// taken, or its work would be done twice for nothing.
const LEASE: Duration = Duration::from_secs(8);
/// How long a failed connection rests before it is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// How a queue of the demo is declared.
pub fn queue_config(name: &str) -> QueueConfig {
    let plain = QueueConfig { lease: Some(LEASE), ..QueueConfig::default() };
    match name {
        ORDERS => QueueConfig {
            priority_max: 1,
            deliveries_max: Some(DELIVERIES_MAX),
            dead_letter: Some(leasehold::DeadLetter::queue(ORDERS_DEAD)),
            dedup: Some(Duration::from_secs(600)),
            ..plain
        },
        _ => plain,
    }
}

/// What a step knows besides its commit.
#[derive(Debug, Clone, Copy)]
pub struct Deed {
    pub intent: Intent,
    pub step: Step,
    pub did: [u32; 2],
    pub waited_us: Option<u32>,
}

/// What became of a commit.
#[derive(Debug)]
pub enum Answer {
    Done,
    /// A register had changed. The deliveries are still here, for another try.
    Conflict(Vec<Delivery>),
    /// Refused for good, or not known; the deliveries are gone from this desk.
    Gone,
}

#[derive(Debug)]
pub struct Desk {
    pub at: Leasehold,
    pub ledger: Ledger,
}

impl Desk {
    pub fn new(at: Leasehold, dir: &Path, worker: u32) -> std::io::Result<Self> {
        let at = at.with_label(format!("demo worker {worker}"));
        Ok(Self { at, ledger: Ledger::open(dir, worker)? })
    }

    /// Sends a commit that settles `parts` and writes down what came of it.
    pub async fn settle(
        &self,
        deed: Deed,
        commit: Commit,
        parts: Vec<(Delivery, Verdict)>,
    ) -> anyhow::Result<Answer> {
        let Deed { intent: Intent { n, .. }, step, did, waited_us } = deed;
        // By receipt, so that a refusal leaves the deliveries here.
        let commit = parts.iter().fold(commit, |commit, (delivery, verdict)| {
            commit.settle_receipt(delivery.receipt.clone(), *verdict)
        });
        let asked = Instant::now();
        let answer = commit.await;
        let us = micros(asked.elapsed());
        let at = now_us();
        let deliveries = parts.into_iter().map(|(delivery, _)| delivery);
        let error = match answer {
            Ok(versions) => {
                let version = versions.first().copied();
                self.ledger.enter(&Fact::Done { n, at, step, did, version, us, waited_us })?;
                deliveries.for_each(forget);
                return Ok(Answer::Done);
            }
            Err(error) => error,
        };
        let wrong = error.to_string();
        if error.retry == Retry::Unknown {
            self.ledger.enter(&Fact::Unknown { n, at, step, wrong })?;
            deliveries.for_each(forget);
            return Ok(Answer::Gone);
        }
        let why = match error.kind {
            _ if error.retry == Retry::Later => Why::Away,
            ErrorKind::Stale => Why::Stale,
            ErrorKind::Conflict => Why::Conflict,
            ErrorKind::NoSession | ErrorKind::Foreign => Why::Session,
            _ => Why::Other,
        };
        self.ledger.enter(&Fact::Void { n, at, step, why, wrong })?;
        match why {
            Why::Conflict => return Ok(Answer::Conflict(deliveries.collect())),
            // They went back to their queues when the session ended.
            Why::Session => deliveries.for_each(forget),
            Why::Stale | Why::Away | Why::Other => drop(deliveries),
        }
        Ok(Answer::Gone)
    }
}

/// Gives a delivery up without telling the server.
pub fn forget(delivery: Delivery) {
    delivery.into_receipt();
}

/// Whole microseconds, as ledgers have them.
pub fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// Takes deliveries off a queue by the handful, over and over, whatever happens to the server.
#[derive(Debug)]
pub struct Intake {
    at: Leasehold,
    queue: &'static str,
    prefetch: u32,
    /// How long to let a handful grow: one commit for many costs the server little more than one
    /// for one.
    linger: Duration,
    consumer: Option<Consumer>,
}

impl Intake {
    pub fn new(at: &Leasehold, queue: &'static str, prefetch: u32, linger: Duration) -> Self {
        Self { at: at.clone(), queue, prefetch, linger, consumer: None }
    }

    /// At least one delivery, at most `max`.
    pub async fn handful(&mut self, max: usize) -> Vec<Delivery> {
        loop {
            match self.try_handful(max).await {
                Ok(deliveries) if deliveries.is_empty() => {}
                Ok(deliveries) => return deliveries,
                Err(error) => {
                    tracing::info!(queue = self.queue, %error, "consuming anew");
                    self.consumer = None;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn try_handful(&mut self, max: usize) -> Result<Vec<Delivery>, Error> {
        let consumer = match &mut self.consumer {
            Some(consumer) => consumer,
            none => {
                let consume = self.at.queue(self.queue).consume().prefetch(self.prefetch);
                none.insert(consume.await?)
            }
        };
        let gone = || Error::new(ErrorKind::NotFound, "the queue was deleted");
        let mut deliveries = vec![consumer.next().await?.ok_or_else(gone)?];
        if !self.linger.is_zero() {
            tokio::time::sleep(self.linger).await;
        }
        while deliveries.len() < max {
            match consumer.next().now_or_never() {
                Some(Ok(Some(delivery))) => deliveries.push(delivery),
                // What is here is worked on first; the next call meets the error again.
                Some(Err(_) | Ok(None)) => {
                    self.consumer = None;
                    break;
                }
                None => break,
            }
        }
        Ok(deliveries)
    }
}
