//! The book of entries: one table, compared and swapped with one round trip.
//!
//! A swap is one packet of statements. Its rows are locked in the order of their keys, so swaps
//! cannot close a circle; a row that must not be there is put in first, with version 0, so that
//! there is something to lock (`READ COMMITTED` locks no gaps). The comparison sets `@k`, and
//! every later statement asks for it. No client stands between the locks and the commit, so one
//! that is stopped in the middle holds nobody up.
//!
//! Versions come from an `AUTO_INCREMENT` and not from a row that counts: such a row stays locked
//! until the commit is on disk, so all swaps would wait for each other's disk. The number is taken
//! only after the rows are locked, so versions of one key rise in the order of the commits, and a
//! swap that begins after another has ended has a higher one. MySQL 8.0 and MariaDB 10.2.4 keep
//! the counter over restarts ("AUTO_INCREMENT Handling in InnoDB" in both manuals).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_api::{Error, ErrorKind, Guarantees, Result, Retry};
use leasehold_contenders::{Book, Change, Entry, Key, Seen, Space, Swapped, To, Watch};
use mysql_async::Row;

use crate::bells::Bells;
use crate::connect::{Answers, Line, PATIENCE, Repeat, Server, cell, jittered};
use crate::error::Fault;
use crate::sql::{NOW, Sql, Tables};

/// Names a swap, so that one whose answer was lost is found again.
pub(crate) type SwapId = [u8; 16];

/// Entries, and by which swap each was written.
pub(crate) type SeenBy = (Seen, Vec<Option<Vec<u8>>>);

/// The entries of one installation.
#[derive(Clone)]
pub(crate) struct Entries {
    server: Arc<Server>,
    pub bells: Arc<Bells>,
}

fn space(space: Space) -> u8 {
    match space {
        Space::Lock => 0,
        Space::Register => 1,
    }
}

fn is(sql: Sql, key: &Key) -> Sql {
    sql.add("(space=").number(space(key.space)).add(" AND name=").bytes(&key.name).add(")")
}

fn any(sql: Sql, keys: &[Key]) -> Sql {
    sql.add("(").joined(keys, " OR ", is).add(")")
}

/// The order in which rows are locked.
fn in_order(changes: &[Change]) -> Vec<&Change> {
    let mut sorted: Vec<&Change> = changes.iter().collect();
    sorted
        .sort_by(|a, b| (space(a.key.space), &a.key.name).cmp(&(space(b.key.space), &b.key.name)));
    sorted
}

/// Asks for entries and the time.
pub(crate) fn read(tables: &Tables, keys: &[Key]) -> Sql {
    let sql = Sql::new("SELECT ").add(NOW).add(
        " AS n,NULL AS space,NULL AS name,NULL AS version,\
                        NULL AS written,NULL AS swap,NULL AS value UNION ALL SELECT ",
    );
    let sql = sql.add(NOW).add(&tables.text(
        ",space,name,version,written,swap,value \
                                             FROM {}entries WHERE ",
    ));
    any(sql, keys)
}

/// An entry with the swap that wrote it.
struct Found {
    at: (u8, Vec<u8>),
    swap: Vec<u8>,
    entry: Entry,
}

fn found(row: &mut Row) -> std::result::Result<Found, Fault> {
    let at = (cell(row, 1)?, cell(row, 2)?);
    let entry = Entry { version: cell(row, 3)?, written: cell(row, 4)?, value: cell(row, 6)? };
    Ok(Found { at, swap: cell(row, 5)?, entry })
}

/// What [`read`] gives.
pub(crate) fn seen(keys: &[Key], answers: &mut Answers) -> std::result::Result<SeenBy, Fault> {
    let mut rows = answers.rows()?;
    let now = match rows.first_mut() {
        Some(row) => cell(row, 0)?,
        None => return Err(Fault::Lost(crate::error::odd("the time is missing"))),
    };
    collect(keys, now, &mut rows[1..])
}

fn collect(keys: &[Key], now: u64, rows: &mut [Row]) -> std::result::Result<SeenBy, Fault> {
    let mut all = rows.iter_mut().map(found).collect::<std::result::Result<Vec<_>, _>>()?;
    let mut entries = Vec::with_capacity(keys.len());
    let mut swaps = Vec::with_capacity(keys.len());
    for key in keys {
        let at = (space(key.space), key.name.clone());
        let place = all.iter().position(|found| found.at == at && found.entry.version > 0);
        let one = place.map(|place| all.swap_remove(place));
        let (entry, swap) = one.map(|found| (found.entry, found.swap)).unzip();
        entries.push(entry);
        swaps.push(swap);
    }
    Ok((Seen { entries, now }, swaps))
}

