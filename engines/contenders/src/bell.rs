//! Who is woken: nobody for whom it is not worth looking.
//!
//! Whoever waits listens to the bell of one contender before it that must have gone before its own
//! turn can come. A write to a line rings the bells of those whom it takes out of the line. So who
//! writes need not find out whose turn it is, which depends on the time at which the store gets to
//! the write and on lines that it does not see; and whoever comes first of many wakes one.
//!
//! Among permits of one semaphore there is no such contender: any of several may make room. Who
//! waits there listens to every change of who holds. Rejected: only the first of them does, and the
//! others listen to the one before, which rings when it learns that it holds; one that dies while
//! it waits learns nothing, and those behind it slept although there was room.
//!
//! Time rings no bell: whoever waits knows when the one ends that it waits for. Ends that come
//! sooner than was known ring, those that come later need not. And since a bell may be lost with a
//! process that has written and dies, everybody looks after [`LOOK`] at the latest.

use std::time::Duration;

use crate::{Contender, contender, line};

/// The longest that anybody in line waits for a bell.
pub const LOOK: Duration = Duration::from_millis(3_300);

/// The bell of a contender, by its id: it goes, or ends sooner than was known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bell(pub String);

impl Bell {
    /// A text that no other bell has, without spaces; short.
    pub fn name(&self) -> String {
        format!("g:{}", self.0)
    }
}

/// What somebody in a line waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    /// It is not worth looking again before this; `None`: any change of who holds counts.
    pub bell: Option<Bell>,
    /// But for this time, if nothing changes.
    pub until: Option<u64>,
}

/// What the contender at `place` waits for; `None`: it need not wait.
pub fn awaited(list: &[Contender], place: usize, now: u64) -> Option<Awaited> {
    if line::holds(list, place, now) {
        return None;
    }
    if let Some(other) = line::blocker(list, place, now) {
        let bell = Some(Bell(other.id.clone()));
        return Some(Awaited { bell, until: other.out_of_the_way() });
    }
    Some(Awaited { bell: None, until: line::next_end(&list[..place], now) })
}

/// What a contender waits for that stands in several lines, at these places: one that is in its way
/// in any of them will do, as it must go in any case.
pub fn awaited_in(lines: &[(&[Contender], usize)], now: u64) -> Option<Awaited> {
    let all = lines.iter().filter_map(|(list, place)| awaited(list, *place, now));
    let all: Vec<Awaited> = all.collect();
    match all.iter().find(|awaited| awaited.bell.is_some()) {
        Some(one) => Some(one.clone()),
        None if all.is_empty() => None,
        None => {
            let until = all.iter().filter_map(|awaited| awaited.until).min();
            Some(Awaited { bell: None, until })
        }
    }
}

/// What a change of a line rings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rung {
    /// These bells.
    pub bells: Vec<Bell>,
    /// And whoever waits for any change of who holds should look.
    pub any: bool,
}

/// What a change of a line rings that is decided at `now`; it may be written later.
pub fn rung(before: &[Contender], after: &[Contender], now: u64) -> Rung {
    let mut bells = Vec::new();
    let mut any = holders(before, now) != holders(after, now);
    let mut rest = after.iter().peekable();
    for was in before {
        // Those who stay keep their order.
        let is = rest.next_if(|is| (&is.id, is.token) == (&was.id, was.token));
        if is.is_none_or(|is| ends_sooner(was, is, now)) {
            bells.push(Bell(was.id.clone()));
            any = true;
        }
    }
    // Nobody is there to hear them.
    if after.is_empty() {
        bells.clear();
    }
    Rung { bells, any }
}

/// Who holds, by request.
fn holders(list: &[Contender], now: u64) -> Vec<&str> {
    let places = (0..list.len()).filter(|place| line::holds(list, *place, now));
    places.map(|place| list[place].id.as_str()).collect()
}

/// Whether a contender ends sooner than was known, and before those who wait for it would look.
fn ends_sooner(was: &Contender, is: &Contender, now: u64) -> bool {
    if was == is {
        return false;
    }
    let mut is = [is.clone()];
    contender::resolve(&mut is, was.token, now);
    let look = now.saturating_add(LOOK.as_micros() as u64);
    match (was.out_of_the_way(), is[0].out_of_the_way()) {
        (_, None) => false,
        (None, Some(is)) => is < look,
        (Some(was), Some(is)) => is < was.min(look),
    }
}
