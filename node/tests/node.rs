//! The node on its thread, with a real directory and real time.
//!
//! Nothing here sleeps to prove a point: each step waits for the notice that it needs, with a
//! deadline after which the test has failed.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use leasehold_core::{
    Acquire, Command, Consume, HoldRef, Message, Mode, Name, Op, Outcome, Publish, QueueConfig,
    Refusal, SessionId, Target, Tenure, Ticket, Token, Verdict, Wait, Wants,
};
use leasehold_env::{MemDisk, OpenDiskError, OsClock};
use leasehold_node::{
    Client, Durability, Node, NodeError, Notice, OpenError, Options, Received, Shard,
};

const SECOND: u64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(20);

fn name(text: &str) -> Name {
    Name::new(text).expect("a good name")
}

fn small() -> Options {
    let limits = leasehold_core::Limits { segment_bytes: 1 << 20, ..Default::default() };
    Options { limits, ..Options::default() }
}

/// A client with a session, for one thread.
struct User {
    client: Client,
    session: SessionId,
    others: Vec<(u32, Notice)>,
}

impl User {
    fn new(node: &Node) -> Self {
        let client = node.client();
        let mut user = Self { client, session: SessionId::NONE, others: Vec::new() };
        let open = Op::OpenSession { ttl_us: None, resume: None, label: None };
        match user.ask(open) {
            Ok(Outcome::Session { id, .. }) => user.session = id,
            other => panic!("{other:?}"),
        }
        user
    }

    fn ask(&mut self, op: Op) -> Result<Outcome, Refusal> {
        let answer = self.client.call(self.session, op, PATIENCE, &mut self.others);
        answer.expect("an answer in time")
    }

    fn declare(&mut self, queue: &str) {
        self.ask(Op::DeclareQueue(name(queue), Box::default())).expect("declared");
    }

    fn consume(&mut self, queue: &str, credit: u32) {
        let consume = Consume {
            queue: name(queue),
            credit,
            once: None,
            no_ack: false,
            exclusive: false,
            label: None,
        };
        self.ask(Op::Consume(Box::new(consume))).expect("consuming");
    }

    /// The next delivery, waiting for it.
    fn next(&mut self) -> Received {
        loop {
            let delivery = |(_, notice): &(u32, Notice)| matches!(notice, Notice::Delivery(_));
            if let Some(i) = self.others.iter().position(delivery) {
                match self.others.remove(i).1 {
                    Notice::Delivery(parts) => return Received::from(parts),
                    _ => unreachable!("just looked"),
                }
            }
            let before = self.others.len();
            self.client.receive(&mut self.others, Some(PATIENCE)).expect("the node runs");
            assert!(self.others.len() > before, "no delivery in time");
        }
    }
}

fn publish(queue: &str, body: impl Into<Vec<u8>>) -> Op {
    let target = Target::QueueNamed(name(queue));
    Op::Publish(Box::new(Publish { target, message: Message::new(body), mandatory: true }))
}

fn acquire(lock: &str, hold: u64, tenure: Tenure, wait: Wait) -> Op {
    Op::Acquire(Box::new(Acquire {
        wants: Wants::One(name(lock), Mode::Exclusive),
        hold,
        reentrant: false,
        tenure,
        wait,
        lock_delay_us: 0,
        label: None,
    }))
}

const BOUND: Tenure = Tenure { ttl_us: None, session: true };

