//! The moves of a history: a table of what may be done, each row with its weight.

use std::sync::Arc;

use leasehold_core::limits::{MS, SECOND};
use leasehold_core::queue::{DeadLetter, Overflow};
use leasehold_core::topology::{Binding, Destination, ExchangeConfig, ExchangeKind};
use leasehold_core::*;

use super::keys;
use super::locks::Asked;
use super::queues::{Lease, Reader};
use super::support::{Answer, name};
use super::watches::{self, Watching, What};
use super::{Dice, World};

const QUEUES: [&str; 9] =
    ["plain", "ranked", "brief", "short", "strict", "full", "temp", "solo", "dead"];
const LOCKS: [&str; 3] = ["a", "b", "c"];
const KEYS: [&str; 3] = ["k1", "k2", "k3"];
const ROUTING: [&str; 3] = ["x.y", "x.z", "w"];

type Move = fn(&mut World, Dice);

const MOVES: &[(u8, Move)] = &[
    (6, open_session),
    (3, close_session),
    (2, keep_alive),
    (18, acquire),
    (4, cancel),
    (8, watch),
    (2, cancel_watch),
    (4, renew),
    (10, release),
    (1, force_release),
    (6, write),
    (3, declare),
    (1, delete),
    (2, purge),
    (2, pause),
    (6, bind),
    (39, publish),
    (14, publish_many),
    (16, consume),
    (4, stop),
    (4, credit),
    (36, settle),
    (8, settle_many),
    (3, extend),
    (3, peek),
    (4, redrive),
    (14, commit),
    (14, keys::decide),
    (16, advance),
    (3, restart),
    (8, checkpoint),
    (6, relocate),
];

pub fn play(world: &mut World, dice: Dice) {
    let all: u32 = MOVES.iter().map(|(weight, _)| u32::from(*weight)).sum();
    let mut at = u32::from(dice[0]) * all / 256;
    for (weight, make) in MOVES {
        if at < u32::from(*weight) {
            make(world, dice);
            return;
        }
        at -= u32::from(*weight);
    }
}

/// A queue's settings by its name, and the queue its dead letters go to.
pub fn queue(name: &str) -> (QueueConfig, Option<&'static str>) {
    let plain = QueueConfig::default();
    let to = |key: &str| Some(DeadLetter { exchange: None, routing_key: Some(key.into()) });
    match name {
        "ranked" => {
            let exchange = Some(super::support::name("dlx"));
            let dead_letter = Some(DeadLetter { exchange, routing_key: None });
            let lease_us = Some(500 * MS);
            (QueueConfig { priority_max: 2, lease_us, dead_letter, ..plain }, Some("dead"))
        }
        "brief" => {
            let ttl_us = Some(800 * MS);
            (QueueConfig { ttl_us, dead_letter: to("dead"), ..plain }, Some("dead"))
        }
        "short" => {
            let messages_max = Some(5);
            (QueueConfig { messages_max, dead_letter: to("dead"), ..plain }, Some("dead"))
        }
        "strict" => {
            let (dedup_us, lease_us) = (Some(SECOND), Some(300 * MS));
            let dead_letter = to("dead");
            let deliveries_max = Some(3);
            let config = QueueConfig { dedup_us, lease_us, deliveries_max, dead_letter, ..plain };
            (config, Some("dead"))
        }
        "full" => {
            let (messages_max, overflow) = (Some(6), Overflow::Reject);
            (QueueConfig { messages_max, overflow, ..plain }, None)
        }
        "temp" => (QueueConfig { durable: false, auto_delete: true, ..plain }, None),
        "solo" => (QueueConfig { single_active: true, ..plain }, None),
        "dead" => {
            let ttl_us = Some(3 * SECOND);
            (QueueConfig { ttl_us, dead_letter: to("brief"), ..plain }, Some("brief"))
        }
        _ => (plain, None),
    }
}

pub fn dead_letters(name: &str) -> Option<&'static str> {
    queue(name).1
}

/// Declares the queues and exchanges that a history begins with.
pub fn prepare(world: &mut World) {
    for queue in QUEUES {
        declare_queue(world, queue);
    }
    let config = |kind| ExchangeConfig { kind, durable: true, auto_delete: false, internal: false };
    for (exchange, kind) in
        [("dlx", ExchangeKind::Fanout), ("fan", ExchangeKind::Fanout), ("top", ExchangeKind::Topic)]
    {
        let op = Op::DeclareExchange(name(exchange), config(kind));
        assert_eq!(world.shard.ask(SessionId::NONE, op), Ok(Outcome::Done));
    }
    bind_all(world);
    for _ in 0..2 {
        open_session(world, [0, 0, 1, 0, 0]);
    }
}

