//! Queues: a message is there once or not at all, and nobody keeps one that he did not get.

use std::collections::BTreeSet;
use std::time::Duration;

use leasehold_api::{Message, Queue, QueueConfig, Target as To};

use super::super::queues::{counted, next, queue, view};
use super::super::{SHORT, cases, ensure, soon, until};
use super::Moments;
use crate::{Failure, Outcome, PATIENCE, Target};

cases! { "cancels" needs Queues::Acked:
    a_publish_happens_once_or_not;
    a_batch_happens_once_or_not;
    a_topic_is_published_to_once_or_not needs Routing::Exchanges;
    a_consumer_that_is_not_opened_takes_nothing unrefused Sharing::Messages;
    next_loses_nothing;
    a_receive_takes_nothing;
    a_declaration_happens_or_not;
    a_subscription_happens_or_not needs Routing::Exchanges;
    a_purge_happens_or_not;
    a_pause_happens_or_not needs Management::Full;
    a_redrive_loses_nothing needs Management::Full;
    a_deletion_of_a_queue_happens_or_not;
    looks_take_nothing needs Management::Full;
}

/// Takes and acknowledges what is in a queue until nothing is left of it, and demands that no body
/// comes twice and that every message counts.
pub(super) async fn drained(queue: &Queue) -> Result<BTreeSet<Vec<u8>>, Failure> {
    let mut bodies = BTreeSet::new();
    loop {
        while let Some(one) = soon("an answer", queue.receive(Duration::ZERO)).await?? {
            let body = one.body().to_vec();
            one.ack().await?;
            ensure!(bodies.insert(body.clone()), "{body:?} came twice");
        }
        let view = view(queue).await?;
        if let Some(view) = &view
            && (view.ready, view.in_flight, view.delayed) == (0, 0, 0)
        {
            let (published, acked) = (view.totals.published, view.totals.acked);
            ensure!(published == acked, "{published} published, {acked} acknowledged");
            return Ok(bodies);
        }
        // What somebody gave up is on its way back.
        match soon("what went back", queue.receive(SHORT)).await?? {
            Some(one) => one.nack().await?,
            None if view.is_none() => return Ok(bodies),
            None => {}
        }
    }
}

async fn a_publish_happens_once_or_not(target: &Target) -> Outcome {
    let (a, queue) = queue(target, "publish", QueueConfig::default()).await?;
    let other = target.handle().await?.queue(queue.name());
    let (mut serial, mut confirmed) = (0, Vec::new());
    let mut moments = Moments::new();
    while moments.more() {
        serial += 1;
        let body = format!("{serial}").into_bytes();
        let done = moments.cut(queue.publish(body.clone())).await?.transpose()?;
        confirmed.extend(done.map(|_| body));
    }
    let mut moments = Moments::new();
    while moments.more() {
        serial += 1;
        let body = format!("{serial}").into_bytes();
        let to = To::Queue(queue.name().into());
        let done = moments.cut(a.publish(to, Message::new(body.clone()), true)).await?;
        confirmed.extend(done.transpose()?.map(|_| body));
    }
    let came = drained(&other).await?;
    ensure!(came.len() <= serial, "{} of {serial} came", came.len());
    let lost = confirmed.iter().find(|body| !came.contains(*body));
    ensure!(lost.is_none(), "{lost:?} was confirmed and did not come");
    Ok(())
}

async fn a_batch_happens_once_or_not(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "batch", QueueConfig::default()).await?;
    let other = target.handle().await?.queue(queue.name());
    let (mut serial, mut confirmed) = (0, Vec::new());
    let mut moments = Moments::new();
    while moments.more() {
        let bodies: Vec<_> = (serial..serial + 5).map(|i| format!("{i}").into_bytes()).collect();
        serial += 5;
        if let Some(answers) = moments.cut(queue.publish_all(bodies.clone())).await?.transpose()? {
            answers.into_iter().collect::<Result<Vec<_>, _>>()?;
            confirmed.extend(bodies);
        }
    }
    let came = drained(&other).await?;
    let lost = confirmed.iter().find(|body| !came.contains(*body));
    ensure!(lost.is_none(), "{lost:?} was confirmed and did not come");
    Ok(())
}

