//! Failures that have happened to others: dead brokers, cut lines, lost answers, consumers that die
//! with messages in hand, messages that kill their consumers.

#![cfg(feature = "librdkafka")]

mod broker;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use broker::{LONG, handle};
use leasehold_api::{
    Consumer, DeadLetter, Delivery, ErrorKind, Leasehold, Queue, QueueConfig, Retry,
};
use leasehold_testbed::Proxy;
use leasehold_testbed::servers::kafka::{Broker, Ports, Wishes};
use tokio::time::timeout;

/// A broker, and a proxy that clients can be sent through.
async fn behind_a_proxy() -> (Broker, Proxy) {
    let at = Ports::find();
    let proxy = Proxy::to(at.proxied).await;
    let wishes = Wishes { proxy: Some(proxy.port()), ..Wishes::default() };
    (Broker::started(at, &wishes), proxy)
}

fn through(proxy: &Proxy, options: &str) -> String {
    format!("kafka://127.0.0.1:{}?{options}", proxy.port())
}

async fn declared(a: &Leasehold, name: &str, config: QueueConfig) -> Queue {
    let queue = a.queue(name);
    queue.declare(&config).await.expect("it is new");
    queue
}

async fn next(consumer: &mut Consumer) -> Delivery {
    let came = timeout(LONG, consumer.next()).await.expect("a message comes");
    came.expect("it answers").expect("the queue is there")
}

fn number(delivery: &Delivery) -> u32 {
    let text = std::str::from_utf8(delivery.body()).expect("they are numbers");
    text.parse().expect("they are numbers")
}

async fn publish(queue: &Queue, numbers: std::ops::Range<u32>) {
    let bodies: Vec<String> = numbers.map(|number| number.to_string()).collect();
    let answers = queue.publish_all(bodies).await.expect("it answers");
    answers.into_iter().collect::<Result<Vec<_>, _>>().expect("all are taken");
}

/// Everything that is left, acknowledged, and how often each came.
async fn drained(queue: &Queue) -> BTreeMap<u32, u32> {
    let mut came = BTreeMap::new();
    while let Some(one) = queue.receive(Duration::ZERO).await.expect("it answers") {
        *came.entry(number(&one)).or_default() += 1;
        one.ack().await.expect("it is in hand");
    }
    came
}

/// Several processes work at a queue of several partitions, each message goes to one of them, and
/// who comes later gets a part.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_share_by_partitions() {
    let broker = Broker::start();
    let url = format!("{}?partitions=4", broker.url());
    let (a, b) = (handle(&url).await, handle(&url).await);
    let queue = declared(&a, "shared", QueueConfig::default()).await;
    let mut one = queue.consume().await.expect("it is there");
    publish(&queue, 0..20).await;
    for _ in 0..20 {
        next(&mut one).await.ack().await.expect("it is in hand");
    }
    let mut two = b.queue("shared").consume().await.expect("it is there");
    publish(&queue, 20..220).await;
    let (mut seen, mut of_two) = (BTreeSet::new(), 0);
    while seen.len() < 200 {
        let (delivery, second) = tokio::select! {
            delivery = next(&mut one) => (delivery, false),
            delivery = next(&mut two) => (delivery, true),
        };
        of_two += u32::from(second);
        let number = number(&delivery);
        if delivery.ack().await.is_ok() {
            assert!(seen.insert(number), "{number} was done twice");
        }
    }
    println!("the second consumer had {of_two} of 200");
    assert!((20..=180).contains(&of_two), "they do not share: {of_two} of 200");
}

/// A lease that is over is somebody else's, within one process too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_ack_is_refused() {
    let broker = Broker::start();
    let a = handle(&broker.url()).await;
    let lease = Some(Duration::from_secs(2));
    let queue = declared(&a, "leased", QueueConfig { lease, ..QueueConfig::default() }).await;
    publish(&queue, 0..1).await;
    let mut slow = queue.consume().prefetch(1).await.expect("it is there");
    let late = next(&mut slow).await;
    let mut quick = queue.consume().await.expect("it is there");
    let taken = next(&mut quick).await;
    assert!(taken.attempt == 2 && taken.redelivered && taken.token() > late.token());
    assert_eq!(late.ack().await.expect_err("it is late").kind, ErrorKind::Stale);
    taken.ack().await.expect("it is in hand");
}

