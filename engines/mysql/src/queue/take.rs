//! Taking messages: looking, taking, and giving back what nobody got.
//!
//! A look is one statement without locks. Taking is a transaction of two round trips: the first
//! locks candidates and skips what others have locked, the second writes down whose they are and
//! brings their bodies. An ordering key is taken by a row of its own, which another transaction
//! cannot put in twice; then it is made sure that the message is the first of its key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use leasehold_api::Result;
use leasehold_api::engine::{Delivered, Receipt, SessionRef};
use mysql_async::Row;

use crate::connect::{Repeat, cell};
use crate::error::Fault;
use crate::queue::Queues;
use crate::queue::publish::turn;
use crate::queue::settings::{Head, us};
use crate::queue::tx::{Known, Tx};
use crate::queue::upkeep::Upkeep;
use crate::sql::NOW;

/// Messages taken with one transaction.
const BATCH: u32 = 256;
/// Bytes of bodies taken with one transaction, but for a single message.
const BATCH_BYTES: u64 = 8 << 20;

/// What a look at a queue shows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Look {
    /// There may be something to take.
    pub ready: bool,
    /// Something is due that has to be made ready first.
    pub due: bool,
    /// When the next thing will be due.
    pub next: Option<Duration>,
    /// Deliveries are held back, or another consumer is the active one.
    pub held_back: bool,
    /// Somebody else consumes alone.
    pub alone: bool,
}

/// Who takes.
#[derive(Debug, Clone)]
pub(crate) struct Taker {
    pub session: SessionRef,
    /// How long the session lives without a sign of life.
    pub ttl: Duration,
    /// How long a delivery may stay unsettled.
    pub lease: Option<Duration>,
    /// The consumer's number; 0: it is none.
    pub consumer: u64,
}

/// A message that is locked and may be taken.
struct Candidate {
    id: u64,
    keyed: Option<Vec<u8>>,
}

impl Queues {
    /// Looks at a queue; `None` when it is gone.
    pub async fn look(self: &Arc<Self>, queue: u64, consumer: u64) -> Result<Option<Look>> {
        let sql = self.server.tables.named("SELECT q.paused,");
        let sql = sql.add(NOW).and(self.server.tables.named(
            ",EXISTS(SELECT 1 FROM {}messages m FORCE INDEX (turns) WHERE m.queue=q.id AND \
             m.ready=1),(SELECT MIN(m.turn) FROM {}messages m FORCE INDEX (turns) WHERE \
             m.queue=q.id AND m.ready=0),(SELECT MIN(c.id) FROM {}consumers c WHERE \
             c.queue=q.id AND c.until>",
        ));
        let sql = sql.add(NOW).and(self.server.tables.named(
            "),EXISTS(SELECT 1 FROM {}consumers c WHERE c.queue=q.id AND c.alone=1 AND c.id<>",
        ));
        let sql = sql.number(consumer).add(" AND c.until>").add(NOW);
        let sql = sql.and(self.server.tables.named("),q.config FROM {}queues q WHERE q.id="));
        let sql = sql.number(queue);
        let row = self.server.run(Repeat::Freely, move |line| {
            let sql = sql.clone();
            Box::pin(async move { Ok(line.ask(sql).await?.rows()?.into_iter().next()) })
        });
        let Some(mut row) = row.await? else { return Ok(None) };
        self.looked(&mut row, consumer).map(Some).map_err(Fault::error)
    }

    fn looked(&self, row: &mut Row, consumer: u64) -> std::result::Result<Look, Fault> {
        let config = crate::queue::settings::read_config(&cell::<Vec<u8>>(row, 6)?)?;
        let (paused, now): (u8, u64) = (cell(row, 0)?, cell(row, 1)?);
        let (ready, next): (u8, Option<u64>) = (cell(row, 2)?, cell(row, 3)?);
        let (active, alone): (Option<u64>, u8) = (cell(row, 4)?, cell(row, 5)?);
        let stands_by = config.single_active && active.is_some_and(|active| active != consumer);
        Ok(Look {
            ready: ready == 1,
            due: next.is_some_and(|next| next <= now),
            next: next.map(|next| Duration::from_micros(next.saturating_sub(now))),
            held_back: paused == 1 || stands_by,
            alone: alone == 1,
        })
    }