async fn a_topic_is_published_to_once_or_not(target: &Target) -> Outcome {
    let a = target.handle().await?;
    let topic = a.topic(target.name("topic"));
    topic.declare().await?;
    let queue = topic.subscribe("all", "#", &QueueConfig::default()).await?;
    let (mut serial, mut confirmed) = (0, Vec::new());
    let mut moments = Moments::new();
    while moments.more() {
        serial += 1;
        let body = format!("{serial}").into_bytes();
        let done = moments.cut(topic.publish("x.y", body.clone())).await?.transpose()?;
        confirmed.extend(done.map(|_| body));
    }
    let came = drained(&queue).await?;
    let lost = confirmed.iter().find(|body| !came.contains(*body));
    ensure!(lost.is_none(), "{lost:?} was confirmed and did not come");
    Ok(())
}

async fn a_consumer_that_is_not_opened_takes_nothing(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "open", QueueConfig::default()).await?;
    let other = target.handle().await?.queue(queue.name());
    let mut moments = Moments::new();
    while moments.more() {
        queue.publish_all(["1", "2", "3"]).await?;
        drop(moments.cut(queue.consume().open()).await?.transpose()?);
        // It may be opened in the end, for a moment, and give back what it was sent.
        let mut came = BTreeSet::new();
        let all = async {
            while came.len() < 3 {
                came.extend(drained(&other).await?);
            }
            Ok::<(), Failure>(())
        };
        soon("three messages", all).await??;
        if view(&other).await?.is_some() {
            let gone = async || Ok(other.inspect().await?.consumers == 0);
            until("the end of the consumer", gone).await?;
        }
    }
    Ok(())
}

async fn next_loses_nothing(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "next", QueueConfig::default()).await?;
    let other = target.handle().await?.queue(queue.name());
    let mut consumer = queue.consume().prefetch(2).await?;
    for (sent, rhythm) in (0..30u8).zip([false, true].into_iter().cycle()) {
        let (other, body) = (other.clone(), vec![sent]);
        let publishing = tokio::spawn(async move { other.publish(body).await });
        let mut moments = Moments { rhythm: if rhythm { 2 } else { 0 }, polls: 1 };
        let came = match moments.cut(consumer.next()).await?.transpose()?.flatten() {
            Some(came) => came,
            None => next(&mut consumer).await?,
        };
        ensure!(came.body() == [sent], "{:?} came, not {sent}", came.body());
        came.ack().await?;
        publishing.await.expect("it does not panic")?;
    }
    counted(&other, 0, 0).await
}

async fn a_receive_takes_nothing(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "receive", QueueConfig::default()).await?;
    let other = target.handle().await?.queue(queue.name());
    for wait in [Duration::ZERO, PATIENCE] {
        let mut moments = Moments::new();
        while moments.more() {
            other.publish("x").await?;
            drop(moments.cut(queue.receive(wait)).await?.transpose()?);
            let came = soon("the message", other.receive(PATIENCE)).await??;
            came.ok_or_else(|| Failure::Expected("it is lost".to_owned()))?.ack().await?;
        }
    }
    // And one that waited in vain takes none that comes later.
    let mut moments = Moments::new();
    while moments.more() {
        let came = moments.cut(queue.receive(PATIENCE)).await?.transpose()?.flatten();
        ensure!(came.is_none(), "something came: {came:?}");
        other.publish("x").await?;
        let came = soon("the message", other.receive(PATIENCE)).await??;
        came.ok_or_else(|| Failure::Expected("it is lost".to_owned()))?.ack().await?;
    }
    Ok(())
}

async fn a_declaration_happens_or_not(target: &Target) -> Outcome {
    let (a, b) = (target.handle().await?, target.handle().await?);
    let mut moments = Moments::new();
    while moments.more() {
        let queue = a.queue(target.name("declare"));
        moments.cut(queue.declare(&QueueConfig::default())).await?.transpose()?;
        let other = b.queue(queue.name());
        other.declare(&QueueConfig::default()).await?;
        other.publish("x").await?;
        ensure!(drained(&other).await?.len() == 1, "it is no good queue");
    }
    Ok(())
}

