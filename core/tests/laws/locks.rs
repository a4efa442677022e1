//! The model of locks and registers: a list of holds, a list of those who wait.
//!
//! Legal is: holders are compatible, grants go in order of arrival, tokens rise for ever, a hold
//! ends only because it was given back, ran out, was taken, or its session ended, and nobody gets
//! a lock within its lock-delay.

use std::collections::BTreeMap;

use leasehold_core::limits::MS;
use leasehold_core::*;

use super::support::Shard;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seat {
    pub id: SessionId,
    pub ttl_us: Option<Time>,
    pub deadline: Time,
}

#[derive(Debug, Clone)]
pub struct Hold {
    pub token: Token,
    pub session: SessionId,
    pub asked: Acquire,
    pub deadline: Time,
    pub entries: u32,
}

/// An acquire that was sent and not answered.
#[derive(Debug, Clone)]
pub struct Asked {
    pub ticket: Ticket,
    pub session: SessionId,
    pub acquire: Acquire,
    pub at: Time,
}

/// What the command of this step allows to end.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    pub released: Vec<Token>,
    pub forced: Option<Name>,
    /// The session, and whether it ended without its will.
    pub closed: Vec<(SessionId, bool)>,
}

#[derive(Debug, Clone, Default)]
pub struct Model {
    pub seats: Vec<Seat>,
    pub holds: Vec<Hold>,
    pub waiting: Vec<Asked>,
    pub allowed: Allowed,
    pub delays: BTreeMap<Name, Time>,
    pub highest: u64,
    pub registers: BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
}

impl Model {
    /// A token or version that the shard gave out.
    pub fn rises(&mut self, token: u64) {
        assert!(token > self.highest, "tokens rise: {token} after {}", self.highest);
        self.highest = token;
    }

    pub fn session_opened(&mut self, id: SessionId, ttl_us: Option<Time>, now: Time) {
        self.rises(id.0);
        self.seats.push(Seat { id, ttl_us, deadline: ttl_us.map_or(0, |ttl| now + ttl) });
    }

    pub fn resumed(&mut self, id: SessionId, ttl_us: Option<Time>, now: Time) {
        let deadline = ttl_us.map_or(0, |ttl| now + ttl);
        let seat = self.seats.iter_mut().find(|seat| seat.id == id).expect("it was open");
        let orphan = seat.ttl_us.is_none() && seat.deadline != 0;
        (seat.ttl_us, seat.deadline) = (ttl_us, deadline);
        if !orphan {
            return;
        }
        for hold in self.holds.iter_mut().filter(|hold| hold.session == id) {
            if hold.asked.tenure.session && hold.deadline != 0 {
                let own = hold.asked.tenure.ttl_us;
                hold.deadline = own.map_or(0, |ttl| hold.deadline.max(now + ttl));
            }
        }
    }

    /// Whoever holds nothing is forgotten; the others have a grace.
    pub fn restarted(&mut self, now: Time, grace_us: Time) {
        self.waiting.clear();
        let grace = now + grace_us;
        for hold in self.holds.iter_mut().filter(|hold| hold.asked.tenure.session) {
            if hold.deadline == 0 || hold.deadline > grace {
                hold.deadline = grace;
            }
        }
        let holders: Vec<SessionId> = self.holds.iter().map(|hold| hold.session).collect();
        self.seats.retain(|seat| holders.contains(&seat.id));
        self.seats.iter_mut().for_each(|seat| (seat.ttl_us, seat.deadline) = (None, grace));
    }

    pub fn look(&mut self, shard: &Shard) {
        let now = shard.log.now;
        for kind in &shard.said {
            if let EffectKind::SessionEnded(_, id) = kind {
                self.session_ended(*id, now);
            }
        }
        self.orphans_ended(now);
        self.ended(shard, now);
        for kind in &shard.said {
            if let EffectKind::Reply(ticket, answer) = kind {
                self.answered(*ticket, answer, now);
            }
        }
        self.compare(shard, now);
        self.allowed = Allowed::default();
    }

    fn session_ended(&mut self, id: SessionId, now: Time) {
        let seat = self.seats.iter().find(|seat| seat.id == id).expect("it was open");
        assert!(seat.deadline != 0 && seat.deadline <= now, "a session ends at its deadline");
        self.allowed.closed.push((id, true));
    }

    /// Sessions without a ticket end silently when their grace is over.
    fn orphans_ended(&mut self, now: Time) {
        let over = |seat: &&Seat| seat.ttl_us.is_none() && seat.deadline != 0;
        let over: Vec<SessionId> =
            self.seats.iter().filter(over).filter(|s| s.deadline <= now).map(|s| s.id).collect();
        // They may have until their timer fires, so their holds may end but need not yet.
        over.into_iter().for_each(|id| self.allowed.closed.push((id, true)));
    }

