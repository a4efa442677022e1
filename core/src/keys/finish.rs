//! From what a decision staged to events, and what follows for locks of the same names.

use super::{Claim, Keys, Staged};
use crate::Name;
use crate::content::{Edit, Edits};
use crate::event::Event;
use crate::lock::Register;
use crate::step::Step;
use crate::volatile::Subject;

impl Keys<'_, '_> {
    /// Makes events of what is staged.
    pub(super) fn finish(mut self) {
        let staged = core::mem::take(&mut self.staged);
        let changed = || staged.iter().filter(|staged| staged.changed);
        let many = changed().nth(1).is_some();
        if many {
            let bytes = changed().map(Staged::journal_bytes).sum();
            self.step.together(bytes);
        }
        for staged in changed() {
            self.step.apply_staged(staged);
        }
        if many {
            self.step.apart();
        }
    }
}

impl Staged {
    fn journal_bytes(&self) -> usize {
        let content = match &self.content {
            Some(_) if self.fresh => self.bytes,
            Some(_) => self.edits.iter().map(Edit::bytes).sum(),
            None => 0,
        };
        self.key.len() + content + 128
    }
}

impl Step<'_> {
    fn apply_staged(&mut self, staged: &Staged) {
        let Some(content) = &staged.content else {
            if let Some(slot) = staged.slot {
                self.remove_key(slot);
            }
            return;
        };
        let version = self.next_token();
        let before = staged.slot.map(|slot| &self.d.registers[slot]);
        let lives = before.filter(|_| !staged.fresh || staged.claim == Claim::AsBefore);
        let known = lives.filter(|before| before.expires == 0 || before.expires > self.now);
        let claim = match (staged.claim, known) {
            (Claim::Made, _) => version,
            (Claim::SoughtInVain, _) if staged.expires != 0 => version,
            (Claim::SoughtInVain, _) => 0,
            // Whoever puts another value into a claimed key is another holder.
            (Claim::AsBefore, Some(before)) if before.claim != 0 => {
                let same = content.text().is_none() || before.content.text() == content.text();
                if same { before.claim } else { version }
            }
            (Claim::AsBefore, _) => 0,
        };
        self.v.stir(Subject::Register(&staged.key));
        let slot = staged.slot.unwrap_or_else(|| self.d.registers.next_slot());
        let made;
        let (fresh, edits) = match staged.fresh {
            true => {
                made = content.edits();
                (Some(content.kind()), &made[..])
            }
            false => (None, &staged.edits[..]),
        };
        let edits = Edits::Made(edits);
        let event = Event::Keyed {
            slot,
            key: &staged.key,
            version,
            expires: staged.expires,
            claim,
            fresh,
            edits,
        };
        self.emit_large(staged.journal_bytes(), event);
        self.arm_register(slot, staged.expires);
    }

    /// Ends a key. Losing that is safe when it was a claim with an expiry, as losing a release is.
    pub(crate) fn remove_key(&mut self, slot: u32) {
        let register = &self.d.registers[slot];
        let key = register.key.clone();
        let lazy = register.claim != 0 && register.expires != 0;
        self.v.stir(Subject::Register(&key));
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

    /// Whether a key of this name is claimed.
    pub(crate) fn claimed(&self, name: &Name) -> Option<&Register> {
        if self.d.claims == 0 {
            return None;
        }
        let register = &self.d.registers[self.d.register_at(name.as_bytes())?];
        (register.claim != 0).then_some(register)
    }
}
