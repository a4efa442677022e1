//! The window's rules one by one, and against a plain model: whatever is done in whatever order,
//! and wherever an owner dies, nothing is lost, and nothing that was committed comes again.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn message(offset: i64, key: Option<&str>) -> Record {
    let key = key.map(|key| key.as_bytes().to_vec());
    Record { offset, key, body: vec![7], ..Record::default() }
}

fn filled(count: i64, is_counted: bool) -> Window {
    let mut window = Window::new(0, Progress::default(), is_counted);
    (0..count).for_each(|offset| window.push(message(offset, None)));
    window
}

/// The next owner, after the former one committed this, and took everything up to there again.
fn next_owner(window: &Window, open: bool, end: i64, is_counted: bool) -> Window {
    let text = window.progress(open).written();
    let progress = Progress::read(&text).expect("it was just written");
    let mut next = Window::new(window.offset(), progress, is_counted);
    (window.offset()..end).for_each(|offset| next.push(message(offset, None)));
    next
}

#[test]
fn the_offset_follows_the_first_that_is_not_done() {
    let mut window = filled(4, false);
    let handed: Vec<_> = (0..4).map(|_| window.hand_out(1, None).expect("it waits")).collect();
    assert!(window.hand_out(1, None).is_none());
    window.end(handed[1].offset);
    window.end(handed[2].offset);
    assert_eq!((window.offset(), window.progress(false).done), (0, vec![1, 2]));
    window.end(handed[0].offset);
    assert_eq!((window.offset(), window.in_hand()), (3, 1));
    window.end(handed[3].offset);
    assert_eq!((window.offset(), window.in_hand(), window.bytes), (4, 0, 0));
}

#[test]
fn a_returned_message_goes_out_first_and_with_a_higher_token() {
    let mut window = filled(3, false);
    let first = window.hand_out(1, None).expect("it waits");
    window.give_back(first.offset, false);
    assert!(window.open(first.offset, first.token).is_none(), "it is nobody's");
    let again = window.hand_out(1, None).expect("it waits");
    assert_eq!((again.offset, again.attempt), (first.offset, 2));
    assert!(again.token > first.token);
    window.give_back(again.offset, true);
    assert_eq!(window.hand_out(1, None).expect("it waits").attempt, 2, "nobody has seen it");
}

#[test]
fn of_one_key_one_is_out() {
    let mut window = Window::new(0, Progress::default(), false);
    for (offset, key) in ["a", "a", "b", "a"].into_iter().enumerate() {
        window.push(message(offset as i64, Some(key)));
    }
    let offsets = |window: &mut Window| {
        std::iter::from_fn(|| window.hand_out(1, None).map(|handed| handed.offset))
            .collect::<Vec<_>>()
    };
    assert_eq!(offsets(&mut window), [0, 2]);
    window.give_back(0, false);
    assert_eq!(offsets(&mut window), [0]);
    window.end(0);
    assert_eq!(offsets(&mut window), [1]);
    window.end(1);
    window.end(2);
    assert_eq!(offsets(&mut window), [3]);
    window.end(3);
    assert_eq!((window.offset(), window.keys.len()), (4, 0));
}

#[test]
fn leases_end_in_their_order() {
    let mut window = filled(2, false);
    let now = Instant::now();
    let at = |millis| Some(now + Duration::from_millis(millis));
    let first = window.hand_out(1, at(20)).expect("it waits");
    let second = window.hand_out(2, at(10)).expect("it waits");
    assert_eq!(window.deadline(), at(10));
    let over = now + Duration::from_millis(15);
    assert_eq!(window.expired(over).map(|(offset, _)| offset), Some(second.offset));
    window.extend(second.offset, at(30));
    assert!(window.expired(over).is_none());
    window.end(first.offset);
    assert_eq!(window.deadline(), at(30));
    window.give_back(second.offset, false);
    assert_eq!(window.deadline(), None);
}

#[test]
fn a_window_is_bounded_and_moves_on() {
    let mut window = filled(SPAN, false);
    assert!(window.is_full(), "too many wait");
    let mut last = None;
    while let Some(handed) = window.hand_out(1, None) {
        match handed.offset {
            0 => {}
            offset => window.end(offset),
        }
        last = Some(handed.offset);
    }
    assert_eq!((last, window.is_full()), (Some(SPAN - 1), true));
    assert_eq!(window.stuck(), None, "somebody has it");
    window.give_back(0, false);
    assert_eq!(window.stuck(), Some(0));
    window.begin_end(0).expect("it is there");
    assert!(window.hand_out(1, None).is_none(), "it is on its way");
    window.end(0);
    assert_eq!((window.offset(), window.has_room()), (SPAN, true));
}

