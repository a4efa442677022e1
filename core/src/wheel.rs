//! Deadlines: a hierarchical timing wheel.
//!
//! Seven levels of 64 slots at one millisecond: insert and cancel cost O(1) and a few nanoseconds
//! whatever the number of timers, which is what a million sessions renewing themselves need. A
//! deadline is rounded *up* to the next millisecond, so nothing ever ends early. Renewals do not
//! touch the wheel at all: the timer stays at its old place, and whoever it wakes looks at the real
//! deadline and inserts it again. After G. Varghese and T. Lauck, "Hashed and hierarchical timing
//! wheels" (1987). A heap was rejected: a released lock would leave its entry behind until the
//! deadline, ten million of them at one million pairs a second and ten seconds each.

use alloc::vec::Vec;

use crate::Time;
use crate::slab::{NONE, Slab};

const LEVELS: usize = 7;
const SLOTS: usize = 64;
/// Microseconds in one step of the wheel.
const STEP_US: u64 = 1_000;
/// The furthest deadline that the wheel can express, in steps; later ones are clamped to it and
/// looked at again when it comes.
const STEPS_MAX: u64 = (1 << (6 * LEVELS as u32)) - 1;

#[derive(Debug, Clone)]
struct Node<T> {
    step: u64,
    what: T,
    level: u8,
    place: u8,
    prev: u32,
    next: u32,
}

/// Timers for values of `T`.
#[derive(Debug, Clone)]
pub struct Wheel<T> {
    nodes: Slab<Node<T>>,
    heads: [[u32; SLOTS]; LEVELS],
    occupied: [u64; LEVELS],
    elapsed: u64,
}

