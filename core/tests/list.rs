//! Lists: everything that is there is listed once, and no page costs more than a step may.

#![allow(missing_docs, reason = "a test has no users")]

#[path = "support/mod.rs"]
mod support;

use leasehold_core::limits::{MS, SECOND};
use leasehold_core::topology::{Binding, Destination, ExchangeConfig, ExchangeKind};
use leasehold_core::*;

use support::{Shard, name};

const NOBODY: SessionId = SessionId::NONE;

fn page(shard: &mut Shard, what: Listed, prefix: &str, after: u32, max: u32) -> Listing {
    match shard.ask(NOBODY, Op::List(List { what, prefix: prefix.into(), after, max })) {
        Ok(Outcome::Listed(listing)) => *listing,
        other => panic!("{other:?}"),
    }
}

/// All pages, and how many they were.
fn all(shard: &mut Shard, what: Listed, prefix: &str, max: u32) -> (Vec<ListedItem>, usize) {
    let (mut items, mut pages, mut after) = (Vec::new(), 0, Some(0));
    while let Some(from) = after {
        let listing = page(shard, what, prefix, from, max);
        assert!(listing.items.len() <= max as usize);
        assert!(listing.next.is_none_or(|next| next > from), "it goes on");
        items.extend(listing.items);
        (pages, after) = (pages + 1, listing.next);
    }
    (items, pages)
}

fn named(item: &ListedItem) -> &str {
    match item {
        ListedItem::Lock { name, .. }
        | ListedItem::Queue { name, .. }
        | ListedItem::Exchange { name, .. } => name.as_str(),
        other => panic!("{other:?} has no name"),
    }
}

fn session(shard: &mut Shard, ttl_us: Option<Time>, label: &str) -> SessionId {
    let label = Some(label.into());
    match shard.ask(NOBODY, Op::OpenSession { ttl_us, resume: None, label }) {
        Ok(Outcome::Session { id, .. }) => id,
        other => panic!("{other:?}"),
    }
}

fn acquire(lock: &str, mode: Mode, wait: Wait) -> Op {
    Op::Acquire(Box::new(Acquire {
        wants: Wants::One(name(lock), mode),
        hold: 1,
        reentrant: false,
        tenure: Tenure { ttl_us: None, session: true },
        wait,
        lock_delay_us: 0,
        label: None,
    }))
}

fn take(shard: &mut Shard, session: SessionId, lock: &str) -> Token {
    match shard.ask(session, acquire(lock, Mode::Exclusive, Wait::No)) {
        Ok(Outcome::Granted { token, .. }) => token,
        other => panic!("{other:?}"),
    }
}

fn write(shard: &mut Shard, key: &str, ttl: RegisterTtl) -> u64 {
    let (key, value) = (key.as_bytes().into(), Some([1, 2, 3].as_slice().into()));
    let write = Write { key, value, expect: Expect::Anything, ttl, guard: None };
    match shard.ask(NOBODY, Op::Write(Box::new(write))) {
        Ok(Outcome::Written { version }) => version,
        other => panic!("{other:?}"),
    }
}

#[test]
fn pages_hold_everything_once_whatever_their_size() {
    let mut shard = Shard::new(Limits::default());
    let who = session(&mut shard, None, "");
    let mut tokens = Vec::new();
    for i in 0..50 {
        tokens.push(take(&mut shard, who, &format!("lock-{i}")));
    }
    // Holes are not listed.
    for i in (0..50).step_by(3) {
        let hold = HoldRef { name: name(&format!("lock-{i}")), token: tokens[i], hold: 1 };
        shard.ask(who, Op::Release(hold)).expect("released");
    }
    let mut expected: Vec<String> =
        (0..50).filter(|i| i % 3 != 0).map(|i| format!("lock-{i}")).collect();
    expected.sort();
    for max in [1, 2, 7, 33, 1000] {
        let (items, pages) = all(&mut shard, Listed::Locks, "", max);
        let mut names: Vec<&str> = items.iter().map(named).collect();
        names.sort_unstable();
        assert_eq!(names, expected, "pages of {max}");
        assert!(pages >= 33_usize.div_ceil(max as usize));
    }
    let (items, _) = all(&mut shard, Listed::Locks, "lock-4", 3);
    let mut names: Vec<&str> = items.iter().map(named).collect();
    names.sort_unstable();
    let fourth = ["lock-4", "lock-40", "lock-41", "lock-43", "lock-44", "lock-46", "lock-47"];
    assert_eq!(names, [&fourth[..], &["lock-49"]].concat());
    assert_eq!(
        page(&mut shard, Listed::Locks, "", 9_999, 5),
        Listing { items: vec![], next: None }
    );
}

