//! Commands about the connection and the server: they touch no key.

use std::sync::Arc;
use std::time::Duration;

use leasehold_core::Limits;
use leasehold_node::Floor;
use leasehold_users::User;

use crate::Reply;
use crate::commands::numbers::integer;
use crate::connection::Connection;
use crate::door::RespDoor;
use crate::glob;
use crate::pubsub::Way;
use crate::scene::DATABASES;
use crate::session::{Session, Waits};
use crate::table::{self, Command, Entry};

/// The Redis that clients are told they speak with; what is offered is what that one has.
const REDIS_VERSION: &str = "7.0.15";

/// For so long after a warning of foreign clients there is no other.
const WARNED: Duration = Duration::from_secs(60);

/// Whether CLIENT KILL means a client.
type Test = Box<dyn Fn(&Connection) -> bool>;

/// A client's side of a conversation: what commands may read and change of it.
pub(crate) struct Talk {
    pub id: u64,
    pub db: u8,
    pub name: Vec<u8>,
    pub library: (Vec<u8>, Vec<u8>),
    user: Option<Arc<User>>,
    line: String,
}

impl Talk {
    /// The line about it costs more than most commands, so it is written on demand.
    pub fn of(client: &Connection, with_line: bool) -> Self {
        Self {
            id: client.id,
            db: client.session.db,
            name: client.session.name.clone(),
            library: client.session.library.clone(),
            user: client.session.user.clone(),
            line: if with_line { line(client) } else { String::new() },
        }
    }

    /// Writes back what was changed.
    pub fn settle(self, client: &mut Connection) {
        client.session.db = self.db;
        client.session.name = self.name;
        client.session.library = self.library;
    }
}

impl RespDoor {
    /// Answers a command about the connection or the server.
    pub(crate) fn converse(
        &mut self,
        client: &mut Connection,
        entry: &'static Entry,
        args: &[&[u8]],
        floor: &mut dyn Floor,
    ) {
        let reply = match entry.id {
            Command::Hello => return self.hello(client, args),
            Command::Auth => return self.auth(client, args),
            Command::Ping if !client.session.resp3 && client.session.listening() > 0 => {
                let body = args.get(1).copied().unwrap_or_default();
                Reply::Array(vec![Reply::bulk("pong"), Reply::bulk(body)])
            }
            Command::Quit => {
                client.say(&Reply::OK, 0);
                client.closing = true;
                return;
            }
            Command::Reset => {
                // Whoever uses the connection next begins anew.
                self.stop_listening(client);
                self.leave_shard(client, floor);
                let open = self.house.users.is_open();
                client.session = Session { open, ..Session::default() };
                Reply::Status("RESET".into())
            }
            Command::ClientReply => return client_reply(client, args[2]),
            Command::ClientKill => {
                let (reply, own) = self.kill(client, args);
                client.say(&reply, 0);
                client.closing |= own;
                return;
            }
            Command::Info => self.info(args, floor),
            _ => {
                let lines = matches!(entry.id, Command::ClientInfo | Command::ClientList);
                let mut talk = Talk::of(client, lines);
                let reply = self.talk(&mut talk, entry, args);
                talk.settle(client);
                reply
            }
        };
        client.say(&reply, 0);
    }

