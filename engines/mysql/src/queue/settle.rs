//! Settling deliveries: all or none, and only whose lease still runs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use leasehold_api::engine::{Receipt, Verdict};
use leasehold_api::{Error, ErrorKind, Result};

use crate::connect::{Repeat, cell};
use crate::error::Fault;
use crate::queue::Queues;
use crate::queue::death::{Victim, remove};
use crate::queue::settings::{CREDIT_MAX, invalid, size, time, us};
use crate::queue::take::{back, in_flight};
use crate::queue::tx::{Known, Tx, known};
use crate::sql::Sql;

/// A delivery that is locked and may be settled.
struct Open {
    victim: Victim,
    queue: u64,
    attempts: u32,
}

fn stale(receipt: &Receipt) -> Error {
    let wrong = format!(
        "delivery {} is not open any more: it was settled, or its lease was lost",
        receipt.token
    );
    Error::new(ErrorKind::Stale, wrong)
}

impl Queues {
    /// Settles deliveries within a transaction.
    pub async fn settle_in(
        &self,
        tx: &mut Tx<'_>,
        settles: &[(Receipt, Verdict)],
    ) -> std::result::Result<(), Fault> {
        if settles.is_empty() {
            return Ok(());
        }
        for (_, verdict) in settles {
            if let Verdict::Nack(delay) = verdict
                && !delay.is_zero()
            {
                time("the delay", *delay)?;
            }
        }
        let places: BTreeSet<u128> = settles.iter().map(|(receipt, _)| receipt.place).collect();
        if places.len() < settles.len() {
            return Err(invalid("a delivery is settled twice; name it once").into());
        }
        let (open, queues) = locked(tx, settles).await?;
        let mut acks: BTreeMap<u64, Vec<Victim>> = BTreeMap::new();
        let mut trim = BTreeSet::new();
        for ((_, verdict), open) in settles.iter().zip(open) {
            // Its queue was deleted, and the message with it.
            let Some(queue) = queues.get(&open.queue) else { continue };
            match verdict {
                Verdict::Ack => {
                    tx.sums(queue.id).totals.acked += 1;
                    acks.entry(queue.id).or_default().push(open.victim);
                }
                Verdict::Reject => {
                    trim.extend(self.die(tx, queue, &[open.victim], "rejected").await?);
                }
                Verdict::Nack(delay) => {
                    trim.extend(self.fail(tx, queue, &open, *delay).await?);
                }
            }
            // What waited for its ordering key can go on.
            tx.woken.insert(queue.id);
        }
        for (queue, victims) in acks {
            remove(tx, queue, &victims).await?;
        }
        self.trim(tx, trim).await
    }

    /// A delivery failed: again, later, or never.
    async fn fail(
        &self,
        tx: &mut Tx<'_>,
        queue: &Known,
        open: &Open,
        delay: Duration,
    ) -> std::result::Result<BTreeSet<Arc<str>>, Fault> {
        let max = queue.config.deliveries_max;
        if max.is_some_and(|max| open.attempts + 1 >= u32::from(max)) {
            return self.die(tx, queue, std::slice::from_ref(&open.victim), "deliveries").await;
        }
        let id = open.victim.id;
        back(tx, queue.id, &[], &[id]).await?;
        if !delay.is_zero() {
            let sql = tx.sql("UPDATE {}messages SET ready=0,turn=@n+").number(us(delay));
            tx.put(sql.add(" WHERE id=").number(id).add(";")).await?;
        }
        Ok(BTreeSet::new())
    }

