//! Acks, returns, rejections, leases, and what happens to a dead consumer's messages.

use std::time::Duration;

use futures_util::FutureExt as _;
use leasehold_api::{Consumer, DeadLetter, Delivery, ErrorKind, Management, QueueConfig, Verdict};

use super::queues::{counted, next, queue, view};
use super::{KEPT, SHORT, cases, ensure, gives, refused, until};
use crate::{Failure, Outcome, Target};

cases! { "settling" needs Queues::Acked:
    a_returned_message_comes_again_in_its_place;
    a_return_may_be_delayed needs Delays::Timed;
    a_rejected_message_is_gone;
    a_rejected_message_is_dead needs DeadLetters::Kept;
    too_many_deliveries_are_a_death needs DeadLetters::Kept;
    the_dead_are_redriven needs DeadLetters::Kept, Management::Full;
    an_ack_counts_once;
    a_lost_lease_makes_the_ack_stale needs Queues::Leased unrefused Sharing::Messages;
    what_nobody_settles_comes_again needs Queues::Leased;
    a_lease_can_be_extended needs Queues::Leased;
    a_dropped_delivery_goes_back;
    a_dropped_consumer_gives_back unrefused Sharing::Messages;
    an_ended_session_gives_back unrefused Ends::Both;
    an_exclusive_consumer_is_alone needs Consumers::Alone;
    no_ack_forgets;
}

async fn a_returned_message_comes_again_in_its_place(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "nack", QueueConfig::default()).await?;
    queue.publish_all(["1", "2", "3"]).await?;
    let mut consumer = queue.consume().prefetch(1).await?;
    let first = next(&mut consumer).await?;
    let token = first.token();
    first.nack().await?;
    let again = next(&mut consumer).await?;
    ensure!(again.body() == b"1", "{:?} came instead", again.body());
    ensure!(again.attempt == 2 && again.redelivered, "it says nothing of the first delivery");
    ensure!(again.token() > token, "token {} after {token}", again.token());
    Ok(again.ack().await?)
}

async fn a_return_may_be_delayed(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "nack-late", QueueConfig::default()).await?;
    queue.publish("x").await?;
    let mut consumer = queue.consume().await?;
    let first = next(&mut consumer).await?;
    let began = std::time::Instant::now();
    first.nack_after(SHORT).await?;
    if let Some(view) = view(&queue).await? {
        ensure!(view.delayed == 1, "it does not wait");
    }
    let again = next(&mut consumer).await?;
    ensure!(began.elapsed() >= SHORT, "it came after {:?}", began.elapsed());
    ensure!(again.attempt == 2, "attempt {}", again.attempt);
    Ok(again.ack().await?)
}

async fn a_rejected_message_is_gone(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "rejected", QueueConfig::default()).await?;
    queue.publish_all(["bad", "good"]).await?;
    let mut consumer = queue.consume().prefetch(1).await?;
    next(&mut consumer).await?.reject().await?;
    let good = next(&mut consumer).await?;
    ensure!(good.body() == b"good", "{:?} came again", good.body());
    good.ack().await?;
    counted(&queue, 0, 0).await
}

async fn a_rejected_message_is_dead(target: &Target) -> Outcome {
    let (a, dead) = queue(target, "rejects", QueueConfig::default()).await?;
    let queue = a.queue(target.name("rejecting"));
    let dead_letter = Some(DeadLetter::queue(dead.name()));
    queue.declare(&QueueConfig { dead_letter, ..QueueConfig::default() }).await?;
    queue.publish("bad").await?;
    let mut consumer = queue.consume().await?;
    next(&mut consumer).await?.reject().await?;
    let mut graves = dead.consume().await?;
    let delivery = next(&mut graves).await?;
    let death = delivery.content.deaths.last().map(|d| (d.queue.as_str(), d.reason.as_str()));
    ensure!(death == Some((queue.name(), "rejected")), "its death is told as {death:?}");
    if gives(&a, Management::Full)? {
        ensure!(queue.inspect().await?.totals.dead == 1, "the dead are not counted");
    }
    Ok(delivery.ack().await?)
}

