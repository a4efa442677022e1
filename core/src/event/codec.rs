//! The tags and layouts of events. Append only.

use alloc::vec::Vec;

use super::*;

impl<'a> Event<'a> {
    /// Whether the outcome of a command with this event waits for the disk in mode `always`.
    ///
    /// What would be unsafe to lose does: a grant (two holders), a confirmed publish, a register, a
    /// token block. Losing a release leaves the lock held until its deadline; losing an ack brings
    /// the message again; moves and returns leave the message where it was. Those are written at
    /// once and synced with whatever comes next, at the latest after the lazy interval.
    pub fn must_sync(&self) -> bool {
        match self {
            Self::Booted { .. }
            | Self::TokensReserved { .. }
            | Self::Granted(_)
            | Self::Written { .. }
            | Self::Unwritten { .. }
            | Self::Keyed { .. }
            | Self::Emptied { .. }
            | Self::QueueDeclared { .. }
            | Self::QueueDeleted { .. }
            | Self::ExchangeDeclared { .. }
            | Self::ExchangeDeleted { .. }
            | Self::Bound { .. }
            | Self::Unbound { .. }
            // Otherwise a power loss would make a second delivery look like a first: the message
            // would come from a place that nobody had reached before.
            | Self::HorizonRaised { .. }
            | Self::Promoted { .. }
            | Self::Moved { .. } => true,
            Self::Entered { deadline, .. } => *deadline != 0,
            Self::Published { envelope, .. } => !envelope.transient,
            _ => false,
        }
    }

