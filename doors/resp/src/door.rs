//! The door: sockets, turns, and who waits for what.
//!
//! It lives on the shard's thread (see `leasehold_node::Resident`). A turn reads what has come,
//! carries out whole requests one after the other, each in a decision of its own, and keeps the
//! answers; when the turn has synced what they tell, they leave. So one wait, one write to the
//! journal and at most one sync serve all clients that asked meanwhile, and no answer crosses a
//! thread.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use leasehold_node::{Bell, Floor, MoveIn, Notice, Resident};
use leasehold_users::{User, Users};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use tokio_rustls::rustls::ServerConfig;

use crate::Reply;
use crate::codec::{Arguments, Parsed, Parser, RequestLimits};
use crate::connection::{Connection, READ_BYTES, UNREAD_BYTES};
use crate::converse::is_foreign;
use crate::execute::arguments;
use crate::house::House;
use crate::lasting::Proofs;
use crate::secure::{Gate, Secure};
use crate::session::Session;
use crate::socket::{Entrance, Socket};
use crate::waiting::Blocked;

/// The listener and the bell among the poll's tokens; clients have numbers from 0.
const LISTENER: Token = Token(usize::MAX);
const BELL: Token = Token(usize::MAX - 1);
/// Events taken from the poll at one time.
const EVENTS: usize = 1024;
/// Requests of one client in one turn, so that a long pipeline does not keep others waiting.
const REQUESTS: usize = 256;

/// What the door is made with.
pub struct RespConfig {
    /// Who may come in.
    pub users: Arc<Users>,
    /// Where passwords are checked, which takes too long for the shard's thread.
    pub runtime: tokio::runtime::Handle,
    /// The certificate and its key: clients speak TLS, and nothing else is understood.
    pub tls: Option<Arc<ServerConfig>>,
    /// Bounds.
    pub limits: RespLimits,
}

/// Bounds of the door. `Default` is what the server runs with.
#[derive(Debug, Clone)]
pub struct RespLimits {
    /// Clients at one time.
    pub clients: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// Bounds of a request.
    pub request: RequestLimits,
    /// Answers that a client has not read, bytes; beyond it is cut off. A single answer that is
    /// larger is an error.
    pub output_bytes: usize,
    /// Messages that a listening client has not read, bytes; beyond it is cut off.
    pub listener_bytes: usize,
    /// A transaction that is being put together, bytes.
    pub queue_bytes: usize,
    /// Names that one client may listen to or watch.
    pub names: usize,
    /// Bounds of scripts.
    pub scripts: crate::script::Limits,
}

impl Default for RespLimits {
    fn default() -> Self {
        Self {
            clients: 10_000,
            handshake: Duration::from_secs(10),
            request: RequestLimits::default(),
            output_bytes: 256 << 20,
            listener_bytes: 32 << 20,
            queue_bytes: 64 << 20,
            names: 100_000,
            scripts: crate::script::Limits::default(),
        }
    }
}

/// The result of a password check: which client, and who it is.
pub(crate) type Verdict = (u64, Result<Arc<User>, String>);

/// The door, on the shard's thread.
pub(crate) struct RespDoor {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    entrance: Entrance,
    /// All clients by their place.
    clients: Vec<Option<Box<Connection>>>,
    vacant: Vec<usize>,
    places: HashMap<u64, usize>,
    /// Places of clients that have something to be read or carried out.
    ready: Vec<usize>,
    /// Places of clients that have something to be told.
    dirty: Vec<usize>,
    /// Places that this turn has still to serve.
    serving: BTreeSet<usize>,
    /// Places whose clients were being served when the poll told of them.
    missed: BTreeSet<usize>,
    scratch: Box<[u8]>,
    pub(crate) house: House,
    pub(crate) blocked: Blocked,
    verdicts: Arc<Mutex<Vec<Verdict>>>,
    next_id: u64,
    /// Accepting failed, as the system has no more sockets: it is tried again then.
    accept_at: Option<Instant>,
}

