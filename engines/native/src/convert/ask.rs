//! What is asked, in the core's words.

use std::sync::Arc;

use leasehold_api::Result;
use leasehold_api::engine as api;
use leasehold_core as core;
use leasehold_core::message::{Headers, More};
use leasehold_core::{Refusal, RequestId, SessionId, Token, queue, topology};

use super::{name, session, us, wall_us};
use crate::error::refused;

pub(crate) fn request(request: Option<api::RequestId>) -> Option<RequestId> {
    request.map(|request| RequestId(request.0))
}

pub(crate) fn wait(wait: api::Wait) -> core::Wait {
    match wait {
        api::Wait::No => core::Wait::No,
        api::Wait::AtMost(time) => core::Wait::AtMost(us(time)),
        api::Wait::Forever => core::Wait::Forever,
    }
}

fn mode(mode: api::Mode) -> core::Mode {
    match mode {
        api::Mode::Exclusive => core::Mode::Exclusive,
        api::Mode::Shared => core::Mode::Shared,
        api::Mode::Permits { take, of } => core::Mode::Permits { take, of },
    }
}

pub(crate) fn acquire(ask: &api::Acquire) -> Result<core::Acquire> {
    let want = |want: &api::Want| Ok((name(&want.name)?, mode(want.mode)));
    let wants = match &ask.wants[..] {
        [one] => {
            let (name, mode) = want(one)?;
            core::Wants::One(name, mode)
        }
        many => core::Wants::Many(many.iter().map(want).collect::<Result<_>>()?),
    };
    Ok(core::Acquire {
        wants,
        hold: ask.hold,
        reentrant: ask.reentrant,
        tenure: core::Tenure { ttl_us: ask.ttl.map(us), session: ask.bound },
        wait: wait(ask.wait),
        lock_delay_us: us(ask.lock_delay),
        label: ask.label.clone(),
    })
}

pub(crate) fn hold(hold: &api::HoldRef) -> Result<core::HoldRef> {
    Ok(core::HoldRef { name: name(&hold.name)?, token: Token(hold.token), hold: hold.hold })
}

pub(crate) fn list(what: core::Listed, list: &api::List) -> core::Op {
    let prefix = list.prefix.as_str().into();
    core::Op::List(core::List { what, prefix, after: list.after, max: list.max })
}

pub(crate) fn write(write: &api::Write) -> Result<core::Write> {
    let guard = match &write.guard {
        Some((lock, token)) => Some((name(lock)?, Token(*token))),
        None => None,
    };
    Ok(core::Write {
        key: Arc::from(&write.key[..]),
        value: write.value.as_deref().map(Arc::from),
        expect: match write.expect {
            api::Expect::Anything => core::Expect::Anything,
            api::Expect::Absent => core::Expect::Absent,
            api::Expect::Present => core::Expect::Present,
            api::Expect::Version(version) => core::Expect::Version(version),
        },
        ttl: match write.ttl {
            api::RegisterTtl::Never => core::RegisterTtl::Never,
            api::RegisterTtl::Keep => core::RegisterTtl::Keep,
            api::RegisterTtl::After(ttl) => core::RegisterTtl::After(us(ttl)),
        },
        guard,
    })
}

pub(crate) fn queue_config(config: &api::QueueConfig) -> Result<core::QueueConfig> {
    let dead_letter = match &config.dead_letter {
        Some(api::DeadLetter { exchange, routing_key }) => Some(queue::DeadLetter {
            exchange: exchange.as_deref().map(name).transpose()?,
            routing_key: routing_key.as_deref().map(Arc::from),
        }),
        None => None,
    };
    Ok(core::QueueConfig {
        durable: config.durable,
        messages_max: config.messages_max,
        bytes_max: config.bytes_max,
        overflow: match config.overflow {
            api::Overflow::DropOldest => queue::Overflow::DropOldest,
            api::Overflow::Reject => queue::Overflow::Reject,
        },
        ttl_us: config.ttl.map(us),
        lease_us: config.lease.map(us),
        deliveries_max: config.deliveries_max,
        dead_letter,
        priority_max: config.priority_max,
        dedup_us: config.dedup.map(us),
        single_active: config.single_active,
        exclusive: false,
        auto_delete: config.auto_delete,
    })
}