    /// Takes up to `max` messages that are ready, none if there are none.
    pub async fn take(
        self: &Arc<Self>,
        queue: &Known,
        taker: &Taker,
        max: u32,
    ) -> Result<Vec<Delivered>> {
        let this = (self.clone(), queue.clone(), taker.clone());
        self.tx(Repeat::Freely, move |tx| {
            let (queues, queue, taker) = this.clone();
            Box::pin(async move { queues.take_in(tx, &queue, &taker, max.min(BATCH)).await })
        })
        .await
    }

    async fn take_in(
        &self,
        tx: &mut Tx<'_>,
        queue: &Known,
        taker: &Taker,
        max: u32,
    ) -> std::result::Result<Vec<Delivered>, Fault> {
        let mut candidates = candidates(tx, queue.id, max).await?;
        if candidates.iter().any(|one| one.keyed.is_some()) {
            candidates = with_keys(tx, queue.id, candidates).await?;
        }
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let ids = || candidates.iter().map(|one| one.id);
        let mut sql = crate::book::tick(tx.tables, crate::sql::Sql::new("SET @k=1;"));
        sql = sql.clock().and(tx.sql("UPDATE {}messages SET ready=0,held=1,token=@v,session="));
        sql = sql.number(taker.session.id).add(",lease=");
        let until = taker.lease.map(us);
        sql = match until {
            Some(lease) => sql.add("@n+").number(lease),
            None => sql.add("NULL"),
        };
        sql = sql.add(",turn=@n+").number(until.unwrap_or(u64::MAX).min(us(taker.ttl)));
        sql = sql.add(" WHERE id IN ").numbers(ids()).add(";SELECT @v;");
        sql = sql.and(tx.sql(
            "SELECT attempts,published,head,deaths,body,id FROM {}messages \
                              WHERE id IN ",
        ));
        // In the order in which they were chosen.
        sql = sql
            .numbers(ids())
            .add(" ORDER BY FIELD(id,")
            .joined(ids(), ",", |sql, id| sql.number(id));
        let mut answers = tx.last(sql.add(");")).await?;
        let token = cell(&mut answers.row()?, 0)?;
        let rows = answers.rows()?.into_iter();
        rows.map(|mut row| delivered(&mut row, token, &taker.session)).collect()
    }

    /// Gives messages back as if they had not been delivered.
    pub async fn give_back(self: &Arc<Self>, queue: u64, receipts: Vec<Receipt>) -> Result<()> {
        if receipts.is_empty() {
            return Ok(());
        }
        let highest = turn(0);
        self.tx(Repeat::Freely, move |tx| {
            let receipts = receipts.clone();
            Box::pin(async move {
                let sql = tx.sql(
                    "DELETE k FROM {}keys k JOIN {}messages m ON m.id=k.message \
                                  WHERE ",
                );
                tx.put(in_flight(sql, "m.", &receipts).add(";")).await?;
                let sql = tx.sql("UPDATE {}messages SET ready=1,held=0,session=0,lease=NULL,turn=");
                let sql = sql.number(highest).add("-lane WHERE ");
                tx.put(in_flight(sql, "", &receipts).add(";")).await?;
                tx.woken.insert(queue);
                tx.last(crate::sql::Sql::default()).await?;
                Ok(())
            })
        })
        .await
    }

