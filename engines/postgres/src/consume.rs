//! Consuming: a pump takes messages from the server into a buffer, and a stream hands them out.
//!
//! The server counts what a consumer has in flight, so the prefetch is kept whoever settles. The
//! pump asks for more when half of the buffer is handed out and something may have changed: a
//! delivery of its own was settled, or the queue's bell rang. What is in the buffer gets its lease
//! anew while the stream is read, so a lease counts from about the time of the hand-out; what
//! nobody reads goes to others when its lease is over. When the stream is dropped the pump
//! stops the consumer, and what is left in the buffer goes back in the same transaction.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use leasehold_api::engine::{Consume, Delivered, Receipt};
use leasehold_api::{Error, ErrorKind, Result};
use leasehold_contenders::SessionState;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use crate::Inner;
use crate::bells::{Bell, Hearing};
use crate::book::us;
use crate::error::{ending, invalid};
use crate::take::{CONTENDED, CREDIT_MAX, Pauses, Taken, Taking, call};

/// How long a consumer that seems to be full lets others go first, when its queue rings: what it
/// did not settle in time goes rather to them.
const AFTER_YOU: Duration = Duration::from_millis(100);
/// Parts of a lease after which what is in the buffer gets it anew.
const PARTS: u32 = 3;

/// Deliveries of the consumers here, by place: whose pump a settlement wakes.
#[derive(Debug, Default)]
pub(crate) struct Credits {
    pumps: Mutex<HashMap<u128, Credit>>,
}

/// One delivery: its token, and the pump that it wakes.
type Credit = (u64, Arc<Notify>);

impl Credits {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u128, Credit>> {
        self.pumps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deliveries were settled: their consumers have room again.
    pub fn settled<'a>(&self, receipts: impl IntoIterator<Item = &'a Receipt>) {
        let mut pumps = self.lock();
        for receipt in receipts {
            if let Some((_, pump)) = pumps.remove(&receipt.place) {
                pump.notify_one();
            }
        }
    }
}

/// What the pump and the stream share.
#[derive(Debug, Default)]
struct Between {
    buffer: Mutex<Buffer>,
    /// The pump should look: there is room in the buffer, or the stream has gone.
    look: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Buffer {
    ready: VecDeque<Delivered>,
    end: Option<Option<Error>>,
    reader: Option<Waker>,
    /// Something was handed out since this was last looked at.
    was_read: bool,
    gone: bool,
}

impl Between {
    fn lock(&self) -> std::sync::MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, messages: Vec<Delivered>) {
        let mut buffer = self.lock();
        buffer.ready.extend(messages);
        if let Some(reader) = buffer.reader.take() {
            reader.wake();
        }
    }

    fn end(&self, error: Option<Error>) {
        let mut buffer = self.lock();
        buffer.end = Some(error);
        if let Some(reader) = buffer.reader.take() {
            reader.wake();
        }
    }
}

/// Deliveries as they come. Dropping it stops the consumer.
#[derive(Debug)]
pub(crate) struct Deliveries {
    between: Arc<Between>,
    /// The buffer is to be filled when there are no more than so many in it.
    low: usize,
}

