//! Spaces: numbered sets of keys, each counted, walked through and emptied on its own.
//!
//! A key whose name begins with [`MARK`] and a number belongs to the space of that number, every
//! other key to space 0. No text begins so, therefore registers with readable names are in space 0.
//!
//! A space has a list of its keys' slots. When one leaves, the last one takes its place, so a key
//! only ever moves towards the beginning. A walk goes from the end to the beginning: it meets every
//! key that is there all the time, and some of them twice.
//!
//! A space is emptied by one number: keys with a version up to it are *gone*. Nobody sees them any
//! more, and their slots are cleared a helping at a time. To remove all keys in the step that
//! empties the space was rejected: everybody would wait as long as there are keys, and the removals
//! would have to fit into one group of the journal.

use alloc::vec::Vec;

use crate::Durable;
use crate::lock::Register;

/// What the names of keys begin with that are not in space 0; the number follows.
pub const MARK: [u8; 2] = [0xFF, 0xFF];

/// The space that a key is in.
#[inline]
pub fn space_of(key: &[u8]) -> u8 {
    match key {
        [0xFF, 0xFF, space, ..] => *space,
        _ => 0,
    }
}

#[derive(Debug, Clone, Default)]
struct Space {
    /// Slots of its keys that are not gone.
    slots: Vec<u32>,
    /// Keys with versions up to this one are gone.
    gone: u64,
}

/// All spaces.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spaces {
    /// By number, as far as there were keys.
    all: Vec<Space>,
    /// Where each slot is in its space's list.
    places: Vec<u32>,
    /// The highest version up to which some space is gone: above it nothing is.
    newest_gone: u64,
    /// How many keys are not gone.
    len: usize,
    /// Slots of keys that may be gone, to be cleared. One that is taken again stays in here.
    doomed: Vec<Vec<u32>>,
}

impl Spaces {
    /// How many keys are not gone.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The slots of a space.
    pub fn slots(&self, space: u8) -> &[u32] {
        self.all.get(usize::from(space)).map_or(&[], |space| &space.slots)
    }

    /// The spaces that have keys.
    pub fn taken(&self) -> impl Iterator<Item = u8> {
        let taken =
            |(number, space): (usize, &Space)| (!space.slots.is_empty()).then_some(number as u8);
        self.all.iter().enumerate().filter_map(taken)
    }

    /// Spaces that were emptied, and the version up to which their keys are gone.
    pub fn emptied(&self) -> impl Iterator<Item = (u8, u64)> {
        let numbered =
            self.all.iter().enumerate().map(|(number, space)| (number as u8, space.gone));
        numbered.filter(|(_, gone)| *gone != 0)
    }

    fn space(&mut self, number: u8) -> &mut Space {
        let number = usize::from(number);
        if self.all.len() <= number {
            self.all.resize(number + 1, Space::default());
        }
        &mut self.all[number]
    }

    #[inline]
    fn is_gone(&self, register: &Register) -> bool {
        register.version <= self.newest_gone && self.is_below(register)
    }

    fn is_below(&self, register: &Register) -> bool {
        let space = self.all.get(usize::from(space_of(&register.key)));
        space.is_some_and(|space| register.version <= space.gone)
    }

    /// Puts a slot at the end of its space.
    pub fn list(&mut self, slot: u32, key: &[u8]) {
        let space = self.space(space_of(key));
        let place = space.slots.len() as u32;
        space.slots.push(slot);
        if self.places.len() <= slot as usize {
            self.places.resize(slot as usize + 1, 0);
        }
        self.places[slot as usize] = place;
        self.len += 1;
    }

    /// Takes a slot out of its space.
    pub fn unlist(&mut self, slot: u32, key: &[u8]) {
        let place = self.places[slot as usize];
        let slots = &mut self.space(space_of(key)).slots;
        debug_assert_eq!(slots[place as usize], slot, "a slot is where it should be");
        slots.swap_remove(place as usize);
        let moved = slots.get(place as usize).copied();
        if let Some(moved) = moved {
            self.places[moved as usize] = place;
        }
        self.len -= 1;
    }

    /// Everything in a space up to this version is gone.
    pub fn empty(&mut self, space: u8, version: u64) {
        self.newest_gone = self.newest_gone.max(version);
        let space = self.space(space);
        space.gone = version;
        let slots = core::mem::take(&mut space.slots);
        self.len -= slots.len();
        if !slots.is_empty() {
            self.doomed.push(slots);
        }
    }

    /// Whether there is something to be cleared.
    pub fn has_doomed(&self) -> bool {
        !self.doomed.is_empty()
    }

    /// The next slots to be cleared.
    pub fn doomed(&mut self, most: usize) -> Vec<u32> {
        let Some(last) = self.doomed.last_mut() else { return Vec::new() };
        let slots = last.split_off(last.len().saturating_sub(most));
        if last.is_empty() {
            self.doomed.pop();
        }
        slots
    }
}

impl Durable {
    /// How many registers there are, with those that have run out and wait for their timer.
    pub fn register_count(&self) -> usize {
        self.spaces.len()
    }

    /// Whether a register is gone because its space was emptied.
    #[inline]
    pub fn is_gone(&self, register: &Register) -> bool {
        self.spaces.is_gone(register)
    }

    /// Whether a register has a place that is not gone.
    pub(crate) fn has_register(&self, key: &[u8]) -> bool {
        self.register_at(key).is_some_and(|slot| !self.is_gone(&self.registers[slot]))
    }

    /// Lists the registers that came out of cells.
    pub(crate) fn list_registers(&mut self) {
        let mut gone = Vec::new();
        for (slot, register) in self.registers.iter() {
            match self.spaces.is_gone(register) {
                true => gone.push(slot),
                false => self.spaces.list(slot, &register.key),
            }
        }
        if !gone.is_empty() {
            self.spaces.doomed.push(gone);
        }
    }

    /// Checks what is kept about spaces.
    ///
    /// # Panics
    /// When a key is not in exactly the list where it belongs.
    pub(crate) fn check_spaces(&self) {
        let mut doomed: Vec<u32> = self.spaces.doomed.iter().flatten().copied().collect();
        doomed.sort_unstable();
        let mut listed = 0;
        for (slot, register) in self.registers.iter() {
            if self.is_gone(register) {
                assert!(doomed.binary_search(&slot).is_ok(), "what is gone will be cleared");
                continue;
            }
            let place = self.spaces.places[slot as usize];
            let there = self.spaces.slots(space_of(&register.key)).get(place as usize);
            assert_eq!(there, Some(&slot), "a key is in its space's list");
            listed += 1;
        }
        assert_eq!(listed, self.spaces.len, "the number of keys");
        let lists = self.spaces.all.iter().map(|space| space.slots.len()).sum::<usize>();
        assert_eq!(listed, lists, "every key of a list is there");
    }
}
