//! Futures that are dropped: after their first poll, their second, and so on until they are done,
//! and each time at once, a little later, and when the answer is there and nobody has read it.
//! The proof is always another handle, which finds nothing left behind.

mod locks;
mod queues;
mod settling;
mod values;

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::{Case, Failure};

/// A future that nobody wakes for so long waits for somebody else.
const ASLEEP: Duration = Duration::from_millis(50);
/// No call takes more polls than this.
const POLLS_MAX: u32 = 200;
/// What passes between the last poll and the drop.
const RHYTHMS: u32 = 3;

pub(super) fn all() -> Vec<Case> {
    let modules = [locks::cases(), values::cases(), queues::cases(), settling::cases()];
    modules.into_iter().flatten().collect()
}

/// The moments at which a call is to be dropped.
struct Moments {
    rhythm: u32,
    polls: u32,
}

impl Moments {
    fn new() -> Self {
        Self { rhythm: 0, polls: 1 }
    }

    /// Whether there is another one.
    fn more(&self) -> bool {
        self.rhythm < RHYTHMS
    }

    /// Polls a future so many times as it is the turn of, and drops it; gives what it gave if it
    /// was done before.
    async fn cut<F: Future>(&mut self, future: F) -> Result<Option<F::Output>, Failure> {
        let mut future = Box::pin(future);
        let mut left = self.polls;
        let polling = poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => {
                left -= 1;
                if left == 0 { Poll::Ready(None) } else { Poll::Pending }
            }
        });
        let polled = timeout(ASLEEP, polling).await;
        match self.rhythm {
            0 => {}
            1 => tokio::task::yield_now().await,
            _ => sleep(Duration::from_millis(2)).await,
        }
        drop(future);
        match polled {
            Ok(None) if self.polls < POLLS_MAX => {
                self.polls += 1;
                Ok(None)
            }
            Ok(None) => Err(Failure::Expected(format!("it was not done after {POLLS_MAX} polls"))),
            done => {
                (self.rhythm, self.polls) = (self.rhythm + 1, 1);
                Ok(done.ok().flatten())
            }
        }
    }
}
