//! Registers, latches and barriers: what was there before, or what was asked for.

use leasehold_api::{Expect, Register};

use super::super::{cases, ensure, soon};
use super::Moments;
use crate::{Failure, Outcome, PATIENCE, Target};

cases! { "cancels" needs Registers::Versioned:
    a_write_happens_or_not;
    an_update_happens_or_not;
    a_deletion_happens_or_not;
    a_watch_leaves_nothing needs Watching::Woken;
    a_count_happens_or_not;
    a_latch_that_nobody_waits_for_opens needs Watching::Woken;
    who_left_a_barrier_has_arrived_or_not needs Watching::Woken;
}

async fn value(register: &Register) -> Result<Option<Vec<u8>>, Failure> {
    Ok(soon("an answer", register.read()).await??.map(|read| read.value))
}

/// Demands that a register is as before or as was asked for.
async fn old_or_new(register: &Register, new: Option<&[u8]>) -> Outcome {
    let is = value(register).await?;
    let is = is.as_deref();
    ensure!(is == Some(b"old") || is == new, "the register holds {is:?}");
    Ok(())
}

async fn a_write_happens_or_not(target: &Target) -> Outcome {
    let (a, b) = (target.handle().await?, target.handle().await?);
    let mut moments = Moments::new();
    while moments.more() {
        let key = target.name("write");
        let version = a.register(&*key).write("old").await?;
        let register = a.register(&*key);
        let done = moments.cut(register.write_if(Expect::Version(version), "new")).await?;
        old_or_new(&b.register(&*key), Some(b"new")).await?;
        let is_new = value(&b.register(&*key)).await?.as_deref() == Some(b"new");
        ensure!(done.transpose()?.is_none() || is_new, "what was confirmed is not there");
        // It was asked for once: after this one it cannot happen any more.
        let last = b.register(&*key).write("last").await?;
        let read = b.register(&*key).read().await?.map(|read| (read.value, read.version));
        ensure!(read == Some((b"last".to_vec(), last)), "the register holds {read:?}");
    }
    let mut moments = Moments::new();
    while moments.more() {
        let key = target.name("overwrite");
        a.register(&*key).write("old").await?;
        let register = a.register(&*key);
        moments.cut(register.write("new")).await?.transpose()?;
        old_or_new(&b.register(&*key), Some(b"new")).await?;
    }
    Ok(())
}

async fn an_update_happens_or_not(target: &Target) -> Outcome {
    let (a, b) = (target.handle().await?, target.handle().await?);
    let mut moments = Moments::new();
    while moments.more() {
        let key = target.name("update");
        a.register(&*key).write("old").await?;
        let register = a.register(&*key);
        let new = |_: Option<&[u8]>| Some(b"new".to_vec());
        moments.cut(register.update(new)).await?.transpose()?;
        old_or_new(&b.register(&*key), Some(b"new")).await?;
    }
    Ok(())
}

async fn a_deletion_happens_or_not(target: &Target) -> Outcome {
    let (a, b) = (target.handle().await?, target.handle().await?);
    let mut moments = Moments::new();
    while moments.more() {
        let key = target.name("delete");
        a.register(&*key).write("old").await?;
        let register = a.register(&*key);
        moments.cut(register.delete_if(Expect::Present)).await?.transpose()?;
        old_or_new(&b.register(&*key), None).await?;
    }
    Ok(())
}

async fn a_watch_leaves_nothing(target: &Target) -> Outcome {
    let (a, b, key) = (target.handle().await?, target.handle().await?, target.name("watch"));
    let register = a.register(&*key);
    let mut known = b.register(&*key).write("0").await?;
    let mut moments = Moments::new();
    while moments.more() {
        moments.cut(register.read()).await?.transpose()?;
    }
    let mut moments = Moments::new();
    while moments.more() {
        let changed = register.changed(Some(known), 3 * PATIENCE);
        let changed = moments.cut(changed).await?.transpose()?;
        ensure!(changed.is_none(), "it changed: {changed:?}");
        let watches = register.clone();
        let next = tokio::spawn(async move { watches.changed(Some(known), 3 * PATIENCE).await });
        known = b.register(&*key).write("1").await?;
        let seen = soon("the change", next).await?.expect("it does not panic")?;
        ensure!(seen.map(|read| read.version) == Some(known), "another change was seen");
    }
    Ok(())
}

async fn a_count_happens_or_not(target: &Target) -> Outcome {
    let (a, b) = (target.handle().await?, target.handle().await?);
    let mut moments = Moments::new();
    while moments.more() {
        let name = target.name("count");
        let latch = a.latch(&name, 5);
        moments.cut(latch.count_down()).await?.transpose()?;
        let left = soon("the count", b.latch(&name, 5).count_down()).await??;
        ensure!(left == 3 || left == 4, "{left} are missing after one count or two");
    }
    Ok(())
}

async fn a_latch_that_nobody_waits_for_opens(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("latch"));
    let latch = a.latch(&name, 1);
    let mut moments = Moments::new();
    while moments.more() {
        let open = moments.cut(latch.wait()).await?.transpose()?;
        ensure!(open.is_none(), "it is open: {open:?}");
    }
    b.latch(&name, 1).count_down().await?;
    soon("the opening", latch.wait()).await??;
    let mut moments = Moments::new();
    while moments.more() {
        moments.cut(latch.reset()).await?.transpose()?;
        soon("the count", b.latch(&name, 1).count_down()).await??;
    }
    Ok(())
}

async fn who_left_a_barrier_has_arrived_or_not(target: &Target) -> Outcome {
    let (a, b) = (target.handle().await?, target.handle().await?);
    let mut moments = Moments::new();
    while moments.more() {
        let name = target.name("barrier");
        let barrier = a.barrier(&name, 2);
        let alone = moments.cut(barrier.wait()).await?.transpose()?;
        ensure!(alone.is_none(), "one alone met: {alone:?}");
        let party = || {
            let barrier = b.barrier(&name, 2);
            tokio::spawn(async move { barrier.wait().await })
        };
        let (mut one, mut two) = (party(), party());
        let (met, left) = soon("a meeting", async {
            tokio::select! {
                met = &mut one => (met, two),
                met = &mut two => (met, one),
            }
        })
        .await?;
        met.expect("it does not panic")?;
        // Who is left waits for a fourth if the first counted, and has met already if not.
        let fourth = party();
        soon("the last meeting", left).await?.expect("it does not panic")?;
        fourth.abort();
    }
    Ok(())
}
