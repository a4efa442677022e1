//! Watches: whoever watches is told of every change and of nothing else.

#![allow(missing_docs, reason = "a test has no users")]

#[path = "support/mod.rs"]
mod support;

use std::sync::Arc;

use leasehold_core::limits::{DAY, MS, SECOND};
use leasehold_core::outcome::LockView;
use leasehold_core::*;

use support::{Answer, Shard, name};

const NOBODY: SessionId = SessionId::NONE;

fn shard() -> Shard {
    Shard::new(Limits::default())
}

fn key(text: &str) -> Arc<[u8]> {
    text.as_bytes().into()
}

/// The answer to a ticket, if it has come.
fn told(shard: &mut Shard, ticket: Ticket) -> Option<Answer> {
    let mine = |kind: &EffectKind| matches!(kind, EffectKind::Reply(t, _) if *t == ticket);
    let at = shard.said.iter().position(mine)?;
    match shard.said.remove(at) {
        EffectKind::Reply(_, answer) => Some(answer),
        _ => unreachable!("just looked"),
    }
}

fn lock_told(shard: &mut Shard, ticket: Ticket) -> LockView {
    match told(shard, ticket) {
        Some(Ok(Outcome::Lock(view))) => *view,
        other => panic!("{other:?}"),
    }
}

/// The version in a watch's answer.
fn version_told(shard: &mut Shard, ticket: Ticket) -> Option<u64> {
    match told(shard, ticket) {
        Some(Ok(Outcome::Register(view))) => view.map(|view| view.version),
        other => panic!("{other:?}"),
    }
}

fn session(shard: &mut Shard) -> SessionId {
    match shard.ask(NOBODY, Op::OpenSession { ttl_us: None, resume: None, label: None }) {
        Ok(Outcome::Session { id, .. }) => id,
        other => panic!("{other:?}"),
    }
}

fn acquire(lock: &str, mode: Mode, ttl_us: Option<Time>, wait: Wait) -> Op {
    Op::Acquire(Box::new(Acquire {
        wants: Wants::One(name(lock), mode),
        hold: 1,
        reentrant: false,
        tenure: Tenure { ttl_us, session: ttl_us.is_none() },
        wait,
        lock_delay_us: 0,
        label: None,
    }))
}

fn granted(answer: Answer) -> Token {
    match answer {
        Ok(Outcome::Granted { token, .. }) => token,
        other => panic!("{other:?}"),
    }
}

fn take(shard: &mut Shard, session: SessionId, lock: &str) -> Token {
    granted(shard.ask(session, acquire(lock, Mode::Exclusive, None, Wait::No)))
}

fn release(shard: &mut Shard, session: SessionId, lock: &str, token: Token) {
    let answer = shard.ask(session, Op::Release(HoldRef { name: name(lock), token, hold: 1 }));
    assert_eq!(answer, Ok(Outcome::Released { entries: 0 }));
}

fn watch_lock(lock: &str, known: Option<Token>, wait: Wait) -> Op {
    Op::WatchLock { name: name(lock), known, wait }
}

fn watch_register(text: &str, known: Option<u64>, wait: Wait) -> Op {
    Op::WatchRegister { key: key(text), known, wait }
}

fn write(shard: &mut Shard, text: &str, value: Option<&str>, ttl: RegisterTtl) -> u64 {
    let value = value.map(key);
    let write = Write { key: key(text), value, expect: Expect::Anything, ttl, guard: None };
    match shard.ask(NOBODY, Op::Write(Box::new(write))) {
        Ok(Outcome::Written { version }) => version,
        other => panic!("{other:?}"),
    }
}

fn tokens(view: &LockView) -> Vec<Token> {
    view.holders.iter().map(|holder| holder.token).collect()
}

/// Lets time go on and everything happen that is due by then.
fn at(shard: &mut Shard, now: Time) {
    while let Some(due) = shard.core.next_due().filter(|due| *due <= now) {
        shard.log.now = shard.log.now.max(due);
        shard.tick();
    }
    shard.log.now = now;
}

#[test]
fn what_differs_from_what_is_known_is_answered_at_once() {
    let mut shard = shard();
    let one = session(&mut shard);
    let token = take(&mut shard, one, "a");
    for known in [None, Some(Token(token.0 - 1))] {
        let ticket = shard.send(NOBODY, None, watch_lock("a", known, Wait::Forever));
        assert_eq!(tokens(&lock_told(&mut shard, ticket)), [token]);
    }
    let ticket = shard.send(NOBODY, None, watch_lock("free", Some(token), Wait::Forever));
    assert_eq!(tokens(&lock_told(&mut shard, ticket)), []);
    let version = write(&mut shard, "k", Some("v"), RegisterTtl::Never);
    let ticket = shard.send(NOBODY, None, watch_register("k", None, Wait::Forever));
    assert_eq!(version_told(&mut shard, ticket), Some(version));
    // And what is as known, too, by who does not wait.
    for wait in [Wait::No, Wait::AtMost(0)] {
        let ticket = shard.send(NOBODY, None, watch_lock("a", Some(token), wait));
        assert_eq!(tokens(&lock_told(&mut shard, ticket)), [token]);
        let ticket = shard.send(NOBODY, None, watch_register("none", None, wait));
        assert_eq!(version_told(&mut shard, ticket), None);
    }
}

