//! Lock holds in the clients' books.

use leasehold_core::Mode;
use leasehold_core::outcome::{HolderView, LockView};

use super::{Lawful, Ledger, demand};

/// A lock and how it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Its name.
    pub name: String,
    /// How.
    pub mode: Mode,
}

/// A hold as its holder knows it.
#[derive(Clone, Debug)]
pub struct Hold {
    /// What it covers.
    pub wants: Vec<Want>,
    /// The session that has it.
    pub session: u64,
    /// The number given at acquire.
    pub hold: u64,
    /// Shard time of its deadline; `None`: it has none.
    pub until: Option<u64>,
    /// Whether it ends with its session.
    pub bound: bool,
    /// A release is on its way.
    pub releasing: bool,
}

impl Ledger {
    /// Whether a hold certainly still stands.
    pub fn stands(&self, hold: &Hold, now: u64) -> bool {
        !hold.releasing
            && hold.until.is_none_or(|until| now < until)
            && (!hold.bound || self.session_lives(hold.session, now))
    }

    /// Locks were granted.
    ///
    /// # Errors
    /// When somebody else certainly holds one of them, or the token is not newer.
    pub fn granted(&mut self, token: u64, hold: Hold, now: u64) -> Lawful {
        self.count("grant");
        self.token(token, "a grant")?;
        self.acquiring.remove(&hold.hold);
        for want in &hold.wants {
            let others = self.holds.iter().filter(|(_, other)| self.stands(other, now));
            for (other_token, other) in others {
                let theirs = other.wants.iter().find(|theirs| theirs.name == want.name);
                demand(theirs.is_none_or(|theirs| agree(theirs.mode, want.mode)), || {
                    format!(
                        "{want:?} was granted with {token} at {now} while {other_token} \
                             stands: {other:?}"
                    )
                })?;
            }
            self.permits_suffice(want, now)?;
            self.unclaimed(&want.name, token, now)?;
            let last = self.lock_tokens.insert(want.name.clone(), token).unwrap_or(0);
            demand(token > last, || {
                format!("lock {} was granted with {token} after {last}", want.name)
            })?;
        }
        self.holds.insert(token, hold);
        Ok(())
    }

    fn permits_suffice(&self, want: &Want, now: u64) -> Lawful {
        let Mode::Permits { take, of } = want.mode else { return Ok(()) };
        let standing = self.holds.values().filter(|hold| self.stands(hold, now));
        let theirs = standing.flat_map(|hold| &hold.wants).filter(|w| w.name == want.name);
        let taken = theirs.map(|w| if let Mode::Permits { take, .. } = w.mode { take } else { 0 });
        let sum = take + taken.sum::<u32>();
        demand(sum <= of, || format!("{sum} of {of} permits of {} are out", want.name))
    }

    /// A hold ended for certain.
    pub fn hold_ended(&mut self, token: u64) {
        if self.holds.remove(&token).is_some() {
            self.ended.insert(token, false);
        }
    }

    /// A session ended for certain, and what is bound to it.
    pub fn session_ended(&mut self, session: u64) {
        self.sessions.remove(&session);
        let bound = |hold: &Hold| hold.bound && hold.session == session;
        let over: Vec<u64> =
            self.holds.iter().filter(|(_, h)| bound(h)).map(|(token, _)| *token).collect();
        over.into_iter().for_each(|token| self.hold_ended(token));
    }

    /// The shard is up again at this time: sessions live for the grace, bound holds too.
    pub fn grace(&mut self, now: u64, grace_us: u64) {
        let grace = now + grace_us;
        // A session that ran out may come back for a hold that does not end with it.
        let alive = |hold: &&Hold| self.stands(hold, now) && self.session_lives(hold.session, now);
        let holders: Vec<u64> = self.holds.values().filter(alive).map(|h| h.session).collect();
        self.sessions.retain(|session, _| holders.contains(session));
        self.sessions.values_mut().for_each(|session| session.until = Some(grace));
        for hold in self.holds.values_mut().filter(|hold| hold.bound) {
            hold.until = Some(hold.until.map_or(grace, |until| until.min(grace)));
        }
    }

    /// Compares one lock as the shard shows it with the books.
    ///
    /// # Errors
    /// When a hold that stands is not there, is shorter, or somebody holds it who cannot.
    pub fn judge_lock(&mut self, name: &str, view: &LockView, now: u64) -> Lawful {
        self.count("lock");
        let covers = |hold: &Hold| hold.wants.iter().any(|want| want.name == name);
        for (token, hold) in self.holds.iter().filter(|(_, hold)| covers(hold)) {
            if !self.stands(hold, now) {
                continue;
            }
            let holder = view.holders.iter().find(|holder| holder.token.0 == *token);
            demand(holder.is_some(), || {
                format!("lock {name} is not held with {token} any more at {now}: {hold:?}")
            })?;
            let holder = holder.expect("just demanded");
            let same = (holder.session.0, holder.hold) == (hold.session, hold.hold);
            demand(same, || format!("lock {name} changed hands: {hold:?} became {holder:?}"))?;
            let left = hold.until.map_or(u64::MAX, |until| until - now);
            demand(holder.left_us.is_none_or(|shown| shown >= left), || {
                format!("lock {name} lost time: {left} µs were left, now {holder:?}")
            })?;
        }
        for holder in &view.holders {
            self.may_hold(name, holder)?;
        }
        Ok(())
    }

    fn may_hold(&self, name: &str, holder: &HolderView) -> Lawful {
        let token = holder.token.0;
        let asked = self.acquiring.get(&holder.hold);
        let wanted = asked.is_some_and(|wants| wants.iter().any(|want| want.name == name));
        let undone = self.ended.get(&token).copied();
        demand(self.holds.contains_key(&token) || wanted || undone == Some(true), || {
            format!("lock {name} is held by somebody who cannot: {holder:?} (ended: {undone:?})")
        })
    }

    /// Takes over what a restart left: exactly these holds, found on these locks.
    pub fn adopt(&mut self, views: &[(String, LockView)], now: u64) {
        self.holds.clear();
        for (name, view) in views {
            for holder in &view.holders {
                let token = holder.token.0;
                self.tokens.insert(token);
                let bound = self.bound.contains(&holder.hold);
                let hold = self.holds.entry(token).or_insert_with(|| Hold {
                    wants: Vec::new(),
                    session: holder.session.0,
                    hold: holder.hold,
                    until: holder.left_us.map(|left| now + left),
                    bound,
                    releasing: false,
                });
                hold.wants.push(Want { name: name.clone(), mode: holder.mode });
            }
        }
        self.acquiring.clear();
        for token in self.holds.keys() {
            self.ended.remove(token);
        }
        self.ended.values_mut().for_each(|undone| *undone = false);
    }
}

/// Whether two holds of one lock may stand together.
fn agree(a: Mode, b: Mode) -> bool {
    matches!((a, b), (Mode::Shared, Mode::Shared) | (Mode::Permits { .. }, Mode::Permits { .. }))
}
