//! `leasehold demo`: a flash sale with everything that goes wrong in one, and books that prove
//! that nothing did.
//!
//! # What happens
//!
//! A real server and real worker processes, all of this binary. A shop places 200,000 orders for
//! 500 articles of which there are not enough; few of them are wanted by many. Workers take stock,
//! charge, remind and ship:
//!
//! ```text
//!           ┌─ priority: VIPs first            ┌─ late payers, by delayed message ─┐
//! shop ─► orders ─► stock ─► payments ─► pay ──┴─► shipping ─► ship                │
//!           │         │         ▲          └─ declined: nack, again later          │
//!           │         │         └──────────────── remind ◄─ reminders ◄────────────┘
//!           │         └─ one commit: acks + payments + register + token check + release
//!           └─ poison ─► orders.dead ─► shop
//! ```
//! Meanwhile workers are killed with SIGKILL, some thirty of them, and replaced; some are stopped
//! in the middle of a write until their lock is somebody else's; in the middle of the sale the
//! server is killed and started again on the same directory. Three nights fall, each with a report
//! that must be written once.
//!
//! # Why this proves something
//!
//! Every process writes a ledger of its own ([`ledger`]): what it is about to do, and what it was
//! told. At the end the truth is put together from those ([`accounts`]) and balanced ([`books`]).
//! The server is not asked: it could lie, or be wrong in the same way twice. Only then its
//! registers and totals are compared with what the ledgers say.
//!
//! What makes this possible is that every commit leaves its intent's name in what it changes. A
//! worker that was killed between its commit and its next line cannot say what happened; whoever
//! finds its name afterwards can. So each shelf is one chain of writes from the opening to the end,
//! each naming the one before it. A lost update forks the chain, a double sale breaks its sums, and
//! an overlap of two lock holders lets a fencing token fall.
//!
//! `--tamper` changes one piece in one line of one ledger, to show that the books notice.
//!
//! # What it does not prove
//!
//! Everything runs on one machine, and SIGKILL leaves the page cache: this is about crashes of
//! processes, not of power. The journal's own tests cut the power.

mod accounts;
mod books;
mod desk;
mod figures;
mod ledger;
mod night;
mod plan;
mod processes;
mod sale;
mod shop;
mod show;
mod stages;
mod stock;
mod worker;

#[cfg(test)]
mod rehearsal;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::signals::Signals;

pub use worker::WorkerOptions;

/// Arguments of `demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoOptions {
    /// Orders to place
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(100..))]
    orders: u32,
    /// Articles to sell
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    articles: u32,
    /// The seed of the orders, the stock and the misfortunes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Worker processes at a time
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(2..=64))]
    workers: u32,
    /// Workers to kill
    #[arg(long, default_value_t = 30)]
    kills: u32,
    /// Give up after so many seconds
    #[arg(long, default_value_t = 900)]
    seconds_limit: u64,
    /// Orders under way at most; the shop lets customers wait outside beyond that
    #[arg(long, default_value_t = 5_000, hide = true)]
    backlog: u32,
    /// Where to put data, ledgers and logs; kept. By default a directory that goes if all is well
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Falsify one line of one ledger: the books must not balance
    #[arg(long, hide = true)]
    tamper: bool,
}

/// Runs the sale, prints how it went, and fails if a book does not balance.
pub async fn run(options: DemoOptions, json: bool) -> Result<ExitCode> {
    let kept = options.dir.is_some();
    let dir = match &options.dir {
        Some(dir) => std::path::absolute(dir).context("find the directory")?,
        None => std::env::temp_dir().join(format!("leasehold-demo-{}", std::process::id())),
    };
    let sale = async { sale::Sale::open(options, json, &dir).await?.run().await };
    let mut signals = Signals::listen()?;
    let left = || format!("what is left is in {}", dir.display());
    // Dropping the sale kills its processes.
    let outcome = tokio::select! {
        outcome = sale => outcome.with_context(left)?,
        _ = signals.next() => anyhow::bail!("stopped; {}", left()),
    };
    let text = match json {
        true => serde_json::to_string_pretty(&outcome)?,
        false => show::report(&outcome),
    };
    crate::print::line(&text)?;
    if !outcome.balanced {
        if !json {
            crate::print::line(&format!("Ledgers, data and logs are in {}", dir.display()))?;
        }
        return Ok(ExitCode::FAILURE);
    }
    if !kept {
        std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One worker of a sale.
pub async fn worker(options: WorkerOptions) -> Result<()> {
    worker::run(options).await
}