    /// Appends the event.
    // long: one arm per tag, a table in the shape of a match.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let put = |out: &mut Vec<u8>, n: u32| wire::put_u64(out, u64::from(n));
        match self {
            Self::Booted { epoch, wall_offset, grace_us, shape } => {
                out.push(0);
                put(out, *epoch);
                wire::put_u64(out, *wall_offset);
                wire::put_u64(out, *grace_us);
                shape.encode(out);
            }
            Self::TokensReserved { upto } => {
                out.push(1);
                wire::put_u64(out, *upto);
            }
            Self::Granted(granted) => {
                out.push(2);
                granted.encode(out);
            }
            Self::Entered { slot, entries, deadline } => {
                out.push(3);
                put(out, *slot);
                put(out, *entries);
                wire::put_u64(out, *deadline);
            }
            Self::Ended { slot, ending, delay_until, keep } => {
                out.push(4);
                put(out, *slot);
                out.push(*ending as u8);
                wire::put_u64(out, *delay_until);
                out.push(u8::from(*keep));
            }
            Self::LockFreed { slot } => {
                out.push(5);
                put(out, *slot);
            }
            Self::Written { slot, key, value, version, expires } => {
                out.push(6);
                put(out, *slot);
                wire::put_bytes(out, key);
                wire::put_bytes(out, value);
                wire::put_u64(out, *version);
                wire::put_u64(out, *expires);
            }
            Self::Unwritten { slot, version } => {
                out.push(7);
                put(out, *slot);
                wire::put_u64(out, *version);
            }
            Self::QueueDeclared { slot, serial, name, owner, config } => {
                out.push(8);
                put(out, *slot);
                put(out, *serial);
                wire::put_bytes(out, name.as_bytes());
                wire::put_u64(out, owner.0);
                wire::put_bytes(out, config);
            }
            Self::QueueDeleted { slot } => {
                out.push(9);
                put(out, *slot);
            }
            Self::QueuePaused { slot, paused } => {
                out.push(10);
                put(out, *slot);
                out.push(u8::from(*paused));
            }
            Self::ExchangeDeclared { slot, name, config } => {
                out.push(11);
                put(out, *slot);
                wire::put_bytes(out, name.as_bytes());
                put_exchange(out, *config);
            }
            Self::ExchangeDeleted { slot } => {
                out.push(12);
                put(out, *slot);
            }
            Self::Bound { exchange, key, to, arguments, match_all } => {
                out.push(13);
                put_binding(out, *exchange, key, *to, arguments, *match_all);
            }
            Self::Unbound { exchange, key, to, arguments, match_all } => {
                out.push(14);
                put_binding(out, *exchange, key, *to, arguments, *match_all);
            }
            Self::Published { due, key, id, arrivals, envelope } => {
                out.push(15);
                let bits = u8::from(*due > 0) | u8::from(*key > 0) << 1 | u8::from(*id > 0) << 2;
                out.push(bits);
                if *due > 0 {
                    wire::put_u64(out, *due);
                }
                if *key > 0 {
                    out.extend_from_slice(&key.to_le_bytes());
                }
                if *id > 0 {
                    wire::put_u128(out, *id);
                }
                arrivals.encode(out);
                envelope.encode(out);
            }
            Self::Removed { queue, lane, why, weight, ranges } => {
                out.push(16);
                put(out, *queue);
                out.push(*lane);
                out.push(why.to_u8());
                wire::put_u64(out, *weight);
                ranges.encode(out);
            }
            Self::Returned { queue, lane, at, attempts } => {
                out.push(17);
                put(out, *queue);
                out.push(*lane);
                wire::put_u64(out, *at);
                put(out, u32::from(*attempts));
            }
            Self::Deferred { queue, lane, at, item } => {
                out.push(18);
                put(out, *queue);
                out.push(*lane);
                wire::put_u64(out, *at);
                item.encode(out);
            }
            Self::Moved { queue, lane, at, why, arrivals, entry } => {
                out.push(19);
                put(out, *queue);
                out.push(*lane);
                wire::put_u64(out, *at);
                out.push(why.to_u8());
                arrivals.encode(out);
                entry.encode(out);
            }
            Self::RunStarted { run } => {
                out.push(20);
                put(out, *run);
            }
            Self::Promoted { run, count, items } => {
                out.push(21);
                wire::put_u64(out, run.map_or(0, |run| u64::from(run) + 1));
                put(out, *count);
                wire::put_bytes(out, items);
            }
            Self::PageStored { list, base, items } => {
                out.push(22);
                put_list(out, *list);
                wire::put_u64(out, *base);
                wire::put_bytes(out, items);
            }
            Self::Relocated { list, base, at, record } => {
                out.push(23);
                put_list(out, *list);
                wire::put_u64(out, *base);
                wire::put_u64(out, *at);
                wire::put_bytes(out, record);
            }
            Self::HorizonRaised { queue, lane, upto } => {
                out.push(24);
                put(out, *queue);
                out.push(*lane);
                wire::put_u64(out, *upto);
            }
            Self::Requested { id, answer } => {
                out.push(25);
                wire::put_u128(out, *id);
                out.push(answer.kind);
                wire::put_u64(out, answer.a);
                wire::put_u64(out, answer.b);
            }
            Self::Keyed { slot, key, version, expires, claim, fresh, edits } => {
                out.push(26);
                put(out, *slot);
                wire::put_bytes(out, key);
                wire::put_u64(out, *version);
                wire::put_u64(out, *expires);
                wire::put_u64(out, *claim);
                out.push(fresh.map_or(0, |kind| kind as u8 + 1));
                edits.encode(out);
            }
            Self::Unclaimed { slot, version } => {
                out.push(27);
                put(out, *slot);
                wire::put_u64(out, *version);
            }
            Self::Emptied { space, version } => {
                out.extend_from_slice(&[28, *space]);
                wire::put_u64(out, *version);
            }
            Self::Cleared { slots } => {
                out.push(29);
                slots.encode(out);
            }
        }
    }

    /// Reads one event that fills `bytes`.
    ///
    /// # Errors
    /// When the bytes are not an event of this version or an older one.
    // long: one arm per tag, a table in the shape of a match.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(bytes);
        let f = &mut from;
        let event = match f.u8("event tag")? {
            0 => Self::Booted {
                epoch: f.u32("epoch")?,
                wall_offset: f.u64("wall offset")?,
                grace_us: f.u64("grace")?,
                shape: Shape::decode(f)?,
            },
            1 => Self::TokensReserved { upto: f.u64("token")? },
            2 => Self::Granted(Granted::decode(f)?),
            3 => Self::Entered {
                slot: f.u32("grant")?,
                entries: f.u32("entries")?,
                deadline: f.u64("deadline")?,
            },
            4 => Self::Ended {
                slot: f.u32("grant")?,
                ending: Ending::from_u8(f.u8("ending")?)
                    .ok_or(DecodeError { what: "ending", offset: 0 })?,
                delay_until: f.u64("lock-delay")?,
                keep: f.flag("keep")?,
            },
            5 => Self::LockFreed { slot: f.u32("lock")? },
            6 => Self::Written {
                slot: f.u32("register")?,
                key: f.bytes("key")?,
                value: f.bytes("value")?,
                version: f.u64("version")?,
                expires: f.u64("expiry")?,
            },
            7 => Self::Unwritten { slot: f.u32("register")?, version: f.u64("version")? },
            8 => Self::QueueDeclared {
                slot: f.u32("queue")?,
                serial: f.u32("queue serial")?,
                name: f.text("queue name")?,
                owner: SessionId(f.u64("owner")?),
                config: f.bytes("queue settings")?,
            },
            9 => Self::QueueDeleted { slot: f.u32("queue")? },
            10 => Self::QueuePaused { slot: f.u32("queue")?, paused: f.flag("pause")? },
            11 => Self::ExchangeDeclared {
                slot: f.u32("exchange")?,
                name: f.text("exchange name")?,
                config: get_exchange(f)?,
            },
            12 => Self::ExchangeDeleted { slot: f.u32("exchange")? },
            13 => {
                let (exchange, key, to, arguments, match_all) = get_binding(f)?;
                Self::Bound { exchange, key, to, arguments, match_all }
            }
            14 => {
                let (exchange, key, to, arguments, match_all) = get_binding(f)?;
                Self::Unbound { exchange, key, to, arguments, match_all }
            }
            15 => {
                let bits = f.u8("publish flags")?;
                let due = if bits & 1 != 0 { f.u64("due time")? } else { 0 };
                let key = if bits & 2 != 0 {
                    u64::from_le_bytes(f.take(8, "key")?.try_into().expect("eight bytes"))
                } else {
                    0
                };
                let id = if bits & 4 != 0 { f.u128("message id")? } else { 0 };
                let arrivals = List::decode(f, "arrivals")?;
                Self::Published { due, key, id, arrivals, envelope: Envelope::decode(f)? }
            }
            16 => Self::Removed {
                queue: f.u32("queue")?,
                lane: f.u8("lane")?,
                why: get_why(f)?,
                weight: f.u64("weight")?,
                ranges: List::decode(f, "ranges")?,
            },
            17 => Self::Returned {
                queue: f.u32("queue")?,
                lane: f.u8("lane")?,
                at: f.u64("position")?,
                attempts: f.u16("attempts")?,
            },
            18 => Self::Deferred {
                queue: f.u32("queue")?,
                lane: f.u8("lane")?,
                at: f.u64("position")?,
                item: Delayed::decode(f)?,
            },
            19 => Self::Moved {
                queue: f.u32("queue")?,
                lane: f.u8("lane")?,
                at: f.u64("position")?,
                why: get_why(f)?,
                arrivals: List::decode(f, "arrivals")?,
                entry: Entry::decode(f)?,
            },
            20 => Self::RunStarted { run: f.u32("run")? },
            21 => Self::Promoted {
                run: match f.u64("run")? {
                    0 => None,
                    n => Some(
                        u32::try_from(n - 1).map_err(|_| DecodeError { what: "run", offset: 0 })?,
                    ),
                },
                count: f.u32("promoted")?,
                items: f.bytes("promoted items")?,
            },
            22 => Self::PageStored {
                list: get_list(f)?,
                base: f.u64("page base")?,
                items: f.bytes("page items")?,
            },
            23 => Self::Relocated {
                list: get_list(f)?,
                base: f.u64("page base")?,
                at: f.u64("position")?,
                record: f.bytes("record")?,
            },
            24 => Self::HorizonRaised {
                queue: f.u32("queue")?,
                lane: f.u8("lane")?,
                upto: f.u64("horizon")?,
            },
            25 => Self::Requested {
                id: f.u128("request id")?,
                answer: Answered {
                    kind: f.u8("answer")?,
                    a: f.u64("answer")?,
                    b: f.u64("answer")?,
                },
            },
            26 => Self::Keyed {
                slot: f.u32("key")?,
                key: f.bytes("key")?,
                version: f.u64("version")?,
                expires: f.u64("expiry")?,
                claim: f.u64("claim")?,
                fresh: match f.u8("kind")? {
                    0 => None,
                    n => Some(Kind::from_u8(n - 1).ok_or(DecodeError { what: "kind", offset: 0 })?),
                },
                edits: Edits::decode(f)?,
            },
            27 => Self::Unclaimed { slot: f.u32("key")?, version: f.u64("version")? },
            28 => Self::Emptied { space: f.u8("space")?, version: f.u64("version")? },
            29 => Self::Cleared { slots: List::decode(f, "cleared keys")? },
            _ => {
                return Err(DecodeError {
                    what: "event tag (a newer version wrote it?)",
                    offset: 0,
                });
            }
        };
        from.end("event")?;
        Ok(event)
    }
}

