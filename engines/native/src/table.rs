//! What is under way: who waits for which answer, and what has to be undone.
//!
//! ```text
//! call ──► slot ──► command ──► node ──► notice ──► dispatcher ──► slot ──► call
//!   └ dropped: the slot becomes an orphan ─► its answer is undone when it comes
//! ```
//! The slot is there before its command is sent, so no notice finds nobody. A slot is taken out
//! and its answer handed over under one lock, so whoever drops a call finds either the slot or the
//! answer, never neither: that is the whole of cancelling. What nobody waits for (a cancel, the
//! release of a grant that nobody wants, a message given back) is an *errand*; errands go out in
//! order, right after the table was touched, and by the dispatcher if the inbox is full.
//!
//! A request id whose call was dropped is *withdrawn* until the node has settled the matter. Asked
//! again before that, it could be answered with the very grant that is being released.

mod consuming;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use leasehold_api::{Ending, Error};
use leasehold_core::effect::ConsumerEnding;
use leasehold_core::{
    ConsumerId, HoldRef, Name, Op, Outcome, Receipt, Refusal, RequestId, SessionId, Ticket, Token,
    Verdict,
};
use leasehold_node::{Notice, PeekedMessage, Received};
use tokio::sync::oneshot;

use crate::consumer::Basket;
use crate::error::Fault;
use crate::holds::Holds;

/// An answer that came.
#[derive(Debug)]
pub(crate) enum Reply {
    /// What the node said.
    Outcome(Outcome),
    /// Locks were granted, and who tells of the end.
    Granted(Outcome, Option<oneshot::Receiver<Ending>>),
    /// A one-shot consumer got its message.
    Message(Received),
    /// A look at messages.
    Peeked(Vec<PeekedMessage>),
}

/// What became of a call, with what is needed to undo it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub kind: Kind,
    pub session: SessionId,
    pub result: Result<Reply, Fault>,
}

/// What a call asks for, as far as its end needs it.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// Nothing that would have to be undone.
    Plain,
    /// Waits for a change.
    Watch,
    /// Takes locks.
    Acquire { name: Name, hold: u64, bound: bool, request: Option<RequestId> },
    /// Takes one message.
    Once,
    /// Opens a session.
    Open,
    /// Ends the session it is asked in.
    Close,
    /// Leaves a hold.
    Release(Token),
}

impl Kind {
    /// Whether the node may let it wait, so that there is something to cancel.
    fn waits(&self) -> bool {
        matches!(self, Self::Watch | Self::Acquire { .. } | Self::Once)
    }

    fn request(&self) -> Option<RequestId> {
        match self {
            Self::Acquire { request, .. } => *request,
            _ => None,
        }
    }
}

/// A consumer's place.
#[derive(Debug)]
struct Consuming {
    session: SessionId,
    /// Where messages go; `None`: it is being stopped, and what still comes is given back.
    basket: Option<Arc<Basket>>,
    /// Who waits for it to be open.
    opened: Option<oneshot::Sender<Result<(), Fault>>>,
    /// Known when it is open.
    id: Option<ConsumerId>,
    no_ack: bool,
}

#[derive(Debug)]
enum Slot {
    /// A call; without a sender it is an orphan.
    Call {
        kind: Kind,
        session: SessionId,
        tell: Option<oneshot::Sender<Answer>>,
    },
    Consumer(Consuming),
    /// Notices about a session's leases come here for as long as it lives.
    Session(SessionId),
    /// Everything that the consumer had been sent has come when this is answered.
    Barrier(u32),
}

/// A session with things of ours in it.
#[derive(Debug, Default)]
struct Member {
    /// Under which ticket the node tells of it; `None`: it was not opened here.
    ticket: Option<u32>,
    consumers: BTreeSet<u32>,
}

/// A command that nobody waits for.
#[derive(Debug)]
pub(crate) struct Errand {
    pub session: SessionId,
    pub op: Op,
    /// Its answer ends this consumer's slot.
    barrier: Option<u32>,
    /// With it this request id is not withdrawn any more.
    settles: Option<RequestId>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Table {
    slots: HashMap<u32, Slot>,
    sessions: HashMap<SessionId, Member>,
    holds: Holds,
    /// Request ids of dropped calls that are not settled yet, and how many of each.
    withdrawn: HashMap<RequestId, u32>,
    pub errands: VecDeque<Errand>,
    /// Why nothing comes any more.
    pub closed: Option<Arc<Error>>,
    /// Wakes the dispatcher when errands are left over.
    pub dispatcher: Option<Waker>,
    /// A withdrawal was settled since this was last looked at.
    pub settled: bool,
}

/// How much is kept for things under way: what a leak would make grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kept {
    /// Calls, consumers and sessions that notices may come for.
    pub slots: usize,
    /// Sessions with something of this engine's in them.
    pub sessions: usize,
    /// Holds whose end somebody may want to know.
    pub holds: usize,
    /// Request ids that are being withdrawn, and commands not sent yet that nobody waits for.
    pub unsettled: usize,
}

