//! A transaction over queues: its clock, what it adds to the sums, and whom it wakes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use leasehold_api::engine::QueueTotals;
use leasehold_api::{Error, ErrorKind, QueueConfig};
use leasehold_contenders::{Key, Seen};
use mysql_async::Row;

use crate::connect::{Answers, Line, cell};
use crate::error::Fault;
use crate::queue::settings::{is_bounded, read_config};
use crate::sql::{Sql, Tables};

/// Rows over which the sums of a queue are spread: a connection writes to one of them, so up to so
/// many connections seldom wait for each other.
const SLOTS: u32 = 64;

/// A queue as it is declared.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub id: u64,
    pub name: Arc<str>,
    pub config: QueueConfig,
}

/// The refusal of a queue that is not there.
pub(crate) fn no_queue(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no queue {name}; declare it first"))
}

pub(crate) fn known(row: &mut Row) -> std::result::Result<Known, Fault> {
    let name = String::from_utf8_lossy(&cell::<Vec<u8>>(row, 1)?).as_ref().into();
    let config = read_config(&cell::<Vec<u8>>(row, 2)?)?;
    Ok(Known { id: cell(row, 0)?, name, config })
}

/// What a transaction adds to the sums of a queue.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sums {
    pub totals: QueueTotals,
    pub messages: i64,
    pub bytes: i64,
}

/// How publishers of a bounded queue are counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fill {
    pub messages: i64,
    pub bytes: i64,
}

/// A transaction.
pub(crate) struct Tx<'l> {
    line: &'l mut Line,
    pub tables: &'l Tables,
    /// The server's clock when it began, microseconds.
    pub now: u64,
    begun: bool,
    ended: bool,
    /// Statements without answers that go with the next ones.
    pending: Sql,
    sums: BTreeMap<u64, Sums>,
    /// Queues that got something to deliver.
    pub woken: BTreeSet<u64>,
    /// Queues that are locked, by name.
    locked: HashMap<Arc<str>, Known>,
    /// How full those are that have bounds.
    fills: HashMap<u64, Fill>,
    /// Longest statement, bytes.
    pub packet: usize,
}

impl<'l> Tx<'l> {
    pub fn new(line: &'l mut Line, tables: &'l Tables, packet: usize) -> Self {
        Self {
            line,
            tables,
            now: 0,
            begun: false,
            ended: false,
            pending: Sql::default(),
            sums: BTreeMap::new(),
            woken: BTreeSet::new(),
            locked: HashMap::new(),
            fills: HashMap::new(),
            packet,
        }
    }

    /// Statements, with one round trip. The first ones begin the transaction.
    pub async fn ask(&mut self, sql: Sql) -> std::result::Result<Answers, Fault> {
        let sql = std::mem::take(&mut self.pending).and(sql);
        if self.begun {
            return self.line.ask(sql).await;
        }
        let mut answers = self.line.ask(Sql::begin().add("SELECT @n;").and(sql)).await?;
        self.now = cell(&mut answers.row()?, 0)?;
        self.begun = true;
        Ok(answers)
    }

    /// A statement that gives no rows and ends with a semicolon; it goes with the next ones.
    pub async fn put(&mut self, sql: Sql) -> std::result::Result<(), Fault> {
        let spare = 64 << 10;
        if sql.len() + spare > self.packet {
            let wrong = format!(
                "{} bytes at once are more than the server's max_allowed_packet \
                                 of {} takes; raise that, or send less",
                sql.len(),
                self.packet
            );
            return Err(Error::new(ErrorKind::Invalid, wrong).into());
        }
        if self.pending.len() + sql.len() + spare > self.packet {
            self.ask(Sql::new("DO 0")).await?;
        }
        self.pending = std::mem::take(&mut self.pending).and(sql);
        Ok(())
    }

    /// Rows of one table, with as few statements as its packets allow; they go with the next ones.
    pub async fn put_rows(&mut self, into: &str, rows: Vec<Sql>) -> std::result::Result<(), Fault> {
        let most = self.packet / 4;
        let mut rows = rows.into_iter().peekable();
        while let Some(first) = rows.next() {
            let mut sql = self.sql(into).and(first);
            while let Some(next) = rows.next_if(|next| sql.len() + next.len() < most) {
                sql = sql.add(",").and(next);
            }
            self.put(sql.add(";")).await?;
        }
        Ok(())
    }

    /// Entries of the book, which this transaction has locked.
    pub async fn read(&mut self, keys: &[Key]) -> std::result::Result<Seen, Fault> {
        let mut answers = self.ask(crate::book::read(self.tables, keys)).await?;
        Ok(crate::book::seen(keys, &mut answers)?.0)
    }

    /// A statement with `{}` before the names of tables.
    pub fn sql(&self, text: &str) -> Sql {
        self.tables.named(text)
    }

    /// What is added to the sums of a queue.
    pub fn sums(&mut self, queue: u64) -> &mut Sums {
        self.sums.entry(queue).or_default()
    }

    /// How full a bounded queue is, with what this transaction adds.
    pub fn fill(&self, queue: u64) -> Fill {
        let fill = self.fills.get(&queue).copied().unwrap_or_default();
        let own = self.sums.get(&queue).copied().unwrap_or_default();
        Fill { messages: fill.messages + own.messages, bytes: fill.bytes + own.bytes }
    }

