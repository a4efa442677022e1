//! `leasehold bench`: what a server, or a data directory, does in a few seconds.
//!
//! A first impression, not a measurement: the clients share the machine with what they measure if
//! it is local. The project's own figures are in `docs/benchmarks`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use hdrhistogram::Histogram;
use leasehold::{Leasehold, Message, Queue, QueueConfig};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cli::Global;
use crate::{connect, print, span};

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// How long each part runs
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = span::parse)]
    time: Duration,
    /// How many clients at once
    #[arg(long, value_name = "N", default_value = "16")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=4096))]
    clients: u32,
    /// Length of a message's body, bytes
    #[arg(long, value_name = "N", default_value = "1024")]
    size: usize,
}

/// Latencies in microseconds, to three digits, up to a minute.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are right")
}

/// Does it.
pub async fn run(arguments: BenchArgs, global: &Global) -> Result<ExitCode> {
    let handle = connect::open(global, Some(connect::label("bench"))).await.context("bench")?;
    let mut lines = Vec::new();
    let bar = print::progress(None, "locks, each client its own");
    lines.push(("lock and unlock, own locks", locks(&arguments, &handle, false).await?));
    bar.set_message("one lock for all clients");
    lines.push(("lock and unlock, one lock", locks(&arguments, &handle, true).await?));
    bar.set_message("one queue");
    let (publish, consume) = queue(&arguments, &handle).await?;
    lines.push(("publish, each confirmed", publish));
    lines.push(("consume and ack", consume));
    bar.finish_and_clear();
    handle.close().await.ok();
    let us = |micros: u64| span_us(micros);
    let rate = |taken: &Taken| taken.times.len() as f64 / taken.within.as_secs_f64();
    let rows = lines.iter().map(|(what, taken)| {
        let at = |quantile| us(taken.times.value_at_quantile(quantile));
        let rate = format!("{:.0}", rate(taken));
        [(*what).to_owned(), rate, at(0.5), at(0.99), at(0.999), us(taken.times.max())]
    });
    let object = |(what, taken): &(&str, Taken)| -> Value {
        let at = |quantile| taken.times.value_at_quantile(quantile);
        json!({
            "what": what,
            "per_second": rate(taken),
            "p50_us": at(0.5),
            "p99_us": at(0.99),
            "p999_us": at(0.999),
            "max_us": taken.times.max(),
        })
    };
    let all: Vec<Value> = lines.iter().map(object).collect();
    let head = ["WHAT", "PER SECOND", "P50", "P99", "P99.9", "MAX"];
    print::either(global.json, &all.into(), || print::table(head, rows))?;
    Ok(ExitCode::SUCCESS)
}

/// What was measured.
struct Taken {
    times: Histogram<u64>,
    within: Duration,
}

fn span_us(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros}µs"),
        1_000..1_000_000 => format!("{:.1}ms", micros as f64 / 1e3),
        _ => format!("{:.2}s", micros as f64 / 1e6),
    }
}

/// Adds up what the clients measured.
async fn gather(mut clients: JoinSet<Result<Histogram<u64>>>, began: Instant) -> Result<Taken> {
    let mut times = histogram();
    while let Some(client) = clients.join_next().await {
        times.add(client.context("a client was lost")??).context("add up the latencies")?;
    }
    Ok(Taken { times, within: began.elapsed() })
}

async fn locks(arguments: &BenchArgs, handle: &Leasehold, one: bool) -> Result<Taken> {
    let began = Instant::now();
    let until = began + arguments.time;
    let mut clients = JoinSet::new();
    for client in 0..arguments.clients {
        let name = format!("leasehold-bench/{}", if one { 0 } else { client });
        let lock = handle.lock(name);
        clients.spawn(async move {
            let mut times = histogram();
            while Instant::now() < until {
                let asked = Instant::now();
                lock.acquire().await?.release().await?;
                times.saturating_record(micros(asked));
            }
            Ok(times)
        });
    }
    gather(clients, began).await.context("lock and unlock")
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Publishes for the time, then consumes what there is.
async fn queue(arguments: &BenchArgs, handle: &Leasehold) -> Result<(Taken, Taken)> {
    let queue = handle.queue("leasehold-bench");
    queue.declare(&QueueConfig::default()).await.context("declare a queue for the bench")?;
    let result = queue_both(arguments, &queue).await;
    queue.delete().await.context("delete the queue of the bench")?;
    result
}

async fn queue_both(arguments: &BenchArgs, queue: &Queue) -> Result<(Taken, Taken)> {
    let began = Instant::now();
    let until = began + arguments.time;
    let mut clients = JoinSet::new();
    for _ in 0..arguments.clients {
        let (queue, body) = (queue.clone(), vec![b'x'; arguments.size]);
        clients.spawn(async move {
            let mut times = histogram();
            while Instant::now() < until {
                let asked = Instant::now();
                queue.publish(Message::new(body.clone())).await?;
                times.saturating_record(micros(asked));
            }
            Ok(times)
        });
    }
    let published = gather(clients, began).await.context("publish")?;
    let began = Instant::now();
    let until = began + arguments.time;
    let mut clients = JoinSet::new();
    for _ in 0..arguments.clients {
        let mut consumer = queue.consume().open().await.context("consume")?;
        clients.spawn(async move {
            let mut times = histogram();
            loop {
                let asked = Instant::now();
                // A client that waits so long has seen the end of the queue.
                let next = tokio::time::timeout(DRAINED, consumer.next());
                let Ok(next) = next.await else { return Ok(times) };
                match next? {
                    Some(delivery) if Instant::now() < until => delivery.ack().await?,
                    _ => return Ok(times),
                }
                times.saturating_record(micros(asked));
            }
        });
    }
    let mut consumed = gather(clients, began).await.context("consume")?;
    consumed.within = consumed.within.saturating_sub(DRAINED).max(Duration::from_millis(1));
    Ok((published, consumed))
}

/// How long a consumer of the bench waits for one more message.
const DRAINED: Duration = Duration::from_millis(250);
