//! Consuming: a stream of deliveries, and a delivery in the hands of its user.

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;

use crate::engine::{Consume, Content, Delivered, QueueEngine, Receipt};
use crate::{Error, Leasehold, Queue, Result, Verdict};

/// Deliveries in flight if not said.
const PREFETCH: u32 = 32;

/// How to consume from a queue. Awaiting it opens the [`Consumer`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold::Result<()> {
/// # let leasehold = leasehold::memory().await?;
/// # let orders = leasehold.queue("orders");
/// # orders.declare(&leasehold::QueueConfig::default()).await?;
/// # orders.publish("order 42").await?;
/// let mut consumer = orders.consume().prefetch(1).label("worker 7").await?;
/// # consumer.next().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is consumed until this is awaited"]
pub struct ConsumerOptions {
    queue: Queue,
    prefetch: u32,
    no_ack: bool,
    exclusive: bool,
    label: Option<Arc<str>>,
}

impl ConsumerOptions {
    pub(crate) fn new(queue: &Queue) -> Self {
        let queue = queue.clone();
        let label = queue.at.label();
        Self { queue, prefetch: PREFETCH, no_ack: false, exclusive: false, label }
    }

    /// How many deliveries may be in flight at once, 1 to 65,535; 32 if not said. One gives the
    /// fairest spread over consumers, more give throughput.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// # orders.publish("order 42").await?;
    /// let mut one_at_a_time = orders.consume().prefetch(1).await?;
    /// # one_at_a_time.next().await?;
    /// # Ok(()) }
    /// ```
    pub fn prefetch(mut self, prefetch: u32) -> Self {
        self.prefetch = prefetch;
        self
    }

    /// Deliver and forget: no acks, and what was delivered is lost with this process.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// # orders.publish("order 42").await?;
    /// let mut consumer = orders.consume().no_ack().await?;
    /// consumer.next().await?;
    /// assert_eq!(orders.inspect().await?.in_flight, 0);
    /// # Ok(()) }
    /// ```
    pub fn no_ack(mut self) -> Self {
        self.no_ack = true;
        self
    }

    /// Refuses other consumers, and is refused where there are some.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// let alone = orders.consume().exclusive().await?;
    /// let other = orders.consume().await.unwrap_err();
    /// assert_eq!(other.kind, leasehold::ErrorKind::InUse);
    /// # drop(alone);
    /// # Ok(()) }
    /// ```
    pub fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// What inspect shows; the handle's label if not said.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// let consumer = orders.consume().label("worker 7").await?;
    /// assert_eq!(orders.inspect().await?.consumers, 1);
    /// # drop(consumer);
    /// # Ok(()) }
    /// ```
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Begins.
    ///
    /// # Errors
    /// `NotFound`, `InUse` when somebody consumes exclusively.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// let consumer = orders.consume().open().await?;
    /// # drop(consumer);
    /// # Ok(()) }
    /// ```
    pub async fn open(self) -> Result<Consumer> {
        let Self { queue, prefetch, no_ack, exclusive, label } = self;
        let queues = queue.at.queues()?.clone();
        let engine = &queues;
        let request = |session| {
            let ask = Consume {
                queue: queue.name.clone(),
                session,
                prefetch,
                no_ack,
                exclusive,
                label: label.clone(),
            };
            async move { engine.consume(&ask).await }
        };
        let asked = |error: Error| error.asking(format!("consume from queue {}", queue.name));
        let stream = queue.at.session().run(request).await.map_err(asked)?;
        Ok(Consumer { at: queue.at, queues, stream, no_ack })
    }
}

impl IntoFuture for ConsumerOptions {
    type Output = Result<Consumer>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}

