//! What clients ask for.

use leasehold_core::{
    Acquire, Commit, Consume, Due, Expect, HoldRef, Message as Body, Op, Publish, RegisterTtl,
    RequestId, SessionId, Target, Tenure, Token, Verdict, Wait, Wants, Write,
};
use leasehold_env::Disk;

use super::{
    DEAD, LOCKS, Pending, QUEUES, REGISTERS, Simulation, config, lock_name, mode_for, name,
    register_key,
};
use crate::clock::{MS, SECOND};
use crate::verdict::{Bundle, Hold, Message, Want, body_of};

impl<D: Disk> Simulation<D> {
    /// One client has one wish.
    pub(super) fn wish(&mut self) {
        let client = self.chance.below(self.clients.len() as u64) as usize;
        let known = &self.clients[client];
        let Some(session) = known.session.filter(|_| !known.opening && !known.resumes) else {
            return self.open_session(client);
        };
        if self.chance.percent(self.habits.publish_percent) {
            return self.publish();
        }
        match self.chance.below(100) {
            0..12 => self.acquire(client, session),
            12..18 => self.renew(session),
            18..28 => self.release(session),
            28..34 => self.consume(client, session),
            34..74 => self.settle(client, session),
            74..78 => self.keep_alive(session),
            78..86 => self.write(),
            86..90 => {
                let key = self.chance.below(REGISTERS as u64) as usize;
                self.send(session, None, Op::Read(register_key(key)), Pending::Read(key));
            }
            90..96 => self.commit(client, session),
            96..98 => self.settle_stale(client, session),
            98 => {
                self.send(session, None, Op::Peek(name(QUEUES[0]), 5), Pending::Other);
            }
            _ => self.end_session(client, session),
        }
    }

    fn open_session(&mut self, client: usize) {
        if self.clients[client].opening {
            return;
        }
        self.clients[client].opening = true;
        let ttl_us = [None, Some(3 * SECOND), Some(20 * SECOND)][self.chance.below(3) as usize];
        let resume = self.clients[client].session.filter(|_| self.clients[client].resumes);
        let op = Op::OpenSession { ttl_us, resume, label: None };
        self.send(SessionId::NONE, None, op, Pending::Session { client, ttl_us });
    }

    fn end_session(&mut self, client: usize, session: SessionId) {
        if !self.chance.percent(20) {
            return;
        }
        let lost = self.chance.percent(50);
        // What a session has is uncertain from the moment its end is asked for.
        self.ledger.sessions.remove(&session.0);
        self.clients[client].session = None;
        self.clients[client].consuming.clear();
        self.clients[client].open.clear();
        self.send(session, None, Op::CloseSession { lost }, Pending::Other);
    }

    fn keep_alive(&mut self, session: SessionId) {
        let now = self.now();
        if let Some(known) = self.ledger.sessions.get_mut(&session.0)
            && known.until.is_none_or(|until| now < until)
            && let Some(ttl) = known.ttl_us
        {
            known.until = Some(now + ttl);
        }
        self.send(session, None, Op::KeepAlive, Pending::Other);
    }

    /// A new message for a queue: its number, and what is to be sent.
    fn new_message(&mut self) -> (u64, Publish) {
        self.serial += 1;
        let id = self.serial;
        let queue = self.chance.below(QUEUES.len() as u64 - 1) as usize;
        let mut body = Body::new(body_of(id));
        let mut message = Message { queue, ordered: true, ..Message::default() };
        match queue {
            1 => {
                body.priority = self.chance.below(6) as u8;
                message.lane = body.priority.min(config(queue).priority_max);
            }
            2 => {
                message.key = 1 + self.chance.below(4) as u8;
                body.more().key = Some(format!("key-{}", message.key).into());
            }
            3 => {
                let delay = MS + self.chance.below(6 * SECOND);
                body.more().due = Due::After(delay);
                message.due = self.wall() + delay;
                message.ordered = false;
            }
            _ => body.transient = self.chance.percent(10),
        }
        message.transient = body.transient;
        self.ledger.publishing(id, message);
        let target = Target::QueueNamed(name(QUEUES[queue]));
        (id, Publish { target, message: body, mandatory: true })
    }

    fn publish(&mut self) {
        let now = self.now();
        if let Some(repeat) = self.repeats.pop()
            && let Some(fresh) = repeat.fresh
            && now < repeat.until
        {
            return self.publish_again(repeat.id, repeat.request, fresh);
        }
        let (id, publish) = self.new_message();
        let request = self.chance.percent(40).then(|| {
            let request = RequestId(u128::from(id) << 64 | u128::from(self.chance.next_u64()));
            self.requests.insert(id, request);
            request
        });
        self.send(SessionId::NONE, request, Op::Publish(Box::new(publish)), Pending::Publish(id));
    }

