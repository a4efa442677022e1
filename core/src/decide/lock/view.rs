//! What inspect shows of a lock: holders, who waits in which order, and how long that may take.
//!
//! The expected wait is the place in line times the average hold, weighted towards the latest holds
//! (1/8, as TCP does for round trips). It is a guess and called one; the order is not.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::outcome::{HolderView, LockView, Outcome, WaiterView};
use crate::slab::NONE;
use crate::step::Step;
use crate::volatile::WaitPlace;
use crate::{Name, Time};

/// Holders and waiters that inspect shows at most.
const INSPECT_MAX: usize = 1000;

impl Step<'_> {
    pub(crate) fn inspect_lock(&self, name: &Name) -> Outcome {
        Outcome::Lock(Box::new(self.lock_view(name, INSPECT_MAX)))
    }

    /// A lock with at most so many of its holders, and of its waiters.
    pub(crate) fn lock_view(&self, name: &Name, max: usize) -> LockView {
        let lock = self.d.lock_named(name.as_str());
        let holders = lock.into_iter().flat_map(|lock| self.d.parts_of_lock(lock)).map(|part| {
            let grant = &self.d.grants[part.grant];
            HolderView {
                token: grant.token,
                session: grant.session,
                hold: grant.hold,
                mode: part.mode,
                held_us: self.now - grant.granted_at,
                left_us: self.left(grant.deadline),
                entries: grant.entries,
                label: grant.label.clone(),
            }
        });
        let claim = self.claim_view(name);
        let claims = u32::from(claim.is_some());
        let line = self.v.line_for(name.as_str()).map(|slot| &self.v.lines[slot]);
        let average = line.map(|line| line.hold_average_us).filter(|average| *average != 0);
        let delay_until = lock.map_or(0, |slot| self.d.locks[slot].delay_until);
        LockView {
            holders: holders.chain(claim).take(max).collect(),
            holding: lock.map_or(0, |slot| self.d.locks[slot].parts) + claims,
            waiters: self.waiters_shown(line.map_or(NONE, |line| line.first), average, max),
            waiting: line.map_or(0, |line| line.len),
            delay_left_us: delay_until.saturating_sub(self.now),
            hold_average_us: average,
        }
    }

    fn waiters_shown(&self, first: u32, average: Option<Time>, max: usize) -> Vec<WaiterView> {
        let mut place = self.v.places.get(first);
        let line = core::iter::from_fn(|| {
            let here = place?;
            place = self.v.places.get(here.next);
            Some(here)
        });
        let view = |(i, place): (usize, &WaitPlace)| {
            let waiter = &self.v.waiters[place.waiter];
            WaiterView {
                ticket: waiter.ticket,
                session: waiter.session_id,
                mode: place.mode,
                waited_us: self.now - waiter.arrived,
                expected_us: average.map(|average| average.saturating_mul(i as u64 + 1)),
                label: waiter.acquire.label.clone(),
            }
        };
        line.take(max).enumerate().map(view).collect()
    }
}