/// A consumer dies with messages in hand: others get what was not done, know that it may have been
/// delivered before, and do not get what was done out of order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_consumer_had_goes_to_others() {
    let (broker, proxy) = behind_a_proxy().await;
    let dies = handle(&through(&proxy, "session=6&timeout=2")).await;
    let lives = handle(&format!("{}?session=6", broker.url())).await;
    let queue = declared(&lives, "left-behind", QueueConfig::default()).await;
    publish(&queue, 0..6).await;
    let mut consumer = dies.queue("left-behind").consume().await.expect("it is there");
    let mut held = Vec::new();
    for expected in 0..5 {
        let delivery = next(&mut consumer).await;
        assert_eq!((number(&delivery), delivery.redelivered), (expected, false));
        held.push(delivery);
    }
    held.remove(3).ack().await.expect("it is in hand");
    held.remove(1).ack().await.expect("it is in hand");
    let token = held[0].token();
    proxy.close();
    let mut other = lives.queue("left-behind").consume().await.expect("it is there");
    for expected in [0, 2, 4, 5] {
        let delivery = next(&mut other).await;
        assert_eq!(number(&delivery), expected);
        assert!(delivery.redelivered, "it may have been delivered before");
        assert!(delivery.token() > token);
        delivery.ack().await.expect("it is in hand");
    }
    // Back in the world, the former owner is told.
    proxy.heal();
    let error = held.remove(0).ack().await.expect_err("it is somebody else's");
    assert!(matches!(error.kind, ErrorKind::Stale | ErrorKind::Unavailable), "{error}");
    assert!(drained(&queue).await.is_empty(), "something is left");
}

/// Whoever stands still for longer than a session is refused when he goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_is_refused() {
    let (broker, proxy) = behind_a_proxy().await;
    let still = handle(&through(&proxy, "session=6")).await;
    let lives = handle(&broker.url()).await;
    let queue = declared(&lives, "undead", QueueConfig::default()).await;
    publish(&queue, 0..1).await;
    let mut consumer = still.queue("undead").consume().await.expect("it is there");
    let held = next(&mut consumer).await;
    proxy.silence();
    let mut other = queue.consume().await.expect("it is there");
    let taken = next(&mut other).await;
    assert!(taken.redelivered && taken.token() > held.token());
    proxy.heal();
    let late = held.ack().await.expect_err("it is somebody else's");
    assert!(matches!(late.kind, ErrorKind::Stale | ErrorKind::Unavailable), "{late}");
    taken.ack().await.expect("it is in hand");
    // And it goes on as one of several.
    publish(&queue, 1..2).await;
    drop(other);
    let second = next(&mut consumer).await;
    assert_eq!(number(&second), 1);
    second.ack().await.expect("it is in hand");
}

/// A message that kills its consumers dies of that, although none of them lives to count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_kills_its_consumers_is_laid_to_rest() {
    let (broker, proxy) = behind_a_proxy().await;
    let a = handle(&format!("{}?session=6", broker.url())).await;
    let dead = declared(&a, "graves", QueueConfig::default()).await;
    let config = |most| QueueConfig {
        deliveries_max: Some(most),
        dead_letter: Some(DeadLetter::queue("graves")),
        ..QueueConfig::default()
    };
    let once = declared(&a, "once", config(1)).await;
    let twice = declared(&a, "twice", config(2)).await;
    let dies = handle(&through(&proxy, "session=6&timeout=2")).await;
    for queue in [&once, &twice] {
        publish(queue, 0..1).await;
        let mut consumer = dies.queue(queue.name()).consume().await.expect("it is there");
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.attempt, 1);
        // Nobody settles it any more.
        delivery.into_receipt();
    }
    proxy.close();
    drop(dies);
    let buried = dead.receive(Duration::ZERO).await.expect("it answers");
    assert!(buried.is_none(), "it was too early");
    let mut healthy = once.consume().await.expect("it is there");
    publish(&once, 1..2).await;
    let other = next(&mut healthy).await;
    assert_eq!(number(&other), 1, "the poison came again");
    other.ack().await.expect("it is in hand");
    let mut healthy = twice.consume().await.expect("it is there");
    let again = next(&mut healthy).await;
    assert_eq!((number(&again), again.attempt), (0, 2), "the dead one does not count");
    again.nack().await.expect("it is in hand");
    let mut told = BTreeSet::new();
    while told.len() < 2 {
        let buried = dead.receive(LONG).await.expect("it answers").expect("it is dead");
        let death = buried.content.deaths.last().expect("it says how").clone();
        assert_eq!((&*death.reason, death.count, buried.body()), ("deliveries", 1, &b"0"[..]));
        told.insert(death.queue);
        buried.ack().await.expect("it is in hand");
    }
    assert!(told.contains("once") && told.contains("twice"), "{told:?}");
}

