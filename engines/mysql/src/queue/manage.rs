//! Looking at queues, emptying them, holding them back, and moving the dead.

use std::collections::BTreeSet;
use std::sync::Arc;

use leasehold_api::engine::{List, Listed, Peeked, QueueTotals, QueueView};
use leasehold_api::{Error, ErrorKind, Overflow, Result};
use leasehold_contenders::limits;
use mysql_async::Row;

use crate::connect::{Repeat, cell};
use crate::error::Fault;
use crate::queue::Queues;
use crate::queue::death::{Victim, copy, remove, waiting};
use crate::queue::publish::is_full;
use crate::queue::settings::{
    Head, PEEK_MAX, REDRIVE_MAX, invalid, is_bounded, name, read_config, read_deaths, size,
};
use crate::queue::tx::{Tx, no_queue};
use crate::sql::{NOW, Sql};

/// Messages removed or moved with one transaction.
const SOME: u32 = 1000;

impl Queues {
    /// Everything about queues whose rows a condition picks.
    async fn views(&self, which: Sql) -> Result<Vec<QueueView>> {
        let named = |text: &str| self.server.tables.named(text);
        let count = |condition: &str| {
            named("(SELECT COUNT(*) FROM {}messages m FORCE INDEX (turns) WHERE m.queue=q.id AND ")
                .add(condition)
                .add("),")
        };
        let sums = ["published", "acked", "returned", "dead", "dropped", "purged", "bytes"];
        let sql = Sql::default().clock().add("SELECT q.name,q.config,q.paused,");
        let sql = sql.and(count("m.ready=1 AND (m.dies IS NULL OR m.dies>@n)"));
        let sql = sql.and(count("m.ready=0 AND m.held=1 AND m.turn>@n"));
        let sql = sql.and(count("m.ready=0 AND m.held=0 AND m.turn>@n"));
        let sql = sql.and(count("m.ready=0 AND m.turn<=@n"));
        let sql = sql.and(named(
            "(SELECT COUNT(*) FROM {}keys k JOIN {}messages m ON m.queue=k.queue AND \
             m.keyed=k.keyed AND m.ready=1 WHERE k.queue=q.id),\
             (SELECT COUNT(*) FROM {}consumers c WHERE c.queue=q.id AND c.until>@n)",
        ));
        let sql = sums.iter().fold(sql, |sql, sum| {
            let text = format!(
                ",COALESCE((SELECT CAST(SUM(s.{sum}) AS SIGNED) FROM {{}}sums s \
                                WHERE s.queue=q.id),0)"
            );
            sql.and(named(&text))
        });
        let sql = sql.and(named(" FROM {}queues q WHERE ")).and(which);
        let rows = self.server.run(Repeat::Freely, move |line| {
            let sql = sql.clone();
            Box::pin(async move {
                let rows = line.ask(sql).await?.rows()?.into_iter();
                rows.map(|mut row| view(&mut row)).collect::<std::result::Result<Vec<_>, Fault>>()
            })
        });
        rows.await
    }

    pub async fn inspect_one(&self, queue: &str) -> Result<QueueView> {
        name("queue", queue)?;
        let found = self.views(Sql::new("q.name=").bytes(queue.as_bytes())).await?;
        found.into_iter().next().ok_or_else(|| no_queue(queue))
    }

    pub async fn list(&self, ask: &List) -> Result<Listed<QueueView>> {
        limits::list(ask)?;
        let prefix = ask.prefix.as_bytes();
        let sql = Sql::new("q.name>=").bytes(prefix).add(" AND LEFT(q.name,");
        let sql = sql.number(prefix.len() as u64).add(")=").bytes(prefix);
        let sql = sql.add(" ORDER BY q.name LIMIT ").number(ask.max);
        let items = self.views(sql.add(" OFFSET ").number(ask.after)).await?;
        let next = (items.len() == ask.max as usize).then(|| ask.after + ask.max);
        Ok(Listed { items, next })
    }

    /// Removes what waits, some at a time; gives how many.
    pub async fn empty(self: &Arc<Self>, queue: &str) -> Result<u64> {
        name("queue", queue)?;
        let queue = self.find_anew(queue).await?;
        // Delayed messages that are due by now wait, too.
        self.catch_up(&queue).await?;
        let mut purged = 0;
        loop {
            let id = queue.id;
            let count = self.tx(Repeat::Never, move |tx| {
                Box::pin(async move {
                    let sql = tx.sql(
                        "SELECT id,lane,bytes FROM {}messages FORCE INDEX (turns) \
                                      WHERE ready=1 AND queue=",
                    );
                    let sql = sql.number(id).add(" LIMIT ").number(SOME);
                    // What another purge has locked is waited for: afterwards all is gone.
                    let rows = tx.ask(sql.add(" FOR UPDATE")).await?.rows()?;
                    let victims: std::result::Result<Vec<_>, Fault> =
                        rows.into_iter().map(|mut row| Victim::of(&mut row)).collect();
                    let victims = victims?;
                    remove(tx, id, &victims).await?;
                    tx.sums(id).totals.purged += victims.len() as u64;
                    Ok(victims.len() as u64)
                })
            });
            let count = count.await?;
            purged += count;
            if count < u64::from(SOME) {
                return Ok(purged);
            }
        }
    }

    pub async fn hold_back(self: &Arc<Self>, queue: &str, paused: bool) -> Result<()> {
        name("queue", queue)?;
        let queue = self.find_anew(queue).await?;
        self.tx(Repeat::Freely, move |tx| {
            let id = queue.id;
            Box::pin(async move {
                let sql = tx.sql("UPDATE {}queues SET paused=").number(u8::from(paused));
                tx.last(sql.add(" WHERE id=").number(id).add(";")).await?;
                tx.woken.insert(id);
                Ok(())
            })
        })
        .await
    }

