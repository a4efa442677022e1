//! Versioned values.

use std::time::Duration;

use leasehold_api::{ErrorKind, Expect, Watching};

use super::{SHORT, cases, ensure, gives, refused, soon, until};
use crate::{Outcome, PATIENCE, Target};

cases! { "registers" needs Registers::Versioned:
    versions_rise;
    compare_and_set;
    concurrent_updates_all_count;
    a_value_vanishes_in_time;
    a_change_wakes_who_watches needs Watching::Woken;
    a_watch_ends_in_time needs Watching::Woken;
    bad_keys_and_values_are_refused;
}

async fn versions_rise(target: &Target) -> Outcome {
    let (a, key) = (target.handle().await?, target.name("versions"));
    let register = a.register(&*key);
    ensure!(register.read().await?.is_none(), "a register that nobody wrote has a value");
    let mut last = 0;
    for i in 0..5u8 {
        let version = register.write([i, 0, 255]).await?;
        ensure!(version > last, "version {version} after {last}");
        let read = register.read().await?.map(|r| (r.value, r.version));
        ensure!(read == Some((vec![i, 0, 255], version)), "read {read:?}");
        last = version;
    }
    let gone = register.delete_if(Expect::Version(last)).await?;
    ensure!(gone > last, "a deletion has version {gone} after {last}");
    ensure!(register.read().await?.is_none(), "a deleted register has a value");
    ensure!(register.write("again").await? > gone, "the version fell after a deletion");
    Ok(())
}

async fn compare_and_set(target: &Target) -> Outcome {
    let (a, key) = (target.handle().await?, target.name("cas"));
    let register = a.register(&*key);
    refused(register.write_if(Expect::Present, "x").await, ErrorKind::Conflict)?;
    let first = register.write_if(Expect::Absent, "1").await?;
    refused(register.write_if(Expect::Absent, "x").await, ErrorKind::Conflict)?;
    let second = register.write_if(Expect::Version(first), "2").await?;
    refused(register.write_if(Expect::Version(first), "x").await, ErrorKind::Conflict)?;
    refused(register.delete_if(Expect::Version(first)).await, ErrorKind::Conflict)?;
    let read = register.read().await?.map(|r| (r.value, r.version));
    ensure!(read == Some((b"2".to_vec(), second)), "read {read:?}");
    Ok(())
}

async fn concurrent_updates_all_count(target: &Target) -> Outcome {
    let key = target.name("count");
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let register = target.handle().await?.register(&*key);
        tasks.push(tokio::spawn(async move {
            for _ in 0..25 {
                let add = |value: Option<&[u8]>| {
                    let text = String::from_utf8_lossy(value.unwrap_or(b"0")).into_owned();
                    Some((text.parse::<u32>().unwrap_or(0) + 1).to_string().into_bytes())
                };
                register.update(add).await?;
            }
            Ok::<(), leasehold_api::Error>(())
        }));
    }
    for task in tasks {
        task.await.expect("it does not panic")?;
    }
    let value = target.handle().await?.register(&*key).read().await?.map(|r| r.value);
    ensure!(value.as_deref() == Some(b"100"), "the sum is {value:?}");
    Ok(())
}

async fn a_value_vanishes_in_time(target: &Target) -> Outcome {
    let (a, key) = (target.handle().await?, target.name("ttl"));
    a.register(&*key).ttl(SHORT).write("x").await?;
    let read = a.register(&*key).read().await?;
    ensure!(
        read.is_some_and(|r| r.left.is_some_and(|left| left <= SHORT)),
        "the time is not shown"
    );
    until("its end", async || Ok(a.register(&*key).read().await?.is_none())).await?;
    if gives(&a, Watching::Woken)? {
        let version = a.register(&*key).ttl(SHORT).write("x").await?;
        let gone = soon("its end", a.register(&*key).changed(Some(version), 10 * SHORT)).await??;
        ensure!(gone.is_none(), "it is still there: {gone:?}");
    }
    Ok(())
}

async fn a_change_wakes_who_watches(target: &Target) -> Outcome {
    let (a, b, key) = (target.handle().await?, target.handle().await?, target.name("watch"));
    let mut known = None;
    for i in 0..5u8 {
        let register = a.register(&*key);
        let watch = tokio::spawn(async move { register.changed(known, 3 * PATIENCE).await });
        let version = b.register(&*key).write([i]).await?;
        let seen = soon("the change", watch).await?.expect("it does not panic")?;
        let seen = seen.map(|r| (r.value, r.version));
        ensure!(seen == Some((vec![i], version)), "change {i} was seen as {seen:?}");
        known = Some(version);
    }
    Ok(())
}

async fn a_watch_ends_in_time(target: &Target) -> Outcome {
    let (a, key) = (target.handle().await?, target.name("quiet"));
    let version = a.register(&*key).write("x").await?;
    let watch = a.register(&*key).changed(Some(version), Duration::from_millis(30)).await?;
    ensure!(watch.is_some_and(|r| r.version == version), "a quiet watch shows something else");
    Ok(())
}

async fn bad_keys_and_values_are_refused(target: &Target) -> Outcome {
    let (a, key) = (target.handle().await?, target.name("bad"));
    refused(a.register("").write("x").await, ErrorKind::Invalid)?;
    refused(a.register(vec![b'k'; 1025]).write("x").await, ErrorKind::Invalid)?;
    refused(a.register(&*key).write(vec![0; (1 << 20) + 1]).await, ErrorKind::Invalid)?;
    refused(a.register(&*key).ttl(Duration::ZERO).write("x").await, ErrorKind::Invalid)?;
    ensure!(a.register(&*key).read().await?.is_none(), "a refused write was carried out");
    Ok(())
}
