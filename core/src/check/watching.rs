//! Watches: whoever could be answered has been.

use super::indexed;
use crate::Durable;
use crate::slab::NONE;
use crate::volatile::{Volatile, Watched};

/// Watches are whole, found by what they watch, and what they know is still so.
pub(super) fn watches(d: &Durable, v: &Volatile) {
    let looked = v.stirred.is_empty() && v.overdue.is_empty();
    assert!(looked, "what has changed is looked at before a step ends");
    indexed("watches", &v.watches, &v.watch_index, |watch| v.watch_on(watch.what.subject()));
    let mut watchers = 0;
    for (slot, watch) in v.watches.iter() {
        let (mut next, mut before) = (watch.first, NONE);
        while next != NONE {
            let watcher = &v.watchers[next];
            let linked = (watcher.watch, watcher.prev);
            assert_eq!(linked, (slot, before), "a watch is linked both ways");
            watchers += 1;
            assert!(watchers <= v.watchers.len(), "a watch's list ends");
            (before, next) = (next, watcher.next);
        }
        assert_ne!(before, NONE, "a watch without watchers is gone");
        assert_eq!(watch.last, before, "a watch knows its last watcher");
        assert!(is_known(d, watch.known, &watch.what), "whoever watches what has changed is told");
    }
    assert_eq!(watchers, v.watchers.len(), "every watcher is in its watch");
    indexed("watchers", &v.watchers, &v.watcher_index, |watcher| {
        let hash = v.watcher_index.hash_u64(watcher.ticket.0);
        v.watcher_index.find(hash, |other| v.watchers[other].ticket == watcher.ticket)
    });
    for (_, watcher) in v.watchers.iter() {
        assert!(watcher.due == 0 || watcher.timer != NONE, "a watcher's patience has a timer");
    }
}

fn is_known(d: &Durable, known: Option<u64>, what: &Watched) -> bool {
    match what {
        Watched::Lock(name) => {
            let lock = d.lock_named(name.as_str());
            let newest = lock.and_then(|lock| d.parts_of_lock(lock).next());
            let lease = newest.map(|part| d.grants[part.grant].token.0);
            let key = d.register_at(name.as_bytes()).map(|slot| &d.registers[slot]);
            let claimed = key.filter(|key| key.claim != 0 && !d.is_gone(key));
            known == lease.or(claimed.map(|key| key.claim))
        }
        Watched::Register(key) => {
            let register = d.register_at(key).map(|slot| &d.registers[slot]);
            let Some(register) = register.filter(|register| !d.is_gone(register)) else {
                return known.is_none();
            };
            // One that has run out is absent before its timer takes it away.
            known == Some(register.version) || known.is_none() && register.expires != 0
        }
    }
}
