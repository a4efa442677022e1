//! What is answered, in the API's words.

use std::sync::Arc;

use leasehold_api::engine as api;
use leasehold_api::{Error, ErrorKind, Result, Retry};
use leasehold_core as core;
use leasehold_core::content::Kind;
use leasehold_core::index::DeathReason;
use leasehold_core::{Envelope, ListedItem, Listing, SessionId, outcome, queue};
use leasehold_node::{PeekedMessage, Received};

use super::{duration, wall};
use crate::error::garbled;

pub(crate) fn ending(ending: core::Ending) -> api::Ending {
    match ending {
        core::Ending::Expired => api::Ending::Expired,
        core::Ending::SessionLost => api::Ending::SessionLost,
        core::Ending::Revoked => api::Ending::Revoked,
        core::Ending::Released | core::Ending::Restarted => api::Ending::Unknown,
    }
}

fn mode(mode: core::Mode) -> api::Mode {
    match mode {
        core::Mode::Exclusive => api::Mode::Exclusive,
        core::Mode::Shared => api::Mode::Shared,
        core::Mode::Permits { take, of } => api::Mode::Permits { take, of },
    }
}

fn label(label: Option<Arc<str>>) -> Option<String> {
    label.map(|label| label.as_ref().to_owned())
}

fn holder(view: outcome::HolderView) -> api::HolderView {
    api::HolderView {
        token: view.token.0,
        session: view.session.0,
        mode: mode(view.mode),
        held: duration(view.held_us),
        left: view.left_us.map(duration),
        entries: view.entries,
        label: label(view.label),
    }
}

fn waiter(view: outcome::WaiterView) -> api::WaiterView {
    api::WaiterView {
        session: view.session.0,
        mode: mode(view.mode),
        waited: duration(view.waited_us),
        expected: view.expected_us.map(duration),
        label: label(view.label),
    }
}

pub(crate) fn lock_view(name: &str, view: outcome::LockView) -> api::LockView {
    api::LockView {
        name: name.to_owned(),
        holders: view.holders.into_iter().map(holder).collect(),
        waiters: view.waiters.into_iter().map(waiter).collect(),
        waiting: view.waiting,
        delay_left: duration(view.delay_left_us),
        hold_average: view.hold_average_us.map(duration),
    }
}

/// A register, if it is a plain value. Collections have no bytes that one could write back.
pub(crate) fn register(view: outcome::RegisterView) -> Result<api::Register> {
    let kind = match view.kind {
        Kind::Text => {
            let (value, left) = (view.value.to_vec(), view.left_us.map(duration));
            return Ok(api::Register { value, version: view.version, left });
        }
        Kind::Hash => "hash",
        Kind::List => "list",
        Kind::Set => "set",
        Kind::Sorted => "sorted set",
    };
    let wrong = format!("the key holds a {kind}; read it with a Redis client");
    Err(Error::new(ErrorKind::Invalid, wrong).with_retry(Retry::Never))
}

fn listed<T>(listing: Listing, item: impl Fn(ListedItem) -> Option<T>) -> api::Listed<T> {
    let items = listing.items.into_iter().filter_map(item).collect();
    api::Listed { items, next: listing.next }
}

pub(crate) fn locks(listing: Listing) -> api::Listed<api::LockView> {
    listed(listing, |item| match item {
        ListedItem::Lock { name, view } => Some(lock_view(name.as_str(), *view)),
        _ => None,
    })
}

pub(crate) fn queues(listing: Listing) -> api::Listed<api::QueueView> {
    listed(listing, |item| match item {
        ListedItem::Queue { name, view } => Some(queue_view(name.as_str(), *view)),
        _ => None,
    })
}

pub(crate) fn registers(listing: Listing) -> api::Listed<api::RegisterView> {
    listed(listing, |item| match item {
        ListedItem::Register { key, version, bytes, left_us } => {
            let left = left_us.map(duration);
            Some(api::RegisterView { key: key.to_vec(), version, bytes, left })
        }
        _ => None,
    })
}

