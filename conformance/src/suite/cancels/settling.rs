//! Deliveries and commits: settled, or there again; everything, or nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leasehold_api::{ErrorKind, Expect, Queue, QueueConfig, Verdict};

use super::super::queues::{next, queue, view};
use super::super::{cases, ensure, soon, until};
use super::Moments;
use super::queues::drained;
use crate::{Failure, Outcome, Target};

cases! { "cancels" needs Queues::Acked:
    a_verdict_stands_or_the_message_goes_back needs Management::Counts, Delays::Timed;
    an_extension_happens_or_not needs Queues::Leased;
    a_commit_happens_or_not needs Atomicity::Commit;
    a_refused_commit_gives_everything_back needs Atomicity::Commit;
}

/// Waits until nothing of a queue is with anybody; gives how many messages wait in it then. One
/// look for both: a consumer that was dropped may take a message that went back, and return it.
async fn settled(queue: &Queue) -> Result<u64, Failure> {
    let left = AtomicU64::new(0);
    until("the verdict", async || {
        let view = queue.inspect().await?;
        left.store(view.ready + view.delayed, Ordering::Relaxed);
        Ok(view.in_flight == 0)
    })
    .await?;
    Ok(left.into_inner())
}

async fn a_verdict_stands_or_the_message_goes_back(target: &Target) -> Outcome {
    // The last is one that engines may refuse.
    for kind in 0..4 {
        let (_a, queue) = queue(target, "verdict", QueueConfig::default()).await?;
        let other = target.handle().await?.queue(queue.name());
        let mut consumer = queue.consume().prefetch(1).await?;
        let mut moments = Moments::new();
        while moments.more() {
            other.publish("x").await?;
            let one = next(&mut consumer).await?;
            // With the consumer gone whatever goes back stays in the queue.
            drop(consumer);
            let done = match kind {
                0 => moments.cut(one.ack()).await?,
                1 => moments.cut(one.nack()).await?,
                2 => moments.cut(one.reject()).await?,
                _ => moments.cut(one.nack_after(Duration::from_millis(5))).await?,
            };
            let done = done.transpose()?.is_some();
            let left = settled(&queue).await?;
            let goes = kind == 0 || kind == 2;
            ensure!(left <= 1, "one message became {left}");
            ensure!(left == 1 || goes, "a message that went back is lost");
            ensure!(left == 0 || !goes || !done, "what was confirmed did not happen");
            if left == 1 {
                let again = soon("the message", other.receive(Duration::from_secs(5))).await??;
                let again = again.is_some_and(|again| again.body() == b"x");
                ensure!(again, "another message came");
                settled(&other).await?;
            }
            other.purge().await?;
            consumer = queue.consume().prefetch(1).await?;
        }
    }
    Ok(())
}

async fn an_extension_happens_or_not(target: &Target) -> Outcome {
    let config = QueueConfig { lease: Some(Duration::from_secs(60)), ..QueueConfig::default() };
    let (_a, queue) = queue(target, "extend", config).await?;
    queue.publish("x").await?;
    let mut consumer = queue.consume().await?;
    let one = next(&mut consumer).await?;
    let mut moments = Moments::new();
    while moments.more() {
        moments.cut(one.extend(Duration::from_secs(60))).await?.transpose()?;
        if let Some(view) = view(&queue).await? {
            ensure!(view.in_flight == 1, "it went back");
        }
    }
    Ok(one.ack().await?)
}

async fn a_commit_happens_or_not(target: &Target) -> Outcome {
    let (a, orders) = queue(target, "orders", QueueConfig::default()).await?;
    let b = target.handle().await?;
    let payments = b.queue(target.name("payments"));
    payments.declare(&QueueConfig::default()).await?;
    let lock = target.name("stock");
    let mut moments = Moments::new();
    while moments.more() {
        let key = target.name("stock");
        orders.publish("order").await?;
        let order = soon("the order", orders.receive(Duration::from_secs(5))).await??;
        let order = order.expect("it was just published");
        let guard = soon("the lock", a.lock(&*lock).acquire()).await??;
        let commit = a.commit().check(&guard).ack(order).publish(payments.name(), "pay");
        let commit = commit.write(&*key, "9", Expect::Absent).release(guard);
        let done = moments.cut(commit.send()).await?.transpose()?.is_some();
        settled(&b.queue(orders.name())).await?;
        let written = b.register(&*key).read().await?.is_some();
        let (back, paid) = (orders.inspect().await?.ready, payments.inspect().await?.ready);
        let whole = if written { (0, 1) } else { (1, 0) };
        ensure!((back, paid) == whole, "written: {written}, {back} back, {paid} paid");
        ensure!(written || !done, "what was confirmed did not happen");
        soon("the lock", b.lock(&*lock).acquire()).await??.release().await?;
        orders.purge().await?;
        payments.purge().await?;
    }
    Ok(())
}

async fn a_refused_commit_gives_everything_back(target: &Target) -> Outcome {
    let (a, orders) = queue(target, "refused", QueueConfig::default()).await?;
    let (b, lock) = (target.handle().await?, target.name("refused"));
    orders.publish("order").await?;
    let mut moments = Moments::new();
    while moments.more() {
        let order = soon("the order", orders.receive(Duration::from_secs(5))).await??;
        let order = order.expect("it goes back each time");
        let guard = soon("the lock", a.lock(&*lock).acquire()).await??;
        let commit = a.commit().settle(order, Verdict::Ack).release(guard);
        let commit = commit.publish(target.name("nowhere"), "x");
        match moments.cut(commit.send()).await? {
            Some(Err(error)) if error.kind == ErrorKind::Unsupported => return Err(error.into()),
            done => ensure!(!matches!(done, Some(Ok(_))), "it was accepted"),
        }
        settled(&b.queue(orders.name())).await?;
        soon("the lock", b.lock(&*lock).acquire()).await??.release().await?;
    }
    ensure!(drained(&orders).await?.len() == 1, "the order is lost");
    Ok(())
}
