//! What was delivered and is not settled yet.
//!
//! A delivery belongs to the channel that it came on: only there can it be settled, and it goes
//! back when that channel ends. A [`Lane`] is such a channel with its open deliveries; it stays as
//! long as one of them is open, or somebody consumes on it. A receipt names the lane, which is of
//! one connection, and the delivery tag; after a reconnect its lane is gone and it is stale.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions};
use leasehold_api::engine::{Delivered, Receipt, SessionRef, Verdict};
use leasehold_api::{Error, ErrorKind, Result, Retry};

use crate::connect::{Line, Own};
use crate::error::{Answer, Fault};
use crate::message;

/// The last token of a delivery in this process.
static TOKEN: AtomicU64 = AtomicU64::new(0);

/// A channel with open deliveries.
pub(crate) struct Lane {
    id: u64,
    pub line: Arc<Line>,
    pub channel: Channel,
    pub queue: Arc<str>,
    pub prefetch: u16,
}

impl Drop for Lane {
    fn drop(&mut self) {
        drop(Own::new(&self.channel));
    }
}

impl Lane {
    pub fn is_alive(&self) -> bool {
        self.line.is_alive() && self.channel.status().connected()
    }

    /// Waits until the broker has carried out what was sent on the channel before. Acks have no
    /// answer of their own, so something is asked that has one and changes nothing.
    async fn barrier(&self) -> Answer<()> {
        let same = self.channel.basic_qos(self.prefetch, BasicQosOptions::default());
        self.line.answer(same).await
    }

    /// Gives deliveries back that nobody saw.
    pub async fn give_back(&self, deliveries: &[Delivery]) {
        let requeue = BasicNackOptions { requeue: true, multiple: false };
        for one in deliveries {
            if self.channel.basic_nack(one.delivery_tag, requeue).await.is_err() {
                // With the channel gone they are back.
                return;
            }
        }
    }

    async fn settle(&self, tags: &[u64], verdict: Verdict) -> Answer<()> {
        for tag in tags {
            let sent = match verdict {
                Verdict::Ack => self.channel.basic_ack(*tag, BasicAckOptions::default()).await,
                Verdict::Nack(_) => {
                    let requeue = BasicNackOptions { requeue: true, multiple: false };
                    self.channel.basic_nack(*tag, requeue).await
                }
                Verdict::Reject => {
                    let drop = BasicRejectOptions { requeue: false };
                    self.channel.basic_reject(*tag, drop).await
                }
            };
            sent?;
        }
        self.barrier().await
    }
}

struct Kept {
    lane: Arc<Lane>,
    /// Tags and tokens of what is open.
    open: HashMap<u64, u64>,
    /// How many are being settled.
    settling: usize,
    /// Somebody consumes on it.
    consumed: bool,
}

impl Kept {
    fn is_over(&self) -> bool {
        self.open.is_empty() && self.settling == 0 && !self.consumed
    }
}

/// All lanes of an engine.
#[derive(Default)]
pub(crate) struct Lanes {
    kept: Mutex<HashMap<u64, Kept>>,
    last: AtomicU64,
}

impl Lanes {
    fn kept(&self) -> MutexGuard<'_, HashMap<u64, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new lane, kept until [`release`](Self::release), and then while something is open.
    pub fn open(
        &self,
        line: Arc<Line>,
        channel: Channel,
        queue: Arc<str>,
        prefetch: u16,
    ) -> Arc<Lane> {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let lane = Arc::new(Lane { id, line, channel, queue, prefetch });
        let mut kept = self.kept();
        // What died with its connection is nobody's any more.
        kept.retain(|_, kept| kept.lane.is_alive());
        kept.insert(
            id,
            Kept { lane: lane.clone(), open: HashMap::new(), settling: 0, consumed: true },
        );
        lane
    }

    /// Nobody consumes on it any more.
    pub fn release(&self, lane: &Lane) {
        let mut all = self.kept();
        if let Some(kept) = all.get_mut(&lane.id) {
            kept.consumed = false;
            if kept.is_over() {
                all.remove(&lane.id);
            }
        }
    }

