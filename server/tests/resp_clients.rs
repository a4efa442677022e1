//! Programs that lock with Redis, against the RESP door of the real server.
//!
//! Each client script stands in `resp/`, uses its library as it comes from its registry, prints a
//! line for each case that passed, and ends with an error at the first that did not. It may ask
//! for the server to be killed and started again on the same data and port. The libraries are put
//! into place by `cargo xtask clients`; without them these tests fail and say so.

#[path = "resp/native.rs"]
mod native;
#[path = "resp/permit.rs"]
mod permit;
#[path = "resp/raw.rs"]
mod raw;
#[path = "resp/redis_rs.rs"]
mod redis_rs;
#[path = "resp/talk.rs"]
mod talk;
#[path = "resp/tls.rs"]
mod tls;

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use support::{Process, leasehold};
use tempfile::TempDir;

/// No script takes so long unless it hangs.
const SCRIPT: Duration = Duration::from_secs(240);

/// A server with its RESP door open.
pub struct Door {
    process: Process,
    /// Where the door is.
    pub port: u16,
    /// Its data.
    pub directory: TempDir,
    arguments: Vec<String>,
}

impl Door {
    /// On a free port, with data of its own.
    pub fn open() -> Self {
        Self::with(tempfile::tempdir().expect("a directory"), &[])
    }

    /// On a free port, with these data and arguments.
    pub fn with(directory: TempDir, arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let (process, port) = serve(directory.path(), 0, &arguments);
        Self { process, port, directory, arguments }
    }

    /// Kills it as a crash would, and starts it again where it was.
    pub fn restart(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait();
        let (process, port) = serve(self.directory.path(), self.port, &self.arguments);
        assert_eq!(port, self.port);
        self.process = process;
    }

    /// Does something while the server stands still.
    pub fn paused(&self, with: impl FnOnce()) {
        self.process.signal(Signal::STOP);
        leasehold_testbed::wait_until_stopped(self.process.id().cast_unsigned());
        with();
        self.process.signal(Signal::CONT);
    }

    /// The memory that the server holds now, bytes.
    pub fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).expect("the server runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
        let number = line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok());
        number.expect("it is a number") * 1024
    }

    /// Asks with `redis-cli`, whose words are these and whose input is that; what it says.
    pub fn cli(&self, words: &[&str], input: &str) -> String {
        let mut call = Command::new("redis-cli");
        call.args(["-p", &self.port.to_string()]).args(words);
        let mut process = Process::start(call.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let mut stdin = process.0.stdin.take().expect("it is piped");
        stdin.write_all(input.as_bytes()).expect("it reads");
        drop(stdin);
        let stdout = process.0.stdout.take().expect("it is piped");
        let text = std::io::read_to_string(stdout).expect("it prints text");
        assert!(process.wait().success(), "{words:?}: {text}");
        text
    }

    /// A connection to it.
    pub fn raw(&self) -> raw::Raw {
        raw::Raw::to(self.port)
    }

    /// Runs a script to its end; every case that it tells of passed, and there are so many.
    fn run(&mut self, name: &str, call: &mut Command, cases: usize) {
        call.env("RESP_PORT", self.port.to_string());
        call.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = Process::start(call);
        let mut answers = script.0.stdin.take().expect("it is piped");
        let lines = BufReader::new(script.0.stdout.take().expect("it is piped")).lines();
        let (over, guard) = mpsc::channel::<()>();
        let pid = Pid::from_raw(script.id()).expect("a process id is not 0");
        let guard = std::thread::spawn(move || {
            if guard.recv_timeout(SCRIPT) == Err(mpsc::RecvTimeoutError::Timeout) {
                kill_process(pid, Signal::KILL).ok();
            }
        });
        let mut passed = 0;
        for line in lines {
            let line = line.expect("it prints text");
            match line.as_str() {
                "restart" => {
                    self.restart();
                    answers.write_all(b"restarted\n").expect("it reads");
                }
                line if line.starts_with("ok ") => {
                    passed += 1;
                    println!("{name}: {line}");
                }
                line => println!("{name}: {line}"),
            }
        }
        let status = script.wait();
        drop(over);
        guard.join().expect("it only waits");
        assert!(status.success(), "{name}: {status} after {passed} cases");
        assert_eq!(passed, cases, "{name}: cases");
    }
}

