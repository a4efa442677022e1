//! Histories of concurrent clients, and whether some single order explains them.
//!
//! In general that question is hard (Gibbons and Korach, 1997), but here every write has a version
//! and every grant a token out of one counter, so the order is *given*: writes in the order of
//! their versions, reads behind what they saw. What is left is to prove that this order
//! (a) agrees with real time: what ended before something else began comes before it, and
//! (b) is one that the rules allow: it is played through the core itself, which must answer each
//! write and each compare-and-set as the clients were answered.
//! Herlihy and Wing, "Linearizability", 1990, section 2.
//!
//! An operation without an end (its client was killed, or gave up) may have happened at any time
//! after it began, or never. It counts only when somebody saw its effect.

mod oracle;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// One line of a client's record. Times are microseconds of the machine's monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Line {
    /// An operation begins.
    Began {
        /// Which, unique over all clients.
        id: u64,
        /// When, taken before it was sent.
        at: u64,
        /// What.
        what: Asked,
    },
    /// It was answered.
    Ended {
        /// Which.
        id: u64,
        /// When, taken after the answer came.
        at: u64,
        /// How.
        answer: Answer,
    },
    /// A message came and will now be acknowledged: if no end follows, it may be gone.
    Came {
        /// The number.
        message: u64,
    },
    /// A guard said at or after this time that its lock is held.
    Held {
        /// The lock.
        lock: u32,
        /// The token.
        token: u64,
        /// A time taken before the guard was asked.
        at: u64,
    },
}

/// What was asked. Values are unique: no two writes write the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Asked {
    /// Reads a register.
    Read {
        /// Which.
        key: u32,
    },
    /// Writes a register, if its version is `expect` (0: if it has no value; `None`: anyway).
    Write {
        /// Which.
        key: u32,
        /// The value.
        value: u64,
        /// What version it must have.
        expect: Option<u64>,
        /// The lock and token that must be held.
        guard: Option<(u32, u64)>,
    },
    /// Takes a lock.
    Acquire {
        /// Which.
        lock: u32,
    },
    /// Publishes a message with this number.
    Publish {
        /// The number.
        message: u64,
    },
    /// Receives and acknowledges.
    Consume,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// A register's version and value; `None`: it has none.
    Value(Option<(u64, u64)>),
    /// Written at this version.
    Written(u64),
    /// It has another version.
    Conflict,
    /// The guard's token is not held any more.
    Stale,
    /// Granted with this token.
    Granted(u64),
    /// Accepted.
    Published,
    /// A message came; whether its ack was confirmed.
    Consumed {
        /// The number.
        message: u64,
        /// Whether the ack was confirmed.
        acked: bool,
    },
    /// Refused without effect.
    Refused,
}

/// An operation as its client saw it.
#[derive(Debug, Clone)]
pub struct Operation {
    /// When it began.
    pub began: u64,
    /// When it was answered, and how; `None`: not known.
    pub ended: Option<(u64, Answer)>,
    /// What was asked.
    pub what: Asked,
}

/// The records of all clients, put together.
#[derive(Debug, Default)]
pub struct History {
    operations: BTreeMap<u64, Operation>,
    held: Vec<(u32, u64, u64)>,
    came: BTreeSet<u64>,
}

/// How much was judged, so that a run can show that it was not for nothing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// Writes with a known version.
    pub writes: usize,
    /// Reads.
    pub reads: usize,
    /// Compare-and-sets that were refused.
    pub conflicts: usize,
    /// Writes refused for a stale token.
    pub stale: usize,
    /// Grants.
    pub grants: usize,
    /// Times at which a lock was certainly held.
    pub held: usize,
    /// Confirmed messages.
    pub messages: usize,
    /// Operations of which nobody knows.
    pub unknown: usize,
}

/// A write whose place in the order is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    version: u64,
    began: u64,
    /// `None`: it was never answered, only seen.
    ended: Option<u64>,
    value: u64,
    expect: Option<u64>,
    guard: Option<(u32, u64)>,
}

fn demand(is_so: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(what()) }
}