impl Table {
    pub fn kept(&self) -> Kept {
        Kept {
            slots: self.slots.len(),
            sessions: self.sessions.len(),
            holds: self.holds.len(),
            unsettled: self.withdrawn.len() + self.errands.len(),
        }
    }

    /// Whether a ticket is free: the counter behind them comes round after four billion.
    pub fn is_free(&self, ticket: Ticket) -> bool {
        !self.slots.contains_key(&(ticket.0 as u32))
    }

    /// Makes a place for a call's answer.
    pub fn await_answer(
        &mut self,
        ticket: Ticket,
        session: SessionId,
        kind: Kind,
    ) -> oneshot::Receiver<Answer> {
        let (tell, answer) = oneshot::channel();
        let slot = Slot::Call { kind, session, tell: Some(tell) };
        self.slots.insert(ticket.0 as u32, slot);
        answer
    }

    /// Whether a request id may be asked (again).
    pub fn may_ask(&self, request: RequestId) -> bool {
        self.closed.is_some() || !self.withdrawn.contains_key(&request)
    }

    /// Sends a command that nobody waits for.
    pub fn errand(&mut self, session: SessionId, op: Op) {
        if self.closed.is_none() {
            self.errands.push_back(Errand { session, op, barrier: None, settles: None });
        }
    }

    /// An errand went out under a ticket.
    pub fn sent(&mut self, errand: &Errand, ticket: Ticket) {
        if let Some(consumer) = errand.barrier {
            self.slots.insert(ticket.0 as u32, Slot::Barrier(consumer));
        }
        if let Some(request) = errand.settles {
            self.settle(request);
        }
    }

    fn withdraw(&mut self, request: Option<RequestId>) {
        if let Some(request) = request {
            *self.withdrawn.entry(request).or_default() += 1;
        }
    }

    fn settle(&mut self, request: RequestId) {
        let Some(count) = self.withdrawn.get_mut(&request) else { return };
        *count -= 1;
        if *count == 0 {
            self.withdrawn.remove(&request);
            self.settled = true;
        }
    }

    /// Gives a message back that nobody took.
    pub fn give_back(&mut self, session: SessionId, receipt: Receipt) {
        self.errand(session, Op::Settle(receipt, Verdict::Return));
    }

    /// A call was dropped before its answer was read.
    pub fn abandon(&mut self, ticket: Ticket, sent: bool, rx: &mut oneshot::Receiver<Answer>) {
        use tokio::sync::oneshot::error::TryRecvError;
        match rx.try_recv() {
            Ok(answer) => {
                self.withdraw(answer.kind.request());
                self.undo(answer);
            }
            Err(TryRecvError::Closed) => {}
            // The answer is not here, so the slot is.
            Err(TryRecvError::Empty) if !sent => drop(self.slots.remove(&(ticket.0 as u32))),
            Err(TryRecvError::Empty) => {
                let slot = self.slots.get_mut(&(ticket.0 as u32));
                let Some(Slot::Call { kind, session, tell }) = slot else { return };
                *tell = None;
                let (waits, request, session) = (kind.waits(), kind.request(), *session);
                self.withdraw(request);
                if waits {
                    self.errand(session, Op::Cancel(ticket));
                }
            }
        }
    }

    /// Nobody wants this answer: what it brought goes back. Its request id is withdrawn.
    fn undo(&mut self, answer: Answer) {
        let Answer { kind, session, result } = answer;
        let request = kind.request();
        match (kind, result) {
            (
                Kind::Acquire { name, hold, .. },
                Ok(Reply::Granted(Outcome::Granted { token, entries, .. }, _)),
            ) => {
                if entries == 1 {
                    self.holds.forget(session, token);
                }
                let op = Op::Release(HoldRef { name, token, hold });
                // Only when that has been sent may the id be asked again.
                self.errands.push_back(Errand { session, op, barrier: None, settles: request });
                return;
            }
            (Kind::Once, Ok(Reply::Message(message))) => {
                self.give_back(session, message.delivery.receipt);
            }
            (Kind::Open, Ok(Reply::Outcome(Outcome::Session { id, resumed: false }))) => {
                self.session_ended(id, true);
                self.errand(id, Op::CloseSession { lost: false });
            }
            _ => {}
        }
        if let Some(request) = request {
            self.settle(request);
        }
    }

