//! Acquiring: asked until it is granted, and undone when nobody wants it any more.
//!
//! Each acquire is one request with its whole wait, so that it keeps its place in line; only after
//! the longest wait that a door accepts, or after a broken connection, is it asked again. After a
//! broken connection with the same request id: the server answers what it answered before, or
//! takes over the waiter that is still in line. After a refusal with a new one, because an id
//! counts once.
//!
//! When the caller goes, the connection is hung up. If the grant was under way it arrives, and is
//! released. If the connection ends without an answer the server has withdrawn the request; but it
//! may as well be a proxy that hung up, or a loss in the same moment. So the request is asked once
//! more, with its id and without waiting: if there was a grant this tells its token, and if it
//! still stands in line this is what withdraws it.

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use leasehold_api::engine::{Acquire, Gone, Grant, HoldRef, RequestId, apart};
use leasehold_api::{Error, ErrorKind, Result, Wait};
use leasehold_wire::lock::{AcquireLocks, Granted, WAIT_MS_MAX};
use tokio::time::{Instant, timeout_at};

use crate::ask::{Ask, Path, Repeat};
use crate::lock::of_session;
use crate::server::{Bad, Patience, Server, read};
use crate::{HttpEngine, is};

/// The longest wait that a door accepts.
const WAIT_MAX: Duration = Duration::from_millis(WAIT_MS_MAX);
/// How long the answer to that may take. If the request still stands in line there is none, and
/// hanging up on it is what withdraws it.
const LOOK: Duration = Duration::from_secs(2);
/// How long a grant without a TTL is looked for when nobody knows of it; its session ends it else.
const LOOK_FOR: Duration = Duration::from_secs(60);

/// A request id as text.
pub(crate) fn request_text(request: RequestId) -> String {
    format!("{:032x}", request.0)
}

/// A request id that nobody used.
pub(crate) fn new_request() -> Result<RequestId> {
    let mut bytes = [0; 16];
    let none = |error| Error::new(ErrorKind::Broken, format!("the system's randomness: {error}"));
    getrandom::fill(&mut bytes).map_err(none)?;
    Ok(RequestId(u128::from_le_bytes(bytes)))
}

fn asked(ask: &Acquire) -> String {
    let names: Vec<&str> = ask.wants.iter().map(|want| &*want.name).collect();
    let plural = if names.len() == 1 { "" } else { "s" };
    format!("acquire lock{plural} {}", names.join(", "))
}

/// How much of a wait is left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left {
    until: Option<Instant>,
    waits: bool,
}

impl Left {
    pub fn of(wait: Wait) -> Self {
        let now = Instant::now();
        match wait {
            Wait::No => Self { until: Some(now), waits: false },
            // A wait beyond all clocks is one for ever.
            Wait::AtMost(wait) => Self { until: now.checked_add(wait), waits: !wait.is_zero() },
            Wait::Forever => Self { until: None, waits: true },
        }
    }

    /// For how long to ask now: what is left, but at most what a door accepts. It counts whole
    /// milliseconds, and less than one must not become "not at all".
    pub fn now(&self) -> Duration {
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.unwrap_or(WAIT_MAX).min(WAIT_MAX);
        if left.is_zero() { left } else { left.max(Duration::from_millis(1)) }
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Whether there was a wait at all.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// How long the server may be out of reach: the patience, or the whole wait if that is longer.
    pub fn patience(&self, usual: Duration) -> Duration {
        let wait = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        wait.map_or(Duration::MAX, |wait| wait.max(usual))
    }
}

/// One acquire under way.
struct Acquiring {
    server: Arc<Server>,
    ask: Acquire,
    request: RequestId,
    gone: Gone,
}

impl HttpEngine {
    pub(crate) async fn acquired(&self, ask: &Acquire) -> Result<Grant> {
        let request = ask.request.map_or_else(new_request, Ok)?;
        let (server, ask) = (self.server.clone(), ask.clone());
        let undo = Undo { server: server.clone(), ask: ask.clone() };
        let reentrant = ask.reentrant;
        let work = |gone| Acquiring { server, ask, request, gone }.run();
        let granted = apart(work, |granted: Granted| {
            tokio::spawn(async move { undo.release(granted.token).await });
        });
        let granted = granted.await?;
        if reentrant {
            self.entered().insert(granted.token);
        }
        Ok(granted.into_api())
    }
}

impl Acquiring {
    fn asking(&self, request: RequestId, wait: Wait) -> Result<Ask> {
        let ask = Acquire { wait, ..self.ask.clone() };
        let body = AcquireLocks::of(&ask, Some(request_text(request)));
        let path = Path::new("/v1/locks/acquire");
        let server_waits = match wait {
            Wait::AtMost(wait) => wait,
            _ => Duration::ZERO,
        };
        Ok(Ask::with(Method::POST, path, &body, asked(&self.ask))?.waiting(server_waits))
    }

