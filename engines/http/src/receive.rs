//! Receiving: a few messages with one request, and given back when nobody takes them.
//!
//! A receive has no request id. It is asked again nonetheless: what an attempt took that was not
//! heard comes again, by its lease or when its session ends, and a message may come again anyway.

use std::sync::Arc;

use hyper::Method;
use leasehold_api::engine::{Delivered, Gone, Receipt, Receive, apart};
use leasehold_api::{ErrorKind, Result, Verdict};
use leasehold_wire::message::{Deliveries, Delivery, Settle, Settled};
use leasehold_wire::time::{ms, ms_of};
use leasehold_wire::{handle, queue};
use std::time::Duration;

use crate::acquire::Left;
use crate::ask::{Ask, Path, Repeat};
use crate::lock::{named, of_session};
use crate::server::{Bad, Patience, Server, read};
use crate::{HttpEngine, is};

impl HttpEngine {
    pub(crate) async fn received(&self, ask: &Receive) -> Result<Vec<Delivered>> {
        let (server, ask) = (self.server.clone(), ask.clone());
        let back = server.clone();
        let work = |gone| Receiving { server, ask, gone }.run();
        let came = apart(work, move |came: Vec<Delivered>| {
            let receipts = came.into_iter().map(|one| one.receipt).collect();
            tokio::spawn(give_back(back, receipts));
        });
        came.await
    }
}

/// One receive under way.
struct Receiving {
    server: Arc<Server>,
    ask: Receive,
    gone: Gone,
}

impl Receiving {
    fn asking(&self, wait: Duration) -> Result<Ask> {
        let body = queue::Receive {
            max: Some(self.ask.max),
            wait_ms: ms(wait),
            session: named(&self.ask.session),
            lease_ms: ms_of(self.ask.lease),
        };
        let path = Path::new("/v1/queues").name(&*self.ask.queue).word("receive");
        Ok(Ask::with(Method::POST, path, &body, self.asked())?.waiting(wait))
    }

    fn asked(&self) -> String {
        format!("receive from queue {}", self.ask.queue)
    }

    async fn run(mut self) -> Result<Vec<Delivered>> {
        let left = Left::of(self.ask.wait);
        let mut patience = Patience::of(left.patience(self.server.patience));
        loop {
            let ask = self.asking(left.now())?;
            let error = match self.server.attempt(&ask, &mut self.gone).await {
                Ok(body) => {
                    let came = read::<Deliveries>(&body)?.deliveries;
                    if !came.is_empty() || left.is_over() {
                        return came.into_iter().map(Delivery::into_api).collect();
                    }
                    // The longest wait that a door accepts was over, not ours.
                    patience = Patience::of(left.patience(self.server.patience));
                    continue;
                }
                Err(Bad::Withdrawn) => Gone::cancelled(),
                Err(Bad::Refused(error)) => error,
                Err(Bad::Setback(setback)) => {
                    let url = self.server.url();
                    let borne = tokio::select! {
                        borne = patience.bear(url, Repeat::Yes, setback) => borne,
                        () = self.gone.wait() => Err(Gone::cancelled()),
                    };
                    match borne {
                        Ok(()) => continue,
                        Err(error) => error,
                    }
                }
            };
            return Err(of_session(error).asking(self.asked()));
        }
    }
}

/// Asks for deliveries to be settled.
pub(crate) fn settle(receipts: &[Receipt], verdict: Verdict) -> Result<Ask> {
    let (word, asked, delay_ms) = match verdict {
        Verdict::Ack => ("ack", "ack", None),
        Verdict::Nack(delay) => ("nack", "return", Some(ms(delay))),
        Verdict::Reject => ("reject", "reject", None),
    };
    let asked = match receipts {
        [one] => format!("{asked} delivery {}", one.token),
        many => format!("{asked} {} deliveries", many.len()),
    };
    let receipts = receipts.iter().map(handle::receipt_text).collect();
    Ask::post(Path::new("/v1/deliveries").word(word), &Settle { receipts, delay_ms }, asked)
}

/// Gives deliveries back that nobody took: all at once, or one by one when some were lost
/// meanwhile and all at once is therefore refused.
pub(crate) async fn give_back(server: Arc<Server>, receipts: Vec<Receipt>) {
    if receipts.is_empty() {
        return;
    }
    let all = send_back(&server, &receipts).await;
    match all {
        Err(error) if is(&error, ErrorKind::Stale) && receipts.len() > 1 => {
            for receipt in receipts {
                if let Err(error) = send_back(&server, std::slice::from_ref(&receipt)).await {
                    tracing::debug!(%error, "a delivery that nobody took was not given back");
                }
            }
        }
        Err(error) if !is(&error, ErrorKind::Stale) => {
            tracing::debug!(%error, "deliveries that nobody took come back by their lease");
        }
        _ => {}
    }
}

async fn send_back(server: &Server, receipts: &[Receipt]) -> Result<()> {
    let ask = settle(receipts, Verdict::Nack(Duration::ZERO));
    server.get::<Settled>(ask).await.map(drop)
}