    /// Queues by name, kept from being deleted until the end; those with bounds for this
    /// transaction alone, with how full they are. `bounded` tells which are known to have bounds.
    pub async fn lock_queues(
        &mut self,
        names: &BTreeSet<Arc<str>>,
        bounded: impl Fn(&str) -> bool,
    ) -> std::result::Result<(), LockFault> {
        let new = names.iter().filter(|name| !self.locked.contains_key(&***name));
        let (alone, shared): (Vec<_>, Vec<_>) = new.cloned().partition(|name| bounded(name));
        if alone.is_empty() && shared.is_empty() {
            return Ok(());
        }
        let lock = |tables: &Tables, sql: Sql, names: &[Arc<str>], how: &str| {
            let sql = sql.add(&tables.text(
                "SELECT id,name,config FROM {}queues WHERE \
                                            name IN ",
            ));
            let sql = sql.list(names, |sql, name| sql.bytes(name.as_bytes()));
            sql.add(" ORDER BY id").add(how).add(";")
        };
        let mut sql = Sql::default();
        if !shared.is_empty() {
            sql = lock(self.tables, sql, &shared, " LOCK IN SHARE MODE");
        }
        if !alone.is_empty() {
            sql = lock(self.tables, sql, &alone, " FOR UPDATE");
            sql = sql.add(&self.tables.text(
                "SELECT q.id,CAST(SUM(s.messages) AS SIGNED),\
                CAST(SUM(s.bytes) AS SIGNED) FROM {}queues q JOIN {}sums s ON s.queue=q.id \
                WHERE q.name IN ",
            ));
            sql = sql.list(&alone, |sql, name| sql.bytes(name.as_bytes())).add(" GROUP BY q.id;");
        }
        let mut answers = self.ask(sql).await?;
        if !shared.is_empty() {
            for mut row in answers.rows()? {
                let queue = known(&mut row)?;
                if is_bounded(&queue.config) {
                    return Err(LockFault::Bounded(queue.name));
                }
                self.locked.insert(queue.name.clone(), queue);
            }
        }
        if !alone.is_empty() {
            for mut row in answers.rows()? {
                let queue = known(&mut row)?;
                self.locked.insert(queue.name.clone(), queue);
            }
            for mut row in answers.rows()? {
                let fill = Fill { messages: cell(&mut row, 1)?, bytes: cell(&mut row, 2)? };
                self.fills.insert(cell(&mut row, 0)?, fill);
            }
        }
        Ok(())
    }

    /// A queue that is locked.
    pub fn locked(&self, name: &str) -> Option<Known> {
        self.locked.get(name).cloned()
    }

    /// Writes what is left to write and ends the transaction, with the last statements.
    pub async fn last(&mut self, sql: Sql) -> std::result::Result<Answers, Fault> {
        let sums = self.written_sums();
        self.ended = true;
        self.ask(sql.and(sums).add("COMMIT")).await
    }

    /// Ends the transaction, unless that was done.
    pub async fn commit(mut self) -> std::result::Result<BTreeSet<u64>, Fault> {
        if !self.ended && self.begun {
            self.last(Sql::default()).await?;
        }
        Ok(self.woken)
    }

    /// It was ended by its own statements.
    pub fn ended(&mut self) {
        self.ended = true;
    }

    /// It was ended by its own statements, without having done anything, and goes on as another.
    pub fn begin_anew(&mut self) {
        self.begun = false;
    }

    /// Whether an earlier try of the same failed, and its outcome may not be known.
    pub fn is_again(&self) -> bool {
        self.line.tries > 0
    }

    /// Adds acks to the sums of their queues, if `@k` is 1.
    pub fn sum_acks(&self, ids: impl IntoIterator<Item = u64>) -> Sql {
        let sql = self.sql(
            "INSERT INTO {}sums (queue,slot,published,acked,returned,dead,dropped,\
                            purged,messages,bytes) SELECT m.queue,",
        );
        let sql = sql.number(self.line.id() % SLOTS).and(self.sql(
            ",0,COUNT(*),0,0,0,0,-COUNT(*),-CAST(SUM(m.bytes) AS SIGNED) FROM {}messages m JOIN \
             {}queues q ON q.id=m.queue WHERE @k=1 AND m.id IN ",
        ));
        let sql = sql.numbers(ids).add(" GROUP BY m.queue ON DUPLICATE KEY UPDATE ");
        sql.and(self.sql("acked={}sums.acked+VALUES(acked),"))
            .and(self.sql("messages={}sums.messages+VALUES(messages),"))
            .and(self.sql("bytes={}sums.bytes+VALUES(bytes);"))
    }

    fn written_sums(&mut self) -> Sql {
        if self.sums.is_empty() {
            return Sql::default();
        }
        let slot = self.line.id() % SLOTS;
        let sql = self.sql(
            "INSERT INTO {}sums (queue,slot,published,acked,returned,dead,\
                            dropped,purged,messages,bytes) VALUES ",
        );
        let sql = sql.joined(&self.sums, ",", |sql, (queue, sums)| {
            let t = sums.totals;
            let counts = [t.published, t.acked, t.returned, t.dead, t.dropped, t.purged];
            let sql = sql.add("(").number(*queue).add(",").number(slot);
            let sql = counts.iter().fold(sql, |sql, count| sql.add(",").number(*count));
            sql.add(",").number(sums.messages).add(",").number(sums.bytes).add(")")
        });
        sql.add(
            " ON DUPLICATE KEY UPDATE published=published+VALUES(published),\
                 acked=acked+VALUES(acked),returned=returned+VALUES(returned),\
                 dead=dead+VALUES(dead),dropped=dropped+VALUES(dropped),\
                 purged=purged+VALUES(purged),messages=messages+VALUES(messages),\
                 bytes=bytes+VALUES(bytes);",
        )
    }
}

/// Why queues were not locked.
pub(crate) enum LockFault {
    /// One has bounds, which was not known.
    Bounded(Arc<str>),
    Fault(Fault),
}

impl From<Fault> for LockFault {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
