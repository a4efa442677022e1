//! A server in this process, stopped as hard as one can be without a process of its own, and
//! started again on the same directory and port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use leasehold_api::engine::{Engine, LockEngine, QueueEngine};
use leasehold_api::{Leasehold, Result};
use leasehold_http::HttpOptions;
use leasehold_http_door::{DoorConfig, HttpDoor, NoCounters, ServerInfo, serve};
use leasehold_native::NativeEngine;
use leasehold_users::{User, UserLimits, Users};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::ServerConfig;

/// Nothing takes longer, unless it never comes.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Server {
    directory: tempfile::TempDir,
    secret: u8,
    pub address: SocketAddr,
    up: Option<(NativeEngine, JoinHandle<std::io::Result<()>>)>,
}

impl Server {
    pub async fn start() -> Self {
        Self::with(Vec::new(), None).await
    }

    pub async fn with(users: Vec<User>, tls: Option<ServerConfig>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { directory, secret: 1, address, up: None };
        server.up_again(users, tls).await;
        server
    }

    async fn up_again(&mut self, users: Vec<User>, tls: Option<ServerConfig>) {
        let options = leasehold_node::Options::default();
        let native = NativeEngine::open(self.directory.path(), options).expect("it opens");
        let mut config =
            DoorConfig::new([self.secret; 32], Arc::new(NoCounters), ServerInfo::default());
        config.users = Arc::new(Users::new(users, UserLimits::default()));
        let door = HttpDoor::new(native.engine(), config);
        let listener = TcpListener::bind(self.address).await.expect("the port is free");
        self.address = listener.local_addr().expect("it is bound");
        let serving = tokio::spawn(serve(listener, tls, door, std::future::pending()));
        self.up = Some((native, serving));
    }

    /// Cuts all connections, in the middle of whatever they are doing.
    pub async fn kill(&mut self) {
        let Some((native, serving)) = self.up.take() else { return };
        serving.abort();
        drop(serving.await);
        native.close().await.expect("it closes");
    }

    pub async fn restart(&mut self) {
        self.kill().await;
        self.up_again(Vec::new(), None).await;
    }

    /// Another server in its place, which knows nothing of what was before.
    pub async fn replace(&mut self) {
        self.kill().await;
        self.directory = tempfile::tempdir().expect("a directory");
        self.secret += 1;
        self.up_again(Vec::new(), None).await;
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The engine behind the door, which sees what is really there.
    pub fn native(&self) -> Engine {
        self.up.as_ref().expect("it is up").0.engine()
    }

    /// A handle of its own.
    pub async fn handle(&self) -> Leasehold {
        handle(&self.url()).await
    }
}

pub async fn handle(url: &str) -> Leasehold {
    Leasehold::new(engine(url).await)
}

pub async fn engine(url: &str) -> Engine {
    leasehold_http::connect(url, &HttpOptions::default()).await.expect("it connects")
}

pub fn locks(engine: &Engine) -> Arc<dyn LockEngine> {
    engine.locks.clone().expect("it has locks")
}

pub fn queues(engine: &Engine) -> Arc<dyn QueueEngine> {
    engine.queues.clone().expect("it has queues")
}

/// Waits for something that must come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let late = |_| panic!("{what} did not come within {PATIENCE:?}");
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(late)
}

/// Asks again and again until something is so.
pub async fn until<F: Future<Output = Result<bool>>>(what: &str, mut is_so: impl FnMut() -> F) {
    let ask = async {
        while !is_so().await.expect("it can be asked") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, ask).await;
}
