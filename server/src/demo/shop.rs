//! The shop: it fills the shelves, takes the orders, and answers for the dead letters.
//!
//! The shop is not killed, but the server is, so its publishes can be in doubt too. It then sends
//! the same orders again under the same message ids, as a customer does who clicks twice, and the
//! queue takes each once.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use leasehold::{Error, ErrorKind, Expect, Leasehold, Message, Retry};
use tokio::sync::watch;

use super::accounts::OPENING;
use super::desk::{Intake, ORDERS, ORDERS_DEAD, QUEUES, queue_config};
use super::ledger::{Fact, Ledger, now_us};
use super::plan::{Order, Plan, message_id, order_of};
use super::stock::{shelf_key, shelf_value};

/// Orders published with one round trip.
const BATCH: u32 = 250;
/// Shelves filled with one commit.
const SHELVES: usize = 500;
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct Shop {
    pub at: Leasehold,
    pub ledger: Ledger,
    pub plan: Plan,
}

impl Shop {
    /// Declares the queues and fills the shelves.
    pub async fn open(&self) -> Result<()> {
        for name in QUEUES.iter().rev() {
            self.at.queue(*name).declare(&queue_config(name)).await?;
        }
        let articles: Vec<u32> = (0..self.plan.articles).collect();
        for some in articles.chunks(SHELVES) {
            let mut commit = self.at.commit();
            for article in some {
                let value = shelf_value(self.plan.stock(*article), OPENING);
                commit = commit.write(shelf_key(*article), value, Expect::Absent);
            }
            let versions = commit.await.context("fill the shelves of a new data directory")?;
            for (article, version) in some.iter().copied().zip(versions) {
                let left = self.plan.stock(article);
                self.ledger.enter(&Fact::Opened { article, left, version })?;
            }
        }
        Ok(())
    }

    /// Places all orders, as many at a time as there is room for.
    pub async fn take_orders(self: Arc<Self>, mut room: watch::Receiver<u32>) -> Result<()> {
        let mut next = 0;
        while next < self.plan.orders {
            let mut left = *room.borrow_and_update();
            while left > 0 && next < self.plan.orders {
                let end = (next + BATCH.min(left)).min(self.plan.orders);
                self.place(next..end).await?;
                left -= end - next;
                next = end;
            }
            if next < self.plan.orders && room.changed().await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn place(&self, ids: std::ops::Range<u32>) -> Result<()> {
        let mut orders: Vec<u32> = ids.clone().collect();
        orders.extend(ids.clone().filter(|id| self.plan.order(*id).twice));
        let (mut absorbed, at) = (0, now_us());
        self.ledger.enter(&Fact::Placing { at, orders: ids.clone().collect() })?;
        let queue = self.at.queue(ORDERS);
        while !orders.is_empty() {
            let messages = orders.iter().map(|id| self.plan.order(*id).message());
            let answers = match queue.publish_all(messages).await {
                Ok(answers) => answers,
                Err(error) if error.retry != Retry::Never => {
                    tracing::info!(%error, "placing the same orders again");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(error) => bail!(error),
            };
            let mut again = Vec::new();
            for (id, answer) in orders.iter().zip(answers) {
                match answer {
                    Ok(published) => absorbed += published.duplicates,
                    Err(error) if error.retry != Retry::Never => again.push(*id),
                    Err(error) => bail!(error),
                }
            }
            if !again.is_empty() {
                tokio::time::sleep(PAUSE).await;
            }
            orders = again;
        }
        let orders = ids.collect();
        Ok(self.ledger.enter(&Fact::Placed { at: now_us(), orders, absorbed })?)
    }

    /// Looks after the dead letters, for ever: poison is buried. An order that is good died of
    /// workers who were killed with it in their hands, five times; it is put back.
    pub async fn answer_for_the_dead(self: Arc<Self>) -> Result<()> {
        let mut intake = Intake::new(&self.at, ORDERS_DEAD, 64, Duration::ZERO);
        loop {
            for dead in intake.handful(64).await {
                let order = order_of(dead.content.id.as_deref()).context("a letter without id")?;
                let reason = dead.content.deaths.last().map(|death| death.reason.clone());
                let (at, token) = (now_us(), dead.token());
                let mut commit = self.at.commit();
                let planned: Order = self.plan.order(order);
                let fact = match planned.poison {
                    Some(_) => Fact::Buried { at, order, reason: reason.unwrap_or_default() },
                    None => {
                        let id = format!("{}/{token}", message_id(order));
                        let back: Message = planned.message().id(id);
                        commit = commit.publish(ORDERS, back);
                        Fact::Revived { at, order, token }
                    }
                };
                // Before the ack: written twice it says the same, and a line that a crash of the
                // server kept from us would be missing for ever.
                self.ledger.enter(&fact)?;
                match commit.ack(dead).await {
                    Ok(_) => {}
                    Err(error) if error.retry == Retry::Never && !is_late(&error) => bail!(error),
                    Err(error) => tracing::info!(order, %error, "a dead letter comes again"),
                }
            }
        }
    }
}

/// Whether a delivery was not ours any more.
fn is_late(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Stale | ErrorKind::NoSession | ErrorKind::Foreign)
}
