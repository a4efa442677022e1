//! The way to the node and back: commands out, answers in.
//!
//! Nothing here blocks a worker thread. A full inbox is waited for by sleeping a little and trying
//! again, which is the whole of back-pressure: whoever publishes faster than the disk takes it
//! sleeps at this place.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use leasehold_api::{Error, Retry};
use leasehold_core::{Command, Op, Outcome, Refusal, RequestId, SessionId, Ticket};
use leasehold_node::{Client, NodeError};
use tokio::sync::{Notify, oneshot};

use crate::consumer::{Basket, Deliveries};
use crate::error::{self, Fault};
use crate::table::{Answer, Kind, Reply, Table};

/// First and longest pause before a full inbox is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// How long to leave a full inbox alone; grows from try to try.
#[derive(Debug)]
pub(crate) struct Pause(Duration);

impl Pause {
    pub fn new() -> Self {
        Self(PAUSE_MIN)
    }

    pub fn next(&mut self) -> Duration {
        let next = (self.0 * 2).min(PAUSE_MAX);
        std::mem::replace(&mut self.0, next)
    }
}

/// A client of the node and the table of what is under way.
#[derive(Debug)]
pub(crate) struct Link {
    pub client: Client,
    table: Mutex<Table>,
    /// A withdrawn request id may be asked again.
    settled: Notify,
    /// The user closed the engine: that it ends is no failure.
    closing: AtomicBool,
}

