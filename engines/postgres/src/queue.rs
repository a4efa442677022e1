//! Queues, exchanges and the commit: each method is one call of a function of the schema.

use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use leasehold_api::engine::{
    Binding, Commit, Consume, Delivered, Destination, List, Listed, Peeked, Publish, QueueEngine,
    QueueTotals, QueueView, Receipt, Receive,
};
use leasehold_api::{
    Error, ErrorKind, ExchangeConfig, ExchangeKind, Guarantees, Published, QueueConfig, Result,
    Verdict,
};
use leasehold_contenders::limits;
use tokio_postgres::Row;

use crate::PostgresEngine;
use crate::commit::{Settlements, place};
use crate::content::{Settings, content, text, time, tokens};
use crate::error::{invalid, odd};

/// Messages that one peek shows at most, and that one redrive moves at most.
const PEEK_MAX: u32 = 1000;
const REDRIVE_MAX: u32 = 10_000;

fn view(row: &Row) -> Result<QueueView> {
    let read = || {
        let count = |at| row.try_get::<_, i64>(at).map(|count| count.max(0).cast_unsigned());
        let (messages, in_flight, delayed, parked) = (count(3)?, count(4)?, count(5)?, count(6)?);
        let settings: String = row.try_get(1)?;
        let view = QueueView {
            name: row.try_get(0)?,
            config: QueueConfig::default(),
            ready: messages.saturating_sub(in_flight + delayed + parked),
            in_flight,
            delayed,
            parked,
            bytes: count(7)?,
            consumers: u32::try_from(count(8)?).unwrap_or(u32::MAX),
            paused: row.try_get(2)?,
            totals: QueueTotals {
                published: count(9)?,
                acked: count(10)?,
                returned: count(11)?,
                dead: count(12)?,
                dropped: count(13)?,
                purged: count(14)?,
            },
        };
        Ok((view, settings))
    };
    let (view, settings) = read().map_err(|error| odd(&error))?;
    Ok(QueueView { config: Settings::read(&settings)?.config(), ..view })
}

/// The number in the only column of the only row.
fn number(rows: &[Row]) -> Result<u64> {
    let read = |row: &Row| row.try_get::<_, i64>(0);
    let number = rows.first().map(read).transpose().map_err(|error| odd(&error))?;
    Ok(number.unwrap_or(0).max(0).cast_unsigned())
}

fn kind(kind: ExchangeKind) -> i16 {
    match kind {
        ExchangeKind::Direct => 0,
        ExchangeKind::Fanout => 1,
        ExchangeKind::Topic => 2,
        ExchangeKind::Headers => 3,
    }
}

/// A topic's pattern as a regular expression over ".word.word", which is empty for an empty key.
fn pattern(key: &str) -> String {
    let mut pattern = "^".to_owned();
    if !key.is_empty() {
        for word in key.split('.') {
            match word {
                "#" => pattern.push_str(r"(\.[^.]*)*"),
                "*" => pattern.push_str(r"\.[^.]*"),
                word => {
                    pattern.push_str(r"\.");
                    for char in word.chars() {
                        if char.is_ascii() && !char.is_ascii_alphanumeric() {
                            pattern.push('\\');
                        }
                        pattern.push(char);
                    }
                }
            }
        }
    }
    pattern.push('$');
    pattern
}

fn binding_text(what: &str, binding: &Binding) -> String {
    let Binding { exchange, to, key, .. } = binding;
    let to = match to {
        Destination::Queue(queue) => format!("queue {queue}"),
        Destination::Exchange(other) => format!("exchange {other}"),
    };
    format!("{what} {to} and exchange {exchange} with key {key:?}")
}

