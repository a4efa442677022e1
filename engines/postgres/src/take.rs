//! Taking messages: what a receive and a consumer have in common, and the receive.
//!
//! A receive runs in a task of its own. When its caller goes, what it took goes back: it is found
//! by the number of the call, so it goes back also when the answer was lost.

use std::sync::Arc;
use std::time::Duration;

use leasehold_api::engine::{Delivered, Receive, SessionRef};
use leasehold_api::{Error, ErrorKind, Result, Wait};
use leasehold_contenders::SessionState;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use crate::Inner;
use crate::bells::Bell;
use crate::book::us;
use crate::content::{delivered, time};
use crate::error::{ending, invalid, odd};
use crate::server::TRIES;

/// Messages of one receive, and the prefetch of one consumer.
pub(crate) const CREDIT_MAX: u32 = 65_535;
/// What somebody else has in his hands is looked at again after about this time: his transaction
/// ends by itself.
pub(crate) const CONTENDED: Duration = Duration::from_millis(15);
/// Pauses while the server is out of reach.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// What is to be taken.
#[derive(Debug, Clone)]
pub(crate) struct Taking {
    pub queue: Arc<str>,
    pub session: SessionRef,
    pub session_ttl: Option<Duration>,
    pub consumer: Option<i64>,
    pub max: u32,
    pub lease: Option<i64>,
    pub no_ack: bool,
    /// Names the call: what it took is found again by it.
    pub call: [u8; 16],
}

/// What was taken.
#[derive(Debug)]
pub(crate) struct Taken {
    pub messages: Vec<Delivered>,
    pub queue: i64,
    /// Something is there that a transaction of somebody else has in its hands.
    pub contended: bool,
    /// How long they may stay unsettled.
    pub lease: Option<Duration>,
}

/// A number for a call.
pub(crate) fn call() -> [u8; 16] {
    crate::request().to_be_bytes()
}

/// Pauses that grow.
pub(crate) struct Pauses(Duration);

impl Pauses {
    pub fn new() -> Self {
        Self(PAUSES.0)
    }

    pub async fn next(&mut self) {
        sleep(crate::spread(self.0)).await;
        self.0 = (self.0 * 2).min(PAUSES.1);
    }
}

impl Inner {
    /// Takes what is there. `again`: an earlier try of the same call may have been carried out.
    pub(crate) async fn take(&self, taking: &Taking, again: bool) -> Result<Taken> {
        let ttl = taking.session_ttl.map(us);
        let (session, max) = (taking.session.id.cast_signed(), taking.max.cast_signed());
        let sql = self.server.call("take", 10);
        let mut again = again;
        let mut tries = 0;
        let failed = loop {
            tries += 1;
            let rows = self
                .server
                .once(
                    &sql,
                    &[
                        &&*taking.queue,
                        &session,
                        &ttl,
                        &taking.consumer,
                        &max,
                        &taking.lease,
                        &taking.no_ack,
                        &&taking.call[..],
                        &self.home,
                        &again,
                    ],
                    self.server.config.answer,
                )
                .await;
            match rows {
                Ok(rows) => return self.taken(&rows, taking),
                Err(failed) if failed.again && !failed.is_lost && tries < TRIES => again = true,
                Err(failed) => break failed,
            }
        };
        Err(failed.error)
    }

    fn taken(&self, rows: &[tokio_postgres::Row], taking: &Taking) -> Result<Taken> {
        let mut taken = Taken { messages: Vec::new(), queue: 0, contended: false, lease: None };
        for row in rows {
            let mut last = || {
                taken.queue = row.try_get(12)?;
                taken.contended = row.try_get(14)?;
                let lease = row.try_get::<_, Option<i64>>(15)?;
                taken.lease = lease.map(|us| Duration::from_micros(us.max(0).cast_unsigned()));
                row.try_get::<_, Option<i64>>(13)
            };
            match delivered(row, &taking.session)? {
                Some(message) => taken.messages.push(message),
                None => {
                    if let Some(wake) = last().map_err(|error| odd(&error))? {
                        self.clock.hint(Duration::from_micros(wake.max(0).cast_unsigned()));
                    }
                }
            }
        }
        Ok(taken)
    }

    /// Gives back what a call took, in the background.
    pub(crate) fn give_back(self: &Arc<Self>, session: u64, call: [u8; 16]) {
        let inner = self.clone();
        tokio::spawn(async move {
            let sql = inner.server.call("give_back", 2);
            let back = inner.server.rows(&sql, &[&session.cast_signed(), &&call[..]]).await;
            if let Err(error) = back {
                tracing::warn!(%error, "not given back; it goes back when its session ends");
            }
        });
    }