fn get_why(from: &mut Reader<'_>) -> Result<Why, DecodeError> {
    Why::from_u8(from.u8("reason")?).ok_or(DecodeError { what: "reason", offset: 0 })
}

fn put_binding(out: &mut Vec<u8>, x: u32, key: &str, to: RouteTo, arguments: &[u8], all: bool) {
    wire::put_u64(out, u64::from(x));
    wire::put_bytes(out, key.as_bytes());
    put_route(out, to);
    wire::put_bytes(out, arguments);
    out.push(u8::from(all));
}

type BindingParts<'a> = (u32, &'a str, RouteTo, &'a [u8], bool);

fn get_binding<'a>(f: &mut Reader<'a>) -> Result<BindingParts<'a>, DecodeError> {
    let head = (f.u32("exchange")?, f.text("routing key")?, get_route(f)?);
    let arguments = f.bytes("arguments")?;
    crate::message::decode_headers(arguments)?;
    Ok((head.0, head.1, head.2, arguments, f.flag("match")?))
}

/// The message in a journal record: as published, or as relocated (however often).
///
/// # Errors
/// When the record holds no message.
pub fn message_of(record: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    match Event::decode(record)? {
        Event::Published { envelope, .. } => Ok(envelope),
        // A relocated record is always the published one, never a relocated one: see `relocate`.
        Event::Relocated { record, .. } => match Event::decode(record)? {
            Event::Published { envelope, .. } => Ok(envelope),
            _ => Err(DecodeError { what: "relocated message", offset: 0 }),
        },
        _ => Err(DecodeError { what: "message record", offset: 0 }),
    }
}
