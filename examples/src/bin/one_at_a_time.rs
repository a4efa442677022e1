//! Several workers count in one file. Reading, adding one and writing back are three steps, so
//! without a lock counts get lost; under one, whichever system keeps it, none is.
//!
//! ```text
//! cargo run -p leasehold-examples --bin one_at_a_time -- redis://127.0.0.1:6379
//! cargo run -p leasehold-examples --bin one_at_a_time -- mysql://user:password@127.0.0.1/shop
//! cargo run -p leasehold-examples --bin one_at_a_time -- zookeeper://127.0.0.1:2181
//! cargo run -p leasehold-examples --bin one_at_a_time -- amqp://127.0.0.1:5672
//! ```

use std::path::Path;

use leasehold::{Error, ErrorKind, Leasehold, Result};

const WORKERS: usize = 4;
const TIMES: usize = 10;

/// Adds one to the number in a file, in three steps that others could come between.
async fn count(file: &Path) -> std::io::Result<()> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let number = text.trim().parse::<usize>().unwrap_or(0);
    tokio::task::yield_now().await;
    std::fs::write(file, (number + 1).to_string())
}

#[tokio::main]
async fn main() -> Result<()> {
    let file = std::env::temp_dir().join(format!("one-at-a-time-{}", std::process::id()));
    let broken = |error: std::io::Error| Error::new(ErrorKind::Broken, error.to_string());
    let first = leasehold_examples::engine().await?;
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        // Each has a session of its own, as processes would.
        let (leasehold, file) = (Leasehold::new(first.engine().clone()), file.clone());
        workers.push(tokio::spawn(async move {
            for _ in 0..TIMES {
                let guard = leasehold.lock("the file").acquire().await?;
                count(&file).await.map_err(broken)?;
                guard.release().await?;
            }
            Ok::<(), Error>(())
        }));
    }
    for worker in workers {
        worker.await.expect("it does not panic")?;
    }
    let counted = std::fs::read_to_string(&file).map_err(broken)?;
    std::fs::remove_file(&file).map_err(broken)?;
    println!("{counted} of {} counted", WORKERS * TIMES);
    Ok(())
}
