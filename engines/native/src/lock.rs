//! Locks, sessions and registers: each method is one command and its answer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_api::engine::{
    Acquire, Grant, HoldRef, List, Listed, LockEngine, LockView, OpenSession, Register,
    RegisterView, Session, SessionRef, Write,
};
use leasehold_api::{Error, Guarantees, Result};
use leasehold_core as core;
use leasehold_core::{Op, Outcome, Refusal, SessionId, Token};

use crate::convert::{self, name, us};
use crate::error::{odd, refused};
use crate::table::{Kind, Reply};
use crate::{NativeEngine, expected};

fn locks(ask: &Acquire) -> String {
    let names: Vec<&str> = ask.wants.iter().map(|want| &*want.name).collect();
    let plural = if names.len() == 1 { "" } else { "s" };
    format!("acquire lock{plural} {}", names.join(", "))
}

fn key_text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

impl NativeEngine {
    async fn try_acquire(&self, ask: &Acquire) -> Result<Grant> {
        let acquire = convert::acquire(ask)?;
        let Some((first, _)) = acquire.wants.iter().next() else {
            return Err(refused(&Refusal::Zero("the list of locks")));
        };
        let session = convert::session(ask.session.as_ref());
        let request = convert::request(ask.request);
        let (name, hold, bound) = (first.clone(), ask.hold, ask.bound);
        let kind = Kind::Acquire { name, hold, bound, request };
        self.link.settled(request).await;
        let reply = self.link.call(session, request, Op::Acquire(Box::new(acquire)), kind).await;
        match reply? {
            Reply::Granted(Outcome::Granted { token, left_us, entries }, ended) => {
                let left = left_us.map(Duration::from_micros);
                Ok(Grant { token: token.0, left, entries, ended })
            }
            Reply::Granted(other, _) | Reply::Outcome(other) => Err(odd(&other)),
            Reply::Message(_) | Reply::Peeked(_) => Err(odd(&Outcome::Done)),
        }
    }

    /// The core reads any key and finds nothing under a bad one; here that is an error.
    fn check_key(&self, key: &[u8]) -> Result<()> {
        let (is, max) = (key.len() as u64, self.limits.key_bytes as u64);
        match is {
            0 => Err(refused(&Refusal::Zero("the register's key"))),
            is if is > max => Err(refused(&Refusal::TooLarge("the register's key", is, max))),
            _ => Ok(()),
        }
    }

    /// Waits for a change of a lock or a register.
    async fn wait_for(&self, op: Op) -> Result<Outcome> {
        self.link.ask_as(SessionId::NONE, None, op, Kind::Watch).await
    }

    async fn list(&self, what: core::Listed, ask: &List) -> Result<core::Listing> {
        let answer = self.link.ask(SessionId::NONE, None, convert::list(what, ask)).await;
        let asked = || format!("list {what:?} from {:?}", ask.prefix).to_lowercase();
        let answer = answer.map_err(|error| error.asking(asked()))?;
        expected!(answer, Outcome::Listed(listing) => *listing)
    }
}

#[async_trait]
impl LockEngine for NativeEngine {
    fn guarantees(&self) -> Guarantees {
        Self::guarantees(self)
    }

    async fn open_session(&self, ask: &OpenSession) -> Result<Session> {
        let resume = ask.resume.as_ref().map(|session| SessionId(session.id));
        let op = Op::OpenSession { ttl_us: ask.ttl.map(us), resume, label: ask.label.clone() };
        let answer = self.link.ask_as(SessionId::NONE, None, op, Kind::Open).await;
        let asked = || match resume {
            Some(session) => format!("take up session {}", session.0),
            None => "open a session".to_owned(),
        };
        let answer = answer.map_err(|error| error.asking(asked()))?;
        expected!(answer, Outcome::Session { id, resumed } => {
            Session { session: SessionRef { id: id.0, proof: None }, resumed }
        })
    }

    async fn keep_alive(&self, session: &SessionRef) -> Result<()> {
        let asked = |error: Error| error.asking(format!("keep session {} alive", session.id));
        let answer = self.link.keep_alive(SessionId(session.id)).await;
        expected!(answer.map_err(asked)?, Outcome::Done => ())
    }

    async fn close_session(&self, session: &SessionRef) -> Result<()> {
        let op = Op::CloseSession { lost: false };
        let answer = self.link.ask_as(SessionId(session.id), None, op, Kind::Close).await;
        let answer = answer.map_err(|error| error.asking(format!("close session {}", session.id)));
        expected!(answer?, Outcome::Done => ())
    }

    async fn acquire(&self, ask: &Acquire) -> Result<Grant> {
        self.try_acquire(ask).await.map_err(|error| error.asking(locks(ask)))
    }

