//! Laws on random histories, against a model so simple that it is obviously right.
//!
//! A history is a row of small numbers, which the table of moves turns into commands; so a failure
//! shrinks to few and plain ones. The model decides nothing that the rules decide: it looks at what
//! was asked and what came back, and says whether that was legal. `LEASEHOLD_CASES` raises the
//! number of histories; `LEASEHOLD_TRANSCRIPT` shows what led to a failure.
//!
//! The limits are tiny (pages of 4 entries, 16 of them in memory, 8 delayed messages, segments of
//! some 30 records), so pages leave and come back, runs are made and records move all the time.

#![allow(missing_docs, reason = "a test has no users")]

#[path = "../support/mod.rs"]
mod support;

mod keys;
mod locks;
mod moves;
mod queues;
mod watches;

use leasehold_core::limits::{MS, SECOND};
use leasehold_core::*;
use proptest::prelude::*;

use support::Shard;

/// One move: which, and numbers to choose by.
pub type Dice = [u8; 5];

/// A shard, and what an observer knows of it.
pub struct World {
    pub shard: Shard,
    pub locks: locks::Model,
    pub queues: queues::Model,
    pub watches: watches::Model,
    pub keys: keys::Model,
}

fn limits() -> Limits {
    Limits {
        page_entries: 4,
        resident_entries: 16,
        delayed_entries: 8,
        in_flight_max: 12,
        segment_bytes: 256 << 10,
        request_window_us: SECOND,
        dedup_max: 1000,
        restart_grace_us: 500 * MS,
        ..Limits::default()
    }
}

impl World {
    fn new() -> Self {
        let shard = Shard::new(limits());
        let (locks, queues) = (locks::Model::default(), queues::Model::default());
        let watches = watches::Model::default();
        let keys = keys::Model::default();
        let mut world = Self { shard, locks, queues, watches, keys };
        moves::prepare(&mut world);
        world
    }

    /// Looks at what was said since the last look.
    pub fn look(&mut self) {
        self.locks.look(&self.shard);
        self.queues.look(&self.shard);
        self.watches.look(&self.shard);
        self.keys.look(&self.shard);
        self.shard.said.clear();
    }

    fn play(&mut self, history: &[Dice]) {
        for dice in history {
            moves::play(self, *dice);
        }
        self.shard.laws();
    }
}

fn cases() -> u32 {
    std::env::var("LEASEHOLD_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(256)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        max_shrink_iters: 3000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_history_is_legal(history in prop::collection::vec(any::<Dice>(), 1..160)) {
        World::new().play(&history);
    }
}

/// A checker that cannot fail proves nothing: each of these journals tells a lie.
mod planted {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// A world with one message waiting in a queue.
    fn world() -> World {
        let mut world = World::new();
        moves::publish_plain(&mut world);
        world
    }

    fn fails(what: &str, check: impl FnOnce()) {
        let caught = catch_unwind(AssertUnwindSafe(check));
        assert!(caught.is_err(), "{what} went unnoticed");
    }

    #[test]
    fn a_lost_event_is_noticed_by_replay() {
        let mut world = world();
        world.shard.laws();
        let last = world.shard.log.records.len() - 1;
        world.shard.log.records.remove(last);
        fails("a lost event", || world.shard.laws());
    }

    #[test]
    fn a_changed_event_is_noticed_by_replay() {
        let mut world = world();
        let (_, record) = world.shard.log.records.last_mut().expect("a record");
        let Ok(Event::Published { key, id, arrivals, envelope, .. }) = Event::decode(record) else {
            panic!("the last event is the publish")
        };
        let mut changed = Vec::new();
        Event::Published { due: 7, key, id, arrivals, envelope }.encode(&mut changed);
        *record = changed;
        fails("a changed event", || world.shard.laws());
    }

    #[test]
    fn a_vanished_message_is_noticed_by_the_model() {
        let mut world = world();
        let (stamp, _) = *world.shard.log.records.last().expect("a record");
        let mut state = world.shard.replayed();
        let slot = state.queue_named("plain").expect("the queue");
        let range = [event::Range { first: 0, count: 1 }];
        let weight = u64::from(stamp.size);
        let ranges = event::List::Made(&range);
        let why = event::Why::Acked;
        let lie = Event::Removed { queue: slot, lane: 0, why, weight, ranges };
        state.evolve(Stamp { sequence: stamp.sequence + 1, ..stamp }, &lie);
        world.shard.core = Core::from_durable(state, limits(), 3);
        world.shard.said.clear();
        fails("a vanished message", || world.queues.look(&world.shard));
    }

    #[test]
    fn a_silent_watch_is_noticed_by_the_model_and_a_false_alarm_too() {
        let mut world = World::new();
        let ticket = moves::watch_plain(&mut world);
        let mut alarmed = world.watches.clone();
        let view = world.shard.ask(SessionId::NONE, Op::InspectLock(support::name("a")));
        world.shard.said.push(EffectKind::Reply(ticket, view));
        fails("a false alarm", || alarmed.look(&world.shard));
        world.shard.said.clear();
        let mut silent = world.watches.clone();
        moves::lock_plain(&mut world);
        fails("a silent watch", || silent.look(&world.shard));
        assert!(world.watches.watching.is_empty(), "the true one was told");
    }

    #[test]
    fn a_lost_key_is_noticed_by_the_model_and_one_that_lost_its_claim_too() {
        let mut world = World::new();
        keys::claim_plain(&mut world);
        let (stamp, _) = *world.shard.log.records.last().expect("a record");
        let slot = world.shard.core.state().register_at(b"a").expect("the key");
        let stamp = Stamp { sequence: stamp.sequence + 1, ..stamp };
        let version = world.shard.core.state().registers()[slot].version;
        let written = Event::Written { slot, key: b"a", value: &[1], version, expires: 0 };
        for (lie, what) in
            [(Event::Unclaimed { slot, version }, "a lost key"), (written, "a lost claim")]
        {
            let mut state = world.shard.replayed();
            state.evolve(stamp, &lie);
            world.shard.core = Core::from_durable(state, limits(), 3);
            let mut model = world.keys.clone();
            fails(what, || model.look(&world.shard));
        }
    }

    #[test]
    fn a_second_holder_is_noticed_by_the_model_and_a_vanished_one_too() {
        let mut world = World::new();
        moves::lock_plain(&mut world);
        let mut twice = world.locks.clone();
        twice.forge();
        fails("a second holder", || twice.look(&world.shard));
        world.shard.core = Core::from_durable(Durable::new(Shape::of(&limits()), 1), limits(), 1);
        world.shard.said.clear();
        fails("a vanished holder", || world.locks.look(&world.shard));
    }
}
