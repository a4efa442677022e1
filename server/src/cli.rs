//! The command line: what can be asked for. Each command's own arguments stand with the command.

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::settings::Given;
use crate::{bench, config, demo, doctor, journal, lock, queue, user};

/// Locks and queues for teams that run many processes.
#[derive(Debug, Parser)]
#[command(name = "leasehold", version, about, max_term_width = 100, propagate_version = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 refused, 2 called or configured wrongly; `lock run` \
                        has more, see its help."
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Where the locks and queues are: the URL of a server or of another engine, such as
    /// redis://HOST, a data directory, or mem:
    #[arg(long, global = true, env = "LEASEHOLD_URL", hide_env_values = true)]
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:7070")]
    pub on: String,
    /// The user at a server that has users
    #[arg(long, global = true, env = "LEASEHOLD_USER", value_name = "NAME")]
    pub user: Option<String>,
    /// The user's password; better given by the environment than where others can read it
    #[arg(long, global = true, env = "LEASEHOLD_PASSWORD", hide_env_values = true)]
    #[arg(value_name = "TEXT", requires = "user", allow_hyphen_values = true)]
    pub password: Option<String>,
    /// A bearer token instead of a user and a password
    #[arg(long, global = true, env = "LEASEHOLD_BEARER_TOKEN", hide_env_values = true)]
    #[arg(value_name = "TEXT", conflicts_with = "user", allow_hyphen_values = true)]
    pub token: Option<String>,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server; with --on URL a gateway to another engine
    Serve(Box<Given>),
    /// A flash sale with crashes, and books that balance
    Demo(demo::DemoOptions),
    /// A process of the demo
    #[command(hide = true)]
    DemoWorker(demo::WorkerOptions),
    /// Run a command under a lock; look at locks, and take them away
    #[command(subcommand)]
    Lock(lock::LockCommand),
    /// Publish and work on messages; look after queues
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Read a journal that no server has open
    #[command(subcommand)]
    Journal(journal::JournalCommand),
    /// Prove what an engine promises, and look at how it is set up
    Doctor(doctor::DoctorArgs),
    /// Ask whether a server answers
    Ping,
    /// Measure a server for a few seconds
    Bench(bench::BenchArgs),
    /// Look after the users of a server
    #[command(subcommand)]
    User(user::UserCommand),
    /// Show the settings in force and where each comes from
    Config(Box<config::ConfigArgs>),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// Prints completions.
pub fn completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "leasehold", &mut script);
    crate::print::raw(&script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
