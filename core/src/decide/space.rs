//! Spaces are emptied, and what is gone is cleared.

use alloc::vec::Vec;

use crate::Name;
use crate::event::{Event, List, Range};
use crate::step::Step;

impl Step<'_> {
    /// Everything in a space is gone from now on. Those who wait for its keys are let in.
    pub(crate) fn empty_space(&mut self, space: u8) {
        let version = self.next_token();
        self.emit(Event::Emptied { space, version });
        self.v.stirred.extend(self.v.watches.iter().map(|(slot, _)| slot));
        // Names of locks are text, so their keys are in space 0.
        if space == 0 && !self.d.claims.is_empty() {
            let names = self.v.lines.iter().map(|(_, line)| &line.name);
            let gone = |name: &&Name| {
                let key = self.d.register_at(name.as_bytes());
                key.is_some_and(|slot| self.d.is_gone(&self.d.registers[slot]))
            };
            let gone: Vec<Name> = names.filter(gone).cloned().collect();
            self.v.free.extend(gone);
        }
    }

    /// Clears a helping of what is gone.
    pub(crate) fn clear_gone(&mut self, most: usize) {
        if !self.d.spaces.has_doomed() {
            return;
        }
        let mut slots = self.cache().spaces.doomed(most);
        slots.sort_unstable();
        slots.dedup();
        let is_gone = |slot: &u32| self.d.registers.get(*slot).is_some_and(|r| self.d.is_gone(r));
        slots.retain(is_gone);
        let mut ranges: Vec<Range> = Vec::new();
        for slot in slots {
            self.arm_register(slot, 0);
            let first = u64::from(slot);
            match ranges.last_mut() {
                Some(range) if range.first + range.count == first => range.count += 1,
                _ => ranges.push(Range { first, count: 1 }),
            }
        }
        if !ranges.is_empty() {
            self.emit_large(ranges.len() * 16, Event::Cleared { slots: List::Made(&ranges) });
        }
    }
}
