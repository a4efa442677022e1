//! The model of queues: which copies of which messages there are, and who has them.
//!
//! After each step it surveys every copy that the state knows, waiting, delayed or in flight, and
//! compares with the survey before. A copy that appeared must have been published to that queue or
//! have left another one; a copy that left must have been acknowledged, purged, or dead for a reason
//! that the queue's settings give. So none is lost and none is doubled, whatever the rules do.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_core::index::{Entry, Place};
use leasehold_core::*;

use super::support::{Shard, WALL};

/// A queue in one of its lives.
pub type Life = (String, u32);
pub type MessageId = u64;

/// One copy of a message.
#[derive(Debug, Clone)]
pub struct Copy {
    pub life: Life,
    pub message: MessageId,
    /// Lane and position; `None` while it is delayed.
    pub at: Option<(u8, u64)>,
    pub entry: Entry,
}

#[derive(Debug, Clone)]
pub struct Lease {
    pub receipt: Receipt,
    pub session: SessionId,
    pub life: Life,
    pub message: MessageId,
    pub key: u64,
}

#[derive(Debug, Clone)]
pub struct Reader {
    pub ticket: Ticket,
    pub id: Option<ConsumerId>,
    pub session: SessionId,
    pub queue: String,
    pub no_ack: bool,
    pub once: bool,
}

/// What the command of this step did.
#[derive(Debug, Clone, Default)]
pub struct Story {
    pub published: Vec<(String, MessageId)>,
    pub acked: Vec<(Life, MessageId)>,
    pub rejected: Vec<(Life, MessageId)>,
    pub purged: Option<String>,
    pub deleted: Option<String>,
    pub redriven: Option<String>,
    pub restarted: bool,
    pub closed: Vec<SessionId>,
}

#[derive(Debug, Clone, Default)]
pub struct Model {
    pub copies: Vec<Copy>,
    pub leases: Vec<Lease>,
    pub readers: Vec<Reader>,
    pub spent: Vec<Receipt>,
    pub story: Story,
    /// Failed deliveries of a copy since it came to its queue.
    pub failures: BTreeMap<(Life, MessageId), u32>,
    /// Copies that were delivered since they came to their queue.
    pub delivered: BTreeSet<(Life, MessageId)>,
    /// Copies that were there at the last restart.
    pub old: BTreeSet<(Life, MessageId)>,
    /// The position of the newest first delivery of each lane, messages with keys left out.
    pub reached: BTreeMap<(Life, u8), u64>,
    pub ids: BTreeMap<(Life, u64), Time>,
    pub next_message: MessageId,
    pub deliveries: u64,
    pub deaths: u64,
}

type Counts = BTreeMap<(Life, MessageId), i64>;

pub fn message_id(shard: &Shard, place: Place) -> MessageId {
    let body = shard.log.message(place).body;
    u64::from_le_bytes(body[..8].try_into().expect("a body begins with its number"))
}

fn counts(copies: &[Copy]) -> Counts {
    let mut counts = Counts::new();
    for copy in copies {
        *counts.entry((copy.life.clone(), copy.message)).or_default() += 1;
    }
    counts
}

/// Every copy that the state knows.
pub fn survey(shard: &Shard) -> Vec<Copy> {
    let state = shard.core.state();
    let mut copies = Vec::new();
    for (_, queue) in state.queues().iter() {
        let life = (queue.name.as_str().to_owned(), queue.id.serial);
        for (lane, row) in queue.lanes.iter().enumerate() {
            for (at, entry) in row.pages.iter().flat_map(|page| shard.entries(page)) {
                let message = message_id(shard, entry.place);
                let at = Some((lane as u8, at));
                copies.push(Copy { life: life.clone(), message, at, entry });
            }
        }
    }
    let mut delayed: Vec<_> = state.delays().fresh.values().cloned().collect();
    for page in state.delays().runs.iter().flat_map(|(_, run)| &run.pages) {
        let items = (page.base..).zip(shard.items(page));
        delayed.extend(items.filter(|(at, _)| page.is_live(*at)).map(|(_, item)| item));
    }
    for item in delayed {
        let queue = state.queues().get(item.queue.slot).filter(|queue| queue.id == item.queue);
        if let Some(queue) = queue {
            let life = (queue.name.as_str().to_owned(), queue.id.serial);
            let message = message_id(shard, item.entry.place);
            copies.push(Copy { life, message, at: None, entry: item.entry });
        }
    }
    copies
}

