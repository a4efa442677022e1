//! The connection: found, made, made anew.
//!
//! All keys are in one slot, so there is one node to talk to, in a cluster too. It is found again
//! whenever the connection is lost or the node says that it is not the one: by asking the
//! sentinels, or any node of the cluster. One connection carries all requests, interleaved; what
//! blocks a connection is never sent on it.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use leasehold_api::{Error, ErrorKind, Result, Retry};
use leasehold_contenders::jittered;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    ProtocolVersion, RedisConnectionInfo, TlsCertificates, Value,
};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::config::{Config, Login, Place};
use crate::error::{Cure, Failure, Tried, connecting, sent};
use crate::script::{Args, Script};

/// The first pause before asking again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Finds the node that has the keys.
#[derive(Debug)]
pub(crate) struct Finder {
    pub config: Config,
    /// Counts the connections that were lost: what one of them finds out concerns the others.
    lost: watch::Sender<u64>,
}

impl Finder {
    pub fn new(config: Config) -> Self {
        Self { config, lost: watch::channel(0).0 }
    }

    /// Tells when a connection was lost.
    pub fn lost(&self) -> watch::Receiver<u64> {
        self.lost.subscribe()
    }

    fn client(&self, at: &Address, login: &Login, protocol: ProtocolVersion) -> Result<Client> {
        let wrong = |error: redis::RedisError| connecting(&self.config.shown, &error).error;
        let db = if at.is_sentinel { 0 } else { self.config.db };
        let mut settings = RedisConnectionInfo::default().set_db(db).set_protocol(protocol);
        if let Some(user) = &login.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &login.password {
            settings = settings.set_password(password);
        }
        let info: ConnectionInfo = at.to.clone().into_connection_info().map_err(wrong)?;
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let info = info.set_redis_settings(settings).set_tcp_settings(tcp);
        if !self.config.tls {
            return Client::open(info).map_err(wrong);
        }
        // The whole program must agree on one provider of cryptography; who came first stays.
        tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let root_cert = self.config.ca.clone();
        let certificates = TlsCertificates { client_tls: None, root_cert };
        Client::build_with_tls(info, certificates).map_err(wrong)
    }

    /// Connects to an address.
    async fn reach(
        &self,
        at: &Address,
        login: &Login,
        settings: AsyncConnectionConfig,
        protocol: ProtocolVersion,
    ) -> Tried<MultiplexedConnection> {
        let place = format!("{} ({})", self.config.shown, at.to);
        let client = self.client(at, login, protocol);
        let client = client.map_err(|error| Failure { error, cure: Cure::Reconnect })?;
        let settings = settings
            .set_connection_timeout(Some(self.config.connect))
            .set_response_timeout(Some(self.config.answer));
        let reaching = client.get_multiplexed_async_connection_with_config(&settings);
        match timeout(self.config.connect, reaching).await {
            Ok(connection) => connection.map_err(|error| connecting(&place, &error)),
            Err(_) => {
                let wrong = format!("{place} is not reached within {:?}", self.config.connect);
                let error = Error::new(ErrorKind::Unavailable, wrong).with_retry(Retry::Later);
                Err(Failure { error, cure: Cure::Reconnect })
            }
        }
    }

    /// Connects to the node that has the keys.
    pub async fn connect(
        &self,
        settings: impl Fn() -> AsyncConnectionConfig,
        protocol: ProtocolVersion,
    ) -> Tried<MultiplexedConnection> {
        let mut last = None;
        for at in self.seeds() {
            let found = match &self.config.place {
                Place::Alone | Place::Unix(_) => Ok(at),
                Place::Sentinel(master) => self.ask_sentinel(&at, master).await,
                Place::Cluster => self.ask_cluster(&at).await,
            };
            let reached = match found {
                Ok(at) => self.reach(&at, &self.config.login, settings(), protocol).await,
                Err(failure) => Err(failure),
            };
            match reached {
                Ok(connection) => return Ok(connection),
                Err(failure) => last = Some(failure),
            }
        }
        Err(last.expect("a URL has a host"))
    }

