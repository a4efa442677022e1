//! The core as the oracle: an order of operations is played through the rules themselves.
//!
//! The clients' versions differ from the oracle's, so they are mapped as they appear.

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold_core::{
    Command, Core, Durable, EffectKind, Event, Expect, Limits, Log, Op, Outcome, Refusal,
    RegisterTtl, SessionId, Shape, Stamp, Ticket, Write,
};

use super::{Placed, Seen};

/// A log that keeps nothing: the oracle lives in memory.
struct Forget(u64);

impl Log for Forget {
    fn group(&mut self, _bytes_max: usize) {}

    fn append(&mut self, event: &Event<'_>) -> Stamp {
        let mut record = Vec::new();
        event.encode(&mut record);
        self.0 += 1;
        Stamp { sequence: self.0, at: 1, position: self.0 << 12, size: record.len() as u32 }
    }
}

struct Oracle {
    core: Core,
    log: Forget,
}

impl Oracle {
    fn new() -> Self {
        let limits = Limits::default();
        let durable = Durable::new(Shape::of(&limits), 7);
        let mut oracle = Self { core: Core::from_durable(durable, limits, 7), log: Forget(0) };
        oracle.core.boot(0, 0, &mut oracle.log, &mut Vec::new());
        oracle
    }

    fn ask(&mut self, op: Op) -> Result<Outcome, Refusal> {
        let mut effects = Vec::new();
        let command = Command { ticket: Ticket(1), session: SessionId::NONE, request: None, op };
        self.core.step(1, command, &mut self.log, &mut effects);
        let answer = effects.into_iter().find_map(|effect| match effect.kind {
            EffectKind::Reply(_, result) => Some(result),
            _ => None,
        });
        answer.expect("a register is answered at once")
    }
}

/// Plays the writes in their order, and behind each version what saw it.
pub(super) fn replay(
    key: u32,
    writes: &BTreeMap<u64, Placed>,
    others: &[(u64, Seen)],
) -> Result<(), String> {
    let name: Arc<[u8]> = key.to_le_bytes().as_slice().into();
    let mut oracle = Oracle::new();
    let mut known = BTreeMap::from([(0, None)]);
    let mut behind: BTreeMap<u64, Vec<Seen>> = BTreeMap::new();
    others.iter().for_each(|(version, seen)| behind.entry(*version).or_default().push(*seen));
    let absent = behind.remove(&0).unwrap_or_default();
    look(&mut oracle, key, &name, &known, 0, &absent)?;
    for write in writes.values() {
        let expect = match write.expect {
            None => Expect::Anything,
            Some(0) => Expect::Absent,
            // A version that nobody wrote is one that the register never had.
            Some(version) => match known.get(&version) {
                Some(Some(ours)) => Expect::Version(*ours),
                _ => Expect::Version(u64::MAX >> 12),
            },
        };
        let value: Arc<[u8]> = write.value.to_le_bytes().as_slice().into();
        let op = Write {
            key: name.clone(),
            value: Some(value),
            expect,
            ttl: RegisterTtl::Never,
            guard: None,
        };
        match oracle.ask(Op::Write(Box::new(op))) {
            Ok(Outcome::Written { version }) => {
                known.insert(write.version, Some(version));
            }
            other => {
                return Err(format!(
                    "register {key}: the clients were told version {} for {:?}, the core says \
                     {other:?}",
                    write.version, write.expect
                ));
            }
        }
        let seen = behind.remove(&write.version).unwrap_or_default();
        look(&mut oracle, key, &name, &known, write.version, &seen)?;
    }
    Ok(())
}

/// Asks the oracle, at this version, what others were answered.
fn look(
    oracle: &mut Oracle,
    key: u32,
    name: &Arc<[u8]>,
    known: &BTreeMap<u64, Option<u64>>,
    version: u64,
    seen: &[Seen],
) -> Result<(), String> {
    for seen in seen {
        let ours = match oracle.ask(Op::Read(name.clone())) {
            Ok(Outcome::Register(view)) => view.map(|view| view.version),
            other => return Err(format!("register {key}: the core answers a read with {other:?}")),
        };
        let told = match seen {
            Seen::Version(told) => known.get(told).copied().flatten() == ours,
            Seen::Another(other) => known.get(other).copied().flatten() != ours,
        };
        if !told {
            return Err(format!(
                "register {key}: a client saw {seen:?} at version {version}, the core is at {ours:?}"
            ));
        }
    }
    Ok(())
}