impl PostgresEngine {
    async fn change_binding(&self, binding: &Binding, undo: bool) -> Result<()> {
        let Binding { exchange, to, key, arguments, match_all } = binding;
        limits::name(exchange)?;
        text("the routing key", key)?;
        let arguments = tokens(arguments);
        let bytes: usize = arguments.iter().map(Vec::len).sum();
        if bytes > 64 << 10 {
            return Err(invalid(format!("the arguments have {bytes} bytes; at most 64 KiB")));
        }
        let (queue, other) = match to {
            Destination::Queue(name) => (Some(name), None),
            Destination::Exchange(name) => (None, Some(name)),
        };
        queue.or(other).map_or(Ok(()), |name| limits::name(name))?;
        let sql = self.server.call("bind", 9);
        let request = &crate::request().to_be_bytes()[..];
        let pattern = pattern(key);
        let all: &crate::server::Arguments<'_> =
            &[exchange, &queue, &other, key, &pattern, &arguments, match_all, &undo, &request];
        self.server.rows(&sql, all).await.map(drop)
    }

    async fn views(
        &self,
        name: Option<&str>,
        prefix: Option<&str>,
        after: u32,
        max: u32,
    ) -> Result<Vec<QueueView>> {
        let sql = self.server.call("views", 4);
        let (after, max) = (after.cast_signed(), max.cast_signed());
        let rows = self.server.rows(&sql, &[&name, &prefix, &after, &max]).await?;
        rows.iter().map(view).collect()
    }

    async fn try_settle(&self, receipts: &[Receipt], verdict: Verdict) -> Result<u32> {
        let all = Settlements::of(receipts.iter().map(|receipt| (receipt, verdict)))?;
        if receipts.is_empty() {
            return Ok(0);
        }
        if verdict == Verdict::Ack {
            self.inner.ack(all).await?;
        } else {
            self.inner.settle(&crate::request().to_be_bytes(), &all).await?;
        }
        self.credits.settled(receipts);
        Ok(receipts.len() as u32)
    }

    async fn try_declare(&self, name: &str, config: &QueueConfig) -> Result<bool> {
        limits::name(name)?;
        let wanted = Settings::of(config)?;
        let sql =
            format!("select {}.declare_queue($1, $2::text::jsonb)", self.server.config.quoted());
        let rows = self.server.rows(&sql, &[&name, &wanted.text()]).await?;
        let known = rows.first().map(|row| row.try_get::<_, Option<String>>(0));
        let known = known.transpose().map_err(|error| odd(&error))?.flatten();
        let Some(known) = known else { return Ok(false) };
        match Settings::read(&known)?.difference(&wanted) {
            None => Ok(true),
            Some(what) => {
                let wrong =
                    format!("it exists with another {what}; declare it alike, or delete it");
                Err(Error::new(ErrorKind::Different, wrong))
            }
        }
    }

    async fn try_declare_exchange(&self, name: &str, config: &ExchangeConfig) -> Result<()> {
        limits::name(name)?;
        let sql = self.server.call("declare_exchange", 5);
        let ExchangeConfig { durable, auto_delete, internal, .. } = *config;
        let kind = kind(config.kind);
        let rows =
            self.server.rows(&sql, &[&name, &kind, &durable, &auto_delete, &internal]).await?;
        let Some(row) = rows.first() else { return Ok(()) };
        let read = || {
            Ok([
                ("kind", row.try_get::<_, i16>(2)? == kind),
                ("durable", row.try_get::<_, bool>(3)? == durable),
                ("auto_delete", row.try_get::<_, bool>(4)? == auto_delete),
                ("internal", row.try_get::<_, bool>(5)? == internal),
            ])
        };
        let settings = read().map_err(|error| odd(&error))?;
        match settings.iter().find(|(_, same)| !same) {
            None => Ok(()),
            Some((what, _)) => {
                let wrong =
                    format!("it exists with another {what}; declare it alike, or delete it");
                Err(Error::new(ErrorKind::Different, wrong))
            }
        }
    }