#[test]
fn threads_publish_consume_and_lock() {
    const EACH: u32 = 300;
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path(), small()).expect("a new directory opens");
    User::new(&node).declare("work");
    let inside = std::sync::atomic::AtomicU32::new(0);
    let tokens = std::sync::Mutex::new(Vec::new());
    let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let started = std::time::Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..3_u32 {
            let mut user = User::new(&node);
            scope.spawn(move || {
                for i in 0..EACH {
                    let body = [thread.to_le_bytes(), i.to_le_bytes()].concat();
                    user.ask(publish("work", body)).expect("published");
                }
            });
        }
        for _ in 0..3 {
            let mut user = User::new(&node);
            let seen = &seen;
            scope.spawn(move || {
                user.consume("work", 5);
                loop {
                    let mut notices = std::mem::take(&mut user.others);
                    let short = Duration::from_millis(20);
                    user.client.receive(&mut notices, Some(short)).expect("the node runs");
                    for (_, notice) in notices {
                        let Notice::Delivery(parts) = notice else { panic!("{notice:?}") };
                        let received = Received::from(parts);
                        let body = received.message().expect("a message").body.to_vec();
                        let done = user.ask(Op::Settle(received.delivery.receipt, Verdict::Ack));
                        assert_eq!(done, Ok(Outcome::Settled(1)));
                        assert!(seen.lock().expect("nobody panicked").insert(body), "twice");
                    }
                    if seen.lock().expect("nobody panicked").len() == 3 * EACH as usize {
                        break;
                    }
                    assert!(started.elapsed() < PATIENCE, "not everything came in time");
                }
            });
        }
        for _ in 0..3 {
            let mut user = User::new(&node);
            let (inside, tokens) = (&inside, &tokens);
            scope.spawn(move || {
                for hold in 0..40 {
                    let granted = user.ask(acquire("one", hold, BOUND, Wait::Forever));
                    let Ok(Outcome::Granted { token, .. }) = granted else { panic!("{granted:?}") };
                    assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    tokens.lock().expect("nobody panicked").push(token);
                    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    let hold = HoldRef { name: name("one"), token, hold };
                    user.ask(Op::Release(hold)).expect("released");
                }
            });
        }
    });
    assert_eq!(seen.into_inner().expect("nobody panicked").len(), 3 * EACH as usize);
    let tokens = tokens.into_inner().expect("nobody panicked");
    assert!(tokens.is_sorted() && tokens.len() == 120, "tokens rise in the order of holding");
    node.close().expect("it closes");
    // What was settled stays settled, and tokens go on from where they were.
    let node = Node::open(directory.path(), small()).expect("it opens again");
    assert_eq!(node.metrics().read().messages, 0);
    let mut user = User::new(&node);
    let ttl = Tenure { ttl_us: Some(SECOND), session: false };
    match user.ask(acquire("one", 1, ttl, Wait::No)) {
        Ok(Outcome::Granted { token, .. }) => assert!(token > tokens[tokens.len() - 1]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_inbox_is_said_to_be_full() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options { inbox_commands: 4, ..small() };
    let node = Node::open(directory.path(), options).expect("it opens");
    let mut user = User::new(&node);
    user.declare("q");
    let (mut accepted, mut overloaded) = (0, 0);
    while overloaded == 0 {
        let ticket = user.client.ticket();
        let op = publish("q", vec![0; 64 << 10]);
        let command = Command { ticket, session: user.session, request: None, op };
        match user.client.try_send(command) {
            Ok(()) => accepted += 1,
            Err((_, NodeError::Overloaded)) => overloaded += 1,
            Err((_, other)) => panic!("{other}"),
        }
        assert!(accepted < 100_000, "the inbox is never full");
    }
    // Everything that was accepted is answered.
    let mut answered = 0;
    while answered < accepted {
        let mut notices = Vec::new();
        user.client.receive(&mut notices, Some(PATIENCE)).expect("the node runs");
        assert!(!notices.is_empty(), "{answered} of {accepted} answers came in time");
        answered += notices.len();
    }
    assert_eq!(node.metrics().read().messages, accepted as u64);
}

#[test]
fn clients_that_wait_are_told_that_it_closed() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path(), small()).expect("it opens");
    let mut holder = User::new(&node);
    holder.ask(acquire("busy", 1, BOUND, Wait::No)).expect("granted");
    let mut waiter = User::new(&node);
    let waiting = std::thread::spawn(move || {
        let op = acquire("busy", 2, BOUND, Wait::Forever);
        waiter.client.call(waiter.session, op, PATIENCE, &mut waiter.others)
    });
    // It waits once the lock's view says so.
    loop {
        match holder.ask(Op::InspectLock(name("busy"))) {
            Ok(Outcome::Lock(view)) if view.waiting == 1 => break,
            Ok(Outcome::Lock(_)) => std::thread::yield_now(),
            other => panic!("{other:?}"),
        }
    }
    node.close().expect("it closes");
    let told = waiting.join().expect("no panic");
    assert!(matches!(told, Err(NodeError::Stopped(_))), "{told:?}");
    let op = Op::InspectLock(name("busy"));
    let told = holder.client.send(holder.session, None, op);
    assert!(matches!(told, Err(NodeError::Stopped(_))), "{told:?}");
    let ticket = holder.client.ticket();
    let op = Op::KeepAlive;
    let command = Command { ticket, session: holder.session, request: None, op };
    let told = holder.client.try_send(command);
    assert!(matches!(told, Err((_, NodeError::Stopped(_)))), "{told:?}");
    drop(holder);
}

