//! RabbitMQ, by the driver alone: a durable queue, confirms and acks.

use async_trait::async_trait;
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::time::{Instant, timeout};

use crate::engines::queues::{BODY, DRY, PREFETCH};
use crate::engines::ways::Mail;

/// A user of a queue.
struct Worker {
    channel: Channel,
    queue: String,
    _line: Connection,
}

/// Users of a queue, each with a connection.
pub async fn mails(url: &str, queue: &str, count: usize) -> Vec<Box<dyn Mail>> {
    let queue = format!("lapin-{queue}");
    let mut mails: Vec<Box<dyn Mail>> = Vec::new();
    for _ in 0..count {
        let line = Connection::connect(url, ConnectionProperties::default()).await;
        let line = line.expect("it accepts");
        let channel = line.create_channel().await.expect("a channel");
        let confirms = channel.confirm_select(ConfirmSelectOptions::default()).await;
        confirms.expect("it confirms");
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        let made = channel.queue_declare(queue.as_str().into(), durable, FieldTable::default());
        made.await.expect("it is made");
        mails.push(Box::new(Worker { channel, queue: queue.clone(), _line: line }));
    }
    mails
}

#[async_trait]
impl Mail for Worker {
    async fn publish(&mut self, count: usize) {
        let mut confirms = Vec::with_capacity(count);
        for _ in 0..count {
            // 2: it is to be on disk before it is confirmed.
            let properties = BasicProperties::default().with_delivery_mode(2);
            let (key, options) = (self.queue.as_str().into(), BasicPublishOptions::default());
            let sent = self.channel.basic_publish("".into(), key, options, &BODY, properties);
            confirms.push(sent.await.expect("it is sent"));
        }
        for confirm in confirms {
            assert!(confirm.await.expect("it answers").is_ack());
        }
    }

    async fn take(&mut self, until: Instant) -> (u64, Instant) {
        let prefetch = u16::try_from(PREFETCH).expect("it is small");
        let qos = self.channel.basic_qos(prefetch, BasicQosOptions::default()).await;
        qos.expect("it knows that");
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer =
            self.channel.basic_consume(self.queue.as_str().into(), "".into(), options, none);
        let mut consumer = consumer.await.expect("it may consume");
        let (mut count, mut last) = (0, Instant::now());
        while last < until {
            let Ok(next) = timeout(DRY, consumer.next()).await else { break };
            let delivery = next.expect("the queue is there").expect("it answers");
            // Sent and not waited for: the protocol has no answer to it.
            delivery.ack(BasicAckOptions::default()).await.expect("it is ours");
            (count, last) = (count + 1, Instant::now());
        }
        (count, last)
    }
}
