//! From a request to its answer.
//!
//! A request is looked up, judged (who asks, may they, is there room) and carried out. Commands
//! about keys run inside one decision of the shard, and so do whole transactions and scripts; the
//! rest never touches the state.

use leasehold_core::Keys;
use leasehold_node::Floor;
use leasehold_users::Permission;

use crate::Reply;
use crate::commands;
use crate::commands::blocking::Attempt;
use crate::connection::Connection;
use crate::converse::is_foreign;
use crate::door::RespDoor;
use crate::pubsub::Way;
use crate::scene::Scene;
use crate::script::{Call, Host, Run, Which};
use crate::session::{Kept, Queue, Session, Waits};
use crate::table::{self, Command, Entry, Flags, Group};
use crate::together::{is_part, wrong_part};

/// A message published within a decision: to be told when that is over.
pub(crate) type Published = (Way, Vec<u8>, Vec<u8>);

/// What one decision brings beside its answer.
#[derive(Default)]
pub(crate) struct Aftermath {
    /// Messages to channels.
    pub published: Vec<Published>,
    /// Keys that got elements.
    pub pushed: Vec<Vec<u8>>,
}

impl RespDoor {
    /// Carries out one request.
    pub(crate) fn request(
        &mut self,
        client: &mut Connection,
        args: &[&[u8]],
        floor: &mut dyn Floor,
    ) {
        client.asked = self.house.now;
        let entry = match table::resolve(args) {
            Ok(entry) => entry,
            Err(_) if is_foreign(args[0]) => return self.end_foreign(client),
            Err(reply) => return refuse(client, reply),
        };
        client.session.last = entry.name;
        if let Some(reply) = self.judge(client, entry, args, floor) {
            return refuse(client, reply);
        }
        if let Some(queue) = &mut client.session.queue
            && !ends_queue(entry.id)
        {
            let reply = enqueue(queue, entry, args, self.house.limits.queue_bytes);
            return client.say(&reply, 0);
        }
        match entry.group {
            Group::Transactions => self.transact(client, entry, args, floor),
            Group::Pubsub => self.about_listening(client, entry, args),
            Group::Leases | Group::Queues => self.ask_shard(client, entry, args, floor),
            _ if is_talk(entry) => self.converse(client, entry, args, floor),
            _ if entry.flags.has(Flags::BLOCKING) => self.attempt(client, entry, args, floor),
            _ => self.decide(client, entry, args, floor),
        }
    }

    /// Whether the client may ask for this now; the error if not.
    fn judge(
        &mut self,
        client: &Connection,
        entry: &Entry,
        args: &[&[u8]],
        floor: &mut dyn Floor,
    ) -> Option<Reply> {
        let session = &client.session;
        if session.is_stranger() && !entry.flags.has(Flags::NO_AUTH) {
            return Some(Reply::error("NOAUTH Authentication required."));
        }
        if !session.open && !allowed(session, entry, args) {
            return Some(no_permission(entry));
        }
        if !session.resp3 && session.listening() > 0 && !may_while_listening(entry.id) {
            let name = entry.name.replace('|', " ");
            return Some(Reply::error(format!(
                "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT \
                 / RESET are allowed in this context"
            )));
        }
        let needs_room = entry.flags.has(Flags::DENYOOM);
        (needs_room && !floor.has_room()).then(|| {
            Reply::error(
                "OOM command not allowed: the disk of the server is full; delete something, or \
                 give it room",
            )
        })
    }

    /// Carries out one command about keys, in a decision of its own.
    fn decide(
        &mut self,
        client: &mut Connection,
        entry: &'static Entry,
        args: &[&[u8]],
        floor: &mut dyn Floor,
    ) {
        let mut aftermath = Aftermath::default();
        let decided =
            self.in_decision(client, floor, &mut aftermath, |stage| stage.run(entry, args));
        let Some((reply, after)) = decided else { return };
        client.say(&reply, after);
        self.follow_up(client, aftermath, after, floor);
    }

