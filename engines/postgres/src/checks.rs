//! What `doctor` says of the server.

use async_trait::async_trait;
use leasehold_api::{Check, Checks};

use crate::PostgresEngine;
use crate::connect::{SETTINGS, Settings};
use crate::error::odd;

/// Messages of the tables that vacuum has not removed yet, beyond which receiving is slow.
const DEAD: i64 = 100_000;

#[async_trait]
impl Checks for PostgresEngine {
    async fn checks(&self) -> Vec<Check> {
        let rows = match self.server.rows(SETTINGS, &[]).await {
            Ok(rows) => rows,
            Err(error) => return vec![Check::failed("connection", error.to_string())],
        };
        let settings = match rows.first().map(Settings::of) {
            Some(Ok(settings)) => settings,
            Some(Err(error)) => return vec![Check::failed("settings", odd(&error).wrong)],
            None => return vec![Check::failed("settings", "the server shows none")],
        };
        let mut all = of(&settings);
        all.push(self.vacuum().await);
        all
    }
}

fn of(settings: &Settings) -> Vec<Check> {
    let mut all = vec![Check::ok("version", format!("PostgreSQL {}", settings.version))];
    all.push(match settings.is_standby {
        false => Check::ok("role", "a primary"),
        true => Check::failed("role", "a standby, which only reads; name the primary"),
    });
    all.push(match (settings.fsync, settings.full_page_writes) {
        (true, true) => Check::ok("fsync", "on"),
        (false, _) => Check::failed("fsync", "off: a power loss can destroy the database"),
        (_, false) => Check::failed("full_page_writes", "off: a power loss can tear pages"),
    });
    let mode = &settings.synchronous_commit;
    all.push(match mode.as_str() {
        "off" => Check::failed(
            "synchronous_commit",
            "off: a crash loses what was confirmed within the last half second, and a fencing \
             token may be given out twice; set it to on for this user or database",
        ),
        _ => Check::ok("synchronous_commit", mode.clone()),
    });
    let synchronous = !settings.synchronous_standbys.is_empty() && mode != "local";
    all.push(match (settings.standbys, synchronous) {
        (_, true) => {
            Check::ok("replication", format!("synchronous with {}", settings.synchronous_standbys))
        }
        (0, false) => Check::ok("replication", "no standby is connected"),
        (count, false) => Check::warning(
            "replication",
            format!(
                "{count} standbys, none synchronous: a failover loses what had not arrived there, \
                 also grants; set synchronous_standby_names"
            ),
        ),
    });
    all
}

impl PostgresEngine {
    async fn vacuum(&self) -> Check {
        let sql = "select coalesce(max(n_dead_tup), 0) from pg_stat_user_tables \
                   where schemaname = $1";
        let dead = match self.server.rows(sql, &[&self.server.config.schema]).await {
            Ok(rows) => rows.first().map_or(0, |row| row.try_get::<_, i64>(0).unwrap_or(0)),
            Err(error) => return Check::warning("vacuum", error.to_string()),
        };
        if dead <= DEAD {
            return Check::ok("vacuum", format!("{dead} dead rows at most in a table"));
        }
        Check::warning(
            "vacuum",
            format!(
                "{dead} dead rows in a table slow receives down; is autovacuum on, and no \
                 transaction left open (pg_stat_activity.xact_start)?"
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use leasehold_api::CheckVerdict;

    use super::*;

    #[test]
    fn settings_that_tear_a_promise_are_told() {
        let good = Settings {
            number: 150_000,
            version: "15.0".to_owned(),
            encoding: "UTF8".to_owned(),
            is_standby: false,
            synchronous_commit: "on".to_owned(),
            fsync: true,
            full_page_writes: true,
            synchronous_standbys: String::new(),
            standbys: 0,
        };
        let worst = |settings: &Settings| of(settings).iter().map(|check| check.verdict).max();
        assert_eq!(worst(&good), Some(CheckVerdict::Ok));
        let lazy = Settings { synchronous_commit: "off".to_owned(), ..good.clone() };
        assert_eq!(worst(&lazy), Some(CheckVerdict::Failed));
        let bold = Settings { fsync: false, ..good.clone() };
        assert_eq!(worst(&bold), Some(CheckVerdict::Failed));
        let alone = Settings { standbys: 2, ..good };
        assert_eq!(worst(&alone), Some(CheckVerdict::Warning));
    }
}
