//! Locks that keep keys of their name away.

use super::{Keys, Leased, some};
use crate::Name;
use crate::outcome::Refusal;

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
}
