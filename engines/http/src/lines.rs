//! One attempt: a free connection or a new one, the request, the answer.
//!
//! What matters of a failure is what it says about the request. *Unsent*: nothing happened.
//! *Lost*: it may have happened. *Withdrawn*: we hung up, and the connection ended without an
//! answer. A server does that when it has dropped what it was doing for us; a proxy in between may
//! do it before the server has noticed anything.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use leasehold_api::engine::Gone;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::line::{Cause, HangUp, Line};
use crate::place::Place;

/// Free connections that are kept.
const FREE_MAX: usize = 256;
/// How long a free connection is kept: less than servers and proxies keep them.
const FREE_FOR: Duration = Duration::from_secs(30);
/// After hanging up, how long an answer that is under way is waited for.
const LINGER: Duration = Duration::from_secs(5);
/// No answer is longer.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// What is sent.
#[derive(Debug, Clone)]
pub(crate) struct Parcel {
    pub method: Method,
    /// From `/v1` on, with its query.
    pub path: String,
    pub body: Bytes,
    /// The body is a message as it is, not JSON; named by this header if it has a name.
    pub raw: Option<Option<HeaderValue>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing was sent.
    Unsent(Cause),
    /// It may have been carried out.
    Lost {
        /// What went wrong.
        why: String,
        /// The connection ended where the answer should have begun.
        silent: bool,
        /// The connection had been used before: perhaps it was just being closed.
        old: bool,
    },
    /// We hung up, and it was dropped without an answer.
    Withdrawn,
}

/// A whole answer.
pub(crate) type Whole = (StatusCode, Bytes);

/// An answer whose body goes on, and its connection.
#[derive(Debug)]
pub(crate) struct Flowing {
    pub answer: Response<Incoming>,
    pub line: Line,
}

/// Connections to one server.
pub(crate) struct Lines {
    pub place: Place,
    tls: Option<TlsConnector>,
    connect: Duration,
    /// The one that became free last is at the back, and taken first.
    free: Mutex<VecDeque<Line>>,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("place", &self.place).finish_non_exhaustive()
    }
}

/// The connection that an attempt uses, as soon as it is known.
#[derive(Default)]
struct Used(Mutex<Option<HangUp>>);

impl Used {
    fn lock(&self) -> MutexGuard<'_, Option<HangUp>> {
        self.0.lock().expect("nobody panics while holding it")
    }

    /// Closes our side of it, if there is one.
    fn hang_up(&self) -> bool {
        let used = self.lock();
        used.as_ref().inspect(|line| line.now()).is_some()
    }
}

impl Lines {
    pub fn new(place: Place, tls: Option<TlsConnector>, connect: Duration) -> Self {
        Self { place, tls, connect, free: Mutex::default() }
    }

