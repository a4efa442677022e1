//! The keeper: does what time does to queues that nobody looks at.
//!
//! It sleeps until the first thing is due, in any queue, and a bell tells it when something is due
//! sooner than was known. With several processes each has one; whoever is first does the work.

use std::sync::Weak;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::bells::Listener;
use crate::queue::Inner;
use crate::script::{self, Args};

/// How long it sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(60);

/// How long it rests when the server is not reached.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps until the engine is dropped.
pub(crate) async fn keep(inner: Weak<Inner>) {
    let mut bell = None;
    loop {
        let Some(inner) = inner.upgrade() else { return };
        if bell.is_none() {
            bell = listen(&inner).await;
        }
        if let Some(bell) = &mut bell {
            bell.heard();
        }
        let pause = tick(&inner).await;
        drop(inner);
        match &mut bell {
            Some(listener) => {
                if timeout(pause, listener.rung()).await == Ok(false) {
                    bell = None;
                }
            }
            // Without a bell it looks again as soon as the connection may be back.
            None => sleep(RETRY).await,
        }
    }
}

async fn listen(inner: &Inner) -> Option<Listener> {
    let channel = format!("{}:b:due", inner.link.config().prefix);
    match inner.bells.listen(channel).await {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::debug!(%error, "no bell for the keeper");
            None
        }
    }
}

/// Does what is due; gives how long nothing is.
async fn tick(inner: &Inner) -> Duration {
    let due = async {
        let mut reply = inner.ask(&script::TICK, &Args::default()).await?;
        reply.text("time")
    };
    match due.await {
        Ok(due) => due.parse().map_or(IDLE, |us: u64| {
            // A little later than too early: the server's clock decides.
            (Duration::from_micros(us) + Duration::from_micros(500)).min(IDLE)
        }),
        Err(error) => {
            tracing::debug!(%error, "the keeper could not look");
            RETRY
        }
    }
}
