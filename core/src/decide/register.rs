//! Registers: versioned values with compare-and-set, the optimistic half of locking.
//!
//! A version comes from the shard's token counter, so it rises over deletion and re-creation and
//! "the same version" always means "the same write". A write may show a lock's token; it is refused
//! when the token is stale, so a late hand cannot write (fencing at the storage itself). A register
//! is absent from the very microsecond of its expiry, although its timer fires up to a millisecond
//! later; the timer only takes the garbage away. One counter per register was rejected: a deleted
//! key would have to be remembered for ever, or an old version would come back to life.

use alloc::boxed::Box;

use super::answer;
use crate::event::Event;
use crate::lock::Register;
use crate::outcome::{Outcome, Refusal, RegisterView};
use crate::slab::NONE;
use crate::step::Step;
use crate::volatile::Timer;
use crate::{Expect, RegisterTtl, RequestId, Time, Write};

impl Step<'_> {
    /// The slot of a register that has a value now.
    pub(crate) fn live_register(&self, key: &[u8]) -> Option<u32> {
        self.d.register_at(key).filter(|slot| self.is_live(&self.d.registers[*slot]))
    }

    /// Whether a register has neither run out, which its timer may not have seen yet, nor gone with
    /// its space.
    pub(crate) fn is_live(&self, register: &Register) -> bool {
        (register.expires == 0 || register.expires > self.now) && !self.d.is_gone(register)
    }

    pub(crate) fn read_register(&self, key: &[u8]) -> Outcome {
        Outcome::Register(self.live_register(key).map(|slot| {
            let register = &self.d.registers[slot];
            Box::new(RegisterView {
                value: register.content.text().cloned().unwrap_or_default(),
                kind: register.content.kind(),
                version: register.version,
                left_us: self.left(register.expires),
            })
        }))
    }

    pub(crate) fn check_key(&self, key: &[u8]) -> Result<(), Refusal> {
        if key.is_empty() {
            return Err(Refusal::Zero("the register's key"));
        }
        Self::check_size("the register's key", key.len(), self.v.limits.key_bytes)
    }

    pub(crate) fn check_write(&self, write: &Write) -> Result<(), Refusal> {
        let limits = &self.v.limits;
        self.check_key(&write.key)?;
        if let Some(value) = &write.value {
            Self::check_size("the register's value", value.len(), limits.value_bytes)?;
        }
        if let RegisterTtl::After(ttl) = write.ttl {
            self.check_time("the register's TTL", ttl)?;
        }
        if let Some((name, token)) = &write.guard {
            self.check_token(name, *token)?;
        }
        let version = self.live_register(&write.key).map(|slot| self.d.registers[slot].version);
        let met = match write.expect {
            Expect::Anything => true,
            Expect::Absent => version.is_none(),
            Expect::Present => version.is_some(),
            Expect::Version(wanted) => version == Some(wanted),
        };
        if !met {
            return Err(Refusal::Conflict(version));
        }
        if write.value.is_some() && !self.d.has_register(&write.key) {
            Self::check_limit("registers", self.d.register_count(), limits.registers_max)?;
        }
        Ok(())
    }

    /// Carries out a write that was checked; gives its version.
    pub(crate) fn apply_write(&mut self, write: &Write) -> u64 {
        let version = self.next_token();
        self.stir_key(&write.key);
        let known = self.d.register_at(&write.key);
        let Some(value) = &write.value else {
            if let Some(slot) = known {
                self.arm_register(slot, 0);
                self.emit(Event::Unwritten { slot, version });
                self.key_gone(&write.key);
            }
            return version;
        };
        let expires = match write.ttl {
            RegisterTtl::Never => 0,
            RegisterTtl::After(ttl) => self.now + ttl,
            RegisterTtl::Keep => match self.live_register(&write.key) {
                Some(slot) => self.d.registers[slot].expires,
                None => 0,
            },
        };
        let slot = known.unwrap_or_else(|| self.d.registers.next_slot());
        self.emit(Event::Written { slot, key: &write.key, value, version, expires });
        self.arm_register(slot, expires);
        self.key_gone(&write.key);
        version
    }

    pub(crate) fn write_register(
        &mut self,
        request: Option<RequestId>,
        write: &Write,
    ) -> Result<Outcome, Refusal> {
        self.check_write(write)?;
        let version = self.apply_write(write);
        self.remember(request, answer::WRITTEN, version, 0);
        Ok(Outcome::Written { version })
    }

    /// Replaces a register's timer; 0 for none.
    pub(crate) fn arm_register(&mut self, slot: u32, expires: Time) {
        let place = slot as usize;
        if self.v.registers.len() <= place {
            if expires == 0 {
                return;
            }
            self.v.registers.resize(place + 1, NONE);
        }
        self.v.wheel.cancel(self.v.registers[place]);
        self.v.registers[place] = self.arm(expires, Timer::Register(slot));
    }

    pub(crate) fn register_due(&mut self, slot: u32) {
        self.v.registers[slot as usize] = NONE;
        let Some(register) = self.d.registers.get(slot) else { return };
        let expires = register.expires;
        if expires == 0 || expires > self.now {
            return self.arm_register(slot, expires);
        }
        self.remove_key(slot);
    }
}
