//! A lock on a broker: one message in a queue, the token. Who has it unacknowledged holds the
//! lock; it goes back when its channel ends, whatever became of the holder.
//!
//! A lock is three things, named after it:
//!
//! * the *token queue*, with the one token;
//! * the *counter queue*, with the number of the last grant; only the holder touches it;
//! * the *mark*, an exchange that nothing is bound to: the lock is complete.
//!
//! **Exactly one token.** A lock is made under a guard: an exclusive queue, which the broker gives
//! to one connection and takes back when that ends, and within this engine a mutex. Under it, if
//! the mark is not there, the token queue is emptied, one token published and confirmed, and then
//! the mark is made. Nobody uses a token queue whose mark he has not seen, so while there is no
//! mark nobody has a token in hand, and emptying the queue removes what others left who died
//! halfway. A publish of such a one that arrives late finds a queue that takes one message only.
//!
//! **Tokens rise.** The holder takes all numbers out of the counter queue, publishes the highest
//! plus one, waits until that is confirmed, only then acknowledges those it took, waits until that
//! is done, and only then has the lock. Wherever it dies, the highest number is in the queue or on
//! its way back to it, and there is a number always, so an empty queue means: wait. RabbitMQ's
//! transactions would not help: they are not atomic, not even in one queue
//! (<https://www.rabbitmq.com/docs/semantics#tx>).

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions,
    BasicPublishOptions, BasicQosOptions, ExchangeDeclareOptions, QueueDeclareOptions,
    QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, ExchangeKind};
use leasehold_api::engine::moment;
use leasehold_api::{Error, ErrorKind};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::connect::{ANSWER, Line, given_up};
use crate::error::{Answer, Fault};

/// How long the last token may be away: a broker puts back what a silent connection has within
/// three heartbeats, which are a minute at most.
const COUNTER: Duration = Duration::from_secs(180);

/// The names of the things that a lock is.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub token: ShortString,
    pub counter: ShortString,
    mark: ShortString,
    guard: ShortString,
}

impl Names {
    /// The longest name of a lock with a prefix of this length.
    pub fn longest(prefix: usize) -> usize {
        crate::config::NAME_MAX - prefix - ".counter".len()
    }

    /// The names for a lock whose name is not too long.
    pub fn of(prefix: &str, lock: &str) -> Self {
        let name = |what: &str| ShortString::from(format!("{prefix}{what}.{lock}"));
        Self {
            token: name("lock"),
            counter: name("counter"),
            mark: name("lock"),
            guard: name("guard"),
        }
    }
}

/// How lock queues are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub quorum: bool,
    /// The broker drops what was returned too often unless it is told not to.
    pub limits_returns: bool,
}

impl Kind {
    fn arguments(self) -> FieldTable {
        let mut table = FieldTable::default();
        if self.quorum {
            table.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
            if self.limits_returns {
                table.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(-1));
            }
        }
        table
    }
}

fn durable() -> QueueDeclareOptions {
    QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() }
}

