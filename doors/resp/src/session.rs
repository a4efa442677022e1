//! What the door knows of one client: who it is, what it chose, and what it waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use leasehold_core::{ConsumerId, SessionId};
use leasehold_users::{Permission, User};

use crate::lasting::Lasting;
use crate::native::Needs;
use crate::pubsub::{Name, Way};
use crate::table::Entry;
use crate::waiting::Asked;

/// A request kept for later.
pub type Kept = Vec<Vec<u8>>;

/// One client's session.
#[derive(Debug, Default)]
pub struct Session {
    /// It reads RESP3.
    pub resp3: bool,
    /// The numbered set of keys that it chose.
    pub db: u8,
    /// The name that it gave itself.
    pub name: Vec<u8>,
    /// Its library and its version.
    pub library: (Vec<u8>, Vec<u8>),
    /// There are no users, so everybody may do everything.
    pub open: bool,
    /// Who it is.
    pub user: Option<Arc<User>>,
    /// Answers are switched off.
    pub silent: bool,
    /// The transaction that is being put together.
    pub queue: Option<Queue>,
    /// Keys watched for the next transaction, as the shard names them, and their versions.
    pub watched: Vec<(Vec<u8>, u64)>,
    /// What it listens to.
    pub listens: BTreeSet<(Way, Name)>,
    /// What it waits for; nothing more is carried out for it before.
    pub waits: Option<Waits>,
    /// Its own session in the shard, for leases and queues; 0: none was needed yet.
    pub shard: SessionId,
    /// The ticket that losses of that session come with.
    pub shard_ticket: u32,
    /// Its session that outlives the connection.
    pub lasting: Option<Lasting>,
    /// The session in which it asked for what it waits for.
    pub asked_in: SessionId,
    /// A request to be carried out now that there is a session.
    pub again: Option<Kept>,
    /// Queues whose messages it gets as they come, by the ticket.
    pub consumes: BTreeMap<u32, (leasehold_core::Name, ConsumerId)>,
    /// The command that it last sent.
    pub last: &'static str,
}

/// Requests between MULTI and EXEC.
#[derive(Debug, Default)]
pub struct Queue {
    /// In order.
    pub requests: Vec<(&'static Entry, Kept)>,
    /// Bytes of them.
    pub bytes: usize,
    /// One was refused, so the whole transaction is.
    pub spoiled: bool,
}

/// Why a client is not read.
#[derive(Debug)]
pub enum Waits {
    /// For elements of keys.
    Keys {
        /// The command, which is tried again.
        entry: &'static Entry,
        /// Its arguments.
        request: Kept,
        /// The keys as the shard names them.
        keys: Vec<Vec<u8>>,
        /// Until when.
        until: Option<Instant>,
        /// The answer then.
        otherwise: crate::Reply,
    },
    /// For the answer of the shard to a command with this ticket.
    Shard(u32, Asked),
    /// For its password to be checked.
    Password {
        /// The protocol to switch to, and the name to take, when it was HELLO that brought it.
        hello: Option<(bool, Option<Vec<u8>>)>,
    },
}

impl Session {
    /// Whether it has to say who it is.
    pub fn is_stranger(&self) -> bool {
        !self.open && self.user.is_none()
    }

    /// Whether it may do what concerns everybody.
    pub fn rules(&self) -> bool {
        let may = |user: &Arc<User>| user.may_all(Permission::Admin, "");
        self.open || self.user.as_ref().is_some_and(may)
    }

    /// The session that holds its leases, if there is one.
    pub fn for_leases(&self) -> SessionId {
        self.lasting.as_ref().map_or(self.shard, |lasting| lasting.id)
    }

    /// This session if it is one of its own, or none.
    pub fn own(&self, id: SessionId) -> SessionId {
        let own = id == self.shard || id == self.for_leases();
        if own { id } else { SessionId::NONE }
    }

    /// Whether it has to open a session first.
    pub fn lacks(&self, needs: Needs) -> bool {
        match needs {
            Needs::Nothing => false,
            Needs::Leases => self.for_leases() == SessionId::NONE,
            Needs::Deliveries => self.shard == SessionId::NONE,
        }
    }

    /// Its consumer of a queue, with the ticket.
    pub fn consumer_of(&self, queue: &[u8]) -> Option<(u32, ConsumerId)> {
        let all = self.consumes.iter();
        let mut own = all.filter(|(_, (name, _))| name.as_bytes() == queue);
        own.next().map(|(ticket, (_, id))| (*ticket, *id))
    }

    /// How many names it listens to.
    pub fn listening(&self) -> usize {
        self.listens.len()
    }

    /// How many names of one way it listens to; channels and patterns count together, as clients
    /// expect.
    pub fn listening_to(&self, way: Way) -> usize {
        let together = |other: Way| (other == Way::Shard) == (way == Way::Shard);
        self.listens.iter().filter(|(other, _)| together(*other)).count()
    }
}
