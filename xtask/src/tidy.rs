//! The house rules that a machine can check.
//!
//! Every rule is a function from text to findings, so that its unit test can hand it a text that
//! breaks it. Files are read in one place, here. The rules read masked text (comments and literals
//! blanked, see [`source`]) instead of a syntax tree: a parser would be this crate's only heavy
//! dependency, and a word in the wrong crate is a word either way.

mod banned;
mod direction;
mod documents;
mod names;
mod sizes;
mod source;

use crate::run::{self, Verdict};
use source::Source;
use std::path::Path;
use std::process::ExitCode;

/// A broken rule: where, and what to do instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file from the repository's root, or the name of a crate.
    pub place: String,
    /// The line, from 1; 0 when the finding is about the whole.
    pub line: usize,
    pub message: String,
}

impl Finding {
    fn new(place: &str, line: usize, message: impl Into<String>) -> Finding {
        Finding { place: place.to_string(), line, message: message.into() }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => write!(out, "{}: {}", self.place, self.message),
            line => write!(out, "{}:{line}: {}", self.place, self.message),
        }
    }
}

/// `cargo xtask tidy`.
pub fn command(arguments: &[String]) -> Result<ExitCode, String> {
    run::nothing_else(arguments)?;
    check()?;
    println!("every rule holds");
    Ok(ExitCode::SUCCESS)
}

/// Applies every rule to the repository and prints what it finds.
pub fn check() -> Result<Verdict, String> {
    let findings = findings()?;
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(Verdict::passed()),
        count => Err(format!("rules broken: {count}")),
    }
}

fn findings() -> Result<Vec<Finding>, String> {
    let root = run::root();
    let mut paths = Vec::new();
    walk(&root, "", &mut paths)?;
    paths.sort();
    let metadata = run::metadata(&[])?;

    let mut findings = direction::check(&direction::crates(&metadata)?);
    findings.extend(names::crates(&metadata));
    findings.extend(paths.iter().flat_map(|path| names::file(path)));

    let mut sources = Vec::new();
    for path in paths.iter().filter(|path| path.ends_with(".rs")) {
        sources.push(Source::new(path, &read(&root, path)?));
    }
    if sources.is_empty() {
        return Err(String::from("no source found: run it through `cargo xtask`"));
    }
    source::mark_test_files(&mut sources);
    for source in &sources {
        findings.extend(banned::check(source));
        findings.extend(banned::unfinished(source));
        findings.extend(banned::no_std(source));
        findings.extend(sizes::lines(source));
        findings.extend(sizes::file(source));
        findings.extend(sizes::functions(source));
    }
    for path in paths.iter().filter(|path| documents::is_document(path)) {
        let exists = |reference: &str| root.join(reference).exists();
        findings.extend(documents::references(path, &read(&root, path)?, &exists));
    }
    Ok(findings)
}

fn read(root: &Path, path: &str) -> Result<String, String> {
    std::fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"))
}

/// Collects the files below `root/below`, named from the root. Build output, version control and
/// data directories are not ours to judge.
fn walk(root: &Path, below: &str, paths: &mut Vec<String>) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("{}: {error}", root.join(below).display());
    for entry in std::fs::read_dir(root.join(below)).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        let kind = entry.file_type().map_err(fail)?;
        if kind.is_dir() && !matches!(name.as_str(), "target" | ".git" | "leasehold-data") {
            walk(root, &path, paths)?;
        } else if kind.is_file() {
            paths.push(path);
        }
    }
    Ok(())
}
