//! Publishing and delivering.

use std::collections::BTreeSet;
use std::time::Duration;

use leasehold_api::engine::QueueView;
use leasehold_api::{
    Bounds, Consumer, DeadLetter, Deduplication, Delivery, ErrorKind, Expiry, Floor, KeyOrder,
    Leasehold, Management, Message, Overflow, Priorities, Queue, QueueConfig, Queues, Value,
};

use super::{SHORT, cases, ensure, gives, refused, soon};
use crate::{Failure, Outcome, PATIENCE, Target};

cases! { "queues" needs Queues::Acked:
    what_is_published_is_delivered;
    inspect_counts needs Management::Counts;
    sums_are_kept needs Management::Counts unrefused Management::Full;
    everything_of_a_message_arrives;
    competing_consumers_share unrefused Sharing::Messages;
    prefetch_bounds_what_is_in_flight;
    priorities_go_first needs Priorities::Levels;
    a_delayed_message_waits needs Delays::Timed;
    an_old_message_dies needs Expiry::Timed, DeadLetters::Kept;
    an_old_message_is_gone needs Expiry::Timed;
    a_repeated_id_is_taken_once needs Deduplication::Window;
    one_key_one_at_a_time needs KeyOrder::Keys;
    a_full_queue_refuses needs Bounds::Kept;
    a_full_queue_drops_the_oldest needs Bounds::Kept;
    a_batch_has_an_answer_each;
    a_batch_may_be_taken_in_part needs Bounds::Kept;
    unknown_queues_are_named;
    unknown_queues_are_not_managed needs Management::Full;
    other_settings_are_refused;
    pause_holds_back needs Management::Full;
    purge_empties;
    peek_takes_nothing needs Management::Full;
    queues_are_listed_by_prefix needs Management::Full;
    receive_waits_and_gives_up;
    a_topic_reaches_all_who_subscribed needs Routing::Exchanges;
    messages_over_the_limits_are_refused;
}

/// A queue with settings, and its handle.
pub(super) async fn queue(
    target: &Target,
    what: &str,
    config: QueueConfig,
) -> Result<(Leasehold, Queue), Failure> {
    let handle = target.handle().await?;
    let queue = handle.queue(target.name(what));
    queue.declare(&config).await?;
    Ok((handle, queue))
}

pub(super) async fn next(consumer: &mut Consumer) -> Result<Delivery, Failure> {
    let came = soon("a delivery", consumer.next()).await??;
    came.ok_or_else(|| Failure::Expected("the consumer ended".to_owned()))
}

/// What inspect shows of a queue, where the engine counts at all.
pub(super) async fn view(queue: &Queue) -> Result<Option<QueueView>, Failure> {
    match queue.inspect().await {
        Ok(view) => Ok(Some(view)),
        Err(error) if error.kind == ErrorKind::Unsupported => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Demands that so many are ready and in flight, where the engine counts.
pub(super) async fn counted(queue: &Queue, ready: u64, in_flight: u64) -> Outcome {
    let Some(view) = view(queue).await? else { return Ok(()) };
    let (is_ready, flying) = (view.ready, view.in_flight);
    ensure!((is_ready, flying) == (ready, in_flight), "{is_ready} ready, {flying} in flight");
    Ok(())
}

/// Takes what is ready and acknowledges it.
async fn bodies(queue: &Queue) -> Result<Vec<Vec<u8>>, Failure> {
    let mut bodies = Vec::new();
    while let Some(one) = soon("an answer", queue.receive(SHORT)).await?? {
        bodies.push(one.body().to_vec());
        one.ack().await?;
    }
    Ok(bodies)
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.body()).into_owned()
}

async fn what_is_published_is_delivered(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "plain", QueueConfig::default()).await?;
    let mut consumer = queue.consume().await?;
    for i in 0..10 {
        let published = queue.publish(format!("message {i}")).await?;
        ensure!(published.queues == 1, "{} queues took it", published.queues);
    }
    for i in 0..10 {
        let delivery = next(&mut consumer).await?;
        ensure!(text(&delivery) == format!("message {i}"), "{i} came as {}", text(&delivery));
        ensure!(delivery.attempt == 1 && !delivery.redelivered, "a first delivery is not one");
        delivery.ack().await?;
    }
    let left = queue.receive(Duration::ZERO).await?;
    ensure!(left.is_none(), "something is left: {left:?}");
    Ok(())
}

