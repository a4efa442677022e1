//! Lines: who waits, in which order, and who must not.

use super::*;

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
