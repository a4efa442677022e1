//! Sessions in the shard: the connection's own, and one that outlives it.
//!
//! The connection's own session is opened when something needs it and ends with the connection;
//! deliveries belong to it, since nobody knows which of them a broken connection still brought.
//!
//! A lasting session holds leases. While a connection has it, it lives, and nobody has to send a
//! sign of life; when the connection breaks, it lives on for its TTL, and whoever shows its number
//! and its proof takes it up again with what it holds. So in the shard it has a TTL only while no
//! connection has it. After a restart of the server it waits for `restart_grace` instead.
//!
//! The number is no secret, it is shown by inspect. The proof is the first half of an HMAC-SHA256
//! over it and the name of the user that it was given to, with the server's secret, as the HTTP
//! door makes them. Another user's proof is as good as none.

use std::sync::Arc;

use aws_lc_rs::{constant_time, hmac};
use leasehold_core::{Limits, Op, SessionId, Ticket};
use leasehold_node::{Floor, resident_ticket};
use leasehold_users::hex;

use crate::Reply;
use crate::commands::numbers::integer;
use crate::connection::Connection;
use crate::door::RespDoor;
use crate::execute::{Aftermath, kept};
use crate::native::{Words, syntax};
use crate::session::{Session, Waits};
use crate::waiting::Asked;

const PROOF_BYTES: usize = 16;

/// A session that outlives its connection, as the connection has it.
#[derive(Debug)]
pub struct Lasting {
    /// Its number.
    pub id: SessionId,
    /// How long it lives without a connection.
    pub ttl_us: u64,
    /// The ticket that its losses come with.
    pub ticket: u32,
}

/// A lasting session that was asked for.
#[derive(Debug)]
pub struct Wanted {
    ttl_us: u64,
    /// Which, unless it is a new one.
    resume: Option<SessionId>,
}

/// Makes proofs.
pub(crate) struct Proofs(hmac::Key);

impl Proofs {
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The proof of a session for a user.
    fn of(&self, id: SessionId, session: &Session) -> String {
        let user = session.user.as_ref().map_or("", |user| &user.name);
        // Of one length up to the user, so that no two have the same bytes; and the HTTP door's
        // begin otherwise.
        let mut bytes = b"resp session".to_vec();
        bytes.extend(id.0.to_le_bytes());
        bytes.extend(user.as_bytes());
        hex(&hmac::sign(&self.0, &bytes).as_ref()[..PROOF_BYTES])
    }

    fn fits(&self, proof: &[u8], id: SessionId, session: &Session) -> bool {
        let right = self.of(id, session);
        constant_time::verify_slices_are_equal(right.as_bytes(), proof).is_ok()
    }
}

impl RespDoor {
    /// `LEASE.SESSION [ID | OPEN [TTL ms] | RESUME id proof TTL ms | CLOSE]`
    pub(crate) fn lease_session(
        &mut self,
        client: &mut Connection,
        args: &[&[u8]],
        floor: &mut dyn Floor,
    ) {
        let how = args.get(1).map_or_else(|| b"id".to_vec(), |how| how.to_ascii_lowercase());
        match (how.as_slice(), args.len()) {
            (b"id", ..=2) => self.say_session(client),
            (b"open", 2) if client.session.shard != SessionId::NONE => self.say_session(client),
            (b"open", 2) => {
                let again = kept(&[b"LEASE.SESSION", b"ID"]);
                self.open_session(client, again, floor);
            }
            (b"open", 4) => match self.ttl(client, &args[2..], floor) {
                Ok(ttl_us) => self.lasting(client, Wanted { ttl_us, resume: None }, floor),
                Err(wrong) => client.say(&wrong, 0),
            },
            (b"resume", 6) => match self.ttl(client, &args[4..], floor) {
                Ok(ttl_us) => self.take_up(client, args[2], args[3], ttl_us, floor),
                Err(wrong) => client.say(&wrong, 0),
            },
            (b"close", 2) => self.close_session(client, floor),
            _ => {
                let text = "ERR syntax error; LEASE.SESSION takes ID, OPEN [TTL ms], RESUME id \
                            proof TTL ms, or CLOSE";
                client.say(&Reply::error(text), 0);
            }
        }
    }

