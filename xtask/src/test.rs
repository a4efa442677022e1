//! `test`, `crash` and `soak`: the proofs, short and long.
//!
//! The steps go from cheap to dear, so that a misplaced space does not wait for a fuzzer. The tests
//! run in the dev profile because the invariants check after every step is a debug assertion.

use crate::run::{self, Counts, Output, Step, Verdict, step};
use crate::{browser, clients, engines, fuzz, tidy};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Seconds for each fuzz target: enough to replay the corpus and look around.
const FUZZ_SECONDS_SHORT: u64 = 10;
const FUZZ_SECONDS_LONG: u64 = 120;
const KILLS_SHORT: u64 = 5;
const KILLS_LONG: u64 = 50;
const OUTAGES_SHORT: u64 = 4;
/// What plays outages needs more than an engine's own tests.
const OUTAGE: &str = "leasehold-conformance/outage";
/// Read by the simulator's tests: how many seeds to run, and how many scripts to stop everywhere.
const LONG: [(&str, &str); 2] = [("LEASEHOLD_SEEDS", "10000"), ("LEASEHOLD_SCRIPTS", "30")];

/// `cargo xtask test`.
pub fn command(arguments: &[String]) -> Result<ExitCode, String> {
    run::nothing_else(arguments)?;
    Ok(run::run_all(vec![
        step("format", format),
        step("lints", lints),
        step("tidy", tidy::check),
        step("documentation", documentation),
        step("tests", || cargo_test(&["--workspace"], &[])),
        step("browser", browser::check),
        step("Redis clients", clients::check),
        step("engines", engines::check_all),
        step("fuzz", || fuzz::check(FUZZ_SECONDS_SHORT)),
        step("crash", crash_short),
        step("outage", || outage(OUTAGES_SHORT)),
    ]))
}

/// `cargo xtask docs`.
pub fn docs_command(arguments: &[String]) -> Result<ExitCode, String> {
    run::nothing_else(arguments)?;
    Ok(run::run_all(vec![step("documentation", documentation)]))
}

/// `cargo xtask crash [--kills N]`.
pub fn crash_command(arguments: &[String]) -> Result<ExitCode, String> {
    let (kills, rest) = run::number(arguments, "--kills", KILLS_LONG)?;
    run::nothing_else(&rest)?;
    let histories = engines::histories_step(kills);
    Ok(run::run_all(vec![crash_step(kills), outage_step(kills), histories]))
}

/// `cargo xtask soak`.
pub fn soak_command(arguments: &[String]) -> Result<ExitCode, String> {
    run::nothing_else(arguments)?;
    Ok(run::run_all(vec![
        crash_step(KILLS_LONG),
        outage_step(KILLS_LONG),
        engines::histories_step(KILLS_LONG),
        step("fuzz", || fuzz::check(FUZZ_SECONDS_LONG)),
        step("simulator", || cargo_test(&["--release", "-p", "leasehold-simulator"], &LONG)),
    ]))
}

fn format() -> Result<Verdict, String> {
    ensure_component("fmt", "rustfmt")?;
    run::succeed(run::cargo().args(["fmt", "--all", "--check"]))?;
    // The fuzz crate stands outside the workspace, but not outside the style.
    run::succeed(run::cargo().args(["fmt", "--manifest-path", fuzz::MANIFEST, "--check"]))?;
    Ok(Verdict::passed())
}

fn lints() -> Result<Verdict, String> {
    ensure_component("clippy", "clippy")?;
    engines::ensure_libraries()?;
    let mut call = run::cargo();
    call.args(["clippy", "--workspace", "--all-targets", "--features", OUTAGE]);
    call.args(["--features", engines::BENCHMARKED]);
    call.args(engines::features()).args(["--", "-D", "warnings"]);
    run::succeed(&mut call)?;
    // These stand apart from the other tests, so "all targets" leaves them out.
    let mut apart = run::cargo();
    apart
        .args(["clippy", "-p", "leasehold-server"])
        .args(engines::tests())
        .args(engines::features());
    run::succeed(apart.args(["--test", "*", "--", "-D", "warnings"]))?;
    Ok(Verdict::passed())
}

fn documentation() -> Result<Verdict, String> {
    let mut call = run::cargo();
    call.args(["doc", "--workspace", "--no-deps", "--features", OUTAGE]);
    call.env("RUSTDOCFLAGS", "-D warnings");
    run::succeed(&mut call)?;
    Ok(Verdict::passed())
}

