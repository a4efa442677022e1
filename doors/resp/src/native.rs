//! Leases and queues of the shard for any client that speaks RESP.
//!
//! These are commands of the shard itself: they wait there, in its lines, woken and never polling,
//! and everybody who uses another door stands in the same lines. A client that waits is not read
//! until it is answered. What it holds without a session lives by its TTL; deliveries, and leases
//! that are entered again or end with it, belong to a session (see `lasting`).

use std::sync::Arc;

use leasehold_core::{
    Acquire, Command as Ask, Consume, Delivery, Due, HoldRef, Message, Mode, Name, Op, Outcome,
    Publish, QueueConfig, Receipt, Refusal, SessionId, Target, Tenure, Ticket, Token, Verdict,
    Wait, Wants, message_of, queue::DeadLetter,
};
use leasehold_node::{Floor, Notice};

use crate::Reply;
use crate::commands::numbers::integer;
use crate::connection::Connection;
use crate::door::RespDoor;
use crate::execute::kept;
use crate::session::Waits;
use crate::table::{Command, Entry};
use crate::waiting::Asked;

/// A request that cannot be carried out as it stands.
type Wrong = Reply;

/// Messages in flight to one consumer unless it says otherwise.
const CREDIT: u32 = 100;

impl RespDoor {
    /// Asks the shard on a client's behalf.
    pub(crate) fn ask_shard(
        &mut self,
        client: &mut Connection,
        entry: &'static Entry,
        args: &[&[u8]],
        floor: &mut dyn Floor,
    ) {
        match entry.id {
            Command::LeaseSession => return self.lease_session(client, args, floor),
            Command::QueueStop => return self.stop(client, args, floor),
            _ => {}
        }
        let mut wish = match wish(entry.id, args, client.session.resp3) {
            Ok(wish) => wish,
            Err(wrong) => return client.say(&wrong, 0),
        };
        if client.session.lacks(wish.needs) {
            return self.open_session(client, kept(args), floor);
        }
        if let Op::Consume(consume) = &wish.op
            && wish.asked.is_consumer()
            && let Some((_, id)) = client.session.consumer_of(args[1])
        {
            (wish.op, wish.asked) = (Op::Credit(id, consume.credit), Asked::Done);
        }
        let session = match (&wish.op, wish.needs) {
            // Whoever took it in a session gives it back in that session.
            (Op::Renew { hold, .. } | Op::Release(hold), _) => {
                client.session.own(floor.session_of(hold.token))
            }
            (_, Needs::Nothing) => SessionId::NONE,
            (_, Needs::Leases) => client.session.for_leases(),
            (_, Needs::Deliveries) => client.session.shard,
        };
        self.submit(client, session, wish.op, wish.asked, floor);
    }

    pub(crate) fn submit(
        &mut self,
        client: &mut Connection,
        session: SessionId,
        op: Op,
        asked: Asked,
        floor: &mut dyn Floor,
    ) {
        let ticket = self.house.ticket(client.id);
        client.session.waits = Some(Waits::Shard(ticket, asked));
        client.session.asked_in = session;
        floor.submit(Ask { ticket: Ticket(u64::from(ticket)), session, request: None, op });
    }

    /// QUEUE.STOP. What the consumer has in flight can still be settled.
    fn stop(&mut self, client: &mut Connection, args: &[&[u8]], floor: &mut dyn Floor) {
        if args.len() > 2 {
            return client.say(&syntax(), 0);
        }
        let Some((ticket, id)) = client.session.consumer_of(args[1]) else {
            return client.say(&Reply::Int(0), 0);
        };
        let session = client.session.shard;
        self.submit(client, session, Op::StopConsumer(id), Asked::Stop(ticket), floor);
    }

    /// Ends all consumers of a client, which gets no more messages.
    pub(crate) fn stop_all(&mut self, client: &mut Connection, floor: &mut dyn Floor) {
        for (ticket, (_, id)) in std::mem::take(&mut client.session.consumes) {
            self.house.tickets.remove(&ticket);
            floor.submit(self.house.command(client.session.shard, Op::StopConsumer(id)));
        }
    }

