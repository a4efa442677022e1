//! Orders are handed on through a queue: each is handled by one of two workers, and only what was
//! acknowledged is gone. The workers are processes, and the queue is where the URL says; without
//! one it is in memory, and they are tasks.
//!
//! ```text
//! cargo run -p leasehold-examples --bin handed_on
//! cargo run -p leasehold-examples --bin handed_on -- amqp://127.0.0.1:5672
//! cargo run -p leasehold-examples --bin handed_on -- redis://127.0.0.1:6379
//! ```

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use leasehold::{Error, ErrorKind, Leasehold, QueueConfig, Result};

const ORDERS: usize = 20;
const WORKERS: usize = 2;

/// Handles orders until none has come for a while; gives which.
async fn work(leasehold: Leasehold, queue: String) -> Result<Vec<String>> {
    let queue = leasehold.queue(&*queue);
    let mut handled = Vec::new();
    while let Some(order) = queue.receive(Duration::from_secs(2)).await? {
        handled.push(String::from_utf8_lossy(order.body()).into_owned());
        order.ack().await?;
    }
    Ok(handled)
}

/// Workers of this process, since nobody else has its memory.
async fn tasks(leasehold: &Leasehold, queue: &str) -> Result<Vec<String>> {
    let worker = |_| tokio::spawn(work(leasehold.clone(), queue.to_owned()));
    let workers: Vec<_> = (0..WORKERS).map(worker).collect();
    let mut handled = Vec::new();
    for worker in workers {
        handled.extend(worker.await.expect("it does not panic")?);
    }
    Ok(handled)
}

/// Workers that are processes: each says on a line which order it has handled.
fn processes(url: &str, queue: &str) -> std::io::Result<Vec<String>> {
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        let mut call = Command::new(std::env::current_exe()?);
        call.args([url, "worker", queue]).stdout(Stdio::piped());
        workers.push(call.spawn()?);
    }
    let mut handled = Vec::new();
    for worker in workers {
        let output = worker.wait_with_output()?;
        if !output.status.success() {
            return Err(std::io::Error::other(format!("a worker ended with {}", output.status)));
        }
        handled.extend(String::from_utf8_lossy(&output.stdout).lines().map(String::from));
    }
    Ok(handled)
}

async fn hand_on(url: &str) -> Result<()> {
    let leasehold = leasehold::connect(url).await?;
    let name = format!("orders-{}", std::process::id());
    let orders = leasehold.queue(&*name);
    orders.declare(&QueueConfig::default()).await?;
    for number in 1..=ORDERS {
        // The answer is the word of whoever keeps the queue that the order is there.
        orders.publish(format!("order {number}")).await?;
    }
    let handled = match url {
        "mem:" => tasks(&leasehold, &name).await?,
        _ => processes(url, &name)
            .map_err(|error| Error::new(ErrorKind::Broken, error.to_string()))?,
    };
    // One whose worker died before the acknowledgement would be handled twice, and counts once.
    let handled: BTreeSet<_> = handled.into_iter().collect();
    println!("{} of {ORDERS} orders handled", handled.len());
    orders.delete().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [url, "worker", queue] => {
            for order in work(leasehold::connect(url).await?, queue.to_owned()).await? {
                println!("{order}");
            }
            Ok(())
        }
        [url] => hand_on(url).await,
        _ => hand_on("mem:").await,
    }
}
