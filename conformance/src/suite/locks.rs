//! Taking and giving back.

use std::time::Duration;

use leasehold_api::{ErrorKind, Mode};

use super::{cases, ensure, in_line, refused, soon};
use crate::{Outcome, Target};

cases! { "locks" needs Modes::Exclusive:
    one_holder_at_a_time;
    free_after_release;
    tokens_rise_from_holder_to_holder needs Fencing::Advisory;
    the_engine_knows_its_tokens needs Fencing::Advisory;
    waiters_are_served_in_order needs Waiting::Unordered unrefused Waiting::Fair;
    a_wait_ends_in_time needs Waiting::Unordered;
    a_dropped_wait_leaves_nothing needs Waiting::Unordered;
    sharers_together_writers_alone needs Modes::All, Waiting::Unordered;
    writers_are_not_starved needs Modes::All, Waiting::Unordered unrefused Waiting::Fair;
    permits_are_counted needs Modes::All;
    permits_must_agree needs Modes::All;
    several_locks_all_or_none needs MultiLock::Atomic, Waiting::Unordered;
    several_locks_in_several_modes needs MultiLock::Atomic, Modes::All;
    re_entry_keeps_the_token;
    a_deadlock_is_named needs Waiting::Unordered unrefused Deadlocks::Named;
    inspect_tells_holders needs Inspection::Holders;
    inspect_tells_waiters needs Waiting::Unordered, Inspection::Holders unrefused Inspection::Line;
    bad_names_and_times_are_refused;
    bad_names_are_not_shown needs Inspection::Holders;
    a_dropped_guard_releases needs Waiting::Unordered;
    work_runs_under_the_lock;
    many_locks_by_prefix needs Inspection::Holders;
}

/// Names that no lock has, besides those that are too long.
const BAD_NAMES: [&str; 3] = ["", "a\u{0}b", "line\nbreak"];

async fn one_holder_at_a_time(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("one"));
    let guard = a.lock(&*name).acquire().await?;
    ensure!(b.lock(&*name).try_acquire().await?.is_none(), "a second holder");
    ensure!(a.lock(&*name).try_acquire().await?.is_none(), "a second hold of one session");
    guard.check()?;
    Ok(guard.release().await?)
}

async fn free_after_release(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("free"));
    let guard = a.lock(&*name).acquire().await?;
    let lost = guard.lost();
    guard.release().await?;
    soon("the end of `lost` after a release", lost).await?;
    let again = b.lock(&*name).try_acquire().await?;
    ensure!(again.is_some(), "it is not free after its release");
    Ok(())
}

async fn tokens_rise_from_holder_to_holder(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("tokens"));
    let mut last = 0;
    for i in 0..20 {
        let handle = if i % 2 == 0 { &a } else { &b };
        let guard = handle.lock(&*name).acquire().await?;
        ensure!(guard.token() > last, "token {} after {last}", guard.token());
        ensure!(guard.token() < 1 << 53, "token {} is not exact in JSON", guard.token());
        last = guard.token();
        guard.release().await?;
    }
    Ok(())
}

async fn the_engine_knows_its_tokens(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("knows"));
    let guard = a.lock(&*name).acquire().await?;
    let token = guard.token();
    ensure!(b.check(&name, token).await?, "the engine does not know the token");
    let other = target.name("knows");
    ensure!(!b.check(&other, token).await?, "the token counts for a lock that nobody holds");
    guard.release().await?;
    ensure!(!b.check(&name, token).await?, "the token of a released lock still counts");
    Ok(())
}

async fn waiters_are_served_in_order(target: &Target) -> Outcome {
    let (a, name) = (target.handle().await?, target.name("order"));
    let first = a.lock(&*name).acquire().await?;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let mut tasks = Vec::new();
    for i in 0..5u32 {
        let (lock, tell) = (target.handle().await?.lock(&*name), tell.clone());
        tasks.push(tokio::spawn(async move {
            let guard = lock.acquire().await?;
            tell.send(i).ok();
            guard.release().await
        }));
        in_line(&a, &name, i + 1).await?;
    }
    first.release().await?;
    for i in 0..5 {
        let next = soon("the next holder", told.recv()).await?;
        ensure!(next == Some(i), "waiter {next:?} came before {i}");
    }
    for task in tasks {
        task.await.expect("it does not panic")?;
    }
    Ok(())
}

async fn a_wait_ends_in_time(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("patience"));
    let guard = a.lock(&*name).acquire().await?;
    let lock = b.lock(&*name);
    let wait = lock.acquire_within(Duration::from_millis(50));
    refused(soon("the end of the wait", wait).await?, ErrorKind::TimedOut)?;
    Ok(guard.release().await?)
}

