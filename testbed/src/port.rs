//! Ports that belong to one test.

use std::fs::{File, TryLockError};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use tokio::net::TcpSocket;

/// Below the ports that systems give to outgoing connections: a client that knocks while its server
/// is down could otherwise be given that very port, meet itself, and keep the server from coming
/// back.
const PORTS: std::ops::Range<u16> = 12_000..28_000;

/// A port of 127.0.0.1 that nobody uses, and that no other test is given while this process lives.
///
/// A port is free until its server listens, which takes some of them seconds, and tests run in
/// many processes at one time. So each port has a file, and who locked that has the port; the
/// system unlocks the files of a process that ends, however it does.
///
/// # Panics
/// When none is found.
pub fn free_port() -> u16 {
    static TAKEN: Mutex<(u16, Vec<File>)> = Mutex::new((0, Vec::new()));
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = std::env::temp_dir();
    // Files of other users cannot be opened.
    let directory = directory.join(format!("leasehold-ports-{}", rustix::process::geteuid()));
    std::fs::create_dir_all(&directory).expect("a directory for ports");
    let count = PORTS.end - PORTS.start;
    let first = (std::process::id() % u32::from(count)) as u16;
    for _ in 0..count {
        taken.0 = (taken.0 + 1) % count;
        let port = PORTS.start + (first + taken.0) % count;
        let file = File::create(directory.join(port.to_string())).expect("the directory is ours");
        match file.try_lock() {
            Ok(()) if is_free(port) => {
                taken.1.push(file);
                return port;
            }
            Ok(()) | Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => panic!("{}: {error}", directory.display()),
        }
    }
    panic!("no port is free");
}

/// Whether nobody listens there. It is found out without listening: a process that another test
/// starts at this moment has the socket too for a while, and would pass for the server.
fn is_free(port: u16) -> bool {
    let bound = TcpSocket::new_v4().and_then(|socket| {
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    });
    bound.is_ok()
}

#[cfg(test)]
mod tests {
    use super::{free_port, is_free};

    #[test]
    fn a_port_that_somebody_listens_to_is_not_free() {
        let port = free_port();
        let listens = std::net::TcpListener::bind(("127.0.0.1", port)).expect("it is free");
        assert!(!is_free(port));
        drop(listens);
        assert!(is_free(port));
    }

    #[test]
    fn no_port_is_given_twice() {
        let ports: Vec<u16> = (0..50).map(|_| free_port()).collect();
        let mut apart = ports.clone();
        apart.sort_unstable();
        apart.dedup();
        assert_eq!(apart.len(), ports.len(), "{ports:?}");
    }
}
