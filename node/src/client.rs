//! The client's end: a number, a mailbox, and the notices that come to it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::Waker;
use std::time::Duration;

use leasehold_core::effect::ConsumerEnding;
use leasehold_core::{
    Command, Delivery, Ending, Envelope, Name, Op, Outcome, Receipt, Refusal, RequestId, SessionId,
    Ticket, Token, message_of, outcome::Peeked, wire::DecodeError,
};

use leasehold_env::{Clock, OsClock};

use crate::error::NodeError;
use crate::inbox::Inbox;

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The answer to a command.
    Reply(Result<Outcome, Refusal>),
    /// The answer to a peek that was not refused, in place of the reply: the messages themselves,
    /// as many of the first as 1 MiB holds and one more.
    Peeked(Vec<PeekedMessage>),
    /// A message: the delivery and its journal record; see [`Received`].
    Delivery(Box<(Delivery, Vec<u8>)>),
    /// A hold of the session opened with this ticket ended.
    HoldEnded(Token, Ending),
    /// A delivery of the session opened with this ticket ended.
    DeliveryEnded(Receipt, Ending),
    /// The session opened with this ticket ended.
    SessionEnded(SessionId),
    /// The consumer opened with this ticket ended.
    ConsumerEnded(ConsumerEnding),
}

/// A message as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// How and from where it was delivered.
    pub delivery: Delivery,
    record: Vec<u8>,
}

impl Received {
    /// The message.
    ///
    /// # Errors
    /// When the record is not a message, which its checksum makes as good as impossible.
    pub fn message(&self) -> Result<Envelope<'_>, DecodeError> {
        message_of(&self.record)
    }
}

impl From<Box<(Delivery, Vec<u8>)>> for Received {
    fn from(parts: Box<(Delivery, Vec<u8>)>) -> Self {
        let (delivery, record) = *parts;
        Self { delivery, record }
    }
}

/// A message as peek shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeekedMessage {
    /// What the queue knows of it.
    pub peeked: Peeked,
    pub(crate) record: Vec<u8>,
}

impl PeekedMessage {
    /// The message.
    ///
    /// # Errors
    /// When the record is not a message, which its checksum makes as good as impossible.
    pub fn message(&self) -> Result<Envelope<'_>, DecodeError> {
        message_of(&self.record)
    }
}

#[derive(Debug, Default)]
struct Post {
    notices: VecDeque<(u32, Notice)>,
    waiting: bool,
    waker: Option<Waker>,
    closed: Option<String>,
}

