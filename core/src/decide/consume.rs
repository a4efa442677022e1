//! Consumers: credit, one-shot receives, exclusive and single-active ones.

use crate::lock::Ending;
use crate::outcome::{Outcome, Refusal};
use crate::slab::NONE;
use crate::step::Step;
use crate::volatile::{Consumer, Timer};
use crate::{Consume, ConsumerId, Receipt, SessionId, Ticket, Wait};

impl Step<'_> {
    pub(super) fn consume(&mut self, ticket: Ticket, session: SessionId, consume: Consume) {
        let once = consume.once;
        match self.open_consumer(ticket, session, consume) {
            Ok((id, queue)) => {
                if once.is_none() {
                    self.reply_early(ticket, Ok(Outcome::Consuming(id)));
                }
                self.make_ready(id.slot);
                self.look_at(queue);
            }
            Err(refusal) => self.refuse(ticket, refusal),
        }
    }

    fn open_consumer(
        &mut self,
        ticket: Ticket,
        session: SessionId,
        consume: Consume,
    ) -> Result<(ConsumerId, u32), Refusal> {
        let Consume { queue, credit, once, no_ack, exclusive, label } = consume;
        let session_slot = self.require_session(session)?;
        let slot = self.usable_queue(session, &queue)?;
        if credit == 0 {
            return Err(Refusal::Zero("the credit"));
        }
        Self::check_size("the credit", credit as usize, self.v.limits.credit_max as usize)?;
        Self::check_limit("consumers", self.v.consumers.len(), self.v.limits.consumers_max)?;
        let label_bytes = label.as_ref().map_or(0, |label| label.len());
        Self::check_size("the label's length", label_bytes, self.v.limits.label_bytes)?;
        let timer = match once {
            Some(Wait::No | Wait::AtMost(0)) if !self.has_ready(slot) => {
                return Err(Refusal::Empty);
            }
            Some(Wait::AtMost(wait)) if wait > 0 => Some(self.check_time("the wait", wait)?),
            // What is ready is handed over within this step; should its page have to be fetched
            // first, that is not worth a refusal.
            Some(Wait::No | Wait::AtMost(_)) => Some(self.v.limits.ttl_us_min * 1000),
            _ => None,
        };
        let others = &self.v.queues[slot as usize].consumers;
        let taken = others.iter().any(|&other| self.v.consumers[other].exclusive);
        if taken || exclusive && !others.is_empty() {
            return Err(Refusal::Exclusive);
        }
        self.v.consumer_serial += 1;
        let id = ConsumerId { slot: self.v.consumers.next_slot(), serial: self.v.consumer_serial };
        let next = self.v.sessions[session_slot].first_consumer;
        let timer = match timer {
            Some(wait) => self.arm(self.now + wait, Timer::Consumer(id.slot)),
            None => NONE,
        };
        self.v.consumers.insert(Consumer {
            id,
            session: session_slot,
            queue: slot,
            ticket,
            credit: if once.is_some() { 1 } else { credit },
            in_flight: 0,
            once: once.is_some(),
            no_ack,
            exclusive,
            label,
            ready: false,
            timer,
            prev: NONE,
            next,
        });
        if next != NONE {
            self.v.consumers[next].prev = id.slot;
        }
        self.v.sessions[session_slot].first_consumer = id.slot;
        self.v.sessions[session_slot].consumers += 1;
        self.v.queues[slot as usize].consumers.push(id.slot);
        Ok((id, slot))
    }

    /// Whether a message could be delivered at once.
    fn has_ready(&self, slot: u32) -> bool {
        let side = &self.v.queues[slot as usize];
        !self.d.queues[slot].paused && self.ready_messages(slot) > side.parked
    }

    /// Puts a consumer into the ring if it has credit and its turn.
    pub(super) fn make_ready(&mut self, slot: u32) {
        let consumer = &mut self.v.consumers[slot];
        let queue = consumer.queue;
        let side = &mut self.v.queues[queue as usize];
        let stands_by = self.d.queues[queue].config.single_active && side.consumers[0] != slot;
        if !consumer.ready && consumer.in_flight < consumer.credit && !stands_by {
            consumer.ready = true;
            side.ring.push_back(slot);
        }
    }

    /// Takes a consumer away. What it has in flight stays with its session.
    pub(super) fn drop_consumer(&mut self, slot: u32) {
        let consumer = self.v.consumers.remove(slot).expect("the consumer");
        self.v.wheel.cancel(consumer.timer);
        if consumer.next != NONE {
            self.v.consumers[consumer.next].prev = consumer.prev;
        }
        if consumer.prev != NONE {
            self.v.consumers[consumer.prev].next = consumer.next;
        } else {
            self.v.sessions[consumer.session].first_consumer = consumer.next;
        }
        self.v.sessions[consumer.session].consumers -= 1;
        let side = &mut self.v.queues[consumer.queue as usize];
        side.consumers.retain(|&other| other != slot);
        side.ring.retain(|&other| other != slot);
        let next = side.consumers.first().copied();
        let Some(queue) = self.d.queues.get(consumer.queue) else { return };
        match next {
            Some(next) if queue.config.single_active => {
                self.make_ready(next);
                self.look_at(consumer.queue);
            }
            None if queue.config.auto_delete && !consumer.once => {
                self.delete_queue_slot(consumer.queue);
            }
            _ => {}
        }
    }

    fn find_consumer(&self, session: SessionId, id: ConsumerId) -> Result<u32, Refusal> {
        match self.v.consumers.get(id.slot) {
            Some(consumer)
                if consumer.id == id && self.v.sessions[consumer.session].id == session =>
            {
                Ok(id.slot)
            }
            _ => Err(Refusal::NoConsumer),
        }
    }

    pub(super) fn stop_consumer(
        &mut self,
        session: SessionId,
        id: ConsumerId,
    ) -> Result<Outcome, Refusal> {
        let slot = self.find_consumer(session, id)?;
        self.drop_consumer(slot);
        Ok(Outcome::Done)
    }

    pub(super) fn set_credit(
        &mut self,
        session: SessionId,
        id: ConsumerId,
        credit: u32,
    ) -> Result<Outcome, Refusal> {
        let slot = self.find_consumer(session, id)?;
        Self::check_size("the credit", credit as usize, self.v.limits.credit_max as usize)?;
        let consumer = &mut self.v.consumers[slot];
        consumer.credit = credit;
        if consumer.no_ack {
            // Nothing tells when such a delivery is done with: new credit stands for itself.
            consumer.in_flight = 0;
        }
        let queue = consumer.queue;
        if consumer.ready && consumer.in_flight >= credit {
            consumer.ready = false;
            self.v.queues[queue as usize].ring.retain(|&other| other != slot);
        }
        self.make_ready(slot);
        self.look_at(queue);
        Ok(Outcome::Done)
    }

    /// The record of a delivery cannot be read, so nobody got it. Its message stays in flight until
    /// the lease or the session ends, but not on its consumer's credit.
    pub(crate) fn unreadable(&mut self, id: ConsumerId, receipt: Receipt) {
        let open = match self.v.flights.get_mut(receipt.slot) {
            Some(flight) if (flight.token, flight.consumer) == (receipt.token.0, id) => {
                flight.consumer = ConsumerId { slot: NONE, serial: 0 };
                true
            }
            // Its end gave the credit back.
            _ => false,
        };
        if let Some(consumer) = self.v.consumers.get_mut(id.slot)
            && consumer.id == id
            && (open || consumer.no_ack)
        {
            // Without acks the credit may have been renewed in between.
            consumer.in_flight = consumer.in_flight.saturating_sub(1);
            let queue = consumer.queue;
            self.make_ready(id.slot);
            self.look_at(queue);
        }
    }

    /// Withdraws a one-shot consumer; false if there is none with this ticket.
    pub(super) fn cancel_consumer(&mut self, session: SessionId, ticket: Ticket) -> bool {
        let Some(session) = self.v.session(session) else { return false };
        let mut slot = self.v.sessions[session].first_consumer;
        while slot != NONE {
            let consumer = &self.v.consumers[slot];
            if consumer.once && consumer.ticket == ticket {
                self.drop_consumer(slot);
                self.refuse(ticket, Refusal::Cancelled);
                return true;
            }
            slot = consumer.next;
        }
        false
    }

    pub(super) fn consumer_due(&mut self, slot: u32) {
        let ticket = self.v.consumers[slot].ticket;
        self.v.consumers[slot].timer = NONE;
        self.drop_consumer(slot);
        self.refuse(ticket, Refusal::Empty);
    }

    /// A session ends: its deliveries go back before anyone else is served.
    pub(super) fn end_consuming(&mut self, session: u32, ending: Ending) {
        while self.v.sessions[session].first_consumer != NONE {
            let slot = self.v.sessions[session].first_consumer;
            let Consumer { once, ticket, .. } = self.v.consumers[slot];
            self.drop_consumer(slot);
            if once {
                let id = self.v.sessions[session].id;
                self.refuse(ticket, Refusal::NoSession(id));
            }
        }
        while self.v.sessions[session].first_flight != NONE {
            self.lose_flight(self.v.sessions[session].first_flight, ending);
        }
    }
}
