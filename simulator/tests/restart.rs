//! Short stories about restarts, told from the client's side.

use leasehold_core::{
    Acquire, Command, Consume, Due, Ending, HoldRef, Message, Mode, Name, Op, Outcome, Publish,
    Refusal, SessionId, Target, Tenure, Ticket, Token, Verdict, Wait, Wants,
};
use leasehold_env::Clock;
use leasehold_node::{Notice, Received, Shard};
use leasehold_simulator::audit;
use leasehold_simulator::clock::{HOUR, MS, SECOND, SimClock};
use leasehold_simulator::disk::{Crash, SimDisk};
use leasehold_simulator::workload::small_options;

/// A store and one who talks to it.
struct Story {
    disk: SimDisk,
    clock: SimClock,
    shard: Option<Shard<SimDisk>>,
    tickets: u64,
    told: Vec<(Ticket, Notice)>,
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a good name")
}

impl Story {
    fn new() -> Self {
        let mut story = Self {
            disk: SimDisk::new(1),
            clock: SimClock::new(1),
            shard: None,
            tickets: 0,
            told: Vec::new(),
        };
        story.open();
        story
    }

    fn open(&mut self) {
        let shard = Shard::open(self.disk.clone(), &self.clock, 1, small_options());
        self.shard = Some(shard.expect("it opens"));
    }

    fn restart(&mut self, mode: Crash, wall_step_us: i64) {
        self.shard = None;
        self.disk = self.disk.crash(mode, 9);
        self.clock.advance(SECOND);
        self.clock.step_wall(wall_step_us);
        self.clock.set_monotonic(5);
        self.told.clear();
        self.open();
    }

    fn shard(&mut self) -> &mut Shard<SimDisk> {
        self.shard.as_mut().expect("it is open")
    }

    fn ask_as(&mut self, session: SessionId, op: Op) -> Result<Outcome, Refusal> {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let shard = self.shard.as_mut().expect("it is open");
        shard.begin(&self.clock);
        shard.submit(Command { ticket, session, request: None, op });
        shard.finish(&self.clock);
        self.told.extend(shard.take_ready());
        let reply =
            |(to, notice): &(Ticket, Notice)| *to == ticket && matches!(notice, Notice::Reply(_));
        let i = self.told.iter().position(reply).expect("an answer in the same turn");
        match self.told.remove(i).1 {
            Notice::Reply(result) => result,
            _ => unreachable!("just looked"),
        }
    }

    fn ask(&mut self, op: Op) -> Result<Outcome, Refusal> {
        self.ask_as(SessionId::NONE, op)
    }

    /// Lets time pass in steps, as a shard that runs would see it.
    fn pass(&mut self, us: u64) {
        for _ in 0..20 {
            self.clock.advance(us / 20);
            let shard = self.shard.as_mut().expect("it is open");
            shard.begin(&self.clock);
            shard.finish(&self.clock);
            self.told.extend(shard.take_ready());
        }
    }

    fn session(&mut self, ttl_us: Option<u64>, resume: Option<SessionId>) -> (SessionId, bool) {
        match self.ask(Op::OpenSession { ttl_us, resume, label: None }) {
            Ok(Outcome::Session { id, resumed }) => (id, resumed),
            other => panic!("{other:?}"),
        }
    }

    fn lock(&mut self, session: SessionId, tenure: Tenure) -> Result<Outcome, Refusal> {
        let acquire = Acquire {
            wants: Wants::One(name("nightly"), Mode::Exclusive),
            hold: 1,
            reentrant: false,
            tenure,
            wait: Wait::No,
            lock_delay_us: 0,
            label: None,
        };
        self.ask_as(session, Op::Acquire(Box::new(acquire)))
    }

    fn locked(&mut self, session: SessionId, tenure: Tenure) -> Token {
        match self.lock(session, tenure) {
            Ok(Outcome::Granted { token, .. }) => token,
            other => panic!("{other:?}"),
        }
    }

    fn holder(&mut self) -> Option<(Token, Option<u64>)> {
        match self.ask(Op::InspectLock(name("nightly"))) {
            Ok(Outcome::Lock(view)) => view.holders.first().map(|h| (h.token, h.left_us)),
            other => panic!("{other:?}"),
        }
    }

    fn declare(&mut self) {
        let declare = Op::DeclareQueue(name("q"), Box::default());
        self.ask(declare).expect("declared");
    }

