//! Coverage-guided fuzzing on the stable compiler.
//!
//! The instrumentation pass is part of LLVM and reachable through stable flags; the fuzzer itself
//! is the C++ library that `libfuzzer-sys` builds with the system's C++ compiler. So a
//! contributor needs neither the nightly toolchain nor `cargo-fuzz` nor clang. The price: no
//! address sanitizer, which matters little where `unsafe` is denied.
//!
//! Flags that quietly stopped working would leave a fuzzer that is blind and therefore always
//! green. So a run passes only if libFuzzer reports counters and finds its first inputs
//! interesting.

use crate::run::{self, Counts, Output, Verdict, step};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// The fuzz crate's manifest, outside the workspace so that nobody builds it by accident.
pub const MANIFEST: &str = "fuzz/Cargo.toml";

const PACKAGE: &str = "leasehold-fuzz";
const SECONDS: u64 = 10;

/// Edge coverage as inline counters, plus comparison tracing so that magic numbers are found.
/// One codegen unit: the counters of a crate stay in one table.
const RUSTFLAGS: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1 --cfg fuzzing";

/// `cargo xtask fuzz [--seconds N] [TARGET…]`. Here a missing compiler is an error, since fuzzing
/// is all that was asked for.
pub fn command(arguments: &[String]) -> Result<ExitCode, String> {
    let (seconds, wanted) = run::number(arguments, "--seconds", SECONDS)?;
    let known = targets()?;
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(name)) {
        let known = known.join(", ");
        return Err(format!("there is no fuzz target `{unknown}`; there are: {known}"));
    }
    if let Some(why) = obstacle(&known) {
        return Err(why);
    }
    let chosen = if wanted.is_empty() { known } else { wanted };
    Ok(run::run_all(vec![step("fuzz", move || fuzz(&chosen, seconds))]))
}

/// The fuzz step of `test` and `soak`: every target, or an honest reason why not.
pub fn check(seconds: u64) -> Result<Verdict, String> {
    let known = targets()?;
    match obstacle(&known) {
        Some(why) => Ok(Verdict::not_run(why)),
        None => fuzz(&known, seconds),
    }
}

fn targets() -> Result<Vec<String>, String> {
    Ok(run::binaries(&run::metadata(&["--manifest-path", MANIFEST])?, PACKAGE))
}

/// Why fuzzing cannot happen here, if so.
fn obstacle(targets: &[String]) -> Option<String> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| String::from("c++"));
    if targets.is_empty() {
        Some(format!("{MANIFEST} lists no target"))
    } else if !run::works(Command::new(&compiler).arg("--version")) {
        Some(format!("no C++ compiler `{compiler}` to build libFuzzer with"))
    } else {
        None
    }
}