/// Whether a lock is complete.
pub(crate) async fn is_made(line: &Arc<Line>, names: &Names) -> Answer<bool> {
    let channel = line.channel().await?;
    let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let (mark, none) = (names.mark.clone(), FieldTable::default());
    let asked = channel.exchange_declare(mark, ExchangeKind::Fanout, passive, none);
    match line.answer(asked).await {
        Ok(()) => {
            line.keep(channel);
            Ok(true)
        }
        Err(Fault::Refused(error)) if error.kind == ErrorKind::NotFound => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// Makes a lock unless it is there; `false` when somebody else is about to make it. It must not be
/// dropped halfway.
pub(crate) async fn make(line: &Arc<Line>, names: &Names, kind: Kind) -> Answer<bool> {
    if is_made(line, names).await? {
        return Ok(true);
    }
    let channel = line.channel().await?;
    let guard = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(names.guard.clone(), guard, FieldTable::default());
    match line.answer(asked).await {
        Ok(_) => line.keep(channel),
        Err(Fault::Refused(error)) if error.kind == ErrorKind::InUse => return Ok(false),
        Err(fault) => return Err(fault),
    }
    // Everything from here on is on the connection that has the guard.
    let made = make_guarded(line, names, kind).await;
    let channel = line.channel().await?;
    let asked = channel.queue_delete(names.guard.clone(), QueueDeleteOptions::default());
    if let Err(fault) = line.answer(asked).await {
        // It goes with the connection at the latest.
        line.condemn();
        return Err(fault);
    }
    line.keep(channel);
    made.map(|()| true)
}

async fn make_guarded(line: &Arc<Line>, names: &Names, kind: Kind) -> Answer<()> {
    if is_made(line, names).await? {
        return Ok(());
    }
    let channel = line.channel().await?;
    let mut arguments = kind.arguments();
    let asked = channel.queue_declare(names.counter.clone(), durable(), arguments.clone());
    if line.answer(asked).await?.message_count() == 0 {
        put(line, &channel, &names.counter, 0).await?;
    }
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(1));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let asked = channel.queue_declare(names.token.clone(), durable(), arguments);
    line.answer(asked).await?;
    let asked = channel.queue_purge(names.token.clone(), QueuePurgeOptions::default());
    line.answer(asked).await?;
    put(line, &channel, &names.token, 0).await?;
    let stays = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let (mark, none) = (names.mark.clone(), FieldTable::default());
    let asked = channel.exchange_declare(mark, ExchangeKind::Fanout, stays, none);
    line.answer(asked).await?;
    line.keep(channel);
    Ok(())
}

/// Publishes a number and waits until it is safe.
async fn put(line: &Arc<Line>, channel: &Channel, queue: &ShortString, number: u64) -> Answer<()> {
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let body = number.to_string();
    let (nowhere, queue_name) = (ShortString::default(), queue.clone());
    let publish = async {
        let sent = channel.basic_publish(nowhere, queue_name, options, body.as_bytes(), persistent);
        sent.await?.await
    };
    let confirmed = line.answer(publish).await?;
    let is_ack = confirmed.is_ack();
    if is_ack && confirmed.take_message().is_none() {
        return Ok(());
    }
    let wrong = format!("the broker did not keep what belongs into {queue}; was it deleted?");
    Err(Error::new(ErrorKind::Broken, wrong).into())
}

/// Takes the token if it is there; gives its delivery tag.
pub(crate) async fn take(
    line: &Arc<Line>,
    channel: &Channel,
    names: &Names,
) -> Answer<Option<u64>> {
    let asked = channel.basic_get(names.token.clone(), BasicGetOptions::default());
    Ok(line.answer(asked).await?.map(|got| got.delivery.delivery_tag))
}

/// Waits for a message of a queue, at most until then or until nobody wants it any more; gives it
/// if it came.
pub(crate) async fn wait(
    line: &Arc<Line>,
    channel: &Channel,
    queue: &ShortString,
    until: Option<Instant>,
    gone: Option<&mut watch::Receiver<()>>,
) -> Answer<Option<Delivery>> {
    line.answer(channel.basic_qos(1, BasicQosOptions::default())).await?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let asked = channel.basic_consume(queue.clone(), "".into(), options, none);
    let mut consumer = line.answer(asked).await?;
    let given_up = async {
        match gone {
            Some(gone) => given_up(gone).await,
            None => std::future::pending().await,
        }
    };
    let late = moment(until);
    let came = tokio::select! {
        came = consumer.next() => Some(came),
        () = late => None,
        () = given_up => None,
    };
    let first = match came {
        Some(Some(Ok(delivery))) => Some(delivery),
        Some(Some(Err(error))) => return Err(error.into()),
        Some(None) if channel.status().connected() => {
            let wrong = format!("somebody deleted {queue}");
            return Err(Error::new(ErrorKind::NotFound, wrong).into());
        }
        Some(None) => return Err(Fault::Lost("the connection ended".to_owned())),
        None => None,
    };
    let cancel = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
    line.answer(cancel).await?;
    if first.is_some() {
        return Ok(first);
    }
    // It may have come while the wait ended.
    match timeout_at(Instant::now() + ANSWER, consumer.next()).await {
        Ok(Some(Ok(delivery))) => Ok(Some(delivery)),
        _ => Ok(None),
    }
}

/// Takes all numbers out of the counter queue; gives them, at least one, with the highest.
async fn numbers(line: &Arc<Line>, channel: &Channel, names: &Names) -> Answer<(Vec<u64>, u64)> {
    let mut found: Vec<Delivery> = Vec::new();
    loop {
        // Two at once: most often there is one, and the second answer says so.
        let get = || channel.basic_get(names.counter.clone(), BasicGetOptions::default());
        let both = async {
            let (one, other) = futures_util::future::join(get(), get()).await;
            Ok((one?, other?))
        };
        let (one, other) = line.answer(both).await?;
        let is_last = other.is_none();
        found.extend([one, other].into_iter().flatten().map(|got| got.delivery));
        if is_last && !found.is_empty() {
            break;
        }
        if is_last {
            // Somebody has them just now, or died with them, and they are about to come back.
            let until = Some(Instant::now() + COUNTER);
            match wait(line, channel, &names.counter, until, None).await? {
                Some(one) => found.push(one),
                None => return Err(torn(names, "its last number is not there").into()),
            }
        }
    }
    let mut highest = 0;
    for one in &found {
        let number = std::str::from_utf8(&one.data).ok().and_then(|text| text.parse().ok());
        let number: u64 = number.ok_or_else(|| {
            let wrong = format!("queue {} has something that is no number", names.counter);
            Error::new(ErrorKind::Broken, wrong)
        })?;
        highest = highest.max(number);
    }
    Ok((found.iter().map(|one| one.delivery_tag).collect(), highest))
}

/// Part of a lock is gone.
pub(crate) fn torn(names: &Names, why: &str) -> Error {
    let Names { token, counter, mark, .. } = names;
    let wrong = format!(
        "somebody deleted or purged a part of the lock ({why}); when nobody holds it, delete the \
         queues {token} and {counter} and the exchange {mark}, and it is made again"
    );
    Error::new(ErrorKind::Broken, wrong)
}

/// Whether the lock is held with this token: it is the last one, and the lock's own is not in its
/// queue. For the moment in which the lock passes from one to the next, the former's counts.
pub(crate) async fn check(line: &Arc<Line>, names: &Names, token: u64) -> Answer<bool> {
    let channel = line.channel().await?;
    if at(line, &channel, &names.token).await? > 0 {
        line.keep(channel);
        return Ok(false);
    }
    let (tags, highest) = numbers(line, &channel, names).await?;
    let requeue = BasicNackOptions { requeue: true, multiple: false };
    for tag in tags {
        channel.basic_nack(tag, requeue).await?;
    }
    at(line, &channel, &names.counter).await?;
    let is_free = at(line, &channel, &names.token).await? > 0;
    line.keep(channel);
    Ok(highest == token && !is_free)
}

/// The number of a new grant, for who has the token on this channel.
pub(crate) async fn count(line: &Arc<Line>, channel: &Channel, names: &Names) -> Answer<u64> {
    let (tags, highest) = numbers(line, channel, names).await?;
    let next = highest + 1;
    put(line, channel, &names.counter, next).await?;
    for tag in tags {
        channel.basic_ack(tag, BasicAckOptions::default()).await?;
    }
    at(line, channel, &names.counter).await?;
    Ok(next)
}

/// How many messages wait in a queue, after it has carried out what was settled on this channel
/// before: its process answers in order.
pub(crate) async fn at(line: &Arc<Line>, channel: &Channel, queue: &ShortString) -> Answer<u32> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(queue.clone(), passive, FieldTable::default());
    Ok(line.answer(asked).await?.message_count())
}
