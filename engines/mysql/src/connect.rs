//! Connections: made, checked, kept, repaired.
//!
//! A query that is dropped half way leaves its answer in the connection, where the next query
//! finds it. So a connection belongs to a task of its own from the first byte of a transaction to
//! the last; who asked may go at any time, the task goes on. A connection that does not answer in
//! time is closed and never used again.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use leasehold_api::{Error, ErrorKind, Guarantees, Result, Retry, Survives};
use mysql_async::prelude::{FromValue, Queryable};
use mysql_async::{Conn, Opts, OptsBuilder, Row, SslOpts};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use crate::config::{Config, Tls};
use crate::error::{Fault, not_connected, odd};
use crate::sql::{Sql, Tables};

/// How long a server out of reach is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// A connection is not used again after so long: the server closes it at `wait_timeout`.
const IDLE: Duration = Duration::from_secs(45);
/// A connection that was idle for longer is asked for a sign of life, before what is not repeated.
const FRESH: Duration = Duration::from_millis(200);
/// How often a transaction is tried that others stand in the way of.
const TRIES: u32 = 100;
/// Shortest and longest pause between attempts to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The server ends a connection that is silent for so long, and rolls back what it began.
const SILENCE: u32 = 60;

/// A connection in use.
pub(crate) struct Line {
    conn: Conn,
    /// How long an answer may take.
    answer: Duration,
    /// How often what is done now was tried before.
    pub tries: u32,
}

/// The rows that statements gave, a set for each statement that gives rows.
pub(crate) struct Answers(std::vec::IntoIter<Vec<Row>>);

impl Answers {
    /// The rows of the next statement.
    pub fn rows(&mut self) -> std::result::Result<Vec<Row>, Fault> {
        self.0.next().ok_or_else(|| Fault::Lost(odd("a result is missing")))
    }

    /// The one row of the next statement.
    pub fn row(&mut self) -> std::result::Result<Row, Fault> {
        let row = self.rows()?.into_iter().next();
        row.ok_or_else(|| Fault::Lost(odd("a row is missing")))
    }
}

/// A column of a row.
pub(crate) fn cell<T: FromValue>(row: &mut Row, column: usize) -> std::result::Result<T, Fault> {
    match row.take_opt::<T, _>(column) {
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) => Err(Fault::Lost(odd(&error.to_string()))),
        None => Err(Fault::Lost(odd(&format!("column {column} is missing")))),
    }
}

impl Line {
    /// Sends statements with one round trip and takes all their answers.
    pub async fn ask(&mut self, sql: Sql) -> std::result::Result<Answers, Fault> {
        let answer = self.answer;
        timeout(answer, self.answers(sql)).await.unwrap_or_else(|_| Err(late(answer)))
    }

    async fn answers(&mut self, sql: Sql) -> std::result::Result<Answers, Fault> {
        let mut result = self.conn.query_iter(sql.into_bytes()).await?;
        let mut sets = Vec::new();
        while !result.is_empty() {
            let gives_rows = result.columns().is_some_and(|columns| !columns.is_empty());
            let rows = result.collect::<Row>().await?;
            if gives_rows {
                sets.push(rows);
            }
        }
        // A statement after the first that fails gives no result: the loop above ends as if all
        // were done, and the driver keeps the error for whoever asks it next.
        result.drop_result().await?;
        Ok(Answers(sets.into_iter()))
    }

    /// The server's number of this connection.
    pub fn id(&self) -> u32 {
        self.conn.id()
    }

    /// Closes it without waiting for anything.
    pub async fn close(self) {
        timeout(Duration::from_secs(1), self.conn.disconnect()).await.ok();
    }
}

/// There was no answer in time.
fn late(answer: Duration) -> Fault {
    Fault::Lost(Error::new(ErrorKind::Unavailable, format!("no answer within {answer:?}")))
}

/// What is done with a connection; it may be done several times.
pub(crate) type Working<'l, T> = BoxFuture<'l, std::result::Result<T, Fault>>;

/// Whether a transaction may be carried out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Twice is the same as once, or it finds out itself.
    Freely,
    /// When its outcome is not known it is not tried again.
    Never,
}

