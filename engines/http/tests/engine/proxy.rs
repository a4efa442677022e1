//! A proxy that loses things: answers, connections, time.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What to do to traffic.
#[derive(Debug, Default)]
struct Faults {
    /// The answers to the next so many requests with this in their head are lost: the request is
    /// carried out, and the connection is cut where its answer should be.
    lose: Option<(String, u32)>,
    /// How many were lost.
    lost: u32,
    /// The next answer to a request with this in its head waits until the client has hung up.
    keep: Option<String>,
    /// How many waited for that.
    kept: u32,
    /// Everything takes so much longer, in each direction.
    delay: Duration,
}

pub struct Proxy {
    address: SocketAddr,
    faults: Arc<Mutex<Faults>>,
    cut: watch::Sender<u32>,
}

impl Proxy {
    pub async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let faults = Arc::new(Mutex::new(Faults::default()));
        let cut = watch::Sender::new(0);
        let (for_all, cutting) = (faults.clone(), cut.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut cut = cutting.subscribe();
                let carried = carry(client, server, for_all.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = carried => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, faults, cut }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Loses the answers to the next requests with this in their head.
    pub fn lose(&self, in_head: &str, times: u32) {
        let mut faults = self.faults.lock().expect("nobody panics");
        (faults.lose, faults.lost) = (Some((in_head.to_owned(), times)), 0);
    }

    pub fn lost(&self) -> u32 {
        self.faults.lock().expect("nobody panics").lost
    }

    /// Keeps the next answer to a request with this in its head until the client has hung up.
    pub fn keep(&self, in_head: &str) {
        let mut faults = self.faults.lock().expect("nobody panics");
        (faults.keep, faults.kept) = (Some(in_head.to_owned()), 0);
    }

    pub fn kept(&self) -> u32 {
        self.faults.lock().expect("nobody panics").kept
    }

    pub fn delay(&self, delay: Duration) {
        self.faults.lock().expect("nobody panics").delay = delay;
    }

    /// Cuts every connection there is.
    pub fn cut(&self) {
        self.cut.send_modify(|times| *times += 1);
    }
}

async fn carry(client: TcpStream, server: SocketAddr, faults: Arc<Mutex<Faults>>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    for socket in [&client, &server] {
        socket.set_nodelay(true).expect("it is open");
    }
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    // What the client said since the last answer began.
    let said = Arc::new(Mutex::new(Vec::new()));
    let (hears, delays) = (said.clone(), faults.clone());
    let upwards = async move {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from_client.read(&mut bytes).await {
            hears.lock().expect("nobody panics").extend_from_slice(&bytes[..read]);
            let delay = delays.lock().expect("nobody panics").delay;
            tokio::time::sleep(delay).await;
            if to_server.write_all(&bytes[..read]).await.is_err() {
                break;
            }
        }
        to_server.shutdown().await.ok();
    };
    let mut upwards = tokio::spawn(upwards);
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from_server.read(&mut bytes).await {
        let heard = std::mem::take(&mut *said.lock().expect("nobody panics"));
        if loses(&faults, &heard) {
            upwards.abort();
            return;
        }
        if keeps(&faults, &heard) {
            (&mut upwards).await.expect("it does not panic");
        }
        let delay = faults.lock().expect("nobody panics").delay;
        tokio::time::sleep(delay).await;
        if to_client.write_all(&bytes[..read]).await.is_err() {
            break;
        }
    }
    to_client.shutdown().await.ok();
    upwards.abort();
}

fn has(heard: &[u8], in_head: &str) -> bool {
    String::from_utf8_lossy(heard).contains(in_head)
}

fn keeps(faults: &Mutex<Faults>, heard: &[u8]) -> bool {
    let mut faults = faults.lock().expect("nobody panics");
    let keeps = faults.keep.take_if(|in_head| has(heard, in_head)).is_some();
    faults.kept += u32::from(keeps);
    keeps
}

fn loses(faults: &Mutex<Faults>, heard: &[u8]) -> bool {
    let mut faults = faults.lock().expect("nobody panics");
    let Some((in_head, times)) = &mut faults.lose else { return false };
    if *times == 0 || !has(heard, in_head) {
        return false;
    }
    *times -= 1;
    faults.lost += 1;
    true
}
