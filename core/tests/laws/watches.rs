//! The model of watches: who waits for what, and what they know of it.
//!
//! Legal is: a watch is answered when what it knows is not so any more or when its time is over,
//! and for no other reason; and after no step does one wait that knows something else than is so.

use leasehold_core::limits::MS;
use leasehold_core::*;

use super::support::Shard;

/// What is watched.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    Lock(Name),
    Register(&'static str),
}

/// A watch that was sent and not answered.
#[derive(Debug, Clone)]
pub struct Watching {
    pub ticket: Ticket,
    pub session: SessionId,
    pub what: What,
    pub known: Option<u64>,
    /// When it is answered all the same.
    pub until: Option<Time>,
}

#[derive(Debug, Clone, Default)]
pub struct Model {
    pub watching: Vec<Watching>,
    /// The watch that the command of this step may withdraw.
    pub withdrawn: Option<Ticket>,
}

/// What a watch of this should know.
pub fn current(shard: &Shard, what: &What) -> Option<u64> {
    let state = shard.core.state();
    match what {
        What::Lock(name) => {
            let lock = state.lock_named(name.as_str());
            let part = lock.and_then(|lock| state.parts_of_lock(lock).next());
            let lease = part.map(|part| state.grants()[part.grant].token.0);
            let key = || Some(state.registers()[state.register_at(name.as_bytes())?].claim);
            lease.or_else(key).filter(|token| *token != 0)
        }
        What::Register(key) => Some(state.registers()[state.register_at(key.as_bytes())?].version),
    }
}

impl Model {
    pub fn look(&mut self, shard: &Shard) {
        for kind in &shard.said {
            if let EffectKind::Reply(ticket, answer) = kind {
                self.answered(shard, *ticket, answer);
            }
        }
        for watching in &self.watching {
            let current = current(shard, &watching.what);
            assert_eq!(current, watching.known, "whoever watches is told: {watching:?}");
        }
        self.withdrawn = None;
    }

    fn answered(&mut self, shard: &Shard, ticket: Ticket, answer: &Result<Outcome, Refusal>) {
        let Some(at) = self.watching.iter().position(|one| one.ticket == ticket) else { return };
        let asked = self.watching.remove(at);
        let seen = match (answer, &asked.what) {
            (Ok(Outcome::Lock(view)), What::Lock(_)) => {
                view.holders.first().map(|holder| holder.token.0)
            }
            (Ok(Outcome::Register(view)), What::Register(_)) => {
                view.as_ref().map(|view| view.version)
            }
            (Err(Refusal::Cancelled), _) => {
                assert_eq!(self.withdrawn, Some(ticket), "cancelled and nobody wanted it");
                return;
            }
            (Err(Refusal::NoSession(id)), _) if *id == asked.session => return,
            other => panic!("{asked:?} was answered with {other:?}"),
        };
        assert_eq!(seen, current(shard, &asked.what), "a watch shows what is so");
        let over = asked.until.is_some_and(|until| until <= shard.log.now);
        assert!(over || seen != asked.known, "nothing has changed: {asked:?}");
    }

    /// After time went on and everything due was handled, nobody waits who waited long enough.
    pub fn punctual(&self, now: Time) {
        let late = |one: &&Watching| one.until.is_some_and(|until| until + MS <= now);
        let late = self.watching.iter().find(late);
        assert!(late.is_none(), "a watch waits too long: {late:?} at {now}");
    }
}
