//! Waiting for locks: lines in order of arrival, inside the state, so fairness is deterministic.
//!
//! ```text
//! line "a":  W1 ── W2 ── W4        W2 wants a and b: it stands in both lines and is granted
//! line "b":  W2 ── W3              when it is first in both and both admit it
//! ```
//! A waiter enters all its lines in one step, so all lines agree on who came first: the oldest
//! waiter of all is first wherever it stands, and lines cannot block each other for ever. Nobody
//! passes: a reader behind a waiting writer waits too, so writers do not starve. Letting small
//! requests pass a blocked multi-lock was rejected, because a busy pair of locks would then starve
//! whoever wants both; a try that does not wait passes nobody either, be it a lease's or that of a
//! key that is to be a lock. Lines are volatile: after a restart clients ask again.

use alloc::vec::Vec;

use super::answer;
use crate::outcome::{Outcome, Refusal};
use crate::slab::NONE;
use crate::step::Step;
use crate::volatile::{Timer, WaitLine, WaitPlace, Waiter};
use crate::{Name, RequestId, SessionId, Ticket, Time, Wait};

impl Step<'_> {
    /// Puts a waiter at the end of all its lines. Its timer and session link are made here; the
    /// caller has checked the limits.
    pub(super) fn enqueue(&mut self, mut waiter: Waiter) {
        let (ticket, session, request) = (waiter.ticket, waiter.session, waiter.request);
        let due = match waiter.acquire.wait {
            Wait::AtMost(time) => self.now + time,
            Wait::No | Wait::Forever => 0,
        };
        waiter.next = NONE;
        waiter.prev = NONE;
        let slot = self.v.waiters.next_slot();
        let wants: Vec<_> =
            waiter.acquire.wants.iter().map(|(name, mode)| (name.clone(), mode)).collect();
        let multi = u32::from(wants.len() > 1);
        for (name, mode) in wants {
            let line = self.line_or_new(&name);
            let prev = self.v.lines[line].last;
            let place =
                self.v.places.insert(WaitPlace { waiter: slot, line, mode, prev, next: NONE });
            if prev != NONE {
                self.v.places[prev].next = place;
            } else {
                self.v.lines[line].first = place;
            }
            let line = &mut self.v.lines[line];
            line.last = place;
            line.len += 1;
            line.multi += multi;
            waiter.places.push(place);
        }
        waiter.timer = self.arm(due, Timer::Waiter(slot));
        if session != NONE {
            let session = &mut self.v.sessions[session];
            session.waiting += 1;
            waiter.next = core::mem::replace(&mut session.first_waiter, slot);
        }
        if let Some(next) = self.v.waiters.get_mut(waiter.next) {
            next.prev = slot;
        }
        self.v.waiters.insert_at(slot, waiter);
        self.v.waiter_index.insert(self.v.waiter_index.hash_u64(ticket.0), slot);
        if let Some(id) = request {
            self.v.request_index.insert(self.request_hash(id), slot);
        }
    }

    fn line_or_new(&mut self, name: &Name) -> u32 {
        if let Some(line) = self.v.line_for(name.as_str()) {
            return line;
        }
        let line = self.v.lines.insert(WaitLine {
            name: name.clone(),
            first: NONE,
            last: NONE,
            len: 0,
            multi: 0,
            hold_average_us: 0,
        });
        self.v.line_index.insert(self.v.line_index.hash_bytes(name.as_bytes()), line);
        line
    }

    fn request_hash(&self, id: RequestId) -> u32 {
        self.v.request_index.hash_u64(id.0 as u64 ^ (id.0 >> 64) as u64)
    }

    /// The waiter that a ticket belongs to.
    fn waiter_with(&self, ticket: Ticket) -> Option<u32> {
        let hash = self.v.waiter_index.hash_u64(ticket.0);
        self.v.waiter_index.find(hash, |slot| self.v.waiters[slot].ticket == ticket)
    }

    /// The waiter that came with a request id.
    pub(super) fn waiter_for(&self, id: RequestId) -> Option<u32> {
        let find = |slot| self.v.waiters[slot].request == Some(id);
        self.v.request_index.find(self.request_hash(id), find)
    }

    /// Lets a waiter answer to another ticket, after its connection was lost and it asked again.
    pub(super) fn redirect(&mut self, waiter: u32, ticket: Ticket) {
        let old = core::mem::replace(&mut self.v.waiters[waiter].ticket, ticket);
        if old != ticket {
            let (gone, come) =
                (self.v.waiter_index.hash_u64(old.0), self.v.waiter_index.hash_u64(ticket.0));
            self.v.waiter_index.remove(gone, waiter);
            self.v.waiter_index.insert(come, waiter);
            // Every ticket is answered once, also one that nobody listens to any more.
            self.refuse(old, Refusal::RequestWaiting);
        }
    }

    /// Takes a waiter out of everything; those behind it are served before the step ends.
    pub(super) fn remove_waiter(&mut self, slot: u32) {
        let waiter = self.unlink_waiter(slot);
        self.v.free.extend(waiter.acquire.wants.iter().map(|(name, _)| name.clone()));
    }

    fn unlink_waiter(&mut self, slot: u32) -> Waiter {
        let waiter = self.v.waiters.remove(slot).expect("a waiter");
        self.v.wheel.cancel(waiter.timer);
        self.v.waiter_index.remove(self.v.waiter_index.hash_u64(waiter.ticket.0), slot);
        if let Some(id) = waiter.request {
            self.v.request_index.remove(self.request_hash(id), slot);
        }
        if let Some(next) = self.v.waiters.get_mut(waiter.next) {
            next.prev = waiter.prev;
        }
        if let Some(prev) = self.v.waiters.get_mut(waiter.prev) {
            prev.next = waiter.next;
        } else if waiter.session != NONE {
            self.v.sessions[waiter.session].first_waiter = waiter.next;
        }
        if waiter.session != NONE {
            self.v.sessions[waiter.session].waiting -= 1;
        }
        let multi = u32::from(waiter.places.len() > 1);
        for &place in &waiter.places {
            self.unlink_place(place, multi);
        }
        waiter
    }

    fn unlink_place(&mut self, place: u32, multi: u32) {
        let place = self.v.places.remove(place).expect("a waiter's place");
        if let Some(next) = self.v.places.get_mut(place.next) {
            next.prev = place.prev;
        } else {
            self.v.lines[place.line].last = place.prev;
        }
        if let Some(prev) = self.v.places.get_mut(place.prev) {
            prev.next = place.next;
        } else {
            self.v.lines[place.line].first = place.next;
        }
        let line = &mut self.v.lines[place.line];
        line.len -= 1;
        line.multi -= multi;
        if line.len == 0 {
            let line = self.v.lines.remove(place.line).expect("the line of a place");
            let hash = self.v.line_index.hash_bytes(line.name.as_bytes());
            self.v.line_index.remove(hash, place.line);
        }
    }

    /// Grants a lock to those who wait for it, in order, as far as it goes.
    pub(crate) fn serve_line(&mut self, name: &Name) {
        while let Some(line) = self.v.line_for(name.as_str()) {
            let first = self.v.places[self.v.lines[line].first].waiter;
            if !self.may_enter(first) {
                return;
            }
            let waiter = self.unlink_waiter(first);
            // The grant and the memory of its request: a crash must not part them.
            self.together(0);
            let outcome = self.grant(waiter.session, waiter.session_id, &waiter.acquire);
            if let Outcome::Granted { token, .. } = outcome {
                self.remember(waiter.request, answer::GRANTED, token.0, 0);
            }
            self.apart();
            let waited = self.now - waiter.arrived;
            let waits = &mut self.v.lock_waits;
            waits.grants += 1;
            waits.sum_us += waited;
            waits.longest_us = waits.longest_us.max(waited);
            self.reply(waiter.ticket, Ok(outcome));
            let others = waiter.acquire.wants.iter().map(|(other, _)| other);
            self.v.free.extend(others.filter(|other| *other != name).cloned());
        }
    }

    /// Whether somebody waits for a lock; then how long those may still hold whom the first one
    /// waits for, if that has an end.
    pub(crate) fn awaited(&self, name: &Name) -> Option<Option<Time>> {
        let line = &self.v.lines[self.v.line_for(name.as_str())?];
        let first = &self.v.waiters[self.v.places[line.first].waiter];
        let holds = first.acquire.wants.iter().filter_map(|(other, _)| self.newest_hold(other));
        Some(holds.filter_map(|(_, deadline)| self.left(deadline)).max())
    }

    /// Whether a waiter is first in all its lines and every lock admits it.
    fn may_enter(&self, waiter: u32) -> bool {
        let waiter = &self.v.waiters[waiter];
        waiter.places.iter().all(|&place| self.v.places[place].prev == NONE)
            && waiter.acquire.wants.iter().all(|(name, mode)| self.admits(name, mode))
    }

    pub(crate) fn cancel(
        &mut self,
        session: SessionId,
        ticket: Ticket,
    ) -> Result<Outcome, Refusal> {
        match self.waiter_with(ticket) {
            Some(slot) if self.v.waiters[slot].session_id == session => {
                self.remove_waiter(slot);
                self.refuse(ticket, Refusal::Cancelled);
                Ok(Outcome::Done)
            }
            _ if self.cancel_watcher(session, ticket) => Ok(Outcome::Done),
            _ if self.cancel_consumer(session, ticket) => Ok(Outcome::Done),
            _ => Err(Refusal::NothingToCancel),
        }
    }

    pub(crate) fn waiter_due(&mut self, slot: u32) {
        let Some(waiter) = self.v.waiters.get_mut(slot) else { return };
        waiter.timer = NONE;
        let ticket = waiter.ticket;
        if let Wait::AtMost(time) = waiter.acquire.wait {
            let due = waiter.arrived + time;
            if due > self.now {
                self.v.waiters[slot].timer = self.arm(due, Timer::Waiter(slot));
                return;
            }
        }
        self.remove_waiter(slot);
        self.refuse(ticket, Refusal::TimedOut);
    }
}
