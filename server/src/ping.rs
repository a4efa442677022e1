//! `leasehold ping`: whether an engine answers, for health checks and people.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use leasehold::ErrorKind;
use serde_json::json;
use tokio::time::timeout;

use crate::cli::Global;
use crate::{connect, print};

/// An engine that is slower is of no use.
const PATIENCE: Duration = Duration::from_secs(5);
/// A name to look at; it need not exist.
const NAME: &str = "leasehold-ping";

/// Asks it something small.
pub async fn run(global: &Global) -> Result<ExitCode> {
    let shown = connect::without_user(&global.on);
    let asked = || format!("ping {shown}");
    let began = Instant::now();
    let answer = timeout(PATIENCE, ask(global)).await;
    match answer.context("no answer within 5 s; look at its log").with_context(asked)? {
        // Whoever is refused has been answered.
        Err(error) if is_refusal(&error) => {}
        answer => answer.with_context(asked)?,
    }
    let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    print::either(global.json, &json!({ "on": shown, "answered_us": micros }), || {
        format!("{shown} answers, in {:.1} ms", micros as f64 / 1e3)
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(global: &Global) -> Result<()> {
    let handle = connect::open(global, None).await?;
    handle.inspect(NAME).await?;
    Ok(())
}

fn is_refusal(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<leasehold::Error>();
    error.is_some_and(|error| {
        matches!(
            error.kind,
            ErrorKind::Unauthenticated | ErrorKind::Forbidden | ErrorKind::Unsupported
        )
    })
}
