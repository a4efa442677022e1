//! Sessions: how long what a dead process had stays out of reach.

use std::time::Duration;

use leasehold_api::{ErrorKind, QueueConfig, Revocation, SESSION_TTL_MAX, SESSION_TTL_MIN};

use super::queues::{next, queue, view};
use super::{cases, ensure, gives, refused, soon};
use crate::{Outcome, Target};

cases! { "sessions":
    absurd_times_are_refused needs Modes::Exclusive;
    a_short_session_gives_back_sooner needs Queues::Acked unrefused Ends::Both;
    a_short_session_frees_its_locks needs Modes::Exclusive, Ends::Both, Waiting::Unordered;
    a_short_session_is_kept_alive needs Modes::Exclusive, Ends::Both;
    what_is_in_hand_keeps_its_session needs Modes::Exclusive, Queues::Acked, Ends::Both;
}

async fn absurd_times_are_refused(target: &Target) -> Outcome {
    let a = target.handle().await?;
    let least = Duration::from_millis(1);
    let outside = [Duration::ZERO, SESSION_TTL_MIN - least, SESSION_TTL_MAX + least, Duration::MAX];
    for ttl in outside {
        let error = refused(a.with_session_ttl(ttl), ErrorKind::Invalid)?;
        ensure!(error.wrong.contains("TTL"), "it does not say what is wrong: {error}");
    }
    for ttl in [SESSION_TTL_MIN, SESSION_TTL_MAX] {
        let name = target.name("bounds");
        a.with_session_ttl(ttl)?.lock(&*name).acquire().await?.release().await?;
    }
    Ok(())
}

/// Two handles die without a word, and what the one with the shorter session had comes first.
async fn a_short_session_gives_back_sooner(target: &Target) -> Outcome {
    let (b, queue) = queue(target, "died", QueueConfig::default()).await?;
    queue.publish_all(["long", "short"]).await?;
    for (ttl, body) in [(SESSION_TTL_MAX, "long"), (SESSION_TTL_MIN, "short")] {
        let dies = target.handle().await?.with_session_ttl(ttl)?;
        let taken = dies.queue(queue.name()).receive(Duration::from_secs(5)).await?;
        let taken = taken.expect("it was published");
        ensure!(taken.body() == body.as_bytes(), "{:?} came, not {body}", taken.body());
        // With its receipt taken out the delivery does not give itself back; nor does the handle
        // end its session when it is dropped.
        taken.into_receipt();
    }
    let mut consumer = b.queue(queue.name()).consume().await?;
    let again = next(&mut consumer).await?;
    ensure!(again.body() == b"short" && again.redelivered, "{:?} came first", again.body());
    if let Some(view) = view(&queue).await? {
        ensure!(view.in_flight == 2, "the other one came back too: {view:?}");
    }
    Ok(again.ack().await?)
}

async fn a_short_session_frees_its_locks(target: &Target) -> Outcome {
    let (b, long, short) = (target.handle().await?, target.name("long"), target.name("short"));
    for (ttl, name) in [(SESSION_TTL_MAX, &long), (SESSION_TTL_MIN, &short)] {
        let dies = target.handle().await?.with_session_ttl(ttl)?;
        let lock = dies.lock(&**name).with_session().ttl(Duration::from_secs(3600));
        // Forgotten, it is neither renewed nor released.
        lock.acquire().await?.forget();
    }
    soon("the lock", b.lock(&*short).acquire()).await??.release().await?;
    ensure!(b.lock(&*long).try_acquire().await?.is_none(), "the other one is free too");
    if gives(&b, Revocation::Forced)? {
        b.force_release(&long).await?;
    }
    Ok(())
}

async fn a_short_session_is_kept_alive(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("alive"));
    let a = a.with_session_ttl(SESSION_TTL_MIN)?;
    let lock = a.lock(&*name).with_session().ttl(Duration::from_secs(3600));
    let guard = lock.acquire().await?;
    // The proof takes as long as the thing to prove: three lifetimes.
    tokio::time::sleep(3 * SESSION_TTL_MIN).await;
    ensure!(b.lock(&*name).try_acquire().await?.is_none(), "the session was not kept alive");
    guard.check()?;
    Ok(guard.release().await?)
}

/// A program may keep a guard, a consumer or a delivery and drop the handle that it came from.
async fn what_is_in_hand_keeps_its_session(target: &Target) -> Outcome {
    let (b, queue) = queue(target, "in-hand", QueueConfig::default()).await?;
    queue.publish_all(["1", "2"]).await?;
    let name = target.name("in-hand");
    let (guard, delivery, mut consumer) = {
        let brief = || async {
            target.handle().await?.with_session_ttl(SESSION_TTL_MIN).map_err(crate::Failure::from)
        };
        let lock = brief().await?.lock(&*name).with_session().ttl(Duration::from_secs(3600));
        let delivery = brief().await?.queue(queue.name()).receive(Duration::ZERO).await?;
        let consumer = brief().await?.queue(queue.name()).consume().await?;
        (lock.acquire().await?, delivery.expect("it was published"), consumer)
    };
    tokio::time::sleep(3 * SESSION_TTL_MIN).await;
    ensure!(b.lock(&*name).try_acquire().await?.is_none(), "the guard's session ended");
    delivery.ack().await?;
    next(&mut consumer).await?.ack().await?;
    Ok(guard.release().await?)
}
