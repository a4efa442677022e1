//! What clients are told, and how it enters the books.

use leasehold_core::{Outcome, Refusal, Ticket};
use leasehold_env::Disk;
use leasehold_node::{Notice, Received};

use super::{Pending, Simulation, config};
use crate::verdict::{Bundle, Delivered, Hold, Lawful, Session, Violation, demand};

impl<D: Disk> Simulation<D> {
    /// Enters one notice.
    pub(super) fn enter(&mut self, ticket: Ticket, notice: Notice) -> Lawful {
        match notice {
            Notice::Reply(result) => self.answered(ticket, result),
            Notice::Delivery(parts) => self.received(ticket, &Received::from(parts)),
            Notice::HoldEnded(token, _) => {
                self.ledger.hold_ended(token.0);
                Ok(())
            }
            Notice::DeliveryEnded(receipt, _) => {
                for client in &mut self.clients {
                    client.open.retain(|(open, _)| *open != receipt);
                }
                Ok(())
            }
            Notice::SessionEnded(session) => {
                self.ledger.session_ended(session.0);
                self.forget_session(session.0);
                Ok(())
            }
            Notice::ConsumerEnded(_) | Notice::Peeked(_) => Ok(()),
        }
    }

    fn forget_session(&mut self, session: u64) {
        for client in &mut self.clients {
            if client.session.is_some_and(|own| own.0 == session) {
                client.session = None;
                (client.opening, client.resumes) = (false, false);
                client.consuming.clear();
                client.open.clear();
            }
        }
    }

    fn received(&mut self, ticket: Ticket, received: &Received) -> Lawful {
        let Some(Pending::Consume { client, queue }) = self.pending.get(&ticket.0).cloned() else {
            return Err(Violation(format!(
                "a delivery came to {ticket:?}, which consumes nothing"
            )));
        };
        let message = received.message().map_err(|error| Violation(error.to_string()))?;
        // The session may be closed in the same turn, and its delivery comes after all.
        let session = self.clients[client].session.map_or(0, |session| session.0);
        let now = self.now();
        let came = Delivered {
            queue,
            token: received.delivery.receipt.token.0,
            redelivered: received.delivery.redelivered,
            body: message.body,
            now,
            wall: self.wall(),
            session,
            until: config(queue).lease_us.map(|lease| now + lease),
        };
        let id = self.ledger.delivered(&came)?;
        if session != 0 {
            self.clients[client].open.push((received.delivery.receipt, id));
        }
        Ok(())
    }

    fn answered(&mut self, ticket: Ticket, result: Result<Outcome, Refusal>) -> Lawful {
        // A shard that stopped does not know either: the question stays open until the crash.
        if matches!(result, Err(Refusal::Stopped)) {
            return Ok(());
        }
        let Some(pending) = self.pending.get(&ticket.0).cloned() else {
            return Err(Violation(format!("{ticket:?} was answered twice: {result:?}")));
        };
        if !matches!(pending, Pending::Consume { .. }) {
            self.pending.remove(&ticket.0);
        }
        match pending {
            Pending::Session { client, ttl_us } => self.session_answered(client, ttl_us, result),
            Pending::Consume { client, queue } => {
                if result.is_err() {
                    self.clients[client].consuming.retain(|other| *other != queue);
                    self.refused_by_session(client, &result);
                }
                Ok(())
            }
            Pending::Publish(id) => {
                self.requests.remove(&id);
                self.ledger.published(id, result.is_ok());
                Ok(())
            }
            Pending::Settle { id, ack, delayed } => self.settled(id, ack, delayed, &result),
            Pending::Stale => demand(result.is_err(), || {
                "a receipt from before the restart was accepted".to_owned()
            }),
            Pending::Acquire { client, hold } => self.acquired(client, hold, result),
            Pending::Renew(token) => {
                let until = match result {
                    Ok(Outcome::Renewed { left_us }) => left_us.map(|left| self.now() + left),
                    _ => return Ok(()),
                };
                if let Some(hold) = self.ledger.holds.get_mut(&token) {
                    hold.until = until;
                }
                Ok(())
            }
            Pending::Release(token) => self.released(token, &result),
            Pending::Write(key, value) => match result {
                Ok(Outcome::Written { version }) => self.ledger.written(key, version, value),
                _ => {
                    self.ledger.unwritten(key, value);
                    Ok(())
                }
            },
            Pending::Read(key) => match result {
                Ok(Outcome::Register(view)) => {
                    let found = view.map(|v| (v.version, super::number_in(&v.value)));
                    self.ledger.read(key, found, false)
                }
                _ => Ok(()),
            },
            Pending::Commit(bundle) => self.committed(&bundle, result),
            Pending::Other => Ok(()),
        }
    }