fn declare_queue(world: &mut World, queue_name: &str) {
    let (config, _) = queue(queue_name);
    let op = Op::DeclareQueue(name(queue_name), Box::new(config));
    let answer = world.shard.ask(SessionId::NONE, op);
    assert!(matches!(answer, Ok(Outcome::Queue { .. })), "{answer:?}");
    world.look();
}

fn binding(exchange: &str, to: Destination, key: &str) -> Op {
    let (exchange, key) = (name(exchange), key.into());
    Op::Bind(Box::new(Binding { exchange, to, key, arguments: Vec::new(), match_all: true }))
}

/// What is bound for good, as far as its queues are there: `fan` to plain and strict and to `top`;
/// `top` by `x.*` to short, by `#` to ranked.
const BINDINGS: [(&str, &str, &str); 5] = [
    ("dlx", "", "dead"),
    ("fan", "", "plain"),
    ("fan", "", "strict"),
    ("top", "x.*", "short"),
    ("top", "#", "ranked"),
];

fn bind_all(world: &mut World) {
    for (exchange, key, queue) in BINDINGS {
        let op = binding(exchange, Destination::Queue(name(queue)), key);
        let _ = world.shard.ask(SessionId::NONE, op);
    }
    let op = binding("fan", Destination::Exchange(name("top")), "");
    let _ = world.shard.ask(SessionId::NONE, op);
    world.look();
}

/// The queues that a routing key reaches, by what is bound now.
fn routes(world: &World, exchange: &str, key: &str) -> Vec<String> {
    let state = world.shard.core.state();
    let matches = |pattern: &str| match pattern {
        "x.*" => key.starts_with("x."),
        _ => true,
    };
    let mut out: Vec<String> = Vec::new();
    for (from, pattern, queue) in BINDINGS {
        let through = from == exchange || from == "top" && exchange == "fan";
        let there = state.queue_named(queue).is_some_and(|slot| state.queues()[slot].bindings > 0);
        if through && matches(pattern) && there {
            out.push(queue.to_owned());
        }
    }
    out.sort();
    out
}

fn bind(world: &mut World, _: Dice) {
    bind_all(world);
}

fn pick<T: Clone>(list: &[T], dice: u8) -> Option<T> {
    list.get(usize::from(dice) % list.len().max(1)).cloned()
}

fn session(world: &World, dice: u8) -> SessionId {
    // Whoever was left by a restart says nothing before it is taken up again.
    let orphan = |seat: &&super::locks::Seat| seat.ttl_us.is_none() && seat.deadline != 0;
    let seats = world.locks.seats.iter().filter(|seat| !orphan(seat));
    let seats: Vec<_> = seats.cloned().collect();
    pick(&seats, dice).map_or(SessionId(77_777_777_777), |seat| seat.id)
}

/// Sends a command. Law: what is refused leaves no trace in the journal.
fn ask(world: &mut World, session: SessionId, request: Option<u128>, op: Op) -> Option<Answer> {
    let before = world.shard.log.records.len();
    let may = matches!(op, Op::Acquire(_) | Op::Peek(..) | Op::Redrive { .. } | Op::Relocate(_));
    let answer = world.shard.try_ask(session, request, op);
    if matches!(answer, Some(Err(_))) && !may {
        for (_, record) in &world.shard.log.records[before..] {
            let event = Event::decode(record);
            let housekeeping = matches!(event, Ok(Event::PageStored { .. }));
            assert!(housekeeping, "refused and not without a trace: {event:?}");
        }
    }
    answer
}

fn open_session(world: &mut World, dice: Dice) {
    let ttl_us = dice[2].is_multiple_of(3).then_some(400 * MS);
    let resume = if dice[3] > 200 { pick(&world.locks.seats, dice[4]) } else { None };
    let resume = resume.map(|seat| seat.id);
    let op = Op::OpenSession { ttl_us, resume, label: None };
    let now = world.shard.log.now;
    match ask(world, SessionId::NONE, None, op) {
        Some(Ok(Outcome::Session { id, resumed: true })) => {
            assert_eq!(Some(id), resume);
            world.locks.resumed(id, ttl_us, now);
        }
        Some(Ok(Outcome::Session { id, resumed: false })) => {
            world.locks.session_opened(id, ttl_us, now);
        }
        Some(Err(Refusal::NoSession(_))) => {}
        other => panic!("{other:?}"),
    }
    world.look();
}