    /// The shard told something.
    pub(crate) fn heard(&mut self, ticket: u32, notice: Notice) {
        let Some(id) = self.house.tickets.get(&ticket).copied() else { return };
        let opened = match &notice {
            Notice::Reply(Ok(Outcome::Session { id, .. })) => Some(*id),
            _ => None,
        };
        let known = self.with_client(id, |door, client| door.told(client, ticket, notice));
        if known.is_none() {
            self.house.tickets.remove(&ticket);
            self.house.unclaimed.extend(opened);
        }
    }

    fn told(&mut self, client: &mut Connection, ticket: u32, notice: Notice) {
        let waits = match client.session.waits.take() {
            Some(Waits::Shard(own, asked)) if own == ticket => Some(asked),
            other => {
                client.session.waits = other;
                None
            }
        };
        match (notice, waits) {
            (Notice::Reply(Ok(Outcome::Session { id, .. })), Some(Asked::Session(again))) => {
                // The ticket stays: losses of what the session holds come with it.
                (client.session.shard, client.session.shard_ticket) = (id, ticket);
                client.session.again = Some(again);
                self.resume(client);
            }
            (Notice::Reply(Ok(Outcome::Session { id, .. })), Some(Asked::Lasting(wanted))) => {
                self.got_lasting(client, id, ticket, &wanted);
            }
            (Notice::Reply(Ok(Outcome::Consuming(id))), Some(Asked::Consumer(queue))) => {
                client.session.consumes.insert(ticket, (queue, id));
                client.say(&Reply::OK, 0);
                self.resume(client);
            }
            // A one-shot consumer is told its number first and its message after that.
            (Notice::Reply(Ok(Outcome::Consuming(_))), Some(asked)) => {
                client.session.waits = Some(Waits::Shard(ticket, asked));
            }
            (Notice::Reply(result), Some(Asked::Stop(consumer))) => {
                self.house.tickets.remove(&ticket);
                self.house.tickets.remove(&consumer);
                client.session.consumes.remove(&consumer);
                // It may have ended with its queue in the meantime.
                client.say(&Reply::Int(i64::from(result.is_ok())), 0);
                self.resume(client);
            }
            (Notice::Delivery(delivery), Some(Asked::Message)) => {
                self.house.tickets.remove(&ticket);
                let reply = message(&delivery.0, &delivery.1);
                client.say(&reply, 0);
                self.resume(client);
            }
            (Notice::Reply(result), Some(asked)) => {
                self.house.tickets.remove(&ticket);
                client.say(&answer(result, &asked), 0);
                self.resume(client);
            }
            (notice, waits) => {
                if let Some(asked) = waits {
                    client.session.waits = Some(Waits::Shard(ticket, asked));
                }
                self.unasked(client, ticket, notice);
            }
        }
    }

    /// Something that the client did not wait for; it is told if it reads RESP3.
    fn unasked(&mut self, client: &mut Connection, ticket: u32, notice: Notice) {
        let text = |text: String| Reply::bulk(text);
        let told = match notice {
            Notice::HoldEnded(token, ending) => vec![
                Reply::bulk("lease-lost"),
                Reply::Int(token.0 as i64),
                text(format!("{ending:?}").to_ascii_lowercase()),
            ],
            Notice::DeliveryEnded(receipt, ending) => vec![
                Reply::bulk("delivery-lost"),
                text(receipt_text(receipt)),
                text(format!("{ending:?}").to_ascii_lowercase()),
            ],
            Notice::SessionEnded(_) => {
                self.house.tickets.remove(&ticket);
                if client.session.lasting.take_if(|lasting| lasting.ticket == ticket).is_none() {
                    client.session.shard = SessionId::NONE;
                }
                vec![Reply::bulk("session-lost")]
            }
            Notice::Delivery(delivery) => {
                let Some((queue, _)) = client.session.consumes.get(&ticket) else { return };
                let name = Reply::bulk(queue.as_bytes());
                vec![Reply::bulk("delivery"), name, message(&delivery.0, &delivery.1)]
            }
            Notice::ConsumerEnded(_) => {
                self.house.tickets.remove(&ticket);
                let Some((queue, _)) = client.session.consumes.remove(&ticket) else { return };
                vec![Reply::bulk("consumer-ended"), Reply::bulk(queue.as_bytes())]
            }
            Notice::Reply(_) | Notice::Peeked(_) => return,
        };
        if client.session.resp3 {
            client.push(&Reply::Push(told), 0);
        }
    }
}

