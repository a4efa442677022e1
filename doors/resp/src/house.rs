//! What all clients of the door share.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use leasehold_core::{Command, Op, SessionId, Ticket};
use leasehold_users::Users;

use crate::door::{RespConfig, RespLimits};
use crate::lasting::Proofs;
use crate::pubsub::Pubsub;
use crate::script::Scripts;

/// See the module.
pub(crate) struct House {
    pub users: Arc<Users>,
    /// Which users the clients were last compared with.
    pub edition: u64,
    pub runtime: tokio::runtime::Handle,
    pub limits: RespLimits,
    pub pubsub: Pubsub,
    /// Away while one runs.
    pub scripts: Option<Scripts>,
    /// Proves whose a session is.
    pub proofs: Proofs,
    /// Sessions whose clients were gone before they were open.
    pub unclaimed: Vec<SessionId>,
    /// Which client asked with which ticket.
    pub tickets: HashMap<u32, u64>,
    next_ticket: u32,
    /// Clients to be ended at the end of the turn.
    pub doomed: BTreeSet<u64>,
    pub figures: Figures,
    /// When a foreign client was last warned of.
    pub warned: Option<Instant>,
    /// The time of the turn.
    pub now: Instant,
    pub began: Instant,
    pub port: u16,
    /// Makes random choices of scripts and commands differ.
    pub seed: u64,
}

/// What the door counts.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub clients: u64,
    pub accepted: u64,
    pub refused_clients: u64,
    pub commands: u64,
    pub cut_off: u64,
    pub published: u64,
    pub scripts_stopped: u64,
}

impl House {
    pub fn new(config: RespConfig, port: u16, proofs: Proofs) -> Self {
        let RespConfig { users, runtime, limits, .. } = config;
        let began = Instant::now();
        let scripts = Some(Scripts::new(limits.scripts));
        Self {
            edition: users.edition(),
            users,
            runtime,
            limits,
            pubsub: Pubsub::default(),
            scripts,
            proofs,
            unclaimed: Vec::new(),
            tickets: HashMap::new(),
            next_ticket: 0,
            doomed: BTreeSet::new(),
            figures: Figures::default(),
            warned: None,
            now: began,
            began,
            port,
            seed: u64::from(port) | 1,
        }
    }

    /// A ticket that nobody waits with.
    pub fn ticket(&mut self, client: u64) -> u32 {
        loop {
            self.next_ticket = self.next_ticket.wrapping_add(1).max(1);
            if !self.tickets.contains_key(&self.next_ticket) {
                self.tickets.insert(self.next_ticket, client);
                return self.next_ticket;
            }
        }
    }

    /// A command whose answer nobody waits for.
    pub fn command(&self, session: SessionId, op: Op) -> Command {
        Command { ticket: Ticket(0), session, request: None, op }
    }

    /// Another seed each time.
    pub fn seed(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.seed
    }
}