    fn say_session(&mut self, client: &mut Connection) {
        let reply = match client.session.for_leases() {
            SessionId::NONE => Reply::Nil,
            id => Reply::Int(id.0 as i64),
        };
        client.say(&reply, 0);
    }

    /// Opens the connection's own session, and carries out a request after that.
    pub(crate) fn open_session(
        &mut self,
        client: &mut Connection,
        again: crate::session::Kept,
        floor: &mut dyn Floor,
    ) {
        let op = Op::OpenSession { ttl_us: None, resume: None, label: label(client) };
        self.submit(client, SessionId::NONE, op, Asked::Session(again), floor);
    }

    /// `TTL ms`, within the bounds that the shard has for it.
    fn ttl(
        &mut self,
        client: &Connection,
        args: &[&[u8]],
        floor: &mut dyn Floor,
    ) -> Result<u64, Reply> {
        let mut words = Words(args);
        if words.next().as_deref() != Some(b"ttl") {
            return Err(syntax());
        }
        let ttl_us = words.milliseconds()?;
        let limits = |limits: &Limits| (limits.ttl_us_min, limits.ttl_us_max);
        let bounds = self.in_decision(client, floor, &mut Aftermath::default(), |stage| {
            limits(stage.scene.keys.limits())
        });
        let (least, most) = bounds.map_or((0, 0), |(bounds, _)| bounds);
        if (least..=most).contains(&ttl_us) {
            return Ok(ttl_us);
        }
        let (least, most) = (least / 1000, most / 1000);
        Err(Reply::error(format!("ERR the TTL has to be {least} to {most} milliseconds")))
    }

    /// Opens a lasting session or takes one up again.
    fn lasting(&mut self, client: &mut Connection, wanted: Wanted, floor: &mut dyn Floor) {
        if let Some(own) = &mut client.session.lasting {
            if wanted.resume.is_some_and(|id| id != own.id) {
                let text = "ERR this connection has a session; LEASE.SESSION CLOSE ends it";
                return client.say(&Reply::error(text), 0);
            }
            own.ttl_us = wanted.ttl_us;
            return self.say_lasting(client);
        }
        let op = Op::OpenSession { ttl_us: None, resume: wanted.resume, label: label(client) };
        self.submit(client, SessionId::NONE, op, Asked::Lasting(wanted), floor);
    }

    fn take_up(
        &mut self,
        client: &mut Connection,
        id: &[u8],
        proof: &[u8],
        ttl_us: u64,
        floor: &mut dyn Floor,
    ) {
        let id = integer(id).and_then(|id| u64::try_from(id).ok()).map(SessionId);
        let good = |id: &SessionId| self.house.proofs.fits(proof, *id, &client.session);
        let Some(id) = id.filter(good) else {
            let text = "NOSESSION this session was not given to you by this server; open one of \
                        your own";
            return client.say(&Reply::error(text), 0);
        };
        self.take_from_others(id);
        self.lasting(client, Wanted { ttl_us, resume: Some(id) }, floor);
    }

    /// Ends the connection that has a session which is taken up elsewhere: it is broken, or its
    /// client believes so.
    fn take_from_others(&mut self, id: SessionId) {
        let has = |other: &&Connection| match (&other.session.lasting, &other.session.waits) {
            (Some(lasting), _) => lasting.id == id,
            (None, Some(Waits::Shard(_, Asked::Lasting(wanted)))) => wanted.resume == Some(id),
            _ => false,
        };
        let Some(other) = self.others().find(has).map(|other| other.id) else { return };
        self.with_client(other, |door, other| {
            if let Some(lasting) = other.session.lasting.take() {
                door.house.tickets.remove(&lasting.ticket);
            } else if let Some(Waits::Shard(ticket, _)) = other.session.waits.take() {
                door.house.tickets.remove(&ticket);
            }
        });
        self.cut_off(other);
    }

