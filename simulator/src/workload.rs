//! Clients that do what clients do, drawn from a seed, against a shard that is turned by hand.
//!
//! A [`Simulation`] owns the disk, the clock, the shard and the clients' books. Each turn lets some
//! time pass, lets clients send a few commands, ends the turn and enters every notice in the books,
//! which object when a law is broken. A crash keeps the books and the disk's surviving image and
//! drops everything else. The limits are tiny, so that checkpoints, sweeps, runs, evictions and
//! retired segments happen within a few dozen turns.

mod answers;
mod keys;
mod wishes;

use std::collections::BTreeMap;

use leasehold_core::outcome::{HolderView, LockView};
use leasehold_core::queue::DeadLetter;
use leasehold_core::{
    Command, Limits, Mode, Name, Op, Outcome, QueueConfig, Receipt, RequestId, SessionId, Ticket,
};
use leasehold_env::Disk;
use leasehold_node::{Notice, Options, Shard};

use crate::audit;
use crate::clock::{MS, SECOND, SimClock};
use crate::disk::{Chance, Crash, SimDisk};
use crate::verdict::{Bundle, Hold, Lawful, Ledger, Violation, demand};

/// The queues: their names, and how each is declared.
pub const QUEUES: [&str; 5] = ["plain", "ranked", "keyed", "late", "dead"];
/// The lane of dead letters.
const DEAD: usize = 4;
const LOCKS: usize = 6;
const REGISTERS: usize = 5;
const GRACE_US: u64 = 10 * SECOND;

/// Limits so small that everything happens all the time.
pub fn small_options() -> Options {
    Options {
        limits: Limits {
            segment_bytes: 64 << 10,
            page_entries: 16,
            resident_entries: 64,
            delayed_entries: 16,
            headers_bytes: 2 << 10,
            value_bytes: 4 << 10,
            body_bytes: 16 << 10,
            decision_bytes: 16 << 10,
            multi_lock_max: 8,
            deaths_max: 4,
            restart_grace_us: GRACE_US,
            ..Limits::default()
        },
        checkpoint_bytes: 32 << 10,
        checkpoint_cells: 32,
        tail_cache_bytes: 16 << 10,
        read_cache_bytes: 16 << 10,
        ..Options::default()
    }
}

/// What a simulation's clients are like.
#[derive(Clone, Debug)]
pub struct Habits {
    /// How the shard is opened.
    pub options: Options,
    /// How many clients there are.
    pub clients: usize,
    /// Commands of one turn, at most.
    pub commands_max: u64,
    /// Percentage of commands that publish.
    pub publish_percent: u64,
}

impl Default for Habits {
    fn default() -> Self {
        Self { options: small_options(), clients: 4, commands_max: 8, publish_percent: 30 }
    }
}

/// One client: a session and what it believes to have.
#[derive(Debug, Default)]
struct Client {
    session: Option<SessionId>,
    opening: bool,
    /// The shard was restarted: it has to take its session up again.
    resumes: bool,
    /// Queues it consumes from.
    consuming: Vec<usize>,
    /// Deliveries it has not settled.
    open: Vec<(Receipt, u64)>,
    /// Receipts of earlier lives: none of them may be good.
    stale: Vec<Receipt>,
}

/// A publish to ask for once more.
#[derive(Clone, Copy, Debug)]
struct Repeat {
    id: u64,
    request: RequestId,
    /// Whether the audit found that it had not happened; `None` before the audit.
    fresh: Option<bool>,
    /// Shard time until which the shard certainly remembers the request.
    until: u64,
}

/// What a ticket was for.
#[derive(Clone, Debug)]
enum Pending {
    Session { client: usize, ttl_us: Option<u64> },
    Consume { client: usize, queue: usize },
    Publish(u64),
    Settle { id: u64, ack: bool, delayed: bool },
    Stale,
    Acquire { client: usize, hold: Hold },
    Renew(u64),
    Release(u64),
    Write(usize, Option<u64>),
    Read(usize),
    Commit(Bundle),
    Other,
}