/// The dead wait in their queue until the dead letters are there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_dies_into_nowhere() {
    let broker = Broker::start();
    let a = handle(&broker.url()).await;
    let dead_letter = Some(DeadLetter::queue("later"));
    let config = QueueConfig { dead_letter, ..QueueConfig::default() };
    let queue = declared(&a, "mortal", config).await;
    publish(&queue, 0..1).await;
    let mut consumer = queue.consume().await.expect("it is there");
    let error = next(&mut consumer).await.reject().await.expect_err("there is no such queue");
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.to_string().contains("later"), "{error}");
    let later = declared(&a, "later", QueueConfig::default()).await;
    next(&mut consumer).await.reject().await.expect("it is there now");
    assert_eq!(drained(&later).await, BTreeMap::from([(0, 1)]));
}

/// Confirmed messages are there once after answers were lost: the brokers know what they have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_make_no_duplicates() {
    let (broker, proxy) = behind_a_proxy().await;
    let a = handle(&through(&proxy, "timeout=120")).await;
    let b = handle(&broker.url()).await;
    let queue = declared(&b, "once", QueueConfig::default()).await;
    let sender = a.queue("once");
    publish(&sender, 0..10).await;
    for round in 1..5u32 {
        proxy.lose_answers();
        let publishing = {
            let sender = sender.clone();
            tokio::spawn(async move { publish(&sender, 10 * round..10 * (round + 1)).await })
        };
        // They begin to arrive, and nobody hears of it. More than the first need not come: what is
        // sent and not answered is at most five batches, and a batch can be one message.
        let arrived = async {
            let watching = b.queue("once").consume().prefetch(100);
            let mut watching = watching.await.expect("it is there");
            let mut held = Vec::new();
            while held.last().is_none_or(|last| number(last) < 10 * round) {
                held.push(next(&mut watching).await);
            }
        };
        timeout(LONG, arrived).await.expect("they arrive");
        proxy.heal();
        timeout(LONG, publishing).await.expect("it is confirmed").expect("all are");
    }
    let came = drained(&queue).await;
    assert_eq!(came, (0..50).map(|number| (number, 1)).collect());
}

/// Killed at any time, the broker has what it confirmed, and what was acknowledged is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_has_what_it_confirmed() {
    let mut broker = Broker::start();
    let a = handle(&broker.url()).await;
    let queue = declared(&a, "survives", QueueConfig::default()).await;
    let mut consumer = queue.consume().await.expect("it is there");
    let (mut confirmed, mut unknown, mut acked) = (BTreeSet::new(), 0, BTreeSet::new());
    for round in 0..3u32 {
        let sender = queue.clone();
        let publishing = tokio::spawn(async move {
            let (mut taken, mut unknown) = (Vec::new(), 0);
            for number in 1000 * round..1000 * round + 300 {
                match sender.publish(number.to_string()).await {
                    Ok(_) => taken.push(number),
                    Err(error) => {
                        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
                        unknown += u32::from(error.retry == Retry::Unknown);
                    }
                }
            }
            (taken, unknown)
        });
        for _ in 0..100 {
            let delivery = next(&mut consumer).await;
            let number = number(&delivery);
            delivery.ack().await.expect("the broker lives");
            assert!(acked.insert(number), "{number} was done twice");
        }
        broker.server.kill();
        broker.server.restart();
        let (taken, lost) =
            timeout(4 * LONG, publishing).await.expect("it ends").expect("no panic");
        confirmed.extend(taken);
        unknown += lost;
    }
    println!("{} confirmed, {unknown} unknown, {} acked", confirmed.len(), acked.len());
    let missing: BTreeSet<u32> = confirmed.difference(&acked).copied().collect();
    let mut left = BTreeSet::new();
    while !missing.is_subset(&left) {
        let delivery = next(&mut consumer).await;
        let number = number(&delivery);
        assert!(!acked.contains(&number), "{number} was acknowledged and came again");
        delivery.ack().await.expect("it is in hand");
        left.insert(number);
    }
}

