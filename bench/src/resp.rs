//! The RESP door beside redis-server: the same client, the same durability, in one run.
//!
//! Servers have one processor, the client the other. The client is one thread over non-blocking
//! sockets, so that it is not what is measured; its share is shown by the ping-pong rate. What a
//! server costs is its own CPU time by the system's account, which is the steadiest figure.
//!
//! A pair is `SET key value NX PX 10000` and the compare-and-delete script by EVALSHA. A handoff is
//! one of sixteen clients giving a lock to the next: with Redis by a token in a list (BLPOP, as
//! lock libraries do) and by polling; here by a lease that waits in line.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::figures::Figures;
use crate::machine;
use crate::servers::{Server, on_the_first_processor};

const CONNECTIONS: [usize; 3] = [1, 16, 64];
/// Clients that want one lock.
const CROWD: usize = 16;
/// Pairs in one write of a pipelined client.
const PIPELINE: usize = 16;
const ROUNDS: usize = 3;
const UNLOCK: &str = "if redis.call('get',KEYS[1]) == ARGV[1] then \
                      return redis.call('del',KEYS[1]) else return 0 end";
/// The same, told in a way that Leasehold leaves to Lua.
const BY_LUA: &str = "local held = redis.call('get',KEYS[1]) if held == ARGV[1] then \
                      return redis.call('del',KEYS[1]) else return 0 end";

/// A server and where it listens.
struct Peer {
    server: Server,
    address: SocketAddr,
}

/// How safe an answered write is; what each server calls it.
struct Level {
    name: &'static str,
    redis: &'static [&'static str],
    ours: &'static str,
}

const LEVELS: [Level; 3] = [
    Level { name: "none", redis: &["--appendonly", "no"], ours: "none" },
    Level {
        name: "every second",
        redis: &["--appendonly", "yes", "--appendfsync", "everysec"],
        ours: "interval=1s",
    },
    Level {
        name: "always",
        redis: &["--appendonly", "yes", "--appendfsync", "always"],
        ours: "always",
    },
];

/// Measures everything, `time` each.
pub fn run(program: &Path, directory: &Path, figures: &mut Figures, time: Duration) {
    machine::pin(&[1]);
    for level in &LEVELS {
        let redis = redis(&directory.join(format!("redis-{}", level.ours)), level);
        let ours = ours(program, &directory.join(format!("ours-{}", level.ours)), level);
        let both = [(&redis, "Redis"), (&ours, "Leasehold")];
        for connections in CONNECTIONS {
            for pipeline in [1, PIPELINE] {
                let case = Case { connections, pipeline, script: UNLOCK };
                compare(figures, level, both, &case, time);
            }
        }
        let case = Case { connections: 16, pipeline: PIPELINE, script: BY_LUA };
        compare(figures, level, both, &case, time);
        handoffs(figures, level, &redis, &ours, time);
    }
    machine::pin(&[0, 1]);
}

/// How pairs are asked for.
struct Case {
    connections: usize,
    pipeline: usize,
    script: &'static str,
}

fn compare(
    figures: &mut Figures,
    level: &Level,
    both: [(&Peer, &str); 2],
    case: &Case,
    time: Duration,
) {
    let Case { connections, pipeline, script } = *case;
    let how = match (pipeline, script) {
        (1, _) => "",
        (_, BY_LUA) => ", pipelined, by Lua",
        _ => ", pipelined",
    };
    let title = format!("{}: pairs, {connections} connections{how}", level.name);
    if !figures.wants(&title) {
        return;
    }
    let mut rates = [Vec::new(), Vec::new()];
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (place, (peer, _)) in both.iter().enumerate() {
            let before = cpu(peer);
            let mut crowd = Crowd::connect(peer.address, connections);
            let sha = crowd.load(script);
            let began = Instant::now();
            let pairs = crowd.pairs(&sha, pipeline, time);
            rates[place].push(pairs as f64 / began.elapsed().as_secs_f64());
            costs[place].push((cpu(peer) - before).as_secs_f64() * 1e6 / pairs.max(1) as f64);
        }
    }
    for (place, (_, name)) in both.iter().enumerate() {
        figures.plain(format!("{title}, {name}"), "/s", rates[place].clone());
        figures.plain(format!("{title}, {name}: server CPU"), "µs", costs[place].clone());
    }
    let ratio = |of: &[Vec<f64>; 2]| of[1].iter().zip(&of[0]).map(|(a, b)| a / b).collect();
    figures.plain(format!("{title}: rate, Leasehold ÷ Redis"), "×", ratio(&rates));
    figures.plain(format!("{title}: CPU, Leasehold ÷ Redis"), "×", ratio(&costs));
}

