//! Decisions over keys, as clients of Redis make them: locks beside the leases, and collections.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_core::Keys;
use leasehold_core::content::{Bytes, Content, Edit};
use leasehold_core::space::{MARK, space_of};
use leasehold_env::Disk;
use leasehold_node::Floor;

use super::{LOCKS, Simulation, lock_name, number_in};
use crate::clock::{MS, SECOND};
use crate::disk::Chance;
use crate::verdict::{Decision, Held, Key, KeyMap, Lawful, Violation, demand};

const COLLECTIONS: u64 = 4;
/// Where the collections are; it is emptied now and then.
const SPACE: u8 = 1;

impl<D: Disk> Simulation<D> {
    /// One decision of up to three changes, now and then abandoned.
    pub(super) fn decide(&mut self) -> Lawful {
        let Self { shard, chance, ledger, .. } = self;
        let shard = shard.as_mut().expect("it is open");
        if shard.stopped().is_some() || !shard.has_room() {
            return Ok(());
        }
        let mut decision = ledger.keys.begin();
        let mut wrong = Ok(());
        shard.keys(&mut |keys| {
            for _ in 0..1 + chance.below(3) {
                if wrong.is_ok() {
                    wrong = change(keys, chance, &mut decision);
                }
            }
            if chance.percent(10) {
                keys.abandon();
                decision = ledger.keys.begin();
            }
        });
        wrong?;
        if shard.stopped().is_some() {
            return Ok(());
        }
        let state = shard.core().state();
        let claims = state.registers().iter().filter(|(_, register)| register.claim != 0);
        let tokens = claims.map(|(_, register)| (text_of(&register.key), register.claim)).collect();
        ledger.decided(decision, tokens, shard.now())
    }

    /// The keys as they are in the shard.
    pub(super) fn look_at_keys(&self) -> Lawful<KeyMap> {
        let shard = self.shard.as_ref().expect("it is open");
        let state = shard.core().state();
        let registers = state.registers().iter().map(|(_, register)| register);
        let registers = registers.filter(|register| !state.is_gone(register));
        let mut found = KeyMap::new();
        for register in registers.filter(|register| !register.key.starts_with(b"register-")) {
            let expires = (register.expires != 0).then_some(register.expires);
            let held = held_in(&register.content)?;
            let key = Key { held, expires, claimed: register.claim != 0 };
            found.insert(text_of(&register.key), key);
        }
        Ok(found)
    }
}

/// The name of a key in the books.
fn text_of(key: &[u8]) -> String {
    let name = if space_of(key) == SPACE { &key[MARK.len() + 1..] } else { key };
    String::from_utf8_lossy(name).into_owned()
}

fn bytes(number: u64) -> Bytes {
    number.to_le_bytes()[..].into()
}

fn held_in(content: &Content) -> Lawful<Held> {
    let set = |items: &mut dyn Iterator<Item = &Bytes>| items.map(|one| number_in(one)).collect();
    Ok(match content {
        Content::Text(text) => Held::Text(number_in(text)),
        Content::Hash(fields) => {
            Held::Hash(fields.iter().map(|(f, v)| (number_in(f), number_in(v))).collect())
        }
        Content::List(items) => Held::List(items.iter().map(|one| number_in(one)).collect()),
        Content::Set(members) => Held::Set(set(&mut members.iter())),
        Content::Sorted(sorted) => {
            let (members, ranks) = (sorted.members(), sorted.ranks());
            let rising = ranks.iter().map(|(_, score)| *score).is_sorted();
            if members.len() != ranks.len() || !rising {
                return Err(Violation(format!("a sorted set in two orders: {sorted:?}")));
            }
            Held::Sorted(members.iter().map(|(m, s)| (number_in(m), *s as u64)).collect())
        }
    })
}

fn change(keys: &mut Keys<'_, '_>, chance: &mut Chance, decision: &mut Decision) -> Lawful {
    match chance.percent(50) {
        true => change_lock(keys, chance, decision),
        false => change_collection(keys, chance, decision),
    }
}

