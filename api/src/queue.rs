//! Queues and topics: publishing, consuming, looking after.

use std::sync::Arc;
use std::time::Duration;

use crate::consumer::ConsumerOptions;
use crate::engine::{Binding, Destination, Peeked, Publish, QueueView, Receive};
use crate::{
    Delivery, Error, ErrorKind, ExchangeConfig, ExchangeKind, Leasehold, Message, Published,
    QueueConfig, Result, Target, Wait, random,
};

/// One queue, by name. Cheap to clone and to keep.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold::Result<()> {
/// # let leasehold = leasehold::memory().await?;
/// let orders = leasehold.queue("orders");
/// orders.declare(&leasehold::QueueConfig::default()).await?;
/// orders.publish("order 42").await?;
/// assert_eq!(orders.inspect().await?.ready, 1);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Queue {
    pub(crate) at: Leasehold,
    pub(crate) name: Arc<str>,
}

impl Leasehold {
    /// A queue by name.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// assert_eq!(leasehold.queue("orders").name(), "orders");
    /// # Ok(()) }
    /// ```
    pub fn queue(&self, name: impl Into<Arc<str>>) -> Queue {
        Queue { at: self.clone(), name: name.into() }
    }

    /// A topic by name: what is published reaches every subscription.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let events = leasehold.topic("events");
    /// events.declare().await?;
    /// # events.publish("order.paid", "42").await?;
    /// # Ok(()) }
    /// ```
    pub fn topic(&self, name: impl Into<Arc<str>>) -> Topic {
        Topic { at: self.clone(), name: name.into() }
    }

    /// Publishes one message to a target of any kind.
    ///
    /// # Errors
    /// `NotFound`, `Unroutable` when `mandatory` and no queue takes it, `Full`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// use leasehold::{Message, Target};
    /// let target = Target::Queue("orders".into());
    /// let published = leasehold.publish(target, Message::new("order 42"), true).await?;
    /// assert_eq!(published.queues, 1);
    /// # Ok(()) }
    /// ```
    pub async fn publish(
        &self,
        target: Target,
        message: Message,
        mandatory: bool,
    ) -> Result<Published> {
        let request = Some(random::request());
        let publish = Publish { target, message, mandatory, request };
        one(self.queues()?.publish(vec![publish]).await?)
    }
}

fn one(answers: Vec<Result<Published>>) -> Result<Published> {
    let none = || Err(Error::new(ErrorKind::Broken, "the engine gave no answer"));
    answers.into_iter().next().unwrap_or_else(none)
}

impl Queue {
    /// Its name.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// assert_eq!(leasehold.queue("orders").name(), "orders");
    /// # Ok(()) }
    /// ```
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the queue, or finds it with equal settings; gives whether it existed.
    ///
    /// # Errors
    /// `Different` when it exists with other settings; `Invalid` for bad ones.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// use leasehold::{DeadLetter, QueueConfig};
    /// leasehold.queue("orders/dead").declare(&QueueConfig::default()).await?;
    /// let config = QueueConfig {
    ///     deliveries_max: Some(5),
    ///     dead_letter: Some(DeadLetter::queue("orders/dead")),
    ///     ..QueueConfig::default()
    /// };
    /// let existed = leasehold.queue("orders").declare(&config).await?;
    /// assert!(!existed);
    /// # Ok(()) }
    /// ```
    pub async fn declare(&self, config: &QueueConfig) -> Result<bool> {
        let asked = |error: Error| error.asking(format!("declare queue {}", self.name));
        self.at.queues()?.declare_queue(&self.name, config).await.map_err(asked)
    }

    /// Publishes a message and waits until it is durable.
    ///
    /// # Errors
    /// `NotFound` when the queue was not declared, `Full` when it or the disk is, `Invalid` for a
    /// message over the limits, `Unavailable` when it is not known whether it was taken.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let orders = leasehold.queue("orders");
    /// orders.declare(&leasehold::QueueConfig::default()).await?;
    /// orders.publish("order 42").await?;
    /// let mut consumer = orders.consume().await?;
    /// if let Some(delivery) = consumer.next().await? {
    ///     println!("{:?}", delivery.content.body);
    ///     delivery.ack().await?;
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn publish(&self, message: impl Into<Message>) -> Result<Published> {
        one(self.publish_all([message.into()]).await?)
    }