fn handoffs(figures: &mut Figures, level: &Level, redis: &Peer, ours: &Peer, time: Duration) {
    let title = format!("{}: handoffs, {CROWD} clients", level.name);
    if !figures.wants(&title) {
        return;
    }
    let mut pings = Vec::new();
    let mut ways = [Vec::new(), Vec::new(), Vec::new()];
    let mut shares = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        pings.push(Crowd::connect(redis.address, 1).ping_pong(time));
        let runs = [(redis, Way::List), (redis, Way::Poll), (ours, Way::Lease)];
        for (place, (peer, way)) in runs.into_iter().enumerate() {
            let counts = Crowd::connect(peer.address, CROWD).handoffs(way, round, time);
            let all: u64 = counts.iter().sum();
            ways[place].push(all as f64 / time.as_secs_f64());
            let (most, least) = (counts.iter().max(), counts.iter().min());
            let share = |n: Option<&u64>| *n.unwrap_or(&0) as f64;
            shares[place].push(share(most) / share(least).max(1.0));
        }
    }
    let names = ["Redis by a list", "Redis by polling", "Leasehold"];
    for (place, name) in names.into_iter().enumerate() {
        figures.plain(format!("{title}, {name}"), "/s", ways[place].clone());
        let spread = format!("{title}, {name}: most ÷ least");
        figures.plain(spread, "×", shares[place].clone());
        let of_pings = ways[place].iter().zip(&pings).map(|(way, ping)| way / ping).collect();
        figures.plain(format!("{title}, {name} ÷ ping-pong"), "×", of_pings);
    }
    figures.plain(format!("{}: ping-pong", level.name), "/s", pings);
}

/// How a lock goes from hand to hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A token in a list.
    List,
    /// Asking again and again.
    Poll,
    /// A line of waiters.
    Lease,
}

/// Clients of one server, on one thread.
struct Crowd {
    poll: Poll,
    clients: Vec<Client>,
}

struct Client {
    socket: TcpStream,
    /// What came and is no whole reply yet.
    input: Vec<u8>,
}

impl Crowd {
    fn connect(address: SocketAddr, count: usize) -> Self {
        let poll = Poll::new().expect("a poll");
        let client = |place| {
            let socket = std::net::TcpStream::connect(address).expect("the server listens");
            socket.set_nodelay(true).expect("an option");
            socket.set_nonblocking(true).expect("an option");
            let mut socket = TcpStream::from_std(socket);
            let interest = Interest::READABLE;
            poll.registry().register(&mut socket, Token(place), interest).expect("it registers");
            Client { socket, input: Vec::new() }
        };
        let clients = (0..count).map(client).collect();
        Self { poll, clients }
    }

    /// Waits for the next replies; gives who got how many, and the last of each.
    fn turn(
        &mut self,
        events: &mut Events,
        mut with: impl FnMut(usize, &mut Client, Vec<Vec<u8>>),
    ) {
        self.poll.poll(events, Some(Duration::from_millis(100))).expect("it waits");
        for event in events.iter() {
            let Token(place) = event.token();
            let client = &mut self.clients[place];
            let replies = client.read();
            if !replies.is_empty() {
                with(place, client, replies);
            }
        }
    }

    /// One question with one answer.
    fn ask(&mut self, place: usize, request: &[u8]) -> Vec<u8> {
        self.clients[place].write(request);
        loop {
            std::thread::sleep(Duration::from_micros(50));
            if let Some(reply) = self.clients[place].read().pop() {
                return reply;
            }
        }
    }

