//! The lock half of the engine.

use std::time::Duration;

use async_trait::async_trait;
use leasehold_api::engine::{
    Acquire, Grant, HoldRef, List, Listed, LockEngine, LockView, OpenSession, Register,
    RegisterView, Session, SessionRef, Write,
};
use leasehold_api::{Guarantees, Result};

use crate::hold::absent;
use crate::queue::whole;
use crate::{AmqpEngine, GUARANTEES};

#[async_trait]
impl LockEngine for AmqpEngine {
    fn guarantees(&self) -> Guarantees {
        GUARANTEES
    }

    async fn open_session(&self, _ask: &OpenSession) -> Result<Session> {
        absent("sessions: what a connection has ends with it")
    }

    async fn keep_alive(&self, _session: &SessionRef) -> Result<()> {
        absent("sessions")
    }

    async fn close_session(&self, _session: &SessionRef) -> Result<()> {
        absent("sessions")
    }

    async fn acquire(&self, ask: &Acquire) -> Result<Grant> {
        self.holds.acquire(ask).await
    }

    async fn renew(&self, hold: &HoldRef, ttl: Duration) -> Result<Option<Duration>> {
        self.holds.renew(hold, ttl).await
    }

    async fn release(&self, hold: &HoldRef) -> Result<u32> {
        let (holds, hold) = (self.holds.clone(), hold.clone());
        whole(async move { holds.release(&hold).await }).await?
    }

    async fn force_release(&self, _name: &str) -> Result<u32> {
        absent("way to take a lock from its holder")
    }

    async fn check(&self, name: &str, token: u64) -> Result<bool> {
        let (holds, name) = (self.holds.clone(), name.to_owned());
        whole(async move { holds.check(&name, token).await }).await?
    }

    async fn inspect(&self, _name: &str) -> Result<LockView> {
        absent("way to ask who holds a lock")
    }

    async fn watch(&self, _name: &str, _known: Option<u64>, _wait: Duration) -> Result<LockView> {
        absent("way to ask who holds a lock")
    }

    async fn list_locks(&self, _ask: &List) -> Result<Listed<LockView>> {
        absent("list of locks")
    }

    async fn read(&self, _key: &[u8]) -> Result<Option<Register>> {
        absent("registers")
    }

    async fn write(&self, _ask: &Write) -> Result<u64> {
        absent("registers")
    }

    async fn watch_register(
        &self,
        _key: &[u8],
        _known: Option<u64>,
        _wait: Duration,
    ) -> Result<Option<Register>> {
        absent("registers")
    }

    async fn list_registers(&self, _ask: &List) -> Result<Listed<RegisterView>> {
        absent("registers")
    }
}
