//! Locks, sessions and registers through `Core`, as transcripts: who asks what when, and what comes
//! back. Every test ends by replaying its journal into an empty state; both must be the same.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_core::limits::{DAY, MS, SECOND};
use leasehold_core::*;

/// A journal in memory.
#[derive(Default)]
struct Memory {
    now: Time,
    end: Position,
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

/// One shard with its journal, and all that it said.
struct Shard {
    core: Core,
    log: Memory,
    last_ticket: u64,
    answers: BTreeMap<u64, Result<Outcome, Refusal>>,
    notices: Vec<EffectKind>,
}

type Answer = Result<Outcome, Refusal>;

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
        self.core.boot(self.log.now, 1_000_000 * SECOND, &mut self.log, &mut out);
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

#[test]
fn an_exclusive_lock_goes_from_hand_to_hand_in_order_of_arrival() {
    let mut s = Shard::new();
    let [a, b, c] = s.sessions();
    let first = lock("x").get(&mut s, a);
    let second = lock("x").send(&mut s, b);
    let third = lock("x").send(&mut s, c);
    let busy = Refusal::Busy { name: name("x"), holder: Some(first), left_us: None };
    assert_eq!(s.ask(c, lock("x").now().op()), Err(busy.clone()));
    assert_eq!(s.ask(c, lock("x").within(0).op()), Err(busy));
    assert_eq!(s.view("x").waiters, [second, third]);
    assert_eq!(s.release(a, "x", first, 0), Ok(Outcome::Released { entries: 0 }));
    let second = s.token(second);
    assert!(second > first && s.waits(third));
    assert_eq!(s.release(b, "x", second, 0), Ok(Outcome::Released { entries: 0 }));
    let third = s.token(third);
    assert!(third > second);
    assert_eq!(s.view("x").holders, [third]);
    s.done();
}

#[test]
fn readers_share_and_a_waiting_writer_goes_before_later_readers() {
    let mut s = Shard::new();
    let [a, b, c, d, e] = s.sessions();
    let ra = lock("x").shared().get(&mut s, a);
    let rb = lock("x").shared().get(&mut s, b);
    let writer = lock("x").send(&mut s, c);
    let late = lock("x").shared().send(&mut s, d);
    let later = lock("x").shared().send(&mut s, e);
    let busy = s.ask(e, lock("x").shared().hold(9).now().op());
    assert!(matches!(busy, Err(Refusal::Busy { .. })), "no reader passes the writer: {busy:?}");
    s.release(a, "x", ra, 0).unwrap();
    assert!(s.waits(writer));
    s.release(b, "x", rb, 0).unwrap();
    let writer = s.token(writer);
    assert!(s.waits(late));
    s.release(c, "x", writer, 0).unwrap();
    let (late, later) = (s.token(late), s.token(later));
    assert_eq!(s.view("x").holders, [later, late]);
    s.done();
}

#[test]
fn permits_are_counted_and_every_user_must_believe_in_the_same_number() {
    let mut s = Shard::new();
    let [a, b, c, d] = s.sessions();
    let two = lock("pool").permits(2, 3).get(&mut s, a);
    lock("pool").permits(1, 3).get(&mut s, b);
    let wrong = Refusal::Permits { name: name("pool"), of: 3, asked: 4 };
    assert_eq!(s.ask(c, lock("pool").permits(1, 4).op()), Err(wrong));
    let big = lock("pool").permits(3, 3).send(&mut s, c);
    let small = lock("pool").permits(1, 3).send(&mut s, d);
    s.release(a, "pool", two, 0).unwrap();
    assert!(s.waits(big) && s.waits(small), "a small request does not pass a big one");
    s.close(b, false);
    let big = s.token(big);
    assert!(s.waits(small));
    s.release(c, "pool", big, 0).unwrap();
    s.token(small);
    s.done();
}

#[test]
fn a_ttl_ends_exactly_at_its_deadline_and_not_before() {
    let mut s = Shard::new();
    let [a, b] = s.sessions();
    let first = lock("x").ttl(10 * SECOND).get(&mut s, a);
    let next = lock("x").send(&mut s, b);
    s.at(10 * SECOND - 1);
    assert!(s.waits(next));
    assert_eq!(s.ask(a, Op::Check(name("x"), first)), Ok(Outcome::Held(true)));
    s.at(10 * SECOND);
    let next = s.token(next);
    assert!(next > first);
    assert_eq!(s.ask(a, Op::Check(name("x"), first)), Ok(Outcome::Held(false)));
    assert!(matches!(s.notices[..], [EffectKind::HoldEnded(_, t, Ending::Expired)] if t == first));
    // Between two milliseconds: dead for the holder at once, for others when the timer fires.
    let odd = lock("odd").ttl(SECOND + 1).get(&mut s, a);
    s.at(11 * SECOND + 1);
    let stale = Refusal::StaleToken { name: name("odd"), token: odd, current: None };
    let hold = hold_ref("odd", odd, 0);
    assert_eq!(s.ask(a, Op::Renew { hold, ttl_us: None }), Err(stale));
    s.at(11 * SECOND + MS);
    assert!(s.view("odd").holders.is_empty());
    s.done();
}

#[test]
fn a_renewed_hold_lasts_from_the_renewal() {
    let mut s = Shard::new();
    let [a] = s.sessions();
    let held = lock("x").both(10 * SECOND).get(&mut s, a);
    s.at(9 * SECOND);
    let renew = |ttl_us| Op::Renew { hold: hold_ref("x", held, 0), ttl_us };
    let left = |left| Ok(Outcome::Renewed { left_us: Some(left) });
    assert_eq!(s.ask(a, renew(None)), left(10 * SECOND));
    s.at(18 * SECOND);
    assert_eq!(s.view("x").holders, [held]);
    assert_eq!(s.ask(a, renew(Some(2 * SECOND))), left(2 * SECOND));
    assert!(matches!(s.ask(a, renew(Some(0))), Err(Refusal::Time("the TTL", 0, ..))));
    s.at(20 * SECOND);
    assert!(s.view("x").holders.is_empty());
    let bound = lock("y").get(&mut s, a);
    let op = Op::Renew { hold: hold_ref("y", bound, 0), ttl_us: None };
    assert_eq!(s.ask(a, op), Err(Refusal::NothingToRenew(bound)));
    s.done();
}

#[test]
fn a_lost_session_loses_its_locks_and_its_waiters_but_not_what_it_holds_by_ttl() {
    let mut s = Shard::new();
    let a = s.session(Some(5 * SECOND));
    let [b, c] = s.sessions();
    let bound = lock("bound").get(&mut s, a);
    let by_ttl = lock("ttl").ttl(60 * SECOND).get(&mut s, a);
    let other = lock("other").get(&mut s, b);
    let blocked = lock("other").hold(1).send(&mut s, a);
    let heir = lock("bound").send(&mut s, c);
    s.at(4 * SECOND);
    assert_eq!(s.ask(a, Op::KeepAlive), Ok(Outcome::Done));
    s.at(9 * SECOND - 1);
    assert!(s.waits(heir));
    s.at(9 * SECOND);
    assert!(s.token(heir) > bound);
    assert_eq!(s.answer(blocked), Err(Refusal::NoSession(a)));
    assert!(matches!(
        s.notices[..],
        [EffectKind::HoldEnded(_, t, Ending::SessionLost), EffectKind::SessionEnded(_, id)]
            if t == bound && id == a
    ));
    assert_eq!(s.ask(a, Op::KeepAlive), Err(Refusal::NoSession(a)));
    assert_eq!(s.ask(SessionId::NONE, Op::KeepAlive), Err(Refusal::SessionNeeded));
    assert_eq!(s.view("ttl").holders, [by_ttl]);
    s.at(60 * SECOND);
    assert!(s.view("ttl").holders.is_empty());
    assert_eq!(s.view("other").holders, [other]);
    s.done();
}

#[test]
fn a_lock_delay_follows_an_unclean_loss_and_nothing_else() {
    let mut s = Shard::new();
    let [a, b, c] = s.sessions();
    let first = lock("x").delay(3 * SECOND).get(&mut s, a);
    let next = lock("x").delay(3 * SECOND).send(&mut s, b);
    s.close(a, true);
    assert!(s.waits(next));
    assert_eq!(s.view("x").delay_left_us, 3 * SECOND);
    let delayed = Refusal::Busy { name: name("x"), holder: None, left_us: None };
    assert_eq!(s.ask(c, lock("x").now().op()), Err(delayed));
    s.restart();
    assert_eq!(s.view("x").delay_left_us, 3 * SECOND, "a restart does not cut it short");
    s.at(3 * SECOND);
    assert!(s.view("x").holders.is_empty());
    assert!(s.core.state().lock_named("x").is_none(), "the name costs nothing any more");
    let [b, c] = s.sessions();
    let second = lock("x").delay(3 * SECOND).get(&mut s, b);
    assert!(second > first && s.waits(next));
    s.close(b, false);
    let third = lock("x").delay(3 * SECOND).now().get(&mut s, c);
    assert_eq!(s.ask(b, Op::ForceRelease(name("x"))), Ok(Outcome::Forced(1)));
    assert!(lock("x").now().get(&mut s, c) > third);
    s.done();
}

#[test]
fn a_delayed_lock_is_granted_to_its_waiter_when_the_delay_ends() {
    let mut s = Shard::new();
    let [a, b] = s.sessions();
    lock("x").ttl(SECOND).delay(2 * SECOND).get(&mut s, a);
    let next = lock("x").send(&mut s, b);
    s.at(3 * SECOND - 1);
    assert!(s.waits(next));
    s.at(3 * SECOND);
    s.token(next);
    s.done();
}

#[test]
fn a_multi_lock_is_all_or_none_and_keeps_its_place_in_every_line() {
    use Mode::{Exclusive, Shared};
    let mut s = Shard::new();
    let [a, b, c, d] = s.sessions();
    let x = lock("x").get(&mut s, a);
    let both = many(&[("x", Exclusive), ("y", Shared), ("z", Mode::Permits { take: 1, of: 2 })])
        .send(&mut s, b);
    assert!(s.view("y").holders.is_empty(), "nothing is held while one is missing");
    let behind = lock("y").send(&mut s, c);
    let aside = lock("w").get(&mut s, d);
    assert!(s.waits(behind), "y is free, but the multi-lock was first");
    s.release(a, "x", x, 0).unwrap();
    let both = s.token(both);
    for lock in ["x", "y", "z"] {
        assert_eq!(s.view(lock).holders, [both]);
    }
    s.release(b, "y", both, 0).unwrap();
    s.token(behind);
    assert!(s.view("x").holders.is_empty() && s.view("z").holders.is_empty());
    s.release(d, "w", aside, 0).unwrap();
    // Freed slots are taken again, several at once.
    many(&[("p", Exclusive), ("q", Exclusive), ("r", Exclusive)]).get(&mut s, a);
    s.done();
}

#[test]
fn a_cancelled_or_tired_waiter_lets_those_behind_it_pass() {
    let mut s = Shard::new();
    let [a, b, c, d] = s.sessions();
    lock("x").shared().get(&mut s, a);
    let writer = lock("x").send(&mut s, b);
    let reader = lock("x").shared().send(&mut s, c);
    let foreign = s.ask(c, Op::Cancel(Ticket(writer)));
    assert_eq!(foreign, Err(Refusal::NothingToCancel), "only its own session cancels it");
    assert_eq!(s.ask(b, Op::Cancel(Ticket(writer))), Ok(Outcome::Done));
    assert_eq!(s.answer(writer), Err(Refusal::Cancelled));
    s.token(reader);
    assert_eq!(s.ask(b, Op::Cancel(Ticket(writer))), Err(Refusal::NothingToCancel));
    let tired = lock("x").within(2 * SECOND).send(&mut s, b);
    let reader = lock("x").shared().send(&mut s, d);
    s.at(2 * SECOND - 1);
    assert!(s.waits(tired) && s.waits(reader));
    s.at(2 * SECOND);
    assert_eq!(s.answer(tired), Err(Refusal::TimedOut));
    s.token(reader);
    s.done();
}

#[test]
fn a_hold_is_entered_again_with_the_same_token_and_left_as_often() {
    let mut s = Shard::new();
    let [a, b] = s.sessions();
    let held = lock("x").both(10 * SECOND).hold(7).again().get(&mut s, a);
    s.at(4 * SECOND);
    let again = s.ask(a, lock("x").shared().both(10 * SECOND).hold(7).again().op());
    let left_us = Some(10 * SECOND);
    assert_eq!(again, Ok(Outcome::Granted { token: held, left_us, entries: 2 }));
    let other = lock("x").hold(8).again().send(&mut s, a);
    let stranger = lock("x").hold(7).again().send(&mut s, b);
    assert_eq!(s.release(a, "x", held, 7), Ok(Outcome::Released { entries: 1 }));
    assert!(s.waits(other) && s.waits(stranger));
    assert_eq!(s.release(a, "x", held, 7), Ok(Outcome::Released { entries: 0 }));
    assert!(s.token(other) > held && s.waits(stranger));
    s.close(b, false);
    assert_eq!(s.answer(stranger), Err(Refusal::NoSession(b)));
    // Weaker does not become stronger; equal and within the same grant does.
    lock("r").shared().hold(1).again().get(&mut s, a);
    let up = s.ask(a, lock("r").hold(1).again().op());
    assert_eq!(up, Err(Refusal::Upgrade(name("r"))));
    let pair = [("m", Mode::Exclusive), ("n", Mode::Shared)];
    let both = many(&pair).hold(1).again().get(&mut s, a);
    assert_eq!(many(&pair).hold(1).again().get(&mut s, a), both);
    assert_eq!(lock("m").hold(1).again().get(&mut s, a), both);
    s.done();
}

#[test]
fn wrong_stale_and_foreign_tokens_harm_nobody() {
    let mut s = Shard::new();
    let [a, b] = s.sessions();
    let old = lock("x").get(&mut s, a);
    assert_eq!(s.release(a, "x", old, 0), Ok(Outcome::Released { entries: 0 }));
    let gone = Refusal::StaleToken { name: name("x"), token: old, current: None };
    assert_eq!(s.release(a, "x", old, 0), Err(gone), "a double release");
    let now = lock("x").get(&mut s, b);
    let stale = Refusal::StaleToken { name: name("x"), token: old, current: Some(now) };
    assert_eq!(s.release(a, "x", old, 0), Err(stale));
    let foreign = Refusal::ForeignToken(name("x"), now);
    assert_eq!(s.release(a, "x", now, 0), Err(foreign.clone()), "another session");
    assert_eq!(s.release(SessionId::NONE, "x", now, 0), Err(foreign.clone()), "no session");
    assert_eq!(s.release(b, "x", now, 1), Err(foreign.clone()), "another hold");
    let elsewhere = Refusal::ForeignToken(name("y"), now);
    assert_eq!(s.release(b, "y", now, 0), Err(elsewhere), "another lock");
    for never in [Token(0), Token(now.0 + 1), Token(u64::MAX)] {
        assert_eq!(s.release(b, "x", never, 0), Err(Refusal::UnknownToken(never)));
    }
    let renew = Op::Renew { hold: hold_ref("x", now, 0), ttl_us: Some(SECOND) };
    assert_eq!(s.ask(a, renew), Err(foreign));
    assert_eq!(s.ask(a, Op::Check(name("y"), now)), Ok(Outcome::Held(false)));
    assert_eq!(s.view("x").holders, [now]);
    s.done();
}

#[test]
fn force_release_takes_every_hold_and_tells_the_holders() {
    let mut s = Shard::new();
    let [a, b, c] = s.sessions();
    lock("x").shared().get(&mut s, a);
    many(&[("x", Mode::Shared), ("y", Mode::Exclusive)]).get(&mut s, b);
    let next = lock("x").send(&mut s, c);
    assert_eq!(s.ask(SessionId::NONE, Op::ForceRelease(name("x"))), Ok(Outcome::Forced(2)));
    s.token(next);
    assert!(s.view("y").holders.is_empty(), "a grant ends as a whole");
    let revoked = |n: &&EffectKind| matches!(n, EffectKind::HoldEnded(_, _, Ending::Revoked));
    assert_eq!(s.notices.iter().filter(revoked).count(), 2);
    assert_eq!(s.ask(a, Op::ForceRelease(name("nobody"))), Ok(Outcome::Forced(0)));
    s.done();
}

#[test]
fn deadlocks_are_refused_with_the_whole_cycle() {
    let mut s = Shard::new();
    let [a, b, c] = s.sessions();
    let lock_of = |text: &str| lock(text).hold(1);
    lock_of("x").get(&mut s, a);
    lock_of("y").get(&mut s, b);
    lock_of("z").get(&mut s, c);
    let own = s.ask(a, lock_of("x").op());
    assert_eq!(own, Err(Refusal::Deadlock([(a, 1, name("x"))].into())));
    let ay = lock_of("y").send(&mut s, a);
    let cycle = [(b, 1, name("x")), (a, 1, name("y"))];
    assert_eq!(s.ask(b, lock_of("x").op()), Err(Refusal::Deadlock(cycle.into())));
    let bz = lock_of("z").send(&mut s, b);
    let cycle = [(c, 1, name("x")), (a, 1, name("y")), (b, 1, name("z"))];
    let refused = s.ask(c, lock_of("x").within(SECOND).op());
    assert_eq!(refused, Err(Refusal::Deadlock(cycle.into())));
    // Another hold of the same session is another thread of work.
    let other = lock("x").hold(2).send(&mut s, c);
    s.close(c, true);
    assert_eq!(s.answer(other), Err(Refusal::NoSession(c)));
    s.token(bz);
    s.close(b, false);
    s.token(ay);
    s.done();
}

#[test]
fn deadlocks_through_lines_are_found_and_mere_queues_are_none() {
    let mut s = Shard::new();
    let [a, b, c] = s.sessions();
    // a reads x; b wants to write it; a reading once more would wait behind b, who waits for a.
    let ra = lock("x").shared().get(&mut s, a);
    let wb = lock("x").send(&mut s, b);
    let cycle = [(a, 0, name("x")), (b, 0, name("x"))];
    assert_eq!(s.ask(a, lock("x").shared().op()), Err(Refusal::Deadlock(cycle.into())));
    // c holds y and waits behind b: b does not wait for c, so nothing is wrong.
    let yc = lock("y").get(&mut s, c);
    let rc = lock("x").shared().send(&mut s, c);
    assert!(s.waits(rc));
    // But a asking for y closes a ring over c and b.
    let cycle = [(a, 0, name("y")), (c, 0, name("x")), (b, 0, name("x"))];
    assert_eq!(s.ask(a, lock("y").op()), Err(Refusal::Deadlock(cycle.into())));
    s.release(a, "x", ra, 0).unwrap();
    let wb = s.token(wb);
    s.release(b, "x", wb, 0).unwrap();
    s.token(rc);
    s.release(c, "y", yc, 0).unwrap();
    // One of several permits: the others would do, so no alarm.
    let [d, e, f] = s.sessions();
    lock("pool").permits(1, 2).get(&mut s, d);
    lock("pool").permits(1, 2).get(&mut s, e);
    lock("l").get(&mut s, f);
    let waits = lock("l").send(&mut s, d);
    let none = lock("pool").permits(1, 2).send(&mut s, f);
    assert!(s.waits(waits) && s.waits(none));
    s.close(e, false);
    s.token(none);
    s.close(f, false);
    s.token(waits);
    s.done();
}

#[test]
fn a_repeated_acquire_never_costs_a_second_hold() {
    let mut s = Shard::new();
    let [a, b] = s.sessions();
    let ask = || lock("x").both(10 * SECOND).op();
    let first = s.send(a, Some(1), ask());
    let first = s.token(first);
    s.at(SECOND);
    let again = s.send(a, Some(1), ask());
    let granted = Outcome::Granted { token: first, left_us: Some(9 * SECOND), entries: 1 };
    assert_eq!(s.answer(again), Ok(granted));
    // It waits, the connection goes, it asks again: one waiter, and the new ticket is answered.
    let lost = s.send(b, Some(2), ask());
    let retry = s.send(b, Some(2), ask());
    assert_eq!(s.answer(lost), Err(Refusal::RequestWaiting));
    assert_eq!(s.view("x").waiters, [retry]);
    let thief = s.send(a, Some(2), lock("x").hold(5).op());
    assert_eq!(s.answer(thief), Err(Refusal::RequestWaiting));
    let op = || Op::Release(hold_ref("x", first, 0));
    let release = s.send(a, Some(3), op());
    assert_eq!(s.answer(release), Ok(Outcome::Released { entries: 0 }));
    let second = s.token(retry);
    let release = s.send(a, Some(3), op());
    assert_eq!(s.answer(release), Ok(Outcome::Released { entries: 0 }));
    assert_eq!(s.view("x").holders, [second], "the repeated release harmed nobody");
    let retry = s.send(b, Some(2), ask());
    assert_eq!(s.token(retry), second, "also a grant out of the line is remembered");
    let spent = s.send(a, Some(1), ask());
    assert_eq!(s.answer(spent), Err(Refusal::RequestSpent), "its hold has ended");
    s.done();
}

fn write(key: &str, value: Option<&str>) -> Write {
    Write {
        key: key.as_bytes().into(),
        value: value.map(|text| text.as_bytes().into()),
        expect: Expect::Anything,
        ttl: RegisterTtl::Never,
        guard: None,
    }
}

fn written(answer: Answer) -> u64 {
    match answer {
        Ok(Outcome::Written { version }) => version,
        other => panic!("{other:?}"),
    }
}

impl Shard {
    fn write(&mut self, write: Write) -> Answer {
        self.ask(SessionId::NONE, Op::Write(Box::new(write)))
    }

