//! Texts: setting them on conditions, which is how most locks are taken, and parts of them.

use leasehold_core::content::Bytes;

use super::numbers::{SYNTAX, an_integer, is, range};
use super::times::{Deadline, Unit};
use crate::Reply;
use crate::scene::{Scene, Step, WRONG_TYPE};

/// The longest text that Redis takes.
const LONGEST: usize = 512 << 20;

/// What has to be so for SET to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition<'a> {
    Always,
    Absent,
    Present,
    Equals(&'a [u8]),
    Differs(&'a [u8]),
}

/// The options of SET and GETEX.
#[derive(Debug)]
struct Options<'a> {
    condition: Condition<'a>,
    get: bool,
    keep: bool,
    persist: bool,
    deadline: Option<Deadline<'a>>,
}

impl<'a> Options<'a> {
    /// Reads them; `set` is SET, otherwise it is GETEX.
    fn read(args: &[&'a [u8]], set: bool) -> Step<Self> {
        let condition = Condition::Always;
        let mut options =
            Self { condition, get: false, keep: false, persist: false, deadline: None };
        let mut at = 0;
        while at < args.len() {
            let next = args.get(at + 1).copied();
            at += options.read_one(args[at], next, set).ok_or(SYNTAX)?;
        }
        Ok(options)
    }

    /// Reads one; how many arguments it took, or `None` when it does not fit.
    fn read_one(&mut self, word: &[u8], next: Option<&'a [u8]>, set: bool) -> Option<usize> {
        use Condition::{Absent, Always, Differs, Equals, Present};
        let unit = Unit::of_option(word);
        if set && is(word, "NX") {
            self.condition = self.only(Absent)?;
        } else if set && is(word, "XX") {
            self.condition = self.only(Present)?;
        } else if set && is(word, "IFEQ") {
            self.condition = Some(Equals(next?)).filter(|_| self.condition == Always)?;
            return Some(2);
        } else if set && is(word, "IFNE") {
            self.condition = Some(Differs(next?)).filter(|_| self.condition == Always)?;
            return Some(2);
        } else if set && is(word, "GET") {
            self.get = true;
        } else if set && is(word, "KEEPTTL") && self.deadline.is_none() {
            self.keep = true;
        } else if !set && is(word, "PERSIST") && self.deadline.is_none() {
            self.persist = true;
        } else {
            let unit = unit.filter(|_| !self.keep && !self.persist)?;
            if self.deadline.as_ref().is_some_and(|before| before.unit != unit) {
                return None;
            }
            self.deadline = Some(Deadline { unit, text: next? });
            return Some(2);
        }
        Some(1)
    }

    fn only(&self, wanted: Condition<'a>) -> Option<Condition<'a>> {
        matches!(self.condition, Condition::Always).then_some(wanted).or_else(|| {
            // NX twice is NX.
            (self.condition == wanted).then_some(wanted)
        })
    }
}

/// A text, or nothing.
pub fn bulk(text: Option<Bytes>) -> Reply {
    text.map_or(Reply::Nil, Reply::Bulk)
}

/// SET.
pub fn set(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let (key, value) = (args[1], args[2]);
    let options = Options::read(&args[3..], true)?;
    let expires = options.deadline.map(|deadline| deadline.moment(scene, "set")).transpose()?;
    let compares = matches!(options.condition, Condition::Equals(_) | Condition::Differs(_));
    let before = match options.get || compares {
        true => scene.text(key)?,
        false => None,
    };
    let fits = match options.condition {
        Condition::Always => true,
        Condition::Absent => scene.expect_absent(key),
        Condition::Present => scene.exists(key),
        Condition::Equals(wanted) => before.as_deref() == Some(wanted),
        Condition::Differs(wanted) => match &before {
            Some(text) => **text != *wanted,
            None => scene.expect_absent(key),
        },
    };
    if !fits {
        return Ok(if options.get { bulk(before) } else { Reply::Nil });
    }
    let creates = match options.condition {
        Condition::Absent => true,
        Condition::Differs(_) => before.is_none(),
        _ => false,
    };
    if options.keep && scene.own_text(key).is_ok_and(|text| text.is_some()) {
        scene.rewrite(key, value.into())?;
    } else {
        let kept = scene.expires(key).filter(|_| options.keep);
        scene.write(key, value.into())?;
        if creates {
            scene.claim(key);
        }
        if let Some(expires) = expires.or(kept) {
            scene.expire(key, Some(expires))?;
        }
    }
    Ok(if options.get { bulk(before) } else { Reply::OK })
}

/// SETNX.
pub fn setnx(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    if !scene.expect_absent(args[1]) {
        return Ok(Reply::Int(0));
    }
    scene.write(args[1], args[2].into())?;
    scene.claim(args[1]);
    Ok(Reply::Int(1))
}

/// SETEX and PSETEX.
pub fn setex(scene: &mut Scene, args: &[&[u8]], unit: Unit) -> Step<Reply> {
    let name = if unit == Unit::Seconds { "setex" } else { "psetex" };
    let expires = Deadline { unit, text: args[2] }.moment(scene, name)?;
    scene.write(args[1], args[3].into())?;
    scene.expire(args[1], Some(expires))?;
    Ok(Reply::OK)
}

/// GET. A script that looks for a lock may go on to take it.
pub fn get(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    scene.look(args[1]);
    scene.text(args[1]).map(bulk)
}

/// GETSET.
pub fn getset(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let before = scene.text(args[1])?;
    scene.write(args[1], args[2].into())?;
    Ok(bulk(before))
}

/// GETDEL.
pub fn getdel(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let before = scene.text(args[1])?;
    if before.is_some() {
        scene.remove(args[1])?;
    }
    Ok(bulk(before))
}

/// GETEX.
pub fn getex(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let options = Options::read(&args[2..], false)?;
    let Some(text) = scene.text(args[1])? else { return Ok(Reply::Nil) };
    if let Some(deadline) = options.deadline {
        let expires = deadline.moment(scene, "getex")?;
        scene.expire(args[1], Some(expires))?;
    } else if options.persist {
        scene.expire(args[1], None)?;
    }
    Ok(Reply::Bulk(text))
}

/// MGET.
pub fn mget(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let one = |key: &&[u8]| bulk(scene.text(key).unwrap_or(None));
    Ok(Reply::Array(args[1..].iter().map(one).collect()))
}

/// MSET and MSETNX.
pub fn mset(scene: &mut Scene, args: &[&[u8]], only_absent: bool) -> Step<Reply> {
    if args.len().is_multiple_of(2) {
        let name = if only_absent { "msetnx" } else { "mset" };
        return Err(super::wrong_arity(name));
    }
    let pairs = || args[1..].chunks_exact(2).map(|pair| (pair[0], pair[1]));
    if only_absent {
        for (key, _) in pairs() {
            if scene.exists(key) {
                return Ok(Reply::Int(0));
            }
        }
    }
    check_all(scene, pairs().map(|(_, value)| value.len()))?;
    scene.check_room(pairs().map(|(key, value)| key.len() + value.len()))?;
    for (key, _) in pairs() {
        super::refuse_leased(scene, key)?;
    }
    for (key, value) in pairs() {
        // A key may be named twice.
        let absent = only_absent && scene.expect_absent(key);
        scene.write(key, value.into())?;
        if absent {
            scene.claim(key);
        }
    }
    Ok(if only_absent { Reply::Int(1) } else { Reply::OK })
}

/// So that of several values either all are written or none.
fn check_all(scene: &Scene, lens: impl Iterator<Item = usize>) -> Step<()> {
    let limits = scene.keys.limits();
    let (max, most) = (limits.value_bytes, limits.decision_bytes);
    let mut sum = 0;
    for len in lens {
        check_length(len, max)?;
        sum += len;
    }
    match sum > most {
        false => Ok(()),
        true => Err(Reply::error(format!(
            "ERR what one command or script writes is {sum}; at most {most} is allowed"
        ))),
    }
}

fn check_length(len: usize, max: usize) -> Step<()> {
    match len > max {
        false => Ok(()),
        true => Err(Reply::error(format!(
            "ERR the value's size in bytes is {len}; at most {max} is allowed"
        ))),
    }
}

/// The error for a text longer than Redis takes.
fn check_longest(len: usize) -> Step<()> {
    match len > LONGEST {
        false => Ok(()),
        true => Err(Reply::error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")),
    }
}

/// APPEND.
pub fn append(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let mut text = scene.own_text(args[1])?.map_or_else(Vec::new, |text| text.to_vec());
    text.extend_from_slice(args[2]);
    check_longest(text.len())?;
    check_length(text.len(), scene.keys.limits().value_bytes)?;
    let len = text.len() as i64;
    scene.rewrite(args[1], text.into())?;
    Ok(Reply::Int(len))
}

/// STRLEN.
pub fn strlen(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    Ok(Reply::Int(scene.text(args[1])?.map_or(0, |text| text.len() as i64)))
}

/// GETRANGE and SUBSTR.
pub fn getrange(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let (start, end) = (an_integer(args[2])?, an_integer(args[3])?);
    let text = scene.text(args[1])?.unwrap_or_default();
    if start < 0 && end < 0 && start > end {
        return Ok(Reply::bulk(""));
    }
    // An end before the first byte is the first byte.
    let end = if end < 0 { (end.saturating_add(text.len() as i64)).max(0) } else { end };
    let (from, count) = range(start, end, text.len());
    Ok(Reply::bulk(&text[from..from + count]))
}

/// SETRANGE.
pub fn setrange(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let offset = an_integer(args[2])?;
    let offset = usize::try_from(offset).map_err(|_| Reply::error("ERR offset is out of range"))?;
    let patch = args[3];
    let before = scene.own_text(args[1])?.unwrap_or_default();
    if patch.is_empty() {
        return Ok(Reply::Int(before.len() as i64));
    }
    let end = offset.saturating_add(patch.len());
    check_longest(end)?;
    check_length(end, scene.keys.limits().value_bytes)?;
    let mut text = before.to_vec();
    text.resize(text.len().max(end), 0);
    text[offset..end].copy_from_slice(patch);
    let len = text.len() as i64;
    scene.rewrite(args[1], text.into())?;
    Ok(Reply::Int(len))
}

/// DELEX: removes a key, on a condition if there is one.
pub fn delex(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    if args.len() == 2 {
        return scene.remove(args[1]).map(|was| Reply::Int(was.into()));
    }
    let [_, key, condition, wanted] = *args else { return Err(super::wrong_arity("delex")) };
    let before = match scene.text(key) {
        Ok(Some(text)) => text,
        Ok(None) => return Ok(Reply::Int(0)),
        Err(error) if error == WRONG_TYPE => {
            let why = "ERR Key should be of string type if conditions are specified";
            return Err(Reply::error(why));
        }
        Err(error) => return Err(error),
    };
    let equal = *before == *wanted;
    let fits = if is(condition, "IFEQ") {
        equal
    } else if is(condition, "IFNE") {
        !equal
    } else {
        return Err(Reply::error("ERR Invalid condition. Use IFEQ or IFNE"));
    };
    Ok(Reply::Int((fits && scene.remove(key)?).into()))
}

/// INCR, DECR, INCRBY and DECRBY.
pub fn add(scene: &mut Scene, key: &[u8], amount: i64) -> Step<Reply> {
    let before = match scene.own_text(key)? {
        Some(text) => an_integer(&text)?,
        None => 0,
    };
    let overflow = || Reply::error("ERR increment or decrement would overflow");
    let sum = before.checked_add(amount).ok_or_else(overflow)?;
    scene.rewrite(key, sum.to_string().as_bytes().into())?;
    Ok(Reply::Int(sum))
}

/// DECRBY.
pub fn decrby(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let amount = an_integer(args[2])?;
    let overflow = || Reply::error("ERR decrement would overflow");
    add(scene, args[1], amount.checked_neg().ok_or_else(overflow)?)
}

/// INCRBYFLOAT.
pub fn incrbyfloat(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let before = scene.own_text(args[1])?;
    let sum = super::extended::sum(before.as_deref().unwrap_or(b"0"), args[2])?;
    let sum: Bytes = sum.as_bytes().into();
    scene.rewrite(args[1], sum.clone())?;
    Ok(Reply::Bulk(sum))
}
