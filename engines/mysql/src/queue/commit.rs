//! The commit: checks, settlements, publishes, register writes and releases in one transaction.
//!
//! The rows of its locks and registers are locked first. Nobody can take a lock over before the
//! transaction has ended, so a token that is good then is good until the end.

use std::sync::{Arc, Mutex, PoisonError};

use leasehold_api::engine::{Commit, HoldRef};
use leasehold_api::{Error, ErrorKind, Result};
use leasehold_contenders::{Change, Contender, Key, Planning, Seen, commit_keys, plan_commit};

use crate::book::{lock, random, write};
use crate::connect::{Repeat, cell};
use crate::error::Fault;
use crate::queue::Queues;
use crate::queue::publish::remember_answer_of_commit;
use crate::queue::settings::{PARTS_MAX, size};
use crate::queue::tx::Tx;
use crate::sql::Sql;

/// What a commit has done besides what is in its answer.
#[derive(Debug, Default)]
struct Done {
    version: u64,
    changes: Vec<Change>,
    /// Bells of contenders that have gone.
    bells: Vec<String>,
}

/// Keys that turned out to be needed too.
type Wider = Arc<Mutex<Option<Vec<Key>>>>;

impl Queues {
    /// Carries a commit out; gives the version of the registers that it wrote.
    pub async fn commit_all(self: &Arc<Self>, commit: &Commit) -> Result<u64> {
        let Commit { checks, settles, publishes, writes, releases, .. } = commit;
        let parts = checks.len() + settles.len() + publishes.len() + writes.len() + releases.len();
        size("the number of parts", parts, PARTS_MAX)?;
        let mut commit = commit.clone();
        // With a name an outcome that was lost is found out.
        if commit.request.is_none() {
            let id = u128::from_be_bytes(random()?);
            commit.request = Some(leasehold_api::engine::RequestId(id));
        }
        let commit = Arc::new(commit);
        let mut keys = commit_keys(&commit)?;
        loop {
            let wider = Wider::default();
            let this = (self.clone(), commit.clone(), keys.clone(), wider.clone());
            let done = self.tx(Repeat::Freely, move |tx| {
                let (queues, commit, keys, wider) = this.clone();
                Box::pin(async move { queues.commit_in(tx, &commit, &keys, &wider).await })
            });
            let done = done.await;
            if let Some(more) = wider.lock().unwrap_or_else(PoisonError::into_inner).take()
                && done.is_err()
            {
                keys = more;
                continue;
            }
            let done = done?;
            self.bells.changed(&done.changes);
            done.bells.iter().for_each(|bell| self.bells.take_down(bell));
            self.settled(commit.settles.iter().map(|(receipt, _)| receipt));
            return Ok(done.version);
        }
    }

    async fn commit_in(
        &self,
        tx: &mut Tx<'_>,
        commit: &Commit,
        keys: &[Key],
        wider: &Wider,
    ) -> std::result::Result<Done, Fault> {
        let id = commit.request.map_or(0, |request| request.0);
        if tx.is_again() {
            let sql = tx.sql("SELECT answer FROM {}requests WHERE id=").bytes(&id.to_be_bytes());
            if let Some(mut row) = tx.ask(sql).await?.rows()?.into_iter().next() {
                let version = String::from_utf8_lossy(&cell::<Vec<u8>>(&mut row, 0)?).parse();
                return Ok(Done { version: version.unwrap_or(0), ..Done::default() });
            }
        }
        let mut done = Done::default();
        if !keys.is_empty() {
            let sorted: Vec<&Key> = keys.iter().collect();
            tx.put(lock(tx.tables, Sql::default(), &sorted)).await?;
            let seen = tx.read(keys).await?;
            match plan_commit(commit, keys, &seen)? {
                Planning::Ready(plan) => done.changes = plan.changes,
                Planning::Wider(keys) => {
                    *wider.lock().unwrap_or_else(PoisonError::into_inner) = Some(keys);
                    let wrong = "a hold covers more locks";
                    return Err(Error::new(ErrorKind::Unavailable, wrong).into());
                }
            }
            let gone = commit.releases.iter().filter_map(|hold| bell(hold, keys, &seen));
            done.bells = gone.collect();
        }
        self.settle_in(tx, &commit.settles).await?;
        self.publish_in(tx, &commit.publishes, true).await?;
        let mut changes: Vec<&Change> = done.changes.iter().collect();
        changes.sort_by(|a, b| a.key.cmp(&b.key));
        let sql = write(tx.tables, Sql::new("SET @k=1;"), &changes, &random()?);
        tx.put(sql).await?;
        remember_answer_of_commit(tx, id).await?;
        done.version = cell(&mut tx.last(Sql::new("SELECT @v;")).await?.row()?, 0)?;
        Ok(done)
    }
}

/// The bell of a contender that leaves, as it is written in the line of its lock.
fn bell(hold: &HoldRef, keys: &[Key], seen: &Seen) -> Option<String> {
    let place = keys.iter().position(|key| *key == Key::lock(&hold.name))?;
    let entry = seen.entries[place].as_ref()?;
    let line: Vec<Contender> = serde_json::from_slice(&entry.value).ok()?;
    // A token of 0 is the version of the entry: it was written with it.
    let is =
        |own: &&Contender| own.token == hold.token || own.token == 0 && entry.version == hold.token;
    let own = line.iter().find(is)?;
    (own.entries <= 1).then(|| own.id.clone())
}
