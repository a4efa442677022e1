//! Connecting: the pool, who listens, and whether the server is one that keeps our promises.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Pool, QueueMode, RecyclingMethod, Runtime,
};
use leasehold_api::{Error, ErrorKind, Fencing, Guarantees, Result, Survives};
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::bells::{Bell, Bells, Listener};
use crate::clock::Clock;
use crate::config::Config;
use crate::error::{driver, odd, pool};
use crate::schema;
use crate::server::Server;

/// The oldest release that is good enough: PostgreSQL 13.
const OLDEST: i32 = 130_000;
/// How long a notification to ourselves may take.
const HELLO: Duration = Duration::from_secs(5);

/// What every connection is told: waiting for a lock must not look at an old snapshot.
const BEGIN: &str = "set session characteristics as transaction isolation level read committed, \
                     read write; set client_min_messages = warning";

/// What is asked about the server.
pub(crate) const SETTINGS: &str = "select current_setting('server_version_num')::integer, \
    current_setting('server_version'), current_setting('server_encoding'), pg_is_in_recovery(), \
    current_setting('synchronous_commit'), current_setting('fsync'), \
    current_setting('full_page_writes'), current_setting('synchronous_standby_names'), \
    (select count(*) from pg_stat_replication)";

/// How the server is set up.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub number: i32,
    pub version: String,
    pub encoding: String,
    pub is_standby: bool,
    pub synchronous_commit: String,
    pub fsync: bool,
    pub full_page_writes: bool,
    pub synchronous_standbys: String,
    pub standbys: i64,
}

impl Settings {
    pub fn of(row: &Row) -> std::result::Result<Self, tokio_postgres::Error> {
        Ok(Self {
            number: row.try_get(0)?,
            version: row.try_get(1)?,
            encoding: row.try_get(2)?,
            is_standby: row.try_get(3)?,
            synchronous_commit: row.try_get(4)?,
            fsync: row.try_get::<_, String>(5)? == "on",
            full_page_writes: row.try_get::<_, String>(6)? == "on",
            synchronous_standbys: row.try_get(7)?,
            standbys: row.try_get(8)?,
        })
    }

    /// Demands a server that we can work with.
    fn check(&self) -> Result<()> {
        let unsupported = |wrong: String| Err(Error::new(ErrorKind::Unsupported, wrong));
        if self.number < OLDEST {
            let is = &self.version;
            return unsupported(format!("PostgreSQL {is} is too old; 13 or newer is needed"));
        }
        if self.is_standby {
            let wrong = "the server is a standby and only reads; name the primary in the URL";
            return unsupported(wrong.to_owned());
        }
        schema::encoding(&self.encoding)
    }

    /// What is left of a promise. A sequence whose last steps were lost goes back with them.
    pub fn weaken(&self, promised: Guarantees) -> Guarantees {
        let (survives, fencing) = match (self.synchronous_commit.as_str(), self.fsync) {
            ("off", _) => (Survives::Nothing, Fencing::Advisory),
            (_, false) => (Survives::Process, Fencing::Advisory),
            _ => (promised.survives, promised.fencing),
        };
        Guarantees { survives, fencing, ..promised }
    }
}

/// A server that is connected to, and who listens to it.
pub(crate) struct Connected {
    pub server: Arc<Server>,
    pub bells: Arc<Bells>,
    pub clock: Arc<Clock>,
    pub listener: Listener,
    pub settings: Settings,
}

fn pool_of(config: &Config, tls: MakeRustlsConnect) -> Result<Pool> {
    let recycling_method = RecyclingMethod::Fast;
    let manager =
        Manager::from_config(config.driver.clone(), tls, ManagerConfig { recycling_method });
    let begin = Hook::async_fn(|client: &mut deadpool_postgres::ClientWrapper, _| {
        Box::pin(async move { client.batch_execute(BEGIN).await.map_err(HookError::Backend) })
    });
    let built = Pool::builder(manager).max_size(config.pool).runtime(Runtime::Tokio1);
    // The connection that was used last knows the statements, and its process is warm.
    let built = built.queue_mode(QueueMode::Lifo).post_create(begin).build();
    built.map_err(|error| Error::new(ErrorKind::Broken, format!("the pool: {error}")))
}

/// Connects, checks the server, brings the schema up to date and begins to listen.
///
/// # Errors
/// `Unavailable`, `Unauthenticated`, `Forbidden`, `Unsupported`, with what to do.
pub(crate) async fn connect(config: &Config) -> Result<Connected> {
    let tls = crate::tls::connector(config)?;
    let server = Server { pool: pool_of(config, tls.clone())?, config: config.clone() };
    // Nobody is waited for here: whoever opens an engine wants to know at once.
    let within = config.driver.get_connect_timeout().copied().unwrap_or(HELLO) + config.answer;
    let opening = async {
        let client = server.pool.get().await.map_err(|error| pool(&error).error)?;
        let row = client.query_one(SETTINGS, &[]).await;
        let row = row.map_err(|error| driver(&error, true).error)?;
        let settings = Settings::of(&row).map_err(|error| odd(&error))?;
        settings.check()?;
        Ok::<_, Error>((client, settings))
    };
    let late = |_| Err(Error::new(ErrorKind::Unavailable, format!("no answer within {within:?}")));
    let (client, settings) = timeout(within, opening).await.unwrap_or_else(late)?;
    let (bells, clock) = (Arc::new(Bells::default()), Arc::new(Clock::default()));
    let listener = Listener::start(config, &tls, &bells, &clock).await?;
    hear_ourselves(&client, config, &bells).await?;
    schema::migrate(&client, config).await?;
    drop(client);
    let server = Arc::new(server);
    Ok(Connected { server, bells, clock, listener, settings })
}

/// Demands that a notification arrives. It does not behind a pooler in transaction mode: there
/// LISTEN is said to a connection that is somebody else's at once.
async fn hear_ourselves(
    client: &tokio_postgres::Client,
    config: &Config,
    bells: &Arc<Bells>,
) -> Result<()> {
    let hello = Bell::Hello(crate::random());
    let hearing = bells.hear(vec![hello]);
    let said =
        client.query("select pg_notify($1, $2)", &[&config.channel(), &hello.payload()]).await;
    said.map_err(|error| driver(&error, true).error)?;
    if timeout(HELLO, hearing.rung()).await.is_ok() {
        return Ok(());
    }
    let wrong = "a NOTIFY to ourselves does not arrive, so nobody who waits would be woken: is a \
                 pooler in transaction mode (PgBouncer) between? Connect to PostgreSQL itself, or \
                 set pool_mode = session";
    Err(Error::new(ErrorKind::Unsupported, wrong))
}