    /// Publishes several messages with one round trip and, where the engine can, one sync. Each
    /// has an answer of its own, in order.
    ///
    /// # Errors
    /// `Unavailable` when it is not known what became of them.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// let answers = orders.publish_all(["order 42", "order 43"]).await?;
    /// assert!(answers.iter().all(|answer| answer.is_ok()));
    /// # Ok(()) }
    /// ```
    pub async fn publish_all<M: Into<Message>>(
        &self,
        messages: impl IntoIterator<Item = M>,
    ) -> Result<Vec<Result<Published>>> {
        let publish = |message: M| Publish {
            target: Target::Queue(self.name.clone()),
            message: message.into(),
            mandatory: true,
            request: Some(random::request()),
        };
        let messages = messages.into_iter().map(publish).collect();
        let asked = |error: Error| error.asking(format!("publish to queue {}", self.name));
        let answers = self.at.queues()?.publish(messages).await.map_err(asked)?;
        Ok(answers.into_iter().map(|answer| answer.map_err(asked)).collect())
    }

    /// How to consume; [`ConsumerOptions::open`], or awaiting it, begins.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// # orders.publish("order 42").await?;
    /// let mut consumer = orders.consume().prefetch(1).await?;
    /// if let Some(order) = consumer.next().await? {
    ///     order.ack().await?;
    /// }
    /// # Ok(()) }
    /// ```
    pub fn consume(&self) -> ConsumerOptions {
        ConsumerOptions::new(self)
    }

    /// Takes one message, waiting at most so long; `None`: none came. Dropping the future leaves
    /// the message in the queue.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// use std::time::Duration;
    /// assert!(orders.receive(Duration::ZERO).await?.is_none());
    /// orders.publish("order 42").await?;
    /// if let Some(order) = orders.receive(Duration::from_secs(5)).await? {
    ///     order.ack().await?;
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn receive(&self, wait: Duration) -> Result<Option<Delivery>> {
        let queues = self.at.queues()?;
        let wait = if wait.is_zero() { Wait::No } else { Wait::AtMost(wait) };
        let request = |session| {
            let ask = Receive { queue: self.name.clone(), session, max: 1, wait, lease: None };
            async move { queues.receive(&ask).await }
        };
        let asked = |error: Error| error.asking(format!("receive from queue {}", self.name));
        let came = self.at.session().run(request).await.map_err(asked)?;
        let deliver = |delivered| Delivery::new(self.at.clone(), queues.clone(), delivered);
        Ok(came.into_iter().next().map(deliver))
    }

    /// Looks at the first messages without taking them, at most so many.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// orders.publish("order 42").await?;
    /// let first = orders.peek(1).await?;
    /// assert_eq!(first[0].content.body, b"order 42");
    /// assert_eq!(orders.inspect().await?.ready, 1);
    /// # Ok(()) }
    /// ```
    pub async fn peek(&self, max: u32) -> Result<Vec<Peeked>> {
        self.at.queues()?.peek(&self.name, max).await
    }

    /// Everything about it.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// let view = orders.inspect().await?;
    /// assert_eq!((view.ready, view.in_flight, view.consumers), (0, 0, 0));
    /// # Ok(()) }
    /// ```
    pub async fn inspect(&self) -> Result<QueueView> {
        self.at.queues()?.inspect_queue(&self.name).await
    }

    /// Removes the messages that wait; gives how many.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// orders.publish("order 42").await?;
    /// assert_eq!(orders.purge().await?, 1);
    /// # Ok(()) }
    /// ```
    pub async fn purge(&self) -> Result<u64> {
        self.at.queues()?.purge(&self.name).await
    }

    /// Holds deliveries back.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// use std::time::Duration;
    /// orders.pause().await?;
    /// orders.publish("order 42").await?;
    /// assert!(orders.receive(Duration::ZERO).await?.is_none());
    /// orders.resume().await?;
    /// assert!(orders.receive(Duration::ZERO).await?.is_some());
    /// # Ok(()) }
    /// ```
    pub async fn pause(&self) -> Result<()> {
        self.at.queues()?.pause(&self.name, true).await
    }

