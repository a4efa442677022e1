//! A door with its engine, and a plain client.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use leasehold_http_door::{DoorConfig, HttpDoor, NoCounters, ServerInfo, serve};
use leasehold_native::NativeEngine;
use leasehold_node::Options;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::ServerConfig;

/// Nothing takes longer, unless it never comes.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Server {
    pub address: SocketAddr,
    pub engine: NativeEngine,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<std::io::Result<()>>,
}

/// An answer, read whole.
pub struct Reply {
    pub status: StatusCode,
    pub headers: hyper::HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{error}: {}", String::from_utf8_lossy(&self.body));
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The answer of what went well.
    #[track_caller]
    pub fn good(self) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, self.text());
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// The problem of what was refused.
    #[track_caller]
    pub fn refused(self, status: u16, kind: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["kind"], kind, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["type"], format!("urn:leasehold:problem:{kind}"));
        for field in ["title", "detail", "retry", "asked"] {
            assert!(problem[field].is_string(), "{problem}");
        }
        problem
    }
}

pub fn config() -> DoorConfig {
    let info = ServerInfo { version: "1.2.3".into(), ..ServerInfo::default() };
    DoorConfig::new([7; 32], Arc::new(NoCounters), info)
}

pub async fn server() -> Server {
    server_with(config()).await
}

pub async fn server_with(config: DoorConfig) -> Server {
    server_with_tls(config, None).await
}

pub async fn server_with_tls(config: DoorConfig, tls: Option<ServerConfig>) -> Server {
    let engine = NativeEngine::memory(Options::default()).expect("an engine");
    let door = HttpDoor::new(engine.engine(), config);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel();
    let shutdown = async { drop(stopped.await) };
    let serving = tokio::spawn(serve(listener, tls, door, shutdown));
    Server { address, engine, stop: Some(stop), serving }
}

impl Server {
    pub async fn get(&self, path: &str) -> Reply {
        self.ask(Method::GET, path, &[], "").await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.ask(Method::POST, path, &[JSON], body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Reply {
        self.ask(Method::PUT, path, &[JSON], body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.ask(Method::DELETE, path, &[], "").await
    }

    /// One request on a connection of its own. Dropping the future hangs up.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let socket = TcpStream::connect(self.address).await.expect("a connection");
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
        let (mut sender, connection) = handshake.expect("HTTP/1.1");
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request = request.header("host", self.address.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        let exchange = async {
            let answer = sender.send_request(request).await.expect("an answer");
            let (head, body) = answer.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            Reply { status: head.status, headers: head.headers, body }
        };
        tokio::select! {
            reply = exchange => reply,
            // It is driven here and not in a task, so that it ends with this future.
            _ = async { drop(connection.await); std::future::pending::<()>().await } => {
                unreachable!("it waits for ever")
            }
        }
    }

    /// A connection on which anything may be written.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    /// What comes on a connection until it is closed.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut socket = self.connect().await;
        // The other side may refuse and close before it has read all.
        let _ = socket.write_all(bytes).await;
        until_closed(&mut socket).await
    }

    pub async fn stop(mut self) {
        self.begin_stop();
        let served = tokio::time::timeout(PATIENCE, self.serving).await;
        served.expect("it stops").expect("it does not panic").expect("it fails not");
    }

    pub fn begin_stop(&mut self) {
        drop(self.stop.take());
    }
}

/// What comes on a connection until it is closed.
pub async fn until_closed(socket: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let read = async {
        let mut some = [0; 4096];
        while let Ok(count @ 1..) = socket.read(&mut some).await {
            all.extend_from_slice(&some[..count]);
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the connection is closed");
    String::from_utf8_lossy(&all).into_owned()
}

pub const JSON: (&str, &str) = ("content-type", "application/json");

/// Asks until something is true.
pub async fn until<F: Future<Output = bool>>(what: &str, mut is: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !is().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
