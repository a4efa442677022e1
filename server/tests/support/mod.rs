//! The real binary, run in directories and on ports of its own.

#![allow(dead_code, reason = "each test file uses a part")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Nothing here takes so long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often something is looked at that tells nobody when it changes.
pub const LOOK: Duration = Duration::from_millis(10);

/// The binary with arguments and without this process's settings, in a directory.
pub fn leasehold(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leasehold"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LEASEHOLD_") {
            command.env_remove(name);
        }
    }
    // Servers of many tests run at one time; who wants this door says so.
    command.env("LEASEHOLD_RESP_LISTEN", "off");
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn run(directory: &Path, arguments: &[&str]) -> Output {
    leasehold(directory, arguments).output().expect("the binary runs")
}

/// What it said on stdout.
pub fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What it said on stderr.
pub fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs it to its end, which has to be a good one.
pub fn done(directory: &Path, arguments: &[&str]) -> String {
    let output = run(directory, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", err(&output));
    out(&output)
}

/// Runs it to its end, which has to be one line of refusal with this exit code.
pub fn refused(directory: &Path, arguments: &[&str], code: i32) -> String {
    let output = run(directory, arguments);
    let text = err(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(text.starts_with("leasehold: "), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// A process that ends with the test, by its own number.
pub struct Process(pub Child);

impl Process {
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().expect("the binary runs"))
    }

    pub fn id(&self) -> i32 {
        i32::try_from(self.0.id()).expect("a process id is small")
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.id()).expect("a process id is not 0");
        kill_process(pid, signal).expect("the process is there");
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("the process ends", || {
            status = self.0.try_wait().expect("it can be waited for");
            status.is_some()
        });
        status.expect("it ended")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, and been waited for.
        if matches!(self.0.try_wait(), Ok(None)) {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }
}

/// Looks until something is so.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(LOOK);
    }
}

/// Whether a process runs: it is there and no zombie.
pub fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

/// Waits until a file is there with a whole line in it, and gives what is in it.
pub fn content(path: &Path) -> String {
    let mut text = String::new();
    until(&format!("{} is written", path.display()), || {
        text = std::fs::read_to_string(path).unwrap_or_default();
        text.ends_with('\n')
    });
    text.trim_end().to_owned()
}

/// A server on a free port and a directory of its own.
pub struct Server {
    pub process: Process,
    pub url: String,
    pub directory: TempDir,
}

impl Server {
    pub fn start() -> Self {
        Self::with(&[])
    }

    pub fn with(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (process, url) = serve(directory.path(), arguments);
        Self { process, url, directory }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A command line that talks to this server.
    pub fn leasehold(&self, arguments: &[&str]) -> Command {
        let mut command = leasehold(self.path(), arguments);
        command.env("LEASEHOLD_URL", &self.url);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.leasehold(arguments).output().expect("the binary runs")
    }

    pub fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", err(&output));
        out(&output)
    }
}

/// Starts a server in a directory and waits until it is ready.
pub fn serve(directory: &Path, arguments: &[&str]) -> (Process, String) {
    let mut command = leasehold(directory, &["serve", "--json"]);
    command.env("LEASEHOLD_HTTP_LISTEN", "127.0.0.1:0").env("LEASEHOLD_LOG_LEVEL", "warn");
    ready(command.args(arguments))
}

/// Starts a server and waits until it says where it is.
pub fn ready(command: &mut Command) -> (Process, String) {
    let mut process = Process::start(command.stdout(Stdio::piped()));
    let stdout = process.0.stdout.take().expect("it is piped");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).expect("the server says something");
    let ready: serde_json::Value = serde_json::from_str(&line).expect("the server is ready");
    let url = ready["http"].as_str().expect("it has an address").to_owned();
    (process, url)
}