#[test]
fn a_grant_and_every_kind_of_end_are_told_in_the_same_step() {
    let mut shard = shard();
    let one = session(&mut shard);
    let watches = [one, NOBODY, one];
    let free = watches.map(|who| shard.send(who, None, watch_lock("a", None, Wait::Forever)));
    assert_eq!(told(&mut shard, free[0]), None);
    // Another lock is another matter.
    take(&mut shard, one, "b");
    assert_eq!(told(&mut shard, free[0]), None);
    let holder = take(&mut shard, one, "a");
    for ticket in free {
        assert_eq!(tokens(&lock_told(&mut shard, ticket)), [holder]);
    }
    release(&mut shard, one, "a", holder);
    let endings: [fn(&mut Shard, SessionId, Token); 4] = [
        |shard, who, token| release(shard, who, "a", token),
        |shard, _, _| {
            let answer = shard.ask(NOBODY, Op::ForceRelease(name("a")));
            assert_eq!(answer, Ok(Outcome::Forced(1)));
        },
        |shard, who, _| {
            shard.ask(who, Op::CloseSession { lost: true }).expect("closed");
        },
        |shard, _, _| {
            let until = shard.log.now + SECOND;
            at(shard, until + MS);
        },
    ];
    for (i, end) in endings.into_iter().enumerate() {
        let who = session(&mut shard);
        let ttl_us = (i == 3).then_some(SECOND);
        let op = acquire("a", Mode::Exclusive, ttl_us, Wait::No);
        let holder = granted(shard.ask(who, op));
        let ticket = shard.send(NOBODY, None, watch_lock("a", Some(holder), Wait::Forever));
        assert_eq!(told(&mut shard, ticket), None, "nothing has changed");
        end(&mut shard, who, holder);
        assert_eq!(tokens(&lock_told(&mut shard, ticket)), [], "ending {i}");
    }
    shard.laws();
}

#[test]
fn a_lock_that_goes_from_hand_to_hand_shows_the_next_holder() {
    let mut shard = shard();
    let (one, two) = (session(&mut shard), session(&mut shard));
    let first = take(&mut shard, one, "a");
    let waiting = shard.send(two, None, acquire("a", Mode::Exclusive, None, Wait::Forever));
    let ticket = shard.send(NOBODY, None, watch_lock("a", Some(first), Wait::Forever));
    release(&mut shard, one, "a", first);
    let second = granted(told(&mut shard, waiting).expect("its turn"));
    let view = lock_told(&mut shard, ticket);
    assert_eq!((tokens(&view), view.waiting), (vec![second], 0));
    assert_eq!(told(&mut shard, ticket), None, "answered once");
}

#[test]
fn of_sharers_the_newest_counts() {
    let mut shard = shard();
    let one = session(&mut shard);
    let share = |shard: &mut Shard| {
        let session = session(shard);
        let op = acquire("a", Mode::Shared, None, Wait::No);
        (session, granted(shard.ask(session, op)))
    };
    let readers: Vec<(SessionId, Token)> = (0..20).map(|_| share(&mut shard)).collect();
    let newest = readers[19].1;
    let ticket = shard.send(one, None, watch_lock("a", Some(newest), Wait::Forever));
    let (session, token) = readers[0];
    release(&mut shard, session, "a", token);
    assert_eq!(told(&mut shard, ticket), None, "the newest is still the newest");
    let (session, token) = readers[19];
    release(&mut shard, session, "a", token);
    let view = lock_told(&mut shard, ticket);
    let shown: Vec<Token> = readers[11..19].iter().rev().map(|(_, token)| *token).collect();
    assert_eq!((tokens(&view), view.holding), (shown, 18), "the newest 8 of all");
}