    /// See [`QueueEngine::receive`](leasehold_api::engine::QueueEngine::receive).
    pub(crate) async fn receive(self: &Arc<Self>, ask: &Receive) -> Result<Vec<Delivered>> {
        if !(1..=CREDIT_MAX).contains(&ask.max) {
            let is = ask.max;
            return Err(invalid(format!("{is} messages were asked for; 1 to {CREDIT_MAX}")));
        }
        leasehold_contenders::limits::name(&ask.queue)?;
        let lease = ask.lease.map(|lease| time("the lease", lease)).transpose()?;
        let state = self.hands.session(&ask.session)?;
        let taking = Taking {
            queue: ask.queue.clone(),
            session: ask.session.clone(),
            session_ttl: state.ttl,
            consumer: None,
            max: ask.max,
            lease,
            no_ack: false,
            call: call(),
        };
        let until = match ask.wait {
            Wait::No => Some(Instant::now()),
            Wait::AtMost(wait) => Instant::now().checked_add(wait),
            Wait::Forever => None,
        };
        let (tell, told) = oneshot::channel();
        let receiving = Receiving { inner: self.clone(), taking, state, until };
        tokio::spawn(receiving.run(tell));
        let mut catch = told.await.map_err(|_| ending())??;
        Ok(std::mem::take(&mut catch.messages))
    }
}

/// What was taken, on its way. If nobody takes it over it goes back.
struct Catch {
    inner: Arc<Inner>,
    taking: Taking,
    messages: Vec<Delivered>,
}

impl Drop for Catch {
    fn drop(&mut self) {
        if !self.messages.is_empty() {
            self.inner.give_back(self.taking.session.id, self.taking.call);
        }
    }
}

struct Receiving {
    inner: Arc<Inner>,
    taking: Taking,
    state: Arc<SessionState>,
    /// `None`: for ever.
    until: Option<Instant>,
}

impl Receiving {
    async fn run(self, mut tell: oneshot::Sender<Result<Catch>>) {
        let result = self.wait(&mut tell).await;
        if result.is_err() && tell.is_closed() {
            self.inner.give_back(self.taking.session.id, self.taking.call);
            return;
        }
        let Self { inner, taking, .. } = self;
        let caught = result.map(|messages| Catch { inner, taking, messages });
        // Who does not listen any more drops the catch.
        tell.send(caught).ok();
    }

    fn is_late(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }

    /// Takes and waits in turn. A take is not dropped half way: it might be carried out after
    /// what it took was given back.
    async fn wait(&self, tell: &mut oneshot::Sender<Result<Catch>>) -> Result<Vec<Delivered>> {
        let mut hearing = None;
        let mut again = false;
        let mut pauses = Pauses::new();
        let patience = Instant::now() + crate::server::PATIENCE;
        loop {
            if tell.is_closed() {
                return Err(Error::new(ErrorKind::Cancelled, "nobody waits for it any more"));
            }
            if self.state.is_over() {
                let wrong = format!("session {} has ended; open a new one", self.state.id);
                return Err(Error::new(ErrorKind::NoSession, wrong));
            }
            let taken = match self.inner.take(&self.taking, again).await {
                Ok(taken) => taken,
                Err(error) if error.kind == ErrorKind::Unavailable => {
                    // Who waits outlasts a restart; who does not is told after a while.
                    if self.is_late() && patience <= Instant::now() {
                        self.inner.give_back(self.taking.session.id, self.taking.call);
                        return Err(error);
                    }
                    again = true;
                    pauses.next().await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            pauses = Pauses::new();
            if !taken.messages.is_empty() || self.is_late() {
                return Ok(taken.messages);
            }
            if taken.contended {
                sleep(crate::spread(CONTENDED)).await;
                continue;
            }
            match &hearing {
                // Looked before the bell hung: look once more.
                None => {
                    let bells = vec![Bell::Queue(taken.queue), Bell::named(&self.taking.queue)];
                    hearing = Some(self.inner.bells.hear(bells));
                }
                Some(bell) => {
                    let ring = bell.rung();
                    tokio::select! {
                        () = self.state.over() => {}
                        () = tell.closed() => {}
                        () = async {
                            match self.until {
                                // Coming back at the end of the time is all the same.
                                Some(until) => drop(timeout_at(until, ring).await),
                                None => ring.await,
                            }
                        } => {}
                    }
                }
            }
        }
    }
}
