//! One shard on a journal in memory, asked through the door's commands.

use std::time::Instant;

use leasehold_core::limits::SECOND;
use leasehold_core::{Core, Durable, Event, Keys, Limits, Log, Shape, Stamp, Time};
use leasehold_resp_door::codec::{self, Version};
use leasehold_resp_door::commands;
use leasehold_resp_door::commands::blocking::{self, Attempt};
use leasehold_resp_door::scene::Scene;
use leasehold_resp_door::{Reply, table};

use super::redis::Value;

/// A journal in memory.
#[derive(Default)]
struct Memory {
    now: Time,
    end: u64,
    records: Vec<(Stamp, Vec<u8>)>,
}

impl Log for Memory {
    fn group(&mut self, _bytes_max: usize) {}

    fn append(&mut self, event: &Event<'_>) -> Stamp {
        let mut bytes = Vec::new();
        event.encode(&mut bytes);
        let stamp = Stamp {
            sequence: self.records.len() as u64 + 1,
            at: self.now,
            position: self.end,
            size: bytes.len() as u32,
        };
        self.end += bytes.len() as u64;
        self.records.push((stamp, bytes));
        stamp
    }
}

/// How a client sees the shard.
#[derive(Debug, Clone, Copy, Default)]
pub struct View {
    pub db: u8,
    pub resp3: bool,
    pub in_multi: bool,
}

/// The shard.
pub struct Shard {
    pub core: Core,
    log: Memory,
    begun: Instant,
    seed: u64,
    /// Added to the time that passes.
    pub ahead: Time,
    /// What the last command gave elements to.
    pub pushed: Vec<Vec<u8>>,
}

impl Shard {
    pub fn new(limits: Limits) -> Self {
        let wall = std::time::SystemTime::now();
        let wall = wall.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_micros();
        let mut core = Core::new(limits, 1);
        let mut log = Memory { now: SECOND, ..Memory::default() };
        core.boot(SECOND, wall as Time, &mut log, &mut Vec::new());
        Self { core, log, begun: Instant::now(), seed: 7, ahead: 0, pushed: Vec::new() }
    }

    pub fn now(&self) -> Time {
        SECOND + self.ahead + self.begun.elapsed().as_micros() as Time
    }

    /// One decision over keys.
    pub fn decide<R>(&mut self, procedure: impl FnOnce(&mut Keys<'_, '_>) -> R) -> R {
        let now = self.now();
        self.log.now = now;
        // As at the end of the node's turn before.
        while !self.core.tick(now, &mut self.log, &mut Vec::new()) {}
        self.core.keys(now, &mut self.log, &mut Vec::new(), procedure)
    }

    /// One command of the core.
    pub fn step(&mut self, command: leasehold_core::Command) -> Vec<leasehold_core::Effect> {
        let now = self.now();
        self.log.now = now;
        let mut out = Vec::new();
        self.core.step(now, command, &mut self.log, &mut out);
        out
    }

    /// One command of a client, checked against the table first.
    pub fn run(&mut self, view: View, args: &[&[u8]]) -> Reply {
        match self.attempt(view, args) {
            Attempt::Done(reply) => reply,
            Attempt::WouldBlock { on_timeout, .. } => on_timeout,
        }
    }

    /// The same for one that may wait.
    pub fn attempt(&mut self, view: View, args: &[&[u8]]) -> Attempt {
        let entry = match table::resolve(args) {
            Ok(entry) => entry,
            Err(error) => return Attempt::Done(error),
        };
        self.seed += 1;
        let seed = self.seed;
        let (answer, pushed) = self.decide(|keys| {
            let mut scene = Scene::new(keys, seed);
            (scene.db, scene.resp3, scene.in_multi) = (view.db, view.resp3, view.in_multi);
            let answer = match entry.flags.has(table::Flags::BLOCKING) {
                true => blocking::attempt(entry.id, &mut scene, args),
                false => Attempt::Done(commands::run(entry.id, &mut scene, args)),
            };
            (answer, scene.pushed)
        });
        self.pushed = pushed;
        answer
    }

    /// The reply as a client reads it from the wire.
    pub fn ask(&mut self, view: View, args: &[&[u8]]) -> Value {
        let reply = self.run(view, args);
        let version = if view.resp3 { Version::Resp3 } else { Version::Resp2 };
        let mut wire = Vec::new();
        codec::write(&reply, version, &mut wire);
        let mut rest = &wire[..];
        let value = Value::read(&mut rest);
        assert!(rest.is_empty(), "{reply:?} is one reply");
        value
    }

    /// Law: the journal leads to the same state as running did.
    pub fn check(&self) {
        self.core.check();
        let mut state = Durable::new(Shape::of(self.core.limits()), 99);
        for (stamp, bytes) in &self.log.records {
            state.replay(*stamp, &Event::decode(bytes).expect("a recorded event decodes"));
        }
        let (here, there) = (self.core.state().all_cells(), state.all_cells());
        assert!(here == there, "replaying the journal leads to another state");
    }
}
