//! Kafka, by the driver rdkafka alone: an idempotent producer, and consumers of one group with as
//! many partitions as there are of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::time::{Instant, timeout};

use crate::engines::queues::{BODY, DRY};
use crate::engines::ways::Mail;

/// How often a consumer that joins looks what it has got.
const LOOK: Duration = Duration::from_millis(50);

/// How done work is told to the brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commits {
    /// Its offset is stored in the client, which commits what is stored every five seconds.
    Stored,
    /// Its offset is committed, and the answer is waited for.
    Each,
}

/// A user of a topic, with clients of its own.
struct Worker {
    topic: String,
    producer: FutureProducer,
    consumer: Arc<StreamConsumer>,
    commits: Commits,
    /// How many partitions each consumer of the group has.
    shares: Arc<[AtomicUsize]>,
    place: usize,
}

/// Users of a topic with a partition for each.
pub async fn mails(url: &str, queue: &str, count: usize, commits: Commits) -> Vec<Box<dyn Mail>> {
    let topic = format!("rdkafka-{commits:?}-{queue}");
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", url.trim_start_matches("kafka://"));
    let partitions = i32::try_from(count).expect("they are few");
    let new = NewTopic::new(&topic, partitions, TopicReplication::Fixed(1));
    let admin: AdminClient<DefaultClientContext> = client.create().expect("good settings");
    let made = admin.create_topics([&new], &AdminOptions::new()).await.expect("it answers");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    let shares: Arc<[AtomicUsize]> = (0..count).map(|_| AtomicUsize::new(0)).collect();
    let mut mails: Vec<Box<dyn Mail>> = Vec::new();
    for place in 0..count {
        mails.push(Box::new(Worker {
            topic: topic.clone(),
            producer: producer(&client),
            consumer: Arc::new(consumer(&client, &topic, commits)),
            commits,
            shares: shares.clone(),
            place,
        }));
    }
    mails
}

/// Set as the engine's.
fn producer(client: &ClientConfig) -> FutureProducer {
    let mut client = client.clone();
    client
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("partitioner", "murmur2_random")
        .set("sticky.partitioning.linger.ms", "0");
    client.create().expect("good settings")
}

fn consumer(client: &ClientConfig, group: &str, commits: Commits) -> StreamConsumer {
    let mut client = client.clone();
    client
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", (commits == Commits::Stored).to_string())
        .set("enable.auto.offset.store", "false")
        // About a thousand messages of each partition in memory, as the engine has.
        .set("queued.min.messages", "500")
        .set("fetch.message.max.bytes", "65536");
    client.create().expect("good settings")
}

impl Worker {
    async fn done(&self, message: &BorrowedMessage<'_>) {
        if self.commits == Commits::Stored {
            return self.consumer.store_offset_from_message(message).expect("it is ours");
        }
        let mut list = TopicPartitionList::new();
        let behind = Offset::Offset(message.offset() + 1);
        list.add_partition_offset(message.topic(), message.partition(), behind).expect("good");
        let consumer = self.consumer.clone();
        let commit = move || consumer.commit(&list, CommitMode::Sync);
        let committed = tokio::task::spawn_blocking(commit).await;
        committed.expect("it does not panic").expect("it is ours");
    }
}

#[async_trait]
impl Mail for Worker {
    async fn publish(&mut self, count: usize) {
        let sent = (0..count).map(|_| {
            let record = FutureRecord::<(), _>::to(&self.topic).payload(&BODY[..]);
            self.producer.send_result(record).expect("there is room")
        });
        let confirmed = try_join_all(sent).await.expect("the producer is there");
        assert!(confirmed.iter().all(Result::is_ok), "{confirmed:?}");
    }

    async fn join(&mut self) {
        self.consumer.subscribe(&[&self.topic]).expect("good");
        // Who has its share goes on until all have theirs: changes in the group need everybody.
        while self.shares.iter().any(|share| share.load(Ordering::SeqCst) != 1) {
            if let Ok(came) = timeout(LOOK, self.consumer.recv()).await {
                self.done(&came.expect("it answers")).await;
            }
            let share = self.consumer.assignment().expect("it knows").count();
            self.shares[self.place].store(share, Ordering::SeqCst);
        }
    }

    async fn take(&mut self, until: Instant) -> (u64, Instant) {
        let (mut count, mut last) = (0, Instant::now());
        while last < until {
            let Ok(next) = timeout(DRY, self.consumer.recv()).await else { break };
            self.done(&next.expect("it answers")).await;
            (count, last) = (count + 1, Instant::now());
        }
        (count, last)
    }
}
