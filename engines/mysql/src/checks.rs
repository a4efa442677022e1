//! Whether a server is set up to keep what is promised.

use std::sync::Arc;

use async_trait::async_trait;
use leasehold_api::{Check, Checks};

use crate::connect::{Repeat, Server, cell};
use crate::error::Fault;
use crate::schema::old;
use crate::sql::Sql;

/// What a message of the longest kind needs of `max_allowed_packet`.
const LONGEST: u64 = (16 << 20) + (256 << 10);

/// Looks at a server's settings.
pub(crate) struct Doctor(pub Arc<Server>);

#[async_trait]
impl Checks for Doctor {
    async fn checks(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        match self.setting("VERSION()").await {
            Ok(version) => checks.push(match old(&version) {
                Ok(()) => Check::ok("version", version),
                Err(error) => Check::failed("version", error.wrong),
            }),
            Err(why) => return vec![Check::failed("connection", why)],
        }
        checks.push(self.look("innodb_flush_log_at_trx_commit", flush).await);
        checks.push(self.look("read_only", read_only).await);
        checks.push(self.look("max_allowed_packet", packet).await);
        checks.push(self.look("log_bin", replicas).await);
        let needed = (self.0.config.pool + self.0.config.waiters + 1) as u64;
        checks.push(self.look("max_connections", |value| connections(value, needed)).await);
        // Only a server with Galera has this one.
        if let Ok(value) = self.setting("@@wsrep_on").await {
            checks.push(galera(&value));
        }
        checks
    }
}

impl Doctor {
    async fn setting(&self, what: &str) -> Result<String, String> {
        let sql = Sql::new("SELECT CAST(").add(what).add(" AS CHAR)");
        let asked = self.0.run(Repeat::Freely, move |line| {
            let sql = sql.clone();
            Box::pin(async move {
                let text: Vec<u8> = cell(&mut line.ask(sql).await?.row()?, 0)?;
                Ok::<_, Fault>(String::from_utf8_lossy(&text).into_owned())
            })
        });
        asked.await.map_err(|error| error.to_string())
    }

    async fn look(&self, what: &str, judge: impl Fn(&str) -> Check) -> Check {
        match self.setting(&format!("@@{what}")).await {
            Ok(value) => judge(&value),
            Err(why) => Check::warning(what, format!("it cannot be read: {why}")),
        }
    }
}

fn flush(value: &str) -> Check {
    let what = "innodb_flush_log_at_trx_commit";
    match value {
        "1" | "3" => Check::ok(what, "what is confirmed is on disk"),
        _ => Check::failed(
            what,
            format!(
                "it is {value}: a power loss forgets a second of confirmed changes, and tokens \
                     go back; set it to 1"
            ),
        ),
    }
}

fn read_only(value: &str) -> Check {
    match value {
        "0" => Check::ok("read_only", "the server takes writes"),
        _ => Check::failed("read_only", "the server is a replica; connect to the primary"),
    }
}

fn packet(value: &str) -> Check {
    let what = "max_allowed_packet";
    match value.parse::<u64>() {
        Ok(bytes) if bytes >= LONGEST => Check::ok(what, format!("{bytes} bytes")),
        _ => Check::warning(
            what,
            format!(
                "it is {value}: messages and values must be shorter than that; set it to 32M \
                     for messages of 16 MiB"
            ),
        ),
    }
}

fn replicas(value: &str) -> Check {
    let what = "replication";
    match value {
        "0" => Check::ok(what, "there is no binary log, so there are no replicas"),
        _ => Check::warning(
            what,
            "there is a binary log: after a failover to a replica that had not caught up locks are \
             forgotten and tokens go back; use semi-synchronous replicas, and sync_binlog=1",
        ),
    }
}

fn connections(value: &str, needed: u64) -> Check {
    let what = "max_connections";
    match value.parse::<u64>() {
        Ok(most) if most >= 4 * needed => Check::ok(what, format!("{most}")),
        _ => Check::warning(
            what,
            format!(
                "it is {value}, and each process may use {needed}; raise it, or lower pool= \
                     and waiters= in the URL"
            ),
        ),
    }
}

fn galera(value: &str) -> Check {
    match value {
        "0" => Check::ok("wsrep_on", "the server is in no cluster"),
        _ => Check::warning(
            "wsrep_on",
            "the server is in a Galera cluster: bells ring on one node only, so let all processes \
             use the same node",
        ),
    }
}