#[test]
fn a_page_looks_at_no_more_slots_than_a_step_may() {
    let mut shard = Shard::new(Limits { work_per_step: 10, ..Limits::default() });
    for i in 0..45 {
        write(&mut shard, &format!("k{i}"), RegisterTtl::Never);
    }
    let first = page(&mut shard, Listed::Registers, "", 0, 1000);
    assert_eq!((first.items.len(), first.next), (10, Some(10)));
    // Nothing of what is asked for is in the first slots: an empty page says where to go on.
    let first = page(&mut shard, Listed::Registers, "k44", 0, 1000);
    assert_eq!((first.items.len(), first.next), (0, Some(10)));
    let (items, pages) = all(&mut shard, Listed::Registers, "k44", 1000);
    assert_eq!((items.len(), pages), (1, 5));
    let last = page(&mut shard, Listed::Registers, "", 40, 5);
    assert_eq!((last.items.len(), last.next), (5, None), "full, and the last");
}

#[test]
fn a_page_has_one_to_a_thousand_items() {
    let mut shard = Shard::new(Limits::default());
    let list = |max| Op::List(List { what: Listed::Queues, prefix: "".into(), after: 0, max });
    assert_eq!(shard.ask(NOBODY, list(0)), Err(Refusal::Zero("the number of items")));
    let most = Err(Refusal::TooLarge("the number of items", 1001, 1000));
    assert_eq!(shard.ask(NOBODY, list(1001)), most);
    assert!(shard.ask(NOBODY, list(1000)).is_ok());
}

