//! The locks of a sound engine, under guarantees that are not its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_api::engine::{
    Acquire, Grant, HoldRef, List, Listed, LockEngine, LockView, OpenSession, Register,
    RegisterView, Session, SessionRef, Write,
};
use leasehold_api::{Guarantees, Result};

/// A sound engine that promises less than it does.
pub struct Modest {
    pub locks: Arc<dyn LockEngine>,
    pub guarantees: Guarantees,
}

macro_rules! forward {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        #[async_trait]
        impl LockEngine for Modest {
            fn guarantees(&self) -> Guarantees {
                self.guarantees
            }

            $(async fn $name(&self, $($argument: $type),*) -> Result<$result> {
                self.locks.$name($($argument),*).await
            })*
        }
    };
}

forward! {
    open_session(ask: &OpenSession) -> Session;
    keep_alive(session: &SessionRef) -> ();
    close_session(session: &SessionRef) -> ();
    acquire(ask: &Acquire) -> Grant;
    renew(hold: &HoldRef, ttl: Duration) -> Option<Duration>;
    release(hold: &HoldRef) -> u32;
    force_release(name: &str) -> u32;
    check(name: &str, token: u64) -> bool;
    inspect(name: &str) -> LockView;
    watch(name: &str, known: Option<u64>, wait: Duration) -> LockView;
    list_locks(ask: &List) -> Listed<LockView>;
    read(key: &[u8]) -> Option<Register>;
    write(ask: &Write) -> u64;
    watch_register(key: &[u8], known: Option<u64>, wait: Duration) -> Option<Register>;
    list_registers(ask: &List) -> Listed<RegisterView>;
}
