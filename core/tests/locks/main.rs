//! Locks, sessions and registers through `Core`, as transcripts: who asks what when, and what comes
//! back. Every test ends by replaying its journal into an empty state; both must be the same.

#[path = "../support/mod.rs"]
mod support;

mod holds;
mod limits;
mod lines;
mod registers;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};

use leasehold_core::limits::{DAY, MS, SECOND};
use leasehold_core::*;

use support::{Answer, Memory, WALL};

/// One shard with its journal, and all that it said.
struct Shard {
    core: Core,
    log: Memory,
    last_ticket: u64,
    answers: BTreeMap<u64, Result<Outcome, Refusal>>,
    notices: Vec<EffectKind>,
}

impl Shard {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let mut shard = Self {
            core: Core::new(limits, 1),
            log: Memory::default(),
            last_ticket: 0,
            answers: BTreeMap::new(),
            notices: Vec::new(),
        };
        shard.boot();
        shard
    }

    fn boot(&mut self) {
        let mut out = Vec::new();
        self.core.boot(self.log.now, WALL, &mut self.log, &mut out);
        self.take(out);
    }

    fn replayed(&self) -> Durable {
        let mut state = Durable::new(Shape::of(self.core.limits()), 99);
        for (stamp, bytes) in &self.log.records {
            state.evolve(*stamp, &Event::decode(bytes).unwrap());
        }
        state
    }

    /// What waits or is volatile is lost; the journal is not.
    fn restart(&mut self) {
        let limits = self.core.limits().clone();
        self.core = Core::from_durable(self.replayed(), limits, 7);
        self.boot();
    }

    fn take(&mut self, out: Vec<Effect>) {
        for effect in out {
            match effect.kind {
                EffectKind::Reply(ticket, answer) => {
                    let before = self.answers.insert(ticket.0, answer);
                    assert_eq!(before, None, "ticket {} is answered twice", ticket.0);
                }
                notice => self.notices.push(notice),
            }
        }
    }

    /// Lets time go on to `now`, and everything that is due by then happen.
    fn at(&mut self, now: Time) {
        assert!(now >= self.log.now);
        while let Some(due) = self.core.next_due().filter(|due| *due <= now) {
            self.log.now = self.log.now.max(due);
            let mut out = Vec::new();
            self.core.tick(self.log.now, &mut self.log, &mut out);
            self.take(out);
        }
        self.log.now = now;
    }

    fn send(&mut self, session: SessionId, request: Option<u128>, op: Op) -> u64 {
        self.at(self.log.now);
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        let command = Command { ticket, session, request: request.map(RequestId), op };
        let mut out = Vec::new();
        self.core.step(self.log.now, command, &mut self.log, &mut out);
        self.core.check();
        self.take(out);
        self.last_ticket
    }

    fn ask(&mut self, session: SessionId, op: Op) -> Answer {
        let ticket = self.send(session, None, op);
        self.answers.remove(&ticket).expect("an answer at once")
    }

    fn answer(&mut self, ticket: u64) -> Answer {
        self.answers.remove(&ticket).expect("an answer by now")
    }

    fn token(&mut self, ticket: u64) -> Token {
        token(self.answer(ticket))
    }

    fn waits(&self, ticket: u64) -> bool {
        !self.answers.contains_key(&ticket)
    }

    fn session(&mut self, ttl_us: Option<Time>) -> SessionId {
        let op = Op::OpenSession { ttl_us, resume: None, label: None };
        match self.ask(SessionId::NONE, op) {
            Ok(Outcome::Session { id, resumed: false }) => id,
            other => panic!("{other:?}"),
        }
    }

    fn sessions<const N: usize>(&mut self) -> [SessionId; N] {
        std::array::from_fn(|_| self.session(None))
    }

    fn release(&mut self, session: SessionId, lock: &str, token: Token, hold: u64) -> Answer {
        self.ask(session, Op::Release(hold_ref(lock, token, hold)))
    }

    fn close(&mut self, session: SessionId, lost: bool) {
        assert_eq!(self.ask(session, Op::CloseSession { lost }), Ok(Outcome::Done));
    }

    fn view(&mut self, lock: &str) -> LockViewed {
        match self.ask(SessionId::NONE, Op::InspectLock(name(lock))) {
            Ok(Outcome::Lock(view)) => LockViewed {
                holders: view.holders.iter().map(|holder| holder.token).collect(),
                waiters: view.waiters.iter().map(|waiter| waiter.ticket.0).collect(),
                delay_left_us: view.delay_left_us,
            },
            other => panic!("{other:?}"),
        }
    }

    fn done(self) {
        assert_eq!(self.core.state().all_cells(), self.replayed().all_cells());
        assert_eq!(self.answers, BTreeMap::new(), "answers that the test did not look at");
    }
}

struct LockViewed {
    holders: Vec<Token>,
    waiters: Vec<u64>,
    delay_left_us: Time,
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn token(answer: Answer) -> Token {
    match answer {
        Ok(Outcome::Granted { token, .. }) => token,
        other => panic!("{other:?}"),
    }
}

fn hold_ref(lock: &str, token: Token, hold: u64) -> HoldRef {
    HoldRef { name: name(lock), token, hold }
}

/// An acquire bound to the session, that waits for ever.
struct Ask(Acquire);

fn lock(lock: &str) -> Ask {
    locks(Wants::One(name(lock), Mode::Exclusive))
}

fn locks(wants: Wants) -> Ask {
    Ask(Acquire {
        wants,
        hold: 0,
        reentrant: false,
        tenure: Tenure { ttl_us: None, session: true },
        wait: Wait::Forever,
        lock_delay_us: 0,
        label: None,
    })
}

fn many(list: &[(&str, Mode)]) -> Ask {
    locks(Wants::Many(list.iter().map(|(n, mode)| (name(n), *mode)).collect()))
}

impl Ask {
    fn mode(mut self, mode: Mode) -> Self {
        if let Wants::One(_, is) = &mut self.0.wants {
            *is = mode;
        }
        self
    }
    fn shared(self) -> Self {
        self.mode(Mode::Shared)
    }
    fn permits(self, take: u32, of: u32) -> Self {
        self.mode(Mode::Permits { take, of })
    }
    fn hold(mut self, hold: u64) -> Self {
        self.0.hold = hold;
        self
    }
    fn again(mut self) -> Self {
        self.0.reentrant = true;
        self
    }
    /// By TTL alone.
    fn ttl(mut self, ttl_us: Time) -> Self {
        self.0.tenure = Tenure { ttl_us: Some(ttl_us), session: false };
        self
    }
    fn both(mut self, ttl_us: Time) -> Self {
        self.0.tenure = Tenure { ttl_us: Some(ttl_us), session: true };
        self
    }
    fn delay(mut self, lock_delay_us: Time) -> Self {
        self.0.lock_delay_us = lock_delay_us;
        self
    }
    fn now(mut self) -> Self {
        self.0.wait = Wait::No;
        self
    }
    fn within(mut self, time: Time) -> Self {
        self.0.wait = Wait::AtMost(time);
        self
    }
    fn op(self) -> Op {
        Op::Acquire(Box::new(self.0))
    }
    fn send(self, shard: &mut Shard, session: SessionId) -> u64 {
        shard.send(session, None, self.op())
    }
    fn get(self, shard: &mut Shard, session: SessionId) -> Token {
        token(shard.ask(session, self.op()))
    }
}
