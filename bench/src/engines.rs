//! Every engine over another system beside that system's own best way, against a real server that
//! is started for it.
//!
//! The server has one processor, this program the other, and ways take turns within each round, so
//! that a busy moment of the machine strikes all of them. Locks are measured uncontended, where
//! the clients are tasks of one process with a lock each, and contended, where each client has
//! connections of its own, as processes have.

mod locks;
mod ours;
mod own;
mod queues;
pub mod recovery;
mod requests;
mod systems;
mod ways;

use std::future::Future;
use std::time::Duration;

use crate::figures::Figures;
use crate::machine;
use systems::{SYSTEMS, System};
use ways::Way;

/// How often each is measured.
const ROUNDS: usize = 3;
/// Clients with a lock each.
const CLIENTS: [usize; 2] = [1, 64];
/// Clients that want one lock.
const CROWD: usize = 16;
/// Consumers of one queue.
const WORKERS: [usize; 2] = [1, 16];
/// Within this a load that is bounded in time has ended, or something hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// What one way showed in one round: what, in which unit, how much.
type Shown = Vec<(&'static str, &'static str, f64)>;

/// Measures everything, `time` each.
pub fn run(figures: &mut Figures, time: Duration) {
    // One thread: a second one would compete with the server for its processor.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    for system in SYSTEMS {
        let cases = cases(system);
        if !cases.iter().any(|(title, _)| figures.wants(title)) {
            continue;
        }
        let Some(start) = system.start else {
            eprintln!("{0}: not run: build leasehold-bench with --features {0}", system.name);
            continue;
        };
        // What is started now inherits the processor.
        machine::pin(&[0]);
        let server = start();
        machine::pin(&[1]);
        for (title, case) in cases {
            if figures.wants(&title) {
                let url = &server.url;
                runtime.block_on(compare(figures, &title, case, system, url, time));
            }
        }
        drop(server);
        machine::pin(&[0, 1]);
    }
}

/// What is done.
#[derive(Debug, Clone, Copy)]
enum Case {
    /// So many clients, each with a lock of its own.
    Alone(usize),
    /// Many clients, one lock.
    Crowd,
    /// The holder's process is killed.
    Killed,
    /// So many consumers of one queue.
    Queue(usize),
}

fn cases(system: &System) -> Vec<(String, Case)> {
    let mut cases = Vec::new();
    if !system.locks.is_empty() {
        let one = |count| (format!("{}: {count} clients, own locks", system.name), count);
        cases.extend(CLIENTS.map(one).map(|(title, count)| (title, Case::Alone(count))));
        cases.push((format!("{}: {CROWD} clients, one lock", system.name), Case::Crowd));
        cases.push((format!("{}: holder killed", system.name), Case::Killed));
    }
    if !system.queues.is_empty() {
        let one = |count| (format!("{}: queue, {count} consumers", system.name), count);
        cases.extend(WORKERS.map(one).map(|(title, count)| (title, Case::Queue(count))));
    }
    cases
}

async fn compare(
    figures: &mut Figures,
    title: &str,
    case: Case,
    system: &System,
    url: &str,
    time: Duration,
) {
    let ways: Vec<Way> = match case {
        Case::Queue(_) => system.queues.to_vec(),
        Case::Alone(_) => system.locks.iter().copied().filter(|way| way.is_for_one()).collect(),
        Case::Killed => system.locks.iter().copied().filter(|way| way.recovers()).collect(),
        Case::Crowd => system.locks.to_vec(),
    };
    let mut rounds: Vec<Vec<Shown>> = vec![Vec::new(); ways.len()];
    for round in 0..ROUNDS {
        for (way, rounds) in ways.iter().zip(&mut rounds) {
            let name = format!("{title}, {round}").replace([' ', ':', ','], "-");
            rounds.push(
                within(async {
                    match case {
                        Case::Alone(clients) => locks::alone(*way, url, &name, clients, time).await,
                        Case::Crowd => locks::crowd(*way, url, &name, CROWD, time).await,
                        Case::Killed => recovery::killed(*way, url, &name).await,
                        Case::Queue(workers) => queues::run(*way, url, &name, workers, time).await,
                    }
                })
                .await,
            );
        }
    }
    show(figures, title, &ways, &rounds);
}

async fn within<T>(measuring: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, measuring).await.expect("it hangs")
}

/// Each way's figures, and the first way's as a ratio to every other's.
fn show(figures: &mut Figures, title: &str, ways: &[Way], rounds: &[Vec<Shown>]) {
    let Some(first) = rounds.first().and_then(|rounds| rounds.first()) else { return };
    for (place, (what, unit, _)) in first.iter().enumerate() {
        let values = |rounds: &Vec<Shown>| -> Vec<f64> {
            rounds.iter().map(|shown| shown[place].2).collect()
        };
        for (way, rounds) in ways.iter().zip(rounds) {
            let values = values(rounds);
            // Not every system counts everything.
            if values.iter().all(|value| value.is_finite()) {
                figures.plain(format!("{title}: {what}, {}", way.name()), unit, values);
            }
        }
        if !unit.ends_with("/s") {
            continue;
        }
        let ours = values(&rounds[0]);
        for (way, rounds) in ways.iter().zip(rounds).skip(1) {
            let ratios = ours.iter().zip(values(rounds)).map(|(a, b)| a / b).collect();
            let (ours, other) = (ways[0].name(), way.name());
            figures.plain(format!("{title}: {what}, {ours} ÷ {other}"), "×", ratios);
        }
    }
}