impl Link {
    pub fn new(client: Client) -> Self {
        Self {
            client,
            table: Mutex::default(),
            settled: Notify::new(),
            closing: AtomicBool::new(false),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("nobody panics while holding the table")
    }

    /// Works on the table, then sends the errands that this made.
    pub fn with<R>(&self, work: impl FnOnce(&mut Table) -> R) -> R {
        let mut table = self.lock();
        let result = work(&mut table);
        self.send_errands(&mut table);
        result
    }

    fn send_errands(&self, table: &mut Table) {
        while let Some(errand) = table.errands.pop_front() {
            let ticket = self.free_ticket(table);
            let (session, op) = (errand.session, errand.op.clone());
            match self.client.try_send(Command { ticket, session, request: None, op }) {
                Ok(()) => table.sent(&errand, ticket),
                Err((_, NodeError::Overloaded)) => {
                    table.errands.push_front(errand);
                    if let Some(dispatcher) = table.dispatcher.take() {
                        dispatcher.wake();
                    }
                    break;
                }
                Err(_) => table.errands.clear(),
            }
        }
        if std::mem::take(&mut table.settled) {
            self.settled.notify_waiters();
        }
    }

    fn free_ticket(&self, table: &Table) -> Ticket {
        loop {
            let ticket = self.client.ticket();
            if table.is_free(ticket) {
                return ticket;
            }
        }
    }

    /// From now on the end of the node is no failure.
    pub fn closing(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    pub fn ended(&self, error: &NodeError) -> Error {
        error::ended(error, self.closing.load(Ordering::Relaxed))
    }

    /// Tells everybody that nothing comes any more.
    pub fn close(&self, why: Error) {
        self.lock().close(why);
        self.settled.notify_waiters();
    }

    fn open(table: &Table) -> Result<(), Fault> {
        match &table.closed {
            Some(why) => {
                // Nothing was sent, so nothing happened.
                let error = Error::clone(why).with_retry(Retry::Later);
                Err(Fault::Gone(Arc::new(error)))
            }
            None => Ok(()),
        }
    }

    /// Refuses a session of whose end the node would not tell us: it was found after a restart and
    /// has no TTL, so that no sign of life would keep it either. It has to be taken up first.
    fn heard_of(table: &Table, session: SessionId) -> Result<(), Fault> {
        if session == SessionId::NONE || table.hears_of(session) {
            return Ok(());
        }
        Err(Fault::Refused(Refusal::NoSession(session)))
    }

    /// Gives a session a sign of life.
    pub async fn keep_alive(self: &Arc<Self>, session: SessionId) -> Result<Outcome, Error> {
        {
            let table = self.lock();
            Self::open(&table)?;
            Self::heard_of(&table, session)?;
        }
        self.ask(session, None, Op::KeepAlive).await
    }

    /// Makes a place for an answer.
    pub fn prepare(self: &Arc<Self>, session: SessionId, kind: Kind) -> Result<Call, Fault> {
        let mut table = self.lock();
        Self::open(&table)?;
        let ticket = self.free_ticket(&table);
        let answer = table.await_answer(ticket, session, kind);
        drop(table);
        let link = self.clone();
        Ok(Call { link, ticket, session, answer, sent: false, done: false })
    }

    /// Asks and waits for the answer. Dropping the future withdraws or undoes what was asked.
    pub async fn call(
        self: &Arc<Self>,
        session: SessionId,
        request: Option<RequestId>,
        op: Op,
        kind: Kind,
    ) -> Result<Reply, Fault> {
        let mut call = self.prepare(session, kind)?;
        call.send(request, op).await?;
        call.answer().await
    }

    /// Asks something whose answer is an outcome and needs no undoing.
    pub async fn ask(
        self: &Arc<Self>,
        session: SessionId,
        request: Option<RequestId>,
        op: Op,
    ) -> Result<Outcome, Error> {
        self.ask_as(session, request, op, Kind::Plain).await
    }

    /// The same with an end that has to be known.
    pub async fn ask_as(
        self: &Arc<Self>,
        session: SessionId,
        request: Option<RequestId>,
        op: Op,
        kind: Kind,
    ) -> Result<Outcome, Error> {
        match self.call(session, request, op, kind).await? {
            Reply::Outcome(outcome) | Reply::Granted(outcome, _) => Ok(outcome),
            Reply::Peeked(list) => {
                Ok(Outcome::Peeked(list.into_iter().map(|one| one.peeked).collect()))
            }
            Reply::Message(_) => Err(error::odd(&Outcome::Done)),
        }
    }

    /// Waits until a request id whose call was dropped is settled.
    pub async fn settled(&self, request: Option<RequestId>) {
        let Some(request) = request else { return };
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            if self.lock().may_ask(request) {
                return;
            }
            settled.await;
        }
    }

    /// Opens a consumer. Dropping the future, or the stream, stops it.
    pub async fn consume(
        self: &Arc<Self>,
        session: SessionId,
        consume: leasehold_core::Consume,
    ) -> Result<Deliveries, Fault> {
        let (no_ack, prefetch) = (consume.no_ack, consume.credit);
        let basket = Arc::new(Basket::default());
        let (ticket, opened) = {
            let mut table = self.lock();
            Self::open(&table)?;
            Self::heard_of(&table, session)?;
            let ticket = self.free_ticket(&table);
            (ticket, table.await_messages(ticket, session, basket.clone(), no_ack))
        };
        let link = self.clone();
        let (handed_out, sent) = (0, false);
        let mut stream =
            Deliveries { link, ticket, session, basket, no_ack, prefetch, handed_out, sent };
        let op = Op::Consume(Box::new(consume));
        let command = Command { ticket, session, request: None, op };
        self.send(command, &mut stream.sent).await?;
        match opened.await {
            Ok(opened) => opened.map(|()| stream),
            Err(_) => Err(self.gone()),
        }
    }

    /// Sends a command as soon as there is room; `sent` says whether the node may have it.
    async fn send(&self, command: Command, sent: &mut bool) -> Result<(), Fault> {
        let mut pause = Pause::new();
        let mut command = command;
        loop {
            command = match self.client.try_send(command) {
                Ok(()) => {
                    *sent = true;
                    return Ok(());
                }
                Err((command, NodeError::Overloaded)) => {
                    tokio::time::sleep(pause.next()).await;
                    command
                }
                Err((_, error)) => {
                    let error = self.ended(&error).with_retry(Retry::Later);
                    return Err(Fault::Gone(Arc::new(error)));
                }
            }
        }
    }

    fn gone(&self) -> Fault {
        let why = self.lock().closed.clone();
        Fault::Gone(why.unwrap_or_else(|| {
            Arc::new(self.ended(&NodeError::Stopped("nobody answers".to_owned())))
        }))
    }
}

/// A question under way. Dropped before its answer is read, it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Call {
    link: Arc<Link>,
    ticket: Ticket,
    session: SessionId,
    answer: oneshot::Receiver<Answer>,
    sent: bool,
    done: bool,
}

impl Call {
    /// Sends its command.
    pub async fn send(&mut self, request: Option<RequestId>, op: Op) -> Result<(), Fault> {
        let command = Command { ticket: self.ticket, session: self.session, request, op };
        let link = self.link.clone();
        link.send(command, &mut self.sent).await
    }

    /// Its answer.
    pub async fn answer(mut self) -> Result<Reply, Fault> {
        let answer = (&mut self.answer).await;
        self.done = true;
        answer.map_or_else(|_| Err(self.link.gone()), |answer| answer.result)
    }

    /// Its answer if it has come; without one it is withdrawn.
    pub fn answer_now(mut self) -> Option<Result<Reply, Fault>> {
        let answer = self.answer.try_recv().ok()?;
        self.done = true;
        Some(answer.result)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.done {
            self.link.with(|table| table.abandon(self.ticket, self.sent, &mut self.answer));
        }
    }
}
