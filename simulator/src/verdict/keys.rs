//! Keys in the clients' books.
//!
//! Decisions lie in the journal in the order in which they were made, each as a whole. So after a
//! crash the keys must be what they were after some decision: the last one that was confirmed, or
//! one behind that. The books keep what the keys were after each decision that a crash may choose.

use std::collections::{BTreeMap, BTreeSet};

use super::{Lawful, Ledger, demand};

/// What a key holds: numbers, which are eight bytes there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// A text.
    Text(u64),
    /// Fields and values.
    Hash(BTreeMap<u64, u64>),
    /// Items in order.
    List(Vec<u64>),
    /// Members.
    Set(BTreeSet<u64>),
    /// Members and scores.
    Sorted(BTreeMap<u64, u64>),
}

impl Held {
    /// Whether it is a collection without items.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(_) => false,
            Self::Hash(held) | Self::Sorted(held) => held.is_empty(),
            Self::List(held) => held.is_empty(),
            Self::Set(held) => held.is_empty(),
        }
    }
}

/// A key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// What it holds.
    pub held: Held,
    /// Shard time of its end; `None`: it has none.
    pub expires: Option<u64>,
    /// Whether it is held like a lock.
    pub claimed: bool,
}

/// All keys at one moment.
pub type Keys = BTreeMap<String, Key>;

/// A decision that is being made.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// The keys as the decision sees them.
    pub keys: Keys,
    /// Keys that it looked for and did not find.
    pub sought_in_vain: BTreeSet<String>,
    /// Keys that it removed.
    pub removed: BTreeSet<String>,
}

impl Decision {
    /// A key as the decision sees it.
    pub fn live(&self, key: &str, now: u64) -> Option<&Key> {
        self.keys.get(key).filter(|key| lives(key, now))
    }
}

/// What the keys were after a decision.
#[derive(Clone, Debug, Default)]
struct Moment {
    keys: Keys,
    /// It was answered.
    answered: bool,
    /// Once answered it survives a power loss; giving back a claim may be undone.
    safe: bool,
}

/// The moments that a crash may choose from, oldest first; at least one.
#[derive(Clone, Debug)]
pub struct KeyBooks {
    moments: Vec<Moment>,
    /// The shard crashed, and which of them it chose has not been looked at.
    unsettled: bool,
    /// The newest token of each claim.
    tokens: BTreeMap<String, u64>,
}

impl Default for KeyBooks {
    fn default() -> Self {
        let moments = vec![Moment { answered: true, safe: true, ..Moment::default() }];
        Self { moments, unsettled: false, tokens: BTreeMap::new() }
    }
}

fn lives(key: &Key, now: u64) -> bool {
    key.expires.is_none_or(|at| at > now)
}

fn living(keys: &Keys, now: u64) -> Keys {
    let live = keys.iter().filter(|(_, key)| lives(key, now));
    live.map(|(name, key)| (name.clone(), key.clone())).collect()
}

impl KeyBooks {
    fn current(&self) -> &Keys {
        &self.moments.last().expect("there is one at least").keys
    }

    /// Begins a decision.
    pub fn begin(&self) -> Decision {
        Decision { keys: self.current().clone(), ..Decision::default() }
    }

    /// What was decided may be told.
    pub fn confirmed(&mut self) {
        if self.unsettled {
            return;
        }
        self.moments.iter_mut().for_each(|moment| moment.answered = true);
        self.forget(true);
    }

    /// Forgets moments that no crash of this kind can bring back.
    fn forget(&mut self, power: bool) {
        let stays = |moment: &Moment| moment.answered && (moment.safe || !power);
        let first = self.moments.iter().rposition(stays).unwrap_or(0);
        self.moments.drain(..first);
    }

    /// The machine stopped; `power`: what waits for no sync may be lost.
    pub fn crashed(&mut self, power: bool) {
        self.forget(power);
        self.unsettled = true;
        self.moments.iter_mut().for_each(|moment| moment.answered = false);
        let first = &mut self.moments[0];
        (first.answered, first.safe) = (true, true);
    }
}

impl Ledger {
    /// A decision was made. `tokens`: of the claims that there are now.
    ///
    /// # Errors
    /// When a claim was made under a lease that stands.
    pub fn decided(
        &mut self,
        decision: Decision,
        tokens: BTreeMap<String, u64>,
        now: u64,
    ) -> Lawful {
        self.count("decision");
        let Decision { mut keys, sought_in_vain, removed } = decision;
        let before = living(self.keys.current(), now);
        for (name, key) in &mut keys {
            let old = before.get(name).filter(|_| !removed.contains(name));
            key.claimed = match sought_in_vain.contains(name) {
                true => key.expires.is_some(),
                false => old.is_some_and(|old| old.claimed),
            };
        }
        for (name, key) in living(&keys, now) {
            let covers = |hold: &&super::Hold| hold.wants.iter().any(|want| want.name == name);
            let held = self.holds.values().filter(covers).find(|hold| self.stands(hold, now));
            demand(!key.claimed || held.is_none(), || {
                format!("{name} was claimed at {now} while a lease stands: {held:?}")
            })?;
        }
        let after = living(&keys, now);
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let safe = names.into_iter().any(|name| match (before.get(name), after.get(name)) {
            (Some(old), None) => !(old.claimed && old.expires.is_some()),
            (old, new) => old != new,
        });
        self.keys.moments.push(Moment { keys, answered: false, safe });
        self.keys.tokens = tokens;
        Ok(())
    }

    /// A lease was granted on a name: no claim that is older may be there.
    ///
    /// # Errors
    /// When one is.
    pub(super) fn unclaimed(&self, name: &str, token: u64, now: u64) -> Lawful {
        let key = self.keys.current().get(name).filter(|key| key.claimed && lives(key, now));
        let older = self.keys.tokens.get(name).is_some_and(|claim| *claim < token);
        demand(key.is_none() || !older, || {
            format!("{name} was granted with {token} at {now} while it is claimed: {key:?}")
        })
    }

    /// Compares the keys with the books. `settle`: after a crash they may be what they were after
    /// any decision that was not answered, and from now on are what was found.
    ///
    /// # Errors
    /// When they were never so, or a confirmed decision is not there or is torn.
    pub fn judge_keys(&mut self, found: &Keys, now: u64, settle: bool) -> Lawful {
        self.count("keys");
        let found = living(found, now);
        let books = &self.keys;
        let from = if settle || books.unsettled { 0 } else { books.moments.len() - 1 };
        let same = |moment: &&Moment| living(&moment.keys, now) == found;
        let was = books.moments[from..].iter().rev().find(same);
        demand(was.is_some(), || {
            format!("the keys are {found:?} at {now}; they were {:?}", &books.moments[from..])
        })?;
        // A key that has run out by now stays in the books: another crash may set time back.
        if settle && let Some(was) = was.cloned() {
            self.keys.moments = vec![Moment { answered: true, safe: true, ..was }];
            self.keys.unsettled = false;
        }
        Ok(())
    }
}
