//! Asking the server: a connection of the pool, one statement, one answer.
//!
//! Every request is one call of a function of our schema, so it is carried out or not, and nothing
//! of it is left when its future is dropped. A request that is named by a request id, or that is
//! the same twice as once, is asked again when its connection is lost, for ten seconds.

use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use leasehold_api::Result;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::config::Config;
use crate::error::{Failed, driver, pool};

/// How long a server that is out of reach is waited for, if nobody says otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// The first pause before asking again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// How often a transaction that the server rolled back is begun again at once.
pub(crate) const TRIES: u32 = 10;
/// How much longer something may take that goes through a whole queue.
const WHOLE: u32 = 12;

/// Arguments of a statement.
pub(crate) type Arguments<'a> = [&'a (dyn ToSql + Sync)];

/// A server, or several of which one is the primary.
#[derive(Debug)]
pub(crate) struct Server {
    pub pool: Pool,
    pub config: Config,
}

impl Server {
    /// The statement that calls a function of our schema with so many arguments.
    pub fn call(&self, function: &str, arguments: usize) -> String {
        let places: Vec<String> = (1..=arguments).map(|place| format!("${place}")).collect();
        format!("select * from {}.{function}({})", self.config.quoted(), places.join(", "))
    }

    /// Asks once.
    pub async fn once(
        &self,
        sql: &str,
        arguments: &Arguments<'_>,
        within: Duration,
    ) -> std::result::Result<Vec<Row>, Failed> {
        self.once_and_ring(sql, arguments, &[], 0, within).await
    }

    /// Asks once, and rings bells right after what was asked is done, unless that says by its
    /// number that it was in vain; 0: it does not.
    pub async fn once_and_ring(
        &self,
        sql: &str,
        arguments: &Arguments<'_>,
        bells: &[String],
        number: i64,
        within: Duration,
    ) -> std::result::Result<Vec<Row>, Failed> {
        let until = Instant::now() + within;
        let client = match timeout(within, self.pool.get()).await {
            Ok(client) => client.map_err(|error| pool(&error))?,
            Err(_) => {
                let (all, busy) = (self.pool.status().max_size, self.pool.status().size);
                let wrong = format!("no connection within {within:?} ({busy} of {all} are open)");
                return Err(Failed::lost(wrong, false));
            }
        };
        let left = until.saturating_duration_since(Instant::now()).max(within / 2);
        let asked = async {
            let statement = client.prepare_cached(sql).await.map_err(|error| (error, false))?;
            let asked = client.query(&statement, arguments);
            if bells.is_empty() {
                return asked.await.map_err(|error| (error, true));
            }
            let ring = self.call("ring_all", 2);
            let ring = client.prepare_cached(&ring).await.map_err(|error| (error, false))?;
            let bells: [&(dyn ToSql + Sync); 2] = [&bells, &number];
            // Both are sent before an answer comes, in this order.
            let (rows, rung) = tokio::join!(biased; asked, client.query(&ring, &bells));
            let rows = rows.map_err(|error| (error, true))?;
            rung.map_err(|error| (error, true))?;
            Ok(rows)
        };
        let failed = match timeout(left, asked).await {
            Ok(Ok(rows)) => return Ok(rows),
            Ok(Err((error, sent))) => driver(&error, sent),
            Err(_) => Failed::lost(format!("no answer within {left:?}"), true),
        };
        if failed.is_lost {
            // Nobody else must get it.
            drop(Object::take(client));
        }
        Err(failed)
    }

    /// Asks with the usual patience, and rings bells right after it is done.
    pub async fn rows_and_ring(
        &self,
        sql: &str,
        arguments: &Arguments<'_>,
        bells: &[String],
    ) -> Result<Vec<Row>> {
        self.asked(sql, arguments, bells, self.config.answer, PATIENCE).await
    }

    /// Asks until there is an answer, at most for so long.
    async fn asked(
        &self,
        sql: &str,
        arguments: &Arguments<'_>,
        bells: &[String],
        answer: Duration,
        patience: Duration,
    ) -> Result<Vec<Row>> {
        let until = Instant::now() + patience;
        let mut pause = PAUSES.0;
        let mut maybe_done = false;
        loop {
            let mut failed = match self.once_and_ring(sql, arguments, bells, 0, answer).await {
                Ok(rows) => return Ok(rows),
                Err(failed) => failed,
            };
            let retry = failed.error.retry;
            maybe_done |= failed.is_lost && retry == leasehold_api::Retry::Unknown;
            let left = until.saturating_duration_since(Instant::now());
            if !failed.again || left.is_zero() {
                if maybe_done && failed.again {
                    failed.error.retry = leasehold_api::Retry::Unknown;
                }
                return Err(failed.error);
            }
            sleep(crate::spread(pause).min(left)).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Asks with the usual patience what may be asked again.
    pub async fn rows(&self, sql: &str, arguments: &Arguments<'_>) -> Result<Vec<Row>> {
        self.rows_and_ring(sql, arguments, &[]).await
    }

    /// The same for what goes through a whole queue.
    pub async fn whole(&self, sql: &str, arguments: &Arguments<'_>) -> Result<Vec<Row>> {
        let answer = self.config.answer * WHOLE;
        self.asked(sql, arguments, &[], answer, answer).await
    }
}
