//! Servers that benchmarks start: with one processor of their own, on a port of their own choice,
//! ended with the benchmark however that ends.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, Once};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A server process that is ended when it is dropped.
#[derive(Debug)]
pub struct Server(Child);

/// Servers that run: a benchmark that panics aborts, and would leave them.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

impl Server {
    /// Takes charge of a process.
    pub fn new(child: Child) -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(end_with_a_panic);
        RUNNING.lock().expect("nobody panics while holding it").push(child.id());
        Self(child)
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Starts Leasehold; gives what it says of itself when it is ready. Trying to connect until it
    /// works is no way to wait: a connection to a free port of this machine may meet itself, and
    /// then holds the port.
    pub fn leasehold(program: &Path, directory: &Path, more: &[&str]) -> (Self, Value) {
        let mut call = on_the_first_processor(program);
        call.arg("serve").arg("--data-dir").arg(directory).args(["--http-listen", "127.0.0.1:0"]);
        call.args(["--json", "--log-level", "error"]).args(more).stdout(Stdio::piped());
        let mut child = call.spawn().expect("the server starts; taskset is of util-linux");
        let stdout = child.stdout.take().expect("it is piped");
        let server = Self::new(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("it says when it is ready");
        (server, serde_json::from_str(&line).expect("it says so in JSON"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A call of a program that may use the first processor only.
pub fn on_the_first_processor(program: &Path) -> Command {
    let mut call = Command::new("taskset");
    call.args(["-c", "0"]).arg(program);
    call
}

fn end_with_a_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        for id in RUNNING.lock().map(|running| running.clone()).unwrap_or_default() {
            if let Some(id) = Pid::from_raw(id.cast_signed()) {
                kill_process(id, Signal::KILL).ok();
            }
        }
        before(info);
    }));
}