impl Model {
    pub fn life(&self, shard: &Shard, queue: &str) -> Option<Life> {
        let slot = shard.core.state().queue_named(queue)?;
        Some((queue.to_owned(), shard.core.state().queues()[slot].id.serial))
    }

    pub fn look(&mut self, shard: &Shard) {
        let after = survey(shard);
        let before = std::mem::take(&mut self.copies);
        self.story.closed.extend(shard.said.iter().filter_map(|kind| match kind {
            EffectKind::SessionEnded(_, id) => Some(*id),
            _ => None,
        }));
        self.end_leases(shard);
        for kind in &shard.said {
            match kind {
                EffectKind::Deliver(ticket, delivery) => {
                    self.delivered(shard, *ticket, delivery, &before, &after);
                }
                EffectKind::DeliveryEnded(_, receipt, _) => {
                    // It may have been delivered again within the step: `end_leases` came first.
                    assert!(!self.leases.iter().any(|lease| lease.receipt == *receipt));
                }
                EffectKind::Reply(ticket, Ok(Outcome::Consuming(id))) => {
                    let mut readers = self.readers.iter_mut();
                    readers.find(|r| r.ticket == *ticket).expect("it was asked for").id = Some(*id);
                }
                EffectKind::Reply(ticket, Err(_)) | EffectKind::ConsumerEnded(ticket, _) => {
                    self.readers.retain(|reader| reader.ticket != *ticket);
                }
                _ => {}
            }
        }
        self.conserve(shard, &before, &after);
        self.copies = after;
        self.forget(shard);
        self.story = Story::default();
    }

    fn end_leases(&mut self, shard: &Shard) {
        let expired: Vec<Receipt> = shard
            .said
            .iter()
            .filter_map(|kind| match kind {
                EffectKind::DeliveryEnded(_, receipt, _) => Some(*receipt),
                _ => None,
            })
            .collect();
        let restarted = self.story.restarted;
        let (closed, state) = (&self.story.closed, shard.core.state());
        let (kept, gone): (Vec<Lease>, Vec<Lease>) = self.leases.drain(..).partition(|lease| {
            let there = state.queue_named(&lease.life.0).is_some_and(|slot| {
                state.queues()[slot].id.serial == lease.life.1
            });
            there
                && !restarted
                && !closed.contains(&lease.session)
                && !expired.contains(&lease.receipt)
        });
        self.leases = kept;
        for lease in gone {
            self.spent.push(lease.receipt);
            if !restarted {
                *self.failures.entry((lease.life, lease.message)).or_default() += 1;
            }
        }
        let closed = closed.clone();
        self.readers.retain(|reader| !restarted && !closed.contains(&reader.session));
    }

    /// The lease ends by a verdict that was accepted.
    pub fn settled(&mut self, receipt: Receipt, verdict: Verdict) {
        let at = self.leases.iter().position(|lease| lease.receipt == receipt);
        let lease = self.leases.remove(at.expect("only an open delivery is settled"));
        self.spent.push(receipt);
        let copy = (lease.life, lease.message);
        match verdict {
            Verdict::Ack => self.story.acked.push(copy),
            Verdict::Reject => self.story.rejected.push(copy),
            Verdict::Nack { .. } => *self.failures.entry(copy).or_default() += 1,
        }
    }

