//! Publishing: a batch on a channel of its own, one wait for all its confirms.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ExchangeDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, ExchangeKind, PublisherConfirm};
use leasehold_api::engine::{Publish, Published, Target};
use leasehold_api::{Error, ErrorKind, Result};
use tokio::time::Instant;

use crate::connect::{Line, Link, PATIENCE};
use crate::error::{Answer, Fault, not_found};
use crate::message;

/// Exchanges that are remembered to exist.
const KNOWN_MAX: usize = 1024;
/// How long the confirms of a batch may take.
const CONFIRMS: Duration = Duration::from_secs(60);

/// Publishes messages.
pub(crate) struct Publisher {
    pub link: Link,
    /// Exchanges that were there: publishing to one that is not ends the channel.
    known: Mutex<HashSet<ShortString>>,
}

/// A message that may go.
struct Ready {
    exchange: ShortString,
    key: ShortString,
    properties: BasicProperties,
}

impl Publisher {
    pub fn new(link: Link) -> Self {
        Self { link, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, HashSet<ShortString>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes messages, and says of each what became of it.
    pub async fn publish(&self, messages: &[Publish]) -> Vec<Result<Published>> {
        let mut answers: Vec<_> = messages.iter().map(|_| None).collect();
        let mut ready = Vec::with_capacity(messages.len());
        for (at, publish) in messages.iter().enumerate() {
            match self.ready(publish).await {
                Ok(one) => ready.push((at, one)),
                Err(error) => answers[at] = Some(Err(error)),
            }
        }
        let sent = match self.channel().await {
            Ok((line, channel)) => {
                let sent = send(&channel, messages, &ready);
                let sent = line.answer_within(CONFIRMS, async { Ok(sent.await) }).await;
                if sent.as_ref().is_ok_and(|all| all.iter().all(|one| one.is_ok())) {
                    line.keep(channel);
                }
                sent
            }
            Err(fault) => Err(fault),
        };
        match sent {
            Ok(confirms) => self.judge(messages, &ready, confirms, &mut answers),
            Err(fault) => {
                for (at, _) in &ready {
                    answers[*at] = Some(Err(fault.clone().unknown()));
                }
            }
        }
        let none = || Err(Error::new(ErrorKind::Broken, "the broker said nothing about it"));
        answers.into_iter().map(|answer| answer.unwrap_or_else(none)).collect()
    }

    async fn channel(&self) -> Answer<(Arc<Line>, Channel)> {
        let line = self.link.line(Some(Instant::now() + PATIENCE)).await?;
        let channel = line.channel().await?;
        Ok((line, channel))
    }

    /// Looks at a message before anything is sent.
    async fn ready(&self, publish: &Publish) -> Result<Ready> {
        message::acceptable(&publish.message)?;
        let (exchange, key) = message::route(publish)?;
        let properties = message::properties(&publish.message)?;
        if let Target::Exchange(..) = publish.target
            && !self.known().contains(&exchange)
        {
            exists(&self.link, &exchange).await?;
            let mut known = self.known();
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
            known.insert(exchange.clone());
        }
        Ok(Ready { exchange, key, properties })
    }

    fn judge(
        &self,
        messages: &[Publish],
        ready: &[(usize, Ready)],
        confirms: Vec<Answer<Confirmation>>,
        answers: &mut [Option<Result<Published>>],
    ) {
        // The driver hangs a returned message on any confirm of the channel, so we look ourselves
        // which one it is. Two that are alike in everything are alike in this, too.
        let mut returned: Vec<BasicReturnMessage> = Vec::new();
        let mut confirmed = Vec::with_capacity(confirms.len());
        for confirm in confirms {
            confirmed.push(confirm.map(|confirm| {
                let is_ack = confirm.is_ack();
                returned.extend(confirm.take_message());
                is_ack
            }));
        }
        for ((at, one), confirm) in ready.iter().zip(confirmed) {
            let publish = &messages[*at];
            let same = returned.iter().position(|back| {
                (&back.delivery.exchange, &back.delivery.routing_key) == (&one.exchange, &one.key)
                    && back.delivery.data == publish.message.body
                    && back.delivery.properties == one.properties
            });
            answers[*at] = Some(match (confirm, same) {
                (_, Some(same)) => {
                    returned.swap_remove(same);
                    unroutable(publish)
                }
                (Ok(true), None) => Ok(Published { queues: 1, duplicates: 0 }),
                (Ok(false), None) => Err(full(publish)),
                (Err(fault), None) => {
                    // The exchange may have gone.
                    self.known().remove(&one.exchange);
                    Err(fault.unknown())
                }
            });
        }
    }
}

/// Nobody took it.
fn unroutable(publish: &Publish) -> Result<Published> {
    match &publish.target {
        Target::Queue(queue) => Err(not_found(&format!("queue {queue}"))),
        Target::Exchange(exchange, key) if publish.mandatory => {
            let wrong = format!("no queue is bound to exchange {exchange} for key {key:?}");
            Err(Error::new(ErrorKind::Unroutable, wrong))
        }
        Target::Exchange(..) => Ok(Published { queues: 0, duplicates: 0 }),
    }
}

/// The broker refuses it.
fn full(publish: &Publish) -> Error {
    let place = match &publish.target {
        Target::Queue(queue) => format!("queue {queue}"),
        Target::Exchange(exchange, _) => format!("a queue behind exchange {exchange}"),
    };
    let wrong = format!("{place} is full or cannot keep it at present; consume, or try later");
    Error::new(ErrorKind::Full, wrong)
}

/// Demands that an exchange exists.
pub(crate) async fn exists(link: &Link, exchange: &ShortString) -> Result<()> {
    let request = |line: Arc<Line>, channel: Channel| {
        let exchange = exchange.clone();
        async move {
            let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
            // The kind is not compared then.
            let kind = ExchangeKind::Direct;
            let asked = channel.exchange_declare(exchange, kind, passive, FieldTable::default());
            line.answer(asked).await
        }
    };
    link.ask(request).await.map_err(|error| match error.kind {
        ErrorKind::NotFound => not_found(&format!("exchange {exchange}")),
        _ => error,
    })
}

/// Sends all, then waits for all confirms.
async fn send(
    channel: &Channel,
    messages: &[Publish],
    ready: &[(usize, Ready)],
) -> Vec<Answer<Confirmation>> {
    type Sending<'a> = Pin<Box<dyn Future<Output = lapin::Result<PublisherConfirm>> + Send + 'a>>;
    // What comes back tells whether anybody took it, which every publisher is told.
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let mut sending: Vec<Sending<'_>> = Vec::with_capacity(ready.len());
    for (at, one) in ready {
        let (exchange, key) = (one.exchange.clone(), one.key.clone());
        let (body, properties) = (&*messages[*at].message.body, one.properties.clone());
        let publish = channel.basic_publish(exchange, key, options, body, properties);
        sending.push(Box::pin(publish));
    }
    let mut sent: Vec<Option<lapin::Result<PublisherConfirm>>> = Vec::new();
    sent.resize_with(sending.len(), || None);
    // The first poll of each puts it on the wire, so polling in order keeps the order.
    std::future::poll_fn(|cx| {
        let mut all = Poll::Ready(());
        for (one, sent) in sending.iter_mut().zip(&mut sent) {
            if sent.is_none() {
                match one.as_mut().poll(cx) {
                    Poll::Ready(confirm) => *sent = Some(confirm),
                    Poll::Pending => all = Poll::Pending,
                }
            }
        }
        all
    })
    .await;
    drop(sending);
    let mut confirms = Vec::with_capacity(sent.len());
    for confirm in sent.into_iter().flatten() {
        confirms.push(match confirm {
            Ok(confirm) => confirm.await.map_err(Fault::from),
            Err(error) => Err(Fault::from(error)),
        });
    }
    confirms
}
