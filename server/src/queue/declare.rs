//! `leasehold queue declare`.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use leasehold::{DeadLetter, Overflow, QueueConfig};
use serde_json::json;

use crate::cli::Global;
use crate::{print, span};

/// Arguments of `queue declare`.
#[derive(Debug, Args)]
pub struct DeclareArgs {
    /// The queue
    name: String,
    /// Let the queue and its messages go with a restart
    #[arg(long)]
    transient: bool,
    /// Most messages waiting and in flight
    #[arg(long, value_name = "N")]
    messages_max: Option<u64>,
    /// Most bytes waiting and in flight
    #[arg(long, value_name = "N")]
    bytes_max: Option<u64>,
    /// What happens beyond those
    #[arg(long, value_enum, default_value = "drop-oldest")]
    overflow: OverflowArg,
    /// How long a message may wait
    #[arg(long, value_name = "TIME", value_parser = span::parse)]
    ttl: Option<Duration>,
    /// How long a delivery may stay unsettled [default: as long as its session lives]
    #[arg(long, value_name = "TIME", value_parser = span::parse)]
    lease: Option<Duration>,
    /// Deliveries after which a message is dead
    #[arg(long, value_name = "N")]
    deliveries_max: Option<u16>,
    /// The queue that gets the dead [default: they are dropped]
    #[arg(long, value_name = "QUEUE")]
    dead_letter: Option<String>,
    /// Highest priority, 0 to 31
    #[arg(long, value_name = "N", default_value = "0")]
    priority_max: u8,
    /// How long message ids are remembered, so that each is taken once
    #[arg(long, value_name = "TIME", value_parser = span::parse)]
    dedup: Option<Duration>,
    /// Deliver to one consumer at a time; the others stand by
    #[arg(long)]
    single_active: bool,
    /// Let it go when its last consumer goes
    #[arg(long)]
    auto_delete: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OverflowArg {
    DropOldest,
    Reject,
}

/// Does it.
pub async fn run(arguments: DeclareArgs, global: &Global) -> Result<()> {
    let name = arguments.name.clone();
    let queue = super::open(&name, "declare", global).await?;
    let existed = queue.declare(&arguments.config()).await;
    let existed = existed.with_context(|| format!("declare queue {name}"))?;
    print::either(global.json, &json!({ "queue": name, "existed": existed }), || match existed {
        true => format!("queue {name} was there already"),
        false => format!("queue {name} made"),
    })
}

impl DeclareArgs {
    fn config(self) -> QueueConfig {
        QueueConfig {
            durable: !self.transient,
            messages_max: self.messages_max,
            bytes_max: self.bytes_max,
            overflow: match self.overflow {
                OverflowArg::DropOldest => Overflow::DropOldest,
                OverflowArg::Reject => Overflow::Reject,
            },
            ttl: self.ttl,
            lease: self.lease,
            deliveries_max: self.deliveries_max,
            dead_letter: self.dead_letter.map(DeadLetter::queue),
            priority_max: self.priority_max,
            dedup: self.dedup,
            single_active: self.single_active,
            auto_delete: self.auto_delete,
        }
    }
}
