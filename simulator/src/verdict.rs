//! The clients' own books, and the laws that a shard's answers must obey.
//!
//! Three things are kept apart: what was *confirmed*, what was *refused*, and what is *unknown*
//! because no answer came before the crash. Confirmed things must be there, refused ones must not,
//! unknown ones may be either, but only as a whole. After each [`audit`](Ledger::settle_messages)
//! the unknown is known, and from then on must stay as it was found.
//!
//! An ack and a release are answered before they are durable. So a crash of the process must keep
//! them, but a power loss may undo them: the message comes again, the lock runs out. Everything
//! else that was confirmed survives both.

mod holds;
mod keys;
mod messages;

use std::collections::{BTreeMap, BTreeSet};

pub use holds::{Hold, Want};
pub use keys::{Decision, Held, Key, KeyBooks, Keys as KeyMap};
pub use messages::{Delivered, Message, Standing, body_of, message_in};

/// A law that was broken, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

/// The result of a check.
pub type Lawful<T = ()> = Result<T, Violation>;

/// Demands that something is so.
///
/// # Errors
/// When it is not.
pub fn demand(is_so: bool, what: impl FnOnce() -> String) -> Lawful {
    if is_so { Ok(()) } else { Err(Violation(what())) }
}

/// What one commit asked for. It must be found done as a whole or not at all.
#[derive(Clone, Debug, Default)]
pub struct Bundle {
    /// Messages acknowledged.
    pub acks: Vec<u64>,
    /// Messages published.
    pub publishes: Vec<u64>,
    /// Register and the value written to it.
    pub write: Option<(usize, u64)>,
    /// Token of the hold released.
    pub release: Option<u64>,
}

/// A register as its clients know it.
#[derive(Clone, Debug, Default)]
pub struct Register {
    /// The newest confirmed version and its value; `None` within: deleted.
    pub confirmed: Option<(u64, Option<u64>)>,
    /// Values asked for and not answered; `None`: a deletion.
    pub unknown: Vec<Option<u64>>,
}

/// A session as its client knows it.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// Shard time until which it certainly lives; `None`: until it is closed.
    pub until: Option<u64>,
    /// Its time to live.
    pub ttl_us: Option<u64>,
}

/// Everything that clients know.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Messages by number, which is also what their bodies say.
    pub messages: BTreeMap<u64, Message>,
    /// Holds by token.
    pub holds: BTreeMap<u64, Hold>,
    /// Holds that ended for certain, by token, and whether that may have been undone.
    pub ended: BTreeMap<u64, bool>,
    /// Acquires without an answer, by the number of the hold.
    pub acquiring: BTreeMap<u64, Vec<Want>>,
    /// Numbers of the holds that were asked to end with their session: it is not shown.
    pub bound: BTreeSet<u64>,
    /// Registers by number.
    pub registers: BTreeMap<usize, Register>,
    /// Keys.
    pub keys: KeyBooks,
    /// Sessions that live.
    pub sessions: BTreeMap<u64, Session>,
    /// Commits without an answer.
    pub bundles: Vec<Bundle>,
    /// Every token ever seen.
    tokens: BTreeSet<u64>,
    /// The highest token seen before the last opening.
    token_floor: u64,
    /// The newest token per lock.
    lock_tokens: BTreeMap<String, u64>,
    /// Per lane: the newest message delivered for the first time.
    first_deliveries: BTreeMap<(usize, u8), u64>,
    /// Per ordering key: likewise.
    key_deliveries: BTreeMap<(usize, u8), u64>,
    /// How often each kind of thing was checked; a test may ask that it was not for nothing.
    pub checked: BTreeMap<&'static str, u64>,
}

impl Ledger {
    /// Counts a check.
    pub fn count(&mut self, what: &'static str) {
        *self.checked.entry(what).or_default() += 1;
    }

    /// A token was handed out.
    ///
    /// # Errors
    /// When it was seen before, or is not above all tokens of earlier runs.
    pub fn token(&mut self, token: u64, of: &str) -> Lawful {
        self.count("token");
        let floor = self.token_floor;
        demand(token > floor, || {
            format!("token {token} of {of} is not above {floor}, the highest before the restart")
        })?;
        demand(self.tokens.insert(token), || format!("token {token} of {of} was seen before"))
    }

