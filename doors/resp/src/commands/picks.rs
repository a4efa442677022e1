//! Members at random: so many different ones, or so many of which some may be the same.

use std::collections::HashSet;

use super::numbers::{SYNTAX, a_count, an_integer, is};
use crate::Reply;
use crate::scene::{Scene, Step};

/// How many are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// Below 0: as many draws, each from all.
    count: i64,
    /// With what belongs to the member.
    pub with: bool,
}

impl Wish {
    /// Reads a count and a word after it; `None` when there is no count.
    ///
    /// # Errors
    /// No number, or other words.
    pub fn read(args: &[&[u8]], word: &str) -> Step<Option<Self>> {
        let Some(count) = args.first() else { return Ok(None) };
        if word.is_empty() && args.len() > 1 {
            return Err(SYNTAX);
        }
        // No reply could hold more.
        let count = an_integer(count)?;
        if !(-i64::MAX..=i64::MAX).contains(&count) {
            return Err(out_of_range(i64::MAX));
        }
        let with = match args {
            [_] => false,
            [_, with] if is(with, word) => true,
            _ => return Err(SYNTAX),
        };
        if with && !(-i64::MAX / 2..=i64::MAX / 2).contains(&count) {
            return Err(Reply::error("ERR value is out of range"));
        }
        Ok(Some(Self { count, with }))
    }

    /// Places among `len` members.
    pub fn places(self, scene: &mut Scene, len: usize) -> Vec<usize> {
        if len == 0 || self.count == 0 {
            return Vec::new();
        }
        if self.count < 0 {
            let draws = self.count.unsigned_abs().min(DRAWS_MAX) as usize;
            return (0..draws).map(|_| scene.random(len)).collect();
        }
        different(scene, self.count as usize, len)
    }
}

/// So many draws with repetition are answered at most; more would only fill memory.
pub const DRAWS_MAX: u64 = 1 << 20;

fn out_of_range(max: i64) -> Reply {
    Reply::error(format!("ERR value is out of range, value must between {} and {max}", -max))
}

/// So many different places among `len`, in order when it is all of them.
pub fn different(scene: &mut Scene, count: usize, len: usize) -> Vec<usize> {
    if count >= len {
        return (0..len).collect();
    }
    // Floyd's sampling: every subset is as likely as any other, with one draw for each place.
    let mut chosen = HashSet::with_capacity(count);
    let mut places = Vec::with_capacity(count);
    for last in len - count..len {
        let place = scene.random(last + 1);
        let place = if chosen.insert(place) { place } else { last };
        chosen.insert(place);
        places.push(place);
    }
    places
}

/// Adds a member and what belongs to it: a pair of its own in RESP3.
pub fn with(reply: &mut Vec<Reply>, member: Reply, value: Option<Reply>, resp3: bool) {
    match value {
        Some(value) if resp3 => reply.push(Reply::Array(vec![member, value])),
        Some(value) => reply.extend([member, value]),
        None => reply.push(member),
    }
}

/// The cursor and the options of HSCAN, SSCAN and ZSCAN, and of SCAN.
#[derive(Debug)]
pub struct ScanOptions<'a> {
    /// The cursor.
    pub cursor: u64,
    /// How many to look at.
    pub count: usize,
    /// Which names.
    pub pattern: Option<&'a [u8]>,
    /// Which kind.
    pub kind: Option<&'a [u8]>,
}

impl<'a> ScanOptions<'a> {
    /// Reads them; `keys`: SCAN.
    ///
    /// # Errors
    /// No numbers, other words.
    pub fn read(cursor: &[u8], args: &[&'a [u8]], keys: bool) -> Step<Self> {
        let mut options =
            Self { cursor: read_cursor(cursor)?, count: 10, pattern: None, kind: None };
        for pair in args.chunks(2) {
            let [word, value] = *pair else { return Err(SYNTAX) };
            if is(word, "COUNT") {
                let count = an_integer(value)?;
                options.count = usize::try_from(count).ok().filter(|n| *n > 0).ok_or(SYNTAX)?;
            } else if is(word, "MATCH") {
                options.pattern = Some(value);
            } else if keys && is(word, "TYPE") {
                options.kind = Some(value);
            } else {
                return Err(SYNTAX);
            }
        }
        Ok(options)
    }

    /// Whether a name is wanted.
    pub fn matches(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| crate::glob::matches(pattern, name))
    }
}

/// Reads a cursor.
///
/// # Errors
/// It is no number.
pub fn read_cursor(text: &[u8]) -> Step<u64> {
    if text.is_empty() {
        return Ok(0);
    }
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    let digits = digits.first().filter(|byte| byte.is_ascii_digit()).map(|_| digits);
    let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok());
    let number = number.ok_or_else(|| Reply::error("ERR invalid cursor"))?;
    Ok(if negative { number.wrapping_neg() } else { number })
}

/// HSCAN, SSCAN and ZSCAN: everything at once, since what is small is answered at once by Redis
/// too, and so nothing is missed when somebody removes members between two calls.
pub fn scan<'a, T: 'a>(
    args: &[&[u8]],
    items: Option<impl Iterator<Item = &'a T>>,
    name: impl Fn(&T) -> &[u8],
    show: impl Fn(&T, &mut Vec<Reply>),
) -> Step<Reply> {
    let mut reply = Vec::new();
    // Of a key that is not there nobody asks how.
    let Some(items) = items else {
        return Ok(Reply::Array(vec![Reply::bulk("0"), Reply::Array(reply)]));
    };
    let options = ScanOptions::read(args[2], &args[3..], false)?;
    for item in items.filter(|item| options.matches(name(item))) {
        show(item, &mut reply);
    }
    Ok(Reply::Array(vec![Reply::bulk("0"), Reply::Array(reply)]))
}

/// The count of SPOP.
///
/// # Errors
/// It is no number of 0 or more.
pub fn pop_count(args: &[&[u8]]) -> Step<Option<usize>> {
    match args {
        [] => Ok(None),
        [count] => a_count(count).map(Some),
        _ => Err(SYNTAX),
    }
}
