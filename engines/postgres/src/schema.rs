//! Our schema: made, and brought up to date, at connect.
//!
//! Everything that must happen at once is a function in the schema, so it is one round trip, one
//! transaction, and done or not done whatever becomes of the client. Who opens an engine with a
//! schema that is up to date needs no right to change it.

use leasehold_api::{Error, ErrorKind, Result};
use tokio_postgres::Client;

use crate::config::Config;
use crate::error::{driver, invalid};

/// What brings the schema from one version to the next.
const MIGRATIONS: [&str; 1] = [concat!(
    include_str!("sql/entries.sql"),
    include_str!("sql/tables.sql"),
    include_str!("sql/moves.sql"),
    include_str!("sql/calls.sql"),
    include_str!("sql/settling.sql"),
    include_str!("sql/managing.sql"),
)];

/// FNV-1a (<http://www.isthe.com/chongo/tech/comp/fnv>): a number for a name, the same everywhere.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn made_for(sql: &str, config: &Config) -> String {
    let seed = fnv(config.schema.as_bytes()).cast_signed();
    sql.replace("{schema}", &config.quoted())
        .replace("{seed}", &format!("({seed})::bigint"))
        .replace("{channel}", &config.channel())
}

/// The version that is there; 0: there is no schema. It looks into the catalogue itself: what
/// `to_regclass` remembers may be older than the lock that we waited for.
async fn version(client: &Client, config: &Config) -> Result<usize> {
    let table = format!("{}.migrations", config.quoted());
    let there = "select exists (select from pg_class c join pg_namespace n on \
                 n.oid = c.relnamespace where n.nspname = $1 and c.relname = 'migrations')";
    let there = client.query_one(there, &[&config.schema]).await;
    if !there.map_err(|error| driver(&error, true).error)?.get::<_, bool>(0) {
        return Ok(0);
    }
    let sql = format!("select coalesce(max(version), 0) from {table}");
    let row = client.query_one(&sql, &[]).await.map_err(|error| driver(&error, true).error)?;
    Ok(usize::try_from(row.get::<_, i32>(0)).unwrap_or(0))
}

/// Brings the schema up to date.
///
/// # Errors
/// `Forbidden` with the privilege that is missing; `Unsupported` when a newer release was here.
pub(crate) async fn migrate(client: &Client, config: &Config) -> Result<()> {
    let known = MIGRATIONS.len();
    match version(client, config).await? {
        is if is == known => return Ok(()),
        is if is > known => {
            let wrong = format!(
                "schema {} has version {is}, this release knows {known}; upgrade this program, or \
                 choose another ?schema=",
                config.schema
            );
            return Err(Error::new(ErrorKind::Unsupported, wrong));
        }
        _ => {}
    }
    // In one transaction, and by one of those who come at the same time: the others find it done.
    let lock = fnv(format!("migrate {}", config.schema).as_bytes()).cast_signed();
    let begin = format!("begin; select pg_advisory_xact_lock({lock});");
    let run = async |sql: &str| {
        let done = client.batch_execute(sql).await;
        done.map_err(|error| driver(&error, true).error)
    };
    run(&begin).await?;
    let migrated = async {
        let there = version(client, config).await?;
        for (number, migration) in MIGRATIONS.iter().enumerate().skip(there) {
            if number == 0 {
                let schema = config.quoted();
                run(&format!(
                    "create schema if not exists {schema}; create table {schema}.migrations \
                     (version integer primary key, applied timestamptz not null default now());"
                ))
                .await?;
            }
            run(&made_for(migration, config)).await?;
            let schema = config.quoted();
            let note = number + 1;
            run(&format!("insert into {schema}.migrations (version) values ({note})")).await?;
        }
        run("commit").await
    };
    match migrated.await {
        Ok(()) => Ok(()),
        Err(error) => {
            // What is left of the transaction goes with the connection otherwise.
            client.batch_execute("rollback").await.ok();
            Err(error.asking(format!("bring schema {} up to date", config.schema)))
        }
    }
}

/// Demands that the database can keep our texts.
pub(crate) fn encoding(is: &str) -> Result<()> {
    if is == "UTF8" {
        return Ok(());
    }
    Err(invalid(format!("the database has the encoding {is}; names need one with UTF8")))
}
