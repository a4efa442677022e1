//! One connection: TCP, TLS if the URL says so, HTTP/1.1 on top.
//!
//! It can be *hung up* in the one way that leaves no doubt: only our side is closed. The server
//! then ends what it was doing for us and closes its side, but an answer that it had sent already
//! still arrives. Closing both sides at once, as dropping a connection does, loses that answer, and
//! with it a grant or a delivery that nobody knows of. HTTP/2 has no such half-close (a reset
//! stream drops what is under way), so connections are HTTP/1.1; with many streams on one
//! connection, renewals would also wait behind long polls and large bodies.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use leasehold_api::Retry;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::place::Place;

/// A silent connection is asked after so long whether it lives …
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// … so often, with so long between: a dead network is noticed within half a minute.
const KEEP_ALIVE_AGAIN: (u32, Duration) = (3, Duration::from_secs(5));
/// No header of an answer is longer.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Why a connection was not made.
#[derive(Debug, Clone)]
pub(crate) struct Cause {
    pub text: String,
    /// `Never`: it will be the same next time, such as with a certificate that is not trusted.
    pub retry: Retry,
}

impl Cause {
    pub fn later(text: impl Into<String>) -> Self {
        Self { text: text.into(), retry: Retry::Later }
    }

    fn never(text: impl Into<String>) -> Self {
        Self { text: text.into(), retry: Retry::Never }
    }
}

#[derive(Debug, Default)]
struct Bell {
    rung: bool,
    waker: Option<Waker>,
}

/// Closes our side of a connection, from wherever.
#[derive(Debug, Clone, Default)]
pub(crate) struct HangUp(Arc<Mutex<Bell>>);

impl HangUp {
    /// Closes our side.
    pub fn now(&self) {
        let mut bell = self.0.lock().expect("nobody panics while holding the bell");
        bell.rung = true;
        let waker = bell.waker.take();
        drop(bell);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether our side is closed, or about to be.
    pub fn is_done(&self) -> bool {
        self.0.lock().expect("nobody panics while holding the bell").rung
    }

    fn is_rung(&self, cx: &Context<'_>) -> bool {
        let mut bell = self.0.lock().expect("nobody panics while holding the bell");
        if !bell.rung && !bell.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            bell.waker = Some(cx.waker().clone());
        }
        bell.rung
    }
}

/// A stream whose writing side closes when the bell is rung.
struct Hearing<T> {
    io: T,
    bell: HangUp,
    closed: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Hearing<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The connection always reads while it waits for an answer, so the bell is heard here.
        if !self.closed && self.bell.is_rung(cx) {
            // If it cannot be closed it is broken, and reading will say so.
            self.closed = Pin::new(&mut self.io).poll_shutdown(cx).is_ready();
        }
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Hearing<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A connection that can carry one request at a time.
#[derive(Debug)]
pub(crate) struct Line {
    pub requests: SendRequest<Full<Bytes>>,
    pub hang_up: HangUp,
    /// When it last became free; `None`: it is new.
    pub free_since: Option<Instant>,
}

impl Line {
    /// Connects.
    pub async fn open(
        place: &Place,
        tls: Option<&TlsConnector>,
        within: Duration,
    ) -> Result<Self, Cause> {
        let until = Instant::now() + within;
        let late = |_| Cause::later(format!("it does not answer within {within:?}"));
        let tcp = timeout_at(until, dial(place, until)).await.map_err(late)??;
        let Some(tls) = tls else { return talk(tcp).await };
        let name = ServerName::try_from(place.host.clone())
            .map_err(|_| Cause::never(format!("{:?} is no name for a certificate", place.host)))?;
        let shaken = timeout_at(until, tls.connect(name, tcp)).await.map_err(late)?;
        talk(shaken.map_err(|error| not_trusted(&error))?).await
    }
}

/// What went wrong with TLS. A certificate does not get better by asking again.
fn not_trusted(error: &io::Error) -> Cause {
    use tokio_rustls::rustls::{Error, InvalidMessage};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(wrong)) => Cause::never(format!(
            "its certificate is not trusted ({wrong:?}); if it is of an authority of your own, \
             name that with ?ca=FILE"
        )),
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            Cause::never("it does not speak TLS; perhaps it is an http:// URL")
        }
        Some(other) => Cause::later(format!("TLS: {other}")),
        None => Cause::later(format!("TLS: {error}")),
    }
}

async fn dial(place: &Place, until: Instant) -> Result<TcpStream, Cause> {
    let found = lookup_host((place.host.as_str(), place.port)).await;
    let unknown = |error| Cause::later(format!("the host's name is not found: {error}"));
    let addresses: Vec<SocketAddr> = found.map_err(unknown)?.collect();
    let mut last = Cause::later("the host's name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        // One address that swallows everything must not use up the time of the others.
        let share = until.saturating_duration_since(Instant::now());
        let share = share / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                set_up(&tcp);
                return Ok(tcp);
            }
            Ok(Err(error)) => last = Cause::later(format!("{address}: {error}")),
            Err(_) => last = Cause::later(format!("{address} does not answer")),
        }
    }
    Err(last)
}

fn set_up(tcp: &TcpStream) {
    let (times, pause) = KEEP_ALIVE_AGAIN;
    let alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(pause);
    #[cfg(not(windows))]
    let alive = alive.with_retries(times);
    #[cfg(windows)]
    let _ = times;
    // A system that knows no such option still has the timeouts of the requests.
    let set = SockRef::from(tcp).set_tcp_keepalive(&alive).and(tcp.set_nodelay(true));
    if let Err(error) = set {
        tracing::debug!(%error, "a connection is without keep-alive");
    }
}

async fn talk<T>(io: T) -> Result<Line, Cause>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let hang_up = HangUp::default();
    let io = Hearing { io, bell: hang_up.clone(), closed: false };
    let made = http1::Builder::new().max_header_size(HEAD_BYTES_MAX).handshake(TokioIo::new(io));
    let (requests, connection) = made.await.map_err(|error| Cause::later(error.to_string()))?;
    tokio::spawn(async move {
        // Whoever waits for an answer is told as well; what breaks while idle concerns nobody.
        if let Err(error) = connection.await {
            tracing::trace!(%error, "a connection ended");
        }
    });
    Ok(Line { requests, hang_up, free_since: None })
}