async fn too_many_deliveries_are_a_death(target: &Target) -> Outcome {
    let (a, dead) = queue(target, "worn", QueueConfig::default()).await?;
    let queue = a.queue(target.name("wearing"));
    let config = QueueConfig {
        deliveries_max: Some(3),
        dead_letter: Some(DeadLetter::queue(dead.name())),
        ..QueueConfig::default()
    };
    queue.declare(&config).await?;
    queue.publish("poison").await?;
    let mut consumer = queue.consume().await?;
    for attempt in 1..=3 {
        let delivery = next(&mut consumer).await?;
        ensure!(delivery.attempt == attempt, "attempt {} is told as {}", attempt, delivery.attempt);
        delivery.nack().await?;
    }
    let mut graves = dead.consume().await?;
    let delivery = next(&mut graves).await?;
    let reason = delivery.content.deaths.last().map(|d| d.reason.clone());
    ensure!(reason.as_deref() == Some("deliveries"), "its death is told as {reason:?}");
    Ok(delivery.ack().await?)
}

async fn the_dead_are_redriven(target: &Target) -> Outcome {
    let (a, dead) = queue(target, "graves", QueueConfig::default()).await?;
    let queue = a.queue(target.name("living"));
    let dead_letter = Some(DeadLetter::queue(dead.name()));
    queue.declare(&QueueConfig { dead_letter, ..QueueConfig::default() }).await?;
    queue.publish_all(["1", "2", "3"]).await?;
    for _ in 0..3 {
        let delivery = queue.receive(Duration::from_secs(5)).await?;
        delivery.expect("three were published").reject().await?;
    }
    until("the dead", async || Ok(dead.inspect().await?.ready == 3)).await?;
    ensure!(dead.redrive(None, 2).await? == 2, "not two were moved");
    ensure!(queue.inspect().await?.ready == 2, "they are not back");
    ensure!(dead.redrive(Some(queue.name()), 10).await? == 1, "not one was moved");
    let mut consumer = queue.consume().await?;
    let again = next(&mut consumer).await?;
    ensure!(again.content.deaths.is_empty(), "a redriven message remembers its death");
    Ok(())
}

async fn an_ack_counts_once(target: &Target) -> Outcome {
    let (a, queue) = queue(target, "twice", QueueConfig::default()).await?;
    queue.publish("x").await?;
    let mut consumer = queue.consume().await?;
    let receipt = next(&mut consumer).await?.into_receipt();
    let engine = a.engine().queues.clone().expect("it has queues");
    engine.settle(std::slice::from_ref(&receipt), Verdict::Ack).await?;
    let again = engine.settle(&[receipt], Verdict::Ack).await;
    refused(again, ErrorKind::Stale)?;
    Ok(())
}

async fn a_lost_lease_makes_the_ack_stale(target: &Target) -> Outcome {
    let config = QueueConfig { lease: Some(KEPT), ..QueueConfig::default() };
    let (_a, queue) = queue(target, "lease", config).await?;
    let other = target.handle().await?.queue(queue.name());
    queue.publish("x").await?;
    let mut slow = queue.consume().prefetch(1).await?;
    let late = next(&mut slow).await?;
    let mut quick = other.consume().await?;
    let taken = next(&mut quick).await?;
    ensure!(taken.redelivered && taken.attempt == 2, "it looks like a first delivery");
    ensure!(taken.token() > late.token(), "the token did not rise");
    refused(late.ack().await, ErrorKind::Stale)?;
    Ok(taken.ack().await?)
}

async fn what_nobody_settles_comes_again(target: &Target) -> Outcome {
    let config = QueueConfig { lease: Some(SHORT), ..QueueConfig::default() };
    let (a, queue) = queue(target, "forgotten", config).await?;
    let engine = a.engine().queues.clone().expect("it has queues");
    queue.publish_all((0..300u16).map(|i| i.to_le_bytes())).await?;
    let mut consumer = queue.consume().prefetch(200).await?;
    let mut settled = std::collections::BTreeSet::new();
    while settled.len() < 300 {
        let (mut bodies, mut receipts) = (Vec::new(), Vec::new());
        for delivery in all_there(&mut consumer).await? {
            // What comes for the first time is forgotten.
            if delivery.attempt > 1 {
                bodies.push(delivery.body().to_vec());
                receipts.push(delivery.into_receipt());
            } else {
                delivery.into_receipt();
            }
        }
        if receipts.is_empty() {
            continue;
        }
        // All of them in one request: a store that syncs each could not settle so many, one after
        // the other, before the lease of the last one is over.
        match engine.settle(&receipts, Verdict::Ack).await {
            Ok(_) => settled.extend(bodies),
            // It was over all the same. So nobody has settled them, and they come again.
            Err(error) if error.kind == ErrorKind::Stale => {}
            Err(error) => return Err(error.into()),
        }
    }
    if gives(&a, Management::Counts)? {
        let over = async || Ok(queue.inspect().await?.in_flight == 0);
        until("the end of the rest", over).await?;
    }
    Ok(())
}

