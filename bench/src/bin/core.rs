//! The benchmark of core, journal and node. See `docs/benchmarks/core.md`.
//!
//! `core [speed] [durable] [waiting] [many] [--millions N] [--kind KIND] [--json FILE] [--dir DIR]`

use std::path::PathBuf;
use std::time::Duration;

use leasehold_bench::{durable, figures::Figures, machine, many, speed, waiting};

fn main() {
    let mut parts: Vec<String> = Vec::new();
    let (mut json, mut directory, mut kind, mut millions) = (None, None, None, 5u64);
    let list: Vec<String> = std::env::args().skip(1).collect();
    if list.first().is_some_and(|first| first == "child") {
        return waiting::child(&list[1..]);
    }
    let mut arguments = list.into_iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| usage("a value is missing"));
        match argument.as_str() {
            "--json" => json = Some(PathBuf::from(value())),
            "--kind" => kind = Some(value()),
            "--dir" => directory = Some(PathBuf::from(value())),
            "--millions" => {
                millions = value().parse().unwrap_or_else(|_| usage("--millions takes a number"));
            }
            "speed" | "durable" | "waiting" | "many" => parts.push(argument),
            other => usage(&format!("unknown argument {other}")),
        }
    }
    let all = parts.is_empty();
    let wants = |part: &str| all || parts.iter().any(|p| p == part);
    let scratch = match directory {
        Some(directory) => tempfile::tempdir_in(directory),
        None => tempfile::tempdir(),
    };
    let scratch = scratch.expect("a scratch directory");
    let mut figures = Figures::default();
    println!(
        "median [least – most] of rounds; one shard; files may be open: {}",
        machine::files_max()
    );
    if wants("speed") {
        machine::pin(&[1]);
        speed::run(scratch.path(), &mut figures, 7, 400_000);
        machine::pin(&[0, 1]);
    }
    if wants("durable") {
        durable::run(scratch.path(), &mut figures, 3, Duration::from_millis(700));
    }
    if wants("many") {
        many::run(scratch.path(), &mut figures);
    }
    if wants("waiting") {
        waiting::run(scratch.path(), &mut figures, millions, kind.as_deref());
    }
    if let Some(path) = json {
        std::fs::write(&path, format!("{:#}\n", figures.to_json()))
            .expect("the figures are written");
    }
}

fn usage(why: &str) -> ! {
    eprintln!(
        "{why}\nusage: core [speed] [durable] [waiting] [many] [--millions N] [--kind KIND] \
         [--json FILE] [--dir DIR]"
    );
    std::process::exit(2);
}
