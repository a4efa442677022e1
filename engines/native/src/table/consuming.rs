//! Sessions and the consumers in them: what outlives a single answer.
//!
//! A consumer's slot lives from before its command until its stream is dropped and everything that
//! was under way to it has come, or until its queue or session has ended. The node does not tell a
//! consumer that its session ended, it tells the session; so a session knows its consumers.

use std::sync::Arc;

use leasehold_core::{ConsumerId, Op, Outcome, Receipt, Refusal, SessionId, Ticket};
use leasehold_node::Received;
use tokio::sync::oneshot;

use super::{Consuming, Errand, Reply, Slot, Table};
use crate::consumer::Basket;
use crate::error::{self, Fault};

impl Table {
    /// Makes a place for a consumer.
    pub fn await_messages(
        &mut self,
        ticket: Ticket,
        session: SessionId,
        basket: Arc<Basket>,
        no_ack: bool,
    ) -> oneshot::Receiver<Result<(), Fault>> {
        let (tell, opened) = oneshot::channel();
        let basket = Some(basket);
        let consuming = Consuming { session, basket, opened: Some(tell), id: None, no_ack };
        self.slots.insert(ticket.0 as u32, Slot::Consumer(consuming));
        opened
    }

    /// Whether the node tells us of a session's end. It does not of one that it found after a
    /// restart, before somebody takes it up again.
    pub fn hears_of(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|member| member.ticket.is_some())
    }

    /// Stops a consumer whose stream was dropped. Its basket has been emptied.
    pub fn stop_consumer(&mut self, ticket: Ticket, sent: bool) {
        let ticket = ticket.0 as u32;
        let Some(Slot::Consumer(consuming)) = self.slots.get_mut(&ticket) else { return };
        consuming.basket = None;
        consuming.opened = None;
        let (session, id) = (consuming.session, consuming.id);
        if !sent {
            self.slots.remove(&ticket);
        } else if let Some(id) = id {
            self.stop(ticket, session, id);
        }
    }

    fn stop(&mut self, ticket: u32, session: SessionId, id: ConsumerId) {
        self.leave_session(session, ticket);
        self.errand(session, Op::StopConsumer(id));
        // The answer to that may overtake messages; a read's answer does not.
        let op = Op::Read(Arc::from(&b"-"[..]));
        let barrier = Some(ticket);
        self.errands.push_back(Errand { session, op, barrier, settles: None });
    }

    /// Renews the credit of a consumer that does not acknowledge.
    pub fn renew_credit(&mut self, ticket: Ticket, credit: u32) {
        if let Some(Slot::Consumer(consuming)) = self.slots.get(&(ticket.0 as u32))
            && let Some(id) = consuming.id
        {
            self.errand(consuming.session, Op::Credit(id, credit));
        }
    }

    pub(super) fn leave_session(&mut self, session: SessionId, consumer: u32) {
        if let Some(member) = self.sessions.get_mut(&session) {
            member.consumers.remove(&consumer);
            if member.ticket.is_none() && member.consumers.is_empty() {
                self.sessions.remove(&session);
            }
        }
    }

    pub(super) fn session_opened(&mut self, session: SessionId, ticket: u32) {
        self.slots.insert(ticket, Slot::Session(session));
        let old = self.sessions.entry(session).or_default().ticket.replace(ticket);
        if let Some(old) = old {
            self.slots.remove(&old);
        }
    }

    /// A session ended; `asked`: because it was closed, of which the node tells nobody.
    pub(super) fn session_ended(&mut self, session: SessionId, asked: bool) {
        if asked {
            self.holds.session_ended(session);
        }
        let Some(member) = self.sessions.remove(&session) else { return };
        if let Some(ticket) = member.ticket {
            self.slots.remove(&ticket);
        }
        let error = error::refused(&Refusal::NoSession(session));
        for ticket in member.consumers {
            if let Some(Slot::Consumer(consuming)) = self.slots.remove(&ticket)
                && let Some(basket) = consuming.basket
            {
                basket.end(Some(error.clone()), !consuming.no_ack);
            }
        }
    }

    pub(super) fn consumer_opened(&mut self, ticket: u32, result: Result<Outcome, Refusal>) {
        let Some(Slot::Consumer(consuming)) = self.slots.get_mut(&ticket) else { return };
        let opened = consuming.opened.take();
        match result {
            Ok(Outcome::Consuming(id)) => {
                consuming.id = Some(id);
                let (session, stopping) = (consuming.session, consuming.basket.is_none());
                if stopping {
                    self.stop(ticket, session, id);
                } else {
                    self.sessions.entry(session).or_default().consumers.insert(ticket);
                }
                // If nobody waits any more its stream stops it.
                if let Some(opened) = opened {
                    opened.send(Ok(())).ok();
                }
            }
            // A consume is answered with nothing else.
            Ok(_) => {}
            Err(refusal) => {
                self.slots.remove(&ticket);
                if let Some(opened) = opened {
                    opened.send(Err(Fault::Refused(refusal))).ok();
                }
            }
        }
    }

    pub(super) fn delivered(&mut self, ticket: u32, message: Received) {
        match self.slots.get(&ticket) {
            Some(Slot::Consumer(consuming)) => {
                let session = consuming.session;
                match &consuming.basket {
                    Some(basket) => basket.put(message),
                    None if consuming.no_ack => {}
                    None => self.give_back(session, message.delivery.receipt),
                }
            }
            Some(Slot::Call { .. }) => self.answered(ticket, Ok(Reply::Message(message))),
            // Its session ended, and the message went back with it.
            Some(Slot::Session(_) | Slot::Barrier(_)) | None => {}
        }
    }

    /// The lease of a delivery ran out: if it has not been handed out it need not be any more.
    pub(super) fn lease_ended(&mut self, ticket: u32, receipt: Receipt) {
        let Some(Slot::Session(session)) = self.slots.get(&ticket) else { return };
        let Some(member) = self.sessions.get(session) else { return };
        for consumer in &member.consumers {
            if let Some(Slot::Consumer(consuming)) = self.slots.get(consumer)
                && let Some(basket) = &consuming.basket
                && basket.drop_stale(receipt)
            {
                return;
            }
        }
    }
}