impl Stream for Deliveries {
    type Item = Result<Delivered>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut buffer = self.between.lock();
        if let Some(message) = buffer.ready.pop_front() {
            buffer.was_read = true;
            if buffer.ready.len() == self.low {
                self.between.look.notify_one();
            }
            return Poll::Ready(Some(Ok(message)));
        }
        match &mut buffer.end {
            // An error is told once; then it is over.
            Some(error) => Poll::Ready(error.take().map(Err)),
            None => {
                buffer.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.between.lock().gone = true;
        self.between.look.notify_one();
    }
}

struct Pump {
    inner: Arc<Inner>,
    between: Arc<Between>,
    state: Arc<SessionState>,
    taking: Taking,
    handle: i64,
    prefetch: u32,
    low: usize,
    /// Places and tokens of deliveries that may be in flight, the oldest first.
    places: VecDeque<(u128, u64)>,
    /// How long a delivery may stay unsettled.
    lease: Option<Duration>,
    /// When what is in the buffer gets its lease anew.
    stay: Option<Instant>,
}

/// What woke a pump.
enum Woken {
    /// It may take again.
    Look,
    /// Something has happened in the queue.
    Rung,
    /// What is in the buffer gets its lease anew.
    Stay,
}

impl Inner {
    /// See [`QueueEngine::consume`](leasehold_api::engine::QueueEngine::consume).
    pub(crate) async fn consume(self: &Arc<Self>, ask: &Consume) -> Result<Deliveries> {
        if !(1..=CREDIT_MAX).contains(&ask.prefetch) {
            let is = ask.prefetch;
            return Err(invalid(format!("the prefetch is {is}; 1 to {CREDIT_MAX} are allowed")));
        }
        leasehold_contenders::limits::name(&ask.queue)?;
        let label = ask.label.as_ref().map_or(0, |label| label.len());
        if label > leasehold_contenders::limits::LABEL_BYTES {
            return Err(invalid(format!("the label has {label} bytes, at most 1024 are allowed")));
        }
        let state = self.hands.session(&ask.session)?;
        // In a task, so that a consumer that nobody waits for any more is stopped again, after it
        // was opened and not before.
        let (inner, ask) = (self.clone(), ask.clone());
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            tell.send(inner.open_consumer(&ask, state).await).ok();
        });
        told.await.map_err(|_| ending())?
    }

    async fn open_consumer(
        self: Arc<Self>,
        ask: &Consume,
        state: Arc<SessionState>,
    ) -> Result<Deliveries> {
        let handle = (crate::random() >> 1).cast_signed();
        let label = ask.label.as_ref().map(|label| label.replace('\0', " "));
        let sql = self.server.call("consume", 7);
        let opened = self
            .server
            .rows(
                &sql,
                &[
                    &&*ask.queue,
                    &handle,
                    &ask.session.id.cast_signed(),
                    &state.ttl.map(us),
                    &ask.prefetch.cast_signed(),
                    &ask.exclusive,
                    &label,
                ],
            )
            .await;
        let rows = match opened {
            Ok(rows) => rows,
            Err(error) => {
                if error.kind == ErrorKind::Unavailable {
                    tokio::spawn(stop(self.clone(), handle, Vec::new()));
                }
                return Err(error);
            }
        };
        let queue = rows.first().map_or(0, |row| row.get::<_, i64>(0));
        let between = Arc::new(Between::default());
        let low = ask.prefetch as usize / 2;
        let hearing = self.bells.hear(vec![Bell::Queue(queue), Bell::named(&ask.queue)]);
        let self_hearing = self.bells.hear(vec![Bell::Consumer(handle)]);
        let taking = Taking {
            queue: ask.queue.clone(),
            session: ask.session.clone(),
            session_ttl: state.ttl,
            consumer: Some(handle),
            max: ask.prefetch,
            lease: None,
            no_ack: ask.no_ack,
            call: call(),
        };
        let pump = Pump {
            inner: self,
            between: between.clone(),
            state,
            taking,
            handle,
            prefetch: ask.prefetch,
            low,
            places: VecDeque::new(),
            lease: None,
            stay: None,
        };
        tokio::spawn(pump.run([hearing, self_hearing]));
        Ok(Deliveries { between, low })
    }
}

/// Stops a consumer, and gives back what it had not handed out.
async fn stop(inner: Arc<Inner>, handle: i64, left: Vec<Delivered>) {
    let ids: Vec<i64> = left.iter().map(|one| one.receipt.place as i64).collect();
    let tokens: Vec<i64> = left.iter().map(|one| one.receipt.token.cast_signed()).collect();
    let sql = inner.server.call("stop", 3);
    if let Err(error) = inner.server.rows(&sql, &[&handle, &ids, &tokens]).await {
        tracing::warn!(%error, "a consumer was not stopped; it ends with its session");
    }
}

/// Waits for a ring, for ever where nobody listens.
async fn rung(hearing: Option<&Hearing>) {
    match hearing {
        Some(hearing) => hearing.rung().await,
        None => std::future::pending().await,
    }
}

impl Pump {
    async fn run(mut self, hearing: [Hearing; 2]) {
        let end = self.pump(&hearing).await;
        self.forget(0);
        if let Some(error) = end {
            self.between.end(error);
            return;
        }
        let left: Vec<Delivered> = self.between.lock().ready.drain(..).collect();
        stop(self.inner.clone(), self.handle, left).await;
    }