/// What a command asks of the shard.
pub(crate) struct Wish {
    pub op: Op,
    asked: Asked,
    needs: Needs,
}

/// What kind of session a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// None.
    Nothing,
    /// One that may hold leases: the lasting one if there is one.
    Leases,
    /// The connection's own.
    Deliveries,
}

impl Wish {
    fn plain(op: Op, asked: Asked) -> Result<Self, Wrong> {
        Ok(Self { op, asked, needs: Needs::Nothing })
    }

    fn in_session(op: Op, asked: Asked) -> Result<Self, Wrong> {
        Ok(Self { op, asked, needs: Needs::Deliveries })
    }
}

pub(crate) fn wish(command: Command, args: &[&[u8]], resp3: bool) -> Result<Wish, Wrong> {
    let target = name(args[1])?;
    let receipt = || receipt(args.get(2).copied().unwrap_or_default());
    match command {
        Command::LeaseAcquire => acquire(target, args),
        Command::LeaseRenew => {
            let (hold, rest) = hold(target, args)?;
            let mut words = Words(rest);
            let mut ttl_us = None;
            while let Some(word) = words.next() {
                match word.as_slice() {
                    b"px" => ttl_us = Some(words.milliseconds()?),
                    _ => return Err(syntax()),
                }
            }
            Wish::plain(Op::Renew { hold, ttl_us }, Asked::Left)
        }
        Command::LeaseRelease => {
            let (hold, rest) = hold(target, args)?;
            none_left(rest)?;
            Wish::plain(Op::Release(hold), Asked::Done)
        }
        Command::LeaseCheck => {
            let token = args.get(2).and_then(|token| integer(token)).ok_or_else(|| {
                Reply::error("ERR LEASE.CHECK takes the lock and its fencing token")
            })?;
            Wish::plain(Op::Check(target, Token(token.unsigned_abs())), Asked::Done)
        }
        Command::LeaseInspect => Wish::plain(Op::InspectLock(target), Asked::View),
        Command::QueueDeclare => declare(target, &args[2..]),
        Command::QueueDelete => {
            let op = Op::DeleteQueue { name: target, if_unused: false, if_empty: false };
            Wish::plain(op, Asked::Done)
        }
        Command::QueuePurge => Wish::plain(Op::Purge(target), Asked::Done),
        Command::QueueInfo => Wish::plain(Op::InspectQueue(target), Asked::View),
        Command::QueuePublish => publish(target, args),
        Command::QueueReceive => {
            let mut wait = Wait::No;
            let mut words = Words(&args[2..]);
            while let Some(word) = words.next() {
                match word.as_slice() {
                    b"wait" => wait = Wait::AtMost(words.milliseconds()?),
                    _ => return Err(syntax()),
                }
            }
            Wish::in_session(consume(target, 1, Some(wait)), Asked::Message)
        }
        Command::QueueConsume => {
            if !resp3 {
                let text = "ERR QUEUE.CONSUME pushes messages, which needs RESP3: send HELLO 3 \
                            first, or use QUEUE.RECEIVE";
                return Err(Reply::error(text));
            }
            let mut credit = CREDIT;
            let mut words = Words(&args[2..]);
            while let Some(word) = words.next() {
                match word.as_slice() {
                    b"credit" => credit = words.number()?,
                    _ => return Err(syntax()),
                }
            }
            let asked = Asked::Consumer(target.clone());
            Wish::in_session(consume(target, credit, None), asked)
        }
        Command::QueueAck => Wish::in_session(Op::Settle(receipt()?, Verdict::Ack), Asked::Done),
        Command::QueueReject => {
            Wish::in_session(Op::Settle(receipt()?, Verdict::Reject), Asked::Done)
        }
        Command::QueueNack => {
            let mut delay_us = 0;
            let mut words = Words(&args[3..]);
            while let Some(word) = words.next() {
                match word.as_slice() {
                    b"delay" => delay_us = words.milliseconds()?,
                    _ => return Err(syntax()),
                }
            }
            Wish::in_session(Op::Settle(receipt()?, Verdict::Nack { delay_us }), Asked::Done)
        }
        Command::QueueExtend => {
            let mut words = Words(&args[3..]);
            let lease_us = words.milliseconds()?;
            Wish::in_session(Op::Extend(receipt()?, lease_us), Asked::Done)
        }
        _ => Err(Reply::error("ERR this command is not offered here")),
    }
}

