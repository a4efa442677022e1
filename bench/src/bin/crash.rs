//! The real kill -9: a process drives a node under load and is killed at random moments.
//!
//! `crash [--kills N] [--seed S]`. The child (this program again) runs a node on a
//! directory and says what was confirmed, line by line, through a pipe; a line that was written to
//! the pipe survives the child. The parent kills it, starts it again, and holds it to its word:
//! every confirmed message is there, no token repeats or falls, no two holders overlap.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use leasehold_bench::load;
use leasehold_core::command::Wants;
use leasehold_core::message::Message;
use leasehold_core::{
    Acquire, Limits, Mode, Op, Outcome, QueueConfig, Receipt, SessionId, Tenure, Verdict, Wait,
};
use leasehold_node::{Durability, Node, Notice, Options, Received};

const QUEUE: &str = "crash";
const LOCKS: u64 = 8;
/// Longer than the whole run, so that every confirmed hold must come back as it was.
const TTL_US: u64 = 3_600_000_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "child") {
        return child(Path::new(&arguments[1]), arguments[2].parse().expect("a round"));
    }
    let mut kills = 50u32;
    let mut seed = 1u64;
    for pair in arguments.chunks(2) {
        match pair {
            [name, value] if name == "--kills" => kills = value.parse().unwrap_or_else(|_| usage()),
            [name, value] if name == "--seed" => seed = value.parse().unwrap_or_else(|_| usage()),
            _ => usage(),
        }
    }
    match run(kills, seed) {
        Ok(told) => println!("{told}"),
        Err(broken) => {
            eprintln!("BROKEN: {broken}\nreplay with --seed {seed}");
            std::process::exit(1);
        }
    }
}

fn usage() -> ! {
    eprintln!("usage: crash [--kills N] [--seed S]");
    std::process::exit(2);
}

/// What the children were told, as they told it on.
#[derive(Default)]
struct Ledger {
    published: BTreeSet<u64>,
    acked: BTreeSet<u64>,
    /// Acks that were sent and not answered: the message may or may not come again.
    ack_sent: BTreeSet<u64>,
    token_high: u64,
    /// Lock → token of its confirmed holder.
    held: BTreeMap<u64, u64>,
    /// Locks whose release was sent: held or not, both are right.
    releasing: BTreeSet<u64>,
}

fn run(kills: u32, seed: u64) -> Result<String, String> {
    let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
    let store = directory.path().join("store");
    let mut ledger = Ledger::default();
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for round in 0..=kills {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let life = Duration::from_millis(20 + random % 400);
        let last = round == kills;
        one_life(&store, round, (!last).then_some(life), &mut ledger)
            .map_err(|error| format!("round {round}: {error}"))?;
    }
    // An ack that was sent and not answered may have been carried out.
    let settled =
        |message: &&u64| ledger.acked.contains(message) || ledger.ack_sent.contains(message);
    let missing = ledger.published.iter().filter(|message| !settled(message)).count();
    if missing > 0 {
        return Err(format!("{missing} confirmed messages were never delivered"));
    }
    Ok(format!(
        "{kills} kills: {} messages confirmed and all delivered, tokens up to {} that never fell or \
         came twice, no overlap\n1 passed, 0 failed",
        ledger.published.len(),
        ledger.token_high
    ))
}

/// Runs a child until it is killed, or in the last round until it has drained the queue.
fn one_life(
    store: &Path,
    round: u32,
    life: Option<Duration>,
    ledger: &mut Ledger,
) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let round = if life.is_some() { round.to_string() } else { "4294967295".to_owned() };
    let mut child = Command::new(program)
        .arg("child")
        .arg(store)
        .arg(round)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let output = child.stdout.take().ok_or("no output")?;
    let reader = std::thread::spawn(move || -> Vec<String> {
        // A last line without its end was being written when the child died: it was never said.
        let mut lines = Vec::new();
        let mut reader = BufReader::new(output);
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|n| n > 0) {
            if line.ends_with('\n') {
                lines.push(line.trim_end().to_owned());
            }
            line.clear();
        }
        lines
    });
    if let Some(life) = life {
        std::thread::sleep(life);
        child.kill().map_err(|e| e.to_string())?;
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    let lines = reader.join().map_err(|_| "the reader panicked")?;
    let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
    if killed != life.is_some() || life.is_none() && !status.success() {
        return Err(format!("the child ended with {status}"));
    }
    lines.iter().try_for_each(|line| ledger.enter(line).map_err(|e| format!("{line}: {e}")))
}