/// A shard, its world and its clients.
pub struct Simulation<D: Disk> {
    /// The disk as it is now.
    pub disk: SimDisk,
    /// The clock.
    pub clock: SimClock,
    /// Where choices come from.
    pub chance: Chance,
    /// What clients know.
    pub ledger: Ledger,
    habits: Habits,
    wrap: fn(SimDisk) -> D,
    shard: Option<Shard<D>>,
    clients: Vec<Client>,
    pending: BTreeMap<u64, Pending>,
    /// Publishes whose answer is unknown: they are repeated with the same request id.
    repeats: Vec<Repeat>,
    requests: BTreeMap<u64, RequestId>,
    serial: u64,
    turns: u64,
}

impl Simulation<SimDisk> {
    /// A simulation on an honest disk, not opened yet.
    pub fn new(seed: u64, habits: Habits) -> Self {
        Self::on(seed, habits, |disk| disk)
    }
}

impl<D: Disk> Simulation<D> {
    /// A simulation in which `wrap` stands between the shard and the disk.
    pub fn on(seed: u64, habits: Habits, wrap: fn(SimDisk) -> D) -> Self {
        let clients = (0..habits.clients).map(|_| Client::default()).collect();
        Self {
            disk: SimDisk::new(seed),
            clock: SimClock::new(seed),
            chance: Chance::new(seed),
            ledger: Ledger::default(),
            habits,
            wrap,
            shard: None,
            clients,
            pending: BTreeMap::new(),
            repeats: Vec::new(),
            requests: BTreeMap::new(),
            serial: 0,
            turns: 0,
        }
    }

    /// The shard, if it is open.
    pub fn shard(&self) -> Option<&Shard<D>> {
        self.shard.as_ref()
    }

    /// What it was opened with.
    pub fn options(&self) -> &Options {
        &self.habits.options
    }

    /// Opens the shard and declares the queues. False when the disk stopped on the way.
    ///
    /// # Errors
    /// When a directory is refused that must be accepted.
    pub fn open(&mut self) -> Lawful<bool> {
        let disk = (self.wrap)(self.disk.clone());
        let seed = self.chance.next_u64();
        match Shard::open(disk, &self.clock, seed, self.habits.options.clone()) {
            Ok(shard) => self.shard = Some(shard),
            Err(_) if self.disk.stopped() => return Ok(false),
            Err(error) => return Err(Violation(format!("the store is refused: {error}"))),
        }
        self.ledger.reopened();
        let ops = (0..QUEUES.len())
            .map(|queue| Op::DeclareQueue(name(QUEUES[queue]), Box::new(config(queue))));
        let ops: Vec<Op> = ops.collect();
        self.begin();
        for op in ops {
            self.send(SessionId::NONE, None, op, Pending::Other);
        }
        self.finish()
    }

    /// A turn of random work. False when the shard stopped in it, as the disk made it.
    ///
    /// # Errors
    /// When a law is broken.
    pub fn turn(&mut self) -> Lawful<bool> {
        let pause = match self.chance.below(100) {
            0..3 => self.chance.below(3 * SECOND),
            3..30 => self.chance.below(60 * MS),
            _ => self.chance.below(2 * MS),
        };
        self.clock.advance(pause);
        self.begin();
        for _ in 0..self.chance.below(self.habits.commands_max + 1) {
            self.wish();
            if self.chance.percent(20) {
                self.decide()?;
            }
        }
        let goes_on = self.finish()?;
        self.turns += 1;
        if goes_on && self.turns.is_multiple_of(48) {
            self.compare_with_replay()?;
        }
        Ok(goes_on)
    }

    /// The state in memory is the fold of the journal on the disk, whenever one looks.
    ///
    /// # Errors
    /// When it is not.
    pub fn compare_with_replay(&mut self) -> Lawful {
        self.ledger.count("replay");
        let Some(shard) = &self.shard else { return Ok(()) };
        shard.core().check();
        audit::same_as_replayed(shard, &self.disk, &self.habits.options).map_err(Violation)?;
        let (found, now) = (self.look_at_keys()?, self.now());
        self.ledger.judge_keys(&found, now, false)
    }

