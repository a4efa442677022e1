//! The queue half of the engine, which is all of it.

use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use leasehold_api::engine::{
    Binding, Commit, Consume, Delivered, ExchangeConfig, List, Listed, Peeked, Publish, Published,
    QueueConfig, QueueEngine, QueueView, Receipt, Receive, Verdict,
};
use leasehold_api::{Error, ErrorKind, Guarantees, Result};

use crate::{GUARANTEES, KafkaEngine, consume, names, topology};

fn absent<T>(what: &str) -> Result<T> {
    Err(Error::unsupported("kafka", what))
}

/// Runs what must not be dropped halfway: it goes on when nobody waits for it any more.
async fn whole<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T> {
    let gone = |_| Error::new(ErrorKind::Broken, "the runtime is gone");
    tokio::spawn(work).await.map_err(gone)
}

#[async_trait]
impl QueueEngine for KafkaEngine {
    fn guarantees(&self) -> Guarantees {
        GUARANTEES
    }

    async fn declare_queue(&self, name: &str, config: &QueueConfig) -> Result<bool> {
        let (engine, name, config) = (self.consuming.clone(), name.to_owned(), config.clone());
        whole(async move { topology::declare(&engine, &name, &config).await }).await?
    }

    async fn delete_queue(&self, name: &str, if_unused: bool, if_empty: bool) -> Result<u64> {
        self.publisher.forget(&names::topic(name)?);
        let (engine, name) = (self.consuming.clone(), name.to_owned());
        whole(async move { topology::delete(&engine, &name, if_unused, if_empty).await }).await?
    }

    async fn purge(&self, name: &str) -> Result<u64> {
        let (engine, name) = (self.consuming.clone(), name.to_owned());
        whole(async move { topology::purge(&engine, &name).await }).await?
    }

    async fn pause(&self, _name: &str, _paused: bool) -> Result<()> {
        absent("way to hold deliveries back")
    }

    async fn inspect_queue(&self, _name: &str) -> Result<QueueView> {
        absent("counts of queues here; its own tools tell how far a group is behind")
    }

    async fn list_queues(&self, _ask: &List) -> Result<Listed<QueueView>> {
        absent("list of queues")
    }

    async fn declare_exchange(&self, _name: &str, _config: &ExchangeConfig) -> Result<()> {
        absent("exchanges")
    }

    async fn delete_exchange(&self, _name: &str, _if_unused: bool) -> Result<()> {
        absent("exchanges")
    }

    async fn bind(&self, _binding: &Binding) -> Result<()> {
        absent("exchanges")
    }

    async fn unbind(&self, _binding: &Binding) -> Result<()> {
        absent("exchanges")
    }

    async fn publish(&self, messages: Vec<Publish>) -> Result<Vec<Result<Published>>> {
        let publisher = self.publisher.clone();
        whole(async move { publisher.publish(messages).await }).await
    }

    async fn consume(&self, ask: &Consume) -> Result<BoxStream<'static, Result<Delivered>>> {
        consume::consume(self.consuming.clone(), ask).await
    }

    async fn receive(&self, ask: &Receive) -> Result<Vec<Delivered>> {
        consume::receive(&self.consuming, ask).await
    }

    async fn settle(&self, receipts: &[Receipt], verdict: Verdict) -> Result<u32> {
        if let Verdict::Nack(delay) = verdict
            && !delay.is_zero()
        {
            return absent("delayed returns");
        }
        let (engine, receipts) = (self.consuming.clone(), receipts.to_vec());
        whole(async move { engine.settle(&receipts, verdict).await }).await?
    }

    async fn extend(&self, receipt: &Receipt, lease: Duration) -> Result<()> {
        self.consuming.extend(receipt, lease)
    }

    async fn peek(&self, _name: &str, _max: u32) -> Result<Vec<Peeked>> {
        absent("way to look at messages without taking them")
    }

    async fn redrive(&self, _from: &str, _to: Option<&str>, _max: u32) -> Result<u32> {
        absent("way to move messages between queues")
    }

    async fn commit(&self, _commit: &Commit) -> Result<Vec<u64>> {
        absent("commit of several things at once")
    }
}
