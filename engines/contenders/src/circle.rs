//! Those who wait for each other, for engines that can read all lines.
//!
//! Who waits for permits may get them from any of several holders, so whoever waits for a
//! semaphore is not looked at: a circle that is named is one. Whoever closes a circle reads all
//! lines after it came into its own, so the last to come sees the whole circle, and only the last
//! is refused.

use std::collections::{BTreeMap, VecDeque};

use leasehold_api::engine::Mode;

use crate::{Contender, line};

/// A lock's name and its line, of those who are there: nobody's time is looked at.
type Line<'a> = (&'a str, &'a [Contender]);

/// Who waits, or holds: a session and a number within it.
type Owner = (u64, u64);

/// A wait: for which lock, as which contender, and for whom.
#[derive(Clone, Copy)]
struct Wait<'a> {
    from: Owner,
    lock: &'a str,
    token: u64,
    to: Owner,
}

/// The circle that the contender with this token has closed, in words.
pub fn find(lines: &[Line<'_>], token: u64) -> Option<String> {
    let mut waits: BTreeMap<Owner, Vec<Wait<'_>>> = BTreeMap::new();
    let mut own = None;
    for line in lines {
        for (place, one) in line.1.iter().enumerate() {
            if one.token == token {
                own = Some((one.session, one.hold));
            }
            for wait in waits_of(*line, place) {
                waits.entry(wait.from).or_default().push(wait);
            }
        }
    }
    let circle = way_back(&waits, own?)?;
    // Another of the circle came later and is the one to be refused.
    if circle.iter().any(|wait| wait.token > token) {
        return None;
    }
    let said = circle.iter().map(|wait| {
        let Wait { lock, from: (from, a), to: (to, b), .. } = wait;
        format!("hold {a} of session {from} waits for lock {lock} behind hold {b} of session {to}")
    });
    Some(said.collect::<Vec<_>>().join(", "))
}

/// For whom the contender at a place waits: for the one before it if that waits too, and else for
/// all who hold.
fn waits_of<'a>((lock, list): Line<'a>, place: usize) -> Vec<Wait<'a>> {
    let one = &list[place];
    let from = (one.session, one.hold);
    let owner = |place: &usize| (list[*place].session, list[*place].hold);
    let holds = |place| line::holds(list, place, 0);
    if matches!(one.mode, Mode::Permits { .. }) || holds(place) {
        return Vec::new();
    }
    let Some(before) = (0..place).rev().find(|other| owner(other) != from) else {
        return Vec::new();
    };
    let others = if holds(before) { 0..before + 1 } else { before..before + 1 };
    let wait = |to| Wait { from, lock, token: one.token, to };
    others.map(|other| owner(&other)).filter(|to| *to != from).map(wait).collect()
}

/// The shortest way from somebody back to himself.
fn way_back<'a>(waits: &BTreeMap<Owner, Vec<Wait<'a>>>, own: Owner) -> Option<Vec<Wait<'a>>> {
    let mut came: BTreeMap<Owner, Wait<'a>> = BTreeMap::new();
    let mut next = VecDeque::from([own]);
    while let Some(from) = next.pop_front() {
        for wait in waits.get(&from).into_iter().flatten() {
            if came.contains_key(&wait.to) {
                continue;
            }
            came.insert(wait.to, *wait);
            if wait.to != own {
                next.push_back(wait.to);
                continue;
            }
            let mut circle = vec![*wait];
            let mut at = wait.from;
            while at != own {
                let step = came[&at];
                circle.push(step);
                at = step.from;
            }
            circle.reverse();
            return Some(circle);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(list: &[(u64, u64, Mode)]) -> Vec<Contender> {
        let contender = |(token, hold, mode): &(u64, u64, Mode)| {
            let written = format!(r#"{{"id":"{token}","mode":"x","entries":1}}"#);
            let read: Contender = serde_json::from_str(&written).expect("it is one");
            Contender { token: *token, hold: *hold, mode: *mode, ..read }
        };
        list.iter().map(contender).collect()
    }

    #[test]
    fn the_last_to_come_is_told() {
        use Mode::Exclusive;
        let x = line(&[(1, 1, Exclusive), (4, 2, Exclusive)]);
        let y = line(&[(2, 2, Exclusive), (3, 1, Exclusive)]);
        let lines = [("x", &x[..]), ("y", &y[..])];
        let said = find(&lines, 4).expect("it closes the circle");
        assert!(said.contains("lock x") && said.contains("lock y"), "{said}");
        assert_eq!(find(&lines, 3), None);
        assert_eq!(find(&lines[..1], 4), None);
    }

    #[test]
    fn sharers_are_all_waited_for_and_semaphores_not() {
        use Mode::{Exclusive, Shared};
        let x = line(&[(1, 1, Shared), (2, 3, Shared), (5, 2, Exclusive)]);
        let y = line(&[(3, 2, Exclusive), (4, 1, Exclusive)]);
        assert!(find(&[("x", &x), ("y", &y)], 5).is_some());
        let permit = Mode::Permits { take: 1, of: 1 };
        let x = line(&[(1, 1, permit), (4, 2, permit)]);
        let y = line(&[(2, 2, Exclusive), (3, 1, Exclusive)]);
        assert!(find(&[("x", &x), ("y", &y)], 4).is_none());
    }
}
