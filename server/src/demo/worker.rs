//! One worker process: every step of the pipeline, and the nights, at one desk.
//!
//! All workers are alike, so a killed one leaves no gap that only another of its kind could fill.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tokio::sync::oneshot;

use super::desk::Desk;
use super::{night, stages, stock};

/// Arguments of the hidden command `demo-worker`.
#[derive(Debug, Clone, Args)]
pub struct WorkerOptions {
    /// The server's URL
    #[arg(long)]
    url: String,
    /// Where the ledgers are
    #[arg(long)]
    dir: PathBuf,
    /// This worker's number, used once
    #[arg(long)]
    number: u32,
    /// Turns under a lock until this process stops itself in the middle of one; 0 means never
    #[arg(long, default_value_t = 0)]
    freeze_in: u32,
}

/// Works until stdin ends: then the demo has ended, one way or another.
pub async fn run(options: WorkerOptions) -> Result<()> {
    let WorkerOptions { url, dir, number, freeze_in } = options;
    let at = connect(&url).await?;
    let desk = Arc::new(Desk::new(at, &dir, number)?);
    tokio::select! {
        worked = work(desk.clone(), freeze_in) => worked?,
        _ = stdin_ended() => {}
    }
    // Without it the deliveries come back all the same, only later.
    tokio::time::timeout(Duration::from_secs(1), desk.at.close()).await.ok();
    Ok(())
}

/// Resolves when nobody holds the other end of stdin any more. A thread of its own, because the
/// runtime would wait for its read when the work ends first.
fn stdin_ended() -> oneshot::Receiver<()> {
    let (tell, ended) = oneshot::channel();
    std::thread::spawn(move || {
        let read = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop((read, tell));
    });
    ended
}

/// Every step at once, for ever.
pub async fn work(desk: Arc<Desk>, freeze_in: u32) -> Result<()> {
    tokio::try_join!(
        stock::run(desk.clone(), freeze_in),
        stages::pay(desk.clone()),
        stages::remind(desk.clone()),
        stages::ship(desk.clone()),
        night::run(desk),
    )?;
    Ok(())
}

/// Connects, also while the server is away.
async fn connect(url: &str) -> Result<leasehold::Leasehold> {
    let mut tries = 0;
    loop {
        match leasehold::connect(url).await {
            Err(error) if error.retry != leasehold::Retry::Never && tries < 300 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            result => return Ok(result?),
        }
    }
}