    fn seeds(&self) -> Vec<Address> {
        if let Place::Unix(path) = &self.config.place {
            return vec![Address { to: ConnectionAddr::Unix(path.clone()), is_sentinel: false }];
        }
        let is_sentinel = matches!(self.config.place, Place::Sentinel(_));
        let at = |(host, port): &(String, u16)| self.address(host, *port, is_sentinel);
        self.config.hosts.iter().map(at).collect()
    }

    fn address(&self, host: &str, port: u16, is_sentinel: bool) -> Address {
        let host = host.to_owned();
        let to = match self.config.tls {
            true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            false => ConnectionAddr::Tcp(host, port),
        };
        Address { to, is_sentinel }
    }

    /// See <https://redis.io/docs/latest/develop/reference/sentinel-clients/>.
    async fn ask_sentinel(&self, at: &Address, master: &str) -> Tried<Address> {
        let plain = AsyncConnectionConfig::new();
        let mut line = self.reach(at, &self.config.sentinel, plain, ProtocolVersion::RESP2).await?;
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("get-master-addr-by-name").arg(master);
        let place = format!("sentinel {}", at.to);
        let found: Option<(String, u16)> =
            ask.query_async(&mut line).await.map_err(|error| sent(&place, &error))?;
        let Some((host, port)) = found else {
            let wrong = format!("{place} knows no master {master}; see SENTINEL MASTERS");
            let error = Error::new(ErrorKind::NotFound, wrong);
            return Err(Failure { error, cure: Cure::Reconnect });
        };
        Ok(self.address(&host, port, false))
    }

    /// See <https://redis.io/docs/latest/commands/cluster-slots/>.
    async fn ask_cluster(&self, at: &Address) -> Tried<Address> {
        let plain = AsyncConnectionConfig::new();
        let mut line = self.reach(at, &self.config.login, plain, ProtocolVersion::RESP2).await?;
        let place = format!("{} ({})", self.config.shown, at.to);
        let failed = |error: redis::RedisError| sent(&place, &error);
        let mut ask = redis::cmd("CLUSTER");
        ask.arg("KEYSLOT").arg(&self.config.prefix);
        let slot: i64 = ask.query_async(&mut line).await.map_err(failed)?;
        let mut ask = redis::cmd("CLUSTER");
        ask.arg("SLOTS");
        let slots: Vec<Vec<Value>> = ask.query_async(&mut line).await.map_err(failed)?;
        let has = |range: &&Vec<Value>| match range[..] {
            [Value::Int(first), Value::Int(last), ..] => (first..=last).contains(&slot),
            _ => false,
        };
        let master = slots.iter().find(has).and_then(|range| range.get(2));
        let Some(Value::Array(master)) = master else {
            let wrong = format!("{place}: no node has slot {slot} of the cluster now");
            let error = Error::new(ErrorKind::Unavailable, wrong).with_retry(Retry::Later);
            return Err(Failure { error, cure: Cure::Reconnect });
        };
        let (host, port) = match &master[..] {
            [Value::BulkString(host), Value::Int(port), ..] if !host.is_empty() => {
                (String::from_utf8_lossy(host).into_owned(), *port as u16)
            }
            // The node does not know its own name: it is the one that was asked.
            [_, Value::Int(port), ..] => match &at.to {
                ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => {
                    (host.clone(), *port as u16)
                }
                _ => return Ok(at.clone()),
            },
            _ => return Ok(at.clone()),
        };
        Ok(self.address(&host, port, false))
    }
}

#[derive(Debug, Clone)]
struct Address {
    to: ConnectionAddr,
    is_sentinel: bool,
}

#[derive(Clone)]
struct Live {
    connection: MultiplexedConnection,
    number: u64,
}

#[derive(Default)]
struct Present {
    live: std::sync::Mutex<Option<Live>>,
    /// Held by who connects; how many connections there were.
    count: Mutex<u64>,
}

impl Present {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, made if there is none.
    async fn connect(&self, finder: &Finder) -> Tried<Live> {
        let mut count = self.count.lock().await;
        if let Some(live) = &*self.lock() {
            return Ok(live.clone());
        }
        let settings = || AsyncConnectionConfig::new().set_pipeline_buffer_size(1024);
        let connection = finder.connect(settings, ProtocolVersion::RESP2).await?;
        *count += 1;
        let live = Live { connection, number: *count };
        *self.lock() = Some(live.clone());
        Ok(live)
    }
}

