//! The file formats, frozen: one example of each event and of each kind of checkpoint cell.
//!
//! `golden/*.hex` are bytes as some version wrote them; what they mean, and that they are written
//! so again, must not change. A new kind gets a new file. `LEASEHOLD_GOLDEN=write` makes the files
//! that are missing and never touches one that is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use leasehold_core::content::Edit;
use leasehold_core::event::{Answered, Arrival, Granted, List, Names, Range, Why};
use leasehold_core::index::{Death, DeathReason, Delayed, Entry, Extra, Item, ListId, Place};
use leasehold_core::topology::{ExchangeConfig, ExchangeKind, RouteTo};
use leasehold_core::*;

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("hex")
}

fn to_hex(bytes: &[u8]) -> String {
    let rows = bytes.chunks(32).map(|row| {
        let row: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        row.join(" ")
    });
    rows.collect::<Vec<_>>().join("\n")
}

fn from_hex(text: &str) -> Vec<u8> {
    let words = text.split_whitespace();
    words.map(|word| u8::from_str_radix(word, 16).expect("two hex digits")).collect()
}

/// The frozen bytes and their meaning; made from the given ones if they are missing and wanted.
fn frozen(name: &str, bytes: &[u8], meaning: &str) -> (Vec<u8>, String) {
    let path = place(name);
    if !path.exists() && std::env::var("LEASEHOLD_GOLDEN").is_ok_and(|what| what == "write") {
        std::fs::write(&path, format!("{}\n\n{meaning}\n", to_hex(bytes))).expect("writable");
    }
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; see the head of golden.rs", path.display()));
    let (hex, meaning) = text.split_once("\n\n").expect("bytes, an empty line, their meaning");
    (from_hex(hex), meaning.trim_end().to_owned())
}

fn entry() -> Entry {
    let death = Death {
        queue: Name::new("orders").expect("a name"),
        reason: DeathReason::Expired,
        count: 2,
        first_at: 77,
    };
    let extra = Extra { routing_key: Some("eu.de".into()), deaths: vec![death] };
    Entry {
        place: Place { position: 4096, size: 300 },
        weight: 280,
        attempts: 3,
        expires: 9_000_000,
        key: 0x0123_4567_89ab_cdef,
        extra: Some(Box::new(extra)),
    }
}

fn plain() -> Entry {
    let place = Place { position: 70_000, size: 41 };
    Entry { place, weight: 41, attempts: 0, expires: 0, key: 0, extra: None }
}

fn items<T: Item>(list: &[T]) -> Vec<u8> {
    let mut out = Vec::new();
    leasehold_core::wire::put_u64(&mut out, list.len() as u64);
    list.iter().for_each(|item| item.encode(&mut out));
    out
}

fn delayed() -> Delayed {
    Delayed { due: 5_000, queue: QueueId { slot: 2, serial: 9 }, lane: 1, entry: entry() }
}

/// One of each edit.
fn edits() -> Vec<Edit> {
    let [a, b] = [&b"a"[..], b"bb"].map(content::Bytes::from);
    vec![
        Edit::Text(b.clone()),
        Edit::Put(a.clone(), b.clone()),
        Edit::Drop(a.clone()),
        Edit::Insert(300, b.clone()),
        Edit::Replace(2, b.clone()),
        Edit::Remove(1, 200),
        Edit::Add(a.clone()),
        Edit::Take(a.clone()),
        Edit::Score(b, -1.5),
        Edit::Unscore(a),
    ]
}

