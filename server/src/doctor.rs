//! `leasehold doctor`: whether an engine keeps what it promises, and is set up to.
//!
//! It believes nothing: a short part of the conformance suite runs against the engine as it is.
//! What an engine declares absent has to be refused. What the cases leave behind is removed.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use leasehold::{Check, CheckVerdict, Engine, Guarantees, Modes, Told};
use leasehold_conformance::{Target, Verdict, cases, judge};
use serde_json::{Value, json};

use crate::cli::Global;
use crate::failure::REFUSED;
use crate::{connect, print};

/// What is proved: each promise once, in a few seconds, and nothing that loads the engine.
const CASES: &[&str] = &[
    "locks::one_holder_at_a_time",
    "locks::free_after_release",
    "locks::tokens_rise_from_holder_to_holder",
    "locks::a_wait_ends_in_time",
    "locks::waiters_are_served_in_order",
    "locks::sharers_together_writers_alone",
    "locks::permits_are_counted",
    "locks::several_locks_all_or_none",
    "locks::a_deadlock_is_named",
    "locks::inspect_tells_holders",
    "losses::a_hold_is_renewed",
    "losses::without_renewal_it_ends",
    "losses::a_stale_release_harms_nobody",
    "losses::a_stale_token_is_refused_by_registers",
    "losses::force_release_is_told",
    "losses::lock_delay_after_a_loss",
    "registers::compare_and_set",
    "registers::a_change_wakes_who_watches",
    "queues::what_is_published_is_delivered",
    "queues::competing_consumers_share",
    "queues::priorities_go_first",
    "queues::a_delayed_message_waits",
    "queues::an_old_message_is_gone",
    "queues::a_repeated_id_is_taken_once",
    "queues::one_key_one_at_a_time",
    "queues::a_full_queue_refuses",
    "queues::a_topic_reaches_all_who_subscribed",
    "queues::inspect_counts",
    "settling::a_returned_message_comes_again_in_its_place",
    "settling::a_rejected_message_is_dead",
    "settling::an_ack_counts_once",
    "settling::a_lost_lease_makes_the_ack_stale",
    "settling::an_exclusive_consumer_is_alone",
    "commit::everything_happens",
];

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
It takes locks, declares queues and writes registers whose names begin with `conformance/`, and \
removes them. Exit code 1: something failed.")]
pub struct DoctorArgs {
    /// The engine; as --on says if left out
    url: Option<String>,
}

/// Looks, proves and says so.
pub async fn run(arguments: DoctorArgs, global: &Global) -> Result<ExitCode> {
    let on = arguments.url.unwrap_or_else(|| global.on.clone());
    let global = Global { on, ..global.clone() };
    let handle = connect::open(&global, Some(connect::label("doctor"))).await?;
    let guarantees = handle.guarantees().context("ask what it promises")?;
    let engine = handle.engine().clone();
    let checks = match &engine.checks {
        Some(checks) => checks.checks().await,
        None => Vec::new(),
    };
    let proofs = prove(&engine).await?;
    let found = Found { engine, guarantees, checks, proofs };
    print::either(global.json, &found.json(), || found.text())?;
    Ok(if found.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}

/// Runs the cases; each handle is a session of its own.
async fn prove(engine: &Engine) -> Result<Vec<(String, Verdict)>> {
    let engine = engine.clone();
    let target = Target::engine(move || std::future::ready(Ok(engine.clone())));
    let bar = print::progress(Some(CASES.len() as u64), "proving");
    let mut proofs = Vec::new();
    for case in cases().into_iter().filter(|case| CASES.contains(&&*case.name)) {
        let verdict = judge(&target, &case).await;
        proofs.push((case.name, verdict));
        bar.inc(1);
    }
    bar.finish_and_clear();
    target.tidy_up().await.context("remove what the cases left behind")?;
    Ok(proofs)
}

/// What was found.
struct Found {
    engine: Engine,
    guarantees: Guarantees,
    checks: Vec<Check>,
    proofs: Vec<(String, Verdict)>,
}

/// A verdict as people and programs read it: the word, and why.
fn words(verdict: &Verdict) -> (&'static str, &str) {
    match verdict {
        Verdict::Passed => ("ok", ""),
        Verdict::Refused => ("refused", "declared absent"),
        Verdict::Absent => ("absent", "declared absent, nothing to refuse"),
        Verdict::NotRun(why) | Verdict::Failed(why) => ("failed", why),
    }
}

impl Found {
    /// How many checks and proofs failed.
    fn failed(&self) -> usize {
        let checks = self.checks.iter().filter(|check| check.verdict == CheckVerdict::Failed);
        let proofs = self.proofs.iter().filter(|(_, verdict)| words(verdict).0 == "failed");
        checks.count() + proofs.count()
    }

    /// The label is about locks.
    fn label(&self) -> Option<&'static str> {
        (self.guarantees.modes > Modes::No).then(|| self.guarantees.label())
    }

    fn halves(&self) -> &'static str {
        match (&self.engine.locks, &self.engine.queues) {
            (Some(_), Some(_)) => "locks and queues",
            (Some(_), None) => "locks",
            _ => "queues",
        }
    }

    fn json(&self) -> Value {
        let checks = self.checks.iter().map(|check| {
            let verdict = check.verdict.to_string();
            json!({ "what": check.what, "verdict": verdict, "why": check.why })
        });
        let proofs = self.proofs.iter().map(|(case, verdict)| {
            let (word, why) = words(verdict);
            json!({ "case": case, "verdict": word, "why": why })
        });
        let levels = self.guarantees.all().map(|told| (told.name.to_owned(), told.level.into()));
        json!({
            "on": connect::without_user(&self.engine.url),
            "has": self.halves(),
            "checks": checks.collect::<Vec<_>>(),
            "proofs": proofs.collect::<Vec<_>>(),
            "guarantees": Value::Object(levels.collect()),
            "label": self.label(),
            "failed": self.failed(),
        })
    }

    fn text(&self) -> String {
        let mut parts = vec![print::facts(&[
            ("engine", connect::without_user(&self.engine.url)),
            ("has", self.halves().to_owned()),
        ])];
        if !self.checks.is_empty() {
            let row =
                |check: &Check| [check.what.clone(), check.verdict.to_string(), check.why.clone()];
            parts.push(print::table(["CHECK", "IS", "WHY"], self.checks.iter().map(row)));
        }
        let row = |(case, verdict): &(String, Verdict)| {
            let (word, why) = words(verdict);
            [case.replace("::", ": ").replace('_', " "), word.to_owned(), why.to_owned()]
        };
        parts.push(print::table(["PROOF", "IS", "WHY"], self.proofs.iter().map(row)));
        let row = |told: Told| {
            let level = if told.is_weakest { told.level.to_lowercase() } else { told.level.into() };
            [told.name.replace('_', " "), level, told.means.to_owned()]
        };
        parts.push(print::table(
            ["GUARANTEE", "LEVEL", "WHICH MEANS"],
            self.guarantees.all().map(row),
        ));
        if let Some(label) = self.label() {
            parts.push(format!("its locks are: {label}"));
        }
        parts.push(match self.failed() {
            0 => "nothing failed".to_owned(),
            failed => format!("{failed} failed"),
        });
        parts.join("\n\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_exists() {
        let all: Vec<String> = cases().into_iter().map(|case| case.name).collect();
        for case in CASES {
            assert!(all.iter().any(|known| known == case), "{case} is no case");
        }
    }
}
