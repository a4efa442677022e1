//! The demo, small: real processes, real kills, one server restart. What it says about itself is
//! taken from its JSON, and one falsified line must be found out.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

/// A demo in a process group of its own. Whatever becomes of the test, the whole group ends.
struct Demo {
    child: Child,
    group: Pid,
    dir: tempfile::TempDir,
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Usually nobody is left.
        kill_process_group(self.group, Signal::KILL).ok();
        self.child.wait().ok();
    }
}

impl Demo {
    fn start(seed: &str, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = Command::new(env!("CARGO_BIN_EXE_leasehold"));
        command.args(["demo", "--json", "--orders", "2000", "--articles", "20"]);
        command.args(["--workers", "3", "--kills", "4", "--seconds-limit", "150"]);
        command.args(["--seed", seed]).args(more).arg("--dir").arg(dir.path());
        command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped());
        let child = command.process_group(0).spawn().expect("start the demo");
        let group = Pid::from_child(&child);
        Self { child, group, dir }
    }

    fn finish(mut self) -> (ExitStatus, Value) {
        let mut stdout = self.child.stdout.take().expect("it is piped");
        let reader = std::thread::spawn(move || std::io::read_to_string(&mut stdout));
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait for the demo") {
                break status;
            }
            assert!(began.elapsed() < Duration::from_secs(240), "the demo does not end");
            std::thread::sleep(Duration::from_millis(50));
        };
        let text = reader.join().expect("a reader").expect("text");
        let report = serde_json::from_str(&text);
        let logs = |name| std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        let report = report.unwrap_or_else(|error| {
            panic!("{status}: {error} in {text:?}\n{}\n{}", logs("server.log"), logs("workers.log"))
        });
        assert!(kill_process_group(self.group, Signal::CONT).is_err(), "a process outlived it");
        (status, report)
    }
}

fn broken(report: &Value) -> Vec<&str> {
    let books = report["books"].as_array().expect("books");
    let broken = books.iter().filter(|book| book["balances"] == false);
    broken.filter_map(|book| book["name"].as_str()).collect()
}

#[test]
fn a_small_sale_balances_through_kills_and_a_restart() {
    let (status, report) = Demo::start("11", &[]).finish();
    assert!(status.success() && report["balanced"] == true, "{report:#}");
    assert_eq!(broken(&report), [""; 0]);
    assert_eq!(report["figures"]["workers_killed"], 4);
    assert_eq!(report["figures"]["server_restarts_ms"].as_array().map(Vec::len), Some(1));
    assert!(report["figures"]["stale_refused"].as_u64() >= Some(1), "{report:#}");
    assert!(report["figures"]["placed_to_shipped"]["count"].as_u64() > Some(1000));
}

#[test]
fn a_falsified_ledger_is_found_out() {
    let (status, report) = Demo::start("12", &["--tamper"]).finish();
    assert_eq!(status.code(), Some(1), "{report:#}");
    assert!(broken(&report).contains(&"stock"), "{report:#}");
}
