//! Several processes count in one file. Reading, adding one and writing back are three steps, so
//! without a lock counts get lost; under one, whichever system keeps it, none is.
//!
//! ```text
//! cargo run -p leasehold-examples --bin one_at_a_time
//! cargo run -p leasehold-examples --bin one_at_a_time -- redis://127.0.0.1:6379
//! cargo run -p leasehold-examples --bin one_at_a_time -- mysql://user:password@127.0.0.1/shop
//! cargo run -p leasehold-examples --bin one_at_a_time -- zookeeper://127.0.0.1:2181
//! cargo run -p leasehold-examples --bin one_at_a_time -- amqp://127.0.0.1:5672
//! ```
//!
//! Without a URL the lock is a file, too.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use leasehold::{Error, ErrorKind, Result};

const WORKERS: usize = 4;
const TIMES: usize = 10;

/// Adds one to the number in a file, in steps that others could come between.
async fn count(file: &Path) -> std::io::Result<()> {
    let text = std::fs::read_to_string(file)?;
    let number: usize = text.trim().parse().map_err(std::io::Error::other)?;
    tokio::time::sleep(Duration::from_millis(1)).await;
    std::fs::write(file, (number + 1).to_string())
}

/// What each of the processes does.
async fn work(url: &str, file: &Path) -> Result<()> {
    let lock = leasehold::connect(url).await?.lock("the file");
    for _ in 0..TIMES {
        let guard = lock.acquire().await?;
        count(file).await.map_err(broken)?;
        guard.release().await?;
    }
    Ok(())
}

/// Starts the processes, and reads what they have counted.
fn together(url: &str) -> std::io::Result<()> {
    let file = std::env::temp_dir().join(format!("one-at-a-time-{}", std::process::id()));
    std::fs::write(&file, "0")?;
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        let mut call = Command::new(std::env::current_exe()?);
        workers.push(call.arg(url).arg("worker").arg(&file).spawn()?);
    }
    for mut worker in workers {
        let status = worker.wait()?;
        if !status.success() {
            return Err(std::io::Error::other(format!("a worker ended with {status}")));
        }
    }
    println!("{} of {} counted", std::fs::read_to_string(&file)?, WORKERS * TIMES);
    std::fs::remove_file(&file)
}

fn broken(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Broken, error.to_string())
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [url, "worker", file] => work(url, file.as_ref()).await,
        [url] => together(url).map_err(broken),
        _ => {
            let locks = std::env::temp_dir().join("one-at-a-time-locks");
            together(&format!("file://{}", locks.display())).map_err(broken)
        }
    }
}