    /// No answer came before the crash: asks again under the same request id. If it had happened
    /// the message must not be there twice; if not it is new, at the end of a plain queue.
    fn publish_again(&mut self, id: u64, request: RequestId, fresh: bool) {
        let target = Target::QueueNamed(name(QUEUES[0]));
        let publish = Publish { target, message: Body::new(body_of(id)), mandatory: true };
        let pending = if fresh {
            self.ledger.publishing(id, Message::default());
            Pending::Publish(id)
        } else {
            self.requests.remove(&id);
            Pending::Other
        };
        self.send(SessionId::NONE, Some(request), Op::Publish(Box::new(publish)), pending);
    }

    fn consume(&mut self, client: usize, session: SessionId) {
        let queue = self.chance.below(QUEUES.len() as u64) as usize;
        if self.clients[client].consuming.contains(&queue) {
            return;
        }
        self.clients[client].consuming.push(queue);
        let consume = Consume {
            queue: name(QUEUES[queue]),
            credit: 1 + self.chance.below(6) as u32,
            once: None,
            no_ack: false,
            exclusive: false,
            label: None,
        };
        let op = Op::Consume(Box::new(consume));
        self.send(session, None, op, Pending::Consume { client, queue });
    }

    /// Notes in the books that a delivery is being settled, and how.
    fn settling(&mut self, id: u64, dead: bool) -> (Verdict, bool, bool) {
        let verdict = match self.chance.below(100) {
            0..70 => Verdict::Ack,
            70..80 => Verdict::Nack { delay_us: 0 },
            80..88 => Verdict::Nack { delay_us: MS + self.chance.below(2 * SECOND) },
            _ if dead => Verdict::Ack,
            _ => Verdict::Reject,
        };
        let message = self.ledger.messages.get_mut(&id).expect("it was delivered");
        message.open = None;
        let ack = verdict == Verdict::Ack;
        message.acks += u32::from(ack);
        (verdict, ack, matches!(verdict, Verdict::Nack { delay_us: 1.. }))
    }

    fn is_in_dead(&self, id: u64) -> bool {
        self.ledger.messages[&id].delivered_in.contains(&DEAD)
    }

    fn settle(&mut self, client: usize, session: SessionId) {
        if self.clients[client].open.is_empty() {
            return;
        }
        let many = self.clients[client].open.len() as u64;
        let i = self.chance.below(many) as usize;
        let (receipt, id) = self.clients[client].open.swap_remove(i);
        let (verdict, ack, delayed) = self.settling(id, self.is_in_dead(id));
        let pending = Pending::Settle { id, ack, delayed };
        self.send(session, None, Op::Settle(receipt, verdict), pending);
    }

    /// Shows a receipt from before the restart. It must be refused.
    fn settle_stale(&mut self, client: usize, session: SessionId) {
        if let Some(receipt) = self.clients[client].stale.pop() {
            self.send(session, None, Op::Settle(receipt, Verdict::Ack), Pending::Stale);
        }
    }

    fn acquire(&mut self, client: usize, session: SessionId) {
        let first = self.chance.below(LOCKS as u64) as usize;
        let mut locks = vec![first];
        if self.chance.percent(20) {
            locks.push((first + 1) % LOCKS);
        }
        let wants: Vec<Want> = locks
            .into_iter()
            .map(|lock| Want {
                name: lock_name(lock).as_str().to_owned(),
                mode: mode_for(lock, &mut self.chance),
            })
            .collect();
        let (ttl_us, bound) = match self.chance.below(3) {
            0 => (Some(MS + self.chance.below(4 * SECOND)), false),
            1 => (Some(MS + self.chance.below(30 * SECOND)), true),
            _ => (None, true),
        };
        let wait = match self.chance.below(3) {
            0 => Wait::No,
            1 => Wait::AtMost(MS + self.chance.below(2 * SECOND)),
            _ => Wait::Forever,
        };
        self.serial += 1;
        let hold = self.serial;
        let list: Vec<_> = wants.iter().map(|want| (name(&want.name), want.mode)).collect();
        let acquire = Acquire {
            wants: match &list[..] {
                [(name, mode)] => Wants::One(name.clone(), *mode),
                _ => Wants::Many(list.into()),
            },
            hold,
            reentrant: false,
            tenure: Tenure { ttl_us, session: bound },
            wait,
            lock_delay_us: if self.chance.percent(20) { 100 * MS } else { 0 },
            label: None,
        };
        self.ledger.acquiring.insert(hold, wants.clone());
        if bound {
            self.ledger.bound.insert(hold);
        }
        let until = ttl_us.map(|ttl| self.now() + ttl);
        let hold = Hold { wants, session: session.0, hold, until, bound, releasing: false };
        let pending = Pending::Acquire { client, hold };
        self.send(session, None, Op::Acquire(Box::new(acquire)), pending);
    }