fn queue_config(config: core::QueueConfig) -> api::QueueConfig {
    let dead_letter = |dead: queue::DeadLetter| api::DeadLetter {
        exchange: dead.exchange.map(|name| name.as_str().to_owned()),
        routing_key: dead.routing_key.map(|key| key.as_ref().to_owned()),
    };
    api::QueueConfig {
        durable: config.durable,
        messages_max: config.messages_max,
        bytes_max: config.bytes_max,
        overflow: match config.overflow {
            queue::Overflow::DropOldest => api::Overflow::DropOldest,
            queue::Overflow::Reject => api::Overflow::Reject,
        },
        ttl: config.ttl_us.map(duration),
        lease: config.lease_us.map(duration),
        deliveries_max: config.deliveries_max,
        dead_letter: config.dead_letter.map(dead_letter),
        priority_max: config.priority_max,
        dedup: config.dedup_us.map(duration),
        single_active: config.single_active,
        auto_delete: config.auto_delete,
    }
}

pub(crate) fn queue_view(name: &str, view: outcome::QueueView) -> api::QueueView {
    let totals = view.totals;
    api::QueueView {
        name: name.to_owned(),
        config: queue_config(view.config),
        ready: view.ready,
        in_flight: view.in_flight,
        delayed: view.delayed,
        parked: view.parked,
        bytes: view.bytes,
        consumers: view.consumers,
        paused: view.paused,
        totals: api::QueueTotals {
            published: totals.published,
            acked: totals.acked,
            returned: totals.returned,
            dead: totals.dead,
            dropped: totals.dropped,
            purged: totals.purged,
        },
    }
}

fn header((name, value): (Box<str>, core::Value)) -> (String, api::Value) {
    let value = match value {
        core::Value::Bool(flag) => api::Value::Bool(flag),
        core::Value::Int(number) => api::Value::Int(number),
        core::Value::Float(bits) => api::Value::Float(f64::from_bits(bits)),
        core::Value::Text(text) => api::Value::Text(text.into()),
        core::Value::Bytes(bytes) => api::Value::Bytes(bytes.into()),
    };
    (name.into(), value)
}

fn death(death: &core::index::Death) -> api::Death {
    let reason = match death.reason {
        DeathReason::Rejected => "rejected",
        DeathReason::Expired => "expired",
        DeathReason::Overflow => "overflow",
        DeathReason::Deliveries => "deliveries",
    };
    api::Death {
        queue: death.queue.as_str().to_owned(),
        reason: reason.to_owned(),
        count: death.count,
        first_at: wall(death.first_at),
    }
}

fn content(message: &Envelope<'_>, deaths: &[core::index::Death]) -> Result<api::Content> {
    let headers = message.headers().map_err(|error| garbled(&error))?;
    Ok(api::Content {
        body: message.body.to_vec(),
        priority: message.priority,
        headers: headers.into_iter().map(header).collect(),
        id: message.id.map(str::to_owned),
        key: message.key.map(str::to_owned),
        exchange: message.exchange.to_owned(),
        routing_key: message.routing_key.to_owned(),
        published_at: wall(message.published_at),
        deaths: deaths.iter().map(death).collect(),
    })
}

pub(crate) fn delivered(received: &Received, session: SessionId) -> Result<api::Delivered> {
    let message = received.message().map_err(|error| garbled(&error))?;
    let delivery = &received.delivery;
    Ok(api::Delivered {
        receipt: api::Receipt {
            token: delivery.receipt.token.0,
            place: u128::from(delivery.receipt.slot),
            session: api::SessionRef { id: session.0, proof: None },
        },
        attempt: delivery.attempt,
        redelivered: delivery.redelivered,
        content: content(&message, &delivery.deaths)?,
    })
}

pub(crate) fn peeked(one: &PeekedMessage) -> Result<api::Peeked> {
    let message = one.message().map_err(|error| garbled(&error))?;
    let content = content(&message, &one.peeked.deaths)?;
    Ok::<_, Error>(api::Peeked { attempts: one.peeked.attempts, content })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_value_is_a_register() {
        let view = |kind| outcome::RegisterView {
            value: Arc::from(&b"v"[..]),
            kind,
            version: 7,
            left_us: None,
        };
        assert_eq!(register(view(Kind::Text)).expect("it is plain").value, b"v");
        let error = register(view(Kind::Sorted)).expect_err("it is none");
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert_eq!(error.wrong, "the key holds a sorted set; read it with a Redis client");
    }
}