pub(crate) fn exchange_config(config: &api::ExchangeConfig) -> topology::ExchangeConfig {
    topology::ExchangeConfig {
        kind: match config.kind {
            api::ExchangeKind::Direct => topology::ExchangeKind::Direct,
            api::ExchangeKind::Fanout => topology::ExchangeKind::Fanout,
            api::ExchangeKind::Topic => topology::ExchangeKind::Topic,
            api::ExchangeKind::Headers => topology::ExchangeKind::Headers,
        },
        durable: config.durable,
        auto_delete: config.auto_delete,
        internal: config.internal,
    }
}

pub(crate) fn binding(binding: &api::Binding) -> Result<Box<topology::Binding>> {
    Ok(Box::new(topology::Binding {
        exchange: name(&binding.exchange)?,
        to: match &binding.to {
            api::Destination::Queue(queue) => topology::Destination::Queue(name(queue)?),
            api::Destination::Exchange(other) => topology::Destination::Exchange(name(other)?),
        },
        key: Arc::from(&binding.key[..]),
        arguments: binding.arguments.iter().cloned().map(header).collect(),
        match_all: binding.match_all,
    }))
}

fn header((name, value): (String, api::Value)) -> (Box<str>, core::Value) {
    let value = match value {
        api::Value::Bool(flag) => core::Value::Bool(flag),
        api::Value::Int(number) => core::Value::Int(number),
        api::Value::Float(number) => core::Value::Float(number.to_bits()),
        api::Value::Text(text) => core::Value::Text(text.into()),
        api::Value::Bytes(bytes) => core::Value::Bytes(bytes.into()),
    };
    (name.into(), value)
}

fn message(message: api::Message) -> core::Message {
    let api::Message { body, priority, transient, headers, id, key, ttl, due } = message;
    let plain = headers.is_empty() && id.is_none() && key.is_none() && ttl.is_none();
    let more = (!plain || due != api::Due::Now).then(|| {
        Box::new(More {
            headers: headers.into_iter().map(header).collect::<Headers>(),
            properties: Vec::new(),
            id: id.map(Arc::from),
            key: key.map(Arc::from),
            ttl_us: ttl.map(us),
            due: match due {
                api::Due::Now => core::Due::Now,
                api::Due::After(delay) => core::Due::After(us(delay)),
                api::Due::At(at) => core::Due::At(wall_us(at)),
            },
        })
    });
    core::Message { body, priority, transient, more }
}

pub(crate) fn publish(publish: api::Publish) -> Result<core::Publish> {
    let target = match &publish.target {
        api::Target::Queue(queue) => core::Target::QueueNamed(name(queue)?),
        api::Target::Exchange(exchange, key) => {
            core::Target::Exchange(name(exchange)?, key.clone())
        }
    };
    let mandatory = publish.mandatory;
    Ok(core::Publish { target, message: message(publish.message), mandatory })
}

pub(crate) fn receipt(receipt: &api::Receipt) -> Result<core::Receipt> {
    let token = Token(receipt.token);
    match u32::try_from(receipt.place) {
        Ok(slot) => Ok(core::Receipt { slot, token }),
        Err(_) => {
            let slot = u32::MAX;
            Err(refused(&Refusal::UnknownDelivery(core::Receipt { slot, token })))
        }
    }
}

pub(crate) fn verdict(verdict: api::Verdict) -> core::Verdict {
    match verdict {
        api::Verdict::Ack => core::Verdict::Ack,
        api::Verdict::Nack(delay) => core::Verdict::Nack { delay_us: us(delay) },
        api::Verdict::Reject => core::Verdict::Reject,
    }
}

pub(crate) fn commit(commit: &api::Commit) -> Result<core::Commit> {
    let check = |(lock, token): &(Arc<str>, u64)| Ok((name(lock)?, Token(*token)));
    let settle = |(delivery, how): &(api::Receipt, api::Verdict)| {
        Ok((SessionId(delivery.session.id), receipt(delivery)?, verdict(*how)))
    };
    let release = |held: &api::HoldRef| Ok((session(held.session.as_ref()), hold(held)?));
    Ok(core::Commit {
        checks: commit.checks.iter().map(check).collect::<Result<_>>()?,
        settles: commit.settles.iter().map(settle).collect::<Result<_>>()?,
        publishes: commit.publishes.iter().cloned().map(publish).collect::<Result<_>>()?,
        writes: commit.writes.iter().map(write).collect::<Result<_>>()?,
        releases: commit.releases.iter().map(release).collect::<Result<_>>()?,
    })
}
