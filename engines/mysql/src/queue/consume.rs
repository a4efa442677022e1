//! Consumers and receives: tasks that take messages for somebody, and give back what nobody got.
//!
//! A consumer is a row with a deadline that the signs of life of its session move, so one that
//! died is not counted for long. Its task takes as much as there is credit for; it sleeps until
//! something is due, until somebody in this process publishes, or until the next look.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_core::stream::BoxStream;
use leasehold_api::engine::{Consume, Delivered, Receipt, Receive, Verdict};
use leasehold_api::{Error, ErrorKind, Result, Wait};
use leasehold_contenders::{SessionState, limits};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep};

use crate::bells::{is_ready, queue_door};
use crate::connect::{Repeat, cell};
use crate::error::Fault;
use crate::queue::Queues;
use crate::queue::settings::{CREDIT_MAX, invalid, name, size, time, us};
use crate::queue::take::{Look, Taker};
use crate::queue::tx::{Known, known, no_queue};
use crate::sql::Sql;

/// Messages with leases that a consumer keeps before they are handed out: their time runs.
const KEPT: u32 = 32;
/// How long, in looks, a consumer lets others go first that let a lease run out; at most a second.
const BEHIND: u32 = 3;
/// How often a consumer without credit looks whether others settled what it has.
const RECOUNT: Duration = Duration::from_secs(1);

/// What a consumer has in flight: until when it counts if nobody settles it.
#[derive(Debug, Default)]
pub(crate) struct Credit {
    open: Mutex<HashMap<(u128, u64), Option<Instant>>>,
    freed: Notify,
}

impl Credit {
    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<(u128, u64), Option<Instant>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A delivery is settled.
    pub fn free(&self, receipt: &Receipt) {
        self.open().remove(&(receipt.place, receipt.token));
        self.freed.notify_one();
    }

    /// A delivery's lease was moved.
    pub fn extend(&self, receipt: &Receipt, until: Instant) {
        if let Some(known) = self.open().get_mut(&(receipt.place, receipt.token)) {
            *known = Some(until);
        }
    }

    /// How many are in flight, when the first of them ends by itself, and whether some did.
    fn count(&self) -> (usize, Option<Instant>, bool) {
        let (mut open, now) = (self.open(), Instant::now());
        let before = open.len();
        open.retain(|_, until| until.is_none_or(|until| until > now));
        (open.len(), open.values().flatten().min().copied(), open.len() < before)
    }
}

/// What was taken for a consumer and not handed out.
#[derive(Debug, Default)]
struct Buffer {
    items: Mutex<VecDeque<(Delivered, Instant)>>,
    /// How it ended: with an error, or because the queue is gone.
    end: Mutex<Option<Option<Error>>>,
    came: Notify,
    handed: Notify,
    closed: tokio::sync::watch::Sender<bool>,
}

impl Buffer {
    fn items(&self) -> std::sync::MutexGuard<'_, VecDeque<(Delivered, Instant)>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) -> std::sync::MutexGuard<'_, Option<Option<Error>>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The side of a consumer that its user holds.
struct Handing {
    queues: Arc<Queues>,
    queue: u64,
    buffer: Arc<Buffer>,
    no_ack: bool,
    lease: Option<Duration>,
}

impl Drop for Handing {
    fn drop(&mut self) {
        self.buffer.closed.send_replace(true);
    }
}

impl Handing {
    /// The first of what was taken whose lease is not half over. The others go back: whoever gets
    /// a delivery must have time for it.
    fn fresh(&self) -> Option<Delivered> {
        let mut old = Vec::new();
        let mut items = self.buffer.items();
        let first = loop {
            let Some((delivered, taken)) = items.pop_front() else { break None };
            if self.lease.is_none_or(|lease| taken.elapsed() < lease / 2) {
                break Some(delivered);
            }
            old.push(delivered.receipt);
        };
        drop(items);
        self.buffer.handed.notify_one();
        if !old.is_empty() {
            self.queues.put_down(old.iter());
            self.queues.give_back_later(self.queue, old);
        }
        first
    }

