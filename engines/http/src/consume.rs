//! Consuming: one answer that goes on, a delivery on each line.
//!
//! ```text
//! door ── lines ─► pump (a task) ── at most the prefetch ─► Deliveries (the stream)
//!                    ▲                                          │ dropped:
//!                    └────────── what was not handed out ◄──────┘
//! ```
//! The pump always reads, so what the server has sent does not lie in buffers on the way. When the
//! stream is dropped the pump hangs up, which stops the consumer; it reads what is still under way
//! to the end, and then gives back everything that was not handed out. Given back earlier, it
//! would come again on this very stream. Without acks nothing is given back, and the pump reads
//! only as fast as the stream is, which is how the server learns to wait.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use futures_core::Stream;
use futures_core::stream::BoxStream;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use leasehold_api::engine::{Consume, Delivered, Gone, Receipt, apart};
use leasehold_api::{Error, ErrorKind, Result, Retry};
use leasehold_wire::Problem;
use leasehold_wire::message::Delivery;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::ask::{Ask, Path, Repeat};
use crate::line::Line;
use crate::lines::Flowing;
use crate::lock::{named, of_session};
use crate::receive::give_back;
use crate::server::{Bad, Patience, Server, judge, read};

/// A server says so every 15 seconds that a stream lives; three times nothing, and it does not.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// After hanging up, how long the rest of the stream is waited for.
const LINGER: Duration = Duration::from_secs(5);
/// No line is longer: a message with its headers, in JSON.
const LINE_BYTES_MAX: usize = 64 << 20;
/// No stream keeps more places than this; a greater prefetch fills them as they become free.
const PLACES_MAX: usize = 1024;

/// A stream of deliveries.
struct Deliveries {
    came: mpsc::Receiver<Result<Delivered>>,
    /// Tells the pump that the stream is dropped, and what was not handed out.
    back: Option<oneshot::Sender<Vec<Receipt>>>,
}

impl Stream for Deliveries {
    type Item = Result<Delivered>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.came.poll_recv(cx)
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        // Closed first, so that nothing is added behind our back.
        self.came.close();
        let mut left = Vec::new();
        while let Ok(one) = self.came.try_recv() {
            left.extend(one.ok().map(|delivered| delivered.receipt));
        }
        if let Some(back) = self.back.take() {
            // If the pump is gone, so is its session or its runtime, and those give back.
            back.send(left).ok();
        }
    }
}

/// See [`QueueEngine::consume`](leasehold_api::engine::QueueEngine::consume).
pub(crate) async fn open(
    server: &Arc<Server>,
    ask: &Consume,
) -> Result<BoxStream<'static, Result<Delivered>>> {
    let path = Path::new("/v1/queues").name(&*ask.queue).word("consume");
    let mut path = path.query("prefetch", ask.prefetch);
    if let Some(session) = named(&ask.session) {
        path = path.query("session", session);
    }
    let path = path.query("no_ack", ask.no_ack).query("exclusive", ask.exclusive);
    let path = path.query_if("label", ask.label.as_deref());
    let asked = format!("consume from queue {}", ask.queue);
    let (server, no_ack) = (server.clone(), ask.no_ack);
    let places = (ask.prefetch.max(1) as usize).min(PLACES_MAX);
    // A stream that nobody takes is dropped, and that gives everything back.
    let work = move |gone| async move {
        let flowing = begin(&server, &Ask::get(path, asked), gone).await?;
        let (put, came) = mpsc::channel(places);
        let (back, left) = oneshot::channel();
        let reader = Reader::new(flowing);
        let put = Some(put);
        tokio::spawn(Pump { server, reader, put, left, no_ack }.run());
        Ok(Deliveries { came, back: Some(back) })
    };
    Ok(Box::pin(apart(work, drop).await?))
}

/// Asks until the stream begins. Asking again is safe: the consumer of a broken connection is
/// stopped by the server, and what was sent to it goes back by its lease or with its session.
async fn begin(server: &Server, ask: &Ask, mut gone: Gone) -> Result<Flowing> {
    ask.check().map_err(|error| error.asking(&ask.asked))?;
    let mut patience = Patience::of(server.patience);
    loop {
        let begun = server.lines.flowing(&ask.parcel, server.within, &mut gone).await;
        let bad = match begun {
            Ok(flowing) if flowing.answer.status().is_success() => return Ok(flowing),
            Ok(Flowing { answer, line }) => {
                let status = answer.status();
                let body = timeout(server.within, answer.into_body().collect()).await;
                let body = body.ok().and_then(std::result::Result::ok);
                drop(line);
                match judge((status, body.map(|body| body.to_bytes()).unwrap_or_default())) {
                    Err(bad) => bad,
                    Ok(_) => Bad::Withdrawn,
                }
            }
            Err(failure) => server.setback(failure),
        };
        let error = match bad {
            Bad::Refused(error) => error,
            Bad::Withdrawn => Gone::cancelled(),
            Bad::Setback(setback) => {
                let borne = tokio::select! {
                    borne = patience.bear(server.url(), Repeat::Yes, setback) => borne,
                    () = gone.wait() => Err(Gone::cancelled()),
                };
                match borne {
                    Ok(()) => continue,
                    Err(error) => error,
                }
            }
        };
        return Err(of_session(error).asking(&ask.asked));
    }
}

