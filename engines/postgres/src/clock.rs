//! Doing what is due: leases that run out, delayed and old messages.
//!
//! The server has no timer for us, so one task per engine sleeps until the next thing is due and
//! asks the server to do it. It learns the next time from the answer, from everything that it asks
//! for, and from notifications of others. All times are differences by the server's clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::server::Server;

/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// When something is due.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    next: Mutex<Option<Instant>>,
    sooner: Notify,
}

impl Clock {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is due within that time.
    pub fn hint(&self, within: Duration) {
        let Some(at) = Instant::now().checked_add(within) else { return };
        let mut next = self.lock();
        if next.is_none_or(|next| at < next) {
            *next = Some(at);
            self.sooner.notify_one();
        }
    }

    /// Waits until something is due, and takes note of it.
    async fn due(&self) {
        loop {
            let next = *self.lock();
            match next {
                Some(at) if at <= Instant::now() => {
                    *self.lock() = None;
                    return;
                }
                Some(at) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.sooner.notified() => {}
                },
                None => self.sooner.notified().await,
            }
        }
    }
}

/// The task; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Ticking {
    task: JoinHandle<()>,
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ticking {
    pub fn start(clock: Arc<Clock>, server: Arc<Server>) -> Self {
        clock.hint(Duration::ZERO);
        let task = tokio::spawn(async move {
            loop {
                clock.due().await;
                match server.rows(&server.call("tend", 0), &[]).await {
                    Ok(rows) => {
                        let next = rows.first().and_then(|row| row.get::<_, Option<i64>>(0));
                        if let Some(next) = next {
                            clock.hint(Duration::from_micros(next.max(0).cast_unsigned()));
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "what is due was not done; again soon");
                        clock.hint(crate::spread(RETRY));
                    }
                }
            }
        });
        Self { task }
    }
}