/// A port that was taken for a door.
pub struct Listening {
    poll: Poll,
    waker: Arc<Waker>,
    entrance: Entrance,
    config: RespConfig,
    address: SocketAddr,
}

impl Listening {
    /// Takes a port.
    ///
    /// # Errors
    /// What the system says: the port is taken, or may not be taken by this user.
    pub fn on(address: SocketAddr, config: RespConfig) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), BELL)?);
        let (entrance, address) = match &config.tls {
            Some(tls) => {
                let secure = Secure { tls: tls.clone(), patience: config.limits.handshake };
                let gate = Gate::open(address, secure, &config.runtime, waker.clone())?;
                let address = gate.address;
                (Entrance::Secure(gate), address)
            }
            None => {
                let mut listener = TcpListener::bind(address)?;
                poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
                let address = listener.local_addr()?;
                (Entrance::Plain(listener), address)
            }
        };
        Ok(Self { poll, waker, entrance, config, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `Node::lodge` takes: the door opens on the shard's thread.
    ///
    /// The secret proves whose a session is; it has to stay the same over restarts.
    pub fn door(self, secret: &[u8; 32]) -> MoveIn {
        let proofs = Proofs::new(secret);
        Box::new(move || Box::new(RespDoor::new(self, proofs)))
    }
}

impl RespDoor {
    fn new(listening: Listening, proofs: Proofs) -> Self {
        let Listening { poll, waker, entrance, config, address } = listening;
        Self {
            poll,
            events: Events::with_capacity(EVENTS),
            waker,
            entrance,
            clients: Vec::new(),
            vacant: Vec::new(),
            places: HashMap::new(),
            ready: Vec::new(),
            dirty: Vec::new(),
            serving: BTreeSet::new(),
            missed: BTreeSet::new(),
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
            house: House::new(config, address.port(), proofs),
            blocked: Blocked::default(),
            verdicts: Arc::default(),
            next_id: 1,
            accept_at: None,
        }
    }

    fn accept(&mut self) {
        self.accept_at = None;
        loop {
            match self.entrance.accept() {
                Ok(socket) => {
                    // A refusal below means that the client is gone already.
                    self.welcome(socket).ok();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "no RESP client can be accepted");
                    self.accept_at = Some(Instant::now() + Duration::from_millis(100));
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, mut socket: Socket) -> io::Result<()> {
        socket.set_nodelay()?;
        if self.places.len() >= self.house.limits.clients {
            self.house.figures.refused_clients += 1;
            let text = b"-ERR max number of clients reached\r\n";
            return io::Write::write_all(&mut socket, text);
        }
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.clients.push(None);
            self.clients.len() - 1
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut socket, Token(place), interest) {
            self.vacant.push(place);
            return Err(error);
        }
        let id = self.next_id;
        self.next_id += 1;
        let session = Session { open: self.house.users.is_open(), ..Session::default() };
        let mut connection = Connection::new(id, socket, session, self.house.limits.request);
        connection.answer_bytes = self.house.limits.output_bytes;
        self.clients[place] = Some(Box::new(connection));
        self.places.insert(id, place);
        self.house.figures.clients += 1;
        self.house.figures.accepted += 1;
        Ok(())
    }

    /// Reads from a client and carries out what it asks for.
    fn serve(&mut self, place: usize, floor: &mut dyn Floor) {
        let Some(mut client) = self.clients.get_mut(place).and_then(Option::take) else { return };
        if self.house.doomed.contains(&client.id) {
            return self.put_back(place, client);
        }
        if client.readable && client.unread() < UNREAD_BYTES {
            client.take_in(&mut self.scratch);
        }
        let more = self.carry_out(&mut client, floor);
        if self.missed.remove(&place) {
            client.readable = true;
            client.stuffed = false;
        }
        // Who waits and is gone waits for nothing; what else was asked is answered.
        let nothing_more = client.closing || client.over && !more;
        if client.over && client.session.waits.is_some() || nothing_more && client.unread() == 0 {
            return self.part(place, client, floor);
        }
        let reads = client.session.waits.is_none() || client.ending;
        if more || client.readable && client.unread() < UNREAD_BYTES && reads {
            self.ready.push(place);
        }
        self.put_back(place, client);
    }

    fn put_back(&mut self, place: usize, mut client: Box<Connection>) {
        if client.unread() > 0 {
            client.list(place, &mut self.dirty);
        }
        self.clients[place] = Some(client);
    }

    /// Carries out whole requests of a client; true when more may be there.
    fn carry_out(&mut self, client: &mut Connection, floor: &mut dyn Floor) -> bool {
        if let Some(again) = client.session.again.take() {
            self.request(client, &arguments(&again), floor);
        }
        if client.start == client.input.len() {
            return false;
        }
        let input = std::mem::take(&mut client.input);
        let none = Parser::new(RequestLimits::default(), false);
        let mut parser = std::mem::replace(&mut client.parser, none);
        parser.set_stranger(client.session.is_stranger());
        let mut at = client.start;
        let mut more = false;
        for turn in 0..=REQUESTS {
            let halted = client.closing || client.session.waits.is_some();
            if halted || client.unread() >= UNREAD_BYTES {
                break;
            }
            if turn == REQUESTS {
                more = true;
                break;
            }
            match parser.next(&input[at..]) {
                Ok(Parsed::Request(request)) => {
                    at += request.used();
                    self.house.figures.commands += 1;
                    request.with_all(|args| self.request(client, args, floor));
                }
                Ok(Parsed::More { used, .. }) => {
                    at += used;
                    break;
                }
                Err(error) => {
                    client.say(&Reply::error(error.text()), 0);
                    client.closing = true;
                    break;
                }
            }
        }
        client.parser = parser;
        client.input = input;
        let used = at - client.start;
        client.consumed(used);
        more
    }

    /// Goes on with a client that does not wait any more.
    pub(crate) fn resume(&mut self, client: &mut Connection) {
        client.session.waits = None;
        if let Some(place) = self.places.get(&client.id) {
            self.ready.push(*place);
        }
    }

    /// Does something with another client.
    pub(crate) fn with_client<R>(
        &mut self,
        id: u64,
        with: impl FnOnce(&mut Self, &mut Connection) -> R,
    ) -> Option<R> {
        let place = *self.places.get(&id)?;
        let mut client = self.clients[place].take()?;
        let result = with(self, &mut client);
        self.put_back(place, client);
        Some(result)
    }

    /// All other clients.
    pub(crate) fn others(&self) -> impl Iterator<Item = &Connection> {
        self.clients.iter().flatten().map(|client| &**client)
    }

    /// Tells a client something it did not ask for, or cuts it off when it does not read.
    pub(crate) fn tell(&mut self, id: u64, told: &Reply, after: u64) {
        let most = self.house.limits.listener_bytes;
        let slow = self.with_client(id, |_, client| {
            client.push(told, after);
            client.unread() > most
        });
        if slow == Some(true) {
            tracing::warn!(client = id, "cut off: it listens and does not read");
            self.cut_off(id);
        }
    }

    /// Ends a client at the next turn, whatever it has not read.
    pub(crate) fn cut_off(&mut self, id: u64) {
        self.house.figures.cut_off += 1;
        self.house.doomed.insert(id);
        self.waker.wake().ok();
    }

    /// A client is gone: everything of it ends.
    fn part(&mut self, place: usize, mut client: Box<Connection>, floor: &mut dyn Floor) {
        // It is closed with its socket in any case.
        self.poll.registry().deregister(client.socket()).ok();
        self.stop_listening(&mut client);
        self.blocked.forget(client.id, client.session.waits.as_ref());
        self.leave_shard(&mut client, floor);
        self.places.remove(&client.id);
        self.vacant.push(place);
        self.house.figures.clients -= 1;
    }

    /// Takes in passwords that were checked.
    fn take_verdicts(&mut self) {
        let all =
            std::mem::take(&mut *self.verdicts.lock().unwrap_or_else(PoisonError::into_inner));
        for (id, verdict) in all {
            self.with_client(id, |door, client| door.verdict(client, verdict));
        }
    }

    /// Ends clients of users who are no more, or who came in while everybody might.
    fn look_at_users(&mut self) {
        let edition = self.house.users.edition();
        if std::mem::replace(&mut self.house.edition, edition) == edition {
            return;
        }
        let users = &self.house.users;
        let stays = |client: &&Connection| match &client.session.user {
            Some(user) => users.knows(user),
            None => !client.session.open || users.is_open(),
        };
        let gone = self.others().filter(|client| !stays(client)).map(|client| client.id);
        let gone: Vec<u64> = gone.collect();
        gone.into_iter().for_each(|id| self.cut_off(id));
    }

    /// Lets a password be checked elsewhere.
    pub(crate) fn check_password(&self, client: u64, name: String, password: String) {
        let (users, verdicts) = (self.house.users.clone(), self.verdicts.clone());
        let bell = self.waker.clone();
        self.house.runtime.spawn(async move {
            let verdict = match users.token(&password) {
                Ok(user) if name == "default" || name == user.name => Ok(user),
                _ => users.password(&name, &password).await.map_err(|error| error.to_string()),
            };
            verdicts.lock().unwrap_or_else(PoisonError::into_inner).push((client, verdict));
            bell.wake().ok();
        });
    }

    /// Looks up from a script that runs for long: answers everybody that it is busy, except who
    /// wants the script stopped; true when somebody does.
    pub(crate) fn look_up(&mut self) -> bool {
        let mut events = Events::with_capacity(EVENTS);
        if self.poll.poll(&mut events, Some(Duration::ZERO)).is_err() {
            return false;
        }
        let mut kill = false;
        // The poll told of these before the script began.
        for place in std::mem::take(&mut self.serving) {
            self.ready.push(place);
            kill |= self.put_off(place);
        }
        for event in &events {
            let Token(place) = event.token();
            // The poll tells of everything once: it is noted for the next turn.
            let client = match self.clients.get_mut(place) {
                Some(Some(client)) => client,
                Some(None) => {
                    self.missed.insert(place);
                    continue;
                }
                // Who comes now may come to stop the script.
                None if event.token() == LISTENER || self.entrance.rings() => {
                    self.accept();
                    self.accept_at = self.accept_at.or(Some(self.house.now));
                    continue;
                }
                None => {
                    self.accept_at = self.accept_at.or(Some(self.house.now));
                    continue;
                }
            };
            self.ready.push(place);
            if client.noticed(event) {
                client.list(place, &mut self.dirty);
            }
            kill |= self.put_off(place);
        }
        self.let_go();
        kill
    }

    /// Lets go, within the turn, what tells nothing of the state; the turn may be far from its end.
    fn let_go(&mut self) {
        for place in &self.dirty {
            if let Some(Some(client)) = self.clients.get_mut(*place)
                && client.leave(0).is_err()
            {
                client.closing = true;
            }
        }
    }

    /// Tells a client that a script runs; true when it wants that stopped.
    fn put_off(&mut self, place: usize) -> bool {
        let Some(Some(client)) = self.clients.get_mut(place) else { return false };
        if client.session.waits.is_some() {
            return false;
        }
        if client.readable {
            client.take_in(&mut self.scratch);
        }
        client.list(place, &mut self.dirty);
        busy(client)
    }

    fn end_doomed(&mut self, floor: &mut dyn Floor) {
        for id in std::mem::take(&mut self.house.doomed) {
            if let Some(place) = self.places.get(&id).copied()
                && let Some(client) = self.clients[place].take()
            {
                self.part(place, client, floor);
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        [self.blocked.next_due(), self.accept_at].into_iter().flatten().min()
    }
}

impl Resident for RespDoor {
    fn bell(&self) -> Bell {
        let waker = self.waker.clone();
        Arc::new(move || drop(waker.wake()))
    }

    fn wait(&mut self, at_most: Option<Duration>) {
        let own = self.next_due().map(|due| due.saturating_duration_since(Instant::now()));
        let mut time = [at_most, own].into_iter().flatten().min();
        let unclaimed = !self.house.unclaimed.is_empty();
        if unclaimed || !self.ready.is_empty() || !self.house.doomed.is_empty() {
            time = Some(Duration::ZERO);
        }
        if let Err(error) = self.poll.poll(&mut self.events, time)
            && error.kind() != io::ErrorKind::Interrupted
        {
            tracing::error!(%error, "the RESP door cannot wait for its clients");
        }
    }

    fn turn(&mut self, floor: &mut dyn Floor) {
        self.house.now = Instant::now();
        self.serving.extend(self.ready.drain(..));
        let mut accept = self.accept_at.is_some_and(|at| at <= self.house.now);
        for event in &self.events {
            match event.token() {
                LISTENER => accept = true,
                BELL => accept |= self.entrance.rings(),
                Token(place) => {
                    let Some(Some(client)) = self.clients.get_mut(place) else { continue };
                    if client.noticed(event) {
                        client.list(place, &mut self.dirty);
                    }
                    self.serving.insert(place);
                }
            }
        }
        self.events.clear();
        if accept {
            self.accept();
        }
        self.take_verdicts();
        self.close_unclaimed(floor);
        self.look_at_users();
        while let Some(place) = self.serving.pop_first() {
            self.serve(place, floor);
        }
        self.blocked_due();
        self.end_doomed(floor);
    }

    fn notice(&mut self, ticket: u32, notice: Notice) {
        self.heard(ticket, notice);
    }

    fn leave(&mut self, upto: u64) {
        let mut kept = Vec::new();
        for place in std::mem::take(&mut self.dirty) {
            let Some(Some(client)) = self.clients.get_mut(place) else { continue };
            let gone = client.leave(upto).is_err();
            if gone || client.unread() > self.house.limits.output_bytes {
                self.house.doomed.insert(client.id);
            }
            if client.unread() == 0 {
                client.listed = false;
                if client.closing {
                    self.house.doomed.insert(client.id);
                } else if client.start < client.input.len() || client.readable || client.over {
                    self.ready.push(place);
                }
            } else if client.stuffed {
                client.listed = false;
            } else {
                kept.push(place);
            }
        }
        self.dirty = kept;
    }

    fn end(&mut self, why: Option<&str>) {
        if let Some(why) = why {
            tracing::error!(why, "the RESP door closes: the shard has stopped");
        }
        self.clients.clear();
        self.places.clear();
    }
}

/// Answers a client's requests while a script runs; true when one is to stop it. What it may ask
/// stays for later.
fn busy(client: &mut Connection) -> bool {
    client.parser.set_stranger(client.session.is_stranger());
    let input = std::mem::take(&mut client.input);
    let mut at = client.start;
    let mut kill = false;
    while let Ok(Parsed::Request(request)) = client.parser.next(&input[at..]) {
        let stops = request.argument(0).eq_ignore_ascii_case(b"script")
            && request.argument(1).eq_ignore_ascii_case(b"kill");
        at += request.used();
        if is_foreign(request.argument(0)) {
            client.closing = true;
            break;
        }
        if client.session.is_stranger() {
            client.say(&Reply::error("NOAUTH Authentication required."), 0);
        } else if stops && !client.session.rules() {
            client.say(&Reply::error("NOPERM this user may not stop scripts"), 0);
        } else if stops {
            kill = true;
            client.say(&Reply::OK, 0);
        } else {
            let text = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or \
                        SHUTDOWN NOSAVE.";
            client.say(&Reply::error(text), 0);
        }
    }
    client.input = input;
    client.consumed(at - client.start);
    kill
}