/// What came on a line.
enum Came {
    Delivery(Delivered),
    /// The last line: why the stream ends.
    Problem(Error),
    /// The server ended the stream as it should: the queue was deleted.
    End,
    /// It broke.
    Broke(String),
}

/// Reads lines.
struct Reader {
    body: Incoming,
    line: Line,
    /// What was read and is not a whole line yet.
    rest: BytesMut,
    /// How much of it is known to have no end of a line in it.
    searched: usize,
}

impl Reader {
    fn new(Flowing { answer, line }: Flowing) -> Self {
        Self { body: answer.into_body(), line, rest: BytesMut::new(), searched: 0 }
    }

    /// The next line that says something. Dropping the future loses nothing.
    async fn next(&mut self) -> Came {
        loop {
            while let Some(line) = self.whole_line() {
                if let Some(came) = understood(&line) {
                    return came;
                }
            }
            if self.rest.len() > LINE_BYTES_MAX {
                return Came::Broke("a line of the stream does not end".to_owned());
            }
            match timeout(SILENCE_MAX, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        self.rest.extend_from_slice(data);
                    }
                }
                Ok(Some(Err(error))) => {
                    return Came::Broke(format!("the stream broke off: {error}"));
                }
                Ok(None) if self.rest.is_empty() => return Came::End,
                Ok(None) => return Came::Broke("the stream ended within a line".to_owned()),
                Err(_) => return Came::Broke(format!("it was silent for {SILENCE_MAX:?}")),
            }
        }
    }

    fn whole_line(&mut self) -> Option<BytesMut> {
        let found = self.rest[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(at) = found else {
            self.searched = self.rest.len();
            return None;
        };
        let line = self.rest.split_to(self.searched + at + 1);
        self.searched = 0;
        Some(line)
    }
}

/// What a line says; an empty one says only that the stream lives.
fn understood(line: &[u8]) -> Option<Came> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return None;
    }
    Some(match read::<Delivery>(line).and_then(Delivery::into_api) {
        Ok(delivered) => Came::Delivery(delivered),
        Err(wrong) => match serde_json::from_slice::<Problem>(line) {
            Ok(problem) => Came::Problem(problem.into()),
            Err(_) => Came::Problem(wrong),
        },
    })
}

/// Brings deliveries from the answer to the stream.
struct Pump {
    server: Arc<Server>,
    reader: Reader,
    /// `None`: everything was put.
    put: Option<mpsc::Sender<Result<Delivered>>>,
    /// Resolves when the stream is dropped.
    left: oneshot::Receiver<Vec<Receipt>>,
    no_ack: bool,
}

impl Pump {
    async fn run(mut self) {
        let mut pending = VecDeque::new();
        let mut ended = false;
        let left = loop {
            if ended && pending.is_empty() {
                self.put = None;
            }
            let reads = !ended && (pending.is_empty() || !self.no_ack);
            tokio::select! {
                biased;
                left = &mut self.left => break left,
                place = place(self.put.as_ref()), if !pending.is_empty() => match place {
                    Some(place) => {
                        if let Some(one) = pending.pop_front() {
                            place.send(one);
                        }
                    }
                    // The stream is just being dropped.
                    None => break (&mut self.left).await,
                },
                came = self.reader.next(), if reads => {
                    let one = match came {
                        Came::Delivery(delivered) => Some(Ok(delivered)),
                        Came::Problem(error) => Some(Err(error)),
                        Came::Broke(why) => Some(Err(self.broken(why))),
                        Came::End => None,
                    };
                    ended = !matches!(one, Some(Ok(_)));
                    pending.extend(one);
                }
            }
        };
        let mut back = left.unwrap_or_default();
        back.extend(pending.into_iter().flatten().map(|one| one.receipt));
        if !ended {
            self.hang_up(&mut back).await;
        }
        if !self.no_ack {
            give_back(self.server, back).await;
        }
    }

    fn broken(&self, why: String) -> Error {
        let wrong = format!("{}: {why}; consume anew", self.server.url());
        Error::new(ErrorKind::Unavailable, wrong).with_retry(Retry::Later)
    }

    /// Stops the consumer and reads what was under way.
    async fn hang_up(&mut self, back: &mut Vec<Receipt>) {
        self.reader.line.hang_up.now();
        let until = Instant::now() + LINGER;
        while let Ok(Came::Delivery(late)) = timeout_at(until, self.reader.next()).await {
            back.push(late.receipt);
        }
    }
}

async fn place<T>(put: Option<&mpsc::Sender<T>>) -> Option<mpsc::Permit<'_, T>> {
    put?.reserve().await.ok()
}