    /// Brings a notice to where it belongs.
    pub fn take_in(&mut self, ticket: u32, notice: Notice) {
        match notice {
            Notice::Reply(result) => self.replied(ticket, result),
            Notice::Peeked(list) => self.answered(ticket, Ok(Reply::Peeked(list))),
            Notice::Delivery(parts) => self.delivered(ticket, Received::from(parts)),
            Notice::HoldEnded(token, ending) => {
                if let Some(Slot::Session(session)) = self.slots.get(&ticket) {
                    self.holds.ended(*session, token, crate::convert::ending(ending));
                }
            }
            Notice::DeliveryEnded(receipt, _) => self.lease_ended(ticket, receipt),
            Notice::SessionEnded(session) => self.session_ended(session, false),
            Notice::ConsumerEnded(ConsumerEnding::QueueDeleted) => {
                if let Some(Slot::Consumer(consuming)) = self.slots.remove(&ticket) {
                    self.leave_session(consuming.session, ticket);
                    if let Some(basket) = consuming.basket {
                        basket.end(None, !consuming.no_ack);
                    }
                }
            }
        }
    }

    fn replied(&mut self, ticket: u32, result: Result<Outcome, Refusal>) {
        match self.slots.get_mut(&ticket) {
            Some(Slot::Consumer(_)) => self.consumer_opened(ticket, result),
            Some(Slot::Call { .. }) => match result {
                Ok(outcome) => self.answered(ticket, Ok(Reply::Outcome(outcome))),
                Err(refusal) => self.answered(ticket, Err(Fault::Refused(refusal))),
            },
            Some(Slot::Barrier(_)) => {
                if let Some(Slot::Barrier(consumer)) = self.slots.remove(&ticket) {
                    self.slots.remove(&consumer);
                }
            }
            // The answer to an errand.
            Some(Slot::Session(_)) | None => {}
        }
    }

    /// Hands an answer to its call, or undoes it if nobody waits for it any more.
    fn answered(&mut self, ticket: u32, mut result: Result<Reply, Fault>) {
        let Some(Slot::Call { kind, session, tell }) = self.slots.remove(&ticket) else { return };
        match (&kind, &result) {
            (Kind::Acquire { bound, .. }, Ok(Reply::Outcome(outcome))) => {
                let outcome = outcome.clone();
                let ended = match (&outcome, &tell) {
                    (Outcome::Granted { token, .. }, Some(_)) => {
                        self.listen(session, *token, *bound)
                    }
                    _ => None,
                };
                result = Ok(Reply::Granted(outcome, ended));
            }
            // Taking a session up again cannot be undone: it is as it was before, ours.
            (Kind::Open, Ok(Reply::Outcome(Outcome::Session { id, resumed })))
                if tell.is_some() || *resumed =>
            {
                self.session_opened(*id, ticket);
            }
            (Kind::Close, Ok(_) | Err(Fault::Refused(Refusal::NoSession(_)))) => {
                self.session_ended(session, true);
            }
            (Kind::Release(token), Ok(Reply::Outcome(Outcome::Released { entries: 0 }))) => {
                self.holds.forget(session, *token);
            }
            _ => {}
        }
        let answer = Answer { kind, session, result };
        match tell {
            Some(tell) => {
                if let Err(answer) = tell.send(answer) {
                    self.withdraw(answer.kind.request());
                    self.undo(answer);
                }
            }
            None => self.undo(answer),
        }
    }

    /// Listens to the end of a hold, if the node will tell of it.
    fn listen(
        &mut self,
        session: SessionId,
        token: Token,
        bound: bool,
    ) -> Option<oneshot::Receiver<Ending>> {
        self.sessions.get(&session)?.ticket?;
        Some(self.holds.listen(session, token, bound))
    }

    /// Nothing comes any more: everybody is told why, nobody is left hanging.
    pub fn close(&mut self, why: Error) {
        if self.closed.is_some() {
            return;
        }
        let why = Arc::new(why);
        self.closed = Some(why.clone());
        for (_, slot) in self.slots.drain() {
            match slot {
                Slot::Call { kind, session, tell: Some(tell) } => {
                    let result = Err(Fault::Gone(why.clone()));
                    drop(tell.send(Answer { kind, session, result }));
                }
                Slot::Consumer(consuming) => {
                    if let Some(opened) = consuming.opened {
                        drop(opened.send(Err(Fault::Gone(why.clone()))));
                    }
                    if let Some(basket) = consuming.basket {
                        basket.end(Some(Error::clone(&why)), !consuming.no_ack);
                    }
                }
                Slot::Call { .. } | Slot::Session(_) | Slot::Barrier(_) => {}
            }
        }
        self.sessions.clear();
        self.holds.clear();
        self.withdrawn.clear();
        self.errands.clear();
    }
}