    /// One of the session's holds that stands.
    fn some_hold(&mut self, session: SessionId) -> Option<(u64, HoldRef)> {
        let now = self.now();
        let own = self.ledger.holds.iter().filter(|(_, hold)| hold.session == session.0);
        let own: Vec<(u64, HoldRef)> = own
            .filter(|(_, hold)| self.ledger.stands(hold, now))
            .map(|(token, hold)| {
                let lock = name(&hold.wants[0].name);
                (*token, HoldRef { name: lock, token: Token(*token), hold: hold.hold })
            })
            .collect();
        let many = own.len() as u64;
        (many > 0).then(|| own[self.chance.below(many) as usize].clone())
    }

    fn renew(&mut self, session: SessionId) {
        let Some((token, hold)) = self.some_hold(session) else { return };
        // The deadline of a hold without one would become nearer: that is not wanted here.
        if self.ledger.holds[&token].until.is_some() {
            let op = Op::Renew { hold, ttl_us: Some(30 * SECOND) };
            self.send(session, None, op, Pending::Renew(token));
        }
    }

    fn release(&mut self, session: SessionId) {
        let Some((token, hold)) = self.some_hold(session) else { return };
        self.ledger.holds.get_mut(&token).expect("just found").releasing = true;
        self.send(session, None, Op::Release(hold), Pending::Release(token));
    }

    /// A write to a register, entered in the books as unknown.
    fn new_write(&mut self) -> (usize, Option<u64>, Write) {
        let key = self.chance.below(REGISTERS as u64) as usize;
        self.serial += 1;
        let value = self.chance.percent(85).then_some(self.serial);
        let register = self.ledger.registers.entry(key).or_default();
        register.unknown.push(value);
        let version = register.confirmed.filter(|(_, v)| v.is_some()).map(|(version, _)| version);
        let expect = match (self.chance.below(3), version) {
            (0, Some(version)) => Expect::Version(version),
            (0, None) => Expect::Absent,
            _ => Expect::Anything,
        };
        let bytes = value.map(|value| value.to_le_bytes().to_vec().into());
        let write = Write {
            key: register_key(key),
            value: bytes,
            expect,
            ttl: RegisterTtl::Never,
            guard: None,
        };
        (key, value, write)
    }

    fn write(&mut self) {
        let (key, value, write) = self.new_write();
        self.send(SessionId::NONE, None, Op::Write(Box::new(write)), Pending::Write(key, value));
    }

    /// Now and then another client that has a session.
    fn some_client(&mut self, client: usize, session: SessionId) -> (usize, SessionId) {
        let other = self.chance.below(self.clients.len() as u64) as usize;
        match self.clients[other].session {
            Some(theirs) if self.chance.percent(30) => (other, theirs),
            _ => (client, session),
        }
    }

    /// Acks, publishes, a write and a release at once, as a worker does that passes work on. Now
    /// and then they are of several clients.
    fn commit(&mut self, client: usize, session: SessionId) {
        let mut commit = Commit::default();
        let mut bundle = Bundle::default();
        for _ in 0..self.chance.below(3) {
            let (client, session) = self.some_client(client, session);
            let Some((receipt, id)) = self.clients[client].open.pop() else { break };
            let message = self.ledger.messages.get_mut(&id).expect("it was delivered");
            message.open = None;
            message.acks += 1;
            commit.settles.push((session, receipt, Verdict::Ack));
            bundle.acks.push(id);
        }
        for _ in 0..1 + self.chance.below(2) {
            let (id, publish) = self.new_message();
            commit.publishes.push(publish);
            bundle.publishes.push(id);
        }
        let (_, holder) = self.some_client(client, session);
        let held = self.some_hold(holder);
        if self.chance.percent(60) {
            let (key, value, mut write) = self.new_write();
            write.guard = held.as_ref().map(|(_, hold)| (hold.name.clone(), hold.token));
            if let Some(value) = value {
                commit.writes.push(write);
                bundle.write = Some((key, value));
            } else {
                self.ledger.unwritten(key, value);
            }
        }
        if let Some((token, hold)) = held.filter(|_| self.chance.percent(50)) {
            self.ledger.holds.get_mut(&token).expect("just found").releasing = true;
            commit.releases.push((holder, hold));
            bundle.release = Some(token);
        }
        self.send(session, None, Op::Commit(Box::new(commit)), Pending::Commit(bundle));
    }
}