// long: one example per tag, a table in the shape of a list.
fn events(check: &mut dyn FnMut(&str, Event<'_>)) {
    let shape = Shape {
        page_entries: 2048,
        segment_bytes: 64 << 20,
        requests_max: 65_536,
        request_window_us: 120_000_000,
        dedup_max: 100_000,
    };
    check("booted", Event::Booted { epoch: 3, wall_offset: 1 << 50, grace_us: 30_000_000, shape });
    check("tokens_reserved", Event::TokensReserved { upto: 1 << 20 });
    let names = ["stock/42", "seats", "rows"].map(|text| Name::new(text).expect("a name"));
    let parts = [(1, Mode::Exclusive), (300, Mode::Permits { take: 2, of: 5 }), (4, Mode::Shared)];
    check(
        "granted",
        Event::Granted(Granted {
            slot: 7,
            token: Token(1000),
            session: SessionId(900),
            hold: 11,
            tenure: Tenure { ttl_us: Some(10_000_000), session: true },
            deadline: 12_345_678,
            lock_delay_us: 250_000,
            label: Some("worker 1"),
            parts: List::Made(&parts),
            names: Names::Made(&names),
        }),
    );
    check("entered", Event::Entered { slot: 7, entries: 2, deadline: 22_345_678 });
    let ending = lock::Ending::SessionLost;
    check("ended", Event::Ended { slot: 7, ending, delay_until: 99, keep: true });
    check("lock_freed", Event::LockFreed { slot: 300 });
    let (key, value) = (&b"config"[..], &b"{\"a\":1}"[..]);
    check("written", Event::Written { slot: 1, key, value, version: 1001, expires: 500 });
    check("unwritten", Event::Unwritten { slot: 1, version: 1002 });
    // A queue's settings, encoded: durable, rejecting, dead letters to `dlx`, five limits.
    let config = [0, 49, 9, 101, 0, 0, 193, 132, 61, 4, 0, 4, b'd', b'l', b'x', 0];
    let (name, owner) = ("orders", SessionId(900));
    check(
        "queue_declared",
        Event::QueueDeclared { slot: 2, serial: 9, name, owner, config: &config },
    );
    check("queue_deleted", Event::QueueDeleted { slot: 2 });
    check("queue_paused", Event::QueuePaused { slot: 2, paused: true });
    let kind = ExchangeKind::Topic;
    let config = ExchangeConfig { kind, durable: true, auto_delete: false, internal: true };
    check("exchange_declared", Event::ExchangeDeclared { slot: 0, name: "dlx", config });
    check("exchange_deleted", Event::ExchangeDeleted { slot: 0 });
    // Two headers: `x` is the text `y`, `n` the number 5.
    let arguments = &[1, b'x', 3, 1, b'y', 1, b'n', 1, 5][..];
    let (exchange, key) = (0, "eu.#");
    let to = RouteTo::Queue(2);
    check("bound", Event::Bound { exchange, key, to, arguments, match_all: true });
    let to = RouteTo::Exchange(3);
    check("unbound", Event::Unbound { exchange, key, to, arguments: &[], match_all: false });
    let arrivals = [
        Arrival { queue: 2, lane: 1, expires: 9_000_000 },
        Arrival { queue: 400, lane: 0, expires: 0 },
    ];
    let arrivals = List::Made(&arrivals);
    let envelope = Envelope {
        exchange: "sales",
        routing_key: "eu.de",
        published_at: 1_700_000_000_000_000,
        priority: 4,
        transient: true,
        id: Some("order-1"),
        key: Some("customer-7"),
        headers: arguments,
        properties: &[9, 8, 7],
        body: b"two shoes",
    };
    check("published", Event::Published { due: 5_000, key: 42, id: 1 << 100, arrivals, envelope });
    let ranges = [Range { first: 10, count: 3 }, Range { first: 5000, count: 1 }];
    let ranges = List::Made(&ranges);
    let (queue, lane, at) = (2, 1, 700);
    let why = Why::Died(DeathReason::Overflow);
    check("removed", Event::Removed { queue, lane, why, weight: 1234, ranges });
    check("returned", Event::Returned { queue, lane, at, attempts: 2 });
    check("deferred", Event::Deferred { queue, lane, at, item: delayed() });
    let why = Why::Redriven;
    check("moved", Event::Moved { queue, lane, at, why, arrivals, entry: entry() });
    check("run_started", Event::RunStarted { run: 5 });
    let list = items(&[delayed()]);
    check("promoted", Event::Promoted { run: Some(5), count: 1, items: &list });
    let page = items(&[entry(), plain()]);
    check("page_stored", Event::PageStored { list: ListId::Lane(2, 1), base: 2048, items: &page });
    let record = &[20, 5][..];
    check("relocated", Event::Relocated { list: ListId::Run(5), base: 0, at: 3, record });
    check("horizon_raised", Event::HorizonRaised { queue, lane, upto: 4096 });
    let answer = Answered { kind: 3, a: 2, b: 1 };
    check("requested", Event::Requested { id: 1 << 127 | 5, answer });
    let edits = edits();
    let (key, edits) = (&b"job"[..], content::Edits::Made(&edits));
    let (slot, version, expires) = (300, 1003, 9_000_000);
    check("keyed", Event::Keyed { slot, key, version, expires, claim: 1003, fresh: None, edits });
    let fresh = Some(content::Kind::Sorted);
    let edits = [Edit::Score(b"m"[..].into(), 2.0)];
    let edits = content::Edits::Made(&edits);
    check("keyed_anew", Event::Keyed { slot, key, version, expires: 0, claim: 0, fresh, edits });
    check("unclaimed", Event::Unclaimed { slot, version: 1004 });
    check("emptied", Event::Emptied { space: 3, version: 1005 });
    let slots = [Range { first: 7, count: 3 }, Range { first: 300, count: 1 }];
    check("cleared", Event::Cleared { slots: List::Made(&slots) });
}

#[test]
fn events_mean_what_they_meant() {
    let mut tags = BTreeMap::new();
    events(&mut |name, event| {
        let mut bytes = Vec::new();
        event.encode(&mut bytes);
        let decoded = Event::decode(&bytes).expect("an event decodes");
        let (frozen, meaning) = frozen(&format!("event_{name}"), &bytes, &format!("{decoded:?}"));
        let old = Event::decode(&frozen).expect("an old event decodes");
        assert_eq!(format!("{old:?}"), meaning, "{name} means something else now");
        assert_eq!(old, event, "{name} is another event now");
        let mut again = Vec::new();
        old.encode(&mut again);
        assert_eq!(again, frozen, "{name} is written in another way now");
        tags.insert(frozen[0], name.to_owned());
    });
    let tags: Vec<u8> = tags.into_keys().collect();
    assert_eq!(tags, (0..=29).collect::<Vec<u8>>(), "an example of each tag");
    assert!(Event::decode(&[30]).is_err(), "a tag without an example");
}

/// A state with a cell of each kind, made by decoded golden events only.
fn state() -> Durable {
    let shape = Shape {
        page_entries: 4,
        segment_bytes: 1 << 20,
        requests_max: 16,
        request_window_us: 1_000_000,
        dedup_max: 16,
    };
    let mut state = Durable::new(shape, 1);
    let mut sequence = 0;
    let mut put = |event: Event<'_>| {
        let mut bytes = Vec::new();
        event.encode(&mut bytes);
        sequence += 1;
        let (at, position) = (sequence * 10, sequence * 1000);
        let stamp = Stamp { sequence, at, position, size: bytes.len() as u32 };
        state.evolve(stamp, &Event::decode(&bytes).expect("an event decodes"));
    };
    put(Event::Booted { epoch: 1, wall_offset: 500, grace_us: 7, shape });
    let kind = ExchangeKind::Headers;
    let config = ExchangeConfig { kind, durable: true, auto_delete: true, internal: false };
    put(Event::ExchangeDeclared { slot: 1, name: "sales", config });
    let config = [0, 49, 1, 101, 0, 0, 193, 132, 61, 4, 101, 4, b'd', b'l', b'x', 0];
    let owner = SessionId::NONE;
    put(Event::QueueDeclared { slot: 2, serial: 1, name: "orders", owner, config: &config });
    let arguments = &[1, b'x', 3, 1, b'y'][..];
    let to = RouteTo::Queue(2);
    put(Event::Bound { exchange: 1, key: "", to, arguments, match_all: true });
    let envelope = Envelope {
        exchange: "",
        routing_key: "orders",
        published_at: 5,
        priority: 1,
        transient: false,
        id: Some("a"),
        key: None,
        headers: &[],
        properties: &[],
        body: b"shoes",
    };
    for (i, due) in [0, 0, 9_000, 0, 8_000].into_iter().enumerate() {
        if i == 4 {
            put(Event::RunStarted { run: 0 });
        }
        let arrivals = [Arrival { queue: 2, lane: 1, expires: 0 }];
        let arrivals = List::Made(&arrivals);
        put(Event::Published { due, key: 0, id: 70 + i as u128, arrivals, envelope });
    }
    put(Event::Returned { queue: 2, lane: 1, at: 2, attempts: 1 });
    put(Event::HorizonRaised { queue: 2, lane: 1, upto: 64 });
    let ranges = [Range { first: 1, count: 1 }];
    let (why, ranges) = (Why::Acked, List::Made(&ranges));
    put(Event::Removed { queue: 2, lane: 1, why, weight: 34, ranges });
    let names = [Name::new("stock").expect("a name")];
    let parts = [(3, Mode::Permits { take: 1, of: 2 })];
    put(Event::Granted(Granted {
        slot: 0,
        token: Token(5),
        session: SessionId(4),
        hold: 6,
        tenure: Tenure { ttl_us: Some(1_000), session: false },
        deadline: 2_000,
        lock_delay_us: 0,
        label: None,
        parts: List::Made(&parts),
        names: Names::Made(&names),
    }));
    put(Event::Written { slot: 1, key: b"k", value: b"v", version: 6, expires: 0 });
    let answer = Answered { kind: 1, a: 5, b: 0 };
    put(Event::Requested { id: 99, answer });
    state
}

