//! Consumers: a task that takes as long as there is credit, and a basket that users take from.
//!
//! The server counts a consumer's credit, since only it knows when a delivery ends: a settlement
//! may come from anywhere, and a lease may run out. It rings the queue's bell when credit is there
//! again, after the first settlement of many: one whose basket is more than half full lets it ring
//! for a while, and takes several then. What lies in the basket when the stream is dropped goes
//! back with the consumer.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use futures_core::stream::BoxStream;
use leasehold_api::engine::{Consume, Delivered, Receipt};
use leasehold_api::{Error, ErrorKind, Result};
use leasehold_contenders::{SessionState, limits, operation};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::bells::Listener;
use crate::connect::Patience;
use crate::queue::{Inner, place};
use crate::receive::{Take, credit};
use crate::script::{self, Args};

/// As long as somebody consumes, a lost connection is no end.
const FOREVER: Duration = Duration::from_secs(100 * 366 * 86_400);

#[derive(Default)]
struct Contents {
    items: VecDeque<Result<Delivered>>,
    waker: Option<Waker>,
    is_over: bool,
    is_left: bool,
}

/// How long a bell may go unheard while there is enough to hand out. Not for ever: the server keeps
/// a message for whoever has had credit for longest.
const REST: Duration = Duration::from_millis(50);

/// Between the task and the stream.
#[derive(Default)]
struct Basket {
    contents: Mutex<Contents>,
    /// So many are enough to hand out for a while.
    enough: usize,
    /// For the task: there are not enough any more, or the stream has gone.
    changed: Notify,
}

impl Basket {
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts items in; gives them back if nobody takes them any more.
    fn put(&self, items: Vec<Result<Delivered>>, is_over: bool) {
        let mut contents = self.lock();
        contents.items.extend(items);
        contents.is_over |= is_over;
        if let Some(waker) = contents.waker.take() {
            waker.wake();
        }
    }

    fn is_left(&self) -> bool {
        self.lock().is_left
    }

    fn is_empty(&self) -> bool {
        self.lock().items.is_empty()
    }

    /// Waits until something is so of what is in it.
    async fn until(&self, is_so: impl Fn(&Contents) -> bool) {
        loop {
            let changed = self.changed.notified();
            if is_so(&self.lock()) {
                return;
            }
            changed.await;
        }
    }

    async fn left(&self) {
        self.until(|contents| contents.is_left).await;
    }

    async fn emptied(&self) {
        self.until(|contents| contents.items.is_empty()).await;
    }

    /// Waits until there is not enough to hand out, or the stream has gone.
    async fn wants(&self) {
        self.until(|contents| contents.items.len() <= self.enough || contents.is_left).await;
    }
}

/// What users take from.
struct Deliveries {
    basket: Arc<Basket>,
}

impl Stream for Deliveries {
    type Item = Result<Delivered>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut contents = self.basket.lock();
        if let Some(item) = contents.items.pop_front() {
            if contents.items.len() <= self.basket.enough {
                self.basket.changed.notify_one();
            }
            return Poll::Ready(Some(item));
        }
        if contents.is_over {
            return Poll::Ready(None);
        }
        contents.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.basket.lock().is_left = true;
        self.basket.changed.notify_one();
    }
}

/// Begins to consume. If its caller goes before it has the stream, the stream is dropped, and the
/// consumer ends.
pub(crate) async fn consume(
    inner: &Arc<Inner>,
    ask: &Consume,
) -> Result<BoxStream<'static, Result<Delivered>>> {
    limits::name(&ask.queue)?;
    credit(ask.prefetch)?;
    let state = inner.sessions.find(ask.session.id)?;
    let id = operation()?;
    let consumer = Consumer { inner: inner.clone(), ask: ask.clone(), id, queue: 0, state };
    let (tell, told) = oneshot::channel();
    tokio::spawn(consumer.open(tell));
    let gone = |_| Err(Error::new(ErrorKind::Broken, "the runtime is shutting down"));
    let deliveries = told.await.unwrap_or_else(gone)?;
    Ok(Box::pin(deliveries))
}

