//! Messages in the clients' books.

use std::collections::BTreeMap;

use super::{Lawful, Ledger, Violation, demand};
use crate::audit::Found;
use crate::disk::Chance;

/// What is known of a message.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The queue it was published to.
    pub queue: usize,
    /// Its lane there.
    pub lane: u8,
    /// Its ordering key; 0: none.
    pub key: u8,
    /// Wall-clock time before which it must not come; 0: none.
    pub due: u64,
    /// Whether it takes its place in the order of its lane.
    pub ordered: bool,
    /// Answered early; power loss may take it.
    pub transient: bool,
    /// Its publish was confirmed.
    pub confirmed: bool,
    /// Its publish was refused, or it was found not to exist.
    pub gone: bool,
    /// Acks without an answer.
    pub acks: u32,
    /// An ack was confirmed.
    pub acked: bool,
    /// That it is there, or that it is acked, may have been undone by a power loss.
    pub shaken: bool,
    /// Queues that it was delivered from, by number.
    pub delivered_in: Vec<usize>,
    /// The newest delivery, if it is certainly still open.
    pub open: Option<Open>,
    /// The newest delivery's token.
    pub token: u64,
}

/// A delivery that nobody else may get meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// Its fencing token.
    pub token: u64,
    /// Shard time until which its lease certainly lasts; `None`: as long as the session.
    pub until: Option<u64>,
    /// The session that has it.
    pub session: u64,
    /// The queue it came from.
    pub queue: usize,
}

/// Whether a message must be in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Standing {
    Must,
    May,
    MustNot,
}

impl Message {
    /// Whether it must be in the store.
    pub fn standing(&self) -> Standing {
        if self.gone {
            Standing::MustNot
        } else if self.shaken {
            Standing::May
        } else if self.acked {
            Standing::MustNot
        } else if self.acks > 0 || !self.confirmed {
            Standing::May
        } else {
            Standing::Must
        }
    }

    pub(super) fn crashed(&mut self, power: bool) {
        self.open = None;
        self.shaken |= power && (self.acked || self.transient);
    }

    /// Whether one unanswered ack is all that could have removed it.
    pub(super) fn only_one_ack_is_unknown(&self) -> bool {
        self.confirmed && !self.gone && !self.shaken && !self.acked && self.acks == 1
    }
}

/// A delivery as the client got it.
#[derive(Clone, Debug)]
pub struct Delivered<'a> {
    /// The queue it came from.
    pub queue: usize,
    /// Its fencing token.
    pub token: u64,
    /// Whether it was said to have been delivered before.
    pub redelivered: bool,
    /// The body.
    pub body: &'a [u8],
    /// Shard time and wall-clock time.
    pub now: u64,
    /// See `now`.
    pub wall: u64,
    /// The session that got it, and until when it has it.
    pub session: u64,
    /// See `session`.
    pub until: Option<u64>,
}

/// The body of message `id`: its number, then bytes that follow from it, some short, some long.
pub fn body_of(id: u64) -> Vec<u8> {
    let mut chance = Chance::new(id);
    let most = if chance.percent(8) { 6_000 } else { 300 };
    let length = chance.below(most) as usize;
    let mut body = id.to_le_bytes().to_vec();
    body.extend((0..length).map(|_| chance.next_u64() as u8));
    body
}

/// Which message a body is.
///
/// # Errors
/// When it is not exactly the body of any.
pub fn message_in(body: &[u8]) -> Lawful<u64> {
    let number = body.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    let id = number.ok_or_else(|| Violation(format!("a body of {} bytes came", body.len())))?;
    demand(body == body_of(id), || format!("the body of message {id} came damaged"))?;
    Ok(id)
}

impl Ledger {
    /// A publish is on its way.
    pub fn publishing(&mut self, id: u64, message: Message) {
        self.messages.insert(id, message);
    }

    /// A publish was answered.
    pub fn published(&mut self, id: u64, accepted: bool) {
        let message = self.messages.get_mut(&id).expect("it was asked for");
        if accepted {
            message.confirmed = true;
        } else {
            message.gone = true;
        }
    }

    /// An ack was answered.
    ///
    /// # Errors
    /// When an ack is accepted that cannot be good.
    pub fn acknowledged(&mut self, id: u64, accepted: bool) -> Lawful {
        let message = self.messages.get_mut(&id).expect("it was delivered");
        message.acks -= 1;
        let twice = accepted && message.acked;
        message.acked |= accepted;
        demand(!twice, || format!("message {id} was acknowledged twice"))
    }

