//! Deliveries in flight: how each lease on a message ends.
//!
//! In doubt a message goes out again. That is the difference from a lock, which in doubt stays
//! held, and it lives here: whatever ends a delivery without a verdict returns the message to its
//! place.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::answer;
use crate::event::{Arrival, Event, List, Range, Why};
use crate::index::{Death, DeathReason, Delayed, Entry};
use crate::lock::Ending;
use crate::message::Headers;
use crate::outcome::{EffectKind, Outcome, Refusal};
use crate::slab::NONE;
use crate::step::Step;
use crate::topology::route;
use crate::volatile::{Flight, Timer};
use crate::{Receipt, RequestId, SessionId, Time, Token, Verdict};

impl Step<'_> {
    /// The slot of a delivery that this session may settle.
    pub(super) fn find_flight(&self, session: SessionId, receipt: Receipt) -> Result<u32, Refusal> {
        if receipt.token.0 == 0 || receipt.token.0 > self.v.token {
            return Err(Refusal::UnknownDelivery(receipt));
        }
        match self.v.flights.get(receipt.slot) {
            Some(flight) if flight.token == receipt.token.0 => {
                if self.v.sessions[flight.session].id == session {
                    Ok(receipt.slot)
                } else {
                    Err(Refusal::ForeignDelivery(receipt))
                }
            }
            _ => Err(Refusal::StaleDelivery(receipt)),
        }
    }

    pub(super) fn check_verdict(&self, verdict: Verdict) -> Result<(), Refusal> {
        match verdict {
            Verdict::Nack { delay_us } if delay_us > 0 => {
                self.check_time("the delay", delay_us).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn settle_flight(
        &mut self,
        session: SessionId,
        request: Option<RequestId>,
        receipt: Receipt,
        verdict: Verdict,
    ) -> Result<Outcome, Refusal> {
        let slot = self.find_flight(session, receipt)?;
        self.check_verdict(verdict)?;
        self.apply_verdict(slot, verdict);
        self.remember(request, answer::SETTLED, 1, 0);
        Ok(Outcome::Settled(1))
    }

    /// All receipts must be good. Acks of neighbours become one range in one record.
    pub(super) fn settle_many(
        &mut self,
        session: SessionId,
        request: Option<RequestId>,
        receipts: &[Receipt],
        verdict: Verdict,
    ) -> Result<Outcome, Refusal> {
        let parts_max = self.v.limits.credit_max as usize;
        Self::check_size("the number of deliveries", receipts.len(), parts_max)?;
        self.check_verdict(verdict)?;
        let slots = self.find_flights(receipts.iter().map(|receipt| (session, *receipt)))?;
        if verdict == Verdict::Ack {
            self.ack_flights(slots);
        } else {
            slots.into_iter().for_each(|slot| self.apply_verdict(slot, verdict));
        }
        let settled = receipts.len() as u32;
        self.remember(request, answer::SETTLED, u64::from(settled), 0);
        Ok(Outcome::Settled(settled))
    }

    /// The slots of deliveries, each named once and by the session that may settle it.
    pub(super) fn find_flights(
        &self,
        receipts: impl Iterator<Item = (SessionId, Receipt)>,
    ) -> Result<Vec<u32>, Refusal> {
        let mut slots = receipts
            .map(|(session, receipt)| self.find_flight(session, receipt))
            .collect::<Result<Vec<u32>, Refusal>>()?;
        slots.sort_unstable();
        if let Some(twice) = slots.windows(2).find(|pair| pair[0] == pair[1]) {
            let token = Token(self.v.flights[twice[0]].token);
            return Err(Refusal::SettledTwice(Receipt { slot: twice[0], token }));
        }
        Ok(slots)
    }

    fn ack_flights(&mut self, slots: Vec<u32>) {
        let mut flights: Vec<Flight> = slots.into_iter().map(|slot| self.land(slot)).collect();
        flights.sort_unstable_by_key(|flight| (flight.queue, flight.lane, flight.at));
        for group in flights.chunk_by(|a, b| (a.queue, a.lane) == (b.queue, b.lane)) {
            let mut ranges: Vec<Range> = Vec::new();
            let mut weight = 0;
            for flight in group {
                weight += u64::from(flight.entry.weight);
                match ranges.last_mut() {
                    Some(range) if range.first + range.count == flight.at => range.count += 1,
                    _ => ranges.push(Range { first: flight.at, count: 1 }),
                }
            }
            let (queue, lane) = (group[0].queue, group[0].lane);
            let ranges = List::Made(&ranges);
            self.emit(Event::Removed { queue, lane, why: Why::Acked, weight, ranges });
        }
        for flight in &flights {
            self.landed(flight);
        }
    }

    /// Ends a delivery by a verdict that was checked.
    pub(super) fn apply_verdict(&mut self, slot: u32, verdict: Verdict) {
        let flight = self.land(slot);
        let Flight { queue, lane, at, .. } = flight;
        match verdict {
            Verdict::Ack => {
                let ranges = [Range { first: at, count: 1 }];
                let ranges = List::Made(&ranges);
                let weight = u64::from(flight.entry.weight);
                self.emit(Event::Removed { queue, lane, why: Why::Acked, weight, ranges });
            }
            Verdict::Nack { delay_us } => self.fail(&flight, delay_us),
            Verdict::Reject => {
                self.die(queue, lane, at, flight.entry.clone(), DeathReason::Rejected);
            }
            Verdict::Return => {
                let side = &mut self.v.queues[queue as usize].lanes[usize::from(lane)];
                side.returned.insert(at, flight.entry.clone());
            }
        }
        self.landed(&flight);
    }

    /// Takes a delivery off the lists. Its message must be dealt with, then `landed` called.
    fn land(&mut self, slot: u32) -> Flight {
        let flight = self.v.flights.remove(slot).expect("the flight");
        self.v.wheel.cancel(flight.timer);
        if flight.next != NONE {
            self.v.flights[flight.next].prev = flight.prev;
        }
        if flight.prev != NONE {
            self.v.flights[flight.prev].next = flight.next;
        } else {
            self.v.sessions[flight.session].first_flight = flight.next;
        }
        self.v.sessions[flight.session].in_flight -= 1;
        let side = &mut self.v.queues[flight.queue as usize];
        side.in_flight -= 1;
        side.in_flight_bytes -= u64::from(flight.entry.weight);
        flight
    }

    /// Frees what a delivery held: its ordering key and its consumer's credit.
    fn landed(&mut self, flight: &Flight) {
        let side = &mut self.v.queues[flight.queue as usize];
        if flight.entry.key != 0
            && let Some(mut key) = side.keys.remove(&flight.entry.key)
            && let Some((lane, at, entry)) = key.parked.pop_front()
        {
            side.parked -= 1;
            side.lanes[usize::from(lane)].returned.insert(at, entry);
            // The others of the key wait behind it: they come back to the lane in their places.
            side.parked -= key.parked.len() as u64;
            for (lane, at, entry) in key.parked {
                side.lanes[usize::from(lane)].returned.insert(at, entry);
            }
        }
        let slot = flight.consumer.slot;
        if let Some(consumer) = self.v.consumers.get_mut(slot)
            && consumer.id == flight.consumer
        {
            consumer.in_flight -= 1;
            self.make_ready(slot);
        }
        self.look_at(flight.queue);
    }

    /// A delivery failed: again, later, or never.
    fn fail(&mut self, flight: &Flight, delay_us: Time) {
        let Flight { queue, lane, at, ref entry, .. } = *flight;
        let state = &self.d.queues[queue];
        let before = state.lanes[usize::from(lane)].attempts.get(&at).copied().unwrap_or(0);
        let failed = before.saturating_add(1);
        let attempts = entry.attempts.saturating_add(failed);
        if state.config.deliveries_max.is_some_and(|max| attempts >= max) {
            return self.die(queue, lane, at, entry.clone(), DeathReason::Deliveries);
        }
        if delay_us == 0 {
            self.emit(Event::Returned { queue, lane, at, attempts: failed });
            let side = &mut self.v.queues[queue as usize].lanes[usize::from(lane)];
            side.returned.insert(at, entry.clone());
        } else {
            let due = self.wall + delay_us;
            let entry = Entry { attempts, ..entry.clone() };
            let item = Delayed { due, queue: state.id, lane, entry };
            self.emit(Event::Deferred { queue, lane, at, item });
            self.wake_delays(due);
        }
    }

    /// A delivery was lost: its lease ran out or its session ended.
    pub(super) fn lose_flight(&mut self, slot: u32, ending: Ending) {
        let flight = self.land(slot);
        if ending == Ending::Expired
            && let Some(ticket) = self.v.sessions[flight.session].ticket
        {
            let receipt = Receipt { slot, token: Token(flight.token) };
            self.effect_now(EffectKind::DeliveryEnded(ticket, receipt, ending));
        }
        self.fail(&flight, 0);
        self.landed(&flight);
    }

    /// The queue is going away: its deliveries end, their messages with it.
    pub(super) fn drop_flights_of(&mut self, queue: u32) {
        let slots: Vec<u32> = self
            .v
            .flights
            .iter()
            .filter(|(_, flight)| flight.queue == queue)
            .map(|(slot, _)| slot)
            .collect();
        for slot in slots {
            let flight = self.land(slot);
            if let Some(consumer) = self.v.consumers.get_mut(flight.consumer.slot)
                && consumer.id == flight.consumer
            {
                consumer.in_flight -= 1;
            }
        }
    }

    pub(super) fn flight_due(&mut self, slot: u32) {
        self.v.flights[slot].timer = NONE;
        self.lose_flight(slot, Ending::Expired);
    }

    pub(super) fn extend(
        &mut self,
        session: SessionId,
        receipt: Receipt,
        lease_us: Time,
    ) -> Result<Outcome, Refusal> {
        let slot = self.find_flight(session, receipt)?;
        self.check_time("the lease", lease_us)?;
        let old = self.v.flights[slot].timer;
        self.v.wheel.cancel(old);
        self.v.flights[slot].timer = self.arm(self.now + lease_us, Timer::Flight(slot));
        Ok(Outcome::Renewed { left_us: Some(lease_us) })
    }

    /// A message that the reading side has let go of is dead: to the dead letters, or dropped.
    pub(super) fn die(
        &mut self,
        queue: u32,
        lane: u8,
        at: u64,
        mut entry: Entry,
        reason: DeathReason,
    ) {
        let mut targets = Vec::new();
        self.dead_letter_targets(queue, &entry, reason, &mut targets);
        targets.retain(|&slot| !self.is_full(slot, 1, u64::from(entry.weight)));
        if targets.is_empty() {
            let ranges = [Range { first: at, count: 1 }];
            let ranges = List::Made(&ranges);
            let weight = u64::from(entry.weight);
            return self.emit(Event::Removed {
                queue,
                lane,
                why: Why::Died(reason),
                weight,
                ranges,
            });
        }
        self.add_death(queue, &mut entry, reason);
        entry.attempts = 0;
        let arrivals: Vec<Arrival> = targets
            .iter()
            .map(|&slot| {
                let target = &self.d.queues[slot];
                let expires = target.config.ttl_us.map_or(0, |ttl| self.wall + ttl);
                // Dead letters keep no priority: the entry does not hold it.
                Arrival { queue: slot, lane: lane.min(target.config.priority_max), expires }
            })
            .collect();
        let arrivals = List::Made(&arrivals);
        let bytes_max = 16 * targets.len() + self.v.limits.entry_bytes();
        let why = Why::Died(reason);
        self.emit_large(bytes_max, Event::Moved { queue, lane, at, why, arrivals, entry });
        targets.into_iter().for_each(|slot| self.look_at(slot));
    }

    /// Where a dead message goes. A queue that it died in before, without anybody rejecting it
    /// on the way, is left out: it would go round for ever.
    fn dead_letter_targets(
        &self,
        queue: u32,
        entry: &Entry,
        reason: DeathReason,
        out: &mut Vec<u32>,
    ) {
        let state = &self.d.queues[queue];
        let Some(dead) = &state.config.dead_letter else { return };
        let kept = entry.extra.as_ref().and_then(|extra| extra.routing_key.as_deref());
        let key = dead.routing_key.as_deref().or(kept).unwrap_or(state.name.as_str());
        match &dead.exchange {
            None => out.extend(self.d.queue_named(key)),
            Some(exchange) => {
                if let Some(exchange) = self.d.exchange_named(exchange.as_str()) {
                    route(&self.d, exchange, key, &Headers::new(), out);
                }
            }
        }
        let rejected = reason == DeathReason::Rejected
            || entry.deaths().iter().any(|death| death.reason == DeathReason::Rejected);
        if !rejected {
            out.retain(|&slot| {
                let name = &self.d.queues[slot].name;
                slot != queue && entry.deaths().iter().all(|death| death.queue != *name)
            });
        }
    }

    fn add_death(&self, queue: u32, entry: &mut Entry, reason: DeathReason) {
        let name = self.d.queues[queue].name.clone();
        let extra = entry.extra.get_or_insert_with(Box::default);
        let known = extra.deaths.iter().position(|d| d.queue == name && d.reason == reason);
        let death = match known {
            Some(i) => {
                let old = extra.deaths.remove(i);
                Death { count: old.count.saturating_add(1), ..old }
            }
            None => Death { queue: name, reason, count: 1, first_at: self.wall },
        };
        if extra.deaths.len() >= self.v.limits.deaths_max {
            extra.deaths.remove(0);
        }
        extra.deaths.push(death);
    }
}
