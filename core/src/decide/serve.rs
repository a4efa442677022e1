//! Serving a queue: expiry at the head, overflow, and dispatch to consumers with credit.
//!
//! The ring holds consumers that have credit, the next to be served first, so dispatch is fair and
//! deterministic. Messages come highest priority first; within a lane, returned ones (which stand
//! before everything never delivered) and then the cursor. A message whose ordering key is in
//! flight is parked behind it; a lease on the key is the same idea as a lock on it.

use crate::event::{Event, List, Range, Why};
use crate::index::{DeathReason, Entry, ListId};
use crate::outcome::{Delivery, EffectKind};
use crate::queue::Overflow;
use crate::slab::NONE;
use crate::step::Step;
use crate::volatile::{Flight, Timer};
use crate::{Receipt, Token};

/// Positions that one journal record reserves as possibly delivered.
const HORIZON_BLOCK: u64 = 4096;

/// The next message of a queue.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub lane: u8,
    pub at: u64,
    pub entry: Entry,
    returned: bool,
}

enum Next {
    Message(Head),
    Nothing,
    /// Its page is being fetched.
    Loading,
}

impl Step<'_> {
    /// Does what there is to do for a queue, `work` messages at most.
    pub(super) fn serve_queue(&mut self, slot: u32, work: &mut usize) {
        if self.d.queues.get(slot).is_none() {
            return;
        }
        loop {
            let full = self.is_over_limit(slot);
            let can_deliver = self.consumer_waits(slot) && self.has_room(slot);
            if !full && !can_deliver && !self.may_expire(slot) {
                return;
            }
            if *work == 0 {
                return self.look_at(slot);
            }
            let head = match self.next_message(slot, full) {
                Next::Message(head) => head,
                Next::Nothing | Next::Loading => return,
            };
            if head.entry.expires != 0 && head.entry.expires <= self.wall {
                self.take_head(slot, &head);
                self.die(slot, head.lane, head.at, head.entry, DeathReason::Expired);
            } else if full {
                self.take_head(slot, &head);
                self.die(slot, head.lane, head.at, head.entry, DeathReason::Overflow);
            } else if !can_deliver {
                return self.wake_at_expiry(slot, head.entry.expires);
            } else if head.entry.key != 0
                && self.v.queues[slot as usize].keys.contains_key(&head.entry.key)
            {
                if self.v.queues[slot as usize].parked >= self.v.limits.parked_max as u64 {
                    return;
                }
                self.take_head(slot, &head);
                self.park(slot, head);
            } else {
                self.take_head(slot, &head);
                self.deliver(slot, head);
            }
            *work -= 1;
        }
    }

    fn is_over_limit(&self, slot: u32) -> bool {
        let queue = &self.d.queues[slot];
        queue.config.overflow == Overflow::DropOldest
            && (queue.config.messages_max.is_some_and(|max| queue.messages > max)
                || queue.config.bytes_max.is_some_and(|max| queue.bytes > max))
    }

    /// Whether a queue that refuses has no room for so much more. Such a queue never drops what it
    /// took, so whoever brings messages into it asks first: publish, redrive and death.
    pub(super) fn is_full(&self, slot: u32, messages: u64, bytes: u64) -> bool {
        let queue = &self.d.queues[slot];
        let (is, is_bytes) = (queue.messages + queue.delayed, queue.bytes);
        queue.config.overflow == Overflow::Reject
            && (queue.config.messages_max.is_some_and(|max| is + messages > max)
                || queue.config.bytes_max.is_some_and(|max| is_bytes + bytes > max))
    }

    /// Whether a delivery could be made if there is a message.
    fn consumer_waits(&self, slot: u32) -> bool {
        self.v.queues.get(slot as usize).is_some_and(|side| !side.ring.is_empty())
            && !self.d.queues[slot].paused
    }

    /// Whether one more delivery may be in flight; if not, the queue is let in when one ends.
    fn has_room(&mut self, slot: u32) -> bool {
        if self.v.flights.len() < self.v.limits.in_flight_max {
            return true;
        }
        let side = &mut self.v.queues[slot as usize];
        if !core::mem::replace(&mut side.crowded, true) {
            self.v.crowded.push_back(slot);
        }
        false
    }

    /// Whether messages at the front may run out of time without a delivery.
    fn may_expire(&self, slot: u32) -> bool {
        let queue = &self.d.queues[slot];
        queue.config.ttl_us.is_some()
            || queue.lanes.iter().any(|lane| lane.pages.front().is_some_and(|page| page.least != 0))
    }

    fn wake_at_expiry(&mut self, slot: u32, expires: crate::Time) {
        let side = &self.v.queues[slot as usize];
        if expires != 0 && side.timer == NONE {
            let at = self.now + (expires - self.wall);
            let timer = self.arm(at, Timer::Queue(slot));
            self.v.queues[slot as usize].timer = timer;
        }
    }

    /// The next message to deliver; `lowest`: of the lowest priority, to drop.
    fn next_message(&mut self, slot: u32, lowest: bool) -> Next {
        let lanes = self.d.queues[slot].lanes.len();
        for i in 0..lanes {
            let lane = if lowest { i } else { lanes - 1 - i };
            let side = &self.v.queues[slot as usize].lanes[lane];
            if let Some((&at, entry)) = side.returned.first_key_value() {
                let entry = entry.clone();
                return Next::Message(Head { lane: lane as u8, at, entry, returned: true });
            }
            let state = &self.d.queues[slot].lanes[lane];
            if side.cursor >= state.tail {
                continue;
            }
            let Some(at) = state.next_live(side.cursor) else { continue };
            let page = &state.pages[state.page_of(at).expect("live positions have a page")];
            if let Some(entry) = page.item(at) {
                let entry = entry.clone();
                return Next::Message(Head { lane: lane as u8, at, entry, returned: false });
            }
            let base = page.base;
            let place = page.stored.expect("a page that is not resident is stored");
            let side = &mut self.v.queues[slot as usize];
            if !core::mem::replace(&mut side.loading, true) {
                self.effect_now(EffectKind::LoadPage(ListId::Lane(slot, lane as u8), base, place));
            }
            return Next::Loading;
        }
        Next::Nothing
    }

    /// Moves the reading side past a message.
    fn take_head(&mut self, slot: u32, head: &Head) {
        let side = &mut self.v.queues[slot as usize].lanes[usize::from(head.lane)];
        if head.returned {
            side.returned.remove(&head.at);
            return;
        }
        side.cursor = head.at + 1;
        // A stored page that has been read through has no business in memory.
        let state = &self.d.queues[slot].lanes[usize::from(head.lane)];
        let page = &state.pages[state.page_of(head.at).expect("the head has a page")];
        if head.at + 1 == page.base + u64::from(page.count) && page.stored.is_some() {
            let base = page.base;
            self.cache().uncache_page(ListId::Lane(slot, head.lane), base);
        }
    }

    fn park(&mut self, slot: u32, head: Head) {
        let side = &mut self.v.queues[slot as usize];
        let key = side.keys.get_mut(&head.entry.key).expect("its key is in flight");
        key.parked.push_back((head.lane, head.at, head.entry));
        side.parked += 1;
    }

    fn deliver(&mut self, slot: u32, head: Head) {
        let Head { lane, at, entry, .. } = head;
        let state = &self.d.queues[slot].lanes[usize::from(lane)];
        let failed =
            if state.attempts.is_empty() { 0 } else { *state.attempts.get(&at).unwrap_or(&0) };
        let attempts = u32::from(entry.attempts) + u32::from(failed);
        if at >= state.horizon {
            let upto = at + HORIZON_BLOCK;
            self.emit(Event::HorizonRaised { queue: slot, lane, upto });
        }
        let token = self.next_token();
        let side = &mut self.v.queues[slot as usize];
        let redelivered = attempts > 0 || at < side.lanes[usize::from(lane)].delivered_before;
        let consumer_slot = side.ring.pop_front().expect("a consumer waits");
        let consumer = &self.v.consumers[consumer_slot];
        let (id, ticket, session) = (consumer.id, consumer.ticket, consumer.session);
        let (no_ack, once) = (consumer.no_ack, consumer.once);
        let delivery = Delivery {
            receipt: Receipt { slot: NONE, token: Token(token) },
            consumer: id,
            once,
            queue: self.d.queues[slot].id,
            attempt: attempts + 1,
            redelivered,
            place: entry.place,
            deaths: entry.deaths().to_vec(),
        };
        if no_ack {
            let ranges = [Range { first: at, count: 1 }];
            let ranges = List::Made(&ranges);
            let weight = u64::from(entry.weight);
            self.emit(Event::Removed { queue: slot, lane, why: Why::Acked, weight, ranges });
            self.effect(EffectKind::Deliver(ticket, delivery));
            self.charge(consumer_slot);
        } else {
            let flight = self.take_off(slot, lane, at, entry, session, id, token);
            let receipt = Receipt { slot: flight, token: Token(token) };
            self.effect(EffectKind::Deliver(ticket, Delivery { receipt, ..delivery }));
            self.charge(consumer_slot);
        }
        if once {
            self.drop_consumer(consumer_slot);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of a flight, each once")]
    fn take_off(
        &mut self,
        queue: u32,
        lane: u8,
        at: u64,
        entry: Entry,
        session: u32,
        consumer: crate::ConsumerId,
        token: u64,
    ) -> u32 {
        let lease = self.d.queues[queue].config.lease_us;
        let side = &mut self.v.queues[queue as usize];
        side.in_flight += 1;
        side.in_flight_bytes += u64::from(entry.weight);
        if entry.key != 0 {
            side.keys.entry(entry.key).or_default();
        }
        let next = self.v.sessions[session].first_flight;
        let flight = self.v.flights.insert(Flight {
            token,
            queue,
            at,
            lane,
            entry,
            session,
            consumer,
            timer: NONE,
            prev: NONE,
            next,
        });
        if next != NONE {
            self.v.flights[next].prev = flight;
        }
        self.v.sessions[session].first_flight = flight;
        self.v.sessions[session].in_flight += 1;
        if let Some(lease) = lease {
            self.v.flights[flight].timer = self.arm(self.now + lease, Timer::Flight(flight));
        }
        flight
    }

    /// Counts a delivery against a consumer's credit; with credit left it goes to the ring's end.
    fn charge(&mut self, slot: u32) {
        let consumer = &mut self.v.consumers[slot];
        consumer.in_flight += 1;
        if consumer.in_flight < consumer.credit {
            let queue = consumer.queue;
            self.v.queues[queue as usize].ring.push_back(slot);
        } else {
            consumer.ready = false;
        }
    }
}
