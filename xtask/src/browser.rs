//! The status page in a real headless browser.
//!
//! Node and Chromium come from the system's packages, the driver from npm's lock file. Whatever
//! cannot be had makes the step *not run*, which fails the run: a page that nobody looked at is not
//! a page that works.

use crate::run::{self, Counts, Verdict};
use std::path::{Path, PathBuf};
use std::process::Command;

const TESTS: &str = "server/tests/browser";
const BROWSERS: &[&str] = &["chromium", "chromium-browser", "google-chrome"];

/// Installs what is missing, builds the server, runs the tests.
pub fn check() -> Result<Verdict, String> {
    if let Err(why) = ensure(&["node", "npm"], &["nodejs", "npm"]) {
        return Ok(Verdict::not_run(why));
    }
    if on_path(BROWSERS).is_none()
        && let Err(why) = install(&["chromium"])
    {
        return Ok(Verdict::not_run(why));
    }
    let Some(browser) = on_path(BROWSERS) else {
        return Ok(Verdict::not_run(String::from("no chromium after its installation")));
    };
    run::succeed(run::cargo().args(["build", "-p", "leasehold-server"]))?;
    // Outside the source tree, so that a checkout stays clean.
    let place = run::target().join("browser");
    std::fs::create_dir_all(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    for file in ["package.json", "package-lock.json", "status.test.mjs"] {
        let from = run::root().join(TESTS).join(file);
        std::fs::copy(&from, place.join(file))
            .map_err(|error| format!("{}: {error}", from.display()))?;
    }
    let mut npm = Command::new("npm");
    if let Err(why) = run::succeed(npm.args(["ci", "--silent"]).current_dir(&place)) {
        return Ok(Verdict::not_run(why));
    }
    let mut tests = Command::new("node");
    tests.args(["--test", "--test-reporter=tap", "status.test.mjs"]).current_dir(&place);
    tests.env("LEASEHOLD", run::target().join("debug/leasehold")).env("CHROMIUM", browser);
    let mut counts = Counts::default();
    let success = run::stream(&mut tests, run::Output::Stdout, |line| {
        run::pass_on(line);
        count(line, &mut counts);
    })?;
    if success && counts.passed > 0 {
        return Ok(Verdict::Passed(counts));
    }
    Ok(Verdict::Failed(counts, String::from("the status page does not behave")))
}

/// Reads the summary of the test runner: `# pass 6`.
fn count(line: &str, counts: &mut Counts) {
    let number = |word: &str| line.strip_prefix(word).and_then(|rest| rest.trim().parse().ok());
    if let Some(passed) = number("# pass ") {
        counts.passed = passed;
    }
    if let Some(failed) = number("# fail ") {
        counts.failed = failed;
    }
}

fn on_path(programs: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let places = programs.iter().flat_map(|program| {
        directories.iter().map(move |directory: &PathBuf| directory.join(program))
    });
    places.into_iter().find(|place| Path::is_file(place))
}

/// Installs packages unless all programs are there, by name on the path or by their own path.
pub fn ensure(programs: &[&str], packages: &[&str]) -> Result<(), String> {
    let is_there = |program: &&str| match program.starts_with('/') {
        true => Path::new(program).is_file(),
        false => on_path(&[program]).is_some(),
    };
    if programs.iter().all(is_there) {
        return Ok(());
    }
    install(packages)
}

/// Installs Debian packages, as root or through sudo.
fn install(packages: &[&str]) -> Result<(), String> {
    if on_path(&["apt-get"]).is_none() {
        return Err(format!("install {} with your package manager", packages.join(", ")));
    }
    println!("installing {}", packages.join(", "));
    let sudo = on_path(&["sudo"]).filter(|_| std::env::var("USER").as_deref() != Ok("root"));
    let call = |arguments: &[&str]| {
        let mut call = match &sudo {
            Some(sudo) => {
                let mut call = Command::new(sudo);
                call.arg("apt-get");
                call
            }
            None => Command::new("apt-get"),
        };
        call.args(arguments).args(packages).env("DEBIAN_FRONTEND", "noninteractive");
        call
    };
    let arguments = ["install", "-y", "-qq", "--no-install-recommends"];
    if run::succeed(&mut call(&arguments)).is_ok() {
        return Ok(());
    }
    // The lists may be old or missing.
    let mut update = Command::new("apt-get");
    run::succeed(update.args(["update", "-qq"]))?;
    run::succeed(&mut call(&arguments))
}

#[cfg(test)]
mod tests {
    use super::count;
    use crate::run::Counts;

    #[test]
    fn the_summary_is_read() {
        let mut counts = Counts::default();
        for line in ["ok 1 - a page", "# tests 7", "# pass 6", "# fail 1"] {
            count(line, &mut counts);
        }
        assert_eq!(counts, Counts { passed: 6, failed: 1, ignored: 0 });
    }
}
