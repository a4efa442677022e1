//! Locks and registers change.

use alloc::vec::Vec;

use crate::checkpoint::{CellKey, Mark};
use crate::content::{Content, Edit, Edits, Kind};
use crate::event::{Granted, List, Range};
use crate::lock::{Grant, Lock, Part, Register};
use crate::slab::NONE;
use crate::{Durable, Mode, Name, Time};

impl Durable {
    pub(super) fn grant(&mut self, at: Time, granted: &Granted<'_>) {
        self.token_high = self.token_high.max(granted.token.0);
        self.insert_grant(
            Grant {
                token: granted.token,
                session: granted.session,
                hold: granted.hold,
                tenure: granted.tenure,
                deadline: granted.deadline,
                granted_at: at,
                entries: 1,
                lock_delay_us: granted.lock_delay_us,
                label: Self::text(granted.label),
                first_part: NONE,
                mark: Mark::default(),
            },
            granted,
        );
        self.touch_grant(granted.slot);
    }

    /// Also used to restore a checkpoint cell.
    pub(crate) fn insert_grant(&mut self, grant: Grant, granted: &Granted<'_>) {
        let slot = granted.slot;
        self.grant_index.insert(self.grant_index.hash_u64(grant.token.0), slot);
        self.grants.insert_at(slot, grant);
        for ((lock, mode), name) in granted.parts.iter().zip(granted.names.iter()) {
            self.ensure_lock(lock, name);
            let first = self.locks[lock].first_part;
            let part = self.parts.insert(Part {
                lock,
                grant: slot,
                mode,
                next_in_grant: self.grants[slot].first_part,
                prev_in_lock: NONE,
                next_in_lock: first,
            });
            if first != NONE {
                self.parts[first].prev_in_lock = part;
            }
            self.grants[slot].first_part = part;
            let lock = &mut self.locks[lock];
            lock.first_part = part;
            lock.parts += 1;
            match mode {
                Mode::Exclusive => lock.exclusive = true,
                Mode::Shared => {}
                Mode::Permits { take, of } => {
                    lock.taken += take;
                    lock.of = of;
                }
            }
        }
    }

    /// Makes a lock at a slot unless it is there.
    pub(crate) fn ensure_lock(&mut self, slot: u32, name: &str) {
        if self.locks.get(slot).is_none() {
            let name = Name::new(name).expect("journaled names were checked");
            let hash = self.lock_index.hash_bytes(name.as_bytes());
            self.lock_index.insert(hash, slot);
            self.locks.insert_at(slot, Lock::new(name));
        }
    }

    fn touch_grant(&mut self, slot: u32) {
        if self.grants[slot].mark.touch() {
            self.changed.touched(CellKey::Grant(slot));
        }
    }

    fn touch_lock(&mut self, slot: u32) {
        if self.locks[slot].mark.touch() {
            self.changed.touched(CellKey::Lock(slot));
        }
    }

    pub(super) fn enter(&mut self, slot: u32, entries: u32, deadline: Time) {
        let grant = &mut self.grants[slot];
        (grant.entries, grant.deadline) = (entries, deadline);
        self.touch_grant(slot);
    }

    pub(super) fn end(&mut self, slot: u32, delay_until: Time, keep: bool) {
        let grant = self.grants.remove(slot).expect("the grant that ended");
        self.grant_index.remove(self.grant_index.hash_u64(grant.token.0), slot);
        self.changed.removed(grant.mark, CellKey::Grant(slot));
        let mut next = grant.first_part;
        while next != NONE {
            let part = self.parts.remove(next).expect("part of the grant");
            next = part.next_in_grant;
            if part.next_in_lock != NONE {
                self.parts[part.next_in_lock].prev_in_lock = part.prev_in_lock;
            }
            if part.prev_in_lock != NONE {
                self.parts[part.prev_in_lock].next_in_lock = part.next_in_lock;
            } else {
                self.locks[part.lock].first_part = part.next_in_lock;
            }
            self.leave(part.lock, part.mode, delay_until, keep);
        }
    }

    fn leave(&mut self, slot: u32, mode: Mode, delay_until: Time, keep: bool) {
        let lock = &mut self.locks[slot];
        lock.parts -= 1;
        match mode {
            Mode::Exclusive => lock.exclusive = false,
            Mode::Shared => {}
            Mode::Permits { take, .. } => lock.taken -= take,
        }
        if lock.parts == 0 {
            lock.of = 0;
        }
        lock.kept |= keep;
        if delay_until > lock.delay_until {
            lock.delay_until = delay_until;
            self.touch_lock(slot);
        }
        let lock = &self.locks[slot];
        if lock.parts == 0 && lock.delay_until == 0 && !lock.kept {
            self.remove_lock(slot);
        }
    }