    fn free(&self) -> MutexGuard<'_, VecDeque<Line>> {
        self.free.lock().expect("nobody panics while holding the free connections")
    }

    fn take(&self) -> Option<Line> {
        let mut free = self.free();
        let fresh = |line: &Line| line.free_since.is_some_and(|at| at.elapsed() < FREE_FOR);
        while free.front().is_some_and(|line| !fresh(line)) {
            free.pop_front();
        }
        loop {
            let line = free.pop_back()?;
            if !line.requests.is_closed() {
                return Some(line);
            }
        }
    }

    fn put_back(&self, mut line: Line) {
        // On a line that was hung up an answer still comes, but nothing can be said any more.
        if line.hang_up.is_done() || line.requests.is_closed() {
            return;
        }
        line.free_since = Some(Instant::now());
        let mut free = self.free();
        free.push_back(line);
        if free.len() > FREE_MAX {
            free.pop_front();
        }
    }

    /// Forgets all free connections: one of them was dead, so the others may be.
    pub fn forget(&self) {
        self.free().clear();
    }

    async fn open(&self) -> Result<Line, Cause> {
        Line::open(&self.place, self.tls.as_ref(), self.connect).await
    }

    fn request(&self, parcel: &Parcel) -> Request<Full<Bytes>> {
        let path = format!("{}{}", self.place.base, parcel.path);
        let mut request = Request::new(Full::new(parcel.body.clone()));
        *request.method_mut() = parcel.method.clone();
        // Everything that goes into a path was escaped, and the base was checked.
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(HOST, self.place.authority.clone());
        let agent = concat!("leasehold/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        if let Some(authorization) = &self.place.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let kind = match &parcel.raw {
            None if parcel.body.is_empty() => return request,
            None => "application/json",
            Some(name) => {
                if let Some(name) = name {
                    headers.insert("idempotency-key", name.clone());
                }
                "application/octet-stream"
            }
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        request
    }

    /// Sends and waits for the head of the answer. A free connection that turns out to be closed
    /// before anything was written is replaced by the next.
    async fn send(&self, parcel: &Parcel, used: &Used) -> Result<Flowing, Failure> {
        let mut request = self.request(parcel);
        loop {
            let free = self.take();
            let old = free.is_some();
            let mut line = match free {
                Some(free) => free,
                None => self.open().await.map_err(Failure::Unsent)?,
            };
            if line.requests.ready().await.is_err() {
                if old {
                    continue;
                }
                return Err(Failure::Unsent(Cause::later("it closes connections at once")));
            }
            *used.lock() = Some(line.hang_up.clone());
            match line.requests.try_send_request(request).await {
                Ok(answer) => return Ok(Flowing { answer, line }),
                Err(mut refused) => match refused.take_message() {
                    Some(back) if old => {
                        // Nobody uses that connection: hanging it up would mean nothing.
                        *used.lock() = None;
                        request = back;
                    }
                    Some(_) => return Err(Failure::Unsent(Cause::later(why(refused.error())))),
                    None => {
                        let silent = refused.error().is_incomplete_message();
                        return Err(Failure::Lost { why: why(refused.error()), silent, old });
                    }
                },
            }
        }
    }

    async fn send_and_read(&self, parcel: &Parcel, used: &Used) -> Result<Whole, Failure> {
        let Flowing { answer, line } = self.send(parcel, used).await?;
        let status = answer.status();
        match Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await {
            Ok(body) => {
                self.put_back(line);
                Ok((status, body.to_bytes()))
            }
            Err(error) => {
                let why = format!("the answer broke off: {error}");
                Err(Failure::Lost { why, silent: false, old: false })
            }
        }
    }

    /// One attempt, with the whole answer. When the caller goes, the connection is hung up, and
    /// what comes of that is the result.
    pub async fn whole(
        &self,
        parcel: &Parcel,
        within: Duration,
        gone: &mut Gone,
    ) -> Result<Whole, Failure> {
        let used = Used::default();
        bounded(self.send_and_read(parcel, &used), &used, within, gone).await
    }

    /// One attempt, with an answer that goes on.
    pub async fn flowing(
        &self,
        parcel: &Parcel,
        within: Duration,
        gone: &mut Gone,
    ) -> Result<Flowing, Failure> {
        let used = Used::default();
        bounded(self.send(parcel, &used), &used, within, gone).await
    }
}

async fn bounded<A>(
    attempt: impl Future<Output = Result<A, Failure>>,
    used: &Used,
    within: Duration,
    gone: &mut Gone,
) -> Result<A, Failure> {
    let mut attempt = std::pin::pin!(attempt);
    let lost = |why| Failure::Lost { why, silent: false, old: false };
    tokio::select! {
        biased;
        done = &mut attempt => return done,
        () = gone.wait() => {}
        () = sleep(within) => return Err(lost(format!("no answer within {within:?}"))),
    }
    if !used.hang_up() {
        return Err(Failure::Unsent(Cause::later("nobody waited for the connection")));
    }
    match timeout(LINGER, attempt).await {
        Ok(Err(Failure::Lost { silent: true, .. })) => Err(Failure::Withdrawn),
        Ok(done) => done,
        Err(_) => Err(lost(format!("it did not hang up within {LINGER:?}"))),
    }
}

/// An error of hyper with what is behind it.
fn why(error: &hyper::Error) -> String {
    use std::error::Error as _;
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