    async fn try_peek(&self, name: &str, max: u32) -> Result<Vec<Peeked>> {
        limits::name(name)?;
        if max > PEEK_MAX {
            return Err(invalid(format!("{max} messages; at most {PEEK_MAX} are shown at once")));
        }
        let sql = self.server.call("peek", 2);
        let rows = self.server.rows(&sql, &[&name, &max.cast_signed()]).await?;
        let peeked = |row: &Row| {
            let attempts: i32 = row.try_get(0).map_err(|error| odd(&error))?;
            Ok(Peeked { attempts: attempts.max(0).cast_unsigned(), content: content(row, 1)? })
        };
        rows.iter().map(peeked).collect()
    }

    async fn try_redrive(&self, from: &str, to: Option<&str>, max: u32) -> Result<u32> {
        limits::name(from)?;
        to.map_or(Ok(()), limits::name)?;
        if max > REDRIVE_MAX {
            return Err(invalid(format!(
                "{max} messages; at most {REDRIVE_MAX} are moved at once"
            )));
        }
        let request = &crate::request().to_be_bytes()[..];
        let sql = self.server.call("redrive", 4);
        let rows = self.server.whole(&sql, &[&request, &from, &to, &max.cast_signed()]).await?;
        let moved = rows.first().map(|row| row.try_get::<_, i32>(0)).transpose();
        Ok(moved.map_err(|error| odd(&error))?.unwrap_or(0).max(0).cast_unsigned())
    }
}

#[async_trait]
impl QueueEngine for PostgresEngine {
    fn guarantees(&self) -> Guarantees {
        self.guarantees
    }

    async fn declare_queue(&self, name: &str, config: &QueueConfig) -> Result<bool> {
        let asked = |error: Error| error.asking(format!("declare queue {name}"));
        self.try_declare(name, config).await.map_err(asked)
    }

    async fn delete_queue(&self, name: &str, if_unused: bool, if_empty: bool) -> Result<u64> {
        let asked = |error: Error| error.asking(format!("delete queue {name}"));
        limits::name(name).map_err(asked)?;
        let request = &crate::request().to_be_bytes()[..];
        let sql = self.server.call("delete_queue", 4);
        let rows = self.server.whole(&sql, &[&request, &name, &if_unused, &if_empty]).await;
        number(&rows.map_err(asked)?).map_err(asked)
    }

    async fn purge(&self, name: &str) -> Result<u64> {
        let asked = |error: Error| error.asking(format!("purge queue {name}"));
        limits::name(name).map_err(asked)?;
        let request = &crate::request().to_be_bytes()[..];
        let rows = self.server.whole(&self.server.call("purge", 2), &[&request, &name]).await;
        number(&rows.map_err(asked)?).map_err(asked)
    }

    async fn pause(&self, name: &str, paused: bool) -> Result<()> {
        let what = if paused { "pause" } else { "resume" };
        let asked = |error: Error| error.asking(format!("{what} queue {name}"));
        limits::name(name).map_err(asked)?;
        let done = self.server.rows(&self.server.call("pause", 2), &[&name, &paused]).await;
        done.map(drop).map_err(asked)
    }

    async fn inspect_queue(&self, name: &str) -> Result<QueueView> {
        let asked = |error: Error| error.asking(format!("inspect queue {name}"));
        limits::name(name).map_err(asked)?;
        let found = self.views(Some(name), None, 0, 1).await.map_err(asked)?;
        let none = || Error::new(ErrorKind::NotFound, format!("there is no queue {name}"));
        found.into_iter().next().ok_or_else(none).map_err(asked)
    }

    async fn list_queues(&self, ask: &List) -> Result<Listed<QueueView>> {
        let asked = |error: Error| error.asking(format!("list queues from {:?}", ask.prefix));
        limits::list(ask).map_err(asked)?;
        if ask.prefix.contains('\0') {
            // No name has one in it.
            return Ok(Listed { items: Vec::new(), next: None });
        }
        let items = self.views(None, Some(&ask.prefix), ask.after, ask.max).await.map_err(asked)?;
        let next = (items.len() as u32 == ask.max).then(|| ask.after + ask.max);
        Ok(Listed { items, next })
    }