const CELLS: [&str; 12] = [
    "globals",
    "exchange",
    "queue",
    "routes",
    "dedup",
    "lane_page",
    "run_page",
    "fresh",
    "lock",
    "grant",
    "register",
    "requests",
];

#[test]
fn cells_mean_what_they_meant() {
    let cells = state().all_cells();
    let mut old: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for (kind, name) in CELLS.iter().enumerate() {
        let (key, value) =
            cells.iter().find(|(key, _)| usize::from(key[0]) == kind).expect("a cell of each kind");
        let (bytes, meaning) = frozen(&format!("cell_{name}"), value, &to_hex(key));
        old.insert(from_hex(&meaning), bytes);
    }
    assert_eq!(cells.keys().map(|key| key[0]).max(), Some(11), "a kind without an example");
    let pairs = old.iter().map(|(key, value)| (&key[..], &value[..]));
    let restored = Durable::restore(pairs, 3).expect("old cells fit").expect("a state");
    let again = restored.all_cells();
    for (key, value) in &old {
        assert_eq!(again.get(key), Some(value), "cell {key:02x?} is written in another way now");
    }
    assert_eq!(again, cells, "old cells mean another state now");
}

/// A state restored from its cells, of which the one of this kind is the frozen one.
fn through_the_frozen_cell(name: &str, kind: u8, state: &Durable) -> Durable {
    let mut cells = state.all_cells();
    let (key, value) = cells.iter().find(|(key, _)| key[0] == kind).expect("a cell of the kind");
    let (bytes, meaning) = frozen(name, value, &to_hex(key));
    assert_eq!(*value, bytes, "it is written in another way now");
    cells.insert(from_hex(&meaning), bytes);
    let pairs = cells.iter().map(|(key, value)| (&key[..], &value[..]));
    let restored = Durable::restore(pairs, 3).expect("old cells fit").expect("a state");
    assert_eq!(restored.all_cells(), cells, "an old cell means another state now");
    restored
}