async fn a_subscription_happens_or_not(target: &Target) -> Outcome {
    let (a, b, config) = (target.handle().await?, target.handle().await?, QueueConfig::default());
    let mut moments = Moments::new();
    while moments.more() {
        let name = target.name("subscribe");
        let (one, other) = (a.topic(&*name), b.topic(&*name));
        moments.cut(one.declare()).await?.transpose()?;
        other.declare().await?;
    }
    let mut moments = Moments::new();
    while moments.more() {
        let name = target.name("subscribe");
        let (one, other) = (a.topic(&*name), b.topic(&*name));
        other.declare().await?;
        moments.cut(one.subscribe("all", "#", &config)).await?.transpose()?;
        let queue = other.subscribe("all", "#", &config).await?;
        let taken = other.publish("x", "x").await?.queues;
        ensure!(taken == 1, "{taken} queues took it");
        ensure!(drained(&queue).await?.len() == 1, "it did not come");
    }
    Ok(())
}

async fn a_purge_happens_or_not(target: &Target) -> Outcome {
    let (a, b) = (target.handle().await?, target.handle().await?);
    let mut moments = Moments::new();
    while moments.more() {
        let queue = a.queue(target.name("purge"));
        queue.declare(&QueueConfig::default()).await?;
        queue.publish_all(["1", "2", "3"]).await?;
        moments.cut(queue.purge()).await?.transpose()?;
        let other = b.queue(queue.name());
        if let Some(view) = view(&other).await? {
            ensure!(view.ready == 3 || view.ready == 0, "{} of 3 are left", view.ready);
        }
        other.purge().await?;
        counted(&other, 0, 0).await?;
        let left = other.receive(Duration::ZERO).await?;
        ensure!(left.is_none(), "something is left: {left:?}");
    }
    Ok(())
}

async fn a_pause_happens_or_not(target: &Target) -> Outcome {
    let (a, b) = (target.handle().await?, target.handle().await?);
    let mut moments = Moments::new();
    while moments.more() {
        let queue = a.queue(target.name("pause"));
        queue.declare(&QueueConfig::default()).await?;
        moments.cut(queue.pause()).await?.transpose()?;
        // It may be under way still, so it is taken back until it stays so.
        let other = b.queue(queue.name());
        other.publish("x").await?;
        let goes = async || {
            other.resume().await?;
            Ok(other.receive(Duration::from_millis(20)).await?.is_some())
        };
        until("the message", goes).await?;
        moments.cut(queue.resume()).await?.transpose()?;
    }
    Ok(())
}

async fn a_redrive_loses_nothing(target: &Target) -> Outcome {
    let (a, from) = queue(target, "from", QueueConfig::default()).await?;
    let to = a.queue(target.name("to"));
    to.declare(&QueueConfig::default()).await?;
    let mut moments = Moments::new();
    while moments.more() {
        from.publish_all(["1", "2", "3"]).await?;
        moments.cut(from.redrive(Some(to.name()), 10)).await?.transpose()?;
        let all = async || {
            from.redrive(Some(to.name()), 10).await?;
            Ok(to.inspect().await?.ready == 3)
        };
        until("all three", all).await?;
        ensure!(from.inspect().await?.ready == 0, "some are there twice");
        to.purge().await?;
    }
    Ok(())
}

async fn a_deletion_of_a_queue_happens_or_not(target: &Target) -> Outcome {
    let (a, b) = (target.handle().await?, target.handle().await?);
    let mut moments = Moments::new();
    while moments.more() {
        let queue = a.queue(target.name("delete"));
        queue.declare(&QueueConfig::default()).await?;
        queue.publish("x").await?;
        moments.cut(queue.delete()).await?.transpose()?;
        let other = b.queue(queue.name());
        let gone = async || match other.delete().await {
            Ok(_) => Ok(true),
            Err(error) if error.kind == leasehold_api::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        };
        until("its end", gone).await?;
    }
    Ok(())
}

async fn looks_take_nothing(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "looks", QueueConfig::default()).await?;
    queue.publish_all(["1", "2"]).await?;
    let mut moments = Moments::new();
    while moments.more() {
        moments.cut(queue.peek(10)).await?.transpose()?;
    }
    let mut moments = Moments::new();
    while moments.more() {
        moments.cut(queue.inspect()).await?.transpose()?;
    }
    ensure!(drained(&queue).await?.len() == 2, "something is lost");
    Ok(())
}
