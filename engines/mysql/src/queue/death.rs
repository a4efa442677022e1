//! How messages die: rejected, expired, delivered too often, pushed out of a full queue. The dead
//! go to the dead letters, in the transaction in which they die, or are dropped.

use std::collections::BTreeSet;
use std::sync::Arc;

use leasehold_api::Overflow;
use mysql_async::Row;

use crate::connect::cell;
use crate::error::Fault;
use crate::queue::Queues;
use crate::queue::publish::{is_full, turn};
use crate::queue::settings::{Head, add_death, is_bounded, read_deaths, us, write_deaths};
use crate::queue::tx::{Known, Tx};
use crate::sql::Sql;

/// Messages pushed out with one round trip.
const TRIM: u64 = 256;
/// How often pushing out may push out further on.
const ROUNDS: u32 = 64;

type Names = BTreeSet<Arc<str>>;

/// A message that is locked in this transaction.
#[derive(Debug, Clone)]
pub(crate) struct Victim {
    pub id: u64,
    pub lane: u8,
    pub bytes: u64,
}

impl Victim {
    /// From a row of id, lane and bytes.
    pub fn of(row: &mut Row) -> std::result::Result<Self, Fault> {
        Ok(Self { id: cell(row, 0)?, lane: cell(row, 1)?, bytes: cell(row, 2)? })
    }
}

impl Queues {
    /// Lets locked messages of a queue die. Gives the queues that got them and may be too full.
    pub async fn die(
        &self,
        tx: &mut Tx<'_>,
        queue: &Known,
        victims: &[Victim],
        reason: &str,
    ) -> std::result::Result<Names, Fault> {
        let mut trim = Names::new();
        if victims.is_empty() {
            return Ok(trim);
        }
        if queue.config.dead_letter.is_some() {
            let sql = tx.sql("SELECT id,head,deaths FROM {}messages WHERE id IN ");
            let sql = sql.numbers(victims.iter().map(|victim| victim.id)).add(" ORDER BY id");
            let rows = tx.ask(sql).await?.rows()?;
            let mut sorted = victims.to_vec();
            sorted.sort_by_key(|victim| victim.id);
            for (mut row, victim) in rows.into_iter().zip(&sorted) {
                let head = Head::read(&cell::<Vec<u8>>(&mut row, 1)?)?;
                let deaths = cell::<Option<Vec<u8>>>(&mut row, 2)?;
                self.bury(tx, queue, victim, &head, deaths, reason, &mut trim).await?;
            }
        } else {
            tx.sums(queue.id).totals.dropped += victims.len() as u64;
        }
        remove(tx, queue.id, victims).await?;
        Ok(trim)
    }

    /// Sends one dead message to the dead letters.
    #[allow(clippy::too_many_arguments, reason = "what is known of a message, and of its death")]
    async fn bury(
        &self,
        tx: &mut Tx<'_>,
        queue: &Known,
        victim: &Victim,
        head: &Head,
        deaths: Option<Vec<u8>>,
        reason: &str,
        trim: &mut Names,
    ) -> std::result::Result<(), Fault> {
        let mut deaths = read_deaths(deaths.as_deref())?;
        let mut names = self.graves(tx, queue, head).await?;
        // A queue that it died in before, without anybody rejecting it on the way, is left out: it
        // would go round for ever.
        if reason != "rejected" && deaths.iter().all(|death| death.1 != "rejected") {
            let before = |name: &Arc<str>| deaths.iter().any(|death| *death.0 == **name);
            names.retain(|name| *name != queue.name && !before(name));
        }
        self.lock(tx, &names).await?;
        let graves = names.iter().filter_map(|name| tx.locked(name));
        let graves = graves.filter(|grave| !is_full(tx, grave, victim.bytes as usize));
        let graves: Vec<Known> = graves.collect();
        if graves.is_empty() {
            tx.sums(queue.id).totals.dropped += 1;
            return Ok(());
        }
        add_death(&mut deaths, &queue.name, reason, tx.now);
        tx.sums(queue.id).totals.dead += 1;
        for grave in graves {
            copy(tx, victim, &grave, Some(&write_deaths(&deaths))).await?;
            if is_bounded(&grave.config) && grave.config.overflow == Overflow::DropOldest {
                trim.insert(grave.name);
            }
        }
        Ok(())
    }

    /// Where the dead of a queue go.
    async fn graves(
        &self,
        tx: &mut Tx<'_>,
        queue: &Known,
        head: &Head,
    ) -> std::result::Result<Names, Fault> {
        let Some(dead) = &queue.config.dead_letter else { return Ok(Names::new()) };
        let key = dead.routing_key.as_deref().unwrap_or(&head.routing_key);
        match &dead.exchange {
            None => Ok([key.into()].into()),
            // An exchange that is gone takes nothing.
            Some(exchange) => {
                Ok(self.route(tx, exchange, key, &[], false).await?.unwrap_or_default())
            }
        }
    }

