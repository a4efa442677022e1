//! Acks that come while others are under way go together.
//!
//! An ack is a transaction that waits for the disk. Those of one engine that come meanwhile are
//! gathered and go in the next one, each with an answer of its own, so many consumers share the
//! disk's time. One that comes alone goes at once.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leasehold_api::{Error, ErrorKind, Result};
use tokio::sync::oneshot;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::Inner;
use crate::commit::Settlements;
use crate::error::{ending, odd};

/// Deliveries of one transaction, if there are several requests in it.
const TOGETHER: usize = 500;

/// Acks that wait for those under way.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    gathered: Mutex<Gathered>,
}

#[derive(Debug, Default)]
struct Gathered {
    open: VecDeque<Ack>,
    /// Somebody sends them.
    are_under_way: bool,
}

/// One request: deliveries that are acknowledged all or none.
#[derive(Debug)]
struct Ack {
    request: Vec<u8>,
    deliveries: Settlements,
    tell: oneshot::Sender<Result<()>>,
}

impl Acks {
    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one; whether somebody has to begin to send.
    fn gather(&self, ack: Ack) -> bool {
        let mut gathered = self.lock();
        gathered.open.push_back(ack);
        !std::mem::replace(&mut gathered.are_under_way, true)
    }

    /// What goes in the next transaction; nothing: it is over. A delivery that is named again
    /// begins the next one, as whoever named it first decides about it.
    fn next(&self) -> Vec<Ack> {
        let mut gathered = self.lock();
        let (mut some, mut named) = (Vec::new(), HashSet::<i64>::new());
        while let Some(ack) = gathered.open.pop_front() {
            if ack.tell.is_closed() {
                continue;
            }
            let ids = &ack.deliveries.ids;
            let is_full = named.len() + ids.len() > TOGETHER && !some.is_empty();
            if is_full || ids.iter().any(|id| named.contains(id)) {
                gathered.open.push_front(ack);
                break;
            }
            named.extend(ids);
            some.push(ack);
        }
        gathered.are_under_way = !some.is_empty();
        some
    }
}

/// What became of one request.
fn answer(row: &Row) -> Result<()> {
    let read = || Ok((row.try_get::<_, Option<String>>(0)?, row.try_get::<_, Option<String>>(1)?));
    match read().map_err(|error| odd(&error))? {
        (None, _) => Ok(()),
        (Some(kind), wrong) => {
            let kind = ErrorKind::named(&kind).unwrap_or(ErrorKind::Broken);
            Err(Error::new(kind, wrong.unwrap_or_default()))
        }
    }
}

impl Inner {
    /// Acknowledges deliveries, all or none.
    pub(crate) async fn ack(self: &Arc<Self>, deliveries: Settlements) -> Result<()> {
        let (tell, told) = oneshot::channel();
        let request = crate::request().to_be_bytes().to_vec();
        if self.acks.gather(Ack { request, deliveries, tell }) {
            tokio::spawn(self.clone().send_acks());
        }
        told.await.map_err(|_| ending())?
    }

    async fn send_acks(self: Arc<Self>) {
        loop {
            let some = self.acks.next();
            if some.is_empty() {
                return;
            }
            let answers = self.ack_some(&some).await;
            for (ack, answer) in some.into_iter().zip(answers) {
                // Whoever has gone does not hear of it.
                ack.tell.send(answer).ok();
            }
        }
    }

    /// Settles deliveries, all or none.
    pub(crate) async fn settle(&self, request: &[u8], deliveries: &Settlements) -> Result<()> {
        let mut arguments: Vec<&(dyn ToSql + Sync)> = vec![&request];
        arguments.extend(deliveries.arguments());
        arguments.push(&self.home);
        self.server.rows(&self.server.call("settle", 7), &arguments).await.map(drop)
    }

    async fn ack_some(&self, some: &[Ack]) -> Vec<Result<()>> {
        if let [one] = some {
            // The function for many is slower for one.
            return vec![self.settle(&one.request, &one.deliveries).await];
        }
        let requests: Vec<&[u8]> = some.iter().map(|ack| &ack.request[..]).collect();
        let (mut of_request, mut all) = (Vec::<i32>::new(), Settlements::default());
        for (number, ack) in (1..).zip(some) {
            let Settlements { ids, tokens, sessions, .. } = &ack.deliveries;
            of_request.extend(ids.iter().map(|_| number));
            all.ids.extend(ids);
            all.tokens.extend(tokens);
            all.sessions.extend(sessions);
        }
        let Settlements { ids, tokens, sessions, .. } = &all;
        let sql = self.server.call("ack", 6);
        let asked = self
            .server
            .rows(&sql, &[&requests, &of_request, ids, tokens, sessions, &self.home])
            .await;
        match asked {
            Ok(rows) if rows.len() == some.len() => rows.iter().map(answer).collect(),
            Ok(_) => {
                let wrong = Error::new(ErrorKind::Broken, "not all acks were answered");
                some.iter().map(|_| Err(wrong.clone())).collect()
            }
            Err(error) => some.iter().map(|_| Err(error.clone())).collect(),
        }
    }
}