    /// Answers those that also stand in transactions.
    // long: one arm per command, a table in the shape of a match.
    pub(crate) fn talk(&mut self, talk: &mut Talk, entry: &Entry, args: &[&[u8]]) -> Reply {
        match entry.id {
            Command::Ping | Command::Echo | Command::Time => Self::small_talk(entry.id, args),
            Command::Select => select(args[1], &mut talk.db),
            Command::ClientId => Reply::Int(talk.id as i64),
            Command::ClientGetname if talk.name.is_empty() => Reply::Nil,
            Command::ClientGetname => Reply::bulk(&talk.name),
            Command::ClientSetname => match good_name(args[2]) {
                true => {
                    talk.name = args[2].to_vec();
                    Reply::OK
                }
                false => bad_name("Client names"),
            },
            Command::ClientSetinfo => set_info(talk, args),
            Command::ClientInfo => Reply::bulk(format!("{}\n", talk.line)),
            Command::ClientList => {
                let mut all: Vec<(u64, String)> =
                    self.others().map(|other| (other.id, line(other))).collect();
                if !all.iter().any(|(id, _)| *id == talk.id) {
                    all.push((talk.id, talk.line.clone()));
                }
                all.sort();
                Reply::bulk(all.into_iter().map(|(_, line)| line + "\n").collect::<String>())
            }
            Command::ClientUnblock => self.unblock(args),
            Command::ClientNoEvict | Command::ClientNoTouch => match args[2] {
                on if on.eq_ignore_ascii_case(b"on") || on.eq_ignore_ascii_case(b"off") => {
                    Reply::OK
                }
                _ => Reply::error("ERR syntax error"),
            },
            Command::Command => table::all(),
            Command::CommandCount => table::count(),
            Command::CommandInfo => table::info(args),
            Command::CommandDocs => table::docs(args),
            Command::CommandList => table::list(args, glob::matches),
            Command::CommandGetkeys => table::get_keys(args),
            Command::ConfigGet => self.config_get(&args[2..]),
            Command::ConfigResetstat => Reply::OK,
            Command::Wait => Reply::Int(0),
            Command::Waitaof => Reply::Array(vec![Reply::Int(1), Reply::Int(0)]),
            Command::AclWhoami => {
                let name = talk.user.as_ref().map_or("default", |user| user.name.as_str());
                Reply::bulk(name)
            }
            Command::ScriptLoad => self.script_load(args[2]),
            Command::ScriptExists => {
                let scripts = self.house.scripts.as_ref();
                let known = |sha: &&[u8]| scripts.is_some_and(|scripts| scripts.exists(sha));
                let one = |sha: &&[u8]| Reply::Int(i64::from(known(sha)));
                Reply::Array(args[2..].iter().map(one).collect())
            }
            Command::ScriptFlush => {
                let how = args.get(2).copied().unwrap_or(b"sync");
                let known = how.eq_ignore_ascii_case(b"sync") || how.eq_ignore_ascii_case(b"async");
                if !known || args.len() > 3 {
                    return Reply::error("ERR SCRIPT FLUSH only support SYNC|ASYNC option");
                }
                if let Some(scripts) = &mut self.house.scripts {
                    scripts.flush();
                }
                Reply::OK
            }
            Command::ScriptKill => Reply::error("NOTBUSY No scripts in execution right now."),
            _ => table::help(entry),
        }
    }

    fn script_load(&mut self, source: &[u8]) -> Reply {
        match self.house.scripts.as_mut().map(|scripts| scripts.load(source)) {
            Some(Ok(sha)) => Reply::bulk(sha),
            Some(Err(reply)) => reply,
            None => Reply::error("ERR a script cannot load another one"),
        }
    }

    /// What a script may ask too.
    pub(crate) fn small_talk(command: Command, args: &[&[u8]]) -> Reply {
        match command {
            Command::Echo => Reply::bulk(args[1]),
            Command::Time => {
                let now = std::time::SystemTime::now();
                let now = now.duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
                let seconds = now.as_secs().to_string();
                Reply::Array(vec![
                    Reply::bulk(seconds),
                    Reply::bulk(now.subsec_micros().to_string()),
                ])
            }
            _ => match args {
                [_] => Reply::Status("PONG".into()),
                [_, text] => Reply::bulk(text),
                _ => Reply::error("ERR wrong number of arguments for 'ping' command"),
            },
        }
    }

    fn hello(&mut self, client: &mut Connection, args: &[&[u8]]) {
        let mut rest = args[1..].iter();
        let mut resp3 = client.session.resp3;
        if let Some(version) = rest.next() {
            resp3 = match integer(version) {
                Some(2) => false,
                Some(3) => true,
                Some(_) => {
                    let text = "NOPROTO unsupported protocol version";
                    return client.say(&Reply::error(text), 0);
                }
                None => {
                    let text = "ERR Protocol version is not an integer or out of range";
                    return client.say(&Reply::error(text), 0);
                }
            };
        }
        if !resp3 && !client.session.consumes.is_empty() {
            let text = "ERR messages are pushed to this connection, which needs RESP3; send \
                        QUEUE.STOP first";
            return client.say(&Reply::error(text), 0);
        }
        let (mut login, mut name) = (None, None);
        while let Some(option) = rest.next() {
            let (one, two) = (rest.clone().next(), rest.clone().nth(1));
            if option.eq_ignore_ascii_case(b"auth") && one.is_some() && two.is_some() {
                login = one.zip(two);
                rest.next();
                rest.next();
            } else if option.eq_ignore_ascii_case(b"setname") && one.is_some() {
                name = one;
                rest.next();
            } else {
                let option = String::from_utf8_lossy(option);
                let text = format!("ERR Syntax error in HELLO option '{option}'");
                return client.say(&Reply::error(text), 0);
            }
        }
        if name.is_some_and(|name| !good_name(name)) {
            return client.say(&bad_name("Client names"), 0);
        }
        if let Some((user, password)) = login
            && !client.session.open
        {
            let name = name.map(|name| name.to_vec());
            client.session.waits = Some(Waits::Password { hello: Some((resp3, name)) });
            return self.log_in(client, user, password);
        }
        if client.session.is_stranger() {
            let text = "NOAUTH HELLO must be called with the client already authenticated, \
                        otherwise the HELLO <proto> AUTH <user> <pass> option can be used to \
                        authenticate the client and select the RESP protocol version at the same \
                        time";
            return client.say(&Reply::error(text), 0);
        }
        greet(client, resp3, name.map(|name| name.to_vec()));
    }

