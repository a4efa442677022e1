//! Losing a lock, and knowing it in time.

use std::time::{Duration, Instant};

use leasehold_api::engine::{Acquire, HoldRef, OpenSession, Want};
use leasehold_api::{Ending, ErrorKind, Inspection, Mode, Wait};

use super::{KEPT, SHORT, cases, ensure, gives, in_line, refused, soon, until};
use crate::{Failure, Outcome, Target};

cases! { "losses" needs Modes::Exclusive:
    a_hold_is_renewed;
    without_renewal_it_ends needs Waiting::Unordered;
    loss_is_known_before_the_next_grant needs Waiting::Unordered;
    a_stale_release_harms_nobody;
    what_is_over_is_not_revived needs Fencing::Advisory;
    a_stale_token_is_refused_by_registers needs
        Fencing::Advisory, Registers::Versioned, Waiting::Unordered unrefused Fencing::Strict;
    force_release_is_told needs Revocation::Forced;
    a_lock_may_end_with_its_session needs Ends::Both, Waiting::Unordered;
    lock_delay_after_a_loss needs LockDelay::Kept, Waiting::Unordered;
    nothing_renews_after_release;
    a_dead_waiter_is_never_granted needs Waiting::Unordered, Ends::Both;
    a_line_with_gaps_does_not_jam needs Waiting::Unordered;
}

async fn a_hold_is_renewed(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("renewed"));
    let guard = a.lock(&*name).ttl(KEPT).acquire().await?;
    let began = Instant::now();
    // The proof takes as long as the thing to prove: three lifetimes.
    while began.elapsed() < 3 * KEPT {
        ensure!(b.lock(&*name).try_acquire().await?.is_none(), "the hold was not renewed");
        guard.check()?;
        tokio::time::sleep(SHORT / 8).await;
    }
    Ok(guard.release().await?)
}

async fn without_renewal_it_ends(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("ends"));
    let guard = a.lock(&*name).ttl(SHORT).without_renewal().acquire().await?;
    soon("the loss", guard.lost()).await?;
    refused(guard.check(), ErrorKind::Stale)?;
    soon("the lock", b.lock(&*name).acquire()).await??.release().await?;
    refused(guard.release().await, ErrorKind::Stale)?;
    Ok(())
}

async fn loss_is_known_before_the_next_grant(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("before"));
    for _ in 0..3 {
        let guard = a.lock(&*name).ttl(SHORT).without_renewal().acquire().await?;
        let next = soon("the next grant", b.lock(&*name).acquire()).await??;
        // Whoever asks knows it by now; a task that waits for it is told as soon as it may run.
        ensure!(guard.check().is_err(), "another holds it, and the guard says that all is well");
        soon("the loss", guard.lost()).await?;
        next.release().await?;
    }
    Ok(())
}

async fn a_stale_release_harms_nobody(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("stale"));
    let guard = a.lock(&*name).acquire().await?;
    let old = guard.hold().clone();
    guard.release().await?;
    let now = b.lock(&*name).acquire().await?;
    let engine = a.engine().locks.clone().expect("it has locks");
    refused(engine.release(&old).await, ErrorKind::Stale)?;
    refused(engine.renew(&old, SHORT).await, ErrorKind::Stale)?;
    let foreign = HoldRef { hold: old.hold, ..now.hold().clone() };
    let error = engine.release(&foreign).await.err().map(|error| error.kind);
    let kinds = [Some(ErrorKind::Foreign), Some(ErrorKind::Stale)];
    ensure!(kinds.contains(&error), "another's hold was released: {error:?}");
    ensure!(a.lock(&*name).try_acquire().await?.is_none(), "the new holder lost its lock");
    Ok(now.release().await?)
}

/// Also if nobody has taken it since.
async fn what_is_over_is_not_revived(target: &Target) -> Outcome {
    let (a, name) = (target.handle().await?, target.name("revived"));
    let guard = a.lock(&*name).ttl(SHORT).without_renewal().acquire().await?;
    let (old, engine) = (guard.hold().clone(), a.engine().locks.clone().expect("it has locks"));
    // The guard knows first; that the engine thinks so too is seen only by asking.
    let over = async || Ok(!engine.check(&name, old.token).await?);
    until("the end of the hold", over).await?;
    refused(engine.renew(&old, SHORT).await, ErrorKind::Stale)?;
    ensure!(!engine.check(&name, old.token).await?, "a refused renewal revived it");
    refused(engine.release(&old).await, ErrorKind::Stale)?;
    // An engine may clear it away a moment after it has said that it is over.
    Ok(soon("the lock", a.lock(&*name).acquire()).await??.release().await?)
}

async fn a_stale_token_is_refused_by_registers(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("fence"));
    let guard = a.lock(&*name).ttl(KEPT).without_renewal().acquire().await?;
    let register = a.register(&*name).guarded_by(&guard);
    register.write("mine").await?;
    let next = soon("the next grant", b.lock(&*name).acquire()).await??;
    b.register(&*name).guarded_by(&next).write("theirs").await?;
    refused(register.write("late").await, ErrorKind::Stale)?;
    let value = a.register(&*name).read().await?.map(|r| r.value);
    ensure!(value.as_deref() == Some(b"theirs"), "the register holds {value:?}");
    Ok(next.release().await?)
}

