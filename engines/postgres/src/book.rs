//! The book: versioned entries in one table, swapped by one function.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_api::{Guarantees, Result};
use leasehold_contenders::{
    Book, Change, Contender, Entry, Key, Seen, Space, Swapped, To, Watch, limits,
};
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::bells::{Bell, Bells};
use crate::error::odd;
use crate::server::{Arguments, Server, TRIES};
use crate::turn::Turns;

/// Entries in PostgreSQL.
#[derive(Debug, Clone)]
pub(crate) struct Pages {
    pub server: Arc<Server>,
    pub bells: Arc<Bells>,
    pub turns: Arc<Turns>,
    pub guarantees: Guarantees,
}

/// Keys, column by column.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    pub spaces: Vec<i16>,
    pub names: Vec<Vec<u8>>,
}

/// Changes, column by column.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub keys: Keys,
    pub expects: Vec<i64>,
    pub acts: Vec<i16>,
    pub values: Vec<Option<Vec<u8>>>,
    pub lasts: Vec<Option<i64>>,
    pub bells: Vec<String>,
}

fn number(space: Space) -> i16 {
    match space {
        Space::Lock => 0,
        Space::Register => 1,
    }
}

/// A duration as the server counts it.
pub(crate) fn us(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

impl Keys {
    /// Puts keys into columns.
    pub fn of<'a>(keys: impl IntoIterator<Item = &'a Key>) -> Self {
        let mut all = Self::default();
        for key in keys {
            all.spaces.push(number(key.space));
            all.names.push(key.name.clone());
        }
        all
    }
}

impl Changes {
    /// Puts changes into columns.
    pub fn of(changes: &[Change]) -> Self {
        let mut all = Self { keys: Keys::of(changes.iter().map(|c| &c.key)), ..Self::default() };
        for change in changes {
            let (act, value, lasts) = match &change.to {
                To::Same => (0, None, None),
                To::Value { value, lasts } => (1, Some(value.clone()), lasts.map(us)),
                To::Nothing => (2, None, None),
            };
            all.expects.push(change.expect.cast_signed());
            all.acts.push(act);
            all.values.push(value);
            all.lasts.push(lasts);
            let own = change.ring.then(|| Bell::of(&change.key));
            let bells = own.into_iter().chain(change.bells.iter().map(Bell::in_line));
            all.bells.extend(bells.map(Bell::payload));
        }
        all
    }

    /// The columns.
    pub fn arguments(&self) -> [&(dyn ToSql + Sync); 6] {
        let Self { keys: Keys { spaces, names }, expects, acts, values, lasts, .. } = self;
        [spaces, names, expects, acts, values, lasts]
    }
}

/// Whether a swap may be lost with the machine's power: it only takes away lines, with the last who
/// stood in them. If that is lost the lock stays held until the deadline; and nobody has seen a
/// version that was lost with it and may be given again, as what stays in a line would show.
fn is_lazy(changes: &[Change]) -> bool {
    let is = |change: &Change| {
        change.key.space == Space::Lock && matches!(change.to, To::Nothing | To::Same)
    };
    changes.iter().all(is)
}

/// How entries are.
pub(crate) fn seen(rows: &[Row]) -> std::result::Result<Seen, tokio_postgres::Error> {
    let mut all = Seen { entries: Vec::with_capacity(rows.len()), now: 0 };
    for row in rows {
        all.now = row.try_get::<_, i64>(3)?.cast_unsigned();
        all.entries.push(match row.try_get::<_, Option<i64>>(0)? {
            Some(version) => Some(Entry {
                version: version.cast_unsigned(),
                written: row.try_get::<_, i64>(1)?.cast_unsigned(),
                value: row.try_get(2)?,
            }),
            None => None,
        });
    }
    Ok(all)
}

/// What came of a swap or a commit.
pub(crate) fn swapped(rows: &[Row]) -> Result<Swapped> {
    let read = || {
        if let [row] = rows
            && row.try_get::<_, bool>(4)?
        {
            return Ok(Swapped::Done {
                version: row.try_get::<_, i64>(0)?.cast_unsigned(),
                now: row.try_get::<_, i64>(1)?.cast_unsigned(),
            });
        }
        Ok(Swapped::Changed(seen(rows)?))
    };
    read().map_err(|error| odd(&error))
}