/// Runs tests, lets their output through and counts the results.
pub fn cargo_test(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Verdict, String> {
    let mut call = run::cargo();
    // Without this, one failing crate would hide the results of all that follow.
    call.args(["test", "--no-fail-fast"]).args(arguments);
    call.envs(variables.iter().copied());
    let mut heard = Heard::default();
    let success = run::stream(&mut call, Output::Stdout, |line| {
        run::pass_on(line);
        heard.line(line);
    })?;
    Ok(heard.judge(success))
}

/// What the test harness has said.
#[derive(Default)]
pub struct Heard {
    pub counts: Counts,
    /// The tests that failed: names, and what their panics said.
    failed: Vec<(String, Vec<String>)>,
    place: Place,
}

/// Where in the harness' output we are.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    Elsewhere,
    /// In what this one of the failed tests has said.
    Test(usize),
    /// In the message of its panic.
    Panic(usize),
}

/// Lines of a panic's message that are repeated at the end.
const LINES: usize = 5;

impl Heard {
    /// Hears one line of its output.
    pub fn line(&mut self, line: &str) {
        test_result(line).into_iter().for_each(|found| self.counts.add(found));
        let name = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"));
        self.failed.extend(name.map(|name| (name.to_owned(), Vec::new())));
        self.place = self.place_after(line);
    }

    fn place_after(&mut self, line: &str) -> Place {
        if let Some(rest) = line.strip_prefix("---- ") {
            let of = |(name, _): &(String, _)| rest.starts_with(&format!("{name} stdout ----"));
            return self.failed.iter().rposition(of).map_or(Place::Elsewhere, Place::Test);
        }
        match self.place {
            Place::Test(test) if line.contains(" panicked at ") => Place::Panic(test),
            Place::Panic(test) if ends_panic(line) => Place::Test(test),
            Place::Panic(test) => {
                let said = &mut self.failed[test].1;
                if said.len() < LINES {
                    said.push(line.to_owned());
                }
                self.place
            }
            _ if line == "failures:" => Place::Elsewhere,
            place => place,
        }
    }