    fn publish(&mut self, body: &[u8], due: Due) {
        let mut message = Message::new(body);
        if due != Due::Now {
            message.more().due = due;
        }
        let publish = Publish { target: Target::QueueNamed(name("q")), message, mandatory: true };
        self.ask(Op::Publish(Box::new(publish))).expect("published");
    }

    fn consume(&mut self, session: SessionId, credit: u32) {
        let consume = Consume {
            queue: name("q"),
            credit,
            once: None,
            no_ack: false,
            exclusive: false,
            label: None,
        };
        self.ask_as(session, Op::Consume(Box::new(consume))).expect("consuming");
    }

    /// The deliveries told so far.
    fn deliveries(&mut self) -> Vec<Received> {
        let told = std::mem::take(&mut self.told);
        let parts = told.into_iter().filter_map(|(_, notice)| match notice {
            Notice::Delivery(parts) => Some(Received::from(parts)),
            _ => None,
        });
        parts.collect()
    }

    fn same_as_replayed(&mut self) {
        let shard = self.shard.as_ref().expect("it is open");
        shard.core().check();
        audit::same_as_replayed(shard, &self.disk, &small_options()).expect("replay is state");
    }
}

fn ttl(us: u64) -> Tenure {
    Tenure { ttl_us: Some(us), session: false }
}

#[test]
fn a_lock_survives_with_its_token_and_time() {
    for mode in [Crash::KeepAll, Crash::LoseAll] {
        let mut story = Story::new();
        let token = story.locked(SessionId::NONE, ttl(10 * SECOND));
        story.pass(3 * SECOND);
        // An event every now and then tells the shard how late it is.
        story.declare();
        story.restart(mode, 0);
        assert_eq!(story.holder(), Some((token, Some(7 * SECOND))));
        assert!(matches!(story.lock(SessionId::NONE, ttl(SECOND)), Err(Refusal::Busy { .. })));
        let hold = HoldRef { name: name("nightly"), token, hold: 1 };
        assert_eq!(
            story.ask(Op::Renew { hold: hold.clone(), ttl_us: None }),
            Ok(Outcome::Renewed { left_us: Some(10 * SECOND) })
        );
        assert_eq!(story.ask(Op::Release(hold)), Ok(Outcome::Released { entries: 0 }));
        assert!(story.locked(SessionId::NONE, ttl(SECOND)) > token);
    }
}

#[test]
fn a_stepped_wall_clock_never_frees_a_lock_early() {
    for hours in [-1, 1] {
        let mut story = Story::new();
        let token = story.locked(SessionId::NONE, ttl(10 * SECOND));
        story.restart(Crash::LoseAll, hours * HOUR as i64);
        assert_eq!(story.holder(), Some((token, Some(10 * SECOND))));
        story.pass(9 * SECOND);
        story.clock.step_wall(hours * HOUR as i64);
        assert!(matches!(story.lock(SessionId::NONE, ttl(SECOND)), Err(Refusal::Busy { .. })));
        story.pass(SECOND + 2 * MS);
        assert!(story.locked(SessionId::NONE, ttl(SECOND)) > token);
    }
}

#[test]
fn delayed_messages_come_once_whatever_the_wall_clock_does() {
    for (hours, mode) in [(-1, Crash::LoseAll), (0, Crash::KeepAll), (1, Crash::LoseAll)] {
        let mut story = Story::new();
        story.declare();
        // More than are kept in memory, so that some lie in runs.
        for i in 0..60_u8 {
            let due = Due::After(20 * SECOND + u64::from(i) * MS);
            story.publish(&[i], due);
        }
        let before = story.clock.wall_us();
        story.restart(mode, hours * HOUR as i64);
        let (session, _) = story.session(None, None);
        story.consume(session, 100);
        let mut came: Vec<u8> = Vec::new();
        for _ in 0..30 {
            let deliveries = story.deliveries();
            let late = story.clock.wall_us() >= before + 20 * SECOND || hours < 0;
            assert!(deliveries.is_empty() || late, "too early");
            for received in deliveries {
                came.push(received.message().expect("a message").body[0]);
            }
            story.pass(SECOND);
        }
        came.sort_unstable();
        assert_eq!(came, (0..60).collect::<Vec<u8>>(), "stepped by {hours} hours");
        story.same_as_replayed();
    }
}

