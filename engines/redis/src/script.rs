//! The scripts, and what they are given.
//!
//! Each is a file of `src/lua` behind the parts that it shares with others. A server keeps a
//! script by its SHA-1; it is sent whole only where it is not kept.

use std::io::Write;
use std::sync::LazyLock;
use std::time::Duration;

use leasehold_api::{Error, ErrorKind, Result};
use redis::Value;

/// A script.
#[derive(Debug)]
pub(crate) struct Script {
    pub text: String,
    pub sha1: String,
}

const CLOCK: &str = include_str!("lua/clock.lua");
const BOOK: &str = include_str!("lua/book.lua");
const QUEUE: &str = include_str!("lua/queue.lua");

fn script(parts: &[&str]) -> Script {
    let text = parts.join("\n");
    let sha1 = redis::Script::new(&text).get_hash().to_owned();
    Script { text, sha1 }
}

macro_rules! scripts {
    ($($name:ident: $($part:expr),+;)*) => {
        $(pub(crate) static $name: LazyLock<Script> = LazyLock::new(|| script(&[$($part),+]));)*
    };
}

scripts! {
    READ: CLOCK, BOOK, include_str!("lua/read.lua");
    SWAP: CLOCK, BOOK, include_str!("lua/swap.lua");
    LIST: CLOCK, include_str!("lua/list.lua");
    COMMIT: CLOCK, BOOK, QUEUE, include_str!("lua/commit.lua");
    SEEN: CLOCK, QUEUE, include_str!("lua/seen.lua");
    DECLARE: CLOCK, QUEUE, include_str!("lua/declare.lua");
    DELETE: CLOCK, QUEUE, include_str!("lua/delete.lua");
    PURGE: CLOCK, QUEUE, include_str!("lua/purge.lua");
    PAUSE: CLOCK, QUEUE, include_str!("lua/pause.lua");
    VIEW: CLOCK, QUEUE, include_str!("lua/view.lua");
    QUEUES: CLOCK, QUEUE, include_str!("lua/queues.lua");
    PEEK: CLOCK, QUEUE, include_str!("lua/peek.lua");
    REDRIVE: CLOCK, QUEUE, include_str!("lua/redrive.lua");
    PUBLISH: CLOCK, QUEUE, include_str!("lua/publish.lua");
    TAKE: CLOCK, QUEUE, include_str!("lua/take.lua");
    CONSUME: CLOCK, QUEUE, include_str!("lua/consume.lua");
    LEAVE: CLOCK, QUEUE, include_str!("lua/leave.lua");
    SETTLE: CLOCK, QUEUE, include_str!("lua/settle.lua");
    EXTEND: CLOCK, QUEUE, include_str!("lua/extend.lua");
    KEPT: CLOCK, include_str!("lua/kept.lua");
    ENDED: CLOCK, QUEUE, include_str!("lua/ended.lua");
    TICK: CLOCK, QUEUE, include_str!("lua/tick.lua");
}

/// What a script is given, one behind the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Args {
    bytes: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
}

impl Args {
    pub fn bytes(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.parts(&[bytes.as_ref()])
    }

    /// One argument of several parts.
    pub fn parts(&mut self, parts: &[&[u8]]) -> &mut Self {
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.ends.push(self.bytes.len());
        self
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text)
    }

    pub fn number(&mut self, number: impl Into<u64>) -> &mut Self {
        self.digits(number, 1)
    }

    /// A number with so many digits at least.
    pub fn digits(&mut self, number: impl Into<u64>, digits: usize) -> &mut Self {
        write!(self.bytes, "{:0digits$}", number.into()).expect("memory takes everything");
        self.ends.push(self.bytes.len());
        self
    }

    pub fn flag(&mut self, flag: bool) -> &mut Self {
        self.text(if flag { "1" } else { "0" })
    }

    /// Microseconds; 0 is none.
    pub fn time(&mut self, time: Option<Duration>) -> &mut Self {
        self.number(time.map_or(0, us))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Takes back all but the first so many.
    pub fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
    }

    /// How many bytes they have.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| &self.bytes[begin..*end])
    }
}

/// Microseconds, below what Lua counts exactly.
pub(crate) fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(1 << 52)
}

/// What a script answered, read from front to back.
pub(crate) struct Reply(std::vec::IntoIter<Value>);

/// An answer that no script of ours gives.
pub(crate) fn odd(what: &str) -> Error {
    let wrong = format!("the server's answer has no {what}; who else writes under the prefix?");
    Error::new(ErrorKind::Broken, wrong)
}

impl Reply {
    pub fn new(value: Value) -> Result<Self> {
        match value {
            Value::Array(values) => Ok(Self(values.into_iter())),
            _ => Err(odd("list")),
        }
    }

    pub fn next(&mut self, what: &str) -> Result<Value> {
        self.0.next().ok_or_else(|| odd(what))
    }

    /// Bytes, or nothing.
    pub fn maybe(&mut self, what: &str) -> Result<Option<Vec<u8>>> {
        match self.next(what)? {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => Ok(Some(bytes)),
            Value::SimpleString(text) => Ok(Some(text.into_bytes())),
            Value::Int(number) => Ok(Some(number.to_string().into_bytes())),
            _ => Err(odd(what)),
        }
    }

    pub fn bytes(&mut self, what: &str) -> Result<Vec<u8>> {
        self.maybe(what)?.ok_or_else(|| odd(what))
    }

    pub fn text(&mut self, what: &str) -> Result<String> {
        String::from_utf8(self.bytes(what)?).map_err(|_| odd(what))
    }

    pub fn number(&mut self, what: &str) -> Result<u64> {
        self.text(what)?.parse().map_err(|_| odd(what))
    }

    pub fn list(&mut self, what: &str) -> Result<Self> {
        Self::new(self.next(what)?)
    }

    pub fn is_empty(&self) -> bool {
        self.0.as_slice().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_stay_apart() {
        let mut args = Args::default();
        args.text("").parts(&[b"a", b"", b"b"]).number(7u32).digits(7u32, 3).flag(true);
        let all = |args: &Args| args.iter().map(<[u8]>::to_vec).collect::<Vec<_>>();
        let given: [&[u8]; 5] = [b"", b"ab", b"7", b"007", b"1"];
        assert_eq!(all(&args), given);
        args.truncate(2);
        assert_eq!(
            (all(&args), args.len(), args.size()),
            (vec![b"".to_vec(), b"ab".to_vec()], 2, 2)
        );
        args.truncate(0);
        assert_eq!(args.text("c").iter().collect::<Vec<_>>(), [b"c"]);
    }
}