    /// The tests that failed, and why.
    fn failures(&self) -> String {
        let one = |(name, said): &(String, Vec<String>)| match said.is_empty() {
            true => name.clone(),
            false => format!("{name} ({})", said.join("; ")),
        };
        self.failed.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// Turns the exit code and what was heard into a verdict.
    ///
    /// An ignored test fails the step, and so does a run without tests: what never runs proves
    /// nothing.
    pub fn judge(self, success: bool) -> Verdict {
        let counts = self.counts;
        let failed = |why: String| Verdict::Failed(counts, why);
        if counts.failed > 0 {
            failed(format!("{} failed: {}", counts.failed, self.failures()))
        } else if !success {
            failed(String::from("cargo test failed outside of a test"))
        } else if counts.ignored > 0 {
            failed(format!("{} ignored tests: let them run or delete them", counts.ignored))
        } else if counts.passed == 0 {
            failed(String::from("no test ran"))
        } else {
            Verdict::Passed(counts)
        }
    }
}

/// Whether a line follows the message of a panic.
fn ends_panic(line: &str) -> bool {
    let ends = ["stack backtrace:", "note: run with `RUST_BACKTRACE"];
    line.is_empty() || ends.iter().any(|end| line.starts_with(end))
}

/// Reads `test result: ok. 3 passed; 0 failed; 0 ignored; …`.
fn test_result(line: &str) -> Option<Counts> {
    let (_, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = Counts::default();
    for part in numbers.split(';') {
        let mut words = part.split_whitespace();
        let (Some(number), Some(name)) = (words.next(), words.next()) else { continue };
        let Ok(number) = number.parse() else { continue };
        match name {
            "passed" => counts.passed = number,
            "failed" => counts.failed = number,
            "ignored" => counts.ignored = number,
            _ => {}
        }
    }
    Some(counts)
}

/// The kill -9 run that every change must pass.
fn crash_short() -> Result<Verdict, String> {
    crash(KILLS_SHORT)
}

fn crash_step(kills: u64) -> Step {
    step(format!("crash, {kills} kills"), move || crash(kills))
}

/// Passes on exit code 0 and on nothing else; a missing binary is a failure, not a skipped step.
fn crash(kills: u64) -> Result<Verdict, String> {
    let mut call = run::cargo();
    call.args(["run", "--release", "-p", "leasehold-bench", "--bin", "crash", "--"]);
    call.args(["--kills", &kills.to_string()]);
    run::succeed(&mut call)?;
    Ok(Verdict::Passed(Counts { passed: 1, ..Counts::default() }))
}

fn outage_step(kills: u64) -> Step {
    step(format!("outage, {kills} times"), move || outage(kills))
}

/// Real clients of a real server, all of them killed and paused, and a judge of what they saw.
fn outage(kills: u64) -> Result<Verdict, String> {
    let mut build = run::cargo();
    run::succeed(build.args(["build", "--workspace", "--bin", "leasehold"]))?;
    let (outage, server) = (built_outage()?, run::target().join("debug/leasehold"));
    let play = |over: &str, what: &Path| {
        let mut call = Command::new(&outage);
        call.arg(over).arg(what).args(["--kills", &kills.to_string()]);
        run::succeed(&mut call)
    };
    play("--server", &server)?;
    // And over locks in files, which need no server. What an older run has left is nobody's here.
    let locks = run::target().join("outage-locks");
    std::fs::remove_dir_all(&locks).ok();
    let locks = std::path::absolute(&locks).map_err(|error| error.to_string())?;
    play("--url", Path::new(&format!("file://{}", locks.display())))?;
    Ok(Verdict::Passed(Counts { passed: 2, ..Counts::default() }))
}

/// Builds what plays outages.
///
/// For the whole workspace, so that what it is made of has the same features as in the tests and
/// is not built twice.
pub fn built_outage() -> Result<PathBuf, String> {
    let mut build = run::cargo();
    run::succeed(build.args(["build", "--workspace", "--bin", "outage", "--features", OUTAGE]))?;
    Ok(run::target().join("debug/outage"))
}

/// Installs a toolchain component if its cargo command does not answer.
fn ensure_component(subcommand: &str, component: &str) -> Result<(), String> {
    if run::works(run::cargo().args([subcommand, "--version"])) {
        return Ok(());
    }
    println!("installing {component}");
    run::succeed(Command::new("rustup").args(["component", "add", component]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: usize, failed: usize, ignored: usize) -> Counts {
        Counts { passed, failed, ignored }
    }

    #[test]
    fn results_are_read_from_the_harness() {
        let line = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out";
        assert_eq!(test_result(line), Some(counts(12, 0, 1)));
        let line = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured";
        assert_eq!(test_result(line), Some(counts(3, 2, 0)));
        assert_eq!(test_result("test laws::replay ... ok"), None);
    }

    #[test]
    fn only_tests_that_ran_and_passed_pass() {
        let judge = |success, counts| Heard { counts, ..Heard::default() }.judge(success);
        assert!(matches!(judge(true, counts(1, 0, 0)), Verdict::Passed(_)));
        assert!(matches!(judge(false, counts(1, 0, 0)), Verdict::Failed(..)));
        assert!(matches!(judge(false, counts(1, 1, 0)), Verdict::Failed(..)));
        assert!(matches!(judge(true, counts(1, 0, 1)), Verdict::Failed(..)));
        assert!(matches!(judge(true, counts(0, 0, 0)), Verdict::Failed(..)));
    }

    #[test]
    fn who_failed_is_named() {
        let mut heard = Heard::default();
        heard.line("test losses::late ... FAILED");
        heard.line("test losses::early ... ok");
        heard.line("---- losses::early stdout ----");
        heard.line("thread 'losses::early' (7) panicked at conformance/src/lib.rs:235:5:");
        heard.line("caught, and nobody's business");
        heard.line("failures:");
        heard.line("---- losses::late stdout ----");
        heard.line("it begins");
        heard.line("thread 'losses::late' (8) panicked at conformance/src/lib.rs:235:5:");
        heard.line("it came late");
        heard.line("by a second");
        heard.line("stack backtrace:");
        heard.line("   0: __rustc::rust_begin_unwind");
        heard.line("test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured");
        let Verdict::Failed(_, why) = heard.judge(false) else { panic!("one of them failed") };
        assert_eq!(why, "1 failed: losses::late (it came late; by a second)");
    }
}