#[test]
fn the_wait_ends_with_the_view_as_it_is() {
    let mut shard = shard();
    let one = session(&mut shard);
    let token = take(&mut shard, one, "a");
    let start = shard.log.now;
    let lock = shard.send(one, None, watch_lock("a", Some(token), Wait::AtMost(50 * MS)));
    let register = shard.send(one, None, watch_register("k", None, Wait::AtMost(50 * MS)));
    let longer = shard.send(one, None, watch_lock("a", Some(token), Wait::AtMost(80 * MS)));
    at(&mut shard, start + 49 * MS);
    assert_eq!((told(&mut shard, lock), told(&mut shard, register)), (None, None));
    at(&mut shard, start + 51 * MS);
    assert_eq!(tokens(&lock_told(&mut shard, lock)), [token]);
    assert_eq!(version_told(&mut shard, register), None);
    assert_eq!(told(&mut shard, longer), None);
    at(&mut shard, start + 81 * MS);
    assert_eq!(tokens(&lock_told(&mut shard, longer)), [token]);
}

#[test]
fn registers_tell_of_writes_deletions_and_expiry() {
    let mut shard = shard();
    let absent = shard.send(NOBODY, None, watch_register("k", None, Wait::Forever));
    let locks_are_others = shard.send(NOBODY, None, watch_lock("k", None, Wait::Forever));
    write(&mut shard, "other", Some("v"), RegisterTtl::Never);
    // A deletion of nothing changes nothing.
    write(&mut shard, "k", None, RegisterTtl::Never);
    assert_eq!(told(&mut shard, absent), None);
    let first = write(&mut shard, "k", Some("v"), RegisterTtl::Never);
    assert_eq!(version_told(&mut shard, absent), Some(first));
    let same = shard.send(NOBODY, None, watch_register("k", Some(first), Wait::Forever));
    // The same value again is another version.
    let second = write(&mut shard, "k", Some("v"), RegisterTtl::After(SECOND));
    assert_eq!(version_told(&mut shard, same), Some(second));
    let expires = shard.send(NOBODY, None, watch_register("k", Some(second), Wait::Forever));
    let until = shard.log.now + SECOND;
    at(&mut shard, until - MS);
    assert_eq!(told(&mut shard, expires), None);
    at(&mut shard, until + MS);
    assert_eq!(version_told(&mut shard, expires), None);
    let third = write(&mut shard, "k", Some("w"), RegisterTtl::Never);
    let deleted = shard.send(NOBODY, None, watch_register("k", Some(third), Wait::Forever));
    let in_commit = shard.send(NOBODY, None, watch_register("c", None, Wait::Forever));
    let of = |text, value: Option<&str>| Write {
        key: key(text),
        value: value.map(key),
        expect: Expect::Anything,
        ttl: RegisterTtl::Never,
        guard: None,
    };
    let writes = vec![of("k", None), of("c", Some("x"))];
    let commit = Commit { writes, ..Commit::default() };
    let answer = shard.ask(NOBODY, Op::Commit(Box::new(commit)));
    let Ok(Outcome::Committed { versions }) = answer else { panic!("{answer:?}") };
    assert_eq!(version_told(&mut shard, deleted), None);
    assert_eq!(version_told(&mut shard, in_commit), Some(versions[1]));
    assert_eq!(told(&mut shard, locks_are_others), None, "a lock of that name is another thing");
    shard.laws();
}

#[test]
fn who_saw_a_register_run_out_is_not_told_of_it_when_its_timer_fires() {
    let mut shard = shard();
    shard.log.now = SECOND + 100;
    let version = write(&mut shard, "k", Some("v"), RegisterTtl::After(SECOND));
    let early = shard.send(NOBODY, None, watch_register("k", Some(version), Wait::Forever));
    // Past its end, and before the tick that takes it away.
    shard.log.now += SECOND + 1;
    let late = shard.send(NOBODY, None, watch_register("k", None, Wait::Forever));
    assert_eq!(version_told(&mut shard, early), None, "it is absent from the very microsecond");
    let until = shard.log.now + 10 * MS;
    at(&mut shard, until);
    assert_eq!(shard.core.state().registers().len(), 0, "it was taken away");
    assert_eq!(told(&mut shard, late), None, "absent is what it knows");
    let again = write(&mut shard, "k", Some("v"), RegisterTtl::Never);
    assert_eq!(version_told(&mut shard, late), Some(again));
}

#[test]
fn a_watch_is_cancelled_by_its_own_session_only_and_ends_with_it() {
    let mut shard = shard();
    let (one, two) = (session(&mut shard), session(&mut shard));
    let tickets: Vec<Ticket> = [one, one, one, two, NOBODY]
        .into_iter()
        .map(|who| shard.send(who, None, watch_lock("a", None, Wait::Forever)))
        .collect();
    let foreign = shard.ask(two, Op::Cancel(tickets[1]));
    assert_eq!(foreign, Err(Refusal::NothingToCancel));
    assert_eq!(told(&mut shard, tickets[1]), None);
    assert_eq!(shard.ask(one, Op::Cancel(tickets[1])), Ok(Outcome::Done));
    assert_eq!(told(&mut shard, tickets[1]), Some(Err(Refusal::Cancelled)));
    assert_eq!(shard.ask(one, Op::Cancel(tickets[1])), Err(Refusal::NothingToCancel));
    shard.ask(one, Op::CloseSession { lost: false }).expect("closed");
    for ticket in [tickets[0], tickets[2]] {
        assert_eq!(told(&mut shard, ticket), Some(Err(Refusal::NoSession(one))));
    }
    assert_eq!((told(&mut shard, tickets[3]), told(&mut shard, tickets[4])), (None, None));
    assert_eq!(shard.ask(NOBODY, Op::Cancel(tickets[4])), Ok(Outcome::Done));
    assert_eq!(told(&mut shard, tickets[4]), Some(Err(Refusal::Cancelled)));
    let token = take(&mut shard, two, "a");
    assert_eq!(tokens(&lock_told(&mut shard, tickets[3])), [token]);
}