    /// Lets deliveries go again.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// orders.pause().await?;
    /// orders.resume().await?;
    /// assert!(!orders.inspect().await?.paused);
    /// # Ok(()) }
    /// ```
    pub async fn resume(&self) -> Result<()> {
        self.at.queues()?.pause(&self.name, false).await
    }

    /// Moves up to `max` of its messages to another queue, without their deaths; `None`: each to
    /// where it died first. Gives how many.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// let dead = leasehold.queue("orders/dead");
    /// dead.declare(&leasehold::QueueConfig::default()).await?;
    /// dead.publish("order 42").await?;
    /// assert_eq!(dead.redrive(Some("orders"), 100).await?, 1);
    /// # Ok(()) }
    /// ```
    pub async fn redrive(&self, to: Option<&str>, max: u32) -> Result<u32> {
        self.at.queues()?.redrive(&self.name, to, max).await
    }

    /// Removes it with its messages; gives how many.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// # let orders = leasehold.queue("orders");
    /// # orders.declare(&leasehold::QueueConfig::default()).await?;
    /// orders.publish("order 42").await?;
    /// assert_eq!(orders.delete().await?, 1);
    /// # Ok(()) }
    /// ```
    pub async fn delete(&self) -> Result<u64> {
        self.at.queues()?.delete_queue(&self.name, false, false).await
    }
}

/// One topic: an exchange of kind `topic` and its subscriptions, which are queues.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold::Result<()> {
/// # let leasehold = leasehold::memory().await?;
/// let events = leasehold.topic("events");
/// events.declare().await?;
/// let paid = events.subscribe("billing", "order.paid", &Default::default()).await?;
/// events.publish("order.paid", "42").await?;
/// assert_eq!(paid.inspect().await?.ready, 1);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Topic {
    at: Leasehold,
    name: Arc<str>,
}

/// The queue behind a subscription of a topic.
pub fn subscription_queue(topic: &str, subscription: &str) -> String {
    format!("{topic}/{subscription}")
}

impl Topic {
    /// Makes the topic, or finds it.
    ///
    /// # Errors
    /// `Different` when an exchange of another kind has its name.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// leasehold.topic("events").declare().await?;
    /// # Ok(()) }
    /// ```
    pub async fn declare(&self) -> Result<()> {
        let config = ExchangeConfig::of(ExchangeKind::Topic);
        self.at.queues()?.declare_exchange(&self.name, &config).await
    }

    /// Publishes under a subject (words with dots between, or empty) to every subscription whose
    /// filter matches. Gives how many took it; none is not an error.
    ///
    /// # Errors
    /// `NotFound` when the topic was not declared.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let events = leasehold.topic("events");
    /// events.declare().await?;
    /// assert_eq!(events.publish("order.paid", "42").await?.queues, 0); // nobody subscribed
    /// # Ok(()) }
    /// ```
    pub async fn publish(&self, subject: &str, message: impl Into<Message>) -> Result<Published> {
        let target = Target::Exchange(self.name.clone(), subject.into());
        self.at.publish(target, message.into(), false).await
    }

    /// Makes a named, durable subscription, or finds it: a queue that gets what is published from
    /// now on under subjects that match. `*` is one word, `#` any number of words.
    ///
    /// # Errors
    /// `NotFound` when the topic was not declared; `Different` when the queue has other settings.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> leasehold::Result<()> {
    /// # let leasehold = leasehold::memory().await?;
    /// let events = leasehold.topic("events");
    /// events.declare().await?;
    /// let all = events.subscribe("audit", "#", &leasehold::QueueConfig::default()).await?;
    /// events.publish("order.paid", "42").await?;
    /// assert_eq!(all.peek(1).await?[0].content.body, b"42");
    /// # Ok(()) }
    /// ```
    pub async fn subscribe(
        &self,
        subscription: &str,
        filter: &str,
        config: &QueueConfig,
    ) -> Result<Queue> {
        let queue = self.at.queue(subscription_queue(&self.name, subscription));
        queue.declare(config).await?;
        let binding = Binding {
            exchange: self.name.to_string(),
            to: Destination::Queue(queue.name.to_string()),
            key: filter.to_owned(),
            arguments: Vec::new(),
            match_all: false,
        };
        self.at.queues()?.bind(&binding).await?;
        Ok(queue)
    }
}