    /// Whether something of a lane is with users.
    pub fn is_in_hand(&self, lane: &Lane) -> bool {
        let all = self.kept();
        all.get(&lane.id).is_some_and(|kept| kept.open.len() + kept.settling > 0)
    }

    /// Hands a delivery out.
    pub fn deliver(&self, lane: &Lane, delivery: Delivery, session: &SessionRef) -> Delivered {
        let token = TOKEN.fetch_add(1, Ordering::Relaxed) + 1;
        let tag = delivery.delivery_tag;
        if let Some(kept) = self.kept().get_mut(&lane.id) {
            kept.open.insert(tag, token);
        }
        let place = u128::from(lane.id) << 64 | u128::from(tag);
        Delivered {
            receipt: Receipt { token, place, session: session.clone() },
            attempt: message::attempt(&delivery),
            redelivered: delivery.redelivered,
            content: message::content(delivery),
        }
    }

    /// A delivery is settled already.
    pub fn forget(&self, lane: &Lane, receipt: &Receipt) {
        if let Some(kept) = self.kept().get_mut(&lane.id) {
            kept.open.remove(&(receipt.place as u64));
        }
    }

    /// Deliveries of a queue that this engine has handed out.
    pub fn in_flight(&self, queue: &str) -> u64 {
        let all = self.kept();
        let of_queue = all.values().filter(|kept| &*kept.lane.queue == queue);
        of_queue
            .filter(|kept| kept.lane.is_alive())
            .map(|kept| (kept.open.len() + kept.settling) as u64)
            .sum()
    }

    /// Takes deliveries out, all or none.
    fn take(&self, receipts: &[Receipt]) -> Result<Vec<(Arc<Lane>, Vec<u64>)>> {
        let mut all = self.kept();
        let mut tags: HashMap<u64, Vec<u64>> = HashMap::new();
        for receipt in receipts {
            let (lane, tag) = ((receipt.place >> 64) as u64, receipt.place as u64);
            let kept = all.get(&lane).filter(|kept| kept.lane.is_alive());
            let is_open = kept.is_some_and(|kept| kept.open.get(&tag) == Some(&receipt.token));
            let wanted = tags.entry(lane).or_default();
            if !is_open || wanted.contains(&tag) {
                let wrong = format!(
                    "delivery {} is not open any more: it was settled, or its connection ended \
                     and somebody else gets the message",
                    receipt.token
                );
                return Err(Error::new(ErrorKind::Stale, wrong));
            }
            wanted.push(tag);
        }
        let mut taken = Vec::with_capacity(tags.len());
        for (id, tags) in tags {
            let Some(kept) = all.get_mut(&id) else { continue };
            kept.open.retain(|tag, _| !tags.contains(tag));
            kept.settling += tags.len();
            taken.push((kept.lane.clone(), tags));
        }
        Ok(taken)
    }

    fn settled(&self, lane: &Lane, count: usize) {
        let mut all = self.kept();
        if let Some(kept) = all.get_mut(&lane.id) {
            kept.settling -= count;
            if kept.is_over() {
                all.remove(&lane.id);
            }
        }
    }

    /// Settles deliveries. It must not be dropped halfway.
    pub async fn settle(&self, receipts: &[Receipt], verdict: Verdict) -> Result<u32> {
        for (lane, tags) in self.take(receipts)? {
            let done = lane.settle(&tags, verdict).await;
            self.settled(&lane, tags.len());
            match done {
                Ok(()) => {}
                // With the channel gone they are back.
                Err(Fault::Lost(_)) if matches!(verdict, Verdict::Nack(_)) => {}
                Err(Fault::Lost(why)) => {
                    let wrong = format!(
                        "the connection was lost ({why}): it is settled, or the message comes \
                         again"
                    );
                    let error = Error::new(ErrorKind::Stale, wrong);
                    return Err(error.with_retry(Retry::Unknown));
                }
                Err(Fault::Refused(error)) => return Err(error),
            }
        }
        Ok(u32::try_from(receipts.len()).unwrap_or(u32::MAX))
    }
}