#[test]
fn the_cell_of_a_claimed_collection_means_what_it_meant() {
    let mut state = Durable::new(Shape::of(&Limits::default()), 1);
    let edits = [
        Edit::Put(b"client:1"[..].into(), b"2"[..].into()),
        Edit::Put(b"mode"[..].into(), b"write"[..].into()),
    ];
    let edits = content::Edits::Made(&edits);
    let fresh = Some(content::Kind::Hash);
    let (key, expires) = (&b"job"[..], 9_000_000);
    let event = Event::Keyed { slot: 3, key, version: 7, expires, claim: 7, fresh, edits };
    let stamp = Stamp { sequence: 1, at: 10, position: 1000, size: 50 };
    state.evolve(stamp, &event);
    let restored = through_the_frozen_cell("cell_register_claimed", 10, &state);
    assert_eq!(restored.registers()[3].content, state.registers()[3].content);
    assert_eq!((restored.registers()[3].claim, restored.registers()[3].since), (7, 10));
}

#[test]
fn the_cell_of_emptied_spaces_means_what_it_meant() {
    let mut state = Durable::new(Shape::of(&Limits::default()), 1);
    let marked = [&space::MARK[..], &[5], b"k"].concat();
    let stamp = |sequence| Stamp { sequence, at: 10, position: 1000, size: 50 };
    let written =
        |slot, key, version| Event::Written { slot, key, value: b"v", version, expires: 0 };
    state.evolve(stamp(1), &written(0, b"k", 6));
    state.evolve(stamp(2), &written(1, &marked, 7));
    state.evolve(stamp(3), &Event::Emptied { space: 5, version: 1000 });
    state.evolve(stamp(4), &written(1, &marked, 1001));
    state.evolve(stamp(5), &Event::Emptied { space: 0, version: 1002 });
    let restored = through_the_frozen_cell("cell_spaces", 12, &state);
    let gone = |slot: u32| restored.is_gone(&restored.registers()[slot]);
    assert_eq!((gone(0), gone(1), restored.register_count()), (true, false, 1));
}