#[test]
fn a_session_that_comes_back_keeps_what_it_held() {
    let bound = Tenure { ttl_us: None, session: true };
    let mut story = Story::new();
    let (session, resumed) = story.session(Some(5 * SECOND), None);
    assert!(!resumed);
    let token = story.locked(session, bound);
    let grace = small_options().limits.restart_grace_us;

    story.restart(Crash::LoseAll, 0);
    assert_eq!(story.holder(), Some((token, Some(grace))));
    assert_eq!(story.session(Some(5 * SECOND), Some(session)), (session, true));
    assert_eq!(story.holder(), Some((token, None)), "its tenure applies again");
    story.pass(4 * SECOND);
    story.ask_as(session, Op::KeepAlive).expect("it lives");
    story.pass(4 * SECOND);
    assert_eq!(story.holder(), Some((token, None)));

    // Again, and nobody comes: after the grace the lock is free.
    story.restart(Crash::KeepAll, 0);
    story.pass(grace - 10 * MS);
    assert!(matches!(story.lock(SessionId::NONE, ttl(SECOND)), Err(Refusal::Busy { .. })));
    story.pass(20 * MS);
    assert!(story.locked(SessionId::NONE, ttl(SECOND)) > token);
    let resume = Op::OpenSession { ttl_us: None, resume: Some(session), label: None };
    assert_eq!(story.ask(resume), Err(Refusal::NoSession(session)));
    assert!(story.told.iter().all(|(_, n)| !matches!(n, Notice::HoldEnded(_, Ending::Released))));
}

#[test]
fn thousands_of_messages_come_back_from_checkpoint_and_replay() {
    let mut story = Story::new();
    story.declare();
    for i in 0..5_000_u32 {
        story.publish(&i.to_le_bytes(), Due::Now);
    }
    assert!(story.shard().metrics().read().checkpoints > 10);
    assert!(story.shard().core().state().resident_entries() <= 128);
    story.same_as_replayed();
    let before = story.shard().core().state().all_cells().len();
    story.restart(Crash::LoseAll, 0);
    story.same_as_replayed();
    assert_eq!(story.shard().core().state().messages(), 5_000);
    assert!(story.shard().core().state().all_cells().len().abs_diff(before) < 5);
    let (session, _) = story.session(None, None);
    story.consume(session, 50);
    for expected in 0..5_000_u32 {
        if story.told.is_empty() {
            story.pass(20);
        }
        let (_, notice) = story.told.remove(0);
        let Notice::Delivery(parts) = notice else { panic!("{notice:?}") };
        let received = Received::from(parts);
        assert_eq!(received.message().expect("a message").body, expected.to_le_bytes());
        let settle = Op::Settle(received.delivery.receipt, Verdict::Ack);
        assert_eq!(story.ask_as(session, settle), Ok(Outcome::Settled(1)));
    }
    assert_eq!(story.shard().core().state().messages(), 0);
    story.same_as_replayed();
}

fn segments(story: &Story) -> usize {
    story.disk.files().keys().filter(|name| name.starts_with("segment-")).count()
}

#[test]
fn one_old_message_does_not_keep_the_journal() {
    let mut story = Story::new();
    story.declare();
    story.publish(b"the old one", Due::Now);
    story.publish(b"late", Due::After(24 * HOUR));
    let (session, _) = story.session(None, None);
    story.consume(session, 20);
    let old = story.deliveries().remove(0);
    let mut most = 0;
    for round in 0..3_000_u32 {
        story.publish(&[round as u8; 700], Due::Now);
        for received in story.deliveries() {
            let settle = Op::Settle(received.delivery.receipt, Verdict::Ack);
            story.ask_as(session, settle).expect("acknowledged");
        }
        story.clock.advance(MS);
        if round > 500 {
            most = most.max(segments(&story));
        }
    }
    // 3,000 messages of 700 bytes fill more than 40 segments of 64 KiB.
    let counters = story.shard().metrics().read();
    assert!(counters.segments_retired > 30, "{counters:?}");
    assert!(counters.relocated > 0 && most <= 12, "up to {most} segments: {counters:?}");
    assert!(counters.checkpoints > 20);

    // It was moved more than once while it was out; it is the same, and the receipt is good.
    let nack = Op::Settle(old.delivery.receipt, Verdict::Nack { delay_us: 0 });
    assert_eq!(story.ask_as(session, nack), Ok(Outcome::Settled(1)));
    let again = story.deliveries().remove(0);
    assert_eq!(again.message().expect("a message").body, b"the old one");
    assert!(again.delivery.redelivered);
    story.restart(Crash::LoseAll, 0);
    story.same_as_replayed();
    let (session, _) = story.session(None, None);
    story.consume(session, 20);
    let again = story.deliveries().remove(0);
    assert_eq!(again.message().expect("a message").body, b"the old one");
}