    /// Settles deliveries; gives how many.
    pub async fn settle_all(
        self: &Arc<Self>,
        receipts: &[Receipt],
        verdict: Verdict,
    ) -> Result<u32> {
        size("the number of deliveries", receipts.len(), CREDIT_MAX as usize)?;
        if receipts.is_empty() {
            return Ok(0);
        }
        let settles: Arc<Vec<(Receipt, Verdict)>> =
            Arc::new(receipts.iter().map(|receipt| (receipt.clone(), verdict)).collect());
        let this = (self.clone(), settles.clone());
        // Not again when the answer was lost: it may be done, or it may have come again.
        let done = self.tx(Repeat::Never, move |tx| {
            let (queues, settles) = this.clone();
            Box::pin(async move {
                match verdict {
                    Verdict::Ack if ack(tx, &settles).await? => Ok(()),
                    // Or one of them is to be refused: which, and why, is found out here.
                    _ => queues.settle_in(tx, &settles).await,
                }
            })
        });
        let done = done.await;
        let done = match done {
            Err(error) if error.kind == ErrorKind::Unavailable => {
                self.found_out(&settles, verdict, error).await
            }
            done => done,
        };
        if !matches!(&done, Err(error) if error.kind == ErrorKind::Invalid) {
            self.settled(receipts.iter());
        }
        done.map(|()| receipts.len() as u32)
    }

    /// What became of deliveries whose settlement was not answered: if none is open any more it was
    /// carried out, or their leases ran out. For one that was to go back the two are the same.
    async fn found_out(
        self: &Arc<Self>,
        settles: &Arc<Vec<(Receipt, Verdict)>>,
        verdict: Verdict,
        lost: Error,
    ) -> Result<()> {
        let this = (self.clone(), settles.clone());
        let again = self.tx(Repeat::Never, move |tx| {
            let (queues, settles) = this.clone();
            Box::pin(async move { queues.settle_in(tx, &settles).await })
        });
        match again.await {
            Err(error) if error.kind == ErrorKind::Stale => match verdict {
                Verdict::Nack(_) => Ok(()),
                _ => Err(error.with_retry(leasehold_api::Retry::Unknown)),
            },
            Err(error) if error.kind == ErrorKind::Unavailable => Err(lost),
            done => done,
        }
    }

    /// Sets the deadline of a delivery's lease.
    pub async fn extend_one(self: &Arc<Self>, receipt: &Receipt, lease: Duration) -> Result<()> {
        time("the lease", lease)?;
        let ttl = self.ttl_of(receipt.session.id)?;
        let receipts = [receipt.clone()];
        let mine = receipt.clone();
        self.tx(Repeat::Freely, move |tx| {
            let (receipts, mine) = (receipts.clone(), mine.clone());
            Box::pin(async move {
                let (lease, receipt) = (us(lease), mine);
                let sql = tx.sql("SELECT COUNT(*) INTO @c FROM {}messages WHERE turn>@n AND ");
                let sql = in_flight(sql, "", &receipts).add(";");
                let sql = sql.and(tx.sql("UPDATE {}messages SET lease=@n+")).number(lease);
                let sql =
                    sql.add(",turn=@n+").number(lease.min(us(ttl))).add(" WHERE turn>@n AND ");
                let sql = in_flight(sql, "", &receipts).add(";SELECT @c;");
                let count: u64 = cell(&mut tx.last(sql).await?.row()?, 0)?;
                if count == 1 { Ok(()) } else { Err(stale(&receipt).into()) }
            })
        })
        .await?;
        self.extended(receipt, lease);
        Ok(())
    }
}

/// Acknowledges deliveries with one round trip if all of them are open, or does nothing.
async fn ack(tx: &mut Tx<'_>, settles: &[(Receipt, Verdict)]) -> std::result::Result<bool, Fault> {
    let receipts: Vec<Receipt> = settles.iter().map(|(receipt, _)| receipt.clone()).collect();
    let ids = || receipts.iter().map(|receipt| receipt.place as u64);
    let sql = tx.sql("SELECT COUNT(*) INTO @c FROM (SELECT id FROM {}messages WHERE turn>@n AND ");
    let sql = in_flight(sql, "", &receipts).add(" FOR UPDATE) locked;SET @k=@c=");
    let sql = sql.number(receipts.len() as u64).add(";SELECT @k;");
    let sql = sql.and(tx.sql("SELECT DISTINCT queue FROM {}messages WHERE @k=1 AND id IN "));
    let sql = sql.numbers(ids()).add(";").and(tx.sum_acks(ids()));
    let sql = sql.and(tx.sql("DELETE FROM {}keys WHERE @k=1 AND message IN ")).numbers(ids());
    let sql = sql.add(";").and(tx.sql("DELETE FROM {}messages WHERE @k=1 AND id IN "));
    let sql = sql.numbers(ids()).add(";COMMIT");
    let mut answers = tx.ask(sql).await?;
    if cell::<u8>(&mut answers.row()?, 0)? == 0 {
        tx.begin_anew();
        return Ok(false);
    }
    tx.ended();
    for mut row in answers.rows()? {
        // What waited for its ordering key can go on.
        tx.woken.insert(cell(&mut row, 0)?);
    }
    Ok(true)
}