    async fn renew(&self, hold: &HoldRef, ttl: Duration) -> Result<Option<Duration>> {
        let asked = |error: Error| error.asking(format!("renew lock {}", hold.name));
        let session = convert::session(hold.session.as_ref());
        let op = Op::Renew { hold: convert::hold(hold).map_err(asked)?, ttl_us: Some(us(ttl)) };
        let answer = self.link.ask(session, None, op).await.map_err(asked)?;
        expected!(answer, Outcome::Renewed { left_us } => left_us.map(Duration::from_micros))
    }

    async fn release(&self, hold: &HoldRef) -> Result<u32> {
        let asked = |error: Error| error.asking(format!("release lock {}", hold.name));
        let session = convert::session(hold.session.as_ref());
        let op = Op::Release(convert::hold(hold).map_err(asked)?);
        let kind = Kind::Release(Token(hold.token));
        let answer = self.link.ask_as(session, None, op, kind).await.map_err(asked)?;
        expected!(answer, Outcome::Released { entries } => entries)
    }

    async fn force_release(&self, lock: &str) -> Result<u32> {
        let asked = |error: Error| error.asking(format!("force the release of lock {lock}"));
        let op = Op::ForceRelease(name(lock).map_err(asked)?);
        let answer = self.link.ask(SessionId::NONE, None, op).await.map_err(asked)?;
        expected!(answer, Outcome::Forced(holds) => holds)
    }

    async fn check(&self, lock: &str, token: u64) -> Result<bool> {
        let asked = |error: Error| error.asking(format!("check token {token} of lock {lock}"));
        let op = Op::Check(name(lock).map_err(asked)?, Token(token));
        let answer = self.link.ask(SessionId::NONE, None, op).await.map_err(asked)?;
        expected!(answer, Outcome::Held(held) => held)
    }

    async fn inspect(&self, lock: &str) -> Result<LockView> {
        let asked = |error: Error| error.asking(format!("inspect lock {lock}"));
        let op = Op::InspectLock(name(lock).map_err(asked)?);
        let answer = self.link.ask(SessionId::NONE, None, op).await.map_err(asked)?;
        expected!(answer, Outcome::Lock(view) => convert::lock_view(lock, *view))
    }

    async fn watch(&self, lock: &str, known: Option<u64>, wait: Duration) -> Result<LockView> {
        let asked = |error: Error| error.asking(format!("watch lock {lock}"));
        let (name, wait) = (name(lock).map_err(asked)?, core::Wait::AtMost(us(wait)));
        let op = Op::WatchLock { name, known: known.map(Token), wait };
        let answer = self.wait_for(op).await.map_err(asked)?;
        expected!(answer, Outcome::Lock(view) => convert::lock_view(lock, *view))
    }

    async fn list_locks(&self, ask: &List) -> Result<Listed<LockView>> {
        Ok(convert::locks(self.list(core::Listed::Locks, ask).await?))
    }

    async fn read(&self, key: &[u8]) -> Result<Option<Register>> {
        let asked = |error: Error| error.asking(format!("read register {}", key_text(key)));
        self.check_key(key).map_err(asked)?;
        let answer = self.link.ask(SessionId::NONE, None, Op::Read(Arc::from(key))).await;
        let answer = answer.map_err(asked)?;
        let view = expected!(answer, Outcome::Register(view) => view)?;
        view.map(|view| convert::register(*view).map_err(asked)).transpose()
    }

    async fn write(&self, ask: &Write) -> Result<u64> {
        let asked = |error: Error| error.asking(format!("write register {}", key_text(&ask.key)));
        let op = Op::Write(Box::new(convert::write(ask).map_err(asked)?));
        let request = convert::request(ask.request);
        let answer = self.link.ask(SessionId::NONE, request, op).await.map_err(asked)?;
        expected!(answer, Outcome::Written { version } => version)
    }

    async fn watch_register(
        &self,
        key: &[u8],
        known: Option<u64>,
        wait: Duration,
    ) -> Result<Option<Register>> {
        let wait = core::Wait::AtMost(us(wait));
        let answer = self.wait_for(Op::WatchRegister { key: Arc::from(key), known, wait }).await;
        let asked = |error: Error| error.asking(format!("watch register {}", key_text(key)));
        let answer = answer.map_err(asked)?;
        let view = expected!(answer, Outcome::Register(view) => view)?;
        view.map(|view| convert::register(*view).map_err(asked)).transpose()
    }

    async fn list_registers(&self, ask: &List) -> Result<Listed<RegisterView>> {
        Ok(convert::registers(self.list(core::Listed::Registers, ask).await?))
    }
}