async fn inspect_counts(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "counts", QueueConfig::default()).await?;
    queue.publish_all(["1", "2", "3"]).await?;
    let mut consumer = queue.consume().prefetch(1).await?;
    let held = next(&mut consumer).await?;
    let view = queue.inspect().await?;
    let counts = (view.ready, view.in_flight, view.consumers);
    ensure!(counts == (2, 1, 1), "ready, in flight and consumers are {counts:?}");
    ensure!(view.name == queue.name(), "it is called {}", view.name);
    Ok(held.ack().await?)
}

async fn sums_are_kept(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "sums", QueueConfig::default()).await?;
    queue.publish_all(["1", "2", "3"]).await?;
    ensure!(bodies(&queue).await?.len() == 3, "not all came");
    let view = queue.inspect().await?;
    ensure!((view.totals.published, view.totals.acked) == (3, 3), "the sums are {view:?}");
    Ok(())
}

async fn everything_of_a_message_arrives(target: &Target) -> Outcome {
    let (a, queue) = queue(target, "whole", QueueConfig::default()).await?;
    let body: Vec<u8> = (0..=255).collect();
    let headers = [
        ("flag", Value::Bool(true)),
        ("number", Value::Int(-7)),
        ("share", Value::Float(0.25)),
        ("text", Value::Text("ü".to_owned())),
        ("bytes", Value::Bytes(vec![0, 255])),
    ];
    let key = gives(&a, KeyOrder::Keys)?.then_some("key-1");
    let mut message = Message::new(body.clone()).id("id-1").priority(3);
    message.key = key.map(String::from);
    for (name, value) in headers.clone() {
        message = message.header(name, value);
    }
    queue.publish(message).await?;
    let mut consumer = queue.consume().await?;
    let delivery = next(&mut consumer).await?;
    let content = &delivery.content;
    ensure!(content.body == body, "the body came as {:?}", content.body);
    ensure!(content.id.as_deref() == Some("id-1"), "the id came as {:?}", content.id);
    ensure!(content.key.as_deref() == key, "the key came as {:?}", content.key);
    ensure!(content.priority == 3, "the priority came as {}", content.priority);
    ensure!(content.routing_key == queue.name(), "the routing key is {}", content.routing_key);
    for (name, value) in headers {
        let came = content.headers.iter().find(|(known, _)| known == name).map(|(_, v)| v);
        ensure!(came == Some(&value), "header {name} came as {came:?}");
    }
    Ok(delivery.ack().await?)
}

async fn competing_consumers_share(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "share", QueueConfig::default()).await?;
    let other = target.handle().await?.queue(queue.name());
    let mut one = queue.consume().prefetch(1).await?;
    let mut two = other.consume().prefetch(1).await?;
    queue
        .publish_all((0..40u8).map(|i| vec![i]))
        .await?
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        // Both before either is settled: whoever was quicker could take the other's last one.
        let deliveries = [next(&mut one).await?, next(&mut two).await?];
        for delivery in deliveries {
            ensure!(seen.insert(delivery.body()[0]), "{} came twice", delivery.body()[0]);
            delivery.ack().await?;
        }
    }
    ensure!(seen.len() == 40, "{} of 40 came", seen.len());
    Ok(())
}

async fn prefetch_bounds_what_is_in_flight(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "prefetch", QueueConfig::default()).await?;
    queue.publish_all((0..10u8).map(|i| vec![i])).await?;
    let mut consumer = queue.consume().prefetch(3).await?;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(next(&mut consumer).await?);
    }
    counted(&queue, 7, 3).await?;
    held.remove(1).ack().await?;
    held.push(next(&mut consumer).await?);
    ensure!(held[2].body() == [3], "message {:?} came fourth", held[2].body());
    Ok(())
}

async fn priorities_go_first(target: &Target) -> Outcome {
    let config = QueueConfig { priority_max: 9, ..QueueConfig::default() };
    let (_a, queue) = queue(target, "ranks", config).await?;
    for (priority, body) in [(0, "d"), (5, "b"), (9, "a"), (5, "c"), (200, "a2")] {
        queue.publish(Message::new(body).priority(priority)).await?;
    }
    let mut consumer = queue.consume().await?;
    for expected in ["a", "a2", "b", "c", "d"] {
        let delivery = next(&mut consumer).await?;
        ensure!(text(&delivery) == expected, "{} came before {expected}", text(&delivery));
        delivery.ack().await?;
    }
    Ok(())
}