/// A server and our connections to it.
pub(crate) struct Server {
    pub config: Config,
    pub tables: Tables,
    opts: Opts,
    idle: Mutex<Vec<(Line, Instant)>>,
    room: Arc<Semaphore>,
    /// Longest statement that the server takes, bytes.
    packet: AtomicUsize,
    /// Whether it writes to disk before it confirms.
    durable: AtomicBool,
}

impl Server {
    /// A server that nothing was asked of yet.
    pub fn new(config: Config) -> Arc<Self> {
        let opts = opts(&config);
        let (tables, room) = (Tables::new(&config.prefix), Semaphore::new(config.pool));
        let packet = AtomicUsize::new(1 << 20);
        let idle = Mutex::default();
        let durable = AtomicBool::new(true);
        Arc::new(Self { config, tables, opts, idle, room: Arc::new(room), packet, durable })
    }

    /// Longest statement that the server takes, bytes.
    pub fn packet(&self) -> usize {
        self.packet.load(Ordering::Relaxed)
    }

    pub fn set_packet(&self, packet: usize) {
        self.packet.store(packet, Ordering::Relaxed);
    }

    pub fn set_durable(&self, durable: bool) {
        self.durable.store(durable, Ordering::Relaxed);
    }

    /// What is promised with this server.
    pub fn guarantees(&self) -> Guarantees {
        match self.durable.load(Ordering::Relaxed) {
            true => crate::GUARANTEES,
            false => Guarantees { survives: Survives::Process, ..crate::GUARANTEES },
        }
    }

    /// A new connection, beside the pool.
    pub async fn connect(&self) -> Result<Line> {
        let connected = timeout(self.config.connect, Conn::new(self.opts.clone())).await;
        let asked = || format!("connect to {}", self.config.shown);
        match connected {
            Ok(Ok(conn)) => Ok(Line { conn, answer: self.config.answer, tries: 0 }),
            Ok(Err(error)) => Err(not_connected(error).asking(asked())),
            Err(_) => {
                let wrong = format!("no connection within {:?}", self.config.connect);
                let error = Error::new(ErrorKind::Unavailable, wrong);
                Err(error.with_retry(Retry::Later).asking(asked()))
            }
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(Line, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a connection that is good for whoever needs one next.
    pub fn keep(&self, line: Line) {
        self.idle().push((line, Instant::now()));
    }

    fn take_idle(&self) -> Option<(Line, Instant)> {
        let mut idle = self.idle();
        // The newest first, so that what is not needed grows old.
        while let Some((line, since)) = idle.pop() {
            if since.elapsed() < IDLE {
                return Some((line, since));
            }
        }
        None
    }

    /// Does something with a connection, in a task of its own, until the answer is there. What
    /// others stand in the way of is tried again; a server out of reach is waited for.
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        repeat: Repeat,
        work: impl for<'l> Fn(&'l mut Line) -> Working<'l, T> + Send + Sync + 'static,
    ) -> Result<T> {
        let server = self.clone();
        let running = tokio::spawn(async move { server.carry(repeat, work).await });
        running.await.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Broken, format!("the task that asked ended: {error}")))
        })
    }

    async fn carry<T>(
        self: Arc<Self>,
        repeat: Repeat,
        work: impl for<'l> Fn(&'l mut Line) -> Working<'l, T> + Send + Sync + 'static,
    ) -> Result<T> {
        let began = Instant::now();
        let mut pause = PAUSES.0;
        let (mut tries, mut lost) = (0, 0);
        let gone = |_| Error::new(ErrorKind::Unavailable, "the engine is closed");
        let _room: OwnedSemaphorePermit = self.room.clone().acquire_owned().await.map_err(gone)?;
        loop {
            let done = match self.line(repeat).await {
                Ok(mut line) => {
                    line.tries = tries + lost;
                    self.on_line(line, &work).await.map_err(|fault| (fault, true))
                }
                Err(error) if error.kind != ErrorKind::Unavailable => return Err(error),
                Err(error) => Err((Fault::Lost(error), false)),
            };
            let (fault, maybe) = match done {
                Ok(done) => return Ok(done),
                Err((Fault::Refused(error), _)) => return Err(error),
                Err((Fault::Again(error), _)) => {
                    tries += 1;
                    if tries >= TRIES {
                        return Err(error);
                    }
                    sleep(jittered(Duration::from_millis(u64::from(tries.min(20))))).await;
                    continue;
                }
                Err((Fault::Lost(error), maybe)) => (error, maybe),
            };
            lost += u32::from(maybe);
            let late = began.elapsed() + pause >= PATIENCE;
            if late || maybe && repeat == Repeat::Never || fault.kind == ErrorKind::Broken {
                let retry = if maybe { Retry::Unknown } else { Retry::Later };
                let url = &self.config.shown;
                return Err(fault.with_retry(retry).asking(format!("ask {url}")));
            }
            tracing::debug!(url = %self.config.shown, error = %fault, "asking again");
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// A connection that is good; for what is not tried again, one that was heard of just now.
    async fn line(&self, repeat: Repeat) -> Result<Line> {
        while let Some((mut line, since)) = self.take_idle() {
            if repeat == Repeat::Freely || since.elapsed() < FRESH {
                return Ok(line);
            }
            match timeout(self.config.connect, line.ask(Sql::new("DO 0"))).await {
                Ok(Ok(_)) => return Ok(line),
                _ => line.close().await,
            }
        }
        self.connect().await
    }

    async fn on_line<T>(
        &self,
        mut line: Line,
        work: &impl for<'l> Fn(&'l mut Line) -> Working<'l, T>,
    ) -> std::result::Result<T, Fault> {
        let answer = self.config.answer;
        let done = timeout(answer, work(&mut line)).await.unwrap_or_else(|_| Err(late(answer)));
        let good = match &done {
            Ok(_) => true,
            Err(Fault::Refused(_) | Fault::Again(_)) => {
                line.ask(Sql::new("ROLLBACK")).await.is_ok()
            }
            Err(Fault::Lost(_)) => false,
        };
        if good {
            self.keep(line);
        } else {
            line.close().await;
            // The others go the same way, most likely; new ones are made when they are needed.
            let others = std::mem::take(&mut *self.idle());
            for (other, _) in others {
                other.close().await;
            }
        }
        done
    }
}