    fn auth(&mut self, client: &mut Connection, args: &[&[u8]]) {
        if args.len() > 3 {
            return client.say(&Reply::error("ERR syntax error"), 0);
        }
        if client.session.open {
            let text = match args.len() {
                2 => {
                    "ERR AUTH <password> called without any password configured for the default \
                     user. Are you sure your configuration is correct?"
                }
                _ => "WRONGPASS invalid username-password pair or user is disabled.",
            };
            let default = args.len() == 3 && args[1] == b"default";
            let reply = if default { Reply::OK } else { Reply::error(text) };
            return client.say(&reply, 0);
        }
        let (user, password) = match args.len() {
            2 => (&b"default"[..], args[1]),
            _ => (args[1], args[2]),
        };
        client.session.waits = Some(Waits::Password { hello: None });
        self.log_in(client, user, password);
    }

    fn log_in(&mut self, client: &Connection, user: &[u8], password: &[u8]) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.check_password(client.id, text(user), text(password));
    }

    /// A password was checked.
    pub(crate) fn verdict(&mut self, client: &mut Connection, verdict: Result<Arc<User>, String>) {
        let Some(Waits::Password { hello }) = client.session.waits.take() else { return };
        match verdict {
            Ok(user) => {
                client.session.user = Some(user);
                match hello {
                    Some((resp3, name)) => greet(client, resp3, name),
                    None => client.say(&Reply::OK, 0),
                }
            }
            Err(why) => {
                tracing::info!(peer = client.peer, why, "a RESP client was not let in");
                let text = "WRONGPASS invalid username-password pair or user is disabled.";
                client.say(&Reply::error(text), 0);
            }
        }
        self.resume(client);
    }

    /// Ends a client that speaks HTTP, without an answer.
    pub(crate) fn end_foreign(&mut self, client: &mut Connection) {
        client.closing = true;
        let now = self.house.now;
        if self.house.warned.is_some_and(|at| now < at + WARNED) {
            return;
        }
        self.house.warned = Some(now);
        tracing::warn!(
            peer = client.peer,
            "closed: it sends POST or Host:, so somebody may be trying to reach this door through \
             a web browser"
        );
    }

    fn unblock(&mut self, args: &[&[u8]]) -> Reply {
        let Some(id) = integer(args[2]) else {
            return Reply::error("ERR value is not an integer or out of range");
        };
        let other = match args.get(3) {
            None => None,
            Some(how) if how.eq_ignore_ascii_case(b"timeout") => None,
            Some(how) if how.eq_ignore_ascii_case(b"error") => {
                Some(Reply::error("UNBLOCKED client unblocked via CLIENT UNBLOCK"))
            }
            Some(_) => {
                return Reply::error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
            }
        };
        let id = u64::try_from(id).unwrap_or(0);
        let done = self.with_client(id, |door, client| door.give_up(client, other));
        Reply::Int(i64::from(done == Some(true)))
    }

    /// CLIENT KILL; true when the client killed itself.
    fn kill(&mut self, client: &Connection, args: &[&[u8]]) -> (Reply, bool) {
        let everyone = || self.others().chain([client]);
        if let [_, _, address] = args {
            let found = everyone().find(|one| one.peer.as_bytes() == *address).map(|one| one.id);
            return match found {
                None => (Reply::error("ERR No such client"), false),
                Some(id) if id == client.id => (Reply::OK, true),
                Some(id) => {
                    self.cut_off(id);
                    (Reply::OK, false)
                }
            };
        }
        let mut skip_me = true;
        let mut tests: Vec<Test> = Vec::new();
        for pair in args[2..].chunks(2) {
            let [what, value] = pair else {
                return (Reply::error("ERR syntax error"), false);
            };
            let value = value.to_vec();
            match what.to_ascii_lowercase().as_slice() {
                b"id" => match integer(&value) {
                    Some(id) if id > 0 => tests.push(Box::new(move |one| one.id == id as u64)),
                    _ => {
                        let text = "ERR client-id should be greater than 0";
                        return (Reply::error(text), false);
                    }
                },
                b"addr" => tests.push(Box::new(move |one| one.peer.as_bytes() == value)),
                b"laddr" => tests.push(Box::new(move |one| one.local.as_bytes() == value)),
                b"user" => tests.push(Box::new(move |one| {
                    let name = one.session.user.as_ref().map_or("default", |user| &user.name);
                    name.as_bytes() == value
                })),
                b"type" => {
                    let listeners = value.eq_ignore_ascii_case(b"pubsub");
                    tests.push(Box::new(move |one| (one.session.listening() > 0) == listeners));
                }
                b"skipme" => skip_me = !value.eq_ignore_ascii_case(b"no"),
                _ => return (Reply::error("ERR syntax error"), false),
            }
        }
        let fits = |one: &&Connection| {
            !(skip_me && one.id == client.id) && tests.iter().all(|test| test(one))
        };
        let found: Vec<u64> = everyone().filter(fits).map(|one| one.id).collect();
        let own = found.contains(&client.id);
        found.iter().filter(|id| **id != client.id).for_each(|id| self.cut_off(*id));
        (Reply::Int(found.len() as i64), own)
    }

    fn config_get(&self, patterns: &[&[u8]]) -> Reply {
        let limits = &self.house.limits;
        let known = [
            ("appendonly", "yes".to_owned()),
            ("databases", DATABASES.to_string()),
            ("maxclients", limits.clients.to_string()),
            ("maxmemory", "0".to_owned()),
            ("maxmemory-policy", "noeviction".to_owned()),
            ("notify-keyspace-events", String::new()),
            ("port", self.house.port.to_string()),
            // What a value may be. An argument may be longer, as bodies of messages are.
            ("proto-max-bulk-len", Limits::default().value_bytes.to_string()),
            ("save", String::new()),
            ("timeout", "0".to_owned()),
        ];
        let asked = |name: &str| {
            let lower = |pattern: &&[u8]| pattern.to_ascii_lowercase();
            patterns.iter().any(|pattern| glob::matches(&lower(pattern), name.as_bytes()))
        };
        let found = known.into_iter().filter(|(name, _)| asked(name));
        Reply::Map(found.map(|(name, value)| (Reply::bulk(name), Reply::bulk(value))).collect())
    }

    fn info(&self, args: &[&[u8]], floor: &dyn Floor) -> Reply {
        let figures = &self.house.figures;
        let (keys, locks) = floor.counts();
        let sections = [
            (
                "server",
                format!(
                    "redis_version:{REDIS_VERSION}\r\nleasehold_version:{}\r\nredis_mode:standalone\
                     \r\nos:{}\r\narch_bits:64\r\nprocess_id:{}\r\ntcp_port:{}\r\
                     \nuptime_in_seconds:{}\r\n",
                    env!("CARGO_PKG_VERSION"),
                    std::env::consts::OS,
                    std::process::id(),
                    self.house.port,
                    self.house.began.elapsed().as_secs(),
                ),
            ),
            (
                "clients",
                format!(
                    "connected_clients:{}\r\nmaxclients:{}\r\nblocked_clients:{}\r\n",
                    figures.clients,
                    self.house.limits.clients,
                    self.others().filter(|other| other.session.waits.is_some()).count(),
                ),
            ),
            ("memory", "maxmemory:0\r\nmaxmemory_policy:noeviction\r\n".to_owned()),
            ("persistence", "loading:0\r\naof_enabled:1\r\n".to_owned()),
            (
                "stats",
                format!(
                    "total_connections_received:{}\r\ntotal_commands_processed:{}\r\
                     \nrejected_connections:{}\r\npubsub_channels:{}\r\npubsub_patterns:{}\r\
                     \npublished_messages:{}\r\nclients_cut_off:{}\r\nscripts_stopped:{}\r\n",
                    figures.accepted,
                    figures.commands,
                    figures.refused_clients,
                    self.house.pubsub.of(Way::Channel).count(),
                    self.house.pubsub.of(Way::Pattern).count(),
                    figures.published,
                    figures.cut_off,
                    figures.scripts_stopped,
                ),
            ),
            ("replication", "role:master\r\nconnected_slaves:0\r\n".to_owned()),
            ("leasehold", format!("leases:{locks}\r\nkeys:{keys}\r\n")),
            ("cluster", "cluster_enabled:0\r\n".to_owned()),
            ("keyspace", format!("db0:keys={keys},expires=0,avg_ttl=0\r\n")),
        ];
        let asked: Vec<Vec<u8>> = args[1..].iter().map(|arg| arg.to_ascii_lowercase()).collect();
        let all = |one: &Vec<u8>| matches!(one.as_slice(), b"all" | b"default" | b"everything");
        let wanted = |name: &str| {
            asked.is_empty() || asked.iter().any(|one| one == name.as_bytes() || all(one))
        };
        let found = sections.iter().filter(|(name, _)| wanted(name));
        let text = found.map(|(name, text)| {
            let (first, rest) = name.split_at(1);
            format!("# {}{rest}\r\n{text}", first.to_ascii_uppercase())
        });
        Reply::Verbatim(*b"txt", text.collect::<Vec<_>>().join("\r\n").into_bytes().into())
    }
}