/// A stream of deliveries. Dropping it stops consuming and gives back what it had not handed out;
/// deliveries that were handed out stay their users'.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold::Result<()> {
/// # let leasehold = leasehold::memory().await?;
/// # let orders = leasehold.queue("orders");
/// # orders.declare(&leasehold::QueueConfig::default()).await?;
/// # orders.publish("order 42").await?;
/// let mut consumer = orders.consume().await?;
/// while let Some(order) = consumer.next().await? {
///     println!("{}", String::from_utf8_lossy(order.body()));
///     order.ack().await?;
/// #     break;
/// }
/// # Ok(()) }
/// ```
pub struct Consumer {
    /// Keeps the session alive that the deliveries belong to.
    at: Leasehold,
    queues: Arc<dyn QueueEngine>,
    stream: BoxStream<'static, Result<Delivered>>,
    no_ack: bool,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("no_ack", &self.no_ack).finish_non_exhaustive()
    }
}

impl Consumer {
    /// The next delivery; `None` when the queue was deleted. Dropping the future loses nothing.
    ///
    /// # Errors
    /// `NoSession` when the session ended (what was in flight goes to others), `Unavailable` when
    /// the engine cannot be reached. Consume anew then.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// # orders.publish("order 42").await?;
    /// # let mut consumer = orders.consume().await?;
    /// if let Some(order) = consumer.next().await? {
    ///     assert_eq!(order.body(), b"order 42");
    ///     order.ack().await?;
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn next(&mut self) -> Result<Option<Delivery>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await.transpose()
    }
}

impl Stream for Consumer {
    type Item = Result<Delivery>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let came = std::task::ready!(self.stream.as_mut().poll_next(cx));
        Poll::Ready(came.map(|result| {
            let (at, queues) = (self.at.clone(), self.queues.clone());
            result.map(|delivered| {
                let mut delivery = Delivery::new(at, queues, delivered);
                delivery.settled = self.no_ack;
                delivery
            })
        }))
    }
}

/// A message in the hands of a consumer: a lease with a fencing token. Dropping it unsettled gives
/// the message back in the background.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold::Result<()> {
/// # let leasehold = leasehold::memory().await?;
/// # let orders = leasehold.queue("orders");
/// # orders.declare(&leasehold::QueueConfig::default()).await?;
/// # orders.publish("order 42").await?;
/// # let mut consumer = orders.consume().await?;
/// # let order = consumer.next().await?.expect("it was published");
/// assert_eq!((order.attempt, order.redelivered), (1, false));
/// order.ack().await?;
/// # Ok(()) }
/// ```
pub struct Delivery {
    /// Keeps the session alive that it belongs to.
    _at: Leasehold,
    queues: Arc<dyn QueueEngine>,
    /// Names the delivery, for settling it elsewhere or in a [`Commit`](crate::Commit).
    pub receipt: Receipt,
    /// 1 for the first delivery.
    pub attempt: u32,
    /// Whether it may have been delivered before; work then has to be done idempotently.
    pub redelivered: bool,
    /// The message.
    pub content: Content,
    settled: bool,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("receipt", &self.receipt)
            .field("attempt", &self.attempt)
            .field("content", &self.content)
            .finish_non_exhaustive()
    }
}

impl Delivery {
    pub(crate) fn new(at: Leasehold, queues: Arc<dyn QueueEngine>, delivered: Delivered) -> Self {
        let Delivered { receipt, attempt, redelivered, content } = delivered;
        Self { _at: at, queues, receipt, attempt, redelivered, content, settled: false }
    }

    /// The payload.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// # orders.publish("order 42").await?;
    /// # let mut consumer = orders.consume().await?;
    /// # let order = consumer.next().await?.expect("it was published");
    /// assert_eq!(order.body(), b"order 42");
    /// # order.ack().await?;
    /// # Ok(()) }
    /// ```
    pub fn body(&self) -> &[u8] {
        &self.content.body
    }

    /// The fencing token: a later delivery of the same message has a higher one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// # orders.publish("order 42").await?;
    /// # let mut consumer = orders.consume().await?;
    /// # let order = consumer.next().await?.expect("it was published");
    /// let first = order.token();
    /// order.nack().await?;
    /// let again = consumer.next().await?.expect("it came back");
    /// assert!(again.token() > first);
    /// # again.ack().await?;
    /// # Ok(()) }
    /// ```
    pub fn token(&self) -> u64 {
        self.receipt.token
    }

