//! From what a decision staged to events, and what follows for locks of the same names.

use super::{Claim, FEW, KEY_BYTES, Keys, Staged};
use crate::content::{Content, Edit, Edits, Kind};
use crate::event::Event;
use crate::step::Step;

impl Keys<'_, '_> {
    /// Makes events of what is staged.
    pub(super) fn finish(mut self) {
        let mut staged = core::mem::take(&mut self.staged);
        let changed = || staged.iter().filter(|staged| staged.changed);
        let emptied = core::mem::take(&mut self.emptied);
        let many = changed().count() + emptied.len() > 1;
        if many {
            let bytes: usize = changed().map(Staged::journal_bytes).sum();
            self.step.together(bytes + emptied.len() * 32);
        }
        // What is made in an emptied space comes after it.
        for space in emptied {
            if !self.step.d.spaces.slots(space).is_empty() {
                self.step.empty_space(space);
            }
        }
        for staged in changed() {
            self.step.apply_staged(staged);
        }
        if many {
            self.step.apart();
        }
        // The next decision needs room for as few keys, nearly always.
        if staged.capacity() <= FEW {
            staged.clear();
            self.step.v.staged = staged;
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
        self.key.len() + content + KEY_BYTES
    }
}

impl Step<'_> {
    fn apply_staged(&mut self, staged: &Staged) {
        let Some(content) = &staged.content else {
            if let Some(slot) = staged.slot {
                let register = &self.d.registers[slot];
                let claimed = register.claim != 0 && self.is_live(register);
                self.v.claim_counts.released += u64::from(claimed);
                self.remove_key(slot);
            }
            return;
        };
        let version = self.next_token();
        let before = staged.slot.map(|slot| &self.d.registers[slot]);
        let lives = before.filter(|_| !staged.fresh || staged.claim == Claim::AsBefore);
        let known = lives.filter(|before| self.is_live(before));
        let claim = match (staged.claim, known) {
            (Claim::Made, _) => version,
            (Claim::SoughtInVain, _) if staged.expires != 0 => version,
            (Claim::SoughtInVain | Claim::Dropped, _) => 0,
            // Whoever puts another value into a claimed key is another holder.
            (Claim::AsBefore, Some(before)) if before.claim != 0 => {
                let same = content.text().is_none() || before.content.text() == content.text();
                if same { before.claim } else { version }
            }
            (Claim::AsBefore, _) => 0,
        };
        let passed_on = known.is_some_and(|before| before.claim != 0 && before.claim != claim);
        self.v.claim_counts.made += u64::from(claim == version);
        self.v.claim_counts.released += u64::from(passed_on);
        // What ran out and was made anew before its timer fired is claimed no more.
        let freed = claim == 0 && before.is_some_and(|before| before.claim != 0);
        self.stir_key(&staged.key);
        let slot = staged.slot.unwrap_or_else(|| self.d.registers.next_slot());
        let (text, made);
        let (fresh, edits) = match content {
            _ if !staged.fresh => (None, &staged.edits[..]),
            Content::Text(own) => {
                text = [Edit::Text(own.clone())];
                (Some(Kind::Text), &text[..])
            }
            _ => {
                made = content.edits();
                (Some(content.kind()), &made[..])
            }
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
        if freed {
            self.key_gone(&staged.key);
        }
    }
}