    fn load(&mut self, script: &str) -> Vec<u8> {
        // The last round may have ended between a lock and its release.
        self.ask(0, &request(&[b"FLUSHALL"]));
        let reply = self.ask(0, &request(&[b"SCRIPT", b"LOAD", script.as_bytes()]));
        let sha = reply.get(5..45);
        sha.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&reply))).to_vec()
    }

    /// How many pairs there are within a time.
    fn pairs(&mut self, sha: &[u8], pipeline: usize, time: Duration) -> u64 {
        let waves: Vec<[Vec<u8>; 2]> = (0..self.clients.len())
            .map(|client| {
                let (mut locks, mut unlocks) = (Vec::new(), Vec::new());
                for n in 0..pipeline {
                    let key = format!("bench-{client}-{n}");
                    let (key, value) = (key.as_bytes(), b"0123456789abcdef0123456789abcdef");
                    locks.extend(request(&[b"SET", key, value, b"NX", b"PX", b"10000"]));
                    unlocks.extend(request(&[b"EVALSHA", sha, b"1", key, value]));
                }
                match pipeline {
                    1 => [locks, unlocks],
                    // A pipeline holds whole pairs.
                    _ => [[locks, unlocks].concat(), Vec::new()],
                }
            })
            .collect();
        let (began, mut events) = (Instant::now(), Events::with_capacity(1024));
        let mut seen = vec![0usize; self.clients.len()];
        let mut replies = 0u64;
        for (client, waves) in self.clients.iter_mut().zip(&waves) {
            client.write(&waves[0]);
        }
        while began.elapsed() < time {
            self.turn(&mut events, |place, client, came| {
                for reply in &came {
                    assert!(
                        reply == b"+OK" || reply == b":1",
                        "{}",
                        String::from_utf8_lossy(reply)
                    );
                }
                seen[place] += came.len();
                replies += came.len() as u64;
                if pipeline == 1 {
                    client.write(&waves[place][seen[place] % 2]);
                } else if seen[place] == 2 * pipeline {
                    seen[place] = 0;
                    client.write(&waves[place][0]);
                }
            });
        }
        replies / 2
    }

    /// Round trips a second of one client.
    fn ping_pong(&mut self, time: Duration) -> f64 {
        let ping = request(&[b"PING"]);
        let (began, mut events) = (Instant::now(), Events::with_capacity(16));
        let mut count = 0u64;
        self.clients[0].write(&ping);
        while began.elapsed() < time {
            self.turn(&mut events, |_, client, _| {
                count += 1;
                client.write(&ping);
            });
        }
        count as f64 / began.elapsed().as_secs_f64()
    }

    /// How often each client had the lock.
    fn handoffs(&mut self, way: Way, round: usize, time: Duration) -> Vec<u64> {
        let mut counts = vec![0u64; self.clients.len()];
        let wait = request(&[b"BLPOP", b"bench-token", b"0"]);
        let give = request(&[b"LPUSH", b"bench-token", b"x"]);
        let name = format!("bench-lease-{round}");
        let lease = |client: usize| {
            let holder = format!("holder-{client}");
            request(&[
                b"LEASE.ACQUIRE",
                name.as_bytes(),
                holder.as_bytes(),
                b"PX",
                b"60000",
                b"WAIT",
                b"60000",
            ])
        };
        // What the last round left behind: a token, a key, a lease that nobody gives back.
        self.ask(0, &request(&[b"FLUSHALL"]));
        let take = request(&[b"SET", b"bench-poll", b"x", b"NX", b"PX", b"60000"]);
        let drop = request(&[b"DEL", b"bench-poll"]);
        if way == Way::List {
            self.ask(0, &give);
        }
        for (place, client) in self.clients.iter_mut().enumerate() {
            match way {
                Way::List => client.write(&wait),
                Way::Poll => client.write(&take),
                Way::Lease => client.write(&lease(place)),
            }
        }
        let (began, mut events) = (Instant::now(), Events::with_capacity(64));
        while began.elapsed() < time {
            self.turn(&mut events, |place, client, came| {
                for reply in came {
                    let had = match way {
                        Way::List => reply.starts_with(b"*2"),
                        Way::Poll => reply == b"+OK",
                        Way::Lease => reply.starts_with(b"*2"),
                    };
                    counts[place] += u64::from(had);
                    match way {
                        Way::List if had => client.write(&[&give[..], &wait].concat()),
                        Way::Poll if had => client.write(&[&drop[..], &take].concat()),
                        Way::Poll if reply == b"$-1" => client.write(&take),
                        Way::Lease if had => {
                            let token = token(&reply);
                            let holder = format!("holder-{place}");
                            let release = request(&[
                                b"LEASE.RELEASE",
                                name.as_bytes(),
                                holder.as_bytes(),
                                token,
                            ]);
                            client.write(&[release, lease(place)].concat());
                        }
                        _ => {}
                    }
                }
            });
        }
        counts
    }
}