    fn delivered(
        &mut self,
        shard: &Shard,
        ticket: Ticket,
        delivery: &Delivery,
        before: &[Copy],
        after: &[Copy],
    ) {
        self.deliveries += 1;
        let reader = self.readers.iter().find(|reader| reader.ticket == ticket);
        let reader = reader.expect("only a consumer gets a delivery").clone();
        let life = (reader.queue.clone(), delivery.queue.serial);
        let message = message_id(shard, delivery.place);
        let copy = (life.clone(), message);
        let is_it = |other: &&Copy| other.life == life && other.message == message;
        let known = after.iter().chain(before).find(is_it).cloned();
        if reader.no_ack {
            assert_eq!(delivery.receipt.slot, u32::MAX, "without ack there is no lease");
            self.story.acked.push(copy.clone());
        } else {
            let open = self.leases.iter().filter(|l| l.life == life && l.message == message);
            let there = after.iter().filter(is_it).count();
            assert!(open.count() < there, "{copy:?} is delivered while it is delivered");
        }
        let only = after.iter().filter(is_it).count() <= 1;
        self.attempts(&copy, delivery, only);
        if let Some(Copy { at: Some((lane, at)), entry, .. }) = &known {
            let first = !self.delivered.contains(&copy);
            self.in_order(shard, &life, *lane, *at, entry.key, first, after);
        }
        let key = known.map_or(0, |copy| copy.entry.key);
        self.delivered.insert(copy);
        if !reader.no_ack {
            let (receipt, session) = (delivery.receipt, reader.session);
            self.leases.push(Lease { receipt, session, life, message, key });
        }
        if reader.once {
            self.readers.retain(|other| other.ticket != ticket);
        }
    }

    /// The delivery says truly how often it was tried and whether it may have been delivered.
    fn attempts(&self, copy: &(Life, MessageId), delivery: &Delivery, only: bool) {
        if !only {
            return;
        }
        let failures = self.failures.get(copy).copied().unwrap_or(0);
        assert_eq!(delivery.attempt, failures + 1, "attempts of {copy:?}");
        if self.delivered.contains(copy) {
            assert!(delivery.redelivered, "{copy:?} was delivered before and does not say so");
        } else {
            let may = self.old.contains(copy);
            assert!(may || !delivery.redelivered, "{copy:?} was never delivered and says it was");
        }
    }

    #[allow(clippy::too_many_arguments, reason = "what is known of one delivery")]
    fn in_order(
        &mut self,
        shard: &Shard,
        life: &Life,
        lane: u8,
        at: u64,
        key: u64,
        first: bool,
        after: &[Copy],
    ) {
        let here = |copy: &&Copy| copy.life == *life;
        if key != 0 {
            let taken = self.leases.iter().find(|l| l.life == *life && l.key == key);
            assert!(taken.is_none(), "two deliveries of one ordering key: {taken:?}");
            let earlier = after.iter().filter(here).find(|copy| {
                copy.entry.key == key && copy.at.is_some_and(|(l, a)| l == lane && a < at)
            });
            assert!(earlier.is_none(), "an earlier message of the key waits: {earlier:?}");
        } else if first {
            let reached = self.reached.entry((life.clone(), lane)).or_default();
            assert!(at + 1 > *reached, "first deliveries of a lane are in order");
            *reached = at + 1;
        }
        // What waited in a higher lane before the step goes first.
        let busy = |copy: &&Copy| {
            let lease = |l: &Lease| l.life == copy.life && l.message == copy.message;
            self.leases.iter().any(lease)
        };
        let published = |copy: &&Copy| {
            self.story.published.contains(&(copy.life.0.clone(), copy.message))
        };
        let higher = after.iter().filter(here).find(|copy| {
            copy.at.is_some_and(|(other, _)| other > lane)
                && copy.entry.key == 0
                && !busy(copy)
                && !published(copy)
                && self.was_ready(copy)
        });
        let later = shard.said.iter().filter(|kind| matches!(kind, EffectKind::Deliver(..)));
        let alone = later.count() == 1;
        assert!(!alone || higher.is_none(), "a higher priority waits: {higher:?}");
    }

    fn was_ready(&self, _copy: &Copy) -> bool {
        // Surveys before the step were taken away by `look`; a copy that was delivered before may
        // have come back within this step, so only those never delivered count.
        !self.delivered.contains(&(_copy.life.clone(), _copy.message))
            && self.settled_in_lane.contains(&(_copy.life.clone(), _copy.message))
    }
}
