//! A Redis server of this test's own, and a client that reads both versions of its protocol.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server that ends with the test.
pub struct Server {
    child: Child,
    folder: PathBuf,
}

impl Server {
    /// Starts one that keeps nothing, on a socket in a folder of its own.
    pub fn start(name: &str) -> Self {
        let folder = format!("leasehold-resp-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).expect("a folder for Redis");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .args(["--unixsocket", "redis.sock"])
            .current_dir(&folder)
            .stdout(Stdio::null())
            .spawn();
        let child = child.expect(
            "redis-server, against which the commands are compared; it comes with the Debian \
             package `redis-server`",
        );
        let server = Self { child, folder };
        let begun = Instant::now();
        while UnixStream::connect(server.socket()).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("redis.sock")
    }

    /// A connection of a version of the protocol.
    pub fn connect(&self, resp3: bool) -> Client {
        let stream = UnixStream::connect(self.socket()).expect("a connection to Redis");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
        let mut client = Client { stream: BufReader::new(stream) };
        if resp3 {
            client.ask(&[b"HELLO", b"3"]);
        }
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A connection.
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Sends a request and reads the reply.
    pub fn ask(&mut self, args: &[&[u8]]) -> Value {
        let mut request = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            request.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            request.extend_from_slice(arg);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&request).expect("Redis reads");
        if let Err(error) = self.stream.fill_buf() {
            panic!("no reply to {}: {error}", request.escape_ascii());
        }
        Value::read(&mut self.stream)
    }
}

/// A reply as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Status(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    Nil,
    NilArray,
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
    Set(Vec<Value>),
    Double(String),
    Bool(bool),
    Other(char, String),
}

impl Value {
    pub fn read(from: &mut impl BufRead) -> Self {
        let mut line = Vec::new();
        from.read_until(b'\n', &mut line).expect("a reply");
        assert!(line.ends_with(b"\r\n"), "a reply has lines: {line:?}");
        let text = String::from_utf8_lossy(&line[1..line.len() - 2]).into_owned();
        let count = || text.parse::<usize>().expect("a length");
        match line[0] {
            b'+' => Self::Status(text),
            b'-' => Self::Error(text),
            b':' => Self::Int(text.parse().expect("an integer")),
            b'$' if text == "-1" => Self::Nil,
            b'*' if text == "-1" => Self::NilArray,
            b'_' => Self::Nil,
            b'$' => {
                let mut bytes = vec![0; count() + 2];
                from.read_exact(&mut bytes).expect("all of a text");
                bytes.truncate(bytes.len() - 2);
                Self::Bulk(bytes)
            }
            b'*' => Self::Array((0..count()).map(|_| Self::read(from)).collect()),
            b'~' => Self::Set((0..count()).map(|_| Self::read(from)).collect()),
            b'%' => Self::Map((0..count()).map(|_| (Self::read(from), Self::read(from))).collect()),
            b',' => Self::Double(text),
            b'#' => Self::Bool(text == "t"),
            mark => Self::Other(mark.into(), text),
        }
    }

    /// With the items of the outermost list sorted, by pairs if it has such.
    pub fn sorted(self, pairs: bool) -> Self {
        match self {
            Self::Array(mut items) if pairs => {
                let mut sorted: Vec<_> = items.chunks_mut(2).map(|pair| pair.to_vec()).collect();
                sorted.sort();
                Self::Array(sorted.concat())
            }
            Self::Array(mut items) => {
                items.sort();
                Self::Array(items)
            }
            Self::Set(mut items) => {
                items.sort();
                Self::Set(items)
            }
            Self::Map(mut items) => {
                items.sort();
                Self::Map(items)
            }
            other => other,
        }
    }

    /// Only how it is made, not what it says.
    pub fn shape(self) -> Self {
        match self {
            Self::Bulk(_) => Self::Bulk(Vec::new()),
            Self::Double(_) => Self::Double(String::new()),
            Self::Array(items) => Self::Array(items.into_iter().map(Self::shape).collect()),
            Self::Set(items) => Self::Set(items.into_iter().map(Self::shape).collect()),
            other => other,
        }
    }
}
