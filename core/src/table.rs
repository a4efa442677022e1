//! A hash index from keys to slots.
//!
//! Open addressing, linear probing, deletion by shifting back, so there are no tombstones to
//! sweep and no allocation in the steady state. The table stores only the hash and the slot; the
//! key lives with the object. The hash is seeded by whoever starts the node, so that names chosen
//! by a stranger cannot be made to collide; nothing durable depends on it. `BTreeMap` (the only map
//! of `alloc`) costs four to eight times as much per look-up at 100,000 names.

use alloc::vec::Vec;

use crate::slab::NONE;

#[derive(Debug, Clone, Copy)]
struct Place {
    hash: u32,
    slot: u32,
}

const EMPTY: Place = Place { hash: 0, slot: NONE };

/// The index. The seed is fixed at creation.
#[derive(Debug, Clone)]
pub struct Table {
    places: Vec<Place>,
    len: usize,
    seed: u64,
}

fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide >> 64) as u64 ^ wide as u64
}

impl Table {
    /// An empty index whose hashes depend on `seed`.
    pub fn new(seed: u64) -> Self {
        Self { places: Vec::new(), len: 0, seed }
    }

    /// Hashes a byte string: multiply and fold, eight bytes at a time.
    #[inline]
    pub fn hash_bytes(&self, bytes: &[u8]) -> u32 {
        let mut state = self.seed ^ (bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
            state = fold(state ^ word, 0xd6e8_feb8_6659_fd93);
        }
        let mut tail = [0; 8];
        tail[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
        state = fold(state ^ u64::from_le_bytes(tail), 0xa076_1d64_78bd_642f);
        (state >> 32) as u32 ^ state as u32
    }

    /// Hashes a number.
    #[inline]
    pub fn hash_u64(&self, value: u64) -> u32 {
        let state = fold(value ^ self.seed, 0x9e37_79b9_7f4a_7c15);
        (state >> 32) as u32 ^ state as u32
    }

    fn mask(&self) -> usize {
        self.places.len() - 1
    }

    /// The slot whose key has this hash and satisfies `is`.
    #[inline]
    pub fn find(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let mut i = hash as usize & self.mask();
        loop {
            let place = self.places[i];
            if place.slot == NONE {
                return None;
            }
            if place.hash == hash && is(place.slot) {
                return Some(place.slot);
            }
            i = (i + 1) & self.mask();
        }
    }

    /// Adds a slot under a hash. The caller has made sure that the key is not there yet.
    pub fn insert(&mut self, hash: u32, slot: u32) {
        if (self.len + 1) * 8 > self.places.len() * 7 {
            self.grow();
        }
        self.put(Place { hash, slot });
        self.len += 1;
    }

    fn put(&mut self, place: Place) {
        let mut i = place.hash as usize & self.mask();
        while self.places[i].slot != NONE {
            i = (i + 1) & self.mask();
        }
        self.places[i] = place;
    }

    fn grow(&mut self) {
        let bigger = (self.places.len() * 2).max(16);
        let old = core::mem::replace(&mut self.places, alloc::vec![EMPTY; bigger]);
        for place in old.into_iter().filter(|p| p.slot != NONE) {
            self.put(place);
        }
    }

    /// Removes a slot that was inserted under this hash; false if it was not there.
    pub fn remove(&mut self, hash: u32, slot: u32) -> bool {
        if self.len == 0 {
            return false;
        }
        let mask = self.mask();
        let mut hole = hash as usize & mask;
        while self.places[hole].slot != slot {
            if self.places[hole].slot == NONE {
                return false;
            }
            hole = (hole + 1) & mask;
        }
        let mut i = hole;
        loop {
            i = (i + 1) & mask;
            let place = self.places[i];
            if place.slot == NONE {
                break;
            }
            // Move back whatever may stand at the hole without passing its own home.
            let home = place.hash as usize & mask;
            if (i.wrapping_sub(home) & mask) >= (i.wrapping_sub(hole) & mask) {
                self.places[hole] = place;
                hole = i;
            }
        }
        self.places[hole] = EMPTY;
        self.len -= 1;
        true
    }

    /// How many slots are indexed.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is indexed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaves_like_a_map_under_churn_with_colliding_homes() {
        let mut table = Table::new(7);
        let mut model = alloc::collections::BTreeMap::new();
        let mut state = 1u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = (state >> 33) as u32 % 300;
            let hash = key % 40; // few homes: long probes
            match model.remove(&key) {
                Some(()) => assert!(table.remove(hash, key)),
                None => {
                    table.insert(hash, key);
                    model.insert(key, ());
                }
            }
            assert_eq!(table.len(), model.len());
            let probe = (state >> 20) as u32 % 300;
            let found = table.find(probe % 40, |slot| slot == probe);
            assert_eq!(found.is_some(), model.contains_key(&probe));
        }
    }
}
