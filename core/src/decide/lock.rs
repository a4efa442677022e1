//! Locks: one primitive for exclusive, shared and counted holds, over one name or several.
//!
//! A grant covers all its names with one token and one tenure, so an atomic multi-lock is not many
//! locks taken in turn but one lease with many parts: it is checked, granted, renewed and ended as
//! a whole. Taking names one by one in sorted order was rejected; it needs an undo, and a crash in
//! the middle leaves half of it. Entering again does not mint a token, since nobody else came
//! between.
//!
//! A hold is dead for its holder from the microsecond of its deadline; for others it stands until
//! its timer has fired, up to a millisecond later. In between nobody holds it: the safe side.

mod claim;
mod enter;
mod view;

use alloc::boxed::Box;
use alloc::vec::Vec;

use self::enter::Own;
use super::answer;
use crate::event::{Event, Granted, List, Names};
use crate::lock::{Ending, Grant};
use crate::outcome::{EffectKind, Outcome, Refusal};
use crate::slab::NONE;
use crate::step::Step;
use crate::volatile::{GrantSide, Subject, Timer, Waiter};
use crate::{
    Acquire, HoldRef, Mode, Name, RequestId, SessionId, Tenure, Ticket, Time, Token, Wait, Wants,
};

impl Step<'_> {
    pub(crate) fn acquire(
        &mut self,
        ticket: Ticket,
        session: SessionId,
        request: Option<RequestId>,
        acquire: Box<Acquire>,
    ) {
        match self.try_acquire(ticket, session, request, acquire) {
            Ok(Some(outcome)) => {
                if let Outcome::Granted { token, .. } = outcome {
                    self.remember(request, answer::GRANTED, token.0, 0);
                }
                self.reply(ticket, Ok(outcome));
            }
            Ok(None) => {}
            Err(refusal) => self.refuse(ticket, refusal),
        }
    }

    /// Grants, or lets it wait (`None`).
    fn try_acquire(
        &mut self,
        ticket: Ticket,
        session_id: SessionId,
        request: Option<RequestId>,
        acquire: Box<Acquire>,
    ) -> Result<Option<Outcome>, Refusal> {
        let session = self.session_slot(session_id)?;
        self.check_acquire(session, &acquire)?;
        if let Some(waiter) = request.and_then(|id| self.waiter_for(id)) {
            let known = &self.v.waiters[waiter];
            let same = known.session_id == session_id
                && known.acquire.hold == acquire.hold
                && known.acquire.wants == acquire.wants;
            if !same {
                return Err(Refusal::RequestWaiting);
            }
            self.redirect(waiter, ticket);
            return Ok(None);
        }
        if acquire.reentrant && session != NONE {
            match self.own(session, &acquire) {
                Own::Nothing => {}
                Own::TooWeak(name) => return Err(Refusal::Upgrade(name)),
                Own::Enough(slot) => return self.enter_again(slot, &acquire).map(Some),
            }
        }
        if acquire
            .wants
            .iter()
            .all(|(name, mode)| self.v.line_for(name.as_str()).is_none() && self.admits(name, mode))
        {
            let known = |(name, _): &(&Name, Mode)| self.d.lock_named(name.as_str()).is_some();
            let new = acquire.wants.len() - acquire.wants.iter().filter(known).count();
            let max = self.v.limits.locks_max;
            Self::check_limit("locks", self.d.locks.len() + new.saturating_sub(1), max)?;
            return Ok(Some(self.grant(session, session_id, &acquire)));
        }
        if matches!(acquire.wait, Wait::No | Wait::AtMost(0)) {
            return Err(self.busy(&acquire.wants));
        }
        if let Some(cycle) = self.deadlock(session, acquire.hold, &acquire.wants) {
            return Err(Refusal::Deadlock(cycle));
        }
        Self::check_limit("waiters", self.v.waiting(), self.v.limits.waiters_max)?;
        self.enqueue(Waiter {
            ticket,
            session,
            session_id,
            request,
            acquire,
            arrived: self.now,
            timer: NONE,
            places: Vec::new(),
            prev: NONE,
            next: NONE,
        });
        Ok(None)
    }

    fn check_acquire(&self, session: u32, acquire: &Acquire) -> Result<(), Refusal> {
        let limits = &self.v.limits;
        if acquire.wants.is_empty() {
            return Err(Refusal::Zero("the list of locks"));
        }
        Self::check_size("the number of locks", acquire.wants.len(), limits.multi_lock_max)?;
        for (i, (name, mode)) in acquire.wants.iter().enumerate() {
            if acquire.wants.iter().take(i).any(|(other, _)| other == name) {
                return Err(Refusal::NamedTwice(name.clone()));
            }
            if let Mode::Permits { take, of } = mode {
                self.check_permits(name, take, of)?;
            }
        }
        let Tenure { ttl_us, session: bound } = acquire.tenure;
        if ttl_us.is_none() && !bound || bound && session == NONE {
            return Err(Refusal::NoTenure);
        }
        if let Some(ttl) = ttl_us {
            self.check_time("the TTL", ttl)?;
        }
        self.check_wait(acquire.wait)?;
        let (delay, most) = (acquire.lock_delay_us, limits.lock_delay_us_max);
        if delay > most {
            return Err(Refusal::Time("the lock-delay", delay, 0, most));
        }
        let label_bytes = acquire.label.as_ref().map_or(0, |label| label.len());
        Self::check_size("the label's length", label_bytes, limits.label_bytes)
    }

    pub(super) fn check_wait(&self, wait: Wait) -> Result<(), Refusal> {
        let most = self.v.limits.ttl_us_max;
        match wait {
            Wait::AtMost(time) if time > most => Err(Refusal::Time("the wait", time, 0, most)),
            _ => Ok(()),
        }
    }

    fn check_permits(&self, name: &Name, take: u32, asked: u32) -> Result<(), Refusal> {
        if take == 0 {
            return Err(Refusal::Zero("the number of permits"));
        }
        let max = self.v.limits.permits_max;
        Self::check_size("the semaphore's number of permits", asked as usize, max as usize)?;
        Self::check_size("the number of permits", take as usize, asked as usize)?;
        let of = self.d.lock_named(name.as_str()).map_or(0, |slot| self.d.locks[slot].of);
        if of != 0 && of != asked {
            return Err(Refusal::Permits { name: name.clone(), of, asked });
        }
        Ok(())
    }

    /// Whether a lock's holders leave room, and no key of its name is held like a lock.
    pub(super) fn admits(&self, name: &Name, mode: Mode) -> bool {
        let lock = self.d.lock_named(name.as_str());
        lock.is_none_or(|slot| self.d.locks[slot].admits(mode, self.now))
            && self.claimed(name).is_none()
    }

    fn busy(&self, wants: &Wants) -> Refusal {
        let taken = wants.iter().find(|(name, mode)| !self.admits(name, *mode));
        let (name, _) = taken.or_else(|| wants.iter().next()).expect("wants were checked");
        let holder = self.newest_hold(name);
        Refusal::Busy {
            name: name.clone(),
            holder: holder.map(|(token, _)| token),
            left_us: holder.and_then(|(_, deadline)| self.left(deadline)),
        }
    }

    pub(crate) fn newest_holder(&self, name: &Name) -> Option<&Grant> {
        let part = self.d.parts_of_lock(self.d.lock_named(name.as_str())?).next()?;
        Some(&self.d.grants[part.grant])
    }

    fn is_over(&self, grant: u32) -> bool {
        let deadline = self.d.grants[grant].deadline;
        deadline != 0 && deadline <= self.now
    }

    /// Grants what was found free.
    pub(super) fn grant(
        &mut self,
        session: u32,
        session_id: SessionId,
        acquire: &Acquire,
    ) -> Outcome {
        let token = Token(self.next_token());
        let slot = self.d.grants.next_slot();
        let deadline = acquire.tenure.ttl_us.map_or(0, |ttl| self.now + ttl);
        let (one, many, names);
        let (parts, names) = match &acquire.wants {
            Wants::One(name, mode) => {
                let lock = self.d.lock_named(name.as_str());
                one = [(lock.unwrap_or_else(|| self.d.locks.next_slot()), *mode)];
                (&one[..], core::slice::from_ref(name))
            }
            Wants::Many(list) => {
                let mut fresh = self.d.locks.free_slots(list.len()).into_iter();
                let mut place = |name: &Name| {
                    let known = self.d.lock_named(name.as_str());
                    known.unwrap_or_else(|| fresh.next().expect("as many as names"))
                };
                many = list.iter().map(|(n, mode)| (place(n), *mode)).collect::<Vec<_>>();
                names = list.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
                (&many[..], &names[..])
            }
        };
        self.emit(Event::Granted(Granted {
            slot,
            token,
            session: session_id,
            hold: acquire.hold,
            tenure: acquire.tenure,
            deadline,
            lock_delay_us: acquire.lock_delay_us,
            label: acquire.label.as_deref(),
            parts: List::Made(parts),
            names: Names::Made(names),
        }));
        if session == NONE {
            *self.v.grant_mut(slot) = GrantSide::default();
        } else {
            self.v.link_grant(slot, session);
        }
        self.v.grant_mut(slot).timer = self.arm(deadline, Timer::Grant(slot));
        acquire.wants.iter().for_each(|(name, _)| self.v.stir(Subject::Lock(name.as_str())));
        Outcome::Granted { token, left_us: self.left(deadline), entries: 1 }
    }

    pub(crate) fn renew(
        &mut self,
        session: SessionId,
        request: Option<RequestId>,
        hold: &HoldRef,
        ttl_us: Option<Time>,
    ) -> Result<Outcome, Refusal> {
        let slot = self.find_hold(session, hold)?;
        let grant = &self.d.grants[slot];
        let ttl = ttl_us.or(grant.tenure.ttl_us).ok_or(Refusal::NothingToRenew(hold.token))?;
        let ttl = self.check_time("the TTL", ttl)?;
        let (entries, old) = (grant.entries, grant.deadline);
        let deadline = self.now + ttl;
        self.emit(Event::Entered { slot, entries, deadline });
        // A later deadline leaves the timer where it is: when it fires it is set again.
        if old == 0 || deadline < old {
            let timer = self.arm(deadline, Timer::Grant(slot));
            let old = core::mem::replace(&mut self.v.grant_mut(slot).timer, timer);
            self.v.wheel.cancel(old);
        }
        self.remember(request, answer::RENEWED, hold.token.0, 0);
        Ok(Outcome::Renewed { left_us: self.left(deadline) })
    }

    pub(crate) fn release(
        &mut self,
        session: SessionId,
        request: Option<RequestId>,
        hold: &HoldRef,
    ) -> Result<Outcome, Refusal> {
        let slot = self.find_hold(session, hold)?;
        let entries = self.apply_release(slot);
        self.remember(request, answer::RELEASED, u64::from(entries), 0);
        Ok(Outcome::Released { entries })
    }

    /// Leaves a hold once; 0 when that was the last time.
    pub(crate) fn apply_release(&mut self, slot: u32) -> u32 {
        let Grant { entries, deadline, .. } = self.d.grants[slot];
        if entries > 1 {
            self.emit(Event::Entered { slot, entries: entries - 1, deadline });
        } else {
            self.end_grant(slot, Ending::Released);
        }
        entries - 1
    }

    /// The live grant that a hold names. The session need not live: a hold by TTL may outlive it.
    pub(crate) fn find_hold(&self, session: SessionId, hold: &HoldRef) -> Result<u32, Refusal> {
        // A key is renewed and given back by the commands that keys have.
        if self.is_claim(&hold.name, hold.token) {
            return Err(Refusal::ForeignToken(hold.name.clone(), hold.token));
        }
        let slot = self.live_grant(&hold.name, hold.token)?;
        let grant = &self.d.grants[slot];
        if grant.session != session || grant.hold != hold.hold || !self.is_on(slot, &hold.name) {
            return Err(Refusal::ForeignToken(hold.name.clone(), hold.token));
        }
        Ok(slot)
    }

    fn live_grant(&self, name: &Name, token: Token) -> Result<u32, Refusal> {
        if token.0 == 0 || token.0 > self.v.token {
            return Err(Refusal::UnknownToken(token));
        }
        match self.d.grant_with(token.0) {
            Some(slot) if !self.is_over(slot) => Ok(slot),
            _ => {
                let current = self.newest_hold(name).map(|(current, _)| current);
                let current = current.filter(|current| *current != token);
                Err(Refusal::StaleToken { name: name.clone(), token, current })
            }
        }
    }

    fn is_on(&self, grant: u32, name: &Name) -> bool {
        self.d.parts_of_grant(grant).any(|part| self.d.locks[part.lock].name == *name)
    }

    /// Whether a lock is held with a token, by a lease or by a key.
    pub(crate) fn check_token(&self, name: &Name, token: Token) -> Result<(), Refusal> {
        if self.is_claim(name, token) {
            return Ok(());
        }
        let slot = self.live_grant(name, token)?;
        if self.is_on(slot, name) {
            Ok(())
        } else {
            Err(Refusal::ForeignToken(name.clone(), token))
        }
    }

    /// Ends a hold. Whoever waits for its locks is served before the step ends.
    pub(crate) fn end_grant(&mut self, slot: u32, ending: Ending) {
        let grant = &self.d.grants[slot];
        let (token, session) = (grant.token, grant.session);
        let held_us = self.now - grant.granted_at;
        let delay = if ending.is_unclean() { grant.lock_delay_us } else { 0 };
        let delay_until = if delay > 0 { self.now + delay } else { 0 };
        let mut next = grant.first_part;
        while next != NONE {
            let part = &self.d.parts[next];
            let (lock, after) = (&self.d.locks[part.lock], part.next_in_grant);
            if delay_until > lock.delay_until {
                self.v.wheel.insert(delay_until, Timer::LockDelay(part.lock));
            }
            self.v.stir(Subject::Lock(lock.name.as_str()));
            if let Some(line) = self.v.line_for(lock.name.as_str()) {
                let average = &mut self.v.lines[line].hold_average_us;
                *average = match *average {
                    0 => held_us.max(1),
                    known => (known - known / 8 + held_us / 8).max(1),
                };
                self.v.free.push(lock.name.clone());
            }
            next = after;
        }
        self.v.unlink_grant(slot);
        self.emit(Event::Ended { slot, ending, delay_until, keep: false });
        let told = self.v.session(session).and_then(|slot| self.v.sessions[slot].ticket);
        if ending != Ending::Released
            && let Some(ticket) = told
        {
            self.effect(EffectKind::HoldEnded(ticket, token, ending));
        }
    }

    pub(crate) fn grant_due(&mut self, slot: u32) {
        let Some(grant) = self.d.grants.get(slot) else { return };
        let deadline = grant.deadline;
        self.v.grant_mut(slot).timer = NONE;
        if deadline == 0 || deadline > self.now {
            self.v.grant_mut(slot).timer = self.arm(deadline, Timer::Grant(slot));
            return;
        }
        self.end_grant(slot, Ending::Expired);
    }

    /// The timer may be older than the lock in the slot, or than its newest delay: that one has a
    /// timer of its own.
    pub(crate) fn lock_delay_due(&mut self, slot: u32) {
        let Some(lock) = self.d.locks.get(slot) else { return };
        if lock.delay_until == 0 || lock.delay_until > self.now {
            return;
        }
        self.v.free.push(lock.name.clone());
        self.emit(Event::LockFreed { slot });
    }

    pub(crate) fn force_release(&mut self, name: &Name) -> Result<Outcome, Refusal> {
        let claims = u32::from(self.end_claim(name));
        let Some(lock) = self.d.lock_named(name.as_str()) else {
            return Ok(Outcome::Forced(claims));
        };
        let grants: Vec<u32> = self.d.parts_of_lock(lock).map(|part| part.grant).collect();
        for &grant in &grants {
            self.end_grant(grant, Ending::Revoked);
        }
        Ok(Outcome::Forced(claims + grants.len() as u32))
    }
}
