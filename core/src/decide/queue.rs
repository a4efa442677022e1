//! Looking at queues, emptying them, and starting them after a restart.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::event::{Event, List, Range, Why};
use crate::index::{Entry, ListId};
use crate::outcome::{ConsumerView, EffectKind, Outcome, Peeked, QueueView, Refusal};
use crate::slab::NONE;
use crate::step::Step;
use crate::volatile::{LaneSide, QueueSide};
use crate::{Name, SessionId};

/// Messages that one peek shows at most.
const PEEK_MAX: u32 = 1000;

/// Consumers that one inspect shows at most.
const VIEWS_MAX: usize = 1000;

/// Messages that one redrive moves at most.
const REDRIVE_MAX: u32 = 10_000;

impl Step<'_> {
    /// Messages that are neither in flight nor delayed.
    pub(super) fn ready_messages(&self, slot: u32) -> u64 {
        self.d.queues[slot].messages - self.v.queues[slot as usize].in_flight
    }

    pub(super) fn inspect_queue(&self, name: &Name) -> Result<Outcome, Refusal> {
        let slot = self.d.queue_named(name.as_str()).ok_or(Refusal::NoQueue)?;
        Ok(Outcome::QueueView(Box::new(self.queue_view(slot, VIEWS_MAX))))
    }

    /// A queue with at most so many of its consumers.
    pub(super) fn queue_view(&self, slot: u32, max: usize) -> QueueView {
        let queue = &self.d.queues[slot];
        let side = &self.v.queues[slot as usize];
        QueueView {
            id: queue.id,
            config: queue.config.clone(),
            ready: self.ready_messages(slot) - side.parked,
            in_flight: side.in_flight,
            delayed: queue.delayed,
            parked: side.parked,
            bytes: queue.bytes,
            consumers: side.consumers.len() as u32,
            consumer_views: side.consumers.iter().take(max).map(|&c| self.view(c)).collect(),
            paused: queue.paused,
            totals: queue.totals,
        }
    }

    fn view(&self, consumer: u32) -> ConsumerView {
        let consumer = &self.v.consumers[consumer];
        ConsumerView {
            id: consumer.id,
            session: self.v.sessions[consumer.session].id,
            credit: consumer.credit,
            in_flight: consumer.in_flight,
            label: consumer.label.clone(),
        }
    }

    pub(super) fn pause(&mut self, name: &Name, paused: bool) -> Result<Outcome, Refusal> {
        let slot = self.d.queue_named(name.as_str()).ok_or(Refusal::NoQueue)?;
        if self.d.queues[slot].paused != paused {
            self.emit(Event::QueuePaused { slot, paused });
            self.look_at(slot);
        }
        Ok(Outcome::Done)
    }

    /// Removes what waits. Deliveries in flight and delayed messages stay.
    pub(super) fn purge(&mut self, session: SessionId, name: &Name) -> Result<Outcome, Refusal> {
        let slot = self.usable_queue(session, name)?;
        let purged = self.ready_messages(slot);
        let in_flight = self.v.queues[slot as usize].in_flight_bytes;
        let mut weight = self.d.queues[slot].bytes - in_flight;
        let side = &mut self.v.queues[slot as usize];
        side.keys.values_mut().for_each(|key| key.parked.clear());
        side.parked = 0;
        for lane in 0..self.d.queues[slot].lanes.len() {
            let tail = self.d.queues[slot].lanes[lane].tail;
            let side = &mut self.v.queues[slot as usize].lanes[lane];
            side.returned.clear();
            side.cursor = tail;
            let ranges = self.free_ranges(slot, lane as u8, tail);
            for chunk in ranges.chunks(1024) {
                let ranges = List::Made(chunk);
                let why = Why::Purged;
                self.emit(Event::Removed { queue: slot, lane: lane as u8, why, weight, ranges });
                // The bytes of all lanes are taken off with the first record.
                weight = 0;
            }
        }
        Ok(Outcome::Dropped(purged))
    }

    /// The positions of a lane that are not in flight, as ranges.
    fn free_ranges(&self, slot: u32, lane: u8, tail: u64) -> Vec<Range> {
        let mut taken: Vec<u64> = self
            .v
            .flights
            .iter()
            .filter(|(_, flight)| flight.queue == slot && flight.lane == lane)
            .map(|(_, flight)| flight.at)
            .collect();
        taken.sort_unstable();
        let front = self.d.queues[slot].lanes[usize::from(lane)].pages.front();
        let mut first = front.map_or(tail, |page| page.base);
        let mut ranges = Vec::new();
        for at in taken.into_iter().chain([tail]) {
            if at > first {
                ranges.push(Range { first, count: at - first });
            }
            first = at + 1;
        }
        ranges
    }

    /// The next messages, without taking them.
    pub(super) fn peek(
        &mut self,
        session: SessionId,
        name: &Name,
        max: u32,
    ) -> Result<Outcome, Refusal> {
        let slot = self.usable_queue(session, name)?;
        Self::check_size("the number of messages", max as usize, PEEK_MAX as usize)?;
        let found = self.look_ahead(slot, max)?;
        let peeked = found
            .into_iter()
            .map(|(lane, at, entry)| {
                let attempts = &self.d.queues[slot].lanes[usize::from(lane)].attempts;
                let failed = attempts.get(&at).copied().unwrap_or(0);
                Peeked {
                    place: entry.place,
                    attempts: u32::from(entry.attempts) + u32::from(failed),
                    deaths: entry.deaths().to_vec(),
                }
            })
            .collect();
        Ok(Outcome::Peeked(peeked))
    }

    /// The next messages in the order of delivery.
    fn look_ahead(&mut self, slot: u32, max: u32) -> Result<Vec<(u8, u64, Entry)>, Refusal> {
        let mut found = Vec::new();
        for lane in (0..self.d.queues[slot].lanes.len()).rev() {
            let side = &self.v.queues[slot as usize].lanes[lane];
            let left = max as usize - found.len();
            let returned = side.returned.iter().take(left);
            found.extend(returned.map(|(at, entry)| (lane as u8, *at, entry.clone())));
            let mut at = side.cursor;
            while found.len() < max as usize {
                let state = &self.d.queues[slot].lanes[lane];
                let Some(live) = state.next_live(at) else { break };
                let page = &state.pages[state.page_of(live).expect("live positions have a page")];
                let Some(entry) = page.item(live) else {
                    let place = page.stored.expect("a page that is not resident is stored");
                    let list = ListId::Lane(slot, lane as u8);
                    let base = page.base;
                    self.effect_now(EffectKind::LoadPage(list, base, place));
                    self.keeps_pages = true;
                    return Err(Refusal::PageNeeded);
                };
                found.push((lane as u8, live, entry.clone()));
                at = live + 1;
            }
        }
        Ok(found)
    }

    /// Moves the next messages to another queue, or each to where it died first. Deaths and
    /// attempts are forgotten: the message starts anew.
    pub(super) fn redrive(
        &mut self,
        session: SessionId,
        from: &Name,
        to: Option<&Name>,
        max: u32,
    ) -> Result<Outcome, Refusal> {
        let slot = self.usable_queue(session, from)?;
        Self::check_size("the number of messages", max as usize, REDRIVE_MAX as usize)?;
        let fixed = match to {
            Some(name) => Some(self.usable_queue(session, name)?),
            None => None,
        };
        if fixed == Some(slot) {
            return Err(Refusal::BadSettings("a queue cannot be redriven to itself; name another"));
        }
        let mut moved = 0;
        for (lane, at, entry) in self.look_ahead(slot, max)? {
            let home = || self.d.queue_named(entry.deaths().first()?.queue.as_str());
            let Some(target) = fixed.or_else(home).filter(|target| *target != slot) else {
                continue;
            };
            if self.is_full(target, 1, u64::from(entry.weight)) {
                if moved == 0 && fixed.is_some() {
                    return Err(Refusal::QueueFull(self.d.queues[target].name.clone()));
                }
                continue;
            }
            self.move_message(slot, lane, at, entry, target);
            moved += 1;
        }
        self.look_at(slot);
        Ok(Outcome::Moved(moved))
    }

    fn move_message(&mut self, slot: u32, lane: u8, at: u64, mut entry: Entry, target: u32) {
        let side = &mut self.v.queues[slot as usize].lanes[usize::from(lane)];
        if side.returned.remove(&at).is_none() && at == side.cursor {
            side.cursor += 1;
        }
        if let Some(extra) = &mut entry.extra {
            extra.deaths.clear();
        }
        entry.extra = entry.extra.take().filter(|extra| extra.routing_key.is_some());
        entry.attempts = 0;
        let queue = &self.d.queues[target];
        let expires = queue.config.ttl_us.map_or(0, |ttl| self.wall + ttl);
        let lane_to = lane.min(queue.config.priority_max);
        let arrivals = [crate::event::Arrival { queue: target, lane: lane_to, expires }];
        let arrivals = List::Made(&arrivals);
        self.emit(Event::Moved { queue: slot, lane, at, why: Why::Redriven, arrivals, entry });
        self.look_at(target);
    }

    /// A fresh reading side for a queue.
    pub(super) fn fresh_side(&mut self, slot: u32) {
        let lanes = self.d.queues[slot].lanes.len();
        let listed = self.v.queue_mut(slot).listed;
        *self.v.queue_mut(slot) = QueueSide {
            timer: NONE,
            lanes: alloc::vec![LaneSide::default(); lanes],
            listed,
            ..QueueSide::default()
        };
    }

    /// After a restart every live message waits again; what may have been delivered says so.
    pub(super) fn boot_queues(&mut self) {
        let slots: Vec<u32> = self.d.queues.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.fresh_side(slot);
            for lane in 0..self.d.queues[slot].lanes.len() {
                let state = &self.d.queues[slot].lanes[lane];
                let front = state.pages.front().map_or(state.tail, |page| page.base);
                let side = &mut self.v.queues[slot as usize].lanes[lane];
                side.cursor = front;
                // The horizon reaches ahead; what comes after the restart is new all the same.
                side.delivered_before = state.horizon.min(state.tail);
            }
            self.look_at(slot);
        }
        self.boot_delays();
    }
}