    fn remove_lock(&mut self, slot: u32) {
        let lock = self.locks.remove(slot).expect("the lock");
        let hash = self.lock_index.hash_bytes(lock.name.as_bytes());
        self.lock_index.remove(hash, slot);
        self.changed.removed(lock.mark, CellKey::Lock(slot));
    }

    /// A lock-delay is over, or nobody waits for a kept lock any more.
    pub(super) fn free_lock(&mut self, slot: u32) {
        let lock = &mut self.locks[slot];
        lock.delay_until = 0;
        lock.kept = false;
        if lock.parts == 0 {
            self.remove_lock(slot);
        } else {
            self.touch_lock(slot);
        }
    }

    /// After a restart nobody waits, and holders that live by their session get a grace.
    pub(super) fn boot_locks(&mut self, at: Time, grace_us: Time) {
        let session_held: Vec<u32> =
            self.grants.iter().filter(|(_, g)| g.tenure.session).map(|(slot, _)| slot).collect();
        for slot in session_held {
            let grant = &mut self.grants[slot];
            let grace = at + grace_us;
            if grant.deadline == 0 || grant.deadline > grace {
                grant.deadline = grace;
                self.touch_grant(slot);
            }
        }
        let kept: Vec<u32> =
            self.locks.iter().filter(|(_, lock)| lock.kept).map(|(slot, _)| slot).collect();
        for slot in kept {
            let lock = &mut self.locks[slot];
            lock.kept = false;
            if lock.parts == 0 && lock.delay_until == 0 {
                self.remove_lock(slot);
            } else {
                self.touch_lock(slot);
            }
        }
    }

    pub(super) fn write(
        &mut self,
        slot: u32,
        key: &[u8],
        value: &[u8],
        version: u64,
        expires: Time,
    ) {
        self.key(
            0,
            slot,
            key,
            (version, expires, 0),
            Some(Kind::Text),
            Edits::Made(&[Edit::Text(value.into())]),
        );
    }

    pub(super) fn key(
        &mut self,
        at: Time,
        slot: u32,
        key: &[u8],
        (version, expires, claim): (u64, Time, u64),
        fresh: Option<Kind>,
        edits: Edits<'_>,
    ) {
        self.token_high = self.token_high.max(version);
        if self.registers.get(slot).is_none() {
            self.insert_register(slot, Register::new(key.into()));
            self.spaces.list(slot, key);
        } else if self.is_gone(&self.registers[slot]) {
            self.spaces.list(slot, key);
        }
        let register = &mut self.registers[slot];
        if let Some(kind) = fresh {
            (register.content, register.bytes) = (Content::empty(kind), 0);
        }
        edits.each(|edit| {
            let more = register.content.apply(edit);
            register.bytes = register.bytes.saturating_add_signed(more);
        });
        (register.version, register.expires) = (version, expires);
        match claim {
            0 => self.claims.remove(&slot),
            _ => self.claims.insert(slot),
        };
        if claim == version {
            register.since = at;
        }
        register.claim = claim;
        if register.mark.touch() {
            self.changed.touched(CellKey::Register(slot));
        }
    }

    /// Its space does not know of it yet.
    pub(crate) fn insert_register(&mut self, slot: u32, register: Register) {
        let hash = self.register_index.hash_bytes(&register.key);
        self.register_index.insert(hash, slot);
        if register.claim != 0 {
            self.claims.insert(slot);
        }
        self.registers.insert_at(slot, register);
    }

    pub(super) fn unwrite(&mut self, slot: u32, version: u64) {
        self.token_high = self.token_high.max(version);
        let register = self.clear_register(slot);
        if !self.is_gone(&register) {
            self.spaces.unlist(slot, &register.key);
        }
    }

    /// Keys of a space are gone.
    pub(super) fn empty_space(&mut self, space: u8, version: u64) {
        self.token_high = self.token_high.max(version);
        self.spaces.empty(space, version);
    }

    /// What is gone leaves memory.
    pub(super) fn clear_registers(&mut self, slots: &List<'_, Range>) {
        for range in slots.iter() {
            for slot in range.first..range.first + range.count {
                self.clear_register(slot as u32);
            }
        }
    }

    fn clear_register(&mut self, slot: u32) -> Register {
        let register = self.registers.remove(slot).expect("the register");
        self.claims.remove(&slot);
        self.register_index.remove(self.register_index.hash_bytes(&register.key), slot);
        self.changed.removed(register.mark, CellKey::Register(slot));
        register
    }
}
