//! Keys: registers whose content may be a hash, a list, a set or a sorted set.
//!
//! A decision over keys is a procedure from outside, a command or a whole script, that reads and
//! changes through [`Keys`]. What it changes is staged: it sees its own changes, the state does
//! not, until the procedure is done. Then all of it becomes one group of events, or nothing when it
//! was abandoned. So a script that is stopped half way leaves no trace.
//!
//! **Claims.** Programs make locks out of keys: they look whether a key is there and create it if
//! not. A procedure says with [`Keys::expect_absent`] that it looked. A key that was found absent
//! and created in one decision, with an expiry or by the creating command itself
//! ([`Keys::claim`]), is *claimed*: it carries a fencing token, it is shown as a lock, and it and a
//! lease on the same name exclude each other. The key's version serves as the token, since both
//! come from the shard's one counter.

mod finish;
mod locks;
mod walk;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::content::{Bytes, Content, Edit, Kind};
use crate::limits::Limits;
use crate::lock::Register;
use crate::outcome::{Effect, Refusal};
use crate::space::space_of;
use crate::step::{Core, EVENT_BYTES, Log, Step};
use crate::{Time, Token};

/// A decision over keys that is being made.
pub struct Keys<'s, 'a> {
    step: &'s mut Step<'a>,
    staged: Vec<Staged>,
    /// Places of staged keys, once they are many.
    index: BTreeMap<Bytes, usize>,
    /// Spaces that the decision has emptied.
    emptied: Vec<u8>,
    /// Bytes of all edits so far.
    bytes: usize,
    /// What the journal takes beside them, for each key that was changed.
    overhead: usize,
}

/// What the journal takes for a key beside its name and content, at most.
const KEY_BYTES: usize = 128;

/// So many staged keys are found by looking at each.
const FEW: usize = 16;

/// A key that the decision looked at closely or changed.
#[derive(Debug, Clone)]
pub(crate) struct Staged {
    key: Bytes,
    /// Where it is in the state.
    slot: Option<u32>,
    /// What it holds now; `None`: nothing.
    content: Option<Content>,
    /// The content does not build on what the state has.
    fresh: bool,
    edits: Vec<Edit>,
    /// What the content takes.
    bytes: usize,
    expires: Time,
    claim: Claim,
    changed: bool,
}

impl Staged {
    /// It holds nothing any more, and a claim is over.
    fn vanish(&mut self) {
        (self.content, self.bytes) = (None, 0);
        self.edits.clear();
        self.claim = match self.claim {
            Claim::AsBefore | Claim::Dropped => Claim::Dropped,
            Claim::SoughtInVain | Claim::Made => Claim::SoughtInVain,
        };
    }

    /// Changes the content and remembers how, unless all of it will be written anyway.
    fn apply(&mut self, edit: &Edit) {
        if self.content.is_none() {
            (self.fresh, self.bytes, self.expires) = (true, 0, 0);
            self.edits.clear();
        }
        let content = self.content.get_or_insert_with(|| Content::empty(edit.kind()));
        self.bytes = self.bytes.saturating_add_signed(content.apply(edit));
        if content.is_empty() {
            self.vanish();
        } else if !self.fresh {
            self.edits.push(edit.clone());
        }
    }
}

/// How a staged key comes to be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// As it was in the state.
    AsBefore,
    /// It was removed: what comes in its place is not claimed by that.
    Dropped,
    /// It was looked for and not found.
    SoughtInVain,
    /// It was created as a claim.
    Made,
}

/// A key as it is seen.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'k> {
    /// What it holds.
    pub content: &'k Content,
    /// Its version before this decision; 0 for a key made in it.
    pub version: u64,
    /// When it vanishes, in the shard's time; `None`: never.
    pub expires: Option<Time>,
}

/// A lease that holds the lock of a key's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    /// Its fencing token.
    pub token: Token,
    /// When it ends of itself, in the shard's time; `None`: never.
    pub expires: Option<Time>,
    /// What the holder says about itself.
    pub label: Option<alloc::sync::Arc<str>>,
}