/// Locks rows of keys within a transaction, those that are not there too.
pub(crate) fn lock(tables: &Tables, sql: Sql, keys: &[&Key]) -> Sql {
    let sql = sql.add(&tables.text(
        "INSERT INTO {}entries (space,name,version,written,swap,value) \
                                    VALUES ",
    ));
    let row = |sql: Sql, key: &&Key| {
        let sql = sql.add("(").number(space(key.space)).add(",").bytes(&key.name);
        sql.add(",0,0,'','')")
    };
    sql.joined(keys, ",", row).add(" ON DUPLICATE KEY UPDATE space=VALUES(space);")
}

/// Writes changes whose rows are locked, if `@k` is 1: their version is in `@v` then, the time in
/// `@n`.
pub(crate) fn write(tables: &Tables, mut sql: Sql, changes: &[&Change], swap: &SwapId) -> Sql {
    sql = sql.clock().add("SET @v=0;");
    if changes.iter().any(|change| change.to != To::Same) {
        sql = tick(tables, sql);
    }
    for change in changes {
        if let To::Value { value, lasts } = &change.to {
            sql = sql.add(&tables.text("UPDATE {}entries SET version=@v,written=@n,swap="));
            sql = sql.bytes(swap).add(",ends=");
            sql = match lasts {
                // A little longer, for a clock that is set back.
                Some(lasts) => sql.add("@n+60000000+").number(lasts.as_micros().cast_signed()),
                None => sql.add("NULL"),
            };
            sql = is(sql.add(",value=").bytes(value).add(" WHERE @k=1 AND "), &change.key).add(";");
        }
    }
    // What was put in only to be locked goes, and what is to go.
    for change in changes {
        let goes = change.to == To::Nothing;
        if goes || change.expect == 0 {
            sql = is(sql.add(&tables.text("DELETE FROM {}entries WHERE ")), &change.key);
            sql = sql.add(if goes { " AND (@k=1 OR version=0);" } else { " AND version=0;" });
        }
    }
    sql
}

/// Takes the next number into `@v`, if `@k` is 1.
pub(crate) fn tick(tables: &Tables, sql: Sql) -> Sql {
    sql.add(&tables.text(
        "INSERT INTO {}ticks (id) SELECT NULL FROM DUAL WHERE @k=1;\
                          SET @v=IF(@k=1,LAST_INSERT_ID(),0);\
                          DELETE FROM {}ticks WHERE id=@v;",
    ))
}

/// The whole of a swap in one packet.
fn swap(tables: &Tables, changes: &[Change], until: Option<u64>, id: &SwapId) -> Sql {
    let sorted = in_order(changes);
    let keys: Vec<&Key> = sorted.iter().map(|change| &change.key).collect();
    let mut sql = lock(tables, Sql::new("START TRANSACTION;"), &keys);
    sql = sql.add(&tables.text("SET @k=(SELECT COUNT(*) FROM {}entries WHERE "));
    sql = sql.joined(&sorted, " OR ", |sql, change| {
        is(sql.add("("), &change.key).add(" AND version=").number(change.expect).add(")")
    });
    sql = sql.add(")=").number(changes.len() as u64).add(";");
    if let Some(until) = until {
        sql = sql.clock().add("SET @k=IF(@n<").number(until).add(",@k,0);");
    }
    sql = write(tables, sql, &sorted, id);
    sql = sql.add("COMMIT;SELECT @k,@v,@n;");
    let keys: Vec<Key> = changes.iter().map(|change| change.key.clone()).collect();
    // Only who lost wants to know how things are.
    sql = sql.add("SELECT ").add(NOW).add(&tables.text(
        ",space,name,version,written,swap,value \
                                                        FROM {}entries WHERE @k=0 AND ",
    ));
    any(sql, &keys)
}

/// What came of [`swap`].
async fn swapped(
    tables: &Tables,
    line: &mut Line,
    changes: &[Change],
    until: Option<u64>,
    id: &SwapId,
) -> std::result::Result<Swapped, Fault> {
    let mut answers = line.ask(swap(tables, changes, until, id)).await?;
    let mut row = answers.row()?;
    let (done, now): (u64, u64) = (cell(&mut row, 0)?, cell(&mut row, 2)?);
    if done == 1 {
        return Ok(Swapped::Done { version: cell(&mut row, 1)?, now });
    }
    let keys: Vec<Key> = changes.iter().map(|change| change.key.clone()).collect();
    Ok(Swapped::Changed(collect(&keys, now, &mut answers.rows()?)?.0))
}

