//! Publishing, and listening to channels.

use crate::Reply;
use crate::connection::Connection;
use crate::door::RespDoor;
use crate::glob;
use crate::pubsub::{Name, Way};
use crate::table::{self, Command, Entry};

impl RespDoor {
    /// SUBSCRIBE and its kin, PUBLISH, PUBSUB.
    pub(crate) fn about_listening(
        &mut self,
        client: &mut Connection,
        entry: &Entry,
        args: &[&[u8]],
    ) {
        let names = &args[1..];
        match entry.id {
            Command::Subscribe => self.join(client, Way::Channel, names),
            Command::Psubscribe => self.join(client, Way::Pattern, names),
            Command::Ssubscribe => self.join(client, Way::Shard, names),
            Command::Unsubscribe => self.leave_channels(client, Way::Channel, names),
            Command::Punsubscribe => self.leave_channels(client, Way::Pattern, names),
            Command::Sunsubscribe => self.leave_channels(client, Way::Shard, names),
            Command::Publish | Command::Spublish => {
                let shard = entry.id == Command::Spublish;
                let way = if shard { Way::Shard } else { Way::Channel };
                let reached = self.publish(Some(client), way, args[1], args[2], 0);
                client.say(&Reply::Int(reached as i64), 0);
            }
            _ => {
                let reply = self.about_channels(entry, args);
                client.say(&reply, 0);
            }
        }
    }

    fn join(&mut self, client: &mut Connection, way: Way, names: &[&[u8]]) {
        for name in names {
            let name: Name = Name::from(*name);
            let full = client.session.listening() >= self.house.limits.names;
            if full && !client.session.listens.contains(&(way, name.clone())) {
                let most = self.house.limits.names;
                let text = format!("ERR at most {most} channels for one client");
                return client.say(&Reply::error(text), 0);
            }
            if client.session.listens.insert((way, name.clone())) {
                self.house.pubsub.join(way, name.clone(), client.id);
            }
            told(client, way.begun(), Some(&name), way);
        }
    }

    fn leave_channels(&mut self, client: &mut Connection, way: Way, names: &[&[u8]]) {
        let names: Vec<Name> = match names {
            [] => {
                let own = client.session.listens.iter().filter(|(other, _)| *other == way);
                own.map(|(_, name)| name.clone()).collect()
            }
            names => names.iter().map(|name| Name::from(*name)).collect(),
        };
        if names.is_empty() {
            told(client, way.ended(), None, way);
        }
        for name in names {
            if client.session.listens.remove(&(way, name.clone())) {
                self.house.pubsub.part(way, &name, client.id);
            }
            told(client, way.ended(), Some(&name), way);
        }
    }

    /// Ends everything that a client listens to.
    pub(crate) fn stop_listening(&mut self, client: &mut Connection) {
        for (way, name) in std::mem::take(&mut client.session.listens) {
            self.house.pubsub.part(way, &name, client.id);
        }
    }

    /// PUBSUB.
    pub(crate) fn about_channels(&self, entry: &Entry, args: &[&[u8]]) -> Reply {
        let pubsub = &self.house.pubsub;
        let names = |way: Way| {
            let pattern = args.get(2);
            let fits = |name: &[u8]| pattern.is_none_or(|pattern| glob::matches(pattern, name));
            let all = pubsub.of(way).filter(|(name, _)| fits(name));
            Reply::Array(all.map(|(name, _)| Reply::Bulk(name.clone())).collect())
        };
        let counts = |way: Way| {
            let one =
                |name: &&[u8]| [Reply::bulk(name), Reply::Int(pubsub.count(way, name) as i64)];
            Reply::Array(args[2..].iter().flat_map(one).collect())
        };
        match entry.id {
            Command::PubsubChannels => names(Way::Channel),
            Command::PubsubShardchannels => names(Way::Shard),
            Command::PubsubNumsub => counts(Way::Channel),
            Command::PubsubShardnumsub => counts(Way::Shard),
            Command::PubsubNumpat => Reply::Int(pubsub.of(Way::Pattern).count() as i64),
            _ => table::help(entry),
        }
    }
}

fn told(client: &mut Connection, word: &str, name: Option<&Name>, way: Way) {
    let count = client.session.listening_to(way) as i64;
    let name = name.map_or(Reply::Nil, |name| Reply::Bulk(name.clone()));
    client.push(&Reply::Push(vec![Reply::bulk(word), name, Reply::Int(count)]), 0);
}
