//! Order → payment → stock: each step acknowledges its message and publishes the next one in one
//! commit, so that a crash in between neither loses an order nor books it twice.

use std::time::Duration;

use leasehold::{Expect, Leasehold, QueueConfig};

/// Takes from one queue and passes on to the next, in one commit.
async fn pass_on(leasehold: &Leasehold, from: &str, to: &str) -> leasehold::Result<()> {
    let taken = leasehold.queue(from).receive(Duration::from_secs(5)).await?;
    let order = taken.expect("an order was published");
    let body = order.body().to_vec();
    println!("{from} → {to}: {}", String::from_utf8_lossy(&body));
    leasehold.commit().publish(to, body).ack(order).await.map(|_| ())
}

/// Books the article out of the stock and acknowledges, under the article's lock.
async fn book(leasehold: &Leasehold) -> leasehold::Result<()> {
    let taken = leasehold.queue("stock").receive(Duration::from_secs(5)).await?;
    let order = taken.expect("it was passed on");
    let guard = leasehold.lock("article/7").acquire().await?;
    let stock = leasehold.register("article/7").read().await?.expect("the shop has it");
    let left = String::from_utf8_lossy(&stock.value).parse::<u32>().unwrap_or(0) - 1;
    println!("stock: {left} left, token {}", guard.token());
    leasehold
        .commit()
        .check(&guard)
        .write("article/7", left.to_string(), Expect::Version(stock.version))
        .ack(order)
        .release(guard)
        .await
        .map(|_| ())
}

#[tokio::main]
async fn main() -> leasehold::Result<()> {
    let leasehold = leasehold_examples::engine().await?;
    for queue in ["orders", "payments", "stock"] {
        leasehold.queue(queue).declare(&QueueConfig::default()).await?;
    }
    leasehold.register("article/7").write("3").await?;
    leasehold.queue("orders").publish("order 1: article 7").await?;

    pass_on(&leasehold, "orders", "payments").await?;
    pass_on(&leasehold, "payments", "stock").await?;
    book(&leasehold).await?;

    let left = leasehold.register("article/7").read().await?.expect("it is there");
    assert_eq!(left.value, b"2");
    Ok(())
}