async fn a_delayed_message_waits(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "late", QueueConfig::default()).await?;
    let mut consumer = queue.consume().await?;
    let sent = std::time::Instant::now();
    queue.publish(Message::new("later").delay(SHORT)).await?;
    queue.publish("now").await?;
    let first = next(&mut consumer).await?;
    ensure!(text(&first) == "now", "the delayed message came first");
    let second = next(&mut consumer).await?;
    ensure!(sent.elapsed() >= SHORT, "it came after {:?}", sent.elapsed());
    ensure!(text(&second) == "later", "{} came", text(&second));
    first.ack().await?;
    Ok(second.ack().await?)
}

async fn an_old_message_dies(target: &Target) -> Outcome {
    let (a, dead) = queue(target, "dead", QueueConfig::default()).await?;
    let queue = a.queue(target.name("dying"));
    let dead_letter = Some(DeadLetter::queue(dead.name()));
    queue.declare(&QueueConfig { dead_letter, ..QueueConfig::default() }).await?;
    queue.publish(Message::new("old").ttl(Duration::from_millis(20))).await?;
    let mut consumer = dead.consume().await?;
    let delivery = next(&mut consumer).await?;
    let death = delivery.content.deaths.last().map(|d| (d.queue.as_str(), d.reason.as_str()));
    ensure!(death == Some((queue.name(), "expired")), "its death is told as {death:?}");
    Ok(delivery.ack().await?)
}

async fn an_old_message_is_gone(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "gone", QueueConfig::default()).await?;
    queue.publish(Message::new("old").ttl(Duration::from_millis(20))).await?;
    tokio::time::sleep(SHORT).await;
    queue.publish("new").await?;
    let came = bodies(&queue).await?;
    ensure!(came == [b"new"], "{came:?} came");
    Ok(())
}

async fn a_repeated_id_is_taken_once(target: &Target) -> Outcome {
    let config = QueueConfig { dedup: Some(Duration::from_secs(60)), ..QueueConfig::default() };
    let (_a, queue) = queue(target, "once", config).await?;
    ensure!(queue.publish(Message::new("x").id("same")).await?.duplicates == 0, "a first id");
    let again = queue.publish(Message::new("x").id("same")).await?;
    ensure!((again.queues, again.duplicates) == (0, 1), "the second was taken: {again:?}");
    queue.publish(Message::new("y").id("other")).await?;
    let came = bodies(&queue).await?;
    ensure!(came == [b"x", b"y"], "{came:?} came");
    Ok(())
}

async fn one_key_one_at_a_time(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "keys", QueueConfig::default()).await?;
    for (key, body) in [("a", "a1"), ("a", "a2"), ("b", "b1"), ("a", "a3")] {
        queue.publish(Message::new(body).key(key)).await?;
    }
    let mut consumer = queue.consume().prefetch(10).await?;
    let (a1, b1) = (next(&mut consumer).await?, next(&mut consumer).await?);
    ensure!(
        (text(&a1), text(&b1)) == ("a1".into(), "b1".into()),
        "{} and {}",
        text(&a1),
        text(&b1)
    );
    if let Some(view) = view(&queue).await? {
        ensure!(view.in_flight == 2, "{} in flight", view.in_flight);
    }
    a1.ack().await?;
    let a2 = next(&mut consumer).await?;
    ensure!(text(&a2) == "a2", "{} came after a1", text(&a2));
    a2.ack().await?;
    let a3 = next(&mut consumer).await?;
    ensure!(text(&a3) == "a3", "{} came after a2", text(&a3));
    Ok(())
}

async fn a_full_queue_refuses(target: &Target) -> Outcome {
    let config =
        QueueConfig { messages_max: Some(2), overflow: Overflow::Reject, ..QueueConfig::default() };
    let (_a, queue) = queue(target, "full", config).await?;
    queue.publish("1").await?;
    queue.publish("2").await?;
    let error = refused(queue.publish("3").await, ErrorKind::Full)?;
    ensure!(error.wrong.contains(queue.name()), "the queue is not named: {error}");
    let taken = queue.receive(Duration::ZERO).await?;
    ensure!(taken.is_some(), "a full queue gives nothing");
    taken.expect("just looked").ack().await?;
    queue.publish("3").await?;
    Ok(())
}

