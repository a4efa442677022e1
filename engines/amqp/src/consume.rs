//! Consuming: a stream that outlives connections, and takes of a few messages.
//!
//! Whatever consumes has a channel of its own, so that an error of one cannot give back what
//! others have in hand.

use std::sync::Arc;
use std::time::Duration;

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions,
};
use lapin::types::FieldTable;
use leasehold_api::engine::{Consume, Delivered, Receive, Wait, moment};
use leasehold_api::{Error, ErrorKind, Result};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::connect::{ANSWER, Link, Own, PATIENCE, given_up, jittered};
use crate::error::{Answer, Fault, not_found};
use crate::lanes::{Lane, Lanes};
use crate::message::name;

/// The most that a consumer can have in hand.
const PREFETCH_MAX: u32 = 65_535;
/// The most that can be received at once.
const RECEIVE_MAX: u32 = 1000;
/// A pause before a lost consumer is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// What consuming needs of the engine.
pub(crate) struct Consuming {
    pub link: Link,
    pub lanes: Lanes,
}

/// A consumer on its lane.
struct Flow {
    lane: Arc<Lane>,
    consumer: lapin::Consumer,
}

impl Consuming {
    /// Opens a channel and consumes on it.
    async fn flow(&self, ask: &Consume, until: Option<Instant>) -> Answer<Flow> {
        let line = self.link.line(until).await?;
        let channel = line.channel().await?;
        let prefetch = ask.prefetch as u16;
        line.answer(channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
        let options = BasicConsumeOptions { exclusive: ask.exclusive, ..Default::default() };
        let queue = name("queue", &ask.queue)?;
        let none = FieldTable::default();
        let asked = channel.basic_consume(queue, "".into(), options, none);
        let consumer = line.answer(asked).await?;
        let lane = self.lanes.open(line, channel, ask.queue.clone(), prefetch);
        Ok(Flow { lane, consumer })
    }

    /// The same, again while the connection is lost.
    async fn flow_patiently(&self, ask: &Consume) -> Result<Flow> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.flow(ask, Some(until)).await {
                Err(Fault::Lost(_)) if Instant::now() < until => sleep(jittered(PAUSE)).await,
                Err(fault) => return Err(explained(fault.unknown(), &ask.queue)),
                Ok(flow) => return Ok(flow),
            }
        }
    }

    /// Stops consuming and gives back what nobody saw.
    async fn stop(&self, mut flow: Flow) {
        if !self.lanes.is_in_hand(&flow.lane) {
            // With the channel everything goes in one step.
            self.lanes.release(&flow.lane);
            let end = flow.lane.channel.close(200, "OK".into());
            flow.lane.line.answer(end).await.ok();
            return;
        }
        let tag = flow.consumer.tag();
        let cancel = flow.lane.channel.basic_cancel(tag, BasicCancelOptions::default());
        if flow.lane.line.answer(cancel).await.is_ok() {
            let unseen = rest(&mut flow.consumer).await;
            flow.lane.give_back(&unseen).await;
        }
        self.lanes.release(&flow.lane);
    }
}

/// What came before a consumer was cancelled, which has been confirmed.
async fn rest(consumer: &mut lapin::Consumer) -> Vec<Delivery> {
    let mut rest = Vec::new();
    while let Ok(Some(Ok(delivery))) = timeout(ANSWER, consumer.next()).await {
        rest.push(delivery);
    }
    rest
}

fn explained(error: Error, queue: &str) -> Error {
    match error.kind {
        // The broker also says so of a queue whose node is down.
        ErrorKind::NotFound => not_found(&format!("queue {queue} ({})", error.wrong)),
        ErrorKind::InUse => {
            let wrong = format!(
                "somebody consumes queue {queue} exclusively, or beside whom you \
                                 cannot; {}",
                error.wrong
            );
            Error::new(ErrorKind::InUse, wrong)
        }
        _ => error,
    }
}

/// A stream of deliveries.
struct Stream {
    engine: Arc<Consuming>,
    ask: Consume,
    flow: Option<Flow>,
    is_over: bool,
}