impl History {
    /// Adds a client's record. A last line that was cut off by a kill is passed over.
    ///
    /// # Errors
    /// When a whole line cannot be read.
    pub fn add(&mut self, record: &str) -> Result<(), String> {
        for line in record.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let line = serde_json::from_str(line).map_err(|e| format!("{e} in {line:?}"))?;
            self.push(line);
        }
        Ok(())
    }

    /// Adds a line.
    pub fn push(&mut self, line: Line) {
        match line {
            Line::Began { id, at, what } => {
                self.operations.insert(id, Operation { began: at, ended: None, what });
            }
            Line::Ended { id, at, answer } => {
                let operation = self.operations.get_mut(&id).expect("it began before it ended");
                operation.ended = Some((at, answer));
            }
            Line::Came { message } => drop(self.came.insert(message)),
            Line::Held { lock, token, at } => self.held.push((lock, token, at)),
        }
    }

    /// Whether anybody published.
    pub fn has_messages(&self) -> bool {
        self.operations.values().any(|op| matches!(op.what, Asked::Publish { .. }))
    }

    /// Judges everything.
    ///
    /// # Errors
    /// The first thing that no order explains.
    pub fn judge(&self) -> Result<Judged, String> {
        let mut judged = Judged { held: self.held.len(), ..Judged::default() };
        judged.unknown = self.operations.values().filter(|op| op.ended.is_none()).count();
        self.judge_grants(&mut judged)?;
        let mut keys: Vec<u32> = self.operations.values().filter_map(|op| op.key()).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            self.judge_register(key, &mut judged)?;
        }
        self.judge_messages(&mut judged)?;
        Ok(judged)
    }

    /// Tokens rise in real time, and no lock is certainly held by two at one time.
    fn judge_grants(&self, judged: &mut Judged) -> Result<(), String> {
        // Per lock: token, when it was asked for, when it was granted, until when it was held.
        let mut grants: BTreeMap<u32, BTreeMap<u64, (u64, u64, u64)>> = BTreeMap::new();
        for operation in self.operations.values() {
            let Asked::Acquire { lock } = operation.what else { continue };
            let Some((at, Answer::Granted(token))) = operation.ended else { continue };
            judged.grants += 1;
            let before = grants.entry(lock).or_default().insert(token, (operation.began, at, at));
            demand(before.is_none(), || format!("token {token} of lock {lock} was granted twice"))?;
        }
        for &(lock, token, at) in &self.held {
            let hold = grants.get_mut(&lock).and_then(|grants| grants.get_mut(&token));
            let hold = hold.ok_or_else(|| format!("token {token} was held and never granted"))?;
            hold.2 = hold.2.max(at);
        }
        for (lock, grants) in &grants {
            let mut last: Option<(u64, u64)> = None;
            for (&token, &(_, granted, held)) in grants {
                if let Some((before, until)) = last {
                    demand(until < granted, || {
                        format!(
                            "lock {lock} was held under token {before} at {until} and granted \
                             under {token} by {granted}"
                        )
                    })?;
                }
                last = Some((token, held.max(granted)));
            }
        }
        Ok(())
    }

    /// The writes of a register whose versions are known, in order: answered, or seen by a reader.
    fn writes(&self, key: u32) -> Result<BTreeMap<u64, Placed>, String> {
        let mut versions: BTreeMap<u64, u64> = BTreeMap::new();
        for operation in self.operations.values().filter(|op| op.key() == Some(key)) {
            let seen = match (&operation.what, &operation.ended) {
                (Asked::Write { value, .. }, Some((_, Answer::Written(version)))) => {
                    (*version, *value)
                }
                (_, Some((_, Answer::Value(Some(seen))))) => *seen,
                _ => continue,
            };
            let known = versions.insert(seen.0, seen.1).unwrap_or(seen.1);
            demand(known == seen.1, || {
                format!("version {} of register {key} is {known} and {}", seen.0, seen.1)
            })?;
        }
        let mut placed = BTreeMap::new();
        for (version, value) in versions {
            let of =
                |op: &&Operation| matches!(op.what, Asked::Write { value: v, .. } if v == value);
            let write = self.operations.values().find(of);
            let write = write.ok_or_else(|| format!("nobody wrote {value} into register {key}"))?;
            let Asked::Write { expect, guard, .. } = write.what else { continue };
            let ended = write.ended.as_ref().map(|(at, _)| *at);
            let began = write.began;
            placed.insert(version, Placed { version, began, ended, value, expect, guard });
        }
        Ok(placed)
    }

    fn judge_register(&self, key: u32, judged: &mut Judged) -> Result<(), String> {
        let writes = self.writes(key)?;
        judged.writes += writes.len();
        in_real_time(key, &writes)?;
        fenced(key, &writes)?;
        let mut order = Vec::new();
        for operation in self.operations.values().filter(|op| op.key() == Some(key)) {
            let Some((ended, answer)) = &operation.ended else { continue };
            let seen = match (&operation.what, answer) {
                (Asked::Read { .. }, Answer::Value(seen)) => {
                    judged.reads += 1;
                    Seen::Version(seen.map_or(0, |(version, _)| version))
                }
                (Asked::Write { expect: Some(expect), .. }, Answer::Conflict) => {
                    judged.conflicts += 1;
                    Seen::Another(*expect)
                }
                (_, Answer::Stale) => {
                    judged.stale += 1;
                    continue;
                }
                _ => continue,
            };
            order.push((place(key, &writes, operation.began, *ended, seen)?, seen));
        }
        oracle::replay(key, &writes, &order)
    }

    /// Confirmed messages came, nothing came that nobody published, and no ack was confirmed twice.
    fn judge_messages(&self, judged: &mut Judged) -> Result<(), String> {
        let mut published: BTreeMap<u64, bool> = BTreeMap::new();
        for operation in self.operations.values() {
            if let Asked::Publish { message } = operation.what {
                let confirmed = matches!(operation.ended, Some((_, Answer::Published)));
                published.insert(message, confirmed);
            }
        }
        for message in &self.came {
            demand(published.contains_key(message), || {
                format!("message {message} was consumed and never published")
            })?;
        }
        let mut acked = BTreeSet::new();
        for operation in self.operations.values() {
            if let Some((_, Answer::Consumed { message, acked: true })) = operation.ended {
                let first = acked.insert(message);
                demand(first, || format!("message {message} was acknowledged twice"))?;
            }
        }
        for (message, confirmed) in published {
            judged.messages += usize::from(confirmed);
            demand(!confirmed || self.came.contains(&message), || {
                format!("message {message} was confirmed and never consumed")
            })?;
        }
        Ok(())
    }
}

