//! The model of keys: what each holds, as plain collections, and which of them are claimed.
//!
//! Legal is: a key holds exactly what decisions made of it, until it expires; a claimed key has a
//! token that changes with the holder only and rises; and nobody holds a lock of its name.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_core::content::{Bytes, Content, Edit};
use leasehold_core::limits::MS;
use leasehold_core::*;

use super::support::{Shard, name};
use super::{Dice, World};

/// Keys with the names of locks hold text; of the others each holds one kind of collection, and is
/// in a space that is emptied now and then.
const TEXTS: [&str; 3] = ["a", "b", "c"];
const COLLECTIONS: [&str; 4] = ["hash", "list", "set", "sorted"];

/// What a key holds.
#[derive(Debug, Clone, PartialEq)]
enum Held {
    Text(u8),
    Hash(BTreeMap<u8, u8>),
    List(Vec<u8>),
    Set(BTreeSet<u8>),
    Sorted(BTreeMap<u8, i8>),
}

#[derive(Debug, Clone, PartialEq)]
struct Key {
    held: Held,
    expires: Option<Time>,
    claimed: bool,
    /// The token of the claim, and whether it belongs to an earlier holder.
    token: (u64, bool),
}

/// What a decision did to keys besides what they hold.
#[derive(Debug, Clone, Default)]
struct Done {
    sought_in_vain: BTreeSet<&'static str>,
    removed: BTreeSet<&'static str>,
}

#[derive(Debug, Clone, Default)]
pub struct Model {
    keys: BTreeMap<&'static str, Key>,
}

const SPACE: u8 = 1;

/// The key as the shard knows it.
fn place(key: &str) -> Vec<u8> {
    match COLLECTIONS.contains(&key) {
        true => [&space::MARK[..], &[SPACE], key.as_bytes()].concat(),
        false => key.as_bytes().to_vec(),
    }
}

fn one(byte: u8) -> Bytes {
    [byte][..].into()
}

impl Held {
    fn is(&self, content: &Content) -> bool {
        match (self, content) {
            (Self::Text(byte), Content::Text(text)) => **text == [*byte],
            (Self::Hash(held), Content::Hash(fields)) => {
                held.iter().map(|(f, v)| (one(*f), one(*v))).eq(fields.iter().cloned())
            }
            (Self::List(held), Content::List(items)) => {
                held.iter().map(|item| one(*item)).eq(items.iter().cloned())
            }
            (Self::Set(held), Content::Set(members)) => {
                held.iter().map(|member| one(*member)).eq(members.iter().cloned())
            }
            (Self::Sorted(held), Content::Sorted(sorted)) => {
                let mut ranks: Vec<_> = held.iter().map(|(m, s)| (f64::from(*s), *m)).collect();
                ranks.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
                ranks.iter().map(|(s, m)| (one(*m), *s)).eq(sorted.ranks().iter().cloned())
            }
            _ => false,
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Text(_) => false,
            Self::Hash(held) => held.is_empty(),
            Self::List(held) => held.is_empty(),
            Self::Set(held) => held.is_empty(),
            Self::Sorted(held) => held.is_empty(),
        }
    }
}

impl Model {
    fn live(&self, key: &str, now: Time) -> Option<&Key> {
        self.keys.get(key).filter(|key| key.expires.is_none_or(|at| at > now))
    }

    /// Which keys are claimed after a decision: those that it sought in vain and made to expire,
    /// and those that it let be claimed. Another text is another holder.
    fn claims(&mut self, before: &Self, done: &Done, now: Time) {
        for (name, key) in &mut self.keys {
            let old = before.live(name, now).filter(|_| !done.removed.contains(name));
            (key.claimed, key.token) = match old {
                _ if done.sought_in_vain.contains(name) => (key.expires.is_some(), (0, true)),
                Some(old) => {
                    let text = matches!(key.held, Held::Text(_));
                    (old.claimed, (old.token.0, text && key.held != old.held))
                }
                None => (false, (0, true)),
            };
        }
    }