async fn force_release_is_told(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("force"));
    let guard = a.lock(&*name).ttl(Duration::from_secs(3)).acquire().await?;
    ensure!(b.force_release(&name).await? == 1, "nobody's hold was ended");
    let ending = soon("the loss", guard.lost()).await?;
    ensure!(ending != Ending::SessionLost, "the session is blamed");
    refused(guard.check(), ErrorKind::Stale)?;
    ensure!(b.lock(&*name).try_acquire().await?.is_some(), "it is not free");
    ensure!(b.force_release(&target.name("free")).await? == 0, "a free lock had holders");
    Ok(())
}

async fn a_lock_may_end_with_its_session(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("session"));
    let (bound, free) = (format!("{name}/bound"), format!("{name}/free"));
    let guard = a.lock(&*bound).with_session().acquire().await?;
    let stays = a.lock(&*free).acquire().await?;
    a.close().await?;
    soon("the lock", b.lock(&*bound).acquire()).await??.release().await?;
    soon("the loss", guard.lost()).await?;
    ensure!(b.lock(&*free).try_acquire().await?.is_none(), "a lock with a TTL of its own went too");
    drop(stays);
    Ok(())
}

async fn lock_delay_after_a_loss(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("delay"));
    let lock = a.lock(&*name).ttl(SHORT).without_renewal().lock_delay(SHORT);
    // Not from when the loss is known: on a busy machine that may be late. Some stores count in
    // whole milliseconds, so the TTL and the delay may each be short of one.
    let began = Instant::now();
    let least = 2 * (SHORT - Duration::from_millis(1));
    let guard = lock.acquire().await?;
    soon("the loss", guard.lost()).await?;
    let next = soon("the next grant", b.lock(&*name).acquire()).await??;
    let took = began.elapsed();
    ensure!(took >= least, "granted {took:?} after the first, which lasts {SHORT:?}");
    next.release().await?;
    let clean = lock.acquire().await?;
    clean.release().await?;
    ensure!(b.lock(&*name).try_acquire().await?.is_some(), "a clean release was delayed");
    Ok(())
}

/// F10: a watchdog that renews after the unlock.
/// A lock that was lost is no failure.
fn unless_lost<T>(result: leasehold_api::Result<T>) -> Result<Option<T>, Failure> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.kind == ErrorKind::Stale => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn nothing_renews_after_release(target: &Target) -> Outcome {
    let (a, name) = (target.handle().await?, target.name("watchdog"));
    for _ in 0..50 {
        // So short that renewals are under way when it is released. It may end before that, on a
        // machine that is busy, and then nothing may renew it either.
        let taken = a.lock(&*name).ttl(Duration::from_millis(40)).acquire().await;
        if let Some(guard) = unless_lost(taken)? {
            unless_lost(guard.release().await)?;
        }
    }
    let guard = a.lock(&*name).acquire().await?;
    if gives(&a, Inspection::Holders)? {
        let view = a.inspect(&name).await?;
        ensure!(view.holders.len() == 1, "{} holders", view.holders.len());
        ensure!(view.holders[0].token == guard.token(), "an old hold is renewed");
    }
    Ok(guard.release().await?)
}

/// F1: a grant to a waiter whose own session had ended.
async fn a_dead_waiter_is_never_granted(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("dead"));
    let guard = a.lock(&*name).acquire().await?;
    let engine = b.engine().locks.clone().expect("it has locks");
    let ask = OpenSession { ttl: Some(SHORT), ..OpenSession::default() };
    let session = engine.open_session(&ask).await?.session;
    let ask = Acquire {
        wants: vec![Want { name: (&*name).into(), mode: Mode::Exclusive }],
        session: Some(session),
        hold: 1,
        reentrant: false,
        ttl: Some(Duration::from_secs(60)),
        bound: false,
        wait: Wait::Forever,
        lock_delay: Duration::ZERO,
        label: None,
        request: None,
    };
    let refusal = soon("the end of the wait", engine.acquire(&ask)).await?.map(|grant| grant.token);
    refused(refusal, ErrorKind::NoSession)?;
    guard.release().await?;
    let next = a.lock(&*name).try_acquire().await?;
    ensure!(next.is_some(), "the dead have it");
    Ok(())
}

/// F12: a fair line that waits for somebody who has gone.
async fn a_line_with_gaps_does_not_jam(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("gaps"));
    let first = a.lock(&*name).acquire().await?;
    let mut line = Vec::new();
    // Ten at a time: who come to a line at one moment get in each other's way, which costs time
    // with the square of their number and is not what this is about.
    for tens in 1..=6 {
        for _ in 0..10 {
            let lock = b.lock(&*name).ttl(Duration::from_secs(30));
            line.push(tokio::spawn(async move { lock.acquire().await?.release().await }));
        }
        in_line(&a, &name, 10 * tens).await?;
    }
    // Every third goes while it waits, and the others must all have their turn.
    let (gone, stay): (Vec<_>, Vec<_>) =
        line.into_iter().enumerate().partition(|(i, _)| i % 3 == 1);
    gone.iter().for_each(|(_, task)| task.abort());
    first.release().await?;
    for (_, task) in stay {
        soon("the next turn", task).await?.expect("it does not panic")?;
    }
    soon("the lock", a.lock(&*name).acquire()).await??.release().await?;
    Ok(())
}