impl<T: Copy> Default for Wheel<T> {
    fn default() -> Self {
        Self {
            nodes: Slab::default(),
            heads: [[NONE; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            elapsed: 0,
        }
    }
}

impl<T: Copy> Wheel<T> {
    /// Wakes `what` at or after `due`; the result cancels it.
    pub fn insert(&mut self, due: Time, what: T) -> u32 {
        let step = due.div_ceil(STEP_US).clamp(self.elapsed, self.elapsed | STEPS_MAX);
        let timer =
            self.nodes.insert(Node { step, what, level: 0, place: 0, prev: NONE, next: NONE });
        self.link(timer);
        timer
    }

    fn link(&mut self, timer: u32) {
        let step = self.nodes[timer].step;
        let differs = (step ^ self.elapsed) | (SLOTS as u64 - 1);
        let level = ((63 - differs.leading_zeros()) / 6) as usize;
        let level = level.min(LEVELS - 1);
        let place = ((step >> (6 * level)) & 63) as usize;
        let head = self.heads[level][place];
        let node = &mut self.nodes[timer];
        (node.level, node.place, node.prev, node.next) = (level as u8, place as u8, NONE, head);
        if head != NONE {
            self.nodes[head].prev = timer;
        }
        self.heads[level][place] = timer;
        self.occupied[level] |= 1 << place;
    }

    fn unlink(&mut self, timer: u32) {
        let (level, place, prev, next) = {
            let node = &self.nodes[timer];
            (node.level as usize, node.place as usize, node.prev, node.next)
        };
        if next != NONE {
            self.nodes[next].prev = prev;
        }
        if prev != NONE {
            self.nodes[prev].next = next;
        } else {
            self.heads[level][place] = next;
            if next == NONE {
                self.occupied[level] &= !(1 << place);
            }
        }
    }

    /// Forgets a timer that has not fired. `NONE` is allowed and does nothing.
    pub fn cancel(&mut self, timer: u32) {
        if timer != NONE {
            self.unlink(timer);
            self.nodes.remove(timer);
        }
    }

    /// The first occupied place: its level and the first step that it covers.
    fn first(&self) -> Option<(usize, usize, u64)> {
        for level in 0..LEVELS {
            if self.occupied[level] == 0 {
                continue;
            }
            let here = (self.elapsed >> (6 * level)) & 63;
            let ahead = self.occupied[level].rotate_right(here as u32).trailing_zeros() as u64;
            let place = (here + ahead) & 63;
            let span = 1u64 << (6 * (level + 1));
            let mut start = (self.elapsed & !(span - 1)) + (place << (6 * level));
            if start < self.elapsed && place < here {
                start += span;
            }
            return Some((level, place as usize, start.max(self.elapsed)));
        }
        None
    }

    /// When to call [`Wheel::expire`] next: never later than the first deadline.
    pub fn next_due(&self) -> Option<Time> {
        self.first().map(|(_, _, start)| start.saturating_mul(STEP_US))
    }

    /// Moves to `now` and hands over what is due, at most `max` of it; false if more is due.
    pub fn expire(&mut self, now: Time, max: usize, out: &mut Vec<T>) -> bool {
        let target = now / STEP_US;
        while let Some((level, place, start)) = self.first() {
            if start > target {
                break;
            }
            self.elapsed = self.elapsed.max(start);
            if level > 0 {
                // The whole slot moves down before anything of it fires: what stayed in it would
                // be passed by and come again only when its level has gone round.
                while self.heads[level][place] != NONE {
                    let timer = self.heads[level][place];
                    self.unlink(timer);
                    self.link(timer);
                    debug_assert!((self.nodes[timer].level as usize) < level, "it moves down");
                }
                continue;
            }
            while self.heads[0][place] != NONE {
                if out.len() == max {
                    return false;
                }
                let timer = self.heads[0][place];
                self.unlink(timer);
                out.push(self.nodes.remove(timer).expect("linked").what);
            }
        }
        self.elapsed = self.elapsed.max(target);
        true
    }

    /// All timers with what they wake, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, T)> {
        self.nodes.iter().map(|(timer, node)| (timer, node.what))
    }

    /// How many timers wait.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;

    #[test]
    fn fires_everything_once_never_early_and_never_after_the_next_look() {
        let mut wheel = Wheel::default();
        let mut model: BTreeMap<u32, (u64, u32)> = BTreeMap::new();
        let (mut now, mut rng, mut serial) = (0u64, 42u64, 0u32);
        for _ in 0..30_000 {
            rng =
                rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let dice = rng >> 40;
            match dice % 4 {
                0 | 1 => {
                    let reach = [500, 70_000, 5_000_000, 400_000_000_000][(dice >> 3) as usize % 4];
                    let due = now + (rng >> 17) % reach;
                    let timer = wheel.insert(due, serial);
                    model.insert(serial, (due, timer));
                    serial += 1;
                }
                2 => {
                    if let Some((&id, &(_, timer))) = model.iter().next() {
                        wheel.cancel(timer);
                        model.remove(&id);
                    }
                }
                _ => {
                    let jump = [100, 3_000, 200_000, 60_000_000][(dice >> 5) as usize % 4];
                    now += (rng >> 21) % jump;
                    let first = model.values().map(|v| v.0).min();
                    if let (Some(first), Some(next)) = (first, wheel.next_due()) {
                        assert!(next <= first.div_ceil(1000) * 1000, "{next} > {first}");
                    }
                    let mut out = Vec::new();
                    while !wheel.expire(now, 8, &mut out) {
                        drain(&mut out, &mut model, now);
                    }
                    drain(&mut out, &mut model, now);
                    let late = model.values().find(|v| v.0.div_ceil(1000) * 1000 <= now);
                    assert_eq!(late, None);
                }
            }
            assert_eq!(wheel.len(), model.len());
        }
    }

    /// Many timers at the same moment, at the start of slots of every level, fired one at a time as
    /// the core does: none is passed by.
    #[test]
    fn crowds_at_the_start_of_a_slot_fire_in_time() {
        for shift in [6, 12, 18, 24] {
            for before in [1, 400, 8_000] {
                let mut wheel = Wheel::default();
                let mut model: BTreeMap<u32, (u64, u32)> = BTreeMap::new();
                let start = 3u64 << shift;
                let from = start.saturating_sub(before);
                assert!(wheel.expire(from * STEP_US, 1, &mut Vec::new()));
                for id in 0..12u32 {
                    let due = (start + u64::from(id / 4) * 200) * STEP_US;
                    model.insert(id, (due, wheel.insert(due, id)));
                }
                for now in [start, start + 1, start + 199, start + 201, start + 401, start + 5000] {
                    let now = now * STEP_US;
                    let mut out = Vec::new();
                    while !wheel.expire(now, 1, &mut out) {
                        drain(&mut out, &mut model, now);
                    }
                    drain(&mut out, &mut model, now);
                    let late = model.values().find(|v| v.0 <= now);
                    assert_eq!(late, None, "slots of 2^{shift} steps, {before} before");
                }
                assert!(model.is_empty() && wheel.is_empty());
            }
        }
    }

    fn drain(out: &mut Vec<u32>, model: &mut BTreeMap<u32, (u64, u32)>, now: u64) {
        for id in out.drain(..) {
            let (due, _) = model.remove(&id).expect("fires once");
            assert!(due <= now, "fired early");
        }
    }
}
