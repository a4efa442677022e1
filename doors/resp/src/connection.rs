//! One client: its socket, what came and was not read yet, what is said and has not left yet.
//!
//! An answer may leave when the journal is durable up to what the answer tells. Answers stay in
//! order, so a connection keeps one buffer and marks in it: up to this byte, after that sequence.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Instant;

use mio::event::Event;

use crate::Reply;
use crate::codec::{Parser, RequestLimits, Version, write};
use crate::session::Session;
use crate::socket::Socket;

/// Bytes read from a socket at one time.
pub const READ_BYTES: usize = 64 << 10;
/// A client that leaves so many bytes of answers unread is asked for no more requests.
pub const UNREAD_BYTES: usize = 1 << 20;
/// Buffers that have grown beyond this are given back when they are empty.
const KEPT_BYTES: usize = 64 << 10;

/// A client.
pub struct Connection {
    /// Its number; never used again.
    pub id: u64,
    /// Where it calls from.
    pub peer: String,
    /// Where it called to.
    pub local: String,
    /// What the door knows of it.
    pub session: Session,
    /// Reads its requests.
    pub parser: Parser,
    socket: Socket,
    /// What came; `start` is where the first request not carried out begins.
    pub input: Vec<u8>,
    /// See `input`.
    pub start: usize,
    output: Vec<u8>,
    /// Bytes of the output that have left.
    left: usize,
    /// Up to which byte the output may leave after which sequence.
    marks: VecDeque<(usize, u64)>,
    /// The socket takes no more for now.
    pub stuffed: bool,
    /// More may be read from the socket.
    pub readable: bool,
    /// It sends no more: what it sent is still carried out and answered.
    pub over: bool,
    /// The poll told that it sends no more, and tells so once: reading goes on until the end.
    pub ending: bool,
    /// It ends when its output has left.
    pub closing: bool,
    /// It is in the list of those with output.
    pub listed: bool,
    /// When it came, and when it last asked for something.
    pub since: Instant,
    /// See `since`.
    pub asked: Instant,
    /// Skip this many answers.
    pub skip: u32,
    /// The largest answer, bytes.
    pub answer_bytes: usize,
}

impl Connection {
    /// A client that has just come.
    pub fn new(id: u64, socket: Socket, session: Session, limits: RequestLimits) -> Self {
        let name = |address: io::Result<std::net::SocketAddr>| {
            address.map_or_else(|_| "?:0".to_owned(), |address| address.to_string())
        };
        let stranger = session.is_stranger();
        let now = Instant::now();
        Self {
            id,
            peer: name(socket.peer()),
            local: name(socket.local()),
            session,
            parser: Parser::new(limits, stranger),
            socket,
            input: Vec::new(),
            start: 0,
            output: Vec::new(),
            left: 0,
            marks: VecDeque::new(),
            stuffed: false,
            readable: false,
            over: false,
            ending: false,
            closing: false,
            listed: false,
            since: now,
            asked: now,
            skip: 0,
            answer_bytes: usize::MAX,
        }
    }

    /// The socket, for the poll.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Reads what has come, one helping, and notes the end. A helping that is not full was the
    /// last, unless the end comes after it: the poll tells when there is more.
    pub fn take_in(&mut self, scratch: &mut [u8]) {
        loop {
            match self.socket.read(scratch) {
                Ok(n) if n > 0 => {
                    self.input.extend_from_slice(&scratch[..n]);
                    self.readable = n == scratch.len() || self.ending;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Ok(_) | Err(_) => (self.over, self.readable) = (true, false),
            }
            return;
        }
    }

    /// Puts it into the list of those with output, once.
    pub fn list(&mut self, place: usize, dirty: &mut Vec<usize>) {
        if !std::mem::replace(&mut self.listed, true) {
            dirty.push(place);
        }
    }

    /// What the poll told; true when something can be written again.
    pub fn noticed(&mut self, event: &Event) -> bool {
        self.ending |= event.is_read_closed() || event.is_error();
        self.readable |= !self.over && (event.is_readable() || self.ending);
        let again = event.is_writable() && self.stuffed;
        self.stuffed &= !again;
        again
    }

    /// Forgets input that was carried out.
    pub fn consumed(&mut self, used: usize) {
        self.start += used;
        if self.start == self.input.len() {
            self.start = 0;
            reset(&mut self.input);
        } else if self.start > READ_BYTES {
            self.input.drain(..self.start);
            self.start = 0;
        }
    }

    /// Says something that may leave after a sequence.
    pub fn say(&mut self, reply: &Reply, after: u64) {
        if self.session.silent {
            return;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        self.push(reply, after);
    }

    /// Says something that was not asked for.
    pub fn push(&mut self, reply: &Reply, after: u64) {
        let version = if self.session.resp3 { Version::Resp3 } else { Version::Resp2 };
        match reply.bytes() {
            bytes if bytes > self.answer_bytes => {
                let most = self.answer_bytes;
                let text = format!(
                    "ERR the answer has {bytes} bytes; at most {most} are told. What was asked was \
                     carried out"
                );
                write(&Reply::error(text), version, &mut self.output);
            }
            _ => write(reply, version, &mut self.output),
        }
        let end = self.output.len();
        match self.marks.back_mut() {
            Some(mark) if mark.1 >= after => mark.0 = end,
            _ => self.marks.push_back((end, after)),
        }
    }

    /// Bytes that were said and have not left.
    pub fn unread(&self) -> usize {
        self.output.len() - self.left
    }

    /// Lets go what may leave.
    ///
    /// # Errors
    /// When the client is gone.
    pub fn leave(&mut self, upto: u64) -> io::Result<()> {
        let mut end = self.left;
        while let Some(mark) = self.marks.front().filter(|mark| mark.1 <= upto) {
            end = mark.0;
            self.marks.pop_front();
        }
        // What may leave and is not taken stays marked.
        let may = end;
        while self.left < may && !self.stuffed {
            match self.socket.write(&self.output[self.left..may]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => self.left += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.stuffed = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.left < may {
            self.marks.push_front((may, 0));
        }
        if self.left == self.output.len() {
            self.left = 0;
            self.marks.clear();
            reset(&mut self.output);
        } else if self.left > UNREAD_BYTES {
            self.output.drain(..self.left);
            self.marks.iter_mut().for_each(|mark| mark.0 -= self.left);
            self.left = 0;
        }
        Ok(())
    }
}

/// Empties a buffer, and gives its room back when it has grown.
fn reset(buffer: &mut Vec<u8>) {
    match buffer.capacity() > KEPT_BYTES {
        true => *buffer = Vec::new(),
        false => buffer.clear(),
    }
}
