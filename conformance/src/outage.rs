//! A real server, real client processes, and everything that can be done to them: both are killed
//! and paused. The server is Leasehold's or that of another system, with an engine over it. What
//! the clients wrote down is judged by [`history`](crate::history).
//!
//! ```text
//! parent ── spawns ─► server            kill -9, start again on the same directory
//!                                       SIGSTOP … SIGCONT
//!        ── spawns ─► client process ─► its record, a file of lines
//!                     kill -9, SIGSTOP … SIGCONT
//! ```
//! A client writes each operation down twice: before it is sent and after it was answered. So a
//! client that is killed leaves an operation without an end, which is what "unknown" means.
//! Everything is ended by its own id, also when the parent fails.

mod behind;
pub mod client;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::history::{History, Judged};

use behind::Behind;
pub use behind::Over;

/// What to do to whom.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What the clients talk to.
    pub over: Over,
    /// This program, which plays the clients: `PROGRAM client …`.
    pub client: PathBuf,
    /// Client processes at one time.
    pub clients: usize,
    /// How often the server is killed, and before that paused.
    pub server_kills: u32,
    /// How often a client is killed or paused between two kills of the server.
    pub client_blows: u32,
    /// How long a client's locks last without a sign of life. Pauses are longer.
    pub ttl: Duration,
    /// Where choices come from.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// What the checker judged.
    pub judged: Judged,
    /// Clients killed.
    pub killed: u32,
    /// Clients paused.
    pub paused: u32,
    /// How often the server was killed; never, if it is not ours.
    pub server_killed: u32,
    /// Whether messages were published: some engines have no queues.
    pub queues: bool,
    /// The longest time from starting a killed server again to its first answer.
    pub recovery: Duration,
}

/// A process that is killed when it is dropped.
struct Owned(Child);

impl Owned {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.0);
        // It may have ended by itself; then there is nothing to signal.
        kill_process(pid, signal).ok();
    }

    fn kill(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A small generator: the same seed, the same blows.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

struct Stage {
    plan: Plan,
    directory: tempfile::TempDir,
    // Clients go before what they talk to.
    clients: Vec<Owned>,
    behind: Behind,
    started: u32,
    chance: Chance,
    outcome: Outcome,
}

/// Plays the plan and judges what the clients saw.
///
/// # Errors
/// What no order of operations explains, or what could not be started.
pub fn play(plan: Plan) -> Result<Outcome, String> {
    let mut stage = Stage::set(plan)?;
    for _ in 0..stage.plan.clients {
        stage.add_client()?;
    }
    for _ in 0..stage.plan.server_kills {
        for _ in 0..stage.plan.client_blows {
            stage.wait(20, 120);
            stage.strike()?;
        }
        stage.wait(20, 200);
        stage.strike_server()?;
    }
    stage.wait(400, 600);
    stage.finish()
}

impl Stage {
    fn set(plan: Plan) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
        let chance = Chance(plan.seed);
        let behind = Behind::start(&plan.over, directory.path())?;
        let judged = Judged::default();
        let recovery = Duration::ZERO;
        let outcome =
            Outcome { judged, killed: 0, paused: 0, server_killed: 0, queues: false, recovery };
        Ok(Self { plan, directory, clients: Vec::new(), behind, started: 0, chance, outcome })
    }

    fn record(&self, client: u32) -> PathBuf {
        self.directory.path().join(format!("client-{client}.record"))
    }

    fn add_client(&mut self) -> Result<(), String> {
        let number = self.started;
        self.started += 1;
        // Whoever is killed before it can do anything has a record, too.
        std::fs::File::create(self.record(number)).map_err(|e| e.to_string())?;
        let mut call = Command::new(&self.plan.client);
        call.args(["client", &self.behind.url(), &number.to_string()]).arg(self.record(number));
        call.arg((self.plan.seed.wrapping_add(u64::from(number))).to_string());
        call.arg(self.plan.ttl.as_millis().to_string());
        let child = call.stdin(Stdio::piped()).spawn();
        self.clients.push(Owned(child.map_err(|e| format!("{:?}: {e}", self.plan.client))?));
        Ok(())
    }

    fn wait(&mut self, least_ms: u64, most_ms: u64) {
        let ms = least_ms + self.chance.below(most_ms - least_ms);
        std::thread::sleep(Duration::from_millis(ms));
    }

    /// Kills a client and puts another in its place, or pauses one for longer than its locks last.
    fn strike(&mut self) -> Result<(), String> {
        let victim = self.chance.below(self.clients.len() as u64) as usize;
        if self.chance.below(2) == 0 {
            drop(self.clients.swap_remove(victim));
            self.outcome.killed += 1;
            return self.add_client();
        }
        self.clients[victim].signal(Signal::STOP);
        self.outcome.paused += 1;
        std::thread::sleep(self.plan.ttl + self.plan.ttl / 2);
        self.clients[victim].signal(Signal::CONT);
        Ok(())
    }

    /// Pauses the server for longer than locks last, and kills it a moment later.
    fn strike_server(&mut self) -> Result<(), String> {
        if !self.behind.pause(self.plan.ttl + self.plan.ttl / 2) {
            return Ok(());
        }
        self.wait(20, 200);
        if let Some(took) = self.behind.restart()? {
            self.outcome.server_killed += 1;
            self.outcome.recovery = self.outcome.recovery.max(took);
        }
        Ok(())
    }

    /// Lets the clients end, has one more look at what is left, and judges.
    fn finish(mut self) -> Result<Outcome, String> {
        for client in &mut self.clients {
            // The end of its input is how it is asked to end.
            drop(client.0.stdin.take());
        }
        for mut client in self.clients.drain(..) {
            let status = client.0.wait().map_err(|e| e.to_string())?;
            if !status.success() {
                return Err(format!("a client failed: {status}"));
            }
        }
        let number = self.started;
        let mut call = Command::new(&self.plan.client);
        call.args(["drain", &self.behind.url(), &number.to_string()]).arg(self.record(number));
        let status = call.status().map_err(|e| e.to_string())?;
        if !status.success() {
            return Err(format!("what is left could not be looked at: {status}"));
        }
        let mut history = History::default();
        for client in 0..=number {
            let record = std::fs::read_to_string(self.record(client)).map_err(|e| e.to_string())?;
            history.add(&record)?;
        }
        self.outcome.queues = history.has_messages();
        self.outcome.judged = history.judge().inspect_err(|_| {
            let kept = self.directory.path().to_owned();
            eprintln!("the records are kept in {}", kept.display());
            self.directory.disable_cleanup(true);
        })?;
        Ok(self.outcome)
    }
}
