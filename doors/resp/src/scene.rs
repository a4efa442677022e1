//! What a command sees: the keys of one decision through the eyes of one client.
//!
//! The scene knows the client's numbered set of keys and maps names into the one namespace of the
//! shard. Set 0 uses names as they are; the others put three bytes before them that no text begins
//! with. It also reads with the kind that a command wants, turns refusals of the core into errors
//! of the protocol, and remembers which keys got elements that somebody may be waiting for.

use std::borrow::Cow;

use leasehold_core::content::{Bytes, Content, Edit, Sorted};
use leasehold_core::space::MARK;
use leasehold_core::tree::Tree;
use leasehold_core::{Keys, Refusal, Time};

use crate::Reply;

/// Numbered sets of keys.
pub const DATABASES: u8 = 16;

/// The error for a value of another kind.
pub const WRONG_TYPE: Reply = Reply::Error(Cow::Borrowed(
    "WRONGTYPE Operation against a key holding the wrong kind of value",
));

/// What came of a step that may end the command with an error.
pub type Step<T> = Result<T, Reply>;

/// The keys as one client sees them within one decision.
#[derive(Debug)]
pub struct Scene<'s, 'k, 'a> {
    /// The decision.
    pub keys: &'s mut Keys<'k, 'a>,
    /// The numbered set that the client has chosen, below [`DATABASES`].
    pub db: u8,
    /// Whether the client reads RESP3; some replies are nested differently there.
    pub resp3: bool,
    /// Whether a script runs: looking for an absent key may be the first half of taking a lock.
    pub in_script: bool,
    /// The same between MULTI and EXEC.
    pub in_multi: bool,
    /// Keys that got list or sorted set elements, as the shard names them.
    pub pushed: Vec<Vec<u8>>,
    /// The state of the random choices; any number to begin with.
    pub seed: u64,
}

/// The name that the shard has for a key of a numbered set.
pub fn shard_name(db: u8, key: &[u8]) -> Cow<'_, [u8]> {
    // The core has no empty keys; behind the mark it is not empty.
    if db == 0 && !key.is_empty() && !key.starts_with(&MARK) {
        return Cow::Borrowed(key);
    }
    let mut name = Vec::with_capacity(3 + key.len());
    name.extend_from_slice(&MARK);
    name.push(db);
    name.extend_from_slice(key);
    Cow::Owned(name)
}

/// The numbered set that a key of the shard belongs to, and its name there.
pub fn client_name(name: &[u8]) -> (u8, &[u8]) {
    match name {
        [first, second, space, key @ ..] if [*first, *second] == MARK => (*space, key),
        _ => (0, name),
    }
}

/// The error for a refusal of the core.
pub fn refused(refusal: &Refusal) -> Reply {
    match refusal {
        Refusal::Busy { holder: Some(token), .. } => Reply::error(format!(
            "LEASED the key is held as a lease with token {}; use LEASE.RELEASE",
            token.0
        )),
        Refusal::Limit(..) | Refusal::DiskFull => Reply::error(format!("OOM {refusal}")),
        _ => Reply::error(format!("ERR {refusal}")),
    }
}

impl<'s, 'k, 'a> Scene<'s, 'k, 'a> {
    /// The keys of set 0 as a client with RESP2 sees them.
    pub fn new(keys: &'s mut Keys<'k, 'a>, seed: u64) -> Self {
        Self {
            keys,
            db: 0,
            resp3: false,
            in_script: false,
            in_multi: false,
            pushed: Vec::new(),
            seed,
        }
    }