/// Those who lost the same server must not all come back at once.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let mut byte = [0; 2];
    // Without randomness they come back at once, and that is all.
    getrandom::fill(&mut byte).ok();
    pause.mul_f64(0.5 + f64::from(u16::from_le_bytes(byte)) / f64::from(u16::MAX))
}

fn opts(config: &Config) -> Opts {
    let setup = format!(
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;\
         SET SESSION sql_mode='STRICT_ALL_TABLES',innodb_lock_wait_timeout=5,autocommit=1,\
         wait_timeout={SILENCE}"
    );
    let mut opts = OptsBuilder::default()
        .ip_or_hostname(config.host.clone())
        .tcp_port(config.port)
        .user(Some(config.user.clone()))
        .pass(config.password.clone())
        .db_name(Some(config.database.clone()))
        .prefer_socket(false)
        .socket(config.socket.clone())
        .tcp_keepalive(Some(Duration::from_secs(10)))
        .tcp_nodelay(true)
        .stmt_cache_size(0)
        // Known beforehand, which saves asking for them with each connection.
        .max_allowed_packet(Some(1 << 30))
        .wait_timeout(Some(SILENCE as usize))
        .setup(vec![setup]);
    if config.tls != Tls::Off {
        // The driver takes the provider of the process; without one it would panic.
        tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let mut ssl = SslOpts::default()
            .with_danger_accept_invalid_certs(config.tls == Tls::Trust)
            .with_danger_skip_domain_validation(config.tls == Tls::Trust);
        if let Some(ca) = &config.ca {
            ssl = ssl.with_root_certs(vec![ca.clone().into()]).with_disable_built_in_roots(true);
        }
        opts = opts.ssl_opts(Some(ssl));
    }
    opts.into()
}