    /// The shard is opened again: tokens from here on must be above all that were seen.
    pub fn reopened(&mut self) {
        self.token_floor = self.tokens.last().copied().unwrap_or(0).max(self.token_floor);
    }

    /// The shard died. What was not answered is unknown from now on; `power`: so are the things
    /// that were answered early.
    pub fn crashed(&mut self, power: bool) {
        self.messages.values_mut().for_each(|message| message.crashed(power));
        self.keys.crashed(power);
        if power {
            self.ended.values_mut().for_each(|undone| *undone = true);
        }
    }

    /// A register write was confirmed.
    pub fn written(&mut self, key: usize, version: u64, value: Option<u64>) -> Lawful {
        self.token(version, "a register")?;
        let register = self.registers.entry(key).or_default();
        forget_one(&mut register.unknown, &value);
        let known = register.confirmed.map_or(0, |(version, _)| version);
        demand(version > known, || {
            format!("register {key} got version {version} after version {known}")
        })?;
        register.confirmed = Some((version, value));
        Ok(())
    }

    /// A register write was refused.
    pub fn unwritten(&mut self, key: usize, value: Option<u64>) {
        forget_one(&mut self.registers.entry(key).or_default().unknown, &value);
    }

    /// A register was read: version and value, if it has one. `settle`: nothing is on its way to
    /// it, so from now on it must stay like this.
    ///
    /// # Errors
    /// When nobody wrote that, or a newer value was confirmed.
    pub fn read(&mut self, key: usize, found: Option<(u64, u64)>, settle: bool) -> Lawful {
        self.count("register");
        let register = self.registers.entry(key).or_default();
        let (known_version, known) = match register.confirmed {
            Some((version, value)) => (version, value),
            None => (0, None),
        };
        let value = found.map(|(_, value)| value);
        let as_confirmed =
            value == known && found.is_none_or(|(version, _)| version == known_version);
        let as_asked = register.unknown.contains(&value)
            && found.is_none_or(|(version, _)| version > known_version);
        demand(as_confirmed || as_asked, || {
            format!(
                "register {key} holds {found:?}; confirmed is {known:?} at version \
                 {known_version}, unknown are {:?}",
                register.unknown
            )
        })?;
        if settle {
            register.unknown.clear();
            register.confirmed = Some(match found {
                Some((version, value)) => (version, Some(value)),
                None => (known_version, None),
            });
        }
        if let Some((version, _)) = found {
            self.tokens.insert(version);
        }
        Ok(())
    }

    /// Whether a session certainly lives at a shard time.
    pub fn session_lives(&self, session: u64, now: u64) -> bool {
        self.sessions.get(&session).is_some_and(|s| s.until.is_none_or(|until| now < until))
    }

    /// Judges commits without an answer, before the unknown is settled: each must have happened as
    /// a whole or not at all. `there` tells whether a message was found.
    ///
    /// # Errors
    /// When one is torn.
    pub fn judge_bundles(
        &mut self,
        there: impl Fn(u64) -> bool,
        register: impl Fn(usize) -> Option<u64>,
    ) -> Lawful {
        for bundle in std::mem::take(&mut self.bundles) {
            self.count("bundle");
            let published = bundle.publishes.iter().map(|id| there(*id));
            // A message that may be gone for another reason says nothing.
            let certain = |id: &&u64| self.messages[*id].only_one_ack_is_unknown();
            let acked = bundle.acks.iter().filter(certain).map(|id| !there(*id));
            let mut evidence: Vec<bool> = published.chain(acked).collect();
            if let Some((key, value)) = bundle.write
                && (register(key) == Some(value) || self.is_last_write(key, value))
            {
                evidence.push(register(key) == Some(value));
            }
            let torn = evidence.windows(2).any(|pair| pair[0] != pair[1]);
            demand(!torn, || format!("the commit {bundle:?} was torn: {evidence:?}"))?;
        }
        Ok(())
    }

    /// Whether nothing else can hide that this value was written.
    fn is_last_write(&self, key: usize, value: u64) -> bool {
        self.registers.get(&key).is_some_and(|r| r.unknown == [Some(value)])
    }
}

fn forget_one<T: PartialEq>(list: &mut Vec<T>, element: &T) {
    if let Some(i) = list.iter().position(|other| other == element) {
        list.remove(i);
    }
}