impl Operation {
    fn key(&self) -> Option<u32> {
        match self.what {
            Asked::Read { key } | Asked::Write { key, .. } => Some(key),
            _ => None,
        }
    }
}

/// Writes in the order of their versions agree with real time.
fn in_real_time(key: u32, writes: &BTreeMap<u64, Placed>) -> Result<(), String> {
    let mut latest_begin = (0, 0);
    for write in writes.values() {
        let late = write.ended.is_some_and(|ended| ended < latest_begin.0);
        demand(!late, || {
            format!(
                "register {key}: version {} was confirmed before version {} was asked for",
                write.version, latest_begin.1
            )
        })?;
        latest_begin = latest_begin.max((write.began, write.version));
    }
    Ok(())
}

/// Once a token has written, no lower one does.
fn fenced(key: u32, writes: &BTreeMap<u64, Placed>) -> Result<(), String> {
    let mut newest: BTreeMap<u32, u64> = BTreeMap::new();
    for write in writes.values() {
        let Some((lock, token)) = write.guard else { continue };
        let known = newest.entry(lock).or_insert(token);
        demand(*known <= token, || {
            format!("register {key}: token {token} of lock {lock} wrote after {known}")
        })?;
        *known = token;
    }
    Ok(())
}

/// What an operation that wrote nothing saw.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Seen {
    /// This version; 0: no value.
    Version(u64),
    /// Another version than this.
    Another(u64),
}

