//! Running other programs step by step, and saying honestly what came of it.
//!
//! A step has three results: passed, failed, not run. The third is printed on a line of its own,
//! because a step that was skipped in silence reads like one that passed.

use serde_json::Value;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Tests counted from the output of the test harness; a fuzz target and a crash run are one each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
    pub ignored: usize,
}

impl Counts {
    /// Adds those of another run.
    pub fn add(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

/// What a step came to.
#[derive(Debug)]
pub enum Verdict {
    Passed(Counts),
    Failed(Counts, String),
    /// What was not run, and why; the counts are those of the rest of the step.
    NotRun(Counts, String),
}

impl Verdict {
    /// Passed, by a step that is not made of counted tests.
    pub fn passed() -> Verdict {
        Verdict::Passed(Counts::default())
    }

    /// Not run at all.
    pub fn not_run(why: String) -> Verdict {
        Verdict::NotRun(Counts::default(), why)
    }
}

/// A named piece of work. An `Err` is a failure that counted no tests.
pub struct Step {
    name: String,
    work: Box<dyn FnOnce() -> Result<Verdict, String>>,
}

/// Names a piece of work.
pub fn step(
    name: impl Into<String>,
    work: impl FnOnce() -> Result<Verdict, String> + 'static,
) -> Step {
    Step { name: name.into(), work: Box::new(work) }
}

/// The running total of a command.
#[derive(Default)]
struct Tally {
    counts: Counts,
    not_run: Vec<String>,
    /// The step that the run stopped at, and why.
    failed: Option<(String, String)>,
}

impl Tally {
    fn add(&mut self, name: &str, verdict: &Verdict) {
        match verdict {
            Verdict::Passed(counts) => self.counts.passed += counts.passed,
            Verdict::Failed(counts, why) => {
                self.counts.passed += counts.passed;
                // A step that failed without a failing test (a lint, a compile error) counts as
                // one.
                self.counts.failed += counts.failed.max(1);
                self.failed = Some((name.to_string(), why.clone()));
            }
            Verdict::NotRun(counts, why) => {
                self.counts.passed += counts.passed;
                self.not_run.push(format!("{name} ({why})"));
            }
        }
    }

    fn summary(&self) -> String {
        let not_run = match self.not_run.is_empty() {
            true => String::from("nothing"),
            false => self.not_run.join(", "),
        };
        // Again at the end: the place where it was said may be thousands of lines away.
        let why = self.failed.as_ref().map(|(step, why)| format!("\nfailed: {step} ({why})"));
        let Counts { passed, failed, .. } = self.counts;
        let why = why.unwrap_or_default();
        format!("{passed} passed, {failed} failed\nnot run: {not_run}{why}")
    }
}

/// Runs the steps in order, stops at the first failure, prints the summary. What was not run fails
/// the whole: it is not known to work.
pub fn run_all(steps: Vec<Step>) -> ExitCode {
    let mut tally = Tally::default();
    for Step { name, work } in steps {
        if let Some((stopped_at, _)) = &tally.failed {
            let why = format!("stopped at {stopped_at}");
            tally.add(&name, &Verdict::not_run(why));
            continue;
        }
        println!("── {name}");
        let start = Instant::now();
        let verdict = work().unwrap_or_else(|why| Verdict::Failed(Counts::default(), why));
        let elapsed = seconds(start.elapsed());
        match &verdict {
            Verdict::Passed(_) => println!("── {name}: ok, {elapsed}"),
            Verdict::Failed(_, why) => println!("── {name}: FAILED, {elapsed}: {why}"),
            Verdict::NotRun(_, why) => println!("── {name}: not run: {why}"),
        }
        tally.add(&name, &verdict);
    }
    println!("\n{}", tally.summary());
    match tally.failed.is_none() && tally.not_run.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn seconds(elapsed: Duration) -> String {
    format!("{:.1} s", elapsed.as_secs_f64())
}

/// The repository's root: the directory above this crate.
pub fn root() -> PathBuf {
    // Read at run time, so that the binary names no directory of the machine it was built on.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    manifest
        .as_deref()
        .and_then(|directory| directory.parent())
        .map_or_else(|| PathBuf::from("."), PathBuf::from)
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A call of the cargo that runs us, from the repository's root.
pub fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut call = Command::new(program);
    call.current_dir(root());
    // These describe the package `xtask` and would mislead what we start.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PKG_NAME"] {
        call.env_remove(name);
    }
    call
}

/// Runs to the end with our own input and output; anything but exit code 0 is an error.
pub fn succeed(call: &mut Command) -> Result<(), String> {
    let status = call.status().map_err(|error| cannot_start(call, &error))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", spoken(call))) }
}

/// Whether the program can be started and succeeds, with its output thrown away.
pub fn works(call: &mut Command) -> bool {
    call.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Which of the two outputs to read; the other goes to the user untouched.
pub enum Output {
    Stdout,
    Stderr,
}

/// Runs to the end, hands each line of one output to `see` while it comes. True for exit code 0.
///
/// Lines are bytes made readable, since a fuzz target may print anything.
pub fn stream(
    call: &mut Command,
    output: Output,
    mut see: impl FnMut(&str),
) -> Result<bool, String> {
    match output {
        Output::Stdout => call.stdout(Stdio::piped()),
        Output::Stderr => call.stderr(Stdio::piped()),
    };
    let mut child = call.spawn().map_err(|error| cannot_start(call, &error))?;
    let pipe: Option<Box<dyn Read>> = match output {
        Output::Stdout => child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read>),
        Output::Stderr => child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read>),
    };
    let mut reader = BufReader::new(pipe.expect("the output was asked to be a pipe"));
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line);
        if read.map_err(|error| format!("{}: reading: {error}", spoken(call)))? == 0 {
            break;
        }
        see(String::from_utf8_lossy(&line).trim_end());
    }
    let status = child.wait().map_err(|error| format!("{}: {error}", spoken(call)))?;
    Ok(status.success())
}