    /// Pumps until the stream has gone (`None`), or there is an end: with or without an error.
    async fn pump(&mut self, hearing: &[Hearing; 2]) -> Option<Option<Error>> {
        let mut again = false;
        let mut pauses = Pauses::new();
        loop {
            let (gone, waiting) = {
                let buffer = self.between.lock();
                (buffer.gone, buffer.ready.len())
            };
            if gone {
                if again {
                    self.inner.give_back(self.taking.session.id, self.taking.call);
                }
                return None;
            }
            if self.state.is_over() {
                let wrong = "the consumer ended with its session; consume anew";
                return Some(Some(Error::new(ErrorKind::NoSession, wrong)));
            }
            if waiting > self.low {
                self.wait(None, false).await;
                continue;
            }
            self.taking.max = self.prefetch - (waiting as u32).min(self.prefetch - 1);
            if !again {
                self.taking.call = call();
            }
            let contended = match self.inner.take(&self.taking, again).await {
                Ok(taken) => {
                    (again, pauses) = (false, Pauses::new());
                    // Without acks whatever is left may be taken as soon as there is room.
                    let more = self.taking.no_ack && !taken.messages.is_empty();
                    let contended = taken.contended;
                    self.put(taken);
                    if more {
                        continue;
                    }
                    contended
                }
                Err(error) if error.kind == ErrorKind::Unavailable => {
                    tracing::debug!(%error, queue = %self.taking.queue, "consuming again soon");
                    again = true;
                    pauses.next().await;
                    continue;
                }
                Err(error) if error.kind == ErrorKind::NotFound => return Some(None),
                Err(error) => return Some(Some(error)),
            };
            self.wait(Some(hearing), contended).await;
        }
    }

    /// Waits until it may be worth to take again, and keeps what is in the buffer meanwhile.
    async fn wait(&mut self, hearing: Option<&[Hearing; 2]>, contended: bool) {
        loop {
            let stay = self.stay;
            let woken = tokio::select! {
                () = self.between.look.notified() => Woken::Look,
                () = rung(hearing.map(|[_, own]| own)) => Woken::Look,
                () = rung(hearing.map(|[queue, _]| queue)) => Woken::Rung,
                () = self.state.over() => Woken::Look,
                () = sleep(crate::spread(CONTENDED)), if contended => Woken::Look,
                () = sleep_until(stay.unwrap_or_else(Instant::now)), if stay.is_some() => {
                    Woken::Stay
                }
            };
            match woken {
                Woken::Look => return,
                Woken::Rung => {
                    if self.open() >= self.prefetch as usize && !self.taking.no_ack {
                        tokio::select! {
                            () = sleep(crate::spread(AFTER_YOU)) => {}
                            () = self.between.look.notified() => {}
                        }
                    }
                    return;
                }
                Woken::Stay => self.stay().await,
            }
        }
    }

    /// How many of its deliveries nobody has settled, as far as is known here.
    fn open(&self) -> usize {
        let pumps = self.inner.credits.lock();
        let open = self
            .places
            .iter()
            .filter(|(place, token)| pumps.get(place).is_some_and(|credit| credit.0 == *token));
        open.count()
    }

    /// Gives what is in the buffer its lease anew, if somebody reads.
    async fn stay(&mut self) {
        self.stay = None;
        let Some(lease) = self.lease else { return };
        let (ids, tokens): (Vec<i64>, Vec<i64>) = {
            let mut buffer = self.between.lock();
            if !std::mem::take(&mut buffer.was_read) {
                return;
            }
            let receipts = buffer.ready.iter().map(|one| &one.receipt);
            receipts.map(|one| (one.place as i64, one.token.cast_signed())).unzip()
        };
        if ids.is_empty() {
            return;
        }
        let sql = self.inner.server.call("stay", 3);
        let answer = self.inner.server.config.answer;
        let stayed = self.inner.server.once(&sql, &[&ids, &tokens, &us(lease)], answer).await;
        if let Err(failed) = stayed {
            // They come again when their leases are over.
            tracing::debug!(error = %failed.error, "the buffer did not get its leases anew");
        }
        self.stay = Some(Instant::now() + lease / PARTS);
    }

    fn put(&mut self, taken: Taken) {
        self.lease = taken.lease;
        if let Some(lease) = taken.lease
            && !taken.messages.is_empty()
            && !self.taking.no_ack
            && self.stay.is_none()
        {
            self.stay = Some(Instant::now() + lease / PARTS);
        }
        self.note(&taken.messages);
        self.between.put(taken.messages);
    }

    /// Settling these wakes the pump.
    fn note(&mut self, messages: &[Delivered]) {
        if self.taking.no_ack {
            return;
        }
        let mut pumps = self.inner.credits.lock();
        for message in messages {
            let Receipt { place, token, .. } = message.receipt;
            pumps.insert(place, (token, self.between.look.clone()));
            self.places.push_back((place, token));
        }
        drop(pumps);
        // What was lost by its lease is not heard of here.
        self.forget(2 * self.prefetch as usize + 64);
    }

    /// Forgets all but the newest deliveries.
    fn forget(&mut self, but: usize) {
        let mut pumps = self.inner.credits.lock();
        while self.places.len() > but {
            let Some((place, token)) = self.places.pop_front() else { break };
            if pumps.get(&place).is_some_and(|credit| credit.0 == token) {
                pumps.remove(&place);
            }
        }
    }
}
