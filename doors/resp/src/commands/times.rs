//! When keys vanish: what clients say in four ways, and what they ask in four ways.
//!
//! Clients mean wall-clock time; the shard has a time of its own that does not jump. What is
//! counted from now is added to the shard's time, what is a date is converted.

use leasehold_core::Time;

use super::numbers::{an_integer, is};
use crate::Reply;
use crate::scene::{Scene, Step};

/// In what an expiry is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds from now.
    Seconds,
    /// Milliseconds from now.
    Milliseconds,
    /// Seconds since 1970.
    DateSeconds,
    /// Milliseconds since 1970.
    DateMilliseconds,
}

impl Unit {
    /// The unit that an option of SET or GETEX names.
    pub fn of_option(word: &[u8]) -> Option<Self> {
        let known = [
            ("EX", Self::Seconds),
            ("PX", Self::Milliseconds),
            ("EXAT", Self::DateSeconds),
            ("PXAT", Self::DateMilliseconds),
        ];
        known.iter().find(|(name, _)| is(word, name)).map(|(_, unit)| *unit)
    }

    fn in_seconds(self) -> bool {
        matches!(self, Self::Seconds | Self::DateSeconds)
    }

    fn is_relative(self) -> bool {
        matches!(self, Self::Seconds | Self::Milliseconds)
    }
}

/// An expiry as a client gave it.
#[derive(Debug, Clone, Copy)]
pub struct Deadline<'a> {
    /// In what.
    pub unit: Unit,
    /// How much.
    pub text: &'a [u8],
}

impl Deadline<'_> {
    /// The moment in the shard's time for commands that want one after now.
    ///
    /// # Errors
    /// It is no number, not positive or too large.
    pub fn moment(self, scene: &Scene, command: &str) -> Step<Time> {
        let amount = an_integer(self.text)?;
        if amount <= 0 {
            return Err(invalid(command));
        }
        self.convert(scene, amount, command)
    }

    /// The moment in the shard's time; 0 when it is over.
    fn convert(self, scene: &Scene, amount: i64, command: &str) -> Step<Time> {
        let factor = if self.unit.in_seconds() { 1000 } else { 1 };
        let amount = amount.checked_mul(factor).ok_or_else(|| invalid(command))?;
        if !self.unit.is_relative() {
            return Ok(scene.shard_time(amount));
        }
        amount.checked_add(scene.wall_ms()).ok_or_else(|| invalid(command))?;
        let Ok(amount) = u64::try_from(amount) else { return Ok(0) };
        let at = scene.keys.now().saturating_add(amount.saturating_mul(1000));
        let offset = scene.keys.wall().saturating_sub(scene.keys.now());
        Ok(at.min(Time::MAX - offset))
    }
}

fn invalid(command: &str) -> Reply {
    Reply::error(format!("ERR invalid expire time in '{command}' command"))
}

/// The options of EXPIRE.
#[derive(Debug, Default)]
struct Only {
    absent: bool,
    present: bool,
    later: bool,
    earlier: bool,
}

impl Only {
    fn read(args: &[&[u8]]) -> Step<Self> {
        let mut only = Self::default();
        for word in args {
            let known = [
                ("NX", &mut only.absent),
                ("XX", &mut only.present),
                ("GT", &mut only.later),
                ("LT", &mut only.earlier),
            ];
            match known.into_iter().find(|(name, _)| is(word, name)) {
                Some((_, flag)) => *flag = true,
                None => {
                    let word = String::from_utf8_lossy(word);
                    return Err(Reply::error(format!("ERR Unsupported option {word}")));
                }
            }
        }
        if only.absent && (only.present || only.later || only.earlier) {
            let why = "ERR NX and XX, GT or LT options at the same time are not compatible";
            return Err(Reply::error(why));
        }
        if only.later && only.earlier {
            let why = "ERR GT and LT options at the same time are not compatible";
            return Err(Reply::error(why));
        }
        Ok(only)
    }

    fn allows(&self, before: Option<Time>, at: Time) -> bool {
        !(self.absent && before.is_some()
            || self.present && before.is_none()
            || self.later && before.is_none_or(|before| at <= before)
            || self.earlier && before.is_some_and(|before| at >= before))
    }
}

/// EXPIRE, PEXPIRE, EXPIREAT and PEXPIREAT.
pub fn expire(scene: &mut Scene, args: &[&[u8]], unit: Unit) -> Step<Reply> {
    let command = match unit {
        Unit::Seconds => "expire",
        Unit::Milliseconds => "pexpire",
        Unit::DateSeconds => "expireat",
        Unit::DateMilliseconds => "pexpireat",
    };
    let only = Only::read(&args[3..])?;
    let amount = an_integer(args[2])?;
    let at = Deadline { unit, text: args[2] }.convert(scene, amount, command)?;
    if scene.content(args[1]).is_some() && !only.allows(scene.expires(args[1]), at) {
        return Ok(Reply::Int(0));
    }
    scene.expire(args[1], Some(at)).map(|was| Reply::Int(was.into()))
}

/// PERSIST.
pub fn persist(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    if scene.content(args[1]).is_some() && scene.expires(args[1]).is_none() {
        return Ok(Reply::Int(0));
    }
    scene.expire(args[1], None).map(|was| Reply::Int(was.into()))
}

/// TTL, PTTL, EXPIRETIME and PEXPIRETIME.
pub fn left(scene: &mut Scene, args: &[&[u8]], unit: Unit) -> Step<Reply> {
    scene.look(args[1]);
    let name = scene.name(args[1]);
    let expires = match scene.keys.get(&name) {
        Some(seen) => seen.expires,
        None => match scene.keys.kept_away(&name) {
            Some(lease) => lease.expires,
            None => return Ok(Reply::Int(-2)),
        },
    };
    let Some(expires) = expires else { return Ok(Reply::Int(-1)) };
    let ms = match unit.is_relative() {
        true => (expires.saturating_sub(scene.keys.now()) / 1000) as i64,
        false => scene.wall_of(expires),
    };
    Ok(Reply::Int(if unit.in_seconds() { ms.saturating_add(500) / 1000 } else { ms }))
}
