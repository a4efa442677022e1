//! Where clients come in, and what the door talks to them through.
//!
//! A client in the clear is its own socket. One behind TLS is one end of a pair of local sockets;
//! see `secure`. The door treats both alike.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use crate::secure::{Gate, Handed};

/// Where clients come in.
pub enum Entrance {
    /// In the clear.
    Plain(TcpListener),
    /// Only behind TLS.
    Secure(Gate),
}

impl Entrance {
    /// The next client.
    ///
    /// # Errors
    /// `WouldBlock` when there is none now, or what the system says.
    pub fn accept(&mut self) -> io::Result<Socket> {
        match self {
            Self::Plain(listener) => listener.accept().map(|(socket, _)| Socket::Plain(socket)),
            Self::Secure(gate) => gate.next().map(Socket::Secure),
        }
    }

    /// Whether the bell may mean that a client has come.
    pub fn rings(&self) -> bool {
        matches!(self, Self::Secure(_))
    }
}

/// What the door talks to one client through.
#[derive(Debug)]
pub enum Socket {
    /// The client's own.
    Plain(TcpStream),
    /// The door's end of a pair; TLS is spoken at the other one.
    Secure(Handed),
}

impl Socket {
    /// Lets small answers leave at once.
    ///
    /// # Errors
    /// When the client is gone.
    pub fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.set_nodelay(true),
            // Done when it was accepted.
            Self::Secure(_) => Ok(()),
        }
    }

    /// Where the client calls from.
    ///
    /// # Errors
    /// When it is gone.
    pub fn peer(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(socket) => socket.peer_addr(),
            Self::Secure(handed) => Ok(handed.peer),
        }
    }

    /// Where the client called to.
    ///
    /// # Errors
    /// When it is gone.
    pub fn local(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(socket) => socket.local_addr(),
            Self::Secure(handed) => Ok(handed.local),
        }
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Plain(socket) => socket,
            Self::Secure(handed) => &mut handed.socket,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Secure(handed) => handed.socket.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Secure(handed) => handed.socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for Socket {
    fn register(&mut self, to: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.source().register(to, token, interest)
    }

    fn reregister(&mut self, to: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.source().reregister(to, token, interest)
    }

    fn deregister(&mut self, from: &Registry) -> io::Result<()> {
        self.source().deregister(from)
    }
}