/// A number that nobody else has.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let none = |error| Error::new(ErrorKind::Broken, format!("the system's randomness: {error}"));
    getrandom::fill(&mut bytes).map_err(none)?;
    Ok(bytes)
}

impl Entries {
    pub fn new(server: Arc<Server>, bells: Arc<Bells>) -> Self {
        Self { server, bells }
    }

    async fn look(&self, keys: &[Key]) -> Result<SeenBy> {
        let (tables, keys) = (self.server.tables.clone(), keys.to_vec());
        self.server
            .run(Repeat::Freely, move |line| {
                let (sql, keys) = (read(&tables, &keys), keys.clone());
                Box::pin(async move { seen(&keys, &mut line.ask(sql).await?) })
            })
            .await
    }

    /// Finds out what became of a swap without an answer.
    async fn find_out(&self, changes: &[Change], id: &SwapId) -> Result<Option<Swapped>> {
        let keys: Vec<Key> = changes.iter().map(|change| change.key.clone()).collect();
        let (seen, swaps) = self.look(&keys).await?;
        for (entry, swap) in seen.entries.iter().zip(&swaps) {
            if let (Some(entry), Some(swap)) = (entry, swap)
                && swap[..] == id[..]
            {
                return Ok(Some(Swapped::Done { version: entry.version, now: entry.written }));
            }
        }
        let versions = seen.entries.iter().map(|entry| entry.as_ref().map_or(0, |e| e.version));
        let same = versions.zip(changes).all(|(version, change)| version == change.expect);
        if same {
            return Ok(None);
        }
        let wrong = "the answer was lost, and others have written since; look how things are";
        Err(Error::new(ErrorKind::Unavailable, wrong).with_retry(Retry::Unknown))
    }

    async fn once(&self, changes: &[Change], until: Option<u64>, id: SwapId) -> Result<Swapped> {
        let (tables, changes) = (self.server.tables.clone(), changes.to_vec());
        self.server
            .run(Repeat::Never, move |line| {
                let (tables, changes) = (tables.clone(), changes.clone());
                Box::pin(async move { swapped(&tables, line, &changes, until, &id).await })
            })
            .await
    }
}

#[async_trait]
impl Book for Entries {
    fn guarantees(&self) -> Guarantees {
        self.server.guarantees()
    }

    async fn read(&self, keys: &[Key]) -> Result<Seen> {
        Ok(self.look(keys).await?.0)
    }

    async fn swap(&self, changes: &[Change], until: Option<u64>) -> Result<Swapped> {
        let id: SwapId = random()?;
        let began = tokio::time::Instant::now();
        let done = loop {
            match self.once(changes, until, id).await {
                Ok(done) => break done,
                // The same swap again is refused if the first was carried out, so it is safe; but
                // what a refusal means then has to be found out first.
                Err(error)
                    if error.kind == ErrorKind::Unavailable
                        && error.retry == Retry::Unknown
                        && began.elapsed() < PATIENCE =>
                {
                    tokio::time::sleep(jittered(Duration::from_millis(50))).await;
                    match self.find_out(changes, &id).await? {
                        Some(swapped) => {
                            self.bells.changed(changes);
                            return Ok(swapped);
                        }
                        None => continue,
                    }
                }
                Err(error) => return Err(error),
            }
        };
        if let Swapped::Done { .. } = done {
            self.bells.changed(changes);
        }
        Ok(done)
    }

    async fn wait(&self, watch: &Watch<'_>, at_most: Duration) -> Result<Option<Seen>> {
        self.bells.wait(self, watch, at_most).await
    }

    async fn list(&self, wanted: Space, prefix: &[u8], after: u32, max: u32) -> Result<Vec<Key>> {
        let sql = self.server.tables.named("SELECT name FROM {}entries WHERE space=");
        let sql = sql.number(space(wanted)).add(" AND name>=").bytes(prefix);
        let sql = sql.add(" AND LEFT(name,").number(prefix.len() as u64).add(")=").bytes(prefix);
        let sql = sql.add(" ORDER BY name LIMIT ").number(max).add(" OFFSET ").number(after);
        self.server
            .run(Repeat::Freely, move |line| {
                let sql = sql.clone();
                Box::pin(async move {
                    let rows = line.ask(sql).await?.rows()?;
                    let name = |mut row| Ok(Key { space: wanted, name: cell(&mut row, 0)? });
                    rows.into_iter().map(name).collect::<std::result::Result<Vec<Key>, Fault>>()
                })
            })
            .await
    }

    async fn hang(&self, bell: &str) -> Result<()> {
        self.bells.hang(bell).await
    }

    async fn take_down(&self, bell: &str) {
        self.bells.take_down(bell);
    }
}