impl core::fmt::Debug for Keys<'_, '_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Keys").field("staged", &self.staged).finish_non_exhaustive()
    }
}

impl Core {
    /// Makes a decision over keys. Everything that it changed is one group of events.
    pub fn keys<R>(
        &mut self,
        now: Time,
        log: &mut dyn Log,
        out: &mut Vec<Effect>,
        procedure: impl FnOnce(&mut Keys<'_, '_>) -> R,
    ) -> R {
        let mut result = None;
        self.stepped(now, log, out, |step| {
            let staged = core::mem::take(&mut step.v.staged);
            let (index, emptied) = (BTreeMap::new(), Vec::new());
            let mut keys = Keys { step, staged, index, emptied, bytes: 0, overhead: 0 };
            result = Some(procedure(&mut keys));
            keys.finish();
        });
        result.expect("the procedure ran")
    }
}

impl Keys<'_, '_> {
    /// The shard's time, microseconds.
    pub fn now(&self) -> Time {
        self.step.now
    }

    /// Wall-clock time, microseconds since 1970.
    pub fn wall(&self) -> Time {
        self.step.wall
    }

    /// The bounds of the shard.
    pub fn limits(&self) -> &Limits {
        &self.step.v.limits
    }

    /// What a key holds now; `None` when it is not there or has expired.
    pub fn get(&self, key: &[u8]) -> Option<Seen<'_>> {
        if let Some(place) = self.staged_at(key) {
            let staged = &self.staged[place];
            let version = staged.slot.map_or(0, |slot| self.step.d.registers[slot].version);
            let content = staged.content.as_ref()?;
            return Some(Seen { content, version, expires: some(staged.expires) });
        }
        let slot = self.step.live_register(key).filter(|_| !self.is_emptied(key))?;
        let register: &Register = &self.step.d.registers[slot];
        let Register { content, version, expires, .. } = register;
        Some(Seen { content, version: *version, expires: some(*expires) })
    }

    /// Whether a key is not there, neither by itself nor as a lease, nor in the lock-delay of one,
    /// and nobody waits for the lock of this name, whom the key would pass. Says that what follows
    /// may depend on it.
    pub fn expect_absent(&mut self, key: &[u8]) -> bool {
        let kept = self.lock_in_the_way(key).or_else(|| self.awaited(key));
        if kept.is_some() || self.get(key).is_some() {
            return false;
        }
        let staged = self.stage(key);
        if matches!(staged.claim, Claim::AsBefore | Claim::Dropped) {
            staged.claim = Claim::SoughtInVain;
        }
        true
    }

    /// [`Self::expect_absent`] for a command that takes the key as a lock: one that somebody holds
    /// is counted as refused.
    pub fn expect_free(&mut self, key: &[u8]) -> bool {
        let absent = self.expect_absent(key);
        if !absent {
            let slot = self.step.d.register_at(key);
            let held = slot.is_none_or(|slot| self.step.d.registers[slot].claim != 0);
            self.step.v.claim_counts.refused += u64::from(held);
        }
        absent
    }

    /// Says that creating this key is taking a lock, whether or not it expires.
    pub fn claim(&mut self, key: &[u8]) {
        self.stage(key).claim = Claim::Made;
    }

    /// Sets a key to a text, whatever it held. Its expiry goes.
    ///
    /// # Errors
    /// `TooLarge`, `Limit`, `Zero`; `Busy` when a lease holds its name, its lock-delay runs, or the
    /// key is not there and somebody waits for its name.
    pub fn set(&mut self, key: &[u8], text: Bytes) -> Result<(), Refusal> {
        self.may_make(key)?;
        let limits = &self.step.v.limits;
        Step::check_size("the value's size in bytes", text.len(), limits.value_bytes)?;
        self.spend(key, text.len())?;
        let staged = self.stage(key);
        staged.bytes = text.len();
        staged.content = Some(Content::Text(text));
        staged.edits.clear();
        (staged.fresh, staged.changed, staged.expires) = (true, true, 0);
        Ok(())
    }

    /// Sets a key to content of any kind, whatever it held. Its expiry goes. Empty collections
    /// remove it.
    ///
    /// # Errors
    /// As [`Keys::set`].
    pub fn put(&mut self, key: &[u8], content: Content) -> Result<(), Refusal> {
        if content.is_empty() {
            return self.remove(key).map(drop);
        }
        self.may_make(key)?;
        let bytes = content.bytes();
        Step::check_size("the key's content", bytes, self.step.v.limits.content_bytes)?;
        self.spend(key, bytes)?;
        let staged = self.stage(key);
        (staged.content, staged.bytes) = (Some(content), bytes);
        staged.edits.clear();
        (staged.fresh, staged.changed, staged.expires) = (true, true, 0);
        Ok(())
    }

    /// Changes a collection, or makes it; see [`Keys::edits`].
    ///
    /// # Errors
    /// As [`Keys::set`].
    pub fn edit(&mut self, key: &[u8], edit: Edit) -> Result<(), Refusal> {
        self.edits(key, &[edit])
    }

    /// Changes a collection, or makes it; a collection that gets empty is removed. All of the edits
    /// or none. The caller has seen that the key, if it is there, holds that kind, and that places
    /// exist.
    ///
    /// # Errors
    /// As [`Keys::set`].
    pub fn edits(&mut self, key: &[u8], edits: &[Edit]) -> Result<(), Refusal> {
        let Some(kind) = edits.first().map(Edit::kind) else { return Ok(()) };
        self.may_make(key)?;
        let limits = &self.step.v.limits;
        let (value_max, content_max) = (limits.value_bytes, limits.content_bytes);
        let largest = edits.iter().map(Edit::bytes).max().unwrap_or(0);
        Step::check_size("the item", largest, value_max + 64)?;
        let bytes = edits.iter().map(Edit::bytes).sum();
        self.spend(key, bytes)?;
        let staged = self.stage(key);
        if staged.content.as_ref().is_some_and(|content| content.kind() != kind) {
            return Err(Refusal::BadSettings("the key holds another kind of content"));
        }
        // What is full can still be emptied.
        if edits.iter().any(Edit::adds) {
            let before = staged.content.as_ref().map_or(0, |_| staged.bytes);
            Step::check_size("the key's content", before + bytes, content_max)?;
        }
        staged.changed = true;
        for edit in edits {
            staged.apply(edit);
        }
        Ok(())
    }

    /// Sets when a key vanishes, in the shard's time; `None`: never. A time that is over removes
    /// it. False when there is no such key.
    ///
    /// # Errors
    /// `TooLarge`; `Busy` when a lease holds its name.
    pub fn expire(&mut self, key: &[u8], expires: Option<Time>) -> Result<bool, Refusal> {
        if self.get(key).is_none() {
            return self.may_write(key).map(|()| false);
        }
        if expires.is_some_and(|at| at <= self.step.now) {
            return self.remove(key);
        }
        self.spend(key, 0)?;
        let staged = self.stage(key);
        (staged.expires, staged.changed) = (expires.unwrap_or(0), true);
        Ok(true)
    }

    /// Removes a key; false when it was not there.
    ///
    /// # Errors
    /// `TooLarge`; `Busy` when a lease holds its name.
    pub fn remove(&mut self, key: &[u8]) -> Result<bool, Refusal> {
        if self.get(key).is_none() {
            return self.may_write(key).map(|()| false);
        }
        self.spend(key, 0)?;
        let staged = self.stage(key);
        staged.changed = true;
        staged.vanish();
        Ok(true)
    }

    /// Forgets everything that the decision changed so far.
    pub fn abandon(&mut self) {
        self.staged.clear();
        self.index.clear();
        self.emptied.clear();
        (self.bytes, self.overhead) = (0, 0);
    }

    /// The keys that the decision has changed so far.
    pub fn changed(&self) -> impl Iterator<Item = &Bytes> {
        self.staged.iter().filter(|staged| staged.changed).map(|staged| &staged.key)
    }

    fn may_write(&self, key: &[u8]) -> Result<(), Refusal> {
        self.step.check_key(key)?;
        self.lock_in_the_way(key).map_or(Ok(()), Err)
    }

    /// As [`Keys::may_write`], for what may make a key.
    fn may_make(&self, key: &[u8]) -> Result<(), Refusal> {
        self.may_write(key)?;
        self.awaited(key).map_or(Ok(()), Err)?;
        let (there, max) = (self.step.d.register_count(), self.step.v.limits.registers_max);
        if there + self.staged.len() < max || self.step.d.has_register(key) {
            return Ok(());
        }
        let made = |staged: &&Staged| {
            staged.slot.is_none() && staged.content.is_some() && *staged.key != *key
        };
        Step::check_limit("registers", there + self.staged.iter().filter(made).count(), max)
    }

    /// Whether the decision has emptied the space of this key.
    fn is_emptied(&self, key: &[u8]) -> bool {
        !self.emptied.is_empty() && self.emptied.contains(&space_of(key))
    }

    /// Counts a change of a key by so many bytes. All changes have to fit into one group of the
    /// journal, which spans no two segments.
    fn spend(&mut self, key: &[u8], bytes: usize) -> Result<(), Refusal> {
        if !self.staged_at(key).is_some_and(|place| self.staged[place].changed) {
            self.overhead += key.len() + KEY_BYTES;
        }
        self.bytes += bytes;
        let max = self.step.v.limits.decision_bytes;
        Step::check_size("what one command or script writes", self.bytes, max)?;
        self.check_room(self.bytes + self.overhead)
    }

    fn check_room(&self, bytes: usize) -> Result<(), Refusal> {
        // The first half of what is kept free is for the spaces that are emptied.
        let most = (self.step.d.shape.segment_bytes as usize).saturating_sub(2 * EVENT_BYTES);
        Step::check_size("the journal room of one command or script", bytes, most)
    }

    /// Whether one decision may change so many more keys, with names of so many bytes together.
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn may_change(&self, keys: usize, name_bytes: usize) -> Result<(), Refusal> {
        let more = keys.saturating_mul(KEY_BYTES).saturating_add(name_bytes);
        self.check_room((self.bytes + self.overhead).saturating_add(more))
    }

    fn staged_at(&self, key: &[u8]) -> Option<usize> {
        if self.staged.len() > FEW {
            return self.index.get(key).copied();
        }
        self.staged.iter().position(|staged| *staged.key == *key)
    }

    fn stage(&mut self, key: &[u8]) -> &mut Staged {
        if let Some(place) = self.staged_at(key) {
            return &mut self.staged[place];
        }
        let slot = self.step.d.register_at(key);
        let known = slot.map(|slot| &self.step.d.registers[slot]);
        // One that has expired leaves nothing but its place.
        let live = known.filter(|live| self.step.is_live(live) && !self.is_emptied(key));
        let staged = Staged {
            key: known.map_or_else(|| key.into(), |known| known.key.clone()),
            slot,
            content: live.map(|live| live.content.clone()),
            fresh: live.is_none(),
            edits: Vec::new(),
            bytes: live.map_or(0, |live| live.bytes),
            expires: live.map_or(0, |live| live.expires),
            claim: Claim::AsBefore,
            changed: false,
        };
        if self.staged.len() == FEW {
            let all = self.staged.iter().enumerate();
            self.index = all.map(|(place, staged)| (staged.key.clone(), place)).collect();
        }
        if self.staged.len() >= FEW {
            self.index.insert(staged.key.clone(), self.staged.len());
        }
        self.staged.push(staged);
        self.staged.last_mut().expect("it was pushed")
    }
}

fn some(time: Time) -> Option<Time> {
    (time != 0).then_some(time)
}

impl Kind {
    /// Its name, as programs that ask for it know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Hash => "hash",
            Self::List => "list",
            Self::Set => "set",
            Self::Sorted => "zset",
        }
    }
}