/// Locks deliveries, or refuses the first that is not open; with their queues.
async fn locked(
    tx: &mut Tx<'_>,
    settles: &[(Receipt, Verdict)],
) -> std::result::Result<(Vec<Open>, HashMap<u64, Known>), Fault> {
    let ids = || settles.iter().map(|(receipt, _)| receipt.place as u64);
    let sql = tx.sql(
        "SELECT id,lane,bytes,queue,attempts,token,session,held=1 AND turn>@n \
                      FROM {}messages WHERE id IN ",
    );
    let sql = sql.numbers(ids()).add(" ORDER BY id FOR UPDATE;");
    let sql = sql.and(tx.sql(
        "SELECT id,name,config FROM {}queues WHERE id IN (SELECT \
                              queue FROM {}messages WHERE id IN ",
    ));
    let mut answers = tx.ask(sql.numbers(ids()).add(")")).await?;
    let mut found = HashMap::new();
    for mut row in answers.rows()? {
        let victim = Victim::of(&mut row)?;
        let (token, session): (u64, u64) = (cell(&mut row, 5)?, cell(&mut row, 6)?);
        let is_open = cell::<u8>(&mut row, 7)? == 1;
        let open = Open { victim, queue: cell(&mut row, 3)?, attempts: cell(&mut row, 4)? };
        found.insert(u128::from(open.victim.id), (token, session, is_open, open));
    }
    let mut queues = HashMap::new();
    for mut row in answers.rows()? {
        let queue = known(&mut row)?;
        queues.insert(queue.id, queue);
    }
    let mut opened = Vec::with_capacity(settles.len());
    for (receipt, _) in settles {
        let Some((token, session, is_open, open)) = found.remove(&receipt.place) else {
            return Err(stale(receipt).into());
        };
        if token != receipt.token || !is_open {
            return Err(stale(receipt).into());
        }
        if session != receipt.session.id {
            let wrong = format!("delivery {} belongs to another session", receipt.token);
            return Err(Error::new(ErrorKind::Foreign, wrong).into());
        }
        opened.push(open);
    }
    Ok((opened, queues))
}

/// The signs of life of what a session has in hand, as far as it is known here; gives the tokens
/// of all that it has.
pub(crate) fn kept(
    tables: &crate::sql::Tables,
    session: u64,
    ttl: u64,
    tokens: &BTreeSet<u64>,
    consumers: &BTreeSet<u64>,
) -> Sql {
    let mut sql = Sql::default().clock();
    if !tokens.is_empty() {
        sql = sql.and(tables.named("UPDATE {}messages SET turn=LEAST(COALESCE(lease,@n+"));
        sql = sql.number(ttl).add("),@n+").number(ttl).add(") WHERE session=").number(session);
        sql = sql.add(" AND held=1 AND ready=0 AND turn>@n AND token IN ");
        sql = sql.numbers(tokens.iter().copied()).add(";");
    }
    if !consumers.is_empty() {
        sql = sql.and(tables.named("UPDATE {}consumers SET until=@n+")).number(ttl);
        sql = sql.add(" WHERE id IN ").numbers(consumers.iter().copied()).add(";");
    }
    sql = sql.and(tables.named("SELECT DISTINCT token FROM {}messages WHERE held=1 AND session="));
    sql.number(session)
}
