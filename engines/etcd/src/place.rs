//! Keys and values, and lines as they are read.
//!
//! ```text
//! PREFIX/sessions/<number>               on the session's lease; there as long as the session
//! PREFIX/locks/<name>/<request>          a contender; create revision = place and token
//! PREFIX/locks/<name>/<request>+         its second half, if it ends with its session
//! PREFIX/registers/<key>                 a register; modification revision = version
//! ```
//! A contender that waits hangs on its session's lease. One that holds hangs on the hold's own
//! lease, and if it ends with its session too, its second half hangs on that one's: a key has one
//! lease, and a hold of which a half is missing is over. All keys of a line are read at once, so
//! nobody sees a half that is still coming.

use std::collections::HashSet;
use std::sync::Arc;

use leasehold_api::{Error, ErrorKind, Result};
use leasehold_contenders::{Contender, line};
use serde::{Deserialize, Serialize};

use crate::rpc::KeyValue;

/// Ends the key of a second half.
const HALF: u8 = b'+';

/// A contender as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Who.
    #[serde(flatten)]
    pub who: Contender,
    /// Whether there must be a second half.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bound: bool,
    /// The last operation that changed how often it is entered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last: String,
}

impl Place {
    /// As it is written.
    pub fn written(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("it has only text and numbers")
    }
}

/// A contender as it is read.
#[derive(Debug, Clone)]
pub(crate) struct Stand {
    pub place: Place,
    /// The lease that its first half hangs on; 0: none.
    pub lease: i64,
    /// When it was last written.
    pub revision: i64,
}

/// A line as it was at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub name: Arc<str>,
    /// Contenders in order, for the rule.
    pub list: Vec<Contender>,
    /// The same with what the rule does not need.
    pub stands: Vec<Stand>,
    /// First halves without the second: they stand in nobody's way.
    pub corpses: Vec<Vec<u8>>,
}

/// Where everything is kept.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// Begins the keys of locks whose names begin with this.
    pub fn locks(&self, names: &str) -> Vec<u8> {
        let mut key = format!("{}/locks/", self.prefix).into_bytes();
        for byte in names.bytes() {
            match byte {
                b'/' | b'%' => key.extend_from_slice(format!("%{byte:02X}").as_bytes()),
                _ => key.push(byte),
            }
        }
        key
    }

    /// Begins the keys of a line.
    pub fn line(&self, name: &str) -> Vec<u8> {
        let mut key = self.locks(name);
        key.push(b'/');
        key
    }

    /// A contender's key; begins that of its second half.
    pub fn head(&self, name: &str, id: &str) -> Vec<u8> {
        [self.line(name), id.as_bytes().to_vec()].concat()
    }

    /// The key of a contender's second half.
    pub fn half(&self, name: &str, id: &str) -> Vec<u8> {
        [self.head(name, id), vec![HALF]].concat()
    }

    /// A session's key.
    pub fn session(&self, id: u64) -> Vec<u8> {
        format!("{}/sessions/{id:013x}", self.prefix).into_bytes()
    }

    /// Begins the keys of registers, or the key of one.
    pub fn register(&self, key: &[u8]) -> Vec<u8> {
        [format!("{}/registers/", self.prefix).as_bytes(), key].concat()
    }

    /// The register that a key is of.
    pub fn register_of<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        key.get(self.register(b"").len()..).unwrap_or_default()
    }

    /// The lock that a contender's key is of.
    pub fn lock_of(&self, key: &[u8]) -> Option<String> {
        let rest = key.get(self.locks("").len()..)?;
        let end = rest.iter().position(|byte| *byte == b'/')?;
        let name = std::str::from_utf8(&rest[..end]).ok()?;
        Some(name.replace("%2F", "/").replace("%25", "%"))
    }
}

impl Line {
    /// A line from its keys.
    ///
    /// # Errors
    /// `Broken` when somebody else writes there.
    pub fn read(name: &Arc<str>, keys: &[KeyValue]) -> Result<Self> {
        let halves: HashSet<&[u8]> =
            keys.iter().filter_map(|kv| kv.key.strip_suffix(&[HALF])).collect();
        let mut stands = Vec::with_capacity(keys.len());
        let mut corpses = Vec::new();
        for kv in keys.iter().filter(|kv| !kv.key.ends_with(&[HALF])) {
            let mut place: Place = serde_json::from_slice(&kv.value).map_err(|error| {
                let key = String::from_utf8_lossy(&kv.key);
                let wrong = format!("the key {key} is no contender ({error}); who writes there?");
                Error::new(ErrorKind::Broken, wrong).asking(format!("read the line of lock {name}"))
            })?;
            if place.bound && !halves.contains(&kv.key[..]) {
                corpses.push(kv.key.clone());
                continue;
            }
            place.who.token = kv.create_revision.unsigned_abs();
            stands.push(Stand { place, lease: kv.lease, revision: kv.mod_revision });
        }
        stands.sort_by_key(|stand| stand.place.who.token);
        let list = stands.iter().map(|stand| {
            // Who is there counts; the server's leases end who is not.
            Contender { lasts: None, session_lasts: None, delay: 0, ..stand.place.who.clone() }
        });
        let list = list.collect();
        Ok(Self { name: name.clone(), list, stands, corpses })
    }

    /// Where a contender stands.
    pub fn find(&self, id: &str) -> Option<usize> {
        self.list.iter().position(|other| other.id == id)
    }

    /// Whether the contender at a place holds.
    pub fn holds(&self, place: usize) -> bool {
        line::holds(&self.list, place, 0)
    }

    /// Those who hold.
    pub fn holders(&self) -> impl Iterator<Item = &Stand> {
        (0..self.list.len()).filter(|place| self.holds(*place)).map(|place| &self.stands[place])
    }

    /// The newest token of those who hold.
    pub fn newest(&self) -> Option<u64> {
        self.holders().map(|stand| stand.place.who.token).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let keys = Keys::new("leasehold");
        assert_eq!(keys.line("a/b%"), b"leasehold/locks/a%2Fb%25/");
        assert_eq!(keys.half("é", "id"), "leasehold/locks/é/id+".as_bytes());
        for name in ["a", "a/b", "%2F", "%252F", "é/%"] {
            assert_eq!(keys.lock_of(&keys.head(name, "id")).as_deref(), Some(name));
        }
        assert!(keys.line("a/b").starts_with(&keys.locks("a/")));
        assert_eq!(keys.register_of(&keys.register(b"\0x/")), b"\0x/");
    }
}
