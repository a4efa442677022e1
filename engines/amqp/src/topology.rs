//! Queues, exchanges and bindings as AMQP declares them.

use std::sync::Arc;

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, ExchangeUnbindOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind as Kind};
use leasehold_api::engine::{
    Binding, Destination, ExchangeConfig, ExchangeKind, Overflow, QueueConfig,
};
use leasehold_api::{Error, ErrorKind, Result};
use tokio::time::Instant;

use crate::connect::{Line, Link, PATIENCE};
use crate::error::{Fault, not_found};
use crate::message::{millis, name, short, table};
use crate::publish::exists;

fn invalid(wrong: &str) -> Error {
    Error::new(ErrorKind::Invalid, wrong)
}

fn absent<T>(what: &str) -> Result<T> {
    Err(Error::unsupported("amqp", what))
}

/// A queue's settings as its arguments.
///
/// # Errors
/// `Unsupported` for what the broker has not, or not together; `Invalid` for absurd values.
pub(crate) fn arguments(config: &QueueConfig) -> Result<FieldTable> {
    if config.lease.is_some() {
        return absent("leases of deliveries: they last as long as their connection");
    }
    if config.dedup.is_some() {
        return absent("deduplication");
    }
    if config.priority_max > 31 {
        return Err(invalid("the highest priority is 0 to 31"));
    }
    let mut table = FieldTable::default();
    let mut put = |name: &str, value: AMQPValue| {
        table.insert(name.into(), value);
    };
    if let Some(deliveries) = config.deliveries_max {
        counted(config)?;
        // The limit is how often a message may come back.
        put("x-delivery-limit", AMQPValue::LongLongInt(i64::from(deliveries) - 1));
        put("x-queue-type", text("quorum"));
    }
    let number = |what: &str, number: u64| match i64::try_from(number) {
        Ok(number) if number > 0 => Ok(AMQPValue::LongLongInt(number)),
        _ => Err(invalid(&format!("a queue's {what} is 1 to 2^63"))),
    };
    if let Some(messages) = config.messages_max {
        put("x-max-length", number("number of messages", messages)?);
    }
    if let Some(bytes) = config.bytes_max {
        put("x-max-length-bytes", number("number of bytes", bytes)?);
    }
    if config.overflow == Overflow::Reject {
        put("x-overflow", text("reject-publish"));
    }
    if let Some(ttl) = config.ttl {
        put("x-message-ttl", AMQPValue::LongLongInt(millis("a queue's TTL", ttl)?.into()));
    }
    if let Some(dead) = &config.dead_letter {
        if dead.exchange.is_none() && dead.routing_key.is_none() {
            return Err(invalid("dead letters need an exchange, or a queue as routing key"));
        }
        // The exchange without a name leads to the queue of that name.
        put("x-dead-letter-exchange", text(dead.exchange.as_deref().unwrap_or_default()));
        if let Some(key) = &dead.routing_key {
            short("the routing key of dead letters", key)?;
            put("x-dead-letter-routing-key", text(key));
        }
    }
    if config.priority_max > 0 {
        put("x-max-priority", AMQPValue::LongLongInt(config.priority_max.into()));
    }
    if config.single_active {
        put("x-single-active-consumer", AMQPValue::Boolean(true));
    }
    Ok(table)
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// Only quorum queues count deliveries, and they cannot do all that others can.
fn counted(config: &QueueConfig) -> Result<()> {
    if config.deliveries_max == Some(0) {
        return Err(invalid("a message is delivered at least once"));
    }
    if config.priority_max > 0 {
        return absent("priorities in a queue that counts deliveries (a quorum queue)");
    }
    if !config.durable {
        return absent("transient queues that count deliveries (they are quorum queues)");
    }
    if config.auto_delete {
        return absent("auto-delete queues that count deliveries (they are quorum queues)");
    }
    Ok(())
}

/// What is there of a queue: messages ready, consumers.
///
/// # Errors
/// `NotFound`.
pub(crate) async fn look(link: &Link, queue: &str) -> Result<(u32, u32)> {
    let named = name("queue", queue)?;
    let request = |line: Arc<Line>, channel: Channel| {
        let named = named.clone();
        async move {
            let passive = QueueDeclareOptions { passive: true, ..Default::default() };
            let asked = channel.queue_declare(named, passive, FieldTable::default());
            let found = line.answer(asked).await?;
            Ok((found.message_count(), found.consumer_count()))
        }
    };
    link.ask(request).await.map_err(|error| match error.kind {
        ErrorKind::NotFound => not_found(&format!("queue {queue}")),
        // Some other connection's own queue: it is there all the same.
        _ => error,
    })
}

/// Makes a queue, or finds it with equal settings; gives whether it was there before.
pub(crate) async fn declare(link: &Link, queue: &str, config: &QueueConfig) -> Result<bool> {
    let (named, arguments) = (name("queue", queue)?, arguments(config)?);
    let existed = match look(link, queue).await {
        Ok(_) => true,
        Err(error) if error.kind == ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    let options = QueueDeclareOptions {
        durable: config.durable,
        auto_delete: config.auto_delete,
        ..QueueDeclareOptions::default()
    };
    let request = |line: Arc<Line>, channel: Channel| {
        let asked = (named.clone(), arguments.clone());
        async move { line.answer(channel.queue_declare(asked.0, options, asked.1)).await }
    };
    link.ask(request).await?;
    Ok(existed)
}

/// Removes a queue; gives how many messages went with it.
pub(crate) async fn delete(link: &Link, queue: &str, unused: bool, empty: bool) -> Result<u64> {
    // The broker says of a queue that is not there that it is deleted.
    look(link, queue).await?;
    let options = QueueDeleteOptions { if_unused: unused, if_empty: empty, nowait: false };
    let request = |line: Arc<Line>, channel: Channel| {
        let named = name("queue", queue);
        async move { line.answer(channel.queue_delete(named?, options)).await }
    };
    let gone = link.once(Instant::now() + PATIENCE, request).await.map_err(Fault::unknown)?;
    Ok(gone.into())
}

/// Removes the messages that wait; gives how many.
pub(crate) async fn purge(link: &Link, queue: &str) -> Result<u64> {
    let request = |line: Arc<Line>, channel: Channel| {
        let named = name("queue", queue);
        async move { line.answer(channel.queue_purge(named?, QueuePurgeOptions::default())).await }
    };
    let gone = link.once(Instant::now() + PATIENCE, request).await.map_err(Fault::unknown);
    gone.map(u64::from).map_err(|error| match error.kind {
        ErrorKind::NotFound => not_found(&format!("queue {queue}")),
        _ => error,
    })
}

/// Makes an exchange, or finds it with equal settings.
pub(crate) async fn declare_exchange(
    link: &Link,
    exchange: &str,
    config: &ExchangeConfig,
) -> Result<()> {
    let named = name("exchange", exchange)?;
    let options = ExchangeDeclareOptions {
        durable: config.durable,
        auto_delete: config.auto_delete,
        internal: config.internal,
        ..ExchangeDeclareOptions::default()
    };
    let kind = match config.kind {
        ExchangeKind::Direct => Kind::Direct,
        ExchangeKind::Fanout => Kind::Fanout,
        ExchangeKind::Topic => Kind::Topic,
        ExchangeKind::Headers => Kind::Headers,
    };
    let request = |line: Arc<Line>, channel: Channel| {
        let (named, kind) = (named.clone(), kind.clone());
        async move {
            let none = FieldTable::default();
            line.answer(channel.exchange_declare(named, kind, options, none)).await
        }
    };
    link.ask(request).await
}

/// Removes an exchange.
pub(crate) async fn delete_exchange(link: &Link, exchange: &str, unused: bool) -> Result<()> {
    let named = name("exchange", exchange)?;
    exists(link, &named).await?;
    let options = ExchangeDeleteOptions { if_unused: unused, nowait: false };
    let request = |line: Arc<Line>, channel: Channel| {
        let named = named.clone();
        async move { line.answer(channel.exchange_delete(named, options)).await }
    };
    link.ask(request).await
}

/// A binding as AMQP has it.
struct Bound {
    from: ShortString,
    to: ShortString,
    key: ShortString,
    arguments: FieldTable,
}

impl Bound {
    fn of(binding: &Binding) -> Result<Self> {
        let mut arguments = table(&binding.arguments)?;
        if !binding.arguments.is_empty() {
            let how = if binding.match_all { "all" } else { "any" };
            arguments.insert("x-match".into(), text(how));
        }
        let to = match &binding.to {
            Destination::Queue(to) => name("queue", to)?,
            Destination::Exchange(to) => name("exchange", to)?,
        };
        let from = name("exchange", &binding.exchange)?;
        Ok(Self { from, to, key: short("the routing key", &binding.key)?, arguments })
    }
}

/// Binds a queue or an exchange, or takes a binding back.
pub(crate) async fn bind(link: &Link, binding: &Binding, binds: bool) -> Result<()> {
    Bound::of(binding)?;
    let request = |line: Arc<Line>, channel: Channel| async move {
        let Bound { from, to, key, arguments } = Bound::of(binding)?;
        match (&binding.to, binds) {
            (Destination::Queue(_), true) => {
                let options = QueueBindOptions::default();
                line.answer(channel.queue_bind(to, from, key, options, arguments)).await
            }
            (Destination::Queue(_), false) => {
                line.answer(channel.queue_unbind(to, from, key, arguments)).await
            }
            (Destination::Exchange(_), true) => {
                let options = ExchangeBindOptions::default();
                line.answer(channel.exchange_bind(to, from, key, options, arguments)).await
            }
            (Destination::Exchange(_), false) => {
                let options = ExchangeUnbindOptions::default();
                line.answer(channel.exchange_unbind(to, from, key, options, arguments)).await
            }
        }
    };
    link.ask(request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_api::DeadLetter;
    use std::time::Duration;

    #[test]
    fn settings_become_arguments() {
        let config = QueueConfig {
            messages_max: Some(7),
            overflow: Overflow::Reject,
            ttl: Some(Duration::from_secs(1)),
            deliveries_max: Some(3),
            dead_letter: Some(DeadLetter::queue("dead")),
            ..QueueConfig::default()
        };
        let table = arguments(&config).expect("they go together");
        let at = |name: &str| table.inner().get(name).cloned();
        assert_eq!(at("x-delivery-limit"), Some(AMQPValue::LongLongInt(2)));
        assert_eq!(at("x-queue-type"), Some(text("quorum")));
        assert_eq!(at("x-message-ttl"), Some(AMQPValue::LongLongInt(1000)));
        assert_eq!(at("x-dead-letter-exchange"), Some(text("")));
        assert_eq!(at("x-overflow"), Some(text("reject-publish")));
        assert!(arguments(&QueueConfig::default()).expect("nothing").inner().is_empty());
    }

    #[test]
    fn what_excludes_each_other_is_refused() {
        let counted = QueueConfig { deliveries_max: Some(3), ..QueueConfig::default() };
        for config in [
            QueueConfig { priority_max: 1, ..counted.clone() },
            QueueConfig { durable: false, ..counted.clone() },
            QueueConfig { auto_delete: true, ..counted },
            QueueConfig { lease: Some(Duration::from_secs(1)), ..QueueConfig::default() },
            QueueConfig { dedup: Some(Duration::from_secs(1)), ..QueueConfig::default() },
        ] {
            let error = arguments(&config).expect_err("they do not go together");
            assert_eq!(error.kind, ErrorKind::Unsupported, "{config:?}");
        }
    }
}
