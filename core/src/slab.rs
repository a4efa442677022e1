//! Numbered slots that are reused.
//!
//! The slot of a durable object is part of the events about it, so a rule asks for the next free
//! slot, writes it into the event, and `evolve` inserts *at* that slot. Replay therefore never
//! depends on the order in which slots were freed.

use alloc::vec::Vec;

/// No slot: the end of an intrusive list.
pub const NONE: u32 = u32::MAX;

/// A vector of optional values with a stack of free places.
#[derive(Debug, Clone)]
pub struct Slab<T> {
    slots: Vec<Option<T>>,
    /// May hold places that were taken meanwhile by `insert_at`; those are skipped.
    free: Vec<u32>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), len: 0 }
    }
}

impl<T> Slab<T> {
    /// The slot that a new value should take.
    pub fn next_slot(&self) -> u32 {
        for &slot in self.free.iter().rev() {
            if self.slots[slot as usize].is_none() {
                return slot;
            }
        }
        self.slots.len() as u32
    }

    /// `n` different slots that new values should take.
    pub fn free_slots(&self, n: usize) -> Vec<u32> {
        let mut slots = Vec::with_capacity(n);
        // The stack of free places may name one twice, and taken ones.
        for &slot in self.free.iter().rev() {
            if slots.len() == n {
                return slots;
            }
            if self.slots[slot as usize].is_none() && !slots.contains(&slot) {
                slots.push(slot);
            }
        }
        let missing = (n - slots.len()) as u32;
        slots.extend(self.end()..self.end() + missing);
        slots
    }

    /// Puts a value at a free slot. Panics if it is taken: two objects would share an identity.
    pub fn insert_at(&mut self, slot: u32, value: T) {
        while self.slots.len() <= slot as usize {
            if self.slots.len() < slot as usize {
                self.free.push(self.slots.len() as u32);
            }
            self.slots.push(None);
        }
        let place = &mut self.slots[slot as usize];
        assert!(place.is_none(), "slot {slot} is taken");
        *place = Some(value);
        self.len += 1;
        while let Some(&top) = self.free.last() {
            if self.slots[top as usize].is_none() {
                break;
            }
            self.free.pop();
        }
    }

    /// Puts a value at the next free slot and says which.
    pub fn insert(&mut self, value: T) -> u32 {
        let slot = self.next_slot();
        self.insert_at(slot, value);
        slot
    }

    /// Takes the value out; its slot becomes free.
    pub fn remove(&mut self, slot: u32) -> Option<T> {
        let value = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        self.len -= 1;
        Some(value)
    }

    /// The value at a slot.
    #[inline]
    pub fn get(&self, slot: u32) -> Option<&T> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// The value at a slot, to change.
    #[inline]
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// All values with their slots, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.slots.iter().enumerate().filter_map(|(i, v)| Some((i as u32, v.as_ref()?)))
    }

    /// The first taken slot at or after `from`.
    pub fn seek(&self, from: u32) -> Option<u32> {
        let rest = self.slots.get(from as usize..)?;
        rest.iter().position(Option::is_some).map(|i| from + i as u32)
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One past the highest slot ever used.
    pub fn end(&self) -> u32 {
        self.slots.len() as u32
    }
}

impl<T> core::ops::Index<u32> for Slab<T> {
    type Output = T;
    #[inline]
    fn index(&self, slot: u32) -> &T {
        self.slots[slot as usize].as_ref().expect("slot is taken")
    }
}

impl<T> core::ops::IndexMut<u32> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, slot: u32) -> &mut T {
        self.slots[slot as usize].as_mut().expect("slot is taken")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_reused_and_explicit_inserts_do_not_confuse_the_free_list() {
        let mut slab = Slab::default();
        for i in 0..4 {
            assert_eq!(slab.insert(i), i);
        }
        slab.remove(1);
        slab.remove(2);
        slab.insert_at(1, 10);
        assert_eq!(slab.next_slot(), 2);
        slab.insert_at(7, 70);
        assert_eq!(slab.len(), 4);
        let mut seen = alloc::vec![];
        for _ in 0..4 {
            seen.push(slab.insert(99));
        }
        seen.sort_unstable();
        assert_eq!(seen, [2, 4, 5, 6]);
        assert_eq!(slab.next_slot(), 8);
    }
}
