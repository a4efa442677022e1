//! Queues, exchanges and the commit: each method is one command and its answer, but for publishing
//! and receiving, which are many with one round trip.

use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use leasehold_api::engine::{
    Binding, Commit, Consume, Delivered, List, Listed, Peeked, Publish, QueueEngine, QueueView,
    Receipt, Receive,
};
use leasehold_api::{
    Error, ErrorKind, ExchangeConfig, Guarantees, Published, QueueConfig, Result, Target, Verdict,
};
use leasehold_core::{self as core, Op, Outcome, SessionId};

use crate::convert::{self, name, us};
use crate::error::{Fault, odd};
use crate::link::Call;
use crate::table::{Kind, Reply};
use crate::{NativeEngine, expected, receive};

fn target(target: &Target) -> String {
    match target {
        Target::Queue(queue) => format!("publish to queue {queue}"),
        Target::Exchange(exchange, key) => {
            format!("publish to exchange {exchange} with key {key:?}")
        }
    }
}

fn binding_text(what: &str, binding: &Binding) -> String {
    let Binding { exchange, to, key, .. } = binding;
    let to = match to {
        leasehold_api::Destination::Queue(queue) => format!("queue {queue}"),
        leasehold_api::Destination::Exchange(other) => format!("exchange {other}"),
    };
    format!("{what} {to} and exchange {exchange} with key {key:?}")
}

impl NativeEngine {
    /// Asks as nobody in particular, with what was asked named in the error.
    async fn simply(&self, op: Result<Op>, asked: impl Fn() -> String) -> Result<Outcome> {
        let answer = match op {
            Ok(op) => self.link.ask(SessionId::NONE, None, op).await,
            Err(error) => Err(error),
        };
        answer.map_err(|error| error.asking(asked()))
    }

    /// Sends one message of several; its call is waited for later.
    async fn begin_publish(&self, publish: Publish) -> Result<Call> {
        let request = convert::request(publish.request);
        let op = Op::Publish(Box::new(convert::publish(publish)?));
        let mut call = self.link.prepare(SessionId::NONE, Kind::Plain)?;
        call.send(request, op).await?;
        Ok(call)
    }

    /// The session that several deliveries have in common.
    fn session_of(receipts: &[Receipt]) -> Result<SessionId> {
        let first = receipts.first().map_or(SessionId::NONE, |one| SessionId(one.session.id));
        if receipts.iter().all(|one| one.session.id == first.0) {
            return Ok(first);
        }
        let wrong = "the deliveries belong to several sessions; settle those of one at a time";
        Err(Error::new(ErrorKind::Invalid, wrong))
    }

    async fn try_settle(&self, receipts: &[Receipt], verdict: Verdict) -> Result<u32> {
        let session = Self::session_of(receipts)?;
        let places = receipts.iter().map(convert::receipt).collect::<Result<Vec<_>>>()?;
        let verdict = convert::verdict(verdict);
        let op = match &places[..] {
            [] => return Ok(0),
            [one] => Op::Settle(*one, verdict),
            _ => Op::SettleMany(places.into(), verdict),
        };
        expected!(self.link.ask(session, None, op).await?, Outcome::Settled(settled) => settled)
    }
}

#[async_trait]
impl QueueEngine for NativeEngine {
    fn guarantees(&self) -> Guarantees {
        Self::guarantees(self)
    }

    async fn declare_queue(&self, queue: &str, config: &QueueConfig) -> Result<bool> {
        let op = name(queue)
            .and_then(|name| Ok(Op::DeclareQueue(name, Box::new(convert::queue_config(config)?))));
        let answer = self.simply(op, || format!("declare queue {queue}")).await?;
        expected!(answer, Outcome::Queue { existed, .. } => existed)
    }

    async fn delete_queue(&self, queue: &str, if_unused: bool, if_empty: bool) -> Result<u64> {
        let op = name(queue).map(|name| Op::DeleteQueue { name, if_unused, if_empty });
        let answer = self.simply(op, || format!("delete queue {queue}")).await?;
        expected!(answer, Outcome::Dropped(messages) => messages)
    }

    async fn purge(&self, queue: &str) -> Result<u64> {
        let answer = self.simply(name(queue).map(Op::Purge), || format!("purge queue {queue}"));
        expected!(answer.await?, Outcome::Dropped(messages) => messages)
    }

    async fn pause(&self, queue: &str, paused: bool) -> Result<()> {
        let op = name(queue).map(|name| Op::Pause(name, paused));
        let answer = self.simply(op, || match paused {
            true => format!("pause queue {queue}"),
            false => format!("resume queue {queue}"),
        });
        expected!(answer.await?, Outcome::Done => ())
    }

    async fn inspect_queue(&self, queue: &str) -> Result<QueueView> {
        let op = name(queue).map(Op::InspectQueue);
        let answer = self.simply(op, || format!("inspect queue {queue}")).await?;
        expected!(answer, Outcome::QueueView(view) => convert::queue_view(queue, *view))
    }

    async fn list_queues(&self, ask: &List) -> Result<Listed<QueueView>> {
        let op = Ok(convert::list(core::Listed::Queues, ask));
        let answer = self.simply(op, || format!("list queues from {:?}", ask.prefix)).await?;
        expected!(answer, Outcome::Listed(listing) => convert::queues(*listing))
    }

