//! Publishing: a batch goes out without a pause, and each message is confirmed for itself.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leasehold_api::engine::{Publish, Published, Target};
use leasehold_api::{Error, ErrorKind, Result};

use crate::driver::Cluster;
use crate::error::{Answer, Fault, not_found};
use crate::{message, names};

/// Topics that are remembered to exist.
const KNOWN_MAX: usize = 4096;

/// Publishes messages.
pub(crate) struct Publisher {
    cluster: Arc<dyn Cluster>,
    /// Topics that were there: brokers may be set to make one that is not.
    known: Mutex<HashSet<String>>,
}

impl Publisher {
    pub fn new(cluster: Arc<dyn Cluster>) -> Self {
        Self { cluster, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, HashSet<String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A queue of this engine was removed.
    pub fn forget(&self, topic: &str) {
        self.known().remove(topic);
    }

    /// Publishes messages, and says of each what became of it.
    pub async fn publish(&self, messages: Vec<Publish>) -> Vec<Result<Published>> {
        let mut sent = Vec::with_capacity(messages.len());
        for publish in messages {
            sent.push(self.send(publish).await);
        }
        let mut answers = Vec::with_capacity(sent.len());
        for one in sent {
            answers.push(match one {
                Err(error) => Err(error),
                Ok((queue, topic, confirm)) => match confirm.await {
                    Ok(_) => Ok(Published { queues: 1, duplicates: 0 }),
                    Err(fault) => {
                        if let Fault::Missing = fault {
                            self.forget(&topic);
                        }
                        Err(fault.of_queue(&queue))
                    }
                },
            });
        }
        answers
    }

    /// Puts one on its way.
    async fn send(
        &self,
        publish: Publish,
    ) -> Result<(Arc<str>, String, impl Future<Output = Answer<i64>> + Send + use<>)> {
        let queue = match publish.target {
            Target::Queue(queue) => queue,
            Target::Exchange(..) => return Err(Error::unsupported("kafka", "exchanges")),
        };
        let topic = names::topic(&queue)?;
        let message = message::outgoing(&topic, publish.message)?;
        self.exists(&queue, &topic).await?;
        Ok((queue, topic, self.cluster.send(message)))
    }

    async fn exists(&self, queue: &str, topic: &str) -> Result<()> {
        if self.known().contains(topic) {
            return Ok(());
        }
        let found = self.cluster.partitions(topic).await.map_err(Fault::told);
        // Nothing was sent yet.
        let found = found.map_err(|error| match error.kind {
            ErrorKind::Unavailable => error.with_retry(leasehold_api::Retry::Later),
            _ => error,
        })?;
        if found.is_none() {
            return Err(not_found(queue));
        }
        let mut known = self.known();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(topic.to_owned());
        Ok(())
    }
}
