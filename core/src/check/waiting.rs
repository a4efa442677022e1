//! Sessions, what is linked to them, and the lines of those who wait for locks.

use alloc::vec::Vec;

use super::indexed;
use crate::Durable;
use crate::slab::{NONE, Slab};
use crate::volatile::Volatile;

/// One member of an intrusive list: its session, its neighbours.
type Links = (u32, u32, u32);

/// Follows a list from its head; it must be linked both ways and belong to one session.
fn listed<T>(
    what: &str,
    session: u32,
    head: u32,
    slab: &Slab<T>,
    links: impl Fn(u32, &T) -> Links,
) -> usize {
    let (mut next, mut before, mut len) = (head, NONE, 0);
    while next != NONE {
        let (owner, prev, after) = links(next, &slab[next]);
        assert_eq!(owner, session, "{what}: a session's list has its own");
        assert_eq!(prev, before, "{what}: a session's list is linked both ways");
        len += 1;
        assert!(len <= slab.len(), "{what}: a session's list ends");
        (before, next) = (next, after);
    }
    len
}

/// Everything that belongs to a session is in exactly its list.
pub(super) fn sessions(d: &Durable, v: &Volatile) {
    indexed("sessions", &v.sessions, &v.session_index, |session| v.session(session.id));
    let (mut grants, mut waiters, mut consumers, mut flights) = (0, 0, 0, 0);
    let mut watchers = 0;
    for (slot, session) in v.sessions.iter() {
        assert!(session.id.0 != 0 && session.id.0 <= v.token, "a session's number was handed out");
        assert!(session.deadline == 0 || session.timer != NONE, "a session's TTL has a timer");
        let counts = (grants, waiters + watchers, consumers, flights);
        grants += listed("grants", slot, session.first_grant, &d.grants, |grant, _| {
            let side = v.grants[grant as usize];
            (side.session, side.prev, side.next)
        });
        waiters += listed("waiters", slot, session.first_waiter, &v.waiters, |_, waiter| {
            assert_eq!(waiter.session_id, session.id, "a waiter's session has its number");
            (waiter.session, waiter.prev, waiter.next)
        });
        watchers += listed("watchers", slot, session.first_watcher, &v.watchers, |_, watcher| {
            assert_eq!(watcher.session_id, session.id, "a watcher's session has its number");
            (watcher.session, watcher.prev_of_session, watcher.next_of_session)
        });
        consumers += listed("consumers", slot, session.first_consumer, &v.consumers, |_, c| {
            (c.session, c.prev, c.next)
        });
        flights += listed("deliveries", slot, session.first_flight, &v.flights, |_, flight| {
            (flight.session, flight.prev, flight.next)
        });
        let walked = (
            (grants - counts.0) as u32,
            (waiters + watchers - counts.1) as u32,
            (consumers - counts.2) as u32,
            (flights - counts.3) as u32,
        );
        let known = (session.holds, session.waiting, session.consumers, session.in_flight);
        assert_eq!(walked, known, "a session's counts of what it has");
        for queue in &session.queues {
            let owned = d.queues.get(*queue).is_some_and(|queue| queue.owner == session.id);
            assert!(owned, "an exclusive queue is its session's");
        }
    }
    let linked = d.grants.iter().filter(|(slot, _)| v.grants[*slot as usize].session != NONE);
    assert_eq!(grants, linked.count(), "every linked grant is in a session's list");
    let bound = v.waiters.iter().filter(|(_, waiter)| waiter.session != NONE);
    assert_eq!(waiters, bound.count(), "every waiter of a session is in its list");
    let bound = v.watchers.iter().filter(|(_, watcher)| watcher.session != NONE);
    assert_eq!(watchers, bound.count(), "every watcher of a session is in its list");
    assert_eq!(consumers, v.consumers.len(), "every consumer is in a session's list");
    assert_eq!(flights, v.flights.len(), "every delivery is in a session's list");
    let exclusive = d.queues.iter().filter(|(_, queue)| queue.config.exclusive);
    let owned: usize = v.sessions.iter().map(|(_, session)| session.queues.len()).sum();
    assert_eq!(exclusive.count(), owned, "every exclusive queue is on its session's list");
}

/// Lines are whole, and nobody waits who could be served.
pub(super) fn lines(d: &Durable, v: &Volatile) {
    assert!(v.free.is_empty(), "freed locks are looked at before a step ends");
    indexed("lines", &v.lines, &v.line_index, |line| v.line_for(line.name.as_str()));
    let mut places = 0;
    for (slot, line) in v.lines.iter() {
        let (mut next, mut before, mut len, mut multi) = (line.first, NONE, 0, 0);
        while next != NONE {
            let place = &v.places[next];
            let waiter = &v.waiters[place.waiter];
            assert_eq!((place.line, place.prev), (slot, before), "a line is linked both ways");
            assert!(waiter.places.contains(&next), "a waiter knows its place");
            let wanted = waiter.acquire.wants.iter().any(|want| want == (&line.name, place.mode));
            assert!(wanted, "a waiter stands where it wants to");
            multi += u32::from(waiter.places.len() > 1);
            len += 1;
            (before, next) = (next, place.next);
        }
        assert!(len > 0, "a line without waiters is gone");
        assert_eq!((line.len, line.multi, line.last), (len, multi, before), "a line's counts");
        places += len as usize;
    }
    assert_eq!(places, v.places.len(), "every place is in its line");
    let mut requests = 0;
    for (slot, waiter) in v.waiters.iter() {
        assert_eq!(waiter.places.len(), waiter.acquire.wants.len(), "a place for each lock");
        let hash = v.waiter_index.hash_u64(waiter.ticket.0);
        let found = v.waiter_index.find(hash, |other| v.waiters[other].ticket == waiter.ticket);
        assert_eq!(found, Some(slot), "a waiter is found by its ticket");
        requests += usize::from(waiter.request.is_some());
        let blocked: Vec<bool> = waiter
            .acquire
            .wants
            .iter()
            .zip(&waiter.places)
            .map(|((name, mode), place)| {
                let lock = d.lock_named(name.as_str()).map(|lock| &d.locks[lock]);
                let free = |lock: &crate::lock::Lock| lock.delay_until == 0 && lock.admits(mode, 0);
                let key = d.register_at(name.as_bytes()).map(|slot| &d.registers[slot]);
                let claimed = key.is_some_and(|key| key.claim != 0 && !d.is_gone(key));
                v.places[*place].prev != NONE || claimed || !lock.is_none_or(free)
            })
            .collect();
        assert!(blocked.contains(&true), "whoever could be granted does not wait");
    }
    assert_eq!(v.waiter_index.len(), v.waiters.len(), "the index of tickets has all waiters");
    assert_eq!(v.request_index.len(), requests, "the index of requests has all that have one");
}