/// Prints a line now, even when our output is a pipe.
pub fn pass_on(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody reads any more: the verdict still matters, so go on.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// `cargo metadata` without dependencies, with further arguments.
pub fn metadata(arguments: &[&str]) -> Result<Value, String> {
    let mut call = cargo();
    call.args(["metadata", "--format-version", "1", "--no-deps"]).args(arguments);
    call.stderr(Stdio::inherit());
    let output = call.output().map_err(|error| cannot_start(&call, &error))?;
    if !output.status.success() {
        return Err(format!("{}: {}", spoken(&call), output.status));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{}: {error}", spoken(&call)))
}

/// The names of a package's binaries, in the manifest's order.
pub fn binaries(metadata: &Value, package: &str) -> Vec<String> {
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    let targets = packages.iter().filter(|found| found["name"] == package);
    targets
        .flat_map(|found| found["targets"].as_array().map_or(&[][..], Vec::as_slice))
        .filter(|target| target["kind"].as_array().is_some_and(|kinds| kinds[0] == "bin"))
        .filter_map(|target| target["name"].as_str().map(String::from))
        .collect()
}

/// Where builds go, as cargo sees it (so `CARGO_TARGET_DIR` is respected).
pub fn target_directory() -> Result<PathBuf, String> {
    let metadata = metadata(&[])?;
    let directory = metadata["target_directory"].as_str();
    directory.map(PathBuf::from).ok_or_else(|| String::from("cargo names no target directory"))
}

/// The value after `--name`, or the default; any other argument goes to the caller.
pub fn number(
    arguments: &[String],
    name: &str,
    default: u64,
) -> Result<(u64, Vec<String>), String> {
    let mut value = default;
    let mut rest = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let given = match word.strip_prefix(name) {
            Some("") => words.next().map(String::as_str),
            Some(tail) if tail.starts_with('=') => Some(&tail[1..]),
            _ => {
                rest.push(word.clone());
                continue;
            }
        };
        let given = given.ok_or_else(|| format!("{name} wants a number after it"))?;
        value = given.parse().map_err(|_| format!("{name} wants a number, not `{given}`"))?;
        if value == 0 {
            return Err(format!("{name} 0 would prove nothing; give at least 1"));
        }
    }
    Ok((value, rest))
}

/// Refuses arguments that nobody asked for: a misspelt option must not be ignored.
pub fn nothing_else(rest: &[String]) -> Result<(), String> {
    match rest.first() {
        None => Ok(()),
        Some(word) => Err(format!("unexpected argument `{word}`; see `cargo xtask help`")),
    }
}

fn spoken(call: &Command) -> String {
    let words = call.get_args().map(|word| word.to_string_lossy());
    let program = PathBuf::from(call.get_program());
    let name = program.file_name().map(|name| name.to_string_lossy().into_owned());
    name.into_iter().chain(words.map(String::from)).collect::<Vec<_>>().join(" ")
}

fn cannot_start(call: &Command, error: &std::io::Error) -> String {
    format!("{} cannot be started: {error}", spoken(call))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn a_failed_step_without_tests_counts_as_one_failure() {
        let mut tally = Tally::default();
        tally.add("tests", &Verdict::Passed(Counts { passed: 7, failed: 0, ignored: 0 }));
        tally.add("lints", &Verdict::Failed(Counts::default(), String::from("no")));
        tally.add("fuzz", &Verdict::not_run(String::from("stopped at lints")));
        let summary = "7 passed, 1 failed\nnot run: fuzz (stopped at lints)\nfailed: lints (no)";
        assert_eq!(tally.summary(), summary);
    }

    #[test]
    fn a_failed_step_keeps_its_own_count() {
        let mut tally = Tally::default();
        let counts = Counts { passed: 2, failed: 3, ignored: 0 };
        tally.add("tests", &Verdict::Failed(counts, String::from("no")));
        assert_eq!(tally.summary(), "2 passed, 3 failed\nnot run: nothing\nfailed: tests (no)");
    }

    #[test]
    fn a_step_that_was_run_in_part_is_counted_and_named() {
        let mut tally = Tally::default();
        let counts = Counts { passed: 5, ..Counts::default() };
        tally.add("engines", &Verdict::NotRun(counts, String::from("etcd: no etcd-server")));
        let summary = "5 passed, 0 failed\nnot run: engines (etcd: no etcd-server)";
        assert_eq!(tally.summary(), summary);
    }

    #[test]
    fn run_all_stops_at_the_first_failure() {
        let ran = std::rc::Rc::new(std::cell::Cell::new(false));
        let seen = ran.clone();
        let code = run_all(vec![
            step("first", || Err(String::from("on purpose"))),
            step("second", move || {
                seen.set(true);
                Ok(Verdict::passed())
            }),
        ]);
        assert!(!ran.get());
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::FAILURE));
    }

    #[test]
    fn numbers_are_read_in_both_spellings() {
        assert_eq!(number(&words("--kills 5"), "--kills", 50), Ok((5, vec![])));
        assert_eq!(number(&words("a --kills=6"), "--kills", 50), Ok((6, words("a"))));
        assert_eq!(number(&[], "--kills", 50), Ok((50, vec![])));
    }

    #[test]
    fn bad_numbers_are_refused() {
        assert!(number(&words("--kills"), "--kills", 50).is_err());
        assert!(number(&words("--kills many"), "--kills", 50).is_err());
        assert!(number(&words("--kills 0"), "--kills", 50).is_err());
        assert!(nothing_else(&words("--kill")).is_err());
    }

    #[test]
    fn only_exit_code_zero_succeeds() {
        assert!(succeed(&mut Command::new("true")).is_ok());
        assert!(succeed(&mut Command::new("false")).is_err());
        assert!(!works(&mut Command::new("leasehold-no-such-program")));
    }
}
