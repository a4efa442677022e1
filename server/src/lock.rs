//! `leasehold lock`: run a command under a lock, look at locks, take them away.

mod run;
mod show;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::cli::Global;
pub use run::RunArgs;

/// What can be done with locks.
#[derive(Debug, Subcommand)]
pub enum LockCommand {
    /// Run a command while holding a lock
    Run(Box<RunArgs>),
    /// List locks that are held or waited for
    Ls {
        /// Only names that begin with this
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Show who holds a lock and who waits for it
    Show {
        /// The lock
        name: String,
    },
    /// Take a lock away from whoever holds it
    Release(ReleaseArgs),
}

/// Arguments of `lock release`.
#[derive(Debug, Args)]
pub struct ReleaseArgs {
    /// The lock
    name: String,
    /// Only if it is held with this fencing token
    #[arg(long = "if-token", value_name = "NUMBER")]
    if_token: Option<u64>,
}

/// Does it.
pub async fn run(command: LockCommand, global: &Global) -> Result<ExitCode> {
    match command {
        LockCommand::Run(arguments) => return run::run(*arguments, global).await,
        LockCommand::Ls { prefix } => show::list(&prefix, global).await?,
        LockCommand::Show { name } => show::show(&name, global).await?,
        LockCommand::Release(ReleaseArgs { name, if_token }) => {
            show::release(&name, if_token, global).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