    async fn declare_exchange(&self, name: &str, config: &ExchangeConfig) -> Result<()> {
        let asked = |error: Error| error.asking(format!("declare exchange {name}"));
        self.try_declare_exchange(name, config).await.map_err(asked)
    }

    async fn delete_exchange(&self, name: &str, if_unused: bool) -> Result<()> {
        let asked = |error: Error| error.asking(format!("delete exchange {name}"));
        limits::name(name).map_err(asked)?;
        let request = &crate::request().to_be_bytes()[..];
        let sql = self.server.call("delete_exchange", 3);
        self.server.rows(&sql, &[&request, &name, &if_unused]).await.map(drop).map_err(asked)
    }

    async fn bind(&self, binding: &Binding) -> Result<()> {
        let asked = |error: Error| error.asking(binding_text("bind", binding));
        self.change_binding(binding, false).await.map_err(asked)
    }

    async fn unbind(&self, binding: &Binding) -> Result<()> {
        let asked = |error: Error| error.asking(binding_text("unbind", binding));
        self.change_binding(binding, true).await.map_err(asked)
    }

    async fn publish(&self, messages: Vec<Publish>) -> Result<Vec<Result<Published>>> {
        self.inner.publish_all(messages).await
    }

    async fn consume(&self, ask: &Consume) -> Result<BoxStream<'static, Result<Delivered>>> {
        let asked = |error: Error| error.asking(format!("consume from queue {}", ask.queue));
        self.begin();
        Ok(Box::pin(self.inner.consume(ask).await.map_err(asked)?))
    }

    async fn receive(&self, ask: &Receive) -> Result<Vec<Delivered>> {
        let asked = |error: Error| error.asking(format!("receive from queue {}", ask.queue));
        self.begin();
        self.inner.receive(ask).await.map_err(asked)
    }

    async fn settle(&self, receipts: &[Receipt], verdict: Verdict) -> Result<u32> {
        let asked = || match (receipts, verdict) {
            ([one], Verdict::Ack) => format!("ack delivery {}", one.token),
            ([one], Verdict::Nack(_)) => format!("return delivery {}", one.token),
            ([one], Verdict::Reject) => format!("reject delivery {}", one.token),
            (many, _) => format!("settle {} deliveries", many.len()),
        };
        self.try_settle(receipts, verdict).await.map_err(|error| error.asking(asked()))
    }

    async fn extend(&self, receipt: &Receipt, lease: Duration) -> Result<()> {
        let asked = |error: Error| error.asking(format!("extend delivery {}", receipt.token));
        let lease = time("the lease", lease).map_err(asked)?;
        let id = place(receipt).map_err(asked)?;
        let (token, session) = (receipt.token.cast_signed(), receipt.session.id.cast_signed());
        let sql = self.server.call("extend", 4);
        let done = self.server.rows(&sql, &[&id, &token, &session, &lease]).await;
        done.map(drop).map_err(asked)
    }

    async fn peek(&self, name: &str, max: u32) -> Result<Vec<Peeked>> {
        let asked = |error: Error| error.asking(format!("peek into queue {name}"));
        self.try_peek(name, max).await.map_err(asked)
    }

    async fn redrive(&self, from: &str, to: Option<&str>, max: u32) -> Result<u32> {
        let asked = |error: Error| error.asking(format!("redrive queue {from}"));
        self.try_redrive(from, to, max).await.map_err(asked)
    }

    async fn commit(&self, commit: &Commit) -> Result<Vec<u64>> {
        self.inner.commit(commit).await.map_err(|error| error.asking("commit"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_becomes_an_expression_over_words() {
        assert_eq!(pattern(""), "^$");
        assert_eq!(pattern("#"), r"^(\.[^.]*)*$");
        assert_eq!(pattern("a.*.b+"), r"^\.a\.[^.]*\.b\+$");
    }
}
