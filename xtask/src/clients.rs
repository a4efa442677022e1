//! Programs that lock with Redis, against the RESP door.
//!
//! The libraries come from their registries in pinned versions and stand outside the source tree;
//! what runs them comes from the system's packages. Whatever cannot be had makes the step *not
//! run*, which fails the run: a library that nobody tried is not one that works.

use crate::run::{self, Verdict};
use crate::{browser, test};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const SCRIPTS: &str = "server/tests/resp";
/// Programs and the packages that they come with.
const PROGRAMS: &[(&[&str], &[&str])] = &[
    (&["redis-cli"], &["redis-tools"]),
    (&["node", "npm"], &["nodejs", "npm"]),
    (&["java", "javac", "mvn"], &["default-jdk-headless", "maven"]),
    (&["go"], &["golang-go"]),
    (&["python3"], &["python3-venv"]),
];

/// `cargo xtask clients`.
pub fn command(arguments: &[String]) -> Result<ExitCode, String> {
    run::nothing_else(arguments)?;
    Ok(run::run_all(vec![run::step("Redis clients", check)]))
}

/// Installs what is missing and runs the tests.
pub fn check() -> Result<Verdict, String> {
    if let Err(why) = install() {
        return Ok(Verdict::not_run(why));
    }
    // Two at a time: some of them count bytes of memory and send many.
    let tests = ["-p", "leasehold-server", "--test", "resp_clients", "--", "--test-threads", "2"];
    test::cargo_test(&tests, &[])
}

fn install() -> Result<(), String> {
    for (programs, packages) in PROGRAMS {
        browser::ensure(programs, packages)?;
    }
    let place = run::target().join("clients");
    let place = std::path::absolute(&place).map_err(|error| error.to_string())?;
    python(&place.join("python"))?;
    node(&place.join("node"))?;
    java(&place.join("java"))?;
    go(&place)
}

/// A directory with copies of the scripts of one language.
fn copied(language: &str, to: &Path) -> Result<PathBuf, String> {
    let told = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let from = run::root().join(SCRIPTS).join(language);
    fs::create_dir_all(to).map_err(|error| told(to, error))?;
    for entry in fs::read_dir(&from).map_err(|error| told(&from, error))? {
        let path = entry.map_err(|error| told(&from, error))?.path();
        let Some(name) = path.file_name().filter(|_| path.is_file()) else { continue };
        fs::copy(&path, to.join(name)).map_err(|error| told(&path, error))?;
    }
    Ok(to.to_path_buf())
}

fn python(place: &Path) -> Result<(), String> {
    let python = place.join("bin/python");
    if !run::works(Command::new(&python).args(["-m", "pip", "--version"])) {
        run::succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(place))?;
    }
    let wanted = run::root().join(SCRIPTS).join("python/requirements.txt");
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]);
    run::succeed(pip.arg("--requirement").arg(wanted))
}

fn node(place: &Path) -> Result<(), String> {
    let place = copied("node", place)?;
    run::succeed(Command::new("npm").args(["ci", "--silent"]).current_dir(place))
}

fn java(place: &Path) -> Result<(), String> {
    let place = copied("java", place)?;
    // What an older list of libraries left would stand in the way of the newer ones.
    fs::remove_dir_all(place.join("jars")).ok();
    let mut maven = Command::new("mvn");
    maven.args(["--quiet", "--batch-mode", COPY, "-DoutputDirectory=jars"]);
    run::succeed(maven.current_dir(place))
}

/// The goal that puts a project's libraries into a directory.
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

fn go(place: &Path) -> Result<(), String> {
    let source = copied("go", &place.join("go"))?;
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(place.join("redsync")).arg(".");
    run::succeed(build.current_dir(source))
}
