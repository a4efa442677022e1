//! Queues, exchanges and the commit: each method is one request and its answer, but for those with
//! a file of their own.
//!
//! A comment says of each that has no request id why it may, or may not, be asked twice.

use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use hyper::Method;
use leasehold_api::engine::{
    Binding, Commit, Consume, Delivered, List, Listed, Peeked, Publish, QueueEngine, QueueView,
    Receipt, Receive,
};
use leasehold_api::{
    Destination, ErrorKind, ExchangeConfig, Guarantees, Published, QueueConfig, Result, Retry,
    Verdict,
};
use leasehold_wire::commit::Committed;
use leasehold_wire::message::{Extend, Messages, Settled};
use leasehold_wire::queue::{Declared, Queues, Redrive, Removed};
use leasehold_wire::time::ms;
use leasehold_wire::{commit, exchange, handle, message, queue};

use crate::acquire::{new_request, request_text};
use crate::ask::{Ask, Path};
use crate::lock::{list_path, listed};
use crate::{HttpEngine, consume, is, receive};

fn queue_path(name: &str) -> Path {
    Path::new("/v1/queues").name(name)
}

fn exchange_path(name: &str) -> Path {
    Path::new("/v1/exchanges").name(name)
}

fn binding_text(what: &str, binding: &Binding) -> String {
    let Binding { exchange, to, key, .. } = binding;
    let to = match to {
        Destination::Queue(queue) => format!("queue {queue}"),
        Destination::Exchange(other) => format!("exchange {other}"),
    };
    format!("{what} {to} and exchange {exchange} with key {key:?}")
}

impl HttpEngine {
    /// Removes something. What is not there any more after an attempt that was not heard is gone.
    async fn remove(&self, ask: Ask) -> Result<()> {
        let heard = self.server.ask(&ask).await;
        match heard.answer {
            Err(error) if heard.again && is(&error, ErrorKind::NotFound) => Ok(()),
            answer => answer.map(drop),
        }
    }
}

#[async_trait]
impl QueueEngine for HttpEngine {
    fn guarantees(&self) -> Guarantees {
        Self::guarantees(self)
    }

    async fn declare_queue(&self, name: &str, config: &QueueConfig) -> Result<bool> {
        let body = queue::QueueConfig::from(config.clone());
        // The second finds what the first made, and says that it was there.
        let ask = Ask::with(Method::PUT, queue_path(name), &body, format!("declare queue {name}"));
        Ok(self.server.get::<Declared>(ask).await?.existed)
    }

    async fn delete_queue(&self, name: &str, if_unused: bool, if_empty: bool) -> Result<u64> {
        let path = queue_path(name).query("if_unused", if_unused).query("if_empty", if_empty);
        let ask = Ask::new(Method::DELETE, path, format!("delete queue {name}"));
        // The second could not tell how many messages went, or hit a queue made anew.
        Ok(self.server.get::<Removed>(Ok(ask.once())).await?.messages)
    }

    async fn purge(&self, name: &str) -> Result<u64> {
        let path = queue_path(name).word("purge");
        let ask = Ask::new(Method::POST, path, format!("purge queue {name}"));
        // The second would hit what was published after the first.
        Ok(self.server.get::<Removed>(Ok(ask.once())).await?.messages)
    }

    async fn pause(&self, name: &str, paused: bool) -> Result<()> {
        let word = if paused { "pause" } else { "resume" };
        // Twice sets the same switch.
        let path = queue_path(name).word(word);
        self.server.tell(Ok(Ask::new(Method::POST, path, format!("{word} queue {name}")))).await
    }

    async fn inspect_queue(&self, name: &str) -> Result<QueueView> {
        let ask = Ask::get(queue_path(name), format!("inspect queue {name}"));
        self.server.get::<queue::QueueView>(Ok(ask)).await?.into_api()
    }

    async fn list_queues(&self, ask: &List) -> Result<Listed<QueueView>> {
        let asked = format!("list queues from {:?}", ask.prefix);
        let ask = Ask::get(list_path("/v1/queues", ask), asked);
        let found: Queues = self.server.get(Ok(ask)).await?;
        listed(found.items, found.next, queue::QueueView::into_api)
    }

    async fn declare_exchange(&self, name: &str, config: &ExchangeConfig) -> Result<()> {
        let body = exchange::ExchangeConfig::from(*config);
        let asked = format!("declare exchange {name}");
        // The second finds what the first made.
        self.server.tell(Ask::with(Method::PUT, exchange_path(name), &body, asked)).await
    }