fn fuzz(targets: &[String], seconds: u64) -> Result<Verdict, String> {
    let place = run::target_directory()?;
    let host = host()?;
    let mut call = run::cargo();
    call.args(["build", "--release", "--manifest-path", MANIFEST, "--target", &host]);
    call.arg("--target-dir").arg(place.join("fuzz"));
    // Cargo prefers the encoded form, so an inherited one would switch the instrumentation off.
    call.env("RUSTFLAGS", RUSTFLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS");
    run::succeed(&mut call)?;
    let mut counts = Counts::default();
    let mut failures = Vec::new();
    for target in targets {
        let binary = place.join("fuzz").join(&host).join("release").join(target);
        // One target's crash says nothing about the others: run them all.
        match fuzz_one(&binary, target, &place, seconds) {
            Ok(()) => counts.passed += 1,
            Err(why) => {
                counts.failed += 1;
                failures.push(why);
            }
        }
    }
    Ok(match failures.is_empty() {
        true => Verdict::Passed(counts),
        false => Verdict::Failed(counts, failures.join("; ")),
    })
}

/// Runs one target: bounded in time, memory and input length.
fn fuzz_one(binary: &Path, target: &str, place: &Path, seconds: u64) -> Result<(), String> {
    let corpus = make(place.join("fuzz-corpus").join(target))?;
    let found = make(place.join("fuzz-found").join(target))?;
    println!("fuzz {target}, {seconds} s");
    let mut call = Command::new(binary);
    call.arg(&corpus);
    // Inputs worth keeping in the repository; libFuzzer writes only to the first directory.
    let seeds = run::root().join("fuzz/seeds").join(target);
    if seeds.is_dir() {
        call.arg(seeds);
    }
    call.arg(format!("-max_total_time={seconds}"));
    call.args(["-rss_limit_mb=1024", "-max_len=4096", "-timeout=5", "-print_final_stats=1"]);
    call.arg(format!("-artifact_prefix={}/", found.display()));
    call.stdin(Stdio::null());
    let mut report = Report::default();
    let success = run::stream(&mut call, Output::Stderr, |line| {
        if report.see(line) {
            run::pass_on(line);
        }
    })?;
    let verdict = report.judge(target, success);
    if let Some(input) = &report.reproducer {
        println!("to see it again: {} {input}", binary.display());
    }
    verdict
}

/// What libFuzzer said about its own run.
#[derive(Default)]
struct Report {
    counters: bool,
    blind: bool,
    reproducer: Option<String>,
}

impl Report {
    /// Notes what matters in a line; says whether to show it. A line per new input is too many.
    fn see(&mut self, line: &str) -> bool {
        if line.contains("inline 8-bit counters)") && !line.contains("(0 inline") {
            self.counters = true;
        }
        if line.contains("no interesting inputs were found") {
            self.blind = true;
        }
        if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.reproducer = Some(path.trim().to_string());
        }
        !line.starts_with('#') || line.contains("DONE")
    }

    fn judge(&self, target: &str, success: bool) -> Result<(), String> {
        if let Some(path) = &self.reproducer {
            return Err(format!("{target} fails on the input in {path}"));
        }
        if !success {
            return Err(format!("{target} ended with an error and left no input behind"));
        }
        if self.blind || !self.counters {
            return Err(format!("{target} ran without coverage: the compiler flags do nothing"));
        }
        Ok(())
    }
}

fn make(directory: PathBuf) -> Result<PathBuf, String> {
    std::fs::create_dir_all(&directory)
        .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
    Ok(directory)
}

/// The host triple. Naming it keeps the flags away from build scripts.
fn host() -> Result<String, String> {
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(compiler).arg("-vV").current_dir(run::root()).output();
    let output = output.map_err(|error| format!("rustc -vV cannot be started: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(String::from).ok_or_else(|| String::from("rustc -vV names no host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOADED: &str = "INFO: Loaded 1 modules   (3301 inline 8-bit counters): 3301 [0x1, 0x2)";

    fn report(lines: &[&str]) -> Report {
        let mut report = Report::default();
        for line in lines {
            report.see(line);
        }
        report
    }

    #[test]
    fn a_run_with_coverage_and_exit_code_zero_passes() {
        assert_eq!(report(&[LOADED]).judge("frame", true), Ok(()));
    }

    #[test]
    fn a_crash_names_the_input() {
        let line = "artifact_prefix='./'; Test unit written to ./crash-84811de0";
        let why = report(&[LOADED, line]).judge("frame", false).expect_err("a crash must fail");
        assert!(why.contains("./crash-84811de0"), "{why}");
    }

    #[test]
    fn a_blind_fuzzer_fails() {
        assert!(report(&[]).judge("frame", true).is_err());
        let line = "WARNING: no interesting inputs were found so far. Is the code instrumented?";
        assert!(report(&[LOADED, line]).judge("frame", true).is_err());
        assert!(report(&[LOADED]).judge("frame", false).is_err());
    }

    #[test]
    fn progress_is_not_shown() {
        let mut report = Report::default();
        assert!(!report.see("#2048 NEW cov: 12 ft: 14 corp: 3/9b"));
        assert!(report.see("#4096 DONE cov: 12 ft: 14 corp: 3/9b"));
        assert!(report.see("thread panicked"));
    }

    #[test]
    fn no_target_is_an_obstacle() {
        assert!(obstacle(&[]).is_some());
    }
}