async fn a_dropped_wait_leaves_nothing(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("dropped"));
    let guard = a.lock(&*name).acquire().await?;
    let lock = b.lock(&*name);
    let waiting = tokio::spawn(async move { lock.acquire().await.map(|_| ()) });
    in_line(&a, &name, 1).await?;
    waiting.abort();
    in_line(&a, &name, 0).await?;
    guard.release().await?;
    soon("the lock", a.lock(&*name).acquire()).await??.release().await?;
    Ok(())
}

async fn sharers_together_writers_alone(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("shared"));
    let first = a.lock(&*name).shared().acquire().await?;
    let second = b.lock(&*name).shared().try_acquire().await?;
    ensure!(second.is_some(), "two cannot share it");
    ensure!(b.lock(&*name).try_acquire().await?.is_none(), "a writer beside two sharers");
    first.release().await?;
    ensure!(a.lock(&*name).try_acquire().await?.is_none(), "a writer beside a sharer");
    drop(second);
    let writer = soon("the lock", a.lock(&*name).acquire()).await??;
    ensure!(b.lock(&*name).shared().try_acquire().await?.is_none(), "a sharer beside a writer");
    Ok(writer.release().await?)
}

async fn writers_are_not_starved(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("starved"));
    let reader = a.lock(&*name).shared().acquire().await?;
    let lock = b.lock(&*name);
    let writer = tokio::spawn(async move { lock.acquire().await });
    in_line(&a, &name, 1).await?;
    let late = a.lock(&*name).shared().try_acquire().await?;
    ensure!(late.is_none(), "a reader went before a writer who waits");
    reader.release().await?;
    let guard = soon("the writer's turn", writer).await?.expect("it does not panic")?;
    Ok(guard.release().await?)
}

async fn permits_are_counted(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("permits"));
    let two = a.semaphore(&*name, 3).take(2).acquire().await?;
    let one = b.semaphore(&*name, 3).acquire().await?;
    ensure!(b.semaphore(&*name, 3).try_acquire().await?.is_none(), "a fourth permit of three");
    two.release().await?;
    let again = b.semaphore(&*name, 3).take(2).try_acquire().await?;
    ensure!(again.is_some(), "permits given back are not there");
    Ok(one.release().await?)
}

async fn permits_must_agree(target: &Target) -> Outcome {
    let (a, name) = (target.handle().await?, target.name("agree"));
    let _one = a.semaphore(&*name, 3).acquire().await?;
    refused(a.semaphore(&*name, 4).try_acquire().await, ErrorKind::Different)?;
    refused(a.semaphore(&*name, 3).take(4).try_acquire().await, ErrorKind::Invalid)?;
    refused(a.semaphore(&*name, 3).take(0).try_acquire().await, ErrorKind::Invalid)?;
    Ok(())
}

async fn several_locks_all_or_none(target: &Target) -> Outcome {
    let (a, b) = (target.handle().await?, target.handle().await?);
    let (x, y) = (target.name("x"), target.name("y"));
    let held = a.lock(&*y).acquire().await?;
    let both = || b.multi_lock([(&*x, Mode::Exclusive), (&*y, Mode::Exclusive)]);
    ensure!(both().try_acquire().await?.is_none(), "both, although one is held");
    ensure!(a.lock(&*x).try_acquire().await?.is_some(), "half of a refused multi-lock is held");
    held.release().await?;
    let guard = soon("both locks", both().acquire()).await??;
    ensure!(a.lock(&*x).try_acquire().await?.is_none(), "one of both is not held");
    ensure!(a.lock(&*y).try_acquire().await?.is_none(), "the other of both is not held");
    guard.release().await?;
    ensure!(a.lock(&*y).try_acquire().await?.is_some(), "one of both was not released");
    refused(
        a.multi_lock([(&*x, Mode::Exclusive), (&*x, Mode::Exclusive)]).try_acquire().await,
        ErrorKind::Invalid,
    )?;
    Ok(())
}

async fn several_locks_in_several_modes(target: &Target) -> Outcome {
    let (a, b) = (target.handle().await?, target.handle().await?);
    let (x, y) = (target.name("mixed-x"), target.name("mixed-y"));
    let guard = a.multi_lock([(&*x, Mode::Exclusive), (&*y, Mode::Shared)]).acquire().await?;
    ensure!(b.lock(&*x).shared().try_acquire().await?.is_none(), "the exclusive one is shared");
    ensure!(b.lock(&*y).try_acquire().await?.is_none(), "the shared one is not held");
    ensure!(b.lock(&*y).shared().try_acquire().await?.is_some(), "the shared one is not shared");
    Ok(guard.release().await?)
}

