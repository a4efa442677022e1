//! Exchanges, bindings and queues come and go.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::checkpoint::{CellKey, Mark};
use crate::message::decode_headers;
use crate::queue::{Lane, Queue, QueueConfig, QueueTotals};
use crate::topology::{Exchange, ExchangeConfig, Route, RouteTo};
use crate::window::Window;
use crate::{Durable, Name, QueueId, SessionId};

impl Durable {
    pub(super) fn declare_queue(
        &mut self,
        slot: u32,
        serial: u32,
        name: &str,
        owner: SessionId,
        config: &[u8],
    ) {
        self.queue_serial = self.queue_serial.max(serial);
        let config = QueueConfig::decode(config).expect("journaled settings were checked");
        self.insert_queue(Queue {
            id: QueueId { slot, serial },
            name: Name::new(name).expect("journaled names were checked"),
            owner,
            lanes: alloc::vec![Lane::default(); usize::from(config.priority_max) + 1],
            config,
            messages: 0,
            bytes: 0,
            delayed: 0,
            paused: false,
            bindings: 0,
            dedup: Window::default(),
            totals: QueueTotals::default(),
            mark: Mark::default(),
        });
        self.touch_queue(slot);
    }

    pub(crate) fn insert_queue(&mut self, queue: Queue) {
        let hash = self.queue_index.hash_bytes(queue.name.as_bytes());
        self.queue_index.insert(hash, queue.id.slot);
        self.queues.insert_at(queue.id.slot, queue);
    }

    pub(super) fn delete_queue(&mut self, slot: u32) {
        let queue = self.queues.remove(slot).expect("the queue");
        let hash = self.queue_index.hash_bytes(queue.name.as_bytes());
        self.queue_index.remove(hash, slot);
        self.messages -= queue.messages + queue.delayed;
        for (lane, state) in queue.lanes.iter().enumerate() {
            for page in &state.pages {
                self.resident -= page.items.len();
                let key = CellKey::Page(crate::index::ListId::Lane(slot, lane as u8), page.base);
                self.changed.removed(page.mark, key);
            }
        }
        self.changed.forget_window(CellKey::Dedup(slot, 0), &queue.dedup);
        self.changed.removed(queue.mark, CellKey::Queue(slot));
        if queue.bindings > 0 {
            self.drop_routes(|to| to == RouteTo::Queue(slot));
        }
    }

    /// After a restart transient queues and exchanges are gone.
    pub(super) fn boot_queues(&mut self) {
        let gone: Vec<u32> = self
            .queues
            .iter()
            .filter(|(_, queue)| !queue.config.durable)
            .map(|(slot, _)| slot)
            .collect();
        gone.into_iter().for_each(|slot| self.delete_queue(slot));
        let gone: Vec<u32> = self
            .exchanges
            .iter()
            .filter(|(_, exchange)| !exchange.config.durable)
            .map(|(slot, _)| slot)
            .collect();
        gone.into_iter().for_each(|slot| self.delete_exchange(slot));
    }

    pub(super) fn declare_exchange(&mut self, slot: u32, name: &str, config: ExchangeConfig) {
        self.insert_exchange(
            slot,
            Exchange {
                name: Name::new(name).expect("journaled names were checked"),
                config,
                routes: Default::default(),
                bindings: 0,
                mark: Mark::default(),
            },
        );
        self.exchanges[slot].mark.touch();
        self.changed.touched(CellKey::Exchange(slot));
    }

    pub(crate) fn insert_exchange(&mut self, slot: u32, exchange: Exchange) {
        let hash = self.exchange_index.hash_bytes(exchange.name.as_bytes());
        self.exchange_index.insert(hash, slot);
        self.exchanges.insert_at(slot, exchange);
    }

    pub(super) fn delete_exchange(&mut self, slot: u32) {
        let exchange = self.exchanges.remove(slot).expect("the exchange");
        let hash = self.exchange_index.hash_bytes(exchange.name.as_bytes());
        self.exchange_index.remove(hash, slot);
        for (key, routes) in exchange.routes {
            for route in &routes.list {
                self.unlink_route(route.to);
            }
            self.changed.removed(routes.mark, CellKey::Routes(slot, key));
        }
        self.changed.removed(exchange.mark, CellKey::Exchange(slot));
        self.drop_routes(|to| to == RouteTo::Exchange(slot));
    }

    fn unlink_route(&mut self, to: RouteTo) {
        if let RouteTo::Queue(queue) = to
            && let Some(queue) = self.queues.get_mut(queue)
        {
            queue.bindings -= 1;
            let slot = queue.id.slot;
            self.touch_queue(slot);
        }
    }

    /// Drops all routes to a destination that is gone.
    fn drop_routes(&mut self, gone: impl Fn(RouteTo) -> bool) {
        let slots: Vec<u32> = self.exchanges.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let keys: Vec<Arc<str>> = self.exchanges[slot]
                .routes
                .iter()
                .filter(|(_, routes)| routes.list.iter().any(|route| gone(route.to)))
                .map(|(key, _)| key.clone())
                .collect();
            for key in keys {
                self.edit_routes(slot, &key, |list| list.retain(|route| !gone(route.to)));
            }
        }
    }

    fn edit_routes(&mut self, slot: u32, key: &Arc<str>, edit: impl FnOnce(&mut Vec<Route>)) {
        let exchange = &mut self.exchanges[slot];
        let routes = exchange.routes.entry(key.clone()).or_default();
        exchange.bindings -= routes.list.len();
        edit(&mut routes.list);
        exchange.bindings += routes.list.len();
        if routes.list.is_empty() {
            let routes = exchange.routes.remove(key).expect("just edited");
            self.changed.removed(routes.mark, CellKey::Routes(slot, key.clone()));
        } else if routes.mark.touch() {
            self.changed.touched(CellKey::Routes(slot, key.clone()));
        }
    }

    pub(super) fn bind(&mut self, slot: u32, key: &str, to: RouteTo, args: &[u8], match_all: bool) {
        let arguments = decode_headers(args).expect("checked when decoded");
        self.edit_routes(slot, &key.into(), |list| list.push(Route { to, arguments, match_all }));
        if let RouteTo::Queue(queue) = to {
            self.queues[queue].bindings += 1;
            self.touch_queue(queue);
        }
    }

    pub(super) fn unbind(
        &mut self,
        slot: u32,
        key: &str,
        to: RouteTo,
        args: &[u8],
        match_all: bool,
    ) {
        let arguments = decode_headers(args).expect("checked when decoded");
        let gone = Route { to, arguments, match_all };
        self.edit_routes(slot, &key.into(), |list| {
            if let Some(i) = list.iter().position(|route| *route == gone) {
                list.remove(i);
            }
        });
        self.unlink_route(to);
    }
}
