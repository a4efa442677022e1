//! Residents: doors that live on the shard's own thread.
//!
//! A door on another thread pays two wake-ups for each answer, one into the inbox and one back,
//! and on one processor those cost more than the decision. A resident has its sockets on the
//! shard's thread: it waits for them in the place of the inbox, takes its turn between the turn's
//! beginning and its end, and lets answers go when the turn has synced what they wait for. Commands
//! of others still come through the inbox; sending one rings the resident's bell.

use std::sync::Arc;
use std::time::Duration;

use leasehold_core::{Command, Keys, SessionId, Ticket, Token};
use leasehold_env::Disk;

use crate::client::Notice;
use crate::shard::Shard;

/// Wakes a resident that waits. Called from any thread.
pub type Bell = Arc<dyn Fn() + Send + Sync>;

/// The client number of the resident's commands.
pub(crate) const RESIDENT: u32 = u32::MAX;

/// Makes a resident on the shard's thread, where it stays.
pub type MoveIn = Box<dyn FnOnce() -> Box<dyn Resident> + Send>;

/// A door on the shard's thread.
pub trait Resident {
    /// What wakes it.
    fn bell(&self) -> Bell;

    /// Waits until something happens to it, its bell is rung, or the time is over; `None`: as long
    /// as it takes.
    fn wait(&mut self, at_most: Option<Duration>);

    /// Its turn: it reads, decides through the floor, and keeps its answers.
    fn turn(&mut self, floor: &mut dyn Floor);

    /// A notice for one of its commands. `ticket` is the one that it gave.
    fn notice(&mut self, ticket: u32, notice: Notice);

    /// The turn is over: answers that wait for a sequence number up to this one may leave.
    fn leave(&mut self, upto: u64);

    /// The node ends; why, when something broke. Nothing that has not left may leave any more.
    fn end(&mut self, why: Option<&str>);
}

/// What a resident decides through.
pub trait Floor {
    /// Makes a decision over keys; see [`leasehold_core::Keys`]. Gives the sequence number after
    /// which the answer may leave.
    fn keys(&mut self, procedure: &mut dyn FnMut(&mut Keys<'_, '_>)) -> u64;

    /// Carries out a command. Its outcome comes as a notice, with the low half of the ticket.
    fn submit(&mut self, command: Command);

    /// Whether the disk has room for new things.
    fn has_room(&mut self) -> bool;

    /// The session of the hold with this token; none when there is no such hold.
    fn session_of(&self, token: Token) -> SessionId;

    /// How many keys there are, and how many locks are held.
    fn counts(&self) -> (usize, usize);
}

/// The ticket that the shard knows a resident's command by, to cancel it.
pub fn resident_ticket(ticket: u32) -> u64 {
    u64::from(RESIDENT) << 32 | u64::from(ticket)
}

impl<D: Disk> Floor for Shard<D> {
    fn keys(&mut self, procedure: &mut dyn FnMut(&mut Keys<'_, '_>)) -> u64 {
        self.decide_keys(procedure)
    }

    fn submit(&mut self, mut command: Command) {
        command.ticket = Ticket(resident_ticket(command.ticket.0 as u32));
        Shard::submit(self, command);
    }

    fn has_room(&mut self) -> bool {
        self.has_room_for_keys()
    }

    fn session_of(&self, token: Token) -> SessionId {
        let state = self.core.state();
        state.grant_with(token.0).map_or(SessionId::NONE, |slot| state.grants()[slot].session)
    }

    fn counts(&self) -> (usize, usize) {
        let state = self.core.state();
        (state.register_count(), state.locks().len())
    }
}
