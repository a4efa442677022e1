//! The step that nobody else has: acks, publishes, releases, register writes and token checks, all
//! at once or not at all.

use std::sync::Arc;

use crate::engine::{self, Publish, Receipt, Write};
use crate::{
    Delivery, Error, Expect, Leasehold, LockGuard, Message, RegisterTtl, Result, Target, Verdict,
    random,
};

/// A commit being put together.
///
/// ```
/// # use leasehold_api as leasehold;
/// # async fn example(leasehold: leasehold::Leasehold) -> leasehold::Result<()> {
/// # let mut orders = leasehold.queue("orders").consume().await?;
/// let guard = leasehold.lock("stock/42").acquire().await?;
/// if let Some(order) = orders.next().await? {
///     leasehold
///         .commit()
///         .check(&guard)
///         .write("stock/42", "9", leasehold::Expect::Present)
///         .publish("payments", order.body())
///         .ack(order)
///         .await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a commit does nothing until it is awaited"]
pub struct Commit {
    at: Leasehold,
    ask: engine::Commit,
    /// Kept until the answer, so that a refused commit gives messages and locks back.
    deliveries: Vec<Delivery>,
    guards: Vec<LockGuard>,
}

impl Leasehold {
    /// Begins to put a commit together.
    pub fn commit(&self) -> Commit {
        Commit {
            at: self.clone(),
            ask: engine::Commit::default(),
            deliveries: Vec::new(),
            guards: Vec::new(),
        }
    }
}

impl Commit {
    /// Demands that the guard's lock is still held.
    pub fn check(mut self, guard: &LockGuard) -> Self {
        self.ask.checks.push((guard.hold().name.clone(), guard.token()));
        self
    }

    /// Demands that a lock is held with a token.
    pub fn check_token(mut self, lock: impl Into<Arc<str>>, token: u64) -> Self {
        self.ask.checks.push((lock.into(), token));
        self
    }

    /// Acknowledges a delivery.
    pub fn ack(self, delivery: Delivery) -> Self {
        self.settle(delivery, Verdict::Ack)
    }

    /// Settles a delivery.
    pub fn settle(mut self, delivery: Delivery, verdict: Verdict) -> Self {
        self.ask.session = Some(delivery.receipt.session.clone());
        self.ask.settles.push((delivery.receipt.clone(), verdict));
        self.deliveries.push(delivery);
        self
    }

    /// Settles a delivery by its receipt.
    pub fn settle_receipt(mut self, receipt: Receipt, verdict: Verdict) -> Self {
        self.ask.session = Some(receipt.session.clone());
        self.ask.settles.push((receipt, verdict));
        self
    }

    /// Publishes to a queue.
    pub fn publish(self, queue: impl Into<Arc<str>>, message: impl Into<Message>) -> Self {
        self.publish_to(Target::Queue(queue.into()), message)
    }

    /// Publishes to a target of any kind; it is refused when no queue takes it.
    pub fn publish_to(mut self, target: Target, message: impl Into<Message>) -> Self {
        let message = message.into();
        self.ask.publishes.push(Publish { target, message, mandatory: true, request: None });
        self
    }

    /// Writes a register if it is as expected.
    pub fn write(
        mut self,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
        expect: Expect,
    ) -> Self {
        self.ask.writes.push(Write {
            key: key.into(),
            value: Some(value.into()),
            expect,
            ttl: RegisterTtl::Never,
            guard: None,
            request: None,
        });
        self
    }

    /// Releases a lock. It is renewed until the commit is answered.
    pub fn release(mut self, guard: LockGuard) -> Self {
        let hold = guard.hold().clone();
        self.ask.session = self.ask.session.or_else(|| hold.session.clone());
        self.ask.releases.push(hold);
        self.guards.push(guard);
        self
    }

    /// Does it; gives the versions of the registers written, in order.
    ///
    /// # Errors
    /// The first refusal among its parts: `Stale` for a token or delivery that is not held any
    /// more, `Conflict` for a register, `NotFound` for a queue. Nothing has happened then;
    /// deliveries given to it go back to their queues, and locks given to it are released.
    pub async fn send(mut self) -> Result<Vec<u64>> {
        self.ask.request = Some(random::request());
        let asked = |error: Error| error.asking("commit");
        let versions = self.at.queues()?.commit(&self.ask).await.map_err(asked)?;
        for delivery in self.deliveries {
            delivery.into_receipt();
        }
        for guard in self.guards {
            guard.forget();
        }
        Ok(versions)
    }
}

impl std::future::IntoFuture for Commit {
    type Output = Result<Vec<u64>>;
    type IntoFuture = futures_core::future::BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