    async fn run(mut self) -> Result<Granted> {
        let left = Left::of(self.ask.wait);
        let mut patience = Patience::of(left.patience(self.server.patience));
        let result = loop {
            if self.gone.is_so() {
                break Err(Gone::cancelled());
            }
            let now = left.now();
            let wait = if now.is_zero() { Wait::No } else { Wait::AtMost(now) };
            let ask = self.asking(self.request, wait)?;
            match self.server.attempt(&ask, &mut self.gone).await {
                Ok(body) => break read(&body),
                Err(Bad::Withdrawn) => {
                    patience.lost = true;
                    break Err(Gone::cancelled());
                }
                Err(Bad::Refused(error)) => match self.refused(error, left, patience.lost)? {
                    None => patience = Patience::of(left.patience(self.server.patience)),
                    Some(error) => {
                        patience.lost &= !is_about_the_request(error.kind);
                        break Err(error);
                    }
                },
                Err(Bad::Setback(setback)) => {
                    let url = self.server.url();
                    let pause = patience.bear(url, Repeat::Yes, setback);
                    // Nobody has to wait for a caller who is gone.
                    let borne = tokio::select! {
                        borne = pause => borne,
                        () = self.gone.wait() => Err(Gone::cancelled()),
                    };
                    if let Err(error) = borne {
                        break Err(error);
                    }
                }
            }
        };
        if result.is_err() && patience.lost {
            let undo = Undo { server: self.server.clone(), ask: self.ask.clone() };
            let again = self.asking(self.request, Wait::No)?;
            let again = again.hurried(LOOK, LOOK);
            tokio::spawn(async move { undo.look_and_release(again).await });
        }
        result.map_err(|error| of_session(error).asking(asked(&self.ask)))
    }

    /// What a refusal means; `None`: ask again, as a new request.
    fn refused(&mut self, error: Error, left: Left, lost: bool) -> Result<Option<Error>> {
        let goes_on = match error.kind {
            // The longest wait that a door accepts was over, not ours.
            ErrorKind::TimedOut => left.waits() && !left.is_over(),
            // It was granted to an attempt that was not heard, and has ended since.
            ErrorKind::Spent => lost,
            _ => false,
        };
        if goes_on {
            self.request = new_request()?;
            return Ok(None);
        }
        // It did wait, until the last attempt found no time left.
        if is(&error, ErrorKind::Busy) && left.waits() {
            let wrong = format!("it waited as long as it wanted to: {}", error.wrong);
            return Ok(Some(Error::new(ErrorKind::TimedOut, wrong).asking(error.asked)));
        }
        Ok(Some(error))
    }
}

/// Whether the engine refused after it had looked for the request's id: then no attempt before was
/// granted. Others may come from the door, which knows of no ids.
fn is_about_the_request(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Busy
            | ErrorKind::TimedOut
            | ErrorKind::Deadlock
            | ErrorKind::NoSession
            | ErrorKind::Spent
    )
}

/// Gives back what nobody wants.
struct Undo {
    server: Arc<Server>,
    ask: Acquire,
}

impl Undo {
    async fn release(&self, token: u64) {
        let name = self.ask.wants.first().map_or_else(|| "".into(), |want| want.name.clone());
        let session = self.ask.session.clone();
        let hold = HoldRef { name, token, hold: self.ask.hold, session };
        let released = match crate::lock::release(&hold) {
            Ok(ask) => {
                self.server.tell(Ok(if self.ask.reentrant { ask.once() } else { ask })).await
            }
            Err(error) => Err(error),
        };
        match released {
            Err(error) if !is(&error, ErrorKind::Stale) => {
                tracing::warn!(%error, "a grant that nobody wants ends by its TTL");
            }
            _ => {}
        }
    }

    /// Finds out by its request id whether it was granted, and releases it then.
    async fn look_and_release(self, again: Ask) {
        let until = Instant::now() + self.ask.ttl.unwrap_or(LOOK_FOR);
        loop {
            let mut nobody = Gone::never();
            match timeout_at(until, self.server.attempt(&again, &mut nobody)).await {
                Ok(Ok(body)) => {
                    if let Ok(granted) = read::<Granted>(&body) {
                        self.release(granted.token).await;
                    }
                    return;
                }
                // It is not held; or its own time has ended it.
                Ok(Err(Bad::Refused(_) | Bad::Withdrawn)) | Err(_) => return,
                Ok(Err(Bad::Setback(_))) => self.server.breathe().await,
            }
        }
    }
}
