//! The rule of lines, on generated lines.

use leasehold_api::Mode;
use leasehold_contenders::{Contender, line};
use proptest::prelude::*;

fn contender(mode: Mode, lasts: Option<u64>, delay: u64, granted: bool) -> Contender {
    Contender {
        id: String::new(),
        token: 0,
        session: 0,
        hold: 0,
        mode,
        with: Vec::new(),
        entries: 1,
        label: None,
        joined: 0,
        granted: granted.then_some(1),
        renewed: 100,
        lasts,
        session_lasts: None,
        session_renewed: 100,
        delay,
    }
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        Just(Mode::Exclusive),
        Just(Mode::Shared),
        (1..=4u32).prop_map(|take| Mode::Permits { take, of: 4 }),
    ]
}

fn lines() -> impl Strategy<Value = Vec<Contender>> {
    let one = (mode(), proptest::option::of(0..40u64), 0..20u64, any::<bool>());
    let one = one.prop_map(|(mode, lasts, delay, granted)| contender(mode, lasts, delay, granted));
    proptest::collection::vec(one, 0..12)
}

proptest! {
    /// Those who hold at one time go together: one alone, or sharers, or permits that add up.
    #[test]
    fn who_holds_goes_together(line in lines(), now in 90..170u64) {
        let holds = |place: &usize| line::holds(&line, *place, now) && !line[*place].is_over(now);
        let held: Vec<Mode> = (0..line.len()).filter(holds).map(|place| line[place].mode).collect();
        let permits: u32 = held.iter().map(|mode| match mode {
            Mode::Permits { take, .. } => *take,
            Mode::Exclusive | Mode::Shared => 0,
        }).sum();
        let alike = held.iter().all(|mode| {
            std::mem::discriminant(mode) == std::mem::discriminant(&held[0])
        });
        prop_assert!(alike && permits <= 4, "{held:?}");
        prop_assert!(held.len() <= 1 || held[0] != Mode::Exclusive, "{held:?}");
    }

    /// Nobody goes past somebody who waits and lives.
    #[test]
    fn nobody_overtakes(line in lines(), now in 90..170u64) {
        let mut somebody_waits = false;
        for place in 0..line.len() {
            let lives = !line[place].is_over(now);
            let holds = line::holds(&line, place, now);
            prop_assert!(!(lives && holds && somebody_waits), "{place} went past a waiter");
            somebody_waits |= lives && !holds;
        }
    }

    /// A line of the living always has a holder, and one of the dead lets the next in at the time
    /// that it says.
    #[test]
    fn nobody_is_stuck(line in lines(), now in 90..170u64, mode in mode()) {
        let blocking = line.iter().any(|one| one.blocks(now));
        let living = (0..line.len()).any(|place| {
            line::holds(&line, place, now) && !line[place].is_over(now)
        });
        let delayed = line.iter().any(|one| one.is_over(now) && one.blocks(now));
        prop_assert!(!blocking || living || delayed);
        prop_assert_eq!(blocking, !line::has_room(&line, Mode::Exclusive, now));
        if !line::has_room(&line, mode, now) && line.iter().all(|one| one.lasts.is_some()) {
            let mut now = now;
            while let Some(end) = line::next_end(&line, now) {
                prop_assert!(end > now);
                now = end;
            }
            prop_assert!(line::has_room(&line, mode, now), "it never becomes free");
        }
    }
}

/// A lost holder that asked for a delay keeps everybody out, sharers too, until it is over.
#[test]
fn a_delay_keeps_all_out() {
    let lost = [contender(Mode::Shared, Some(10), 20, true)];
    for mode in [Mode::Exclusive, Mode::Shared, Mode::Permits { take: 1, of: 2 }] {
        assert_eq!(line::has_room(&lost, mode, 109), mode == Mode::Shared);
        assert!(!line::has_room(&lost, mode, 110));
        assert!(!line::has_room(&lost, mode, 129));
        assert!(line::has_room(&lost, mode, 130));
    }
    let waited = [contender(Mode::Exclusive, Some(10), 20, false)];
    assert!(line::has_room(&waited, Mode::Exclusive, 110), "a waiter's end delays nobody");
}

/// All who use a semaphore must mean the same one.
#[test]
fn permits_agree() {
    let four = [contender(Mode::Permits { take: 1, of: 4 }, None, 0, true)];
    assert!(line::agree("gpu", &four, Mode::Permits { take: 1, of: 4 }, 100).is_ok());
    let error = line::agree("gpu", &four, Mode::Permits { take: 1, of: 3 }, 100);
    assert!(error.is_err_and(|error| error.to_string().contains("4 permits")));
}

/// Sharers wait for the writer before them, not for each other, and a writer for whoever is last.
/// Permits wait for whoever is no part of the semaphore.
#[test]
fn the_right_one_is_waited_for() {
    let one = |id: &str, mode| Contender { id: id.into(), ..contender(mode, None, 0, true) };
    let line = [
        one("writer", Mode::Exclusive),
        one("first", Mode::Shared),
        one("second", Mode::Shared),
        one("late", Mode::Exclusive),
        one("permits", Mode::Permits { take: 2, of: 2 }),
        one("more", Mode::Permits { take: 1, of: 2 }),
    ];
    let waited_for = |place| line::blocker(&line, place, 100).map(|one| one.id.as_str());
    let all: Vec<_> = (0..line.len()).map(waited_for).collect();
    let writer = Some("writer");
    assert_eq!(all, [None, writer, writer, Some("second"), Some("late"), Some("late")]);
    assert_eq!(line::blocker(&line[4..], 1, 100), None, "any of the semaphore may go");
}