fn close_session(world: &mut World, dice: Dice) {
    let (who, lost) = (session(world, dice[1]), dice[2].is_multiple_of(2));
    if ask(world, who, None, Op::CloseSession { lost }) == Some(Ok(Outcome::Done)) {
        world.locks.allowed.closed.push((who, lost));
        world.locks.seats.retain(|seat| seat.id != who);
        world.queues.story.closed.push(who);
    }
    world.look();
}

fn keep_alive(world: &mut World, dice: Dice) {
    let who = session(world, dice[1]);
    let now = world.shard.log.now;
    if ask(world, who, None, Op::KeepAlive) == Some(Ok(Outcome::Done)) {
        for seat in world.locks.seats.iter_mut().filter(|seat| seat.id == who) {
            if let Some(ttl) = seat.ttl_us {
                seat.deadline = now + ttl;
            }
        }
    }
    world.look();
}

fn mode(dice: u8) -> Mode {
    match dice % 8 {
        0..=3 => Mode::Exclusive,
        4 | 5 => Mode::Shared,
        n => Mode::Permits { take: u32::from(n) - 5, of: 3 },
    }
}

fn acquire(world: &mut World, dice: Dice) {
    let first = usize::from(dice[1]) % LOCKS.len();
    let many = dice[1] > 170;
    let wants = if many {
        let second = (first + 1 + usize::from(dice[1]) % 2) % LOCKS.len();
        let one = |lock: usize, n: u8| (name(LOCKS[lock]), mode(n));
        Wants::Many([one(first, dice[2]), one(second, dice[2] >> 4)].into())
    } else {
        Wants::One(name(LOCKS[first]), mode(dice[2]))
    };
    let bound = !dice[3].is_multiple_of(4);
    let ttl = (!bound || dice[3] % 8 > 5).then_some(Time::from(dice[3] % 7 + 1) * 50 * MS);
    let who = if bound || dice[4] > 60 { session(world, dice[4]) } else { SessionId::NONE };
    let wait = match dice[4] % 4 {
        0 => Wait::No,
        1 => Wait::AtMost(150 * MS),
        _ => Wait::Forever,
    };
    let acquire = Acquire {
        wants,
        hold: u64::from(dice[2] >> 6),
        reentrant: dice[2].is_multiple_of(3),
        tenure: Tenure { ttl_us: ttl, session: bound },
        wait,
        lock_delay_us: if dice[3] > 200 { 100 * MS } else { 0 },
        label: None,
    };
    send_acquire(world, who, acquire);
}

fn send_acquire(world: &mut World, who: SessionId, acquire: Acquire) {
    let ticket = Ticket(world.shard.last_ticket + 1);
    let at = world.shard.log.now;
    world.locks.waiting.push(Asked { ticket, session: who, acquire: acquire.clone(), at });
    world.shard.send(who, None, Op::Acquire(Box::new(acquire)));
    world.look();
}

/// One exclusive lock held without a session.
pub fn lock_plain(world: &mut World) {
    let tenure = Tenure { ttl_us: Some(SECOND), session: false };
    let acquire = Acquire {
        wants: Wants::One(name("a"), Mode::Exclusive),
        hold: 0,
        reentrant: false,
        tenure,
        wait: Wait::No,
        lock_delay_us: 0,
        label: None,
    };
    send_acquire(world, SessionId::NONE, acquire);
}

fn cancel(world: &mut World, dice: Dice) {
    let Some(asked) = pick(&world.locks.waiting, dice[1]) else { return };
    ask(world, asked.session, None, Op::Cancel(asked.ticket));
    world.look();
}

fn watch(world: &mut World, dice: Dice) {
    let what = match dice[1] % 6 {
        n @ 0..=2 => What::Lock(name(LOCKS[usize::from(n)])),
        n => What::Register(KEYS[usize::from(n) - 3]),
    };
    let known = match dice[2] % 8 {
        0 => None,
        1 => Some(3),
        _ => watches::current(&world.shard, &what),
    };
    let who = if dice[3] > 90 { session(world, dice[3]) } else { SessionId::NONE };
    let wait = match dice[4] % 8 {
        0 => Wait::No,
        1..=3 => Wait::AtMost(150 * MS),
        _ => Wait::Forever,
    };
    send_watch(world, who, what, known, wait);
}

