//! Deadlocks: who would wait for itself, found before it waits.
//!
//! ```text
//! requester ──wants──► lock ──held by──► owner ──waits for──► lock ──held by──► … requester
//!                       └──── waiters ahead in its line ──wait for──► …
//! ```
//! What waits is a pair of session and hold, one thread of work. A cycle can only close when
//! somebody begins to wait, because nobody is let past a line; so one search at that moment finds
//! every deadlock, and the newcomer, which holds up nobody's line yet, is the one refused. Edges
//! are followed only where the other one *must* let go: the holder of one permit of many is none
//! as long as the rest would suffice. So there are no false alarms. The search is breadth-first
//! (the shortest cycle is reported) and gives up after a bounded number of steps; then timeouts and
//! TTLs end the deadlock. Sessionless holds take no part: they end by TTL. Nor do keys that are
//! locks: which program made one is not known, and any connection may give it back. A standing
//! wait-for graph was rejected: every uncontended grant would have to maintain it.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::slab::NONE;
use crate::step::Step;
use crate::volatile::Volatile;
use crate::{Durable, Mode, Name, SessionId, Wants};

/// Steps after which the search gives up.
const STEPS_MAX: usize = 10_000;
/// Waiters looked at in a line where nobody waits for other locks too: there the first few stand
/// for all, since their ways lead to the same holders.
const PLAIN_AHEAD_MAX: usize = 64;

/// One blocked acquire on the way; `waiter` is `NONE` for the requester's own.
struct Blocked<'s> {
    waiter: u32,
    parent: usize,
    /// The name by which the parent waits for this one.
    via: Option<&'s Name>,
}

struct Search<'s> {
    d: &'s Durable,
    v: &'s Volatile,
    me: (SessionId, u64),
    wants: &'s Wants,
    steps: usize,
    seen: BTreeSet<u32>,
    found: Vec<Blocked<'s>>,
}

impl Step<'_> {
    /// The cycle that would close if the hold began to wait for `wants`, starting with it.
    pub(super) fn deadlock(
        &self,
        session: u32,
        hold: u64,
        wants: &Wants,
    ) -> Option<Box<[(SessionId, u64, Name)]>> {
        if session == NONE {
            return None;
        }
        let mut search = Search {
            d: &self.d,
            v: &*self.v,
            me: (self.v.sessions[session].id, hold),
            wants,
            steps: STEPS_MAX,
            seen: BTreeSet::new(),
            found: Vec::new(),
        };
        if !search.holds_anything(session) {
            return None;
        }
        search.found.push(Blocked { waiter: NONE, parent: 0, via: None });
        let mut next = 0;
        while next < search.found.len() && search.steps > 0 {
            if let Some(name) = search.expand(next) {
                return Some(search.cycle(next, name));
            }
            next += 1;
        }
        None
    }
}

impl<'s> Search<'s> {
    fn step(&mut self) -> bool {
        self.steps = self.steps.saturating_sub(1);
        self.steps > 0
    }

    fn holds_anything(&mut self, session: u32) -> bool {
        let mut grant = self.v.sessions[session].first_grant;
        while grant != NONE && self.step() {
            if self.d.grants[grant].hold == self.me.1 {
                return true;
            }
            grant = self.v.grants[grant as usize].next;
        }
        false
    }

    /// Finds whom a blocked acquire waits for; the name, when that is the requester.
    fn expand(&mut self, at: usize) -> Option<&'s Name> {
        let (v, d) = (self.v, self.d);
        let waiter = self.found[at].waiter;
        let wants = if waiter == NONE { self.wants } else { &v.waiters[waiter].acquire.wants };
        for (name, mode) in wants.iter() {
            if let Some(lock) = d.lock_named(name.as_str()) {
                for part in d.parts_of_lock(lock) {
                    if !self.step() {
                        return None;
                    }
                    if !blocks(part.mode, mode) {
                        continue;
                    }
                    let owner = &d.grants[part.grant];
                    if (owner.session, owner.hold) == self.me {
                        return Some(name);
                    }
                    if let Some(session) = v.session(owner.session) {
                        self.push_waits_of(session, owner.hold, at, name);
                    }
                }
            }
            self.push_those_ahead(waiter, at, name);
        }
        None
    }

    fn push_waits_of(&mut self, session: u32, hold: u64, parent: usize, via: &'s Name) {
        let mut next = self.v.sessions[session].first_waiter;
        while next != NONE && self.step() {
            let waiter = &self.v.waiters[next];
            if waiter.acquire.hold == hold {
                self.push(next, parent, via);
            }
            next = waiter.next;
        }
    }

    fn push_those_ahead(&mut self, waiter: u32, parent: usize, via: &'s Name) {
        let Some(line) = self.v.line_for(via.as_str()) else { return };
        let line = &self.v.lines[line];
        let mut left = if line.multi == 0 { PLAIN_AHEAD_MAX } else { usize::MAX };
        let mut next = line.first;
        while next != NONE && left > 0 && self.step() {
            let place = &self.v.places[next];
            if place.waiter == waiter {
                return;
            }
            self.push(place.waiter, parent, via);
            next = place.next;
            left -= 1;
        }
    }

    fn push(&mut self, waiter: u32, parent: usize, via: &'s Name) {
        let state = &self.v.waiters[waiter];
        let takes_part = state.session != NONE && (state.session_id, state.acquire.hold) != self.me;
        if takes_part && self.seen.insert(waiter) {
            self.found.push(Blocked { waiter, parent, via: Some(via) });
        }
    }

    /// The way from the requester to `last`, which waits for the requester by `name`.
    fn cycle(&self, last: usize, name: &Name) -> Box<[(SessionId, u64, Name)]> {
        let mut cycle = Vec::new();
        let (mut at, mut name) = (last, name);
        loop {
            let (session, hold) = match self.found[at].waiter {
                NONE => self.me,
                waiter => {
                    let waiter = &self.v.waiters[waiter];
                    (waiter.session_id, waiter.acquire.hold)
                }
            };
            cycle.push((session, hold, name.clone()));
            let Some(via) = self.found[at].via else { break };
            (at, name) = (self.found[at].parent, via);
        }
        cycle.reverse();
        cycle.into()
    }
}

/// Whether a part held so keeps out one who wants it so, whatever other holders do.
fn blocks(held: Mode, wanted: Mode) -> bool {
    match (held, wanted) {
        (Mode::Shared, Mode::Shared) => false,
        (Mode::Permits { take: held, of }, Mode::Permits { take, of: asked }) if of == asked => {
            take > of - held
        }
        _ => true,
    }
}
