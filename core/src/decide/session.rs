//! Sessions: who holds, and what happens to all of it when the holder is gone.
//!
//! A session is volatile, its grants are not. After a restart every session that a grant names
//! stands there again as an *orphan*: without a ticket, for a grace, so that whoever reconnects
//! takes up what it held. Journaling sessions was rejected: a connection would cost two records,
//! and all that must survive of a session is its number, which the grants carry.
//!
//! A sign of life only moves the deadline; the timer stays where it is and is set again when it
//! fires too early, so a million sessions renewing themselves never touch the wheel.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::event::Event;
use crate::lock::Ending;
use crate::outcome::{EffectKind, Outcome, Refusal};
use crate::slab::NONE;
use crate::step::Step;
use crate::volatile::{GrantSide, Session, Timer};
use crate::{SessionId, Ticket, Time};

impl Step<'_> {
    pub(crate) fn open_session(
        &mut self,
        ticket: Ticket,
        ttl_us: Option<Time>,
        resume: Option<SessionId>,
        label: Option<Arc<str>>,
    ) -> Result<Outcome, Refusal> {
        if let Some(ttl) = ttl_us {
            self.check_time("the session's TTL", ttl)?;
        }
        let label_bytes = label.as_ref().map_or(0, |label| label.len());
        Self::check_size("the label's length", label_bytes, self.v.limits.label_bytes)?;
        let deadline = ttl_us.map_or(0, |ttl| self.now + ttl);
        if let Some(id) = resume {
            let slot = self.v.session(id).ok_or(Refusal::NoSession(id))?;
            let session = &mut self.v.sessions[slot];
            let orphan = session.ticket.replace(ticket).is_none();
            (session.ttl_us, session.deadline, session.label) = (ttl_us, deadline, label);
            self.v.wheel.cancel(self.v.sessions[slot].timer);
            self.v.sessions[slot].timer = self.arm(deadline, Timer::Session(slot));
            if orphan {
                self.lift_grace(slot);
            }
            return Ok(Outcome::Session { id, resumed: true });
        }
        Self::check_limit("sessions", self.v.sessions.len(), self.v.limits.sessions_max)?;
        let id = SessionId(self.next_token());
        self.insert_session(id, Some(ticket), ttl_us, deadline, label);
        Ok(Outcome::Session { id, resumed: false })
    }

    fn insert_session(
        &mut self,
        id: SessionId,
        ticket: Option<Ticket>,
        ttl_us: Option<Time>,
        deadline: Time,
        label: Option<Arc<str>>,
    ) -> u32 {
        let slot = self.v.sessions.insert(Session {
            id,
            ttl_us,
            deadline,
            timer: NONE,
            ticket,
            label,
            first_grant: NONE,
            first_waiter: NONE,
            first_watcher: NONE,
            first_consumer: NONE,
            first_flight: NONE,
            holds: 0,
            waiting: 0,
            consumers: 0,
            in_flight: 0,
            queues: Vec::new(),
        });
        self.v.session_index.insert(self.v.session_index.hash_u64(id.0), slot);
        self.v.sessions[slot].timer = self.arm(deadline, Timer::Session(slot));
        slot
    }

    /// The restart gave session-tenured grants a deadline; its holder is back, so their tenure
    /// applies again. Never shortens: the holder may count on what it was told before.
    fn lift_grace(&mut self, slot: u32) {
        let mut next = self.v.sessions[slot].first_grant;
        while next != NONE {
            let grant = next;
            next = self.v.grants[grant as usize].next;
            let state = &self.d.grants[grant];
            if !state.tenure.session || state.deadline == 0 {
                continue;
            }
            let entries = state.entries;
            let deadline = match state.tenure.ttl_us {
                Some(ttl) => state.deadline.max(self.now + ttl),
                None => 0,
            };
            self.emit(Event::Entered { slot: grant, entries, deadline });
            if deadline == 0 {
                let timer = core::mem::replace(&mut self.v.grant_mut(grant).timer, NONE);
                self.v.wheel.cancel(timer);
            }
        }
    }

    pub(crate) fn keep_alive(&mut self, session: SessionId) -> Result<Outcome, Refusal> {
        let slot = self.require_session(session)?;
        let now = self.now;
        let session = &mut self.v.sessions[slot];
        if let Some(ttl) = session.ttl_us {
            session.deadline = now + ttl;
        }
        Ok(Outcome::Done)
    }

    pub(crate) fn close_session(
        &mut self,
        session: SessionId,
        lost: bool,
    ) -> Result<Outcome, Refusal> {
        let slot = self.require_session(session)?;
        self.end_session(slot, if lost { Ending::SessionLost } else { Ending::Released });
        Ok(Outcome::Done)
    }

    pub(crate) fn session_due(&mut self, slot: u32) {
        let Some(session) = self.v.sessions.get_mut(slot) else { return };
        session.timer = NONE;
        let (id, ticket, deadline) = (session.id, session.ticket, session.deadline);
        if deadline == 0 || deadline > self.now {
            self.v.sessions[slot].timer = self.arm(deadline, Timer::Session(slot));
            return;
        }
        self.end_session(slot, Ending::SessionLost);
        if let Some(ticket) = ticket {
            self.effect(EffectKind::SessionEnded(ticket, id));
        }
    }

    /// Ends a session. What it waits for goes first, so that nothing it frees comes back to it.
    pub(crate) fn end_session(&mut self, slot: u32, ending: Ending) {
        let id = self.v.sessions[slot].id;
        while let Some(waiter) = self.listed(self.v.sessions[slot].first_waiter) {
            let ticket = self.v.waiters[waiter].ticket;
            self.remove_waiter(waiter);
            self.refuse(ticket, Refusal::NoSession(id));
        }
        while let Some(watcher) = self.listed(self.v.sessions[slot].first_watcher) {
            let ticket = self.remove_watcher(watcher);
            self.refuse(ticket, Refusal::NoSession(id));
        }
        self.end_consuming(slot, ending);
        while let Some(queue) = self.v.sessions[slot].queues.pop() {
            self.delete_queue_slot(queue);
        }
        while let Some(grant) = self.listed(self.v.sessions[slot].first_grant) {
            if self.d.grants[grant].tenure.session {
                self.end_grant(grant, ending);
            } else {
                // It lives on until its deadline, so its timer must outlive the link.
                let timer = core::mem::replace(&mut self.v.grant_mut(grant).timer, NONE);
                self.v.unlink_grant(grant);
                *self.v.grant_mut(grant) = GrantSide { timer, ..GrantSide::default() };
            }
        }
        let session = self.v.sessions.remove(slot).expect("the session that ends");
        self.v.wheel.cancel(session.timer);
        self.v.session_index.remove(self.v.session_index.hash_u64(id.0), slot);
    }

    /// The head of an intrusive list, if the list has any.
    fn listed(&self, head: u32) -> Option<u32> {
        (head != NONE).then_some(head)
    }

    /// The slot of a session that must be named and live.
    pub(crate) fn require_session(&self, id: SessionId) -> Result<u32, Refusal> {
        if id == SessionId::NONE {
            return Err(Refusal::SessionNeeded);
        }
        self.v.session(id).ok_or(Refusal::NoSession(id))
    }

    /// The slot of a session that must live if it is named.
    pub(crate) fn session_slot(&self, id: SessionId) -> Result<u32, Refusal> {
        if id == SessionId::NONE {
            return Ok(NONE);
        }
        self.v.session(id).ok_or(Refusal::NoSession(id))
    }

    /// Rebuilds the volatile half of grants, locks and registers after a restart.
    pub(crate) fn boot_holds(&mut self, grace_us: Time) {
        let deadline = self.now + grace_us;
        let holds: Vec<(u32, SessionId, Time)> =
            self.d.grants.iter().map(|(slot, g)| (slot, g.session, g.deadline)).collect();
        let holders: BTreeSet<u64> = holds.iter().map(|(_, session, _)| session.0).collect();
        for id in holders.into_iter().filter(|id| *id != SessionId::NONE.0) {
            self.insert_session(SessionId(id), None, None, deadline, None);
        }
        for (slot, session, deadline) in holds {
            self.v.grant_mut(slot);
            if let Some(session) = self.v.session(session) {
                self.v.link_grant(slot, session);
            }
            self.v.grant_mut(slot).timer = self.arm(deadline, Timer::Grant(slot));
        }
        let delays: Vec<(u32, Time)> =
            self.d.locks.iter().map(|(slot, lock)| (slot, lock.delay_until)).collect();
        for (slot, until) in delays {
            self.arm(until, Timer::LockDelay(slot));
        }
        let registers: Vec<(u32, Time)> =
            self.d.registers.iter().map(|(slot, register)| (slot, register.expires)).collect();
        for (slot, expires) in registers {
            self.arm_register(slot, expires);
        }
    }
}
