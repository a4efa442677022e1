//! The tables: made at the first connect, brought up to date at later ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use leasehold_api::{Error, ErrorKind, Result, Retry};

use tokio::time::sleep;

use crate::connect::{Line, Server, cell, jittered};
use crate::error::Fault;
use crate::sql::{Sql, Tables, hash, hex};

/// Steps from one version of the schema to the next; `{}` is the prefix. What is here never
/// changes; what is to change becomes a step at the end.
const STEPS: [&[&str]; 1] = [&[
    // Lines of contenders, and registers.
    "CREATE TABLE IF NOT EXISTS {}entries (
        space TINYINT UNSIGNED NOT NULL, name VARBINARY(1024) NOT NULL,
        version BIGINT UNSIGNED NOT NULL, written BIGINT UNSIGNED NOT NULL,
        swap BINARY(16) NOT NULL, ends BIGINT UNSIGNED NULL, value LONGBLOB NOT NULL,
        PRIMARY KEY (space, name), KEY ends (ends)) ENGINE=InnoDB ROW_FORMAT=DYNAMIC",
    // Gives out versions and tokens; its rows go at once, its counter stays.
    "CREATE TABLE IF NOT EXISTS {}ticks (
        id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS {}queues (
        id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARBINARY(255) NOT NULL,
        paused TINYINT NOT NULL, config BLOB NOT NULL, UNIQUE KEY name (name)) ENGINE=InnoDB",
    // ready=1: it waits, and `turn` is its priority, the highest first. ready=0: it is delayed
    // (held=0) or in flight (held=1), and `turn` is until when; `lease` is the end of its lease,
    // which the signs of life of its session do not move.
    "CREATE TABLE IF NOT EXISTS {}messages (
        id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, queue BIGINT UNSIGNED NOT NULL,
        ready TINYINT UNSIGNED NOT NULL, turn BIGINT UNSIGNED NOT NULL,
        lane TINYINT UNSIGNED NOT NULL, held TINYINT UNSIGNED NOT NULL,
        token BIGINT UNSIGNED NOT NULL, session BIGINT UNSIGNED NOT NULL,
        lease BIGINT UNSIGNED NULL, attempts INT UNSIGNED NOT NULL,
        keyed BINARY(16) NULL, dies BIGINT UNSIGNED NULL,
        bytes INT UNSIGNED NOT NULL, published BIGINT UNSIGNED NOT NULL,
        head MEDIUMBLOB NOT NULL, deaths MEDIUMBLOB NULL, body LONGBLOB NOT NULL,
        KEY turns (queue, ready, turn, id), KEY sessions (session), KEY deadlines (dies),
        KEY keyed (queue, keyed)) ENGINE=InnoDB ROW_FORMAT=DYNAMIC",
    // Ordering keys of which a message is in flight.
    "CREATE TABLE IF NOT EXISTS {}keys (
        queue BIGINT UNSIGNED NOT NULL, keyed BINARY(16) NOT NULL, message BIGINT UNSIGNED NOT NULL,
        PRIMARY KEY (queue, keyed), KEY message (message)) ENGINE=InnoDB",
    // Sums, spread over rows so that nobody waits for anybody.
    "CREATE TABLE IF NOT EXISTS {}sums (
        queue BIGINT UNSIGNED NOT NULL, slot TINYINT UNSIGNED NOT NULL,
        published BIGINT NOT NULL, acked BIGINT NOT NULL, returned BIGINT NOT NULL,
        dead BIGINT NOT NULL, dropped BIGINT NOT NULL, purged BIGINT NOT NULL,
        messages BIGINT NOT NULL, bytes BIGINT NOT NULL,
        PRIMARY KEY (queue, slot)) ENGINE=InnoDB",
    // Message ids that queues remember.
    "CREATE TABLE IF NOT EXISTS {}ids (
        queue BIGINT UNSIGNED NOT NULL, id BINARY(16) NOT NULL, until BIGINT UNSIGNED NOT NULL,
        PRIMARY KEY (queue, id), KEY until (until)) ENGINE=InnoDB",
    // Requests that were carried out, and their answers.
    "CREATE TABLE IF NOT EXISTS {}requests (
        id BINARY(16) NOT NULL PRIMARY KEY, until BIGINT UNSIGNED NOT NULL,
        answer BLOB NOT NULL, KEY until (until)) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS {}consumers (
        id BIGINT UNSIGNED NOT NULL PRIMARY KEY, queue BIGINT UNSIGNED NOT NULL,
        session BIGINT UNSIGNED NOT NULL, alone TINYINT NOT NULL, until BIGINT UNSIGNED NOT NULL,
        label VARBINARY(1024) NULL, KEY queue (queue), KEY session (session)) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS {}exchanges (
        id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARBINARY(255) NOT NULL,
        kind TINYINT UNSIGNED NOT NULL, durable TINYINT NOT NULL, auto_delete TINYINT NOT NULL,
        internal TINYINT NOT NULL, UNIQUE KEY name (name)) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS {}bindings (
        id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, exchange BIGINT UNSIGNED NOT NULL,
        same BINARY(16) NOT NULL, to_queue BIGINT UNSIGNED NULL, to_exchange BIGINT UNSIGNED NULL,
        routing VARBINARY(255) NOT NULL, arguments BLOB NOT NULL, match_all TINYINT NOT NULL,
        UNIQUE KEY same (exchange, same), KEY to_queue (to_queue),
        KEY to_exchange (to_exchange)) ENGINE=InnoDB",
    // Queues that were deleted and whose messages are still to go.
    "CREATE TABLE IF NOT EXISTS {}doomed (
        queue BIGINT UNSIGNED NOT NULL PRIMARY KEY) ENGINE=InnoDB",
]];