/// `LEASE.ACQUIRE name holder PX ms [WAIT ms] [SHARED | PERMITS n OF m] [REENTRANT] [SESSION]
/// [META text]`
fn acquire(name: Name, args: &[&[u8]]) -> Result<Wish, Wrong> {
    let mut words = Words(&args[3..]);
    let (mut ttl_us, mut wait, mut mode) = (None, Wait::No, Mode::Exclusive);
    let (mut reentrant, mut session) = (false, false);
    let mut label = String::from_utf8_lossy(args[2]).into_owned();
    while let Some(word) = words.next() {
        match word.as_slice() {
            b"px" => ttl_us = Some(words.milliseconds()?),
            b"wait" => wait = Wait::AtMost(words.milliseconds()?),
            b"shared" => mode = Mode::Shared,
            b"permits" => {
                let take = words.number()?;
                if words.next().as_deref() != Some(b"of") {
                    return Err(syntax());
                }
                mode = Mode::Permits { take, of: words.number()? };
            }
            b"reentrant" => reentrant = true,
            b"session" => session = true,
            b"meta" => {
                let text = words.raw().ok_or_else(syntax)?;
                label = format!("{label} {}", String::from_utf8_lossy(text));
            }
            _ => return Err(syntax()),
        }
    }
    if ttl_us.is_none() && !session {
        let text = "ERR a lease needs an end: give PX milliseconds and renew it with LEASE.RENEW, \
                    or let it end with the SESSION";
        return Err(Reply::error(text));
    }
    let acquire = Acquire {
        wants: Wants::One(name, mode),
        hold: hold_number(args[2]),
        reentrant,
        tenure: Tenure { ttl_us, session },
        wait,
        lock_delay_us: 0,
        label: Some(label.into()),
    };
    // Entering again needs a session to tell holders apart.
    let needs = if reentrant || session { Needs::Leases } else { Needs::Nothing };
    Ok(Wish { op: Op::Acquire(Box::new(acquire)), asked: Asked::Lease, needs })
}

