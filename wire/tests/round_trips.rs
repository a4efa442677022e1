//! What a client sends is what the door reads, and the other way round.

use std::time::{Duration, UNIX_EPOCH};

use leasehold_api::engine::{
    Acquire, Binding, Commit, Content, DeadLetter, Death, Delivered, Destination, Due, Expect,
    HoldRef, HolderView, LockView, Message, Mode, Overflow, Publish, QueueConfig, QueueTotals,
    QueueView, Receipt, Register, RegisterTtl, RegisterView, SessionRef, Target, Value, Verdict,
    Wait, WaiterView, Want, Write,
};
use leasehold_wire::{commit, exchange, lock, message, queue, register};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn over_the_wire<T: Serialize + DeserializeOwned>(sent: &T) -> T {
    let text = serde_json::to_string(sent).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn session() -> SessionRef {
    SessionRef { id: 81, proof: Some("5f0c.x".into()) }
}

fn receipt() -> Receipt {
    Receipt { token: 4711, place: u128::MAX, session: session() }
}

fn full_message() -> Message {
    let message = Message::new(vec![0xff, 0]).priority(7).id("m").key("k").transient();
    let message = message.header("n", Value::Int(-1)).header("b", Value::Bytes(vec![255]));
    message.delay(Duration::from_millis(5)).ttl(Duration::from_secs(9))
}

fn full_write() -> Write {
    Write {
        key: vec![0xff],
        value: Some(b"v".to_vec()),
        expect: Expect::Version(3),
        ttl: RegisterTtl::After(Duration::from_secs(1)),
        guard: Some(("l".into(), 5)),
        request: None,
    }
}

#[test]
fn acquire() {
    let ask = Acquire {
        wants: vec![
            Want { name: "a".into(), mode: Mode::Shared },
            Want { name: "b".into(), mode: Mode::Permits { take: 2, of: 5 } },
            Want { name: "c".into(), mode: Mode::Exclusive },
        ],
        session: Some(session()),
        hold: 9,
        reentrant: true,
        ttl: Some(Duration::from_millis(1500)),
        bound: false,
        wait: Wait::AtMost(Duration::from_secs(3)),
        lock_delay: Duration::from_secs(1),
        label: Some("me".into()),
        request: None,
    };
    let sent = lock::AcquireLocks::of(&ask, Some("r".into()));
    let read = over_the_wire(&sent);
    assert_eq!(read, sent);
    let read = read.into_api(ask.hold, None).unwrap();
    assert_eq!(format!("{read:?}"), format!("{ask:?}"));
}

#[test]
fn lock_views() {
    let (label, session) = (Some("me".to_string()), 81);
    let view = LockView {
        name: "a".into(),
        holders: vec![HolderView {
            token: 5,
            session,
            mode: Mode::Permits { take: 1, of: 2 },
            held: Duration::from_millis(7),
            left: None,
            entries: 2,
            label: label.clone(),
        }],
        waiters: vec![WaiterView {
            session,
            mode: Mode::Shared,
            waited: Duration::from_millis(3),
            expected: Some(Duration::from_millis(4)),
            label,
        }],
        waiting: 1,
        delay_left: Duration::from_millis(1),
        hold_average: Some(Duration::from_millis(2)),
    };
    let read = over_the_wire(&lock::LockView::from(view.clone()));
    assert_eq!(LockView::from(read), view);
}

#[test]
fn registers() {
    let write = full_write();
    let sent = register::WriteRegister::of(&write, None).unwrap();
    assert_eq!(over_the_wire(&sent).into_api(write.key.clone(), None).unwrap(), write);
    let delete = Write { value: None, ttl: RegisterTtl::Never, ..write };
    assert!(register::WriteRegister::of(&delete, None).is_none());
    let sent = register::DeleteRegister::of(&delete, None);
    assert_eq!(over_the_wire(&sent).into_api(delete.key.clone(), None), delete);

    for value in [b"text".to_vec(), vec![0xff]] {
        let left = Some(Duration::from_millis(5));
        let kept = Register { value, version: 8, left };
        let read = over_the_wire(&register::Register::from(kept.clone()));
        assert_eq!(read.into_api().unwrap(), kept);
    }
    for key in [b"text".to_vec(), vec![0xff]] {
        let view = RegisterView { key, version: 8, bytes: 3, left: None };
        let read = over_the_wire(&register::RegisterView::from(view.clone()));
        assert_eq!(read.into_api().unwrap(), view);
    }
}

#[test]
fn messages_and_deliveries() {
    let at = Message { due: Due::At(UNIX_EPOCH + Duration::from_millis(77)), ..full_message() };
    for message in [full_message(), at, Message::new("text")] {
        let read = over_the_wire(&message::Message::of(&message, Some("r".into())));
        assert_eq!(read.request_id.as_deref(), Some("r"));
        assert_eq!(read.into_api().unwrap(), message);
    }
    let delivered = Delivered {
        receipt: receipt(),
        attempt: 2,
        redelivered: true,
        content: Content {
            body: vec![0xff],
            priority: 3,
            headers: full_message().headers,
            id: None,
            key: Some("k".into()),
            exchange: "x".into(),
            routing_key: "a.b".into(),
            published_at: UNIX_EPOCH + Duration::from_millis(1),
            deaths: vec![Death {
                queue: "q".into(),
                reason: "expired".into(),
                count: 2,
                first_at: UNIX_EPOCH + Duration::from_millis(2),
            }],
        },
    };
    let read = over_the_wire(&message::Delivery::from(delivered.clone()));
    assert_eq!(read.into_api().unwrap(), delivered);
}

#[test]
fn queues_and_bindings() {
    let config = QueueConfig {
        durable: false,
        messages_max: Some(1),
        bytes_max: Some(2),
        overflow: Overflow::Reject,
        ttl: Some(Duration::from_millis(3)),
        lease: Some(Duration::from_millis(4)),
        deliveries_max: Some(5),
        dead_letter: Some(DeadLetter { exchange: Some("x".into()), routing_key: None }),
        priority_max: 6,
        dedup: Some(Duration::from_millis(7)),
        single_active: true,
        auto_delete: true,
    };
    let straight = Some(DeadLetter::queue("dead"));
    let other = QueueConfig { dead_letter: straight, ..QueueConfig::default() };
    for config in [config, other, QueueConfig::default()] {
        let totals = QueueTotals { published: 1, acked: 2, ..QueueTotals::default() };
        let view = QueueView {
            name: "q".into(),
            config,
            ready: 1,
            in_flight: 2,
            delayed: 3,
            parked: 4,
            bytes: 5,
            consumers: 6,
            paused: true,
            totals,
        };
        let read = over_the_wire(&queue::QueueView::from(view.clone()));
        assert_eq!(read.into_api().unwrap(), view);
    }
    let binding = Binding {
        exchange: "x".into(),
        to: Destination::Exchange("y".into()),
        key: "a.#".into(),
        arguments: vec![("n".into(), Value::Bool(true))],
        match_all: false,
    };
    let read = over_the_wire(&exchange::Binding::of(&binding));
    assert_eq!(read.into_api("x").unwrap(), binding);
}

#[test]
fn commits() {
    let publish =
        |target, mandatory| Publish { target, message: full_message(), mandatory, request: None };
    let whole = Commit {
        checks: vec![("l".into(), 5)],
        settles: vec![
            (receipt(), Verdict::Ack),
            (receipt(), Verdict::Nack(Duration::from_millis(5))),
            (receipt(), Verdict::Reject),
        ],
        publishes: vec![
            publish(Target::Queue("q".into()), false),
            publish(Target::Exchange("x".into(), "a".into()), true),
        ],
        writes: vec![full_write(), Write { value: None, ttl: RegisterTtl::Never, ..full_write() }],
        releases: vec![HoldRef { name: "l".into(), token: 5, hold: 9, session: Some(session()) }],
        request: None,
    };
    let read = over_the_wire(&commit::Commit::of(&whole, None)).into_api(None).unwrap();
    assert_eq!(format!("{read:?}"), format!("{whole:?}"));
}

#[test]
fn a_misspelt_field_is_named() {
    let error = serde_json::from_str::<lock::AcquireLock>(r#"{"ttl": 5}"#).unwrap_err();
    assert!(error.to_string().contains("unknown field `ttl`"), "{error}");
    let error = serde_json::from_str::<queue::QueueConfig>(r#"{"lease": 5}"#).unwrap_err();
    assert!(error.to_string().contains("lease_ms"), "{error}");
}
