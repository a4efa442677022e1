//! Watches: told of a change, so that nobody has to poll.
//!
//! A watcher says what it knows, a token or a version, and is answered when that is not so any
//! more. Versions and tokens are never used twice, so nothing is missed between one watch and the
//! next, however late that one comes: a stream of changes that a slow reader would have to keep up
//! with was rejected. All who wait for one thing therefore know the same of it, and one change
//! answers all of them, in the step that made it. What has changed is looked at when the step ends:
//! a lock that goes from hand to hand shows the next holder and never the moment in between.
//!
//! Watches are volatile, as lines are: after a restart clients ask again.

use alloc::boxed::Box;

use crate::outcome::{Outcome, Refusal};
use crate::slab::NONE;
use crate::step::Step;
use crate::volatile::{Timer, Watch, Watched, Watcher};
use crate::{SessionId, Ticket, Wait};

/// Holders and waiters that a watch or a list shows of a lock.
pub(super) const SHOWN: usize = 8;

impl Step<'_> {
    pub(super) fn watch(
        &mut self,
        ticket: Ticket,
        session: SessionId,
        what: Watched,
        known: Option<u64>,
        wait: Wait,
    ) {
        match self.try_watch(ticket, session, what, known, wait) {
            Ok(Some(outcome)) => self.reply(ticket, Ok(outcome)),
            Ok(None) => {}
            Err(refusal) => self.refuse(ticket, refusal),
        }
    }

    /// Answers, or lets it wait (`None`).
    fn try_watch(
        &mut self,
        ticket: Ticket,
        session_id: SessionId,
        what: Watched,
        known: Option<u64>,
        wait: Wait,
    ) -> Result<Option<Outcome>, Refusal> {
        let session = self.session_slot(session_id)?;
        if let Watched::Register(key) = &what {
            self.check_key(key)?;
        }
        self.check_wait(wait)?;
        let due = match wait {
            Wait::No | Wait::AtMost(0) => return Ok(Some(self.show(&what))),
            Wait::AtMost(time) => self.now + time,
            Wait::Forever => 0,
        };
        if self.version_of(&what) != known {
            return Ok(Some(self.show(&what)));
        }
        Self::check_limit("waiters", self.v.waiting(), self.v.limits.waiters_max)?;
        let watch = self.watch_or_new(what, known);
        let slot = self.v.watchers.next_slot();
        let timer = self.arm(due, Timer::Watcher(slot));
        let prev = core::mem::replace(&mut self.v.watches[watch].last, slot);
        match self.v.watchers.get_mut(prev) {
            Some(before) => before.next = slot,
            None => self.v.watches[watch].first = slot,
        }
        let mut next_of_session = NONE;
        if session != NONE {
            let session = &mut self.v.sessions[session];
            session.waiting += 1;
            next_of_session = core::mem::replace(&mut session.first_watcher, slot);
        }
        if let Some(next) = self.v.watchers.get_mut(next_of_session) {
            next.prev_of_session = slot;
        }
        self.v.watchers.insert_at(
            slot,
            Watcher {
                ticket,
                session,
                session_id,
                watch,
                due,
                timer,
                prev,
                next: NONE,
                prev_of_session: NONE,
                next_of_session,
            },
        );
        self.v.watcher_index.insert(self.v.watcher_index.hash_u64(ticket.0), slot);
        Ok(None)
    }

    fn watch_or_new(&mut self, what: Watched, known: Option<u64>) -> u32 {
        // A register that has run out is absent although its timer has not fired: who watches it
        // as present is told now, or one watch would have watchers who know different things.
        if let Some(watch) = self.v.watch_on(what.subject()) {
            self.answer_watch(watch);
        }
        if let Some(watch) = self.v.watch_on(what.subject()) {
            return watch;
        }
        let hash = self.v.watch_index.hash_bytes(what.subject().bytes());
        let watch = self.v.watches.insert(Watch { what, known, first: NONE, last: NONE });
        self.v.watch_index.insert(hash, watch);
        watch
    }

    /// What a watcher compares: the token of the newest holder, the version of the value.
    fn version_of(&self, what: &Watched) -> Option<u64> {
        match what {
            Watched::Lock(name) => self.newest_hold(name).map(|(token, _)| token.0),
            Watched::Register(key) => {
                self.live_register(key).map(|slot| self.d.registers[slot].version)
            }
        }
    }

    fn show(&self, what: &Watched) -> Outcome {
        match what {
            Watched::Lock(name) => Outcome::Lock(Box::new(self.lock_view(name, SHOWN))),
            Watched::Register(key) => self.read_register(key),
        }
    }

    /// The watcher that a ticket belongs to.
    fn watcher_with(&self, ticket: Ticket) -> Option<u32> {
        let hash = self.v.watcher_index.hash_u64(ticket.0);
        self.v.watcher_index.find(hash, |slot| self.v.watchers[slot].ticket == ticket)
    }

    /// Withdraws a watch; false if there is none of this session with this ticket.
    pub(super) fn cancel_watcher(&mut self, session: SessionId, ticket: Ticket) -> bool {
        let Some(slot) = self.watcher_with(ticket) else { return false };
        if self.v.watchers[slot].session_id != session {
            return false;
        }
        self.remove_watcher(slot);
        self.refuse(ticket, Refusal::Cancelled);
        true
    }

    /// Takes a watcher out of everything; the last of a watch takes that along.
    pub(super) fn remove_watcher(&mut self, slot: u32) -> Ticket {
        let watcher = self.v.watchers.remove(slot).expect("a watcher");
        let Watcher { ticket, watch, prev, next, .. } = watcher;
        self.v.wheel.cancel(watcher.timer);
        self.v.watcher_index.remove(self.v.watcher_index.hash_u64(ticket.0), slot);
        match self.v.watchers.get_mut(next) {
            Some(after) => after.prev = prev,
            None => self.v.watches[watch].last = prev,
        }
        match self.v.watchers.get_mut(prev) {
            Some(before) => before.next = next,
            None => self.v.watches[watch].first = next,
        }
        if let Some(after) = self.v.watchers.get_mut(watcher.next_of_session) {
            after.prev_of_session = watcher.prev_of_session;
        }
        if let Some(before) = self.v.watchers.get_mut(watcher.prev_of_session) {
            before.next_of_session = watcher.next_of_session;
        } else if watcher.session != NONE {
            self.v.sessions[watcher.session].first_watcher = watcher.next_of_session;
        }
        if watcher.session != NONE {
            self.v.sessions[watcher.session].waiting -= 1;
        }
        if self.v.watches[watch].first == NONE {
            let gone = self.v.watches.remove(watch).expect("the watch of a watcher");
            let hash = self.v.watch_index.hash_bytes(gone.what.subject().bytes());
            self.v.watch_index.remove(hash, watch);
        }
        ticket
    }

    /// Answers those who watch what the step has changed, and those who waited long enough.
    pub(super) fn answer_watchers(&mut self) {
        while let Some(watch) = self.v.stirred.pop() {
            self.answer_watch(watch);
        }
        while let Some(slot) = self.v.overdue.pop() {
            let Some(watcher) = self.v.watchers.get(slot) else { continue };
            let outcome = self.show(&self.v.watches[watcher.watch].what);
            let ticket = self.remove_watcher(slot);
            self.reply(ticket, Ok(outcome));
        }
    }

    /// One step may stir a thing twice, and what it did may not change what is watched.
    fn answer_watch(&mut self, slot: u32) {
        let Some(watch) = self.v.watches.get(slot) else { return };
        if self.version_of(&watch.what) == watch.known {
            return;
        }
        let outcome = self.show(&watch.what);
        while let Some(watch) = self.v.watches.get(slot) {
            let ticket = self.remove_watcher(watch.first);
            self.reply(ticket, Ok(outcome.clone()));
        }
    }

    /// It is answered when the step ends, with what is so then.
    pub(super) fn watcher_due(&mut self, slot: u32) {
        let Some(watcher) = self.v.watchers.get_mut(slot) else { return };
        watcher.timer = NONE;
        let due = watcher.due;
        if due > self.now {
            self.v.watchers[slot].timer = self.arm(due, Timer::Watcher(slot));
            return;
        }
        self.v.overdue.push(slot);
    }
}
