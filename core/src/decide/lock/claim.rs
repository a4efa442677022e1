//! Claims: keys that programs made to be locks, seen from the locks' side.
//!
//! A claim is shown, watched, checked and ended like an exclusive hold that nobody can enter again:
//! its token is the version with which the key was made. Like a hold it is dead for whoever holds
//! it from the microsecond of its expiry, while others see it until its timer has fired. A key that
//! is no [`Name`] (not UTF-8, longer than 255 bytes, or with control characters) is a claim nobody
//! could ask for, so it is not listed; it excludes nobody, since no lease can have its name.

use crate::event::Event;
use crate::lock::Register;
use crate::outcome::HolderView;
use crate::step::Step;
use crate::volatile::Subject;
use crate::{Mode, Name, SessionId, Time, Token};

impl Step<'_> {
    /// The key of this name, if it is claimed.
    pub(crate) fn claimed(&self, name: &Name) -> Option<&Register> {
        self.claim_at(name).map(|slot| &self.d.registers[slot])
    }

    fn claim_at(&self, name: &Name) -> Option<u32> {
        if self.d.claims.is_empty() {
            return None;
        }
        let slot = self.d.register_at(name.as_bytes())?;
        let key = &self.d.registers[slot];
        (key.claim != 0 && !self.d.is_gone(key)).then_some(slot)
    }

    /// Token and deadline of the newest holder of a lock, whether it holds by a lease or by a key.
    pub(crate) fn newest_hold(&self, name: &Name) -> Option<(Token, Time)> {
        let lease = self.newest_holder(name).map(|grant| (grant.token, grant.deadline));
        lease.or_else(|| self.claimed(name).map(|key| (Token(key.claim), key.expires)))
    }

    /// Whether this is the token of a claim that lives.
    pub(super) fn is_claim(&self, name: &Name, token: Token) -> bool {
        self.claimed(name).is_some_and(|key| Token(key.claim) == token && self.is_live(key))
    }

    /// The claim of this name as a holder.
    pub(super) fn claim_view(&self, name: &Name) -> Option<HolderView> {
        let key = self.claimed(name)?;
        Some(HolderView {
            token: Token(key.claim),
            session: SessionId::NONE,
            hold: 0,
            mode: Mode::Exclusive,
            held_us: self.now.saturating_sub(key.since),
            left_us: self.left(key.expires),
            entries: 1,
            label: key.content.label(self.v.limits.label_bytes),
        })
    }

    /// The claim in a slot as a lock to list: its name, if it has one that no lease has too.
    pub(crate) fn claim_listed(&self, slot: u32) -> Option<Name> {
        let key = &self.d.registers[slot];
        let text = core::str::from_utf8(&key.key).ok().filter(|_| !self.d.is_gone(key))?;
        let name = Name::new(text).ok()?;
        self.d.lock_named(text).is_none().then_some(name)
    }

    /// Removes the claimed key of a name; false when there is none.
    pub(super) fn end_claim(&mut self, name: &Name) -> bool {
        let slot = self.claim_at(name);
        if let Some(slot) = slot {
            self.remove_key(slot);
        }
        slot.is_some()
    }

    /// Ends a key. Losing that is safe when it was a claim with an expiry, as losing a release is.
    pub(crate) fn remove_key(&mut self, slot: u32) {
        let register = &self.d.registers[slot];
        let key = register.key.clone();
        let lazy = register.claim != 0 && register.expires != 0;
        self.stir_key(&key);
        let version = self.next_token();
        self.arm_register(slot, 0);
        match lazy {
            true => self.emit(Event::Unclaimed { slot, version }),
            false => self.emit(Event::Unwritten { slot, version }),
        }
        self.key_gone(&key);
    }

    /// Lets those in who wait for the lock of this name.
    pub(crate) fn key_gone(&mut self, key: &[u8]) {
        if self.v.lines.is_empty() {
            return;
        }
        let name = core::str::from_utf8(key).ok().and_then(|text| Name::new(text).ok());
        self.v.free.extend(name);
    }

    /// Notes a change for those who watch the key, or the lock that it may be.
    pub(crate) fn stir_key(&mut self, key: &[u8]) {
        if self.v.watches.is_empty() {
            return;
        }
        self.v.stir(Subject::Register(key));
        if let Ok(name) = core::str::from_utf8(key) {
            self.v.stir(Subject::Lock(name));
        }
    }
}
