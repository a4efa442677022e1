//! How a command fails: one line that says what was asked, what is wrong and what to do, and an
//! exit code that a script can tell apart.

use std::process::ExitCode;

use leasehold::ErrorKind;

/// The command was refused.
pub const REFUSED: u8 = 1;
/// The command line or the configuration is wrong.
pub const USAGE: u8 = 2;
/// A message cannot be handled, now or later; `EX_DATAERR` of sysexits.h.
pub const BAD_MESSAGE: u8 = 65;
/// The lock was lost while the command ran; `EX_SOFTWARE` of sysexits.h.
pub const LOST: u8 = 70;
/// The lock was not to be had in time; `EX_TEMPFAIL` of sysexits.h.
pub const NOT_HAD: u8 = 75;
/// A program could not be started, as shells say it.
pub const NOT_STARTED: u8 = 126;
/// A program was not found, as shells say it.
pub const NOT_FOUND: u8 = 127;

/// A failure with an exit code of its own. Anything else ends with [`REFUSED`].
#[derive(Debug)]
pub struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// A failure with an exit code.
    pub fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// Something is wrong with how the command was called.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(USAGE, text)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// Prints a failure on stderr and gives its exit code.
pub fn report(error: &anyhow::Error, json: bool) -> ExitCode {
    if is_closed_pipe(error) {
        // `leasehold queue peek orders | head -1`: whoever read has read enough.
        return ExitCode::SUCCESS;
    }
    let code = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
    let code = code.map_or(REFUSED, |failure| failure.code);
    if json {
        let kind = error.chain().find_map(|cause| cause.downcast_ref::<leasehold::Error>());
        let kind = kind.map(|error| ErrorKind::name(error.kind));
        let text = one_line(error);
        eprintln!("{}", serde_json::json!({ "error": text, "kind": kind, "code": code }));
    } else {
        eprintln!("leasehold: {}", one_line(error));
    }
    ExitCode::from(code)
}

/// An error with all it was wrapped in, on one line.
pub fn one_line(error: &anyhow::Error) -> String {
    let lines = format!("{error:#}");
    let lines: Vec<&str> = lines.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(" ")
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
        && error.chain().any(|cause| cause.to_string() == crate::print::STDOUT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn an_error_is_one_line_with_its_contexts() {
        let error = Err::<(), _>(Failure::usage("first\n\n  second")).context("read it");
        assert_eq!(one_line(&error.expect_err("it is one")), "read it: first second");
    }
}
