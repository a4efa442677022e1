//! The model of queues: which copies of which messages there are, and who has them.
//!
//! After each step it surveys every copy that the state knows, waiting, delayed or in flight, and
//! compares with the survey before. A copy that appeared must have been published to that queue or
//! have left another one; a copy that left must have been acknowledged, purged, or dead for a
//! reason that the queue's settings give. So none is lost and none is doubled, whatever the rules
//! do. Where several copies of one message meet in one queue they cannot be told apart, and the
//! model lets more pass rather than guess.

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
    /// It was redriven into a queue that drops its oldest, so it may have been dropped there.
    pub overflowed: bool,
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
    /// What was given back by somebody who had not looked at it.
    unseen: BTreeSet<(Life, MessageId)>,
    /// Copies that were there at the last restart.
    pub old: BTreeSet<(Life, MessageId)>,
    /// The position of the newest first delivery of each lane, messages with keys left out.
    pub reached: BTreeMap<(Life, u8), u64>,
    pub ids: BTreeMap<(Life, u64), Time>,
    pub next_message: MessageId,
    /// Copies that a queue has or had twice, by several deaths: they cannot be told apart.
    pub doubled: BTreeSet<(Life, MessageId)>,
    /// Messages that several queues got: after deaths their copies cannot be told apart.
    pub many: BTreeSet<MessageId>,
    pub deliveries: u64,
    pub deaths: u64,
    /// Copies that waited in their lanes when the step began.
    waiting: Vec<Copy>,
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
        let leased = |copy: &&Copy| {
            let leases = &mut self.leases.iter();
            !leases.any(|l| l.life == copy.life && l.message == copy.message)
        };
        self.waiting = before.iter().filter(leased).cloned().collect();
        self.story.closed.extend(shard.said.iter().filter_map(|kind| match kind {
            EffectKind::SessionEnded(_, id) => Some(*id),
            _ => None,
        }));
        self.end_leases(shard);
        if self.story.overflowed {
            // They may have come back as dead letters within the step, which nobody sees.
            let moved = before.iter().filter(|c| self.story.redriven.as_ref() == Some(&c.life.0));
            self.many.extend(moved.map(|copy| copy.message));
        }
        let twice = counts(&after).into_iter().filter(|(_, count)| *count > 1);
        self.doubled.extend(twice.map(|(copy, _)| copy));
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
            let there = state
                .queue_named(&lease.life.0)
                .is_some_and(|slot| state.queues()[slot].id.serial == lease.life.1);
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
            // Nobody looked at it, so the next delivery may call itself the first, out of order.
            Verdict::Return => drop(self.unseen.insert(copy)),
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
        let only = !self.many.contains(&message);
        self.attempts(&copy, delivery, only);
        // One that came from elsewhere and was taken at once left its old position behind.
        let stays = after.iter().any(|other| is_it(&other));
        let elsewhere = |c: &Copy| c.message == message && c.life != life;
        let sure = only && (stays || !before.iter().any(elsewhere));
        if let Some(known) = known.as_ref().filter(|_| sure) {
            self.in_order(known, after);
            self.by_priority(known, &self.waiting.clone(), after);
        }
        let key = known.map_or(0, |copy| copy.entry.key);
        if !reader.no_ack {
            self.delivered.insert(copy);
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
        if self.unseen.contains(copy) {
            return;
        }
        if self.delivered.contains(copy) {
            assert!(delivery.redelivered, "{copy:?} was delivered before and does not say so");
        } else {
            let may = self.old.contains(copy);
            assert!(may || !delivery.redelivered, "{copy:?} was never delivered and says it was");
        }
    }

    /// First deliveries go in order of the lane, those of one key one at a time.
    fn in_order(&mut self, known: &Copy, after: &[Copy]) {
        let Copy { life, message, at: Some((lane, at)), entry } = known else { return };
        if entry.key != 0 {
            let taken = self.leases.iter().find(|l| l.life == *life && l.key == entry.key);
            assert!(taken.is_none(), "two deliveries of one ordering key: {taken:?}");
            let earlier = after.iter().find(|copy| {
                let ahead = copy.at.is_some_and(|(l, a)| l == *lane && a < *at);
                copy.life == *life && copy.entry.key == entry.key && ahead
            });
            assert!(earlier.is_none(), "an earlier message of the key waits: {earlier:?}");
            return;
        }
        let copy = (life.clone(), *message);
        if !self.delivered.contains(&copy) && !self.unseen.contains(&copy) {
            let reached = self.reached.entry((life.clone(), *lane)).or_default();
            assert!(at + 1 > *reached, "first deliveries of a lane are in order");
            *reached = at + 1;
        }
    }

    /// Whatever waited in a higher lane all through the step goes before what was delivered in it.
    fn by_priority(&self, delivered: &Copy, waiting: &[Copy], after: &[Copy]) {
        let Some((lane, _)) = delivered.at else { return };
        let higher = after.iter().find(|copy| {
            copy.life == delivered.life
                && copy.entry.key == 0
                && copy.at.is_some_and(|(other, _)| other > lane)
                && waiting.iter().any(|w| w.life == copy.life && w.at == copy.at)
                && !self.leases.iter().any(|l| l.life == copy.life && l.message == copy.message)
        });
        assert!(higher.is_none(), "{higher:?} waits while {delivered:?} goes");
    }

    /// Every difference between two surveys has a reason.
    fn conserve(&mut self, shard: &Shard, before: &[Copy], after: &[Copy]) {
        let mut change = counts(after);
        for (copy, count) in counts(before) {
            *change.entry(copy).or_default() -= count;
        }
        for (queue, message) in &self.story.published {
            let mut now = change.iter().filter(|((life, _), _)| life.0 == *queue);
            let life = self.life(shard, queue).or(now.next().map(|((life, _), _)| life.clone()));
            let life = life.expect("messages are published to queues that are there");
            *change.entry((life, *message)).or_default() -= 1;
        }
        let mut came: BTreeMap<MessageId, i64> = BTreeMap::new();
        for ((_, message), count) in change.iter().filter(|(_, count)| **count > 0) {
            *came.entry(*message).or_default() += count;
        }
        change.retain(|_, count| *count != 0);
        let differences = format!("{change:?}");
        let gone: Vec<_> = change.into_iter().filter(|(_, count)| *count < 0).collect();
        let mut must_move: BTreeMap<MessageId, i64> = BTreeMap::new();
        let mut may_move: BTreeMap<MessageId, i64> = BTreeMap::new();
        for ((life, message), count) in gone {
            let end = self.reason(shard, &life, message, before, after);
            let (moved, done) = end.unwrap_or_else(|| {
                panic!("message {message} is lost from {life:?} without a reason")
            });
            if moved {
                *may_move.entry(message).or_default() -= count;
                if !done {
                    *must_move.entry(message).or_default() -= count;
                }
            }
            self.deaths += u64::from(moved);
            let copy = (life, message);
            if !after.iter().any(|other| other.life == copy.0 && other.message == message) {
                self.failures.remove(&copy);
                self.delivered.remove(&copy);
                self.old.remove(&copy);
            }
        }
        for (message, count) in &came {
            let moved = may_move.get(message).copied().unwrap_or(0);
            assert!(*count <= moved, "message {message} came from nowhere in {differences}");
        }
        for (message, count) in must_move {
            let moved = came.get(&message).copied().unwrap_or(0);
            assert!(count <= moved, "dead message {message} did not arrive in {differences}");
        }
    }

    /// Whether a copy may have left so: moved elsewhere, done with. `None`: it may not have left.
    fn reason(
        &self,
        shard: &Shard,
        life: &Life,
        message: MessageId,
        before: &[Copy],
        after: &[Copy],
    ) -> Option<(bool, bool)> {
        let copy = (life.clone(), message);
        let is_it = |other: &&Copy| other.life == *life && other.message == message;
        let old = before.iter().find(is_it);
        let leased = self.leases.iter().any(|l| l.life == *life && l.message == message);
        if self.life(shard, &life.0).as_ref() != Some(life) {
            let (config, _) = super::moves::queue(&life.0);
            let story = &self.story;
            let may = story.deleted.as_deref() == Some(&life.0)
                || config.auto_delete
                || config.exclusive && !story.closed.is_empty()
                || story.restarted && !config.durable;
            return may.then_some((true, true));
        }
        if self.doubled.contains(&copy) {
            return Some((true, true));
        }
        if self.story.acked.contains(&copy) {
            return Some((false, true));
        }
        if self.story.purged.as_deref() == Some(&life.0) && !leased {
            return Some((false, true));
        }
        let redriven = self.story.redriven.as_deref() == Some(&life.0) && !leased;
        let settled = self.story.acked.iter().any(|(_, taken)| *taken == message);
        let (config, _) = super::moves::queue(&life.0);
        let wall = WALL + shard.log.now;
        let rejected = self.story.rejected.contains(&copy);
        let expired = old.is_some_and(|c| c.entry.expires != 0 && c.entry.expires <= wall);
        let failures = self.failures.get(&copy).copied().unwrap_or(0);
        let spent = config.deliveries_max.is_some_and(|max| failures >= u32::from(max));
        let here = |list: &[Copy]| list.iter().filter(|c| c.life == *life).count() as u64;
        let came = self.story.published.iter().filter(|(queue, _)| *queue == life.0).count();
        let arrivals = before.len().max(after.len()) as u64;
        let moving = self.story.redriven.is_some() || !self.story.rejected.is_empty();
        let most = here(before) + came as u64 + if moving { arrivals } else { 0 };
        let delayed = before.iter().any(|c| c.life == *life && c.at.is_none());
        let full = config.messages_max.is_some_and(|max| most > max || delayed)
            && config.overflow == queue::Overflow::DropOldest;
        let dead = rejected || spent || (expired || full) && !leased;
        if !dead {
            return redriven.then_some((true, settled || self.story.overflowed));
        }
        let Some(target) = super::moves::dead_letters(&life.0) else {
            return Some((redriven, true));
        };
        let state = shard.core.state();
        let deaths = old.map_or(&[][..], |copy| copy.entry.deaths());
        let known = deaths.iter().any(|death| death.queue.as_str() == target);
        let was_rejected = deaths.iter().any(|d| d.reason == index::DeathReason::Rejected);
        let round = known && !rejected && !was_rejected;
        // The exchange of dead letters is bound anew only after its queue was declared anew.
        let bound = |slot: u32| life.0 != "ranked" || state.queues()[slot].bindings > 0;
        let there = state.queue_named(target).is_some_and(bound) && !round;
        let target_life = self.life(shard, target);
        // Its arrival cannot be seen when it was taken at once, or when another copy of it left the
        // place where it arrives.
        let hidden = |life| {
            let is_there = |c: &Copy| c.life == life && c.message == message;
            before.iter().any(is_there) || self.story.acked.contains(&(life.clone(), message))
        };
        let taken = target_life.is_some_and(hidden);
        // A message may die of several things at once; a cycle is cut for some of them only.
        let lost_track = redriven && (settled || self.story.overflowed);
        let may_stop = !there || taken || known || lost_track;
        Some((true, may_stop))
    }

    /// What is known of queues that are gone, and of deliveries long ago, is let go.
    fn forget(&mut self, shard: &Shard) {
        let state = shard.core.state();
        let lives: BTreeSet<Life> = state
            .queues()
            .iter()
            .map(|(_, queue)| (queue.name.as_str().to_owned(), queue.id.serial))
            .collect();
        self.failures.retain(|(life, _), _| lives.contains(life));
        self.delivered.retain(|(life, _)| lives.contains(life));
        self.reached.retain(|(life, _), _| lives.contains(life));
        self.ids.retain(|(life, _), _| lives.contains(life));
        if self.story.restarted {
            let copies = self.copies.iter().filter(|copy| copy.at.is_some());
            self.old = copies.map(|copy| (copy.life.clone(), copy.message)).collect();
        }
        for (life, in_flight) in state.queues().iter().map(|(_, queue)| {
            let life = (queue.name.as_str().to_owned(), queue.id.serial);
            let leases = self.leases.iter().filter(|lease| lease.life == life).count() as u64;
            (life, leases)
        }) {
            let live = self.copies.iter().filter(|copy| copy.life == life).count() as u64;
            assert!(in_flight <= live, "what is in flight is there");
        }
    }

    /// The queues that a publish reaches and those that know its id already, by naive rules.
    pub fn expect(&self, shard: &Shard, targets: &[String], id: u64) -> (Vec<String>, u32) {
        let (mut fresh, mut duplicates) = (Vec::new(), 0);
        for queue in targets {
            let (config, _) = super::moves::queue(queue);
            let life = self.life(shard, queue).expect("routes lead to queues");
            let seen = self.ids.get(&(life, id));
            let window = config.dedup_us.filter(|_| id != 0);
            let known = window.is_some_and(|w| seen.is_some_and(|at| at + w >= shard.log.now));
            if known {
                duplicates += 1;
            } else {
                fresh.push(queue.clone());
            }
        }
        (fresh, duplicates)
    }
}