fn send_watch(
    world: &mut World,
    session: SessionId,
    what: What,
    known: Option<u64>,
    wait: Wait,
) -> Ticket {
    let (ticket, now) = (Ticket(world.shard.last_ticket + 1), world.shard.log.now);
    let until = match wait {
        Wait::No => Some(now),
        Wait::AtMost(wait) => Some(now + wait),
        Wait::Forever => None,
    };
    let op = match &what {
        What::Lock(name) => Op::WatchLock { name: name.clone(), known: known.map(Token), wait },
        What::Register(key) => Op::WatchRegister { key: key.as_bytes().into(), known, wait },
    };
    world.watches.watching.push(Watching { ticket, session, what, known, until });
    world.shard.send(session, None, op);
    world.look();
    ticket
}

/// A watch of the lock of [`lock_plain`] while it is free.
pub fn watch_plain(world: &mut World) -> Ticket {
    send_watch(world, SessionId::NONE, What::Lock(name("a")), None, Wait::Forever)
}

fn cancel_watch(world: &mut World, dice: Dice) {
    let Some(watching) = pick(&world.watches.watching, dice[1]) else { return };
    world.watches.withdrawn = Some(watching.ticket);
    let answer = ask(world, watching.session, None, Op::Cancel(watching.ticket));
    assert_eq!(answer, Some(Ok(Outcome::Done)), "what waits can be withdrawn");
    world.look();
}

/// A hold, by its token and one of its names; now and then a wrong one.
fn hold_ref(world: &World, dice: Dice) -> Option<(SessionId, HoldRef)> {
    let hold = pick(&world.locks.holds, dice[1])?;
    let (name, _) = hold.asked.wants.iter().next()?;
    let wrong = dice[2] > 230;
    let token = if wrong { Token(hold.token.0 - 1) } else { hold.token };
    Some((hold.session, HoldRef { name: name.clone(), token, hold: hold.asked.hold }))
}

fn renew(world: &mut World, dice: Dice) {
    let Some((who, hold)) = hold_ref(world, dice) else { return };
    let (token, now) = (hold.token, world.shard.log.now);
    let ttl_us = (dice[3].is_multiple_of(2)).then_some(120 * MS);
    if let Some(Ok(Outcome::Renewed { .. })) = ask(world, who, None, Op::Renew { hold, ttl_us }) {
        for hold in world.locks.holds.iter_mut().filter(|hold| hold.token == token) {
            let ttl = ttl_us.or(hold.asked.tenure.ttl_us).expect("there was one to renew");
            hold.deadline = now + ttl;
        }
    }
    world.look();
}

fn release(world: &mut World, dice: Dice) {
    let Some((who, hold)) = hold_ref(world, dice) else { return };
    let token = hold.token;
    match ask(world, who, None, Op::Release(hold)) {
        Some(Ok(Outcome::Released { entries: 0 })) => world.locks.allowed.released.push(token),
        Some(Ok(Outcome::Released { entries })) => {
            let mut holds = world.locks.holds.iter_mut();
            holds.find(|hold| hold.token == token).expect("a hold").entries = entries;
        }
        _ => {}
    }
    world.look();
}

fn force_release(world: &mut World, dice: Dice) {
    let lock = name(LOCKS[usize::from(dice[1]) % LOCKS.len()]);
    world.locks.allowed.forced = Some(lock.clone());
    world.keys.forced(&lock);
    ask(world, SessionId::NONE, None, Op::ForceRelease(lock));
    world.look();
}

fn write_of(world: &World, dice: Dice) -> Write {
    let key: Arc<[u8]> = KEYS[usize::from(dice[1]) % 3].as_bytes().into();
    let known = world.locks.registers.get(&key[..]).map(|(version, _)| *version);
    let expect = match dice[2] % 4 {
        0 => Expect::Anything,
        1 => Expect::Absent,
        2 => Expect::Version(known.unwrap_or(3)),
        _ => Expect::Version(1),
    };
    let guard = if dice[3] > 150 { hold_ref(world, dice) } else { None };
    let guard = guard.map(|(_, hold)| (hold.name, hold.token));
    let value = (!dice[3].is_multiple_of(5)).then(|| [dice[3]].as_slice().into());
    Write { key, value, expect, ttl: RegisterTtl::Never, guard }
}

