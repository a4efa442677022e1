//! The locks and registers of a commit, for engines whose store does the rest in the same step.
//!
//! The engine reads the entries that a commit is about ([`commit_keys`]), asks what to change
//! ([`plan_commit`]), and carries that out together with its queues if no entry has changed
//! meanwhile and the time has not come at which something that was checked ends.

use std::collections::BTreeSet;
use std::sync::Arc;

use leasehold_api::engine::{Commit, HoldRef};
use leasehold_api::{Error, ErrorKind, Result};

use crate::lines::Lines;
use crate::{Change, Contender, Key, Seen, Space, limits, line, registers};

/// What a commit changes in a book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitPlan {
    /// All or none of them; some are only compared.
    pub changes: Vec<Change>,
    /// When the first hold that was checked ends, by the store's clock in microseconds: the plan
    /// must not be carried out then any more. `None`: none of them ends by itself.
    pub until: Option<u64>,
}

/// What came of planning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Planning {
    /// The plan.
    Ready(CommitPlan),
    /// A hold covers more locks: read these and plan anew.
    Wider(Vec<Key>),
}

/// The entries that a commit is about.
///
/// # Errors
/// `Invalid` for bad names, keys, values and times, and for a register that is written twice.
pub fn commit_keys(commit: &Commit) -> Result<Vec<Key>> {
    let mut keys = BTreeSet::new();
    for name in locks(commit) {
        limits::name(name)?;
        keys.insert(Key::lock(name));
    }
    for write in &commit.writes {
        registers::valid(write)?;
        if !keys.insert(Key::register(&write.key)) {
            let wrong = "a register is written twice in one commit; write its last value";
            return Err(Error::new(ErrorKind::Invalid, wrong));
        }
    }
    Ok(keys.into_iter().collect())
}

fn locks(commit: &Commit) -> impl Iterator<Item = &Arc<str>> {
    let checks = commit.checks.iter().map(|(name, _)| name);
    let guards = commit.writes.iter().filter_map(|write| Some(&write.guard.as_ref()?.0));
    checks.chain(guards).chain(commit.releases.iter().map(|hold| &hold.name))
}

/// What a commit changes, given its entries as they are, in the order of the keys.
///
/// # Errors
/// `Stale` when a hold is over, `Foreign` when it is another's, `Conflict` for a register that is
/// not as expected.
pub fn plan_commit(commit: &Commit, keys: &[Key], seen: &Seen) -> Result<Planning> {
    let (mut names, mut entries) = (Vec::new(), Vec::new());
    for (key, entry) in keys.iter().zip(&seen.entries) {
        if key.space == Space::Lock {
            names.push(Arc::from(String::from_utf8_lossy(&key.name)));
            entries.push(entry.clone());
        }
    }
    let before = Lines::of(&names, &Seen { entries, now: seen.now })?;
    let mut lines = before.clone();
    lines.prune();
    let mut until = None;
    let guards = commit.writes.iter().filter_map(|write| write.guard.as_ref());
    for (name, token) in commit.checks.iter().chain(guards) {
        let held = held(&before, name, *token)?;
        until = [until, held.until()].into_iter().flatten().min();
    }
    for hold in &commit.releases {
        let held = held(&before, &hold.name, hold.token)?;
        if !held.is(hold.session.as_ref().map_or(0, |session| session.id), hold.hold) {
            let wrong = format!("token {} of lock {} is another's", hold.token, hold.name);
            return Err(Error::new(ErrorKind::Foreign, wrong));
        }
        until = [until, held.until()].into_iter().flatten().min();
        let missing = held.with.iter().map(|name| Key::lock(name));
        let missing: Vec<Key> = missing.filter(|key| !keys.contains(key)).collect();
        if !missing.is_empty() {
            let wider = keys.iter().cloned().chain(missing).collect::<BTreeSet<_>>();
            return Ok(Planning::Wider(wider.into_iter().collect()));
        }
        leave(&mut lines, hold);
    }
    let mut changes = lines.changes(&before);
    for write in &commit.writes {
        let key = Key::register(&write.key);
        let place = keys.iter().position(|known| *known == key);
        let entry = place.and_then(|place| seen.entries[place].clone());
        let alone = leasehold_api::engine::Write { guard: None, ..write.clone() };
        let seen = Seen { entries: vec![entry], now: seen.now };
        changes.extend(registers::changes(&alone, &seen)?);
    }
    Ok(Planning::Ready(CommitPlan { changes, until }))
}

fn held<'a>(lines: &'a Lines, name: &str, token: u64) -> Result<&'a Contender> {
    let line = lines.lines.iter().find(|line| &*line.name == name);
    let list = line.map_or(&[][..], |line| &line.list);
    let place = list.iter().position(|own| own.token == token && !own.is_over(lines.now));
    match place.filter(|place| line::holds(list, *place, lines.now)) {
        Some(place) => Ok(&list[place]),
        None => {
            let wrong = format!("lock {name} is not held with token {token} any more");
            Err(Error::new(ErrorKind::Stale, wrong))
        }
    }
}

/// Leaves a hold once, in all its lines.
fn leave(lines: &mut Lines, hold: &HoldRef) {
    for line in &mut lines.lines {
        for own in line.list.iter_mut().filter(|own| own.token == hold.token) {
            own.entries = own.entries.saturating_sub(1);
        }
        line.list.retain(|own| own.token != hold.token || own.entries > 0);
    }
}
