//! Looking at queues.

use anyhow::{Context, Result};
use leasehold::engine::QueueView;
use leasehold::{DeadLetter, Overflow, QueueConfig};
use serde_json::{Value, json};

use super::message;
use crate::cli::Global;
use crate::{connect, print, span};

/// Columns of a body in a list.
const GLANCE: usize = 60;

/// `queue ls`.
pub async fn list(prefix: &str, global: &Global) -> Result<()> {
    let handle = connect::open(global, None).await.context("list queues")?;
    let mut views = handle.queues_with_prefix(prefix).await.context("list queues")?;
    views.sort_by(|a, b| a.name.cmp(&b.name));
    let rows = views.iter().map(|view| {
        [
            view.name.clone(),
            view.ready.to_string(),
            view.in_flight.to_string(),
            (view.delayed + view.parked).to_string(),
            view.consumers.to_string(),
            bytes(view.bytes),
            if view.paused { "paused".to_owned() } else { String::new() },
        ]
    });
    let head = ["QUEUE", "READY", "IN FLIGHT", "LATER", "CONSUMERS", "SIZE", ""];
    let all: Vec<Value> = views.iter().map(to_json).collect();
    print::either(global.json, &all.into(), || print::table(head, rows))
}

/// `queue show`.
pub async fn show(name: &str, global: &Global) -> Result<()> {
    let queue = super::open(name, "show", global).await?;
    let view = queue.inspect().await.with_context(|| format!("show queue {name}"))?;
    print::either(global.json, &to_json(&view), || print::facts(&facts(&view)))
}

/// `queue peek`.
pub async fn peek(name: &str, max: u32, global: &Global) -> Result<()> {
    let queue = super::open(name, "peek", global).await?;
    let peeked = queue.peek(max).await.with_context(|| format!("peek queue {name}"))?;
    let object = |peeked: &leasehold::engine::Peeked| {
        let mut object = message::to_json(&peeked.content);
        object.insert("attempts".to_owned(), peeked.attempts.into());
        Value::Object(object)
    };
    let all: Vec<Value> = peeked.iter().map(object).collect();
    let rows = peeked.iter().map(|peeked| {
        let content = &peeked.content;
        let age = content.published_at.elapsed().unwrap_or_default();
        [
            content.id.clone().unwrap_or("–".to_owned()),
            content.key.clone().unwrap_or("–".to_owned()),
            content.priority.to_string(),
            peeked.attempts.to_string(),
            span::show(age),
            message::glance(&content.body, GLANCE),
        ]
    });
    let head = ["ID", "KEY", "PRIORITY", "FAILED", "AGE", "BODY"];
    print::either(global.json, &all.into(), || print::table(head, rows))
}

fn facts(view: &QueueView) -> Vec<(&'static str, String)> {
    let QueueConfig { durable, ttl, lease, dead_letter, overflow, .. } = &view.config;
    let some = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
    let totals = &view.totals;
    let mut rows = vec![
        ("queue", view.name.clone()),
        ("ready", view.ready.to_string()),
        ("in flight", view.in_flight.to_string()),
        ("delayed", view.delayed.to_string()),
        ("waiting for their key", view.parked.to_string()),
        ("size", bytes(view.bytes)),
        ("consumers", view.consumers.to_string()),
        ("deliveries", if view.paused { "held back" } else { "go out" }.to_owned()),
        ("survives a restart", if *durable { "yes" } else { "no" }.to_owned()),
        ("message TTL", some(ttl.map(span::show))),
        ("delivery lease", some(lease.map(span::show))),
        ("most deliveries", some(view.config.deliveries_max.map(|max| max.to_string()))),
        ("dead letters to", some(dead_letter.as_ref().map(destination))),
        ("most messages", some(view.config.messages_max.map(|max| max.to_string()))),
        ("most bytes", some(view.config.bytes_max.map(bytes))),
        ("beyond those", overflow_name(*overflow).to_owned()),
        ("highest priority", view.config.priority_max.to_string()),
        ("ids remembered", some(view.config.dedup.map(span::show))),
    ];
    for (name, total) in [
        ("published so far", totals.published),
        ("acknowledged", totals.acked),
        ("came back", totals.returned),
        ("dead-lettered", totals.dead),
        ("dropped", totals.dropped),
        ("purged", totals.purged),
    ] {
        rows.push((name, total.to_string()));
    }
    rows
}

fn destination(dead: &DeadLetter) -> String {
    let key = dead.routing_key.as_deref().unwrap_or("their own routing key");
    match &dead.exchange {
        Some(exchange) => format!("exchange {exchange} with {key}"),
        None => format!("queue {key}"),
    }
}

fn overflow_name(overflow: Overflow) -> &'static str {
    match overflow {
        Overflow::DropOldest => "drop-oldest",
        Overflow::Reject => "reject",
    }
}

fn to_json(view: &QueueView) -> Value {
    let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let config = &view.config;
    let totals = &view.totals;
    json!({
        "name": view.name,
        "ready": view.ready,
        "in_flight": view.in_flight,
        "delayed": view.delayed,
        "parked": view.parked,
        "bytes": view.bytes,
        "consumers": view.consumers,
        "paused": view.paused,
        "config": {
            "durable": config.durable,
            "messages_max": config.messages_max,
            "bytes_max": config.bytes_max,
            "overflow": overflow_name(config.overflow),
            "ttl_ms": config.ttl.map(ms),
            "lease_ms": config.lease.map(ms),
            "deliveries_max": config.deliveries_max,
            "dead_letter": config.dead_letter.as_ref().map(|dead| json!({
                "exchange": dead.exchange,
                "routing_key": dead.routing_key,
            })),
            "priority_max": config.priority_max,
            "dedup_ms": config.dedup.map(ms),
            "single_active": config.single_active,
            "auto_delete": config.auto_delete,
        },
        "totals": {
            "published": totals.published,
            "acked": totals.acked,
            "returned": totals.returned,
            "dead": totals.dead,
            "dropped": totals.dropped,
            "purged": totals.purged,
        },
    })
}

/// A size as people read it.
fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{size:.1} {}", units[unit]),
    }
}
