//! The shape that scripts of lock libraries have nearly always: one command, guarded by who holds
//! the key.
//!
//! ```lua
//! if redis.call('get', KEYS[1]) == ARGV[1] then
//!     return redis.call('del', KEYS[1])
//! else
//!     return 0
//! end
//! ```
//! So a lock is given back, and with `pexpire` renewed. Lua takes half of the time of such a
//! request; here the same two commands go to the same host without it. Where they do not answer
//! what is expected (another kind of value, no permission, a missing argument) Lua runs the script
//! after all: nothing has changed by then, and errors are its own.

use super::{Call, Host, Run};
use crate::Reply;

/// Commands that answer with a number, and change nothing when they answer with an error.
const GUARDED: [&str; 4] = ["del", "unlink", "expire", "pexpire"];
/// The most arguments of a guarded command.
const FEW: usize = 3;

/// A script of this shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Guard {
    get: String,
    key: Place,
    /// What has to be under the key.
    wanted: Place,
    command: String,
    arguments: Vec<Place>,
    /// The answer where something else is.
    otherwise: i64,
}

/// One of the keys or of the arguments of a run; counts from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Key(usize),
    Argument(usize),
}

impl Place {
    fn of<'a>(self, run: &Run<'a>) -> Option<&'a [u8]> {
        match self {
            Self::Key(at) => run.keys.get(at).copied(),
            Self::Argument(at) => run.args.get(at).copied(),
        }
    }
}

impl Guard {
    /// Reads a script, if it has the shape.
    pub fn read(source: &[u8]) -> Option<Self> {
        let mut rest = Rest(std::str::from_utf8(source).ok()?);
        rest.words(&["if", "redis", ".", "call", "("])?;
        let get = rest.quoted(&["get"])?;
        rest.word(",")?;
        let key = rest.place()?;
        rest.words(&[")", "=", "="])?;
        let wanted = rest.place()?;
        rest.words(&["then", "return", "redis", ".", "call", "("])?;
        let command = rest.quoted(&GUARDED)?;
        let mut arguments = Vec::new();
        while rest.word(")").is_none() {
            rest.word(",")?;
            arguments.push(rest.place()?);
        }
        rest.words(&["else", "return"])?;
        let otherwise = rest.number()?;
        rest.word("end")?;
        let whole = rest.0.trim_ascii_start().is_empty() && arguments.len() <= FEW;
        whole.then_some(Self { get, key, wanted, command, arguments, otherwise })
    }

    /// Carries it out; none where Lua has to.
    pub fn run(&self, run: &Run<'_>, read_only: bool, host: &mut dyn Host) -> Option<Reply> {
        let (key, wanted) = (self.key.of(run)?, self.wanted.of(run)?);
        let mut args = [self.command.as_bytes(); FEW + 1];
        for (at, place) in self.arguments.iter().enumerate() {
            args[at + 1] = place.of(run)?;
        }
        let args = &args[..self.arguments.len() + 1];
        match host.call(Call { args: &[self.get.as_bytes(), key], resp: 2, read_only }) {
            Reply::Bulk(found) if *found == *wanted => {}
            Reply::Bulk(_) | Reply::Nil => return Some(Reply::Int(self.otherwise)),
            _ => return None,
        }
        let reply = host.call(Call { args, resp: 2, read_only });
        matches!(reply, Reply::Int(_)).then_some(reply)
    }
}

/// What is left to be read of a script.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// The next piece: a word, a number, a text in quotes, or one sign.
    fn next(&self) -> Option<(&'a str, Self)> {
        let text = self.0.trim_ascii_start();
        let first = *text.as_bytes().first()?;
        let in_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let len = match first {
            b'\'' | b'"' => text[1..].find(char::from(first))? + 2,
            _ if in_word(&first) => text.bytes().take_while(in_word).count(),
            _ => 1,
        };
        Some((text.get(..len)?, Self(&text[len..])))
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let (next, rest) = self.next()?;
        (next == word).then(|| *self = rest)
    }

    fn words(&mut self, words: &[&str]) -> Option<()> {
        words.iter().try_for_each(|word| self.word(word))
    }

    /// One of these names, in letters of any case.
    fn quoted(&mut self, names: &[&str]) -> Option<String> {
        let (next, rest) = self.next()?;
        let name = next.get(1..next.len() - 1)?;
        let known = names.iter().any(|known| known.eq_ignore_ascii_case(name));
        *self = rest;
        (next.starts_with(['\'', '"']) && known).then(|| name.to_owned())
    }

    fn whole(&mut self) -> Option<i64> {
        let (next, rest) = self.next()?;
        let plain = next.len() <= 9 && next.bytes().all(|byte| byte.is_ascii_digit());
        *self = rest;
        next.parse().ok().filter(|_| plain)
    }

    fn number(&mut self) -> Option<i64> {
        match self.word("-") {
            Some(()) => self.whole().map(|number| -number),
            None => self.whole(),
        }
    }

    fn place(&mut self) -> Option<Place> {
        let make = match self.word("KEYS") {
            Some(()) => Place::Key,
            None => self.word("ARGV").map(|()| Place::Argument)?,
        };
        self.word("[")?;
        let at = usize::try_from(self.whole()?).ok()?.checked_sub(1)?;
        self.word("]")?;
        Some(make(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNLOCK: &str = "if redis.call('get',KEYS[1]) == ARGV[1] then return \
                          redis.call('del',KEYS[1]) else return 0 end";

    #[test]
    fn scripts_of_this_shape_are_known_however_they_are_written() {
        let unlock = Guard::read(UNLOCK.as_bytes()).expect("the shape");
        assert_eq!(unlock.arguments, [Place::Key(0)]);
        let renew = "\n\tif redis.call(\"GET\", KEYS[1])==ARGV[1]\nthen\n return \
                     redis.call( \"PEXPIRE\", KEYS[1] , ARGV[2])\n else return -1\nend\n";
        let renew = Guard::read(renew.as_bytes()).expect("the shape");
        assert_eq!(renew.arguments, [Place::Key(0), Place::Argument(1)]);
        assert_eq!((renew.command.as_str(), renew.otherwise), ("PEXPIRE", -1));
    }

    #[test]
    fn anything_else_is_not() {
        for (from, to) in [
            ("get", "getdel"),
            ("'get'", "get"),
            ("'get'", "'get\""),
            ("'del'", "'set'"),
            ("==", "~="),
            ("KEYS[1]", "KEYS[0]"),
            ("KEYS[1]", "KEYS[1.0]"),
            ("KEYS", "keys"),
            ("return 0", "return 0x10"),
            ("return 0", "return nil"),
            ("return 0", "return - -1"),
            ("return 0", "return --1"),
            (" end", " end return 1"),
            (" end", ""),
            ("if ", "ifredis"),
            ("redis.call", "redis.pcall"),
            ("else", "-- no\nelse"),
        ] {
            let other = UNLOCK.replacen(from, to, 1);
            assert_eq!(Guard::read(other.as_bytes()), None, "{other}");
        }
        for cut in 0..UNLOCK.len() {
            assert_eq!(Guard::read(&UNLOCK.as_bytes()[..cut]), None);
        }
        assert_eq!(Guard::read("if é".as_bytes()), None);
    }
}