#[test]
fn a_client_may_go_with_notices_outstanding() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path(), small()).expect("it opens");
    let mut first = User::new(&node);
    first.declare("q");
    first.consume("q", 100);
    for i in 0..50_u8 {
        first.client.send(first.session, None, publish("q", [i])).expect("the node runs");
    }
    let session = first.session;
    drop(first);
    // Its number goes to the next client, who must not get what was meant for it.
    let mut second = User::new(&node);
    assert!(second.others.is_empty(), "{:?}", second.others);
    // The session lives on by its own rules; ended by another's hand, its deliveries come back.
    let closing =
        second.client.call(session, Op::CloseSession { lost: true }, PATIENCE, &mut Vec::new());
    assert_eq!(closing, Ok(Ok(Outcome::Done)));
    second.consume("q", 100);
    let mut bodies: Vec<u8> =
        (0..50).map(|_| second.next().message().expect("a message").body[0]).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, (0..50).collect::<Vec<u8>>());
}

#[test]
fn who_does_not_read_loses_the_mailbox_and_nobody_else_suffers() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options { mailbox_notices: 10, ..small() };
    let node = Node::open(directory.path(), options).expect("it opens");
    let deaf = node.client();
    let mut other = User::new(&node);
    for _ in 0..50 {
        deaf.send(SessionId::NONE, None, Op::InspectLock(name("x"))).expect("the node runs");
        other.ask(Op::InspectLock(name("x"))).expect("an answer");
    }
    let mut notices = Vec::new();
    deaf.receive(&mut notices, None).expect("what came before the limit can be read");
    assert!(notices.len() <= 10);
    match deaf.receive(&mut notices, None) {
        Err(NodeError::Stopped(why)) => assert!(why.contains("10 notices"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(node.metrics().read().notices_dropped > 0);
}

fn refused(path: &Path) -> OpenError {
    match Node::open(path, small()) {
        Ok(_) => panic!("{path:?} must not open"),
        Err(error) => error,
    }
}

#[test]
fn a_directory_belongs_to_one_node() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path(), small()).expect("it opens");
    let error = refused(directory.path());
    assert!(matches!(error, OpenError::Disk(OpenDiskError::Locked { .. })), "{error}");
    let said = error.to_string();
    assert!(said.contains("in use by") && said.contains(&std::process::id().to_string()), "{said}");
    node.close().expect("it closes");
    Node::open(directory.path(), small()).expect("the next one may").close().expect("it closes");
}

