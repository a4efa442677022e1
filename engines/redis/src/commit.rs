//! Commits: everything in one script.
//!
//! Who holds a lock follows from its line, which is read here. The script compares the versions of
//! all that was read, and the time, and does everything in the same moment; if something has
//! changed it says how it is now, and the commit is planned anew.

use leasehold_api::engine::Commit;
use leasehold_api::{Error, ErrorKind, Result};
use leasehold_contenders::{Book, CommitPlan, Key, Planning, Seen, To, commit_keys, plan_commit};
use redis::Value;

use crate::book::{entries, put_bells, put_changes};
use crate::connect::Patience;
use crate::queue::{Queues, put_publish, put_settle, refusal, request_text};
use crate::script::{Args, COMMIT, Reply, SEEN, odd};

/// Parts of one commit.
const PARTS_MAX: usize = 1024;

enum Tried {
    Done(u64),
    Changed(Seen),
    /// A hold that was checked may have ended.
    Late,
}

/// Does everything at once or nothing; gives the versions of the registers.
pub(crate) async fn commit(queues: &Queues, commit: &Commit) -> Result<Vec<u64>> {
    let parts = commit.checks.len()
        + commit.settles.len()
        + commit.publishes.len()
        + commit.writes.len()
        + commit.releases.len();
    if parts > PARTS_MAX {
        let wrong = format!("a commit of {parts} parts; at most {PARTS_MAX} are allowed");
        return Err(Error::new(ErrorKind::Invalid, wrong));
    }
    let request = request_text(commit.request)?;
    let mut keys = commit_keys(commit)?;
    let mut seen = None;
    loop {
        let entries = match seen.take() {
            Some(entries) => entries,
            None => read(queues, &keys).await?,
        };
        let plan = match plan_commit(commit, &keys, &entries) {
            Ok(Planning::Wider(wider)) => {
                keys = wider;
                continue;
            }
            Ok(Planning::Ready(plan)) => plan,
            Err(error) => return before(queues, commit, &request).await?.ok_or(error),
        };
        match carry_out(queues, commit, &plan, &request).await? {
            Tried::Done(version) => return Ok(done(queues, commit, version)),
            // The script names only what it compares; for the rest it is read again.
            Tried::Changed(now) if is_same(&plan, &keys) => seen = Some(now),
            Tried::Changed(_) | Tried::Late => {}
        }
    }
}

fn done(queues: &Queues, commit: &Commit, version: u64) -> Vec<u64> {
    commit.releases.iter().for_each(|hold| queues.locks.released(hold));
    vec![version; commit.writes.len()]
}

/// What was answered to a request that was carried out before, so that it cannot be any more.
async fn before(queues: &Queues, commit: &Commit, request: &str) -> Result<Option<Vec<u64>>> {
    if commit.request.is_none() {
        return Ok(None);
    }
    let mut args = Args::default();
    args.text(request);
    let answer = tried(queues.book.link.run_again(&SEEN, &args).await?)?;
    Ok(match answer {
        Tried::Done(version) => Some(done(queues, commit, version)),
        Tried::Changed(_) | Tried::Late => None,
    })
}

/// Whether a plan names the entries that were read, in their order.
fn is_same(plan: &CommitPlan, keys: &[Key]) -> bool {
    plan.changes.iter().map(|change| &change.key).eq(keys)
}

async fn read(queues: &Queues, keys: &[Key]) -> Result<Seen> {
    let mut patience = Patience::new(queues.book.link.config().patience);
    loop {
        match queues.book.read(keys).await {
            Err(error) => patience.after(error).await?,
            seen => return seen,
        }
    }
}

/// Asks until it is known what became of it: the request's name finds an answer that was lost.
async fn carry_out(
    queues: &Queues,
    commit: &Commit,
    plan: &CommitPlan,
    request: &str,
) -> Result<Tried> {
    let mut args = Args::default();
    let until = plan.until.map(|until| until.to_string()).unwrap_or_default();
    args.text(request).text(&until).number(plan.changes.len() as u64);
    args.number(commit.settles.len() as u64).number(commit.publishes.len() as u64);
    let prefix = &queues.book.link.config().prefix;
    put_changes(&mut args, prefix, &plan.changes);
    for (receipt, verdict) in &commit.settles {
        put_settle(&mut args, receipt, *verdict)?;
    }
    for publish in &commit.publishes {
        put_publish(&mut args, publish, "")?;
    }
    put_bells(&mut args, prefix, &plan.changes);
    let writes = plan.changes.iter().any(|change| change.to != To::Same);
    let mut patience = Patience::new(queues.book.link.config().patience);
    loop {
        match queues.book.run(&COMMIT, &args, writes).await {
            Err(error) => patience.after(error).await?,
            Ok(value) => return tried(value),
        }
    }
}

fn tried(value: Value) -> Result<Tried> {
    let mut reply = Reply::new(value)?;
    match reply.text("answer")?.as_str() {
        "+" => Ok(Tried::Done(reply.number("version")?)),
        "!" => Err(refusal(&mut reply)?),
        "changed" => Ok(Tried::Changed(entries(&mut reply)?)),
        "late" | "unknown" => Ok(Tried::Late),
        _ => Err(odd("known answer")),
    }
}