/// A key with the name of a lock: taken, written over, renewed, given back.
fn change_lock(keys: &mut Keys<'_, '_>, chance: &mut Chance, decision: &mut Decision) -> Lawful {
    let name = lock_name(chance.below(LOCKS as u64) as usize);
    let (name, key, now) = (name.as_str().to_owned(), name.as_bytes(), keys.now());
    let known = decision.live(&name, now).is_some();
    let (value, expires) = (chance.below(4), Some(now + MS + chance.below(3 * SECOND)));
    let refused = |error| Violation(format!("{name} is refused: {error}"));
    let held = Held::Text(value);
    match chance.below(8) {
        0..4 => {
            let absent = keys.expect_absent(key);
            demand(!(absent && known), || format!("{name} is not there any more at {now}"))?;
            if absent {
                keys.set(key, bytes(value)).map_err(refused)?;
                keys.expire(key, expires).map_err(refused)?;
                decision.sought_in_vain.insert(name.clone());
                decision.keys.insert(name, Key { held, expires, claimed: true });
            }
        }
        4 => match keys.set(key, bytes(value)) {
            Ok(()) => {
                decision.keys.insert(name, Key { held, expires: None, claimed: false });
            }
            Err(error) => demand(!known, || format!("{name} is there and refused: {error}"))?,
        },
        5 if known => {
            let there = keys.expire(key, expires).map_err(refused)?;
            demand(there, || format!("{name} is not there any more at {now}"))?;
            decision.keys.get_mut(&name).expect("it is known").expires = expires;
        }
        _ => {
            let there = keys.remove(key).unwrap_or(false);
            demand(there == known, || format!("{name} was there: {there}, known: {known}"))?;
            decision.keys.remove(&name);
            if there {
                decision.removed.insert(name);
            }
        }
    }
    Ok(())
}

fn change_collection(
    keys: &mut Keys<'_, '_>,
    chance: &mut Chance,
    decision: &mut Decision,
) -> Lawful {
    if chance.percent(3) {
        keys.empty(SPACE);
        let gone = (0..COLLECTIONS).map(|kind| format!("key-{kind}"));
        decision.removed.extend(gone.filter(|name| decision.keys.remove(name).is_some()));
        return Ok(());
    }
    let kind = chance.below(COLLECTIONS);
    let (name, now) = (format!("key-{kind}"), keys.now());
    let key = [&MARK[..], &[SPACE], name.as_bytes()].concat();
    let mut held = match (decision.live(&name, now), kind) {
        (Some(key), _) => key.held.clone(),
        (None, 0) => Held::Hash(BTreeMap::new()),
        (None, 1) => Held::List(Vec::new()),
        (None, 2) => Held::Set(BTreeSet::new()),
        (None, _) => Held::Sorted(BTreeMap::new()),
    };
    let old = decision.live(&name, now).and_then(|key| key.expires);
    let takes = chance.percent(45);
    let (item, value) = (chance.below(12), chance.below(1000));
    let edit = match &mut held {
        Held::Hash(held) if takes => held.remove(&item).map(|_| Edit::Drop(bytes(item))),
        Held::Hash(held) => {
            held.insert(item, value);
            Some(Edit::Put(bytes(item), bytes(value)))
        }
        Held::List(held) if takes && !held.is_empty() => {
            let at = item as usize % held.len();
            let count = held.drain(at..).count();
            Some(Edit::Remove(at as u32, count as u32))
        }
        Held::List(held) => {
            let at = item as usize % (held.len() + 1);
            held.insert(at, value);
            Some(Edit::Insert(at as u32, bytes(value)))
        }
        Held::Set(held) if takes => held.remove(&item).then(|| Edit::Take(bytes(item))),
        Held::Set(held) => {
            held.insert(item);
            Some(Edit::Add(bytes(item)))
        }
        Held::Sorted(held) if takes => held.remove(&item).map(|_| Edit::Unscore(bytes(item))),
        Held::Sorted(held) => {
            held.insert(item, value);
            Some(Edit::Score(bytes(item), value as f64))
        }
        Held::Text(_) => None,
    };
    let Some(edit) = edit else { return Ok(()) };
    let refused = |error| Violation(format!("{name} is refused: {error}"));
    keys.edit(&key, edit).map_err(refused)?;
    if held.is_empty() {
        decision.removed.insert(name.clone());
        decision.keys.remove(&name);
        return Ok(());
    }
    let mut expires = old;
    if chance.percent(20) {
        expires = Some(now + MS + chance.below(5 * SECOND));
        keys.expire(&key, expires).map_err(refused)?;
    }
    decision.keys.insert(name, Key { held, expires, claimed: false });
    Ok(())
}