/// Compare-and-set as a register's reader sees it.
fn written(world: &mut World, write: &Write, version: u64) {
    let known = world.locks.registers.get(&write.key[..]).map(|(version, _)| *version);
    let met = match write.expect {
        Expect::Anything => true,
        Expect::Absent => known.is_none(),
        Expect::Present => known.is_some(),
        Expect::Version(wanted) => known == Some(wanted),
    };
    assert!(met, "a write was accepted against {:?}, at {known:?}", write.expect);
    if let Some((name, token)) = &write.guard {
        let held = |h: &super::locks::Hold| h.token == *token;
        let on = |h: &super::locks::Hold| h.asked.wants.iter().any(|(n, _)| n == name);
        assert!(world.locks.holds.iter().any(|h| held(h) && on(h)), "a stale guard was accepted");
    }
    world.locks.rises(version);
    match &write.value {
        Some(value) => {
            world.locks.registers.insert(write.key.to_vec(), (version, value.to_vec()));
        }
        None => {
            world.locks.registers.remove(&write.key[..]);
        }
    }
}

fn write(world: &mut World, dice: Dice) {
    let write = write_of(world, dice);
    let op = Op::Write(Box::new(write.clone()));
    match ask(world, SessionId::NONE, None, op) {
        Some(Ok(Outcome::Written { version })) => written(world, &write, version),
        Some(Err(Refusal::Conflict(version))) => {
            let known = world.locks.registers.get(&write.key[..]).map(|(version, _)| *version);
            assert_eq!(version, known, "a conflict says what is there");
        }
        Some(Err(_)) => assert!(write.guard.is_some()),
        other => panic!("{other:?}"),
    }
    let view = world.shard.ask(SessionId::NONE, Op::Read(write.key.clone()));
    let Ok(Outcome::Register(view)) = view else { panic!("{view:?}") };
    let seen = view.map(|view| (view.version, view.value.to_vec()));
    assert_eq!(seen.as_ref(), world.locks.registers.get(&write.key[..]), "a register's value");
    world.look();
}

fn queue_name(dice: u8) -> &'static str {
    QUEUES[usize::from(dice) % QUEUES.len()]
}

fn declare(world: &mut World, dice: Dice) {
    declare_queue(world, queue_name(dice[1]));
}

fn delete(world: &mut World, dice: Dice) {
    let queue = queue_name(dice[1]);
    world.queues.story.deleted = Some(queue.to_owned());
    let (if_unused, if_empty) = (dice[2].is_multiple_of(3), dice[3].is_multiple_of(3));
    let op = Op::DeleteQueue { name: name(queue), if_unused, if_empty };
    ask(world, SessionId::NONE, None, op);
    world.look();
}

fn purge(world: &mut World, dice: Dice) {
    let queue = queue_name(dice[1]);
    world.queues.story.purged = Some(queue.to_owned());
    let before = world.queues.copies.iter().filter(|c| c.life.0 == queue && c.at.is_some());
    let leases = world.queues.leases.iter().filter(|lease| lease.life.0 == queue);
    let waiting = before.count() - leases.count();
    match ask(world, SessionId::NONE, None, Op::Purge(name(queue))) {
        Some(Ok(Outcome::Dropped(purged))) => assert_eq!(purged as usize, waiting),
        other => assert_eq!(other, Some(Err(Refusal::NoQueue))),
    }
    world.look();
}

fn pause(world: &mut World, dice: Dice) {
    let op = Op::Pause(name(queue_name(dice[1])), dice[2].is_multiple_of(3));
    ask(world, SessionId::NONE, None, op);
    world.look();
}

/// A publish and the queues it should reach.
fn publish_of(world: &mut World, dice: Dice) -> (Publish, Vec<String>, u64) {
    world.queues.next_message += 1;
    let mut body = world.queues.next_message.to_le_bytes().to_vec();
    body.resize(8 + usize::from(dice[4]), 0);
    let mut message = Message { body, priority: dice[2] % 4, ..Message::default() };
    let mut id = 0;
    if dice[2] > 100 {
        let more = message.more();
        if dice[3].is_multiple_of(4) {
            more.due = Due::After(Time::from(dice[3]) * 10 * MS + MS);
        }
        if dice[3].is_multiple_of(3) {
            more.key = Some(KEYS[usize::from(dice[4]) % 3].into());
        }
        if dice[3].is_multiple_of(5) {
            more.ttl_us = Some(Time::from(dice[4]) * 10 * MS + MS);
        }
        if dice[3].is_multiple_of(2) {
            id = u64::from(dice[4] % 4) + 1;
            more.id = Some(format!("id-{id}").into());
        }
    }
    let state = world.shard.core.state();
    let (target, reached) = if dice[1] > 200 {
        let key = ROUTING[usize::from(dice[3]) % 3];
        let exchange = if dice[1].is_multiple_of(2) { "fan" } else { "top" };
        (Target::Exchange(name(exchange), key.into()), routes(world, exchange, key))
    } else {
        let queue = queue_name(dice[1]);
        let there = state.queue_named(queue).is_some();
        let reached = if there { vec![queue.to_owned()] } else { Vec::new() };
        (Target::QueueNamed(name(queue)), reached)
    };
    (Publish { target, message, mandatory: dice[1].is_multiple_of(5) }, reached, id)
}