fn greet(client: &mut Connection, resp3: bool, name: Option<Vec<u8>>) {
    client.session.resp3 = resp3;
    if let Some(name) = name {
        client.session.name = name;
    }
    let pair = |name: &str, value: Reply| (Reply::bulk(name), value);
    let reply = Reply::Map(vec![
        pair("server", Reply::bulk("redis")),
        pair("version", Reply::bulk(REDIS_VERSION)),
        pair("proto", Reply::Int(if resp3 { 3 } else { 2 })),
        pair("id", Reply::Int(client.id as i64)),
        pair("mode", Reply::bulk("standalone")),
        pair("role", Reply::bulk("master")),
        pair("modules", Reply::Array(Vec::new())),
    ]);
    client.say(&reply, 0);
}

/// Whether a request is a line of HTTP. A web page can make its visitor's browser send such lines
/// to any port, with commands of the page's choice below them; so, as in Redis, nothing below them
/// is read.
pub(crate) fn is_foreign(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

fn client_reply(client: &mut Connection, how: &[u8]) {
    match how.to_ascii_lowercase().as_slice() {
        b"on" => {
            client.session.silent = false;
            client.say(&Reply::OK, 0);
        }
        b"off" => client.session.silent = true,
        b"skip" => client.skip = 1,
        _ => client.say(&Reply::error("ERR syntax error"), 0),
    }
}

/// SELECT.
pub(crate) fn select(number: &[u8], db: &mut u8) -> Reply {
    match integer(number) {
        None => Reply::error("ERR value is not an integer or out of range"),
        Some(number) => match u8::try_from(number).ok().filter(|number| *number < DATABASES) {
            None => Reply::error("ERR DB index is out of range"),
            Some(number) => {
                *db = number;
                Reply::OK
            }
        },
    }
}

fn set_info(talk: &mut Talk, args: &[&[u8]]) -> Reply {
    if !good_name(args[3]) {
        let what = String::from_utf8_lossy(args[2]).to_ascii_lowercase();
        return bad_name(&what);
    }
    match args[2].to_ascii_lowercase().as_slice() {
        b"lib-name" => talk.library.0 = args[3].to_vec(),
        b"lib-ver" => talk.library.1 = args[3].to_vec(),
        _ => {
            let what = String::from_utf8_lossy(args[2]);
            return Reply::error(format!("ERR Unrecognized option '{what}'"));
        }
    }
    Reply::OK
}

fn good_name(name: &[u8]) -> bool {
    name.len() <= 1024 && name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

fn bad_name(what: &str) -> Reply {
    Reply::error(format!("ERR {what} cannot contain spaces, newlines or special characters."))
}

/// A client in one line of CLIENT LIST.
fn line(client: &Connection) -> String {
    let session = &client.session;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let multi = session.queue.as_ref().map_or(-1, |queue| queue.requests.len() as i64);
    let mut flags = String::new();
    flags.extend(session.queue.is_some().then_some('x'));
    flags.extend(session.waits.is_some().then_some('b'));
    flags.extend((session.listening() > 0).then_some('P'));
    if flags.is_empty() {
        flags.push('N');
    }
    format!(
        "id={} addr={} laddr={} fd=-1 name={} age={} idle={} flags={flags} db={} sub={} psub={} \
         ssub={} multi={multi} qbuf={} obl={} cmd={} user={} lib-name={} lib-ver={} resp={}",
        client.id,
        client.peer,
        client.local,
        text(&session.name),
        client.since.elapsed().as_secs(),
        client.asked.elapsed().as_secs(),
        session.db,
        session.listens.iter().filter(|(way, _)| *way == Way::Channel).count(),
        session.listens.iter().filter(|(way, _)| *way == Way::Pattern).count(),
        session.listens.iter().filter(|(way, _)| *way == Way::Shard).count(),
        client.input.len().saturating_sub(client.start),
        client.unread(),
        session.last,
        session.user.as_ref().map_or("default", |user| user.name.as_str()),
        text(&session.library.0),
        text(&session.library.1),
        if session.resp3 { 3 } else { 2 },
    )
}
