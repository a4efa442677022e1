//! One connection: how long it may take, and when it ends.
//!
//! hyper's own timeout for headers also runs while a kept-alive connection is idle, and the part
//! that tells HTTP/1 from HTTP/2 has none. So the pace of a connection is watched here, from what
//! its socket and its requests do:
//!
//! ```text
//! nothing under way                      closed after `idle`
//! bytes came, but no whole head yet      closed after `head_read`   (HTTP/1)
//! a request under way, its body too      not closed: a wait may take long
//! an answer that the client does not take  closed after `idle`
//! ```
//! The deadline changes only when something happens on the connection, and everything that happens
//! wakes its task. One timer per connection is therefore enough, and an idle one costs nothing.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::HttpLimits;

/// How a connection goes on.
#[derive(Debug)]
pub(crate) struct Pace {
    now: Mutex<Now>,
    head_read: Duration,
    idle: Duration,
}

#[derive(Debug)]
struct Now {
    /// Requests under way, up to the last byte of their answers.
    active: usize,
    /// When the last of them ended.
    idle_since: Instant,
    /// When the first byte of a head came that is not whole yet.
    head_since: Option<Instant>,
    /// Since when the client takes nothing of what is written.
    stuck_since: Option<Instant>,
    /// HTTP/2 sends bytes between requests that begin none.
    multiplexed: bool,
}

impl Pace {
    pub fn new(limits: &HttpLimits) -> Arc<Self> {
        let start = Instant::now();
        // A client that never says anything is as slow as one that says half a head.
        let now = Now {
            active: 0,
            idle_since: start,
            head_since: Some(start),
            stuck_since: None,
            multiplexed: false,
        };
        let (head_read, idle) = (limits.head_read, limits.idle);
        Arc::new(Self { now: Mutex::new(now), head_read, idle })
    }

    /// When the connection has to be closed, as it stands.
    pub fn deadline(&self) -> Option<Instant> {
        let now = self.now();
        if let Some(since) = now.stuck_since {
            return Some(since + self.idle);
        }
        if now.active > 0 {
            return None;
        }
        match now.head_since {
            Some(since) if !now.multiplexed => Some(since + self.head_read),
            _ => Some(now.idle_since + self.idle),
        }
    }

    /// A request's head is there. It is under way until what this gives is dropped.
    pub fn begin(self: &Arc<Self>, multiplexed: bool) -> UnderWay {
        let mut now = self.now();
        now.active += 1;
        now.head_since = None;
        now.multiplexed |= multiplexed;
        drop(now);
        UnderWay(self.clone())
    }

    fn came(&self) {
        let mut now = self.now();
        if now.active == 0 && now.head_since.is_none() {
            now.head_since = Some(Instant::now());
        }
    }

    fn wrote(&self, stuck: bool) {
        let mut now = self.now();
        match stuck {
            true => now.stuck_since = now.stuck_since.or_else(|| Some(Instant::now())),
            false => now.stuck_since = None,
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Pace>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut now = self.0.now();
        now.active -= 1;
        if now.active == 0 {
            now.idle_since = Instant::now();
        }
    }
}

/// An answer's body; its request is under way until it is sent or given up.
pub(crate) struct Answering {
    body: Body,
    _request: UnderWay,
}

impl Answering {
    pub fn new(body: Body, request: UnderWay) -> Self {
        Self { body, _request: request }
    }
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that tells the pace what it does.
pub(crate) struct Watched<S> {
    socket: S,
    pace: Arc<Pace>,
}

impl<S> Watched<S> {
    pub fn new(socket: S, pace: Arc<Pace>) -> Self {
        Self { socket, pace }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.socket).poll_read(cx, buffer));
        if buffer.filled().len() > before {
            self.pace.came();
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.pace.wrote(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.pace.wrote(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
