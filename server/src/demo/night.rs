//! The nightly report: every worker tries, one runs it.
//!
//! The job's lock keeps the crowd out, and `at_least` keeps it out for a while after a short run,
//! so clocks that differ do no harm. Neither can know of a worker that comes late, sees the night
//! and finds the lock free again; that takes a memory. So the job remembers the last night reported
//! in a register, written under the job's own token: a runner that was presumed dead is refused.

use std::sync::Arc;
use std::time::Duration;

use leasehold::{Error, ErrorKind, Register};

use super::desk::Desk;
use super::ledger::{Fact, now_us};

/// The shop writes the number of the night here.
pub const NIGHT: &str = "night";
/// The number of the last night reported.
pub const REPORTED: &str = "nightly-report";
const JOB: &str = "nightly-report";
/// The lock behind the job, whose token guards the register.
const JOB_LOCK: &str = "job/nightly-report";
/// How long one night's job keeps the others out.
const AT_LEAST: Duration = Duration::from_millis(500);
/// How long a runner that died keeps them out.
const AT_MOST: Duration = Duration::from_secs(3);
/// How long the report takes to write.
const WORK: Duration = Duration::from_millis(50);
const WATCH: Duration = Duration::from_secs(20);

/// The number in a register, and its version.
pub async fn number(register: &Register) -> Result<(u32, Option<u64>), Error> {
    let Some(now) = register.read().await? else { return Ok((0, None)) };
    let text = String::from_utf8_lossy(&now.value);
    Ok((text.parse().unwrap_or(0), Some(now.version)))
}

/// Waits for nights and tries to report each, for ever.
pub async fn run(desk: Arc<Desk>) -> anyhow::Result<()> {
    loop {
        if let Err(error) = nights(&desk).await {
            // A ledger that cannot be written ends the worker; the server's absence does not.
            let error = error.downcast::<Error>()?;
            tracing::info!(%error, "the nights go on");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn nights(desk: &Desk) -> anyhow::Result<()> {
    let night = desk.at.register(NIGHT);
    let reported = desk.at.register(REPORTED);
    let (mut tonight, mut version) = number(&night).await?;
    loop {
        while number(&reported).await?.0 < tonight {
            if try_report(desk, tonight).await?.is_none() {
                // Somebody is at it: wait for the report, or for the lock to run out.
                let known = number(&reported).await?;
                if known.0 < tonight {
                    reported.changed(known.1, AT_LEAST).await?;
                }
            }
        }
        night.changed(version, WATCH).await?;
        (tonight, version) = number(&night).await?;
    }
}

async fn try_report(desk: &Desk, night: u32) -> anyhow::Result<Option<()>> {
    let job = desk.at.job(JOB).at_least(AT_LEAST).at_most(AT_MOST);
    let ran = job.run(async |token| report(desk, night, token).await).await?;
    ran.transpose()
}

async fn report(desk: &Desk, night: u32, token: u64) -> anyhow::Result<()> {
    let reported = desk.at.register(REPORTED).fenced(JOB_LOCK, token);
    if number(&reported).await?.0 >= night {
        return Ok(());
    }
    desk.ledger.enter(&Fact::Night { at: now_us(), night, token })?;
    tokio::time::sleep(WORK).await;
    match reported.write(night.to_string()).await {
        Ok(version) => {
            let at = now_us();
            Ok(desk.ledger.enter(&Fact::Reported { at, night, token, version })?)
        }
        Err(Error { kind: ErrorKind::Stale, .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
