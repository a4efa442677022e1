//! Locks that keep keys of their name away.

use super::{Keys, Leased, some};
use crate::outcome::Refusal;
use crate::{Name, Token};

impl Keys<'_, '_> {
    /// The lease on the lock of this name, if somebody holds one and there is no such key.
    pub fn leased(&self, key: &[u8]) -> Option<Leased> {
        if self.step.d.locks.is_empty() || self.get(key).is_some() {
            return None;
        }
        let name = Name::new(core::str::from_utf8(key).ok()?).ok()?;
        let grant = self.step.newest_holder(&name)?;
        let expires = some(grant.deadline);
        Some(Leased { token: grant.token, expires, label: grant.label.clone() })
    }

    /// What a key of this name would come in the way of, if there is no such key: a lease, its
    /// lock-delay, or somebody who waits for the name. Nobody holds it when the token is 0; the
    /// expiry then is when trying again makes sense, if that can be told.
    pub fn kept_away(&self, key: &[u8]) -> Option<Leased> {
        if self.step.d.locks.is_empty() && self.step.v.lines.is_empty() {
            return None;
        }
        if let Some(lease) = self.leased(key) {
            return Some(lease);
        }
        if self.get(key).is_some() {
            return None;
        }
        let delayed = self.lock_in_the_way(key);
        let Refusal::Busy { left_us, .. } = delayed.or_else(|| self.awaited(key))? else {
            return None;
        };
        let expires = left_us.map(|left| self.step.now + left);
        Some(Leased { token: Token(0), expires, label: None })
    }

    /// Why there can be no key of this name now, if a lease or its lock-delay forbids it.
    pub(super) fn lock_in_the_way(&self, key: &[u8]) -> Option<Refusal> {
        if self.step.d.locks.is_empty() || self.get(key).is_some() {
            return None;
        }
        let name = Name::new(core::str::from_utf8(key).ok()?).ok()?;
        let now = self.step.now;
        if let Some(grant) = self.step.newest_holder(&name) {
            let left_us = some(grant.deadline).map(|at| at.saturating_sub(now));
            return Some(Refusal::Busy { name, holder: Some(grant.token), left_us });
        }
        let until = self.step.d.locks[self.step.d.lock_named(name.as_str())?].delay_until;
        let left_us = Some(until.saturating_sub(now));
        (until > now).then_some(Refusal::Busy { name, holder: None, left_us })
    }

    /// Why there can be no new key of this name now, if somebody waits for the lock. A lock that is
    /// free may be waited for by those who want others beside it. A key that the decision itself
    /// has removed may come back: seen from outside it was there all the time.
    pub(super) fn awaited(&self, key: &[u8]) -> Option<Refusal> {
        if self.step.v.lines.is_empty() || self.step.live_register(key).is_some() {
            return None;
        }
        let name = Name::new(core::str::from_utf8(key).ok()?).ok()?;
        let left_us = self.step.awaited(&name)?;
        Some(Refusal::Busy { name, holder: None, left_us })
    }
}
