//! Reentrancy: the same hold of the same session comes in again.
//!
//! The unit is the hold id, never a thread, so a program decides itself what "the same" is. A
//! weaker hold does not grow into a stronger one: two sharers that both wait to become exclusive
//! would wait for each other for ever.

use crate::event::Event;
use crate::lock::{Ending, Grant};
use crate::outcome::{Outcome, Refusal};
use crate::slab::NONE;
use crate::step::Step;
use crate::{Acquire, Mode, Name};

/// What an acquire finds of its own.
pub(super) enum Own {
    Nothing,
    /// It covers all that is wanted.
    Enough(u32),
    /// The hold has this name in a weaker mode.
    TooWeak(Name),
}

impl Step<'_> {
    /// What the same hold of the same session has of the wanted locks; ends it if it has run out.
    pub(super) fn own(&mut self, session: u32, acquire: &Acquire) -> Own {
        let mut whole = None;
        let mut missing = false;
        for (i, (name, mode)) in acquire.wants.iter().enumerate() {
            let Some((grant, held)) = self.own_part(session, acquire.hold, name) else {
                missing = true;
                continue;
            };
            if self.is_over(grant) {
                self.end_grant(grant, Ending::Expired);
                return self.own(session, acquire);
            }
            if is_weaker(held, mode) {
                return Own::TooWeak(name.clone());
            }
            missing |= !covers(held, mode) || i > 0 && whole != Some(grant);
            whole = Some(grant);
        }
        match whole {
            Some(grant) if !missing => Own::Enough(grant),
            _ => Own::Nothing,
        }
    }

    /// The hold's part of a lock. Walks the lock's parts and the session's grants in step, so the
    /// shorter list bounds the search: neither a crowd of sharers nor a busy session makes it slow.
    fn own_part(&self, session: u32, hold: u64, name: &Name) -> Option<(u32, Mode)> {
        let lock = self.d.lock_named(name.as_str())?;
        let id = self.v.sessions[session].id;
        let mut grant = self.v.sessions[session].first_grant;
        for part in self.d.parts_of_lock(lock) {
            let owner = &self.d.grants[part.grant];
            if owner.session == id && owner.hold == hold {
                return Some((part.grant, part.mode));
            }
            if grant == NONE {
                return None;
            }
            if self.d.grants[grant].hold == hold
                && let Some(part) = self.d.parts_of_grant(grant).find(|part| part.lock == lock)
            {
                return Some((grant, part.mode));
            }
            grant = self.v.grants[grant as usize].next;
        }
        None
    }

    pub(super) fn enter_again(&mut self, slot: u32, acquire: &Acquire) -> Result<Outcome, Refusal> {
        let Grant { token, entries, deadline: old, .. } = self.d.grants[slot];
        Self::check_limit(
            "entries of one hold",
            entries as usize,
            self.v.limits.entries_max as usize,
        )?;
        let entries = entries + 1;
        let deadline = match acquire.tenure.ttl_us {
            Some(ttl) if old != 0 => old.max(self.now + ttl),
            _ => old,
        };
        self.emit(Event::Entered { slot, entries, deadline });
        Ok(Outcome::Granted { token, left_us: self.left(deadline), entries })
    }
}

/// Whether a hold in one mode already gives all that another would.
fn covers(held: Mode, wanted: Mode) -> bool {
    match (held, wanted) {
        (Mode::Permits { take: held, of }, Mode::Permits { take, of: asked }) => {
            of == asked && held >= take
        }
        (Mode::Exclusive, Mode::Exclusive | Mode::Shared) | (Mode::Shared, Mode::Shared) => true,
        _ => false,
    }
}

/// Whether the wanted mode is more of the same, which a hold cannot grow into.
fn is_weaker(held: Mode, wanted: Mode) -> bool {
    match (held, wanted) {
        (Mode::Permits { take: held, .. }, Mode::Permits { take, .. }) => held < take,
        (Mode::Shared, Mode::Exclusive) => true,
        _ => false,
    }
}