    /// Holds that are gone must be gone for a reason.
    fn ended(&mut self, shard: &Shard, now: Time) {
        let there = |token: Token| shard.core.state().grant_with(token.0).is_some();
        let (kept, gone): (Vec<_>, Vec<_>) =
            self.holds.drain(..).partition(|hold| there(hold.token));
        self.holds = kept;
        for hold in gone {
            let mut wants = hold.asked.wants.iter();
            let forced = wants.any(|(name, _)| Some(name) == self.allowed.forced.as_ref());
            let released = self.allowed.released.contains(&hold.token);
            let closed = self.allowed.closed.iter().find(|(id, _)| *id == hold.session);
            let closed = closed.filter(|_| hold.asked.tenure.session);
            let over = hold.deadline != 0 && hold.deadline <= now;
            let legal = forced || released || closed.is_some() || over;
            assert!(legal, "a hold vanished without a reason: {hold:?} at {now}");
            let unclean = !forced && !released && closed.is_none_or(|(_, lost)| *lost);
            if unclean && hold.asked.lock_delay_us > 0 {
                for (name, _) in hold.asked.wants.iter() {
                    let until = self.delays.entry(name.clone()).or_default();
                    *until = (*until).max(now + hold.asked.lock_delay_us);
                }
            }
        }
        let closed: Vec<SessionId> = self.allowed.closed.iter().map(|(id, _)| *id).collect();
        let open = |id: SessionId| {
            let asked = self.waiting.iter().any(|asked| asked.session == id);
            let held = self.holds.iter().any(|h| h.session == id && h.asked.tenure.session);
            asked || held
        };
        let ended: Vec<SessionId> = closed.into_iter().filter(|id| !open(*id)).collect();
        self.seats.retain(|seat| !ended.contains(&seat.id));
    }

    fn answered(&mut self, ticket: Ticket, answer: &Result<Outcome, Refusal>, now: Time) {
        let Some(at) = self.waiting.iter().position(|asked| asked.ticket == ticket) else { return };
        let asked = self.waiting.remove(at);
        match answer {
            Ok(Outcome::Granted { token, entries, .. }) => {
                if let Some(hold) = self.holds.iter_mut().find(|hold| hold.token == *token) {
                    assert!(asked.acquire.reentrant, "a hold is entered again on demand only");
                    let same = (hold.session, hold.asked.hold);
                    assert_eq!(same, (asked.session, asked.acquire.hold), "and by its own");
                    assert_eq!(*entries, hold.entries + 1);
                    hold.entries = *entries;
                    if let (Some(ttl), true) = (asked.acquire.tenure.ttl_us, hold.deadline != 0) {
                        hold.deadline = hold.deadline.max(now + ttl);
                    }
                    return;
                }
                self.rises(token.0);
                self.is_next(&asked, at, now);
                let deadline = asked.acquire.tenure.ttl_us.map_or(0, |ttl| now + ttl);
                let (session, asked) = (asked.session, asked.acquire);
                self.holds.push(Hold { token: *token, session, asked, deadline, entries: 1 });
            }
            Ok(other) => panic!("an acquire was answered with {other:?}"),
            Err(Refusal::TimedOut) => match asked.acquire.wait {
                Wait::AtMost(wait) => assert!(asked.at + wait <= now, "it waited long enough"),
                other => panic!("{other:?} does not time out"),
            },
            Err(_) => {}
        }
    }

    /// Nobody who came earlier waits for any of the same locks, and no lock-delay runs.
    fn is_next(&self, asked: &Asked, at: usize, now: Time) {
        for (name, _) in asked.acquire.wants.iter() {
            let earlier = self.waiting[..at]
                .iter()
                .find(|other| other.acquire.wants.iter().any(|(theirs, _)| theirs == name));
            assert!(earlier.is_none(), "{asked:?} passed {earlier:?}");
            let until = self.delays.get(name).copied().unwrap_or(0);
            assert!(until <= now, "{name} was granted within its lock-delay");
        }
    }

    /// Everyone who holds was granted, and holders are compatible.
    fn compare(&self, shard: &Shard, now: Time) {
        for (_, grant) in shard.core.state().grants().iter() {
            let hold = self.holds.iter().find(|hold| hold.token == grant.token);
            let hold = hold.expect("whoever holds was told so");
            assert_eq!(grant.entries, hold.entries);
            assert_eq!(grant.deadline, hold.deadline, "deadline of {hold:?} at {now}");
        }
        let mut uses: BTreeMap<&Name, Vec<Mode>> = BTreeMap::new();
        for hold in &self.holds {
            for (name, mode) in hold.asked.wants.iter() {
                uses.entry(name).or_default().push(mode);
            }
        }
        for (name, modes) in uses {
            let permits: Option<(u32, u32)> = modes.iter().try_fold((0, u32::MAX), |sum, mode| {
                let Mode::Permits { take, of } = mode else { return None };
                Some((sum.0 + take, sum.1.min(*of)))
            });
            let alone = modes.len() == 1;
            let shared = modes.iter().all(|mode| *mode == Mode::Shared);
            let counted = permits.is_some_and(|(taken, of)| taken <= of);
            assert!(alone || shared || counted, "{name} has holders {modes:?}");
        }
    }

    /// After time went on and everything due was handled, nothing that ran out is left.
    pub fn punctual(&self, now: Time) {
        let late = self.holds.iter().find(|h| h.deadline != 0 && h.deadline + MS <= now);
        assert!(late.is_none(), "a hold outlived its deadline: {late:?} at {now}");
    }

    /// Believes in a second exclusive holder; for the test of this model.
    pub fn forge(&mut self) {
        let mut second = self.holds[0].clone();
        second.token.0 += 1;
        self.holds.push(second);
    }
}