    /// Done: the message is gone.
    ///
    /// # Errors
    /// `Stale` when the lease was lost: the message goes to somebody else.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// # orders.publish("order 42").await?;
    /// # let mut consumer = orders.consume().await?;
    /// # let order = consumer.next().await?.expect("it was published");
    /// order.ack().await?;
    /// assert_eq!(orders.inspect().await?.totals.acked, 1);
    /// # Ok(()) }
    /// ```
    pub async fn ack(self) -> Result<()> {
        self.settle(Verdict::Ack).await
    }

    /// Not done: again, at once, in its old place.
    ///
    /// # Errors
    /// `Stale` when the lease was lost.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// # orders.publish("order 42").await?;
    /// # let mut consumer = orders.consume().await?;
    /// # let order = consumer.next().await?.expect("it was published");
    /// order.nack().await?;
    /// let again = consumer.next().await?.expect("it came back");
    /// assert_eq!(again.attempt, 2);
    /// # again.ack().await?;
    /// # Ok(()) }
    /// ```
    pub async fn nack(self) -> Result<()> {
        self.settle(Verdict::Nack(Duration::ZERO)).await
    }

    /// Not done: again after this time.
    ///
    /// # Errors
    /// `Stale` when the lease was lost.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// # orders.publish("order 42").await?;
    /// # let mut consumer = orders.consume().await?;
    /// # let order = consumer.next().await?.expect("it was published");
    /// use std::time::Duration;
    /// order.nack_after(Duration::from_secs(30)).await?;
    /// assert_eq!(orders.inspect().await?.delayed, 1);
    /// # Ok(()) }
    /// ```
    pub async fn nack_after(self, delay: Duration) -> Result<()> {
        self.settle(Verdict::Nack(delay)).await
    }

    /// Never again: to the dead letters, or dropped when the queue has none.
    ///
    /// # Errors
    /// `Stale` when the lease was lost.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// # orders.publish("order 42").await?;
    /// # let mut consumer = orders.consume().await?;
    /// # let order = consumer.next().await?.expect("it was published");
    /// order.reject().await?;
    /// assert_eq!(orders.inspect().await?.ready, 0); // it does not come back
    /// # Ok(()) }
    /// ```
    pub async fn reject(self) -> Result<()> {
        self.settle(Verdict::Reject).await
    }

    async fn settle(mut self, verdict: Verdict) -> Result<()> {
        let receipt = self.receipt.clone();
        let result = self.queues.settle(&[receipt], verdict).await;
        // Only now: if this future is dropped the message goes back, or the verdict stands.
        self.settled = true;
        result.map(|_| ())
    }

    /// Sets the deadline of its lease to now plus this time.
    ///
    /// # Errors
    /// `Stale` when the lease was lost.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// # orders.publish("order 42").await?;
    /// # let mut consumer = orders.consume().await?;
    /// # let order = consumer.next().await?.expect("it was published");
    /// use std::time::Duration;
    /// order.extend(Duration::from_secs(300)).await?; // this one takes longer
    /// order.ack().await?;
    /// # Ok(()) }
    /// ```
    pub async fn extend(&self, lease: Duration) -> Result<()> {
        self.queues.extend(&self.receipt, lease).await
    }

    /// Takes the receipt out, to settle it in a commit or elsewhere: dropping the delivery does
    /// nothing any more.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// # orders.publish("order 42").await?;
    /// # let mut consumer = orders.consume().await?;
    /// # let order = consumer.next().await?.expect("it was published");
    /// let receipt = order.into_receipt();
    /// leasehold.commit().settle_receipt(receipt, leasehold::Verdict::Ack).await?;
    /// assert_eq!(orders.inspect().await?.in_flight, 0);
    /// # Ok(()) }
    /// ```
    pub fn into_receipt(mut self) -> Receipt {
        self.settled = true;
        self.receipt.clone()
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        // Without a runtime the lease runs out or the session ends; nothing is lost.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (queues, receipt) = (self.queues.clone(), self.receipt.clone());
        runtime.spawn(async move {
            if let Err(error) = queues.settle(&[receipt], Verdict::Nack(Duration::ZERO)).await {
                tracing::debug!(%error, "a dropped delivery was not given back");
            }
        });
    }
}