impl Drop for Stream {
    fn drop(&mut self) {
        let Some(flow) = self.flow.take() else { return };
        // Without a runtime the driver is gone, and with it the connection.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let engine = self.engine.clone();
            runtime.spawn(async move { engine.stop(flow).await });
        }
    }
}

impl Stream {
    async fn next(&mut self) -> Option<Result<Delivered>> {
        loop {
            if self.is_over {
                return None;
            }
            let Some(flow) = &mut self.flow else {
                match self.engine.flow_patiently(&self.ask).await {
                    Ok(flow) => self.flow = Some(flow),
                    Err(error) => {
                        self.is_over = true;
                        return Some(Err(error));
                    }
                }
                continue;
            };
            let came = flow.consumer.next().await;
            if let Some(Ok(delivery)) = came {
                if self.ask.no_ack {
                    // Not the broker's own way of it, which would send the whole queue at once.
                    let acked = flow
                        .lane
                        .channel
                        .basic_ack(delivery.delivery_tag, BasicAckOptions::default());
                    if acked.await.is_err() {
                        continue;
                    }
                    let delivered =
                        self.engine.lanes.deliver(&flow.lane, delivery, &self.ask.session);
                    self.engine.lanes.forget(&flow.lane, &delivered.receipt);
                    return Some(Ok(delivered));
                }
                let lanes = &self.engine.lanes;
                return Some(Ok(lanes.deliver(&flow.lane, delivery, &self.ask.session)));
            }
            // It ended: with the queue, with the channel, or with the connection.
            let flow = self.flow.take()?;
            self.engine.lanes.release(&flow.lane);
            if flow.lane.is_alive() {
                self.is_over = true;
                return None;
            }
            if let Some(Err(error)) = came
                && let Fault::Refused(error) = Fault::from(error)
            {
                self.is_over = true;
                return Some(Err(error));
            }
        }
    }
}

/// Begins to consume.
pub(crate) async fn consume(
    engine: Arc<Consuming>,
    ask: &Consume,
) -> Result<BoxStream<'static, Result<Delivered>>> {
    if !(1..=PREFETCH_MAX).contains(&ask.prefetch) {
        let wrong = format!("a prefetch is 1 to {PREFETCH_MAX}");
        return Err(Error::new(ErrorKind::Invalid, wrong));
    }
    name("queue", &ask.queue)?;
    // In a task of its own: dropped halfway it would leave a consumer behind.
    let (tell, told) = oneshot::channel();
    let ask = ask.clone();
    tokio::spawn(async move {
        if tell.is_closed() {
            return;
        }
        let flow = engine.flow_patiently(&ask).await;
        let stream = flow.map(|flow| Stream { engine, ask, flow: Some(flow), is_over: false });
        // A stream that nobody takes stops when it is dropped.
        tell.send(stream).ok();
    });
    let gone = |_| Error::new(ErrorKind::Broken, "the runtime is gone");
    let stream = told.await.map_err(gone)??;
    let next = |mut stream: Stream| async { stream.next().await.map(|item| (item, stream)) };
    Ok(futures_util::stream::unfold(stream, next).boxed())
}

/// Messages that were taken; they go back unless somebody takes them over.
struct Taken {
    engine: Arc<Consuming>,
    lane: Arc<Lane>,
    deliveries: Vec<Delivery>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let deliveries = std::mem::take(&mut self.deliveries);
        let (engine, lane) = (self.engine.clone(), self.lane.clone());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            lane.give_back(&deliveries).await;
            engine.lanes.release(&lane);
        });
    }
}

impl Taken {
    fn hand_out(mut self, ask: &Receive) -> Vec<Delivered> {
        let deliveries = std::mem::take(&mut self.deliveries);
        let hand_out = |delivery| self.engine.lanes.deliver(&self.lane, delivery, &ask.session);
        let delivered = deliveries.into_iter().map(hand_out).collect();
        self.engine.lanes.release(&self.lane);
        delivered
    }
}