    /// Opens a decision over keys and does something in it. `None` when the shard has stopped:
    /// nothing is answered any more.
    pub(crate) fn in_decision<R>(
        &mut self,
        client: &Connection,
        floor: &mut dyn Floor,
        aftermath: &mut Aftermath,
        mut with: impl FnMut(&mut Stage<'_, '_, '_>) -> R,
    ) -> Option<(R, u64)> {
        let mut result = None;
        let seed = self.house.seed();
        let door = self;
        let after = floor.keys(&mut |keys: &mut Keys<'_, '_>| {
            let mut scene = Scene::new(keys, seed);
            (scene.db, scene.resp3) = (client.session.db, client.session.resp3);
            let mut stage = Stage {
                scene,
                door,
                session: &client.session,
                published: Vec::new(),
                stopped: false,
            };
            result = Some(with(&mut stage));
            aftermath.published.append(&mut stage.published);
            aftermath.pushed.append(&mut stage.scene.pushed);
        });
        result.map(|result| (result, after))
    }

    /// Tells listeners and feeds those who wait.
    pub(crate) fn follow_up(
        &mut self,
        client: &mut Connection,
        aftermath: Aftermath,
        after: u64,
        floor: &mut dyn Floor,
    ) {
        for (way, channel, body) in aftermath.published {
            self.publish(Some(client), way, &channel, &body, after);
        }
        if self.blocked.lines() > 0 && !aftermath.pushed.is_empty() {
            self.feed(aftermath.pushed, floor);
        }
    }

    /// Tries a command that may wait.
    fn attempt(
        &mut self,
        client: &mut Connection,
        entry: &'static Entry,
        args: &[&[u8]],
        floor: &mut dyn Floor,
    ) {
        let mut aftermath = Aftermath::default();
        let Some((attempt, after)) = self.try_once(client, entry, args, floor, &mut aftermath)
        else {
            return;
        };
        match attempt {
            Attempt::Done(reply) => client.say(&reply, after),
            Attempt::WouldBlock { keys, timeout, on_timeout } => {
                let until = timeout.and_then(|timeout| self.house.now.checked_add(timeout));
                self.blocked.join(client.id, &keys, until);
                client.session.waits = Some(Waits::Keys {
                    entry,
                    request: kept(args),
                    keys,
                    until,
                    otherwise: on_timeout,
                });
            }
        }
        self.follow_up(client, aftermath, after, floor);
    }

    fn try_once(
        &mut self,
        client: &Connection,
        entry: &Entry,
        args: &[&[u8]],
        floor: &mut dyn Floor,
        aftermath: &mut Aftermath,
    ) -> Option<(Attempt, u64)> {
        self.in_decision(client, floor, aftermath, |stage| {
            commands::blocking::attempt(entry.id, &mut stage.scene, args)
        })
    }

    /// Serves those who wait for keys that got elements, in order of arrival.
    fn feed(&mut self, mut pushed: Vec<Vec<u8>>, floor: &mut dyn Floor) {
        while let Some(key) = pushed.pop() {
            for id in self.blocked.line(&key) {
                let more = self.with_client(id, |door, client| door.try_again(client, floor));
                pushed.extend(more.flatten().unwrap_or_default());
            }
        }
    }

    /// Tries the command again that a client waits with; gives the keys that it pushed to.
    fn try_again(
        &mut self,
        client: &mut Connection,
        floor: &mut dyn Floor,
    ) -> Option<Vec<Vec<u8>>> {
        let waits = client.session.waits.take()?;
        let Waits::Keys { entry, request, .. } = &waits else {
            client.session.waits = Some(waits);
            return None;
        };
        let (args, mut aftermath) = (arguments(request), Aftermath::default());
        let (attempt, after) = self.try_once(client, entry, &args, floor, &mut aftermath)?;
        match attempt {
            Attempt::Done(reply) => {
                self.blocked.forget(client.id, Some(&waits));
                client.say(&reply, after);
                self.resume(client);
            }
            Attempt::WouldBlock { .. } => client.session.waits = Some(waits),
        }
        Some(aftermath.pushed)
    }

    /// Answers those who have waited long enough.
    pub(crate) fn blocked_due(&mut self) {
        while let Some(id) = self.blocked.due(self.house.now) {
            let answered = self.with_client(id, |door, client| door.give_up(client, None));
            if answered.is_none() {
                // Gone in this very turn; what it waited for goes with it.
                self.blocked.drop_due(id);
            }
        }
    }

    /// Ends a client's waiting for keys with its own answer, or another one.
    pub(crate) fn give_up(&mut self, client: &mut Connection, other: Option<Reply>) -> bool {
        let Some(Waits::Keys { .. }) = client.session.waits else { return false };
        let waits = client.session.waits.take();
        self.blocked.forget(client.id, waits.as_ref());
        if let Some(Waits::Keys { otherwise, .. }) = waits {
            client.say(&other.unwrap_or(otherwise), 0);
        }
        self.resume(client);
        true
    }

    /// Tells a message to all who listen; gives how many.
    pub(crate) fn publish(
        &mut self,
        mut own: Option<&mut Connection>,
        way: Way,
        channel: &[u8],
        body: &[u8],
        after: u64,
    ) -> usize {
        self.house.figures.published += 1;
        let reached = self.house.pubsub.reach(way, channel, body);
        for (id, told) in &reached {
            match &mut own {
                Some(own) if own.id == *id => own.push(told, after),
                _ => self.tell(*id, told, after),
            }
        }
        reached.len()
    }
}

/// One decision: the keys, the client that asks, and the door around them.
pub(crate) struct Stage<'d, 'k, 'a> {
    pub scene: Scene<'d, 'k, 'a>,
    pub door: &'d mut RespDoor,
    pub session: &'d Session,
    pub published: Vec<Published>,
    /// A script was stopped: nothing of the decision stays.
    pub stopped: bool,
}

