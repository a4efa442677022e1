//! The project's own commands, run as `cargo xtask <command>`.
//!
//! Continuous integration runs `cargo xtask test` and nothing else, so whatever a reviewer would
//! have to remember is a step of that command. Shell scripts were rejected: they have no unit
//! tests, and the rules in [`tidy`] must show that they can fail.

mod browser;
mod clients;
mod engines;
mod fuzz;
mod run;
mod test;
mod tidy;

use std::process::ExitCode;

/// One row of the command table. The table is also the help text, so neither can drift.
struct Command {
    name: &'static str,
    arguments: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Result<ExitCode, String>,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "test",
        arguments: "",
        about: "what a change must pass: format, lints, docs, tests, browser, clients, engines, crash",
        run: test::command,
    },
    Command {
        name: "tidy",
        arguments: "",
        about: "the house rules that a machine can check",
        run: tidy::command,
    },
    Command {
        name: "clients",
        arguments: "",
        about: "programs that lock with Redis, from their registries, against the RESP door",
        run: clients::command,
    },
    Command {
        name: "engines",
        arguments: "[NAME…]",
        about: "engines over other systems, against the real servers",
        run: engines::command,
    },
    Command {
        name: "fuzz",
        arguments: "[--seconds N] [TARGET…]",
        about: "each fuzz target for N seconds (default 10), with coverage, on stable Rust",
        run: fuzz::command,
    },
    Command {
        name: "crash",
        arguments: "[--kills N]",
        about: "kill -9 a writer and a server under load N times (default 50), check what was said",
        run: test::crash_command,
    },
    Command {
        name: "soak",
        arguments: "",
        about: "the long versions: 50 kills, 120 s of fuzz per target, 10,000 simulator seeds",
        run: test::soak_command,
    },
    Command {
        name: "docs",
        arguments: "",
        about: "the reference of every crate, without warnings, in target/doc",
        run: test::docs_command,
    },
    Command {
        name: "bench",
        arguments: "[WHICH] [ARGUMENTS…]",
        about: "a benchmark (core, http, resp, engines, all) in release mode, with its arguments",
        run: bench_command,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = arguments.split_first() else {
        print!("{}", help());
        return ExitCode::from(2);
    };
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        print!("{}", help());
        return ExitCode::SUCCESS;
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        eprint!("xtask: there is no command `{name}`\n\n{}", help());
        return ExitCode::from(2);
    };
    if rest.iter().take_while(|word| *word != "--").any(|word| word == "--help")
        && command.name != "bench"
    {
        print!("{}", help());
        return ExitCode::SUCCESS;
    }
    (command.run)(rest).unwrap_or_else(|why| {
        eprintln!("xtask {name}: {why}");
        ExitCode::FAILURE
    })
}

fn help() -> String {
    let mut text = String::from("usage: cargo xtask <command>\n\n");
    for command in COMMANDS {
        let call = format!("{} {}", command.name, command.arguments);
        text.push_str(&format!("  {call:<32} {}\n", command.about));
    }
    text
}

/// `bench [core|http|resp|engines|all] …`: the first word chooses, everything after it goes to the
/// binary unchanged.
fn bench_command(arguments: &[String]) -> Result<ExitCode, String> {
    let (which, rest) = match arguments.split_first() {
        Some((first, rest))
            if ["core", "http", "resp", "engines", "all"].contains(&first.as_str()) =>
        {
            (first.as_str(), rest)
        }
        _ => ("core", arguments),
    };
    let binaries = if which == "all" {
        // `crash` is a proof, not a measurement: it has its own command.
        let metadata = run::metadata(&[])?;
        let mut names = run::binaries(&metadata, "leasehold-bench");
        names.retain(|name| name != "crash");
        names
    } else {
        vec![which.to_owned()]
    };
    // The HTTP and RESP benchmarks start the server that lies beside them.
    if binaries.iter().any(|binary| binary != "engines") {
        run::succeed(run::cargo().args(["build", "--release", "-p", "leasehold-server"]))?;
    }
    if binaries.is_empty() {
        return Err(String::from("leasehold-bench has no binary to run"));
    }
    let mut missing = None;
    for binary in binaries {
        println!("── bench {binary}");
        let mut call = run::cargo();
        call.args(["run", "--release", "-p", "leasehold-bench", "--bin", &binary]);
        if binary == "engines" {
            match engines::benchmarked_kafka(rest) {
                Ok(feature) => feature.into_iter().for_each(|feature| {
                    call.args(["--features", feature]);
                }),
                Err(why) => missing = Some(why),
            }
        }
        run::succeed(call.arg("--").args(rest))?;
    }
    if let Some(why) = missing {
        println!("not run: {why}");
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::{COMMANDS, help};

    #[test]
    fn help_names_every_command() {
        let text = help();
        for command in COMMANDS {
            assert!(text.contains(command.name) && text.contains(command.about));
        }
    }
}