    /// Pushes the oldest out of queues that are too full, and on, if that fills others.
    pub async fn trim(&self, tx: &mut Tx<'_>, mut names: Names) -> std::result::Result<(), Fault> {
        for _ in 0..ROUNDS {
            let Some(name) = names.pop_first() else { return Ok(()) };
            let Some(queue) = tx.locked(&name) else { continue };
            if !is_bounded(&queue.config) {
                continue;
            }
            loop {
                let victims = overflowing(tx, &queue).await?;
                if victims.is_empty() {
                    break;
                }
                let more = self.die(tx, &queue, &victims, "overflow").await?;
                names.extend(more.into_iter().filter(|other| *other != name));
            }
        }
        Ok(())
    }
}

/// The oldest waiting messages of the lowest priority that are too many, locked.
async fn overflowing(tx: &mut Tx<'_>, queue: &Known) -> std::result::Result<Vec<Victim>, Fault> {
    let fill = tx.fill(queue.id);
    let beyond = |is: i64, max: Option<u64>| max.map_or(0, |max| (is - max.cast_signed()).max(0));
    let (mut many, mut bytes) = (
        beyond(fill.messages, queue.config.messages_max),
        beyond(fill.bytes, queue.config.bytes_max),
    );
    if many == 0 && bytes == 0 {
        return Ok(Vec::new());
    }
    let sql = tx.sql("SELECT MAX(turn) INTO @t FROM {}messages FORCE INDEX (turns) WHERE queue=");
    let sql = sql.number(queue.id).add(" AND ready=1;");
    let sql = sql.and(tx.sql(
        "SELECT id,lane,bytes FROM {}messages FORCE INDEX (turns) WHERE \
                              queue=",
    ));
    let sql = sql.number(queue.id).add(" AND ready=1 AND turn=@t ORDER BY id LIMIT ");
    let sql = sql.number((many.cast_unsigned()).clamp(1, TRIM)).add(" FOR UPDATE SKIP LOCKED");
    let mut victims = Vec::new();
    for mut row in tx.ask(sql).await?.rows()? {
        if many <= 0 && bytes <= 0 {
            break;
        }
        let victim = Victim::of(&mut row)?;
        (many, bytes) = (many - 1, bytes - victim.bytes as i64);
        victims.push(victim);
    }
    Ok(victims)
}

/// Removes locked messages.
pub(crate) async fn remove(
    tx: &mut Tx<'_>,
    queue: u64,
    victims: &[Victim],
) -> std::result::Result<(), Fault> {
    if victims.is_empty() {
        return Ok(());
    }
    let ids = || victims.iter().map(|victim| victim.id);
    tx.put(tx.sql("DELETE FROM {}keys WHERE message IN ").numbers(ids()).add(";")).await?;
    tx.put(tx.sql("DELETE FROM {}messages WHERE id IN ").numbers(ids()).add(";")).await?;
    let bytes: u64 = victims.iter().map(|victim| victim.bytes).sum();
    let sums = tx.sums(queue);
    sums.messages -= victims.len() as i64;
    sums.bytes -= bytes as i64;
    Ok(())
}

/// Puts a copy of a message into a queue, as if it were new there.
pub(crate) async fn copy(
    tx: &mut Tx<'_>,
    victim: &Victim,
    to: &Known,
    deaths: Option<&[u8]>,
) -> std::result::Result<(), Fault> {
    let lane = victim.lane.min(to.config.priority_max);
    let dies = to.config.ttl.map(|ttl| tx.now.saturating_add(us(ttl)));
    let sql = tx.sql(
        "INSERT INTO {}messages (queue,ready,turn,lane,held,token,session,attempts,\
                      keyed,dies,bytes,published,head,deaths,body) SELECT ",
    );
    let sql = sql.number(to.id).add(",1,").number(turn(lane)).add(",").number(lane);
    let sql = sql.add(",0,0,0,0,keyed,").number_or_null(dies).add(",bytes,published,head,");
    let sql = sql.bytes_or_null(deaths).and(tx.sql(",body FROM {}messages WHERE id="));
    tx.put(sql.number(victim.id).add(";")).await?;
    let sums = tx.sums(to.id);
    sums.totals.published += 1;
    sums.messages += 1;
    sums.bytes += victim.bytes as i64;
    tx.woken.insert(to.id);
    Ok(())
}

/// The statement that gives waiting messages of a queue in their order.
pub(crate) fn waiting(tx: &Tx<'_>, queue: u64, max: u32) -> Sql {
    let sql = tx.sql(
        "SELECT id,lane,bytes,deaths FROM {}messages FORCE INDEX (turns) WHERE \
                      queue=",
    );
    let sql = sql.number(queue).add(
        " AND ready=1 AND (dies IS NULL OR dies>@n) \
                                     ORDER BY turn,id LIMIT ",
    );
    sql.number(max).add(" FOR UPDATE SKIP LOCKED")
}