    /// Several turns; stops early when the shard stops.
    ///
    /// # Errors
    /// When a law is broken.
    pub fn turns(&mut self, count: u64) -> Lawful<bool> {
        for _ in 0..count {
            if !self.turn()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Stops the machine: the shard is gone, the disk keeps what `mode` says.
    pub fn crash(&mut self, mode: Crash) {
        let seed = self.chance.next_u64();
        let survivor = self.disk.crash(mode, seed);
        self.die_with(survivor, mode != Crash::KeepAll);
    }

    /// The shard is gone and `disk` is what is left. `power`: unsynced writes may be lost.
    pub fn die_with(&mut self, disk: SimDisk, power: bool) {
        self.shard = None;
        self.disk = disk;
        self.clock.advance(SECOND);
        self.clock.set_monotonic(self.chance.below(100 * SECOND));
        self.ledger.crashed(power);
        for (_, pending) in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Commit(bundle) => self.ledger.bundles.push(bundle),
                Pending::Publish(id) => {
                    if let Some(&request) = self.requests.get(&id) {
                        self.repeats.push(Repeat { id, request, fresh: None, until: 0 });
                    }
                }
                _ => {}
            }
        }
        for client in &mut self.clients {
            client.opening = false;
            client.resumes = client.session.is_some();
            client.consuming.clear();
            client.stale.extend(client.open.drain(..).map(|(receipt, _)| receipt));
            let most = client.stale.len().saturating_sub(8);
            client.stale.drain(..most);
        }
    }

    /// Closes the shard as one should; if the machine stops meanwhile, that was a crash of this
    /// mode.
    ///
    /// # Errors
    /// When it cannot be closed.
    pub fn close(&mut self, mode: Crash) -> Lawful {
        let Some(shard) = self.shard.take() else { return Ok(()) };
        let closed = shard.close(&self.clock);
        if closed.is_err() && self.disk.stopped() {
            self.crash(mode);
            return Ok(());
        }
        closed.map_err(|error| Violation(format!("closing failed: {error}")))?;
        let disk = self.disk.crash(Crash::LoseAll, 1);
        self.die_with(disk, false);
        Ok(())
    }

    /// Opens the store again and compares everything in it with the books.
    ///
    /// # Errors
    /// When something that was confirmed is missing, or anything is there that must not.
    pub fn reopen(&mut self) -> Lawful {
        let opened = self.open()?;
        demand(opened, || "the shard stopped at once".to_owned())?;
        self.audit()
    }

    /// See [`reopen`](Self::reopen).
    ///
    /// # Errors
    /// See there.
    pub fn audit(&mut self) -> Lawful {
        self.ledger.count("audit");
        self.compare_with_replay()?;
        let options = &self.habits.options;
        let found = audit::drained(&self.disk, &self.clock, options, self.chance.next_u64());
        let found = found.map_err(Violation)?;
        let now = self.now();
        self.ledger.grace(now, GRACE_US);
        let keys = self.look_at_keys()?;
        self.ledger.judge_keys(&keys, now, true)?;
        let views = self.look_at_locks()?;
        for (name, view) in &views {
            self.ledger.judge_lock(name, view, now)?;
        }
        let registers = self.look_at_registers()?;
        let there = |id: u64| found.iter().any(|m| m.body.starts_with(&id.to_le_bytes()));
        self.ledger.judge_bundles(there, |key| registers[key].map(|(_, value)| value))?;
        for (key, register) in registers.iter().enumerate() {
            self.ledger.read(key, *register, true)?;
        }
        self.ledger.settle_messages(&found)?;
        self.ledger.adopt(&views, now);
        for repeat in self.repeats.iter_mut().filter(|repeat| repeat.fresh.is_none()) {
            repeat.fresh = Some(self.ledger.messages[&repeat.id].gone);
            repeat.until = now + 60 * SECOND;
        }
        Ok(())
    }

    fn look_at_locks(&mut self) -> Lawful<Vec<(String, LockView)>> {
        let mut views = Vec::new();
        for lock in 0..LOCKS {
            match self.ask(Op::InspectLock(lock_name(lock)))? {
                Outcome::Lock(mut view) => {
                    let name = lock_name(lock).as_str().to_owned();
                    let claimed = |holder: &HolderView| holder.session == SessionId::NONE;
                    let alone = view.holders.len() == 1 || !view.holders.iter().any(claimed);
                    demand(alone, || format!("{name} is claimed and held: {view:?}"))?;
                    // Claims are keys, and judged as such.
                    view.holders.retain(|holder| !claimed(holder));
                    views.push((name, *view));
                }
                other => return Err(Violation(format!("inspecting a lock gave {other:?}"))),
            }
        }
        Ok(views)
    }

