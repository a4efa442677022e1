//! From a target to the queues it means.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::message::Headers;
use crate::outcome::Refusal;
use crate::step::Step;
use crate::topology::route;
use crate::{Name, QueueId, SessionId, Target};

impl Step<'_> {
    /// The slot of a queue that this session may use.
    pub(crate) fn usable_queue(&self, session: SessionId, name: &Name) -> Result<u32, Refusal> {
        let slot = self.d.queue_named(name.as_str()).ok_or(Refusal::NoQueue)?;
        let queue = &self.d.queues[slot];
        if queue.config.exclusive && queue.owner != session {
            return Err(Refusal::Exclusive);
        }
        Ok(slot)
    }

    /// The slot of the queue with this identity.
    pub(crate) fn queue_with(&self, id: QueueId) -> Result<u32, Refusal> {
        match self.d.queues.get(id.slot) {
            Some(queue) if queue.id == id => Ok(id.slot),
            _ => Err(Refusal::NoQueue),
        }
    }

    /// Collects the queues that a publish reaches.
    pub(crate) fn resolve(
        &self,
        target: &Target,
        headers: &Headers,
        out: &mut Vec<u32>,
    ) -> Result<(), Refusal> {
        out.clear();
        match target {
            Target::Queue(id) => out.push(self.queue_with(*id)?),
            Target::QueueNamed(name) => {
                out.push(self.d.queue_named(name.as_str()).ok_or(Refusal::NoQueue)?);
            }
            Target::Exchange(name, key) => {
                let missing = || Refusal::NoExchange(name.clone());
                let exchange = self.d.exchange_named(name.as_str()).ok_or_else(missing)?;
                if self.d.exchanges[exchange].config.internal {
                    return Err(Refusal::Internal(name.clone()));
                }
                Self::check_size("the routing key's length", key.len(), crate::limits::NAME_BYTES)?;
                route(&self.d, exchange, key, headers, out);
                Self::check_size(
                    "the number of queues reached",
                    out.len(),
                    self.v.limits.fan_out_max,
                )?;
            }
        }
        Ok(())
    }

    /// The exchange and routing key that a message is stored with.
    pub(crate) fn address(&self, target: &Target) -> (Option<Name>, Arc<str>) {
        match target {
            Target::Queue(id) => (None, self.d.queues[id.slot].name.shared()),
            Target::QueueNamed(name) => (None, name.shared()),
            Target::Exchange(name, key) => (Some(name.clone()), key.clone()),
        }
    }
}
