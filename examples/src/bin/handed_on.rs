//! Orders are handed on through a queue: each is handled by one of two workers, and only what was
//! acknowledged is gone. The queue is in memory, or where the URL says.
//!
//! ```text
//! cargo run -p leasehold-examples --bin handed_on
//! cargo run -p leasehold-examples --bin handed_on -- amqp://127.0.0.1:5672
//! cargo run -p leasehold-examples --bin handed_on -- redis://127.0.0.1:6379
//! ```

use std::time::Duration;

use leasehold::{Leasehold, QueueConfig, Result};

const ORDERS: usize = 20;

/// Handles orders until none has come for a while; gives how many.
async fn work(leasehold: Leasehold, name: String) -> Result<usize> {
    let queue = leasehold.queue(&*name);
    let mut handled = 0;
    while let Some(order) = queue.receive(Duration::from_secs(2)).await? {
        order.ack().await?;
        handled += 1;
    }
    Ok(handled)
}

#[tokio::main]
async fn main() -> Result<()> {
    let leasehold = leasehold_examples::engine().await?;
    let name = format!("orders-{}", std::process::id());
    let orders = leasehold.queue(&*name);
    orders.declare(&QueueConfig::default()).await?;
    for number in 1..=ORDERS {
        // The answer is the broker's word that it has the order.
        orders.publish(format!("order {number}")).await?;
    }
    let workers = [leasehold.clone(), leasehold.clone()];
    let workers = workers.map(|leasehold| tokio::spawn(work(leasehold, name.clone())));
    let mut handled = 0;
    for worker in workers {
        handled += worker.await.expect("it does not panic")?;
    }
    println!("{handled} of {ORDERS} orders handled");
    orders.delete().await?;
    Ok(())
}
