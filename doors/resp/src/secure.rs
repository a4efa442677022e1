//! TLS in front of the door.
//!
//! What happens on the shard's thread, the shard waits for, and one handshake costs as much as
//! some hundred commands. So TLS is spoken on the runtime's threads. Each client gets a pair of
//! local sockets: a task moves bytes between its TLS stream and one end, the door has the other
//! end and treats it like any client. When the door lets go of its end, the task tells the client
//! what is left to tell, says good-bye and closes.
//!
//! Rejected: rustls within the door's connections. It saves two wake-ups for each request, and
//! everybody else would wait for each handshake and each large answer to be encrypted.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream as Pair;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mio::Waker;
use tokio::io::{AsyncWriteExt, copy, split};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

/// Clients at one time that shake hands, or have and were not taken in by the door yet. More wait
/// in the system's queue.
const HANDSHAKES: usize = 256;
/// Clients in the system's queue.
const BACKLOG: u32 = 1024;
/// How long to wait when the system has no more sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a client may take to read what is left when the door has let go of it.
const FAREWELL: Duration = Duration::from_secs(5);

/// A client whose handshake is done, as the door has it.
#[derive(Debug)]
pub struct Handed {
    /// The door's end of the pair.
    pub socket: mio::net::UnixStream,
    /// Where the client calls from.
    pub peer: SocketAddr,
    /// Where it called to.
    pub local: SocketAddr,
    /// The task at the other end hears when this is dropped.
    _stays: oneshot::Sender<Infallible>,
}

/// Where clients with TLS come in.
#[derive(Debug)]
pub struct Gate {
    /// Where it listens.
    pub address: SocketAddr,
    arrivals: Arc<Arrivals>,
    accepting: AbortHandle,
}

/// What the gate is opened with.
#[derive(Debug, Clone)]
pub struct Secure {
    /// The certificate and its key.
    pub tls: Arc<ServerConfig>,
    /// How long a handshake may take.
    pub patience: Duration,
}

/// Clients that the door has not taken in yet, and how to tell it of them.
#[derive(Debug)]
struct Arrivals {
    waiting: Mutex<VecDeque<(Handed, OwnedSemaphorePermit)>>,
    bell: Arc<Waker>,
}

impl Gate {
    /// Takes a port and lets clients in.
    ///
    /// # Errors
    /// What the system says: the port is taken, or may not be taken by this user.
    pub fn open(
        address: SocketAddr,
        secure: Secure,
        runtime: &tokio::runtime::Handle,
        bell: Arc<Waker>,
    ) -> io::Result<Self> {
        let arrivals = Arc::new(Arrivals { waiting: Mutex::default(), bell });
        let _within = runtime.enter();
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        let accepting = runtime.spawn(accept(listener, secure, arrivals.clone())).abort_handle();
        Ok(Self { address, arrivals, accepting })
    }

    /// The next client.
    ///
    /// # Errors
    /// `WouldBlock` when there is none now.
    pub fn next(&mut self) -> io::Result<Handed> {
        let next = self.arrivals.waiting().pop_front();
        next.map(|(handed, _)| handed).ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.accepting.abort();
        self.arrivals.waiting().clear();
    }
}

impl Arrivals {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<(Handed, OwnedSemaphorePermit)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, handed: Handed, place: OwnedSemaphorePermit) {
        self.waiting().push_back((handed, place));
        // It fails only when the door is gone, and its clients with it.
        self.bell.wake().ok();
    }
}

async fn accept(listener: TcpListener, secure: Secure, arrivals: Arc<Arrivals>) {
    let acceptor = TlsAcceptor::from(secure.tls);
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((socket, peer)) => {
                let (acceptor, arrivals) = (acceptor.clone(), arrivals.clone());
                tokio::spawn(async move {
                    match timeout(secure.patience, acceptor.accept(socket)).await {
                        Ok(Ok(stream)) => hand_over(stream, peer, &arrivals, place).await,
                        Ok(Err(error)) => refused(peer, &error),
                        Err(_) => tracing::info!(%peer, "a TLS handshake took too long"),
                    }
                });
            }
            Err(error) if is_passing(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no RESP client can be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Errors of one client, not of the listener.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted | Kind::ConnectionReset | Kind::Interrupted | Kind::WouldBlock
    )
}

fn refused(peer: SocketAddr, error: &io::Error) {
    match error.kind() {
        // Who looks whether the port is open, as watchers of services do, says nothing.
        io::ErrorKind::UnexpectedEof => tracing::debug!(%peer, "gone before the TLS handshake"),
        _ => tracing::info!(%peer, %error, "a TLS handshake failed"),
    }
}

/// Hands a client to the door and moves its bytes until one of them ends it.
async fn hand_over(
    stream: TlsStream<TcpStream>,
    peer: SocketAddr,
    arrivals: &Arrivals,
    place: OwnedSemaphorePermit,
) {
    let paired = || -> io::Result<_> {
        stream.get_ref().0.set_nodelay(true)?;
        let local = stream.get_ref().0.local_addr()?;
        let (door, own) = Pair::pair()?;
        door.set_nonblocking(true)?;
        own.set_nonblocking(true)?;
        Ok((local, mio::net::UnixStream::from_std(door), UnixStream::from_std(own)?))
    };
    let (local, socket, own) = match paired() {
        Ok(paired) => paired,
        Err(error) => return tracing::warn!(%peer, %error, "no room for a client with TLS"),
    };
    let (stays, gone) = oneshot::channel();
    arrivals.push(Handed { socket, peer, local, _stays: stays }, place);
    carry(stream, own, gone).await;
}

async fn carry(
    stream: TlsStream<TcpStream>,
    door: UnixStream,
    gone: oneshot::Receiver<Infallible>,
) {
    let (mut from_client, mut to_client) = split(stream);
    let (mut from_door, mut to_door) = door.into_split();
    // The end of either direction is passed on. A client that sends no more may still be answered;
    // one that is gone is noticed when it is.
    let asks = async {
        copy(&mut from_client, &mut to_door).await.ok();
        to_door.shutdown().await.ok();
        std::future::pending::<()>().await;
    };
    let answers = async {
        copy(&mut from_door, &mut to_client).await.ok();
        to_client.shutdown().await.ok();
    };
    let farewell = async {
        gone.await.ok();
        sleep(FAREWELL).await;
    };
    tokio::select! {
        () = answers => {}
        () = asks => {}
        () = farewell => {}
    }
}