fn hold<'a>(name: Name, args: &'a [&'a [u8]]) -> Result<(HoldRef, &'a [&'a [u8]]), Wrong> {
    let token = args.get(3).and_then(|token| integer(token)).ok_or_else(|| {
        let command = String::from_utf8_lossy(args[0]).to_ascii_uppercase();
        Reply::error(format!("ERR {command} takes the lock, its holder and its fencing token"))
    })?;
    let token = Token(token.unsigned_abs());
    Ok((HoldRef { name, token, hold: hold_number(args[2]) }, &args[4..]))
}

fn declare(name: Name, options: &[&[u8]]) -> Result<Wish, Wrong> {
    let mut config = QueueConfig::default();
    let mut words = Words(options);
    while let Some(word) = words.next() {
        match word.as_slice() {
            b"lease" => config.lease_us = Some(words.milliseconds()?),
            b"ttl" => config.ttl_us = Some(words.milliseconds()?),
            b"dedup" => config.dedup_us = Some(words.milliseconds()?),
            b"maxlen" => config.messages_max = Some(u64::from(words.number()?)),
            b"attempts" => {
                let most = u16::try_from(words.number()?).map_err(|_| syntax())?;
                config.deliveries_max = Some(most);
            }
            b"priorities" => {
                config.priority_max = u8::try_from(words.number()?).map_err(|_| syntax())?;
            }
            b"dead" => {
                let queue = words.raw().ok_or_else(syntax)?;
                let queue = Arc::from(self::name(queue)?.as_str());
                config.dead_letter = Some(DeadLetter { exchange: None, routing_key: Some(queue) });
            }
            b"transient" => config.durable = false,
            _ => return Err(syntax()),
        }
    }
    Wish::plain(Op::DeclareQueue(name, Box::new(config)), Asked::Done)
}

/// `QUEUE.PUBLISH queue body [PRIORITY n] [DELAY ms] [TTL ms] [ID text] [KEY text]`
fn publish(queue: Name, args: &[&[u8]]) -> Result<Wish, Wrong> {
    let mut message = Message::new(args[2]);
    let mut words = Words(&args[3..]);
    while let Some(word) = words.next() {
        match word.as_slice() {
            b"priority" => {
                message.priority = u8::try_from(words.number()?).map_err(|_| syntax())?;
            }
            b"delay" => message.more().due = Due::After(words.milliseconds()?),
            b"ttl" => message.more().ttl_us = Some(words.milliseconds()?),
            b"id" => {
                let text = words.raw().ok_or_else(syntax)?;
                message.more().id = Some(String::from_utf8_lossy(text).into());
            }
            b"key" => {
                let text = words.raw().ok_or_else(syntax)?;
                message.more().key = Some(String::from_utf8_lossy(text).into());
            }
            _ => return Err(syntax()),
        }
    }
    let publish = Publish { target: Target::QueueNamed(queue), message, mandatory: true };
    Wish::plain(Op::Publish(Box::new(publish)), Asked::Done)
}

fn consume(queue: Name, credit: u32, once: Option<Wait>) -> Op {
    Op::Consume(Box::new(Consume {
        queue,
        credit,
        once,
        no_ack: false,
        exclusive: false,
        label: None,
    }))
}

/// Options of a command, one after the other.
pub(crate) struct Words<'a>(pub &'a [&'a [u8]]);

impl<'a> Words<'a> {
    fn raw(&mut self) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// The next in small letters.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        self.raw().map(<[u8]>::to_ascii_lowercase)
    }

    fn number(&mut self) -> Result<u32, Wrong> {
        let number = self.raw().and_then(integer).and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| Reply::error("ERR value is not an integer or out of range"))
    }

    /// A time in milliseconds; gives microseconds.
    pub fn milliseconds(&mut self) -> Result<u64, Wrong> {
        let number = self.raw().and_then(integer).and_then(|number| u64::try_from(number).ok());
        let micros = number.and_then(|number| number.checked_mul(1000));
        micros.ok_or_else(|| Reply::error("ERR the time is not a number of milliseconds"))
    }
}

pub(crate) fn syntax() -> Wrong {
    Reply::error("ERR syntax error")
}

fn none_left(rest: &[&[u8]]) -> Result<(), Wrong> {
    if rest.is_empty() { Ok(()) } else { Err(syntax()) }
}

fn name(bytes: &[u8]) -> Result<Name, Wrong> {
    let text = std::str::from_utf8(bytes).map_err(|_| Reply::error("ERR the name is not UTF-8"))?;
    Name::new(text).map_err(|error| Reply::error(format!("ERR {error}")))
}

