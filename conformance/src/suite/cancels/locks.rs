//! Locks: whoever comes next gets them.

use std::pin::pin;
use std::time::Duration;

use leasehold_api::{ErrorKind, Inspection, Lock, Mode, SESSION_TTL_MIN};
use tokio::time::timeout;

use super::super::{SHORT, cases, ensure, gives, soon, until};
use super::Moments;
use crate::{Failure, Outcome, PATIENCE, Target};

cases! { "cancels" needs Modes::Exclusive:
    an_acquire_is_withdrawn needs
        Waiting::Unordered, Modes::All, MultiLock::Atomic, Ends::Both;
    a_wait_is_withdrawn needs Waiting::Unordered, Modes::All, MultiLock::Atomic, Ends::Both;
    a_grant_that_nobody_reads_goes_back needs
        Waiting::Unordered, Modes::All, MultiLock::Atomic, Ends::Both;
    the_first_call_of_a_handle_leaves_nothing needs Waiting::Unordered;
    a_release_goes_on needs Waiting::Unordered;
    work_is_dropped_and_the_lock_released needs Waiting::Unordered;
    work_under_a_guard_leaves_it_held;
    a_forced_release_happens_or_not needs Revocation::Forced, Waiting::Unordered;
    questions_about_tokens_leave_nothing needs Fencing::Advisory, Waiting::Unordered;
    looks_at_locks_leave_nothing needs Inspection::Holders, Waiting::Unordered;
    a_close_happens_or_not needs Ends::Both, Waiting::Unordered;
    a_campaign_is_withdrawn needs Waiting::Unordered, Inspection::Holders, Watching::Woken;
    a_job_is_given_up;
}

/// Longer than a case lasts, so that what stays behind is found and does not end by itself.
const TTL: Duration = Duration::from_secs(600);

/// The lock can be had, and is given back. If it cannot be had, the failure says who has it.
async fn is_free(lock: &Lock) -> Outcome {
    let mut acquired = pin!(lock.acquire());
    match timeout(PATIENCE, &mut acquired).await {
        Ok(guard) => Ok(guard?.release().await?),
        Err(_) => {
            let view = lock.inspect().await;
            let late = format!("the lock did not come within {PATIENCE:?}: {view:?}");
            Err(Failure::Expected(late))
        }
    }
}

/// Kinds of locks for `a`, and for each what `b` must be able to take at its end. Those that
/// engines may refuse come last: the others have been proved by then.
async fn kinds(target: &Target) -> Result<Vec<(Lock, Lock)>, Failure> {
    let (a, b) = (target.handle().await?, target.handle().await?);
    let (x, y) = (target.name("cancel-x"), target.name("cancel-y"));
    let (one, other) = ((&*x, Mode::Exclusive), (&*y, Mode::Exclusive));
    let kinds = vec![
        (a.lock(&*x), b.lock(&*x)),
        (a.lock(&*x).reentrant(7), b.lock(&*x)),
        (a.lock(&*x).with_session(), b.lock(&*x)),
        (a.lock(&*x).shared(), b.lock(&*x)),
        (a.semaphore(&*x, 3).take(2), b.semaphore(&*x, 3).take(3)),
        (a.multi_lock([one, (&*y, Mode::Shared)]), b.multi_lock([one, other])),
    ];
    Ok(kinds.into_iter().map(|(lock, whole)| (lock.ttl(TTL), whole)).collect())
}

async fn an_acquire_is_withdrawn(target: &Target) -> Outcome {
    for (lock, whole) in kinds(target).await? {
        let mut moments = Moments::new();
        while moments.more() {
            drop(moments.cut(lock.acquire()).await?.transpose()?);
            is_free(&whole).await?;
        }
        let mut moments = Moments::new();
        while moments.more() {
            drop(moments.cut(lock.try_acquire()).await?.transpose()?);
            is_free(&whole).await?;
        }
        let mut moments = Moments::new();
        while moments.more() {
            drop(moments.cut(lock.acquire_within(SHORT)).await?.transpose()?);
            is_free(&whole).await?;
        }
    }
    Ok(())
}

async fn a_wait_is_withdrawn(target: &Target) -> Outcome {
    let shown = gives(&target.handle().await?, Inspection::Line)?;
    for (lock, whole) in kinds(target).await? {
        let mut moments = Moments::new();
        while moments.more() {
            let held = soon("the lock", whole.acquire()).await??;
            let waited = moments.cut(lock.acquire()).await?.transpose()?;
            ensure!(waited.is_none(), "a held lock was acquired: {waited:?}");
            if shown {
                let gone = async || Ok(whole.inspect().await?.waiting == 0);
                until("its withdrawal", gone).await?;
            }
            held.release().await?;
            is_free(&whole).await?;
        }
    }
    Ok(())
}

/// The release meets the wait wherever it is when it is dropped.
async fn a_grant_that_nobody_reads_goes_back(target: &Target) -> Outcome {
    for (lock, whole) in kinds(target).await? {
        let mut moments = Moments::new();
        while moments.more() {
            let held = soon("the lock", whole.acquire()).await??;
            let releasing = tokio::spawn(held.release());
            drop(moments.cut(lock.acquire()).await?.transpose()?);
            releasing.await.expect("it does not panic")?;
            is_free(&whole).await?;
        }
    }
    Ok(())
}

