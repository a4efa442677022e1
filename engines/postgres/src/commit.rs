//! The commit: checks, settlements, publishes, register writes and releases in one transaction.
//!
//! Lines and registers are entries of the book. They are read first, what becomes of them is
//! decided here, and the transaction compares their versions again before it does anything. If
//! somebody was faster it does nothing and says how they are now, and it is decided anew.

use leasehold_api::engine::{Commit, Receipt};
use leasehold_api::{Error, ErrorKind, Result, Verdict};
use leasehold_contenders::{CommitPlan, Key, Planning, Seen, Swapped, commit_keys, plan_commit};
use tokio_postgres::types::ToSql;

use crate::Inner;
use crate::book::{Changes, Keys};
use crate::content::time;
use crate::error::{invalid, odd};
use crate::publish::Columns;

/// Parts of one commit.
const PARTS_MAX: usize = 1024;

/// Settlements, column by column, in the order of the messages.
#[derive(Debug, Default)]
pub(crate) struct Settlements {
    pub ids: Vec<i64>,
    pub tokens: Vec<i64>,
    pub sessions: Vec<i64>,
    pub verdicts: Vec<i16>,
    pub delays: Vec<i64>,
}

/// Where a delivery is.
pub(crate) fn place(receipt: &Receipt) -> Result<i64> {
    i64::try_from(receipt.place).map_err(|_| {
        let wrong = format!("delivery {} is not of this engine", receipt.token);
        Error::new(ErrorKind::Stale, wrong)
    })
}

impl Settlements {
    /// Puts settlements into columns.
    ///
    /// # Errors
    /// `Invalid` when one is named twice or a delay is absurd.
    pub fn of<'a>(settles: impl IntoIterator<Item = (&'a Receipt, Verdict)>) -> Result<Self> {
        let mut all: Vec<(i64, &Receipt, Verdict)> = Vec::new();
        for (receipt, verdict) in settles {
            all.push((place(receipt)?, receipt, verdict));
        }
        all.sort_by_key(|(id, ..)| *id);
        if let Some(twice) = all.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let token = twice[0].1.token;
            return Err(invalid(format!("delivery {token} is settled twice at once")));
        }
        let mut columns = Self::default();
        for (id, receipt, verdict) in all {
            let (verdict, delay) = match verdict {
                Verdict::Ack => (0, 0),
                Verdict::Nack(delay) if delay.is_zero() => (1, 0),
                Verdict::Nack(delay) => (1, time("the delay", delay)?),
                Verdict::Reject => (2, 0),
            };
            columns.ids.push(id);
            columns.tokens.push(receipt.token.cast_signed());
            columns.sessions.push(receipt.session.id.cast_signed());
            columns.verdicts.push(verdict);
            columns.delays.push(delay);
        }
        Ok(columns)
    }

    /// The columns.
    pub fn arguments(&self) -> [&(dyn ToSql + Sync); 5] {
        [&self.ids, &self.tokens, &self.sessions, &self.verdicts, &self.delays]
    }
}

impl Inner {
    /// See [`QueueEngine::commit`](leasehold_api::engine::QueueEngine::commit).
    pub(crate) async fn commit(&self, commit: &Commit) -> Result<Vec<u64>> {
        let Commit { checks, settles, publishes, writes, releases, request } = commit;
        let parts = [checks.len(), settles.len(), publishes.len(), writes.len(), releases.len()];
        let parts: usize = parts.iter().sum();
        if parts > PARTS_MAX {
            return Err(invalid(format!("{parts} parts; at most {PARTS_MAX} are allowed")));
        }
        let settlements = Settlements::of(settles.iter().map(|(one, verdict)| (one, *verdict)))?;
        let mut columns = Columns::new();
        for publish in publishes {
            let asked = |error: Error| error.asking(crate::publish::asked(&publish.target));
            columns.push(publish.clone()).map_err(asked)?;
        }
        let request = request.map_or_else(crate::request, |request| request.0).to_be_bytes();
        let mut keys = commit_keys(commit)?;
        let mut seen = self.seen(&keys).await?;
        let version = loop {
            let plan = match plan_commit(commit, &keys, &seen) {
                Ok(Planning::Ready(plan)) => plan,
                Ok(Planning::Wider(wider)) => {
                    keys = wider;
                    seen = self.seen(&keys).await?;
                    continue;
                }
                // It may have been carried out before, and be what stands in its own way.
                Err(refusal) => break self.known(&request).await?.ok_or(refusal)?,
            };
            match self.try_commit(&request, &plan, &settlements, &columns).await? {
                Swapped::Done { version, .. } => break version,
                Swapped::Changed(now) => seen = now,
            }
        };
        self.credits.settled(settles.iter().map(|(receipt, _)| receipt));
        releases.iter().for_each(|hold| self.lines.released(hold));
        Ok(vec![version; writes.len()])
    }

    async fn seen(&self, keys: &[Key]) -> Result<Seen> {
        if keys.is_empty() {
            return Ok(Seen { entries: Vec::new(), now: 0 });
        }
        let sql = self.server.call("look", 2);
        let Keys { spaces, names } = Keys::of(keys);
        let rows = self.server.rows(&sql, &[&spaces, &names]).await?;
        crate::book::seen(&rows).map_err(|error| odd(&error))
    }

    /// The version that a commit with this request gave, if there was one.
    async fn known(&self, request: &[u8; 16]) -> Result<Option<u64>> {
        let schema = self.server.config.quoted();
        let sql = format!("select answer from {schema}.requests where id = $1");
        let rows = self.server.rows(&sql, &[&&request[..]]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let said: Option<String> = row.try_get(0).map_err(|error| odd(&error))?;
        let said = said.unwrap_or_default();
        let version = said.strip_prefix("commit ").and_then(|said| said.split_once(' '));
        Ok(version.and_then(|(version, _)| version.parse().ok()))
    }

    async fn try_commit(
        &self,
        request: &[u8; 16],
        plan: &CommitPlan,
        settlements: &Settlements,
        columns: &Columns,
    ) -> Result<Swapped> {
        let all = Changes::of(&plan.changes);
        let until = plan.until.map(u64::cast_signed);
        let request = &request[..];
        let mut arguments: Vec<&(dyn ToSql + Sync)> = vec![&request];
        arguments.extend(all.arguments());
        arguments.push(&until);
        arguments.extend(settlements.arguments());
        arguments.push(&self.home);
        arguments.extend(columns.arguments());
        let sql = self.server.call("commit", 27);
        let bells: Vec<String> = all.bells.iter().cloned().chain(columns.bells()).collect();
        let rows = self.server.rows_and_ring(&sql, &arguments, &bells).await?;
        crate::book::swapped(&rows)
    }
}
