//! `evolve`: the only way the durable half changes.
//!
//! It has no rules and cannot refuse: an event says what is so now. It runs once when a decision is
//! made, so that the next decision sees it, and again on replay. A slot that an event names and the
//! state lacks means that the journal does not belong to this state: that is a bug, and it stops.

mod locks;
pub(crate) mod queues;
mod topology;

use core::ops::Deref;

use crate::checkpoint::CellKey;
use crate::event::Event;
use crate::{Durable, Position, Time};

/// Where and when an event was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Its number in the journal, without gaps.
    pub sequence: u64,
    /// The shard's time.
    pub at: Time,
    /// Where its record lies.
    pub position: Position,
    /// The record's length in bytes.
    pub size: u32,
}

/// A durable half that can be read by anyone and changed by `evolve` only.
#[derive(Debug)]
pub struct Guarded<'a>(&'a mut Durable);

impl<'a> Guarded<'a> {
    pub(crate) fn new(state: &'a mut Durable) -> Self {
        Self(state)
    }

    pub(crate) fn evolve(&mut self, stamp: Stamp, event: &Event<'_>) {
        self.0.evolve(stamp, event);
    }

    pub(crate) fn cache(&mut self) -> &mut Durable {
        self.0
    }
}

impl Deref for Guarded<'_> {
    type Target = Durable;
    #[inline]
    fn deref(&self) -> &Durable {
        self.0
    }
}

impl Durable {
    /// Applies one event.
    // long: one arm per event, each a single call.
    pub fn evolve(&mut self, stamp: Stamp, event: &Event<'_>) {
        debug_assert!(stamp.sequence > self.sequence, "events come in order");
        debug_assert!(stamp.at >= self.at, "time does not go back");
        self.sequence = stamp.sequence;
        self.at = stamp.at;
        self.position = stamp.position;
        match *event {
            Event::Booted { epoch, wall_offset, grace_us, shape } => {
                self.shape = shape;
                self.epoch = epoch;
                self.wall_offset = wall_offset;
                self.boot_queues();
                self.boot_locks(stamp.at, grace_us);
            }
            Event::TokensReserved { upto } => self.token_high = self.token_high.max(upto),
            Event::Granted(ref granted) => self.grant(stamp.at, granted),
            Event::Entered { slot, entries, deadline } => self.enter(slot, entries, deadline),
            Event::Ended { slot, delay_until, keep, .. } => self.end(slot, delay_until, keep),
            Event::LockFreed { slot } => self.free_lock(slot),
            Event::Written { slot, key, value, version, expires } => {
                self.write(slot, key, value, version, expires);
            }
            Event::Unwritten { slot, version } => self.unwrite(slot, version),
            Event::Keyed { slot, key, version, expires, claim, fresh, edits } => {
                self.key(stamp.at, slot, key, (version, expires, claim), fresh, edits);
            }
            Event::Unclaimed { slot, version } => self.unwrite(slot, version),
            Event::Emptied { space, version } => self.empty_space(space, version),
            Event::Cleared { ref slots } => self.clear_registers(slots),
            Event::QueueDeclared { slot, serial, name, owner, config } => {
                self.declare_queue(slot, serial, name, owner, config);
            }
            Event::QueueDeleted { slot } => self.delete_queue(slot),
            Event::QueuePaused { slot, paused } => {
                self.queues[slot].paused = paused;
                self.touch_queue(slot);
            }
            Event::ExchangeDeclared { slot, name, config } => {
                self.declare_exchange(slot, name, config);
            }
            Event::ExchangeDeleted { slot } => self.delete_exchange(slot),
            Event::Bound { exchange, key, to, arguments, match_all } => {
                self.bind(exchange, key, to, arguments, match_all);
            }
            Event::Unbound { exchange, key, to, arguments, match_all } => {
                self.unbind(exchange, key, to, arguments, match_all);
            }
            Event::Published { due, key, id, ref arrivals, ref envelope } => {
                self.publish(stamp, due, key, id, arrivals, envelope.routing_key);
            }
            Event::Removed { queue, lane, why, weight, ref ranges } => {
                self.remove(queue, lane, why, weight, ranges);
            }
            Event::Returned { queue, lane, at, attempts } => {
                let state = &mut self.queues[queue];
                state.lanes[usize::from(lane)].attempts.insert(at, attempts);
                state.totals.returned += 1;
                self.touch_queue(queue);
            }
            Event::Deferred { queue, lane, at, ref item } => self.defer(queue, lane, at, item),
            Event::Moved { queue, lane, at, why, ref arrivals, ref entry } => {
                self.move_on(queue, lane, at, why, arrivals, entry);
            }
            Event::RunStarted { run } => self.start_run(run),
            Event::Promoted { run, count, items } => self.promote(run, count, items),
            Event::PageStored { list, base, items } => self.store_page(stamp, list, base, items),
            Event::Relocated { list, base, at, .. } => self.relocate(stamp, list, base, at),
            Event::HorizonRaised { queue, lane, upto } => {
                self.queues[queue].lanes[usize::from(lane)].horizon = upto;
                self.touch_queue(queue);
            }
            Event::Requested { id, answer } => {
                let oldest = stamp.at.saturating_sub(self.shape.request_window_us);
                self.requests.push(id, stamp.at, answer);
                self.requests.trim(oldest, self.shape.requests_max as usize);
            }
        }
    }

    /// Applies one event of a journal that is being replayed. Pages leave memory as soon as they
    /// are stored, so replay needs no more of it than running does.
    pub fn replay(&mut self, stamp: Stamp, event: &Event<'_>) {
        self.evolve(stamp, event);
        if let Event::PageStored { list, base, .. } = *event {
            self.uncache_page(list, base);
        }
    }

    pub(crate) fn touch_queue(&mut self, slot: u32) {
        if self.queues[slot].mark.touch() {
            self.changed.touched(CellKey::Queue(slot));
        }
    }
}