fn is_full(world: &World, queue_name: &str, more: usize) -> bool {
    let (config, _) = queue(queue_name);
    let copies = world.queues.copies.iter().filter(|copy| copy.life.0 == queue_name);
    config.overflow == Overflow::Reject
        && config.messages_max.is_some_and(|max| (copies.count() + more) as u64 >= max)
}

/// Notes an accepted publish.
fn published(world: &mut World, fresh: Vec<String>, id: u64) {
    let now = world.shard.log.now;
    let message = world.queues.next_message;
    if fresh.len() > 1 {
        world.queues.many.insert(message);
    }
    for queue in fresh {
        if id != 0
            && let Some(life) = world.queues.life(&world.shard, &queue)
        {
            world.queues.ids.insert((life, id), now);
        }
        world.queues.story.published.push((queue, message));
    }
}

fn send_publish(world: &mut World, publish: Publish, reached: Vec<String>, id: u64) {
    let mandatory = publish.mandatory;
    let to_queue = matches!(publish.target, Target::QueueNamed(_));
    let (fresh, known) = world.queues.expect(&world.shard, &reached, id);
    let full = fresh.iter().any(|queue| is_full(world, queue, 0));
    match ask(world, SessionId::NONE, None, Op::Publish(Box::new(publish))) {
        Some(Ok(Outcome::Published { queues, duplicates })) => {
            assert!(!full, "a full queue took a message");
            assert_eq!((queues as usize, duplicates), (fresh.len(), known), "to {reached:?}");
            published(world, fresh, id);
        }
        Some(Err(Refusal::QueueFull(_))) => assert!(full, "a queue refused that was not full"),
        Some(Err(Refusal::NoQueue)) => assert!(to_queue && reached.is_empty()),
        Some(Err(Refusal::Unroutable)) => assert!(mandatory && reached.is_empty()),
        other => panic!("{other:?}"),
    }
    world.look();
}

fn publish(world: &mut World, dice: Dice) {
    let (publish, reached, id) = publish_of(world, dice);
    send_publish(world, publish, reached, id);
}

/// One plain message to the plain queue.
pub fn publish_plain(world: &mut World) {
    publish(world, [0; 5]);
}

fn publish_many(world: &mut World, dice: Dice) {
    for i in 0..dice[4] % 24 {
        let dice = [dice[0], dice[1], dice[2], dice[3].wrapping_add(i), dice[4].wrapping_mul(i)];
        publish(world, dice);
    }
}

fn consume(world: &mut World, dice: Dice) {
    let who = session(world, dice[1]);
    let queue = queue_name(dice[2]);
    let once = match dice[3] % 6 {
        0 => Some(Wait::No),
        1 => Some(Wait::AtMost(200 * MS)),
        _ => None,
    };
    let no_ack = dice[3] > 200;
    let consume = Consume {
        queue: name(queue),
        credit: u32::from(dice[4] % 8) + 1,
        once,
        no_ack,
        exclusive: dice[4] > 240,
        label: None,
    };
    let ticket = Ticket(world.shard.last_ticket + 1);
    let (session, queue, once) = (who, queue.to_owned(), once.is_some());
    world.queues.readers.push(Reader { ticket, id: None, session, queue, no_ack, once });
    world.shard.send(who, None, Op::Consume(Box::new(consume)));
    world.look();
}

fn stop(world: &mut World, dice: Dice) {
    let Some(reader) = pick(&world.queues.readers, dice[1]) else { return };
    match reader.id {
        Some(id) => {
            if ask(world, reader.session, None, Op::StopConsumer(id)).is_some_and(|a| a.is_ok()) {
                world.queues.readers.retain(|other| other.ticket != reader.ticket);
            }
        }
        None => {
            ask(world, reader.session, None, Op::Cancel(reader.ticket));
        }
    }
    world.look();
}

fn credit(world: &mut World, dice: Dice) {
    let Some(reader) = pick(&world.queues.readers, dice[1]) else { return };
    if let Some(id) = reader.id {
        ask(world, reader.session, None, Op::Credit(id, u32::from(dice[2] % 10)));
    }
    world.look();
}

