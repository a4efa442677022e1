//! All keys of a space: how many, one after the other, and none any more.

use alloc::vec::Vec;

use super::{Keys, Staged};
use crate::content::Bytes;
use crate::space::space_of;

impl Keys<'_, '_> {
    /// How many keys a space has. One that has run out counts until its timer has fired, at most a
    /// few milliseconds later unless very many run out together.
    pub fn count(&self, space: u8) -> usize {
        let mut count = self.listed(space).len();
        for staged in self.staged_in(space) {
            count -= usize::from(self.is_listed(staged));
            count += usize::from(staged.content.is_some());
        }
        count
    }

    /// Keys of a space, so many places of its list; where to go on, or `None` at the end. Begins
    /// with 0. A key that is there from the beginning to the end is found, some are found twice.
    /// Keys made in this decision are left out, see [`Keys::made`].
    pub fn scan(&self, space: u8, from: u32, places: usize) -> (Vec<Bytes>, Option<u32>) {
        let slots = self.listed(space);
        let upto = match from as usize {
            0 => slots.len(),
            from => from.min(slots.len()),
        };
        let downto = upto.saturating_sub(places);
        let live = |slot: &u32| {
            let key = &self.step.d.registers[*slot].key;
            self.get(key).map(|_| key.clone())
        };
        let found = slots[downto..upto].iter().rev().filter_map(live).collect();
        (found, (downto > 0).then_some(downto as u32))
    }

    /// The key at a place of a space's list, if there is one now. Places go from 0 to
    /// [`Keys::places`].
    pub fn at(&self, space: u8, place: usize) -> Option<Bytes> {
        let key = &self.step.d.registers[*self.listed(space).get(place)?].key;
        self.get(key).map(|_| key.clone())
    }

    /// How many places a space's list has.
    pub fn places(&self, space: u8) -> usize {
        self.listed(space).len()
    }

    /// Keys of a space that this decision has made, which [`Keys::scan`] does not come across.
    pub fn made(&self, space: u8) -> impl Iterator<Item = &Bytes> {
        let made = move |staged: &&Staged| staged.content.is_some() && !self.is_listed(staged);
        self.staged_in(space).filter(made).map(|staged| &staged.key)
    }

    /// Removes all keys of a space at once, however many there are. Leases stay.
    pub fn empty(&mut self, space: u8) {
        let staged = self.staged.iter_mut().filter(|staged| space_of(&staged.key) == space);
        staged.for_each(Staged::vanish);
        if !self.emptied.contains(&space) {
            self.emptied.push(space);
        }
    }

    /// Removes all keys of all spaces at once. Leases stay.
    pub fn empty_all(&mut self) {
        let mut spaces: Vec<u8> = self.step.d.spaces.taken().collect();
        spaces.extend(self.staged.iter().map(|staged| space_of(&staged.key)));
        spaces.into_iter().for_each(|space| self.empty(space));
    }

    fn listed(&self, space: u8) -> &[u32] {
        match self.emptied.contains(&space) {
            true => &[],
            false => self.step.d.spaces.slots(space),
        }
    }

    fn staged_in(&self, space: u8) -> impl Iterator<Item = &Staged> {
        self.staged.iter().filter(move |staged| space_of(&staged.key) == space)
    }

    /// Whether a staged key has a place in its space's list.
    fn is_listed(&self, staged: &Staged) -> bool {
        let d = &self.step.d;
        let listed = staged.slot.is_some_and(|slot| !d.is_gone(&d.registers[slot]));
        listed && !self.emptied.contains(&space_of(&staged.key))
    }
}
