//! A real node in a directory of its own, and short ways to ask it.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use leasehold_api::engine::{
    Acquire, Consume, Delivered, Grant, HoldRef, LockEngine, OpenSession, Publish, QueueEngine,
    Receive, SessionRef, Want,
};
use leasehold_api::{Message, Mode, QueueConfig, Result, Target, Verdict, Wait};
use leasehold_native::NativeEngine;
use leasehold_node::Options;
use tempfile::TempDir;

/// After this a test has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const TTL: Duration = Duration::from_secs(600);

/// Small segments, so that a test does not fill the disk.
pub fn small() -> Options {
    let limits = leasehold_core::Limits { segment_bytes: 1 << 20, ..Default::default() };
    Options { limits, ..Options::default() }
}

pub struct Home {
    pub native: NativeEngine,
    pub directory: TempDir,
}

impl Deref for Home {
    type Target = NativeEngine;
    fn deref(&self) -> &NativeEngine {
        &self.native
    }
}

pub fn home() -> Home {
    home_with(small())
}

pub fn home_with(options: Options) -> Home {
    let directory = tempfile::tempdir().expect("a directory");
    let native = NativeEngine::open(directory.path(), options).expect("opened");
    Home { native, directory }
}

/// Waits, but not for ever.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// Polls a future once.
pub async fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx))).await
}

/// Polls a future so many times and drops it. Between polls `between` is awaited.
pub async fn poll_and_drop<F: Future>(
    future: F,
    polls: usize,
    between: impl AsyncFn(),
) -> Option<F::Output> {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        if let Poll::Ready(output) = poll(&mut future).await {
            return Some(output);
        }
        between().await;
    }
    None
}

pub fn want(name: &str) -> Want {
    Want { name: Arc::from(name), mode: Mode::Exclusive }
}

pub fn asking(name: &str, session: Option<&SessionRef>, wait: Wait) -> Acquire {
    Acquire {
        wants: vec![want(name)],
        session: session.cloned(),
        hold: 1,
        reentrant: false,
        ttl: Some(TTL),
        bound: false,
        wait,
        lock_delay: Duration::ZERO,
        label: None,
        request: None,
    }
}

pub fn held(name: &str, token: u64, session: Option<&SessionRef>) -> HoldRef {
    HoldRef { name: Arc::from(name), token, hold: 1, session: session.cloned() }
}

pub fn message(queue: &str, body: impl Into<Vec<u8>>) -> Publish {
    let (target, message) = (Target::Queue(Arc::from(queue)), Message::new(body));
    Publish { target, message, mandatory: true, request: None }
}

impl Home {
    pub async fn session(&self) -> SessionRef {
        soon(self.native.open_session(&OpenSession::default())).await.expect("opened").session
    }

    pub async fn take(&self, name: &str, session: Option<&SessionRef>) -> Grant {
        let wait = Wait::AtMost(PATIENCE);
        soon(self.native.acquire(&asking(name, session, wait))).await.expect("granted")
    }

    pub async fn leave(&self, name: &str, token: u64, session: Option<&SessionRef>) -> u32 {
        soon(self.native.release(&held(name, token, session))).await.expect("released")
    }

    pub async fn declare(&self, queue: &str, config: QueueConfig) {
        soon(self.native.declare_queue(queue, &config)).await.expect("declared");
    }

    pub async fn send(&self, queue: &str, count: usize) {
        let all = (0..count).map(|i| message(queue, i.to_string())).collect();
        for answer in soon(self.native.publish(all)).await.expect("answered") {
            assert_eq!(answer.expect("accepted").queues, 1);
        }
    }

    pub fn receiving(&self, queue: &str, session: &SessionRef, max: u32, wait: Wait) -> Receive {
        Receive { queue: Arc::from(queue), session: session.clone(), max, wait, lease: None }
    }

    pub async fn receive_now(&self, queue: &str, by: &SessionRef, max: u32) -> Vec<Delivered> {
        let ask = self.receiving(queue, by, max, Wait::No);
        soon(self.native.receive(&ask)).await.expect("received")
    }

    pub async fn ack(&self, deliveries: &[Delivered]) {
        let receipts: Vec<_> = deliveries.iter().map(|one| one.receipt.clone()).collect();
        let settled = soon(self.native.settle(&receipts, Verdict::Ack)).await.expect("acked");
        assert_eq!(settled as usize, deliveries.len());
    }

    pub fn consuming(&self, queue: &str, session: &SessionRef, prefetch: u32) -> Consume {
        Consume {
            queue: Arc::from(queue),
            session: session.clone(),
            prefetch,
            no_ack: false,
            exclusive: false,
            label: None,
        }
    }

    /// A round trip behind everything that was sent before.
    pub async fn round_trip(&self) {
        soon(self.native.read(b"round trip")).await.expect("read");
    }

    /// Goes round until something is so.
    pub async fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let tried = tokio::time::timeout(PATIENCE, async {
            while !is_so().await {
                self.round_trip().await;
                tokio::task::yield_now().await;
            }
        });
        assert!(tried.await.is_ok(), "never: {what}; kept {:?}", self.kept());
    }

    /// Waits until nothing is under way but so many sessions.
    pub async fn until_quiet(&self, sessions: usize) {
        self.until("nothing under way", async || {
            let kept = self.kept();
            kept.slots == sessions && kept.unsettled == 0
        })
        .await;
    }
}

pub fn kind<T: std::fmt::Debug>(result: Result<T>) -> leasehold_api::ErrorKind {
    result.expect_err("an error").kind
}