#[test]
fn watchers_and_waiters_share_a_limit_and_wishes_are_checked() {
    let mut shard = Shard::new(Limits { waiters_max: 2, ..Limits::default() });
    let (one, two) = (session(&mut shard), session(&mut shard));
    take(&mut shard, one, "a");
    let waiting = shard.send(two, None, acquire("a", Mode::Exclusive, None, Wait::Forever));
    let watching = shard.send(two, None, watch_register("k", None, Wait::Forever));
    let full = Err(Refusal::Limit("waiters", 2));
    assert_eq!(shard.ask(two, watch_lock("b", None, Wait::Forever)), full);
    assert_eq!(shard.ask(two, acquire("a", Mode::Shared, None, Wait::Forever)), full);
    assert!(shard.ask(two, watch_lock("b", None, Wait::No)).is_ok(), "who does not wait may");
    shard.ask(two, Op::Cancel(watching)).expect("it waits");
    shard.send(NOBODY, None, watch_lock("b", None, Wait::Forever));
    assert_eq!(shard.ask(two, watch_lock("c", None, Wait::Forever)), full);
    shard.ask(two, Op::Cancel(waiting)).expect("it waits");

    let long = Wait::AtMost(400 * DAY);
    let answer = shard.ask(one, watch_lock("b", None, long));
    assert!(matches!(answer, Err(Refusal::Time("the wait", ..))), "{answer:?}");
    let answer = shard.ask(one, watch_register("", None, Wait::Forever));
    assert_eq!(answer, Err(Refusal::Zero("the register's key")));
    let answer = shard.ask(one, watch_register(&"k".repeat(2000), None, Wait::Forever));
    assert!(matches!(answer, Err(Refusal::TooLarge(..))), "{answer:?}");
    let gone = SessionId(999_999);
    let answer = shard.ask(gone, watch_lock("b", None, Wait::Forever));
    assert_eq!(answer, Err(Refusal::NoSession(gone)));
}

/// Everything that a step said about a ticket, with whether it waits for the sync.
fn step(shard: &mut Shard, session: SessionId, op: Op, about: Ticket) -> Vec<bool> {
    let mut out = Vec::new();
    shard.last_ticket += 1;
    let command = Command { ticket: Ticket(shard.last_ticket), session, request: None, op };
    shard.core.step(shard.log.now, command, &mut shard.log, &mut out);
    let mine = |kind: &EffectKind| matches!(kind, EffectKind::Reply(t, _) if *t == about);
    out.iter().filter(|effect| mine(&effect.kind)).map(|effect| effect.after_sync).collect()
}

#[test]
fn an_answer_waits_for_the_sync_of_what_it_shows() {
    let mut shard = shard();
    let one = session(&mut shard);
    let ticket = shard.send(one, None, watch_lock("a", None, Wait::Forever));
    let op = acquire("a", Mode::Exclusive, None, Wait::No);
    assert_eq!(step(&mut shard, one, op, ticket), [true], "a grant");
    let ticket = shard.send(one, None, watch_register("k", None, Wait::Forever));
    let value = Some(key("v"));
    let (expect, ttl) = (Expect::Anything, RegisterTtl::Never);
    let op = Op::Write(Box::new(Write { key: key("k"), value, expect, ttl, guard: None }));
    assert_eq!(step(&mut shard, one, op, ticket), [true], "a write");
    // What is answered at once may show what was done in the same turn.
    let ticket = Ticket(shard.last_ticket + 1);
    let op = watch_lock("a", None, Wait::Forever);
    assert_eq!(step(&mut shard, one, op, ticket), [true], "an answer at once");
}

#[test]
fn a_restart_forgets_watches() {
    let mut shard = shard();
    let ticket = shard.send(NOBODY, None, watch_register("k", None, Wait::Forever));
    shard.restart();
    write(&mut shard, "k", Some("v"), RegisterTtl::Never);
    assert_eq!(told(&mut shard, ticket), None);
}
