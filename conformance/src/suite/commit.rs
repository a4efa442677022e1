//! All at once or nothing.

use std::time::Duration;

use leasehold_api::{Atomicity, ErrorKind, Expect, QueueConfig, Verdict};

use super::queues::{next, queue};
use super::{cases, ensure, refused};
use crate::{Outcome, Target};

cases! { "commit":
    everything_happens needs Atomicity::Commit;
    a_stale_token_stops_everything needs Atomicity::Commit;
    a_conflict_stops_everything needs Atomicity::Commit;
    an_unknown_queue_stops_everything needs Atomicity::Commit;
    a_commit_releases needs Atomicity::Commit;
}

async fn everything_happens(target: &Target) -> Outcome {
    let (a, orders) = queue(target, "orders", QueueConfig::default()).await?;
    let payments = a.queue(target.name("payments"));
    payments.declare(&QueueConfig::default()).await?;
    orders.publish("order").await?;
    let guard = a.lock(target.name("stock")).acquire().await?;
    let mut consumer = orders.consume().await?;
    let order = next(&mut consumer).await?;
    let key = target.name("stock");
    let commit = a.commit().check(&guard).ack(order).publish(payments.name(), "pay");
    let versions = commit.write(&*key, "9", Expect::Absent).await?;
    let read = a.register(&*key).read().await?.map(|r| (r.value, r.version));
    ensure!(read == Some((b"9".to_vec(), versions[0])), "the register holds {read:?}");
    ensure!(payments.inspect().await?.ready == 1, "nothing was published");
    let view = orders.inspect().await?;
    ensure!((view.ready, view.in_flight) == (0, 0), "the order was not acknowledged");
    Ok(guard.release().await?)
}

async fn a_stale_token_stops_everything(target: &Target) -> Outcome {
    let (a, orders) = queue(target, "stale", QueueConfig::default()).await?;
    orders.publish("order").await?;
    let lock = target.name("stock");
    let guard = a.lock(&*lock).acquire().await?;
    let token = guard.token();
    guard.release().await?;
    let next_guard = a.lock(&*lock).acquire().await?;
    let mut consumer = orders.consume().await?;
    let order = next(&mut consumer).await?;
    let key = target.name("stock");
    let commit = a.commit().check_token(&*lock, token).ack(order).publish(orders.name(), "x");
    refused(commit.write(&*key, "9", Expect::Anything).await, ErrorKind::Stale)?;
    ensure!(a.register(&*key).read().await?.is_none(), "the register was written");
    let again = next(&mut consumer).await?;
    ensure!(again.body() == b"order" && again.redelivered, "the order did not come back");
    ensure!(orders.inspect().await?.ready == 0, "something was published");
    again.ack().await?;
    Ok(next_guard.release().await?)
}

async fn a_conflict_stops_everything(target: &Target) -> Outcome {
    let (a, orders) = queue(target, "conflict", QueueConfig::default()).await?;
    let key = target.name("stock");
    let version = a.register(&*key).write("1").await?;
    a.register(&*key).write("2").await?;
    let commit = a.commit().publish(orders.name(), "x").write(&*key, "3", Expect::Version(version));
    refused(commit.await, ErrorKind::Conflict)?;
    ensure!(orders.inspect().await?.ready == 0, "something was published");
    Ok(())
}

async fn an_unknown_queue_stops_everything(target: &Target) -> Outcome {
    let (a, orders) = queue(target, "unknown", QueueConfig::default()).await?;
    orders.publish("order").await?;
    let receipt = orders.receive(Duration::from_secs(5)).await?.expect("published").into_receipt();
    let commit = a.commit().settle_receipt(receipt.clone(), Verdict::Ack);
    refused(commit.publish(target.name("nowhere"), "x").await, ErrorKind::NotFound)?;
    ensure!(orders.inspect().await?.in_flight == 1, "the order was settled");
    a.commit().settle_receipt(receipt, Verdict::Ack).await?;
    Ok(())
}

async fn a_commit_releases(target: &Target) -> Outcome {
    let (a, lock) = (target.handle().await?, target.name("release"));
    let guard = a.lock(&*lock).acquire().await?;
    a.commit().check(&guard).write(target.name("r"), "x", Expect::Absent).release(guard).await?;
    ensure!(a.lock(&*lock).try_acquire().await?.is_some(), "it is not free");
    Ok(())
}
