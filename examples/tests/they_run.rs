//! Every example runs to its end and says what its text promises.

use std::process::Command;

fn run(program: &str, says: &str) {
    let output = Command::new(program).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {text}{errors}");
    assert!(text.contains(says), "{program} says {text}");
}

#[test]
fn all() {
    run(env!("CARGO_BIN_EXE_guard_row"), "is stale");
    run(env!("CARGO_BIN_EXE_nightly"), "1 of 5 nodes ran it");
    run(env!("CARGO_BIN_EXE_workers"), "rejected in tasks");
    run(env!("CARGO_BIN_EXE_order_flow"), "2 left");
    run(env!("CARGO_BIN_EXE_stock"), "10 were sold");
    run(env!("CARGO_BIN_EXE_one_at_a_time"), "40 of 40 counted");
    run(env!("CARGO_BIN_EXE_handed_on"), "20 of 20 orders handled");
}