    async fn delete_exchange(&self, name: &str, if_unused: bool) -> Result<()> {
        let path = exchange_path(name).query("if_unused", if_unused);
        self.remove(Ask::new(Method::DELETE, path, format!("delete exchange {name}"))).await
    }

    async fn bind(&self, binding: &Binding) -> Result<()> {
        let path = exchange_path(&binding.exchange).word("bindings");
        let body = exchange::Binding::of(binding);
        // A binding that is there already stays as it is.
        self.server.tell(Ask::post(path, &body, binding_text("bind", binding))).await
    }

    async fn unbind(&self, binding: &Binding) -> Result<()> {
        let path = exchange_path(&binding.exchange).word("bindings");
        let body = exchange::Binding::of(binding);
        let asked = binding_text("unbind", binding);
        self.remove(Ask::with(Method::DELETE, path, &body, asked)?).await
    }

    async fn publish(&self, messages: Vec<Publish>) -> Result<Vec<Result<Published>>> {
        self.published(messages).await
    }

    async fn consume(&self, ask: &Consume) -> Result<BoxStream<'static, Result<Delivered>>> {
        consume::open(&self.server, ask).await
    }

    async fn receive(&self, ask: &Receive) -> Result<Vec<Delivered>> {
        self.received(ask).await
    }

    async fn settle(&self, receipts: &[Receipt], verdict: Verdict) -> Result<u32> {
        if receipts.is_empty() {
            return Ok(0);
        }
        let ask = receive::settle(receipts, verdict)?;
        let heard = self.server.ask(&ask).await;
        let again = heard.again;
        match heard.read::<Settled>() {
            Ok(settled) => Ok(settled.settled),
            // After an attempt that was not heard, stale means that it was carried out or that the
            // lease was lost. A message that was to go back is back in both cases.
            Err(error) if again && is(&error, ErrorKind::Stale) => match (receipts, verdict) {
                ([_], Verdict::Nack(_)) => Ok(1),
                // Which of the two it was nobody can say: the message may be done, or come again.
                _ => Err(error.with_retry(Retry::Unknown).asking(&ask.asked)),
            },
            Err(error) => Err(error.asking(&ask.asked)),
        }
    }

    async fn extend(&self, receipt: &Receipt, lease: Duration) -> Result<()> {
        let asked = format!("extend delivery {}", receipt.token);
        let body = Extend { receipt: handle::receipt_text(receipt), lease_ms: ms(lease) };
        // Twice sets the same deadline, a little later.
        let ask = Ask::post(Path::new("/v1/deliveries").word("extend"), &body, asked)?;
        let within = (lease / 3).clamp(Duration::from_secs(1), self.server.within);
        self.server.tell(Ok(ask.hurried(within, self.server.patience))).await
    }

    async fn peek(&self, name: &str, max: u32) -> Result<Vec<Peeked>> {
        let path = queue_path(name).word("peek").query("max", max);
        let ask = Ask::get(path, format!("peek into queue {name}"));
        let seen: Messages = self.server.get(Ok(ask)).await?;
        let peeked = |one: message::Peeked| {
            Ok(Peeked { attempts: one.attempts, content: one.content.into_api()? })
        };
        seen.messages.into_iter().map(peeked).collect()
    }

    async fn redrive(&self, from: &str, to: Option<&str>, max: u32) -> Result<u32> {
        let body = Redrive { to: to.map(str::to_owned), max: Some(max) };
        let asked = format!("redrive queue {from}");
        let ask = Ask::post(queue_path(from).word("redrive"), &body, asked)?;
        // The second would move further messages.
        let moved = self.server.get::<Removed>(Ok(ask.once())).await?.messages;
        Ok(u32::try_from(moved).unwrap_or(u32::MAX))
    }

    async fn commit(&self, commit: &Commit) -> Result<Vec<u64>> {
        let request = request_text(commit.request.map_or_else(new_request, Ok)?);
        let body = commit::Commit::of(commit, Some(request));
        let ask = Ask::post(Path::new("/v1/commit"), &body, "commit");
        let versions = self.server.get::<Committed>(ask).await?.versions;
        let mut entered = self.entered();
        for hold in &commit.releases {
            entered.remove(&hold.token);
        }
        Ok(versions)
    }
}