impl Ledger {
    // long: one arm per word that a child can say.
    fn enter(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.split(' ');
        let what = words.next().unwrap_or_default();
        let mut number = || -> Result<u64, String> {
            words
                .next()
                .and_then(|word| word.parse().ok())
                .ok_or_else(|| "a number is missing".into())
        };
        match what {
            "published" => {
                self.published.insert(number()?);
            }
            "delivered" => {
                let (message, token) = (number()?, number()?);
                self.rises(token)?;
                if self.acked.contains(&message) && !self.ack_sent.contains(&message) {
                    return Err(format!("message {message} was acked and came again"));
                }
                if message == u64::MAX {
                    return Err("a message that nobody published".into());
                }
            }
            "acking" => {
                self.ack_sent.insert(number()?);
            }
            "acked" => {
                let message = number()?;
                // Written before it was answered: a killed process must not forget it.
                self.ack_sent.remove(&message);
                self.acked.insert(message);
            }
            "granted" => {
                let (lock, token) = (number()?, number()?);
                self.rises(token)?;
                if self.held.contains_key(&lock) && !self.releasing.contains(&lock) {
                    return Err(format!("lock {lock} was granted while it was held"));
                }
                self.releasing.remove(&lock);
                self.held.insert(lock, token);
            }
            "found" => {
                // What a new life sees: the token of the holder, 0 for none.
                let (lock, token) = (number()?, number()?);
                match self.held.get(&lock) {
                    Some(held) if *held == token => {}
                    Some(_) if token == 0 && self.releasing.contains(&lock) => {
                        self.held.remove(&lock);
                        self.releasing.remove(&lock);
                    }
                    Some(held) => {
                        // A newer grant may have been made and not been told before the kill.
                        if token <= *held || !self.releasing.contains(&lock) {
                            return Err(format!("lock {lock}: token {held} was confirmed"));
                        }
                        self.held.insert(lock, token);
                        self.releasing.remove(&lock);
                    }
                    None if token != 0 => {
                        self.held.insert(lock, token);
                    }
                    None => {}
                }
            }
            "releasing" => {
                self.releasing.insert(number()?);
            }
            "released" => {
                let lock = number()?;
                self.held.remove(&lock);
                self.releasing.remove(&lock);
            }
            "panic" => return Err(line.to_owned()),
            _ => {}
        }
        Ok(())
    }

    fn rises(&mut self, token: u64) -> Result<(), String> {
        if token <= self.token_high {
            return Err(format!("token {token} after {}", self.token_high));
        }
        self.token_high = token;
        Ok(())
    }
}

fn options() -> Options {
    // Small segments and frequent checkpoints, so that kills meet all of the upkeep.
    let limits = Limits {
        segment_bytes: 1 << 20,
        page_entries: 64,
        resident_entries: 1024,
        delayed_entries: 256,
        ..Limits::default()
    };
    Options {
        durability: Durability::Always,
        limits,
        checkpoint_bytes: 256 << 10,
        checkpoint_cells: 256,
        tail_cache_bytes: 1 << 20,
        read_cache_bytes: 1 << 20,
        ..Options::default()
    }
}