/// Where the shard's thread puts a client's notices.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    post: Mutex<Post>,
    arrived: Condvar,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Post> {
        self.post.lock().expect("nobody panics while holding a mailbox")
    }

    /// Adds notices; false when the mailbox is over its limit and has been closed.
    pub fn put(&self, notices: &mut Vec<(u32, Notice)>, max: usize) -> bool {
        let mut post = self.lock();
        if post.notices.len() + notices.len() > max {
            post.closed.get_or_insert_with(|| {
                format!("the client left more than {max} notices unread; connect again")
            });
            notices.clear();
            self.wake(post);
            return false;
        }
        post.notices.extend(notices.drain(..));
        self.wake(post);
        true
    }

    pub fn close(&self, why: &str) {
        let mut post = self.lock();
        post.closed.get_or_insert_with(|| why.to_owned());
        self.wake(post);
    }

    fn wake(&self, mut post: MutexGuard<'_, Post>) {
        let waker = post.waker.take();
        let waiting = std::mem::take(&mut post.waiting);
        drop(post);
        if waiting {
            self.arrived.notify_all();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// What ends the wait for a command.
enum Answer {
    Reply(Result<Outcome, Refusal>),
    Peeked(Vec<PeekedMessage>),
}

/// A client of a node. Its tickets are its own; dropping it forgets its mailbox (its sessions end
/// by their own rules).
#[derive(Debug)]
pub struct Client {
    pub(crate) id: u32,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) mailbox: Arc<Mailbox>,
    serial: AtomicU32,
}

impl Client {
    pub(crate) fn new(id: u32, inbox: Arc<Inbox>, mailbox: Arc<Mailbox>) -> Self {
        Self { id, inbox, mailbox, serial: AtomicU32::new(1) }
    }

    /// A new ticket: the low half is what notices come back with.
    pub fn ticket(&self) -> Ticket {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        Ticket(u64::from(self.id) << 32 | u64::from(serial))
    }

    /// Sends one command; its ticket comes back. Waits while the inbox is full.
    ///
    /// # Errors
    /// When the node has stopped.
    pub fn send(
        &self,
        session: SessionId,
        request: Option<RequestId>,
        op: Op,
    ) -> Result<Ticket, NodeError> {
        let ticket = self.ticket();
        self.inbox.send([Command { ticket, session, request, op }])?;
        Ok(ticket)
    }

    /// Sends many commands with one wake-up; tickets come from [`Client::ticket`].
    ///
    /// # Errors
    /// When the node has stopped.
    pub fn send_all(&self, commands: impl IntoIterator<Item = Command>) -> Result<(), NodeError> {
        self.inbox.send(commands)
    }

    /// Sends one command unless the inbox is full, and never waits. What was not sent comes back.
    ///
    /// # Errors
    /// `Overloaded` when it is full, `Stopped` when the node has stopped.
    #[allow(clippy::result_large_err, reason = "the command comes back; boxing it would allocate")]
    pub fn try_send(&self, command: Command) -> Result<(), (Command, NodeError)> {
        self.inbox.try_send(command)
    }

    /// Takes all notices that have come, waiting up to `wait` for the first.
    ///
    /// # Errors
    /// When the mailbox is closed and empty.
    pub fn receive(
        &self,
        out: &mut Vec<(u32, Notice)>,
        wait: Option<Duration>,
    ) -> Result<(), NodeError> {
        let mut post = self.mailbox.lock();
        if let Some(wait) = wait
            && post.notices.is_empty()
            && post.closed.is_none()
        {
            let waited = self.mailbox.arrived.wait_timeout_while(post, wait, |post| {
                post.waiting = post.notices.is_empty() && post.closed.is_none();
                post.waiting
            });
            post = waited.expect("nobody panics while holding a mailbox").0;
        }
        if post.notices.is_empty()
            && let Some(why) = &post.closed
        {
            return Err(NodeError::Stopped(why.clone()));
        }
        out.extend(post.notices.drain(..));
        Ok(())
    }

    /// Takes all notices that have come; if none has, `waker` is woken when one comes.
    ///
    /// # Errors
    /// When the mailbox is closed and empty.
    pub fn poll(&self, out: &mut Vec<(u32, Notice)>, waker: &Waker) -> Result<(), NodeError> {
        let mut post = self.mailbox.lock();
        if post.notices.is_empty() {
            if let Some(why) = &post.closed {
                return Err(NodeError::Stopped(why.clone()));
            }
            post.waker = Some(waker.clone());
            return Ok(());
        }
        out.extend(post.notices.drain(..));
        Ok(())
    }

    /// Sends one command and waits for its answer. Notices for other tickets that come meanwhile
    /// are kept in `others`. Of a peek it gives what the queue knows; see [`Client::peek`].
    ///
    /// # Errors
    /// [`NodeError`] when there is no answer; the inner result is the answer.
    pub fn call(
        &self,
        session: SessionId,
        op: Op,
        wait: Duration,
        others: &mut Vec<(u32, Notice)>,
    ) -> Result<Result<Outcome, Refusal>, NodeError> {
        let serial = self.send(session, None, op)?.0 as u32;
        Ok(match self.answer(serial, wait, others)? {
            Answer::Reply(result) => result,
            Answer::Peeked(list) => {
                Ok(Outcome::Peeked(list.into_iter().map(|one| one.peeked).collect()))
            }
        })
    }

    /// Looks at the first `max` messages of a queue without taking them; fewer when they are large.
    ///
    /// # Errors
    /// [`NodeError`] when there is no answer; the inner result is the answer.
    pub fn peek(
        &self,
        session: SessionId,
        queue: Name,
        max: u32,
        wait: Duration,
        others: &mut Vec<(u32, Notice)>,
    ) -> Result<Result<Vec<PeekedMessage>, Refusal>, NodeError> {
        let serial = self.send(session, None, Op::Peek(queue, max))?.0 as u32;
        match self.answer(serial, wait, others)? {
            Answer::Peeked(list) => Ok(Ok(list)),
            Answer::Reply(Err(refusal)) => Ok(Err(refusal)),
            Answer::Reply(Ok(other)) => unreachable!("a peek is answered with {other:?}"),
        }
    }

    /// Waits for the answer to a ticket.
    fn answer(
        &self,
        serial: u32,
        wait: Duration,
        others: &mut Vec<(u32, Notice)>,
    ) -> Result<Answer, NodeError> {
        let clock = OsClock::new();
        let until = clock.monotonic_us() + wait.as_micros() as u64;
        let mut notices = Vec::new();
        loop {
            let left = Duration::from_micros(until.saturating_sub(clock.monotonic_us()));
            self.receive(&mut notices, Some(left))?;
            let mut answer = None;
            for (to, notice) in notices.drain(..) {
                match notice {
                    Notice::Reply(result) if to == serial => answer = Some(Answer::Reply(result)),
                    Notice::Peeked(list) if to == serial => answer = Some(Answer::Peeked(list)),
                    notice => others.push((to, notice)),
                }
            }
            if let Some(answer) = answer {
                return Ok(answer);
            }
            if left.is_zero() {
                return Err(NodeError::TimedOut(wait));
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.inbox.forget(self.id);
    }
}