    /// A lock was taken away, and with it the key of its name if that was one.
    pub fn forced(&mut self, lock: &Name) {
        let gone = |key: &Key| key.claimed;
        if self.keys.get(lock.as_str()).is_some_and(gone) {
            self.keys.remove(lock.as_str());
        }
    }

    pub fn look(&mut self, shard: &Shard) {
        let (now, state) = (shard.log.now, shard.core.state());
        self.keys.retain(|_, key| key.expires.is_none_or(|at| at > now));
        for key in TEXTS.iter().chain(&COLLECTIONS) {
            let there = state.register_at(&place(key)).map(|slot| &state.registers()[slot]);
            let there = there.filter(|there| !state.is_gone(there));
            let there = there.filter(|there| there.expires == 0 || there.expires > now);
            let Some(known) = self.keys.get_mut(key) else {
                assert!(there.is_none(), "nobody made {key}: {there:?}");
                continue;
            };
            let there = there.unwrap_or_else(|| panic!("{key} is gone: {known:?}"));
            assert!(known.held.is(&there.content), "{key} is {there:?}, not {known:?}");
            assert_eq!(there.expires, known.expires.unwrap_or(0), "when {key} expires");
            assert_eq!(there.claim != 0, known.claimed, "whether {key} is claimed: {known:?}");
            let (token, changed) = known.token;
            let same = if changed { there.claim > token } else { there.claim == token };
            assert!(!known.claimed || same, "the token of {key}: {there:?}, {known:?}");
            known.token = (there.claim, false);
            let lock = state.lock_named(key).map(|slot| &state.locks()[slot]);
            let alone = !known.claimed || lock.is_none_or(|lock| lock.parts == 0);
            assert!(alone, "{key} is claimed and leased");
        }
    }

    /// After time went on and everything due was handled, nothing that ran out is left.
    pub fn punctual(&self, shard: &Shard) {
        let now = shard.log.now;
        let late =
            |register: &&lock::Register| register.expires != 0 && register.expires + MS <= now;
        let late = shard.core.state().registers().iter().map(|(_, register)| register).find(late);
        assert!(late.is_none(), "a key outlived its expiry: {late:?} at {now}");
    }
}

/// One decision with up to three changes, now and then abandoned at its end.
pub fn decide(world: &mut World, dice: Dice) {
    let (mut wished, mut done, mut kept) = (world.keys.clone(), Done::default(), true);
    let now = world.shard.log.now;
    world.shard.act(|core, log, out| {
        core.keys(log.now, log, out, |keys| {
            for turn in 0..1 + dice[1] % 3 {
                let roll = dice[2 + usize::from(turn)].wrapping_add(turn.wrapping_mul(85));
                match roll % 2 {
                    0 => change_text(keys, &mut wished, &mut done, (roll / 2, dice[4])),
                    _ => change_collection(keys, &mut wished, roll / 2, dice[3]),
                }
            }
            if dice[4] % 8 == 7 {
                keys.abandon();
                kept = false;
            }
        });
    });
    if kept {
        wished.claims(&world.keys, &done, now);
        world.keys = wished;
    }
    world.look();
}

/// A lock as Redis clients take and leave it, or a plain value in its place.
fn change_text(
    keys: &mut Keys<'_, '_>,
    model: &mut Model,
    done: &mut Done,
    (roll, value): (u8, u8),
) {
    let key = TEXTS[usize::from(roll) % 3];
    let (now, text) = (keys.now(), key.as_bytes());
    let before = model.live(key, now).cloned();
    let expires = Some(now + MS * (1 + Time::from(value)));
    match roll / 3 % 8 {
        0..4 => {
            let absent = keys.expect_absent(text);
            assert!(!(absent && before.is_some()), "{key} is there: {before:?}");
            if absent {
                keys.set(text, one(value)).expect("nobody has it");
                keys.expire(text, expires).expect("it was made");
                done.sought_in_vain.insert(key);
                let (held, token) = (Held::Text(value), (0, true));
                model.keys.insert(key, Key { held, expires, claimed: true, token });
            }
        }
        4 => match keys.set(text, one(value)) {
            Ok(()) => {
                let (held, token) = (Held::Text(value), (0, true));
                model.keys.insert(key, Key { held, expires: None, claimed: false, token });
            }
            Err(refusal) => assert!(before.is_none(), "{refusal}"),
        },
        5 => {
            let set = keys.expire(text, expires);
            assert_eq!(set.unwrap_or(false), before.is_some());
            model.keys.entry(key).and_modify(|key| key.expires = expires);
        }
        _ => {
            assert_eq!(keys.remove(text).unwrap_or(false), before.is_some());
            done.removed.extend(model.keys.remove(key).map(|_| key));
        }
    }
}

