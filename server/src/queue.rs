//! `leasehold queue`: publish, work on messages, look after queues.

mod declare;
mod message;
mod publish;
mod show;
mod work;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use leasehold::Queue;
use serde_json::json;

use crate::cli::Global;
use crate::{connect, print};

/// What can be done with queues.
#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// Publish messages and wait until they are safe
    Publish(Box<publish::PublishArgs>),
    /// Run a command for every message
    Work(Box<work::WorkArgs>),
    /// List queues
    Ls {
        /// Only names that begin with this
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Show everything about a queue
    Show(Name),
    /// Look at the first messages without taking them
    Peek {
        /// The queue
        name: String,
        /// How many messages at most
        #[arg(long, value_name = "N", default_value = "10")]
        max: u32,
    },
    /// Make a queue, or find it with equal settings
    Declare(Box<declare::DeclareArgs>),
    /// Remove the messages that wait
    Purge(Name),
    /// Move messages, such as dead letters, to another queue
    Redrive {
        /// The queue they are in
        name: String,
        /// The queue they go to [default: each to where it died first]
        #[arg(long, value_name = "QUEUE")]
        to: Option<String>,
        /// How many messages at most [default: all]
        #[arg(long, value_name = "N")]
        max: Option<u64>,
    },
    /// Hold deliveries back
    Pause(Name),
    /// Let deliveries go again
    Resume(Name),
    /// Remove a queue with its messages
    Delete(Name),
}

/// Names a queue.
#[derive(Debug, Args)]
pub struct Name {
    /// The queue
    name: String,
}

/// How many messages one request of a redrive moves.
const REDRIVE: u32 = 1000;

/// Does it.
pub async fn run(command: QueueCommand, global: &Global) -> Result<ExitCode> {
    match command {
        QueueCommand::Publish(arguments) => publish::run(*arguments, global).await?,
        QueueCommand::Work(arguments) => return work::run(*arguments, global).await,
        QueueCommand::Ls { prefix } => show::list(&prefix, global).await?,
        QueueCommand::Show(Name { name }) => show::show(&name, global).await?,
        QueueCommand::Peek { name, max } => show::peek(&name, max, global).await?,
        QueueCommand::Declare(arguments) => declare::run(*arguments, global).await?,
        QueueCommand::Purge(Name { name }) => purge(&name, global).await?,
        QueueCommand::Redrive { name, to, max } => {
            redrive(&name, to.as_deref(), max, global).await?;
        }
        QueueCommand::Pause(Name { name }) => pause(&name, true, global).await?,
        QueueCommand::Resume(Name { name }) => pause(&name, false, global).await?,
        QueueCommand::Delete(Name { name }) => delete(&name, global).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A queue of the engine that `--on` names.
async fn open(name: &str, what: &str, global: &Global) -> Result<Queue> {
    let handle = connect::open(global, Some(connect::label(what))).await;
    Ok(handle.with_context(|| format!("{what} queue {name}"))?.queue(name))
}

async fn purge(name: &str, global: &Global) -> Result<()> {
    let queue = open(name, "purge", global).await?;
    let bar = print::progress(None, "purging");
    let purged = queue.purge().await.with_context(|| format!("purge queue {name}"))?;
    bar.finish_and_clear();
    print::either(global.json, &json!({ "queue": name, "purged": purged }), || {
        format!("{} removed from queue {name}", messages(purged))
    })
}

async fn redrive(name: &str, to: Option<&str>, max: Option<u64>, global: &Global) -> Result<()> {
    let asked = || format!("redrive queue {name}");
    let queue = open(name, "redrive", global).await?;
    // What arrives meanwhile is for the next redrive: messages that die again at once would
    // otherwise go round for ever.
    let waiting = queue.inspect().await.with_context(asked)?;
    let mut left = max.unwrap_or(u64::MAX).min(waiting.ready + waiting.delayed + waiting.parked);
    let bar = print::progress(Some(left), "moving");
    let mut moved = 0_u64;
    while left > 0 {
        let part = u32::try_from(left).unwrap_or(u32::MAX).min(REDRIVE);
        let count = u64::from(queue.redrive(to, part).await.with_context(asked)?);
        if count == 0 {
            break;
        }
        moved += count;
        left = left.saturating_sub(count);
        bar.inc(count);
    }
    bar.finish_and_clear();
    let value = json!({ "queue": name, "to": to, "moved": moved });
    print::either(global.json, &value, || match to {
        Some(to) => format!("{} moved from queue {name} to queue {to}", messages(moved)),
        None => format!("{} moved from queue {name} to where they died", messages(moved)),
    })
}

async fn pause(name: &str, paused: bool, global: &Global) -> Result<()> {
    let what = if paused { "pause" } else { "resume" };
    let queue = open(name, what, global).await?;
    let done = if paused { queue.pause().await } else { queue.resume().await };
    done.with_context(|| format!("{what} queue {name}"))?;
    print::either(global.json, &json!({ "queue": name, "paused": paused }), || match paused {
        true => format!("queue {name} holds its deliveries back"),
        false => format!("queue {name} delivers"),
    })
}

async fn delete(name: &str, global: &Global) -> Result<()> {
    let queue = open(name, "delete", global).await?;
    let gone = queue.delete().await.with_context(|| format!("delete queue {name}"))?;
    print::either(global.json, &json!({ "queue": name, "messages": gone }), || {
        format!("queue {name} deleted with {}", messages(gone))
    })
}

fn messages(count: u64) -> String {
    match count {
        1 => "1 message".to_owned(),
        count => format!("{count} messages"),
    }
}
