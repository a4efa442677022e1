//! Locks, sessions and registers: each method is one request and its answer.
//!
//! A comment says of each that has no request id why it may, or may not, be asked twice.

use std::collections::HashSet;
use std::sync::MutexGuard;
use std::time::Duration;

use async_trait::async_trait;
use hyper::Method;
use leasehold_api::engine::{
    Acquire, Grant, HoldRef, List, Listed, LockEngine, LockView, OpenSession, Register,
    RegisterView, Session, SessionRef, Write, apart,
};
use leasehold_api::{Error, ErrorKind, Guarantees, Result};
use leasehold_wire::lock::{Checked, ForceReleased, Locks, Release, Released, Renew, Renewed};
use leasehold_wire::register::{DeleteRegister, Registers, Watched, WriteRegister, Written};
use leasehold_wire::time::{duration_of, ms};
use leasehold_wire::{handle, lock, register, session};

use crate::acquire::{Left, new_request, request_text};
use crate::ask::{Ask, Path};
use crate::{HttpEngine, is};

/// A sign of life that is late is worth nothing; the next one is due soon.
const SIGN_OF_LIFE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(5));

/// The session that a request names: none where the server's engine has none.
pub(crate) fn named(session: &SessionRef) -> Option<String> {
    (*session != SessionRef::NONE).then(|| handle::session_text(session))
}

fn lock_path(name: &str) -> Path {
    Path::new("/v1/locks").name(name)
}

fn session_path(session: &SessionRef) -> Path {
    Path::new("/v1/sessions").name(handle::session_text(session))
}

fn register_path(key: &[u8]) -> Path {
    Path::new("/v1/registers").name(key)
}

fn key_text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

/// What a refusal means for the session that was named. A session of this engine's that the server
/// does not know as its own is one of a server before it, whose data are gone: it has ended.
pub(crate) fn of_session(error: Error) -> Error {
    match error.kind {
        ErrorKind::Foreign => Error { kind: ErrorKind::NoSession, ..error },
        _ => error,
    }
}

/// A list's path.
pub(crate) fn list_path(path: &'static str, ask: &List) -> Path {
    Path::new(path).query("prefix", &ask.prefix).query("after", ask.after).query("max", ask.max)
}

/// Asks for a release.
pub(crate) fn release(hold: &HoldRef) -> Result<Ask> {
    let asked = format!("release lock {}", hold.name);
    Ask::post(lock_path(&hold.name).word("release"), &Release::of(hold), asked)
}

/// One answer's items as the API has them.
pub(crate) fn listed<W, T>(
    items: Vec<W>,
    next: Option<u32>,
    into: impl Fn(W) -> Result<T>,
) -> Result<Listed<T>> {
    Ok(Listed { items: items.into_iter().map(into).collect::<Result<_>>()?, next })
}

impl HttpEngine {
    pub(crate) fn entered(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.entered.lock().expect("nobody panics while holding the set")
    }

    async fn written(&self, write: &Write) -> Result<u64> {
        let request = request_text(write.request.map_or_else(new_request, Ok)?);
        let (path, key) = (register_path(&write.key), key_text(&write.key));
        let ask = match WriteRegister::of(write, Some(request.clone())) {
            Some(body) => Ask::with(Method::PUT, path, &body, format!("write register {key}")),
            None => {
                let body = DeleteRegister::of(write, Some(request));
                Ask::with(Method::DELETE, path, &body, format!("delete register {key}"))
            }
        };
        Ok(self.server.get::<Written>(ask).await?.version)
    }

    /// Waits in slices as long as a door accepts; `came` says whether an answer is the last.
    async fn watched<T>(
        &self,
        wait: Duration,
        ask: impl Fn(Duration) -> Ask,
        came: impl Fn(&T) -> bool,
    ) -> Result<T>
    where
        T: serde::de::DeserializeOwned,
    {
        let left = Left::of(leasehold_api::Wait::AtMost(wait));
        loop {
            let now = left.now();
            // Asking for what is so changes nothing, however often.
            let seen = self.server.get::<T>(Ok(ask(now).waiting(now))).await?;
            if came(&seen) || left.is_over() {
                return Ok(seen);
            }
        }
    }
}

#[async_trait]
impl LockEngine for HttpEngine {
    fn guarantees(&self) -> Guarantees {
        Self::guarantees(self)
    }

    async fn open_session(&self, ask: &OpenSession) -> Result<Session> {
        let body = session::OpenSession::of(ask);
        let asked = match &ask.resume {
            Some(session) => format!("take up session {}", session.id),
            None => "open a session".to_owned(),
        };
        let mut request = Ask::post(Path::new("/v1/sessions"), &body, asked)?;
        // Taking one up twice is the same as once, and a session too many ends by its TTL. One
        // without a TTL would stay for ever.
        if ask.ttl.is_none() && ask.resume.is_none() {
            request = request.once();
        }
        let server = self.server.clone();
        let work = |mut gone| async move { server.ask_while(&request, &mut gone).await.read() };
        let resumes = ask.resume.is_some();
        let undo = self.clone();
        let opened = apart(work, move |opened: session::Session| {
            // A session that was taken up is as it was before, its owner's.
            if resumes {
                return;
            }
            if let Ok(session) = handle::session_of(&opened.session) {
                tokio::spawn(async move { undo.close_session(&session).await });
            }
        });
        // Only one that is to be taken up is somebody's.
        let opened = opened.await.map_err(of_session)?;
        Ok(Session { session: handle::session_of(&opened.session)?, resumed: opened.resumed })
    }