/// A version that was current at some time between two times and fits what was seen.
fn place(
    key: u32,
    writes: &BTreeMap<u64, Placed>,
    began: u64,
    ended: u64,
    seen: Seen,
) -> Result<u64, String> {
    // Not older than what was certainly there before it began, not newer than what was asked for
    // before it ended.
    let before = writes.values().filter(|w| w.ended.is_some_and(|at| at < began));
    let oldest = before.map(|w| w.version).max().unwrap_or(0);
    let may_be = writes.values().filter(|w| w.version >= oldest && w.began <= ended);
    let versions = std::iter::once(oldest).chain(may_be.map(|w| w.version));
    let fits = |version: &u64| match seen {
        Seen::Version(seen) => *version == seen,
        Seen::Another(other) => *version != other,
    };
    let mut versions: Vec<u64> = versions.collect();
    versions.sort_unstable();
    versions.into_iter().find(fits).ok_or_else(|| {
        format!(
            "register {key}: between {began} and {ended} somebody saw {seen:?}, but it was at \
             {oldest} or newer"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register's history: (began, ended, asked, answer).
    fn judge(steps: &[(u64, u64, Asked, Answer)]) -> Result<Judged, String> {
        let mut history = History::default();
        for (id, (began, ended, what, answer)) in steps.iter().cloned().enumerate() {
            let id = id as u64;
            history.push(Line::Began { id, at: began, what });
            history.push(Line::Ended { id, at: ended, answer });
        }
        history.judge()
    }

    fn write(value: u64, expect: Option<u64>) -> Asked {
        Asked::Write { key: 1, value, expect, guard: None }
    }

    const READ: Asked = Asked::Read { key: 1 };

    #[test]
    fn a_good_history_is_accepted() {
        let steps = [
            (0, 10, write(100, Some(0)), Answer::Written(5)),
            (5, 20, write(200, Some(5)), Answer::Written(9)),
            (8, 12, READ, Answer::Value(Some((5, 100)))),
            (21, 22, READ, Answer::Value(Some((9, 200)))),
            (21, 30, write(300, Some(5)), Answer::Conflict),
        ];
        let judged = judge(&steps).expect("it is good");
        assert_eq!((judged.writes, judged.reads, judged.conflicts), (2, 2, 1));
    }

    #[test]
    fn a_stale_read_is_found() {
        let steps = [
            (0, 1, write(100, None), Answer::Written(5)),
            (2, 3, write(200, None), Answer::Written(9)),
            (4, 5, READ, Answer::Value(Some((5, 100)))),
        ];
        assert!(judge(&steps).expect_err("it is stale").contains("or newer"));
    }

    #[test]
    fn versions_against_time_are_found() {
        let steps = [
            (0, 1, write(100, None), Answer::Written(9)),
            (2, 3, write(200, None), Answer::Written(5)),
        ];
        assert!(judge(&steps).is_err());
    }

    #[test]
    fn a_lost_update_is_found() {
        // Both compare with version 5, and both are told that they wrote.
        let steps = [
            (0, 1, write(100, None), Answer::Written(5)),
            (2, 9, write(200, Some(5)), Answer::Written(6)),
            (2, 9, write(300, Some(5)), Answer::Written(7)),
        ];
        assert!(judge(&steps).expect_err("an update is lost").contains("core"));
    }

    #[test]
    fn a_wrong_conflict_is_found() {
        let steps = [
            (0, 1, write(100, None), Answer::Written(5)),
            (2, 3, write(200, Some(5)), Answer::Conflict),
        ];
        assert!(judge(&steps).is_err());
    }

    #[test]
    fn two_holders_are_found() {
        let acquire = |token| (Asked::Acquire { lock: 3 }, Answer::Granted(token));
        let mut history = History::default();
        for (id, (began, ended, (what, answer))) in
            [(0, 10, acquire(7)), (5, 20, acquire(8))].into_iter().enumerate()
        {
            history.push(Line::Began { id: id as u64, at: began, what });
            history.push(Line::Ended { id: id as u64, at: ended, answer });
        }
        assert!(history.judge().is_ok());
        history.push(Line::Held { lock: 3, token: 7, at: 21 });
        assert!(history.judge().expect_err("both hold it").contains("token 7"));
    }

    #[test]
    fn an_unfenced_write_is_found() {
        let write =
            |value, token| Asked::Write { key: 1, value, expect: None, guard: Some((3, token)) };
        let steps =
            [(0, 1, write(100, 8), Answer::Written(5)), (2, 3, write(200, 7), Answer::Written(6))];
        assert!(judge(&steps).expect_err("the late hand wrote").contains("wrote after"));
    }

    #[test]
    fn a_lost_message_is_found() {
        let steps = [(0, 1, Asked::Publish { message: 4 }, Answer::Published)];
        assert!(judge(&steps).expect_err("it is lost").contains("never consumed"));
    }
}
