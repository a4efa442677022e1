//! Transactions: requests kept between MULTI and EXEC, carried out in one decision.
//!
//! WATCH remembers versions. EXEC compares them inside the same decision in which it carries out
//! the rest, so nothing can come between.

use leasehold_node::Floor;

use crate::Reply;
use crate::connection::Connection;
use crate::converse::Talk;
use crate::door::RespDoor;
use crate::execute::{Aftermath, Stage, arguments, is_talk};
use crate::scene::shard_name;
use crate::session::Queue;
use crate::table::{Command, Entry, Group};

impl RespDoor {
    /// MULTI, EXEC, DISCARD, WATCH, UNWATCH.
    pub(crate) fn transact(
        &mut self,
        client: &mut Connection,
        entry: &'static Entry,
        args: &[&[u8]],
        floor: &mut dyn Floor,
    ) {
        let session = &mut client.session;
        let reply = match entry.id {
            Command::Multi if session.queue.is_some() => {
                Reply::error("ERR MULTI calls can not be nested")
            }
            Command::Multi => {
                session.queue = Some(Queue::default());
                Reply::OK
            }
            Command::Discard if session.queue.is_none() => {
                Reply::error("ERR DISCARD without MULTI")
            }
            Command::Discard => {
                session.queue = None;
                session.watched.clear();
                Reply::OK
            }
            Command::Watch if session.queue.is_some() => {
                Reply::error("ERR WATCH inside MULTI is not allowed")
            }
            Command::Watch => return self.watch(client, args, floor),
            Command::Unwatch => {
                session.watched.clear();
                Reply::OK
            }
            _ => return self.exec(client, floor),
        };
        client.say(&reply, 0);
    }

    fn watch(&mut self, client: &mut Connection, args: &[&[u8]], floor: &mut dyn Floor) {
        if client.session.watched.len() + args.len() > self.house.limits.names {
            let most = self.house.limits.names;
            let text = format!("ERR at most {most} keys can be watched at one time; UNWATCH first");
            return client.say(&Reply::error(text), 0);
        }
        let db = client.session.db;
        let decided = self.in_decision(client, floor, &mut Aftermath::default(), |stage| {
            let version = |key: &&[u8]| {
                let name = shard_name(db, key).into_owned();
                let version = stage.scene.keys.get(&name).map_or(0, |seen| seen.version);
                (name, version)
            };
            args[1..].iter().map(version).collect::<Vec<_>>()
        });
        let Some((watched, _)) = decided else { return };
        for (name, version) in watched {
            if !client.session.watched.iter().any(|(known, _)| *known == name) {
                client.session.watched.push((name, version));
            }
        }
        client.say(&Reply::OK, 0);
    }

    fn exec(&mut self, client: &mut Connection, floor: &mut dyn Floor) {
        let watched = match client.session.queue {
            None => return client.say(&Reply::error("ERR EXEC without MULTI"), 0),
            Some(_) => std::mem::take(&mut client.session.watched),
        };
        let queue = client.session.queue.take().unwrap_or_default();
        if queue.spoiled {
            let text = "EXECABORT Transaction discarded because of previous errors.";
            return client.say(&Reply::error(text), 0);
        }
        let mut aftermath = Aftermath::default();
        if queue.has_parts() {
            // Nothing can come between this look and the commit, which is made in the same turn.
            let looked =
                self.in_decision(client, floor, &mut aftermath, |stage| unchanged(stage, &watched));
            match looked {
                Some((true, _)) => self.commit(client, &queue, floor),
                Some((false, after)) => client.say(&Reply::NilArray, after),
                None => {}
            }
            return;
        }
        let mut talk = Talk::of(client, true);
        let decided = self.in_decision(client, floor, &mut aftermath, |stage| {
            if !unchanged(stage, &watched) {
                return Reply::NilArray;
            }
            stage.scene.in_multi = true;
            let replies = carry_out(stage, &mut talk, &queue);
            match stage.stopped {
                true => Reply::error("EXECABORT a script was stopped; nothing was changed"),
                false => Reply::Array(replies),
            }
        });
        let Some((reply, after)) = decided else { return };
        talk.settle(client);
        client.say(&reply, after);
        self.follow_up(client, aftermath, after, floor);
    }
}

/// Whether keys have the versions that they had when they were watched.
fn unchanged(stage: &Stage<'_, '_, '_>, watched: &[(Vec<u8>, u64)]) -> bool {
    let same = |(name, version): &(Vec<u8>, u64)| {
        stage.scene.keys.get(name).map_or(0, |seen| seen.version) == *version
    };
    watched.iter().all(same)
}

fn carry_out(stage: &mut Stage<'_, '_, '_>, talk: &mut Talk, queue: &Queue) -> Vec<Reply> {
    let mut replies = Vec::with_capacity(queue.requests.len());
    for (entry, request) in &queue.requests {
        if stage.stopped {
            break;
        }
        let args = arguments(request);
        let publishes = matches!(entry.id, Command::Publish | Command::Spublish);
        let reply = match entry.group {
            _ if is_talk(entry) => {
                let reply = stage.door.talk(talk, entry, &args);
                stage.scene.db = talk.db;
                reply
            }
            Group::Pubsub if !publishes => {
                Reply::error("ERR this command is not allowed in transactions")
            }
            _ => stage.run(entry, &args),
        };
        replies.push(reply);
    }
    replies
}
