//! Lists: a page at a time, and a page never costs more than a step may.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::watch::SHOWN;
use crate::outcome::{Outcome, Refusal};
use crate::slab::Slab;
use crate::step::Step;
use crate::{List, Listed, ListedItem, Listing, Name};

/// Items of one page at most.
const LIST_MAX: u32 = 1000;

/// Where the slots of claimed keys begin in a list of locks; slots are below 2^30.
const CLAIMS: u32 = 1 << 31;

impl Step<'_> {
    pub(super) fn list(&self, list: &List) -> Result<Outcome, Refusal> {
        if list.max == 0 {
            return Err(Refusal::Zero("the number of items"));
        }
        Self::check_size("the number of items", list.max as usize, LIST_MAX as usize)?;
        let prefix = list.prefix.as_bytes();
        let listing = match list.what {
            Listed::Locks => self.list_locks(list),
            Listed::Queues => self.page_of(&self.d.queues, list, |slot, queue| {
                let name = &queue.name;
                let view = || Box::new(self.queue_view(slot, 0));
                let wanted = name.as_bytes().starts_with(prefix);
                wanted.then(|| ListedItem::Queue { name: name.clone(), view: view() })
            }),
            Listed::Exchanges => self.page_of(&self.d.exchanges, list, |_, exchange| {
                exchange.name.as_bytes().starts_with(prefix).then(|| ListedItem::Exchange {
                    name: exchange.name.clone(),
                    config: exchange.config,
                    bindings: exchange.bindings as u32,
                })
            }),
            Listed::Sessions => self.page_of(&self.v.sessions, list, |_, session| {
                Some(ListedItem::Session {
                    id: session.id,
                    label: session.label.clone(),
                    left_us: self.left(session.deadline),
                    holds: session.holds,
                    waiting: session.waiting,
                    consumers: session.consumers,
                    in_flight: session.in_flight,
                })
            }),
            Listed::Registers => self.page_of(&self.d.registers, list, |_, register| {
                let wanted = register.key.starts_with(prefix) && self.is_live(register);
                wanted.then(|| ListedItem::Register {
                    key: register.key.clone(),
                    version: register.version,
                    bytes: u32::try_from(register.bytes).unwrap_or(u32::MAX),
                    left_us: self.left(register.expires),
                })
            }),
        };
        Ok(Outcome::Listed(Box::new(listing)))
    }

    /// Locks, and then the keys that are claimed, whose slots go on at [`CLAIMS`].
    fn list_locks(&self, list: &List) -> Listing {
        let item = |name: &Name| {
            let wanted = name.as_bytes().starts_with(list.prefix.as_bytes());
            let view = || Box::new(self.lock_view(name, SHOWN));
            wanted.then(|| ListedItem::Lock { name: name.clone(), view: view() })
        };
        let mut listing = match list.after {
            0..CLAIMS => self.page_of(&self.d.locks, list, |_, lock| item(&lock.name)),
            _ => Listing { items: Vec::new(), next: None },
        };
        if listing.next.is_some() {
            return listing;
        }
        let from = list.after.saturating_sub(CLAIMS);
        for (seen, &slot) in self.d.claims.range(from..).enumerate() {
            let full = listing.items.len() == list.max as usize;
            if full || seen == self.v.limits.work_per_step.max(1) {
                listing.next = Some(CLAIMS + slot);
                break;
            }
            listing.items.extend(self.claim_listed(slot).as_ref().and_then(item));
        }
        listing
    }

    /// Walks over slots until the page is full or the step's work is done.
    fn page_of<T>(
        &self,
        slab: &Slab<T>,
        list: &List,
        item: impl Fn(u32, &T) -> Option<ListedItem>,
    ) -> Listing {
        let work = u32::try_from(self.v.limits.work_per_step).unwrap_or(u32::MAX).max(1);
        let upto = slab.end().min(list.after.saturating_add(work));
        let mut items = Vec::new();
        let mut at = list.after;
        while at < upto && items.len() < list.max as usize {
            items.extend(slab.get(at).and_then(|object| item(at, object)));
            at += 1;
        }
        Listing { items, next: (at < slab.end()).then_some(at) }
    }
}