#[test]
fn foreign_and_newer_directories_are_left_alone() {
    let foreign = tempfile::tempdir().expect("a directory");
    std::fs::write(foreign.path().join("thesis.txt"), "years of work").expect("written");
    let error = refused(foreign.path());
    assert!(matches!(error, OpenError::Disk(OpenDiskError::Foreign { .. })), "{error}");
    assert!(error.to_string().contains("thesis.txt"), "{error}");
    let names: Vec<_> = std::fs::read_dir(foreign.path()).expect("listed").collect();
    assert_eq!(names.len(), 1, "nothing was added");

    let newer = tempfile::tempdir().expect("a directory");
    Node::open(newer.path(), small()).expect("it opens").close().expect("it closes");
    let format = newer.path().join("FORMAT");
    let text = std::fs::read_to_string(&format).expect("read").replace("format 1", "format 2");
    std::fs::write(&format, text).expect("written");
    let said = refused(newer.path()).to_string();
    assert!(said.contains("format 2") && said.contains("start a release"), "{said}");

    let file = foreign.path().join("thesis.txt");
    let error = refused(&file);
    assert!(matches!(error, OpenError::Disk(OpenDiskError::NotDirectory { .. })), "{error}");
}

#[test]
fn a_read_only_directory_says_so() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory");
    let inner = directory.path().join("data");
    std::fs::create_dir(&inner).expect("made");
    let mode = |mode| std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(mode));
    mode(0o555).expect("changed");
    // The mode counts, even for the superuser, whom it would not stop.
    let error = refused(&inner);
    assert!(matches!(error, OpenError::Disk(OpenDiskError::ReadOnly { .. })), "{error}");
    assert!(error.to_string().contains("0555"), "{error}");
    mode(0o755).expect("changed");
}

#[test]
fn every_durability_survives_a_clean_close() {
    for durability in [Durability::Always, Durability::Interval(5_000), Durability::None] {
        let directory = tempfile::tempdir().expect("a directory");
        let options = Options { durability, ..small() };
        let node = Node::open(directory.path(), options.clone()).expect("it opens");
        let syncs = node.metrics().read().syncs;
        let mut user = User::new(&node);
        user.declare("q");
        for i in 0..20_u8 {
            user.ask(publish("q", [i])).expect("published");
        }
        if durability == Durability::Always {
            assert!(node.metrics().read().syncs >= syncs + 20, "one sync for each confirm");
        }
        if durability == Durability::None {
            assert_eq!(node.metrics().read().syncs, syncs, "nobody asked for a sync");
        }
        drop(user);
        node.close().expect("it closes");
        let node = Node::open(directory.path(), options).expect("it opens again");
        let mut user = User::new(&node);
        user.consume("q", 20);
        for i in 0..20_u8 {
            assert_eq!(user.next().message().expect("a message").body, [i]);
        }
    }
}

#[test]
fn after_an_interval_everything_is_durable_though_nobody_waited() {
    let directory = tempfile::tempdir().expect("a directory");
    let durability = Durability::Interval(20_000);
    let node = Node::open(directory.path(), Options { durability, ..small() }).expect("it opens");
    let mut user = User::new(&node);
    user.declare("q");
    for i in 0..50_u8 {
        user.ask(publish("q", [i])).expect("published");
    }
    let told = node.metrics().read().sequence;
    let patience = Instant::now() + Duration::from_secs(20);
    while node.metrics().read().durable_sequence < told {
        assert!(Instant::now() < patience, "{:?}", node.metrics().read());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(node.metrics().read().syncs > 0);
}

#[test]
fn what_fits_into_no_segment_is_refused_and_harms_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path(), small()).expect("it opens");
    let mut user = User::new(&node);
    user.declare("q");
    let answer = user.ask(publish("q", vec![0; 2 << 20]));
    assert!(matches!(answer, Err(Refusal::TooLarge(..))), "{answer:?}");
    user.ask(publish("q", vec![1; 512 << 10])).expect("half a segment fits");
    let config = QueueConfig { durable: false, ..QueueConfig::default() };
    user.ask(Op::DeclareQueue(name("other"), Box::new(config))).expect("it goes on");
    let lasting = Tenure { ttl_us: Some(3600 * SECOND), session: true };
    // A session that comes back with many holds gets them all.
    let mut tokens: Vec<Token> = Vec::new();
    for lock in 0..4_000 {
        let lock = format!("lock-{lock}");
        user.client
            .send(user.session, None, acquire(&lock, 1, lasting, Wait::No))
            .expect("the node runs");
    }
    while tokens.len() < 4_000 {
        let mut notices = Vec::new();
        user.client.receive(&mut notices, Some(PATIENCE)).expect("the node runs");
        assert!(!notices.is_empty(), "{} grants came in time", tokens.len());
        tokens.extend(notices.into_iter().filter_map(|(_, notice)| match notice {
            Notice::Reply(Ok(Outcome::Granted { token, .. })) => Some(token),
            _ => None,
        }));
    }
    node.close().expect("it closes");
    let node = Node::open(directory.path(), small()).expect("it opens again");
    let mut again = User::new(&node);
    let resume = Some(user.session);
    let resumed = again.ask(Op::OpenSession { ttl_us: None, resume, label: None });
    assert_eq!(resumed, Ok(Outcome::Session { id: user.session, resumed: true }));
    for lock in [0, 1_999, 3_999] {
        match again.ask(Op::InspectLock(name(&format!("lock-{lock}")))) {
            Ok(Outcome::Lock(view)) => assert_eq!(view.holders[0].session, user.session),
            other => panic!("{other:?}"),
        }
    }
    node.close().expect("it closes");
}

