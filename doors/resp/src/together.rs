//! Transactions of leases and queues: one commit of the shard.
//!
//! ```text
//! MULTI
//! LEASE.CHECK   stock 4711              I still hold it
//! QUEUE.ACK     orders 3-4712           this is done
//! QUEUE.PUBLISH invoices "order 42"     this comes next
//! LEASE.RELEASE stock me 4711           and now somebody else
//! EXEC
//! ```
//! Everything is checked before anything happens, so one stale token or receipt stops all of it,
//! and a crash leaves all of it or nothing. Beside keys these cannot stand: what a transaction does
//! with keys is another kind of decision with a journal group of its own, and two groups are torn
//! by a crash between them.

use leasehold_core::{Commit, Op, SessionId};
use leasehold_node::Floor;

use crate::Reply;
use crate::connection::Connection;
use crate::door::RespDoor;
use crate::execute::arguments;
use crate::native::wish;
use crate::session::{Queue, Session};
use crate::table::Command;
use crate::waiting::Asked;

/// Whether a command may be a part of such a transaction.
pub(crate) fn is_part(command: Command) -> bool {
    use Command as C;
    let leases = matches!(command, C::LeaseCheck | C::LeaseRelease);
    let settles = matches!(command, C::QueueAck | C::QueueNack | C::QueueReject);
    leases || settles || command == C::QueuePublish
}

/// What is wrong with a part as it stands, before its transaction is carried out.
pub(crate) fn wrong_part(command: Command, args: &[&[u8]]) -> Option<Reply> {
    is_part(command).then(|| wish(command, args, false).err()).flatten()
}

impl Queue {
    /// Whether it has to do with leases and queues.
    pub fn has_parts(&self) -> bool {
        self.requests.iter().any(|(entry, _)| is_part(entry.id))
    }
}

impl RespDoor {
    /// Carries out a transaction that has such parts.
    pub(crate) fn commit(&mut self, client: &mut Connection, queue: &Queue, floor: &mut dyn Floor) {
        match commit_of(&client.session, queue, floor) {
            Ok(commit) => {
                let asked = Asked::Parts(queue.requests.len());
                self.submit(client, SessionId::NONE, Op::Commit(Box::new(commit)), asked, floor);
            }
            Err(wrong) => client.say(&wrong, 0),
        }
    }
}

fn commit_of(session: &Session, queue: &Queue, floor: &dyn Floor) -> Result<Commit, Reply> {
    let mut commit = Commit::default();
    for (entry, request) in &queue.requests {
        if !is_part(entry.id) {
            let name = entry.title();
            return Err(Reply::error(format!(
                "EXECABORT a transaction is about leases and queues or about anything else, not \
                 both, and {name} is something else; nothing was done"
            )));
        }
        match wish(entry.id, &arguments(request), false)?.op {
            Op::Check(name, token) => commit.checks.push((name, token)),
            Op::Settle(receipt, verdict) => {
                commit.settles.push((session.shard, receipt, verdict));
            }
            Op::Publish(publish) => commit.publishes.push(*publish),
            Op::Release(hold) => {
                let own = session.own(floor.session_of(hold.token));
                commit.releases.push((own, hold));
            }
            _ => return Err(Reply::error("ERR this cannot be a part of a transaction")),
        }
    }
    Ok(commit)
}