fn serve(directory: &Path, port: u16, arguments: &[String]) -> (Process, u16) {
    let mut command = leasehold(directory, &["serve", "--json", "--resp-listen"]);
    command.arg(format!("127.0.0.1:{port}")).args(arguments);
    command.env("LEASEHOLD_HTTP_LISTEN", "127.0.0.1:0").env("LEASEHOLD_LOG_LEVEL", "error");
    let mut process = Process::start(command.stdout(Stdio::piped()));
    let stdout = process.0.stdout.take().expect("it is piped");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).expect("the server says something");
    let ready: serde_json::Value = serde_json::from_str(&line).expect("the server is ready");
    let address = ready["resp"].as_str().expect("its RESP door is open");
    let (_, port) = address.rsplit_once(':').expect("it has a port");
    (process, port.parse().expect("it is a number"))
}

/// Where `cargo xtask clients` puts the libraries.
fn place() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is in target");
    target.join("clients")
}

/// A program among the libraries.
fn installed(program: &str) -> PathBuf {
    let path = place().join(program);
    assert!(path.exists(), "{program} is missing: run `cargo xtask clients` first");
    path
}

fn python(script: &str) -> Command {
    let mut call = Command::new(installed("python/bin/python"));
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/resp/python");
    call.arg("-B").arg(scripts.join(script));
    call
}

fn node(script: &str) -> Command {
    let mut call = Command::new("node");
    call.arg(installed(script));
    call
}

#[test]
fn redis_py_with_resp2() {
    Door::open().run("redis-py, RESP2", python("redis_py.py").arg("2"), 21);
}

#[test]
fn redis_py_with_resp3() {
    Door::open().run("redis-py, RESP3", python("redis_py.py").arg("3"), 21);
}

#[test]
fn python_redis_lock() {
    Door::open().run("python-redis-lock", &mut python("python_redis_lock.py"), 8);
}

#[test]
fn pottery() {
    Door::open().run("pottery", &mut python("pottery_lock.py"), 8);
}

#[test]
fn redlock_py() {
    Door::open().run("redlock-py", &mut python("redlock_py.py"), 5);
}

#[test]
fn ioredis_and_redlock() {
    Door::open().run("ioredis", &mut node("node/ioredis.mjs"), 9);
}

#[test]
fn node_redis() {
    Door::open().run("node-redis", &mut node("node/node_redis.mjs"), 6);
}

#[test]
fn redsync() {
    Door::open().run("redsync", &mut Command::new(installed("redsync")), 6);
}

#[test]
fn redisson_and_shedlock() {
    let mut java = Command::new("java");
    let jars = installed("java/jars");
    java.arg("-cp").arg(format!("{}/*", jars.display()));
    java.arg(installed("java/Locks.java"));
    Door::open().run("Redisson and ShedLock", &mut java, 12);
}

/// Users with names that they may touch.
#[test]
fn users() {
    let directory = tempfile::tempdir().expect("a directory");
    let ada = "ada*=lock,publish,consume,admin";
    for (name, allow) in [("ada", &["--allow", ada][..]), ("root", &[])] {
        let mut add = leasehold(directory.path(), &["user", "add", name, "--password-stdin"]);
        let mut add = Process::start(add.args(allow).stdin(Stdio::piped()).stdout(Stdio::null()));
        let mut stdin = add.0.stdin.take().expect("it is piped");
        writeln!(stdin, "secret of {name}").expect("it reads");
        drop(stdin);
        assert!(add.wait().success());
    }
    Door::with(directory, &[]).run("users", &mut python("auth.py"), 9);
}

#[test]
fn redis_cli() {
    let door = Door::open();
    let cli = |words: &[&str], input: &str| door.cli(words, input);
    assert_eq!(cli(&["ping"], ""), "PONG\n");
    assert_eq!(cli(&["set", "cli", "mine", "nx", "px", "30000"], ""), "OK\n");
    assert_eq!(cli(&["set", "cli", "theirs", "nx", "px", "30000"], ""), "\n");
    assert_eq!(cli(&["-3", "hello"], "").lines().next(), Some("server redis"));
    let script = "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) end";
    assert_eq!(cli(&["eval", script, "1", "cli", "mine"], ""), "1\n");
    assert_eq!(cli(&["get", "cli"], ""), "\n");
    let asks: String = (0..10_000).map(|i| format!("SET cli:{i} {i}\r\n")).collect();
    let told = cli(&["--pipe"], &asks);
    assert!(told.contains("errors: 0, replies: 10000"), "{told}");
    assert_eq!(cli(&["dbsize"], ""), "10000\n");
    assert_eq!(cli(&["--scan", "--pattern", "cli:99*"], "").lines().count(), 111);
    assert!(cli(&["info", "server"], "").contains("redis_version:"));
    let lease = cli(&["lease.acquire", "cli:lease", "me", "px", "30000"], "");
    assert_eq!(lease.lines().count(), 2, "{lease}");
}
