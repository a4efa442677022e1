//! Taking messages.
//!
//! A receive runs in a task of its own, and what it took on its way to a caller who has gone goes
//! back. It takes, and if there is nothing it waits for the queue's bell and takes again.

use std::sync::Arc;
use std::time::Duration;

use leasehold_api::engine::{Delivered, Receipt, Receive, SessionRef};
use leasehold_api::{Error, ErrorKind, Result, Wait};
use leasehold_contenders::{limits, operation};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::bells::Listener;
use crate::connect::Patience;
use crate::message;
use crate::queue::{CREDIT_MAX, Inner};
use crate::script::{self, Args, Reply};

/// How long nobody waits.
const FOREVER: Duration = Duration::from_secs(100 * 366 * 86_400);

/// What a take asks for.
pub(crate) struct Take<'a> {
    pub queue: &'a str,
    pub session: &'a SessionRef,
    pub max: u32,
    pub lease: Option<Duration>,
    /// For a consumer; empty for a receive.
    pub consumer: &'a str,
    pub no_ack: bool,
}

/// What was taken.
pub(crate) struct Taken {
    /// The queue's number.
    pub queue: u64,
    /// There may be more at once.
    pub again: bool,
    pub deliveries: Vec<Delivered>,
}

impl Take<'_> {
    /// Takes what is there.
    pub async fn take(&self, inner: &Inner) -> Result<Taken> {
        let ttl = inner.session(self.session.id)?;
        let mut args = Args::default();
        args.text(self.queue).number(self.session.id).time(ttl).number(self.max);
        args.time(self.lease).text(self.consumer).flag(self.no_ack).text(&operation()?);
        let mut reply = inner.ask(&script::TAKE, &args).await?;
        let queue = reply.number("queue's number")?;
        let again = reply.number("mark")? == 1;
        let mut deliveries = Vec::new();
        while !reply.is_empty() {
            deliveries.push(self.delivered(queue, reply.list("delivery")?)?);
        }
        Ok(Taken { queue, again, deliveries })
    }

    fn delivered(&self, queue: u64, mut one: Reply) -> Result<Delivered> {
        let id = one.number("message's number")?;
        let token = one.number("token")?;
        let attempt = one.number("attempt")? as u32;
        let redelivered = one.number("mark")? == 1;
        let born = one.number("time of birth")?;
        let deaths = message::deaths(one.list("deaths")?)?;
        let content = message::read(&one.bytes("content")?, born, deaths)?;
        let place = u128::from(queue) << 64 | u128::from(id);
        let receipt = Receipt { token, place, session: self.session.clone() };
        Ok(Delivered { receipt, attempt, redelivered, content })
    }
}

/// Deliveries on their way. If nobody takes them they go back.
struct Handover {
    deliveries: Vec<Delivered>,
    inner: Arc<Inner>,
}

impl Drop for Handover {
    fn drop(&mut self) {
        if self.deliveries.is_empty() {
            return;
        }
        let receipts: Vec<Receipt> = self.deliveries.drain(..).map(|one| one.receipt).collect();
        let inner = self.inner.clone();
        tokio::spawn(async move {
            if let Err(error) = inner.give_back(&receipts).await {
                tracing::warn!(%error, "deliveries come back with the end of their session only");
            }
        });
    }
}

/// Demands a number of messages that can be taken.
pub(crate) fn credit(max: u32) -> Result<()> {
    if (1..=CREDIT_MAX).contains(&max) {
        return Ok(());
    }
    let wrong = format!("{max} messages are asked for; 1 to {CREDIT_MAX} are allowed");
    Err(Error::new(ErrorKind::Invalid, wrong))
}

/// Takes up to so many messages, waiting for the first.
pub(crate) async fn receive(inner: &Arc<Inner>, ask: &Receive) -> Result<Vec<Delivered>> {
    limits::name(&ask.queue)?;
    credit(ask.max)?;
    ask.lease.map_or(Ok(()), limits::ttl)?;
    let until = match ask.wait {
        Wait::No => Instant::now(),
        Wait::AtMost(wait) => Instant::now() + wait.min(FOREVER),
        Wait::Forever => Instant::now() + FOREVER,
    };
    let (mut tell, told) = oneshot::channel();
    let (inner, ask) = (inner.clone(), ask.clone());
    tokio::spawn(async move {
        let handover = waiting(&inner, &ask, until, &mut tell).await;
        // Who does not listen any more drops the handover, which gives the deliveries back.
        tell.send(handover).ok();
    });
    let gone = |_| Err(Error::new(ErrorKind::Broken, "the runtime is shutting down"));
    let mut handover = told.await.unwrap_or_else(gone)?;
    Ok(std::mem::take(&mut handover.deliveries))
}

async fn waiting(
    inner: &Arc<Inner>,
    ask: &Receive,
    until: Instant,
    caller: &mut oneshot::Sender<Result<Handover>>,
) -> Result<Handover> {
    let (max, lease) = (ask.max, ask.lease);
    let (queue, session) = (&*ask.queue, &ask.session);
    let take = Take { queue, session, max, lease, consumer: "", no_ack: false };
    let state = inner.sessions.find(session.id)?;
    let mut bell: Option<Listener> = None;
    let mut patience = Patience::new(until.saturating_duration_since(Instant::now()));
    loop {
        // A take that was sent is seen through: what it brings must not be lost.
        let taken = take.take(inner).await;
        let (number, deliveries) = match taken {
            Ok(taken) => (taken.queue, taken.deliveries),
            // For a wait that goes on a lost connection is no end.
            Err(error) if error.kind == ErrorKind::Unavailable && Instant::now() < until => {
                bell = None;
                patience.after(error).await?;
                continue;
            }
            Err(error) => return Err(error),
        };
        if !deliveries.is_empty() || Instant::now() >= until || caller.is_closed() {
            return Ok(Handover { deliveries, inner: inner.clone() });
        }
        let Some(listener) = &mut bell else {
            match inner.bells.listen(inner.channel(number)).await {
                // It is looked at once more after the bell is hung.
                Ok(listener) => bell = Some(listener),
                Err(error) => patience.after(error).await?,
            }
            continue;
        };
        tokio::select! {
            there = listener.rung() => {
                if there {
                    listener.heard();
                } else {
                    bell = None;
                }
            }
            () = sleep_until(until) => {}
            () = state.over() => {}
            () = caller.closed() => {
                return Ok(Handover { deliveries: Vec::new(), inner: inner.clone() });
            }
        }
    }
}