impl Stage<'_, '_, '_> {
    /// Runs one command; also within transactions and scripts.
    pub fn run(&mut self, entry: &Entry, args: &[&[u8]]) -> Reply {
        match entry.id {
            Command::Eval | Command::Evalsha | Command::EvalRo | Command::EvalshaRo => {
                self.script(entry.id, args)
            }
            Command::Publish => self.publish(Way::Channel, args),
            Command::Spublish => self.publish(Way::Shard, args),
            _ if entry.is_help() => table::help(entry),
            _ => commands::run(entry.id, &mut self.scene, args),
        }
    }

    fn publish(&mut self, way: Way, args: &[&[u8]]) -> Reply {
        let reached = self.door.house.pubsub.reach(way, args[1], args[2]).len();
        self.published.push((way, args[1].to_vec(), args[2].to_vec()));
        Reply::Int(reached as i64)
    }

    fn script(&mut self, command: Command, args: &[&[u8]]) -> Reply {
        let which = match command {
            Command::Eval | Command::EvalRo => Which::Source(args[1]),
            _ => Which::Sha(args[1]),
        };
        let Some(numkeys) = commands::numbers::integer(args[2]) else {
            return Reply::error("ERR value is not an integer or out of range");
        };
        if numkeys < 0 {
            return Reply::error("ERR Number of keys can't be negative");
        }
        let numkeys = usize::try_from(numkeys).unwrap_or(usize::MAX);
        if numkeys > args.len() - 3 {
            return Reply::error("ERR Number of keys can't be greater than number of args");
        }
        let (keys, argv) = args[3..].split_at(numkeys);
        let read_only = matches!(command, Command::EvalRo | Command::EvalshaRo);
        let run = Run { which, keys, args: argv, read_only };
        // The machine leaves the house while it runs, so that what it calls can use the house.
        let Some(mut scripts) = self.door.house.scripts.take() else {
            return Reply::error("ERR a script cannot run another one");
        };
        let before = (self.scene.in_script, self.scene.resp3, self.scene.db);
        self.scene.in_script = true;
        let reply = scripts.run(&run, self);
        (self.scene.in_script, self.scene.resp3, self.scene.db) = before;
        let stopped = scripts.was_stopped();
        self.door.house.scripts = Some(scripts);
        if stopped {
            self.scene.keys.abandon();
            self.published.clear();
            self.scene.pushed.clear();
            self.stopped = true;
            self.door.house.figures.scripts_stopped += 1;
        }
        reply
    }
}

impl Host for Stage<'_, '_, '_> {
    fn call(&mut self, call: Call<'_>) -> Reply {
        let entry = match table::resolve(call.args) {
            Ok(entry) => entry,
            Err(reply) => return script_refusal(call.args, reply),
        };
        if entry.flags.has(Flags::NOSCRIPT) {
            return Reply::error("ERR This Redis command is not allowed from script");
        }
        if call.read_only && entry.flags.has(Flags::WRITE) {
            return Reply::error("ERR Write commands are not allowed from read-only scripts.");
        }
        if !self.session.open && !allowed(self.session, entry, call.args) {
            return no_permission(entry);
        }
        self.scene.resp3 = call.resp == 3;
        match entry.id {
            Command::Ping | Command::Echo | Command::Time => {
                RespDoor::small_talk(entry.id, call.args)
            }
            Command::Select => crate::converse::select(call.args[1], &mut self.scene.db),
            _ => self.run(entry, call.args),
        }
    }

    fn interrupted(&mut self) -> bool {
        self.door.look_up()
    }

    fn log(&mut self, level: i64, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        match level {
            3 => tracing::warn!(target: "script", "{text}"),
            2 => tracing::info!(target: "script", "{text}"),
            _ => tracing::debug!(target: "script", "{text}"),
        }
    }
}

/// What a script is told of a command that cannot be called.
fn script_refusal(args: &[&[u8]], reply: Reply) -> Reply {
    let Reply::Error(text) = &reply else { return reply };
    if text.starts_with("ERR unknown command") && !text.contains("not offered") {
        return Reply::error("ERR Unknown Redis command called from script");
    }
    if text.starts_with("ERR wrong number") && table::find(args[0]).is_some() {
        return Reply::error("ERR Wrong number of args calling Redis command from script");
    }
    reply
}

