//! What all parts of the engine share, and how lines are read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use leasehold_contenders::Sessions;
use zookeeper_client::Client;

use crate::connect::{Heard, Link, Patience, Server};
use crate::error::{Fault, Tried};
use crate::holds::Holds;
use crate::place::{Keys, Line, Stand};

/// Nodes read at one time.
const TOGETHER: usize = 64;

/// What all parts of the engine share.
pub(crate) struct Core {
    pub server: Arc<Server>,
    pub keys: Keys,
    pub sessions: Sessions,
    pub holds: Holds,
}

/// A time in microseconds.
pub(crate) fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Core {
    /// Reads the names of the nodes below one; none if it is not there.
    pub async fn below(
        &self,
        link: &Link,
        path: &str,
        patience: &mut Patience,
    ) -> Tried<Vec<String>> {
        let call = |client: Client| {
            let path = path.to_owned();
            async move { client.list_children(&path).await }
        };
        match link.ask(patience, call).await.said {
            Err(Fault::NoNode) => Ok(Vec::new()),
            said => said,
        }
    }

    /// Makes sure that what is read next is not older than what was written before.
    pub async fn sync(&self, link: &Link, patience: &mut Patience) -> Tried<()> {
        let call = |client: Client| {
            let path = self.keys.locks();
            async move { client.sync(&path).await }
        };
        link.ask(patience, call).await.said
    }

    /// What time it is in the ensemble, microseconds: that of a write.
    pub async fn now(&self, link: &Link, patience: &mut Patience) -> Tried<u64> {
        let call = |client: Client| {
            let path = self.keys.clock();
            async move { client.set_data(&path, b"", None).await }
        };
        let stat = link.ask(patience, call).await.said?;
        Ok(stat.mtime.unsigned_abs().saturating_mul(1000))
    }

    /// Reads a line. Contenders that are known are not read again: what the rule needs of them
    /// does not change.
    pub async fn line(
        &self,
        link: &Link,
        name: &Arc<str>,
        known: &mut HashMap<String, Stand>,
        patience: &mut Patience,
    ) -> Tried<Line> {
        let nodes = self.below(link, &self.keys.line(name), patience).await?;
        let nodes: HashSet<String> = nodes.into_iter().collect();
        known.retain(|node, _| nodes.contains(node));
        let new: Vec<String> =
            nodes.iter().filter(|node| !known.contains_key(*node)).cloned().collect();
        let reading = stream::iter(new).map(|node| {
            let (path, mut patience) = (self.keys.contender(name, &node), patience.clone());
            async move {
                let call = |client: Client| {
                    let path = path.clone();
                    async move { client.get_data(&path).await }
                };
                let Heard { said, .. } = link.ask(&mut patience, call).await;
                match said {
                    Ok((data, stat)) => Ok(Some(Stand::read(name, &node, &data, &stat)?)),
                    Err(Fault::NoNode) => Ok(None),
                    Err(fault) => Err(fault),
                }
            }
        });
        let stands: Vec<Option<Stand>> = reading.buffer_unordered(TOGETHER).try_collect().await?;
        known.extend(stands.into_iter().flatten().map(|stand| (stand.node.clone(), stand)));
        Ok(Line::of(name, nodes, known))
    }

    /// Reads the line of one lock, not older than what was written before.
    pub async fn look_at(&self, link: &Link, name: &str, patience: &mut Patience) -> Tried<Line> {
        self.sync(link, patience).await?;
        self.line(link, &name.into(), &mut HashMap::new(), patience).await
    }

    /// Takes nodes away. False: the first was not there any more.
    pub async fn delete(
        &self,
        link: &Link,
        paths: &[String],
        patience: &mut Patience,
    ) -> Tried<bool> {
        let deleting = paths.iter().map(|path| {
            let mut patience = patience.clone();
            async move {
                let call = |client: Client| {
                    let path = path.clone();
                    async move { client.delete(&path, None).await }
                };
                let Heard { said, again } = link.ask(&mut patience, call).await;
                match said {
                    Ok(()) => Ok(true),
                    // After a lost answer that it is gone means that we deleted it.
                    Err(Fault::NoNode) => Ok(again),
                    Err(fault) => Err(fault),
                }
            }
        });
        let all = futures_util::future::join_all(deleting).await;
        let all: Vec<bool> = all.into_iter().collect::<Tried<_>>()?;
        Ok(all.first().copied().unwrap_or(true))
    }
}