/// Waits for a delivery, and takes those that are there besides.
async fn all_there(consumer: &mut Consumer) -> Result<Vec<Delivery>, Failure> {
    let mut there = vec![next(consumer).await?];
    while let Some(came) = consumer.next().now_or_never() {
        match came? {
            Some(delivery) => there.push(delivery),
            None => break,
        }
    }
    Ok(there)
}

async fn a_lease_can_be_extended(target: &Target) -> Outcome {
    let config = QueueConfig { lease: Some(KEPT), ..QueueConfig::default() };
    let (_a, queue) = queue(target, "extend", config).await?;
    queue.publish("x").await?;
    let mut consumer = queue.consume().await?;
    let delivery = next(&mut consumer).await?;
    let began = std::time::Instant::now();
    // The proof takes as long as the thing to prove: three lifetimes.
    while began.elapsed() < 3 * KEPT {
        delivery.extend(KEPT).await?;
        tokio::time::sleep(SHORT / 8).await;
    }
    Ok(delivery.ack().await?)
}

async fn a_dropped_delivery_goes_back(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "dropped", QueueConfig::default()).await?;
    queue.publish("x").await?;
    let mut consumer = queue.consume().await?;
    drop(next(&mut consumer).await?);
    let again = next(&mut consumer).await?;
    ensure!(again.redelivered, "it looks like a first delivery");
    Ok(again.ack().await?)
}

async fn a_dropped_consumer_gives_back(target: &Target) -> Outcome {
    let (a, queue) = queue(target, "quits", QueueConfig::default()).await?;
    queue.publish_all((0..10u8).map(|i| vec![i])).await?;
    let mut consumer = queue.consume().prefetch(10).await?;
    let kept = next(&mut consumer).await?;
    drop(consumer);
    let back = async || {
        let view = queue.inspect().await?;
        Ok((view.ready, view.in_flight, view.consumers) == (9, 1, 0))
    };
    if gives(&a, Management::Counts)? {
        until("the return of what was prefetched", back).await?;
    }
    let mut other = target.handle().await?.queue(queue.name()).consume().prefetch(10).await?;
    let mut again = std::collections::BTreeSet::new();
    for _ in 0..9 {
        let delivery = next(&mut other).await?;
        ensure!(delivery.body() != kept.body(), "what is in hand came again");
        ensure!(again.insert(delivery.body()[0]), "{} came twice", delivery.body()[0]);
        delivery.ack().await?;
    }
    Ok(kept.ack().await?)
}

async fn an_ended_session_gives_back(target: &Target) -> Outcome {
    let (a, queue) = queue(target, "gone", QueueConfig::default()).await?;
    queue.publish("x").await?;
    let mut consumer = queue.consume().await?;
    let held = next(&mut consumer).await?;
    a.close().await?;
    let mut other = target.handle().await?.queue(queue.name()).consume().await?;
    let taken = next(&mut other).await?;
    ensure!(taken.redelivered, "it looks like a first delivery");
    let late = held.ack().await;
    ensure!(late.is_err(), "the ack of a lost delivery was accepted");
    Ok(taken.ack().await?)
}

async fn an_exclusive_consumer_is_alone(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "alone", QueueConfig::default()).await?;
    let other = target.handle().await?.queue(queue.name());
    let consumer = queue.consume().exclusive().await?;
    let second = other.consume().await.map(|_| ());
    refused(second, ErrorKind::InUse)?;
    drop(consumer);
    let free = async || match other.consume().await {
        Ok(_) => Ok(true),
        Err(error) if error.kind == ErrorKind::InUse => Ok(false),
        Err(error) => Err(error),
    };
    until("the end of the consumer", free).await
}

async fn no_ack_forgets(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "forget", QueueConfig::default()).await?;
    queue.publish_all(["1", "2"]).await?;
    let mut consumer = queue.consume().no_ack().await?;
    next(&mut consumer).await?;
    next(&mut consumer).await?;
    counted(&queue, 0, 0).await?;
    drop(consumer);
    let left = queue.receive(SHORT).await?;
    ensure!(left.is_none(), "something came again: {left:?}");
    Ok(())
}