/// One connection to the node that has the keys, made anew when it is lost.
pub(crate) struct Link {
    pub finder: Arc<Finder>,
    present: Arc<Present>,
}

impl Link {
    pub fn new(finder: Arc<Finder>) -> Self {
        Self { finder, present: Arc::default() }
    }

    pub fn config(&self) -> &Config {
        &self.finder.config
    }

    async fn live(&self) -> Tried<Live> {
        if let Some(live) = &*self.present.lock() {
            return Ok(live.clone());
        }
        // In a task of its own, so that a caller who is not polled meanwhile holds up nobody.
        let (finder, present) = (self.finder.clone(), self.present.clone());
        let connecting = tokio::spawn(async move { present.connect(&finder).await });
        connecting.await.unwrap_or_else(|_| {
            let error = Error::new(ErrorKind::Unavailable, "the runtime is shutting down");
            Err(Failure { error: error.with_retry(Retry::Later), cure: Cure::None })
        })
    }

    /// Lets go of a connection that is of no use any more.
    fn hang_up(&self, number: u64) {
        let mut live = self.present.lock();
        if live.as_ref().is_some_and(|live| live.number == number) {
            *live = None;
            self.finder.lost.send_modify(|lost| *lost += 1);
        }
    }

    /// Sends one request once.
    async fn try_once(&self, command: &Cmd) -> Tried<Value> {
        let mut live = self.live().await?;
        match live.connection.send_packed_command(command).await.and_then(Value::extract_error) {
            Ok(value) => Ok(value),
            Err(error) => {
                let failure = sent(&self.config().shown, &error);
                if matches!(failure.cure, Cure::Reconnect | Cure::Relocate) {
                    self.hang_up(live.number);
                }
                Err(failure)
            }
        }
    }

    /// Sends a command once, and at once again if the server certainly did not carry it out
    /// because the keys are elsewhere now.
    pub async fn command(&self, command: &Cmd) -> Tried<Value> {
        match self.try_once(command).await {
            Err(Failure { cure: Cure::Relocate, .. }) => self.try_once(command).await,
            done => done,
        }
    }

    /// Runs a script once.
    ///
    /// # Errors
    /// `Unavailable` with `Retry::Later` when it was certainly not run, with `Retry::Unknown` when
    /// it may have been.
    pub async fn run(&self, script: &Script, args: &Args) -> Result<Value> {
        let prefix = &self.config().prefix;
        match self.command(&eval("EVALSHA", &script.sha1, prefix, args)).await {
            Err(Failure { cure: Cure::Load, .. }) => {
                let whole = eval("EVAL", &script.text, prefix, args);
                self.command(&whole).await.map_err(|failure| failure.error)
            }
            done => done.map_err(|failure| failure.error),
        }
    }

    /// Runs a script that may be run twice, until it is known that it was.
    pub async fn run_again(&self, script: &Script, args: &Args) -> Result<Value> {
        let mut patience = Patience::new(self.config().patience);
        loop {
            match self.run(script, args).await {
                Err(error) => patience.after(error).await?,
                done => return done,
            }
        }
    }
}

pub(crate) fn eval(how: &str, script: &str, prefix: &str, args: &Args) -> Cmd {
    let size = how.len() + script.len() + 1 + prefix.len() + args.size();
    let mut command = Cmd::with_capacity(args.len() + 4, size);
    command.arg(how).arg(script).arg(1).arg(prefix);
    for arg in args.iter() {
        command.arg(arg);
    }
    command
}

/// How long a server out of reach is waited for.
pub(crate) struct Patience {
    until: Instant,
    pause: Duration,
}

impl Patience {
    pub fn new(patience: Duration) -> Self {
        Self { until: Instant::now() + patience, pause: PAUSES.0 }
    }

    /// Waits before the next try; the error when there is none.
    pub async fn after(&mut self, error: Error) -> Result<()> {
        if error.kind != ErrorKind::Unavailable || Instant::now() >= self.until {
            return Err(error);
        }
        self.pause().await;
        Ok(())
    }

    /// Those who lost the same server must not all come back at once.
    pub async fn pause(&mut self) {
        let pause = jittered(self.pause);
        self.pause = (self.pause * 2).min(PAUSES.1);
        sleep(pause).await;
    }
}
