//! The engines, as their users have them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_api::engine::Engine;
use leasehold_api::{Consumer, Leasehold, LockGuard, Queue, QueueConfig};
use tokio::time::{Instant, timeout};

use super::queues::{BODY, DRY, PREFETCH};
use super::ways::{Client, Mail, Process};

/// A process with one engine.
struct Ours(Engine);

struct Task {
    at: Leasehold,
    guard: Option<LockGuard>,
}

async fn connect(url: &str) -> Engine {
    let engine = match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("redis") => leasehold_redis::connect(url).await,
        Some("postgres") => leasehold_postgres::connect(url).await,
        Some("mysql") => leasehold_mysql::connect(url).await,
        Some("file") => leasehold_files::connect(url).await,
        Some("etcd") => leasehold_etcd::connect(url).await,
        Some("zookeeper") => leasehold_zookeeper::connect(url).await,
        Some("amqp") => leasehold_amqp::connect(url).await,
        #[cfg(feature = "kafka")]
        Some("kafka") => leasehold_kafka::connect(url).await,
        _ => panic!("no engine for {url}"),
    };
    engine.expect("it connects")
}

/// A process that locks.
pub async fn process(url: &str) -> Arc<dyn Process> {
    Arc::new(Ours(connect(url).await))
}

#[async_trait]
impl Process for Ours {
    async fn client(&self) -> Box<dyn Client> {
        Box::new(Task { at: Leasehold::new(self.0.clone()), guard: None })
    }
}

#[async_trait]
impl Client for Task {
    async fn acquire(&mut self, lock: &str, ttl: Duration) {
        let lock = self.at.lock(lock).ttl(ttl).without_renewal();
        self.guard = Some(lock.acquire().await.expect("it is granted"));
    }

    async fn release(&mut self) {
        let guard = self.guard.take().expect("it is held");
        guard.release().await.expect("it is ours");
    }
}

/// A user of one queue.
struct Worker {
    queue: Queue,
    consumer: Option<Consumer>,
    /// Its consumers are a group, which takes seconds to form.
    is_group: bool,
}

async fn opened(queue: &Queue) -> Consumer {
    queue.consume().prefetch(PREFETCH).open().await.expect("it may consume")
}

/// Users of one queue.
pub async fn mails(url: &str, queue: &str, count: usize) -> Vec<Box<dyn Mail>> {
    // A partition for each, as the consumers beside them need.
    let is_kafka = url.starts_with("kafka:");
    let url = if is_kafka { format!("{url}?partitions={count}") } else { url.to_owned() };
    let engine = connect(&url).await;
    let mut mails: Vec<Box<dyn Mail>> = Vec::new();
    for _ in 0..count {
        let queue = Leasehold::new(engine.clone()).queue(queue);
        queue.declare(&QueueConfig::default()).await.expect("it is declared");
        mails.push(Box::new(Worker { queue, consumer: None, is_group: is_kafka }));
    }
    mails
}

#[async_trait]
impl Mail for Worker {
    async fn publish(&mut self, count: usize) {
        if count == 1 {
            self.queue.publish(BODY.to_vec()).await.expect("it is taken");
            return;
        }
        let answers = self.queue.publish_all(vec![BODY.to_vec(); count]).await;
        let refused = answers.expect("answers").into_iter().find_map(Result::err);
        assert!(refused.is_none(), "{refused:?}");
    }

    async fn join(&mut self) {
        if self.is_group {
            self.consumer = Some(opened(&self.queue).await);
        }
    }

    async fn take(&mut self, until: Instant) -> (u64, Instant) {
        let opened = match self.consumer.take() {
            Some(consumer) => consumer,
            None => opened(&self.queue).await,
        };
        let consumer = self.consumer.insert(opened);
        let (mut count, mut last) = (0, Instant::now());
        while last < until {
            let Ok(next) = timeout(DRY, consumer.next()).await else { break };
            let delivery = next.expect("it answers").expect("the queue is there");
            delivery.ack().await.expect("it is ours");
            (count, last) = (count + 1, Instant::now());
        }
        (count, last)
    }
}