    fn session_answered(
        &mut self,
        client: usize,
        ttl_us: Option<u64>,
        result: Result<Outcome, Refusal>,
    ) -> Lawful {
        (self.clients[client].opening, self.clients[client].resumes) = (false, false);
        match result {
            Ok(Outcome::Session { id, resumed }) => {
                let asked = self.clients[client].session.replace(id);
                if resumed {
                    demand(asked == Some(id), || format!("{asked:?} was resumed as {id:?}"))?;
                } else {
                    self.ledger.token(id.0, "a session")?;
                }
                let until = ttl_us.map(|ttl| self.now() + ttl);
                self.ledger.sessions.insert(id.0, Session { until, ttl_us });
            }
            Err(Refusal::NoSession(id)) => {
                let (now, ledger) = (self.now(), &self.ledger);
                demand(!ledger.session_lives(id.0, now), || {
                    format!("session {} is gone at {now}: {:?}", id.0, ledger.sessions[&id.0])
                })?;
                self.ledger.session_ended(id.0);
                self.clients[client].session = None;
            }
            other => return Err(Violation(format!("opening a session gave {other:?}"))),
        }
        Ok(())
    }

    /// A command was refused because the session is gone: the client opens another.
    fn refused_by_session(&mut self, client: usize, result: &Result<Outcome, Refusal>) {
        if let Err(Refusal::NoSession(id)) = result
            && self.clients[client].session == Some(*id)
        {
            self.forget_session(id.0);
        }
    }

    fn settled(
        &mut self,
        id: u64,
        ack: bool,
        delayed: bool,
        result: &Result<Outcome, Refusal>,
    ) -> Lawful {
        if ack {
            return self.ledger.acknowledged(id, result.is_ok());
        }
        // It comes back at the end of its lane.
        let message = self.ledger.messages.get_mut(&id).expect("it was delivered");
        if result.is_ok() && delayed {
            message.ordered = false;
        }
        Ok(())
    }

    fn acquired(&mut self, client: usize, hold: Hold, result: Result<Outcome, Refusal>) -> Lawful {
        match result {
            Ok(Outcome::Granted { token, left_us, entries }) => {
                demand(entries == 1, || format!("a first grant has {entries} entries"))?;
                let until = left_us.map(|left| self.now() + left);
                let now = self.now();
                self.ledger.granted(token.0, Hold { until, ..hold }, now)
            }
            Ok(other) => Err(Violation(format!("an acquire was answered {other:?}"))),
            Err(_) => {
                self.ledger.acquiring.remove(&hold.hold);
                self.refused_by_session(client, &result);
                Ok(())
            }
        }
    }

    fn released(&mut self, token: u64, result: &Result<Outcome, Refusal>) -> Lawful {
        match result {
            Ok(_) | Err(Refusal::StaleToken { .. }) => {
                self.ledger.hold_ended(token);
                Ok(())
            }
            // A hold by TTL can be released without its session.
            Err(other) => Err(Violation(format!("a release of {token} was refused: {other}"))),
        }
    }

    fn committed(&mut self, bundle: &Bundle, result: Result<Outcome, Refusal>) -> Lawful {
        let done = result.is_ok();
        for id in &bundle.acks {
            self.ledger.acknowledged(*id, done)?;
        }
        bundle.publishes.iter().for_each(|id| self.ledger.published(*id, done));
        if let Some(token) = bundle.release {
            if done {
                self.ledger.hold_ended(token);
            } else if let Some(hold) = self.ledger.holds.get_mut(&token) {
                hold.releasing = false;
            }
        }
        let Some((key, value)) = bundle.write else { return Ok(()) };
        match result {
            Ok(Outcome::Committed { versions }) => {
                demand(versions.len() == 1, || format!("one write gave {versions:?}"))?;
                self.ledger.written(key, versions[0], Some(value))
            }
            _ => {
                self.ledger.unwritten(key, Some(value));
                Ok(())
            }
        }
    }
}