/// A broker that stands still for a while keeps everybody waiting, and nobody loses anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_stands_still_is_waited_for() {
    let broker = Broker::start();
    let a = handle(&format!("{}?timeout=30", broker.url())).await;
    let queue = declared(&a, "waits", QueueConfig::default()).await;
    publish(&queue, 0..1).await;
    let mut consumer = queue.consume().await.expect("it is there");
    let held = next(&mut consumer).await;
    broker.server.pause();
    let acking = tokio::spawn(held.ack());
    let sender = queue.clone();
    let publishing = tokio::spawn(async move { publish(&sender, 1..2).await });
    // It stands still for as long as it takes to see that nothing happens.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!acking.is_finished() && !publishing.is_finished(), "who answered?");
    broker.server.resume();
    timeout(LONG, acking).await.expect("it goes on").expect("no panic").expect("it is done");
    timeout(LONG, publishing).await.expect("it goes on").expect("it is taken");
    let second = next(&mut consumer).await;
    assert_eq!((number(&second), second.redelivered), (1, false));
    second.ack().await.expect("it is in hand");
}

/// A message that is kept and then returned does not keep a partition where it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_returned_message_holds_nobody_up() {
    let broker = Broker::start();
    let a = handle(&broker.url()).await;
    let queue = declared(&a, "stubborn", QueueConfig::default()).await;
    // More than the messages that may be done behind one that is not.
    const ALL: u32 = 3000;
    const BEHIND: usize = 2047;
    publish(&queue, 0..ALL).await;
    let mut consumer = queue.consume().prefetch(100).await.expect("it is there");
    let mut kept = Some(next(&mut consumer).await);
    let (mut done, mut acking) = (BTreeSet::new(), Vec::new());
    while done.len() < ALL as usize - 1 {
        if done.len() == BEHIND
            && let Some(first) = kept.take()
        {
            assert_eq!(number(&first), 0);
            first.nack().await.expect("it is in hand");
        }
        let delivery = next(&mut consumer).await;
        let number = number(&delivery);
        assert!(number != 0 && done.insert(number), "{number} came again");
        acking.push(tokio::spawn(delivery.ack()));
        if acking.len() >= 50 || done.len() == BEHIND {
            for ack in acking.drain(..) {
                ack.await.expect("no panic").expect("it is in hand");
            }
        }
    }
    for ack in acking {
        ack.await.expect("no panic").expect("it is in hand");
    }
    let last = next(&mut consumer).await;
    assert_eq!((number(&last), last.attempt), (0, 2));
    last.ack().await.expect("it is in hand");
    drop(consumer);
    assert!(drained(&queue).await.is_empty(), "something is left");
}

/// One process after the other does a part of what is there, in no order, and leaves: the next one
/// gets exactly the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_is_done_for_the_next_process() {
    let broker = Broker::start();
    let sender = handle(&broker.url()).await;
    let queue = declared(&sender, "handed-on", QueueConfig::default()).await;
    publish(&queue, 0..60).await;
    let mut left: BTreeSet<u32> = (0..60).collect();
    for round in 1..5 {
        let a = handle(&broker.url()).await;
        let consumer = a.queue("handed-on").consume().prefetch(100);
        let mut consumer = consumer.await.expect("it is there");
        let (mut seen, mut kept) = (BTreeSet::new(), Vec::new());
        while seen.len() < left.len() {
            let delivery = next(&mut consumer).await;
            assert_eq!((delivery.attempt, delivery.redelivered), (round, round > 1));
            let number = number(&delivery);
            assert!(seen.insert(number), "{number} came twice");
            // Every other one, so that what is done has holes.
            match seen.len() % 2 {
                0 => delivery.ack().await.expect("it is in hand"),
                _ => kept.push(delivery),
            }
        }
        assert_eq!(seen, left);
        left = kept.iter().map(number).collect();
        for delivery in kept {
            delivery.nack().await.expect("it is in hand");
        }
    }
    let rest = drained(&queue).await;
    assert_eq!(rest, left.into_iter().map(|number| (number, 1)).collect());
}

/// Messages of the greatest length, many times what is fetched at once, come in their places.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_messages_come_in_their_places() {
    const LONGEST: usize = 16 << 20;
    let broker = Broker::start();
    let a = handle(&broker.url()).await;
    let queue = declared(&a, "long", QueueConfig::default()).await;
    let lengths = [1, LONGEST, 2, LONGEST, 3];
    for length in lengths {
        queue.publish(vec![7; length]).await.expect("it is taken");
    }
    let mut consumer = queue.consume().prefetch(10).await.expect("it is there");
    for length in lengths {
        let came = next(&mut consumer).await;
        assert_eq!(came.body().len(), length);
        came.ack().await.expect("it is in hand");
    }
}