#[test]
fn peek_brings_the_messages_and_leaves_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::open(directory.path(), small()).expect("it opens");
    let mut user = User::new(&node);
    user.declare("q");
    for i in 0..5_u8 {
        user.ask(publish("q", [i; 3])).expect("published");
    }
    let mut others = Vec::new();
    let looked = user.client.peek(user.session, name("q"), 3, PATIENCE, &mut others);
    let looked = looked.expect("an answer").expect("a queue");
    let bodies: Vec<Vec<u8>> =
        looked.iter().map(|one| one.message().expect("a message").body.to_vec()).collect();
    assert_eq!(bodies, [[0; 3], [1; 3], [2; 3]]);
    assert_eq!(looked[0].peeked.attempts, 0);
    // It is a notice of its own, and nothing else comes.
    let ticket = user.client.send(user.session, None, Op::Peek(name("q"), 1)).expect("it runs");
    user.client.receive(&mut others, Some(PATIENCE)).expect("it runs");
    match &others[..] {
        [(to, Notice::Peeked(list))] => assert_eq!((*to, list.len()), (ticket.0 as u32, 1)),
        other => panic!("{other:?}"),
    }
    // Who only calls gets what the queue knows.
    match user.ask(Op::Peek(name("q"), 9)) {
        Ok(Outcome::Peeked(list)) => assert_eq!(list.len(), 5),
        other => panic!("{other:?}"),
    }
    let none = user.client.peek(user.session, name("none"), 3, PATIENCE, &mut others);
    assert_eq!(none, Ok(Err(Refusal::NoQueue)));
    // Nothing was taken.
    user.consume("q", 5);
    for i in 0..5_u8 {
        assert_eq!(user.next().message().expect("a message").body, [i; 3]);
    }
    node.close().expect("it closes");
}

#[test]
fn a_peek_brings_no_more_than_a_mebibyte_beside_the_first() {
    let directory = tempfile::tempdir().expect("a directory");
    let limits = leasehold_core::Limits { segment_bytes: 8 << 20, ..Default::default() };
    let options = Options { limits, ..Options::default() };
    let node = Node::open(directory.path(), options).expect("it opens");
    let mut user = User::new(&node);
    user.declare("q");
    user.ask(publish("q", vec![0; 3 << 20])).expect("published");
    for _ in 0..6 {
        user.ask(publish("q", vec![1; 300 << 10])).expect("published");
    }
    let mut peek = || {
        let looked = user.client.peek(user.session, name("q"), 100, PATIENCE, &mut user.others);
        let looked = looked.expect("an answer").expect("a queue");
        looked.iter().map(|one| one.message().expect("a message").body.len()).collect::<Vec<_>>()
    };
    let small = 300 << 10;
    assert_eq!(peek(), [3 << 20, small, small, small]);
    node.close().expect("it closes");
}