impl Pages {
    /// Asks for a write, and rings bells right after it.
    async fn written(
        &self,
        sql: &str,
        arguments: &Arguments<'_>,
        bells: &[String],
        number: i64,
    ) -> Result<Vec<Row>> {
        let mut tries = 0;
        loop {
            tries += 1;
            let within = self.server.config.answer;
            match self.server.once_and_ring(sql, arguments, bells, number, within).await {
                Ok(rows) => return Ok(rows),
                // It was rolled back by the server.
                Err(failed) if failed.again && !failed.is_lost && tries < TRIES => {}
                Err(failed) => return Err(failed.error),
            }
        }
    }
}

#[async_trait]
impl Book for Pages {
    fn guarantees(&self) -> Guarantees {
        self.guarantees
    }

    async fn read(&self, keys: &[Key]) -> Result<Seen> {
        let Keys { spaces, names } = Keys::of(keys);
        let sql = self.server.call("look", 2);
        let rows = self.server.once(&sql, &[&spaces, &names], self.server.config.answer).await;
        let rows = rows.map_err(|failed| failed.error)?;
        seen(&rows).map_err(|error| odd(&error))
    }

    async fn swap(&self, changes: &[Change], until: Option<u64>) -> Result<Swapped> {
        let all = Changes::of(changes);
        let sql = self.server.call("swap", 9);
        let number = (crate::random() >> 1).cast_signed();
        let mut arguments = all.arguments().to_vec();
        let (until, lazy) = (until.map(u64::cast_signed), is_lazy(changes));
        arguments.extend([&until as &(dyn ToSql + Sync), &number, &lazy]);
        let rows = self.written(&sql, &arguments, &all.bells, number).await?;
        swapped(&rows)
    }

    async fn append(&self, key: &Key, contender: &Contender) -> Result<Option<Seen>> {
        let sql = self.server.call("append", 4);
        let text = serde_json::to_string(contender).expect("it has only text and numbers");
        let lasts = contender.lasts.map(|lasts| lasts.saturating_add(contender.delay));
        let lasts = lasts.map(Duration::from_micros).map(us);
        let line_max = i32::try_from(limits::LINE_MAX).unwrap_or(i32::MAX);
        let rows = self.written(&sql, &[&key.name, &text, &lasts, &line_max], &[], 0).await?;
        seen(&rows).map(Some).map_err(|error| odd(&error))
    }

    async fn wait(&self, watch: &Watch<'_>, at_most: Duration) -> Result<Option<Seen>> {
        let bells = match &watch.bell {
            Some(bell) => vec![Bell::in_line(bell)],
            None => watch.keys.iter().map(Bell::of).collect(),
        };
        let hearing = self.bells.hear(bells);
        let seen = self.read(watch.keys).await?;
        if !(watch.same)(&seen) {
            return Ok(Some(seen));
        }
        // Coming back at the end of the time is all the same to the caller.
        timeout(at_most, hearing.rung()).await.ok();
        Ok(None)
    }

    async fn turn(&self, key: &Key, at_most: Duration) -> Option<Box<dyn Send>> {
        self.turns.wait(&key.name, at_most).await
    }

    async fn list(&self, space: Space, prefix: &[u8], after: u32, max: u32) -> Result<Vec<Key>> {
        // The least name that begins otherwise and comes later; none after a row of 255s.
        let mut beyond = prefix.to_vec();
        while beyond.last() == Some(&255) {
            beyond.pop();
        }
        let beyond = beyond.pop().map(|last| [&beyond[..], &[last + 1]].concat());
        let sql = format!(
            "select name from {}.entries where space = $1 and name >= $2 \
             and ($3::bytea is null or name < $3) order by name offset $4 limit $5",
            self.server.config.quoted()
        );
        let (after, max) = (i64::from(after), i64::from(max));
        let rows =
            self.server.rows(&sql, &[&number(space), &prefix, &beyond, &after, &max]).await?;
        let key = |row: &Row| Ok(Key { space, name: row.try_get(0)? });
        rows.iter().map(key).collect::<std::result::Result<_, _>>().map_err(|error| odd(&error))
    }
}
