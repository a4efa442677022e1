//! The dispatcher: one task per engine that brings notices to where they belong.
//!
//! It sleeps until the node wakes it, and then takes all that has come. When the node has ended it
//! tells everybody why and ends as well; should its runtime end first, that is told too.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use leasehold_api::{Error, ErrorKind};
use leasehold_node::{NodeError, Notice};
use tokio::time::{Sleep, sleep};

use crate::link::{Link, Pause};

/// Notices brought in before others may touch the table.
const BATCH: usize = 256;

/// Tells everybody when the task is dropped with its runtime.
struct Farewell(Arc<Link>);

impl Drop for Farewell {
    fn drop(&mut self) {
        let wrong = "the runtime that the engine was opened in has ended; open it again";
        self.0.close(Error::new(ErrorKind::Unavailable, wrong));
    }
}

/// Brings notices in until the node has ended.
pub(crate) fn run(link: Arc<Link>) -> impl Future<Output = ()> + Send {
    // A runtime may end before it has begun with this.
    let farewell = Farewell(link.clone());
    dispatch(link, farewell)
}

async fn dispatch(link: Arc<Link>, farewell: Farewell) {
    let mut watch = Watch { notices: Vec::new(), pause: Pause::new(), sleep: None };
    loop {
        if let Err(error) = std::future::poll_fn(|cx| watch.poll(&link, cx)).await {
            let why = link.ended(&error);
            tracing::debug!(%why, "the engine has ended");
            link.close(why);
            drop(farewell);
            return;
        }
        let mut notices = watch.notices.drain(..);
        loop {
            let left = link.with(|table| {
                let batch = notices.by_ref().take(BATCH);
                batch.for_each(|(ticket, notice)| table.take_in(ticket, notice));
                notices.len()
            });
            tokio::task::consume_budget().await;
            if left == 0 {
                break;
            }
        }
    }
}

struct Watch {
    notices: Vec<(u32, Notice)>,
    pause: Pause,
    /// Errands are left over, and the inbox is given time.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    fn poll(&mut self, link: &Link, cx: &mut Context<'_>) -> Poll<Result<(), NodeError>> {
        link.client.poll(&mut self.notices, cx.waker())?;
        if !self.notices.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut table = link.lock();
        table.dispatcher = Some(cx.waker().clone());
        if table.errands.is_empty() {
            self.pause = Pause::new();
            self.sleep = None;
            return Poll::Pending;
        }
        drop(table);
        let pause = &mut self.pause;
        let sleeping = self.sleep.get_or_insert_with(|| Box::pin(sleep(pause.next())));
        std::task::ready!(sleeping.as_mut().poll(cx));
        self.sleep = None;
        Poll::Ready(Ok(()))
    }
}