    fn look_at_registers(&mut self) -> Lawful<Vec<Option<(u64, u64)>>> {
        let mut found = Vec::new();
        for key in 0..REGISTERS {
            match self.ask(Op::Read(register_key(key)))? {
                Outcome::Register(view) => {
                    found.push(view.map(|view| (view.version, number_in(&view.value))));
                }
                other => return Err(Violation(format!("reading a register gave {other:?}"))),
            }
        }
        Ok(found)
    }

    /// A turn with one question and nothing else.
    ///
    /// # Errors
    /// When it is refused, or a notice of that turn breaks a law.
    pub fn ask(&mut self, op: Op) -> Lawful<Outcome> {
        self.begin();
        let asked = self.send(SessionId::NONE, None, op, Pending::Other);
        let shard = self.shard.as_mut().expect("it is open");
        shard.finish(&self.clock);
        let mut answer = None;
        for (ticket, notice) in shard.take_ready() {
            match notice {
                Notice::Reply(result) if ticket == asked => answer = Some(result),
                notice => self.enter(ticket, notice)?,
            }
        }
        match answer {
            Some(Ok(outcome)) => Ok(outcome),
            other => Err(Violation(format!("a question was answered {other:?}"))),
        }
    }

    fn now(&self) -> u64 {
        self.shard.as_ref().map_or(0, Shard::now)
    }

    fn wall(&self) -> u64 {
        let offset = self.shard.as_ref().map_or(0, |shard| shard.core().state().wall_offset());
        self.now() + offset
    }

    fn begin(&mut self) {
        self.shard.as_mut().expect("it is open").begin(&self.clock);
    }

    fn send(
        &mut self,
        session: SessionId,
        request: Option<RequestId>,
        op: Op,
        pending: Pending,
    ) -> Ticket {
        self.serial += 1;
        let ticket = Ticket(self.serial);
        self.pending.insert(ticket.0, pending);
        let shard = self.shard.as_mut().expect("it is open");
        shard.submit(Command { ticket, session, request, op });
        ticket
    }

    /// Ends the turn and enters what came of it.
    fn finish(&mut self) -> Lawful<bool> {
        let shard = self.shard.as_mut().expect("it is open");
        shard.finish(&self.clock);
        let notices = shard.take_ready();
        let stopped = shard.stopped().map(str::to_owned);
        for (ticket, notice) in notices {
            if stopped.is_some() {
                let kept = matches!(notice, Notice::Reply(Err(_)));
                demand(kept, || format!("a stopped shard still says {notice:?}"))?;
            }
            self.enter(ticket, notice)?;
        }
        if stopped.is_none() {
            self.ledger.keys.confirmed();
        }
        Ok(stopped.is_none())
    }

    /// Why the shard stopped, if it did.
    pub fn stopped(&self) -> Option<&str> {
        self.shard.as_ref().and_then(Shard::stopped)
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a good name")
}

fn lock_name(lock: usize) -> Name {
    name(&format!("lock-{lock}"))
}

fn register_key(key: usize) -> std::sync::Arc<[u8]> {
    format!("register-{key}").into_bytes().into()
}

fn number_in(value: &[u8]) -> u64 {
    value.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The mode in which a lock of this number is used: some exclusive only, some shared, a semaphore.
fn mode_for(lock: usize, chance: &mut Chance) -> Mode {
    match lock {
        4 if chance.percent(60) => Mode::Shared,
        5 => Mode::Permits { take: 1 + chance.below(2) as u32, of: 3 },
        _ => Mode::Exclusive,
    }
}

fn config(queue: usize) -> QueueConfig {
    let dead = DeadLetter { exchange: None, routing_key: Some(QUEUES[DEAD].into()) };
    QueueConfig {
        lease_us: (queue == 2 || queue == 3).then_some(2 * SECOND),
        deliveries_max: (queue != DEAD).then_some(5),
        dead_letter: (queue != DEAD).then_some(dead),
        priority_max: if queue == 1 { 3 } else { 0 },
        ..QueueConfig::default()
    }
}
