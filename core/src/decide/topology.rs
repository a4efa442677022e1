//! Queues, exchanges and bindings: declared, found again, and taken away.
//!
//! Declaring is idempotent: what exists with equal settings is found, and what differs is named in
//! the refusal. Changing settings by declaring anew was rejected, because two programs that differ
//! by mistake would then fight silently. Deleting a queue takes its bindings along, and an
//! auto-delete exchange that loses its last binding goes too, which may cost another exchange its
//! last one: so it goes on until nothing more falls. Names that begin with "amq." mean nothing
//! here; they are the AMQP door's business.

use alloc::vec::Vec;

use crate::event::Event;
use crate::limits::NAME_BYTES;
use crate::message::encode_headers;
use crate::outcome::{ConsumerEnding, EffectKind, Outcome, Refusal};
use crate::queue::PRIORITY_MAX;
use crate::slab::NONE;
use crate::step::Step;
use crate::topology::{Binding, Destination, ExchangeConfig, RouteTo};
use crate::volatile::{Consumer, LaneSide, QueueSide};
use crate::{Name, QueueConfig, QueueId, SessionId};

impl Step<'_> {
    pub(crate) fn declare_queue(
        &mut self,
        session: SessionId,
        name: Name,
        config: &QueueConfig,
    ) -> Result<Outcome, Refusal> {
        self.check_queue_config(config)?;
        let owner = if config.exclusive { self.require_session(session)? } else { NONE };
        if self.d.queue_named(name.as_str()).is_some() {
            let slot = self.usable_queue(session, &name)?;
            let queue = &self.d.queues[slot];
            if let Some(what) = first_difference(&queue.config, config) {
                return Err(Refusal::Different(what));
            }
            let (id, messages) = (queue.id, queue.messages);
            let side = self.v.queue_mut(slot);
            let ready = messages.saturating_sub(side.in_flight);
            let consumers = side.consumers.len() as u32;
            return Ok(Outcome::Queue { id, existed: true, ready, consumers });
        }
        Self::check_limit("queues", self.d.queues.len(), self.v.limits.queues_max)?;
        let (slot, serial) = (self.d.queues.next_slot(), self.d.queue_serial + 1);
        let mut encoded = Vec::new();
        config.encode(&mut encoded);
        let owner_id = if owner == NONE { SessionId::NONE } else { session };
        self.emit(Event::QueueDeclared {
            slot,
            serial,
            name: name.as_str(),
            owner: owner_id,
            config: &encoded,
        });
        self.reset_side(slot, usize::from(config.priority_max) + 1);
        if owner != NONE {
            self.v.sessions[owner].queues.push(slot);
        }
        let id = QueueId { slot, serial };
        Ok(Outcome::Queue { id, existed: false, ready: 0, consumers: 0 })
    }

    /// A queue's reading side begins anew. Whether it is on the list of queues to look at stays.
    fn reset_side(&mut self, slot: u32, lanes: usize) {
        let side = self.v.queue_mut(slot);
        let (timer, listed, crowded) = (side.timer, side.listed, side.crowded);
        *side = QueueSide {
            timer: NONE,
            listed,
            crowded,
            lanes: alloc::vec![LaneSide::default(); lanes],
            ..QueueSide::default()
        };
        self.v.wheel.cancel(timer);
    }

    fn check_queue_config(&self, config: &QueueConfig) -> Result<(), Refusal> {
        Self::check_size("the highest priority", config.priority_max.into(), PRIORITY_MAX.into())?;
        let times = [
            ("the message TTL", config.ttl_us),
            ("the delivery lease", config.lease_us),
            ("the deduplication window", config.dedup_us),
        ];
        for (what, time) in times {
            if let Some(time) = time {
                self.check_time(what, time)?;
            }
        }
        let counts = [
            ("the highest number of deliveries", config.deliveries_max.map(u64::from)),
            ("the highest number of messages", config.messages_max),
            ("the highest number of bytes", config.bytes_max),
        ];
        if let Some((what, _)) = counts.iter().find(|(_, count)| *count == Some(0)) {
            return Err(Refusal::Zero(what));
        }
        if config.exclusive && config.durable {
            return Err(Refusal::BadSettings(
                "an exclusive queue ends with its session; declare it as not durable",
            ));
        }
        let Some(dead) = &config.dead_letter else { return Ok(()) };
        let Some(key) = &dead.routing_key else {
            return match dead.exchange {
                Some(_) => Ok(()),
                None => Err(Refusal::BadSettings(
                    "dead letters need an exchange, a routing key, or both; give one",
                )),
            };
        };
        Self::check_size("the dead-letter routing key", key.len(), NAME_BYTES)?;
        if dead.exchange.is_none() && Name::new(key).is_err() {
            return Err(Refusal::BadSettings(
                "without an exchange the dead-letter routing key must be the name of a queue",
            ));
        }
        Ok(())
    }

    pub(crate) fn delete_queue_named(
        &mut self,
        session: SessionId,
        name: &Name,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<Outcome, Refusal> {
        let slot = self.usable_queue(session, name)?;
        if if_unused && !self.v.queue_mut(slot).consumers.is_empty() {
            return Err(Refusal::InUse);
        }
        let messages = self.d.queues[slot].messages;
        if if_empty && messages > 0 {
            return Err(Refusal::NotEmpty);
        }
        self.delete_queue_slot(slot);
        Ok(Outcome::Dropped(messages))
    }

    pub(crate) fn delete_queue_slot(&mut self, slot: u32) {
        let id = self.d.queues[slot].id;
        for consumer in self.v.queue_mut(slot).consumers.clone() {
            let Consumer { ticket, once, .. } = self.v.consumers[consumer];
            self.drop_consumer(consumer);
            if once {
                self.refuse(ticket, Refusal::NoQueue);
            } else {
                self.effect(EffectKind::ConsumerEnded(ticket, ConsumerEnding::QueueDeleted));
            }
        }
        // The last consumer may have taken an auto-delete queue with it.
        let Some(queue) = self.d.queues.get(slot).filter(|queue| queue.id == id) else { return };
        let (owner, bound) = (queue.owner, queue.bindings > 0);
        self.drop_flights_of(slot);
        if let Some(owner) = self.v.session(owner) {
            self.v.sessions[owner].queues.retain(|queue| *queue != slot);
        }
        let losing =
            if bound { self.auto_delete_leading_to(RouteTo::Queue(slot)) } else { Vec::new() };
        self.emit(Event::QueueDeleted { slot });
        self.reset_side(slot, 0);
        self.delete_unbound(losing);
    }

    /// Auto-delete exchanges with a binding to a destination that is about to go.
    fn auto_delete_leading_to(&self, gone: RouteTo) -> Vec<u32> {
        let exchanges = self.d.exchanges.iter().filter(|(_, exchange)| exchange.config.auto_delete);
        let leads = exchanges.filter(|(_, exchange)| {
            exchange.routes.values().flat_map(|routes| &routes.list).any(|route| route.to == gone)
        });
        leads.map(|(slot, _)| slot).collect()
    }

    /// Deletes those of the exchanges that have no binding left, and whatever falls with them.
    fn delete_unbound(&mut self, mut open: Vec<u32>) {
        while let Some(slot) = open.pop() {
            let exchange = self.d.exchanges.get(slot);
            if exchange.is_some_and(|e| e.config.auto_delete && e.routes.is_empty()) {
                open.extend(self.auto_delete_leading_to(RouteTo::Exchange(slot)));
                self.emit(Event::ExchangeDeleted { slot });
            }
        }
    }

    pub(crate) fn declare_exchange(
        &mut self,
        name: &Name,
        config: ExchangeConfig,
    ) -> Result<Outcome, Refusal> {
        if let Some(slot) = self.d.exchange_named(name.as_str()) {
            let known = self.d.exchanges[slot].config;
            let settings = [
                ("kind", known.kind == config.kind),
                ("durable", known.durable == config.durable),
                ("auto_delete", known.auto_delete == config.auto_delete),
                ("internal", known.internal == config.internal),
            ];
            return match settings.iter().find(|(_, same)| !same) {
                Some((what, _)) => Err(Refusal::Different(what)),
                None => Ok(Outcome::Done),
            };
        }
        Self::check_limit("exchanges", self.d.exchanges.len(), self.v.limits.exchanges_max)?;
        let slot = self.d.exchanges.next_slot();
        self.emit(Event::ExchangeDeclared { slot, name: name.as_str(), config });
        Ok(Outcome::Done)
    }

    pub(crate) fn delete_exchange_named(
        &mut self,
        name: &Name,
        if_unused: bool,
    ) -> Result<Outcome, Refusal> {
        let slot = self.exchange_slot(name)?;
        if if_unused && !self.d.exchanges[slot].routes.is_empty() {
            return Err(Refusal::InUse);
        }
        let losing = self.auto_delete_leading_to(RouteTo::Exchange(slot));
        self.emit(Event::ExchangeDeleted { slot });
        self.delete_unbound(losing);
        Ok(Outcome::Done)
    }

    fn exchange_slot(&self, name: &Name) -> Result<u32, Refusal> {
        let slot = self.d.exchange_named(name.as_str());
        slot.ok_or_else(|| Refusal::NoExchange(name.clone()))
    }

    /// The ends of a binding, and whether it is there.
    fn find_binding(
        &self,
        session: SessionId,
        binding: &Binding,
    ) -> Result<(u32, RouteTo, bool), Refusal> {
        let exchange = self.exchange_slot(&binding.exchange)?;
        let to = match &binding.to {
            Destination::Exchange(name) => RouteTo::Exchange(self.exchange_slot(name)?),
            Destination::Queue(name) => RouteTo::Queue(self.usable_queue(session, name)?),
        };
        let routes = self.d.exchanges[exchange].routes.get(&binding.key);
        let there = routes.into_iter().flat_map(|routes| &routes.list).any(|route| {
            route.to == to
                && route.match_all == binding.match_all
                && route.arguments == binding.arguments
        });
        Ok((exchange, to, there))
    }

    pub(crate) fn bind(
        &mut self,
        session: SessionId,
        binding: &Binding,
    ) -> Result<Outcome, Refusal> {
        let limits = &self.v.limits;
        let Binding { key, match_all, .. } = binding;
        Self::check_size("the routing key", key.len(), NAME_BYTES)?;
        let mut arguments = Vec::new();
        encode_headers(&binding.arguments, &mut arguments);
        Self::check_size("the size of the arguments", arguments.len(), limits.headers_bytes)?;
        let (exchange, to, there) = self.find_binding(session, binding)?;
        if there {
            return Ok(Outcome::Done);
        }
        let bindings = self.d.exchanges[exchange].bindings;
        Self::check_limit("bindings of the exchange", bindings, limits.bindings_max)?;
        let (arguments, match_all) = (&arguments[..], *match_all);
        self.emit(Event::Bound { exchange, key, to, arguments, match_all });
        Ok(Outcome::Done)
    }

    pub(crate) fn unbind(
        &mut self,
        session: SessionId,
        binding: &Binding,
    ) -> Result<Outcome, Refusal> {
        let (exchange, to, there) = self.find_binding(session, binding)?;
        if !there {
            return Err(Refusal::NoBinding);
        }
        let mut arguments = Vec::new();
        encode_headers(&binding.arguments, &mut arguments);
        let (arguments, match_all) = (&arguments[..], binding.match_all);
        self.emit(Event::Unbound { exchange, key: &binding.key, to, arguments, match_all });
        self.delete_unbound(alloc::vec![exchange]);
        Ok(Outcome::Done)
    }
}

/// The first setting in which two declarations differ.
fn first_difference(known: &QueueConfig, asked: &QueueConfig) -> Option<&'static str> {
    let settings = [
        ("durable", known.durable == asked.durable),
        ("exclusive", known.exclusive == asked.exclusive),
        ("auto_delete", known.auto_delete == asked.auto_delete),
        ("priority_max", known.priority_max == asked.priority_max),
        ("messages_max", known.messages_max == asked.messages_max),
        ("bytes_max", known.bytes_max == asked.bytes_max),
        ("overflow", known.overflow == asked.overflow),
        ("ttl_us", known.ttl_us == asked.ttl_us),
        ("lease_us", known.lease_us == asked.lease_us),
        ("deliveries_max", known.deliveries_max == asked.deliveries_max),
        ("dead_letter", known.dead_letter == asked.dead_letter),
        ("dedup_us", known.dedup_us == asked.dedup_us),
        ("single_active", known.single_active == asked.single_active),
    ];
    settings.iter().find(|(_, same)| !same).map(|(what, _)| *what)
}