    fn read(&mut self, key: &str) -> Option<(String, u64, Option<Time>)> {
        match self.ask(SessionId::NONE, Op::Read(key.as_bytes().into())) {
            Ok(Outcome::Register(view)) => view.map(|view| {
                (String::from_utf8(view.value.to_vec()).unwrap(), view.version, view.left_us)
            }),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn registers_compare_and_set_under_a_guard() {
    let mut s = Shard::new();
    let [a] = s.sessions();
    let expecting = |value, expect| Write { expect, ..write("k", value) };
    assert_eq!(s.write(expecting(Some("v"), Expect::Present)), Err(Refusal::Conflict(None)));
    let one = written(s.write(expecting(Some("1"), Expect::Absent)));
    assert_eq!(s.write(expecting(Some("2"), Expect::Absent)), Err(Refusal::Conflict(Some(one))));
    let two = written(s.write(expecting(Some("2"), Expect::Version(one))));
    assert!(two > one);
    let late = s.write(expecting(Some("3"), Expect::Version(one)));
    assert_eq!(late, Err(Refusal::Conflict(Some(two))));
    assert_eq!(s.read("k"), Some(("2".into(), two, None)));
    let held = lock("x").get(&mut s, a);
    let guarded = Write { guard: Some((name("x"), held)), ..write("k", Some("held")) };
    let three = written(s.write(guarded.clone()));
    s.release(a, "x", held, 0).unwrap();
    assert!(matches!(s.write(guarded), Err(Refusal::StaleToken { .. })));
    let gone = written(s.write(expecting(None, Expect::Version(three))));
    assert_eq!(s.read("k"), None);
    let nothing = written(s.write(write("k", None)));
    let reborn = written(s.write(write("k", Some("again"))));
    assert!(gone > three && nothing > gone && reborn > nothing, "versions survive deletion");
    let retried = |s: &mut Shard| {
        let ticket = s.send(a, Some(9), Op::Write(Box::new(write("once", Some("v")))));
        written(s.answer(ticket))
    };
    assert_eq!(retried(&mut s), retried(&mut s));
    s.done();
}

#[test]
fn a_register_is_absent_from_the_moment_its_ttl_ends() {
    let mut s = Shard::new();
    let lasting = |value, ttl| Write { ttl, ..write("k", Some(value)) };
    let ttl = RegisterTtl::After(10 * MS + 1);
    let first = written(s.write(lasting("a", ttl)));
    s.at(5 * MS);
    let second = written(s.write(lasting("b", RegisterTtl::Keep)));
    s.at(10 * MS);
    assert_eq!(s.read("k"), Some(("b".into(), second, Some(1))));
    s.at(10 * MS + 1);
    assert_eq!(s.read("k"), None);
    let absent = Write { expect: Expect::Absent, ..lasting("c", RegisterTtl::Keep) };
    let third = written(s.write(absent));
    assert!(third > second && second > first);
    s.at(DAY);
    assert_eq!(s.read("k"), Some(("c".into(), third, None)), "the old timer spares the new value");
    written(s.write(lasting("d", RegisterTtl::After(SECOND))));
    s.restart();
    s.at(DAY + SECOND);
    assert_eq!(s.read("k"), None);
    assert!(s.core.state().registers().is_empty(), "the timer took the garbage away");
    s.done();
}

#[test]
fn after_a_restart_holders_keep_their_locks_and_sessions_can_be_taken_up_again() {
    let mut s = Shard::new();
    let a = s.session(Some(5 * SECOND));
    let [b, c] = s.sessions();
    let by_ttl = lock("ttl").ttl(50 * SECOND).get(&mut s, SessionId::NONE);
    let bound = lock("bound").hold(3).get(&mut s, a);
    let both = lock("both").both(100 * SECOND).get(&mut s, a);
    let lost = lock("lost").get(&mut s, b);
    let waiting = lock("ttl").send(&mut s, c);
    s.at(10 * MS);
    s.restart();
    assert!(s.waits(waiting), "waiters are volatile; clients ask again");
    let d = s.session(None);
    assert!(d.0 > lost.0, "numbers rise over a restart");
    let waiters: Vec<u64> =
        ["ttl", "bound", "both", "lost"].map(|text| lock(text).send(&mut s, d)).into();
    assert!(waiters.iter().all(|ticket| s.waits(*ticket)), "nobody overlaps");
    let resume = |id| Op::OpenSession { ttl_us: None, resume: Some(id), label: None };
    let unknown = SessionId(u64::MAX);
    assert_eq!(s.ask(SessionId::NONE, resume(unknown)), Err(Refusal::NoSession(unknown)));
    assert_eq!(s.ask(SessionId::NONE, resume(c)), Err(Refusal::NoSession(c)), "it held nothing");
    let back = s.ask(SessionId::NONE, resume(a));
    assert_eq!(back, Ok(Outcome::Session { id: a, resumed: true }));
    s.at(30 * SECOND + 10 * MS);
    assert!(s.token(waiters[3]) > lost, "b did not come back within the grace");
    s.at(50 * SECOND);
    assert!(s.token(waiters[0]) > by_ttl, "a TTL goes on over the restart");
    s.at(90 * SECOND);
    assert_eq!(s.view("bound").holders, [bound]);
    assert_eq!(s.view("both").holders, [both]);
    assert_eq!(s.release(a, "bound", bound, 3), Ok(Outcome::Released { entries: 0 }));
    s.token(waiters[1]);
    s.at(100 * SECOND + 10 * MS);
    s.token(waiters[2]);
    s.done();
}

#[test]
fn tokens_and_versions_rise_over_many_restarts() {
    let mut s = Shard::new();
    let mut seen = BTreeSet::new();
    let mut last = 0;
    for _ in 0..5 {
        let [a] = s.sessions();
        let held = lock("x").get(&mut s, a);
        s.release(a, "x", held, 0).unwrap();
        let version = written(s.write(write("k", Some("v"))));
        for number in [a.0, held.0, version] {
            assert!(number > last && seen.insert(number));
            last = number;
        }
        s.restart();
    }
    s.done();
}

#[test]
fn bad_input_gets_a_typed_refusal() {
    assert_eq!(Name::new(""), Err(NameError::Empty));
    assert_eq!(Name::new(&"n".repeat(256)), Err(NameError::TooLong(256)));
    assert_eq!(Name::new("a\0b"), Err(NameError::Control(1)));
    assert!(Name::new(&"n".repeat(255)).is_ok() && Name::new("Lager/Käse ✓").is_ok());
    let mut s = Shard::new();
    let [a] = s.sessions();
    let (min, max) = (MS, 366 * DAY);
    for ttl in [0, 1, 1000 * 365 * DAY, u64::MAX] {
        let refused = Err(Refusal::Time("the TTL", ttl, min, max));
        assert_eq!(s.ask(a, lock("x").ttl(ttl).op()), refused);
    }
    let zero = Err(Refusal::Zero("the number of permits"));
    assert_eq!(s.ask(a, lock("x").permits(0, 3).op()), zero);
    for (take, of) in [(4, 3), (1, 1 << 21), (u32::MAX, u32::MAX)] {
        let refused = s.ask(a, lock("x").permits(take, of).op());
        assert!(matches!(refused, Err(Refusal::TooLarge(..))), "{refused:?}");
    }
    assert_eq!(s.ask(a, many(&[]).op()), Err(Refusal::Zero("the list of locks")));
    let twice = many(&[("x", Mode::Shared), ("x", Mode::Exclusive)]).op();
    assert_eq!(s.ask(a, twice), Err(Refusal::NamedTwice(name("x"))));
    let names: Vec<String> = (0..65).map(|i| i.to_string()).collect();
    let wants: Vec<_> = names.iter().map(|text| (&text[..], Mode::Shared)).collect();
    assert!(matches!(s.ask(a, many(&wants).op()), Err(Refusal::TooLarge(_, 65, 64))));
    assert_eq!(s.ask(SessionId::NONE, lock("x").op()), Err(Refusal::NoTenure));
    let mut endless = lock("x");
    endless.0.tenure = Tenure { ttl_us: None, session: false };
    assert_eq!(s.ask(a, endless.op()), Err(Refusal::NoTenure));
    let ghost = SessionId(u64::MAX);
    assert_eq!(s.ask(ghost, lock("x").op()), Err(Refusal::NoSession(ghost)));
    let slow = s.ask(a, lock("x").delay(61 * SECOND).op());
    assert!(matches!(slow, Err(Refusal::Time("the lock-delay", ..))));
    let mut wordy = lock("x");
    wordy.0.label = Some("l".repeat(1025).into());
    assert!(matches!(s.ask(a, wordy.op()), Err(Refusal::TooLarge(_, 1025, 1024))));
    assert!(matches!(s.write(write("", Some("v"))), Err(Refusal::Zero(_))));
    let long = write(&"k".repeat(1025), Some("v"));
    assert!(matches!(s.write(long), Err(Refusal::TooLarge(_, 1025, 1024))));
    let op = Op::OpenSession { ttl_us: Some(0), resume: None, label: None };
    assert!(matches!(s.ask(a, op), Err(Refusal::Time(_, 0, ..))));
    assert!(s.core.state().locks().is_empty(), "nothing came of any of it");
    s.done();
}

#[test]
fn limits_refuse_one_more() {
    let limits = Limits {
        locks_max: 1,
        waiters_max: 1,
        sessions_max: 2,
        registers_max: 1,
        entries_max: 2,
        ..Limits::default()
    };
    let mut s = Shard::with(limits);
    let [a, b] = s.sessions();
    let op = Op::OpenSession { ttl_us: None, resume: None, label: None };
    assert_eq!(s.ask(SessionId::NONE, op), Err(Refusal::Limit("sessions", 2)));
    lock("x").again().get(&mut s, a);
    lock("x").again().get(&mut s, a);
    let deep = s.ask(a, lock("x").again().op());
    assert_eq!(deep, Err(Refusal::Limit("entries of one hold", 2)));
    assert_eq!(s.ask(a, lock("y").op()), Err(Refusal::Limit("locks", 1)));
    let waiting = lock("x").send(&mut s, b);
    assert_eq!(s.ask(b, lock("x").hold(1).op()), Err(Refusal::Limit("waiters", 1)));
    written(s.write(write("k", Some("v"))));
    assert_eq!(s.write(write("l", Some("v"))), Err(Refusal::Limit("registers", 1)));
    written(s.write(write("k", Some("w"))));
    s.close(a, false);
    s.token(waiting);
    s.done();
}

#[test]
fn what_runs_out_together_ends_together() {
    let mut s = Shard::new();
    let a = s.session(Some(SECOND));
    let [b, c] = s.sessions();
    // The session, its locks' deadlines, a waiter's patience and a lock-delay all meet.
    let x = lock("x").both(SECOND).get(&mut s, a);
    lock("y").both(SECOND).get(&mut s, a);
    lock("held").get(&mut s, b);
    let tired = lock("held").within(SECOND).send(&mut s, a);
    let heir = lock("x").send(&mut s, c);
    s.at(SECOND);
    assert!(s.token(heir) > x);
    let ended = s.answer(tired);
    assert!(matches!(ended, Err(Refusal::NoSession(_) | Refusal::TimedOut)), "{ended:?}");
    assert!(s.view("y").holders.is_empty());
    s.done();
}
