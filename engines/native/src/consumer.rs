//! Consuming: a basket that the dispatcher fills, and the stream that empties it.
//!
//! The basket has no bound of its own, because the node keeps one: it sends no more than the
//! credit, which is the prefetch, and sends on only when something is settled. Without acks
//! nothing is settled; there the stream renews the credit itself. New credit stands for itself,
//! whatever was left of the old one, so each time that half the prefetch has been handed out the
//! credit becomes that half: what lies here and what may still come are never more than the
//! prefetch.
//!
//! What was not handed out when the stream is dropped goes back, what is in the basket as well as
//! what the node has still under way: the consumer's slot stays until a command sent after the
//! stop is answered, and the node answers those in order.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use leasehold_api::engine::Delivered;
use leasehold_api::{Error, Result};
use leasehold_core::{Receipt, SessionId, Ticket};
use leasehold_node::Received;

use crate::convert;
use crate::link::Link;

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Received>,
    waker: Option<Waker>,
    /// Nothing comes any more; the error, if it is one, is said once.
    ended: Option<Option<Error>>,
}

/// Messages that came for a consumer and were not handed out.
#[derive(Debug, Default)]
pub(crate) struct Basket(Mutex<State>);

impl Basket {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics while holding a basket")
    }

    /// Adds a message.
    pub fn put(&self, message: Received) {
        let mut state = self.lock();
        state.messages.push_back(message);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Nothing comes any more. `clear`: what is there is somebody else's already.
    pub fn end(&self, error: Option<Error>, clear: bool) {
        let mut state = self.lock();
        if clear {
            state.messages.clear();
        }
        state.ended = Some(error);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes a message out that was lost before it was handed out; false if it is not here.
    pub fn drop_stale(&self, receipt: Receipt) -> bool {
        let mut state = self.lock();
        // They come in the order of their tokens.
        let token = |message: &Received| message.delivery.receipt.token;
        let found = state.messages.binary_search_by_key(&receipt.token, token);
        found.is_ok_and(|at| state.messages.remove(at).is_some())
    }

    fn take_all(&self) -> VecDeque<Received> {
        std::mem::take(&mut self.lock().messages)
    }
}

/// A stream of deliveries.
#[derive(Debug)]
pub(crate) struct Deliveries {
    pub link: Arc<Link>,
    pub ticket: Ticket,
    pub session: SessionId,
    pub basket: Arc<Basket>,
    pub no_ack: bool,
    pub prefetch: u32,
    /// Handed out since the credit was renewed.
    pub handed_out: u32,
    /// Whether the node knows of it.
    pub sent: bool,
}

impl Stream for Deliveries {
    type Item = Result<Delivered>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.basket.lock();
        let Some(message) = state.messages.pop_front() else {
            return match &mut state.ended {
                Some(error) => Poll::Ready(error.take().map(Err)),
                None => {
                    state.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        };
        drop(state);
        if self.no_ack {
            self.handed_out += 1;
            let half = self.prefetch.div_ceil(2);
            if self.handed_out >= half {
                self.handed_out = 0;
                self.link.with(|table| table.renew_credit(self.ticket, half));
            }
        }
        let delivered = convert::delivered(&message, self.session);
        if delivered.is_err() && !self.no_ack {
            let receipt = message.delivery.receipt;
            self.link.with(|table| table.give_back(self.session, receipt));
        }
        Poll::Ready(Some(delivered))
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.link.with(|table| {
            // Stopped first: what goes back must not come again.
            table.stop_consumer(self.ticket, self.sent);
            for message in self.basket.take_all().into_iter().filter(|_| !self.no_ack) {
                table.give_back(self.session, message.delivery.receipt);
            }
        });
    }
}