/// How long another process may take to make the tables.
const OTHERS: Duration = Duration::from_secs(60);

/// The oldest servers with `SKIP LOCKED`.
const MYSQL: (u32, u32) = (8, 0);
const MARIADB: (u32, u32) = (10, 6);

/// Looks at the server and makes or brings up to date the tables.
///
/// # Errors
/// `Unsupported` for a server that is too old or a schema that is too new, `Forbidden` with the
/// missing privilege.
pub(crate) async fn prepare(server: &Arc<Server>) -> Result<()> {
    let mut line = server.connect().await?;
    match bring_up_to_date(server, &mut line).await {
        Ok(()) => {
            server.keep(line);
            Ok(())
        }
        Err(fault) => {
            line.close().await;
            Err(fault.error())
        }
    }
}

/// Each statement has the time of an answer, and not all together: a table takes its time.
async fn bring_up_to_date(server: &Server, line: &mut Line) -> std::result::Result<(), Fault> {
    look(server, line).await?;
    match version(&server.tables, line).await? {
        Some(version) if version == STEPS.len() as u64 => Ok(()),
        _ => migrate(&server.tables, line).await,
    }
}

/// What the server is.
async fn look(server: &Server, line: &mut Line) -> std::result::Result<(), Fault> {
    let sql = Sql::new("SELECT VERSION(),@@max_allowed_packet,@@innodb_flush_log_at_trx_commit");
    let mut row = line.ask(sql).await?.row()?;
    let version: String = cell(&mut row, 0)?;
    old(&version)?;
    server.set_packet(cell::<u64>(&mut row, 1)? as usize);
    let flush: u64 = cell(&mut row, 2)?;
    server.set_durable(matches!(flush, 1 | 3));
    Ok(())
}

/// Refuses a server without what is needed here.
pub(crate) fn old(version: &str) -> Result<()> {
    let mut parts = version.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else {
        return Ok(());
    };
    let (name, least) = match version.contains("MariaDB") {
        true => ("MariaDB", MARIADB),
        false => ("MySQL", MYSQL),
    };
    if (major, minor) >= least {
        return Ok(());
    }
    let wrong = format!(
        "the server is {name} {version}, which has no SKIP LOCKED; {name} {}.{} \
                         or newer is needed",
        least.0, least.1
    );
    Err(Error::new(ErrorKind::Unsupported, wrong))
}

/// The version of the tables; `None`: there are none.
async fn version(tables: &Tables, line: &mut Line) -> std::result::Result<Option<u64>, Fault> {
    let sql = Sql::new(
        "SELECT COUNT(*) FROM information_schema.tables WHERE \
                        table_schema=DATABASE() AND table_name=",
    )
    .bytes(tables.text("{}schema").as_bytes());
    if cell::<u64>(&mut line.ask(sql).await?.row()?, 0)? == 0 {
        return Ok(None);
    }
    let sql = tables.named("SELECT COALESCE(MAX(version),0) FROM {}schema");
    let found = cell::<u64>(&mut line.ask(sql).await?.row()?, 0)?;
    if found > STEPS.len() as u64 {
        let wrong = format!(
            "the tables have version {found}, this release knows {} at most; use \
                             the newer release, or another prefix=",
            STEPS.len()
        );
        return Err(Error::new(ErrorKind::Unsupported, wrong).into());
    }
    Ok(Some(found))
}

/// Makes the steps that are missing, one process at a time.
async fn migrate(tables: &Tables, line: &mut Line) -> std::result::Result<(), Fault> {
    let lock = format!("lh:{}", hex(&hash::<20>(&[b"migrate", tables.prefix().as_bytes()])));
    let began = Instant::now();
    let sql = Sql::new("SELECT GET_LOCK(").bytes(lock.as_bytes()).add(",0)");
    while cell::<Option<u64>>(&mut line.ask(sql.clone()).await?.row()?, 0)? != Some(1) {
        if began.elapsed() > OTHERS {
            let wrong =
                format!("another process has been making the tables for {OTHERS:?}; try later");
            return Err(Error::new(ErrorKind::Unavailable, wrong).with_retry(Retry::Later).into());
        }
        sleep(jittered(Duration::from_millis(50))).await;
    }
    let done = steps(tables, line).await;
    let sql = Sql::new("DO RELEASE_LOCK(").bytes(lock.as_bytes()).add(")");
    line.ask(sql).await?;
    done
}

async fn steps(tables: &Tables, line: &mut Line) -> std::result::Result<(), Fault> {
    let sql = "CREATE TABLE IF NOT EXISTS {}schema (version INT UNSIGNED NOT NULL PRIMARY KEY) \
               ENGINE=InnoDB";
    line.ask(tables.named(sql)).await?;
    let found = version(tables, line).await?.unwrap_or(0);
    for (place, step) in STEPS.iter().enumerate().skip(found as usize) {
        for statement in *step {
            line.ask(tables.named(statement)).await?;
        }
        let sql = tables.named("INSERT IGNORE INTO {}schema VALUES (").number(place as u64 + 1);
        line.ask(sql.add(")")).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_without_skip_locked_are_refused() {
        for good in ["8.0.36", "8.4.0", "9.1.0", "10.6.1-MariaDB", "11.4.2-MariaDB-log"] {
            old(good).expect(good);
        }
        for bad in ["5.7.44-log", "10.5.23-MariaDB", "10.3.39-MariaDB-0+deb10u1"] {
            let error = old(bad).expect_err(bad);
            assert!(error.wrong.contains("SKIP LOCKED"), "{error}");
        }
    }
}
