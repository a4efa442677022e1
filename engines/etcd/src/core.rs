//! What all parts of the engine share, and how lines are read.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use leasehold_api::{Error, ErrorKind, Result};

use crate::connect::{Patience, Server};
use crate::holds::Holds;
use crate::lease::Leases;
use crate::part::{all, get, get_all};
use crate::place::{Keys, Line};
use crate::rpc::{Op, Read, Txn, TxnDone};

/// What all parts of the engine share.
pub(crate) struct Core {
    pub server: Arc<Server>,
    pub keys: Keys,
    pub leases: Arc<Leases>,
    pub holds: Holds,
}

/// Lines as they were at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub lines: Vec<Line>,
    /// That moment.
    pub revision: i64,
    /// Whether the session that was asked about is there.
    pub session: bool,
}

/// The wall clock, microseconds: only ever shown.
pub(crate) fn wall() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, us)
}

/// A time in microseconds.
pub(crate) fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The refusal of an answer that is not of the kind asked for.
pub(crate) fn odd() -> Error {
    Error::new(ErrorKind::Broken, "etcd answered something else than was asked")
}

impl Core {
    /// The reads that [`seen`](Self::seen) takes.
    pub fn looks(&self, names: &[Arc<str>], session: Option<u64>) -> Vec<Op> {
        let lines = names.iter().map(|name| get_all(self.keys.line(name)));
        let session = session.map(|id| get(self.keys.session(id)));
        lines.chain(session).collect()
    }

    /// Lines from what came of [`looks`](Self::looks).
    pub fn seen(&self, names: &[Arc<str>], done: TxnDone) -> Result<Seen> {
        let revision = done.header.ok_or_else(odd)?.revision;
        let reads = done.reads();
        if reads.len() < names.len() {
            return Err(odd());
        }
        let line = |(name, read): (&Arc<str>, &Read)| Line::read(name, &read.kvs);
        let lines = names.iter().zip(&reads).map(line).collect::<Result<_>>()?;
        let session = reads.get(names.len()).is_none_or(|read| !read.kvs.is_empty());
        Ok(Seen { lines, revision, session })
    }

    /// Reads lines, all at one moment, and whether a session is there.
    pub async fn look(
        &self,
        names: &[Arc<str>],
        session: Option<u64>,
        patience: &mut Patience,
    ) -> Result<Seen> {
        let txn = Txn::of(self.looks(names, session));
        self.seen(names, self.server.txn(patience, txn).await?.answer)
    }

    /// Reads the line of one lock.
    pub async fn look_at(&self, name: &str, patience: &mut Patience) -> Result<(Line, i64)> {
        let name: Arc<str> = name.into();
        let read = self.server.range(patience, all(self.keys.line(&name))).await?;
        let revision = read.header.ok_or_else(odd)?.revision;
        Ok((Line::read(&name, &read.kvs)?, revision))
    }
}
