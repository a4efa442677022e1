//! Nodes, and lines as they are read.
//!
//! ```text
//! ROOT/locks/<name>/                         a container: the server removes it when it is empty
//! ROOT/locks/<name>/<request>-<session>      a contender, ephemeral; czxid = place and token
//! ROOT/registers/<key>                       a register; mzxid = version
//! ROOT/deletions                             written with every deletion of a register
//! ROOT/clock                                 written to learn what time it is in the ensemble
//! ```
//! A contender's name has the request in it, by which one whose answer was lost is found again,
//! and the session with ZooKeeper, so that one of an earlier session of ours is never taken for
//! our own (CURATOR-498, CURATOR-604). It has no sequence number: those are 32 bits wide and wrap,
//! and the order of czxids is the same.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use leasehold_api::{Error, ErrorKind, Result};
use leasehold_contenders::{Contender, line};
use zookeeper_client::Stat;

/// Tokens stay below this, so that they are exact in JSON.
const TOKEN_MAX: u64 = 1 << 53;

/// A text as part of a path: letters, digits and a few signs as they are, all else as `%XX`.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for (place, byte) in bytes.iter().enumerate() {
        match byte {
            b'.' if place == 0 => text.push_str("%2E"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => text.push(char::from(*byte)),
            b'-' | b'_' | b'.' | b':' | b'@' | b'+' | b'=' | b' ' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// Where everything is kept.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    root: String,
}

impl Keys {
    pub fn new(root: &str) -> Self {
        Self { root: root.to_owned() }
    }

    /// Above all locks.
    pub fn locks(&self) -> String {
        format!("{}/locks", self.root)
    }

    /// A line.
    pub fn line(&self, name: &str) -> String {
        format!("{}/locks/{}", self.root, escaped(name.as_bytes()))
    }

    /// A contender in a line.
    pub fn contender(&self, name: &str, node: &str) -> String {
        format!("{}/{node}", self.line(name))
    }

    /// Above all registers.
    pub fn registers(&self) -> String {
        format!("{}/registers", self.root)
    }

    /// A register.
    pub fn register(&self, key: &[u8]) -> String {
        format!("{}/registers/{}", self.root, escaped(key))
    }

    /// Written with every deletion.
    pub fn deletions(&self) -> String {
        format!("{}/deletions", self.root)
    }

    /// Written to learn what time it is.
    pub fn clock(&self) -> String {
        format!("{}/clock", self.root)
    }
}

/// A contender as it is read.
#[derive(Debug, Clone)]
pub(crate) struct Stand {
    pub who: Contender,
    /// The name of its node.
    pub node: String,
    /// The session with ZooKeeper that it hangs on.
    pub owner: i64,
}

impl Stand {
    /// Reads one.
    ///
    /// # Errors
    /// `Broken` when somebody else writes there, or the token is too large.
    pub fn read(name: &str, node: &str, data: &[u8], stat: &Stat) -> Result<Self> {
        let asked = |error: Error| error.asking(format!("read the line of lock {name}"));
        let broken = |wrong: String| asked(Error::new(ErrorKind::Broken, wrong));
        let mut who: Contender = serde_json::from_slice(data).map_err(|error| {
            broken(format!("the node {node} is no contender ({error}); who writes there?"))
        })?;
        who.token = token(stat.czxid).map_err(asked)?;
        let us = |ms: i64| ms.unsigned_abs().saturating_mul(1000);
        (who.joined, who.renewed) = (us(stat.ctime), us(stat.mtime));
        if who.granted == Some(0) {
            who.granted = Some(who.renewed);
        }
        Ok(Self { who, node: node.to_owned(), owner: stat.ephemeral_owner })
    }
}

/// A version from the number of a transaction.
///
/// # Errors
/// `Unsupported` when it is not below 2^53: there were two million elections.
pub(crate) fn token(zxid: i64) -> Result<u64> {
    let token = zxid.unsigned_abs();
    if (1..TOKEN_MAX).contains(&token) {
        return Ok(token);
    }
    let wrong = format!(
        "the transaction {zxid:#x} gives no token: it must be above 0 and below 2^53, which ends \
         with the election number 2^21; move to a new ensemble"
    );
    Err(Error::new(ErrorKind::Unsupported, wrong))
}

/// A line as it was at one moment, without those who have gone since.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub name: Arc<str>,
    /// Contenders in order, for the rule.
    pub list: Vec<Contender>,
    /// The same with what the rule does not need.
    pub stands: Vec<Stand>,
    /// The names of the nodes that were there, of those who have gone too.
    pub nodes: HashSet<String>,
}

impl Line {
    /// A line of these.
    pub fn of(name: &Arc<str>, nodes: HashSet<String>, known: &HashMap<String, Stand>) -> Self {
        let mut stands: Vec<Stand> =
            nodes.iter().filter_map(|node| known.get(node)).cloned().collect();
        stands.sort_by_key(|stand| stand.who.token);
        let list = stands.iter().map(|stand| {
            // Who is there counts; the ensemble ends who is not.
            Contender { lasts: None, session_lasts: None, delay: 0, ..stand.who.clone() }
        });
        Self { name: name.clone(), list: list.collect(), stands, nodes }
    }

    /// Where a contender stands that hangs on a session.
    pub fn find(&self, node: &str, owner: i64) -> Option<usize> {
        self.stands.iter().position(|own| own.node == node && own.owner == owner)
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
        self.holders().map(|stand| stand.who.token).max()
    }
}

#[cfg(test)]
mod tests {
    use leasehold_api::engine::unescaped;

    use super::*;

    #[test]
    fn names_are_told_apart() {
        let keys = Keys::new("/leasehold");
        assert_eq!(keys.line("a/b%"), "/leasehold/locks/a%2Fb%25");
        for name in ["a", "a/b", "%2F", "%252F", "é/%", ".", "..", "a.b", "\u{f8ff}"] {
            let part = escaped(name.as_bytes());
            assert!(part.bytes().all(|byte| byte.is_ascii() && byte != b'/'), "{part}");
            assert!(part != "." && part != "..", "{part}");
            assert_eq!(unescaped(&part).as_deref(), Some(name.as_bytes()));
        }
        assert_eq!(unescaped(&escaped(b"\0x/\xff")).as_deref(), Some(&b"\0x/\xff"[..]));
    }

    #[test]
    fn tokens_are_exact_in_json() {
        assert_eq!(token(0x0000_0007_0000_0001).expect("it is small"), 0x7_0000_0001);
        assert_eq!(token((1 << 53) - 1).expect("it is the last"), (1 << 53) - 1);
        for wrong in [0, 1 << 53, i64::MAX, i64::MIN] {
            assert_eq!(token(wrong).expect_err("it is none").kind, ErrorKind::Unsupported);
        }
    }
}