#[test]
fn a_node_in_memory_does_what_one_on_disk_does_and_forgets_it() {
    let node = Node::memory(Options::default()).expect("it starts");
    let mut user = User::new(&node);
    user.declare("q");
    let granted = user.ask(acquire("one", 1, BOUND, Wait::No));
    assert!(matches!(granted, Ok(Outcome::Granted { .. })), "{granted:?}");
    user.ask(publish("q", vec![7; 3 << 20])).expect("published");
    let large = user.ask(publish("q", vec![7; 5 << 20]));
    assert!(matches!(large, Err(Refusal::TooLarge(..))), "{large:?}");
    // A watch ends when its own wait does, on the node's own time.
    let known = None;
    let wait = Wait::AtMost(20_000);
    match user.ask(Op::WatchLock { name: name("free"), known, wait }) {
        Ok(Outcome::Lock(view)) => assert!(view.holders.is_empty()),
        other => panic!("{other:?}"),
    }
    user.consume("q", 1);
    assert_eq!(user.next().message().expect("a message").body.len(), 3 << 20);
    node.close().expect("it closes");
    let node = Node::memory(small()).expect("another starts");
    let gone = User::new(&node).ask(Op::InspectQueue(name("q")));
    assert_eq!(gone, Err(Refusal::NoQueue));
}

/// 128 MiB go through a disk in memory; what is left of them is what a few segments hold.
#[test]
fn what_was_settled_leaves_memory() {
    let limits = leasehold_core::Limits { segment_bytes: 1 << 20, ..Default::default() };
    let options = Options { limits, checkpoint_bytes: 1 << 20, ..Options::default() };
    let (disk, clock) = (MemDisk::new(), OsClock::new());
    let mut shard = Shard::open(disk.clone(), &clock, 1, options).expect("it opens");
    let mut ticket = 0;
    let mut turn = |shard: &mut Shard<MemDisk>, op: Option<(SessionId, Op)>| {
        shard.begin(&clock);
        if let Some((session, op)) = op {
            ticket += 1;
            shard.submit(Command { ticket: Ticket(ticket), session, request: None, op });
        }
        shard.finish(&clock);
        shard.take_ready().into_iter().map(|(_, notice)| notice).collect::<Vec<_>>()
    };
    let open = Op::OpenSession { ttl_us: None, resume: None, label: None };
    let session = match &turn(&mut shard, Some((SessionId::NONE, open)))[..] {
        [Notice::Reply(Ok(Outcome::Session { id, .. }))] => *id,
        other => panic!("{other:?}"),
    };
    let declare = Op::DeclareQueue(name("q"), Box::default());
    turn(&mut shard, Some((session, declare)));
    let consume = Consume {
        queue: name("q"),
        credit: 1,
        once: None,
        no_ack: true,
        exclusive: false,
        label: None,
    };
    turn(&mut shard, Some((session, Op::Consume(Box::new(consume)))));
    let before = disk.memory_bytes();
    assert!(before < 1 << 20, "an idle node has {before} bytes of files");
    for i in 0..512 {
        let told = turn(&mut shard, Some((session, publish("q", vec![i as u8 | 1; 256 << 10]))));
        if i == 0 {
            let delivered = told.iter().any(|notice| matches!(notice, Notice::Delivery(_)));
            assert!(delivered, "{told:?}");
            let credit = |notice: &Notice| match notice {
                Notice::Delivery(parts) => Some(parts.0.consumer),
                _ => None,
            };
            let consumer = told.iter().find_map(credit).expect("just looked");
            turn(&mut shard, Some((session, Op::Credit(consumer, 10_000))));
        }
    }
    // Checkpoints are written by a thread of the journal: wait for it.
    let started = std::time::Instant::now();
    while disk.memory_bytes() > 16 << 20 {
        turn(&mut shard, None);
        assert!(started.elapsed() < PATIENCE, "{} bytes are left", disk.memory_bytes());
        std::thread::yield_now();
    }
    shard.close(&clock).expect("it closes");
}