async fn a_full_queue_drops_the_oldest(target: &Target) -> Outcome {
    let config = QueueConfig { messages_max: Some(2), ..QueueConfig::default() };
    let (_a, queue) = queue(target, "ring", config).await?;
    for body in ["1", "2", "3"] {
        queue.publish(body).await?;
    }
    let left = bodies(&queue).await?;
    ensure!(left == [b"2", b"3"], "left are {left:?}");
    Ok(())
}

async fn a_batch_has_an_answer_each(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "answers", QueueConfig::default()).await?;
    let answers = queue.publish_all(["1", "2", "3"]).await?;
    let queues: Vec<_> = answers.iter().map(|a| a.as_ref().ok().map(|a| a.queues)).collect();
    ensure!(queues == [Some(1); 3], "the answers are {answers:?}");
    let came = bodies(&queue).await?;
    ensure!(came == [b"1", b"2", b"3"], "{came:?} came");
    Ok(())
}

async fn a_batch_may_be_taken_in_part(target: &Target) -> Outcome {
    let config =
        QueueConfig { messages_max: Some(2), overflow: Overflow::Reject, ..QueueConfig::default() };
    let (_a, queue) = queue(target, "batch", config).await?;
    let answers = queue.publish_all(["1", "2", "3"]).await?;
    let kinds: Vec<_> = answers.iter().map(|a| a.as_ref().err().map(|e| e.kind)).collect();
    ensure!(kinds == [None, None, Some(ErrorKind::Full)], "the answers are {kinds:?}");
    Ok(())
}

async fn unknown_queues_are_named(target: &Target) -> Outcome {
    let (a, name) = (target.handle().await?, target.name("nowhere"));
    let queue = a.queue(&*name);
    let error = refused(queue.publish("x").await, ErrorKind::NotFound)?;
    ensure!(error.to_string().contains(&name), "the queue is not named: {error}");
    refused(queue.consume().await, ErrorKind::NotFound)?;
    refused(queue.purge().await, ErrorKind::NotFound)?;
    refused(queue.delete().await, ErrorKind::NotFound)?;
    refused(queue.receive(Duration::ZERO).await, ErrorKind::NotFound)?;
    refused(a.queue("").publish("x").await, ErrorKind::Invalid)?;
    Ok(())
}

async fn unknown_queues_are_not_managed(target: &Target) -> Outcome {
    let (a, name) = (target.handle().await?, target.name("nowhere"));
    let queue = a.queue(&*name);
    refused(queue.inspect().await, ErrorKind::NotFound)?;
    refused(queue.peek(1).await, ErrorKind::NotFound)?;
    refused(queue.pause().await, ErrorKind::NotFound)?;
    refused(queue.redrive(Some(&name), 1).await, ErrorKind::NotFound)?;
    Ok(())
}

/// The first setting that an engine has, if it has any.
fn a_setting(a: &Leasehold) -> Result<Option<QueueConfig>, Failure> {
    let plain = QueueConfig::default();
    let minute = Some(Duration::from_secs(60));
    let settings: [(Floor, QueueConfig); 5] = [
        (Priorities::Levels.into(), QueueConfig { priority_max: 3, ..plain.clone() }),
        (Queues::Leased.into(), QueueConfig { lease: minute, ..plain.clone() }),
        (Bounds::Kept.into(), QueueConfig { messages_max: Some(3), ..plain.clone() }),
        (Deduplication::Window.into(), QueueConfig { dedup: minute, ..plain.clone() }),
        (Expiry::Timed.into(), QueueConfig { ttl: minute, ..plain }),
    ];
    for (floor, config) in settings {
        if gives(a, floor)? {
            return Ok(Some(config));
        }
    }
    Ok(None)
}

async fn other_settings_are_refused(target: &Target) -> Outcome {
    let (a, queue) = queue(target, "settings", QueueConfig::default()).await?;
    ensure!(queue.declare(&QueueConfig::default()).await?, "it is made twice");
    if let Some(other) = a_setting(&a)? {
        refused(queue.declare(&other).await, ErrorKind::Different)?;
    }
    if gives(&a, Priorities::Levels)? {
        let absurd = QueueConfig { priority_max: 200, ..QueueConfig::default() };
        refused(a.queue(target.name("absurd")).declare(&absurd).await, ErrorKind::Invalid)?;
    }
    Ok(())
}