    /// A message came.
    ///
    /// # Errors
    /// When it must not have: never published, gone, too early, in somebody else's hands, out of
    /// order, or with an old token.
    pub fn delivered(&mut self, came: &Delivered<'_>) -> Lawful<u64> {
        let id = message_in(came.body)?;
        self.count("delivery");
        self.token(came.token, "a delivery")?;
        let known = self.messages.get(&id);
        let known = known.ok_or_else(|| Violation(format!("message {id} was never published")))?;
        demand(known.standing() != Standing::MustNot, || {
            format!("message {id} came although it is gone: {known:?}")
        })?;
        demand(known.due <= came.wall, || {
            format!("message {id} came at {} and was due at {}", came.wall, known.due)
        })?;
        demand(came.token > known.token, || {
            format!("message {id} came with token {} after {}", came.token, known.token)
        })?;
        let before = known.delivered_in.contains(&came.queue);
        demand(!before || came.redelivered, || {
            format!("message {id} came again and did not say so")
        })?;
        self.nobody_has(id, came)?;
        self.in_order(id, came)?;
        let message = self.messages.get_mut(&id).expect("just found");
        message.token = came.token;
        if !before {
            message.delivered_in.push(came.queue);
        }
        let Delivered { token, until, session, queue, .. } = *came;
        message.open = Some(Open { token, until, session, queue });
        Ok(id)
    }

    fn is_open(&self, message: &Message, now: u64) -> bool {
        message.open.is_some_and(|open| {
            open.until.is_none_or(|until| now < until) && self.session_lives(open.session, now)
        })
    }

    /// A message is in one pair of hands at a time, and so are all of one ordering key.
    fn nobody_has(&self, id: u64, came: &Delivered<'_>) -> Lawful {
        let message = &self.messages[&id];
        demand(!self.is_open(message, came.now), || {
            format!("message {id} came while {:?} has it", message.open)
        })?;
        if message.key == 0 || came.queue != message.queue {
            return Ok(());
        }
        let mut others = self
            .messages
            .iter()
            .filter(|(other, m)| **other != id && (m.queue, m.key) == (message.queue, message.key));
        let here = |other: &Message| other.open.is_some_and(|open| open.queue == came.queue);
        let taken = others.find(|(_, other)| here(other) && self.is_open(other, came.now));
        demand(taken.is_none(), || {
            format!("message {id} came while {taken:?} of the same ordering key is out")
        })
    }

    /// First deliveries follow the order of publication, per lane and per ordering key.
    fn in_order(&mut self, id: u64, came: &Delivered<'_>) -> Lawful {
        let Message { queue, lane, key, ordered, ref delivered_in, .. } = self.messages[&id];
        if !ordered || queue != came.queue || delivered_in.contains(&queue) {
            return Ok(());
        }
        self.count("order");
        let newest = if key == 0 {
            self.first_deliveries.entry((queue, lane)).or_default()
        } else {
            self.key_deliveries.entry((queue, key)).or_default()
        };
        let last = std::mem::replace(newest, id);
        demand(last < id, || {
            format!("message {id} came for the first time after message {last} of its lane")
        })
    }

    /// Compares what is in the store with the books and settles what was unknown.
    ///
    /// # Errors
    /// When a message is missing, twice, or should not be there.
    pub fn settle_messages(&mut self, found: &[Found]) -> Lawful {
        let mut there: BTreeMap<u64, u32> = BTreeMap::new();
        for message in found {
            let id = message_in(&message.body)?;
            *there.entry(id).or_default() += 1;
            demand(self.messages.contains_key(&id), || {
                format!("message {id} is there and was never published")
            })?;
            demand(message.token > self.token_floor, || {
                format!("message {id} is delivered anew with the old token {}", message.token)
            })?;
        }
        *self.checked.entry("found").or_default() += there.len() as u64;
        for (id, message) in &mut self.messages {
            let count = there.get(id).copied().unwrap_or(0);
            let standing = message.standing();
            demand(count <= 1, || format!("message {id} is there {count} times: {message:?}"))?;
            demand(count == 1 || standing != Standing::Must, || {
                format!("message {id} is lost: {message:?}")
            })?;
            demand(count == 0 || standing != Standing::MustNot, || {
                format!("message {id} is there although it is gone: {message:?}")
            })?;
            (message.acks, message.acked, message.shaken) = (0, false, false);
            (message.confirmed, message.gone) = (true, count == 0);
        }
        Ok(())
    }
}
