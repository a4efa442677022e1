//! Those who wait for each other.
//!
//! Who waits for permits may get them from any of several holders, so whoever waits for a
//! semaphore is not looked at: a circle that is named is one. Whoever closes a circle reads all
//! lines after it came into its own, so the last to come sees the whole circle, and only the last
//! is refused.

use std::collections::{BTreeMap, VecDeque};

use leasehold_api::engine::Mode;

use crate::place::Line;

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

/// The circle that a contender has closed, in words.
pub(crate) fn find(lines: &[Line], node: &str) -> Option<String> {
    let mut waits: BTreeMap<Owner, Vec<Wait<'_>>> = BTreeMap::new();
    let mut own = None;
    for line in lines {
        for (place, one) in line.list.iter().enumerate() {
            if line.stands[place].node == node {
                own = Some(((one.session, one.hold), one.token));
            }
            for wait in waits_of(line, place) {
                waits.entry(wait.from).or_default().push(wait);
            }
        }
    }
    let (own, token) = own?;
    let circle = way_back(&waits, own)?;
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
fn waits_of(line: &Line, place: usize) -> Vec<Wait<'_>> {
    let one = &line.list[place];
    let from = (one.session, one.hold);
    let owner = |place: &usize| (line.list[*place].session, line.list[*place].hold);
    if matches!(one.mode, Mode::Permits { .. }) || line.holds(place) {
        return Vec::new();
    }
    let Some(before) = (0..place).rev().find(|other| owner(other) != from) else {
        return Vec::new();
    };
    let others = if line.holds(before) { 0..before + 1 } else { before..before + 1 };
    let wait = |to| Wait { from, lock: &line.name, token: one.token, to };
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
    use std::collections::HashMap;

    use leasehold_contenders::Contender;

    use super::*;
    use crate::place::Stand;

    fn line(name: &str, list: &[(u64, u64, Mode)]) -> Line {
        let stand = |(token, hold, mode): &(u64, u64, Mode)| {
            let written = format!(r#"{{"id":"{token}","mode":"x","entries":1}}"#);
            let read: Contender = serde_json::from_str(&written).expect("it is one");
            let who = Contender { token: *token, hold: *hold, mode: *mode, ..read };
            (token.to_string(), Stand { who, node: token.to_string(), owner: 1 })
        };
        let known: HashMap<String, Stand> = list.iter().map(stand).collect();
        Line::of(&name.into(), known.keys().cloned().collect(), &known)
    }

    #[test]
    fn the_last_to_come_is_told() {
        use Mode::Exclusive;
        let x = line("x", &[(1, 1, Exclusive), (4, 2, Exclusive)]);
        let y = line("y", &[(2, 2, Exclusive), (3, 1, Exclusive)]);
        let lines = [x, y];
        let said = find(&lines, "4").expect("it closes the circle");
        assert!(said.contains("lock x") && said.contains("lock y"), "{said}");
        assert_eq!(find(&lines, "3"), None);
        assert_eq!(find(&lines[..1], "4"), None);
    }

    #[test]
    fn sharers_are_all_waited_for_and_semaphores_not() {
        use Mode::{Exclusive, Shared};
        let x = line("x", &[(1, 1, Shared), (2, 3, Shared), (5, 2, Exclusive)]);
        let y = line("y", &[(3, 2, Exclusive), (4, 1, Exclusive)]);
        assert!(find(&[x, y], "5").is_some());
        let permit = Mode::Permits { take: 1, of: 1 };
        let x = line("x", &[(1, 1, permit), (4, 2, permit)]);
        let y = line("y", &[(2, 2, Exclusive), (3, 1, Exclusive)]);
        assert!(find(&[x, y], "4").is_none());
    }
}
