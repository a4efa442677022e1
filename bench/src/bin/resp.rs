//! The RESP door beside redis-server. See `docs/benchmarks/resp.md`.
//!
//! `resp [--seconds N] [--json FILE]`; the server is the binary `leasehold` beside this one,
//! or the one that `--server` names; `redis-server` and `taskset` are to be installed.

use std::path::PathBuf;
use std::time::Duration;

use leasehold_bench::{figures::Figures, product, resp};

fn main() {
    let (mut seconds, mut json, mut server) = (2.0, None, product::server_beside());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().unwrap_or_else(|| usage("a value is missing"));
        match argument.as_str() {
            "--seconds" => seconds = value.parse().unwrap_or_else(|_| usage("a number, please")),
            "--server" => server = PathBuf::from(value),
            "--json" => json = Some(PathBuf::from(value)),
            other => usage(&format!("unknown argument {other}")),
        }
    }
    if !server.exists() {
        usage(&format!(
            "{} is missing: cargo build --release -p leasehold-server",
            server.display()
        ));
    }
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let mut figures = Figures::default();
    resp::run(&server, scratch.path(), &mut figures, Duration::from_secs_f64(seconds));
    if let Some(path) = json {
        std::fs::write(&path, format!("{:#}\n", figures.to_json()))
            .expect("the figures are written");
    }
}

fn usage(why: &str) -> ! {
    eprintln!("{why}\nusage: resp [--seconds N] [--json FILE]");
    std::process::exit(2);
}
