//! All at once or nothing.

use std::time::Duration;

use leasehold_api::engine::{Acquire, Commit, HoldRef, Mode, Wait, Want};
use leasehold_api::{Error, ErrorKind, Expect, QueueConfig, Verdict};

use super::queues::{next, queue};
use super::{cases, ensure, refused};
use crate::{Outcome, PATIENCE, Target};

cases! { "commit" needs Atomicity::Commit:
    everything_happens;
    a_stale_token_stops_everything;
    a_conflict_stops_everything;
    an_unknown_queue_stops_everything;
    a_commit_releases;
    parts_may_be_of_several_sessions;
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

async fn parts_may_be_of_several_sessions(target: &Target) -> Outcome {
    let (a, orders) = queue(target, "several", QueueConfig::default()).await?;
    let b = a.with_label("another session of the engine");
    let mut settles = Vec::new();
    for handle in [&a, &b] {
        orders.publish("order").await?;
        let mut consumer = handle.queue(orders.name()).consume().await?;
        settles.push((next(&mut consumer).await?.into_receipt(), Verdict::Ack));
    }
    // A lock of no session ends by its time or its release only.
    let (hold, name) = (7, target.name("several"));
    let ask = Acquire {
        wants: vec![Want { name: name.as_str().into(), mode: Mode::Exclusive }],
        session: None,
        hold,
        reentrant: false,
        ttl: Some(PATIENCE),
        bound: false,
        wait: Wait::No,
        lock_delay: Duration::ZERO,
        label: None,
        request: None,
    };
    let locks = a.engine().locks.as_ref();
    let locks = locks.ok_or_else(|| Error::unsupported("an engine with queues alone", "locks"))?;
    let token = locks.acquire(&ask).await?.token;
    let release = HoldRef { name: name.as_str().into(), token, hold, session: None };
    let queues = a.engine().queues.clone().expect("it has queues");
    let commit = Commit { settles, releases: vec![release], ..Commit::default() };
    let mut foreign = commit.clone();
    foreign.releases[0].session = Some(commit.settles[0].0.session.clone());
    ensure!(queues.commit(&foreign).await.is_err(), "a lock was released by another session");
    let in_flight = orders.inspect().await?.in_flight;
    ensure!(in_flight == 2, "{in_flight} orders are left of a refused commit");
    queues.commit(&commit).await?;
    let view = orders.inspect().await?;
    ensure!((view.in_flight, view.totals.acked) == (0, 2), "the orders are {view:?}");
    ensure!(!a.check(&name, token).await?, "the lock is still held");
    // The same with what users hold.
    orders.publish("order").await?;
    let mut consumer = orders.consume().await?;
    let order = next(&mut consumer).await?;
    let guard = b.lock(&*name).acquire().await?;
    a.commit().check(&guard).ack(order).release(guard).await?;
    ensure!(orders.inspect().await?.totals.acked == 3, "the order was not acknowledged");
    Ok(())
}