/// Arguments kept beyond the request.
pub(crate) fn kept(args: &[&[u8]]) -> Kept {
    args.iter().map(|arg| arg.to_vec()).collect()
}

/// The arguments of a request that was kept.
pub(crate) fn arguments(request: &Kept) -> Vec<&[u8]> {
    request.iter().map(Vec::as_slice).collect()
}

fn refuse(client: &mut Connection, reply: Reply) {
    if let Some(queue) = &mut client.session.queue {
        queue.spoiled = true;
    }
    client.say(&reply, 0);
}

fn enqueue(queue: &mut Queue, entry: &'static Entry, args: &[&[u8]], most: usize) -> Reply {
    let alone = matches!(entry.group, Group::Leases | Group::Queues) && !is_part(entry.id);
    let about_itself = matches!(entry.id, Command::Hello | Command::Auth | Command::ClientReply);
    if alone || about_itself || matches!(entry.id, Command::Info | Command::ClientKill) {
        queue.spoiled = true;
        let name = entry.title();
        return Reply::error(format!("ERR {name} is not allowed in transactions"));
    }
    if let Some(wrong) = wrong_part(entry.id, args) {
        queue.spoiled = true;
        return wrong;
    }
    let bytes: usize = args.iter().map(|arg| arg.len() + 32).sum();
    if queue.bytes + bytes > most {
        queue.spoiled = true;
        return Reply::error(format!("OOM the transaction is larger than {most} bytes"));
    }
    queue.bytes += bytes;
    queue.requests.push((entry, kept(args)));
    Reply::Status("QUEUED".into())
}

fn ends_queue(command: Command) -> bool {
    use crate::table::Command as C;
    matches!(command, C::Exec | C::Discard | C::Multi | C::Watch | C::Quit | C::Reset)
}

fn may_while_listening(command: Command) -> bool {
    use crate::table::Command as C;
    let listening = matches!(command, C::Subscribe | C::Psubscribe | C::Ssubscribe);
    let leaving = matches!(command, C::Unsubscribe | C::Punsubscribe | C::Sunsubscribe);
    listening || leaving || matches!(command, C::Ping | C::Quit | C::Reset)
}

/// Whether a command is about the connection or the server and touches no key.
pub(crate) fn is_talk(entry: &Entry) -> bool {
    let keys = matches!(entry.id, Command::Dbsize | Command::Flushall | Command::Flushdb);
    match entry.group {
        Group::Connection | Group::Server => !keys,
        Group::Scripting => entry.container().is_some(),
        _ => false,
    }
}

/// The error for somebody who may not do this.
fn no_permission(entry: &Entry) -> Reply {
    let name = entry.name;
    Reply::error(format!(
        "NOPERM this user has no permissions to run the '{name}' command or to access one of the \
         keys or channels used as arguments"
    ))
}

/// Whether a user may do this with the keys, queues or channels that it names.
fn allowed(session: &Session, entry: &Entry, args: &[&[u8]]) -> bool {
    use crate::table::Command as C;
    let Some(user) = &session.user else { return entry.flags.has(Flags::NO_AUTH) };
    let may = |permission: Permission, name: &[u8]| {
        let name = String::from_utf8_lossy(name);
        match session.db {
            0 => user.may(permission, &name),
            db => user.may(permission, &format!("{db}:{name}")),
        }
    };
    let permission = match entry.id {
        C::QueuePublish => Permission::Publish,
        C::QueueDeclare | C::QueueDelete | C::QueuePurge => Permission::Admin,
        _ if entry.group == Group::Queues => Permission::Consume,
        _ => Permission::Lock,
    };
    match entry.id {
        C::Publish | C::Spublish => may(Permission::Publish, args[1]),
        C::Subscribe | C::Ssubscribe => args[1..].iter().all(|name| may(Permission::Consume, name)),
        C::Psubscribe => args[1..].iter().all(|name| {
            let name = String::from_utf8_lossy(name);
            let fixed = name.split(['*', '?', '[', '\\']).next().unwrap_or_default();
            user.may_all(Permission::Consume, fixed)
        }),
        C::Keys | C::Scan | C::Randomkey | C::Dbsize => user.may_all(Permission::Lock, ""),
        C::Flushall | C::Flushdb | C::ScriptFlush | C::ScriptKill => {
            user.may_all(Permission::Admin, "")
        }
        _ if entry.flags.has(Flags::ADMIN) => user.may_all(Permission::Admin, ""),
        _ => entry.keys(args).all(|place| may(permission, args[place])),
    }
}
