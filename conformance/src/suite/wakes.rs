//! F11: a wake-up that comes between a failed try and the wait must not be missed.
//!
//! Who releases and who waits start together, and each lets a random time pass first, so that the
//! release falls before the wait, into its beginning, and after it. A missed wake-up shows as a
//! wait that does not end: no lock runs out and no watch comes back within the time a case has.

use std::time::Duration;

use leasehold_api::{Error, QueueConfig};

use super::queues::queue;
use super::{cases, ensure, soon};
use crate::{Failure, Outcome, PATIENCE, Target};

cases! { "wakes":
    an_unlock_wakes_who_begins_to_wait needs Modes::Exclusive, Waiting::Unordered;
    an_unlock_wakes_all_sharers needs Modes::All, Waiting::Unordered;
    a_write_wakes_who_begins_to_watch needs Registers::Versioned, Watching::Woken;
    a_publish_wakes_who_begins_to_receive needs Queues::Acked;
}

const ROUNDS: u32 = 150;
/// About as long as a request over HTTP takes, in turns of a spinning loop.
const SPINS_MAX: u64 = 300_000;

/// Chance that is the same in every run; the scheduler adds its own.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A time to let pass: often none at all.
    fn pause(&mut self) -> Pause {
        match self.next() % 3 {
            0 => Pause::Yields(self.next() % 4),
            _ => Pause::Spins(self.next() % SPINS_MAX),
        }
    }
}

#[derive(Clone, Copy)]
enum Pause {
    Yields(u64),
    Spins(u64),
}

impl Pause {
    async fn pass(self) {
        match self {
            Self::Yields(yields) => {
                for _ in 0..yields {
                    tokio::task::yield_now().await;
                }
            }
            Self::Spins(spins) => (0..spins).for_each(|_| std::hint::spin_loop()),
        }
    }
}

/// Does something after a pause, in a task of its own.
fn later<T: Send + 'static>(
    pause: Pause,
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> tokio::task::JoinHandle<Result<T, Error>> {
    tokio::spawn(async move {
        pause.pass().await;
        work.await
    })
}

async fn an_unlock_wakes_who_begins_to_wait(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("wake"));
    let mut chance = Chance(0x5eed_0011);
    for round in 0..ROUNDS {
        let guard = soon("the lock", a.lock(&*name).acquire()).await??;
        let failed = b.lock(&*name).try_acquire().await?;
        ensure!(failed.is_none(), "two hold it in round {round}");
        let releasing = later(chance.pause(), guard.release());
        chance.pause().pass().await;
        let (what, lock) = (format!("the wake-up of round {round}"), b.lock(&*name));
        soon(&what, lock.acquire()).await??.release().await?;
        releasing.await.expect("it does not panic")?;
    }
    Ok(())
}

async fn an_unlock_wakes_all_sharers(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("wake-all"));
    let mut chance = Chance(0x5eed_0012);
    for round in 0..ROUNDS / 3 {
        let guard = soon("the lock", a.lock(&*name).acquire()).await??;
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let lock = b.lock(&*name).shared();
                later(chance.pause(), async move {
                    match lock.try_acquire().await? {
                        Some(guard) => Ok(guard),
                        None => lock.acquire().await,
                    }
                })
            })
            .collect();
        chance.pause().pass().await;
        guard.release().await?;
        for one in waiting {
            let woken = soon(&format!("a wake-up of round {round}"), one).await?;
            woken.expect("it does not panic")?.release().await?;
        }
    }
    Ok(())
}

async fn a_write_wakes_who_begins_to_watch(target: &Target) -> Outcome {
    let (a, b, key) = (target.handle().await?, target.handle().await?, target.name("wake"));
    let (writes, watches) = (a.register(&*key), b.register(&*key));
    let mut chance = Chance(0x5eed_0013);
    for round in 0..ROUNDS {
        let known = watches.read().await?.map(|read| read.version);
        let register = writes.clone();
        let writing = later(chance.pause(), async move { register.write("x").await });
        chance.pause().pass().await;
        let woken = watches.changed(known, 3 * PATIENCE);
        let seen = soon(&format!("the wake-up of round {round}"), woken).await??;
        let written = writing.await.expect("it does not panic")?;
        ensure!(seen.map(|read| read.version) == Some(written), "another change was seen");
    }
    Ok(())
}

async fn a_publish_wakes_who_begins_to_receive(target: &Target) -> Outcome {
    let (_a, queue) = queue(target, "wake", QueueConfig::default()).await?;
    let other = target.handle().await?.queue(queue.name());
    let mut chance = Chance(0x5eed_0014);
    for round in 0..ROUNDS {
        ensure!(other.receive(Duration::ZERO).await?.is_none(), "something is left over");
        let sender = queue.clone();
        let publishing = later(chance.pause(), async move { sender.publish("x").await });
        chance.pause().pass().await;
        let what = format!("the wake-up of round {round}");
        let came = soon(&what, other.receive(3 * PATIENCE)).await??;
        came.ok_or_else(|| Failure::Expected("it gave up".to_owned()))?.ack().await?;
        publishing.await.expect("it does not panic")?;
    }
    Ok(())
}