struct Consumer {
    inner: Arc<Inner>,
    ask: Consume,
    id: String,
    queue: u64,
    state: Arc<SessionState>,
}

impl Consumer {
    async fn open(mut self, tell: oneshot::Sender<Result<Deliveries>>) {
        match self.register().await {
            Ok(queue) => self.queue = queue,
            Err(error) => {
                // It may have been registered although no answer came.
                if error.kind == ErrorKind::Unavailable {
                    self.leave(Vec::new()).await;
                }
                tell.send(Err(error)).ok();
                return;
            }
        }
        let enough = self.ask.prefetch as usize / 2;
        let basket = Arc::new(Basket { enough, ..Basket::default() });
        tell.send(Ok(Deliveries { basket: basket.clone() })).ok();
        let end = self.run(&basket).await;
        basket.put(end.err().map(Err).into_iter().collect(), true);
        // What was prefetched may still be taken; the rest goes back with the consumer.
        basket.left().await;
        let items = std::mem::take(&mut basket.lock().items);
        let receipts = items.into_iter().flatten().map(|one| one.receipt).collect();
        self.leave(receipts).await;
    }

    async fn register(&self) -> Result<u64> {
        let ttl = self.inner.session(self.ask.session.id)?;
        let mut args = Args::default();
        args.text(&self.ask.queue).text(&self.id).number(self.ask.session.id).time(ttl);
        args.number(self.ask.prefetch).flag(self.ask.exclusive).flag(self.ask.no_ack);
        self.inner.ask(&script::CONSUME, &args).await?.number("queue's number")
    }

    async fn leave(&self, receipts: Vec<Receipt>) {
        let mut args = Args::default();
        args.number(self.queue).text(&self.id);
        for receipt in receipts.iter().filter(|_| !self.ask.no_ack) {
            args.number(place(receipt).1).number(receipt.token);
        }
        if let Err(error) = self.inner.ask(&script::LEAVE, &args).await {
            tracing::warn!(%error, "a consumer ends with its session only");
        }
    }

    /// Takes until nobody wants anything any more, or the queue is gone.
    async fn run(&self, basket: &Basket) -> Result<()> {
        let mut bell: Option<Listener> = None;
        let mut patience = Patience::new(FOREVER);
        loop {
            let Some(listener) = &mut bell else {
                match self.inner.bells.listen(self.inner.channel(self.queue)).await {
                    Ok(listener) => bell = Some(listener),
                    Err(error) => patience.after(error).await?,
                }
                if basket.is_left() {
                    return Ok(());
                }
                continue;
            };
            // Without acks it takes only when nothing is left, below.
            if !self.ask.no_ack {
                timeout(REST, basket.wants()).await.ok();
            }
            if basket.is_left() {
                return Ok(());
            }
            listener.heard();
            match self.take(basket).await {
                Ok(true) => continue,
                Ok(false) => patience = Patience::new(FOREVER),
                Err(error) if error.kind == ErrorKind::NotFound => return Ok(()),
                Err(error) => {
                    patience.after(error).await?;
                    continue;
                }
            }
            tokio::select! {
                there = listener.rung() => {
                    if !there {
                        bell = None;
                    }
                }
                () = basket.left() => return Ok(()),
                () = basket.emptied(), if self.ask.no_ack && !basket.is_empty() => {}
                () = self.state.over() => self.inner.sessions.find(self.ask.session.id).map(drop)?,
            }
        }
    }

    /// Takes what there is credit for; gives whether there may be more at once.
    async fn take(&self, basket: &Basket) -> Result<bool> {
        if self.ask.no_ack && !basket.is_empty() {
            return Ok(false);
        }
        let take = Take {
            queue: &self.ask.queue,
            session: &self.ask.session,
            max: self.ask.prefetch,
            lease: None,
            consumer: &self.id,
            no_ack: self.ask.no_ack,
        };
        let taken = take.take(&self.inner).await?;
        if taken.queue != self.queue {
            // Another queue has its name now.
            let error = Error::new(ErrorKind::NotFound, "the queue was deleted");
            return Err(error);
        }
        basket.put(taken.deliveries.into_iter().map(Ok).collect(), false);
        Ok(taken.again)
    }
}
