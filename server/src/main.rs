//! The binary `leasehold`: the server and the command line.
//!
//! The only place with stdout, signals and exit codes. Commands go through the same API as any
//! user's program; nothing here knows how a lock or a queue works.

mod bench;
mod cli;
mod config;
mod connect;
mod demo;
mod doctor;
mod failure;
mod group;
mod journal;
mod lock;
mod ping;
mod print;
mod queue;
mod serve;
mod settings;
mod signals;
mod span;
mod user;
mod watch;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};

use cli::{Cli, Command};

/// Threads of the server's runtime: its work is in the node's own thread and in the kernel.
const SERVER_THREADS: usize = 2;

fn main() -> ExitCode {
    // No command of the command line: nobody is meant to call it, and it must not fail for what
    // the environment says about other commands.
    if let Some(duty) = watch::duty(std::env::args_os()) {
        return watch::run(duty).unwrap_or_else(|error| failure::report(&error, false));
    }
    // Two TLS providers may end up in one binary; without a choice the first use would panic.
    tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let matches = Cli::command().get_matches();
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Command::Serve(given) = &mut cli.command
        && matches.value_source("on") == Some(ValueSource::CommandLine)
    {
        // The environment names the server for the other commands; one does not serve itself.
        given.flag("engine", &cli.global.on);
    }
    let json = cli.global.json;
    run(cli).unwrap_or_else(|error| failure::report(&error, json))
}

fn run(cli: Cli) -> Result<ExitCode> {
    let global = cli.global;
    if !matches!(cli.command, Command::Serve(_)) {
        serve::quiet();
    }
    match cli.command {
        Command::Serve(given) => threads()?.block_on(serve::run(*given, global)),
        Command::Lock(command) => one_thread()?.block_on(lock::run(command, &global)),
        Command::Queue(command) => one_thread()?.block_on(queue::run(command, &global)),
        Command::Bench(arguments) => threads()?.block_on(bench::run(arguments, &global)),
        Command::Demo(options) => threads()?.block_on(demo::run(options, global.json)),
        Command::DemoWorker(options) => {
            one_thread()?.block_on(demo::worker(options)).map(|()| ExitCode::SUCCESS)
        }
        Command::Doctor(arguments) => threads()?.block_on(doctor::run(arguments, &global)),
        Command::Ping => one_thread()?.block_on(ping::run(&global)),
        Command::Journal(command) => journal::run(command, global.json),
        Command::User(command) => user::run(command, global.json),
        Command::Config(arguments) => config::run(*arguments, global.json),
        Command::Completions { shell } => cli::completions(shell).map(|()| ExitCode::SUCCESS),
    }
}

fn one_thread() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().context("start a runtime")
}

fn threads() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(SERVER_THREADS).enable_all().build().context("start a runtime")
}