    async fn next(&self) -> Option<Result<Delivered>> {
        loop {
            let came = self.buffer.came.notified();
            let first = self.fresh();
            if let Some(delivered) = first {
                if self.no_ack {
                    let receipts = [delivered.receipt.clone()];
                    if let Err(error) = self.queues.settle_all(&receipts, Verdict::Ack).await {
                        return Some(Err(error));
                    }
                }
                return Some(Ok(delivered));
            }
            let ended = self.buffer.end().as_mut().map(Option::take);
            match ended {
                Some(Some(error)) => return Some(Err(error)),
                Some(None) => return None,
                None => came.await,
            }
        }
    }
}

/// Deliveries on their way to somebody who waits; if nobody takes them they go back.
struct Parcel {
    queues: Arc<Queues>,
    queue: u64,
    inside: Vec<Delivered>,
}

impl Drop for Parcel {
    fn drop(&mut self) {
        let receipts: Vec<_> = self.inside.drain(..).map(|one| one.receipt).collect();
        if !receipts.is_empty() {
            self.queues.put_down(receipts.iter());
            self.queues.give_back_later(self.queue, receipts);
        }
    }
}

impl Queues {
    /// Opens a consumer.
    pub async fn open_consumer(
        self: &Arc<Self>,
        ask: &Consume,
    ) -> Result<BoxStream<'static, Result<Delivered>>> {
        name("queue", &ask.queue)?;
        if ask.prefetch == 0 {
            return Err(invalid("the prefetch is 0; give at least 1"));
        }
        size("the prefetch", ask.prefetch as usize, CREDIT_MAX as usize)?;
        let label = ask.label.as_ref().map_or(0, |label| label.len());
        size("the label's length", label, limits::LABEL_BYTES)?;
        let session = self.sessions.find(ask.session.id)?;
        self.keep_up();
        let (queues, ask) = (self.clone(), ask.clone());
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            // If nobody listens any more the stream is dropped, and that ends the consumer.
            tell.send(queues.begin(ask, session).await).ok();
        });
        let gone = |_| Err(Error::new(ErrorKind::Broken, "the runtime is shutting down"));
        let handing = told.await.unwrap_or_else(gone)?;
        Ok(Box::pin(futures_util::stream::unfold(handing, |handing| async move {
            let next = handing.next().await?;
            Some((next, handing))
        })))
    }

    async fn begin(self: &Arc<Self>, ask: Consume, session: Arc<SessionState>) -> Result<Handing> {
        let ttl = self.ttl_of(session.id)?;
        let (queue, consumer) = self.register(&ask, ttl).await?;
        self.consumes(session.id, consumer, true);
        let buffer = Arc::new(Buffer::default());
        let lease = if ask.no_ack { None } else { queue.config.lease };
        let taker = Taker { session: ask.session.clone(), ttl, lease, consumer };
        let (queues, no_ack) = (self.clone(), ask.no_ack);
        let handing = Handing { queues, queue: queue.id, buffer: buffer.clone(), no_ack, lease };
        let pump = Pump {
            queues: self.clone(),
            queue,
            taker,
            prefetch: ask.prefetch,
            credit: Arc::default(),
            buffer,
            session,
        };
        tokio::spawn(pump.run());
        Ok(handing)
    }

    /// Writes a consumer down; gives its queue and its number.
    async fn register(self: &Arc<Self>, ask: &Consume, ttl: Duration) -> Result<(Known, u64)> {
        let ask = ask.clone();
        // The one of a try whose answer was lost ends when nobody keeps it alive.
        self.tx(Repeat::Freely, move |tx| {
            let ask = ask.clone();
            Box::pin(async move {
                let sql = tx.sql("SELECT id,name,config FROM {}queues WHERE name=");
                let lock = if ask.exclusive { " FOR UPDATE;" } else { " LOCK IN SHARE MODE;" };
                let sql = sql.bytes(ask.queue.as_bytes()).add(lock).and(tx.sql(
                    "SELECT COUNT(*),COALESCE(CAST(SUM(c.alone) AS SIGNED),0) FROM {}consumers c \
                     JOIN {}queues q ON q.id=c.queue WHERE c.until>@n AND q.name=",
                ));
                let mut answers = tx.ask(sql.bytes(ask.queue.as_bytes())).await?;
                let mut rows = answers.rows()?.into_iter();
                let queue = rows.next().map(|mut row| known(&mut row)).transpose()?;
                let queue = queue.ok_or_else(|| no_queue(&ask.queue))?;
                let mut row = answers.row()?;
                let (others, alone): (u64, i64) = (cell(&mut row, 0)?, cell(&mut row, 1)?);
                if alone > 0 || ask.exclusive && others > 0 {
                    let wrong = format!("queue {} has a consumer already", ask.queue);
                    return Err(Error::new(ErrorKind::InUse, wrong).into());
                }
                let sql = crate::book::tick(tx.tables, Sql::new("SET @k=1;"));
                let sql = sql.and(tx.sql(
                    "INSERT INTO {}consumers (id,queue,session,alone,until,\
                                          label) VALUES (@v,",
                ));
                let sql = sql.number(queue.id).add(",").number(ask.session.id).add(",");
                let sql = sql.number(u8::from(ask.exclusive)).add(",@n+").number(us(ttl));
                let label = ask.label.as_ref().map(|label| label.as_bytes());
                let sql = sql.add(",").bytes_or_null(label).add(");SELECT @v;");
                let id = cell(&mut tx.last(sql).await?.row()?, 0)?;
                Ok((queue, id))
            })
        })
        .await
    }

    /// Strikes a consumer out; an auto-delete queue goes with its last one.
    pub async fn unregister(self: &Arc<Self>, queue: &Known, consumer: u64) -> Result<()> {
        let this = (self.clone(), queue.clone());
        self.tx(Repeat::Freely, move |tx| {
            let (queues, queue) = this.clone();
            Box::pin(async move {
                let sql = tx.sql("SELECT id FROM {}queues WHERE id=").number(queue.id);
                tx.ask(sql.add(" FOR UPDATE")).await?;
                let sql = tx.sql("DELETE FROM {}consumers WHERE id=").number(consumer);
                let sql = sql.add(";").and(tx.sql("SELECT COUNT(*) FROM {}consumers WHERE queue="));
                let left: u64 = cell(&mut tx.ask(sql.number(queue.id)).await?.row()?, 0)?;
                if queue.config.auto_delete && left == 0 {
                    queues.delete_in(tx, queue.id).await?;
                }
                // Another one may be the active consumer now.
                tx.woken.insert(queue.id);
                Ok(())
            })
        })
        .await
    }

    /// Takes a few messages.
    pub async fn receive_some(self: &Arc<Self>, ask: &Receive) -> Result<Vec<Delivered>> {
        name("queue", &ask.queue)?;
        if ask.max == 0 {
            return Err(invalid("0 messages are asked for; give at least 1"));
        }
        ask.lease.map_or(Ok(()), |lease| time("the lease", lease))?;
        let session = self.sessions.find(ask.session.id)?;
        self.keep_up();
        let (queues, ask) = (self.clone(), ask.clone());
        let (mut tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let received = queues.wait_for(&ask, &session, &mut tell).await;
            // A parcel that nobody takes gives back what is in it.
            tell.send(received).ok();
        });
        let gone = |_| Err(Error::new(ErrorKind::Broken, "the runtime is shutting down"));
        let mut parcel = told.await.unwrap_or_else(gone)?;
        Ok(std::mem::take(&mut parcel.inside))
    }

    async fn wait_for(
        self: &Arc<Self>,
        ask: &Receive,
        session: &Arc<SessionState>,
        tell: &mut oneshot::Sender<Result<Parcel>>,
    ) -> Result<Parcel> {
        let began = Instant::now();
        let ttl = self.ttl_of(session.id)?;
        let until = match ask.wait {
            Wait::No => Some(began),
            Wait::AtMost(wait) => began.checked_add(wait),
            Wait::Forever => None,
        };
        let mut queue = self.find(&ask.queue).await?;
        loop {
            let guest = self.bells.listen(vec![queue_door(queue.id)]);
            let knocked = guest.knocked();
            tokio::pin!(knocked);
            // It listens before it looks.
            is_ready(knocked.as_mut()).await;
            let Some(look) = self.look(queue.id, 0).await? else {
                // Declared anew it has another number.
                self.forget(&ask.queue);
                queue = self.find(&ask.queue).await?;
                continue;
            };
            if look.alone {
                let wrong = format!("queue {} has a consumer that is alone", ask.queue);
                return Err(Error::new(ErrorKind::InUse, wrong));
            }
            if look.due {
                self.catch_up(&queue).await?;
                continue;
            }
            let lease = ask.lease.or(queue.config.lease);
            let taker = Taker { session: ask.session.clone(), ttl, lease, consumer: 0 };
            let taken = self.take_if(&queue, &taker, look, ask.max).await?;
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if !taken.is_empty() || left.is_some_and(|left| left.is_zero()) {
                let (queues, queue) = (self.clone(), queue.id);
                return Ok(Parcel { queues, queue, inside: taken });
            }
            let pause = [left, look.next].into_iter().flatten().fold(self.pause(), Duration::min);
            tokio::select! {
                () = knocked => {}
                () = sleep(pause) => {}
                () = tell.closed() => {
                    return Err(Error::new(ErrorKind::Cancelled, "nobody waits for it any more"));
                }
                () = session.over() => {
                    let wrong = "the session ended while it waited; open a new one";
                    return Err(Error::new(ErrorKind::NoSession, wrong));
                }
            }
        }
    }

    async fn take_if(
        self: &Arc<Self>,
        queue: &Known,
        taker: &Taker,
        look: Look,
        max: u32,
    ) -> Result<Vec<Delivered>> {
        if !look.ready || look.held_back {
            return Ok(Vec::new());
        }
        let taken = self.take(queue, taker, max).await?;
        self.picked_up(taker.session.id, &taken);
        Ok(taken)
    }
}

