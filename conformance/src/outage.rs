//! A real server, real client processes, and everything that can be done to them: clients are
//! killed and paused, the server is killed and restarted. What the clients wrote down is judged by
//! [`history`](crate::history).
//!
//! ```text
//! parent ── spawns ─► server            kill -9, start again on the same directory
//!        ── spawns ─► client process ─► its record, a file of lines
//!                     kill -9, SIGSTOP … SIGCONT
//! ```
//! A client writes each operation down twice: before it is sent and after it was answered. So a
//! client that is killed leaves an operation without an end, which is what "unknown" means.
//! Everything is ended by its own id, also when the parent fails.

pub mod client;

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::history::{History, Judged};

/// What to do to whom.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server's binary.
    pub server: PathBuf,
    /// This program, which plays the clients: `PROGRAM client …`.
    pub client: PathBuf,
    /// Client processes at one time.
    pub clients: usize,
    /// How often the server is killed.
    pub server_kills: u32,
    /// How often a client is killed or paused between two kills of the server.
    pub client_blows: u32,
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
    port: u16,
    server: Owned,
    clients: Vec<Owned>,
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
            stage.pause(20, 120);
            stage.strike()?;
        }
        stage.pause(20, 200);
        stage.restart_server()?;
    }
    stage.pause(400, 600);
    stage.finish()
}

impl Stage {
    fn set(plan: Plan) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
        let port = free_port().map_err(|e| e.to_string())?;
        let chance = Chance(plan.seed);
        let (server, _) = start_server(&plan.server, directory.path(), port)?;
        let judged = Judged::default();
        let outcome = Outcome { judged, killed: 0, paused: 0, recovery: Duration::ZERO };
        let clients = Vec::new();
        Ok(Self { plan, directory, port, server, clients, started: 0, chance, outcome })
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn record(&self, client: u32) -> PathBuf {
        self.directory.path().join(format!("client-{client}.record"))
    }

    fn add_client(&mut self) -> Result<(), String> {
        let number = self.started;
        self.started += 1;
        let mut call = Command::new(&self.plan.client);
        call.args(["client", &self.url(), &number.to_string()]).arg(self.record(number));
        call.arg((self.plan.seed.wrapping_add(u64::from(number))).to_string());
        let child = call.stdin(Stdio::piped()).spawn();
        self.clients.push(Owned(child.map_err(|e| format!("{:?}: {e}", self.plan.client))?));
        Ok(())
    }

    fn pause(&mut self, least_ms: u64, most_ms: u64) {
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
        std::thread::sleep(client::TTL + client::TTL / 2);
        self.clients[victim].signal(Signal::CONT);
        Ok(())
    }

    fn restart_server(&mut self) -> Result<(), String> {
        self.server.kill();
        let (server, took) = start_server(&self.plan.server, self.directory.path(), self.port)?;
        self.server = server;
        self.outcome.recovery = self.outcome.recovery.max(took);
        Ok(())
    }

    /// Lets the clients end, has the queue emptied by one more, and judges.
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
        call.args(["drain", &self.url(), &number.to_string()]).arg(self.record(number));
        let status = call.status().map_err(|e| e.to_string())?;
        if !status.success() {
            return Err(format!("the queue could not be emptied: {status}"));
        }
        let mut history = History::default();
        for client in 0..=number {
            let record = std::fs::read_to_string(self.record(client)).map_err(|e| e.to_string())?;
            history.add(&record)?;
        }
        self.outcome.judged = history.judge().inspect_err(|_| {
            let kept = self.directory.path().to_owned();
            eprintln!("the records are kept in {}", kept.display());
            self.directory.disable_cleanup(true);
        })?;
        Ok(self.outcome)
    }
}

/// A port that is free now, below those that systems give to outgoing connections: a client that
/// knocks while the server is down could otherwise be given that very port, meet itself, and keep
/// the server from coming back.
///
/// # Errors
/// When none of a thousand is free.
pub fn free_port() -> io::Result<u16> {
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let none = || io::Error::other(format!("no port in {first}..{} is free", first + 1000));
    (first..first + 1000).find(free).ok_or_else(none)
}

/// Starts a server and waits until it answers; says how long that took.
fn start_server(program: &Path, directory: &Path, port: u16) -> Result<(Owned, Duration), String> {
    let began = Instant::now();
    let mut call = Command::new(program);
    call.args(["serve", "--http-listen", &format!("127.0.0.1:{port}"), "--data-dir"]);
    call.arg(directory.join("data")).args(["--resp-listen", "off"]).stdout(Stdio::null());
    let mut server = Owned(call.spawn().map_err(|e| format!("{}: {e}", program.display()))?);
    while !answers(port) {
        if let Ok(Some(status)) = server.0.try_wait() {
            return Err(format!("the server ended at once: {status}"));
        }
        if began.elapsed() > crate::PATIENCE {
            return Err("the server does not answer".to_owned());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok((server, began.elapsed()))
}

/// Whether the server says that it is ready.
fn answers(port: u16) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(crate::PATIENCE))?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.lines().next().is_some_and(|line| line.contains(" 200")))
    };
    ask().unwrap_or(false)
}