    /// Gives messages back in the background.
    pub fn give_back_later(self: &Arc<Self>, queue: u64, receipts: Vec<Receipt>) {
        let this = self.clone();
        // Without a runtime they come again by their deadline.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if let Err(error) = this.give_back(queue, receipts).await {
                tracing::warn!(%error, "deliveries were not given back; they come again later");
            }
        });
    }

    /// Makes ready what is due: delayed messages, and deliveries that were lost. Gives whether
    /// there may be more.
    pub async fn promote(self: &Arc<Self>, queue: &Known) -> Result<bool> {
        let this = (self.clone(), queue.clone());
        self.tx(Repeat::Freely, move |tx| {
            let (queues, queue) = this.clone();
            Box::pin(async move { queues.promote_in(tx, &queue).await })
        })
        .await
    }

    async fn promote_in(&self, tx: &mut Tx<'_>, queue: &Known) -> std::result::Result<bool, Fault> {
        let sql = tx.sql(
            "SELECT id,lane,bytes,held,attempts FROM {}messages FORCE INDEX (turns) \
                          WHERE queue=",
        );
        let sql = sql.number(queue.id).add(" AND ready=0 AND turn<=@n ORDER BY turn LIMIT ");
        let sql = sql.number(BATCH).add(" FOR UPDATE SKIP LOCKED;");
        let rows = tx.ask(sql).await?.rows()?;
        let more = rows.len() == BATCH as usize;
        let (mut due, mut lost, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        for mut row in rows {
            let victim = crate::queue::death::Victim::of(&mut row)?;
            let (held, attempts): (u8, u32) = (cell(&mut row, 3)?, cell(&mut row, 4)?);
            let max = queue.config.deliveries_max;
            match held {
                0 => due.push(victim.id),
                _ if max.is_some_and(|max| attempts + 1 >= u32::from(max)) => dead.push(victim),
                _ => lost.push(victim.id),
            }
        }
        back(tx, queue.id, &due, &lost).await?;
        let trim = self.die(tx, queue, &dead, "deliveries").await?;
        self.trim(tx, trim).await?;
        Ok(more)
    }

    /// Lets messages of a queue die whose time is over; gives whether there may be more.
    pub async fn expire(self: &Arc<Self>, queue: &Known) -> Result<bool> {
        let this = (self.clone(), queue.clone());
        self.tx(Repeat::Freely, move |tx| {
            let (queues, queue) = this.clone();
            Box::pin(async move {
                let sql = tx.sql(
                    "SELECT id,lane,bytes FROM {}messages WHERE ready=1 AND dies<=@n \
                                  AND queue=",
                );
                let sql = sql.number(queue.id).add(" LIMIT ").number(BATCH);
                let rows = tx.ask(sql.add(" FOR UPDATE SKIP LOCKED;")).await?.rows()?;
                let more = rows.len() == BATCH as usize;
                let dead: std::result::Result<Vec<_>, Fault> = rows
                    .into_iter()
                    .map(|mut row| crate::queue::death::Victim::of(&mut row))
                    .collect();
                let trim = queues.die(tx, &queue, &dead?, "expired").await?;
                queues.trim(tx, trim).await?;
                Ok(more)
            })
        })
        .await
    }

    /// What is due in a queue, all of it.
    pub async fn catch_up(self: &Arc<Self>, queue: &Known) -> Result<()> {
        while self.promote(queue).await? {}
        Ok(())
    }

    /// Begins the upkeep when queues are first used.
    pub fn keep_up(self: &Arc<Self>) {
        self.upkeep.get_or_init(|| Upkeep::begin(self));
    }
}

/// Puts messages back among those that wait: those that were due, and those whose delivery failed.
pub(crate) async fn back(
    tx: &mut Tx<'_>,
    queue: u64,
    due: &[u64],
    failed: &[u64],
) -> std::result::Result<(), Fault> {
    let all: Vec<u64> = due.iter().chain(failed).copied().collect();
    if all.is_empty() {
        return Ok(());
    }
    if !failed.is_empty() {
        let sql = tx.sql("DELETE FROM {}keys WHERE message IN ").numbers(failed.iter().copied());
        tx.put(sql.add(";")).await?;
        let sql = tx.sql("UPDATE {}messages SET attempts=attempts+1 WHERE id IN ");
        tx.put(sql.numbers(failed.iter().copied()).add(";")).await?;
        tx.sums(queue).totals.returned += failed.len() as u64;
    }
    let sql = tx.sql("UPDATE {}messages SET ready=1,held=0,session=0,lease=NULL,turn=");
    let sql = sql.number(turn(0)).add("-lane WHERE id IN ").numbers(all).add(";");
    tx.put(sql).await?;
    tx.woken.insert(queue);
    Ok(())
}