/// What takes messages for a consumer.
struct Pump {
    queues: Arc<Queues>,
    queue: Known,
    taker: Taker,
    prefetch: u32,
    credit: Arc<Credit>,
    buffer: Arc<Buffer>,
    session: Arc<SessionState>,
}

impl Pump {
    async fn run(self) {
        let end = self.fill().await.err();
        *self.buffer.end() = Some(end);
        self.buffer.came.notify_waiters();
        self.buffer.came.notify_one();
        // What is there may still be handed out, unless there is nobody to hand it to.
        let mut closed = self.buffer.closed.subscribe();
        closed.wait_for(|closed| *closed).await.ok();
        let left: Vec<Receipt> =
            self.buffer.items().drain(..).map(|(one, _)| one.receipt).collect();
        self.queues.put_down(left.iter());
        let given = self.queues.give_back(self.queue.id, left).await;
        self.queues.consumes(self.session.id, self.taker.consumer, false);
        let gone = self.queues.unregister(&self.queue, self.taker.consumer).await;
        if let Err(error) = given.and(gone) {
            let queue = &self.queue.name;
            tracing::warn!(%queue, %error, "a consumer did not end well; its session ends it");
        }
    }

    /// Fills the buffer until it is closed or the queue is gone.
    async fn fill(&self) -> Result<()> {
        let mut closed = self.buffer.closed.subscribe();
        let mut recount = Instant::now() + RECOUNT;
        let mut behind = Instant::now();
        loop {
            if *closed.borrow_and_update() {
                return Ok(());
            }
            if self.session.is_over() {
                let wrong = "the session ended; open a new one and consume anew";
                return Err(Error::new(ErrorKind::NoSession, wrong));
            }
            if self.has_plenty() {
                tokio::select! {
                    () = self.buffer.handed.notified() => {}
                    _ = closed.changed() => {}
                    () = self.session.over() => {}
                }
                continue;
            }
            let guest = self.queues.bells.listen(vec![queue_door(self.queue.id)]);
            let knocked = guest.knocked();
            tokio::pin!(knocked);
            is_ready(knocked.as_mut()).await;
            let freed = self.credit.freed.notified();
            let (open, first_end, lapsed) = self.credit.count();
            if lapsed {
                let pause = self.queues.server.config.look * BEHIND;
                behind = Instant::now() + pause.min(RECOUNT);
            }
            let free = (self.prefetch as usize).saturating_sub(open) as u32;
            let room = free.min(self.space());
            let mut pause = self.queues.pause();
            if free > 0 && (room == 0 || behind > Instant::now()) {
                pause = behind.saturating_duration_since(Instant::now()).max(pause);
            } else if room == 0 {
                if recount <= Instant::now() {
                    self.recount().await?;
                    recount = Instant::now() + RECOUNT;
                    continue;
                }
                let ends = [Some(recount), first_end].into_iter().flatten().min();
                pause = ends.map_or(pause, |end| end.saturating_duration_since(Instant::now()));
            } else {
                let look = self.queues.look(self.queue.id, self.taker.consumer).await?;
                let Some(look) = look else { return Ok(()) };
                if look.due {
                    self.queues.catch_up(&self.queue).await?;
                    continue;
                }
                let taken = self.queues.take_if(&self.queue, &self.taker, look, room).await?;
                if !taken.is_empty() {
                    self.put(taken);
                    continue;
                }
                pause = look.next.map_or(pause, |next| pause.min(next));
            }
            tokio::select! {
                () = &mut knocked, if room > 0 => {}
                () = freed => {}
                () = self.buffer.handed.notified(), if room == 0 => {}
                () = sleep(pause) => {}
                _ = closed.changed() => {}
                () = self.session.over() => {}
            }
        }
    }