    /// The name that the shard has for a key.
    pub fn name<'n>(&self, key: &'n [u8]) -> Cow<'n, [u8]> {
        shard_name(self.db, key)
    }

    /// What a key holds; leases are not seen.
    pub fn content(&self, key: &[u8]) -> Option<&Content> {
        self.keys.get(&self.name(key)).map(|seen| seen.content)
    }

    /// When a key vanishes, in the shard's time, if it is there and does.
    pub fn expires(&self, key: &[u8]) -> Option<Time> {
        self.keys.get(&self.name(key))?.expires
    }

    /// Whether a key is there, by itself or as a lease, or cannot be made because its name is kept
    /// for somebody who waits.
    pub fn exists(&self, key: &[u8]) -> bool {
        let name = self.name(key);
        self.keys.get(&name).is_some() || self.keys.kept_away(&name).is_some()
    }

    /// Says that the command looks whether a key is there. In a script or between MULTI and EXEC
    /// that may be the first half of taking a lock.
    pub fn look(&mut self, key: &[u8]) {
        if self.in_script || self.in_multi {
            self.keys.expect_absent(&shard_name(self.db, key));
        }
    }

    /// The condition that a key is not there, which makes what follows the taking of a lock.
    pub fn expect_absent(&mut self, key: &[u8]) -> bool {
        self.keys.expect_free(&shard_name(self.db, key))
    }

    /// The key that the command creates is a lock.
    pub fn claim(&mut self, key: &[u8]) {
        self.keys.claim(&shard_name(self.db, key));
    }

    /// The text of a key; a lease reads as its label or `lease:` and its token, which is 0 for a
    /// name that is kept and that nobody holds.
    ///
    /// # Errors
    /// Another kind.
    pub fn text(&self, key: &[u8]) -> Step<Option<Bytes>> {
        let name = self.name(key);
        match self.keys.get(&name).map(|seen| seen.content) {
            Some(Content::Text(text)) => Ok(Some(text.clone())),
            Some(_) => Err(WRONG_TYPE),
            None => Ok(self.keys.kept_away(&name).map(|lease| match lease.label {
                Some(label) => label.as_bytes().into(),
                None => format!("lease:{}", lease.token.0).as_bytes().into(),
            })),
        }
    }

    /// The text of a key that is about to be changed; leases are not seen.
    ///
    /// # Errors
    /// Another kind.
    pub fn own_text(&self, key: &[u8]) -> Step<Option<Bytes>> {
        match self.content(key) {
            None => Ok(None),
            Some(Content::Text(text)) => Ok(Some(text.clone())),
            Some(_) => Err(WRONG_TYPE),
        }
    }

    /// The fields of a hash.
    ///
    /// # Errors
    /// Another kind.
    pub fn hash(&self, key: &[u8]) -> Step<Option<Tree<(Bytes, Bytes)>>> {
        match self.content(key) {
            None => Ok(None),
            Some(Content::Hash(fields)) => Ok(Some(fields.clone())),
            Some(_) => Err(WRONG_TYPE),
        }
    }

    /// The elements of a list.
    ///
    /// # Errors
    /// Another kind.
    pub fn list(&self, key: &[u8]) -> Step<Option<Tree<Bytes>>> {
        match self.content(key) {
            None => Ok(None),
            Some(Content::List(items)) => Ok(Some(items.clone())),
            Some(_) => Err(WRONG_TYPE),
        }
    }

    /// The members of a set.
    ///
    /// # Errors
    /// Another kind.
    pub fn set(&self, key: &[u8]) -> Step<Option<Tree<Bytes>>> {
        match self.content(key) {
            None => Ok(None),
            Some(Content::Set(members)) => Ok(Some(members.clone())),
            Some(_) => Err(WRONG_TYPE),
        }
    }

    /// The members of a sorted set.
    ///
    /// # Errors
    /// Another kind.
    pub fn sorted(&self, key: &[u8]) -> Step<Option<Sorted>> {
        match self.content(key) {
            None => Ok(None),
            Some(Content::Sorted(sorted)) => Ok(Some(sorted.clone())),
            Some(_) => Err(WRONG_TYPE),
        }
    }

    /// Sets a key to a text, whatever it held; its expiry goes.
    ///
    /// # Errors
    /// Refusals of the core.
    pub fn write(&mut self, key: &[u8], text: Bytes) -> Step<()> {
        self.keys.set(&shard_name(self.db, key), text).map_err(|why| refused(&why))
    }

    /// Sets a key that is not there or holds a text to another text; its expiry stays.
    ///
    /// # Errors
    /// Refusals of the core.
    pub fn rewrite(&mut self, key: &[u8], text: Bytes) -> Step<()> {
        self.edit(key, [Edit::Text(text)])
    }

    /// Sets a key to content of any kind; its expiry goes, and no content removes it.
    ///
    /// # Errors
    /// Refusals of the core.
    pub fn put(&mut self, key: &[u8], content: Content) -> Step<()> {
        let awaited = matches!(content, Content::List(_) | Content::Sorted(_));
        let awaited = awaited && !content.is_empty();
        let name = shard_name(self.db, key);
        self.keys.put(&name, content).map_err(|why| refused(&why))?;
        if awaited {
            self.pushed.push(name.into_owned());
        }
        Ok(())
    }

    /// Changes the collection under a key, or makes it: all of the edits or none.
    ///
    /// # Errors
    /// Refusals of the core.
    pub fn edit(&mut self, key: &[u8], edits: impl AsRef<[Edit]>) -> Step<()> {
        let edits = edits.as_ref();
        let name = shard_name(self.db, key);
        self.keys.edits(&name, edits).map_err(|why| refused(&why))?;
        if edits.iter().any(|edit| matches!(edit, Edit::Insert(..) | Edit::Score(..))) {
            self.pushed.push(name.into_owned());
        }
        Ok(())
    }

    /// Removes a key; false when it was not there.
    ///
    /// # Errors
    /// A lease of this name.
    pub fn remove(&mut self, key: &[u8]) -> Step<bool> {
        self.keys.remove(&shard_name(self.db, key)).map_err(|why| refused(&why))
    }

    /// Whether one decision may change so many keys; each with the bytes of its name, and of its
    /// value if it gets one.
    ///
    /// # Errors
    /// Refusals of the core.
    pub fn check_room(&self, keys: impl Iterator<Item = usize>) -> Step<()> {
        let (count, bytes) = keys.fold((0, 0), |(count, bytes), len| (count + 1, bytes + len + 3));
        self.keys.may_change(count, bytes).map_err(|why| refused(&why))
    }

    /// Sets when a key vanishes, in the shard's time; false when it is not there.
    ///
    /// # Errors
    /// A lease of this name.
    pub fn expire(&mut self, key: &[u8], expires: Option<Time>) -> Step<bool> {
        self.keys.expire(&shard_name(self.db, key), expires).map_err(|why| refused(&why))
    }

    /// Wall-clock time, milliseconds since 1970.
    pub fn wall_ms(&self) -> i64 {
        (self.keys.wall() / 1000) as i64
    }

    /// The shard's time at which a number of milliseconds since 1970 is; 0 when that is over.
    pub fn shard_time(&self, wall_ms: i64) -> Time {
        let offset = self.keys.wall().saturating_sub(self.keys.now());
        let wall = u64::try_from(wall_ms).unwrap_or(0).saturating_mul(1000);
        let at = wall.saturating_sub(offset);
        if at <= self.keys.now() { 0 } else { at }
    }

    /// Milliseconds since 1970 at a moment of the shard's time.
    pub fn wall_of(&self, at: Time) -> i64 {
        let offset = self.keys.wall().saturating_sub(self.keys.now());
        (at.saturating_add(offset) / 1000) as i64
    }

    /// A number below another one, at random; 0 below 0.
    pub fn random(&mut self, below: usize) -> usize {
        // splitmix64: small, and good enough for choices that nobody must be unable to guess.
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        ((u128::from(mixed) * below as u128) >> 64) as usize
    }
}
