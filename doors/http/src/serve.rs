//! The accept loop: how connections come in, and how they go at a shutdown.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Version};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use leasehold_api::{Error, ErrorKind};
use leasehold_wire::Problem;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::connection::{Answering, Pace, Watched};
use crate::door::Door;
use crate::{HttpDoor, HttpLimits};

/// How long to wait when the system has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that are being refused at once, beside those that are served.
const REFUSALS: usize = 64;

/// How long a refused client may take to read why.
const REFUSAL_READ: Duration = Duration::from_secs(1);

/// Serves a door until `shutdown` resolves: then nothing new is accepted, waits are ended at once
/// with 503, and what is under way may finish for [`HttpLimits::drain`].
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    tls: Option<ServerConfig>,
    door: HttpDoor,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let tls = tls.map(|mut config| {
        if config.alpn_protocols.is_empty() {
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        }
        TlsAcceptor::from(Arc::new(config))
    });
    let accepting = Accepting {
        tls,
        builder: Arc::new(builder(&door.door.limits)),
        router: TowerToHyperService::new(door.router()),
        door: door.door.clone(),
    };
    let places = Arc::new(Semaphore::new(door.door.limits.connections));
    let refusing = Arc::new(Semaphore::new(REFUSALS));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = loop {
            tokio::select! {
                () = &mut shutdown => break None,
                accepted = listener.accept() => break Some(accepted),
                // Tasks that have ended are let go of, so that the set does not grow.
                Some(_) = connections.join_next() => {}
            }
        };
        match accepted {
            None => break,
            Some(Ok((socket, _))) => match places.clone().try_acquire_owned() {
                Ok(place) => drop(connections.spawn(accepting.clone().connection(socket, place))),
                // Without a place even for a refusal it is closed.
                Err(_) => {
                    if let Ok(place) = refusing.clone().try_acquire_owned() {
                        connections.spawn(accepting.clone().refuse(socket, place));
                    }
                }
            },
            Some(Err(error)) if is_passing(&error) => {}
            Some(Err(error)) => {
                tracing::warn!(%error, "a connection was not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    door.close();
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(door.door.limits.drain, drained).await.is_err() {
        tracing::warn!(left = connections.len(), "requests did not finish in time and are ended");
        connections.shutdown().await;
    }
    Ok(())
}

/// Errors of one connection, not of the listener.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

fn builder(limits: &HttpLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // The pace of a connection is watched by ourselves; see `connection`.
    builder.http1().header_read_timeout(None).max_buf_size(limits.head_bytes.max(8 << 10));
    if limits.headers != HttpLimits::default().headers {
        // hyper keeps 100 on the stack; another number costs an allocation for each request.
        builder.http1().max_headers(limits.headers);
    }
    let head_bytes = u32::try_from(limits.head_bytes).unwrap_or(u32::MAX);
    builder
        .http2()
        .max_header_list_size(head_bytes)
        .max_concurrent_streams(limits.streams_per_connection);
    builder
}

#[derive(Clone)]
struct Accepting {
    tls: Option<TlsAcceptor>,
    builder: Arc<auto::Builder<TokioExecutor>>,
    router: TowerToHyperService<axum::Router>,
    door: Arc<Door>,
}

impl Accepting {
    async fn connection(self, socket: TcpStream, _place: OwnedSemaphorePermit) {
        // Answers are small and whole; waiting to fill a segment only delays them.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "a connection was gone before it began");
            return;
        }
        let Some(tls) = self.tls.clone() else { return self.requests(socket).await };
        match timeout(self.door.limits.head_read, tls.accept(socket)).await {
            Ok(Ok(socket)) => self.requests(socket).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    /// Says that there are too many connections, and closes this one.
    async fn refuse(self, mut socket: TcpStream, _place: OwnedSemaphorePermit) {
        // A handshake only to refuse would cost more than the refusal saves.
        if self.tls.is_some() {
            return;
        }
        let max = self.door.limits.connections;
        let wrong = format!("there are {max} connections already; close idle ones, or ask later");
        let problem = Problem::from(Error::new(ErrorKind::Full, wrong)).with_status(503);
        let body = serde_json::to_string(&problem).unwrap_or_default();
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
             content-length: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let said = async {
            // An answer before the question is none to a client.
            let mut unread = [0; 1024];
            if socket.read(&mut unread).await? == 0 {
                return Ok(());
            }
            socket.write_all(answer.as_bytes()).await?;
            socket.shutdown().await?;
            // What else the client sends is read, or the system would take the answer back.
            while socket.read(&mut unread).await? > 0 {}
            Ok::<_, io::Error>(())
        };
        match timeout(REFUSAL_READ, said).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a refused connection ended early"),
            Err(_) => tracing::debug!("a refused connection was not closed by its client"),
        }
    }

    async fn requests(self, socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let pace = Pace::new(&self.door.limits);
        let (router, paced) = (self.router, pace.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let under_way = paced.begin(request.version() == Version::HTTP_2);
            let answer = router.call(request.map(Body::new));
            async move {
                let answer = answer.await?;
                Ok::<_, Infallible>(answer.map(|body| Answering::new(body, under_way)))
            }
        });
        let socket = TokioIo::new(Watched::new(socket, pace.clone()));
        let mut connection = pin!(self.builder.serve_connection(socket, service));
        let mut closed = pin!(self.door.closed());
        let mut timer = pin!(sleep_until(Instant::now()));
        let mut closing = false;
        poll_fn(|cx| {
            if !closing && closed.as_mut().poll(cx).is_ready() {
                closing = true;
                connection.as_mut().graceful_shutdown();
            }
            if let Poll::Ready(done) = connection.as_mut().poll(cx) {
                if let Err(error) = done {
                    tracing::debug!(error, "a connection ended early");
                }
                return Poll::Ready(());
            }
            let Some(deadline) = pace.deadline() else { return Poll::Pending };
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            timer.as_mut().poll(cx)
        })
        .await;
    }
}
