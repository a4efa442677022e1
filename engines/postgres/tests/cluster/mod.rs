//! A PostgreSQL server of one test.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use leasehold_testbed::{Server, as_user, free_port, program};
use rustix::process::{Pid, Signal, kill_process};

/// How long it may take to be ready, on a machine that is busy.
const READY: Duration = Duration::from_secs(120);

/// Who starts a server now.
static STARTING: Mutex<()> = Mutex::new(());

/// Where Debian puts the programs, the newest release first.
fn bins() -> Vec<String> {
    let found = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut releases: Vec<PathBuf> = found.map(|entry| entry.path()).collect();
    let number = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()).unwrap_or(0)
    };
    releases.sort_by_key(|path| std::cmp::Reverse(number(path)));
    releases.iter().map(|path| path.join("bin").display().to_string()).collect()
}

/// A program of PostgreSQL's.
fn tool(name: &str) -> PathBuf {
    let bins = bins();
    let also: Vec<&str> = bins.iter().map(String::as_str).collect();
    program(name, &also, "postgresql").unwrap_or_else(|missing| panic!("{missing}"))
}

/// A server with a user `leasehold`, who may do everything, and a database of that name.
pub struct Cluster {
    server: Server,
}

impl Cluster {
    /// Starts one with more settings, `name=value`.
    pub fn start(settings: &[&str]) -> Self {
        Self::start_with(settings, &[])
    }

    /// Starts one with files beside its data, which only it may read.
    pub fn start_with(settings: &[&str], files: &[(&str, &str)]) -> Self {
        let directory = Server::directory();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("the directory is ours");
            let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&path, own).expect("it is ours");
        }
        let data = directory.path().join("data");
        std::fs::create_dir(&data).expect("the directory is ours");
        let mut init = as_user("postgres", &tool("initdb"), directory.path());
        init.args(["-U", "leasehold", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        let made = init.arg("-D").arg(&data).output().expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        // A port is free until its server listens; two tests must not choose the same.
        let alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let port = free_port();
        let mut call = as_user("postgres", &tool("postgres"), directory.path());
        call.arg("-D").arg(&data).args(["-p", &port.to_string(), "-h", "127.0.0.1"]);
        call.arg("-k").arg(directory.path()).args(["-c", "max_connections=300"]);
        for setting in settings {
            call.args(["-c", setting]);
        }
        call.current_dir(directory.path());
        let cluster = Self { server: Server::start(directory, port, call) };
        drop(alone);
        cluster.ready();
        cluster
    }

    /// Waits until it takes requests: its port is open before that.
    fn ready(&self) {
        let ready = tool("pg_isready");
        let port = self.port().to_string();
        let is_ready = || {
            let mut call = Command::new(&ready);
            call.args(["-q", "-h", "127.0.0.1", "-p", &port, "-d", "postgres"]);
            call.status().is_ok_and(|status| status.success())
        };
        let began = Instant::now();
        while !is_ready() {
            assert!(began.elapsed() < READY, "it is not ready: {}", self.server.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// One of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.server.directory.path().join(name)
    }

    /// The URL of an engine behind a port, with more in its query.
    pub fn url_at(port: u16, query: &str) -> String {
        format!("postgres://leasehold@127.0.0.1:{port}/postgres?{query}")
    }

    /// The URL of an engine here.
    pub fn url(&self) -> String {
        Self::url_at(self.port(), "")
    }

    /// A connection past the engine.
    pub async fn client(&self) -> tokio_postgres::Client {
        let url = self.url();
        let opened = tokio_postgres::connect(&url, tokio_postgres::NoTls).await;
        let (client, connection) = opened.expect("it accepts");
        tokio::spawn(connection);
        client
    }

    /// The server's processes: each has left the group of the first.
    fn processes(&self) -> Vec<Pid> {
        let data = self.server.directory.path().join("data");
        let of = |entry: std::fs::DirEntry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let is_its = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == data);
            if is_its { Pid::from_raw(pid) } else { None }
        };
        std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(of).collect()
    }

    fn signal(&self, signal: Signal) {
        for pid in self.processes() {
            // It may have ended by itself.
            kill_process(pid, signal).ok();
        }
    }

    /// Stops all of it without a word.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills all of it, as a crash does.
    pub fn crash(&mut self) {
        self.signal(Signal::KILL);
        self.server.kill();
        while !self.processes().is_empty() {
            self.signal(Signal::KILL);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts it again with what it kept.
    pub fn restart(&mut self) {
        self.crash();
        self.server.restart();
        self.ready();
    }
}