fn verdict(dice: u8) -> Verdict {
    match dice % 8 {
        0..=3 => Verdict::Ack,
        4 => Verdict::Nack { delay_us: 0 },
        5 => Verdict::Return,
        6 => Verdict::Nack { delay_us: Time::from(dice) * 3 * MS + MS },
        _ => Verdict::Reject,
    }
}

fn settle(world: &mut World, dice: Dice) {
    let verdict = verdict(dice[2]);
    if dice[3] > 230 {
        // A late hand: refused, and nothing happens.
        let Some(receipt) = pick(&world.queues.spent, dice[1]) else { return };
        let who = session(world, dice[4]);
        let answer = ask(world, who, None, Op::Settle(receipt, verdict));
        assert_eq!(answer, Some(Err(Refusal::StaleDelivery(receipt))));
        return world.look();
    }
    let Some(lease) = pick(&world.queues.leases, dice[1]) else { return };
    let who = if dice[3] > 220 { SessionId(1) } else { lease.session };
    let answer = ask(world, who, None, Op::Settle(lease.receipt, verdict));
    if who == lease.session {
        assert_eq!(answer, Some(Ok(Outcome::Settled(1))));
        world.queues.settled(lease.receipt, verdict);
    } else {
        assert_eq!(answer, Some(Err(Refusal::ForeignDelivery(lease.receipt))));
    }
    world.look();
}

fn leases_of(world: &World, dice: Dice) -> Option<(SessionId, Vec<Lease>)> {
    let first = pick(&world.queues.leases, dice[1])?;
    let mine = world.queues.leases.iter().filter(|lease| lease.session == first.session);
    let list: Vec<_> = mine.take(1 + usize::from(dice[3] % 8)).cloned().collect();
    Some((first.session, list))
}

fn settle_many(world: &mut World, dice: Dice) {
    let Some((who, leases)) = leases_of(world, dice) else { return };
    let verdict = verdict(dice[2]);
    let mut receipts: Vec<Receipt> = leases.iter().map(|lease| lease.receipt).collect();
    let bad = dice[4] > 200;
    if bad {
        receipts.push(receipts[0]);
    }
    let answer = ask(world, who, None, Op::SettleMany(receipts.clone().into(), verdict));
    if bad {
        assert_eq!(answer, Some(Err(Refusal::SettledTwice(receipts[0]))));
    } else {
        assert_eq!(answer, Some(Ok(Outcome::Settled(receipts.len() as u32))));
        receipts.into_iter().for_each(|receipt| world.queues.settled(receipt, verdict));
    }
    world.look();
}

fn extend(world: &mut World, dice: Dice) {
    let Some(lease) = pick(&world.queues.leases, dice[1]) else { return };
    let answer = ask(world, lease.session, None, Op::Extend(lease.receipt, 700 * MS));
    assert!(matches!(answer, Some(Ok(Outcome::Renewed { .. }))), "{answer:?}");
    world.look();
}

fn peek(world: &mut World, dice: Dice) {
    let op = Op::Peek(name(queue_name(dice[1])), u32::from(dice[2] % 20));
    if let Some(Ok(Outcome::Peeked(list))) = ask(world, SessionId::NONE, None, op) {
        for peeked in list {
            super::queues::message_id(&world.shard, peeked.place);
        }
    }
    world.look();
}

fn redrive(world: &mut World, dice: Dice) {
    let from = if dice[1] > 100 { "dead" } else { queue_name(dice[1]) };
    let to = (dice[2].is_multiple_of(2)).then(|| name(queue_name(dice[3])));
    world.queues.story.redriven = Some(from.to_owned());
    let drops = |name: &Name| queue(name.as_str()).0.messages_max.is_some();
    world.queues.story.overflowed = to.as_ref().is_none_or(drops);
    let op = Op::Redrive { from: name(from), to, max: u32::from(dice[4] % 12) };
    ask(world, SessionId::NONE, None, op);
    world.look();
}