    /// The shard opened a lasting session, or has one still.
    pub(crate) fn got_lasting(
        &mut self,
        client: &mut Connection,
        id: SessionId,
        ticket: u32,
        wanted: &Wanted,
    ) {
        client.session.lasting = Some(Lasting { id, ttl_us: wanted.ttl_us, ticket });
        self.say_lasting(client);
        self.resume(client);
    }

    fn say_lasting(&mut self, client: &mut Connection) {
        let Some(lasting) = &client.session.lasting else { return };
        let proof = self.house.proofs.of(lasting.id, &client.session);
        let reply = vec![Reply::Int(lasting.id.0 as i64), Reply::bulk(proof)];
        client.say(&Reply::Array(reply), 0);
    }

    /// Ends the lasting session, or else the connection's own, and what it holds.
    fn close_session(&mut self, client: &mut Connection, floor: &mut dyn Floor) {
        let id = match client.session.lasting.take() {
            Some(lasting) => {
                self.house.tickets.remove(&lasting.ticket);
                lasting.id
            }
            None if client.session.shard == SessionId::NONE => {
                return client.say(&Reply::Int(0), 0);
            }
            None => {
                // Its consumers end with it.
                self.stop_all(client, floor);
                self.house.tickets.remove(&client.session.shard_ticket);
                std::mem::replace(&mut client.session.shard, SessionId::NONE)
            }
        };
        self.submit(client, id, Op::CloseSession { lost: false }, Asked::Done, floor);
    }

    /// A client is gone: what it asked the shard for is withdrawn, and its sessions end, now or
    /// after their time.
    pub(crate) fn leave_shard(&mut self, client: &mut Connection, floor: &mut dyn Floor) {
        match client.session.waits.take() {
            // The answer is under way; `heard` closes what it brings.
            Some(Waits::Shard(_, Asked::Session(_))) => {}
            Some(Waits::Shard(ticket, Asked::Lasting(wanted))) => {
                if let Some(id) = wanted.resume {
                    self.house.tickets.remove(&ticket);
                    self.leave_behind(id, wanted.ttl_us, floor);
                }
            }
            Some(Waits::Shard(ticket, _)) => {
                self.house.tickets.remove(&ticket);
                let op = Op::Cancel(Ticket(resident_ticket(ticket)));
                floor.submit(self.house.command(client.session.asked_in, op));
            }
            _ => {}
        }
        if let Some(lasting) = client.session.lasting.take() {
            self.house.tickets.remove(&lasting.ticket);
            self.leave_behind(lasting.id, lasting.ttl_us, floor);
        }
        if client.session.shard != SessionId::NONE {
            for ticket in client.session.consumes.keys() {
                self.house.tickets.remove(ticket);
            }
            self.house.tickets.remove(&client.session.shard_ticket);
            let op = Op::CloseSession { lost: true };
            floor.submit(self.house.command(client.session.shard, op));
        }
    }

    /// A session without a connection: its time begins.
    fn leave_behind(&mut self, id: SessionId, ttl_us: u64, floor: &mut dyn Floor) {
        let op = Op::OpenSession { ttl_us: Some(ttl_us), resume: Some(id), label: None };
        floor.submit(self.house.command(SessionId::NONE, op));
    }

    /// Ends sessions whose clients were gone before they were open.
    pub(crate) fn close_unclaimed(&mut self, floor: &mut dyn Floor) {
        for id in std::mem::take(&mut self.house.unclaimed) {
            floor.submit(self.house.command(id, Op::CloseSession { lost: true }));
        }
    }
}

fn label(client: &Connection) -> Option<Arc<str>> {
    let name = &client.session.name;
    (!name.is_empty()).then(|| String::from_utf8_lossy(name).into())
}