/// It opens the session as well.
async fn the_first_call_of_a_handle_leaves_nothing(target: &Target) -> Outcome {
    let (b, name) = (target.handle().await?, target.name("first"));
    let mut moments = Moments::new();
    while moments.more() {
        let lock = target.handle().await?.lock(&*name);
        drop(moments.cut(lock.acquire()).await?.transpose()?);
        is_free(&b.lock(&*name)).await?;
        // The handle can be used again.
        is_free(&lock).await?;
    }
    Ok(())
}

async fn a_release_goes_on(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("release"));
    let mut moments = Moments::new();
    while moments.more() {
        let guard = a.lock(&*name).acquire().await?;
        moments.cut(guard.release()).await?.transpose()?;
        is_free(&b.lock(&*name)).await?;
    }
    let mut moments = Moments::new();
    while moments.more() {
        let guard = a.lock(&*name).acquire().await?;
        moments.cut(guard.leave(Duration::from_millis(20))).await?.transpose()?;
        is_free(&b.lock(&*name)).await?;
    }
    Ok(())
}

async fn work_is_dropped_and_the_lock_released(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("run"));
    let lock = a.lock(&*name);
    let mut moments = Moments::new();
    while moments.more() {
        moments.cut(lock.run(async |_| tokio::task::yield_now().await)).await?.transpose()?;
        is_free(&b.lock(&*name)).await?;
    }
    Ok(())
}

async fn work_under_a_guard_leaves_it_held(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("during"));
    let guard = a.lock(&*name).acquire().await?;
    let mut moments = Moments::new();
    while moments.more() {
        moments.cut(guard.during(tokio::task::yield_now())).await?.transpose()?;
        guard.check()?;
        ensure!(b.lock(&*name).try_acquire().await?.is_none(), "it is not held any more");
    }
    let mut moments = Moments::new();
    while moments.more() {
        let lost = moments.cut(guard.lost()).await?;
        ensure!(lost.is_none(), "it is lost: {lost:?}");
    }
    Ok(guard.release().await?)
}

async fn a_forced_release_happens_or_not(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("forced"));
    let mut moments = Moments::new();
    while moments.more() {
        let guard = a.lock(&*name).acquire().await?;
        moments.cut(b.force_release(&name)).await?.transpose()?;
        match guard.release().await {
            Err(error) if error.kind != ErrorKind::Stale => return Err(error.into()),
            _ => {}
        }
        is_free(&b.lock(&*name)).await?;
    }
    Ok(())
}

async fn questions_about_tokens_leave_nothing(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("asked"));
    let guard = a.lock(&*name).acquire().await?;
    let mut moments = Moments::new();
    while moments.more() {
        moments.cut(b.check(&name, guard.token())).await?.transpose()?;
    }
    ensure!(b.check(&name, guard.token()).await?, "it is not held any more");
    guard.release().await?;
    is_free(&b.lock(&*name)).await
}

async fn looks_at_locks_leave_nothing(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("looked"));
    let guard = a.lock(&*name).acquire().await?;
    let mut moments = Moments::new();
    while moments.more() {
        moments.cut(b.inspect(&name)).await?.transpose()?;
    }
    let mut moments = Moments::new();
    while moments.more() {
        moments.cut(b.locks_with_prefix(&name)).await?.transpose()?;
    }
    let holders = b.inspect(&name).await?.holders.len();
    ensure!(holders == 1, "{holders} hold it");
    guard.release().await?;
    is_free(&b.lock(&*name)).await
}

async fn a_close_happens_or_not(target: &Target) -> Outcome {
    let (b, name) = (target.handle().await?, target.name("close"));
    let mut moments = Moments::new();
    while moments.more() {
        let a = target.handle().await?.with_session_ttl(SESSION_TTL_MIN)?;
        let guard = a.lock(&*name).with_session().acquire().await?;
        moments.cut(a.close()).await?.transpose()?;
        // Closed by now, or to be closed; in the worst case its TTL does it.
        a.close().await.or_else(|error| match error.kind {
            ErrorKind::NoSession => Ok(()),
            _ => Err(error),
        })?;
        is_free(&b.lock(&*name)).await?;
        drop(guard);
    }
    Ok(())
}

async fn a_campaign_is_withdrawn(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("office"));
    let (one, other) = (a.election(&name), b.election(&name));
    let mut moments = Moments::new();
    while moments.more() {
        drop(moments.cut(one.campaign("a")).await?.transpose()?);
        soon("the office", other.campaign("b")).await??.release().await?;
    }
    let mut moments = Moments::new();
    while moments.more() {
        drop(moments.cut(one.try_campaign("a")).await?.transpose()?);
        soon("the office", other.campaign("b")).await??.release().await?;
    }
    let office = other.campaign("b").await?;
    let mut moments = Moments::new();
    while moments.more() {
        moments.cut(one.leader()).await?.transpose()?;
    }
    let mut moments = Moments::new();
    while moments.more() {
        let changed = moments.cut(one.changed(Some(office.token()))).await?.transpose()?;
        ensure!(changed.is_none(), "the leader changed: {changed:?}");
    }
    office.release().await?;
    soon("the change", one.changed(Some(0))).await??;
    Ok(())
}

async fn a_job_is_given_up(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("job"));
    let (one, other) = (a.job(&name), b.job(&name));
    let mut moments = Moments::new();
    while moments.more() {
        moments.cut(one.run(async |_| tokio::task::yield_now().await)).await?.transpose()?;
        until("the next run", async || Ok(other.run(async |_| ()).await?.is_some())).await?;
    }
    Ok(())
}