/// Takes up to a few messages.
pub(crate) async fn receive(engine: Arc<Consuming>, ask: &Receive) -> Result<Vec<Delivered>> {
    if !(1..=RECEIVE_MAX).contains(&ask.max) {
        let wrong = format!("1 to {RECEIVE_MAX} messages can be received at once");
        return Err(Error::new(ErrorKind::Invalid, wrong));
    }
    name("queue", &ask.queue)?;
    if ask.lease.is_some() {
        return Err(Error::unsupported("amqp", "leases of deliveries"));
    }
    let (tell, told) = oneshot::channel();
    let (_wanted, mut gone) = watch::channel(());
    let wanted = ask.clone();
    // Dropped, this ends the wait; the task itself goes on to a point where nothing is under way.
    tokio::spawn(async move {
        let taken = take_patiently(&engine, &wanted, &mut gone).await;
        // What nobody takes over goes back when it is dropped.
        tell.send(taken).ok();
    });
    let gone = |_| Error::new(ErrorKind::Broken, "the runtime is gone");
    let taken = told.await.map_err(gone)?;
    let taken = taken.map_err(|error| explained(error, &ask.queue))?;
    Ok(taken.map(|taken| taken.hand_out(ask)).unwrap_or_default())
}

async fn take_patiently(
    engine: &Arc<Consuming>,
    ask: &Receive,
    gone: &mut watch::Receiver<()>,
) -> Result<Option<Taken>> {
    let until = match ask.wait {
        Wait::No => Some(Instant::now()),
        // What lies beyond the clock's end is forever.
        Wait::AtMost(wait) => Instant::now().checked_add(wait),
        Wait::Forever => None,
    };
    let patience = Instant::now() + PATIENCE;
    loop {
        match take(engine, ask, (until, patience), gone).await {
            _ if gone.has_changed().is_err() => return Ok(None),
            Err(Fault::Lost(_))
                if Instant::now() < patience || until.is_none_or(|t| Instant::now() < t) =>
            {
                sleep(jittered(PAUSE)).await;
            }
            taken => return taken.map_err(Fault::unknown),
        }
    }
}

async fn take(
    engine: &Arc<Consuming>,
    ask: &Receive,
    (until, patience): (Option<Instant>, Instant),
    gone: &mut watch::Receiver<()>,
) -> Answer<Option<Taken>> {
    let line = tokio::select! {
        line = engine.link.line(until.map(|until| until.max(patience))) => line?,
        () = given_up(gone) => return Ok(None),
    };
    let channel = line.channel().await?;
    let own = Own::new(&channel);
    let queue = name("queue", &ask.queue)?;
    let mut deliveries = Vec::new();
    while deliveries.len() < ask.max as usize {
        let asked = channel.basic_get(queue.clone(), BasicGetOptions::default());
        match line.answer(asked).await? {
            Some(got) => deliveries.push(got.delivery),
            None => break,
        }
    }
    if deliveries.is_empty() && ask.wait != Wait::No {
        let max = ask.max as u16;
        line.answer(channel.basic_qos(max, BasicQosOptions::default())).await?;
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let asked = channel.basic_consume(queue, "".into(), options, none);
        let mut consumer = line.answer(asked).await?;
        let late = moment(until);
        let first = tokio::select! {
            first = consumer.next() => Some(first),
            () = late => None,
            () = given_up(gone) => None,
        };
        match first {
            Some(Some(Ok(first))) => deliveries.push(first),
            Some(Some(Err(error))) => return Err(error.into()),
            Some(None) if line.is_alive() && channel.status().connected() => {
                return Err(not_found(&format!("queue {} any more", ask.queue)).into());
            }
            Some(None) => return Err(Fault::Lost("the connection ended".to_owned())),
            None => {}
        }
        let cancel = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        line.answer(cancel).await?;
        // There is room for all that may have come: the prefetch is what was asked for.
        deliveries.extend(rest(&mut consumer).await);
    }
    own.done();
    if deliveries.is_empty() {
        line.keep(channel);
        return Ok(None);
    }
    let lane = engine.lanes.open(line, channel, ask.queue.clone(), 0);
    Ok(Some(Taken { engine: engine.clone(), lane, deliveries }))
}
