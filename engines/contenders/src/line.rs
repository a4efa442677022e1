//! Who holds, as it follows from a line: the one rule of locks that all such engines share.
//!
//! Contenders hold from the front of the line for as long as they go together: sharers with
//! sharers, permits of one semaphore while they add up. The first who does not fit waits, and so
//! does everybody behind, so writers are not starved and large requests for permits neither.

use leasehold_api::engine::Mode;
use leasehold_api::{Error, ErrorKind, Result};

use crate::Contender;

/// Whether the contender at `place` holds, by those before it that still stand in the way.
pub fn holds(line: &[Contender], place: usize, now: u64) -> bool {
    fits(&line[..place], line[place].mode, now)
}

/// Whether somebody who comes now would hold.
pub fn has_room(line: &[Contender], mode: Mode, now: u64) -> bool {
    fits(line, mode, now)
}

fn fits(before: &[Contender], mode: Mode, now: u64) -> bool {
    let mut before = before.iter().filter(|other| other.blocks(now)).map(|other| {
        // Who is over and still in the way was lost with a delay: nobody goes together with that.
        if other.is_over(now) { Mode::Exclusive } else { other.mode }
    });
    match mode {
        Mode::Exclusive => before.next().is_none(),
        Mode::Shared => before.all(|other| other == Mode::Shared),
        Mode::Permits { take, of } => {
            let left = before.try_fold(of, |left, other| match other {
                Mode::Permits { take, of: same } if same == of => left.checked_sub(take),
                _ => None,
            });
            left.is_some_and(|left| take <= left)
        }
    }
}

/// The one whose going the contender at `place` waits for, if there is one such: before that it is
/// not worth looking again. `None`: any going may make room, as with permits of one semaphore.
pub fn blocker(line: &[Contender], place: usize, now: u64) -> Option<&Contender> {
    let mut before = line[..place].iter().rev().filter(|before| before.blocks(now));
    match line[place].mode {
        // All must go, the nearest too.
        Mode::Exclusive => before.next(),
        // Sharers before it come in together with it.
        Mode::Shared => before.find(|before| before.mode != Mode::Shared || before.is_over(now)),
        // Those of the same semaphore may come in together with it.
        Mode::Permits { of, .. } => before.find(|before| {
            let is_same = matches!(before.mode, Mode::Permits { of: same, .. } if same == of);
            !is_same || before.is_over(now)
        }),
    }
}

/// When the line changes by itself: the first time at which somebody in it is out of the way.
pub fn next_end(line: &[Contender], now: u64) -> Option<u64> {
    let ends = line.iter().filter_map(Contender::out_of_the_way);
    ends.filter(|end| *end > now).min()
}

/// Demands that all who want permits mean the same semaphore.
///
/// # Errors
/// `Different`, with what the others say.
pub fn agree(name: &str, line: &[Contender], mode: Mode, now: u64) -> Result<()> {
    let Mode::Permits { of, .. } = mode else { return Ok(()) };
    let other = line.iter().filter(|other| other.blocks(now)).find_map(|other| match other.mode {
        Mode::Permits { of: other, .. } if other != of => Some(other),
        _ => None,
    });
    let Some(other) = other else { return Ok(()) };
    let wrong = format!(
        "{name} is a semaphore of {other} permits now, not of {of}; all who use \
                         it must say the same"
    );
    Err(Error::new(ErrorKind::Different, wrong))
}
