//! Looking at locks.

use anyhow::{Context, Result};
use leasehold::Mode;
use leasehold::engine::LockView;
use serde_json::{Value, json};

use crate::cli::Global;
use crate::failure::{Failure, REFUSED};
use crate::{connect, print, span};

/// `lock ls`.
pub async fn list(prefix: &str, global: &Global) -> Result<()> {
    let handle = connect::open(global, None).await.context("list locks")?;
    let mut views = handle.locks_with_prefix(prefix).await.context("list locks")?;
    views.sort_by(|a, b| a.name.cmp(&b.name));
    let rows = views.iter().map(|view| {
        let holder = view.holders.first();
        [
            view.name.clone(),
            holder.map_or("–".to_owned(), |holder| mode(holder.mode)),
            view.holders.len().to_string(),
            view.waiting.to_string(),
            holder.map_or("–".to_owned(), |holder| holder.token.to_string()),
            holder.and_then(|holder| holder.left).map_or("–".to_owned(), span::show),
            holder.and_then(|holder| holder.label.clone()).unwrap_or_default(),
        ]
    });
    let head = ["LOCK", "MODE", "HOLDERS", "WAITING", "TOKEN", "LEFT", "HOLDER"];
    let all: Vec<Value> = views.iter().map(to_json).collect();
    print::either(global.json, &all.into(), || print::table(head, rows))
}

/// `lock show`.
pub async fn show(name: &str, global: &Global) -> Result<()> {
    let handle = connect::open(global, None).await.with_context(|| format!("show lock {name}"))?;
    let view = handle.inspect(name).await.with_context(|| format!("show lock {name}"))?;
    print::either(global.json, &to_json(&view), || to_text(name, &view))
}

/// `lock release`.
pub async fn release(name: &str, if_token: Option<u64>, global: &Global) -> Result<()> {
    let asked = || format!("release lock {name}");
    let handle = connect::open(global, None).await.with_context(asked)?;
    if let Some(token) = if_token
        && !handle.check(name, token).await.with_context(asked)?
    {
        let wrong = format!("it is not held with token {token} any more; nothing was done");
        return Err(Failure::new(REFUSED, wrong)).with_context(asked);
    }
    let ended = handle.force_release(name).await.with_context(asked)?;
    let text = || match ended {
        0 => format!("nobody held lock {name}"),
        1 => format!("lock {name} was taken away from its holder"),
        more => format!("lock {name} was taken away from {more} holders"),
    };
    print::either(global.json, &json!({ "name": name, "ended": ended }), text)
}

/// Who holds a lock, in half a line.
pub fn held_by(view: &LockView) -> String {
    let Some(holder) = view.holders.first() else {
        let delayed = !view.delay_left.is_zero();
        return match delayed {
            true => format!("nobody may have it for another {}", span::show(view.delay_left)),
            false => "somebody held it a moment ago".to_owned(),
        };
    };
    let nameless = || match holder.session {
        0 => format!("somebody with token {}", holder.token),
        session => format!("session {session}"),
    };
    let who = holder.label.clone().unwrap_or_else(nameless);
    let since = span::show(holder.held);
    match view.holders.len() {
        1 => format!("held by {who}, since {since}"),
        many => format!("held by {who}, since {since}, and {} more", many - 1),
    }
}

fn mode(mode: Mode) -> String {
    match mode {
        Mode::Exclusive => "exclusive".to_owned(),
        Mode::Shared => "shared".to_owned(),
        Mode::Permits { take, of } => format!("{take} of {of}"),
    }
}

fn to_json(view: &LockView) -> Value {
    let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let holder = |holder: &leasehold::engine::HolderView| {
        json!({
            "token": holder.token,
            "session": holder.session,
            "mode": mode(holder.mode),
            "held_ms": ms(holder.held),
            "left_ms": holder.left.map(ms),
            "entries": holder.entries,
            "label": holder.label,
        })
    };
    let waiter = |waiter: &leasehold::engine::WaiterView| {
        json!({
            "session": waiter.session,
            "mode": mode(waiter.mode),
            "waited_ms": ms(waiter.waited),
            "expected_ms": waiter.expected.map(ms),
            "label": waiter.label,
        })
    };
    json!({
        "name": view.name,
        "holders": view.holders.iter().map(holder).collect::<Vec<_>>(),
        "waiters": view.waiters.iter().map(waiter).collect::<Vec<_>>(),
        "waiting": view.waiting,
        "delay_left_ms": ms(view.delay_left),
        "hold_average_ms": view.hold_average.map(ms),
    })
}

fn to_text(name: &str, view: &LockView) -> String {
    let mut parts = Vec::new();
    match view.holders.is_empty() {
        true if !view.delay_left.is_zero() => {
            let left = span::show(view.delay_left);
            parts.push(format!("{name}: nobody holds it, and nobody may for another {left}"));
        }
        true => parts.push(format!("{name}: nobody holds it")),
        false => {
            let rows = view.holders.iter().map(|holder| {
                [
                    holder.token.to_string(),
                    mode(holder.mode),
                    span::show(holder.held),
                    holder.left.map_or("–".to_owned(), span::show),
                    holder.label.clone().unwrap_or_default(),
                ]
            });
            parts.push(print::table(["TOKEN", "MODE", "HELD", "LEFT", "HOLDER"], rows));
        }
    }
    if !view.waiters.is_empty() {
        let rows = view.waiters.iter().enumerate().map(|(place, waiter)| {
            [
                (place + 1).to_string(),
                mode(waiter.mode),
                span::show(waiter.waited),
                waiter.expected.map_or("–".to_owned(), span::show),
                waiter.label.clone().unwrap_or_default(),
            ]
        });
        parts.push(print::table(["PLACE", "MODE", "WAITED", "STILL", "WAITER"], rows));
    }
    parts.join("\n\n")
}
