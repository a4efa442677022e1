//! The server as the engine sees it: asked until it answers, within a patience.
//!
//! ```text
//! attempt ─► answered ────────────────► the answer, or its problem as an error
//!          ├ unsent ──┐
//!          └ lost ────┴─ may it be asked again, is there time? ─► pause ─► attempt
//! ```
//! The pause begins at 100 ms, doubles up to 2 s and is jittered, so that a thousand clients do not
//! come back to a restarted server in step. A server that says that it is shutting down, and a
//! proxy that finds no server, count as not reached. That an earlier attempt *may have been carried
//! out* is remembered to the end: some refusals mean something else then, see [`Heard::again`].

use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use leasehold_api::engine::Gone;
use leasehold_api::{Error, ErrorKind, Result, Retry};
use leasehold_wire::Problem;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, sleep_until};

use crate::ask::{Ask, Repeat};
use crate::lines::{Failure, Lines, Whole};

/// First and longest pause between two attempts.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// What is shown of an answer that is not the server's.
const SHOWN_BYTES_MAX: usize = 200;

/// Why the server was not heard.
#[derive(Debug)]
pub(crate) struct Setback {
    why: String,
    /// It may have been carried out.
    lost: bool,
    /// Asking again will not help.
    for_good: bool,
    /// It was only an old connection that was being closed: no pause is needed.
    at_once: bool,
}

/// An attempt without an answer of the kind that was hoped for.
#[derive(Debug)]
pub(crate) enum Bad {
    /// The server refused.
    Refused(Error),
    /// The server was not heard.
    Setback(Setback),
    /// We hung up, and nothing came of it.
    Withdrawn,
}

/// What was heard in the end.
#[derive(Debug)]
pub(crate) struct Heard {
    pub answer: Result<Bytes>,
    /// An attempt before may have been carried out.
    pub again: bool,
}

impl Heard {
    /// The answer's JSON.
    ///
    /// # Errors
    /// What the server refused; `Broken` for JSON of another kind.
    pub fn read<T: DeserializeOwned>(self) -> Result<T> {
        read(&self.answer?)
    }
}

/// Reads an answer.
///
/// # Errors
/// `Broken` for JSON of another kind.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| {
        let wrong = format!("the server's answer is of another kind ({error}); is it up to date?");
        Error::new(ErrorKind::Broken, wrong)
    })
}

/// How long something is tried.
#[derive(Debug)]
pub(crate) struct Patience {
    until: Option<Instant>,
    pause: Duration,
    /// An attempt may have been carried out.
    pub lost: bool,
}

impl Patience {
    pub fn of(patience: Duration) -> Self {
        // A patience beyond all clocks is none that ends.
        let until = Instant::now().checked_add(patience);
        Self { until, pause: PAUSE_MIN, lost: false }
    }

    /// Waits until the next attempt is due.
    ///
    /// # Errors
    /// `Unavailable` when there must not be one, or no time is left.
    pub async fn bear(&mut self, url: &str, repeat: Repeat, setback: Setback) -> Result<()> {
        self.lost |= setback.lost;
        let may = !setback.for_good && (repeat == Repeat::Yes || !setback.lost);
        let now = Instant::now();
        let pause = if setback.at_once { Duration::ZERO } else { jittered(self.pause) };
        // The last attempt is made when the time is over.
        let due = self.until.map_or(now + pause, |until| until.min(now + pause));
        if !may || self.until.is_some_and(|until| now >= until) {
            let retry = match (self.lost, setback.for_good) {
                (true, _) => Retry::Unknown,
                (false, true) => Retry::Never,
                (false, false) => Retry::Later,
            };
            let wrong = format!("{url} cannot be reached: {}", setback.why);
            return Err(Error::new(ErrorKind::Unavailable, wrong).with_retry(retry));
        }
        tracing::debug!(url, why = setback.why, ?pause, "asking again");
        if !setback.at_once {
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        sleep_until(due).await;
        Ok(())
    }
}

/// Between a half and the whole of a pause.
fn jittered(pause: Duration) -> Duration {
    let half = pause / 2;
    // Without randomness clients come back in step, which is slower and not wrong.
    let share = getrandom::u32().map_or(0.5, |share| f64::from(share) / f64::from(u32::MAX));
    half + half.mul_f64(share)
}

/// One server.
#[derive(Debug)]
pub(crate) struct Server {
    pub lines: Lines,
    /// How long an answer may take.
    pub within: Duration,
    /// How long something is tried.
    pub patience: Duration,
}

impl Server {
    /// The URL as it may be shown.
    pub fn url(&self) -> &str {
        &self.lines.place.shown
    }