/// Some of everything, now and then with one bad part.
fn commit(world: &mut World, dice: Dice) {
    let mut commit = Commit::default();
    let verdict = verdict(dice[3]);
    let leases = world.queues.leases.iter().skip(usize::from(dice[1] % 8));
    let leases = leases.take(usize::from(dice[3] % 8));
    commit.settles = leases.map(|lease| (lease.session, lease.receipt, verdict)).collect();
    let mut plan = Vec::new();
    for i in 0..dice[2] % 3 {
        let dice = [0, dice[1].wrapping_add(i), dice[2], dice[3], dice[4]];
        let (publish, reached, id) = publish_of(world, dice);
        commit.publishes.push(publish);
        plan.push((world.queues.next_message, reached, id));
    }
    if dice[4].is_multiple_of(2) {
        commit.writes.push(write_of(world, dice));
    }
    let holds = world.locks.holds.iter().skip(usize::from(dice[2] % 4));
    for hold in holds.take(usize::from(dice[1] % 3)) {
        let (lock, _) = hold.asked.wants.iter().next().expect("a lock");
        commit.checks.push((lock.clone(), hold.token));
        let name = lock.clone();
        let release = HoldRef { name, token: hold.token, hold: hold.asked.hold };
        commit.releases.push((hold.session, release));
    }
    if dice[4] > 200 {
        commit.checks.push((name(LOCKS[0]), Token(1)));
    }
    let op = Op::Commit(Box::new(commit.clone()));
    if let Some(Ok(Outcome::Committed { versions })) = ask(world, SessionId::NONE, None, op) {
        committed(world, &commit, plan, versions);
    }
    world.look();
}

fn committed(
    world: &mut World,
    commit: &Commit,
    plan: Vec<(u64, Vec<String>, u64)>,
    versions: Vec<u64>,
) {
    assert!(!commit.checks.iter().any(|(_, token)| *token == Token(1)), "a stale check passed");
    for (_, receipt, verdict) in &commit.settles {
        world.queues.settled(*receipt, *verdict);
    }
    let newest = world.queues.next_message;
    for (message, reached, id) in plan {
        world.queues.next_message = message;
        let (fresh, _) = world.queues.expect(&world.shard, &reached, id);
        for queue in &fresh {
            let earlier = world.queues.story.published.iter().filter(|(q, _)| q == queue);
            let earlier = earlier.count();
            assert!(!is_full(world, queue, earlier), "a full queue took a message");
        }
        published(world, fresh, id);
    }
    world.queues.next_message = newest;
    assert_eq!(versions.len(), commit.writes.len());
    for (write, version) in commit.writes.iter().zip(versions) {
        written(world, write, version);
    }
    for (_, release) in &commit.releases {
        let mut holds = world.locks.holds.iter_mut();
        let hold = holds.find(|hold| hold.token == release.token).expect("a hold");
        hold.entries -= 1;
        if hold.entries == 0 {
            world.locks.allowed.released.push(release.token);
        }
    }
}

fn advance(world: &mut World, dice: Dice) {
    let step = match dice[1] % 4 {
        0 => 300,
        1 => 20 * MS,
        2 => 150 * MS,
        _ => 900 * MS,
    };
    world.shard.log.now += step * Time::from(dice[2] % 4 + 1);
    // A second round: what one timer sets may be due at once.
    for _ in 0..64 {
        let done = world.shard.tick();
        world.look();
        if done && world.shard.core.next_due().is_none_or(|due| due > world.shard.log.now) {
            break;
        }
    }
    world.locks.punctual(world.shard.log.now);
    world.watches.punctual(world.shard.log.now);
    world.keys.punctual(&world.shard);
}

fn restart(world: &mut World, dice: Dice) {
    world.shard.laws();
    world.shard.log.now += Time::from(dice[1]) * MS;
    world.shard.restart();
    let (now, grace) = (world.shard.log.now, world.shard.core.limits().restart_grace_us);
    world.locks.restarted(now, grace);
    world.watches.watching.clear();
    world.queues.story.restarted = true;
    world.look();
}

fn checkpoint(world: &mut World, dice: Dice) {
    let first = world.shard.cells.is_empty();
    world.shard.checkpoint(first || dice[1].is_multiple_of(2), usize::from(dice[2] % 32));
    world.look();
    world.shard.laws();
}

/// Empties the oldest journal segment that something lives in, as the node does.
fn relocate(world: &mut World, _: Dice) {
    let Some(old) = world.shard.core.state().segment_use().into_iter().next() else { return };
    for (list, base) in old.pages.iter().chain(&old.stored) {
        for _ in 0..8 {
            let state = world.shard.core.state();
            let found = state.messages_in(*list, *base, old.segment, 3);
            let records = found.iter().map(|(at, place)| (*at, world.shard.log.read(*place)));
            let records: Vec<_> = records.map(|(at, bytes)| (at, bytes.to_vec())).collect();
            let stored_there = state.page_to_load(*list, *base).is_some();
            if records.is_empty() && !stored_there {
                break;
            }
            let relocation = index::Relocation { list: *list, base: *base, records };
            let op = Op::Relocate(Box::new(relocation));
            ask(world, SessionId::NONE, None, op);
            world.look();
            if stored_there {
                break;
            }
        }
    }
}