async fn re_entry_keeps_the_token(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("again"));
    let lock = a.lock(&*name).reentrant(7);
    let outer = lock.acquire().await?;
    let inner = lock.acquire().await?;
    ensure!(inner.token() == outer.token(), "a re-entry has another token");
    ensure!(inner.entries() == 2, "the second entry says {}", inner.entries());
    inner.release().await?;
    ensure!(b.lock(&*name).try_acquire().await?.is_none(), "the inner release ended the hold");
    outer.release().await?;
    ensure!(a.lock(&*name).try_acquire().await?.is_some(), "it is not free after both");
    Ok(())
}

async fn a_deadlock_is_named(target: &Target) -> Outcome {
    let (a, b) = (target.handle().await?, target.handle().await?);
    let (x, y) = (target.name("dead-x"), target.name("dead-y"));
    let on_x = a.lock(&*x).reentrant(1).acquire().await?;
    let on_y = b.lock(&*y).reentrant(2).acquire().await?;
    let lock = a.lock(&*y).reentrant(1);
    let waits = tokio::spawn(async move { lock.acquire().await });
    in_line(&b, &y, 1).await?;
    let closing = soon("the refusal", b.lock(&*x).reentrant(2).acquire()).await?;
    let error = refused(closing, ErrorKind::Deadlock)?;
    ensure!(
        error.wrong.contains(&x) && error.wrong.contains(&y),
        "the cycle is not named: {error}"
    );
    on_y.release().await?;
    soon("the one who waits", waits).await?.expect("it does not panic")?.release().await?;
    Ok(on_x.release().await?)
}

async fn inspect_tells_holders(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("holders"));
    ensure!(a.inspect(&name).await?.holders.is_empty(), "a lock that nobody holds has a holder");
    let guard = a.lock(&*name).label("the holder").acquire().await?;
    let view = b.inspect(&name).await?;
    let holder = view.holders.first().map(|h| (h.token, h.label.as_deref(), h.mode));
    ensure!(
        holder == Some((guard.token(), Some("the holder"), Mode::Exclusive)),
        "the holder is shown as {holder:?}"
    );
    ensure!(view.holders[0].left.is_some(), "the time left is not shown");
    guard.release().await?;
    ensure!(b.inspect(&name).await?.holders.is_empty(), "a released lock has a holder");
    Ok(())
}

async fn inspect_tells_waiters(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("waiters"));
    let guard = a.lock(&*name).acquire().await?;
    let lock = b.lock(&*name).label("the waiter");
    let waiting = tokio::spawn(async move { lock.acquire().await });
    in_line(&a, &name, 1).await?;
    let view = b.inspect(&name).await?;
    let waiter = view.waiters.first().and_then(|w| w.label.as_deref());
    ensure!(waiter == Some("the waiter"), "the waiter is shown as {waiter:?}");
    guard.release().await?;
    soon("the waiter's turn", waiting).await?.expect("it does not panic")?.release().await?;
    Ok(())
}

async fn bad_names_and_times_are_refused(target: &Target) -> Outcome {
    let a = target.handle().await?;
    for name in BAD_NAMES.into_iter().chain([&*"x".repeat(256)]) {
        refused(a.lock(name).try_acquire().await, ErrorKind::Invalid)?;
    }
    let name = target.name("times");
    for ttl in [Duration::ZERO, Duration::from_secs(86_400 * 367), Duration::MAX] {
        refused(a.lock(&*name).ttl(ttl).try_acquire().await, ErrorKind::Invalid)?;
    }
    ensure!(a.lock(&*name).try_acquire().await?.is_some(), "a refused request left the lock held");
    Ok(())
}

async fn bad_names_are_not_shown(target: &Target) -> Outcome {
    let a = target.handle().await?;
    for name in BAD_NAMES.into_iter().chain([&*"x".repeat(256)]) {
        refused(a.inspect(name).await, ErrorKind::Invalid)?;
    }
    Ok(())
}

async fn a_dropped_guard_releases(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("drop"));
    drop(a.lock(&*name).acquire().await?);
    soon("the lock", b.lock(&*name).acquire()).await??.release().await?;
    Ok(())
}

async fn work_runs_under_the_lock(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("run"));
    let free = a.lock(&*name).run(async |_| b.lock(&*name).try_acquire().await).await??;
    ensure!(free.is_none(), "the work ran without the lock");
    ensure!(b.lock(&*name).try_acquire().await?.is_some(), "it is not free after the work");
    Ok(())
}

async fn many_locks_by_prefix(target: &Target) -> Outcome {
    let (a, name) = (target.handle().await?, target.name("list"));
    let mut guards = Vec::new();
    for i in 0..5 {
        guards.push(a.lock(format!("{name}/{i}")).acquire().await?);
    }
    let mut found: Vec<String> =
        a.locks_with_prefix(&name).await?.into_iter().map(|l| l.name).collect();
    found.sort();
    let expected: Vec<String> = (0..5).map(|i| format!("{name}/{i}")).collect();
    ensure!(found == expected, "the list shows {found:?}");
    Ok(())
}