fn say(text: std::fmt::Arguments<'_>) {
    // One write a line: a line in the pipe was said, whatever happens to this process.
    let line = format!("{text}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).expect("the parent listens");
    std::io::stdout().lock().flush().expect("the parent listens");
}

/// Publishes, consumes and locks until it is killed; in the last round, drains and ends.
fn child(store: &Path, round: u32) {
    let last = round == u32::MAX;
    let node = Node::open(store, options()).expect("opens");
    let client = node.client();
    let session = load::open_session(&client);
    let config = QueueConfig { priority_max: 2, ..QueueConfig::default() };
    let queue = load::declare(&client, QUEUE, config);
    let mut tokens = [0u64; LOCKS as usize];
    for lock in 0..LOCKS {
        let name = load::name(&format!("lock-{lock}"));
        let Outcome::Lock(view) = load::call(&client, session, Op::InspectLock(name)) else {
            panic!("a view was expected")
        };
        assert!(view.holders.len() <= 1, "two holders of lock {lock}");
        tokens[lock as usize] = view.holders.first().map_or(0, |holder| holder.token.0);
        say(format_args!("found {lock} {}", tokens[lock as usize]));
    }
    client.send(session, None, load::consume(QUEUE, 64)).expect("sent");
    let mut life = Life { next: u64::from(round) << 32, ..Life::default() };
    let mut notices = Vec::new();
    let mut quiet_since = Instant::now();
    loop {
        if !last {
            for _ in 0..4 {
                let mut body = vec![0; 200];
                body[..8].copy_from_slice(&life.next.to_le_bytes());
                let mut message = Message::new(body);
                message.priority = (life.next % 3) as u8;
                let ticket =
                    client.send(session, None, load::publish(queue, message)).expect("sent");
                life.publishes.insert(load::serial(ticket), life.next);
                life.next += 1;
            }
            life.lock_step(&client, &mut tokens, session);
        }
        client
            .receive(&mut notices, Some(Duration::from_millis(if last { 300 } else { 1 })))
            .expect("the node runs");
        if !notices.is_empty() {
            quiet_since = Instant::now();
        }
        for (to, notice) in notices.drain(..) {
            life.hear(&client, session, &mut tokens, to, notice, last);
        }
        if last && quiet_since.elapsed() > Duration::from_millis(900) {
            node.close().expect("closes");
            return;
        }
    }
}

#[derive(Default)]
struct Life {
    next: u64,
    publishes: BTreeMap<u32, u64>,
    acks: BTreeMap<u32, u64>,
    locking: BTreeMap<u32, (u64, bool)>,
    busy: BTreeSet<u64>,
    turn: u64,
}

impl Life {
    /// Takes a free lock or gives a held one back.
    fn lock_step(
        &mut self,
        client: &leasehold_node::Client,
        tokens: &mut [u64],
        session: SessionId,
    ) {
        self.turn += 1;
        let lock = self.turn % LOCKS;
        if !self.busy.insert(lock) {
            return;
        }
        let name = load::name(&format!("lock-{lock}"));
        let token = tokens[lock as usize];
        let release = token != 0;
        let op = if release {
            say(format_args!("releasing {lock}"));
            load::release(name, leasehold_core::Token(token), 1)
        } else {
            Op::Acquire(Box::new(Acquire {
                wants: Wants::One(name, Mode::Exclusive),
                hold: 1,
                reentrant: false,
                tenure: Tenure { ttl_us: Some(TTL_US), session: false },
                wait: Wait::No,
                lock_delay_us: 0,
                label: None,
            }))
        };
        // Locks are held without a session, so that the next life can give them back.
        let _ = session;
        let ticket = client.send(SessionId::NONE, None, op).expect("sent");
        self.locking.insert(load::serial(ticket), (lock, release));
    }

    fn hear(
        &mut self,
        client: &leasehold_node::Client,
        session: SessionId,
        tokens: &mut [u64],
        to: u32,
        notice: Notice,
        last: bool,
    ) {
        match notice {
            Notice::Reply(Ok(Outcome::Published { .. })) => {
                let message = self.publishes.remove(&to).expect("it was asked");
                say(format_args!("published {message}"));
            }
            Notice::Reply(Ok(Outcome::Settled(_))) => {
                // A nack is settled too, and needs no word of its own.
                if let Some(message) = self.acks.remove(&to) {
                    say(format_args!("acked {message}"));
                }
            }
            Notice::Delivery(parts) => {
                let receipt: Receipt = parts.0.receipt;
                let received = Received::from(parts);
                let body = received.message().expect("a message").body;
                let message = u64::from_le_bytes(body[..8].try_into().expect("eight bytes"));
                say(format_args!("delivered {message} {}", receipt.token.0));
                // Some are left to come again in the next life.
                if last || message % 5 != 0 {
                    say(format_args!("acking {message}"));
                    let op = Op::Settle(receipt, Verdict::Ack);
                    let ticket = client.send(session, None, op).expect("sent");
                    self.acks.insert(load::serial(ticket), message);
                } else {
                    let op = Op::Settle(receipt, Verdict::Nack { delay_us: 50_000 });
                    client.send(session, None, op).expect("sent");
                }
            }
            Notice::Reply(Ok(Outcome::Granted { token, .. })) => {
                let (lock, _) = self.locking.remove(&to).expect("it was asked");
                tokens[lock as usize] = token.0;
                self.busy.remove(&lock);
                say(format_args!("granted {lock} {}", token.0));
            }
            Notice::Reply(Ok(Outcome::Released { .. })) => {
                let (lock, _) = self.locking.remove(&to).expect("it was asked");
                tokens[lock as usize] = 0;
                self.busy.remove(&lock);
                say(format_args!("released {lock}"));
            }
            Notice::Reply(Err(refusal)) => say(format_args!("panic {refusal}")),
            _ => {}
        }
    }
}