    /// Whether so much is there to hand out that nothing is taken: a transaction that takes many
    /// costs hardly more than one that takes a single message.
    fn has_plenty(&self) -> bool {
        self.buffer.items().len() > self.prefetch.min(KEPT) as usize / 2
    }

    /// How many more may be kept before they are handed out.
    fn space(&self) -> u32 {
        match self.taker.lease {
            None => u32::MAX,
            Some(_) => KEPT.saturating_sub(self.buffer.items().len() as u32),
        }
    }

    fn put(&self, taken: Vec<Delivered>) {
        let until = self.taker.lease.map(|lease| Instant::now() + lease);
        for one in &taken {
            let receipt = &one.receipt;
            self.credit.open().insert((receipt.place, receipt.token), until);
            self.queues.credit(receipt, &self.credit);
        }
        let now = Instant::now();
        self.buffer.items().extend(taken.into_iter().map(|one| (one, now)));
        self.buffer.came.notify_one();
    }

    /// Finds out which deliveries were settled elsewhere.
    async fn recount(&self) -> Result<()> {
        let open: Vec<(u128, u64)> = self.credit.open().keys().copied().collect();
        let sql = self.queues.server.tables.named(
            "SELECT id,token FROM {}messages WHERE held=1 \
                                                   AND id IN ",
        );
        let sql = sql.numbers(open.iter().map(|(place, _)| *place as u64));
        let rows = self.queues.server.run(Repeat::Freely, move |line| {
            let sql = sql.clone();
            Box::pin(async move {
                let rows = line.ask(sql).await?.rows()?.into_iter();
                let pair = |mut row| {
                    Ok((u128::from(cell::<u64>(&mut row, 0)?), cell::<u64>(&mut row, 1)?))
                };
                rows.map(pair).collect::<std::result::Result<Vec<(u128, u64)>, Fault>>()
            })
        });
        let still = rows.await?;
        let session = &self.taker.session;
        let gone: Vec<Receipt> = open
            .iter()
            .filter(|pair| !still.contains(pair))
            .map(|(place, token)| Receipt {
                token: *token,
                place: *place,
                session: session.clone(),
            })
            .collect();
        self.queues.settled(gone.iter());
        Ok(())
    }
}
