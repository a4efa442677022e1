//! The real processes: one server, many workers, all of this same binary.
//!
//! Nobody outlives the demo. Dropping a process kills it; a worker ends when its stdin closes,
//! which the kernel does for a parent that was killed; and all of them stay in the demo's process
//! group, so a terminal's ^C, or whoever started the demo, reaches them together.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// How long a server may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a process may take to end when it is asked to.
const END_WITHIN: Duration = Duration::from_secs(10);
/// How long the server may take for one answer about itself.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The server.
#[derive(Debug)]
pub struct Server {
    dir: PathBuf,
    address: SocketAddr,
    child: Child,
}

impl Server {
    /// Starts it on a port of its own and waits until it is ready.
    pub async fn start(dir: &Path) -> Result<Self> {
        let address = free_address().context("find a free port")?;
        let child = spawn_server(dir, address)?;
        let mut server = Self { dir: dir.to_owned(), address, child };
        server.ready().await?;
        Ok(server)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Kills it without warning and starts it again on the same directory and port; gives how long
    /// it was away.
    pub async fn kill_and_restart(&mut self) -> Result<Duration> {
        let killed = Instant::now();
        self.child.kill().await.context("kill the server")?;
        self.child = spawn_server(&self.dir, self.address)?;
        self.ready().await?;
        Ok(killed.elapsed())
    }

    async fn ready(&mut self) -> Result<()> {
        let began = Instant::now();
        while get(self.address, "/readyz").await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended ({status}); see {}", log(&self.dir, "server").display());
            }
            if began.elapsed() > READY_WITHIN {
                bail!("the server was not ready within {READY_WITHIN:?}");
            }
            // The server has no way to tell us; this is the one place that has to ask again.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// The server's own sums since it started.
    pub async fn totals(&self) -> Result<serde_json::Value> {
        let status: serde_json::Value =
            serde_json::from_slice(&get(self.address, "/v1/status").await?)?;
        Ok(status["totals"].clone())
    }

    /// Ends it in good order.
    pub async fn stop(mut self) -> Result<()> {
        signal(&self.child, Signal::TERM)?;
        match tokio::time::timeout(END_WITHIN, self.child.wait()).await {
            Ok(status) => drop(status?),
            Err(_) => self.child.kill().await?,
        }
        Ok(())
    }
}

fn spawn_server(dir: &Path, address: SocketAddr) -> Result<Child> {
    let mut command = command(dir, "server")?;
    command.arg("serve").arg("--data-dir").arg(dir.join("data"));
    command.arg("--http-listen").arg(address.to_string()).args(["--log-level", "warn"]);
    command.args(["--resp-listen", "off"]);
    command.spawn().context("start the server")
}

/// This binary, with nothing of the caller's settings.
fn command(dir: &Path, log_name: &str) -> Result<Command> {
    let program = std::env::current_exe().context("find this program")?;
    let log = open_log(&log(dir, log_name))?;
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LEASEHOLD_") {
            command.env_remove(name);
        }
    }
    command.current_dir(dir).stdin(Stdio::piped()).kill_on_drop(true);
    command.stdout(log.try_clone()?).stderr(log);
    Ok(command)
}

fn log(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.log"))
}

fn open_log(path: &Path) -> Result<File> {
    let log = OpenOptions::new().append(true).create(true).open(path);
    log.with_context(|| format!("open {}", path.display()))
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    // One that has ended needs no signal.
    let Some(pid) = pid else { return Ok(()) };
    kill_process(pid, signal).context("signal a process")
}

/// A free port below those that systems give to outgoing connections: a worker that knocks while
/// the server is down could otherwise meet itself there, and keep the server from coming back.
fn free_address() -> Result<SocketAddr> {
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    let mut all = (first..first + 1000).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let found = all.find(|address| TcpListener::bind(address).is_ok());
    found.with_context(|| format!("none in {first}..{} is free", first + 1000))
}

/// Asks the server for a page. Written out, because a client library would hide how long the server
/// was really away behind its own retries.
async fn get(address: SocketAddr, path: &str) -> Result<Vec<u8>> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let ask = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(ask.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(ANSWER_WITHIN, exchange).await??;
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("a torn answer")?;
    if !answer.starts_with(b"HTTP/1.0 200") && !answer.starts_with(b"HTTP/1.1 200") {
        bail!("{path}: {}", String::from_utf8_lossy(&answer[..head.min(80)]));
    }
    Ok(answer[head + 4..].to_vec())
}

/// The workers.
#[derive(Debug)]
pub struct Crew {
    dir: PathBuf,
    url: String,
    workers: BTreeMap<u32, Child>,
    next: u32,
}

impl Crew {
    pub fn new(dir: &Path, url: String) -> Self {
        Self { dir: dir.to_owned(), url, workers: BTreeMap::new(), next: 1 }
    }

    /// Hires one more; it will be stopped in its so manieth turn under a lock, unless that is 0.
    pub fn hire(&mut self, freeze_in: u32) -> Result<u32> {
        let number = self.next;
        self.next += 1;
        let mut command = command(&self.dir, "workers")?;
        command.arg("demo-worker").arg("--url").arg(&self.url);
        command.arg("--dir").arg(self.dir.join("ledgers"));
        command.arg("--number").arg(number.to_string());
        command.arg("--freeze-in").arg(freeze_in.to_string());
        self.workers.insert(number, command.spawn().context("start a worker")?);
        Ok(number)
    }

    /// Those at work.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.workers.keys().copied()
    }

    /// Kills one without warning.
    pub async fn kill(&mut self, number: u32) -> Result<()> {
        let Some(mut worker) = self.workers.remove(&number) else { return Ok(()) };
        worker.kill().await.context("kill a worker")
    }

    /// Lets one go on that was stopped.
    pub fn wake(&self, number: u32) -> Result<()> {
        self.workers.get(&number).map_or(Ok(()), |worker| signal(worker, Signal::CONT))
    }

    /// Those that ended although nobody asked them to.
    pub fn deserters(&mut self) -> Result<Vec<u32>> {
        let mut gone = Vec::new();
        for (number, worker) in &mut self.workers {
            if worker.try_wait()?.is_some() {
                gone.push(*number);
            }
        }
        for number in &gone {
            self.workers.remove(number);
        }
        Ok(gone)
    }

    /// Sends everybody home and waits for them.
    pub async fn dismiss(&mut self) -> Result<()> {
        for worker in self.workers.values_mut() {
            drop(worker.stdin.take());
        }
        for (_, mut worker) in std::mem::take(&mut self.workers) {
            if tokio::time::timeout(END_WITHIN, worker.wait()).await.is_err() {
                worker.kill().await?;
            }
        }
        Ok(())
    }
}