    async fn declare_exchange(&self, exchange: &str, config: &ExchangeConfig) -> Result<()> {
        let config = convert::exchange_config(config);
        let op = name(exchange).map(|name| Op::DeclareExchange(name, config));
        let answer = self.simply(op, || format!("declare exchange {exchange}")).await?;
        expected!(answer, Outcome::Done => ())
    }

    async fn delete_exchange(&self, exchange: &str, if_unused: bool) -> Result<()> {
        let op = name(exchange).map(|name| Op::DeleteExchange { name, if_unused });
        let answer = self.simply(op, || format!("delete exchange {exchange}")).await?;
        expected!(answer, Outcome::Done => ())
    }

    async fn bind(&self, binding: &Binding) -> Result<()> {
        let op = convert::binding(binding).map(Op::Bind);
        let answer = self.simply(op, || binding_text("bind", binding)).await?;
        expected!(answer, Outcome::Done => ())
    }

    async fn unbind(&self, binding: &Binding) -> Result<()> {
        let op = convert::binding(binding).map(Op::Unbind);
        let answer = self.simply(op, || binding_text("unbind", binding)).await?;
        expected!(answer, Outcome::Done => ())
    }

    async fn publish(&self, messages: Vec<Publish>) -> Result<Vec<Result<Published>>> {
        let mut calls = Vec::with_capacity(messages.len());
        for publish in messages {
            let to = publish.target.clone();
            let call = self.begin_publish(publish).await.map_err(|error| error.asking(target(&to)));
            calls.push((to, call));
        }
        let mut answers = Vec::with_capacity(calls.len());
        for (to, call) in calls {
            let call = match call {
                Ok(call) => call,
                Err(error) => {
                    answers.push(Err(error));
                    continue;
                }
            };
            answers.push(match call.answer().await {
                Ok(Reply::Outcome(Outcome::Published { queues, duplicates })) => {
                    Ok(Published { queues, duplicates })
                }
                Ok(Reply::Outcome(other)) => Err(odd(&other)),
                Ok(_) => Err(odd(&Outcome::Done)),
                // Of this and of all behind it nobody knows.
                Err(Fault::Gone(error)) => return Err(Error::clone(&error).asking("publish")),
                Err(fault) => Err(Error::from(fault).asking(target(&to))),
            });
        }
        Ok(answers)
    }

    async fn consume(&self, ask: &Consume) -> Result<BoxStream<'static, Result<Delivered>>> {
        let asked = |error: Error| error.asking(format!("consume from queue {}", ask.queue));
        let consume = core::Consume {
            queue: name(&ask.queue).map_err(asked)?,
            credit: ask.prefetch,
            once: None,
            no_ack: ask.no_ack,
            exclusive: ask.exclusive,
            label: ask.label.clone(),
        };
        let opened = self.link.consume(SessionId(ask.session.id), consume).await;
        Ok(Box::pin(opened.map_err(|fault| asked(fault.into()))?))
    }

    async fn receive(&self, ask: &Receive) -> Result<Vec<Delivered>> {
        let received = receive::receive(&self.link, &self.limits, ask).await;
        received.map_err(|error| error.asking(format!("receive from queue {}", ask.queue)))
    }

    async fn settle(&self, receipts: &[Receipt], verdict: Verdict) -> Result<u32> {
        let asked = || match (receipts, verdict) {
            ([one], Verdict::Ack) => format!("ack delivery {}", one.token),
            ([one], Verdict::Nack(_)) => format!("return delivery {}", one.token),
            ([one], Verdict::Reject) => format!("reject delivery {}", one.token),
            (many, _) => format!("settle {} deliveries", many.len()),
        };
        self.try_settle(receipts, verdict).await.map_err(|error| error.asking(asked()))
    }

    async fn extend(&self, receipt: &Receipt, lease: Duration) -> Result<()> {
        let asked = |error: Error| error.asking(format!("extend delivery {}", receipt.token));
        let op = Op::Extend(convert::receipt(receipt).map_err(asked)?, us(lease));
        let session = SessionId(receipt.session.id);
        let answer = self.link.ask(session, None, op).await.map_err(asked)?;
        expected!(answer, Outcome::Renewed { .. } => ())
    }

    async fn peek(&self, queue: &str, max: u32) -> Result<Vec<Peeked>> {
        let asked = |error: Error| error.asking(format!("peek into queue {queue}"));
        let op = Op::Peek(name(queue).map_err(asked)?, max);
        match self.link.call(SessionId::NONE, None, op, Kind::Plain).await {
            Ok(Reply::Peeked(list)) => list.iter().map(convert::peeked).collect(),
            Ok(_) => Err(asked(odd(&Outcome::Done))),
            Err(fault) => Err(asked(fault.into())),
        }
    }

    async fn redrive(&self, from: &str, to: Option<&str>, max: u32) -> Result<u32> {
        let op = name(from)
            .and_then(|from| Ok(Op::Redrive { from, to: to.map(name).transpose()?, max }));
        let answer = self.simply(op, || format!("redrive queue {from}")).await?;
        expected!(answer, Outcome::Moved(messages) => messages)
    }

    async fn commit(&self, commit: &Commit) -> Result<Vec<u64>> {
        let asked = |error: Error| error.asking("commit");
        let request = convert::request(commit.request);
        let op = Op::Commit(Box::new(convert::commit(commit).map_err(asked)?));
        let answer = self.link.ask(SessionId::NONE, request, op).await.map_err(asked)?;
        expected!(answer, Outcome::Committed { versions } => versions)
    }
}
