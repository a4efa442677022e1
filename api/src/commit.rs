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
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold::Result<()> {
/// # let leasehold = leasehold::memory().await?;
/// # let (orders, payments) = (leasehold.queue("orders"), leasehold.queue("payments"));
/// # orders.declare(&leasehold::QueueConfig::default()).await?;
/// # payments.declare(&leasehold::QueueConfig::default()).await?;
/// # orders.publish("order 42").await?;
/// # leasehold.register("stock/42").write("10").await?;
/// let mut orders = orders.consume().await?;
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
/// guard.release().await?;
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
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// use leasehold::Expect;
    /// let versions = leasehold.commit().write("a", "1", Expect::Absent).await?;
    /// assert_eq!(versions.len(), 1);
    /// # Ok(()) }
    /// ```
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
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let guard = leasehold.lock("stock/42").acquire().await?;
    /// leasehold.commit().check(&guard).write("stock/42", "9", Default::default()).await?;
    /// # guard.release().await?;
    /// # Ok(()) }
    /// ```
    pub fn check(mut self, guard: &LockGuard) -> Self {
        self.ask.checks.push((guard.hold().name.clone(), guard.token()));
        self
    }

    /// Demands that a lock is held with a token.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let guard = leasehold.lock("stock/42").acquire().await?;
    /// let token = guard.token();
    /// guard.release().await?;
    /// let late = leasehold.commit().check_token("stock/42", token).await.unwrap_err();
    /// assert_eq!(late.kind, leasehold::ErrorKind::Stale);
    /// # Ok(()) }
    /// ```
    pub fn check_token(mut self, lock: impl Into<Arc<str>>, token: u64) -> Self {
        self.ask.checks.push((lock.into(), token));
        self
    }

    /// Acknowledges a delivery.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// # orders.publish("order 42").await?;
    /// # let order = orders.receive(std::time::Duration::ZERO).await?.expect("it was published");
    /// leasehold.commit().ack(order).await?;
    /// assert_eq!(orders.inspect().await?.in_flight, 0);
    /// # Ok(()) }
    /// ```
    pub fn ack(self, delivery: Delivery) -> Self {
        self.settle(delivery, Verdict::Ack)
    }

    /// Settles a delivery.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// # orders.publish("order 42").await?;
    /// # let order = orders.receive(std::time::Duration::ZERO).await?.expect("it was published");
    /// leasehold.commit().settle(order, leasehold::Verdict::Reject).await?;
    /// assert_eq!(orders.inspect().await?.ready, 0); // it does not come back
    /// # Ok(()) }
    /// ```
    pub fn settle(mut self, delivery: Delivery, verdict: Verdict) -> Self {
        self.ask.settles.push((delivery.receipt.clone(), verdict));
        self.deliveries.push(delivery);
        self
    }

    /// Settles a delivery by its receipt.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// # orders.publish("order 42").await?;
    /// # let order = orders.receive(std::time::Duration::ZERO).await?.expect("it was published");
    /// let receipt = order.into_receipt();
    /// leasehold.commit().settle_receipt(receipt, leasehold::Verdict::Ack).await?;
    /// # Ok(()) }
    /// ```
    pub fn settle_receipt(mut self, receipt: Receipt, verdict: Verdict) -> Self {
        self.ask.settles.push((receipt, verdict));
        self
    }

    /// Publishes to a queue.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// leasehold.commit().publish("orders", "order 42").publish("orders", "order 43").await?;
    /// assert_eq!(orders.inspect().await?.ready, 2);
    /// # Ok(()) }
    /// ```
    pub fn publish(self, queue: impl Into<Arc<str>>, message: impl Into<Message>) -> Self {
        self.publish_to(Target::Queue(queue.into()), message)
    }

    /// Publishes to a target of any kind; it is refused when no queue takes it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// let target = leasehold::Target::Queue("orders".into());
    /// leasehold.commit().publish_to(target, "order 42").await?;
    /// assert_eq!(orders.inspect().await?.ready, 1);
    /// # Ok(()) }
    /// ```
    pub fn publish_to(mut self, target: Target, message: impl Into<Message>) -> Self {
        let message = message.into();
        self.ask.publishes.push(Publish { target, message, mandatory: true, request: None });
        self
    }

    /// Writes a register if it is as expected.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// use leasehold::{ErrorKind, Expect};
    /// leasehold.commit().write("a", "1", Expect::Absent).await?;
    /// let half = leasehold.commit().write("c", "1", Expect::Absent);
    /// let refused = half.write("a", "2", Expect::Absent).await.unwrap_err();
    /// assert_eq!(refused.kind, ErrorKind::Conflict);
    /// assert!(leasehold.register("c").read().await?.is_none());
    /// # Ok(()) }
    /// ```
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
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let guard = leasehold.lock("stock/42").acquire().await?;
    /// let commit = leasehold.commit().write("stock/42", "9", Default::default());
    /// commit.release(guard).await?;
    /// assert!(leasehold.lock("stock/42").try_acquire().await?.is_some());
    /// # Ok(()) }
    /// ```
    pub fn release(mut self, guard: LockGuard) -> Self {
        self.ask.releases.push(guard.hold().clone());
        self.guards.push(guard);
        self
    }

    /// Does it; gives the versions of the registers written, in order.
    ///
    /// # Errors
    /// The first refusal among its parts: `Stale` for a token or delivery that is not held any
    /// more, `Conflict` for a register, `NotFound` for a queue. Nothing has happened then;
    /// deliveries given to it go back to their queues, and locks given to it are released.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let commit = leasehold.commit().write("a", "1", leasehold::Expect::Absent);
    /// let versions = commit.send().await?;
    /// let read = leasehold.register("a").read().await?;
    /// assert_eq!(read.map(|read| read.version), Some(versions[0]));
    /// # Ok(()) }
    /// ```
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