#[test]
fn a_lock_is_listed_with_its_newest_holders_and_first_waiters() {
    let mut shard = Shard::new(Limits::default());
    let readers: Vec<SessionId> = (0..12).map(|_| session(&mut shard, None, "")).collect();
    for reader in &readers {
        shard.ask(*reader, acquire("a", Mode::Shared, Wait::No)).expect("granted");
    }
    for reader in &readers[..11] {
        let own = Op::Acquire(Box::new(Acquire {
            wants: Wants::One(name("a"), Mode::Permits { take: 1, of: 9 }),
            hold: 2,
            reentrant: false,
            tenure: Tenure { ttl_us: Some(SECOND), session: false },
            wait: Wait::Forever,
            lock_delay_us: 0,
            label: Some(format!("{}", reader.0).into()),
        }));
        shard.send(NOBODY, None, own);
    }
    let listing = page(&mut shard, Listed::Locks, "", 0, 10);
    let [ListedItem::Lock { view, .. }] = &listing.items[..] else { panic!("{listing:?}") };
    assert_eq!((view.holders.len(), view.holding), (8, 12));
    assert_eq!((view.waiters.len(), view.waiting), (8, 11));
    assert_eq!(view.holders[0].session, readers[11], "the newest first");
    let first = view.waiters[0].label.as_deref();
    assert_eq!(first, Some(readers[0].0.to_string().as_str()), "the next first");
    match shard.ask(NOBODY, Op::InspectLock(name("a"))) {
        Ok(Outcome::Lock(all)) => {
            assert_eq!((all.holders.len(), all.waiters.len()), (12, 11));
            assert_eq!(all.holders[..8], view.holders);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn queues_exchanges_and_registers_say_what_they_are() {
    let mut shard = Shard::new(Limits::default());
    let who = session(&mut shard, None, "");
    for queue in ["q1", "q2", "other"] {
        shard.ask(who, Op::DeclareQueue(name(queue), Box::default())).expect("declared");
    }
    let target = Target::QueueNamed(name("q2"));
    let message = Message::new([1]);
    let publish = Publish { target, message, mandatory: true };
    shard.ask(who, Op::Publish(Box::new(publish))).expect("published");
    let consume = consume("q1", 5);
    shard.ask(who, consume).expect("consuming");
    let listing = page(&mut shard, Listed::Queues, "q", 0, 10);
    assert_eq!(listing.items.iter().map(named).collect::<Vec<_>>(), ["q1", "q2"]);
    let views: Vec<_> = listing
        .items
        .iter()
        .map(|item| match item {
            ListedItem::Queue { view, .. } => (view.ready, view.consumers, &view.consumer_views),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(views, [(0, 1, &vec![]), (1, 0, &vec![])]);

    let kind = ExchangeKind::Fanout;
    let config = ExchangeConfig { kind, durable: true, auto_delete: false, internal: false };
    shard.ask(who, Op::DeclareExchange(name("x"), config)).expect("declared");
    for queue in ["q1", "q2"] {
        let binding = Binding {
            exchange: name("x"),
            to: Destination::Queue(name(queue)),
            key: "".into(),
            arguments: Vec::new(),
            match_all: true,
        };
        shard.ask(who, Op::Bind(Box::new(binding))).expect("bound");
    }
    let listing = page(&mut shard, Listed::Exchanges, "", 0, 10);
    let expected = ListedItem::Exchange { name: name("x"), config, bindings: 2 };
    assert_eq!(listing, Listing { items: vec![expected], next: None });

    let stays = write(&mut shard, "k/stays", RegisterTtl::Never);
    let goes = write(&mut shard, "k/goes", RegisterTtl::After(SECOND));
    write(&mut shard, "other", RegisterTtl::Never);
    let register = |key: &str, version, left_us| ListedItem::Register {
        key: key.as_bytes().into(),
        version,
        bytes: 3,
        left_us,
    };
    let stays = register("k/stays", stays, None);
    let listing = page(&mut shard, Listed::Registers, "k/", 0, 10);
    assert_eq!(listing.items, [stays.clone(), register("k/goes", goes, Some(SECOND))]);
    // It has run out, although nobody has taken it away yet.
    shard.log.now += SECOND;
    let listing = page(&mut shard, Listed::Registers, "k/", 0, 10);
    assert_eq!(listing.items, [stays]);
}

fn consume(queue: &str, credit: u32) -> Op {
    Op::Consume(Box::new(Consume {
        queue: name(queue),
        credit,
        once: None,
        no_ack: false,
        exclusive: false,
        label: None,
    }))
}

#[test]
fn sessions_are_listed_with_what_they_have() {
    let mut shard = Shard::new(Limits::default());
    let idle = session(&mut shard, Some(SECOND), "idle");
    let busy = session(&mut shard, None, "busy");
    take(&mut shard, idle, "theirs");
    take(&mut shard, busy, "one");
    take(&mut shard, busy, "two");
    shard.send(busy, None, acquire("theirs", Mode::Shared, Wait::Forever));
    let watch = Op::WatchLock { name: name("free"), known: None, wait: Wait::AtMost(50 * MS) };
    shard.send(busy, None, watch);
    shard.ask(busy, Op::DeclareQueue(name("q"), Box::default())).expect("declared");
    shard.ask(busy, consume("q", 5)).expect("consuming");
    shard.ask(busy, consume("q", 5)).expect("consuming");
    for i in 0..3 {
        let (target, message) = (Target::QueueNamed(name("q")), Message::new([i]));
        let publish = Publish { target, message, mandatory: true };
        shard.ask(busy, Op::Publish(Box::new(publish))).expect("published");
    }
    shard.log.now += 100 * MS;
    shard.tick();
    let listing = page(&mut shard, Listed::Sessions, "ignored", 0, 10);
    let item = |id, label: &str, left_us, [holds, waiting, consumers, in_flight]: [u32; 4]| {
        let label = Some(label.into());
        ListedItem::Session { id, label, left_us, holds, waiting, consumers, in_flight }
    };
    // The watch is over; the acquire waits on.
    let expected =
        [item(idle, "idle", Some(900 * MS), [1, 0, 0, 0]), item(busy, "busy", None, [2, 1, 2, 3])];
    assert_eq!(listing.items, expected);
    shard.ask(busy, Op::CloseSession { lost: false }).expect("closed");
    let listing = page(&mut shard, Listed::Sessions, "", 0, 10);
    assert_eq!(listing.items.len(), 1);
}
