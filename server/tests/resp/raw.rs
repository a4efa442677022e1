//! The protocol itself over a socket, byte by byte, where libraries would hide it.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::support::PATIENCE;

/// One answer as it came; maps and pushes are arrays here, told apart by their mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Status(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    Nil,
    Many(u8, Vec<Said>),
}

impl Said {
    pub fn ok() -> Self {
        Self::Status("OK".into())
    }

    pub fn text(text: &str) -> Self {
        Self::Bulk(text.as_bytes().to_vec())
    }

    pub fn int(&self) -> i64 {
        let Self::Int(number) = self else { panic!("{self:?} is no number") };
        *number
    }

    pub fn parts(&self) -> &[Said] {
        let Self::Many(_, parts) = self else { panic!("{self:?} has no parts") };
        parts
    }

    pub fn error(&self) -> &str {
        let Self::Error(text) = self else { panic!("{self:?} is no error") };
        text
    }
}

/// A connection, in the clear or through something else.
pub struct Raw<S: Read + Write = TcpStream>(pub BufReader<S>);

impl Raw {
    pub fn to(port: u16) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).expect("the door is open");
        socket.set_nodelay(true).expect("it is a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
        socket.set_write_timeout(Some(PATIENCE)).expect("it is a socket");
        Self(BufReader::new(socket))
    }
}

impl<S: Read + Write> Raw<S> {
    pub fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).expect("it is read");
    }

    /// Asks by words and does not wait.
    pub fn tell(&mut self, words: &[&str]) {
        let parts: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.send(&request(&parts));
    }

    /// Asks by words and waits for the answer.
    pub fn ask(&mut self, words: &[&str]) -> Said {
        self.tell(words);
        self.said()
    }

    /// Asks in one line, words apart by spaces.
    pub fn line(&mut self, line: &str) -> Said {
        self.ask(&line.split(' ').collect::<Vec<_>>())
    }

    /// The next answer.
    pub fn said(&mut self) -> Said {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).expect("an answer");
        let line = String::from_utf8(line).expect("it begins with text");
        let text = line.strip_suffix("\r\n").unwrap_or_else(|| panic!("cut off after {line:?}"));
        let (mark, rest) = text.split_at(1);
        let number = || rest.parse::<i64>().expect("it is a number");
        match mark {
            "+" => Said::Status(rest.into()),
            "-" => Said::Error(rest.into()),
            ":" => Said::Int(number()),
            "_" => Said::Nil,
            "$" | "=" => match usize::try_from(number()) {
                Err(_) => Said::Nil,
                Ok(length) => {
                    let mut body = vec![0; length + 2];
                    self.0.read_exact(&mut body).expect("a body");
                    body.truncate(length);
                    Said::Bulk(body)
                }
            },
            "*" | "~" | ">" | "%" => match usize::try_from(number()) {
                Err(_) => Said::Nil,
                Ok(count) => {
                    let count = if mark == "%" { count * 2 } else { count };
                    Said::Many(mark.as_bytes()[0], (0..count).map(|_| self.said()).collect())
                }
            },
            _ => panic!("{line:?} is no answer"),
        }
    }

    /// Reads until the server ends it; gives how many bytes came before.
    pub fn end(&mut self) -> u64 {
        match std::io::copy(&mut self.0, &mut std::io::sink()) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("it is not ended: {error}"),
        }
    }
}

/// A request as clients write it.
pub fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend_from_slice(word);
        bytes.extend(b"\r\n");
    }
    bytes
}