    /// Looks at the first messages.
    pub async fn look_into(self: &Arc<Self>, queue: &str, max: u32) -> Result<Vec<Peeked>> {
        name("queue", queue)?;
        size("the number of messages", max as usize, PEEK_MAX as usize)?;
        let queue = self.find_anew(queue).await?;
        let sql = self.server.tables.named(
            "SELECT attempts,published,head,deaths,body FROM \
            {}messages FORCE INDEX (turns) WHERE ready=1 AND queue=",
        );
        let sql = sql.number(queue.id).add(" AND (dies IS NULL OR dies>").add(NOW);
        let sql = sql.add(") ORDER BY turn,id LIMIT ").number(max);
        let rows = self.server.run(Repeat::Freely, move |line| {
            let sql = sql.clone();
            Box::pin(async move {
                let rows = line.ask(sql).await?.rows()?.into_iter();
                rows.map(|mut row| peeked(&mut row)).collect::<std::result::Result<_, Fault>>()
            })
        });
        rows.await
    }

    /// Moves messages to another queue, or each to where it died first; gives how many.
    pub async fn redrive_some(
        self: &Arc<Self>,
        from: &str,
        to: Option<&str>,
        max: u32,
    ) -> Result<u32> {
        name("queue", from)?;
        to.map_or(Ok(()), |to| name("queue", to))?;
        size("the number of messages", max as usize, REDRIVE_MAX as usize)?;
        let queue = self.find_anew(from).await?;
        if to == Some(from) {
            return Err(invalid("a queue cannot be redriven to itself; name another"));
        }
        let this = (self.clone(), queue, to.map(Arc::<str>::from));
        self.tx(Repeat::Never, move |tx| {
            let (queues, from, to) = this.clone();
            Box::pin(
                async move { queues.redrive_in(tx, from.id, &from.name, to.as_ref(), max).await },
            )
        })
        .await
    }

    async fn redrive_in(
        &self,
        tx: &mut Tx<'_>,
        from: u64,
        from_name: &Arc<str>,
        to: Option<&Arc<str>>,
        max: u32,
    ) -> std::result::Result<u32, Fault> {
        let mut found = Vec::new();
        for mut row in tx.ask(waiting(tx, from, max)).await?.rows()? {
            let victim = Victim::of(&mut row)?;
            let deaths = read_deaths(cell::<Option<Vec<u8>>>(&mut row, 3)?.as_deref())?;
            let home = deaths.first().map(|death| Arc::from(death.0.as_str()));
            let target = to.cloned().or(home).filter(|target| target != from_name);
            found.extend(target.map(|target| (victim, target)));
        }
        let mut names: BTreeSet<Arc<str>> = found.iter().map(|(_, name)| name.clone()).collect();
        names.extend(to.cloned());
        self.lock(tx, &names).await?;
        if let Some(to) = to
            && tx.locked(to).is_none()
        {
            return Err(no_queue(to).into());
        }
        let (mut moved, mut trim) = (Vec::new(), BTreeSet::new());
        for (victim, name) in found {
            let Some(target) = tx.locked(&name) else { continue };
            if is_full(tx, &target, victim.bytes as usize) {
                if moved.is_empty() && to.is_some() {
                    let wrong = format!("queue {name} is full; take messages out first");
                    return Err(Error::new(ErrorKind::Full, wrong).into());
                }
                continue;
            }
            copy(tx, &victim, &target, None).await?;
            if is_bounded(&target.config) && target.config.overflow == Overflow::DropOldest {
                trim.insert(name);
            }
            moved.push(victim);
        }
        remove(tx, from, &moved).await?;
        self.trim(tx, trim).await?;
        Ok(moved.len() as u32)
    }
}

fn peeked(row: &mut Row) -> std::result::Result<Peeked, Fault> {
    let head = Head::read(&cell::<Vec<u8>>(row, 2)?)?;
    let (published, deaths) = (cell(row, 1)?, cell(row, 3)?);
    let content = head.content(cell(row, 4)?, published, deaths)?;
    Ok(Peeked { attempts: cell(row, 0)?, content })
}

fn view(row: &mut Row) -> std::result::Result<QueueView, Fault> {
    let sum = |row: &mut Row, column| -> std::result::Result<u64, Fault> {
        Ok(cell::<i64>(row, column)?.max(0).cast_unsigned())
    };
    let (ready, overdue, parked): (u64, u64, u64) = (cell(row, 3)?, cell(row, 6)?, cell(row, 7)?);
    Ok(QueueView {
        name: String::from_utf8_lossy(&cell::<Vec<u8>>(row, 0)?).into_owned(),
        config: read_config(&cell::<Vec<u8>>(row, 1)?)?,
        paused: cell::<u8>(row, 2)? == 1,
        // What is due counts as ready: whoever looks next makes it so.
        ready: (ready + overdue).saturating_sub(parked),
        in_flight: cell(row, 4)?,
        delayed: cell(row, 5)?,
        parked,
        consumers: cell(row, 8)?,
        totals: QueueTotals {
            published: sum(row, 9)?,
            acked: sum(row, 10)?,
            returned: sum(row, 11)?,
            dead: sum(row, 12)?,
            dropped: sum(row, 13)?,
            purged: sum(row, 14)?,
        },
        bytes: sum(row, 15)?,
    })
}