/// The token in the reply of LEASE.ACQUIRE.
fn token(reply: &[u8]) -> &[u8] {
    let line = reply.split(|byte| *byte == b'\n').nth(1).expect("a second line");
    &line[1..line.len() - 1]
}

impl Client {
    fn write(&mut self, bytes: &[u8]) {
        let mut left = bytes;
        while !left.is_empty() {
            match self.socket.write(left) {
                Ok(n) => left = &left[n..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    std::thread::yield_now();
                }
                Err(error) => panic!("the server hung up: {error}"),
            }
        }
    }

    /// Whole replies that have come, without the last line end.
    fn read(&mut self) -> Vec<Vec<u8>> {
        let mut buffer = [0; 64 << 10];
        match self.socket.read(&mut buffer) {
            Ok(0) => panic!("the server hung up"),
            Ok(n) => self.input.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("the server hung up: {error}"),
        }
        let (mut replies, mut at) = (Vec::new(), 0);
        while let Some(len) = whole(&self.input[at..]) {
            replies.push(self.input[at..at + len - 2].to_vec());
            at += len;
        }
        self.input.drain(..at);
        replies
    }
}

/// How long the first reply is, if it is whole.
fn whole(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let number = || std::str::from_utf8(&bytes[1..line - 2]).ok()?.parse::<i64>().ok();
    match bytes[0] {
        b'$' => match usize::try_from(number()?) {
            Ok(len) => (bytes.len() >= line + len + 2).then_some(line + len + 2),
            Err(_) => Some(line),
        },
        b'*' => {
            let mut at = line;
            for _ in 0..number()?.max(0) {
                at += whole(&bytes[at..])?;
            }
            Some(at)
        }
        _ => Some(line),
    }
}

fn request(args: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// CPU time of a server so far.
fn cpu(peer: &Peer) -> Duration {
    // The process is `taskset`, which became the server.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", peer.server.id()));
    let stat = stat.expect("the server runs");
    let after = stat.rsplit(')').next().expect("the name ends");
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks = |place: usize| fields[place].parse::<u64>().expect("a number");
    // The system counts in hundredths of a second.
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn redis(directory: &Path, level: &Level) -> Peer {
    std::fs::create_dir_all(directory).expect("a directory");
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = port.local_addr().expect("it is bound");
    drop(port);
    let mut call = on_the_first_processor(Path::new("redis-server"));
    call.args(["--bind", "127.0.0.1", "--save", "", "--port"]).arg(address.port().to_string());
    call.arg("--dir").arg(directory).args(level.redis).stdout(Stdio::piped());
    let mut child = call.spawn().expect("taskset and redis-server");
    let stdout = child.stdout.take().expect("it is piped");
    let server = Server::new(child);
    let mut lines = BufReader::new(stdout).lines();
    let ready = lines.any(|line| line.is_ok_and(|line| line.contains("eady to accept")));
    assert!(ready, "redis-server starts");
    // It goes on writing; nobody reads a closed pipe, and it does not mind.
    Peer { server, address }
}

fn ours(program: &Path, directory: &Path, level: &Level) -> Peer {
    let more = ["--resp-listen", "127.0.0.1:0", "--durability", level.ours];
    let (server, ready) = Server::leasehold(program, directory, &more);
    let address = ready["resp"].as_str().expect("it says where").parse().expect("an address");
    Peer { server, address }
}