/// The number that the shard knows a holder by (FNV-1a, 64 bits). It is no secret: the token is
/// what nobody else has.
fn hold_number(holder: &[u8]) -> u64 {
    holder.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn receipt_text(receipt: Receipt) -> String {
    format!("{}-{}", receipt.slot, receipt.token.0)
}

fn receipt(text: &[u8]) -> Result<Receipt, Wrong> {
    let parts = std::str::from_utf8(text).ok().and_then(|text| text.split_once('-'));
    let numbers = parts.and_then(|(slot, token)| Some((slot.parse().ok()?, token.parse().ok()?)));
    let (slot, token) = numbers.ok_or_else(|| {
        Reply::error("ERR this is no receipt; give the one that came with the message")
    })?;
    Ok(Receipt { slot, token: Token(token) })
}

/// A message with its receipt, attempt and body.
fn message(delivery: &Delivery, record: &[u8]) -> Reply {
    let body = message_of(record).map(|envelope| Reply::bulk(envelope.body));
    Reply::Array(vec![
        Reply::bulk(receipt_text(delivery.receipt)),
        Reply::Int(i64::from(delivery.attempt)),
        body.unwrap_or_else(|error| Reply::error(format!("ERR the message is damaged: {error:?}"))),
    ])
}

fn milliseconds(us: Option<u64>) -> Reply {
    us.map_or(Reply::Nil, |us| Reply::Int((us / 1000) as i64))
}

fn answer(result: Result<Outcome, Refusal>, asked: &Asked) -> Reply {
    let outcome = match (result, asked) {
        (Ok(_), Asked::Parts(count)) => return Reply::Array(vec![Reply::Int(1); *count]),
        (Ok(outcome), _) => outcome,
        (Err(refusal), Asked::Parts(_)) => return nothing_done(refused(&refusal, asked)),
        (Err(refusal), _) => return refused(&refusal, asked),
    };
    match outcome {
        Outcome::Granted { token, left_us, .. } => {
            Reply::Array(vec![Reply::Int(token.0 as i64), milliseconds(left_us)])
        }
        Outcome::Renewed { left_us } => milliseconds(left_us),
        Outcome::Released { .. } => Reply::Int(1),
        Outcome::Held(held) => Reply::Int(i64::from(held)),
        Outcome::Lock(view) => {
            let holder = |holder: &leasehold_core::outcome::HolderView| {
                Reply::Map(vec![
                    (Reply::bulk("token"), Reply::Int(holder.token.0 as i64)),
                    (Reply::bulk("held-ms"), milliseconds(Some(holder.held_us))),
                    (Reply::bulk("left-ms"), milliseconds(holder.left_us)),
                    (
                        Reply::bulk("holder"),
                        holder.label.as_ref().map_or(Reply::Nil, |l| Reply::bulk(l.as_bytes())),
                    ),
                ])
            };
            let holders = view.holders.iter().map(holder).collect();
            Reply::Map(vec![
                (Reply::bulk("holding"), Reply::Int(i64::from(view.holding))),
                (Reply::bulk("waiting"), Reply::Int(i64::from(view.waiting))),
                (Reply::bulk("holders"), Reply::Array(holders)),
            ])
        }
        Outcome::QueueView(view) => Reply::Map(vec![
            (Reply::bulk("ready"), Reply::Int(view.ready as i64)),
            (Reply::bulk("in-flight"), Reply::Int(view.in_flight as i64)),
            (Reply::bulk("delayed"), Reply::Int(view.delayed as i64)),
            (Reply::bulk("bytes"), Reply::Int(view.bytes as i64)),
            (Reply::bulk("consumers"), Reply::Int(i64::from(view.consumers))),
        ]),
        Outcome::Published { queues, duplicates } => Reply::Int(i64::from(queues + duplicates)),
        Outcome::Settled(count) => Reply::Int(i64::from(count)),
        Outcome::Dropped(count) => Reply::Int(count as i64),
        _ => Reply::OK,
    }
}

/// The error for a transaction that one of its parts stops.
fn nothing_done(why: Reply) -> Reply {
    let Reply::Error(text) = why else { return why };
    Reply::error(format!("{text}. Nothing of the transaction was done"))
}

fn refused(refusal: &Refusal, asked: &Asked) -> Reply {
    match (refusal, asked) {
        // Not had in time is an answer, not a mistake.
        (
            Refusal::Busy { .. } | Refusal::TimedOut | Refusal::Empty,
            Asked::Lease | Asked::Message,
        ) => Reply::NilArray,
        (Refusal::StaleToken { .. } | Refusal::StaleDelivery(_), _) => {
            Reply::error(format!("STALE {refusal}"))
        }
        (Refusal::NoSession(_), _) => Reply::error(format!("NOSESSION {refusal}")),
        (Refusal::NoQueue, _) => Reply::error(format!("NOQUEUE {refusal}")),
        (Refusal::Deadlock(_), _) => Reply::error(format!("DEADLOCK {refusal}")),
        (Refusal::DiskFull | Refusal::QueueFull(_) | Refusal::Limit(..), _) => {
            Reply::error(format!("OOM {refusal}"))
        }
        _ => Reply::error(format!("ERR {refusal}")),
    }
}