/// Which messages receipts name, if they are still in flight as these say.
pub(crate) fn in_flight(
    sql: crate::sql::Sql,
    table: &str,
    receipts: &[Receipt],
) -> crate::sql::Sql {
    let sql = sql.add(table).add("ready=0 AND ").add(table).add("held=1 AND (");
    let each = |sql: crate::sql::Sql, receipt: &Receipt| {
        let sql = sql.add("(").add(table).add("id=").number(receipt.place as u64);
        let sql = sql.add(" AND ").add(table).add("token=").number(receipt.token);
        let sql = sql.add(" AND ").add(table).add("session=").number(receipt.session.id);
        sql.add(")")
    };
    sql.joined(receipts, " OR ", each).add(")")
}

/// Messages that may be taken, locked, in order.
async fn candidates(
    tx: &mut Tx<'_>,
    queue: u64,
    max: u32,
) -> std::result::Result<Vec<Candidate>, Fault> {
    let sql = tx.sql("SELECT id,bytes,keyed FROM {}messages m FORCE INDEX (turns) WHERE queue=");
    let sql = sql.number(queue).and(tx.sql(
        " AND ready=1 AND (dies IS NULL OR dies>@n) AND (keyed IS NULL OR NOT EXISTS(SELECT 1 \
         FROM {}keys k WHERE k.queue=m.queue AND k.keyed=m.keyed)) ORDER BY turn,id LIMIT ",
    ));
    let rows = tx.ask(sql.number(max).add(" FOR UPDATE SKIP LOCKED;")).await?.rows()?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    for mut row in rows {
        let (id, length): (u64, u64) = (cell(&mut row, 0)?, cell(&mut row, 1)?);
        bytes += length;
        if bytes > BATCH_BYTES && !found.is_empty() {
            break;
        }
        found.push(Candidate { id, keyed: cell(&mut row, 2)? });
    }
    Ok(found)
}

/// Those of the candidates whose ordering key is free, and that are the first of it.
async fn with_keys(
    tx: &mut Tx<'_>,
    queue: u64,
    candidates: Vec<Candidate>,
) -> std::result::Result<Vec<Candidate>, Fault> {
    // The first of each key, in the order of the keys, so that takers do not close a circle.
    let mut firsts: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for one in &candidates {
        if let Some(key) = &one.keyed {
            firsts.entry(key.clone()).or_insert(one.id);
        }
    }
    let sql = tx.sql("INSERT IGNORE INTO {}keys (queue,keyed,message) VALUES ");
    let sql = sql.joined(&firsts, ",", |sql, (key, id)| {
        sql.add("(").number(queue).add(",").bytes(key).add(",").number(*id).add(")")
    });
    let sql = sql.add(";").and(tx.sql(
        "SELECT k.message,(SELECT m.id FROM {}messages m WHERE \
        m.queue=k.queue AND m.keyed=k.keyed AND m.ready=1 AND (m.dies IS NULL OR m.dies>@n) \
        ORDER BY m.turn,m.id LIMIT 1) FROM {}keys k WHERE k.message IN ",
    ));
    let sql = sql.numbers(firsts.values().copied());
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for mut row in tx.ask(sql).await?.rows()? {
        let message: u64 = cell(&mut row, 0)?;
        match cell::<Option<u64>>(&mut row, 1)? == Some(message) {
            true => good.push(message),
            // An earlier one of its key came back just now.
            false => bad.push(message),
        }
    }
    if !bad.is_empty() {
        tx.put(tx.sql("DELETE FROM {}keys WHERE message IN ").numbers(bad).add(";")).await?;
    }
    let takes = |one: &Candidate| one.keyed.is_none() || good.contains(&one.id);
    Ok(candidates.into_iter().filter(takes).collect())
}

fn delivered(
    row: &mut Row,
    token: u64,
    session: &SessionRef,
) -> std::result::Result<Delivered, Fault> {
    let attempts: u32 = cell(row, 0)?;
    let head = Head::read(&cell::<Vec<u8>>(row, 2)?)?;
    let (published, deaths) = (cell(row, 1)?, cell(row, 3)?);
    let content = head.content(cell(row, 4)?, published, deaths)?;
    let place = u128::from(cell::<u64>(row, 5)?);
    Ok(Delivered {
        receipt: Receipt { token, place, session: session.clone() },
        attempt: attempts + 1,
        redelivered: attempts > 0,
        content,
    })
}