/// Flips a bit of each record, right in front of its body; bodies consist of one letter each.
fn flip(directory: &Path, letters: &[u8]) {
    let segment = directory.join(format!("segment-{:016x}.log", 0));
    let bytes = std::fs::read(&segment).expect("the first segment is there");
    let file = std::fs::File::options().write(true).open(&segment).expect("it is writable");
    for &letter in letters {
        let body = bytes.windows(1000).position(|some| some.iter().all(|byte| *byte == letter));
        let at = body.expect("the body is there") - 1;
        file.write_all_at(&[bytes[at] ^ 1], at as u64).expect("it is written");
    }
}

#[test]
fn a_damaged_message_is_told_of_and_passed_over() {
    let directory = tempfile::tempdir().expect("a directory");
    // Memory keeps no more than the newest message.
    let options = Options { tail_cache_bytes: 0, read_cache_bytes: 0, ..small() };
    let node = Node::open(directory.path(), options.clone()).expect("it opens");
    let (mut one, mut stream) = (User::new(&node), User::new(&node));
    one.declare("q");
    let letters = *b"vwxyz";
    for letter in letters {
        one.ask(publish("q", [letter; 100 << 10])).expect("published");
    }
    flip(directory.path(), b"vwy");
    let once = |wait| {
        Op::Consume(Box::new(Consume {
            queue: name("q"),
            credit: 1,
            once: Some(wait),
            no_ack: false,
            exclusive: false,
            label: None,
        }))
    };
    // Whoever asks for one message is told, whether or not it would wait.
    for wait in [Wait::No, Wait::Forever] {
        let Err(Refusal::Unreadable(why)) = one.ask(once(wait)) else { panic!("it is damaged") };
        assert!(why.contains("at byte") && why.contains("segment-0"), "{why}");
    }
    // Who takes them as they come has its credit for those that can be read.
    stream.consume("q", 1);
    let x = stream.next();
    assert_eq!(x.message().expect("a message").body, [b'x'; 100 << 10]);
    stream.ask(Op::Settle(x.delivery.receipt, Verdict::Ack)).expect("settled");
    assert_eq!(stream.next().message().expect("a message").body, [b'z'; 100 << 10]);
    match one.ask(Op::InspectQueue(name("q"))) {
        Ok(Outcome::QueueView(view)) => assert_eq!((view.ready, view.in_flight), (0, 4)),
        other => panic!("{other:?}"),
    }
    assert_eq!(node.metrics().read().damaged_reads, 3);

    // Their session gives them back, as damaged as they were.
    one.ask(Op::CloseSession { lost: false }).expect("closed");
    let mut other = User::new(&node);
    assert!(matches!(other.ask(once(Wait::No)), Err(Refusal::Unreadable(_))));
    node.close().expect("it closes");
    // They are not lost: whole again, they are delivered.
    flip(directory.path(), b"vwy");
    let node = Node::open(directory.path(), options).expect("it opens again");
    let mut user = User::new(&node);
    user.consume("q", 10);
    for letter in *b"vwyz" {
        assert_eq!(user.next().message().expect("a message").body, [letter; 100 << 10]);
    }
}

#[test]
fn a_commit_is_counted_with_what_was_in_it() {
    let node = Node::memory(small()).expect("it opens");
    let mut user = User::new(&node);
    user.declare("q");
    let message = Message::new("x");
    let publish = |mandatory| leasehold_core::Publish {
        target: Target::QueueNamed(name("q")),
        message: message.clone(),
        mandatory,
    };
    let commit = leasehold_core::Commit {
        publishes: vec![publish(true), publish(false)],
        ..leasehold_core::Commit::default()
    };
    let answer = user.ask(Op::Commit(Box::new(commit)));
    assert!(matches!(answer, Ok(Outcome::Committed { .. })), "{answer:?}");
    let counters = node.metrics().read();
    assert_eq!((counters.published, counters.sessions), (2, 1));
}
