//! A network that does what networks do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What is done to the bytes at present.
#[derive(Debug, Clone, Default)]
struct Weather {
    /// How late bytes arrive.
    delay: Duration,
    /// Nothing arrives towards the server.
    deaf: bool,
    /// Nothing arrives towards the client.
    mute: bool,
    /// Connections with a lower number are cut.
    cut_below: u64,
    /// New connections are refused.
    closed: bool,
}

/// Stands between clients and a server.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    weather: Arc<watch::Sender<Weather>>,
    accepting: JoinHandle<()>,
    count: Arc<std::sync::atomic::AtomicU64>,
}

impl Proxy {
    /// In front of a server on a port of 127.0.0.1.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let weather = Arc::new(watch::channel(Weather::default()).0);
        let count = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let accepting = tokio::spawn(accept(listener, port, weather.clone(), count.clone()));
        Self { address, weather, accepting, count }
    }

    /// Where clients go instead.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on bytes arrive so late, both ways.
    pub fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// From now on nothing arrives, either way, and nobody is told: a partition.
    pub fn silence(&self) {
        self.weather.send_modify(|weather| (weather.deaf, weather.mute) = (true, true));
    }

    /// From now on requests arrive and answers do not.
    pub fn lose_answers(&self) {
        self.weather.send_modify(|weather| weather.mute = true);
    }

    /// All is well again. What did not arrive meanwhile does not arrive any more: the connections
    /// that were silent are cut.
    pub fn heal(&self) {
        let was = self.weather.borrow().clone();
        if was.deaf || was.mute {
            self.cut();
        }
        self.weather.send_modify(|weather| {
            let cut_below = weather.cut_below;
            *weather = Weather { cut_below, ..Weather::default() };
        });
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        let next = self.count.load(std::sync::atomic::Ordering::SeqCst);
        self.weather.send_modify(|weather| weather.cut_below = next);
    }

    /// Cuts all connections and accepts no more until [`heal`](Self::heal).
    pub fn close(&self) {
        self.cut();
        self.weather.send_modify(|weather| weather.closed = true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(
    listener: TcpListener,
    port: u16,
    weather: Arc<watch::Sender<Weather>>,
    count: Arc<std::sync::atomic::AtomicU64>,
) {
    while let Ok((client, _)) = listener.accept().await {
        if weather.borrow().closed {
            continue;
        }
        let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
        // Small answers must not wait for each other.
        client.set_nodelay(true).ok();
        server.set_nodelay(true).ok();
        let weather = weather.subscribe();
        // From the moment in which it is cut nothing passes, although its task learns of it later.
        let is_cut = move |now: &Weather| number < now.cut_below;
        let is_deaf = move |now: &Weather| now.deaf || is_cut(now);
        let is_mute = move |now: &Weather| now.mute || is_cut(now);
        tokio::spawn(async move {
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let mut cut = weather.clone();
            tokio::select! {
                () = pass(from_client, to_server, weather.clone(), is_deaf) => {}
                () = pass(from_server, to_client, weather, is_mute) => {}
                _ = cut.wait_for(is_cut) => {}
            }
        });
    }
}

/// Passes bytes on until one side ends.
async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    weather: watch::Receiver<Weather>,
    lost: impl Fn(&Weather) -> bool,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        let delay = weather.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if lost(&weather.borrow()) {
            continue;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (mut from, mut to) = socket.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
            }
        });
        port
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn bytes_pass_are_lost_and_lines_are_cut() {
        let proxy = Proxy::to(echo().await).await;
        let mut line = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("it accepts");
        let mut answer = [0; 4];
        line.write_all(b"ping").await.expect("it is open");
        line.read_exact(&mut answer).await.expect("it comes back");
        proxy.lose_answers();
        line.write_all(b"lost").await.expect("it is open");
        let silent = tokio::time::timeout(Duration::from_millis(100), line.read(&mut answer));
        assert!(silent.await.is_err(), "an answer came");
        proxy.heal();
        assert_eq!(line.read(&mut answer).await.unwrap_or(0), 0, "the line is cut");
        let mut line = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("it accepts");
        line.write_all(b"pong").await.expect("it is open");
        line.read_exact(&mut answer).await.expect("it comes back");
        assert_eq!(&answer, b"pong");
    }
}
