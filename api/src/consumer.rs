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
use crate::{Error, Queue, Result, Verdict};

/// Deliveries in flight if not said.
const PREFETCH: u32 = 32;

/// How to consume from a queue. Awaiting it opens the [`Consumer`].
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
    pub fn prefetch(mut self, prefetch: u32) -> Self {
        self.prefetch = prefetch;
        self
    }

    /// Deliver and forget: no acks, and what was delivered is lost with this process.
    pub fn no_ack(mut self) -> Self {
        self.no_ack = true;
        self
    }

    /// Refuses other consumers, and is refused where there are some.
    pub fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// What inspect shows; the handle's label if not said.
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Begins.
    ///
    /// # Errors
    /// `NotFound`, `InUse` when somebody consumes exclusively.
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
        let stream = queue.at.session()?.run(request).await.map_err(asked)?;
        Ok(Consumer { queues, stream, no_ack })
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
pub struct Consumer {
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
    pub async fn next(&mut self) -> Result<Option<Delivery>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await.transpose()
    }
}

impl Stream for Consumer {
    type Item = Result<Delivery>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let came = std::task::ready!(self.stream.as_mut().poll_next(cx));
        Poll::Ready(came.map(|result| {
            let queues = self.queues.clone();
            result.map(|delivered| {
                let mut delivery = Delivery::new(queues, delivered);
                delivery.settled = self.no_ack;
                delivery
            })
        }))
    }
}

/// A message in the hands of a consumer: a lease with a fencing token. Dropping it unsettled gives
/// the message back in the background.
pub struct Delivery {
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
    pub(crate) fn new(queues: Arc<dyn QueueEngine>, delivered: Delivered) -> Self {
        let Delivered { receipt, attempt, redelivered, content } = delivered;
        Self { queues, receipt, attempt, redelivered, content, settled: false }
    }

    /// The payload.
    pub fn body(&self) -> &[u8] {
        &self.content.body
    }

    /// The fencing token: a later delivery of the same message has a higher one.
    pub fn token(&self) -> u64 {
        self.receipt.token
    }

    /// Done: the message is gone.
    ///
    /// # Errors
    /// `Stale` when the lease was lost: the message goes to somebody else.
    pub async fn ack(self) -> Result<()> {
        self.settle(Verdict::Ack).await
    }

    /// Not done: again, at once, in its old place.
    ///
    /// # Errors
    /// `Stale` when the lease was lost.
    pub async fn nack(self) -> Result<()> {
        self.settle(Verdict::Nack(Duration::ZERO)).await
    }

    /// Not done: again after this time.
    ///
    /// # Errors
    /// `Stale` when the lease was lost.
    pub async fn nack_after(self, delay: Duration) -> Result<()> {
        self.settle(Verdict::Nack(delay)).await
    }

    /// Never again: to the dead letters, or dropped when the queue has none.
    ///
    /// # Errors
    /// `Stale` when the lease was lost.
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
    pub async fn extend(&self, lease: Duration) -> Result<()> {
        self.queues.extend(&self.receipt, lease).await
    }

    /// Takes the receipt out, to settle it in a commit or elsewhere: dropping the delivery does
    /// nothing any more.
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
