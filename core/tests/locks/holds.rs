//! Holds: modes, times, tokens, and how they end.

use super::*;

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