#[test]
fn the_next_owner_knows_how_often_what_was_handed_out() {
    let mut window = filled(5, true);
    let first = window.hand_out(1, None).expect("it waits");
    window.give_back(first.offset, false);
    window.hand_out(1, None).expect("it waits");
    window.hand_out(1, None).expect("it waits");
    let mut next = next_owner(&window, true, 5, true);
    let attempts = std::iter::from_fn(|| next.hand_out(1, None).map(|handed| handed.attempt));
    assert_eq!(attempts.collect::<Vec<_>>(), [3, 2, 1, 1, 1]);
    assert!(next.hand_out(1, None).is_none());
}

#[test]
fn where_nobody_counts_anything_may_have_been_handed_out() {
    let window = filled(2, false);
    let mut crashed = next_owner(&window, true, 2, false);
    assert_eq!(crashed.hand_out(1, None).expect("it waits").attempt, 2);
    let mut clean = next_owner(&window, false, 2, false);
    assert_eq!(clean.hand_out(1, None).expect("it waits").attempt, 1);
}

#[test]
fn what_moved_brings_its_attempts_along() {
    let mut window = Window::new(0, Progress::default(), true);
    let headers = vec![(crate::driver::ATTEMPTS.to_owned(), b"3".to_vec())];
    window.push(Record { headers, ..message(0, None) });
    assert_eq!(window.hand_out(1, None).expect("it waits").attempt, 4);
    assert_eq!(window.progress(false).counts.len(), 0, "the header says the rest");
}

#[test]
fn a_purge_takes_what_waits() {
    let mut window = filled(3, false);
    let held = window.hand_out(1, None).expect("it waits");
    assert_eq!(window.purge(), 2);
    assert!(window.open(held.offset, held.token).is_some());
    window.end(held.offset);
    assert_eq!(window.offset(), 3);
}

#[test]
fn a_worn_epoch_is_renewed() {
    let mut window = filled(1, false);
    window.serial = (1 << SERIAL_BITS) - 1;
    assert!(window.is_worn());
    let before = window.epoch << SERIAL_BITS | window.serial();
    window.renew();
    let handed = window.hand_out(1, None).expect("it waits");
    assert!(!window.is_worn() && handed.token > before);
    assert!(handed.token < 1 << 53);
}

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    Push,
    Out,
    /// The how manieth of what is in hand is done, or goes back.
    Done(usize),
    Back(usize),
    Commit,
    /// The owner dies, and the next one begins with what was committed last.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Push),
        6 => Just(Step::Out),
        4 => (0..9usize).prop_map(Step::Done),
        2 => (0..9usize).prop_map(Step::Back),
        2 => Just(Step::Commit),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..300)
}

proptest! {
    #[test]
    fn nothing_is_lost_and_nothing_committed_comes_again(steps in steps(), counted: bool) {
        let mut window = Window::new(0, Progress::default(), counted);
        let mut committed = (0, window.progress(true).written());
        let mut end = 0;
        let (mut hand, mut done, mut safe) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let mut last_token = 0;
        for step in steps {
            match step {
                Step::Push => {
                    window.push(message(end, None));
                    end += 1;
                }
                Step::Out => {
                    if let Some(handed) = window.hand_out(1, None) {
                        prop_assert!(!safe.contains(&handed.offset), "a committed one came again");
                        prop_assert!(handed.token > last_token, "tokens do not rise");
                        last_token = handed.token;
                        hand.push(handed.offset);
                    }
                }
                Step::Done(at) if at < hand.len() => {
                    let offset = hand.swap_remove(at);
                    window.end(offset);
                    done.insert(offset);
                }
                Step::Back(at) if at < hand.len() => window.give_back(hand.swap_remove(at), false),
                Step::Done(_) | Step::Back(_) => {}
                Step::Commit => {
                    committed = (window.offset(), window.progress(true).written());
                    safe = done.clone();
                }
                Step::Crash => {
                    let progress = Progress::read(&committed.1).expect("it was written");
                    window = Window::new(committed.0, progress, counted);
                    (committed.0..end).for_each(|offset| window.push(message(offset, None)));
                    // The first thing that an owner does, so that its tokens are higher.
                    committed = (window.offset(), window.progress(true).written());
                    hand.clear();
                    done = safe.clone();
                }
            }
            prop_assert_eq!(window.in_hand(), hand.len());
            prop_assert!((0..window.offset()).all(|offset| done.contains(&offset)), "lost");
        }
        while let Some(handed) = window.hand_out(1, None) {
            hand.push(handed.offset);
        }
        let all: BTreeSet<i64> = hand.into_iter().chain(done).collect();
        prop_assert_eq!(all, (0..end).collect::<BTreeSet<_>>(), "some are missing");
    }
}