    /// One attempt.
    pub async fn attempt(&self, ask: &Ask, gone: &mut Gone) -> std::result::Result<Bytes, Bad> {
        ask.check().map_err(Bad::Refused)?;
        match self.lines.whole(&ask.parcel, ask.attempt(self.within), gone).await {
            Ok(whole) => judge(whole),
            Err(failure) => Err(self.setback(failure)),
        }
    }

    /// What a failed attempt means.
    pub fn setback(&self, failure: Failure) -> Bad {
        Bad::Setback(match failure {
            Failure::Withdrawn => return Bad::Withdrawn,
            Failure::Unsent(cause) => {
                let for_good = cause.retry == Retry::Never;
                Setback { why: cause.text, lost: false, for_good, at_once: false }
            }
            Failure::Lost { why, old, .. } => {
                // A connection that died unnoticed is not the only one.
                self.lines.forget();
                Setback { why, lost: true, for_good: false, at_once: old }
            }
        })
    }

    /// Asks until there is an answer.
    pub async fn ask(&self, ask: &Ask) -> Heard {
        self.ask_while(ask, &mut Gone::never()).await
    }

    /// Asks until there is an answer, or nobody wants it any more.
    pub async fn ask_while(&self, ask: &Ask, gone: &mut Gone) -> Heard {
        let mut patience = Patience::of(ask.patience.unwrap_or(self.patience));
        loop {
            let error = match self.attempt(ask, gone).await {
                Ok(body) => return Heard { answer: Ok(body), again: patience.lost },
                Err(Bad::Refused(error)) => error,
                Err(Bad::Setback(setback)) => {
                    let borne = tokio::select! {
                        borne = patience.bear(self.url(), ask.repeat, setback) => borne,
                        () = gone.wait() => Err(Gone::cancelled()),
                    };
                    match borne {
                        Ok(()) => continue,
                        Err(error) => error,
                    }
                }
                Err(Bad::Withdrawn) => Gone::cancelled(),
            };
            let answer = Err(error.asking(&ask.asked));
            return Heard { answer, again: patience.lost };
        }
    }

    /// Asks until there is an answer, and reads it.
    ///
    /// # Errors
    /// What the server refused; `Unavailable` when it was not heard.
    pub async fn get<T: DeserializeOwned>(&self, ask: Result<Ask>) -> Result<T> {
        let ask = ask?;
        self.ask(&ask).await.read().map_err(|error| error.asking(&ask.asked))
    }

    /// Asks until there is an answer that says nothing.
    ///
    /// # Errors
    /// What the server refused; `Unavailable` when it was not heard.
    pub async fn tell(&self, ask: Result<Ask>) -> Result<()> {
        self.ask(&ask?).await.answer.map(drop)
    }

    /// Lets a little time pass before something is undone again.
    pub async fn breathe(&self) {
        sleep(jittered(PAUSE_MAX)).await;
    }
}

/// What an answer means. Only problem details are the server's own word.
pub(crate) fn judge((status, body): Whole) -> std::result::Result<Bytes, Bad> {
    if status.is_success() {
        return Ok(body);
    }
    if let Ok(problem) = serde_json::from_slice::<Problem>(&body) {
        return Err(refused(problem.into()));
    }
    let said = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES_MAX)]).into_owned();
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let why = format!("something that is no Leasehold server answers {status}: {said}");
    let kind = match status {
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            // A proxy that lost the server in the middle says the same as one that found none.
            return Err(Bad::Setback(Setback { why, lost: true, for_good: false, at_once: false }));
        }
        StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            ErrorKind::Unauthenticated
        }
        StatusCode::FORBIDDEN => ErrorKind::Forbidden,
        StatusCode::TOO_MANY_REQUESTS => ErrorKind::Full,
        StatusCode::PAYLOAD_TOO_LARGE => ErrorKind::Invalid,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => ErrorKind::Unsupported,
        _ => ErrorKind::Broken,
    };
    Err(Bad::Refused(Error::new(kind, why)))
}

/// A server that says it is not available is as good as one that was not heard.
pub(crate) fn refused(error: Error) -> Bad {
    match error {
        Error { kind: ErrorKind::Unavailable, retry, wrong, .. } if retry != Retry::Never => {
            let lost = retry == Retry::Unknown;
            Bad::Setback(Setback { why: wrong, lost, for_good: false, at_once: false })
        }
        error => Bad::Refused(error),
    }
}
