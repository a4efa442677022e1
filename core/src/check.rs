//! The invariants of both halves, each said once and checked by a walk over everything.
//!
//! The rules keep many facts twice, because keeping is cheaper than counting: a lock knows how many
//! permits are taken and the parts know it too. Here the two are compared. It is O(state), so the
//! tests call it after every step and debug builds only while the state is small; a release build
//! never does. A broken invariant is a bug and stops the program with the invariant's name, since
//! going on would write the damage into the journal.

mod queues;
mod waiting;
mod watching;

use alloc::vec::Vec;

use crate::slab::{NONE, Slab};
use crate::table::Table;
use crate::topology::RouteTo;
use crate::volatile::{Timer, Volatile};
use crate::{Durable, Mode};

/// Objects up to which a debug build checks after every step.
const SMALL: usize = 64;

/// Checks everything.
///
/// # Panics
/// When an invariant is broken; the message names it.
pub(crate) fn check(d: &Durable, v: &Volatile) {
    indexes(d);
    locks(d);
    grants(d, v);
    d.check_spaces();
    topology(d);
    queues::lanes(d);
    queues::delays(d, v);
    queues::reading(d, v);
    queues::consumers(d, v);
    waiting::lines(d, v);
    watching::watches(d, v);
    waiting::sessions(d, v);
    timers(d, v);
}

/// Checks everything in a debug build if there is little of it.
#[inline]
pub(crate) fn check_small(d: &Durable, v: &Volatile) {
    if !cfg!(debug_assertions) {
        return;
    }
    let durable = d.grants.len() + d.locks.len() + d.registers.len() + d.queues.len();
    let volatile = v.sessions.len() + v.waiting() + v.consumers.len();
    if durable + volatile + (d.messages as usize) < SMALL {
        check(d, v);
    }
}

/// An index knows exactly the objects of its slab, each where it is.
fn indexed<T>(what: &str, slab: &Slab<T>, index: &Table, find: impl Fn(&T) -> Option<u32>) {
    assert_eq!(slab.len(), index.len(), "{what}: the index has as many as there are");
    for (slot, object) in slab.iter() {
        assert_eq!(find(object), Some(slot), "{what}: the index leads to each");
    }
}

fn indexes(d: &Durable) {
    indexed("locks", &d.locks, &d.lock_index, |lock| d.lock_named(lock.name.as_str()));
    indexed("grants", &d.grants, &d.grant_index, |grant| d.grant_with(grant.token.0));
    indexed("registers", &d.registers, &d.register_index, |r| d.register_at(&r.key));
    indexed("queues", &d.queues, &d.queue_index, |q| d.queue_named(q.name.as_str()));
    indexed("exchanges", &d.exchanges, &d.exchange_index, |x| d.exchange_named(x.name.as_str()));
}

/// What a lock says of its parts is what the parts say, and the parts are compatible.
fn locks(d: &Durable) {
    let mut listed = 0;
    for (slot, lock) in d.locks.iter() {
        let (mut parts, mut exclusive, mut taken) = (0, 0, 0);
        let (mut next, mut before) = (lock.first_part, NONE);
        while next != NONE {
            let part = &d.parts[next];
            assert_eq!(part.lock, slot, "a lock's list has its own parts");
            assert_eq!(part.prev_in_lock, before, "a lock's list is linked both ways");
            match part.mode {
                Mode::Exclusive => exclusive += 1,
                Mode::Shared => assert_eq!(lock.of, 0, "sharers and permits do not mix"),
                Mode::Permits { take, of } => {
                    assert_eq!(lock.of, of, "holders agree on the number of permits");
                    taken += take;
                }
            }
            parts += 1;
            (before, next) = (next, part.next_in_lock);
        }
        assert_eq!(lock.parts, parts, "a lock's count of parts");
        assert_eq!(lock.exclusive, exclusive == 1, "a lock's exclusive flag");
        assert!(exclusive == 0 || parts == 1, "an exclusive holder is alone");
        assert_eq!(lock.taken, taken, "a semaphore's count of permits");
        assert!(taken <= lock.of, "no more permits are taken than there are");
        let needed = parts > 0 || lock.delay_until != 0 || lock.kept;
        assert!(needed, "a lock that nobody needs is gone");
        listed += parts as usize;
    }
    assert_eq!(listed, d.parts.len(), "every part is in its lock's list");
}