fn change_collection(keys: &mut Keys<'_, '_>, model: &mut Model, roll: u8, value: u8) {
    if roll % 32 == 31 {
        keys.empty(SPACE);
        assert_eq!(keys.count(SPACE), 0);
        model.keys.retain(|key, _| !COLLECTIONS.contains(key));
        return;
    }
    let which = usize::from(roll) % 4;
    let (key, item, now) = (COLLECTIONS[which], value % 8, keys.now());
    let name = &place(key)[..];
    let kinds = [
        Held::Hash(BTreeMap::new()),
        Held::List(Vec::new()),
        Held::Set(BTreeSet::new()),
        Held::Sorted(BTreeMap::new()),
    ];
    let fresh = Key { held: kinds[which].clone(), expires: None, claimed: false, token: (0, true) };
    let mut after = model.live(key, now).cloned().unwrap_or(fresh);
    let takes = (roll / 4).is_multiple_of(3);
    let edit = match &mut after.held {
        Held::Hash(held) if takes => held.remove(&item).map(|_| Edit::Drop(one(item))),
        Held::Hash(held) => {
            held.insert(item, value);
            Some(Edit::Put(one(item), one(value)))
        }
        Held::List(held) if takes && !held.is_empty() => {
            let at = usize::from(item) % held.len();
            held.drain(at..);
            Some(Edit::Remove(at as u32, u32::MAX))
        }
        Held::List(held) => {
            let at = usize::from(item) % (held.len() + 1);
            held.insert(at, value);
            Some(Edit::Insert(at as u32, one(value)))
        }
        Held::Set(held) if takes => held.remove(&item).then(|| Edit::Take(one(item))),
        Held::Set(held) => {
            held.insert(item);
            Some(Edit::Add(one(item)))
        }
        Held::Sorted(held) if takes => held.remove(&item).map(|_| Edit::Unscore(one(item))),
        Held::Sorted(held) => {
            let score = value as i8 / 16;
            held.insert(item, score);
            Some(Edit::Score(one(item), f64::from(score)))
        }
        Held::Text(_) => unreachable!("the key of a collection"),
    };
    let Some(mut edit) = edit else { return };
    if let Edit::Remove(at, count) = &mut edit {
        let there = keys.get(name).expect("it has items").content.len() as u32;
        *count = there - *at;
    }
    keys.edit(name, edit).expect("it may be edited");
    if after.held.is_empty() {
        model.keys.remove(key);
        return;
    }
    if (roll / 16).is_multiple_of(4) {
        after.expires = Some(now + MS * (1 + Time::from(value)));
        keys.expire(name, after.expires).expect("it is there");
    }
    model.keys.insert(key, after);
    let listed = keys.scan(SPACE, 0, 100).0.len() + keys.made(SPACE).count();
    let live = COLLECTIONS.iter().filter(|key| model.live(key, now).is_some()).count();
    assert_eq!(listed, live, "a walk comes across what is there");
}

/// Takes the lock `a` as a Redis client would; for the tests of the models.
pub fn claim_plain(world: &mut World) {
    world.shard.act(|core, log, out| {
        core.keys(log.now, log, out, |keys| {
            assert!(keys.expect_absent(b"a"));
            keys.set(b"a", one(1)).expect("it is free");
            keys.claim(b"a");
        });
    });
    let view = world.shard.ask(SessionId::NONE, Op::InspectLock(name("a")));
    let Ok(Outcome::Lock(view)) = view else { panic!("{view:?}") };
    let token = (view.holders[0].token.0, false);
    let key = Key { held: Held::Text(1), expires: None, claimed: true, token };
    world.keys.keys.insert("a", key);
    world.look();
}
