//! The machine stops: at every disk operation of a script, at random moments, and again while it
//! recovers. Whatever clients were told before must be found so afterwards.
//!
//! `LEASEHOLD_SEEDS` says how many random histories are tried, `LEASEHOLD_SEED` picks the first;
//! `LEASEHOLD_SCRIPTS` says how many scripts are stopped at every one of their disk operations.

use leasehold_node::{Durability, Options};
use leasehold_simulator::disk::{Crash, SimDisk};
use leasehold_simulator::verdict::{Lawful, Ledger};
use leasehold_simulator::workload::{Habits, Simulation, small_options};

const MODES: [Crash; 4] = [Crash::KeepAll, Crash::LoseAll, Crash::Some, Crash::Torn];

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Adds what was checked to a sum, so that a test can say that it was not for nothing.
fn add(sum: &mut Ledger, of: &Ledger) {
    for (what, count) in &of.checked {
        *sum.checked.entry(what).or_default() += count;
    }
}

/// A script runs into a stop at one operation, the machine comes back, and work goes on.
fn stop_at(seed: u64, stop: u64, turns: u64, mode: Crash) -> Lawful<Ledger> {
    let mut simulation = Simulation::new(seed, Habits::default());
    simulation.disk.stop_at(stop);
    if simulation.open()? {
        simulation.turns(turns)?;
    }
    simulation.crash(mode);
    simulation.reopen()?;
    simulation.turns(8)?;
    simulation.compare_with_replay()?;
    Ok(simulation.ledger)
}

#[test]
fn any_disk_operation_may_be_the_last() {
    const TURNS: u64 = 200;
    let mut sum = Ledger::default();
    for seed in 0..number("LEASEHOLD_SCRIPTS", 2) {
        let mut whole = Simulation::new(seed, Habits::default());
        whole.open().and_then(|_| whole.turns(TURNS)).expect("without a fault nothing fails");
        for stop in 0..whole.disk.operations() {
            let mode = MODES[((seed + stop) % 4) as usize];
            let ledger = stop_at(seed, stop, TURNS, mode)
                .unwrap_or_else(|error| panic!("seed {seed} stop {stop} {mode:?}: {error}"));
            add(&mut sum, &ledger);
        }
    }
    eprintln!("{:?}", sum.checked);
    assert!(sum.checked["lock"] > 1000 && sum.checked["found"] > 1000);
}

/// A long life with many deaths, some of them during recovery.
fn life(seed: u64) -> Lawful<Ledger> {
    // What no answer waited for survives only the death of the process: that is all that happens.
    let lazy = seed % 5 == 4;
    let durability = match (lazy, seed % 2) {
        (false, _) => Durability::Always,
        (true, 0) => Durability::None,
        (true, _) => Durability::Interval(2_000),
    };
    let options = Options { durability, ..small_options() };
    let publish_percent = 20 + seed % 3 * 12;
    let mut simulation =
        Simulation::new(seed, Habits { options, publish_percent, ..Habits::default() });
    simulation.open()?;
    for _ in 0..6 {
        let mode = if lazy { Crash::KeepAll } else { MODES[simulation.chance.below(4) as usize] };
        if simulation.chance.percent(60) {
            let operations = simulation.disk.operations() + simulation.chance.below(400);
            simulation.disk.stop_at(operations);
        }
        let turns = 20 + simulation.chance.below(150);
        if simulation.turns(turns)? && simulation.chance.percent(10) {
            simulation.close(mode)?;
        } else {
            simulation.crash(mode);
        }
        if simulation.chance.percent(50) {
            die_again(&mut simulation, mode)?;
        }
        simulation.reopen()?;
    }
    simulation.turns(40)?;
    simulation.compare_with_replay()?;
    Ok(simulation.ledger)
}

/// Opens the store and stops the machine somewhere in it, or shortly after.
fn die_again(simulation: &mut Simulation<SimDisk>, mode: Crash) -> Lawful {
    let stop = simulation.chance.below(60);
    simulation.disk.stop_at(stop);
    if simulation.open()? {
        // What was unknown is not settled yet, so nobody may build on it: no traffic.
        simulation.compare_with_replay().ok();
    }
    simulation.crash(mode);
    Ok(())
}

#[test]
fn many_deaths_at_random_moments() {
    let first = number("LEASEHOLD_SEED", 0);
    let mut sum = Ledger::default();
    for seed in first..first + number("LEASEHOLD_SEEDS", 60) {
        let ledger = life(seed).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        add(&mut sum, &ledger);
    }
    eprintln!("{:?}", sum.checked);
}