/// Every part is in its grant's list, tokens were reserved, each grant is linked where it should.
fn grants(d: &Durable, v: &Volatile) {
    assert!(v.token <= d.token_high, "tokens are reserved before they are used");
    let mut listed = 0;
    for (slot, grant) in d.grants.iter() {
        assert!(grant.token.0 <= v.token, "a grant's token was handed out");
        assert!(grant.entries > 0, "a hold that was left is gone");
        let mut next = grant.first_part;
        assert_ne!(next, NONE, "a grant has a lock");
        while let Some(part) = d.parts.get(next) {
            assert_eq!(part.grant, slot, "a grant's list has its own parts");
            listed += 1;
            next = part.next_in_grant;
        }
        assert_eq!(next, NONE, "a grant's list ends");
        let side = v.grants.get(slot as usize).expect("a grant has a side");
        let owner = v.session(grant.session).unwrap_or(NONE);
        assert_eq!(side.session, owner, "a grant is linked to its session while that lives");
        assert!(grant.deadline == 0 || side.timer != NONE, "a deadline has a timer");
    }
    assert_eq!(listed, d.parts.len(), "every part is in its grant's list");
    for (slot, register) in d.registers.iter() {
        assert!(register.version <= v.token, "a register's version was handed out");
        let timer = v.registers.get(slot as usize).copied().unwrap_or(NONE);
        assert!(register.expires == 0 || timer != NONE, "a register that expires has a timer");
        assert_eq!(register.bytes, register.content.bytes(), "a register's count of bytes");
        assert!(!register.content.is_empty(), "an empty collection is gone");
        assert_eq!(register.claim != 0, d.claims.contains(&slot), "the claims are known");
        let held = core::str::from_utf8(&register.key).ok().and_then(|key| d.lock_named(key));
        let alone = register.claim == 0
            || d.is_gone(register)
            || held.is_none_or(|lock| d.locks[lock].parts == 0);
        assert!(alone, "a claim and a lease exclude each other");
    }
    assert!(d.claims.iter().all(|slot| d.registers.get(*slot).is_some()), "claims are registers");
}

/// Routes lead somewhere, and whoever counts them counts right.
fn topology(d: &Durable) {
    let mut bindings: Vec<u32> = alloc::vec![0; d.queues.end() as usize];
    for (_, exchange) in d.exchanges.iter() {
        let routes = || exchange.routes.values().flat_map(|routes| &routes.list);
        assert!(exchange.routes.values().all(|r| !r.list.is_empty()), "no empty list of routes");
        assert_eq!(exchange.bindings, routes().count(), "an exchange's count of bindings");
        for route in routes() {
            match route.to {
                RouteTo::Queue(slot) => {
                    assert!(d.queues.get(slot).is_some(), "a route leads to a queue that is there");
                    bindings[slot as usize] += 1;
                }
                RouteTo::Exchange(slot) => {
                    assert!(d.exchanges.get(slot).is_some(), "a route leads to an exchange");
                }
            }
        }
    }
    for (slot, queue) in d.queues.iter() {
        assert_eq!(queue.bindings, bindings[slot as usize], "a queue's count of bindings");
    }
}

/// Whoever has a timer is whom it wakes, and nothing else is in the wheel but lock-delays, which
/// nobody refers to because several of one lock may be on their way.
fn timers(d: &Durable, v: &Volatile) {
    let mut owned: Vec<(u32, Timer)> = Vec::new();
    let mut own = |timer: u32, what| {
        if timer != NONE {
            owned.push((timer, what));
        }
    };
    v.sessions.iter().for_each(|(slot, s)| own(s.timer, Timer::Session(slot)));
    v.waiters.iter().for_each(|(slot, w)| own(w.timer, Timer::Waiter(slot)));
    v.watchers.iter().for_each(|(slot, w)| own(w.timer, Timer::Watcher(slot)));
    v.flights.iter().for_each(|(slot, f)| own(f.timer, Timer::Flight(slot)));
    v.consumers.iter().for_each(|(slot, c)| own(c.timer, Timer::Consumer(slot)));
    let by_place = |i: usize| i as u32;
    v.grants.iter().enumerate().for_each(|(i, g)| own(g.timer, Timer::Grant(by_place(i))));
    v.registers.iter().enumerate().for_each(|(i, t)| own(*t, Timer::Register(by_place(i))));
    v.queues.iter().enumerate().for_each(|(i, q)| own(q.timer, Timer::Queue(by_place(i))));
    own(v.delays_timer, Timer::Delays);

    let (delays, mut others): (Vec<_>, Vec<_>) =
        v.wheel.iter().partition(|(_, what)| matches!(what, Timer::LockDelay(_)));
    owned.sort_unstable_by_key(|(timer, _)| *timer);
    others.sort_unstable_by_key(|(timer, _)| *timer);
    assert_eq!(owned, others, "the wheel has exactly the timers that somebody has");
    for (slot, _) in d.locks.iter().filter(|(_, lock)| lock.delay_until != 0) {
        let timed = delays.iter().any(|(_, what)| *what == Timer::LockDelay(slot));
        assert!(timed, "a lock-delay has a timer");
    }
}
