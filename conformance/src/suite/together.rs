//! Elections, latches, barriers, scheduled jobs.

use super::{SHORT, cases, ensure, in_line, soon};
use crate::{Failure, Outcome, Target};

cases! { "together":
    one_leads_and_others_observe needs
        Modes::Exclusive, Waiting::Unordered, Inspection::Holders, Watching::Woken;
    a_latch_opens needs Registers::Versioned, Watching::Woken;
    a_barrier_meets_again_and_again needs Registers::Versioned, Watching::Woken;
    a_job_runs_once needs Modes::Exclusive;
    a_short_job_stays_taken needs Modes::Exclusive, Waiting::Unordered;
}

async fn one_leads_and_others_observe(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("election"));
    let election = b.election(&name);
    ensure!(election.leader().await?.is_none(), "a leader before the election");
    let observer = election.clone();
    let first = tokio::spawn(async move { observer.changed(None).await });
    let office = a.election(&name).campaign("a").await?;
    let leader = soon("the first leader", first).await?.expect("it does not panic")?;
    let leader = leader.ok_or_else(|| Failure::Expected("nobody leads".to_owned()))?;
    ensure!((leader.value.as_str(), leader.token) == ("a", office.token()), "{leader:?} leads");
    ensure!(election.try_campaign("b").await?.is_none(), "two lead");
    let candidate = election.clone();
    let next = tokio::spawn(async move { candidate.campaign("b").await });
    let lock = leasehold_api::election_lock(&name);
    in_line(&a, &lock, 1).await?;
    let observer = a.election(&name);
    let change = tokio::spawn(async move { observer.changed(Some(leader.token)).await });
    office.release().await?;
    let office = soon("the next leader", next).await?.expect("it does not panic")?;
    soon("the change", change).await?.expect("it does not panic")?;
    let leader = a.election(&name).leader().await?.map(|l| (l.value, l.token));
    ensure!(leader == Some(("b".to_owned(), office.token())), "{leader:?} leads");
    Ok(office.release().await?)
}

async fn a_latch_opens(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("latch"));
    let latch = a.latch(&name, 3);
    let waits = tokio::spawn(async move { latch.wait().await });
    for left in [2, 1, 0] {
        if waits.is_finished() {
            let opened = waits.await.expect("it does not panic");
            let early = |()| Failure::Expected(format!("it opened with {} missing", left + 1));
            return Err(opened.map_or_else(Failure::from, early));
        }
        ensure!(b.latch(&name, 3).count_down().await? == left, "not {left} are missing");
    }
    soon("the opening", waits).await?.expect("it does not panic")?;
    soon("an open latch", a.latch(&name, 3).wait()).await??;
    Ok(())
}

async fn a_barrier_meets_again_and_again(target: &Target) -> Outcome {
    let name = target.name("barrier");
    let mut parties = Vec::new();
    for _ in 0..3 {
        let barrier = target.handle().await?.barrier(&name, 3);
        parties.push(tokio::spawn(async move {
            let mut rounds = Vec::new();
            for _ in 0..4 {
                rounds.push(barrier.wait().await?);
            }
            Ok::<_, leasehold_api::Error>(rounds)
        }));
    }
    for party in parties {
        let rounds = soon("the meetings", party).await?.expect("it does not panic")?;
        ensure!(rounds == [0, 1, 2, 3], "the rounds were {rounds:?}");
    }
    Ok(())
}

async fn a_job_runs_once(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("job"));
    let inner = a.job(&name).run(async |_| b.job(&name).run(async |_| ()).await).await?;
    let skipped = inner.transpose()?.map(|inner| inner.is_none());
    ensure!(skipped == Some(true), "it ran twice at a time");
    Ok(())
}

async fn a_short_job_stays_taken(target: &Target) -> Outcome {
    let (a, b, name) = (target.handle().await?, target.handle().await?, target.name("nightly"));
    let began = std::time::Instant::now();
    let ran = a.job(&name).at_least(SHORT).run(async |_| 1).await?;
    ensure!(ran == Some(1), "it did not run");
    let lock = b.lock(format!("job/{name}"));
    soon("the next night", lock.acquire()).await??.release().await?;
    ensure!(began.elapsed() >= SHORT, "it was free after {:?}", began.elapsed());
    Ok(())
}