async fn pause_holds_back(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "pause", QueueConfig::default()).await?;
    queue.pause().await?;
    queue.publish("x").await?;
    ensure!(queue.receive(Duration::from_millis(20)).await?.is_none(), "a paused queue delivers");
    ensure!(queue.inspect().await?.paused, "the pause is not shown");
    let mut consumer = queue.consume().await?;
    queue.resume().await?;
    next(&mut consumer).await?.ack().await?;
    Ok(())
}

async fn purge_empties(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "purge", QueueConfig::default()).await?;
    queue.publish_all(["1", "2", "3"]).await?;
    let held = queue.receive(Duration::ZERO).await?;
    ensure!(queue.purge().await? == 2, "not the two that waited");
    counted(&queue, 0, 1).await?;
    held.expect("one was taken").ack().await?;
    ensure!(queue.delete().await? == 0, "something was left");
    Ok(())
}

async fn peek_takes_nothing(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "peek", QueueConfig::default()).await?;
    queue.publish_all(["1", "2", "3"]).await?;
    for _ in 0..2 {
        let seen: Vec<_> = queue.peek(2).await?.into_iter().map(|p| p.content.body).collect();
        ensure!(seen == [b"1", b"2"], "peek shows {seen:?}");
    }
    ensure!(queue.inspect().await?.ready == 3, "peek took something");
    Ok(())
}

async fn queues_are_listed_by_prefix(target: &Target) -> Outcome {
    let (a, name) = (target.handle().await?, target.name("listed"));
    for i in 0..3 {
        a.queue(format!("{name}/{i}")).declare(&QueueConfig::default()).await?;
    }
    let found = a.queues_with_prefix(&format!("{name}/")).await?;
    let mut found: Vec<_> = found.into_iter().map(|queue| queue.name).collect();
    found.sort();
    let expected: Vec<_> = (0..3).map(|i| format!("{name}/{i}")).collect();
    ensure!(found == expected, "the list shows {found:?}");
    Ok(())
}

async fn receive_waits_and_gives_up(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "receive", QueueConfig::default()).await?;
    ensure!(queue.receive(Duration::ZERO).await?.is_none(), "an empty queue gave something");
    ensure!(queue.receive(Duration::from_millis(20)).await?.is_none(), "it did not give up");
    let other = queue.clone();
    let waits = tokio::spawn(async move { other.receive(3 * PATIENCE).await });
    queue.publish("x").await?;
    let came = soon("the message", waits).await?.expect("it does not panic")?;
    let came = came.ok_or_else(|| Failure::Expected("it gave up".to_owned()))?;
    Ok(came.ack().await?)
}

async fn a_topic_reaches_all_who_subscribed(target: &Target) -> Outcome {
    let a = target.handle().await?;
    let topic = a.topic(target.name("topic"));
    topic.declare().await?;
    ensure!(topic.publish("order.paid", "0").await?.queues == 0, "a topic without subscribers");
    let plain = QueueConfig::default();
    let all = topic.subscribe("all", "#", &plain).await?;
    let paid = topic.subscribe("paid", "*.paid", &plain).await?;
    topic.subscribe("paid", "*.paid", &plain).await?;
    // A broker that counts nothing tells of one queue where there are several.
    let reached = topic.publish("order.paid", "1").await?.queues;
    ensure!(reached == 2 || reached == 1 && !gives(&a, Management::Full)?, "not both");
    ensure!(topic.publish("order.sent", "2").await?.queues == 1, "not one");
    let came = bodies(&all).await?;
    ensure!(came == [b"1", b"2"], "all got {came:?}");
    let came = bodies(&paid).await?;
    ensure!(came == [b"1"], "paid got {came:?}");
    Ok(())
}

async fn messages_over_the_limits_are_refused(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "limits", QueueConfig::default()).await?;
    refused(queue.publish(vec![0; (16 << 20) + 1]).await, ErrorKind::Invalid)?;
    let many = Message::new("x").header("h", Value::Text("x".repeat(65 << 10)));
    refused(queue.publish(many).await, ErrorKind::Invalid)?;
    counted(&queue, 0, 0).await?;
    queue.publish(vec![7; 1 << 20]).await?;
    let came = bodies(&queue).await?;
    ensure!(came == [vec![7; 1 << 20]], "{} came", came.len());
    Ok(())
}