    async fn keep_alive(&self, session: &SessionRef) -> Result<()> {
        let asked = format!("keep session {} alive", session.id);
        let (within, patience) = SIGN_OF_LIFE;
        // Two signs of life are one.
        let ask = Ask::new(Method::POST, session_path(session).word("keep-alive"), asked);
        self.server.tell(Ok(ask.hurried(within, patience))).await.map_err(of_session)
    }

    async fn close_session(&self, session: &SessionRef) -> Result<()> {
        let asked = format!("close session {}", session.id);
        let ask = Ask::new(Method::DELETE, session_path(session), asked);
        let heard = self.server.ask(&ask).await;
        match heard.answer {
            // It has ended; that was what was wanted of the attempt that was not heard.
            Err(error) if heard.again && is(&error, ErrorKind::NoSession) => Ok(()),
            answer => answer.map(drop).map_err(of_session),
        }
    }

    async fn acquire(&self, ask: &Acquire) -> Result<Grant> {
        self.acquired(ask).await
    }

    async fn renew(&self, hold: &HoldRef, ttl: Duration) -> Result<Option<Duration>> {
        let asked = format!("renew lock {}", hold.name);
        let body = Renew::of(hold, ttl);
        let ask = Ask::post(lock_path(&hold.name).word("renew"), &body, asked)?;
        // Twice sets the same deadline, a little later. An answer that is late must leave time for
        // another attempt before the hold has ended.
        let within = (ttl / 3).clamp(Duration::from_secs(1), self.server.within);
        let ask = ask.hurried(within, self.server.patience);
        Ok(duration_of(self.server.get::<Renewed>(Ok(ask)).await?.left_ms))
    }

    async fn release(&self, hold: &HoldRef) -> Result<u32> {
        let mut ask = release(hold)?;
        // A hold that was entered again would be left twice, which is once too often: somebody
        // would go on working under a lock that is free.
        if self.entered().contains(&hold.token) {
            ask = ask.once();
        }
        let heard = self.server.ask(&ask).await;
        let again = heard.again;
        let entries = match heard.read::<Released>() {
            Ok(released) => Ok(released.entries),
            // The attempt that was not heard released it, or it had ended before: it is not held.
            Err(error) if again && is(&error, ErrorKind::Stale) => Ok(0),
            Err(error) => Err(error.asking(&ask.asked)),
        };
        if matches!(entries, Ok(0)) || entries.as_ref().is_err_and(|e| is(e, ErrorKind::Stale)) {
            self.entered().remove(&hold.token);
        }
        entries
    }

    async fn force_release(&self, name: &str) -> Result<u32> {
        let asked = format!("force the release of lock {name}");
        let ask = Ask::new(Method::POST, lock_path(name).word("force-release"), asked);
        // The second would hit whoever came after the first.
        Ok(self.server.get::<ForceReleased>(Ok(ask.once())).await?.holds)
    }

    async fn check(&self, name: &str, token: u64) -> Result<bool> {
        let asked = format!("check token {token} of lock {name}");
        let ask = Ask::get(lock_path(name).word("check").query("token", token), asked);
        Ok(self.server.get::<Checked>(Ok(ask)).await?.held)
    }

    async fn inspect(&self, name: &str) -> Result<LockView> {
        let ask = Ask::get(lock_path(name), format!("inspect lock {name}"));
        Ok(self.server.get::<lock::LockView>(Ok(ask)).await?.into())
    }

    async fn watch(&self, name: &str, known: Option<u64>, wait: Duration) -> Result<LockView> {
        let ask = |wait| {
            let path = lock_path(name).word("watch").query_if("known", known);
            Ask::get(path.query("wait_ms", ms(wait)), format!("watch lock {name}"))
        };
        let changed =
            |view: &lock::LockView| view.holders.first().map(|holder| holder.token) != known;
        Ok(self.watched(wait, ask, changed).await?.into())
    }

    async fn list_locks(&self, ask: &List) -> Result<Listed<LockView>> {
        let asked = format!("list locks from {:?}", ask.prefix);
        let locks: Locks =
            self.server.get(Ok(Ask::get(list_path("/v1/locks", ask), asked))).await?;
        listed(locks.items, locks.next, |view| Ok(view.into()))
    }

    async fn read(&self, key: &[u8]) -> Result<Option<Register>> {
        let ask = Ask::get(register_path(key), format!("read register {}", key_text(key)));
        match self.server.get::<register::Register>(Ok(ask)).await {
            Ok(register) => register.into_api().map(Some),
            Err(error) if is(&error, ErrorKind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn write(&self, ask: &Write) -> Result<u64> {
        self.written(ask).await
    }

    async fn watch_register(
        &self,
        key: &[u8],
        known: Option<u64>,
        wait: Duration,
    ) -> Result<Option<Register>> {
        let ask = |wait| {
            let path = register_path(key).word("watch").query_if("known", known);
            let asked = format!("watch register {}", key_text(key));
            Ask::get(path.query("wait_ms", ms(wait)), asked)
        };
        let changed = |seen: &Watched| seen.register.as_ref().map(|r| r.version) != known;
        let seen = self.watched(wait, ask, changed).await?;
        seen.register.map(register::Register::into_api).transpose()
    }

    async fn list_registers(&self, ask: &List) -> Result<Listed<RegisterView>> {
        let asked = format!("list registers from {:?}", ask.prefix);
        let ask = Ask::get(list_path("/v1/registers", ask), asked);
        let found: Registers = self.server.get(Ok(ask)).await?;
        listed(found.items, found.next, register::RegisterView::into_api)
    }
}
