//! The queue half of the engine.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use leasehold_api::engine::{
    Binding, Commit, Consume, Delivered, ExchangeConfig, List, Listed, Peeked, Publish, Published,
    QueueConfig, QueueEngine, QueueTotals, QueueView, Receipt, Receive, Verdict,
};
use leasehold_api::{Error, ErrorKind, Guarantees, Result};

use crate::{AmqpEngine, GUARANTEES, consume, topology};

fn absent<T>(what: &str) -> Result<T> {
    Err(Error::unsupported("amqp", what))
}

/// Runs what must not be dropped halfway: it goes on when nobody waits for it any more.
pub(crate) async fn whole<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T> {
    let gone = |_| Error::new(ErrorKind::Broken, "the runtime is gone");
    tokio::spawn(work).await.map_err(gone)
}

#[async_trait]
impl QueueEngine for AmqpEngine {
    fn guarantees(&self) -> Guarantees {
        GUARANTEES
    }

    async fn declare_queue(&self, name: &str, config: &QueueConfig) -> Result<bool> {
        topology::declare(&self.consuming.link, name, config).await
    }

    async fn delete_queue(&self, name: &str, if_unused: bool, if_empty: bool) -> Result<u64> {
        topology::delete(&self.consuming.link, name, if_unused, if_empty).await
    }

    async fn purge(&self, name: &str) -> Result<u64> {
        topology::purge(&self.consuming.link, name).await
    }

    async fn pause(&self, _name: &str, _paused: bool) -> Result<()> {
        absent("way to hold deliveries back")
    }

    async fn inspect_queue(&self, name: &str) -> Result<QueueView> {
        let (ready, consumers) = topology::look(&self.consuming.link, name).await?;
        Ok(QueueView {
            name: name.to_owned(),
            config: QueueConfig::default(),
            ready: ready.into(),
            in_flight: self.consuming.lanes.in_flight(name),
            delayed: 0,
            parked: 0,
            bytes: 0,
            consumers,
            paused: false,
            totals: QueueTotals::default(),
        })
    }

    async fn list_queues(&self, _ask: &List) -> Result<Listed<QueueView>> {
        absent("list of queues in its protocol")
    }

    async fn declare_exchange(&self, name: &str, config: &ExchangeConfig) -> Result<()> {
        topology::declare_exchange(&self.consuming.link, name, config).await
    }

    async fn delete_exchange(&self, name: &str, if_unused: bool) -> Result<()> {
        topology::delete_exchange(&self.consuming.link, name, if_unused).await
    }

    async fn bind(&self, binding: &Binding) -> Result<()> {
        topology::bind(&self.consuming.link, binding, true).await
    }

    async fn unbind(&self, binding: &Binding) -> Result<()> {
        topology::bind(&self.consuming.link, binding, false).await
    }

    async fn publish(&self, messages: Vec<Publish>) -> Result<Vec<Result<Published>>> {
        let publisher = self.publisher.clone();
        whole(async move { publisher.publish(&messages).await }).await
    }

    async fn consume(&self, ask: &Consume) -> Result<BoxStream<'static, Result<Delivered>>> {
        consume::consume(self.consuming.clone(), ask).await
    }

    async fn receive(&self, ask: &Receive) -> Result<Vec<Delivered>> {
        consume::receive(self.consuming.clone(), ask).await
    }

    async fn settle(&self, receipts: &[Receipt], verdict: Verdict) -> Result<u32> {
        if let Verdict::Nack(delay) = verdict
            && !delay.is_zero()
        {
            return absent("delayed returns");
        }
        let (engine, receipts) = (Arc::clone(&self.consuming), receipts.to_vec());
        whole(async move { engine.lanes.settle(&receipts, verdict).await }).await?
    }

    async fn extend(&self, _receipt: &Receipt, _lease: Duration) -> Result<()> {
        absent("leases of deliveries")
    }

    async fn peek(&self, _name: &str, _max: u32) -> Result<Vec<Peeked>> {
        absent("way to look at messages without taking them")
    }

    async fn redrive(&self, _from: &str, _to: Option<&str>, _max: u32) -> Result<u32> {
        absent("way to move messages between queues")
    }

    async fn commit(&self, _commit: &Commit) -> Result<Vec<u64>> {
        absent("commit: its transactions tear when it fails within one")
    }
}
